// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long to wait before the next attempt: full jitter (Brooker, "Exponential Backoff And Jitter", 2015).

use std::time::Duration;

use rand::Rng;

/// The first attempt's upper bound.
const BASE: Duration = Duration::from_millis(200);
/// No attempt waits longer.
const CAP: Duration = Duration::from_secs(20);

/// Counts failed attempts.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// A wait between nothing and a bound that doubles with every failure.
    pub fn next(&mut self) -> Duration {
        let bound = BASE.saturating_mul(1 << self.failures.min(16)).min(CAP);
        self.failures = self.failures.saturating_add(1);
        rand::rng().random_range(Duration::ZERO..=bound)
    }
    /// After a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_stay_below_a_bound_that_grows_and_is_capped() {
        let mut backoff = Backoff::default();
        assert!(backoff.next() <= BASE);
        assert!((0..100).all(|_| backoff.next() <= CAP));
        backoff.reset();
        assert!(backoff.next() <= BASE);
    }
}
