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
/// How long messages are exchanged between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Looks in turn without a change; longer together than `delivery.lease_renew_ms`, after which a worker above its share
/// hands shards over.
const LOOKS: usize = 4;
/// Owners that were started: one for each shard that a worker takes.
const STARTS: &str = "pli_delivery_starts_total";

/// Ends workers until so many are left, waits until they share the shards, and measures.
pub fn measure(bench: &mut Bench, count: usize) -> Result<()> {
    leave(bench, count)?;
    let pairs = bench.connect(bench.form.pairs)?;
    let (_, measured) = bench.run(pairs, PACE)?;
    bench.summary.add(Row::plain(&format!("cluster_throughput_workers_{count}"), measured.per_s(), "1/s"));
    Ok(())
}

/// Ends workers until `count` are left, and waits until every shard has its owner and no shard changes hands any more:
/// then nobody has more than its share, and so nobody has less.
fn leave(bench: &mut Bench, count: usize) -> Result<()> {
    let mut workers = bench.cluster.running(Some(Role::Delivery));
    ensure!(workers.len() >= count, "{} delivery workers run, {count} are wanted", workers.len());
    for name in workers.split_off(count) {
        bench.runtime.block_on(bench.cluster.end(&name))?;
    }
    let admins: Vec<String> = workers.iter().filter_map(|name| bench.cluster.admin(name)).collect();
    let mut pairs = bench.connect(bench.form.pairs)?;
    bench.runtime.block_on(async {
        let (deadline, mut quiet, mut before) = (Instant::now() + SHARED_WITHIN, 0, Vec::new());
        while quiet < LOOKS {
            // Delivered means that the shards of all receivers have owners.
            pairs = exchange(std::mem::take(&mut pairs), PACE, LOOK).await.context("while shards change hands")?.0;
            let starts = read(&admins).await?;
            let still = starts == before && starts.iter().all(|starts| *starts > 0.0);
            quiet = if still { quiet + 1 } else { 0 };
            ensure!(Instant::now() < deadline, "{count} workers do not share the shards; owners started: {starts:?}");
            before = starts;
        }
        Ok(())
    })
}

async fn read(admins: &[String]) -> Result<Vec<f64>> {
    futures::future::try_join_all(admins.iter().map(|admin| metric(admin, STARTS))).await
}
