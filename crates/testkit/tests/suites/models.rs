// SPDX-License-Identifier: MIT OR Apache-2.0
//! The models as a harness.

use std::sync::Arc;

use async_trait::async_trait;
use pli_ports::{Accounts, Conversations, DeviceQueues, Leases, Links, LogFate, Media, Payloads, ShardLog, Signals};
use pli_testkit::conformance::{Harness, Restart};
use pli_testkit::memory::{FaultPlan, MemoryWorld, WorldOptions};

/// Opens one port of a world.
type Open<P> = Box<dyn Fn(&MemoryWorld) -> Arc<P> + Send + Sync>;

/// Worlds in which one port is looked at.
pub struct Models<P: ?Sized> {
    options: WorldOptions,
    plan: FaultPlan,
    world: MemoryWorld,
    open: Open<P>,
    forgetful: bool,
}

impl<P: ?Sized> Models<P> {
    /// Worlds of these options, opened in this way.
    pub fn new(options: WorldOptions, plan: FaultPlan, open: Open<P>) -> Self {
        Self { options, plan, world: MemoryWorld::new(options), open, forgetful: false }
    }
    /// A planted fault: every restart finds nothing.
    pub fn forgetful(mut self) -> Self {
        self.forgetful = true;
        self
    }
    /// The world of the last case.
    pub fn world(&self) -> &MemoryWorld {
        &self.world
    }
    fn begin(&mut self) {
        self.world = MemoryWorld::new(self.options);
        self.world.set_faults(self.plan);
    }
}

macro_rules! of {
    ($($of:ident: $port:ty = $open:ident;)+) => { $(impl Models<$port> {
        /// Opens the model itself.
        pub fn $of(options: WorldOptions, plan: FaultPlan) -> Self {
            Self::new(options, plan, Box::new(|world| Arc::new(world.$open())))
        }
    })+ };
}
of! {
    of_log: dyn ShardLog = log;
    of_queues: dyn DeviceQueues = queues;
    of_leases: dyn Leases = leases;
    of_signals: dyn Signals = signals;
    of_accounts: dyn Accounts = accounts;
    of_conversations: dyn Conversations = conversations;
    of_links: dyn Links = links;
    of_media: dyn Media = media;
    of_payloads: dyn Payloads = payloads;
}

#[async_trait]
impl<P: ?Sized + Send + Sync + 'static> Harness<P> for Models<P> {
    async fn fresh(&mut self) -> Arc<P> {
        self.begin();
        (self.open)(&self.world)
    }

    async fn restart(&mut self, how: Restart) -> Option<Arc<P>> {
        match how {
            _ if self.forgetful => self.begin(),
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
pub fn worlds() -> Vec<(String, WorldOptions, FaultPlan)> {
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

/// The two paces; the other options concern the log alone.
pub fn paces() -> Vec<(String, WorldOptions, FaultPlan)> {
    worlds().into_iter().take(2).collect()
}
