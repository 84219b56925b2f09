// SPDX-License-Identifier: MIT OR Apache-2.0
//! How an owner starts: whether the log still is what was read before, and if that is not sure, a new log epoch.

use pli_domain::mutant::{Mutant, broken};
use pli_domain::{Checkpoint, EntryId, EntryRef, LogEpoch, Position, Seq};
use pli_ports::{LogBounds, LogEpochStart, LogFate, ReleaseMark, Settle, ShardState, StoreError};

use super::Context;
use super::retry::retried;
use crate::error::OwnerError;

/// Where an owner begins.
#[derive(Debug)]
pub(super) struct Started {
    pub epoch: LogEpochStart,
    pub checkpoint: Checkpoint,
    /// The first sequence to read.
    pub next: Seq,
    /// The entry before it, as far as it is retained.
    pub last: (Seq, Option<EntryId>),
    /// The inherited release mark, as long as it lies above what was read.
    pub mark: Option<EntryRef>,
    /// The log's head when the owner started.
    pub log_head: Seq,
    /// Entries kept aside.
    pub aside: u32,
}

/// What stands when an owner starts.
struct Found {
    state: ShardState,
    mark: Option<ReleaseMark>,
    bounds: LogBounds,
    checkpoint_gone: bool,
    next: Seq,
}

/// One try to start. `forked` when a reader's checks failed: the log epoch is not kept. None when somebody else moved
/// on meanwhile: start again.
pub(super) async fn start(context: &Context, forked: bool) -> Result<Option<Started>, OwnerError> {
    context.counters.starts(1);
    let Some(found) = find(context).await? else { return Ok(None) };
    let kept = !forked && keeps_epoch(context, &found).await?;
    let Some((epoch, checkpoint)) = open(context, &found, kept).await? else { return Ok(None) };
    let last = found.next.prev();
    let last = (last, entry_of(context, &found, last).await?);
    let mark = if kept { found.mark.and_then(|m| m.last).filter(|m| m.seq > last.0) } else { None };
    if kept && found.mark.is_some() {
        context.counters.clean_starts(1);
        if found.bounds.head >= found.next {
            context.counters.handovers_with_tail(1);
        }
    }
    if found.bounds.head >= Seq::ALARM {
        tracing::error!(shard = %context.shard, head = found.bounds.head.get(), "log sequences run out; begin a new log");
    }
    let (next, log_head, aside) = (found.next, found.bounds.head, found.state.aside);
    tracing::info!(shard = %context.shard, ?epoch, kept, next = next.get(), "an owner starts");
    Ok(Some(Started { epoch, checkpoint, next, last, mark, log_head, aside }))
}

/// Takes the mark, then reads the checkpoint, then looks at the log.
async fn find(context: &Context) -> Result<Option<Found>, StoreError> {
    let (queues, shard) = (&context.ports.queues, context.shard);
    let taken = if broken(Mutant::MarkNotCleared) {
        retried(context, || queues.shard_state(shard)).await?
    } else {
        retried(context, || queues.take_mark(shard)).await?
    };
    let state = retried(context, || queues.shard_state(shard)).await?;
    if state.log_epoch != taken.log_epoch || state.checkpoint.position.epoch() > state.log_epoch.epoch {
        return Ok(None);
    }
    let bounds = retried(context, || context.ports.log.bounds(shard)).await?;
    let checkpoint_gone = checkpoint_gone(context, state.checkpoint, bounds).await?;
    let checkpoint = state.checkpoint.position;
    let next = if checkpoint_gone {
        bounds.first
    } else if checkpoint.epoch() < state.log_epoch.epoch {
        state.log_epoch.first
    } else {
        checkpoint.seq().next()
    };
    let next = if next < bounds.first {
        context.counters.log_began_above(1);
        let again = retried(context, || queues.shard_state(shard)).await?;
        if again.checkpoint != state.checkpoint {
            return Ok(None);
        }
        bounds.first
    } else {
        next
    };
    Ok(Some(Found { state, mark: taken.mark, bounds, checkpoint_gone, next }))
}

/// Whether the log lacks the checkpoint's own entry.
async fn checkpoint_gone(context: &Context, at: Checkpoint, bounds: LogBounds) -> Result<bool, StoreError> {
    if context.ports.log.fate() == LogFate::OneTransaction {
        return Ok(false);
    }
    match at.entry {
        None => Ok(regrown(bounds, at.position.seq())),
        Some(id) => Ok(entry_at(context, at.position.seq()).await? != Some(id)),
    }
}

/// For a sequence that was noted without an entry, because it stood before the first retained one: trimmed entries do
/// not come back, so a log that ends below it, or holds anything at or below it, lost all that it had.
pub(super) fn regrown(bounds: LogBounds, at: Seq) -> bool {
    at > bounds.head || (at > Seq::ZERO && bounds.first <= at)
}

async fn keeps_epoch(context: &Context, found: &Found) -> Result<bool, StoreError> {
    let current = found.state.log_epoch.epoch;
    if current == LogEpoch::NONE {
        return Ok(false);
    }
    if context.ports.log.fate() == LogFate::OneTransaction || broken(Mutant::NoEpochAfterUncleanStart) {
        return Ok(true);
    }
    let Some(mark) = found.mark else { return Ok(false) };
    if found.checkpoint_gone || mark.epoch != current || found.state.checkpoint.position.epoch() != current {
        return Ok(false);
    }
    match mark.last {
        None => Ok(true),
        Some(last) => Ok(entry_at(context, last.seq).await? == Some(last.id)),
    }
}

/// Keeps the log epoch or begins the next one; then the checkpoint stands in it, durably, before anything is answered.
async fn open(context: &Context, found: &Found, kept: bool) -> Result<Option<(LogEpochStart, Checkpoint)>, OwnerError> {
    let (queues, shard, current) = (&context.ports.queues, context.shard, found.state.log_epoch);
    if kept && found.state.checkpoint.position.epoch() == current.epoch {
        return Ok(Some((current, found.state.checkpoint)));
    }
    let epoch = if kept { current } else { LogEpochStart { epoch: current.epoch.next()?, first: found.next } };
    if !kept {
        if epoch.epoch >= LogEpoch::ALARM {
            tracing::error!(%shard, epoch = epoch.epoch.get(), "log epochs run out; move the shard to a new log");
        }
        if !retried(context, || queues.begin_log_epoch(shard, current.epoch, epoch)).await? {
            return Ok(None);
        }
        context.counters.epochs_begun(1);
    }
    let before = epoch.first.prev();
    let checkpoint =
        Checkpoint { position: Position::end_of(epoch.epoch, before), entry: entry_of(context, found, before).await? };
    let settle = Settle { checkpoint: Some(checkpoint), ..Settle::default() };
    retried(context, || queues.settle(shard, settle.clone())).await?;
    Ok(Some((epoch, checkpoint)))
}

/// The id of the entry at `seq` as it was when the checkpoint was looked at: the log may have lost its end since, and
/// an id read now would vouch for an entry that nobody settled.
async fn entry_of(context: &Context, found: &Found, seq: Seq) -> Result<Option<EntryId>, StoreError> {
    let checkpoint = found.state.checkpoint;
    if !found.checkpoint_gone && checkpoint.position.seq() == seq {
        return Ok(checkpoint.entry);
    }
    entry_at(context, seq).await
}

/// The id of a retained entry.
pub(super) async fn entry_at(context: &Context, seq: Seq) -> Result<Option<EntryId>, StoreError> {
    if seq == Seq::ZERO {
        return Ok(None);
    }
    retried(context, || context.ports.log.entry_at(context.shard, seq)).await
}
