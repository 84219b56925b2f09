// SPDX-License-Identifier: MIT OR Apache-2.0
//! The shard logs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pli_domain::limits::LOG_ENTRY_BYTES_MAX;
use pli_domain::mutant::{Mutant, broken};
use pli_domain::{EntryId, EntryRef, Seq, ShardId};
use pli_ports::{AppendError, LogBounds, LogEntry, LogFate, LogReader, NewEntry, ReadError, ShardLog, StoreError};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::faults::{Dice, LogFaults};
use super::{Inner, WorldOptions, lock, pause};

/// How long an id is remembered.
const DEDUPE_WINDOW: Duration = Duration::from_secs(120);
/// What a full log answers.
const FULL_RETRY_MS: u32 = 100;
/// Most milliseconds after which a late append happens.
const LATE_MS_MAX: u64 = 5_000;

/// The model of [`ShardLog`].
#[derive(Clone)]
pub struct MemoryLog {
    world: Arc<Inner>,
}

pub(super) struct State {
    dice: Dice,
    shared: bool,
    full: bool,
    full_shards: BTreeSet<ShardId>,
    bytes: u64,
    bytes_max: u64,
    streams: BTreeMap<ShardId, Stream>,
    shards: BTreeMap<ShardId, Shard>,
    recent: BTreeMap<(ShardId, EntryId), (Seq, Instant)>,
    recent_by_age: VecDeque<(Instant, ShardId, EntryId)>,
}

/// Gives out sequences, to one shard or to all of them.
struct Stream {
    last: Seq,
    /// Written, not synced, in order; bounded by the appends under way.
    pending: VecDeque<(ShardId, LogEntry)>,
}

impl Default for Stream {
    fn default() -> Self {
        Self { last: Seq::ZERO, pending: VecDeque::new() }
    }
}

/// What is synced of one shard.
struct Shard {
    entries: BTreeMap<Seq, LogEntry>,
    head: Seq,
    trimmed: Seq,
    /// Grows when readers are interrupted.
    interruptions: u64,
    bell: Arc<Notify>,
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            head: Seq::ZERO,
            trimmed: Seq::ZERO,
            interruptions: 0,
            bell: Arc::new(Notify::new()),
        }
    }
}

impl Shard {
    fn interrupt(&mut self) {
        self.interruptions += 1;
        self.bell.notify_waiters();
    }
    fn bounds(&self) -> LogBounds {
        let first = self.entries.keys().next().copied().unwrap_or(self.head.next());
        LogBounds { first, head: self.head }
    }
}

/// What becomes of one entry of an append.
enum Fate {
    Refused(AppendError),
    Written(ShardId, EntryRef),
    AnswerLost(ShardId, EntryRef),
    Late(NewEntry),
}

impl State {
    pub fn new(options: &WorldOptions) -> Self {
        Self {
            dice: Dice::new(options.seed, 1),
            shared: options.shards_share_stream,
            full: false,
            full_shards: BTreeSet::new(),
            bytes: 0,
            bytes_max: options.log_bytes_max,
            streams: BTreeMap::new(),
            shards: BTreeMap::new(),
            recent: BTreeMap::new(),
            recent_by_age: VecDeque::new(),
        }
    }

    /// Whether nothing is on its way to the disk.
    #[cfg(test)]
    pub fn streams_are_synced(&self) -> bool {
        self.streams.values().all(|stream| stream.pending.is_empty())
    }

    pub fn set_full(&mut self, full: bool) {
        self.full = full;
    }

    pub fn set_shard_full(&mut self, shard: ShardId, full: bool) {
        if full {
            self.full_shards.insert(shard)
        } else {
            self.full_shards.remove(&shard)
        };
    }

    pub fn entries_of(&self, shard: ShardId) -> Vec<(Seq, EntryId)> {
        self.shards.get(&shard).into_iter().flat_map(|s| s.entries.values().map(|e| (e.seq, e.id))).collect()
    }

    fn stream_of(&self, shard: ShardId) -> ShardId {
        if self.shared { ShardId::new(0) } else { shard }
    }

