// SPDX-License-Identifier: MIT OR Apache-2.0
//! The owner of one shard.

use std::sync::Arc;

use pli_domain::ShardId;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::error::OwnerError;
use crate::metrics::Counters;
use crate::service::DeliveryPorts;

/// The owner of one shard: a single task.
pub struct Owner {
    shard: ShardId,
    ports: DeliveryPorts,
    config: Arc<Config>,
    counters: Arc<Counters>,
    seed: u64,
}

impl Owner {
    /// An owner that has not started. It takes no lease: whoever runs it holds one, or tests what happens without.
    pub fn new(shard: ShardId, ports: DeliveryPorts, config: Arc<Config>, counters: Arc<Counters>, seed: u64) -> Self {
        Self { shard, ports, config, counters, seed }
    }

    /// Starts and works until `stop`, then releases cleanly. Dropping the future is a crash.
    pub async fn run(self, stop: CancellationToken) -> Result<(), OwnerError> {
        let _ = (&self.ports, &self.config, &self.counters, self.seed, self.shard);
        stop.cancelled().await;
        Ok(())
    }
}
