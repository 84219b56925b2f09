// SPDX-License-Identifier: MIT OR Apache-2.0
//! A server in this process: every service as it ships, over the in-memory models, on a clock that moves by itself when
//! nothing else does. What comes in over a carrier is read, judged and answered by the code that a release runs.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use futures::future::BoxFuture;
use pli_api::conversations::conversations_server::ConversationsServer;
use pli_api::directory::directory_server::DirectoryServer;
use pli_api::in_process;
use pli_api::links::links_server::LinksServer;
use pli_api::media::media_server::MediaServer;
use pli_conversations::ConversationsService;
use pli_delivery::{Beside, Delivery, DeliveryPorts};
use pli_directory::Directory;
use pli_domain::{ShardId, ShardMap, UnixMillis};
use pli_edge::carrier;
use pli_edge::{Edge, EdgePorts, PeerInfo};
use pli_links::LinksService;
use pli_media::{Blobs, MediaService};
use pli_ports::{Clock, Payloads};
use pli_runtime::Trail;
use pli_testkit::memory::{MemoryWorld, WorldOptions};
use pli_testkit::time::{RuntimeClock, START};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::line::{Happening, Line, Recording};

/// What a hello over these carriers is bound to.
pub const EXPORTER: [u8; 32] = [5; 32];
/// The host that a hello names.
pub const HOST: &str = "localhost";
/// Frames on their way in each direction of a connection.
const FRAMES: usize = 1_024;
const SHARDS: u32 = 2;

/// See the module. Dropping it ends everything in it.
pub struct Cluster {
    edge: Edge,
    clock: Arc<RuntimeClock>,
    counted: AtomicU64,
    connections: AtomicUsize,
    recording: Option<Recording>,
    _tasks: JoinSet<()>,
}

/// A runtime with one thread and a clock that moves when nothing else does.
///
/// # Panics
/// When the system gives no runtime.
pub fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().expect("a runtime of one thread")
}

impl Cluster {
    /// Starts every role. Must be called on [`runtime`].
    ///
    /// # Panics
    /// Never: two is a power of two.
    pub fn start() -> Self {
        Self::begin(None)
    }

    /// Starts every role, with this nonce in every handshake, and writes down what happens on every connection. Must be
    /// called on [`runtime`].
    pub fn recorded(nonce: [u8; 32]) -> Self {
        Self { recording: Some(Recording::default()), ..Self::begin(Some(nonce)) }
    }

    fn begin(nonce: Option<[u8; 32]>) -> Self {
        let world = MemoryWorld::new(WorldOptions { seed: 7, ..WorldOptions::default() });
        let shards = ShardMap::new(SHARDS, [3; 16]).expect("a power of two");
        let clock = Arc::new(RuntimeClock::new(START));
        let meter = opentelemetry::global::meter("fuzzing");
        let ports = pli_directory::Ports {
            accounts: Arc::new(world.accounts()),
            signals: Arc::new(world.signals()),
            clock: clock.clone(),
        };
        let directory = Directory::new(ports, shards, pli_directory::Config::default(), &meter);
        let ports = pli_conversations::Ports {
            conversations: Arc::new(world.conversations()),
            payloads: Arc::new(world.payloads()),
            log: Arc::new(world.log()),
            clock: clock.clone(),
            directory: in_process(DirectoryServer::new(directory.clone())),
        };
        // What goes to both shards takes the way through a fan-out worker, what goes to one does not.
        let config = pli_conversations::Config { fan_out_above_shards: 1, ..pli_conversations::Config::default() };
        let conversations = ConversationsService::new(ports, shards, config, &meter);
        let links = LinksService::new(Arc::new(world.links()), clock.clone(), pli_links::Config::default(), &meter);
        let media = media(&world, clock.clone());
        let ports = EdgePorts {
            log: Arc::new(world.log()),
            signals: Arc::new(world.signals()),
            clock: clock.clone(),
            directory: in_process(DirectoryServer::new(directory.clone())),
            conversations: in_process(ConversationsServer::new(conversations.clone())),
            links: in_process(LinksServer::new(links.clone())),
            media: in_process(MediaServer::new(media.clone())),
            registration: "open",
            history: None,
            trail: Trail::default(),
        };
        let edge = Edge::new(ports, shards, edge_config(), &meter, 42);
        let edge = match nonce {
            Some(nonce) => edge.with_nonce(nonce),
            None => edge,
        };
        let delivery = delivery(&world, &edge, shards, clock.clone());
        let mut tasks = JoinSet::new();
        let stop = CancellationToken::new;
        let running = edge.clone();
        tasks.spawn(async move { running.run(stop()).await.expect("the bus in memory is there") });
        tasks.spawn(async move { delivery.run(stop()).await.expect("an owner ends when it is told to") });
        tasks.spawn(async move { directory.run(stop()).await });
        tasks.spawn(async move { conversations.run(stop()).await });
        tasks.spawn(async move { links.run(stop()).await });
        tasks.spawn(async move { media.run(stop()).await });
        Self {
            edge,
            clock,
            counted: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
            recording: None,
            _tasks: tasks,
        }
    }

