// SPDX-License-Identifier: MIT OR Apache-2.0
//! A process as the outside sees it: everything it does goes through its ports, so closing them stops it. A paused one
//! goes on later where it stood, with what it then believed: a zombie.

use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Running {
    On,
    Paused,
    Dead,
}

/// The gate that all ports of one process pass.
#[derive(Debug)]
pub struct Process {
    name: String,
    running: watch::Sender<Running>,
}

impl Process {
    /// A running process.
    pub fn new(name: String) -> Self {
        Self { name, running: watch::Sender::new(Running::On) }
    }
    /// Its name in traces; a restart has another.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Stops at its next call of a port, and answers of calls under way do not reach it.
    pub fn pause(&self) {
        self.running.send_if_modified(|r| std::mem::replace(r, Running::Paused) != Running::Paused);
    }
    /// Goes on after a pause.
    pub fn resume(&self) {
        self.running.send_if_modified(|r| *r == Running::Paused && { *r = Running::On; true });
    }
    /// Does nothing any more, as after kill -9. What it had handed to a store may still arrive there.
    pub fn kill(&self) {
        self.running.send_replace(Running::Dead);
    }
    /// Whether it is neither paused nor dead.
    pub fn is_on(&self) -> bool {
        *self.running.borrow() == Running::On
    }
    /// Waits while the process is paused; for ever when it is dead.
    pub async fn pass(&self) {
        let mut running = self.running.subscribe();
        // The sender lives as long as `self`, so this ends only with the process running.
        if running.wait_for(|r| *r == Running::On).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
