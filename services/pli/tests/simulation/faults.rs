// SPDX-License-Identifier: MIT OR Apache-2.0
//! What happens to processes and stores as wholes, drawn from the seed.

use std::sync::Arc;
use std::time::Duration;

use pli_domain::{DeviceId, ShardId};
use pli_testkit::memory::MemoryWorld;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use tokio::time::{Instant, sleep};

use crate::simulation::network::Network;
use crate::simulation::owners::Owners;
use crate::simulation::plan::Plan;
use crate::simulation::world::World;

/// Breaks things until its time is over, then mends everything.
pub struct Faults {
    pub world: Arc<World>,
    pub memory: MemoryWorld,
    pub plan: Arc<Plan>,
    pub network: Arc<Network>,
    pub owners: Arc<Owners>,
    pub devices: Vec<DeviceId>,
    rng: ChaCha8Rng,
    /// What is to be mended, and when.
    due: Vec<(Instant, Mend)>,
}

/// Breaks one thing.
type Strike = fn(&mut Faults);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mend {
    StartOwner(usize),
    ResumeOwner(usize),
    UndeceiveOwner(usize),
    StartEdge(usize),
    ResumeEdge(usize),
    LogHasRoom,
}

impl Faults {
    /// Nothing is broken yet.
    pub fn new(
        (world, memory, plan): (Arc<World>, MemoryWorld, Arc<Plan>),
        network: Arc<Network>,
        owners: Arc<Owners>,
        devices: Vec<DeviceId>,
    ) -> Self {
        let rng = plan.rng(3);
        Self { world, memory, plan, network, owners, devices, rng, due: Vec::new() }
    }

    /// Breaks and mends until the plan's time is over or a rule was broken.
    pub async fn rage(&mut self) {
        let end = Instant::now() + self.plan.rough;
        let mut next = Instant::now();
        while Instant::now() < end && self.world.failure().is_none() {
            sleep(Duration::from_millis(50)).await;
            self.mend(Instant::now());
            if next <= Instant::now() {
                next = Instant::now() + self.some(self.plan.fault_every);
                self.strike();
            }
        }
        self.calm();
    }

    /// No more faults; everything runs.
    fn calm(&mut self) {
        self.world.say(format_args!("-- faults end"));
        self.memory.set_faults(pli_testkit::memory::FaultPlan::slow());
        self.memory.deliver_late_writes();
        self.mend(Instant::now() + Duration::from_secs(3600));
        (0..self.plan.owners).for_each(|place| self.owners.start(place));
        (0..self.plan.edges).for_each(|place| self.network.start(place));
    }

