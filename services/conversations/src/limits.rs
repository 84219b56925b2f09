// SPDX-License-Identifier: MIT OR Apache-2.0
//! Named rate limits: a token bucket per account, in bounded memory.

use std::sync::atomic::{AtomicU32, Ordering};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use pli_domain::AccountId;

use crate::config::{Config, Rate};

/// Most accounts remembered by one limit (about 100 bytes each). When so many are active at once, others are refused
/// until some are idle again.
const KEYS_MAX: usize = 262_144;
/// Accounts that are back at a full bucket are forgotten once in so many checks: governor's store only grows by
/// itself.
const TRIM_EVERY: u32 = 4_096;

/// A named limit was reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("limit {limit} reached; retry in {retry_after_ms} ms")]
pub(crate) struct Limited {
    /// Its name, as refusals carry it.
    pub limit: &'static str,
    /// When a retry makes sense.
    pub retry_after_ms: u32,
}

/// One limit.
pub(crate) struct Limit {
    name: &'static str,
    buckets: DefaultKeyedRateLimiter<AccountId>,
    clock: DefaultClock,
    checks: AtomicU32,
}

impl Limit {
    fn new(name: &'static str, rate: Rate) -> Self {
        let quota = Quota::per_minute(rate.per_minute).allow_burst(rate.burst);
        let clock = DefaultClock::default();
        Self { name, buckets: RateLimiter::dashmap(quota), clock, checks: AtomicU32::new(0) }
    }

    /// Takes one token of the account.
    pub(crate) fn take(&self, account: AccountId) -> Result<(), Limited> {
        if self.checks.fetch_add(1, Ordering::Relaxed) % TRIM_EVERY == TRIM_EVERY - 1 {
            self.buckets.retain_recent();
        }
        if self.buckets.len() >= KEYS_MAX {
            self.buckets.retain_recent();
            if self.buckets.len() >= KEYS_MAX {
                return Err(Limited { limit: self.name, retry_after_ms: 60_000 });
            }
        }
        self.buckets.check_key(&account).map_err(|not_until| {
            let wait = not_until.wait_time_from(self.clock.now());
            let ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).saturating_add(1);
            Limited { limit: self.name, retry_after_ms: ms }
        })
    }
}

/// The service's limits.
pub(crate) struct Limits {
    pub changes: Limit,
    pub questions: Limit,
    pub pages_stored: Limit,
    pub pages_fetched: Limit,
}

impl Limits {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            changes: Limit::new("changes_per_account", config.changes_per_account),
            questions: Limit::new("questions_per_account", config.questions_per_account),
            pages_stored: Limit::new("pages_stored_per_account", config.pages_stored_per_account),
            pages_fetched: Limit::new("pages_fetched_per_account", config.pages_fetched_per_account),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_refuses_past_its_burst_and_says_when() {
        let limit = Limit::new("x", Rate::new(2, 1));
        let account = AccountId::from_bytes([1; 16]);
        assert_eq!((limit.take(account), limit.take(account)), (Ok(()), Ok(())));
        let refused = limit.take(account).expect_err("empty");
        assert!((1..=60_001).contains(&refused.retry_after_ms), "{refused:?}");
        assert_eq!(limit.take(AccountId::from_bytes([2; 16])), Ok(()), "another account has its own bucket");
    }
}
