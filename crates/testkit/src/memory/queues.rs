// SPDX-License-Identifier: MIT OR Apache-2.0
//! Device queues, registers and shard states on three replicas with a quorum of two.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use pli_domain::limits::SETTLE_ROWS_MAX;
use pli_domain::{Checkpoint, DeviceId, EntryRef, LogEpoch, Position, Seq, ShardId, UnixMillis};
use pli_ports::{
    DeviceQueues, DeviceState, LogEpochStart, Page, PageQuery, QueueRow, ReleaseMark, Settle, ShardState, StoreError,
    Usage, UsageBound,
};
use tokio::time::Instant;

use super::faults::{Dice, QueueFaults};
use super::replica::{Position0, Registers, Replica, Write};
use super::{Inner, lock, pause};

/// Most milliseconds by which a write reaches a replica late.
const LATE_MS_MAX: u64 = 60_000;

/// The model of [`DeviceQueues`], as one process holds it: clones are the same process.
#[derive(Clone)]
pub struct MemoryQueues {
    world: Arc<Inner>,
    writer: u64,
}

pub(super) struct State {
    dice: Dice,
    replicas: [Replica; 3],
    /// On their way to a replica, by due time; bounded by what a run writes within a minute.
    late: BTreeMap<(Instant, u64), (usize, Write)>,
    late_count: u64,
    shards: BTreeMap<ShardId, Shard>,
}

/// What is decided by compare-and-set, with one history for everybody.
#[derive(Clone, Copy)]
struct Shard {
    log_epoch: LogEpochStart,
    mark: Option<ReleaseMark>,
    /// Who began the log epoch, and from which, so that a retry knows its own win.
    begun: Option<(u64, LogEpoch)>,
}

impl Default for Shard {
    fn default() -> Self {
        let log_epoch = LogEpochStart { epoch: LogEpoch::NONE, first: Seq::ZERO };
        Self { log_epoch, mark: None, begun: None }
    }
}

/// Writes of one partition, which reach a replica together.
type Batch = Vec<Write>;

/// Two replicas, read together.
struct Quorum<'a> {
    state: &'a mut State,
    pair: [usize; 2],
    repair: bool,
}

