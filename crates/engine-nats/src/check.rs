// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether the servers keep what they acknowledge: asked before anything is served.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use pli_domain::limits::{LOG_ENTRY_BYTES_MAX, SIGNAL_BYTES_MAX, SIGNAL_HEAD_BYTES_MAX};

use crate::NatsEngine;
use crate::error::ApiError;
use crate::layout::Wanted;
use crate::migrate::stream_info;
use crate::monitor::{self, Varz};
use crate::wire::NOT_ENABLED;

/// The oldest release whose synced replication is fast enough to be used.
const VERSION_MIN: (u64, u64) = (2, 15);

/// One thing that is not as it must be.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The server is too old.
    #[error("server {server} is NATS {version}; run 2.15 or newer, older ones are ten times slower when synced")]
    TooOld {
        /// Its name.
        server: String,
        /// Its release.
        version: String,
    },
    /// JetStream is off.
    #[error("JetStream is off on {server} or for this account; add a jetstream block to its configuration")]
    NoJetStream {
        /// Where.
        server: String,
    },
    /// The server acknowledges before it has synced.
    #[error(
        "server {server} acknowledges messages before they are on disk and loses them with the power; set \
         `sync_interval: always` in its jetstream block, or allow it with dangerously_allow_unsynced_storage"
    )]
    NotSynced {
        /// Its name.
        server: String,
    },
    /// Nothing proves that the server syncs.
    #[error(
        "nothing proves that server {server} is synced; add its monitoring address to monitors (`http: host:port` in its \
         configuration), or allow it with dangerously_allow_unsynced_storage"
    )]
    Unproven {
        /// Its name.
        server: String,
    },
    /// A server with a copy is down.
    #[error("server {server} holds a copy and is down; start it again, or replace it if it is lost")]
    HolderDown {
        /// Its name.
        server: String,
    },
    /// A monitoring address does not answer.
    #[error("the monitoring address {address} gives no answer; check it and that the server's `http` port is open")]
    Monitor {
        /// The address.
        address: String,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// Only one copy.
    #[error(
        "streams have one replica and are lost with their disk; set replicas = 3 on three servers, or allow it with \
         dangerously_allow_one_replica"
    )]
    OneReplica,
    /// A stream is not there.
    #[error("stream {stream} is missing; migrate creates it")]
    StreamMissing {
        /// Its name.
        stream: String,
    },
    /// A stream has other settings.
    #[error("stream {stream} has other settings: {differences}; migrate changes what can be changed")]
    StreamDiffers {
        /// Its name.
        stream: String,
        /// Setting by setting: what it is, what it must be.
        differences: String,
    },
    /// A stream has no room for another entry.
    #[error(
        "stream {stream} is full ({bytes} of {bytes_max} bytes): appends are refused until owners have trimmed it; raise stream_bytes_max and migrate if it stays so"
    )]
    StreamFull {
        /// Its name.
        stream: String,
        /// What it holds.
        bytes: u64,
        /// What it may hold.
        bytes_max: u64,
    },
    /// A server's storage has no room for another entry.
    #[error("server {server} is out of space ({used} of {there} bytes); raise max_file_store or give it a larger disk")]
    OutOfSpace {
        /// Its name.
        server: String,
        /// Bytes used.
        used: u64,
        /// Bytes that there are.
        there: u64,
    },
    /// Messages may be too small.
    #[error("the server takes messages of at most {found} bytes; set max_payload to at least {needed}")]
    SmallPayload {
        /// What it takes.
        found: usize,
        /// What is sent.
        needed: usize,
    },
    /// The question itself failed.
    #[error("{what} cannot be asked")]
    Asking {
        /// What about.
        what: String,
        /// What the server said.
        #[source]
        source: ApiError,
    },
}

/// What the check found.
#[derive(Debug, Default)]
pub struct CheckReport {
    /// What forbids to start.
    pub problems: Vec<Problem>,
    /// What an option allows although it is dangerous, or what will pass by itself.
    pub warnings: Vec<Problem>,
}

impl CheckReport {
    /// Errors when anything forbids to start.
    pub fn into_result(self) -> Result<Vec<Problem>, StartError> {
        if self.problems.is_empty() { Ok(self.warnings) } else { Err(StartError { problems: self.problems }) }
    }

    fn add(&mut self, problem: Problem, allowed: bool) {
        if allowed { self.warnings.push(problem) } else { self.problems.push(problem) }
    }
}

/// Why nothing is served: every problem, one a line.
#[derive(Debug)]
pub struct StartError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl StartError {
    /// Whether nothing is known to be wrong: streams just gave no answer, as while they have no leader.
    pub fn may_pass(&self) -> bool {
        self.problems.iter().all(|problem| matches!(problem, Problem::Asking { .. }))
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the NATS cluster cannot be used")?;
        for problem in &self.problems {
            write!(f, "\n- {problem}")?;
            let mut source = std::error::Error::source(problem);
            while let Some(cause) = source {
                write!(f, ": {cause}")?;
                source = cause.source();
            }
        }
        Ok(())
    }
}

impl std::error::Error for StartError {}

