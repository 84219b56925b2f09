// SPDX-License-Identifier: MIT OR Apache-2.0
//! A scripted conversation against a server that is broken again and again, and a ledger kept outside it.
//!
//! The server is a child process, `pli dev` on a fresh data folder and free ports, which is killed; or, with
//! `--cluster`, three NATS servers, three CQL nodes and every role twice, each a process of its own, which are killed,
//! stopped for a while and ended in turn. The devices run in this process, each with a profile of its own. Before a
//! message is sent, the ledger writes to its file that it is intended; what each device shows is written as it is
//! shown. At the end the history checker of `pli-testkit`, which shares no code with the services, judges the ledger:
//! the last line is the verdict, and the exit code agrees with it. What a cluster's faults cost the clients goes into
//! `target/bench/summary.json`, if the verdict is good.
//!
//! `make demo` and `make demo-cluster` run it; `--seed N` repeats the moments of the kills, `--keep` leaves the folder
//! for inspection, `--scenes commits` plays only what is named.
#![allow(clippy::print_stdout, reason = "a transcript is what it is for")]

mod device;
mod ledger;
mod pulse;
pub mod scenes;
pub mod server;
pub mod stage;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use pli_testkit::history::Report;
use pli_testkit::summary::{Row, Summary, SummaryError};

use scenes::{Fault, Outcome, Scene, Script};
use server::{Kind, Size};
use stage::Stage;

/// The whole demo, ending included.
const TIME_MAX: Duration = Duration::from_secs(120);
/// The same on a cluster, whose start takes a minute or two on two cores.
const CLUSTER_TIME_MAX: Duration = Duration::from_secs(20 * 60);

/// A scripted conversation under faults, then the ledger.
///
/// Ends within 2 minutes, with --cluster within 20 (about 6 on two idle cores), whatever happens.
#[derive(Debug, Parser)]
struct Arguments {
    /// Seed of the moments of the kills and of whom they meet; drawn and printed when left out.
    #[arg(long)]
    seed: Option<u64>,
    /// Keep the folder with the data, the profiles, the logs and the ledger.
    #[arg(long)]
    keep: bool,
    /// Start three NATS servers, three CQL nodes and every role twice instead of one process, and break them in turn.
    #[arg(long)]
    cluster: bool,
    /// With --cluster, only these faults, by name and in this order: KillEdge, KillWorker, KillNats, KillCql, SlowCql,
    /// Zombie, AllNats, AllCql, LoseEnd, Rolling.
    #[arg(long, value_delimiter = ',', requires = "cluster")]
    faults: Vec<Fault>,
    /// Play only these scenes; left out, all that fit the server: away, race, companions; for one process kills and
    /// commits; for a cluster faults.
    #[arg(long, value_delimiter = ',')]
    scenes: Vec<Scene>,
}

impl Arguments {
    const fn kind(&self) -> Kind {
        if self.cluster { Kind::Cluster(Size::Full) } else { Kind::Single }
    }

    const fn time_max(&self) -> Duration {
        if self.cluster { CLUSTER_TIME_MAX } else { TIME_MAX }
    }

    fn script(&self) -> Script {
        let faults = if self.faults.is_empty() { Fault::ALL.to_vec() } else { self.faults.clone() };
        let (fitting, races) = match self.cluster {
            false => (vec![Scene::Away, Scene::Kills, Scene::Race, Scene::Commits, Scene::Companions], 50),
            true => (vec![Scene::Away, Scene::Faults, Scene::Race, Scene::Companions], 10),
        };
        let scenes = if self.scenes.is_empty() { fitting } else { self.scenes.clone() };
        Script { scenes, queued: 1_000, kills: 3, faults, races }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let begun = Instant::now();
    let script = arguments.script();
    let most = arguments.time_max();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let played = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let played = runtime.block_on(async { tokio::time::timeout(most, play(&arguments, &script)).await });
        runtime.shutdown_background();
        played.map_err(|_| anyhow::anyhow!("the demo did not end within {most:?}"))?
    });
    match played {
        Ok((report, outcome)) => {
            let whole = verdict(&report, (&outcome, &script), begun.elapsed());
            if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            println!("the demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn play(arguments: &Arguments, script: &Script) -> anyhow::Result<(Report, Outcome)> {
    let seed = arguments.seed.unwrap_or_else(rand::random);
    println!("seed {seed} (repeat the moments of the kills with --seed {seed})");
    let mut stage = Stage::set(arguments.kind(), seed).await?;
    let outcome = scenes::play(&mut stage, script).await;
    let (report, ended) = stage.clear(arguments.keep || outcome.is_err()).await;
    let outcome = outcome?;
    ended?;
    Ok((report, outcome))
}

/// Writes how long the faults were noticed, as `recovery_s_<fault>`.
fn save(outcome: &Outcome) -> Result<(), SummaryError> {
    let mut summary = Summary::open();
    for (fault, recovery) in outcome.recoveries() {
        summary.add(Row::plain(&format!("recovery_s_{fault}"), recovery.as_secs_f64(), "s"));
    }
    summary.save()
}

/// Prints the ledger; its last line is the verdict, which it answers.
fn verdict(report: &Report, (outcome, script): (&Outcome, &Script), took: Duration) -> bool {
    println!("\n== the ledger");
    println!("{outcome}, in {:.0} s", took.as_secs_f64());
    println!("{} messages intended, {} accepted, {} stored", report.intended, report.accepted, report.stored);
    let mut whole = outcome.is_whole(script) && report.is_clean() && report.stored == report.intended;
    // A figure of a run in which something was lost is worth nothing.
    if whole && let Err(error) = save(outcome) {
        println!("the figures are not written: {:#}", anyhow::Error::from(error));
        whole = false;
    }
    if !whole {
        println!("NOT as it should be: {report:?}");
        if let Some(found) = outcome.found() {
            println!("found: {found}");
        }
    }
    println!("{report}");
    whole
}
