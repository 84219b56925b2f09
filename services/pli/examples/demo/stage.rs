// SPDX-License-Identifier: MIT OR Apache-2.0
//! The folder, the server, the ledger and the people.

use std::path::PathBuf;
use std::time::Duration;

use pli_client::{ClientOptions, Suite, Transport};
use pli_testkit::cluster::ClusterError;
use pli_testkit::history::Report;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tempfile::TempDir;

use super::device::Device;
use super::ledger::Ledger;
use super::server::{Kind, Server};

/// What one process and its clients do within this time is all that they will do.
const PATIENCE: Duration = Duration::from_secs(45);
/// The same where servers start that take their time.
const CLUSTER_PATIENCE: Duration = Duration::from_secs(120);
/// How often the ledger is looked at while the last messages arrive.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Every device, in the order in which they begin at one edge or another.
const DEVICES: [&str; 10] =
    ["alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "alice/tablet", "alice/laptop"];

/// Everything that plays.
pub struct Stage {
    folder: TempDir,
    /// What they talk through.
    pub server: Server,
    /// Intentions and what was shown.
    pub ledger: Ledger,
    /// Decides the moments of the kills, and whom faults meet.
    pub dice: StdRng,
    /// How long anything may take.
    pub patience: Duration,
}

impl Stage {
    /// A fresh folder, a fresh server, an empty ledger.
    pub async fn set(kind: Kind, seed: u64) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("pli-demo-").tempdir()?;
        let server = match Server::start(kind, folder.path()).await {
            Ok(server) => server,
            Err(error) => {
                let unavailable = error.downcast_ref().is_some_and(ClusterError::is_unavailable);
                if !unavailable {
                    println!("kept: {}", folder.keep().display());
                }
                return Err(error);
            }
        };
        let ledger = Ledger::create(folder.path())?;
        let patience = if kind == Kind::Single { PATIENCE } else { CLUSTER_PATIENCE };
        Ok(Self { folder, server, ledger, dice: StdRng::seed_from_u64(seed), patience })
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// Somebody's device whose messages count.
    pub async fn enter(&self, name: &str) -> anyhow::Result<Device> {
        self.open(name, true).await
    }

    /// Somebody who comes and goes; nobody counts on what they see.
    pub async fn enter_uncounted(&self, name: &str) -> anyhow::Result<Device> {
        self.open(name, false).await
    }

    async fn open(&self, name: &str, counted: bool) -> anyhow::Result<Device> {
        Device::open(self.options(name)?, &self.ledger, counted, self.patience).await
    }

    /// How somebody's device is opened.
    pub fn options(&self, name: &str) -> anyhow::Result<ClientOptions> {
        // The same address first whenever a profile is opened: it stands in the profile's name.
        let number = DEVICES.iter().position(|device| *device == name).unwrap_or(0);
        let (server, others) = self.server.addresses(number)?;
        Ok(ClientOptions {
            server,
            others,
            // Every second one over WebSocket, the others over QUIC, which a server on this machine always has.
            transport: if number % 2 == 0 { Transport::Auto } else { Transport::WebSocket },
            quic_port: None,
            fingerprint: Some(self.server.fingerprint()?),
            home: self.home(),
            name: name.parse()?,
            suite: Suite::default(),
            offline: false,
        })
    }

    /// Waits until nothing is missing on any device; what is missing afterwards the report tells.
    pub async fn wait_for_all(&self) {
        let all = async {
            while self.ledger.missing() > 0 {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        if tokio::time::timeout(self.patience, all).await.is_err() {
            println!("messages are still missing after {:?}", self.patience);
        }
    }

    /// Ends the server and judges the ledger; an error is what went wrong with the server.
    pub async fn clear(self, keep: bool) -> (Report, anyhow::Result<()>) {
        let ended = self.server.end().await;
        let report = self.ledger.report();
        if keep || ended.is_err() || !report.is_clean() || report.stored != report.intended {
            println!("kept: {}", self.folder.keep().display());
        }
        (report, ended)
    }
}
