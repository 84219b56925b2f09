// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the engines of a cluster are.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pli_engine_cql::{Compaction, CqlOptions};
use pli_engine_nats::{Credentials, Layout, NatsOptions, Role, TlsFiles};
use serde::{Deserialize, Serialize};

use crate::exit::{Exit, Failure};

/// Shard logs, bus and leases on NATS with JetStream, 2.15 or newer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatsConfig {
    /// Addresses, `nats://host:port` or `tls://host:port`; the others of the cluster are found through them.
    pub servers: Vec<String>,
    /// Addresses of the servers' monitoring, `host:port`, one for each server that keeps a copy of a stream.
    pub monitors: Vec<String>,
    /// File with the seed of this process's NKey user (`SU…`); empty connects without one.
    pub nkey_seed_file: PathBuf,
    /// PEM file with the authorities that sign the servers' certificates; empty trusts those of the system.
    pub ca_file: PathBuf,
    /// PEM file with this process's certificate, where servers ask for one.
    pub certificate_file: PathBuf,
    /// PEM file with the key of certificate_file.
    pub key_file: PathBuf,
    /// Streams that share the shards, at least one for 250; fixed when the cluster is made.
    pub streams: u16,
    /// Copies of every stream: 3 in production.
    pub replicas: usize,
    /// Most bytes of one stream; above it senders hear `retry_after`. Servers reserve it, times the streams.
    pub stream_bytes_max: u64,
    /// Most appends of this process without an acknowledgement, 1 to 65,536.
    pub in_flight_max: u32,
    /// How long an answer is waited for, in milliseconds.
    pub answer_timeout_ms: u64,
    /// Accepts servers that acknowledge before they have synced: what was accepted is lost with their power.
    pub dangerously_allow_unsynced_storage: bool,
    /// Accepts streams with one copy: they are lost with their disk.
    pub dangerously_allow_one_replica: bool,
}

impl Default for NatsConfig {
    fn default() -> Self {
        let options = NatsOptions::default();
        Self {
            servers: Vec::new(),
            monitors: Vec::new(),
            nkey_seed_file: PathBuf::new(),
            ca_file: PathBuf::new(),
            certificate_file: PathBuf::new(),
            key_file: PathBuf::new(),
            streams: options.layout.streams,
            replicas: options.layout.replicas,
            stream_bytes_max: options.layout.stream_bytes_max,
            in_flight_max: options.in_flight_max,
            answer_timeout_ms: 5_000,
            dangerously_allow_unsynced_storage: false,
            dangerously_allow_one_replica: false,
        }
    }
}

impl NatsConfig {
    /// As the engine takes it, for a process of these roles.
    pub fn options(&self, shards: u32, roles: Vec<Role>) -> Result<NatsOptions, Failure> {
        if self.servers.is_empty() {
            let text = "nats.servers is empty; name at least one as nats://host:port";
            return Err(Failure::say(Exit::Config, text));
        }
        if given(&self.certificate_file).is_some() != given(&self.key_file).is_some() {
            let text = "nats.certificate_file and nats.key_file must be set together";
            return Err(Failure::say(Exit::Config, text));
        }
        let (ca_file, client) = (given(&self.ca_file), given(&self.certificate_file).zip(given(&self.key_file)));
        let tls = (ca_file.is_some() || client.is_some()).then_some(TlsFiles { ca_file, client });
        let layout = Layout {
            shards,
            streams: self.streams,
            replicas: self.replicas,
            stream_bytes_max: self.stream_bytes_max,
            ..Layout::default()
        };
        Ok(NatsOptions {
            servers: self.servers.clone(),
            monitors: self.monitors.clone(),
            roles,
            credentials: Credentials { nkey_seed_file: given(&self.nkey_seed_file), tls },
            layout,
            in_flight_max: self.in_flight_max,
            answer_timeout: Duration::from_millis(self.answer_timeout_ms),
            dangerously_allow_unsynced_storage: self.dangerously_allow_unsynced_storage,
            dangerously_allow_one_replica: self.dangerously_allow_one_replica,
            ..NatsOptions::default()
        })
    }
}