impl Quorum<'_> {
    fn each(&self) -> impl Iterator<Item = &Replica> {
        self.pair.iter().map(|&replica| &self.state.replicas[replica])
    }

    fn repair(&mut self, write: &Write) {
        if self.repair {
            for replica in self.pair {
                self.state.replicas[replica].apply(write.clone());
            }
        }
    }

    /// Up to where the device is trimmed, or none when it was removed. What one of the two knows both know after.
    fn trimmed(&mut self, device: DeviceId) -> Option<Position> {
        let found: Vec<_> = self.each().filter_map(|r| r.device(device)).map(|d| (d.removed, d.trimmed)).collect();
        if found.iter().any(|(removed, _)| *removed) {
            self.repair(&Write::Remove(device));
            return None;
        }
        let trimmed = found.into_iter().map(|(_, trimmed)| trimmed).max().unwrap_or_default().0;
        if trimmed > Position::ZERO {
            self.repair(&Write::Trim(device, trimmed));
        }
        Some(trimmed)
    }

    fn row_above(&self, device: DeviceId, after: Position) -> Option<QueueRow> {
        let rows = self.each().filter_map(|replica| replica.device(device)?.row_above(after));
        rows.min_by_key(|row| row.position).cloned()
    }

    fn page(&mut self, query: &PageQuery) -> Page {
        let mut page = Page { rows: Vec::new(), next: query.through };
        let Some(trimmed) = self.trimmed(query.device) else { return page };
        let (mut at, mut bytes) = (query.after.max(trimmed), 0);
        while let Some(row) = self.row_above(query.device, at).filter(|row| row.position <= query.through) {
            at = row.position;
            self.repair(&Write::Row(row.clone()));
            if row.expires_at <= query.now {
                continue;
            }
            bytes += row.envelope.len();
            page.rows.push(row);
            if page.rows.len() >= query.rows_max.max(1) || bytes >= query.bytes_max {
                page.next = at;
                break;
            }
        }
        page
    }

    fn usage(&mut self, device: DeviceId, above: Position, bound: UsageBound, now: UnixMillis) -> Usage {
        let mut usage = Usage { rows: 0, bytes: 0, excess: None };
        let Some(trimmed) = self.trimmed(device) else { return usage };
        let above = above.max(trimmed);
        let devices = self.each().filter_map(|replica| replica.device(device));
        let live = devices.flat_map(|d| d.rows_above(above)).filter(|row| row.expires_at > now);
        let sizes: BTreeMap<Position, usize> = live.map(|row| (row.position, row.envelope.len())).collect();
        for (position, size) in sizes.into_iter().rev() {
            usage.rows += 1;
            usage.bytes += size;
            if usage.rows > bound.rows_max || usage.bytes > bound.bytes_max {
                usage.excess = Some(position);
                break;
            }
        }
        usage
    }

    fn registers(&mut self, device: DeviceId) -> DeviceState {
        let mut newest = Registers::default();
        if self.trimmed(device).is_none() {
            return newest.state();
        }
        self.each().filter_map(|replica| replica.device(device)).for_each(|found| newest.raise(found.state));
        let state = newest.state();
        if newest.cursor.max(newest.floor) > Position0::default() {
            let (cursor, floor) = (Some(state.cursor), Some(state.floor));
            self.repair(&Write::Register(pli_ports::DeviceRegister { device, cursor, floor }));
        }
        state
    }

    fn checkpoint(&mut self, shard: ShardId) -> Checkpoint {
        let newest = self.each().map(|replica| replica.checkpoint(shard)).max().unwrap_or(Checkpoint::ZERO);
        self.repair(&Write::Checkpoint(shard, newest));
        newest
    }

    fn aside(&mut self, shard: ShardId) -> u32 {
        let entries: BTreeSet<EntryRef> =
            self.each().flat_map(|replica| replica.aside(shard)).map(|a| a.entry).collect();
        u32::try_from(entries.len()).unwrap_or(u32::MAX)
    }
}

impl State {
    pub fn new(seed: u64) -> Self {
        Self {
            dice: Dice::new(seed, 2),
            replicas: Default::default(),
            late: BTreeMap::new(),
            late_count: 0,
            shards: BTreeMap::new(),
        }
    }

    pub fn go_down(&mut self, keeps_written: bool) {
        if !keeps_written {
            self.late.clear();
        }
    }

    pub fn forget_tombstones(&mut self, replica: usize, device: DeviceId) {
        if let Some(device) = self.replicas[replica % 3].device_mut(device) {
            device.forget_tombstones();
        }
    }

    /// Writes that are due reach their replicas. Answers how many.
    fn arrive(&mut self, through: Option<Instant>) -> u64 {
        let mut arrived = 0;
        while let Some(entry) = self.late.first_entry() {
            if through.is_some_and(|through| entry.key().0 > through) {
                break;
            }
            let (replica, write) = entry.remove();
            self.replicas[replica].apply(write);
            arrived += 1;
        }
        arrived
    }

    fn miss(&mut self, replica: usize, batch: &Batch, plan: &QueueFaults) {
        if !self.dice.happens(plan.late) {
            return;
        }
        let due = Instant::now() + self.dice.up_to_ms(LATE_MS_MAX);
        for write in batch {
            self.late_count += 1;
            self.late.insert((due, self.late_count), (replica, write.clone()));
        }
    }

    /// Sends a batch to the replicas; `whole` promises a quorum.
    fn scatter(&mut self, batch: &Batch, whole: bool, plan: &QueueFaults) {
        let spared = if whole && self.dice.happens(plan.replica_missed) { self.dice.below(3) } else { 3 };
        for replica in 0..3 {
            if if whole { replica == spared } else { self.dice.happens(500) } {
                self.miss(replica, batch, plan);
            } else {
                batch.iter().cloned().for_each(|write| self.replicas[replica].apply(write));
            }
        }
    }

