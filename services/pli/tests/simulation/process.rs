// SPDX-License-Identifier: MIT OR Apache-2.0
//! A process as the outside sees it: everything it does goes through its ports, so closing them stops it. A paused one
//! goes on later where it stood, with what it then believed: a zombie.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use crate::simulation::world::lock;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Running {
    On,
    Paused,
    Dead,
}

/// The gate that all ports of one process pass. Not a `watch`: that wakes its waiters in a random order.
#[derive(Debug)]
pub struct Process {
    name: String,
    running: Mutex<Running>,
    deceived: AtomicBool,
    resumed: Notify,
}

impl Process {
    /// A running process.
    pub fn new(name: String) -> Self {
        Self { name, running: Mutex::new(Running::On), deceived: AtomicBool::new(false), resumed: Notify::new() }
    }
    /// Its name in traces; a restart has another.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Stops at its next call of a port, and answers of calls under way do not reach it.
    pub fn pause(&self) {
        let mut running = lock(&self.running);
        if *running == Running::On {
            *running = Running::Paused;
        }
    }
    /// Goes on after a pause.
    pub fn resume(&self) {
        let mut running = lock(&self.running);
        if *running == Running::Paused {
            *running = Running::On;
            self.resumed.notify_waiters();
        }
    }
    /// Does nothing any more, as after kill -9. What it had handed to a store may still arrive there.
    pub fn kill(&self) {
        *lock(&self.running) = Running::Dead;
    }
    /// Nothing of what it says or asks about its leases gets through, and it does not notice; or no more.
    pub fn deceive(&self, deceived: bool) {
        self.deceived.store(deceived, Ordering::Relaxed);
    }
    /// See [`Process::deceive`].
    pub fn is_deceived(&self) -> bool {
        self.deceived.load(Ordering::Relaxed)
    }
    /// Waits while the process is paused; for ever when it is dead.
    pub async fn pass(&self) {
        loop {
            let resumed = self.resumed.notified();
            if *lock(&self.running) == Running::On {
                return;
            }
            resumed.await;
        }
    }
}
