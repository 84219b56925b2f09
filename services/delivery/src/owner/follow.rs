// SPDX-License-Identifier: MIT OR Apache-2.0
//! Follows the shard's log with readers that are created here, and checks at every creation that the log still is
//! what was read before.

use std::sync::Arc;

use pli_domain::mutant::{Mutant, broken};
use pli_domain::{Checkpoint, EntryId, EntryRef, Position, Seq};
use pli_ports::{LogBounds, LogEntry, LogFate, LogReader, StoreError};

use super::Context;
use super::retry::{Backoff, retried};
use super::start::{entry_at, regrown};

/// Entries read last that a new reader is held against. The last one alone is not enough: where the log lost its end,
/// an append that was retried under its own id can come to stand at the very sequence it had, after others that are
/// new. A fork is overlooked only if so many entries in a row came back to where they were.
pub(super) const RECENT_MAX: usize = 64;

/// What a new reader is held against.
#[derive(Debug, Clone)]
pub(super) struct Checks {
    pub next: Seq,
    pub last: (Seq, Option<EntryId>),
    /// The entries read last, at most [`RECENT_MAX`].
    pub recent: Vec<EntryRef>,
    pub mark: Option<EntryRef>,
    pub checkpoint: Checkpoint,
}

/// What following brought.
#[derive(Debug)]
pub(super) enum Followed {
    /// Entries in order, at least one. Where the log was trimmed under the reader, the checkpoint that stood then:
    /// if it is not the owner's own, the owner is overtaken.
    Entries(Vec<LogEntry>, Option<Position>),
    /// The reader is gone; follow again.
    Interrupted,
    /// The log is not what was read before: the next log epoch.
    Fork,
    /// The log begins above what is wanted because somebody else settled it: start again.
    Overtaken,
}

/// The reading end. At most one reader is open.
pub(super) struct Follower {
    reader: Option<Box<dyn LogReader>>,
    opened: bool,
    backoff: Backoff,
}

impl Follower {
    pub fn new(context: &Context) -> Self {
        Self { reader: None, opened: false, backoff: context.backoff() }
    }

    /// Waits for entries from `checks.next` on.
    pub async fn follow(mut self, context: Arc<Context>, checks: Checks) -> (Self, Result<Followed, StoreError>) {
        let followed = self.step(&context, checks).await;
        (self, followed)
    }

    async fn step(&mut self, context: &Context, checks: Checks) -> Result<Followed, StoreError> {
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => match self.open(context, &checks).await? {
                Ok(reader) => reader,
                Err(found) => return Ok(found),
            },
        };
        match reader.next(context.config.read_bytes_max).await {
            Ok(entries) => {
                self.backoff.reset();
                self.reader = Some(reader);
                let began = if jumps(&entries, checks.next) { began_above(context, checks.next).await? } else { None };
                Ok(Followed::Entries(entries, began))
            }
            Err(error) => {
                tracing::info!(shard = %context.shard, error = &error as &dyn std::error::Error, "reading again");
                self.backoff.wait().await;
                Ok(Followed::Interrupted)
            }
        }
    }

    /// Creates a reader, then checks: what is checked later than the reader's creation holds for what it yields.
    async fn open(
        &mut self,
        context: &Context,
        checks: &Checks,
    ) -> Result<Result<Box<dyn LogReader>, Followed>, StoreError> {
        let reader = retried(context, || context.ports.log.reader(context.shard, checks.next)).await?;
        if self.opened {
            context.counters.readers_recreated(1);
        }
        self.opened = true;
        if context.ports.log.fate() == LogFate::OwnSystem && forked(context, checks).await? {
            return Ok(Err(Followed::Fork));
        }
        if began_above(context, checks.next).await?.is_some_and(|at| at > checks.checkpoint.position) {
            return Ok(Err(Followed::Overtaken));
        }
        Ok(Ok(reader))
    }
}

/// Whether an entry does not directly follow the one before. Normal where shards share a stream; elsewhere the log
/// was trimmed under the reader.
fn jumps(entries: &[LogEntry], next: Seq) -> bool {
    let mut expected = next;
    entries.iter().any(|entry| {
        let jump = entry.seq != expected;
        expected = entry.seq.next();
        jump
    })
}

/// Whether the entries read last, the mark or the checkpoint's entry lost their ids.
async fn forked(context: &Context, checks: &Checks) -> Result<bool, StoreError> {
    let bounds = retried(context, || context.ports.log.bounds(context.shard)).await?;
    let at = checks.checkpoint;
    let below = lost(context, bounds, (at.position.seq(), at.entry)).await?;
    let last = !broken(Mutant::LastReadUnchecked)
        && (bounds.head < checks.last.0
            || lost(context, bounds, checks.last).await?
            || any_lost(context, bounds, &checks.recent).await?);
    let mark = match checks.mark {
        Some(mark) if mark.seq > checks.last.0 => lost(context, bounds, (mark.seq, Some(mark.id))).await?,
        _ => false,
    };
    if below {
        context.counters.forks_below_checkpoint(1);
    } else if last || mark {
        context.counters.forks_above_checkpoint(1);
    }
    let fork = below || last || mark;
    if fork {
        tracing::error!(shard = %context.shard, below, "the log lost its end; a new log epoch begins");
    }
    Ok(fork)
}

async fn any_lost(context: &Context, bounds: LogBounds, entries: &[EntryRef]) -> Result<bool, StoreError> {
    let each = entries.iter().map(|entry| lost(context, bounds, (entry.seq, Some(entry.id))));
    Ok(futures::future::try_join_all(each).await?.contains(&true))
}

/// Whether an entry that should be retained is not there.
async fn lost(context: &Context, bounds: LogBounds, (seq, id): (Seq, Option<EntryId>)) -> Result<bool, StoreError> {
    match id {
        Some(id) if seq >= bounds.first => Ok(entry_at(context, seq).await? != Some(id)),
        Some(_) => Ok(false),
        None => Ok(regrown(bounds, seq)),
    }
}

/// Where the log begins above what is wanted, the checkpoint read after that was seen. If it did not move, nothing of
/// this shard lay between: logs are never trimmed above a checkpoint (Q7).
async fn began_above(context: &Context, next: Seq) -> Result<Option<Position>, StoreError> {
    let bounds = retried(context, || context.ports.log.bounds(context.shard)).await?;
    if bounds.first <= next {
        return Ok(None);
    }
    context.counters.log_began_above(1);
    let state = retried(context, || context.ports.queues.shard_state(context.shard)).await?;
    Ok(Some(state.checkpoint.position))
}
