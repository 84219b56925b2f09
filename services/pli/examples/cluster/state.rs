// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the folder of a cluster says: who holds it, how far it is, where it listens.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use pli_testkit::cluster::Edge;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// How often files and processes are looked at.
pub const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What an earlier cluster left of these is removed; nothing else in the folder is touched.
const DATA: [&str; 3] = ["nats", "cql", "roles"];

/// A process by its id and the moment of its start, so that another one with the same id is never taken for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// Clock ticks from the boot of the machine to its start (proc(5), field 22 of `stat`).
    started: u64,
}

impl Holder {
    /// This process.
    pub fn own() -> anyhow::Result<Self> {
        let pid = std::process::id();
        let started = started(pid).context("there is no /proc on this machine, which `make cluster` needs")?;
        Ok(Self { pid, started })
    }

    /// Whether this very process still runs.
    pub fn runs(&self) -> bool {
        started(self.pid) == Some(self.started)
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGKILL.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid.filter(|_| self.runs()) {
            // It may end at this moment.
            let _ = kill_process(pid, signal);
        }
    }
}

/// When a process started; none for one that has ended, also where nobody has asked for its end yet.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the name in parentheses, may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if matches!(*fields.first()?, "Z" | "X") { None } else { fields.get(19)?.parse().ok() }
}

/// What is ready.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ready {
    /// Where sessions go.
    pub edges: Vec<Edge>,
    /// Name and admin address of every process.
    pub admins: Vec<(String, String)>,
}

/// The folder of a cluster.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    shown: PathBuf,
}

impl Folder {
    /// The folder, which need not exist.
    pub fn at(path: &Path) -> anyhow::Result<Self> {
        Ok(Self { path: std::path::absolute(path)?, shown: path.to_path_buf() })
    }

    /// As it was named.
    pub fn shown(&self) -> std::path::Display<'_> {
        self.shown.display()
    }

    /// Where progress stands, as the folder was named.
    pub fn shown_progress(&self) -> String {
        self.shown.join("progress.log").display().to_string()
    }

    /// The whole path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One line for each thing that is waited for.
    pub fn progress(&self) -> PathBuf {
        self.path.join("progress.log")
    }

    /// Makes it, and removes what an earlier cluster left.
    pub fn prepare(&self) -> anyhow::Result<()> {
        fs::create_dir_all(&self.path).with_context(|| format!("cannot make {}", self.shown()))?;
        self.clear_data()?;
        for file in ["ready.json", "progress.log"] {
            missing_is_fine(fs::remove_file(self.path.join(file)))?;
        }
        Ok(())
    }

    /// Removes the data; logs stay.
    pub fn clear_data(&self) -> anyhow::Result<()> {
        for part in DATA {
            missing_is_fine(fs::remove_dir_all(self.path.join(part)))?;
        }
        Ok(())
    }

    /// Takes the folder for this process; none where another one holds it. Let go when the file is closed.
    pub fn lock(&self) -> anyhow::Result<Option<File>> {
        fs::create_dir_all(&self.path).with_context(|| format!("cannot make {}", self.shown()))?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(self.path.join("lock"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error).context("the folder cannot be locked"),
        }
    }

    /// Who holds it, or held it last.
    pub fn holder(&self) -> anyhow::Result<Option<Holder>> {
        self.read("holder.json")
    }

    /// Writes who holds it.
    pub fn set_holder(&self, holder: &Holder) -> anyhow::Result<()> {
        self.write("holder.json", holder)
    }

    /// What is ready; none as long as not everything is.
    pub fn ready(&self) -> anyhow::Result<Option<Ready>> {
        self.read("ready.json")
    }

    /// Writes that everything is ready.
    pub fn set_ready(&self, ready: &Ready) -> anyhow::Result<()> {
        self.write("ready.json", ready)
    }

    /// Nothing is ready any more.
    pub fn unready(&self) -> anyhow::Result<()> {
        missing_is_fine(fs::remove_file(self.path.join("ready.json")))
    }

    /// The last thing that the holder said.
    pub fn last_line(&self) -> Option<String> {
        let text = fs::read_to_string(self.progress()).ok()?;
        text.lines().last().map(str::to_owned)
    }

    fn read<T: for<'a> Deserialize<'a>>(&self, name: &str) -> anyhow::Result<Option<T>> {
        let path = self.path.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).map(Some).with_context(|| format!("{} is damaged", path.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Whole or not at all.
    fn write(&self, name: &str, value: &impl Serialize) -> anyhow::Result<()> {
        let fresh = self.path.join(format!("{name}.new"));
        fs::write(&fresh, serde_json::to_string_pretty(value)?)
            .and_then(|()| fs::rename(&fresh, self.path.join(name)))
            .with_context(|| format!("cannot write {name} in {}", self.shown()))
    }
}

fn missing_is_fine(done: std::io::Result<()>) -> anyhow::Result<()> {
    match done {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).context("what an earlier cluster left stays"),
        _ => Ok(()),
    }
}
