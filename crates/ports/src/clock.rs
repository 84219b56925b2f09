// SPDX-License-Identifier: MIT OR Apache-2.0
//! Server time as an argument.

use pli_domain::UnixMillis;

/// Tells server time. Waiting is done with the runtime's timers, which tests pause; this only reads.
pub trait Clock: Send + Sync + 'static {
    /// Now. May step back; nothing is ordered by it.
    fn now(&self) -> UnixMillis;
}

/// The machine's own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixMillis {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}
