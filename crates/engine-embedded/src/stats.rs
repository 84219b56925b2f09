// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the engine counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the engine was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Committed groups: transactions, each with one fsync of the write-ahead log.
    pub commits: u64,
    /// fsyncs as SQLite's documentation counts them: one a commit, one more for the first commit after the
    /// write-ahead log began anew, two a checkpoint.
    pub fsyncs: u64,
    /// Acknowledged log entries.
    pub appended: u64,
    /// Times the write-ahead log was copied into the database.
    pub checkpoints: u64,
    /// Log entries refused because the disk was full.
    pub refused_full: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    commits: AtomicU64,
    fsyncs: AtomicU64,
    appended: AtomicU64,
    checkpoints: AtomicU64,
    refused_full: AtomicU64,
    deleted_rows: AtomicU64,
}

impl Counters {
    pub(crate) fn committed(&self, appended: u64, syncing: bool) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.fsyncs.fetch_add(u64::from(syncing), Ordering::Relaxed);
        self.appended.fetch_add(appended, Ordering::Relaxed);
    }

    pub(crate) fn checkpointed(&self, syncing: bool) {
        self.checkpoints.fetch_add(1, Ordering::Relaxed);
        // The WAL and the database now, the header of the WAL at the next commit.
        self.fsyncs.fetch_add(if syncing { 3 } else { 0 }, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self, entries: u64) {
        self.refused_full.fetch_add(entries, Ordering::Relaxed);
    }

    pub(crate) fn deleted_rows(&self, rows: u64) {
        self.deleted_rows.fetch_add(rows, Ordering::Relaxed);
    }

    /// Whether at least `enough` rows were deleted since this last said so.
    pub(crate) fn take_deleted_rows(&self, enough: u64) -> bool {
        let enough = self.deleted_rows.load(Ordering::Relaxed) >= enough;
        if enough {
            self.deleted_rows.store(0, Ordering::Relaxed);
        }
        enough
    }

    pub(crate) fn read(&self) -> EngineStats {
        EngineStats {
            commits: self.commits.load(Ordering::Relaxed),
            fsyncs: self.fsyncs.load(Ordering::Relaxed),
            appended: self.appended.load(Ordering::Relaxed),
            checkpoints: self.checkpoints.load(Ordering::Relaxed),
            refused_full: self.refused_full.load(Ordering::Relaxed),
        }
    }
}
