// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every role, wired: services call each other through clients built straight over the server values.

use std::net::SocketAddr;
use std::sync::Arc;

use pli_api::conversations::conversations_server::ConversationsServer;
use pli_api::directory::directory_server::DirectoryServer;
use pli_api::{Channel, in_process};
use pli_conversations::ConversationsService;
use pli_delivery::{Delivery, DeliveryPorts};
use pli_directory::Directory;
use pli_domain::ShardMap;
use pli_edge::ws::{Identity, ListenError, Listener};
use pli_edge::{Edge, EdgePorts};
use pli_engine_embedded::EmbeddedEngine;
use pli_ports::{Clock, SystemClock};
use pli_runtime::{Dependency, Health, Telemetry};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::engine;
use crate::config::Config;
use crate::exit::{Exit, Failure};

/// What all roles are made from.
pub struct Ground<'a> {
    config: &'a Config,
    engine: &'a EmbeddedEngine,
    telemetry: &'a Telemetry,
    clock: Arc<dyn Clock>,
    shards: ShardMap,
}

impl<'a> Ground<'a> {
    /// Over an open engine.
    pub fn new(config: &'a Config, engine: &'a EmbeddedEngine, telemetry: &'a Telemetry) -> Self {
        engine::export(engine, &telemetry.meter("engine"));
        Self { config, engine, telemetry, clock: Arc::new(SystemClock), shards: engine.shard_map() }
    }

    /// Builds every role and listens; nothing is served yet.
    pub async fn wire(&self, identity: &Identity) -> Result<Wired, Failure> {
        let directory = in_process(DirectoryServer::new(self.directory()));
        let conversations = self.conversations(directory.clone());
        let edge = self.edge(directory, in_process(ConversationsServer::new(conversations.clone())));
        let address = SocketAddr::new(self.config.server.host, self.config.server.port);
        let listener = Listener::bind(edge.clone(), address, identity).await.map_err(listening)?;
        Ok(Wired { delivery: self.delivery(), conversations, edge, listener })
    }

    fn delivery(&self) -> Delivery {
        let ports = DeliveryPorts {
            log: self.engine.shard_log(),
            signals: self.engine.signals(),
            leases: self.engine.leases(),
            queues: self.engine.device_queues(),
            clock: self.clock.clone(),
        };
        let meter = self.telemetry.meter("delivery");
        Delivery::new(ports, self.shards, self.config.delivery.clone(), &meter, rand::random())
    }

    fn directory(&self) -> Directory {
        let meter = self.telemetry.meter("directory");
        Directory::new(self.engine.accounts(), self.clock.clone(), self.config.directory.clone(), &meter)
    }

    fn conversations(&self, directory: Channel) -> ConversationsService {
        let ports = pli_conversations::Ports {
            conversations: self.engine.conversations(),
            payloads: self.engine.payloads(),
            log: self.engine.shard_log(),
            clock: self.clock.clone(),
            directory,
        };
        let meter = self.telemetry.meter("conversations");
        ConversationsService::new(ports, self.shards, self.config.conversations.clone(), &meter)
    }

    fn edge(&self, directory: Channel, conversations: Channel) -> Edge {
        let ports = EdgePorts {
            log: self.engine.shard_log(),
            signals: self.engine.signals(),
            clock: self.clock.clone(),
            directory,
            conversations,
            registration: self.config.directory.registration.name(),
            history: self.engine.history(),
        };
        let meter = self.telemetry.meter("edge");
        Edge::new(ports, self.shards, self.config.edge.clone(), &meter, rand::random())
    }
}

fn listening(error: ListenError) -> Failure {
    let ListenError::Bind { address, source } = &error else { return Failure::new(Exit::Folder, error) };
    let fix = "end the process that listens there, or choose another port with --port (0 takes any free one)";
    Failure::say(Exit::Address, format_args!("cannot listen on {address}: {source}; {fix}"))
}

/// Roles that have not begun.
pub struct Wired {
    delivery: Delivery,
    conversations: ConversationsService,
    edge: Edge,
    listener: Listener,
}

impl Wired {
    /// Where sessions are accepted.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Starts every role.
    pub fn start(self, engine: &EmbeddedEngine, health: &Health) -> Roles {
        let Self { delivery, conversations, edge, listener } = self;
        let (mut outer, mut inner) = (Group::default(), Group::default());
        inner.run(|stop| watch(engine.clone(), health.dependency("engine"), stop));
        inner.run(|stop| async move { delivery.run(stop).await.map_err(failed) });
        inner.run(|stop| async move {
            conversations.run(stop).await;
            Ok(())
        });
        outer.run(|stop| async move { edge.run(stop).await.map_err(failed) });
        outer.run(|stop| async move {
            listener.run(stop).await;
            Ok(())
        });
        Roles { outer, inner }
    }
}

fn failed(error: impl Into<anyhow::Error>) -> Failure {
    Failure::new(Exit::Failed, error)
}

/// The running roles.
pub struct Roles {
    /// Who takes work from outside; ends first.
    outer: Group,
    /// Who does the work; ends when nobody asks for any.
    inner: Group,
}

impl Roles {
    /// Resolves when a role has ended although nobody asked it to.
    pub async fn failed(&mut self) -> Failure {
        let ended = tokio::select! {
            Some(ended) = self.outer.tasks.join_next() => ended,
            Some(ended) = self.inner.tasks.join_next() => ended,
            else => std::future::pending().await,
        };
        match ended {
            Ok(Ok(())) => Failure::say(Exit::Failed, "a role ended by itself; this is a defect"),
            Ok(Err(failure)) => failure,
            Err(panicked) => failed(panicked),
        }
    }

    /// Ends the sessions, then what serves them.
    pub async fn close(&mut self) {
        self.outer.close().await;
        self.inner.close().await;
    }
}

/// Tasks that end together.
#[derive(Default)]
struct Group {
    stop: CancellationToken,
    tasks: JoinSet<Result<(), Failure>>,
}

impl Group {
    fn run<F>(&mut self, role: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        self.tasks.spawn(role(self.stop.clone()));
    }

    async fn close(&mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            if let Ok(Err(failure)) = ended {
                tracing::warn!(error = %failure.error, "a role ended with an error");
            }
        }
    }
}

/// Tells health when the engine has stopped; the process ends soon after.
async fn watch(engine: EmbeddedEngine, health: Dependency, stop: CancellationToken) -> Result<(), Failure> {
    health.ready();
    tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        failure = engine.failed() => {
            health.not_ready(failure.to_string());
            Err(failed(failure))
        }
    }
}
