// SPDX-License-Identifier: MIT OR Apache-2.0
//! The service's named limits. A refusal carries the name of the setting.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use pli_domain::{AccountId, UnixMillis};
use pli_runtime::limits::{Limit, Limited};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::config::Config;

/// When to ask again where too many wait.
const WAITS_RETRY_AFTER_MS: u32 = 1_000;

/// The limits of one process.
pub(crate) struct Limits {
    pub opened: Limit<IpAddr>,
    pub joined: Limit<AccountId>,
    pub calls: Limit<IpAddr>,
    pub open: OpenNow,
    waits: Semaphore,
}

impl Limits {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            opened: Limit::new("rendezvous_opened_per_address", config.rendezvous_opened_per_address),
            joined: Limit::new("rendezvous_joined_per_account", config.rendezvous_joined_per_account),
            calls: Limit::new("rendezvous_calls_per_address", config.rendezvous_calls_per_address),
            open: OpenNow::new(config.rendezvous_open_max),
            waits: Semaphore::new(config.rendezvous_waits_max),
        }
    }

    /// Takes the place of one that waits.
    pub(crate) fn wait(&self) -> Result<SemaphorePermit<'_>, Limited> {
        let full = Limited { limit: "rendezvous_waits_max", retry_after_ms: WAITS_RETRY_AFTER_MS };
        self.waits.try_acquire().map_err(|_| full)
    }
}

/// When each rendezvous that was opened here ends, oldest first; at most so many as may be open.
pub(crate) struct OpenNow {
    max: usize,
    ends: Mutex<VecDeque<UnixMillis>>,
}

impl OpenNow {
    fn new(max: usize) -> Self {
        Self { max, ends: Mutex::default() }
    }

    /// Counts one that begins now. One that is asked for again is counted again.
    pub(crate) fn take(&self, now: UnixMillis, expires_at: UnixMillis) -> Result<(), Limited> {
        // No code that can panic runs under this lock.
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        while ends.front().is_some_and(|end| *end <= now) {
            ends.pop_front();
        }
        match ends.front() {
            Some(first) if ends.len() >= self.max => {
                let wait = u32::try_from(first.since(now).as_millis()).unwrap_or(u32::MAX).max(1);
                Err(Limited { limit: "rendezvous_open_max", retry_after_ms: wait })
            }
            _ => {
                ends.push_back(expires_at);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_open_and_one_that_ends_makes_room() {
        let open = OpenNow::new(2);
        let at = UnixMillis;
        assert_eq!(open.take(at(0), at(100)), Ok(()));
        assert_eq!(open.take(at(10), at(110)), Ok(()));
        let refused = open.take(at(20), at(120)).expect_err("two are open");
        assert_eq!(refused, Limited { limit: "rendezvous_open_max", retry_after_ms: 80 });
        assert_eq!(open.take(at(100), at(200)), Ok(()));
        assert!(open.take(at(109), at(209)).is_err());
        assert_eq!(open.take(at(300), at(400)), Ok(()));
        assert_eq!(open.ends.lock().map(|ends| ends.len()).ok(), Some(1));
    }
}
