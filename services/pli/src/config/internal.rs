// SPDX-License-Identifier: MIT OR Apache-2.0
//! How roles in different processes reach each other: gRPC over mutual TLS.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use pli_domain::protocol::RoleProtocol;
use serde::{Deserialize, Serialize};

use super::{InvalidSetting, read_pem};
use crate::exit::Failure;

/// gRPC between roles. Both sides prove themselves with certificates of one authority; a certificate names the roles of
/// its process as DNS names: `edge.pli.internal`, `delivery.pli.internal`, `conversations.pli.internal`,
/// `directory.pli.internal`, `links.pli.internal`, `media.pli.internal`. What a user is may only be said by an edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InternalConfig {
    /// The address that directory, conversations, links and media are served on to other processes.
    pub host: IpAddr,
    /// Its port; 0 takes any free one.
    pub port: u16,
    /// Where the directory is served, `host:port` each, when it is not in this process.
    pub directory: Vec<String>,
    /// Where conversations are served, `host:port` each, when they are not in this process.
    pub conversations: Vec<String>,
    /// Where links are served, `host:port` each, when they are not in this process.
    pub links: Vec<String>,
    /// Where media are served, `host:port` each, when they are not in this process.
    pub media: Vec<String>,
    /// PEM file with the authority that signs the certificates of all processes. Without it nothing is served to, or
    /// asked of, other processes.
    pub ca_file: PathBuf,
    /// PEM file with this process's certificate chain.
    pub certificate_file: PathBuf,
    /// PEM file with the key of certificate_file.
    pub key_file: PathBuf,
    /// Calls of one connection that are answered at once; more are refused with `retry_after`.
    pub calls_max: usize,
    /// A call ends after so many milliseconds, whatever its caller asked for.
    pub call_timeout_ms: u64,
    /// Version of the protocol between roles that this process speaks. Every release understands the newest and the one
    /// before; keep the one before while processes of the last release run, then remove the line.
    pub protocol_version: u16,
}

impl Default for InternalConfig {
    fn default() -> Self {
        Self {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 7482,
            directory: Vec::new(),
            conversations: Vec::new(),
            links: Vec::new(),
            media: Vec::new(),
            ca_file: PathBuf::new(),
            certificate_file: PathBuf::new(),
            key_file: PathBuf::new(),
            calls_max: 1_024,
            call_timeout_ms: 10_000,
            protocol_version: RoleProtocol::NEWEST.get(),
        }
    }
}

/// The files of [`InternalConfig`], read.
#[derive(Clone)]
pub struct TlsMaterial {
    /// The authority.
    pub ca: Vec<u8>,
    /// This process's certificate chain.
    pub certificate: Vec<u8>,
    /// Its key.
    pub key: Vec<u8>,
}

impl InternalConfig {
    pub(super) fn check(&self) -> Result<(), InvalidSetting> {
        let files = [&self.ca_file, &self.certificate_file, &self.key_file];
        let set = files.iter().filter(|file| !file.as_os_str().is_empty()).count();
        if set != 0 && set != files.len() {
            let problem = "certificate_file and key_file must be set together";
            return Err(InvalidSetting { field: "internal.ca_file,", problem });
        }
        if self.calls_max == 0 {
            return Err(InvalidSetting { field: "internal.calls_max", problem: "is 0; set at least 1" });
        }
        if self.call_timeout_ms == 0 {
            return Err(InvalidSetting { field: "internal.call_timeout_ms", problem: "is 0; set at least 1" });
        }
        if RoleProtocol::new(self.protocol_version).is_none() {
            let problem = "is not understood by this release; remove it, or set 1 while processes of the last one run";
            return Err(InvalidSetting { field: "internal.protocol_version", problem });
        }
        Ok(())
    }

    /// What this process speaks to other ones.
    pub fn protocol(&self) -> RoleProtocol {
        // Checked when the configuration was read.
        RoleProtocol::new(self.protocol_version).unwrap_or_default()
    }

    /// Whether other processes are served or asked.
    pub fn is_set(&self) -> bool {
        !self.ca_file.as_os_str().is_empty()
    }

    /// Reads the files.
    pub fn material(&self) -> Result<TlsMaterial, Failure> {
        Ok(TlsMaterial {
            ca: read_pem("internal.ca_file", &self.ca_file)?,
            certificate: read_pem("internal.certificate_file", &self.certificate_file)?,
            key: read_pem("internal.key_file", &self.key_file)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_files_is_refused_by_name() {
        let half = InternalConfig { ca_file: "ca.pem".into(), ..InternalConfig::default() };
        assert!(half.check().expect_err("refused").to_string().contains("internal.ca_file"));
        assert_eq!(InternalConfig::default().check(), Ok(()));
        let none = InternalConfig { calls_max: 0, ..InternalConfig::default() };
        assert!(none.check().is_err());
        let future = InternalConfig { protocol_version: 3, ..InternalConfig::default() };
        assert!(future.check().expect_err("refused").to_string().contains("internal.protocol_version"));
    }

    #[test]
    fn a_file_that_is_not_there_is_named_with_its_key() {
        let set = InternalConfig {
            ca_file: "/nowhere/ca.pem".into(),
            certificate_file: "/nowhere/c.pem".into(),
            key_file: "/nowhere/k.pem".into(),
            ..InternalConfig::default()
        };
        let text = set.material().err().expect("not there").error.to_string();
        assert!(text.contains("internal.ca_file") && text.contains("/nowhere/ca.pem"), "{text}");
    }
}
