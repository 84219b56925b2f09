// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clocks to inject, and waiting for a condition.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pli_domain::UnixMillis;
use pli_ports::Clock;
use tokio::time::Instant;

/// Where injected clocks begin unless told otherwise: 2026-01-01 00:00 UTC.
pub const START: UnixMillis = UnixMillis(1_767_225_600_000);

/// A clock that moves only when it is told to. Clones share it.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// A clock that shows `now`.
    pub fn new(now: UnixMillis) -> Self {
        Self(Arc::new(AtomicU64::new(now.0)))
    }
    /// Shows `now` from here on; may step back, as real clocks do.
    pub fn set(&self, now: UnixMillis) {
        self.0.store(now.0, Ordering::Relaxed);
    }
    /// Moves on by `step`.
    pub fn advance(&self, step: Duration) {
        self.set(self.now().after(step));
    }
}
impl Default for ManualClock {
    fn default() -> Self {
        Self::new(START)
    }
}
impl Clock for ManualClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::Relaxed))
    }
}

/// A clock that follows the runtime's timers, paused or not: it shows `start` when it is made.
#[derive(Debug, Clone, Copy)]
pub struct RuntimeClock {
    start: UnixMillis,
    made: Instant,
}

impl RuntimeClock {
    /// Shows `start` now. Must be called on a runtime.
    pub fn new(start: UnixMillis) -> Self {
        Self { start, made: Instant::now() }
    }
}
impl Clock for RuntimeClock {
    fn now(&self) -> UnixMillis {
        self.start.after(self.made.elapsed())
    }
}

/// Waits until `holds` answers true, asking every 5 ms; false when it did not within `deadline`. On a paused runtime
/// the waiting costs no real time.
pub async fn eventually(deadline: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_runtime_clock_follows_paused_time() {
        let clock = RuntimeClock::new(START);
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(clock.now(), START.after(Duration::from_secs(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn eventually_gives_up_at_its_deadline() {
        let clock = ManualClock::default();
        assert!(!eventually(Duration::from_secs(1), || clock.now() > START).await);
        clock.advance(Duration::from_millis(1));
        assert!(eventually(Duration::ZERO, || clock.now() > START).await);
    }
}
