// SPDX-License-Identifier: MIT OR Apache-2.0
//! A cluster on this machine, to try and to break: three NATS servers, three CQL nodes, every role twice.
//!
//! `up` starts a process that holds them all, shows what it waits for, and returns when everything is ready; `down` ends
//! it and waits. Whatever happens to the holder, nothing that it started outlives it.
#![allow(clippy::print_stdout, reason = "it talks to people")]

mod hold;
mod state;
mod up;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Parser, Subcommand};

use state::Folder;

/// `down` takes no longer: every process has its own grace period.
const DOWN_WITHIN: Duration = Duration::from_secs(180);

/// Starts and ends a cluster on this machine.
#[derive(Debug, Parser)]
struct Arguments {
    /// Its folder: files, logs, and which process holds it.
    #[arg(long, default_value = "pli-cluster", global = true)]
    folder: PathBuf,
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start it, unless it runs; return when it is ready (a minute or two on two cores; at most ten).
    Up,
    /// End it and wait until it has ended (at most three minutes); its logs stay.
    Down,
    /// Hold it, in this process, until SIGTERM or Ctrl-C. `up` starts this.
    Hold,
}

fn main() -> ExitCode {
    let Arguments { folder, command } = Arguments::parse();
    let done = Folder::at(&folder).and_then(|folder| match command {
        Command::Up => up::run(&folder),
        Command::Down => down(&folder),
        Command::Hold => hold::run(&folder),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn down(folder: &Folder) -> anyhow::Result<()> {
    let Some(holder) = folder.holder()?.filter(state::Holder::runs) else {
        println!("no cluster of {} runs", folder.shown());
        return Ok(());
    };
    let begun = Instant::now();
    println!("ending the cluster of {} (process {})", folder.shown(), holder.pid);
    holder.terminate();
    while holder.runs() {
        if begun.elapsed() > DOWN_WITHIN {
            holder.kill();
            anyhow::bail!("it did not end within {DOWN_WITHIN:?} and was killed; {} says why", folder.shown_progress());
        }
        std::thread::sleep(state::LOOK_EVERY);
    }
    let end = folder.last_line().context("what it said last cannot be read")?;
    println!("{end}");
    println!("ended after {:.1} s; the logs stay in {}", begun.elapsed().as_secs_f64(), folder.shown());
    Ok(())
}
