// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the engine reaches its database.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pli_ports::{Clock, SystemClock};

use crate::OpenError;

/// How tables are compacted: what suits immutable rows and prefix deletes on each database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compaction {
    /// Apache Cassandra 5: UnifiedCompactionStrategy.
    Unified,
    /// ScyllaDB: IncrementalCompactionStrategy.
    Incremental,
}

impl Compaction {
    pub(crate) fn cql(self) -> &'static str {
        match self {
            Self::Unified => "{'class': 'UnifiedCompactionStrategy'}",
            Self::Incremental => "{'class': 'IncrementalCompactionStrategy'}",
        }
    }
}

/// Where the database is and how it is used. Reads and writes are LOCAL_QUORUM and decisions LOCAL_SERIAL; nothing
/// else keeps the contracts of the ports, so there is no setting for it.
#[derive(Clone)]
pub struct CqlOptions {
    /// `host:port` of some nodes, at least one; the rest of the datacentre is found through them.
    pub contact_points: Vec<String>,
    /// The keyspace: 1 to 48 of `a-z 0-9 _`, a letter first.
    pub keyspace: String,
    /// The one datacentre in which the keyspace lives and whose nodes are asked.
    pub datacentre: String,
    /// Replicas of a keyspace that migrating creates; an existing one keeps its own.
    pub replication: u8,
    /// Who logs in; unset where the database does not ask.
    pub user: Option<String>,
    /// Its password. Never printed.
    pub password: Option<String>,
    /// PEM file with the authorities that sign the nodes' certificates. TLS is used where it is set.
    pub ca_file: Option<PathBuf>,
    /// How tables are compacted; used when they are created.
    pub compaction: Compaction,
    /// Refuses what loses data with one machine: fewer than three replicas.
    pub production: bool,
    /// One attempt of one statement waits this long for its answer.
    pub attempt_timeout: Duration,
    /// A statement is repeated for this long before its call answers "try later".
    pub deadline: Duration,
    /// Most statements of one call that are on their way at once.
    pub in_flight: usize,
    /// Tells how long rows have to live, and stamps removals.
    pub clock: Arc<dyn Clock>,
}

impl Default for CqlOptions {
    fn default() -> Self {
        Self {
            contact_points: vec!["127.0.0.1:9042".into()],
            keyspace: "pli".into(),
            datacentre: "datacenter1".into(),
            replication: 3,
            user: None,
            password: None,
            ca_file: None,
            compaction: Compaction::Incremental,
            production: true,
            attempt_timeout: Duration::from_secs(3),
            deadline: Duration::from_secs(10),
            in_flight: 64,
            clock: Arc::new(SystemClock),
        }
    }
}

impl fmt::Debug for CqlOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CqlOptions")
            .field("contact_points", &self.contact_points)
            .field("keyspace", &self.keyspace)
            .field("datacentre", &self.datacentre)
            .field("replication", &self.replication)
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "…"))
            .field("ca_file", &self.ca_file)
            .field("compaction", &self.compaction)
            .field("production", &self.production)
            .finish_non_exhaustive()
    }
}

impl CqlOptions {
    /// Refuses what cannot work; names the option and the fix.
    pub(crate) fn validate(&self) -> Result<(), OpenError> {
        let refuse = |option, fix| Err(OpenError::Option { option, fix });
        if self.contact_points.is_empty() {
            return refuse("contact_points", "name at least one node as host:port");
        }
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        let starts = self.keyspace.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
        if !starts || self.keyspace.len() > 48 || !self.keyspace.bytes().all(allowed) {
            return refuse("keyspace", "use 1 to 48 of a-z, 0-9 and '_', a letter first");
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
        if self.datacentre.is_empty() || !self.datacentre.bytes().all(allowed) {
            return refuse("datacentre", "name it as the database does (letters, digits, '_', '-', '.')");
        }
        if self.replication == 0 {
            return refuse("replication", "use 3, or 1 for a test");
        }
        if self.production && self.replication < 3 {
            return refuse("replication", "use at least 3 in production");
        }
        if self.user.is_some() != self.password.is_some() {
            return refuse("password", "set user and password together");
        }
        if self.in_flight == 0 {
            return refuse("in_flight", "use at least 1");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        assert!(CqlOptions::default().validate().is_ok());
        let base = CqlOptions::default;
        for (options, name) in [
            (CqlOptions { contact_points: vec![], ..base() }, "contact_points"),
            (CqlOptions { keyspace: "Pli".into(), ..base() }, "keyspace"),
            (CqlOptions { keyspace: "a; DROP".into(), ..base() }, "keyspace"),
            (CqlOptions { keyspace: "a".repeat(49), ..base() }, "keyspace"),
            (CqlOptions { datacentre: "'".into(), ..base() }, "datacentre"),
            (CqlOptions { replication: 0, ..base() }, "replication"),
            (CqlOptions { replication: 1, ..base() }, "replication"),
            (CqlOptions { user: Some("pli".into()), ..base() }, "password"),
            (CqlOptions { in_flight: 0, ..base() }, "in_flight"),
        ] {
            let text = options.validate().expect_err(name).to_string();
            assert!(text.starts_with(name), "{text}");
        }
    }

    #[test]
    fn a_password_is_not_printed() {
        let options = CqlOptions { user: Some("pli".into()), password: Some("hunter2".into()), ..Default::default() };
        assert!(!format!("{options:?}").contains("hunter2"));
    }
}