    fn some(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.rng.random_range(0.05..1.0))
    }

    fn later(&mut self, most: u64, mend: Mend) {
        let at = Instant::now() + self.some(Duration::from_secs(most));
        self.due.push((at, mend));
    }

    fn mend(&mut self, through: Instant) {
        let due: Vec<Mend> = self.due.extract_if(.., |(at, _)| *at <= through).map(|(_, mend)| mend).collect();
        for mend in due {
            match mend {
                Mend::StartOwner(place) => {
                    // One that was asked to stop and has not yet is killed.
                    self.owners.crash(place);
                    self.owners.start(place);
                }
                Mend::ResumeOwner(place) => self.owners.pause(place, false),
                Mend::UndeceiveOwner(place) => self.owners.deceive(place, false),
                Mend::StartEdge(place) => {
                    self.network.crash(place);
                    self.network.start(place);
                }
                Mend::ResumeEdge(place) => self.network.pause(place, false),
                Mend::LogHasRoom => self.memory.set_log_full(false),
            }
        }
    }

    fn strike(&mut self) {
        let weights = self.plan.weights;
        let kinds: [(u32, Strike); 13] = [
            (weights.crash_owner, Self::crash_owner),
            (weights.release_owner, Self::release_owner),
            (weights.pause_owner, Self::pause_owner),
            (weights.crash_edge, Self::crash_edge),
            (weights.crash_edge, Self::pause_edge),
            (weights.cut_log, Self::cut_log),
            (weights.interrupt_readers, Self::interrupt_readers),
            (weights.interrupt_bus, |f| f.memory.interrupt_signals()),
            (weights.expire_lease, Self::expire_lease),
            (weights.power_cut, Self::power_cut),
            (weights.log_full, Self::log_full),
            (weights.forget_tombstones, Self::forget_tombstones),
            (weights.deceive_owner, Self::deceive_owner),
        ];
        let mut drawn = self.rng.random_range(0..1_000);
        for (chance, strike) in kinds {
            if drawn < chance {
                return strike(self);
            }
            drawn -= chance;
        }
    }

    fn owner(&mut self) -> usize {
        self.rng.random_range(0..self.plan.owners)
    }
    fn edge(&mut self) -> usize {
        self.rng.random_range(0..self.plan.edges)
    }
    fn shard(&mut self) -> ShardId {
        ShardId::new(self.rng.random_range(0..self.world.shards.count()))
    }

    fn crash_owner(&mut self) {
        let place = self.owner();
        self.owners.crash(place);
        self.later(4, Mend::StartOwner(place));
    }
    fn release_owner(&mut self) {
        let place = self.owner();
        self.owners.release(place);
        self.later(6, Mend::StartOwner(place));
    }
    fn pause_owner(&mut self) {
        let place = self.owner();
        self.owners.pause(place, true);
        self.later(10, Mend::ResumeOwner(place));
    }
    fn deceive_owner(&mut self) {
        let place = self.owner();
        self.owners.deceive(place, true);
        self.later(10, Mend::UndeceiveOwner(place));
    }
    fn crash_edge(&mut self) {
        let place = self.edge();
        if self.rng.random_bool(0.3) {
            self.network.drain(place)
        } else {
            self.network.crash(place)
        }
        self.later(4, Mend::StartEdge(place));
    }
    fn pause_edge(&mut self) {
        let place = self.edge();
        self.network.pause(place, true);
        self.later(10, Mend::ResumeEdge(place));
    }
    fn interrupt_readers(&mut self) {
        let shard = self.shard();
        self.world.say(format_args!("readers of {shard:?} are interrupted"));
        self.memory.interrupt_readers(shard);
    }
    fn expire_lease(&mut self) {
        let shard = self.shard();
        self.world.say(format_args!("the lease of {shard:?} is free"));
        self.memory.expire_lease(shard);
    }
    fn log_full(&mut self) {
        self.world.say(format_args!("the log is full"));
        self.memory.set_log_full(true);
        self.later(4, Mend::LogHasRoom);
    }
    fn forget_tombstones(&mut self) {
        let device = self.devices[self.rng.random_range(0..self.devices.len())];
        self.memory.forget_tombstones(self.rng.random_range(0..3), device);
    }

    /// The log loses its end, often the newest entries only.
    fn cut_log(&mut self) {
        let (shard, entries) = (self.shard(), self.rng.random_range(1..=5));
        let before: Vec<_> = self.world.shards.shards().map(|shard| (shard, self.world.log(shard))).collect();
        self.memory.cut_log_end(shard, entries);
        self.world.say(format_args!("** the log of {shard:?} loses {entries} entries"));
        for (shard, log) in before {
            let left = self.world.log(shard);
            let kept = |seq| left.iter().any(|(s, _)| *s == seq);
            let lost: Vec<_> = log.into_iter().filter(|(seq, _)| !kept(*seq)).collect();
            if !lost.is_empty() {
                self.world.oracle().forked(shard, &lost, &self.world.rare);
            }
        }
    }

    /// Everything loses power: what was not synced is gone.
    fn power_cut(&mut self) {
        self.world.say(format_args!("** power cut"));
        self.world.rare.power_cut.one();
        (0..self.plan.owners).for_each(|place| self.owners.crash(place));
        (0..self.plan.edges).for_each(|place| self.network.crash(place));
        self.memory.power_cut();
        (0..self.plan.owners).for_each(|place| self.later(3, Mend::StartOwner(place)));
        (0..self.plan.edges).for_each(|place| self.later(3, Mend::StartEdge(place)));
    }
}
