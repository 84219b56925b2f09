// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one way in which the edge waits before it tries again, and the one source of its randomness.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Seeded randomness for ids and jitter, shared by the sessions of one edge.
#[derive(Debug)]
pub(crate) struct Dice(Mutex<ChaCha8Rng>);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Mutex::new(ChaCha8Rng::seed_from_u64(seed)))
    }
    /// 16 random bytes.
    pub(crate) fn id(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.lock().fill_bytes(&mut bytes);
        bytes
    }
    /// A duration from `low` to `high`, both included.
    pub(crate) fn between(&self, low: Duration, high: Duration) -> Duration {
        let (low, high) = (millis(low), millis(high));
        Duration::from_millis(self.lock().random_range(low..=high.max(low)))
    }
    fn lock(&self) -> MutexGuard<'_, ChaCha8Rng> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

/// Exponential back-off with full jitter (Brooker, "Exponential Backoff And Jitter", 2015), at least `base` / 2 apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    base: Duration,
    max: Duration,
    tries: u32,
}

impl Backoff {
    pub(crate) const fn new(base: Duration, max: Duration) -> Self {
        Self { base, max, tries: 0 }
    }
    /// How long to wait before the next try; `hint` is what the other side asked for.
    pub(crate) fn next(&mut self, dice: &Dice, hint: Option<Duration>) -> Duration {
        let ceiling = self.base.saturating_mul(1 << self.tries.min(16)).min(self.max);
        self.tries = self.tries.saturating_add(1);
        let wait = dice.between(self.base / 2, ceiling);
        hint.map_or(wait, |hint| (hint + wait / 4).min(self.max))
    }
    /// It worked.
    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }
    /// How often it was tried without success.
    pub(crate) fn tries(&self) -> u32 {
        self.tries
    }
}
