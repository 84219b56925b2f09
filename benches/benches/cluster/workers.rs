// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages a second with so many delivery workers.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pli_benches::Row;
use pli_benches::metric;
use pli_benches::traffic::{Pace, exchange};
use pli_testkit::cluster::Role;

use crate::bench::Bench;

/// Sends that each sender keeps in flight.
const PACE: Pace = Pace::Window(16);
/// The workers share the shards evenly by then.
const SHARED_WITHIN: Duration = Duration::from_secs(120);
/// How long messages are exchanged to see who reads them.
const LOOK: Duration = Duration::from_secs(1);
/// A worker that reads less than this part of its share of the entries has not its shards yet.
const SHARE_MIN: f64 = 0.4;
const ENTRIES: &str = "pli_delivery_entries_total";

/// Ends workers until so many are left, waits until they share the shards, and measures.
pub fn measure(bench: &mut Bench, count: usize) -> Result<()> {
    leave(bench, count)?;
    let pairs = bench.connect(bench.form.pairs)?;
    let (_, measured) = bench.run(pairs, PACE)?;
    bench.summary.add(Row::plain(&format!("cluster_throughput_workers_{count}"), measured.per_s(), "1/s"));
    Ok(())
}

/// Ends workers until `count` are left, and waits until every one of them reads its share.
pub fn leave(bench: &mut Bench, count: usize) -> Result<()> {
    let mut workers = bench.cluster.running(Some(Role::Delivery));
    ensure!(workers.len() >= count, "{} delivery workers run, {count} are wanted", workers.len());
    for name in workers.split_off(count) {
        bench.runtime.block_on(bench.cluster.end(&name))?;
    }
    let admins: Vec<String> = workers.iter().filter_map(|name| bench.cluster.admin(name)).collect();
    let mut pairs = bench.connect(bench.form.pairs)?;
    bench.runtime.block_on(async {
        let deadline = Instant::now() + SHARED_WITHIN;
        loop {
            let before = read(&admins).await?;
            pairs = exchange(std::mem::take(&mut pairs), PACE, LOOK).await.context("while shards change hands")?.0;
            let after = read(&admins).await?;
            let read: Vec<f64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
            let fair = read.iter().sum::<f64>() / count as f64;
            if fair > 0.0 && read.iter().all(|entries| *entries >= fair * SHARE_MIN) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{count} workers do not share the shards: they read {read:?} entries");
        }
    })
}

async fn read(admins: &[String]) -> Result<Vec<f64>> {
    futures::future::try_join_all(admins.iter().map(|admin| metric(admin, ENTRIES))).await
}
