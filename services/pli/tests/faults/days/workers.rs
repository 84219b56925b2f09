// SPDX-License-Identifier: MIT OR Apache-2.0
//! Workers that are there twice, or crash again and again.

use std::time::Duration;

use tokio::time::{Instant, interval};

use super::{assert_whole, plan};
use crate::faults::run::Run;
use crate::faults::servers::{SHARDS, servers};
use crate::simulation::plan::Plan;

/// Crashes of the loop.
const CRASHES: usize = 20;
/// Starts of one owner while the other workers' test lasts: waits double from some milliseconds to a minute.
const STARTS_MAX: u64 = 16;
/// Overlaps of two workers that are waited for.
const OVERLAPS: u64 = 4;
/// Between two of them.
const CRASH_EVERY: Duration = Duration::from_millis(400);

#[tokio::test]
async fn two_workers_with_one_id_own_the_same_shards_and_nothing_is_lost() {
    let Some(servers) = servers("two_workers_with_one_id_own_the_same_shards_and_nothing_is_lost").await else {
        return;
    };
    let mut plan = Plan { owners: 2, one_id: true, ..plan() };
    plan.delivery.start_backoff_max_ms = 60_000;
    let run = Run::begin(&servers, "worker-twice", plan, &[]).await;
    run.until("both own one shard", || run.cast.world.rare.overlap.get() >= OVERLAPS).await;
    run.shown(60).await;
    let epochs = run.cast.owners.counted(|count| count.epochs_begun);
    println!("{epochs} log epochs, {} overlaps", run.cast.world.rare.overlap.get());
    // Each fences the other, and waits longer each time before it starts again.
    assert!(epochs <= 2 * u64::from(SHARDS) * STARTS_MAX, "{epochs} log epochs");
    assert_whole(&run.end().await);
}

#[tokio::test]
async fn a_worker_that_crashes_in_a_loop_begins_a_log_epoch_at_most_once_a_lease() {
    let name = "a_worker_that_crashes_in_a_loop_begins_a_log_epoch_at_most_once_a_lease";
    let Some(servers) = servers(name).await else { return };
    let plan = Plan { owners: 1, ..plan() };
    let lease = Duration::from_millis(plan.delivery.lease_ttl_ms);
    let run = Run::begin(&servers, "worker-crashes", plan, &[]).await;
    run.shown(20).await;
    let epochs = || run.cast.owners.counted(|count| count.epochs_begun);
    let (before, begun) = (epochs(), Instant::now());
    // The pace of a supervisor.
    let mut supervisor = interval(CRASH_EVERY);
    for _ in 0..CRASHES {
        supervisor.tick().await;
        run.cast.owners.crash(0);
        run.cast.owners.start(0);
    }
    run.shown(20).await;
    let leases = begun.elapsed().as_millis() / lease.as_millis() + 1;
    let most = u64::from(SHARDS) * u64::try_from(leases).unwrap_or(u64::MAX);
    let used = epochs() - before;
    println!("{used} log epochs in {leases} leases of {SHARDS} shards");
    assert!((1..=most).contains(&used), "{used} log epochs, at most {most}");
    assert_whole(&run.end().await);
}
