// SPDX-License-Identifier: MIT OR Apache-2.0
//! Uploads whose life is over.

use std::error::Error;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::service::{Inner, MediaService};

/// Uploads forgotten at a time.
const FORGOTTEN_PER_CALL: u32 = 256;
/// Calls of one round; what is left waits for the next.
const CALLS_MAX: u32 = 16;
/// Objects deleted in one round; what is left waits for the next.
const OBJECTS_PER_ROUND: usize = 8_192;

impl MediaService {
    /// Deletes what has expired until `stop`. Several replicas may run at once.
    pub async fn run(&self, stop: CancellationToken) {
        let every = Duration::from_millis(self.inner.config.sweep_every_ms.max(1));
        loop {
            let round = async {
                self.inner.sweep().await;
                tokio::time::sleep(every).await;
            };
            tokio::select! { biased; () = stop.cancelled() => return, () = round => {} }
        }
    }
}

impl Inner {
    async fn sweep(&self) {
        self.forget().await;
        match self.blobs.sweep(self.ports.clock.now(), OBJECTS_PER_ROUND).await {
            Ok(swept) => {
                self.metrics.swept.add(swept.deleted, &[]);
                if let Some(error) = swept.failed {
                    tracing::warn!(
                        error = &*error as &dyn Error,
                        "the sweep of parts could not delete all; it tries again"
                    );
                }
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn Error, "the sweep of parts could not ask the store");
            }
        }
    }

    async fn forget(&self) {
        let now = self.ports.clock.now();
        for _ in 0..CALLS_MAX {
            match self.ports.media.expire_uploads(now, FORGOTTEN_PER_CALL).await {
                Ok(forgotten) => {
                    self.metrics.forgotten.add(forgotten.into(), &[]);
                    if forgotten < FORGOTTEN_PER_CALL {
                        return;
                    }
                }
                Err(error) => {
                    let error = &error as &dyn Error;
                    return tracing::warn!(error, "the sweep of uploads could not ask the store");
                }
            }
        }
    }
}
