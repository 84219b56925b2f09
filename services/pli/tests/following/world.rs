// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two edges and a delivery worker over in-memory logs, bus and tables: three processes as far as hops and spans go,
//! each with a trail and an admin port of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry::metrics::MeterProvider;
use opentelemetry::metrics::noop::NoopMeterProvider;
use pli_api::edge::{Ack, ClientFrame, Deliver, Send, SendBatch, ServerFrame, client_frame, server_frame::Frame};
use pli_api::log::Class;
use pli_delivery::{Delivery, DeliveryPorts};
use pli_domain::{AccountId, ConversationId, DeviceAddress, DeviceId, Position, ShardMap};
use pli_edge::carrier::{MemoryPeer, memory};
use pli_edge::{Edge, EdgePorts};
use pli_ports::{Clock, SystemClock};
use pli_runtime::{AdminServer, BuildInfo, Health, Telemetry, TelemetryConfig, Trail};
use pli_testkit::memory::{MemoryWorld, WorldOptions};
use prost::Message;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::simulation::device::Talk;
use crate::simulation::rosters;

/// No wait is longer.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const TALK: ConversationId = ConversationId::from_bytes([9; 16]);

/// The n-th person's device.
pub fn device(n: u8) -> DeviceAddress {
    let (account, device) = ([n; 16], [n ^ 0x80; 16]);
    DeviceAddress { account: AccountId::from_bytes(account), device: DeviceId::from_bytes(device) }
}

/// One process's trail and where it can be asked.
pub struct Asked {
    pub trail: Trail,
    pub admin: String,
}

pub struct World {
    pub memory: MemoryWorld,
    pub shards: ShardMap,
    pub edges: [(Edge, Asked); 2],
    pub worker: Asked,
    stop: CancellationToken,
}

async fn asked(config: &TelemetryConfig, role: &str, stop: &CancellationToken) -> Asked {
    let trail = Trail::new(config, role).expect("a trail");
    let (telemetry, build) = (Telemetry::new("pli").expect("metrics"), BuildInfo::new("pli", "1"));
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = AdminServer::bind(any, Health::default(), telemetry, trail.hops.clone(), build).await;
    let server = server.expect("a free port");
    let admin = server.local_addr().to_string();
    tokio::spawn(server.run(stop.clone()));
    Asked { trail, admin }
}

impl World {
    /// Rows are written after `spill_after_ms`; spans go to `endpoint`.
    pub async fn new(spill_after_ms: u64, endpoint: &str) -> Self {
        let memory = MemoryWorld::new(WorldOptions::default());
        let shards = ShardMap::new(4, [3; 16]).expect("a power of two");
        let (stop, meter) = (CancellationToken::new(), NoopMeterProvider::new().meter("test"));
        let config = TelemetryConfig { otlp_endpoint: endpoint.into(), trace_ratio: 1.0, ..TelemetryConfig::default() };
        let talks = vec![Talk { id: TALK, devices: vec![device(1), device(2)] }];
        let rosters = rosters::channel(talks, (shards, usize::MAX), None);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let edge = async |seed| {
            let asked = asked(&config, "edge", &stop).await;
            let ports = EdgePorts {
                log: Arc::new(memory.log()),
                signals: Arc::new(memory.signals()),
                clock: clock.clone(),
                directory: rosters.clone(),
                conversations: rosters.clone(),
                links: rosters.clone(),
                media: rosters.clone(),
                registration: "open",
                history: None,
                trail: asked.trail.clone(),
            };
            let edge = Edge::new(ports, shards, pli_edge::Config::default(), &meter, seed);
            let (running, until) = (edge.clone(), stop.clone());
            tokio::spawn(async move { running.run(until).await.expect("the bus") });
            (edge, asked)
        };
        let edges = [edge(1).await, edge(2).await];
        let worker = asked(&config, "delivery", &stop).await;
        let ports = DeliveryPorts {
            log: Arc::new(memory.log()),
            signals: Arc::new(memory.signals()),
            leases: Arc::new(memory.leases()),
            queues: Arc::new(memory.queues()),
            clock,
            trail: worker.trail.clone(),
            beside: None,
        };
        let times = pli_delivery::Config {
            settle_every_ms: 50,
            announce_round_ms: 50,
            lease_renew_ms: 200,
            spill_after_ms,
            ..pli_delivery::Config::default()
        };
        let delivery = Delivery::new(ports, shards, times, &meter, 3);
        let until = stop.clone();
        tokio::spawn(async move { delivery.run(until).await.expect("ends well") });
        Self { memory, shards, edges, worker, stop }
    }

    /// The n-th person's session at one of the edges, ready.
    pub async fn join(&self, edge: usize, n: u8) -> Client {
        let (carrier, peer) = memory(64);
        let edge = self.edges[edge].0.clone();
        let serving =
            tokio::spawn(async move { edge.serve_authenticated(Box::new(carrier), device(n), Position::ZERO).await });
        let mut client = Client { peer, serving };
        client.until(|frame| matches!(frame, Frame::Ready(_)).then_some(())).await;
        client
    }

    /// The admin ports: the sender's edge, the recipient's, the worker.
    pub fn admin(&self) -> [String; 3] {
        [self.edges[0].1.admin.clone(), self.edges[1].1.admin.clone(), self.worker.admin.clone()]
    }

    /// Every process exports what it has.
    pub async fn export(&self) {
        for asked in self.edges.iter().map(|(_, asked)| asked).chain([&self.worker]) {
            asked.trail.tracer.close().await;
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A session.
pub struct Client {
    peer: MemoryPeer,
    serving: JoinHandle<()>,
}

impl Client {
    /// Waits for a frame.
    pub async fn until<T>(&mut self, wanted: impl Fn(Frame) -> Option<T>) -> T {
        let found = async {
            loop {
                let bytes = self.peer.recv().await.expect("the session goes on");
                let frame = ServerFrame::decode(bytes).expect("a frame").frame.expect("a known frame");
                if let Some(found) = wanted(frame) {
                    return found;
                }
            }
        };
        timeout(PATIENCE, found).await.expect("in time")
    }

    async fn say(&self, frame: client_frame::Frame) {
        assert!(self.peer.send(ClientFrame { frame: Some(frame) }.encode_to_vec().into()).await);
    }

    /// Sends one message with this id.
    pub async fn send(&self, send_id: [u8; 16]) {
        let send = Send {
            send_id: Bytes::copy_from_slice(&send_id),
            conversation: Bytes::copy_from_slice(TALK.as_bytes()),
            epoch: 1,
            class: Class::Message.into(),
            expires_at_ms: SystemClock.now().0 + 86_400_000,
            body: Bytes::from_static(b"the sealed words"),
        };
        self.say(client_frame::Frame::Send(SendBatch { sends: vec![send] })).await;
    }

    /// The next delivery, not acknowledged.
    pub async fn delivery(&mut self) -> Deliver {
        self.until(|frame| if let Frame::Deliver(deliver) = frame { Some(deliver) } else { None }).await
    }

    /// Ends the connection; the edge has ended the session then.
    pub async fn leave(self) {
        drop(self.peer);
        timeout(PATIENCE, self.serving).await.expect("in time").expect("no panic");
    }

    /// The next delivery, acknowledged; its envelope.
    pub async fn receive(&mut self) -> pli_api::log::Envelope {
        let delivered = self.delivery().await;
        self.say(client_frame::Frame::Ack(Ack { position: delivered.position })).await;
        pli_api::log::Envelope::decode(delivered.envelope).expect("an envelope")
    }
}
