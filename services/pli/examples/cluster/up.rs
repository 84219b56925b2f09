// SPDX-License-Identifier: MIT OR Apache-2.0
//! Starts the holder and waits until everything is ready.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context;
use pli_testkit::cluster::{Edge, program};

use crate::state::{Folder, Holder, LOOK_EVERY, Ready};

/// A cluster that is not ready by then does not get ready.
const READY_WITHIN: Duration = Duration::from_secs(600);
/// A line at least so often.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Starts it, or says that it runs.
pub fn run(folder: &Folder) -> anyhow::Result<()> {
    // Who cannot lock the folder finds the holder's name in it, as soon as that one has written it.
    let free = folder.lock()?.is_some();
    if !free {
        println!("the cluster of {} runs already", folder.shown());
        wait(folder, None)?;
        return tell(folder);
    }
    let begun = Instant::now();
    program()?;
    println!("starting 3 NATS servers, 3 CQL nodes and every role twice, in {}", folder.shown());
    folder.prepare()?;
    let holder = hold(folder)?;
    wait(folder, Some(holder))?;
    println!("the cluster is ready after {:.0} s", begun.elapsed().as_secs_f64());
    tell(folder)
}

/// Starts the holder in a process group of its own, so that Ctrl-C here does not reach it.
fn hold(folder: &Folder) -> anyhow::Result<Child> {
    let output = fs::File::create(folder.path().join("holder.log"))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("hold").arg("--folder").arg(folder.path()).process_group(0);
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    command.spawn().context("the process that holds the cluster cannot be started")
}

/// Shows what the holder waits for, until everything is ready.
fn wait(folder: &Folder, mut holder: Option<Child>) -> anyhow::Result<()> {
    let begun = Instant::now();
    let (mut shown, mut last, mut line_at) = (0, String::new(), Instant::now());
    loop {
        let ready = folder.ready()?.is_some();
        let text = fs::read_to_string(folder.progress()).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for line in whole.lines().skip(shown) {
            println!("{line}");
            last = line.split_once("s  ").map_or("", |(_, what)| what).to_owned();
            (shown, line_at) = (shown + 1, Instant::now());
        }
        if ready {
            return Ok(());
        }
        let ended = match &mut holder {
            Some(child) => child.try_wait()?.is_some(),
            None => !folder.holder()?.as_ref().is_some_and(Holder::runs),
        };
        anyhow::ensure!(!ended, "it did not start; see {} and holder.log beside it", folder.shown_progress());
        anyhow::ensure!(begun.elapsed() < READY_WITHIN, "it is not ready within {READY_WITHIN:?}; `down` ends it");
        if line_at.elapsed() > LINE_EVERY {
            println!("{:6.1} s  … still {last}", begun.elapsed().as_secs_f64());
            line_at = Instant::now();
        }
        sleep(LOOK_EVERY);
    }
}

fn tell(folder: &Folder) -> anyhow::Result<()> {
    let Ready { edges, admins } = folder.ready()?.context("it ends just now")?;
    for edge in &edges {
        println!("  {:16} {}  server info {}", edge.name, edge.address, edge.url);
    }
    for (name, admin) in &admins {
        println!("  {name:16} health http://{admin}/readyz  metrics http://{admin}/metrics");
    }
    let first = edges.first().context("it has no edge")?;
    println!("  {:16} {}", "certificate", first.fingerprint);
    println!("  {:16} {}", "logs", folder.path().join("logs").display());
    println!("Chat from two other terminals, at two edges:");
    let program = program()?;
    for (handle, edge) in ["alice", "bob"].iter().zip(edges.iter().cycle()) {
        let Edge { address, fingerprint, .. } = edge;
        println!("  {} chat {handle} --server {address} --fingerprint {fingerprint}", near(&program).display());
    }
    println!("`make cluster-down` ends it.");
    Ok(())
}

/// The path from here, where that is shorter.
fn near(program: &Path) -> std::path::PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    program.strip_prefix(&here).map_or_else(|_| program.to_path_buf(), |path| Path::new(".").join(path))
}
