// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rendezvous whose life is over.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::service::{Inner, LinksService};

/// Rendezvous forgotten at a time.
const FORGOTTEN_PER_CALL: u32 = 256;
/// Calls of one round; what is left waits for the next.
const CALLS_MAX: u32 = 16;

impl LinksService {
    /// Forgets rendezvous that are over until `stop`. Several replicas may run at once.
    pub async fn run(&self, stop: CancellationToken) {
        let every = Duration::from_millis(self.inner.config.sweep_every_ms.max(1));
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(every) => self.inner.sweep().await,
            }
        }
    }
}

impl Inner {
    async fn sweep(&self) {
        let now = self.clock.now();
        for _ in 0..CALLS_MAX {
            match self.links.expire_rendezvous(now, FORGOTTEN_PER_CALL).await {
                Ok(forgotten) => {
                    self.metrics.forgotten.add(forgotten.into(), &[]);
                    if forgotten < FORGOTTEN_PER_CALL {
                        return;
                    }
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    return tracing::warn!(error, "the sweep of rendezvous could not ask the store");
                }
            }
        }
    }
}