    fn quorum(&mut self, plan: &QueueFaults) -> Quorum<'_> {
        let left_out = if plan.replica_missed > 0 || plan.write_timeout > 0 { self.dice.below(3) } else { 2 };
        let pair = [(left_out + 1) % 3, (left_out + 2) % 3];
        Quorum { state: self, pair, repair: !plan.no_read_repair }
    }
}

pub(super) fn deliver_late(world: &Inner) {
    let arrived = lock(&world.queues).arrive(None);
    world.count(|c| c.writes_late += arrived);
}

/// One batch per device, so that each stands in one partition.
fn rows_by_device(rows: Vec<QueueRow>) -> Vec<Batch> {
    let mut batches: Vec<(DeviceId, Batch)> = Vec::new();
    for row in rows {
        match batches.last_mut() {
            Some((device, batch)) if *device == row.device => batch.push(Write::Row(row)),
            _ => batches.push((row.device, vec![Write::Row(row)])),
        }
    }
    batches.into_iter().map(|(_, batch)| batch).collect()
}

impl MemoryQueues {
    pub(super) fn new(world: Arc<Inner>, writer: u64) -> Self {
        Self { world, writer }
    }

    async fn pause(&self, plan: &QueueFaults) {
        let time = lock(&self.world.queues).dice.up_to_ms(plan.step_ms_max);
        pause(time).await;
    }

    /// Writes stage after stage; a fault stops it at one batch, of which any replica may have something.
    async fn write(&self, operation: &'static str, stages: Vec<Vec<Batch>>) -> Result<(), StoreError> {
        let plan = self.world.plan().queues;
        let life = self.world.life();
        let batches = stages.iter().map(Vec::len).sum();
        let stops_at = {
            let mut state = lock(&self.world.queues);
            (batches > 0 && state.dice.happens(plan.write_timeout)).then(|| state.dice.below(batches))
        };
        let mut at = 0;
        for stage in stages.into_iter().filter(|stage| !stage.is_empty()) {
            self.pause(&plan).await;
            self.world.alive(life, operation)?;
            let mut state = lock(&self.world.queues);
            for batch in &stage {
                let stopped = stops_at == Some(at);
                state.scatter(batch, !stopped, &plan);
                if stopped {
                    self.world.count(|c| c.writes_timed_out += 1);
                    return Err(StoreError::later(operation, "too few replicas answered"));
                }
                at += 1;
            }
        }
        self.pause(&plan).await;
        self.world.alive(life, operation)
    }

    async fn read<T>(
        &self,
        operation: &'static str,
        read: impl FnOnce(&mut Quorum<'_>) -> T + Send,
    ) -> Result<T, StoreError> {
        let plan = self.world.plan().queues;
        let life = self.world.life();
        self.pause(&plan).await;
        self.world.alive(life, operation)?;
        let mut state = lock(&self.world.queues);
        let arrived = state.arrive(Some(Instant::now()));
        self.world.count(|c| c.writes_late += arrived);
        if state.dice.happens(plan.read_timeout) {
            return Err(StoreError::later(operation, "too few replicas answered"));
        }
        Ok(read(&mut state.quorum(&plan)))
    }

    fn maybe_forget_tombstones(&self, device: DeviceId) {
        let chance = self.world.plan().queues.tombstone_gone;
        let mut state = lock(&self.world.queues);
        if state.dice.happens(chance) {
            let replica = state.dice.below(3);
            state.forget_tombstones(replica, device);
        }
    }

    /// Decides something about a shard at one instant; the answer may be lost, and so may the question.
    async fn decide<T>(
        &self,
        operation: &'static str,
        shard: ShardId,
        decide: impl FnOnce(&mut Shard) -> T + Send,
    ) -> Result<T, StoreError> {
        let plan = self.world.plan().queues;
        let life = self.world.life();
        self.pause(&plan).await;
        self.world.alive(life, operation)?;
        let mut state = lock(&self.world.queues);
        let unknown = state.dice.happens(plan.cas_unknown);
        if unknown && state.dice.happens(500) {
            return Err(StoreError::later(operation, "the round was not begun or not finished"));
        }
        let decided = decide(state.shards.entry(shard).or_default());
        if unknown { Err(StoreError::later(operation, "the answer was lost")) } else { Ok(decided) }
    }

    async fn with_checkpoint(&self, shard: ShardId, decided: Shard) -> Result<ShardState, StoreError> {
        let (checkpoint, aside) = self.read("shard state", |q| (q.checkpoint(shard), q.aside(shard))).await?;
        Ok(ShardState { log_epoch: decided.log_epoch, mark: decided.mark, checkpoint, aside })
    }
}

#[async_trait]
impl DeviceQueues for MemoryQueues {
    async fn settle(&self, shard: ShardId, settle: Settle) -> Result<(), StoreError> {
        if settle.rows.len() > SETTLE_ROWS_MAX {
            return Err(StoreError::never("settle", "a settle has at most 4096 rows"));
        }
        let bytes = settle.rows.iter().map(|row| row.envelope.len()).sum();
        if self.world.plan().queues.row_bytes_max.is_some_and(|most: usize| most < bytes) {
            return Err(StoreError::no_room("settle", "the disk is full"));
        }
        let rows = settle.rows.len() as u64;
        self.world.count(|c| c.rows_written += rows);
        let aside = settle.aside.into_iter().map(|aside| vec![Write::Aside(shard, aside)]).collect();
        let registers = settle.registers.into_iter().map(|register| vec![Write::Register(register)]).collect();
        let checkpoint = settle.checkpoint.into_iter().map(|c| vec![Write::Checkpoint(shard, c)]).collect();
        self.write("settle", vec![aside, rows_by_device(settle.rows), registers, checkpoint]).await
    }

