// SPDX-License-Identifier: MIT OR Apache-2.0
//! The path of a message: log, tail, doorbell, page, acknowledgement, rows, checkpoint.

use std::sync::Arc;
use std::time::Duration;

use pli_domain::{Position, ShardMap};
use pli_ports::{DeviceQueues, DeviceRegister, Leases, Settle, UsageBound};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::harness::{SHARD, SPILLS, Shard, body, device, meter};

#[tokio::test(start_paused = true)]
async fn what_is_acknowledged_soon_is_rung_with_its_body_and_never_gets_a_row() {
    let shard = Shard::new(10_000);
    let _owner = shard.owner();
    let mut edge = shard.edge(1).await;
    let registered = edge.announce(1, 1, 0, true).await;
    let drained = edge.drain(1, registered.from).await;
    assert!(drained.shown.is_empty());
    let mut sent = drained.to;
    let before = shard.counts();
    for n in 0..20 {
        shard.append(&[(&[1], n)]).await;
        let bell = edge.bell().await;
        assert_eq!(bell.envelope, body(n));
        assert!(bell.prev.is_some_and(|prev| prev <= sent), "the session is complete up to prev: {bell:?}");
        sent = bell.position;
        edge.ack(1, sent).await;
    }
    shard.until("everything is settled", |c| c.settles > 0 && c.acked == 20).await;
    let counts = shard.counts();
    assert_eq!((counts.rows_written, counts.registers_written), (0, 0));
    assert_eq!((counts.row_pages, counts.tail_pages), (before.row_pages, before.tail_pages), "no read either");
    assert_eq!(counts.addressed, 20);
    let wanted = Position::from_u64(sent).expect("a position").seq();
    let queues = shard.world.queues();
    while queues.shard_state(SHARD).await.expect("readable").checkpoint.position.seq() < wanted {
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_acknowledges_is_read_in_order_whatever_became_rows() {
    for spill in SPILLS {
        let shard = Shard::new(spill);
        let _owner = shard.owner();
        for n in 0..40 {
            shard.append(&[(&[1, 2], n), (&[2], 100 + n)]).await;
            sleep(Duration::from_millis(37)).await;
        }
        let edge = shard.edge(1).await;
        let registered = edge.announce(1, 1, 0, true).await;
        assert!(registered.mail_waiting);
        let drained = edge.drain(1, registered.from).await;
        assert_eq!(drained.bodies(), (0..40).map(body).collect::<Vec<_>>(), "spill_after {spill}");
        let both: Vec<_> = (0..40).flat_map(|n| [body(n), body(100 + n)]).collect();
        let all = edge.drain(2, 0).await;
        assert_eq!(all.bodies(), both);
        // Everything becomes rows in the end, and stands at the same positions.
        shard.until("rows", |c| c.rows_written >= 120).await;
        shard.until("settled", |c| c.settles > 0).await;
        sleep(Duration::from_secs(1)).await;
        let again = edge.drain(2, 0).await;
        assert_eq!(again.shown, all.shown, "spill_after {spill}");
        assert!(shard.counts().row_pages > 0);
    }
}

#[tokio::test(start_paused = true)]
async fn acknowledged_rows_are_deleted_and_the_cursor_is_durable() {
    for spill in [0, 300] {
        let shard = Shard::new(spill);
        let _owner = shard.owner();
        for n in 0..30 {
            shard.append(&[(&[1], n)]).await;
        }
        shard.until("rows", |c| c.rows_written == 30).await;
        let edge = shard.edge(1).await;
        let registered = edge.announce(1, 1, 0, true).await;
        let drained = edge.drain(1, registered.from).await;
        let last = drained.shown.last().expect("mail").0;
        edge.ack(1, last.get()).await;
        shard.until("rows are deleted", |c| c.row_trims > 0).await;
        let queues = shard.world.queues();
        let state = queues.device_states(&[device(1)]).await.expect("readable")[0];
        assert_eq!(state.cursor, last);
        let bound = UsageBound { rows_max: 100, bytes_max: 1 << 20 };
        let usage = queues.usage(device(1), Position::ZERO, bound, pli_testkit::time::START).await.expect("readable");
        assert_eq!(usage.rows, 0);
        assert_eq!(shard.counts().acked, 30);
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_whose_position_is_in_the_tail_costs_no_database_read() {
    let shard = Shard::new(10_000);
    let _owner = shard.owner();
    let first = shard.append(&[(&[1], 0)]).await;
    shard.append(&[(&[1], 1)]).await;
    shard.until("read", |c| c.entries == 2).await;
    let edge = shard.edge(1).await;
    let epoch = pli_domain::LogEpoch::new(1).expect("fits");
    let committed = Position::new(epoch, first.seq, 0);
    let registered = edge.announce(1, 1, committed.get(), true).await;
    assert_eq!(registered.from, committed.get());
    assert_eq!(edge.drain(1, registered.from).await.bodies(), [body(1)]);
    let counts = shard.counts();
    assert_eq!((counts.register_reads, counts.row_pages), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_checks_again_costs_no_database_read_while_nothing_came_for_it() {
    let shard = Shard::new(0);
    let _owner = shard.owner();
    let edge = shard.edge(1).await;
    let registered = edge.announce(1, 1, 0, true).await;
    let drained = edge.drain(1, registered.from).await;
    for n in 0..10 {
        shard.append(&[(&[2], n)]).await;
    }
    shard.until("others' mail is settled", |c| c.rows_written == 10 && c.settles > 0).await;
    let before = shard.counts();
    let page = edge.page(1, drained.to).await;
    assert!(page.at_head && page.next > drained.to && page.deliveries.is_empty());
    let after = shard.counts();
    assert_eq!((after.row_pages, after.register_reads), (before.row_pages, before.register_reads));
}

#[tokio::test(start_paused = true)]
async fn what_expires_within_a_minute_is_delivered_from_the_tail_and_never_spilled() {
    let shard = Shard::new(300);
    let _owner = shard.owner();
    let soon = shard.clock_now_after(Duration::from_secs(50));
    shard.append_until(&[(&[1], 7)], soon).await;
    shard.until("read", |c| c.entries == 1).await;
    let edge = shard.edge(1).await;
    assert_eq!(edge.drain(1, 0).await.bodies(), [body(7)]);
    shard.until("expired", |c| c.expired == 1 && c.settles > 0).await;
    assert_eq!(shard.counts().rows_written, 0);
    assert!(edge.drain(1, 0).await.shown.is_empty());
}

#[tokio::test(start_paused = true)]
async fn rows_that_expired_are_crossed_once_and_counted() {
    let shard = Shard::new(0);
    let _owner = shard.owner();
    let later = shard.clock_now_after(Duration::from_secs(90));
    for n in 0..5 {
        shard.append_until(&[(&[1], n)], later).await;
    }
    shard.until("rows", |c| c.rows_written == 5).await;
    sleep(Duration::from_secs(100)).await;
    let edge = shard.edge(1).await;
    assert!(edge.drain(1, 0).await.shown.is_empty());
    shard.until("crossed", |c| c.expired == 5 && c.row_trims > 0).await;
}

#[tokio::test(start_paused = true)]
async fn rows_that_went_under_the_floor_of_another_owner_are_told_and_do_not_count_as_expired() {
    let shard = Shard::new(0);
    let _owner = shard.owner();
    for n in 0..5 {
        shard.append(&[(&[1], n)]).await;
    }
    shard.until("rows", |c| c.rows_written == 5).await;
    let queues = shard.world.queues();
    let high = queues.shard_state(SHARD).await.expect("readable").checkpoint.position;
    // Another owner, which both believe to be the only one, found the queue too long and took all of it away.
    let register = DeviceRegister { device: device(1), cursor: None, floor: Some(high) };
    let floor = Settle { registers: vec![register], ..Settle::default() };
    queues.settle(SHARD, floor).await.expect("written");
    queues.trim(vec![(device(1), high)]).await.expect("deleted");
    let edge = shard.edge(1).await;
    let page = edge.page(1, 0).await;
    assert!(page.deliveries.is_empty());
    assert_eq!(page.gaps.iter().map(|gap| (gap.from, gap.to)).collect::<Vec<_>>(), [(0, high.get())]);
    // A session that never heard of it begins below: its device was told nothing yet.
    let registered = edge.announce(1, 2, 0, true).await;
    assert_eq!((registered.from, registered.floor), (0, high.get()));
    assert_eq!(shard.counts().expired, 0);
}

#[tokio::test(start_paused = true)]
async fn a_worker_takes_leases_serves_all_shards_and_gives_them_back() {
    let shard = Shard::embedded(10_000);
    let map = ShardMap::new(4, [1; 16]).expect("a power of two");
    let worker = pli_delivery::Delivery::new(shard.ports(), map, shard.config.clone(), &meter(), 7);
    let counters = worker.counters();
    let stop = CancellationToken::new();
    let running = tokio::spawn(worker.run(stop.clone()));
    shard.append(&[(&[1], 1)]).await;
    let edge = shard.edge(1).await;
    assert_eq!(edge.drain(1, 0).await.bodies(), [body(1)]);
    assert_eq!(shard.world.leases().held().await.expect("readable").len(), 4);
    stop.cancel();
    running.await.expect("no panic").expect("a clean end");
    assert!(shard.world.leases().held().await.expect("readable").is_empty());
    assert_eq!(counters.snapshot().marks_written, 4);
    let _: Arc<_> = counters;
}

/// Waits, a renewal at a time, until the leases are held as `wanted` says; `wanted` gets how many each worker holds.
async fn until_held(shard: &Shard, wanted: impl Fn(&[usize]) -> bool) {
    for _ in 0..200 {
        let held = shard.world.leases().held().await.expect("readable");
        let mut each = std::collections::BTreeMap::<_, usize>::new();
        held.iter().for_each(|lease| *each.entry(lease.owner).or_default() += 1);
        let mut counts: Vec<usize> = each.into_values().collect();
        counts.sort_unstable();
        if wanted(&counts) {
            return;
        }
        sleep(Duration::from_millis(500)).await;
    }
    panic!("the leases are not spread as they should be");
}

#[tokio::test(start_paused = true)]
async fn workers_share_the_shards_as_they_come_crash_and_stop() {
    let shard = Shard::embedded(10_000);
    let map = ShardMap::new(16, [1; 16]).expect("a power of two");
    let start = |seed| {
        let worker = pli_delivery::Delivery::new(shard.ports(), map, shard.config.clone(), &meter(), seed);
        let (stop, counters) = (CancellationToken::new(), worker.counters());
        (tokio::spawn(worker.run(stop.clone())), stop, counters)
    };
    let (first, first_stop, first_counters) = start(1);
    until_held(&shard, |held| held == [16]).await;
    let (second, ..) = start(2);
    until_held(&shard, |held| held == [8, 8]).await;
    assert_eq!(first_counters.snapshot().marks_written, 8, "what was too much is handed over in order");
    let (third, third_stop, _) = start(3);
    until_held(&shard, |held| held.len() == 3 && held.iter().sum::<usize>() == 16 && held[2] <= 6).await;
    second.abort();
    until_held(&shard, |held| held == [8, 8]).await;
    third_stop.cancel();
    third.await.expect("no panic").expect("a clean end");
    until_held(&shard, |held| held == [16]).await;
    first_stop.cancel();
    first.await.expect("no panic").expect("a clean end");
    until_held(&shard, <[usize]>::is_empty).await;
}