/// How tables are compacted; used when they are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CompactionKind {
    /// ScyllaDB's IncrementalCompactionStrategy.
    #[default]
    Incremental,
    /// Apache Cassandra's UnifiedCompactionStrategy.
    Unified,
}

/// Device queues and tables on CQL: ScyllaDB, or Apache Cassandra 5.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CqlConfig {
    /// `host:port` of some nodes; the rest of the datacentre is found through them.
    pub contact_points: Vec<String>,
    /// The keyspace: 1 to 48 of `a-z 0-9 _`, a letter first.
    pub keyspace: String,
    /// The one datacentre whose nodes are asked.
    pub datacentre: String,
    /// Replicas of a keyspace that `pli migrate` makes; an existing one keeps its own.
    pub replication: u8,
    /// Who logs in; empty where the database does not ask.
    pub user: String,
    /// File with the password, its first line.
    pub password_file: PathBuf,
    /// PEM file with the authorities that sign the nodes' certificates; TLS is used where it is set.
    pub ca_file: PathBuf,
    /// How tables are compacted, used when they are made: `incremental` (ScyllaDB) or `unified` (Apache Cassandra).
    pub compaction: CompactionKind,
    /// Refuses fewer than three replicas and a commit log that is not synced before it acknowledges.
    pub production: bool,
    /// A statement is repeated for so many milliseconds before its call answers "try later".
    pub deadline_ms: u64,
}

impl Default for CqlConfig {
    fn default() -> Self {
        let options = CqlOptions::default();
        Self {
            contact_points: Vec::new(),
            keyspace: options.keyspace,
            datacentre: options.datacentre,
            replication: options.replication,
            user: String::new(),
            password_file: PathBuf::new(),
            ca_file: PathBuf::new(),
            compaction: CompactionKind::Incremental,
            production: true,
            deadline_ms: 10_000,
        }
    }
}

impl CqlConfig {
    /// As the engine takes it.
    pub fn options(&self) -> Result<CqlOptions, Failure> {
        if self.contact_points.is_empty() {
            let text = "cql.contact_points is empty; name at least one node as host:port";
            return Err(Failure::say(Exit::Config, text));
        }
        Ok(CqlOptions {
            contact_points: self.contact_points.clone(),
            keyspace: self.keyspace.clone(),
            datacentre: self.datacentre.clone(),
            replication: self.replication,
            user: (!self.user.is_empty()).then(|| self.user.clone()),
            password: given(&self.password_file).map(|path| password(&path)).transpose()?,
            ca_file: given(&self.ca_file),
            compaction: match self.compaction {
                CompactionKind::Incremental => Compaction::Incremental,
                CompactionKind::Unified => Compaction::Unified,
            },
            production: self.production,
            deadline: Duration::from_millis(self.deadline_ms),
            ..CqlOptions::default()
        })
    }
}

fn given(path: &Path) -> Option<PathBuf> {
    (!path.as_os_str().is_empty()).then(|| path.to_path_buf())
}

fn password(path: &Path) -> Result<String, Failure> {
    let failed = |error| {
        let text = format!("cql.password_file: cannot read {}: {error}; name a file with the password", path.display());
        Failure::say(Exit::Config, text)
    };
    let text = std::fs::read_to_string(path).map_err(failed)?;
    Ok(text.lines().next().unwrap_or_default().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_without_addresses_is_refused_by_name() {
        let nats = NatsConfig::default().options(16, vec![Role::Edge]).expect_err("no server").error.to_string();
        assert!(nats.contains("nats.servers"), "{nats}");
        let cql = CqlConfig::default().options().expect_err("no node").error.to_string();
        assert!(cql.contains("cql.contact_points"), "{cql}");
    }

    #[test]
    fn the_password_is_the_first_line_of_its_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("password");
        std::fs::write(&path, "hunter2\n").expect("written");
        let config = CqlConfig { contact_points: vec!["n:9042".into()], password_file: path, ..CqlConfig::default() };
        assert_eq!(config.options().expect("readable").password.as_deref(), Some("hunter2"));
        let config = CqlConfig { password_file: "/nowhere".into(), ..config };
        assert!(config.options().expect_err("missing").error.to_string().contains("cql.password_file"));
    }
}
