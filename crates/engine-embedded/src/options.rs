// SPDX-License-Identifier: MIT OR Apache-2.0
//! How to open a data folder.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use pli_ports::{Clock, SystemClock};

/// When SQLite syncs its write-ahead log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synchronous {
    /// At every commit: what was acknowledged survives a power cut.
    Full,
    /// Never: what was acknowledged survives the process, not the machine. For throw-away folders.
    Off,
}

/// How the engine works. [`EmbeddedOptions::default`] is right for everything but tests.
#[derive(Clone)]
pub struct EmbeddedOptions {
    /// Number of shards of a folder that is created now; a power of two. An existing folder keeps its own.
    pub shards: u32,
    /// Longest time that a group of writes waits for more to join, at most 2 ms. It only waits when earlier groups
    /// were large, and no longer than writes keep coming; a lone writer never waits.
    pub group_wait: Duration,
    /// Disk space set aside at the start, in bytes; it lets acks and trims go on when the disk is full.
    pub reserve_bytes: u64,
    /// Newest log entries kept in memory per shard, in bytes.
    pub tail_bytes: usize,
    /// When to sync.
    pub synchronous: Synchronous,
    /// Tells when rows and finished commits have expired and may be swept.
    pub clock: Arc<dyn Clock>,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            shards: 16,
            group_wait: Duration::from_millis(2),
            reserve_bytes: 8 << 20,
            tail_bytes: 1 << 20,
            synchronous: Synchronous::Full,
            clock: Arc::new(SystemClock),
        }
    }
}

impl fmt::Debug for EmbeddedOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedOptions")
            .field("shards", &self.shards)
            .field("group_wait", &self.group_wait)
            .field("reserve_bytes", &self.reserve_bytes)
            .field("tail_bytes", &self.tail_bytes)
            .field("synchronous", &self.synchronous)
            .finish_non_exhaustive()
    }
}