fn is_too_old(version: &str) -> bool {
    let mut parts = version.split(['.', '-']).map(|part| part.parse::<u64>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < VERSION_MIN
}

impl NatsEngine {
    /// Looks at versions, JetStream, copies, settings, room, and whether every server that holds a copy syncs before it
    /// acknowledges. Changes nothing. [`CheckReport::into_result`] says whether to start.
    pub async fn check(&self) -> CheckReport {
        let mut report = CheckReport::default();
        self.check_connection(&mut report);
        let holders = self.check_streams(&mut report).await;
        self.check_servers(&mut report, holders).await;
        if self.options.layout.replicas == 1 {
            report.add(Problem::OneReplica, self.options.dangerously_allow_one_replica);
        }
        report
    }

    fn check_connection(&self, report: &mut CheckReport) {
        let info = self.link.client.server_info();
        let needed = (SIGNAL_BYTES_MAX + SIGNAL_HEAD_BYTES_MAX).max(LOG_ENTRY_BYTES_MAX);
        if info.max_payload < needed {
            report.add(Problem::SmallPayload { found: info.max_payload, needed }, false);
        }
        if is_too_old(&info.version) {
            report.add(Problem::TooOld { server: info.server_name, version: info.version }, false);
        }
    }

    /// Answers the names of all servers that hold a copy, and whether each is there.
    async fn check_streams(&self, report: &mut CheckReport) -> BTreeMap<String, bool> {
        let mut holders = BTreeMap::new();
        for wanted in self.options.layout.wanted() {
            match self.check_stream(&wanted, report).await {
                Ok(servers) => holders.extend(servers),
                Err(error) => {
                    let off = error.code().is_some_and(|code| NOT_ENABLED.contains(&code))
                        || matches!(error, ApiError::NoResponder(_));
                    let server = self.link.client.server_info().server_name;
                    let what = format!("stream {}", wanted.name);
                    let asking = |source| Problem::Asking { what, source };
                    report.add(if off { Problem::NoJetStream { server } } else { asking(error) }, false);
                    // The others would only say the same.
                    break;
                }
            }
        }
        holders
    }

    async fn check_stream(&self, wanted: &Wanted, report: &mut CheckReport) -> Result<Vec<(String, bool)>, ApiError> {
        let stream = wanted.name.clone();
        let Some(info) = stream_info(&self.link, &stream).await? else {
            report.add(Problem::StreamMissing { stream }, false);
            return Ok(Vec::new());
        };
        let differences: Vec<String> = wanted.differences(&info.config).into_iter().map(|d| d.text).collect();
        if !differences.is_empty() {
            report.add(Problem::StreamDiffers { stream: stream.clone(), differences: differences.join(", ") }, false);
        }
        let bytes_max = info.config.get("max_bytes").and_then(serde_json::Value::as_u64).unwrap_or(u64::MAX);
        let bytes = info.state.bytes;
        if bytes.saturating_add(LOG_ENTRY_BYTES_MAX as u64) > bytes_max {
            // Owners must start to trim it.
            report.add(Problem::StreamFull { stream, bytes, bytes_max }, true);
        }
        let servers = info.cluster.iter().flat_map(|cluster| cluster.servers());
        Ok(servers.map(|(name, there)| (name.to_owned(), there)).collect())
    }

    /// Every server that holds a copy, and every one that is named, must prove that it is synced. One that is down
    /// acknowledges nothing; it is looked at when it is back.
    async fn check_servers(&self, report: &mut CheckReport, mut holders: BTreeMap<String, bool>) {
        let allowed = self.options.dangerously_allow_unsynced_storage;
        let mut shown: BTreeMap<String, Varz> = BTreeMap::new();
        let mut silent = Vec::new();
        for address in &self.options.monitors {
            match monitor::varz(address, self.link.answer_timeout).await {
                Ok(varz) => {
                    shown.insert(varz.server_name.clone(), varz);
                }
                Err(source) => silent.push(Problem::Monitor { address: address.clone(), source }),
            }
        }
        // A server of its own names no holders.
        if holders.is_empty() {
            holders.insert(self.link.client.server_info().server_name, true);
        }
        let mut unproven = false;
        for (server, there) in holders.iter().filter(|(holder, _)| !shown.contains_key(*holder)) {
            let server = server.clone();
            match there {
                true => report.add(Problem::Unproven { server }, allowed),
                false => report.add(Problem::HolderDown { server }, true),
            }
            unproven |= there;
        }
        for problem in silent {
            report.add(problem, allowed || !unproven);
        }
        let connected = self.link.client.server_info().server_name;
        for (server, varz) in shown {
            if server != connected && is_too_old(&varz.version) {
                report.add(Problem::TooOld { server: server.clone(), version: varz.version }, false);
            }
            if !varz.jetstream.is_on() {
                if holders.contains_key(&server) {
                    report.add(Problem::NoJetStream { server }, false);
                }
                continue;
            }
            let (used, there) = varz.jetstream.storage();
            if used.saturating_add(LOG_ENTRY_BYTES_MAX as u64) > there {
                report.add(Problem::OutOfSpace { server: server.clone(), used, there }, true);
            }
            if !varz.jetstream.is_synced() {
                report.add(Problem::NotSynced { server }, allowed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        for old in ["2.14.9", "2.9.25", "1.99.0", "2.14.0-RC.1", "", "unknown"] {
            assert!(is_too_old(old), "{old}");
        }
        for new in ["2.15.0", "2.15.1-RC.2", "2.100.0", "3.0.0"] {
            assert!(!is_too_old(new), "{new}");
        }
    }
}
