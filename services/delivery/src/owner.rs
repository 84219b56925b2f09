// SPDX-License-Identifier: MIT OR Apache-2.0
//! The owner of one shard: one task that follows the shard's log, rings devices, answers reads, takes
//! acknowledgements and settles.
//!
//! All state belongs to that task ([`live::Live`]). What waits (the log, the database) runs as jobs beside it in the
//! same task, so that following, ringing and paging go on meanwhile; a job works on a snapshot and its result is
//! applied when it comes back.

mod ack;
mod bounds;
mod devices;
mod entry;
mod follow;
mod index;
mod live;
mod notes;
mod notices;
mod page;
mod receipts;
mod refetch;
mod retry;
mod sessions;
mod settle;
mod start;
mod tail;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pli_domain::ShardId;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::error::OwnerError;
use crate::metrics::Counters;
use crate::service::DeliveryPorts;
use live::{Ended, Live};
use retry::Backoff;

/// What every part of an owner and its jobs share.
struct Context {
    shard: ShardId,
    ports: DeliveryPorts,
    config: Arc<Config>,
    counters: Arc<Counters>,
    /// Each back-off gets a seed of its own.
    seed: AtomicU64,
}

impl Context {
    fn backoff(&self) -> Backoff {
        Backoff::new(self.config.store_backoff_max(), self.seed.fetch_add(1, Ordering::Relaxed))
    }
}

/// The owner of one shard. Two owners of one shard at once cost double work, never a message.
pub struct Owner {
    context: Arc<Context>,
}

impl Owner {
    /// An owner that has not started. It takes no lease: whoever runs it holds one, or tests what happens without.
    /// `seed` feeds the jitter of its waits.
    pub fn new(shard: ShardId, ports: DeliveryPorts, config: Arc<Config>, counters: Arc<Counters>, seed: u64) -> Self {
        let seed = AtomicU64::new(ChaCha8Rng::seed_from_u64(seed).random());
        Self { context: Arc::new(Context { shard, ports, config, counters, seed }) }
    }

    /// Starts and works until `stop`, then releases cleanly: settles what is due, stops answering, and leaves a
    /// release mark. Starts again by itself where the rules ask for it. Dropping the future is a crash, after which
    /// everything that was accepted is still there.
    pub async fn run(self, stop: CancellationToken) -> Result<(), OwnerError> {
        let context = self.context;
        let seed = context.seed.fetch_add(1, Ordering::Relaxed);
        let mut backoff = Backoff::new(context.config.start_backoff_max(), seed);
        let mut forked = false;
        while !stop.is_cancelled() {
            let began = Instant::now();
            let started = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                started = start::start(&context, forked) => started?,
            };
            if let Some(started) = started {
                match Live::new(context.clone(), started).run(&stop).await? {
                    Ended::Released => return Ok(()),
                    Ended::Fork => forked = true,
                    Ended::Fenced => {
                        forked = false;
                        // Two owners that hear of each other a second later would use up a log epoch a second.
                        backoff.slow();
                    }
                }
            }
            if began.elapsed() >= context.config.start_backoff_max() {
                backoff.reset();
            }
            tokio::select! { biased; () = stop.cancelled() => {}, () = backoff.wait() => {} }
        }
        Ok(())
    }
}

/// See [`crate::fuzzing::entry`].
#[cfg(feature = "fuzzing")]
pub(crate) fn header_of(bytes: &bytes::Bytes) -> (usize, bool) {
    let header = entry::header(bytes);
    (header.targets.len(), header.undecodable)
}
