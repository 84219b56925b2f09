// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connecting, and what must hold before the tables are used.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use pli_domain::UnixMillis;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::policies::load_balancing::DefaultPolicy;
use scylla::policies::retry::FallthroughRetryPolicy;
use scylla::statement::{Consistency, SerialConsistency};
use scylla::value::CqlTimestamp;
use sha2::{Digest, Sha256};

use crate::error::is_refused_login;
use crate::{CqlOptions, OpenError, tls};

/// Name and text of every schema file, in order; the version of a file is its place, counted from 1.
pub(crate) const FILES: &[(&str, &str)] = &[
    ("0001_tables.cql", include_str!("../schema/0001_tables.cql")),
    ("0002_device_lists.cql", include_str!("../schema/0002_device_lists.cql")),
    ("0003_rendezvous.cql", include_str!("../schema/0003_rendezvous.cql")),
    ("0004_device_removals.cql", include_str!("../schema/0004_device_removals.cql")),
    ("0005_media.cql", include_str!("../schema/0005_media.cql")),
];

/// The version of the tables that this program uses.
pub const SCHEMA_VERSION: i32 = FILES.len() as i32;

/// Where Cassandra and ScyllaDB show the setting.
const COMMIT_LOG_SYNC: &[&str] = &[
    "SELECT value FROM system_views.settings WHERE name = 'commitlog_sync'",
    "SELECT value FROM system.config WHERE name = 'commitlog_sync'",
];
/// Fewest replicas in production: a quorum of them survives one machine.
const REPLICAS_MIN: u32 = 3;

/// Logs in, and finds the datacentre.
pub(crate) async fn connect(options: &CqlOptions) -> Result<Session, OpenError> {
    options.validate()?;
    let policy = DefaultPolicy::builder().prefer_datacenter(options.datacentre.clone()).token_aware(true).build();
    let profile = ExecutionProfile::builder()
        .consistency(Consistency::LocalQuorum)
        .serial_consistency(Some(SerialConsistency::LocalSerial))
        .request_timeout(Some(options.deadline))
        // Repeating is the engine's affair: it knows what may be repeated.
        .retry_policy(Arc::new(FallthroughRetryPolicy::new()))
        .load_balancing_policy(policy)
        .build();
    let mut builder = SessionBuilder::new()
        .known_nodes(&options.contact_points)
        .default_execution_profile_handle(profile.into_handle())
        .connection_timeout(options.attempt_timeout)
        .schema_agreement_timeout(options.deadline * 3)
        .fetch_schema_metadata(false);
    if let (Some(user), Some(password)) = (&options.user, &options.password) {
        builder = builder.user(user, password);
    }
    if let Some(path) = &options.ca_file {
        builder = builder.tls_context(Some(tls::client_config(path)?));
    }
    let session = builder.build().await.map_err(|error| {
        let source = Box::new(error);
        match is_refused_login(&source) {
            true => OpenError::Credentials { user: options.user.clone().unwrap_or_else(|| "(none)".into()), source },
            false => OpenError::Unreachable { contact_points: options.contact_points.join(", "), source },
        }
    })?;
    let state = session.get_cluster_state();
    let known: BTreeSet<String> = state.get_nodes_info().iter().filter_map(|node| node.datacenter.clone()).collect();
    if !known.contains(&options.datacentre) {
        let known = known.into_iter().collect::<Vec<_>>().join(", ");
        return Err(OpenError::Datacentre { datacentre: options.datacentre.clone(), known });
    }
    Ok(session)
}

/// Refuses a keyspace that is not there, not of this program's version, or keeps too few replicas.
pub(crate) async fn check_keyspace(session: &Session, options: &CqlOptions) -> Result<(), OpenError> {
    let keyspace = options.keyspace.clone();
    let found = replicas(session, options).await?;
    let Some(found) = found else { return Err(OpenError::SchemaMissing { keyspace }) };
    if options.production && found < REPLICAS_MIN {
        return Err(OpenError::Replication { keyspace, datacentre: options.datacentre.clone(), found });
    }
    if options.production {
        check_commit_log(session).await?;
    }
    let wanted = SCHEMA_VERSION;
    match version(session, options).await? {
        None => Err(OpenError::SchemaMissing { keyspace }),
        Some(found) if found < wanted => Err(OpenError::SchemaOld { keyspace, found, wanted }),
        Some(found) if found > wanted => Err(OpenError::SchemaNew { keyspace, found, wanted }),
        Some(_) => Ok(()),
    }
}

