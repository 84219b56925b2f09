// SPDX-License-Identifier: MIT OR Apache-2.0
//! One process of Pli.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::ClusterError;
use crate::engines::cassandra::tail;
use crate::engines::child::Guarded;

/// A process that is not ready by then does not get ready.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// Its grace period is shorter.
const ENDED_WITHIN: Duration = Duration::from_secs(30);
/// How often its log is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Accounts, key packages.
    Directory,
    /// Groups.
    Conversations,
    /// Rendezvous.
    Links,
    /// Sealed uploads.
    Media,
    /// Shard owners.
    Delivery,
    /// Sessions.
    Edge,
}

impl Role {
    /// All, in the order in which they are started.
    pub const ALL: [Self; 6] =
        [Self::Directory, Self::Conversations, Self::Links, Self::Media, Self::Delivery, Self::Edge];
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory => "directory",
            Self::Conversations => "conversations",
            Self::Links => "links",
            Self::Media => "media",
            Self::Delivery => "delivery",
            Self::Edge => "edge",
        })
    }
}

/// What a process is to be.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub role: Role,
    /// Role and number: `edge-1`.
    pub name: String,
    /// Sessions of an edge; calls between services of the others.
    pub port: u16,
    pub admin_port: u16,
}

impl Plan {
    pub fn new(role: Role, number: usize, [port, admin_port]: [u16; 2]) -> Self {
        Self { role, name: format!("{role}-{number}"), port, admin_port }
    }
}

/// What a process says when it is ready, as one line of JSON. Fields that are not looked at are left out.
#[derive(Debug, Clone, Deserialize)]
struct Ready {
    address: Option<String>,
    url: Option<String>,
    fingerprint: Option<String>,
    admin: String,
}

/// Where an edge is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// Its name, `edge-1`.
    pub name: String,
    /// Host and port of sessions.
    pub address: String,
    /// Server info.
    pub url: String,
    /// SHA-256 of the certificate in hexadecimal.
    pub fingerprint: String,
    /// Health, metrics, build.
    pub admin: String,
}

/// A process that runs, or ran.
#[derive(Debug)]
pub(super) struct Member {
    plan: Plan,
    config: PathBuf,
    log: PathBuf,
    process: Option<Guarded>,
    /// Where the log of the present run begins.
    begun: u64,
    ready: Option<Ready>,
}

impl Member {
    pub const fn new(plan: Plan, config: PathBuf, log: PathBuf) -> Self {
        Self { plan, config, log, process: None, begun: 0, ready: None }
    }

    pub fn name(&self) -> &str {
        &self.plan.name
    }

    pub const fn role(&self) -> Role {
        self.plan.role
    }

    pub fn config(&self) -> &Path {
        &self.config
    }

    pub fn admin(&self) -> Option<String> {
        self.ready.as_ref().map(|ready| ready.admin.clone())
    }

    pub fn edge(&self) -> Option<Edge> {
        let Ready { address, url, fingerprint, admin } = self.ready.clone()?;
        let name = self.plan.name.clone();
        Some(Edge { name, address: address?, url: url?, fingerprint: fingerprint?, admin })
    }

    /// Its process id, where it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(Guarded::id)
    }

    pub const fn is_down(&self) -> bool {
        self.process.is_none()
    }

    /// Whether it has ended by itself.
    pub fn has_fallen(&mut self) -> bool {
        self.process.as_mut().is_some_and(Guarded::has_ended)
    }

    pub fn spawn(&mut self, program: &Path) -> Result<(), ClusterError> {
        self.begun = self.log.metadata().map_or(0, |log| log.len());
        let text = |path: &Path| path.display().to_string();
        let command = [
            text(program),
            "serve".into(),
            "--role".into(),
            self.plan.role.to_string(),
            "--config".into(),
            text(&self.config),
            "--ready-json".into(),
        ];
        self.process = Some(Guarded::start(&command, &self.log)?);
        Ok(())
    }

    /// Waits for its line.
    pub async fn ready(&mut self) -> Result<(), ClusterError> {
        let end = Instant::now() + READY_WITHIN;
        loop {
            if let Some(ready) = self.said()? {
                self.ready = Some(ready);
                return Ok(());
            }
            if self.process.as_mut().is_none_or(Guarded::has_ended) {
                return Err(self.failed("ended at its start"));
            }
            if Instant::now() > end {
                return Err(self.failed("was not ready in time"));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    fn said(&self) -> Result<Option<Ready>, ClusterError> {
        let read = || {
            let mut file = File::open(&self.log)?;
            file.seek(SeekFrom::Start(self.begun))?;
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            std::io::Result::Ok(text)
        };
        let text = read().map_err(ClusterError::io("reading a process's log"))?;
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        Ok(whole.lines().find_map(|line| serde_json::from_str(line).ok()))
    }

    fn failed(&self, what: &str) -> ClusterError {
        let (name, log) = (self.plan.name.clone(), self.log.clone());
        ClusterError::Member { name, what: what.into(), end: tail(&log), log }
    }

    fn signal(&mut self, signal: Signal) {
        if let Some(process) = &mut self.process {
            process.signal(signal);
        }
    }

    pub fn signal_kill(&mut self) {
        self.signal(Signal::KILL);
    }

    pub fn pause(&mut self) {
        self.signal(Signal::STOP);
    }

    pub fn go_on(&mut self) {
        self.signal(Signal::CONT);
    }

    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    pub async fn end(&mut self) -> Result<(), ClusterError> {
        let Some(process) = self.process.take() else { return Ok(()) };
        match process.stop(ENDED_WITHIN).await {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(self.failed(&format!("ended with {status} after SIGTERM"))),
            None => Err(self.failed("did not end in time after SIGTERM")),
        }
    }
}
