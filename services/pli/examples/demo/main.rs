// SPDX-License-Identifier: MIT OR Apache-2.0
//! A scripted conversation against a server that is killed again and again, and a ledger kept outside it.
//!
//! The server is a child process, `pli dev` on a fresh data folder and free ports. The devices run in this process,
//! each with a profile of its own. Before a message is sent, the ledger writes to its file that it is intended; what
//! each device shows is written as it is shown. At the end the history checker of `pli-testkit`, which shares no code
//! with the services, judges the ledger: the last line is the verdict, and the exit code agrees with it.
//!
//! `make demo` runs it; `--seed N` repeats the moments of the kills, `--keep` leaves the folder for inspection,
//! `--scenes commits` plays only what is named.
#![allow(clippy::print_stdout, reason = "a transcript is what it is for")]

mod device;
mod ledger;
mod scenes;
mod server;
mod stage;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use pli_testkit::history::Report;

use scenes::{Outcome, Scene};
use stage::Stage;

/// The whole demo, ending included.
const TIME_MAX: Duration = Duration::from_secs(120);

/// A scripted conversation under kills, then the ledger.
#[derive(Debug, Parser)]
struct Arguments {
    /// Seed of the moments of the kills; drawn and printed when left out.
    #[arg(long)]
    seed: Option<u64>,
    /// Keep the folder with the data, the profiles and the ledger.
    #[arg(long)]
    keep: bool,
    /// Play only these scenes; all of them when left out.
    #[arg(long, value_delimiter = ',')]
    scenes: Vec<Scene>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let begun = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let played = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let played = runtime.block_on(async { tokio::time::timeout(TIME_MAX, play(&arguments)).await });
        runtime.shutdown_background();
        played.map_err(|_| anyhow::anyhow!("the demo did not end within {TIME_MAX:?}"))?
    });
    match played {
        Ok((report, outcome)) => verdict(&report, &outcome, begun.elapsed()),
        Err(error) => {
            println!("the demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn play(arguments: &Arguments) -> anyhow::Result<(Report, Outcome)> {
    let seed = arguments.seed.unwrap_or_else(rand::random);
    println!("seed {seed} (repeat the moments of the kills with --seed {seed})");
    let mut stage = Stage::set(seed).await?;
    let outcome = scenes::play(&mut stage, &arguments.scenes).await;
    let folder = stage.folder().to_path_buf();
    let report = stage.clear(arguments.keep || outcome.is_err()).await;
    if arguments.keep || outcome.is_err() {
        println!("kept: {}", folder.display());
    }
    Ok((report, outcome?))
}

/// Prints the ledger; its last line is the verdict.
fn verdict(report: &Report, outcome: &Outcome, took: Duration) -> ExitCode {
    println!("\n== the ledger");
    println!("{outcome}, in {:.0} s", took.as_secs_f64());
    println!("{} messages intended, {} accepted, {} stored", report.intended, report.accepted, report.stored);
    let whole = outcome.is_whole() && report.is_clean() && report.stored == report.intended;
    if !whole {
        println!("NOT as it should be: {report:?}");
        if let Some(found) = outcome.found() {
            println!("found: {found}");
        }
    }
    println!("{report}");
    if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
