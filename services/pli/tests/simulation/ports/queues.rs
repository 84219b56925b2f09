// SPDX-License-Identifier: MIT OR Apache-2.0
//! Device queues.

use std::sync::Arc;

use async_trait::async_trait;
use pli_domain::{DeviceId, LogEpoch, Position, ShardId, UnixMillis};
use pli_ports::{
    DeviceQueues, DeviceState, LogEpochStart, Page, PageQuery, ReleaseMark, Settle, ShardState, StoreError, Usage,
    UsageBound,
};

use super::Seat;
use crate::simulation::oracle::{Call, View};

/// The queues as one process sees them.
pub struct PortQueues {
    pub seat: Seat,
    pub inner: Arc<dyn DeviceQueues>,
}

/// A settle that is under way, until it ends or is dropped.
struct UnderWay<'a> {
    seat: &'a Seat,
    shard: ShardId,
    settle: Settle,
}

impl<'a> UnderWay<'a> {
    fn begin(seat: &'a Seat, shard: ShardId, settle: Settle) -> Self {
        let mut oracle = seat.world.oracle();
        let truth = oracle.shard(shard);
        if truth.settling.iter().any(|(name, n)| *n > 0 && name != seat.name()) {
            seat.world.rare.two_settle.one();
        }
        *truth.settling.entry(seat.name().into()).or_default() += 1;
        oracle.settling(shard, &settle);
        oracle.settles_again(seat.name(), shard);
        Self { seat, shard, settle }
    }

    fn acknowledged(self) {
        let mut oracle = self.seat.world.oracle();
        oracle.shard(self.shard).unheard.retain(|unheard| *unheard != self.settle);
        oracle.settled(self.shard, &self.settle);
        let view = oracle.shard(self.shard).views.entry(self.seat.name().into()).or_default();
        view.heard.push(self.settle.clone());
        let overlaps = oracle.shard(self.shard).tenures.settled(self.seat.name());
        self.seat.world.rare.overlap.by(overlaps);
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut oracle = self.seat.world.oracle();
        *oracle.shard(self.shard).settling.entry(self.seat.name().into()).or_insert(1) -= 1;
    }
}

impl PortQueues {
    fn look_at(&self, shard: ShardId, settle: &Settle) {
        let (world, owner) = (&self.seat.world, self.seat.name());
        let log = world.log(shard);
        let call = Call { owner, shard, log: &log, now: world.now() };
        let oracle = world.oracle();
        let verdict = oracle.judge_settle(&call, settle);
        for row in &settle.rows {
            if oracle.devices.get(&row.device).is_some_and(|d| d.session.is_some()) {
                world.rare.spill_live.one();
            }
        }
        for register in &settle.registers {
            let floor = oracle.devices.get(&register.device).map_or(Position::ZERO, |d| d.floor.0);
            if register.floor.is_some_and(|f| f > floor) {
                world.rare.floor_raised.one();
            }
        }
        if oracle.shards.get(&shard).is_some_and(|s| s.holder != owner) {
            world.rare.zombie_settle.one();
        }
        drop(oracle);
        let rows: Vec<_> = settle.rows.iter().map(|r| (r.device, r.position)).collect();
        let (registers, checkpoint) = (&settle.registers, &settle.checkpoint);
        world.say(format_args!("{owner} settles {shard:?}: {rows:?} {registers:?} {checkpoint:?}"));
        world.judge(verdict);
    }

    /// What a read or a compare-and-set of the shard's state says.
    fn learn(&self, shard: ShardId, state: &ShardState) {
        let mut oracle = self.seat.world.oracle();
        oracle.checkpoint_read(shard, state.checkpoint);
        if state.log_epoch.epoch > LogEpoch::NONE {
            oracle.epoch_begins(shard, state.log_epoch);
        }
    }

    fn started(&self, shard: ShardId, state: &ShardState) {
        let (world, name) = (&self.seat.world, self.seat.name());
        let waiting = world.log(shard).iter().any(|(seq, _)| *seq > state.checkpoint.position.seq());
        if waiting {
            world.rare.hand_over.one();
        }
        if state.mark.is_some() {
            world.rare.mark_taken.one();
        }
        let mut oracle = world.oracle();
        let truth = oracle.shard(shard);
        truth.holder = name.into();
        truth.tenures.began(name);
        truth.views.insert(name.into(), View { epoch: Some(state.log_epoch.epoch), ..View::default() });
    }
}

