// SPDX-License-Identifier: MIT OR Apache-2.0
//! One edge with everything around it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use pli_api::conversations::conversations_server::ConversationsServer;
use pli_api::directory::directory_server::DirectoryServer;
use pli_api::in_process;
use pli_api::links::links_server::LinksServer;
use pli_domain::{AccountId, ConversationId, DeviceAddress, DeviceId, Position, ShardMap};
use pli_edge::{Config, Edge, EdgePorts, Identity, carrier, quic, ws};
use pli_ports::{Clock, LogFate};
use pli_runtime::Trail;
use pli_testkit::memory::{MemoryWorld, WorldOptions};
use pli_testkit::time::{RuntimeClock, START};
use tokio_util::sync::CancellationToken;

use crate::client::{Client, Trust};
use crate::owner::Owners;
use crate::stubs::{Group, StubConversations, StubDirectory, StubLinks};

pub const SHARDS: u32 = 4;

/// Where an edge listens, and what it shows there.
pub struct Door {
    pub ws: SocketAddr,
    pub quic: SocketAddr,
    pub trust: Trust,
    /// Certificate and key.
    pub pem: String,
}

pub struct Rig {
    pub world: MemoryWorld,
    pub edge: Edge,
    pub owners: Owners,
    pub directory: StubDirectory,
    pub conversations: StubConversations,
    pub links: StubLinks,
    pub clock: Arc<RuntimeClock>,
    pub stop: CancellationToken,
    pub running: tokio::task::JoinHandle<()>,
}

pub fn device(n: u8) -> DeviceAddress {
    DeviceAddress { account: AccountId::from_bytes([n; 16]), device: DeviceId::from_bytes([n ^ 0x80; 16]) }
}

pub fn conversation(n: u8) -> ConversationId {
    ConversationId::from_bytes([n; 16])
}

pub fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

impl Rig {
    pub async fn new(config: Config) -> Self {
        Self::over(config, LogFate::OwnSystem).await
    }

    /// Over logs of this kind.
    pub async fn over(config: Config, fate: LogFate) -> Self {
        let world = MemoryWorld::new(WorldOptions { seed: 7, fate, ..WorldOptions::default() });
        let shards = ShardMap::new(SHARDS, [3; 16]).unwrap();
        let owners = Owners::start(&world, shards).await;
        let (directory, conversations) = (StubDirectory::default(), StubConversations::default());
        let links = StubLinks::default();
        let clock = Arc::new(RuntimeClock::new(START));
        let ports = EdgePorts {
            registration: "invite",
            history: None,
            trail: Trail::default(),
            log: Arc::new(world.log()),
            signals: Arc::new(world.signals()),
            clock: clock.clone(),
            directory: in_process(DirectoryServer::new(directory.clone())),
            conversations: in_process(ConversationsServer::new(conversations.clone())),
            links: in_process(LinksServer::new(links.clone())),
            media: in_process(LinksServer::new(links.clone())),
        };
        let meter = opentelemetry::global::meter("edge");
        let edge = Edge::new(ports, shards, config, &meter, 42);
        let stop = CancellationToken::new();
        let (running, until) = (edge.clone(), stop.clone());
        let running = tokio::spawn(async move { running.run(until).await.unwrap() });
        for n in 1..=5 {
            directory.keys.lock().unwrap().insert(device(n), (key(n), 50));
        }
        let this = Self { world, edge, owners, directory, conversations, links, clock, stop, running };
        this.group(1, &[1, 2, 3]);
        this
    }

    /// Conversation `n` at epoch 1 with these members.
    pub fn group(&self, n: u8, members: &[u8]) {
        let roster: Vec<_> = members.iter().map(|n| device(*n)).collect();
        let group = Group { current: 1, epochs: [(1, roster)].into() };
        self.conversations.groups.lock().unwrap().insert(conversation(n), group);
    }

    /// A session over memory, authenticated, up to `Ready`.
    pub async fn join(&self, n: u8) -> Client {
        self.join_at(n, Position::ZERO).await
    }

    pub async fn join_at(&self, n: u8, committed: Position) -> Client {
        let mut client = self.connect(n, committed, 64);
        client.ready().await;
        client
    }

    /// A session over memory with room for `frames` on the way.
    pub fn connect(&self, n: u8, committed: Position, frames: usize) -> Client {
        let (carrier, peer) = carrier::memory(frames);
        let edge = self.edge.clone();
        tokio::spawn(async move { edge.serve_authenticated(Box::new(carrier), device(n), committed).await });
        Client::over_memory(peer, n, self.clock.clone() as Arc<dyn Clock>)
    }

    /// Begins to listen over every carrier; answers where, and what a client must trust.
    pub async fn listen(&self) -> Door {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let trust = Trust::new(made.cert.der().clone());
        let pem = made.cert.pem() + &made.signing_key.serialize_pem();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        self.listen_as(Door { ws: any, quic: any, trust, pem }).await
    }

    /// The same at these addresses, with this certificate.
    pub async fn listen_as(&self, door: Door) -> Door {
        let identity = Identity::from_pem(door.pem.as_bytes(), door.pem.as_bytes()).unwrap();
        let ws = ws::Listener::bind(self.edge.clone(), door.ws, &identity).await.unwrap();
        let quic = quic::Listener::bind(self.edge.clone(), door.quic, &identity).unwrap();
        let door = Door { ws: ws.address(), quic: quic.address(), ..door };
        tokio::spawn(ws.run(self.stop.clone()));
        tokio::spawn(quic.run(self.stop.clone()));
        door
    }

    /// Waits until `done` holds of what the owners know.
    pub async fn until(&self, what: &str, done: impl Fn(&crate::owner::State) -> bool) {
        let wait = async {
            while !done(&self.owners.lock()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
    }
}
