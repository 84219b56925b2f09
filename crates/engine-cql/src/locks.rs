// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rivals of one process take turns at a partition, because rivals in LWT slow each other down. It is for speed alone:
//! what is decided is decided by the database.

use std::hash::{BuildHasher, RandomState};

use tokio::sync::{Mutex, MutexGuard};

/// Turns at once of one kind; two partitions that share one wait for each other needlessly.
const STRIPES: usize = 128;

/// What a turn is for. Whoever holds one may ask for one further down, never for one further up or of its own kind.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Turn {
    Shard,
    Conversation,
    Account,
    Handle,
    KeyPackages,
    Rendezvous,
    Uploads,
}

const KINDS: usize = Turn::Uploads as usize + 1;

pub(crate) struct Locks {
    stripes: Vec<Mutex<()>>,
    hasher: RandomState,
}

impl Locks {
    pub(crate) fn new() -> Self {
        Self { stripes: (0..STRIPES * KINDS).map(|_| Mutex::new(())).collect(), hasher: RandomState::new() }
    }

    /// Waits for the turn at one partition.
    pub(crate) async fn turn(&self, kind: Turn, key: &[u8]) -> MutexGuard<'_, ()> {
        let stripe = self.hasher.hash_one(key) as usize % STRIPES;
        self.stripes[kind as usize * STRIPES + stripe].lock().await
    }
}
