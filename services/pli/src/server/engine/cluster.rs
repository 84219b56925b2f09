// SPDX-License-Identifier: MIT OR Apache-2.0
//! The engines of a cluster: NATS for logs, bus and leases, CQL for tables.

use std::time::Duration;

use opentelemetry::metrics::Meter;
use pli_engine_cql::{CqlEngine, Migrated};
use pli_engine_nats::{ConnectError, NatsEngine, NatsOptions, Problem, StartError};
use pli_runtime::{Dependency, Health};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::{Bus, Tables};
use crate::config::Config;
use crate::exit::{Exit, ExitContext, Failure};
use crate::server::role::Roles;

/// How often NATS and CQL are asked whether they are there, for `/readyz`.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often it is looked at again whether the servers are as they must be: one may have come back unsynced.
const CHECK_EVERY: Duration = Duration::from_secs(60);

/// Streams without a leader are waited for at a start: elections after all servers were down take up to nine seconds.
const LEADERS_WITHIN: Duration = Duration::from_secs(60);
/// Between two questions.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Open connections; clones share them.
#[derive(Clone)]
pub struct ClusterEngine {
    nats: Option<NatsEngine>,
    cql: Option<CqlEngine>,
}

impl ClusterEngine {
    /// Connects as far as the roles need it, and refuses what would lose messages.
    pub async fn open(config: &Config, roles: &Roles) -> Result<Self, Failure> {
        let on_the_bus = roles.on_the_bus();
        let nats = if on_the_bus.is_empty() { None } else { Some(connect(config, on_the_bus).await?) };
        let cql = if roles.need_tables() { Some(open_tables(config).await?) } else { None };
        Ok(Self { nats, cql })
    }

    /// Logs, bus and leases.
    pub async fn bus(&self) -> Result<Option<Bus>, Failure> {
        let Some(nats) = &self.nats else { return Ok(None) };
        let shards = nats.shard_map().await.exit(Exit::Failed)?;
        Ok(Some(Bus { log: nats.shard_log(), signals: nats.signals(), leases: nats.leases(), shards }))
    }

    /// Tables.
    pub fn tables(&self) -> Option<Tables> {
        self.cql.as_ref().map(|cql| Tables {
            queues: cql.device_queues(),
            accounts: cql.accounts(),
            conversations: cql.conversations(),
            links: cql.links(),
            media: cql.media(),
            payloads: cql.payloads(),
        })
    }

    /// Exports what the engines count.
    pub fn export(&self, meter: &Meter) {
        let Some(cql) = self.cql.clone() else { return };
        meter
            .u64_observable_counter("pli_cql_statements")
            .with_description("statements and batches sent to the database, repetitions included")
            .with_callback(move |observer| observer.observe(cql.statements_sent(), &[]))
            .build();
    }

    /// Tells health whether both are there, until `stop`. Neither ends the process: what cannot be done is repeated.
    pub fn watch(self, health: &Health, stop: CancellationToken) -> impl Future<Output = ()> + Send + use<> {
        let nats = self.nats.map(|nats| (nats, health.dependency("nats")));
        let cql = self.cql.map(|cql| (cql, health.dependency("cql")));
        let looks = async move {
            let mut tick = interval(LOOK_EVERY);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            // The start has checked.
            let (mut checked, mut fit) = (Instant::now(), Ok(()));
            loop {
                tick.tick().await;
                if let Some((nats, told)) = &nats {
                    if checked.elapsed() >= CHECK_EVERY && nats.is_connected() {
                        fit = nats.check().await.into_result().map(|_| ()).map_err(|error| error.to_string());
                        checked = Instant::now();
                    }
                    let connected = nats.is_connected().then_some(()).ok_or("no connection; it comes back by itself");
                    tell(told, connected.map_err(String::from).and_then(|()| fit.clone()));
                }
                if let Some((cql, told)) = &cql {
                    tell(told, cql.answers().await.map_err(|error| error.to_string()));
                }
            }
        };
        async move {
            tokio::select! { biased; () = stop.cancelled() => {}, () = looks => {} }
        }
    }

    /// Sends what waits and ends the connections.
    pub async fn close(&self) {
        if let Some(nats) = &self.nats {
            nats.close().await;
        }
    }
}

fn tell(told: &Dependency, state: Result<(), impl Into<String>>) {
    match state {
        Ok(()) => told.ready(),
        Err(why) => told.not_ready(why),
    }
}

async fn connect(config: &Config, roles: Vec<pli_engine_nats::Role>) -> Result<NatsEngine, Failure> {
    let nats = reach(NatsOptions {
        protocol: config.internal.protocol(),
        ..config.nats.options(config.engine.shards, roles)?
    })
    .await?;
    for warning in checked(&nats).await.exit(Exit::Failed)? {
        tracing::warn!(%warning, "the NATS cluster");
    }
    Ok(nats)
}

async fn reach(options: NatsOptions) -> Result<NatsEngine, Failure> {
    NatsEngine::connect(options).await.map_err(|error| match error {
        ConnectError::Options(_) | ConnectError::SeedFile { .. } | ConnectError::Seed { .. } => {
            Failure::new(Exit::Config, error)
        }
        _ => Failure::new(Exit::Unreachable, error),
    })
}

/// What forbids to serve. Streams whose servers have all just started have no leader yet and are asked again.
async fn checked(nats: &NatsEngine) -> Result<Vec<Problem>, StartError> {
    let end = Instant::now() + LEADERS_WITHIN;
    loop {
        match nats.check().await.into_result() {
            Err(error) if error.may_pass() && Instant::now() < end => {
                tracing::warn!(%error, "asking again");
                sleep(ASK_AGAIN_AFTER).await;
            }
            answer => return answer,
        }
    }
}

async fn open_tables(config: &Config) -> Result<CqlEngine, Failure> {
    let options = config.cql.options()?;
    CqlEngine::open(&options).await.map_err(|error| Failure::new(exit_of(&error), error))
}

const fn exit_of(error: &pli_engine_cql::OpenError) -> Exit {
    match error {
        pli_engine_cql::OpenError::Unreachable { .. } => Exit::Unreachable,
        pli_engine_cql::OpenError::Option { .. } => Exit::Config,
        _ => Exit::Failed,
    }
}

/// Makes or updates streams, bucket and tables. Idempotent, and safe twice at once.
pub async fn migrate(config: &Config) -> Result<Migrated, Failure> {
    let operator = vec![pli_engine_nats::Role::Operator];
    let options = config.nats.options(config.engine.shards, operator)?;
    let tables = config.cql.options()?;
    let nats = reach(options).await?;
    nats.migrate().await.exit(Exit::Failed)?;
    nats.close().await;
    pli_engine_cql::migrate(&tables).await.map_err(|error| Failure::new(exit_of(&error), error))
}
