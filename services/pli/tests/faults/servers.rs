// SPDX-License-Identifier: MIT OR Apache-2.0
//! The NATS server and the CQL node that all tests of this binary use, one after the other.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pli_engine_cql::{Compaction, CqlOptions};
use pli_engine_nats::{Layout, NatsEngine, NatsOptions, Role};
use pli_testkit::engines::EngineError;
use pli_testkit::engines::cassandra::{Cassandra, Launch, free_addresses, jars};
use pli_testkit::engines::nats::{NatsServers, NatsSettings, ask, binary};
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

/// Shards of the cluster; few, so that each has traffic.
pub const SHARDS: u32 = 4;
/// Bytes of the log of a cluster that is to have room.
const LOG_BYTES: u64 = 256 << 20;

/// Running servers with streams and tables.
pub struct Servers {
    pub nats: NatsServers,
    _cql: Cassandra,
    /// Which options reach them without a proxy.
    pub nats_options: NatsOptions,
    pub cql_options: CqlOptions,
}

static SERVERS: Mutex<Option<Servers>> = Mutex::const_new(None);

/// The servers, for one test at a time.
pub struct Turn(MutexGuard<'static, Option<Servers>>);

impl std::ops::Deref for Turn {
    type Target = Servers;
    fn deref(&self) -> &Servers {
        self.0.as_ref().expect("a turn is given with servers")
    }
}

/// A turn at the servers; none where they cannot be had, and a line that says why.
pub async fn servers(test: &str) -> Option<Turn> {
    let mut servers = SERVERS.lock().await;
    if servers.is_none() {
        match start().await {
            Ok(started) => *servers = Some(started),
            Err(EngineError::Unavailable(why)) => {
                println!("skipped: {test}: {why}");
                return None;
            }
            Err(error) => panic!("{error}"),
        }
    }
    Some(Turn(servers))
}

/// Files of this process's servers; what processes that are gone left behind is removed.
fn folder() -> PathBuf {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults");
    for entry in std::fs::read_dir(&parent).into_iter().flatten().flatten() {
        let owner = entry.file_name();
        if Path::new("/proc/self").exists() && !Path::new("/proc").join(owner).exists() {
            // Another test may remove it too.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    parent.join(std::process::id().to_string())
}

/// A NATS server whose log has so much room, with streams.
pub async fn start_nats(log_bytes: u64) -> Result<(NatsServers, NatsOptions), EngineError> {
    let binary = binary().map_err(EngineError::Unavailable)?;
    let folder = folder();
    std::fs::create_dir_all(&folder).expect("a folder for the servers' files");
    let nats = NatsServers::start(&binary, &folder, NatsSettings::default()).await.expect("a NATS server starts");
    let layout = Layout { shards: SHARDS, streams: 1, replicas: 1, stream_bytes_max: log_bytes, ..Layout::default() };
    let options = NatsOptions {
        servers: nats.addresses(),
        monitors: nats.monitors(),
        roles: vec![Role::Edge, Role::Delivery],
        layout,
        answer_timeout: Duration::from_secs(1),
        heartbeat: Duration::from_millis(500),
        audit_every: Duration::from_secs(1),
        full_retry_after_ms: 500,
        dangerously_allow_one_replica: true,
        ..NatsOptions::default()
    };
    migrate(&options).await;
    Ok((nats, options))
}

/// Makes what is missing.
pub async fn migrate(options: &NatsOptions) {
    let operator = NatsOptions { roles: vec![Role::Operator], ..options.clone() };
    let engine = NatsEngine::connect(operator).await.expect("the NATS server is there");
    engine.migrate().await.expect("streams can be made");
    engine.close().await;
}

async fn start() -> Result<Servers, EngineError> {
    let jars = jars()?;
    let (nats, nats_options) = start_nats(LOG_BYTES).await?;
    let launch = Launch { jars, folder: folder().join("cql"), nodes: 1, login: false, certificate: None };
    let cql = Cassandra::start(launch, &free_addresses(1)?).await?;
    let cql_options = make_tables(cql.contact_points(), "pli_faults").await;
    Ok(Servers { nats, _cql: cql, nats_options, cql_options })
}

/// Makes the tables of a keyspace, and answers how they are reached.
pub async fn make_tables(contact_points: Vec<String>, keyspace: &str) -> CqlOptions {
    let options = CqlOptions {
        contact_points,
        keyspace: keyspace.into(),
        replication: 1,
        compaction: Compaction::Unified,
        production: false,
        attempt_timeout: Duration::from_secs(1),
        deadline: Duration::from_secs(3),
        ..CqlOptions::default()
    };
    // Small machines make tables slowly.
    let (attempt_timeout, deadline) = (Duration::from_secs(30), Duration::from_secs(60));
    let patient = CqlOptions { attempt_timeout, deadline, ..options.clone() };
    pli_engine_cql::migrate(&patient).await.expect("tables can be made");
    options
}

/// Asks the JetStream API of a server.
pub async fn jetstream(nats: &NatsServers, what: &str, question: Value) -> Value {
    ask(&nats.addresses()[0], what, &question).await.expect("the server answers")
}

/// Ends every consumer of the log: readers are interrupted and made anew.
pub async fn end_consumers(nats: &NatsServers) {
    let stream = pli_engine_nats::log_stream(0);
    let names = jetstream(nats, &format!("CONSUMER.NAMES.{stream}"), json!({})).await;
    for name in names["consumers"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        // Its owner may have ended it at this moment.
        let _ = ask(&nats.addresses()[0], &format!("CONSUMER.DELETE.{stream}.{name}"), &json!({})).await;
    }
}

/// Takes the lease of one shard away, or all leases and the notes of who is there.
pub async fn purge_leases(nats: &NatsServers, shard: Option<u32>) {
    let question = match shard {
        Some(shard) => json!({ "filter": format!("$KV.{}.{shard}", pli_engine_nats::LEASE_BUCKET) }),
        None => json!({}),
    };
    jetstream(nats, &format!("STREAM.PURGE.{}", pli_engine_nats::LEASE_STREAM), question).await;
}
