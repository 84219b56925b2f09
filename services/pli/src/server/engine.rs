// SPDX-License-Identifier: MIT OR Apache-2.0
//! What keeps the messages, as the roles see it: ports.

mod cluster;
mod embedded;

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use opentelemetry::metrics::Meter;
use pli_domain::ShardMap;
use pli_engine_embedded::EmbeddedEngine;
use pli_ports::{Accounts, Conversations, DeviceQueues, Leases, Links, Media, Payloads, ShardLog, Signals};
use pli_runtime::Health;
use tokio_util::sync::CancellationToken;

use super::role::Roles;
use crate::config::{Config, EngineKind};
use crate::exit::{Exit, Failure};
pub use cluster::{ClusterEngine, migrate};

/// Logs, bus and leases.
#[derive(Clone)]
pub struct Bus {
    /// The shard logs.
    pub log: Arc<dyn ShardLog>,
    /// The bus.
    pub signals: Arc<dyn Signals>,
    /// Who works on a shard.
    pub leases: Arc<dyn Leases>,
    /// Which shard an account belongs to.
    pub shards: ShardMap,
}

/// Tables.
#[derive(Clone)]
pub struct Tables {
    /// Device queues.
    pub queues: Arc<dyn DeviceQueues>,
    /// Accounts.
    pub accounts: Arc<dyn Accounts>,
    /// Conversations.
    pub conversations: Arc<dyn Conversations>,
    /// Rendezvous.
    pub links: Arc<dyn Links>,
    /// Uploads.
    pub media: Arc<dyn Media>,
    /// Bodies too large for an envelope.
    pub payloads: Arc<dyn Payloads>,
}

/// An open engine; clones share it.
#[derive(Clone)]
pub struct Engine {
    bus: Option<Bus>,
    tables: Option<Tables>,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Embedded(EmbeddedEngine),
    Cluster(ClusterEngine),
}

impl Engine {
    /// Opens what the configuration names, as far as these roles need it.
    pub async fn open(config: &Config, roles: &Roles) -> Result<Self, Failure> {
        match config.engine.kind {
            EngineKind::Embedded if !roles.is_all() => Err(Failure::say(
                Exit::Config,
                "the embedded engine serves every role in one process; leave out --role, or set engine.kind = \"cluster\"",
            )),
            EngineKind::Embedded => {
                let engine = embedded::open(&config.server.data, &config.engine).await?;
                let (bus, tables) = (embedded::bus(&engine), embedded::tables(&engine));
                Ok(Self { bus: Some(bus), tables: Some(tables), kind: Kind::Embedded(engine) })
            }
            EngineKind::Cluster => {
                let cluster = ClusterEngine::open(config, roles).await?;
                let (bus, tables) = (cluster.bus().await?, cluster.tables());
                Ok(Self { bus, tables, kind: Kind::Cluster(cluster) })
            }
        }
    }

    /// Logs, bus and leases. Errors where the process has no role that needs them.
    pub fn bus(&self) -> Result<&Bus, Failure> {
        self.bus.as_ref().ok_or_else(|| Failure::say(Exit::Failed, "this process is not on the bus; this is a defect"))
    }

    /// Tables. Errors where the process has no role that needs them.
    pub fn tables(&self) -> Result<&Tables, Failure> {
        self.tables.as_ref().ok_or_else(|| Failure::say(Exit::Failed, "this process has no tables; this is a defect"))
    }

    /// Names what this installation holds, since it was made or restored; none where nothing can be restored.
    pub fn history(&self) -> Option<[u8; 16]> {
        match &self.kind {
            Kind::Embedded(engine) => engine.history(),
            Kind::Cluster(_) => None,
        }
    }

    /// Exports what the engine counts.
    pub fn export(&self, meter: &Meter) {
        match &self.kind {
            Kind::Embedded(engine) => embedded::export(engine, meter),
            Kind::Cluster(engine) => engine.export(meter),
        }
    }

    /// Tells health what state the engine is in, until `stop`. An embedded engine that has stopped is an error. What is
    /// watched counts as not ready from this call on.
    pub fn watch(self, health: &Health, stop: CancellationToken) -> BoxFuture<'static, Result<(), Failure>> {
        match self.kind {
            Kind::Embedded(engine) => embedded::watch(engine, health.dependency("engine"), stop).boxed(),
            Kind::Cluster(engine) => engine.watch(health, stop).map(Ok).boxed(),
        }
    }

    /// Resolves when the engine cannot go on.
    pub async fn failed(&self) -> Failure {
        match &self.kind {
            Kind::Embedded(engine) => Failure::new(Exit::Failed, engine.failed().await),
            Kind::Cluster(_) => std::future::pending().await,
        }
    }

    /// Ends it in order.
    pub async fn close(&self) {
        match &self.kind {
            Kind::Embedded(engine) => engine.close().await,
            Kind::Cluster(engine) => engine.close().await,
        }
    }
}