    fn fate_of(&mut self, entry: NewEntry, plan: &LogFaults) -> Fate {
        if entry.bytes.len() > LOG_ENTRY_BYTES_MAX {
            return Fate::Refused(StoreError::never("append", "an entry has at most 256 KiB").into());
        }
        if self.full
            || self.full_shards.contains(&entry.shard)
            || self.bytes + entry.bytes.len() as u64 > self.bytes_max
        {
            return Fate::Refused(AppendError::Full { retry_after_ms: FULL_RETRY_MS });
        }
        if self.dice.happens(plan.lost) {
            return Fate::Refused(StoreError::later("append", "the append was lost").into());
        }
        if self.dice.happens(plan.late) {
            return Fate::Late(entry);
        }
        let shard = entry.shard;
        match self.write(entry, plan) {
            Ok(written) if self.dice.happens(plan.answer_lost) => Fate::AnswerLost(shard, written),
            Ok(written) => Fate::Written(shard, written),
            Err(error) => Fate::Refused(error.into()),
        }
    }

    /// Gives the entry a sequence; durable only after [`State::sync`].
    fn write(&mut self, entry: NewEntry, plan: &LogFaults) -> Result<EntryRef, StoreError> {
        self.forget_old_ids();
        let key = (entry.shard, entry.id);
        if let Some(&(seq, _)) = self.recent.get(&key)
            && !self.dice.happens(plan.duplicated)
        {
            return Ok(EntryRef { seq, id: entry.id });
        }
        let stream = self.streams.entry(self.stream_of(entry.shard)).or_default();
        let seq = Seq::new(stream.last.get() + 1).map_err(|error| StoreError::never("append", error))?;
        stream.last = seq;
        self.bytes += entry.bytes.len() as u64;
        stream.pending.push_back((entry.shard, LogEntry { seq, id: entry.id, bytes: entry.bytes }));
        let now = Instant::now();
        self.recent.insert(key, (seq, now));
        self.recent_by_age.push_back((now, entry.shard, entry.id));
        Ok(EntryRef { seq, id: entry.id })
    }

    fn forget_old_ids(&mut self) {
        while let Some(&(at, shard, id)) = self.recent_by_age.front() {
            if at.elapsed() < DEDUPE_WINDOW {
                break;
            }
            self.recent_by_age.pop_front();
            if self.recent.get(&(shard, id)).is_some_and(|newest| newest.1 == at) {
                self.recent.remove(&(shard, id));
            }
        }
    }

    /// Makes everything up to `through` of the shard's stream durable and readable, in order. Answers how many.
    fn sync(&mut self, shard: ShardId, through: Seq) -> u64 {
        let mut synced = 0;
        let Some(stream) = self.streams.get_mut(&self.stream_of(shard)) else { return 0 };
        while stream.pending.front().is_some_and(|(_, entry)| entry.seq <= through) {
            let Some((of, entry)) = stream.pending.pop_front() else { break };
            let shard = self.shards.entry(of).or_default();
            shard.head = entry.seq;
            shard.entries.insert(entry.seq, entry);
            shard.bell.notify_waiters();
            synced += 1;
        }
        synced
    }

    fn sync_all(&mut self) -> u64 {
        let streams: Vec<ShardId> = self.streams.keys().copied().collect();
        streams.into_iter().map(|stream| self.sync(stream, Seq::MAX)).sum()
    }

    fn drop_pending(&mut self) {
        for stream in self.streams.values_mut() {
            if let Some((_, first)) = stream.pending.front() {
                stream.last = first.seq.prev();
            }
            for (shard, entry) in stream.pending.drain(..) {
                self.bytes -= entry.bytes.len() as u64;
                self.recent.remove(&(shard, entry.id));
            }
        }
    }

