// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a message costs, and how fast it is, where every role is a process of its own over NATS and CQL.
//!
//! `cargo bench --bench cluster` measures on three NATS servers, three CQL nodes and every role twice, all on this
//! machine, with the clients beside them: `cost accept entries rows workers` after `--` take only a part. `--small` is a
//! short run on one server of each kind that only proves that everything here works; its rows go to
//! `target/bench/trial.json`, and a limit that is refused on a noisy machine is printed and left out.
#![allow(clippy::print_stdout, reason = "figures are printed as they are taken")]

mod accept;
mod bench;
mod cost;
mod entries;
mod form;
mod rows;
mod workers;

use anyhow::{Result, bail, ensure};
use pli_benches::asked;
use pli_testkit::cluster::ClusterError;

use bench::Bench;
use form::Form;

/// What a whole run writes.
const ROWS: &[&str] = &[
    "cluster_message_cpu_us",
    "cluster_message_cpu_us_all",
    "cluster_message_cpu_ratio",
    "cluster_message_cpu_ratio_all",
    "cluster_rows_per_message",
    "cluster_cql_statements_per_message",
    "cluster_cql_statements_per_message_300",
    "cluster_log_entries_per_message_10",
    "cluster_log_entries_per_message_300",
    "cluster_log_entries_per_message_max",
    "cluster_rate_held_per_s",
    "cluster_accept_p50_ms",
    "cluster_accept_p99_ms",
    "cluster_throughput_workers_1",
    "cluster_throughput_workers_2",
    "cluster_throughput_workers_4",
];

/// The parts, in order: workers end one after the other, most parts run with two.
const PARTS: [(&str, fn(&mut Bench) -> Result<()>); 7] = [
    ("workers", |bench| workers::measure(bench, 4)),
    ("workers", |bench| workers::measure(bench, 2)),
    ("cost", cost::measure),
    ("accept", accept::measure),
    ("entries", entries::measure),
    ("rows", rows::measure),
    ("workers", |bench| workers::measure(bench, 1)),
];

fn main() -> Result<()> {
    let form = if std::env::args().any(|argument| argument == "--small") { Form::small() } else { Form::full() };
    let mut bench = match Bench::start(form) {
        Ok(bench) => bench,
        Err(error) if error.downcast_ref().is_some_and(ClusterError::is_unavailable) => {
            if !form.small {
                bail!(error.context("there is no cluster to measure"));
            }
            println!("skipped: {error:#}");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let mut all = true;
    for (name, part) in PARTS {
        if asked(name) {
            println!("{name}");
            part(&mut bench)?;
        } else {
            all = false;
        }
    }
    let missing = bench.summary.missing(ROWS);
    ensure!(!all || missing.is_empty(), "the run left out {missing:?}");
    bench.end()
}
