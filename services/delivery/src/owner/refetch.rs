// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bodies that were dropped from the tail are read again from the log.

use std::time::Duration;

use bytes::Bytes;
use pli_domain::{DeviceId, EntryRef, Position, Seq};
use pli_ports::{LogEntry, LogReader, ReadError, StoreError};
use tokio::time::timeout;

use super::Context;
use super::entry::header;

/// A reader is opened anew rather than read on over more entries than this.
const SPAN_MAX: u64 = 256;
/// What is wanted is retained, so a reader that waits longer either lost it or cannot reach the log.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// One body that is wanted.
#[derive(Debug, Clone)]
pub(super) struct Want {
    pub device: DeviceId,
    pub position: Position,
    pub entry: EntryRef,
    pub body: Option<Bytes>,
}

/// Fills in the bodies; `wants` is in order of position. False when the log does not have them any more, or has
/// something else there; an error when the log cannot tell now.
pub(super) async fn refetch(context: &Context, wants: &mut [Want]) -> Result<bool, StoreError> {
    context.counters.bodies_read_again(1);
    let mut at = 0;
    let mut reader: Option<(Box<dyn LogReader>, u64)> = None;
    while at < wants.len() {
        let seq = wants[at].entry.seq;
        let mut open = match reader.take() {
            Some((open, read_to)) if seq.get() <= read_to + SPAN_MAX => open,
            _ => context.ports.log.reader(context.shard, seq).await?,
        };
        let entries = match timeout(WAIT_MAX, open.next(context.config.read_bytes_max)).await {
            Ok(Ok(entries)) => entries,
            Ok(Err(ReadError::Interrupted(error))) => return Err(error),
            Err(_) if retains(context, seq).await? => return Err(StoreError::later("read", "the log reader stalled")),
            Err(_) => return Ok(false),
        };
        for entry in &entries {
            let first = at;
            while at < wants.len() && wants[at].entry.seq == entry.seq {
                at += 1;
            }
            if !fill(entry, &mut wants[first..at]) {
                return Ok(false);
            }
        }
        let read_to = entries.last().map_or(seq.get(), |entry| entry.seq.get());
        if at < wants.len() && wants[at].entry.seq.get() <= read_to {
            return Ok(false);
        }
        reader = Some((open, read_to));
    }
    Ok(true)
}

async fn retains(context: &Context, seq: Seq) -> Result<bool, StoreError> {
    let bounds = context.ports.log.bounds(context.shard).await?;
    Ok(bounds.first <= seq && seq <= bounds.head)
}

fn fill(entry: &LogEntry, wants: &mut [Want]) -> bool {
    if wants.is_empty() {
        return true;
    }
    let header = header(&entry.bytes);
    for want in wants {
        let index = want.position.index();
        let found = header.targets.iter().find(|target| target.device == want.device && target.index == index);
        match found {
            Some(target) if entry.id == want.entry.id => want.body = Some(target.envelope.clone()),
            _ => return false,
        }
    }
    true
}
