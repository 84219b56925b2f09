// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one way in which delivery waits and tries again.

use std::future::Future;
use std::time::Duration;

use pli_ports::{Retry, StoreError};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::time::sleep;

use super::Context;

/// Shortest upper bound of a wait.
const FIRST: Duration = Duration::from_millis(50);

/// Tries after which a wait is drawn from up to 1.6 s.
const SLOW: u32 = 5;

/// Exponential back-off with full jitter (Brooker, "Exponential Backoff And Jitter", 2015).
pub(super) struct Backoff {
    most: Duration,
    attempt: u32,
    rng: ChaCha8Rng,
}

impl Backoff {
    pub fn new(most: Duration, seed: u64) -> Self {
        Self { most, attempt: 0, rng: ChaCha8Rng::seed_from_u64(seed) }
    }
    /// Waits longer each time.
    pub async fn wait(&mut self) {
        let bound = FIRST.saturating_mul(1 << self.attempt.min(20)).min(self.most);
        self.attempt += 1;
        sleep(bound.mul_f64(self.rng.random_range(0.0..1.0))).await;
    }
    /// What comes next waits no less than after [`SLOW`] tries.
    pub fn slow(&mut self) {
        self.attempt = self.attempt.max(SLOW);
    }
    /// Begins anew with short waits.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}

/// As [`retried`], but a refusal for lack of room is an answer too.
pub(super) async fn retried_with_room<T, F, Fut>(context: &Context, call: F) -> Result<T, StoreError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, StoreError>>,
{
    repeat(context, call, |retry| retry == Retry::Later).await
}

/// Calls until the outcome is known. For idempotent methods only, so an unknown outcome is asked for again with the same
/// arguments; [`pli_ports::DeviceQueues::put_mark`] is none. Ends only with an answer, an error that needs an operator, or
/// by being dropped.
pub(super) async fn retried<T, F, Fut>(context: &Context, call: F) -> Result<T, StoreError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, StoreError>>,
{
    repeat(context, call, |retry| retry != Retry::Never).await
}

async fn repeat<T, F, Fut>(context: &Context, mut call: F, again: fn(Retry) -> bool) -> Result<T, StoreError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, StoreError>>,
{
    let mut backoff = context.backoff();
    loop {
        match call().await {
            Ok(value) => return Ok(value),
            Err(error) if !again(error.retry) => return Err(error),
            Err(error) => {
                context.counters.store_retries(1);
                tracing::debug!(shard = %context.shard, error = &error as &dyn std::error::Error, "trying again");
                backoff.wait().await;
            }
        }
    }
}
