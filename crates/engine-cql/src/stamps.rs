// SPDX-License-Identifier: MIT OR Apache-2.0
//! Write timestamps of the wall clock, for the few writes that no position orders.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use pli_ports::Clock;

/// Later than what stands at any position ([`crate::codec::stamp`]): 2^50 microseconds.
pub(crate) const WALL_MIN: i64 = 1 << 50;

/// Microseconds that grow with every call, whatever the clock does.
pub(crate) struct Stamps {
    clock: Arc<dyn Clock>,
    last: AtomicI64,
}

impl Stamps {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, last: AtomicI64::new(WALL_MIN) }
    }

    /// Two steps above every earlier answer, so that a caller may use the one after it too.
    pub(crate) fn next(&self) -> i64 {
        let now = i64::try_from(self.clock.now().0.saturating_mul(1_000)).unwrap_or(i64::MAX - 4);
        let raise = |last: i64| Some(now.max(last + 2));
        let before = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, raise).unwrap_or(now);
        now.max(before + 2)
    }
}

#[cfg(test)]
mod tests {
    use pli_domain::UnixMillis;
    use pli_testkit::time::ManualClock;

    use super::*;

    #[test]
    fn stamps_grow_although_the_clock_does_not() {
        let clock = ManualClock::new(UnixMillis(0));
        let stamps = Stamps::new(Arc::new(clock.clone()));
        let first = stamps.next();
        assert!(first > WALL_MIN && stamps.next() == first + 2);
        clock.set(UnixMillis(1 << 41));
        assert_eq!(stamps.next(), 1_000 << 41);
        clock.set(UnixMillis(1));
        assert_eq!(stamps.next(), (1_000 << 41) + 2);
    }
}