    /// What has happened on its connections, where it writes that down.
    pub fn happenings(&self) -> Vec<Happening> {
        self.recording.as_ref().map(Recording::happenings).unwrap_or_default()
    }

    /// Server time.
    pub fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    /// The next number of a count.
    pub fn next(&self) -> u64 {
        self.counted.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether somebody may say something now: where it is written down, each frame has a while for itself.
    pub fn is_quiet(&self) -> bool {
        self.recording.as_ref().is_none_or(|recording| recording.is_quiet(self.now()))
    }

    /// A new connection from `192.0.2.address`; the edge serves it until one of them ends it.
    pub fn connect(&self, address: u8) -> Line {
        let (carrier, peer) = carrier::memory(FRAMES);
        let info = PeerInfo {
            address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, address)),
            exporter: Some(EXPORTER),
            server_certificate_sha256: [6; 32],
            origin: None,
        };
        let edge = self.edge.clone();
        tokio::spawn(async move { edge.serve(Box::new(carrier), info).await });
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        Line::new(peer, (number, address), *self.clock, self.recording.clone())
    }
}

/// What caches believe they believe in the time of the machine, in which next to none passes here.
fn edge_config() -> pli_edge::Config {
    pli_edge::Config { device_key_ms: 1, roster_current_ms: 1, ..pli_edge::Config::default() }
}

/// Parts lie in memory too.
fn media(world: &MemoryWorld, clock: Arc<RuntimeClock>) -> MediaService {
    let (media, accounts) = (Arc::new(world.media()), Arc::new(world.accounts()));
    let meter = opentelemetry::global::meter("fuzzing");
    MediaService::new(
        pli_media::Ports { media, accounts, clock },
        Blobs::memory(),
        pli_media::Config::default(),
        &meter,
    )
}

fn delivery(world: &MemoryWorld, edge: &Edge, shards: ShardMap, clock: Arc<RuntimeClock>) -> Delivery {
    let ports = DeliveryPorts {
        log: Arc::new(world.log()),
        signals: Arc::new(world.signals()),
        leases: Arc::new(world.leases()),
        queues: Arc::new(world.queues()),
        clock,
        trail: Trail::default(),
        beside: Some(Arc::new(FanOut { edge: edge.clone(), payloads: Arc::new(world.payloads()) })),
    };
    let meter = opentelemetry::global::meter("fuzzing");
    Delivery::new(ports, shards, pli_delivery::Config::default(), &meter, 43)
}

/// The fan-out worker of each shard, beside its owner.
struct FanOut {
    edge: Edge,
    payloads: Arc<dyn Payloads>,
}

impl Beside for FanOut {
    fn run(&self, shard: ShardId, stop: CancellationToken) -> BoxFuture<'static, ()> {
        let (edge, payloads) = (self.edge.clone(), self.payloads.clone());
        Box::pin(async move { edge.fan_out(shard, payloads, stop).await })
    }
}