    /// Forgets everything from `from` on, so that it is appended over.
    fn cut(&mut self, stream: ShardId, from: Seq) -> u64 {
        let mut lost = 0;
        let shared = self.shared;
        for (_, shard) in self.shards.iter_mut().filter(|(id, _)| shared || **id == stream) {
            for entry in shard.entries.split_off(&from).into_values() {
                self.bytes -= entry.bytes.len() as u64;
                lost += 1;
            }
            let left = shard.entries.keys().next_back().copied();
            shard.head = shard.head.min(left.unwrap_or(from.prev()).max(shard.trimmed));
            shard.interrupt();
        }
        self.recent.retain(|(id, _), (seq, _)| !(shared || *id == stream) || *seq < from);
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.last = stream.last.min(from.prev());
        }
        lost
    }

    fn trim(&mut self, shard: ShardId, through: Seq) {
        let shard = self.shards.entry(shard).or_default();
        // Nothing above the head exists yet, so nothing above it can be forgotten.
        let through = through.min(shard.head);
        let kept = shard.entries.split_off(&through.next());
        for entry in std::mem::replace(&mut shard.entries, kept).into_values() {
            self.bytes -= entry.bytes.len() as u64;
        }
        shard.trimmed = shard.trimmed.max(through);
    }
}

pub(super) fn go_down(world: &Inner, keeps_written: bool) {
    let mut state = lock(&world.log);
    if keeps_written {
        let synced = state.sync_all();
        world.count(|c| c.appended += synced);
    } else {
        state.drop_pending();
    }
    state.shards.values_mut().for_each(Shard::interrupt);
}

pub(super) fn cut_end(world: &Inner, shard: ShardId, entries: usize) {
    let mut state = lock(&world.log);
    state.drop_pending();
    let last = state.shards.get(&shard).and_then(|s| s.entries.keys().rev().take(entries).last().copied());
    if let (Some(from), true) = (last, entries > 0) {
        let stream = state.stream_of(shard);
        let lost = state.cut(stream, from);
        world.count(|c| c.cut += lost);
    }
    state.shards.entry(shard).or_default().interrupt();
}

pub(super) fn interrupt(world: &Inner, shard: ShardId) {
    lock(&world.log).shards.entry(shard).or_default().interrupt();
}

impl MemoryLog {
    pub(super) fn new(world: Arc<Inner>) -> Self {
        Self { world }
    }

    async fn pause(&self, plan: &LogFaults) {
        let time = lock(&self.world.log).dice.up_to_ms(plan.append_ms_max / 2);
        pause(time).await;
    }

    fn sync(&self, shard: ShardId, written: EntryRef) {
        let synced = lock(&self.world.log).sync(shard, written.seq);
        self.world.count(|c| c.appended += synced);
    }

    fn finish(&self, fate: Fate, life: u64) -> Result<EntryRef, AppendError> {
        let answer = match fate {
            Fate::Refused(error) => return Err(error),
            Fate::Late(entry) => {
                self.append_later(entry, life);
                return Err(StoreError::later("append", "no answer in time").into());
            }
            Fate::Written(shard, written) => self.world.alive(life, "append").map(|()| (shard, written)),
            Fate::AnswerLost(shard, written) => {
                if self.world.alive(life, "append").is_ok() {
                    self.sync(shard, written);
                }
                Err(StoreError::later("append", "the answer was lost"))
            }
        };
        let (shard, written) = answer?;
        if broken(Mutant::AcceptBeforeDurable) {
            self.sync_later(shard, written, life);
        } else {
            self.sync(shard, written);
        }
        Ok(written)
    }

    /// The planted fault: answered before it is durable.
    fn sync_later(&self, shard: ShardId, written: EntryRef, life: u64) {
        let log = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if log.world.alive(life, "append").is_ok() {
                log.sync(shard, written);
            }
        });
    }

    fn append_later(&self, entry: NewEntry, life: u64) {
        let world = self.world.clone();
        let wait = lock(&world.log).dice.up_to_ms(LATE_MS_MAX);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            if world.alive(life, "append").is_ok() {
                let shard = entry.shard;
                let mut state = lock(&world.log);
                let synced = state.write(entry, &LogFaults::default()).map(|written| state.sync(shard, written.seq));
                world.count(|c| c.appended += synced.unwrap_or(0));
            }
        });
    }
}