/// Refuses a node that may lose with its power what it has acknowledged. Asks the node that the driver picks.
async fn check_commit_log(session: &Session) -> Result<(), OpenError> {
    for cql in COMMIT_LOG_SYNC {
        // A database has one of the two tables.
        let Ok(answer) = session.query_unpaged(*cql, ()).await else { continue };
        let rows = answer.into_rows_result().map_err(OpenError::statement("reading the commit log's setting"))?;
        if let Ok(Some((found,))) = rows.maybe_first_row::<(String,)>() {
            return if found.contains("periodic") { Err(OpenError::CommitLog { found }) } else { Ok(()) };
        }
    }
    tracing::warn!("the database does not say how its commit log is synced; it must be group or batch");
    Ok(())
}

/// What the start of a program checks without opening the engine: connects, and looks at keyspace, replicas and
/// schema version.
pub async fn check(options: &CqlOptions) -> Result<(), OpenError> {
    let session = connect(options).await?;
    check_keyspace(&session, options).await
}

/// What the clock of one node shows.
pub async fn server_time(options: &CqlOptions) -> Result<UnixMillis, OpenError> {
    const WHAT: &str = "reading the database's clock";
    const CQL: &str = "SELECT toTimestamp(now()) FROM system.local";
    let session = connect(options).await?;
    let answer = session.query_unpaged(CQL, ()).await.map_err(OpenError::statement(WHAT))?;
    let rows = answer.into_rows_result().map_err(OpenError::statement(WHAT))?;
    let (now,) = rows.first_row::<(CqlTimestamp,)>().map_err(OpenError::statement(WHAT))?;
    Ok(UnixMillis(u64::try_from(now.0).unwrap_or(0)))
}

/// Replicas that the keyspace keeps in the datacentre; none when there is no such keyspace.
async fn replicas(session: &Session, options: &CqlOptions) -> Result<Option<u32>, OpenError> {
    const WHAT: &str = "reading the keyspace's replication";
    const CQL: &str = "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = ?";
    let answer = session.query_unpaged(CQL, (&options.keyspace,)).await.map_err(OpenError::statement(WHAT))?;
    let rows = answer.into_rows_result().map_err(OpenError::statement(WHAT))?;
    let first = rows.maybe_first_row::<(HashMap<String, String>,)>().map_err(OpenError::statement(WHAT))?;
    Ok(first.map(|(replication,)| match replication.get(&options.datacentre) {
        Some(count) => count.split('/').next().and_then(|count| count.parse().ok()).unwrap_or(0),
        None => 0,
    }))
}

/// The version of the tables; none where none were made.
pub(crate) async fn version(session: &Session, options: &CqlOptions) -> Result<Option<i32>, OpenError> {
    const WHAT: &str = "reading the schema version";
    const TABLES: &str =
        "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ? AND table_name = 'schema_version'";
    let answer = session.query_unpaged(TABLES, (&options.keyspace,)).await.map_err(OpenError::statement(WHAT))?;
    let rows = answer.into_rows_result().map_err(OpenError::statement(WHAT))?;
    if rows.maybe_first_row::<(String,)>().map_err(OpenError::statement(WHAT))?.is_none() {
        return Ok(None);
    }
    let applied = applied(session, &options.keyspace).await?;
    Ok(Some(applied.keys().copied().max().unwrap_or(0)))
}

/// Version -> digest of the file that was applied.
pub(crate) async fn applied(session: &Session, keyspace: &str) -> Result<HashMap<i32, Vec<u8>>, OpenError> {
    const WHAT: &str = "reading the schema version";
    let cql = format!("SELECT version, sha256 FROM {keyspace}.schema_version WHERE component = 'pli'");
    let answer = session.query_unpaged(cql, ()).await.map_err(OpenError::statement(WHAT))?;
    let rows = answer.into_rows_result().map_err(OpenError::statement(WHAT))?;
    let rows = rows.rows::<(i32, Vec<u8>)>().map_err(OpenError::statement(WHAT))?;
    rows.collect::<Result<_, _>>().map_err(OpenError::statement(WHAT))
}

/// What names the text of a schema file.
pub(crate) fn digest(text: &str) -> Vec<u8> {
    Sha256::digest(text).to_vec()
}
