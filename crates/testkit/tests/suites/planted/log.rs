// SPDX-License-Identifier: MIT OR Apache-2.0
//! Broken logs.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pli_domain::{EntryId, EntryRef, Seq, ShardId};
use pli_ports::{AppendError, LogBounds, LogEntry, LogFate, LogReader, NewEntry, ReadError, ShardLog, StoreError};
use pli_testkit::conformance::shard_log::CASES;
use pli_testkit::memory::MemoryLog;

use super::caught;

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    LaterEntriesFirst,
    BatchReversed,
    AnswersShuffled,
    TrimForgotten,
    HeadLagsBehind,
    CancelledReadLoses,
    LostAppendAcknowledged,
    OtherShardsEntries,
    BoundUnchecked,
}

struct Broken {
    log: MemoryLog,
    fault: Fault,
}

impl Broken {
    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }
}

#[async_trait]
impl ShardLog for Broken {
    async fn append(&self, mut entries: Vec<NewEntry>) -> Vec<Result<EntryRef, AppendError>> {
        match self.fault {
            Fault::BatchReversed => entries.reverse(),
            Fault::BoundUnchecked => entries.iter_mut().for_each(|entry| entry.bytes.truncate(256 * 1024)),
            Fault::LostAppendAcknowledged if entries.len() == 1 && entries[0].id.as_bytes()[15] == 7 => {
                let head = self.log.bounds(entries[0].shard).await.expect("no faults").head;
                return vec![Ok(EntryRef { seq: head.next(), id: entries[0].id })];
            }
            _ => {}
        }
        let mut answers = self.log.append(entries).await;
        if self.is(Fault::BatchReversed) || self.is(Fault::AnswersShuffled) {
            answers.reverse();
        }
        answers
    }

    async fn reader(&self, shard: ShardId, from: Seq) -> Result<Box<dyn LogReader>, StoreError> {
        let shard = if self.is(Fault::OtherShardsEntries) { ShardId::new(3) } else { shard };
        let head = self.log.bounds(shard).await?.head;
        // As a consumer that delivers what is new before what it still owes.
        let later = self.is(Fault::LaterEntriesFirst) && from > Seq::ZERO && from < head;
        let reader = self.log.reader(shard, if later { head } else { from }).await?;
        Ok(Box::new(BrokenReader { reader, loses: self.is(Fault::CancelledReadLoses) }))
    }

    async fn bounds(&self, shard: ShardId) -> Result<LogBounds, StoreError> {
        let bounds = self.log.bounds(shard).await?;
        let head = if self.is(Fault::HeadLagsBehind) { bounds.head.prev() } else { bounds.head };
        Ok(LogBounds { head, ..bounds })
    }

    async fn entry_at(&self, shard: ShardId, seq: Seq) -> Result<Option<EntryId>, StoreError> {
        self.log.entry_at(shard, seq).await
    }

    async fn trim(&self, shard: ShardId, through: Seq) -> Result<(), StoreError> {
        if self.is(Fault::TrimForgotten) { Ok(()) } else { self.log.trim(shard, through).await }
    }

    fn fate(&self) -> LogFate {
        self.log.fate()
    }
}

struct BrokenReader {
    reader: Box<dyn LogReader>,
    loses: bool,
}

#[async_trait]
impl LogReader for BrokenReader {
    async fn next(&mut self, bytes_max: usize) -> Result<Vec<LogEntry>, ReadError> {
        let entries = self.reader.next(bytes_max).await;
        if self.loses {
            // Taken from the log already: whoever stops waiting now never sees it.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        entries
    }
}

#[tokio::test(start_paused = true)]
async fn broken_logs_are_caught() {
    for (fault, expected) in [
        (Fault::LaterEntriesFirst, "a_new_reader_yields_earlier_entries_first"),
        (Fault::BatchReversed, "entries_of_one_call_keep_their_order"),
        (Fault::AnswersShuffled, "results_stand_in_the_order_given"),
        (Fault::TrimForgotten, "trimmed_entries_are_gone"),
        (Fault::TrimForgotten, "a_log_that_begins_above_what_is_wanted_shows_it"),
        (Fault::HeadLagsBehind, "bounds_cover_what_was_acknowledged"),
        (Fault::CancelledReadLoses, "a_cancelled_read_loses_nothing"),
        (Fault::LostAppendAcknowledged, "entries_are_read_as_they_were_appended"),
        (Fault::LostAppendAcknowledged, "concurrent_appends_are_all_there_once"),
        (Fault::OtherShardsEntries, "shards_are_apart"),
        (Fault::BoundUnchecked, "a_larger_entry_is_refused"),
    ] {
        caught::<dyn ShardLog>(CASES, expected, move |world| Arc::new(Broken { log: world.log(), fault })).await;
    }
}
