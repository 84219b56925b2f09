// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the workers of one folder were told, held against what the folder holds.

use std::collections::BTreeMap;

use pli_domain::{EntryId, Position, Seq, ShardId, UnixMillis};
use pli_engine_embedded::EmbeddedEngine;
use pli_ports::{LogEntry, PageQuery};

use crate::support::{at, body, device};
use crate::worker::{Act, Line, SHARDS, row};

/// A number that was begun and acknowledged: what holds lies in between.
#[derive(Debug, Default, Clone, Copy)]
struct Reached {
    begun: u64,
    done: u64,
}

impl Reached {
    fn note(&mut self, line: &Line) {
        self.begun = self.begun.max(line.seq);
        if line.done {
            self.done = self.done.max(line.seq);
        }
    }
}

#[derive(Debug, Default)]
struct Shard {
    appended: BTreeMap<u64, EntryId>,
    settled: Reached,
    trimmed: Reached,
    acked: Reached,
    /// Highest sequence seen in the log or acknowledged so far: nothing below it may be given out again.
    used: u64,
}

/// Of one folder.
#[derive(Debug, Default)]
pub struct Ledger {
    shards: BTreeMap<u16, Shard>,
    /// Acknowledged entries of all workers.
    pub appended: u64,
    /// What does not hold.
    pub faults: Vec<String>,
    /// Acknowledged entries that are not there.
    pub lost: u64,
}

impl Ledger {
    /// Takes down what one worker said.
    pub fn note(&mut self, lines: &[Line]) {
        for line in lines {
            let shard = self.shards.entry(line.shard).or_default();
            match line.act {
                Act::Appended(id) => {
                    self.appended += 1;
                    if line.seq <= shard.used {
                        self.faults.push(format!("shard {}: sequence {} was given out again", line.shard, line.seq));
                    }
                    if shard.appended.insert(line.seq, id).is_some() {
                        self.faults.push(format!("shard {}: sequence {} was given out twice", line.shard, line.seq));
                    }
                }
                Act::Settle => shard.settled.note(line),
                Act::Trim => shard.trimmed.note(line),
                Act::Ack => shard.acked.note(line),
            }
        }
    }

    /// Compares everything with the opened folder.
    pub async fn check(&mut self, engine: &EmbeddedEngine) {
        for number in 0..SHARDS {
            let mut shard = self.shards.remove(&number).unwrap_or_default();
            self.check_log(engine, number, &mut shard).await;
            self.check_queue(engine, number, &shard).await;
            self.shards.insert(number, shard);
        }
    }

    async fn check_log(&mut self, engine: &EmbeddedEngine, number: u16, shard: &mut Shard) {
        let log = engine.shard_log();
        let bounds = log.bounds(ShardId::new(number)).await.unwrap();
        let (first, head) = (bounds.first.get(), bounds.head.get());
        let mut fault = |text: String| self.faults.push(format!("shard {number}: {text}"));
        if first <= shard.trimmed.done || first > shard.trimmed.begun + 1 {
            fault(format!("first is {first} after {:?}", shard.trimmed));
        }
        let found = entries(engine, number, first, head).await;
        if !found.iter().map(|entry| entry.seq.get()).eq(first..=head) {
            fault(format!("the log from {first} to {head} has holes"));
        }
        for torn in found.iter().filter(|entry| entry.bytes != body(entry.id)) {
            fault(format!("entry {} is torn", torn.seq.get()));
        }
        let found: BTreeMap<u64, EntryId> = found.iter().map(|entry| (entry.seq.get(), entry.id)).collect();
        let lost = |(seq, id): &(&u64, &EntryId)| **seq >= first && found.get(seq) != Some(id);
        for (seq, id) in shard.appended.iter().filter(lost) {
            fault(format!("acknowledged entry {seq} ({id}) is lost"));
            self.lost += 1;
        }
        let last = shard.appended.last_key_value().map_or(0, |(seq, _)| *seq);
        shard.used = last.max(head);
        shard.appended = shard.appended.split_off(&first);
    }

    async fn check_queue(&mut self, engine: &EmbeddedEngine, number: u16, shard: &Shard) {
        let id = ShardId::new(number);
        let queues = engine.device_queues();
        let mut fault = |text: String| self.faults.push(format!("shard {number}: {text}"));
        let checkpoint = queues.shard_state(id).await.unwrap().checkpoint.position.seq().get();
        if checkpoint < shard.settled.done || checkpoint > shard.settled.begun {
            fault(format!("checkpoint {checkpoint} after {:?}", shard.settled));
        }
        let cursor = queues.device_states(&[device(id)]).await.unwrap()[0].cursor;
        if cursor < at(shard.acked.done) && shard.acked.done > 0 || cursor > at(shard.acked.begun) {
            fault(format!("cursor {cursor} after {:?}", shard.acked));
        }
        let all = PageQuery {
            device: device(id),
            after: Position::ZERO,
            through: Position::MAX,
            now: UnixMillis(0),
            rows_max: usize::MAX,
            bytes_max: usize::MAX,
        };
        let rows = queues.read_page(all).await.unwrap().rows;
        // The rows of a settle are there with its checkpoint; a trim takes a prefix between what was begun and done.
        let first = rows.first().map_or(checkpoint + 1, |row| row.position.seq().get());
        let trimmed_too_far = first > shard.acked.begun + 1 && first <= checkpoint;
        if first <= shard.acked.done || trimmed_too_far {
            fault(format!("the first row is {first} after {:?}", shard.acked));
        }
        if !rows.iter().map(|row| row.position.seq().get()).eq(first..=checkpoint) {
            fault(format!("rows from {first} to {checkpoint} have holes"));
        }
        for torn in rows.iter().filter(|found| **found != row(id, found.position.seq().get())) {
            fault(format!("row {} is torn", torn.position));
        }
    }
}

async fn entries(engine: &EmbeddedEngine, number: u16, first: u64, head: u64) -> Vec<LogEntry> {
    let mut reader = engine.shard_log().reader(ShardId::new(number), Seq::ZERO).await.unwrap();
    let mut found = Vec::new();
    while (found.len() as u64) < (head + 1).saturating_sub(first) {
        found.extend(reader.next(1 << 20).await.unwrap());
    }
    found
}
