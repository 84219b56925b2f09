// SPDX-License-Identifier: MIT OR Apache-2.0
//! The whole configuration: what belongs to the process itself, and one section per service.

mod cluster;
mod internal;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use pli_engine_embedded::EmbeddedOptions;
use pli_runtime::{ConfigError, LogsConfig, Sources, TelemetryConfig, load};
use serde::{Deserialize, Serialize};

use crate::exit::{Exit, Failure};

pub use cluster::{CqlConfig, NatsConfig};
pub use internal::{InternalConfig, TlsMaterial};

/// Every section; unknown keys are refused.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The process.
    pub server: ServerConfig,
    /// Log lines.
    pub logs: LogsConfig,
    /// Following one message over processes.
    pub telemetry: TelemetryConfig,
    /// Sessions, limits, backpressure.
    pub edge: pli_edge::Config,
    /// Shard owners.
    pub delivery: pli_delivery::Config,
    /// Groups and their commits.
    pub conversations: pli_conversations::Config,
    /// Accounts, handles, device lists, key packages.
    pub directory: pli_directory::Config,
    /// Rendezvous of new devices.
    pub links: pli_links::Config,
    /// Sealed uploads.
    pub media: pli_media::Config,
    /// The storage engine.
    pub engine: EngineConfig,
    /// How roles in different processes reach each other.
    pub internal: InternalConfig,
    /// The NATS cluster, with engine.kind = "cluster".
    pub nats: NatsConfig,
    /// The CQL database, with engine.kind = "cluster".
    pub cql: CqlConfig,
}

/// What belongs to the process itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// The data folder; made when it does not exist. With engine.kind = "cluster" it holds no messages, only a
    /// self-made certificate and server.json.
    pub data: PathBuf,
    /// The address that sessions and server info are served on.
    pub host: IpAddr,
    /// Port of sessions and server info; 0 takes any free one.
    pub port: u16,
    /// Whether sessions are served over QUIC too, on a UDP port of the same address.
    pub quic: bool,
    /// UDP port of sessions over QUIC; 0 takes the number of `port`, where clients look for it by themselves.
    pub quic_port: u16,
    /// PEM file with the certificate chain of sessions and server info; empty takes a self-made one in the data folder.
    pub certificate_file: PathBuf,
    /// PEM file with the key of certificate_file.
    pub key_file: PathBuf,
    /// The address of the admin port; nobody is asked who they are there, so keep it to loopback or a network of your own.
    pub admin_host: IpAddr,
    /// Port of health, metrics and build; 0 takes any free one.
    pub admin_port: u16,
    /// Seconds that SIGTERM or Ctrl-C gives to what is open.
    pub shutdown_grace_s: u64,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            data: PathBuf::from("pli-data"),
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 7480,
            quic: true,
            quic_port: 0,
            certificate_file: PathBuf::new(),
            key_file: PathBuf::new(),
            admin_host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            admin_port: 7481,
            shutdown_grace_s: 10,
        }
    }
}

/// What keeps the messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// SQLite in the data folder; every role in this process.
    #[default]
    Embedded,
    /// Shard logs, bus and leases on NATS JetStream, tables on CQL; any roles in this process.
    Cluster,
}

/// The storage engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineConfig {
    /// What keeps the messages: `embedded` (SQLite in the data folder) or `cluster` (NATS and CQL).
    pub kind: EngineKind,
    /// Shards of a data folder or cluster that is made now, a power of two. An existing folder keeps its own; a cluster
    /// refuses another number than it was made with (1,024 suits many workers).
    pub shards: u32,
    /// Embedded: disk space set aside so that acknowledgements and trims go on when the disk is full, in
    /// bytes; the last eighth is for them alone.
    pub reserve_bytes: u64,
    /// Embedded: newest log entries kept in memory per shard, in bytes.
    pub tail_bytes: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        let options = EmbeddedOptions::default();
        Self {
            kind: EngineKind::Embedded,
            shards: options.shards,
            reserve_bytes: options.reserve_bytes,
            tail_bytes: options.tail_bytes,
        }
    }
}

/// A setting that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct InvalidSetting {
    /// Section and field.
    pub field: &'static str,
    /// What is wrong and what would do.
    pub problem: &'static str,
}

/// Reads the PEM file that a setting names.
pub fn read_pem(setting: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error| {
        let text = format!("{setting}: cannot read {}: {error}; name a PEM file", path.display());
        Failure::say(Exit::Config, text)
    };
    std::fs::read(path).map_err(failed)
}

