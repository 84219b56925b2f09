// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each place's own connections to the engines, each through a proxy, and what the logs are known to hold.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pli_domain::{EntryId, EntryRef, Seq, ShardId, ShardMap, UnixMillis};
use pli_engine_cql::{CqlEngine, CqlOptions};
use pli_engine_nats::{NatsEngine, NatsOptions};
use pli_ports::Clock;
use pli_testkit::proxy::Proxy;
use pli_testkit::time::RuntimeClock;

use crate::faults::failing::{FailingQueues, Switch};
use crate::simulation::oracle::Log;
use crate::simulation::stores::{Place, Ports, Stores};
use crate::simulation::world::lock;

/// How far a clock is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skew {
    None,
    Ahead(Duration),
    Behind(Duration),
}

/// A clock that is off.
struct SkewedClock {
    clock: RuntimeClock,
    skew: Skew,
}

impl Clock for SkewedClock {
    fn now(&self) -> UnixMillis {
        let now = self.clock.now();
        match self.skew {
            Skew::None => now,
            Skew::Ahead(by) => now.after(by),
            Skew::Behind(by) => now.before(by),
        }
    }
}

/// What one place stands on.
pub struct Connection {
    pub nats: NatsEngine,
    pub to_nats: Proxy,
    pub cql: CqlEngine,
    pub to_cql: Proxy,
    pub writes: Switch,
    pub skew: Mutex<Skew>,
}

impl Connection {
    async fn open(nats: &NatsOptions, cql: &CqlOptions, clock: RuntimeClock) -> Self {
        let address = |text: &String| text.parse().expect("an address and a port");
        let to_nats = Proxy::to(address(&nats.servers[0])).await.expect("a free port");
        let to_cql = Proxy::to(address(&cql.contact_points[0])).await.expect("a free port");
        let nats = NatsOptions { servers: vec![to_nats.address().to_string()], ..nats.clone() };
        let cql =
            CqlOptions { contact_points: vec![to_cql.address().to_string()], clock: Arc::new(clock), ..cql.clone() };
        let nats = NatsEngine::connect(nats).await.expect("the NATS server is there");
        let cql = CqlEngine::open(&cql).await.expect("the CQL node is there");
        let (writes, skew) = (Switch::default(), Mutex::new(Skew::None));
        Self { nats, to_nats, cql, to_cql, writes, skew }
    }
}

/// See the module.
pub struct Connections {
    places: BTreeMap<Place, Connection>,
    known: Mutex<BTreeMap<ShardId, BTreeMap<Seq, EntryId>>>,
}

impl Connections {
    /// Connects every place.
    pub async fn open((nats, cql): (&NatsOptions, &CqlOptions), owners: usize, edges: usize) -> Self {
        let clock = RuntimeClock::new(pli_testkit::time::START);
        let places = (0..owners).map(Place::Owner).chain((0..edges).map(Place::Edge));
        let opened = places.map(|place| async move { (place, Connection::open(nats, cql, clock).await) });
        let places = futures::future::join_all(opened).await.into_iter().collect();
        Self { places, known: Mutex::default() }
    }

    /// What this place stands on.
    pub fn at(&self, place: Place) -> &Connection {
        &self.places[&place]
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = (Place, &Connection)> {
        self.places.iter().map(|(place, connection)| (*place, connection))
    }

    /// Those of the owners.
    pub fn owners(&self) -> impl Iterator<Item = &Connection> {
        self.all().filter(|(place, _)| matches!(place, Place::Owner(_))).map(|(_, connection)| connection)
    }

    /// Which shard an account belongs to.
    pub async fn shard_map(&self) -> ShardMap {
        self.at(Place::Owner(0)).nats.shard_map().await.expect("the streams were made")
    }

    /// Ends all connections.
    pub async fn close(&self) {
        for connection in self.places.values() {
            connection.nats.close().await;
        }
    }
}

impl Stores for Connections {
    fn ports(&self, place: Place, clock: RuntimeClock) -> Ports {
        let connection = self.at(place);
        let queues = FailingQueues { inner: connection.cql.device_queues(), switch: connection.writes.clone() };
        Ports {
            log: connection.nats.shard_log(),
            signals: connection.nats.signals(),
            leases: connection.nats.leases(),
            queues: Arc::new(queues),
            payloads: connection.cql.payloads(),
            clock: Arc::new(SkewedClock { clock, skew: *lock(&connection.skew) }),
        }
    }

    fn entries(&self, shard: ShardId) -> Log {
        let known = lock(&self.known);
        known.get(&shard).into_iter().flatten().map(|(seq, id)| (*seq, *id)).collect()
    }

    fn found(&self, shard: ShardId, entry: EntryRef) {
        lock(&self.known).entry(shard).or_default().insert(entry.seq, entry.id);
    }

    /// Never the newest: engines keep it too.
    fn trimming(&self, shard: ShardId, through: Seq) {
        let mut known = lock(&self.known);
        let entries = known.entry(shard).or_default();
        let newest = entries.last_key_value().map(|(seq, _)| *seq);
        entries.retain(|seq, _| *seq > through || Some(*seq) == newest);
    }
}
