// SPDX-License-Identifier: MIT OR Apache-2.0
//! The shard logs: one row per group and shard, sequences without holes.

use async_trait::async_trait;
use bytes::Bytes;
use pli_domain::limits::LOG_ENTRY_BYTES_MAX;
use pli_domain::{EntryId, EntryRef, Seq, ShardId};
use pli_ports::{AppendError, LogBounds, LogEntry, LogFate, LogReader, NewEntry, ReadError, ShardLog, StoreError};
use rusqlite::{Connection, params};
use tokio::sync::oneshot;

use crate::block;
use crate::database::{damaged, number};
use crate::error::Failure;
use crate::jobs::{Append, AppendFailure, Job};
use crate::logs::Next;
use crate::store::{Ask, Store};

/// `key` is the shard (15 bits) above the last sequence of the block (40 bits), so that one range is one shard and
/// rows stand in order. `log_trim` keeps sequences from being used again when no row is left.
pub(crate) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS log_block (
    key INTEGER PRIMARY KEY, first INTEGER NOT NULL, entries BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS log_trim (shard INTEGER PRIMARY KEY, through INTEGER NOT NULL) STRICT;";

const INSERT_BLOCK: &str = "INSERT INTO log_block (key, first, entries) VALUES (?1, ?2, ?3)";
const READ_BLOCKS: &str = "SELECT first, entries FROM log_block WHERE key BETWEEN ?1 AND ?2 ORDER BY key";
const TRIM_BLOCKS: &str = "DELETE FROM log_block WHERE key BETWEEN ?1 AND ?2";
const RAISE_TRIM: &str = "INSERT INTO log_trim (shard, through) VALUES (?1, ?2)
    ON CONFLICT (shard) DO UPDATE SET through = max(through, excluded.through)";
const BOUNDS: &str = "SELECT coalesce((SELECT through FROM log_trim WHERE shard = ?1), 0),
    coalesce((SELECT max(key) FROM log_block WHERE key BETWEEN ?2 AND ?3), ?2)";

fn key(shard: ShardId, seq: u64) -> i64 {
    (i64::from(shard.get()) << 40) | (seq & Seq::MAX.get()) as i64
}

/// Stores a block of entries with consecutive sequences.
pub(crate) fn insert_block(conn: &Connection, shard: ShardId, range: (u64, u64), bytes: &[u8]) -> rusqlite::Result<()> {
    let first = (range.0 & Seq::MAX.get()) as i64;
    conn.prepare_cached(INSERT_BLOCK)?.execute(params![key(shard, range.1), first, bytes])?;
    Ok(())
}

/// (trimmed, head) of a shard as stored.
pub(crate) fn stored_bounds(conn: &Connection, shard: ShardId) -> rusqlite::Result<(u64, u64)> {
    let (low, high) = (key(shard, 0), key(shard, Seq::MAX.get()));
    let (trimmed, last) = conn
        .prepare_cached(BOUNDS)?
        .query_row(params![shard.get(), low, high], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
    let (trimmed, last) = (number(trimmed)?, number(last)? & Seq::MAX.get());
    Ok((trimmed, last.max(trimmed)))
}

fn trim(conn: &Connection, shard: ShardId, through: u64) -> rusqlite::Result<()> {
    conn.prepare_cached(TRIM_BLOCKS)?.execute(params![key(shard, 0), key(shard, through)])?;
    let through = (through & Seq::MAX.get()) as i64;
    conn.prepare_cached(RAISE_TRIM)?.execute(params![shard.get(), through])?;
    Ok(())
}

/// Entries from `from` on, about `bytes_max` bytes of them, at least one.
fn read(conn: &Connection, shard: ShardId, from: u64, bytes_max: usize) -> rusqlite::Result<Vec<LogEntry>> {
    let mut statement = conn.prepare_cached(READ_BLOCKS)?;
    let mut rows = statement.query(params![key(shard, from), key(shard, Seq::MAX.get())])?;
    let (mut found, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let first = number(row.get(0)?)?;
        for entry in block::decode(first, Bytes::from(row.get::<_, Vec<u8>>(1)?)) {
            let entry = entry.map_err(damaged)?;
            if entry.seq.get() < from {
                continue;
            }
            bytes += entry.bytes.len().max(1);
            if bytes > bytes_max && !found.is_empty() {
                return Ok(found);
            }
            found.push(entry);
        }
    }
    Ok(found)
}

/// [`ShardLog`] on SQLite.
pub(crate) struct EmbeddedShardLog {
    pub(crate) store: Store,
}

impl EmbeddedShardLog {
    fn refusal(&self, entry: &NewEntry) -> Option<AppendError> {
        let never = |text: String| Some(AppendError::Store(StoreError::never("append", text)));
        if self.store.logs.shard(entry.shard).is_none() {
            return never(no_shard(entry.shard));
        }
        if entry.bytes.len() > LOG_ENTRY_BYTES_MAX {
            return never(format!("an entry has {} bytes; append at most {LOG_ENTRY_BYTES_MAX}", entry.bytes.len()));
        }
        None
    }

    /// Appends entries that were checked.
    async fn submit(&self, entries: Vec<NewEntry>) -> Result<Vec<EntryRef>, AppendFailure> {
        let bytes = entries.iter().map(|entry| entry.bytes.len()).sum();
        let (reply, answer) = oneshot::channel();
        let refs = Vec::with_capacity(entries.len());
        let job = Job::Append(Append { entries, refs, reply: Some(reply) });
        self.store.queue.push(job, bytes).await.map_err(AppendFailure)?;
        answer.await.unwrap_or(Err(AppendFailure(Failure::Closed)))
    }

    fn tail(&self, operation: &'static str, shard: ShardId) -> Result<&crate::logs::ShardTail, StoreError> {
        self.store.logs.shard(shard).ok_or_else(|| StoreError::never(operation, no_shard(shard)))
    }
}

fn no_shard(shard: ShardId) -> String {
    format!("there is no shard {shard}")
}

#[async_trait]
impl ShardLog for EmbeddedShardLog {
    async fn append(&self, entries: Vec<NewEntry>) -> Vec<Result<EntryRef, AppendError>> {
        let refusals: Vec<_> = entries.iter().map(|entry| self.refusal(entry)).collect();
        let mut kept = entries;
        if refusals.iter().any(Option::is_some) {
            let mut refused = refusals.iter();
            kept.retain(|_| refused.next().is_some_and(Option::is_none));
        }
        let mut appended = match self.submit(kept).await {
            Ok(refs) => Ok(refs.into_iter()),
            Err(failure) => Err(failure),
        };
        let answer = |refusal: Option<AppendError>| match (refusal, &mut appended) {
            (Some(error), _) => Err(error),
            (None, Err(failure)) => Err(failure.clone().into_error()),
            // One reference stands for each kept entry; an absent one could only mean a lost answer.
            (None, Ok(refs)) => refs.next().ok_or_else(|| AppendFailure(Failure::Closed).into_error()),
        };
        refusals.into_iter().map(answer).collect()
    }

    async fn reader(&self, shard: ShardId, from: Seq) -> Result<Box<dyn LogReader>, StoreError> {
        self.tail("open a log reader", shard)?;
        Ok(Box::new(EmbeddedLogReader { store: self.store.clone(), shard, next: from.get() }))
    }

    async fn bounds(&self, shard: ShardId) -> Result<LogBounds, StoreError> {
        self.store.logs.bounds(shard).ok_or_else(|| StoreError::never("read log bounds", no_shard(shard)))
    }

    async fn entry_at(&self, shard: ShardId, seq: Seq) -> Result<Option<EntryId>, StoreError> {
        let tail = self.tail("read a log entry", shard)?;
        if let Ok(answer) = tail.entry_at(seq.get()) {
            return Ok(answer);
        }
        let found = self.store.read("read a log entry", move |conn| read(conn, shard, seq.get(), 0)).await?;
        Ok(found.first().filter(|entry| entry.seq == seq).map(|entry| entry.id))
    }

    async fn trim(&self, shard: ShardId, through: Seq) -> Result<(), StoreError> {
        let (trimmed, head) = self.tail("trim the log", shard)?.bounds();
        let through = through.get().min(head);
        if through <= trimmed {
            return Ok(());
        }
        let logs = self.store.logs.clone();
        let hide = move |(): &()| {
            if let Some(tail) = logs.shard(shard) {
                tail.trimmed(through);
            }
        };
        let ask = Ask::release("trim the log", 0);
        self.store.write_then(ask, move |conn| trim(conn, shard, through), hide).await
    }

    fn fate(&self) -> LogFate {
        LogFate::OneTransaction
    }
}

struct EmbeddedLogReader {
    store: Store,
    shard: ShardId,
    next: u64,
}

impl EmbeddedLogReader {
    /// What is at hand now; empty when there is nothing yet.
    async fn at_hand(&mut self, bytes_max: usize) -> Result<Vec<LogEntry>, StoreError> {
        let (shard, from) = (self.shard, self.next);
        match self.store.logs.shard(shard).map_or(Next::NotYet, |tail| tail.next(from, bytes_max)) {
            Next::Here(entries) => Ok(entries),
            Next::NotYet => Ok(Vec::new()),
            Next::InDatabase => {
                let mut found = self.store.read("read the log", move |conn| read(conn, shard, from, bytes_max)).await?;
                // A block may begin before what is retained.
                let trimmed = self.store.logs.shard(shard).map_or(0, |tail| tail.bounds().0);
                found.retain(|entry| entry.seq.get() > trimmed);
                Ok(found)
            }
        }
    }

    fn interrupted(&self) -> Option<ReadError> {
        let failure = match self.store.stop.reason() {
            Some(reason) => Failure::Stopped(reason),
            None if self.store.queue.is_closed() => Failure::Closed,
            None => return None,
        };
        Some(ReadError::Interrupted(failure.into_store("read the log")))
    }
}

#[async_trait]
impl LogReader for EmbeddedLogReader {
    async fn next(&mut self, bytes_max: usize) -> Result<Vec<LogEntry>, ReadError> {
        let store = self.store.clone();
        let Some(tail) = store.logs.shard(self.shard) else {
            return Err(ReadError::Interrupted(StoreError::never("read the log", no_shard(self.shard))));
        };
        loop {
            // Made before the look, so that what is appended after the look resolves it.
            let grown = tail.grown();
            if let Some(end) = self.interrupted() {
                return Err(end);
            }
            let found = self.at_hand(bytes_max).await.map_err(ReadError::Interrupted)?;
            if let Some(last) = found.last() {
                self.next = last.seq.get() + 1;
                return Ok(found);
            }
            let (trimmed, head) = tail.bounds();
            if self.next.max(trimmed + 1) > head {
                grown.await;
            }
        }
    }
}
