// SPDX-License-Identifier: MIT OR Apache-2.0
//! The durable, ordered log of each shard: the truth about order.

use async_trait::async_trait;
use bytes::Bytes;
use pli_domain::{EntryId, EntryRef, Seq, ShardId};

use crate::StoreError;

/// One micro-batch to append to one shard.
#[derive(Debug, Clone)]
pub struct NewEntry {
    /// Where it goes.
    pub shard: ShardId,
    /// Random; a retry of the same append carries the same id.
    pub id: EntryId,
    /// An encoded `pli.log.v1.Entry`; opaque here.
    pub bytes: Bytes,
}

/// An entry as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Its sequence in the shard.
    pub seq: Seq,
    /// The id its appender gave it.
    pub id: EntryId,
    /// The bytes that were appended.
    pub bytes: Bytes,
}

/// What a shard's log holds. `first > head` when nothing is retained; then `first` is `head + 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBounds {
    /// Sequence of the oldest retained entry.
    pub first: Seq,
    /// Sequence of the newest entry ever appended as far as the log knows; [`Seq::ZERO`] before the first.
    pub head: Seq,
}

/// Whether the end of the log can vanish while the tables stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFate {
    /// Log and tables share one transaction: what was accepted stays as long as the tables do. Owners keep the log
    /// epoch, trims may follow the checkpoint closely, and a receipt is judged by its log epoch.
    OneTransaction,
    /// The log is a system of its own and may lose its end. Owners check entry ids and begin log epochs; entries are
    /// kept for a while behind the checkpoint so that receipts can be judged by them.
    OwnSystem,
}

/// Why an append has no acknowledgement.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The log has no room; nothing was written. Try again after the given milliseconds.
    #[error("the shard log is full; retry in {retry_after_ms} ms")]
    Full {
        /// Milliseconds after which a retry makes sense.
        retry_after_ms: u32,
    },
    /// The outcome is unknown or the log is unreachable; retry with the same entry id.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a reader cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The reader is gone (connection lost, server restarted). Create a new one and run the checks of a new reader.
    #[error("the log reader was interrupted; create a new one")]
    Interrupted(#[source] StoreError),
}

/// The logs of all shards.
#[async_trait]
pub trait ShardLog: Send + Sync + 'static {
    /// Appends entries, each durable on its own; results in the order given.
    ///
    /// Durability: `Ok` means that the entry survives kill -9 and loss of power of every machine. Order: entries of
    /// one call to one shard get increasing sequences. Idempotency: an entry whose id was appended within the last
    /// two minutes may answer with the first one's sequence, or be appended again; readers must bear both. One id in
    /// two shards is two entries.
    /// Cancellation: dropping the future leaves each entry appended or not. Bound: an entry has at most
    /// [`pli_domain::limits::ENTRY_ENVELOPES_MAX`] envelopes and
    /// [`pli_domain::limits::LOG_ENTRY_BYTES_MAX`] bytes; callers bound what they have in flight.
    async fn append(&self, entries: Vec<NewEntry>) -> Vec<Result<EntryRef, AppendError>>;

    /// Opens a reader that yields every retained entry of `shard` with a sequence of at least `from`, in order, and
    /// then waits for new ones.
    ///
    /// A new reader never yields a later entry before an earlier one that is retained. Where entries below the first
    /// retained one were asked for it begins at the first retained one: the caller compares with [`ShardLog::bounds`].
    async fn reader(&self, shard: ShardId, from: Seq) -> Result<Box<dyn LogReader>, StoreError>;

    /// What the log holds now. `head` covers every append that was acknowledged before the call.
    async fn bounds(&self, shard: ShardId) -> Result<LogBounds, StoreError>;

    /// The id of the retained entry at `seq`, or none.
    async fn entry_at(&self, shard: ShardId, seq: Seq) -> Result<Option<EntryId>, StoreError>;

    /// Forgets entries up to and including `through`. Idempotent; a lower `through` than before changes nothing. The
    /// sequences are never used again. Callers never trim above a durable checkpoint (Q7). A log whose shards share a
    /// stream keeps a shard's newest entry whatever `through` is, as nothing else remembers the head;
    /// [`ShardLog::bounds`] shows it.
    async fn trim(&self, shard: ShardId, through: Seq) -> Result<(), StoreError>;

    /// How full the log is that the shard shares with others, in thousandths of what it may hold; appends are refused when
    /// nothing is left. 0 where it has no bound of its own. A little old, and only good for deciding when to trim.
    async fn fullness(&self, shard: ShardId) -> Result<u16, StoreError> {
        let _ = shard;
        Ok(0)
    }

    /// Whether this log can lose its end.
    fn fate(&self) -> LogFate;
}

/// Follows one shard's log.
#[async_trait]
pub trait LogReader: Send {
    /// The next entries in order, at least one, waiting while there are none; as many as are at hand up to about
    /// `bytes_max`. Cancellation: dropping the future loses nothing, the next call yields the same entries.
    async fn next(&mut self, bytes_max: usize) -> Result<Vec<LogEntry>, ReadError>;
}