#[async_trait]
impl ShardLog for MemoryLog {
    async fn append(&self, entries: Vec<NewEntry>) -> Vec<Result<EntryRef, AppendError>> {
        let plan = self.world.plan().log;
        let life = self.world.life();
        self.pause(&plan).await;
        let fates: Vec<Fate> = {
            let mut state = lock(&self.world.log);
            let down = self.world.alive(life, "append").is_err();
            let refused = || Fate::Refused(StoreError::later("append", "the store went down").into());
            entries.into_iter().map(|entry| if down { refused() } else { state.fate_of(entry, &plan) }).collect()
        };
        self.pause(&plan).await;
        fates.into_iter().map(|fate| self.finish(fate, life)).collect()
    }

    async fn reader(&self, shard: ShardId, from: Seq) -> Result<Box<dyn LogReader>, StoreError> {
        let mut state = lock(&self.world.log);
        let state = state.shards.entry(shard).or_default();
        let reader = MemoryReader {
            world: self.world.clone(),
            shard,
            next: from,
            interruptions: state.interruptions,
            bell: state.bell.clone(),
            broken: false,
        };
        Ok(Box::new(reader))
    }

    async fn bounds(&self, shard: ShardId) -> Result<LogBounds, StoreError> {
        Ok(lock(&self.world.log).shards.entry(shard).or_default().bounds())
    }

    async fn entry_at(&self, shard: ShardId, seq: Seq) -> Result<Option<EntryId>, StoreError> {
        Ok(lock(&self.world.log).shards.entry(shard).or_default().entries.get(&seq).map(|entry| entry.id))
    }

    async fn trim(&self, shard: ShardId, through: Seq) -> Result<(), StoreError> {
        lock(&self.world.log).trim(shard, through);
        Ok(())
    }

    async fn fullness(&self, _: ShardId) -> Result<u16, StoreError> {
        let state = lock(&self.world.log);
        let part = u128::from(state.bytes) * 1_000 / u128::from(state.bytes_max.max(1));
        Ok(u16::try_from(part).unwrap_or(1_000))
    }

    fn fate(&self) -> LogFate {
        self.world.options.fate
    }
}

struct MemoryReader {
    world: Arc<Inner>,
    shard: ShardId,
    next: Seq,
    interruptions: u64,
    bell: Arc<Notify>,
    broken: bool,
}

impl MemoryReader {
    /// What is at hand: none while there is nothing.
    fn take(&mut self, bytes_max: usize) -> Result<Option<Vec<LogEntry>>, ReadError> {
        let plan = self.world.plan().log;
        let mut guard = lock(&self.world.log);
        let state = &mut *guard;
        let Some(shard) = state.shards.get(&self.shard) else { return Ok(None) };
        let mut bytes = 0;
        let mut taken = Vec::new();
        for entry in shard.entries.range(self.next..).map(|(_, entry)| entry) {
            if !taken.is_empty() && bytes + entry.bytes.len() > bytes_max {
                break;
            }
            bytes += entry.bytes.len();
            taken.push(entry.clone());
        }
        self.broken |= shard.interruptions != self.interruptions;
        self.broken |= !taken.is_empty() && state.dice.happens(plan.interrupted);
        if self.broken {
            drop(guard);
            self.world.count(|c| c.readers_interrupted += 1);
            return Err(ReadError::Interrupted(StoreError::later("read", "the connection was lost")));
        }
        let Some(last) = taken.last() else { return Ok(None) };
        self.next = last.seq.next();
        Ok(Some(taken))
    }
}

#[async_trait]
impl LogReader for MemoryReader {
    async fn next(&mut self, bytes_max: usize) -> Result<Vec<LogEntry>, ReadError> {
        let lag = {
            let plan = self.world.plan().log;
            lock(&self.world.log).dice.up_to_ms(plan.read_ms_max)
        };
        pause(lag).await;
        let bell = self.bell.clone();
        loop {
            let rung = bell.notified();
            tokio::pin!(rung);
            rung.as_mut().enable();
            if let Some(entries) = self.take(bytes_max)? {
                return Ok(entries);
            }
            rung.await;
        }
    }
}
