// SPDX-License-Identifier: MIT OR Apache-2.0
//! The database is away, or slow.

use std::time::Duration;

use pli_testkit::proxy::Way;

use super::{assert_whole, plan};
use crate::faults::run::Run;
use crate::faults::servers::{make_tables, servers, start_nats};
use crate::simulation::plan::Plan;
use crate::simulation::world::lock;

/// The smallest log that there can be.
const LITTLE_LOG: u64 = 1 << 20;
/// In each direction; an attempt of a statement then takes about half of its time, and a page of a queue a second.
const SLOW: Duration = Duration::from_millis(150);

#[tokio::test]
async fn while_the_database_is_away_the_tail_keeps_its_bound_and_a_full_log_tells_senders_when_to_come_back() {
    let name = "while_the_database_is_away_the_tail_keeps_its_bound_and_a_full_log_tells_senders_when_to_come_back";
    let Some(servers) = servers(name).await else { return };
    let (_little, nats) = start_nats(LITTLE_LOG).await.unwrap();
    let tables = make_tables(servers.cql_options.contact_points.clone(), "pli_faults_away").await;
    let mut plan = Plan { body_bytes: 8_000, ..plan() };
    plan.delivery.tail_bytes_max = 64 * 1024;
    plan.delivery.receipts_kept_ms = 500;
    let run = Run::begin_over(&servers, (&nats, &tables), "database-away", plan, &[]).await;
    run.shown(20).await;
    run.connections.owners().for_each(|owner| owner.to_cql.set(Way::Refused));
    let world = &run.cast.world;
    let told = || lock(&world.waits).get("NoSpace").is_some_and(|times| *times >= 10);
    run.until("senders hear that there is no space", told).await;
    let owners = &run.cast.owners;
    assert!(owners.counted(|count| count.bodies_dropped) > 0, "the tail did not drop what was above its bound");
    run.connections.owners().for_each(|owner| owner.to_cql.set(Way::Open));
    run.shown(20).await;
    assert_whole(&run.end().await);
}

#[tokio::test]
async fn a_slow_database_delays_and_loses_nothing() {
    let Some(servers) = servers("a_slow_database_delays_and_loses_nothing").await else { return };
    // A body that is not there in time stays a reference, which the devices here do not follow.
    let mut plan = Plan { above_shards: usize::MAX, ..plan() };
    plan.delivery.spill_after_ms = 0;
    let run = Run::begin(&servers, "database-slow", plan, &[]).await;
    run.connections.owners().for_each(|owner| owner.to_cql.set(Way::Slow(SLOW)));
    run.shown(60).await;
    run.until("rows are written", || run.cast.owners.counted(|count| count.rows_written) > 20).await;
    assert_whole(&run.end().await);
}
