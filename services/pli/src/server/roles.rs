// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every role, wired: services call each other through clients built straight over the server values.

use std::sync::Arc;

use pli_api::conversations::conversations_server::ConversationsServer;
use pli_api::directory::directory_server::DirectoryServer;
use pli_api::in_process;
use pli_conversations::ConversationsService;
use pli_delivery::{Delivery, DeliveryPorts};
use pli_directory::Directory;
use pli_domain::ShardMap;
use pli_edge::{Edge, EdgePorts};
use pli_engine_embedded::EmbeddedEngine;
use pli_ports::{Clock, SystemClock};
use pli_runtime::{Dependency, Health, Telemetry};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::certificate::Certificate;
use super::{engine, listener};
use crate::config::Config;
use crate::exit::{Exit, Failure};

/// The running roles.
pub struct Roles {
    /// Who takes work from outside; ends first.
    outer: Group,
    /// Who does the work; ends when nobody asks for any.
    inner: Group,
}

/// Tasks that end together.
#[derive(Default)]
struct Group {
    stop: CancellationToken,
    tasks: JoinSet<Result<(), Failure>>,
}

impl Group {
    async fn close(&mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            if let Ok(Err(failure)) = ended {
                tracing::warn!(error = %failure.error, "a role ended with an error");
            }
        }
    }
}

/// What all roles are made from.
struct Ground<'a> {
    config: &'a Config,
    engine: &'a EmbeddedEngine,
    telemetry: &'a Telemetry,
    clock: Arc<dyn Clock>,
    shards: ShardMap,
}

impl Roles {
    /// Wires and starts them.
    pub fn start(
        config: &Config,
        engine: &EmbeddedEngine,
        (socket, certificate): (TcpListener, Certificate),
        health: &Health,
        telemetry: &Telemetry,
    ) -> Result<Self, Failure> {
        engine::export(engine, &telemetry.meter("engine"));
        let (clock, shards) = (Arc::new(SystemClock), engine.shard_map());
        let ground = Ground { config, engine, telemetry, clock, shards };
        let (mut outer, mut inner) = (Group::default(), Group::default());
        let engine_health = health.dependency("engine");
        engine_health.ready();
        inner.tasks.spawn(watch_engine(engine.clone(), engine_health, inner.stop.clone()));
        let delivery = ground.delivery();
        let stop = inner.stop.clone();
        inner.tasks.spawn(async move { delivery.run(stop).await.map_err(|error| Failure::new(Exit::Failed, error)) });
        let directory = in_process(DirectoryServer::new(ground.directory()));
        let conversations = ground.conversations(directory.clone());
        let (service, stop) = (conversations.clone(), inner.stop.clone());
        inner.tasks.spawn(async move {
            service.run(stop).await;
            Ok(())
        });
        let conversations = in_process(ConversationsServer::new(conversations));
        let edge = ground.edge(directory, conversations);
        let (routing, stop) = (edge.clone(), outer.stop.clone());
        outer.tasks.spawn(async move { routing.run(stop).await.map_err(|error| Failure::new(Exit::Failed, error)) });
        let edge_health = health.dependency("edge");
        listener::start(edge, (socket, certificate), edge_health, outer.stop.clone(), &mut outer.tasks)?;
        Ok(Self { outer, inner })
    }

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
            Err(panicked) => Failure::new(Exit::Failed, panicked),
        }
    }

    /// Ends the sessions, then what serves them.
    pub async fn close(&mut self) {
        self.outer.close().await;
        self.inner.close().await;
    }
}

impl Ground<'_> {
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

    fn conversations(&self, directory: pli_api::Channel) -> ConversationsService {
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

    fn edge(&self, directory: pli_api::Channel, conversations: pli_api::Channel) -> Edge {
        let ports = EdgePorts {
            log: self.engine.shard_log(),
            signals: self.engine.signals(),
            clock: self.clock.clone(),
            directory,
            conversations,
        };
        let meter = self.telemetry.meter("edge");
        Edge::new(ports, self.shards, self.config.edge.clone(), &meter, rand::random())
    }
}

/// Tells health when the engine has stopped; the process ends soon after.
async fn watch_engine(
    engine: EmbeddedEngine,
    health: Dependency,
    stop: CancellationToken,
) -> Result<(), Failure> {
    tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        failure = engine.failed() => {
            health.not_ready(failure.to_string());
            Err(Failure::new(Exit::Failed, failure))
        }
    }
}
