// SPDX-License-Identifier: MIT OR Apache-2.0
//! One process: a child that is killed and started again on the same folder and ports.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use pli_client::{Fingerprint, ServerAddress};
use pli_testkit::cluster::program;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// A start that takes longer is a failure, after a kill too.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// A running `pli dev`.
pub struct Single {
    child: Child,
    program: PathBuf,
    data: PathBuf,
    /// Where it listens.
    pub address: ServerAddress,
    /// Where it tells health and metrics; another port after each start.
    pub admin: SocketAddr,
    /// Its certificate.
    pub fingerprint: Fingerprint,
    /// How long the last start took.
    pub took: Duration,
}

impl Single {
    /// Starts it on a fresh folder and free ports.
    pub async fn start(data: &Path) -> anyhow::Result<Self> {
        let program = program()?;
        let begun = Instant::now();
        let (child, about) = spawn(&program, data, 0).await?;
        let text = |key: &str| about[key].as_str().with_context(|| format!("`{key}` is missing in {about}"));
        let (address, fingerprint) = (text("address")?.parse()?, text("fingerprint")?.parse()?);
        let admin = text("admin")?.parse()?;
        Ok(Self { child, program, data: data.to_path_buf(), address, admin, fingerprint, took: begun.elapsed() })
    }

    /// SIGKILL: nothing is flushed, nobody is told.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("the server cannot be killed")
    }

    /// Starts it again after a kill.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        let (child, about) = spawn(&self.program, &self.data, self.address.port()).await?;
        self.child = child;
        self.admin = about["admin"].as_str().context("no admin address")?.parse()?;
        self.took = begun.elapsed();
        Ok(())
    }

    /// Whether it has ended by itself.
    pub fn ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }
}

async fn spawn(program: &Path, data: &Path, port: u16) -> anyhow::Result<(Child, Value)> {
    let mut child = Command::new(program)
        .args(["dev", "--ready-json", "--admin-port", "0", "--port", &port.to_string(), "--data"])
        .arg(data)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let stdout = child.stdout.take().context("no standard output")?;
    let line = timeout(READY_WITHIN, BufReader::new(stdout).lines().next_line()).await;
    match line.context("the server was not ready in time")?? {
        Some(line) => Ok((child, serde_json::from_str(&line).context("not what a ready server says")?)),
        None => bail!("the server ended at its start: {:?}", child.wait().await?),
    }
}
