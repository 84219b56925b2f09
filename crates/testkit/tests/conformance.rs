// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every suite on the models.

use std::sync::Arc;

use async_trait::async_trait;
use pli_domain::ShardId;
use pli_ports::{Accounts, Conversations, DeviceQueues, Leases, LogFate, Payloads, ShardLog, Signals};
use pli_testkit::conformance::{self, Harness, Restart};
use pli_testkit::memory::{FaultPlan, MemoryWorld, WorldOptions};

/// Makes one port of a world.
type Open<P> = fn(&MemoryWorld) -> Arc<P>;

struct Models<P: ?Sized> {
    options: WorldOptions,
    plan: FaultPlan,
    world: MemoryWorld,
    open: Open<P>,
}

impl<P: ?Sized> Models<P> {
    fn new(options: WorldOptions, plan: FaultPlan, open: Open<P>) -> Self {
        Self { options, plan, world: MemoryWorld::new(options), open }
    }
}

#[async_trait]
impl<P: ?Sized + Send + Sync + 'static> Harness<P> for Models<P> {
    async fn fresh(&mut self) -> Arc<P> {
        self.world = MemoryWorld::new(self.options);
        self.world.set_faults(self.plan);
        (self.open)(&self.world)
    }

    async fn restart(&mut self, how: Restart) -> Option<Arc<P>> {
        match how {
            Restart::Clean => {}
            Restart::Kill => self.world.crash(),
            Restart::PowerCut => self.world.power_cut(),
        }
        Some((self.open)(&self.world))
    }

    fn is_networked(&self) -> bool {
        false
    }
}

/// Every kind of log, at once and at a seeded pace.
fn worlds() -> Vec<(String, WorldOptions, FaultPlan)> {
    let mut worlds = Vec::new();
    for fate in [LogFate::OneTransaction, LogFate::OwnSystem] {
        for shards_share_stream in [false, true] {
            for (pace, plan) in [("at once", FaultPlan::default()), ("slow", FaultPlan::slow())] {
                let options = WorldOptions { seed: 7, fate, shards_share_stream, ..WorldOptions::default() };
                worlds.push((format!("{fate:?}, shared stream {shards_share_stream}, {pace}"), options, plan));
            }
        }
    }
    worlds
}

#[tokio::test(start_paused = true)]
async fn shard_log() {
    for (name, options, plan) in worlds() {
        let mut models = Models::<dyn ShardLog>::new(options, plan, |world| Arc::new(world.log()));
        let suite = format!("shard log ({name})");
        conformance::run(&suite, conformance::shard_log::CASES, &mut models).await.assert_whole();
        assert_eq!(models.world.log().fate(), options.fate);
        assert!(models.world.log_entries(ShardId::new(0)).is_empty());
    }
}

/// The two paces; the other options concern the log alone.
fn paces() -> Vec<(String, WorldOptions, FaultPlan)> {
    worlds().into_iter().take(2).collect()
}

#[tokio::test(start_paused = true)]
async fn device_queues() {
    for (name, options, plan) in paces() {
        let mut models = Models::<dyn DeviceQueues>::new(options, plan, |world| Arc::new(world.queues()));
        let suite = format!("device queues ({name})");
        conformance::run(&suite, conformance::device_queues::CASES, &mut models).await.assert_whole();
    }
}

#[tokio::test(start_paused = true)]
async fn leases() {
    for (name, options, plan) in paces() {
        let mut models = Models::<dyn Leases>::new(options, plan, |world| Arc::new(world.leases()));
        let suite = format!("leases ({name})");
        conformance::run(&suite, conformance::leases::CASES, &mut models).await.assert_whole();
    }
}

#[tokio::test(start_paused = true)]
async fn signals() {
    for (name, options, plan) in paces() {
        let mut models = Models::<dyn Signals>::new(options, plan, |world| Arc::new(world.signals()));
        let suite = format!("signals ({name})");
        conformance::run(&suite, conformance::signals::CASES, &mut models).await.assert_whole();
    }
}

#[tokio::test(start_paused = true)]
async fn accounts() {
    for (name, options, plan) in paces() {
        let mut models = Models::<dyn Accounts>::new(options, plan, |world| Arc::new(world.accounts()));
        let suite = format!("accounts ({name})");
        conformance::run(&suite, conformance::accounts::CASES, &mut models).await.assert_whole();
    }
}

#[tokio::test(start_paused = true)]
async fn conversations() {
    for (name, options, plan) in paces() {
        let mut models = Models::<dyn Conversations>::new(options, plan, |world| Arc::new(world.conversations()));
        let suite = format!("conversations ({name})");
        conformance::run(&suite, conformance::conversations::CASES, &mut models).await.assert_whole();
    }
}

#[tokio::test(start_paused = true)]
async fn payloads() {
    for (name, options, plan) in paces() {
        let mut models = Models::<dyn Payloads>::new(options, plan, |world| Arc::new(world.payloads()));
        let suite = format!("payloads ({name})");
        conformance::run(&suite, conformance::payloads::CASES, &mut models).await.assert_whole();
    }
}
