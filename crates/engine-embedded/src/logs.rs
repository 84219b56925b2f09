// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the engine knows of each shard log without asking the database: its bounds and its newest entries.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pli_domain::{EntryId, Seq, ShardId};
use pli_ports::{LogBounds, LogEntry};
use tokio::sync::Notify;

/// What an entry costs in memory besides its bytes, roughly.
const ENTRY_OVERHEAD: usize = 96;

/// Every shard's log.
pub(crate) struct Logs {
    shards: Box<[ShardTail]>,
    tail_bytes: usize,
}

#[derive(Default)]
pub(crate) struct ShardTail {
    state: Mutex<Tail>,
    grown: Notify,
}

#[derive(Default)]
struct Tail {
    head: u64,
    trimmed: u64,
    /// Consecutive, the last one is `head`; at most [`Logs::tail_bytes`], but always the newest entry.
    newest: VecDeque<LogEntry>,
    bytes: usize,
}

/// Where the next entries of a reader are.
pub(crate) enum Next {
    Here(Vec<LogEntry>),
    InDatabase,
    NotYet,
}

impl ShardTail {
    fn lock(&self) -> MutexGuard<'_, Tail> {
        // No code that can panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves at the next append (or the end of the engine) after this call.
    pub(crate) fn grown(&self) -> tokio::sync::futures::Notified<'_> {
        self.grown.notified()
    }

    pub(crate) fn wake(&self) {
        self.grown.notify_waiters();
    }

    pub(crate) fn bounds(&self) -> (u64, u64) {
        let state = self.lock();
        (state.trimmed, state.head)
    }

    /// Entries from `from` on, about `bytes_max` of them.
    pub(crate) fn next(&self, from: u64, bytes_max: usize) -> Next {
        let state = self.lock();
        let from = from.max(state.trimmed + 1);
        if from > state.head {
            return Next::NotYet;
        }
        let Some(skip) = state.index_of(from) else {
            return Next::InDatabase;
        };
        let mut bytes = 0usize;
        let fits = |entry: &&LogEntry| {
            let begun = bytes > 0;
            bytes = bytes.saturating_add(entry.bytes.len().max(1));
            !begun || bytes <= bytes_max
        };
        Next::Here(state.newest.iter().skip(skip).take_while(fits).cloned().collect())
    }

    /// The id at `seq`: `Ok` with the answer, or `Err` when only the database knows.
    pub(crate) fn entry_at(&self, seq: u64) -> Result<Option<EntryId>, ()> {
        let state = self.lock();
        if seq <= state.trimmed || seq > state.head {
            return Ok(None);
        }
        let index = state.index_of(seq).ok_or(())?;
        Ok(state.newest.get(index).map(|entry| entry.id))
    }

    /// Shows entries that are durable now. They follow `head`.
    pub(crate) fn publish(&self, entries: impl IntoIterator<Item = LogEntry>, tail_bytes: usize) {
        let mut state = self.lock();
        for entry in entries {
            state.head = entry.seq.get();
            state.bytes += entry.bytes.len() + ENTRY_OVERHEAD;
            state.newest.push_back(entry);
        }
        while state.bytes > tail_bytes && state.newest.len() > 1 {
            state.forget_oldest();
        }
        drop(state);
        self.wake();
    }

    /// Hides entries whose trim is durable now.
    pub(crate) fn trimmed(&self, through: u64) {
        let mut state = self.lock();
        state.trimmed = state.trimmed.max(through);
        while state.newest.front().is_some_and(|entry| entry.seq.get() <= state.trimmed) {
            state.forget_oldest();
        }
    }
}

impl Tail {
    fn index_of(&self, seq: u64) -> Option<usize> {
        let oldest = self.newest.front()?.seq.get();
        usize::try_from(seq.checked_sub(oldest)?).ok()
    }

    fn forget_oldest(&mut self) {
        if let Some(gone) = self.newest.pop_front() {
            self.bytes -= gone.bytes.len() + ENTRY_OVERHEAD;
        }
    }
}

impl Logs {
    /// Logs with these (trimmed, head) sequences, one per shard.
    pub(crate) fn new(bounds: &[(u64, u64)], tail_bytes: usize) -> Self {
        let shard = |&(trimmed, head): &(u64, u64)| ShardTail {
            state: Mutex::new(Tail { head, trimmed, ..Tail::default() }),
            grown: Notify::new(),
        };
        Self { shards: bounds.iter().map(shard).collect(), tail_bytes }
    }

    pub(crate) fn shard(&self, shard: ShardId) -> Option<&ShardTail> {
        self.shards.get(usize::from(shard.get()))
    }

    pub(crate) fn heads(&self) -> Vec<u64> {
        self.shards.iter().map(|shard| shard.bounds().1).collect()
    }

    /// Bounds as the port gives them.
    pub(crate) fn bounds(&self, shard: ShardId) -> Option<LogBounds> {
        let (trimmed, head) = self.shard(shard)?.bounds();
        // Sequences in here came from [`Seq`] or were checked when they were given out.
        let seq = |value| Seq::new(value).unwrap_or(Seq::MAX);
        Some(LogBounds { first: seq(trimmed).next(), head: seq(head) })
    }

    /// Shows durable entries of the shard with this number.
    pub(crate) fn publish(&self, shard: usize, entries: impl IntoIterator<Item = LogEntry>) {
        if let Some(shard) = self.shards.get(shard) {
            shard.publish(entries, self.tail_bytes);
        }
    }

    /// Wakes every reader, for the end of the engine.
    pub(crate) fn wake_all(&self) {
        self.shards.iter().for_each(ShardTail::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn entries(seqs: std::ops::RangeInclusive<u64>) -> Vec<LogEntry> {
        let id = EntryId::from_bytes([1; 16]);
        seqs.map(|seq| LogEntry { seq: Seq::new(seq).unwrap(), id, bytes: Bytes::from_static(&[0; 100]) }).collect()
    }

    #[test]
    fn the_tail_forgets_the_oldest_above_its_budget_and_sends_readers_to_the_database() {
        let shard = ShardTail::default();
        shard.publish(entries(1..=10), 5 * (100 + ENTRY_OVERHEAD));
        assert!(matches!(shard.next(5, 1_000), Next::InDatabase));
        assert!(matches!(shard.next(6, 250), Next::Here(some) if some.len() == 2 && some[0].seq.get() == 6));
        assert!(matches!(shard.next(6, 0), Next::Here(some) if some.len() == 1));
        assert!(matches!(shard.next(11, 1_000), Next::NotYet));
        assert_eq!((shard.entry_at(5), shard.entry_at(11)), (Err(()), Ok(None)));
    }

    #[test]
    fn a_trim_hides_entries_and_never_goes_back() {
        let shard = ShardTail::default();
        shard.publish(entries(1..=4), usize::MAX);
        shard.trimmed(3);
        shard.trimmed(1);
        assert_eq!(shard.bounds(), (3, 4));
        assert_eq!(shard.entry_at(3), Ok(None));
        assert!(matches!(shard.next(1, 1_000), Next::Here(some) if some.len() == 1 && some[0].seq.get() == 4));
        shard.trimmed(4);
        assert!(matches!(shard.next(1, 1_000), Next::NotYet));
    }

    #[test]
    fn one_entry_above_the_budget_stays() {
        let shard = ShardTail::default();
        shard.publish(entries(1..=2), 1);
        assert!(matches!(shard.next(2, 1), Next::Here(some) if some.len() == 1));
    }
}
