// SPDX-License-Identifier: MIT OR Apache-2.0
//! From signals to tokens: first stop taking work, then stop.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Two tokens. `draining`: be unready, refuse new work, say goodbye, flush. `stop`: the grace period is over.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Cancelled first.
    pub draining: CancellationToken,
    /// Cancelled when the grace period is over or a second signal arrives; cancels nothing by itself before.
    pub stop: CancellationToken,
}

impl Shutdown {
    /// Tokens that follow the process's signals. The grace period begins with the first one.
    pub fn on_signals(grace: Duration) -> std::io::Result<Self> {
        let shutdown = Self::default();
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let tokens = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                _ = term.recv() => tracing::info!(signal = "SIGTERM", "draining"),
                _ = int.recv() => tracing::info!(signal = "SIGINT", "draining"),
                () = tokens.draining.cancelled() => {}
            }
            tokens.draining.cancel();
            tokio::select! {
                biased;
                _ = term.recv() => {}
                _ = int.recv() => {}
                () = tokio::time::sleep(grace) => {}
            }
            tokens.stop.cancel();
        });
        Ok(shutdown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_grace_period_begins_with_draining() {
        let shutdown = Shutdown::on_signals(Duration::from_secs(5)).expect("signals");
        assert!(!shutdown.draining.is_cancelled());
        let began = tokio::time::Instant::now();
        shutdown.draining.cancel();
        shutdown.stop.cancelled().await;
        assert_eq!(began.elapsed(), Duration::from_secs(5));
    }
}