#[async_trait]
impl DeviceQueues for PortQueues {
    async fn settle(&self, shard: ShardId, settle: Settle) -> Result<(), StoreError> {
        self.seat.process.pass().await;
        self.look_at(shard, &settle);
        let answer = {
            let under_way = UnderWay::begin(&self.seat, shard, settle.clone());
            let answer = self.inner.settle(shard, settle).await;
            if answer.is_ok() {
                under_way.acknowledged();
            }
            answer
        };
        self.seat.process.pass().await;
        self.seat.world.say(format_args!("{} settled {shard:?}: {}", self.seat.name(), answer.is_ok()));
        answer
    }

    async fn read_page(&self, query: PageQuery) -> Result<Page, StoreError> {
        self.seat.call(self.inner.read_page(query)).await
    }

    async fn shard_state(&self, shard: ShardId) -> Result<ShardState, StoreError> {
        let answer = self.seat.call(self.inner.shard_state(shard)).await;
        if let Ok(state) = &answer {
            self.learn(shard, state);
        }
        answer
    }

    async fn take_mark(&self, shard: ShardId) -> Result<ShardState, StoreError> {
        let answer = self.seat.call(self.inner.take_mark(shard)).await;
        self.seat.world.say(format_args!("{} takes the mark of {shard:?}: {answer:?}", self.seat.name()));
        if let Ok(state) = &answer {
            self.learn(shard, state);
            self.started(shard, state);
        }
        answer
    }

    async fn put_mark(&self, shard: ShardId, mark: ReleaseMark) -> Result<bool, StoreError> {
        let answer = self.seat.call(self.inner.put_mark(shard, mark)).await;
        self.seat.world.say(format_args!("{} marks {shard:?} {mark:?}: {answer:?}", self.seat.name()));
        answer
    }

    async fn begin_log_epoch(&self, shard: ShardId, from: LogEpoch, to: LogEpochStart) -> Result<bool, StoreError> {
        let answer = self.seat.call(self.inner.begin_log_epoch(shard, from, to)).await;
        self.seat.world.say(format_args!("{} begins {to:?} of {shard:?}: {answer:?}", self.seat.name()));
        if let Ok(true) = answer {
            let mut oracle = self.seat.world.oracle();
            oracle.epoch_begins(shard, to);
            let truth = oracle.shard(shard);
            truth.fork_open = false;
            truth.views.entry(self.seat.name().into()).or_default().epoch = Some(to.epoch);
        }
        answer
    }

    async fn device_states(&self, devices: &[DeviceId]) -> Result<Vec<DeviceState>, StoreError> {
        let answer = self.seat.call(self.inner.device_states(devices)).await;
        for (device, state) in devices.iter().zip(answer.iter().flatten()) {
            self.seat.world.oracle().floor_read(*device, state.floor);
        }
        answer
    }

    async fn trim(&self, trims: Vec<(DeviceId, Position)>) -> Result<(), StoreError> {
        self.seat.process.pass().await;
        let (world, name) = (&self.seat.world, self.seat.name());
        for (device, through) in &trims {
            let log = world.oracle().shard_of.get(device).map_or_else(Vec::new, |shard| world.log(*shard));
            let verdict = world.oracle().judge_queue_trim(name, (*device, *through), &log, world.now());
            world.judge(verdict);
        }
        world.say(format_args!("{name} trims queues: {trims:?}"));
        self.seat.call(self.inner.trim(trims)).await
    }

    async fn usage(
        &self,
        device: DeviceId,
        above: Position,
        bound: UsageBound,
        now: UnixMillis,
    ) -> Result<Usage, StoreError> {
        self.seat.call(self.inner.usage(device, above, bound, now)).await
    }

    async fn remove_device(&self, device: DeviceId) -> Result<(), StoreError> {
        self.seat.call(self.inner.remove_device(device)).await
    }
}