impl ServerConfig {
    fn check(&self) -> Result<(), InvalidSetting> {
        let may_overlap =
            self.host == self.admin_host || self.host.is_unspecified() || self.admin_host.is_unspecified();
        if self.port != 0 && self.port == self.admin_port && may_overlap {
            return Err(InvalidSetting {
                field: "server.admin_port",
                problem: "is also server.port; take another one",
            });
        }
        if self.certificate_file.as_os_str().is_empty() == self.key_file.as_os_str().is_empty() {
            return Ok(());
        }
        Err(InvalidSetting { field: "server.certificate_file", problem: "and server.key_file must be set together" })
    }
}

impl EngineConfig {
    /// As the engine takes it.
    pub fn options(&self) -> EmbeddedOptions {
        let Self { shards, reserve_bytes, tail_bytes, .. } = *self;
        EmbeddedOptions { shards, reserve_bytes, tail_bytes, ..EmbeddedOptions::default() }
    }
}

impl Config {
    /// Merges the sources and checks what a type cannot say.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let config: Self = load(sources)?;
        let value = |error: &dyn std::fmt::Display| sources.unusable(&error.to_string());
        config.logs.check().map_err(|error| value(&error))?;
        config.telemetry.check().map_err(|error| value(&error))?;
        config.edge.check().map_err(|error| value(&error))?;
        config.delivery.check().map_err(|error| value(&error))?;
        config.links.check().map_err(|error| value(&error))?;
        config.media.check().map_err(|error| value(&error))?;
        config.check_waits().map_err(|error| value(&error))?;
        let shards = pli_domain::ShardMap::new(config.engine.shards, [0; 16]);
        shards.map_err(|error| value(&format_args!("engine.{error}")))?;
        config.server.check().map_err(|error| value(&error))?;
        config.internal.check().map_err(|error| value(&error))?;
        Ok(config)
    }

    /// Where the parts of uploads lie.
    pub fn media_folder(&self) -> PathBuf {
        let set = &self.media.folder;
        if set.as_os_str().is_empty() { self.server.data.join("media") } else { set.clone() }
    }

    /// A wait must be over before the call that waits is ended.
    fn check_waits(&self) -> Result<(), InvalidSetting> {
        const MARGIN_MS: u64 = 1_000;
        let shortest = self.edge.call_ms.min(self.internal.call_timeout_ms);
        if u64::from(self.links.wait_ms) + MARGIN_MS <= shortest {
            return Ok(());
        }
        let problem = "must be 1000 below edge.call_ms and internal.call_timeout_ms, which end the call";
        Err(InvalidSetting { field: "links.wait_ms", problem })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_defaults_are_a_valid_configuration() {
        let text = toml::to_string(&Config::default()).expect("printable");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pli.toml");
        std::fs::write(&path, &text).expect("written");
        let read = Config::load(&Sources::default().file(Some(path))).expect("valid");
        assert_eq!(toml::to_string(&read).expect("printable"), text);
    }

    #[test]
    fn a_wait_is_shorter_than_the_calls_that_wait() {
        let mut config = Config::default();
        assert_eq!(config.check_waits(), Ok(()));
        config.links.wait_ms = 9_001;
        assert!(
            config.check_waits().expect_err("too long").to_string().starts_with("links.wait_ms must be 1000 below")
        );
        config.internal.call_timeout_ms = 20_000;
        assert!(config.check_waits().is_err(), "an edge ends it");
        config.edge.call_ms = 20_000;
        assert_eq!(config.check_waits(), Ok(()));
    }

    #[test]
    fn two_listeners_do_not_share_a_port() {
        let loopback = ServerConfig { port: 7_000, admin_port: 7_000, ..ServerConfig::default() };
        assert_eq!(loopback.check().expect_err("one of them cannot listen").field, "server.admin_port");
        let apart = ServerConfig { host: Ipv4Addr::new(127, 0, 0, 2).into(), ..loopback };
        assert_eq!(apart.check(), Ok(()));
        let everywhere = ServerConfig { host: Ipv4Addr::UNSPECIFIED.into(), ..apart };
        assert!(everywhere.check().is_err());
        assert_eq!(ServerConfig { port: 0, admin_port: 0, ..everywhere }.check(), Ok(()));
    }
}
