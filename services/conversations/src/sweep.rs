// SPDX-License-Identifier: MIT OR Apache-2.0
//! What nobody asked for: commits that were left behind, and payloads that expired.

use std::time::Duration;

use pli_domain::UnixMillis;
use pli_ports::StoreError;
use tokio_util::sync::CancellationToken;

use crate::finish::By;
use crate::service::{ConversationsService, Inner};

/// Commits finished in one round.
const COMMITS_PER_ROUND: u32 = 64;
/// Rounds between two looks for expired payloads.
const ROUNDS_PER_EXPIRY: u32 = 60;
/// Payloads forgotten at a time.
const PAYLOADS_PER_CALL: u32 = 512;
/// Calls of one look; what is left waits for the next.
const EXPIRY_CALLS_MAX: u32 = 16;

impl ConversationsService {
    /// Finishes commits that were left behind and forgets expired payloads until `stop`. Several replicas may run at
    /// once: finishing twice changes nothing.
    pub async fn run(&self, stop: CancellationToken) {
        let every = Duration::from_millis(self.inner.config.sweep_every_ms.max(1));
        let mut round = 0u32;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
            self.inner.sweep().await;
            round = round.wrapping_add(1);
            if round.is_multiple_of(ROUNDS_PER_EXPIRY) {
                self.inner.expire_payloads().await;
            }
        }
    }
}

impl Inner {
    async fn sweep(&self) {
        let now = self.ports.clock.now();
        let before = UnixMillis(now.0.saturating_sub(self.config.left_behind_after_ms));
        let left = match self.ports.conversations.unfinished(before, COMMITS_PER_ROUND).await {
            Ok(left) => left,
            Err(error) => return told(&error),
        };
        for (conversation, from) in left {
            if let Err(error) = self.finish(conversation, from, By::Sweep).await {
                tracing::warn!(?conversation, error = &error as &dyn std::error::Error, "a commit stays unfinished");
            }
        }
    }

    async fn expire_payloads(&self) {
        let now = self.ports.clock.now();
        for _ in 0..EXPIRY_CALLS_MAX {
            match self.ports.payloads.expire(now, PAYLOADS_PER_CALL).await {
                Ok(forgotten) if forgotten == PAYLOADS_PER_CALL => {}
                Ok(_) => return,
                Err(error) => return told(&error),
            }
        }
    }
}

fn told(error: &StoreError) {
    tracing::warn!(error = error as &dyn std::error::Error, "the sweep could not ask the store");
}
