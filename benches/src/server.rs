// SPDX-License-Identifier: MIT OR Apache-2.0
//! A server as a process of its own, and what the system says it used.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use pli_client::Transport;
use pli_runtime::AdminClient;
use serde::Deserialize;

/// Microseconds of CPU in one clock tick of /proc (100 a second on Linux, fixed by its ABI).
pub(crate) const TICK_US: f64 = 10_000.0;

/// What `pli dev --ready-json` says.
#[derive(Debug, Clone, Deserialize)]
pub struct Ready {
    /// Host and port of sessions.
    pub address: String,
    /// SHA-256 of the certificate.
    pub fingerprint: String,
    /// Health and metrics.
    pub admin: String,
    /// What sessions are opened over.
    #[serde(skip, default = "websocket")]
    pub transport: Transport,
}

const fn websocket() -> Transport {
    Transport::WebSocket
}

impl Ready {
    /// The same server over another transport.
    #[must_use]
    pub fn over(self, transport: Transport) -> Self {
        Self { transport, ..self }
    }
}

/// A running process that is killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Its first line of output.
    pub first_line: String,
}

impl Process {
    /// Starts `command` and waits for its first line.
    pub fn start(command: &mut Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("the process starts")?;
        let stdout = child.stdout.take().context("its output is piped")?;
        let mut first_line = String::new();
        BufReader::new(stdout).read_line(&mut first_line)?;
        ensure!(!first_line.is_empty(), "the process ended before it was ready");
        Ok(Self { child, first_line })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// User and system CPU so far, in microseconds.
    pub fn cpu_us(&self) -> Result<f64> {
        cpu_us(self.id())
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> Result<f64> {
        let kib = self.field("status", "VmRSS:")?;
        Ok(kib * 1024.0)
    }

    /// Bytes that it caused to be written to disk.
    pub fn written_bytes(&self) -> Result<f64> {
        self.field("io", "write_bytes:")
    }

    fn field(&self, file: &str, name: &str) -> Result<f64> {
        let text = self.proc(file)?;
        let line = text.lines().find_map(|l| l.strip_prefix(name)).with_context(|| format!("{name} in {file}"))?;
        Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
    }

    fn proc(&self, file: &str) -> Result<String> {
        proc(self.id(), file)
    }
}

fn proc(pid: u32, file: &str) -> Result<String> {
    std::fs::read_to_string(format!("/proc/{pid}/{file}")).with_context(|| format!("process {pid} is gone"))
}

/// User and system CPU of a process so far, in microseconds; proc(5), fields 14 and 15 of `stat`.
pub fn cpu_us(pid: u32) -> Result<f64> {
    let stat = proc(pid, "stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |n: usize| fields.get(n).and_then(|f| f.parse::<f64>().ok()).context("a CPU field of stat");
    Ok((ticks(11)? + ticks(12)?) * TICK_US)
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; either way there is nothing left to do.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The server's binary, built with optimisation by `make bench`, in the build folder of this measurement.
pub fn binary() -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let profile = here.parent().and_then(Path::parent).context("the measurement is not in a build folder")?;
    let path = profile.join("pli");
    ensure!(path.exists(), "{} is missing; run `make build` first", path.display());
    Ok(path)
}

/// Starts `pli dev` on a folder of its own below `folder`, with limits out of the way.
pub fn start_server(folder: &Path) -> Result<(Process, Ready)> {
    let mut command = Command::new(binary()?);
    command.args(["dev", "--port", "0", "--ready-json", "--data"]).arg(folder.join("data"));
    for (setting, value) in [
        ("PLI_DIRECTORY__REGISTRATIONS_PER_ADDRESS__BURST", "1000000"),
        ("PLI_DIRECTORY__REGISTRATIONS_PER_ADDRESS__PER_MINUTE", "1000000"),
        ("PLI_CONVERSATIONS__CHANGES_PER_ACCOUNT__BURST", "1000000"),
        ("PLI_CONVERSATIONS__CHANGES_PER_ACCOUNT__PER_MINUTE", "1000000"),
        ("PLI_CONVERSATIONS__PAGES_STORED_PER_ACCOUNT__BURST", "1000000"),
        ("PLI_CONVERSATIONS__PAGES_STORED_PER_ACCOUNT__PER_MINUTE", "1000000"),
        ("PLI_EDGE__LIMITS__SESSION_SENDS__PER_SECOND", "1000000"),
        ("PLI_EDGE__LIMITS__SESSION_SENDS__BURST", "1000000"),
        ("PLI_LOGS__FILTER", "warn"),
    ] {
        command.env(setting, value);
    }
    let process = Process::start(&mut command)?;
    let ready = serde_json::from_str(&process.first_line).context("the first line is JSON")?;
    Ok((process, ready))
}

/// One value of the metrics page, summed over labels; 0 when it is not there yet.
pub async fn metric(admin: &str, name: &str) -> Result<f64> {
    Ok(sum_of(&metrics_page(admin).await?, name))
}

/// The metrics page of an admin port.
pub(crate) async fn metrics_page(admin: &str) -> Result<String> {
    Ok(AdminClient::new(admin).text("/metrics").await?)
}

/// One value of a metrics page, summed over labels; 0 when it is not there yet.
pub(crate) fn sum_of(page: &str, name: &str) -> f64 {
    let values = page.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}
