// SPDX-License-Identifier: MIT OR Apache-2.0
//! The server: a child process that is killed and started again on the same folder and ports.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use pli_client::{Fingerprint, ServerAddress};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
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
    /// Where it tells health and metrics; another port after each start.
    admin: SocketAddr,
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

    /// How many commits the conversations service has decided with this outcome since its last start.
    pub async fn commits(&self, outcome: &str) -> anyhow::Result<u64> {
        let label = format!("outcome=\"{outcome}\"");
        self.counted("pli_conversations_commits_total{", |line| line.contains(&label)).await
    }

    /// How many decided commits somebody else than the call that decided them has finished since its last start.
    pub async fn left_behind(&self) -> anyhow::Result<u64> {
        self.counted("pli_conversations_commits_finished_total{", |line| !line.contains("by=\"committer\"")).await
    }

    /// The sum of a counter's series that are `ours`.
    async fn counted(&self, counter: &str, ours: impl Fn(&str) -> bool) -> anyhow::Result<u64> {
        let mut stream = TcpStream::connect(self.admin).await?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
        let mut said = String::new();
        timeout(READY_WITHIN, stream.read_to_string(&mut said)).await.context("no metrics in time")??;
        let lines = said.lines().filter(|line| line.starts_with(counter) && ours(line));
        Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
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
