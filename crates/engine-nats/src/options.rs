// SPDX-License-Identifier: MIT OR Apache-2.0
//! How to reach the servers and what is expected of them.

use std::path::PathBuf;
use std::time::Duration;

use pli_domain::protocol::RoleProtocol;

use crate::{Layout, Role};

/// How a process proves who it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// File with the seed of an NKey user (`SU…`); without one the connection is anonymous.
    pub nkey_seed_file: Option<PathBuf>,
    /// TLS; without it the connection is not encrypted.
    pub tls: Option<TlsFiles>,
}

/// PEM files of a TLS connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authorities that are trusted; without them those of the system.
    pub ca_file: Option<PathBuf>,
    /// This client's certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// How the engine works. [`NatsOptions::default`] is right for production but for the servers' addresses.
#[derive(Debug, Clone)]
pub struct NatsOptions {
    /// Addresses, `nats://host:port` or `tls://host:port`, at least one; the others of the cluster are discovered.
    pub servers: Vec<String>,
    /// Addresses of the servers' monitoring, `host:port`, one for each server that holds a copy of a stream: the only
    /// proof that storage is synced.
    pub monitors: Vec<String>,
    /// What this process does; decides what its credentials must allow and where its answers arrive.
    pub roles: Vec<Role>,
    /// Who it is.
    pub credentials: Credentials,
    /// The streams.
    pub layout: Layout,
    /// Most appends without an acknowledgement, of the whole process, 1 to 65,536.
    pub in_flight_max: u32,
    /// How long to wait for an answer of the server before the outcome is unknown.
    pub answer_timeout: Duration,
    /// How often the server says that a reader still is served; two missed ones interrupt it.
    pub heartbeat: Duration,
    /// How often a reader compares the last entry it read with what the log holds.
    pub audit_every: Duration,
    /// The version of the protocol between roles in which this process speaks on the bus; it understands all of
    /// [`RoleProtocol`].
    pub protocol: RoleProtocol,
    /// Milliseconds after which an append is worth repeating when the log is full.
    pub full_retry_after_ms: u32,
    /// Accepts servers that acknowledge before they have synced: acknowledged messages are lost with the power.
    pub dangerously_allow_unsynced_storage: bool,
    /// Accepts streams with one copy: they are lost with their disk.
    pub dangerously_allow_one_replica: bool,
}

impl Default for NatsOptions {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            monitors: Vec::new(),
            roles: Vec::new(),
            credentials: Credentials::default(),
            layout: Layout::default(),
            in_flight_max: 4_096,
            answer_timeout: Duration::from_secs(5),
            heartbeat: Duration::from_secs(5),
            audit_every: Duration::from_secs(30),
            protocol: RoleProtocol::NEWEST,
            full_retry_after_ms: 2_000,
            dangerously_allow_unsynced_storage: false,
            dangerously_allow_one_replica: false,
        }
    }
}
