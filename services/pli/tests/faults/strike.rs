// SPDX-License-Identifier: MIT OR Apache-2.0
//! Faults struck and mended.

use std::sync::Arc;
use std::time::Duration;

use pli_testkit::proxy::Way;
use tokio::time::{Instant, sleep_until};

use crate::faults::connections::{Connection, Connections};
use crate::faults::schedule::{Blow, Fault};
use crate::faults::servers::{SHARDS, Servers, end_consumers, purge_leases};
use crate::simulation::cast::Cast;
use crate::simulation::stores::Place;

/// How slow a slow database is, in each direction.
const SLOW: Duration = Duration::from_millis(120);

/// Strikes and mends while a cast is at work.
pub struct Striker<'a> {
    pub servers: &'a Servers,
    pub connections: Arc<Connections>,
    pub cast: &'a Cast,
    pub owners: usize,
    pub edges: usize,
}

impl Striker<'_> {
    /// The whole schedule, each fault mended in its time; ends early when a rule was broken.
    pub async fn rage(&self, schedule: &[Blow]) {
        let begun = Instant::now();
        let mut due: Vec<(Instant, Blow)> = Vec::new();
        for blow in schedule {
            let at = begun + blow.at;
            self.mend_until(&mut due, at).await;
            if self.cast.world.failure().is_some() {
                break;
            }
            sleep_until(at).await;
            self.cast.world.say(format_args!("-- {blow}"));
            self.strike(*blow).await;
            due.push((at + blow.lasts, *blow));
        }
        let last = due.iter().map(|(at, _)| *at).max().unwrap_or(begun);
        self.mend_until(&mut due, last).await;
        self.calm();
    }

    async fn mend_until(&self, due: &mut Vec<(Instant, Blow)>, until: Instant) {
        due.sort_by_key(|(at, _)| *at);
        while let Some((at, blow)) = due.first().copied().filter(|(at, _)| *at <= until) {
            due.remove(0);
            sleep_until(at).await;
            self.mend(blow);
        }
    }

    /// No fault is left; everything runs.
    pub fn calm(&self) {
        self.cast.world.say(format_args!("-- faults end"));
        for (_, connection) in self.connections.all() {
            connection.to_cql.set(Way::Open);
            connection.to_nats.set(Way::Open);
            connection.writes.set(false);
        }
        for place in 0..self.owners {
            self.cast.owners.deceive(place, false);
            self.cast.owners.pause(place, false);
            self.cast.owners.start(place);
        }
        (0..self.edges).for_each(|place| self.cast.network.start(place));
    }

    /// The worker's place.
    fn owner(&self, blow: Blow) -> usize {
        blow.place % self.owners
    }

    /// The worker's connections.
    fn worker(&self, blow: Blow) -> &Connection {
        self.connections.at(Place::Owner(self.owner(blow)))
    }

    /// The connections of a worker or an edge.
    fn any(&self, blow: Blow) -> &Connection {
        let place = blow.place % (self.owners + self.edges);
        let place = place.checked_sub(self.owners).map_or(Place::Owner(place), Place::Edge);
        self.connections.at(place)
    }

    async fn strike(&self, blow: Blow) {
        let Cast { owners, network, .. } = self.cast;
        match blow.fault {
            Fault::Pause => owners.pause(self.owner(blow), true),
            Fault::Deceive => owners.deceive(self.owner(blow), true),
            Fault::Steal => {
                let shard = u32::try_from(blow.place).unwrap_or_default() % SHARDS;
                purge_leases(&self.servers.nats, Some(shard)).await;
            }
            Fault::Forget => purge_leases(&self.servers.nats, None).await,
            Fault::Crash => owners.crash(self.owner(blow)),
            Fault::Release => owners.release(self.owner(blow)),
            Fault::CrashEdge => network.crash(blow.place % self.edges),
            Fault::CqlRefused => self.worker(blow).to_cql.set(Way::Refused),
            Fault::CqlSilent => self.worker(blow).to_cql.set(Way::Silent),
            Fault::CqlSlow => self.connections.owners().for_each(|owner| owner.to_cql.set(Way::Slow(SLOW))),
            Fault::CqlFails => self.worker(blow).writes.set(true),
            Fault::NatsCut => self.any(blow).to_nats.cut(),
            Fault::NatsRefused => self.any(blow).to_nats.set(Way::Refused),
            Fault::NatsSilent => self.any(blow).to_nats.set(Way::Silent),
            Fault::Readers => end_consumers(&self.servers.nats).await,
        }
    }

    fn mend(&self, blow: Blow) {
        let Cast { owners, network, world, .. } = self.cast;
        world.say(format_args!("-- over: {blow}"));
        match blow.fault {
            Fault::Pause => owners.pause(self.owner(blow), false),
            Fault::Deceive => owners.deceive(self.owner(blow), false),
            Fault::Crash | Fault::Release => {
                // One that was asked to stop and has not yet is killed.
                owners.crash(self.owner(blow));
                owners.start(self.owner(blow));
            }
            Fault::CrashEdge => network.start(blow.place % self.edges),
            Fault::CqlRefused | Fault::CqlSilent => self.worker(blow).to_cql.set(Way::Open),
            Fault::CqlSlow => self.connections.owners().for_each(|owner| owner.to_cql.set(Way::Open)),
            Fault::CqlFails => self.worker(blow).writes.set(false),
            Fault::NatsRefused | Fault::NatsSilent => self.any(blow).to_nats.set(Way::Open),
            Fault::Steal | Fault::Forget | Fault::NatsCut | Fault::Readers => {}
        }
    }
}
