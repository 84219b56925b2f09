// SPDX-License-Identifier: MIT OR Apache-2.0
//! The shard log.

use std::sync::Arc;

use async_trait::async_trait;
use pli_domain::{EntryId, EntryRef, Seq, ShardId};
use pli_ports::{AppendError, LogBounds, LogEntry, LogFate, LogReader, NewEntry, ReadError, ShardLog, StoreError};
use pli_testkit::history::Event;

use super::Seat;
use crate::simulation::oracle::View;

/// The log as one process sees it.
pub struct PortLog {
    pub seat: Seat,
    pub inner: Arc<dyn ShardLog>,
}

#[async_trait]
impl ShardLog for PortLog {
    async fn append(&self, entries: Vec<NewEntry>) -> Vec<Result<EntryRef, AppendError>> {
        self.seat.process.pass().await;
        let asked: Vec<(ShardId, EntryId)> = entries.iter().map(|e| (e.shard, e.id)).collect();
        for entry in &entries {
            let mut oracle = self.seat.world.oracle();
            oracle.appending(entry.id, &entry.bytes);
            self.seat.world.rare.spread_again.by(oracle.spread_again(self.seat.name(), &entry.bytes));
        }
        let answers = self.seat.call(self.inner.append(entries)).await;
        for ((shard, id), answer) in asked.iter().zip(&answers) {
            if let Ok(entry) = answer {
                self.seat.world.stores.found(*shard, *entry);
            }
            let at = answer.as_ref().map(|e| e.seq.get()).map_err(ToString::to_string);
            self.seat.world.say(format_args!("{} appends {id:?} to {shard:?}: {at:?}", self.seat.name()));
        }
        answers
    }

    async fn reader(&self, shard: ShardId, from: Seq) -> Result<Box<dyn LogReader>, StoreError> {
        let (seat, name) = (self.seat.clone(), self.seat.name());
        seat.world.say(format_args!("{name} reads the log of {shard:?} from {}", from.get()));
        let inner = seat.call(self.inner.reader(shard, from)).await?;
        Ok(Box::new(PortReader { seat, shard, inner, ready: None }))
    }

    async fn bounds(&self, shard: ShardId) -> Result<LogBounds, StoreError> {
        self.seat.call(self.inner.bounds(shard)).await
    }

    async fn entry_at(&self, shard: ShardId, seq: Seq) -> Result<Option<EntryId>, StoreError> {
        self.seat.call(self.inner.entry_at(shard, seq)).await
    }

    async fn trim(&self, shard: ShardId, through: Seq) -> Result<(), StoreError> {
        self.seat.process.pass().await;
        let (world, name) = (&self.seat.world, self.seat.name());
        world.say(format_args!("{name} trims the log of {shard:?} to {}", through.get()));
        let verdict = world.oracle().judge_log_trim(name, shard, through);
        world.judge(verdict);
        world.stores.trimming(shard, through);
        self.seat.call(self.inner.trim(shard, through)).await
    }

    fn fate(&self) -> LogFate {
        self.inner.fate()
    }
}

struct PortReader {
    seat: Seat,
    shard: ShardId,
    inner: Box<dyn LogReader>,
    /// Read, but not handed out yet: a dropped call loses nothing.
    ready: Option<Result<Vec<LogEntry>, ReadError>>,
}

impl PortReader {
    fn took(&self, entries: &[LogEntry]) {
        let (world, name) = (&self.seat.world, self.seat.name());
        let mut oracle = world.oracle();
        for entry in entries {
            world.stores.found(self.shard, EntryRef { seq: entry.seq, id: entry.id });
            let shard = oracle.shard(self.shard);
            let view: &mut View = shard.views.entry(name.into()).or_default();
            view.read.insert(entry.seq, entry.id);
            let epoch = view.epoch;
            let placed = oracle.place(self.shard, entry.seq, entry.id, epoch);
            let to_clients = placed.into_iter().filter(|(device, ..)| !device.is_reserved());
            for (device, (sender, send_id), position) in to_clients {
                let (device, sender, send_id) = (device.to_string(), sender.to_string(), send_id.to_string());
                world.record(Event::Placed { device, sender, send_id, position: position.get() });
            }
            world.say(format_args!("{name} reads {} of {:?}: {:?}", entry.seq.get(), self.shard, entry.id));
        }
    }
}

#[async_trait]
impl LogReader for PortReader {
    async fn next(&mut self, bytes_max: usize) -> Result<Vec<LogEntry>, ReadError> {
        self.seat.process.pass().await;
        if self.ready.is_none() {
            self.ready = Some(self.inner.next(bytes_max).await);
        }
        self.seat.process.pass().await;
        match self.ready.take() {
            Some(Ok(entries)) => {
                self.took(&entries);
                Ok(entries)
            }
            Some(Err(error)) => Err(error),
            None => Ok(Vec::new()),
        }
    }
}
