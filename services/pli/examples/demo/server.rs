// SPDX-License-Identifier: MIT OR Apache-2.0
//! The server: a child process that is killed and started again on the same folder and ports.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use pli_client::{Fingerprint, ServerAddress};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// A start that takes longer is a failure, after a kill too.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// A running server.
pub struct Server {
    child: Child,
    program: PathBuf,
    data: PathBuf,
    /// Where it listens.
    pub address: ServerAddress,
    /// Its certificate.
    pub fingerprint: Fingerprint,
    /// How long the last start took.
    pub took: Duration,
}

impl Server {
    /// Starts it on a fresh folder and free ports.
    pub async fn start(data: &Path) -> anyhow::Result<Self> {
        let program = program()?;
        let begun = Instant::now();
        let (child, about) = spawn(&program, data, 0).await?;
        let text = |key: &str| about[key].as_str().with_context(|| format!("`{key}` is missing in {about}"));
        let (address, fingerprint) = (text("address")?.parse()?, text("fingerprint")?.parse()?);
        Ok(Self { child, program, data: data.to_path_buf(), address, fingerprint, took: begun.elapsed() })
    }

    /// SIGKILL: nothing is flushed, nobody is told.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("the server cannot be killed")
    }

    /// Starts it again after a kill.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        (self.child, _) = spawn(&self.program, &self.data, self.address.port()).await?;
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

/// The binary in the build folder of this example.
fn program() -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe()?;
    let profile = here.parent().and_then(Path::parent).context("the demo is not in a build folder")?;
    let program = profile.join("pli");
    anyhow::ensure!(program.exists(), "{} is not there: run `make demo`, which builds both", program.display());
    Ok(program)
}