    async fn read_page(&self, query: PageQuery) -> Result<Page, StoreError> {
        self.maybe_forget_tombstones(query.device);
        self.read("read page", |quorum| quorum.page(&query)).await
    }

    async fn shard_state(&self, shard: ShardId) -> Result<ShardState, StoreError> {
        let decided = self.decide("shard state", shard, |found| *found).await?;
        self.with_checkpoint(shard, decided).await
    }

    async fn take_mark(&self, shard: ShardId) -> Result<ShardState, StoreError> {
        let take = |found: &mut Shard| {
            let before = *found;
            if !pli_domain::mutant::broken(pli_domain::mutant::Mutant::MarkNotCleared) {
                found.mark = None;
            }
            before
        };
        let decided = self.decide("take mark", shard, take).await?;
        self.with_checkpoint(shard, decided).await
    }

    async fn put_mark(&self, shard: ShardId, mark: ReleaseMark) -> Result<bool, StoreError> {
        let put = |found: &mut Shard| {
            let current = found.log_epoch.epoch == mark.epoch;
            if current {
                found.mark = Some(mark);
            }
            current
        };
        self.decide("put mark", shard, put).await
    }

    async fn begin_log_epoch(&self, shard: ShardId, from: LogEpoch, to: LogEpochStart) -> Result<bool, StoreError> {
        let token = (self.writer, from);
        let begin = |found: &mut Shard| {
            if found.log_epoch.epoch == from {
                *found = Shard { log_epoch: to, mark: None, begun: Some(token) };
            }
            found.log_epoch == to && found.begun == Some(token)
        };
        self.decide("begin log epoch", shard, begin).await
    }

    async fn device_states(&self, devices: &[DeviceId]) -> Result<Vec<DeviceState>, StoreError> {
        self.read("device states", |quorum| devices.iter().map(|device| quorum.registers(*device)).collect()).await
    }

    async fn trim(&self, trims: Vec<(DeviceId, Position)>) -> Result<(), StoreError> {
        let batches = trims.into_iter().map(|(device, through)| vec![Write::Trim(device, through)]).collect();
        self.write("trim", vec![batches]).await
    }

    async fn usage(
        &self,
        device: DeviceId,
        above: Position,
        bound: UsageBound,
        now: UnixMillis,
    ) -> Result<Usage, StoreError> {
        self.read("usage", |quorum| quorum.usage(device, above, bound, now)).await
    }

    async fn remove_device(&self, device: DeviceId) -> Result<(), StoreError> {
        self.write("remove device", vec![vec![vec![Write::Remove(device)]]]).await
    }
}
