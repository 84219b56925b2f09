// SPDX-License-Identifier: MIT OR Apache-2.0
//! The folder, the server, the ledger and the people.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pli_client::ClientOptions;
use pli_testkit::history::Report;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tempfile::TempDir;

use crate::device::{Device, PATIENCE};
use crate::ledger::Ledger;
use crate::server::Server;

/// How often the ledger is looked at while the last messages arrive.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Everything that plays.
pub struct Stage {
    folder: TempDir,
    /// The child process.
    pub server: Server,
    /// Intentions and what was shown.
    pub ledger: Ledger,
    /// Decides the moments of the kills.
    pub dice: StdRng,
}

impl Stage {
    /// A fresh folder, a fresh server, an empty ledger.
    pub async fn set(seed: u64) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("pli-demo-").tempdir()?;
        let server = Server::start(&folder.path().join("data")).await?;
        println!("server at {}, ready after {} ms", server.address, server.took.as_millis());
        let ledger = Ledger::create(folder.path())?;
        Ok(Self { folder, server, ledger, dice: StdRng::seed_from_u64(seed) })
    }

    /// The folder with everything in it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn home(&self) -> PathBuf {
        self.folder().join("home")
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
        let options = ClientOptions {
            server: self.server.address.clone(),
            others: Vec::new(),
            fingerprint: Some(self.server.fingerprint),
            home: self.home(),
            handle: name.parse()?,
        };
        Device::open(options, &self.ledger, counted).await
    }

    /// Waits until nothing is missing on any device; what is missing afterwards the report tells.
    pub async fn wait_for_all(&self) {
        let all = async {
            while self.ledger.missing() > 0 {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        if tokio::time::timeout(PATIENCE, all).await.is_err() {
            println!("messages are still missing after {PATIENCE:?}");
        }
    }

    /// Ends the server and judges the ledger.
    pub async fn clear(mut self, keep: bool) -> Report {
        if self.server.ended() {
            println!("the server ended by itself");
        }
        if let Err(error) = self.server.kill().await {
            println!("{error:#}");
        }
        if keep {
            let _ = self.folder.keep();
        }
        self.ledger.report()
    }
}
