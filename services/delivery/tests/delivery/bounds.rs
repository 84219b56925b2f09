// SPDX-License-Identifier: MIT OR Apache-2.0
//! Floors, budgets, and a database that is down.

use std::time::Duration;

use pli_api::delivery::edge_signal;
use pli_domain::{Position, Seq};
use pli_ports::{DeviceQueues, ShardLog};
use pli_testkit::memory::{FaultPlan, QueueFaults, WorldOptions};
use tokio::time::sleep;

use crate::harness::{SHARD, SPILLS, Shard, WORKER, body, device};

#[tokio::test(start_paused = true)]
async fn above_the_bound_the_floor_rises_and_the_gap_is_told_before_the_newest() {
    let mut shard = Shard::new(0);
    shard.config.queue_rows_max = 10;
    let _owner = shard.owner();
    let mut edge = shard.edge(1).await;
    edge.announce(1, 1, 0, true).await;
    for n in 0..10 {
        shard.append(&[(&[1], n)]).await;
    }
    shard.until("ten rows", |c| c.rows_written == 10).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(shard.counts().floors_raised, 0, "exactly the bound is kept");
    for n in 10..25 {
        shard.append(&[(&[1], n)]).await;
    }
    let raised = edge
        .signal(|signal| match signal {
            edge_signal::Signal::FloorRaised(raised) => Some(raised.floor),
            _ => None,
        })
        .await;
    assert!(raised > 0);
    shard.until("settled", |c| c.rows_written == 25).await;
    sleep(Duration::from_secs(1)).await;
    let drained = edge.drain(1, 0).await;
    assert_eq!(drained.bodies(), (15..25).map(body).collect::<Vec<_>>());
    assert_eq!(drained.gaps.len(), 1);
    assert_eq!(drained.gaps[0].0, 0);
    assert!(drained.gaps[0].1 < drained.shown[0].0.get());
    assert_eq!(shard.counts().gapped, 15);
    let registered = edge.announce(1, 2, 0, false).await;
    assert_eq!(registered.floor, drained.gaps[0].1);
    let state = shard.world.queues().device_states(&[device(1)]).await.expect("readable")[0];
    assert_eq!(state.floor.get(), drained.gaps[0].1, "the floor is durable");
    edge.ack(1, drained.to).await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(edge.announce(1, 1, 0, false).await.floor, 0, "an acknowledged gap is not told again");
}

#[tokio::test(start_paused = true)]
async fn what_waits_to_be_spread_is_kept_and_told_until_it_is_less() {
    let mut shard = Shard::new(0);
    shard.config.queue_rows_max = 10;
    (shard.config.trim_acks, shard.config.trim_after_ms) = (1, 100);
    let mut edge = shard.edge(0xE).await;
    let _owner = shard.owner();
    for n in 0..25 {
        shard.append(&[(&[WORKER], n)]).await;
    }
    shard.until("all rows", |c| c.rows_written == 25).await;
    sleep(Duration::from_secs(1)).await;
    shard.append(&[(&[1], 25)]).await;
    while !edge.notice().await.fan_out_full {}
    let drained = edge.drain(WORKER, 0).await;
    assert_eq!(drained.bodies(), (0..25).map(body).collect::<Vec<_>>(), "no floor rises over it");
    assert_eq!((drained.gaps.len(), shard.counts().floors_raised), (0, 0));
    edge.announce(WORKER, 1, 0, true).await;
    edge.ack(WORKER, drained.shown[19].0.get()).await;
    sleep(Duration::from_secs(3)).await;
    shard.append(&[(&[1], 26)]).await;
    assert!(!edge.notice().await.fan_out_full, "five are few enough");
}

#[tokio::test(start_paused = true)]
async fn above_half_of_the_budget_the_oldest_are_spilled_at_once() {
    let mut shard = Shard::new(3_600_000);
    shard.config.tail_bytes_max = 4_000;
    let _owner = shard.owner();
    for n in 0..100 {
        shard.append(&[(&[1], n)]).await;
        sleep(Duration::from_millis(10)).await;
    }
    shard.until("spilled", |c| c.rows_written > 50).await;
    assert_eq!(shard.edge(1).await.drain(1, 0).await.bodies(), (0..100).map(body).collect::<Vec<_>>());
    assert_eq!(shard.counts().bodies_dropped, 0);
}

#[tokio::test(start_paused = true)]
async fn with_the_database_down_bodies_are_read_again_from_the_log() {
    for spill in SPILLS {
        let mut shard = Shard::new(spill);
        shard.config.tail_bytes_max = 2_000;
        let _owner = shard.owner();
        shard.until("started", |c| c.epochs_begun == 1).await;
        sleep(Duration::from_millis(500)).await;
        let down = QueueFaults { write_timeout: 1_000, ..QueueFaults::default() };
        shard.world.set_faults(FaultPlan { queues: down, ..FaultPlan::default() });
        for n in 0..200 {
            shard.append(&[(&[1], n), (&[2], 1_000 + n)]).await;
            sleep(Duration::from_millis(5)).await;
        }
        shard.until("bodies are dropped", |c| c.bodies_dropped > 100).await;
        let edge = shard.edge(1).await;
        let drained = edge.drain(1, 0).await;
        assert_eq!(drained.bodies(), (0..200).map(body).collect::<Vec<_>>(), "spill_after {spill}");
        assert!(shard.counts().bodies_read_again > 0);
        shard.world.set_faults(FaultPlan::default());
        shard.until("everything is spilled", |c| c.rows_written >= 400).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(edge.drain(2, 0).await.bodies(), (1_000..1_200).map(body).collect::<Vec<_>>());
        assert_eq!(edge.drain(1, 0).await.shown, drained.shown);
    }
}

#[tokio::test(start_paused = true)]
async fn above_the_bound_of_the_tail_following_waits_and_goes_on() {
    let mut shard = Shard::new(300);
    shard.config.tail_slots_max = 20;
    shard.config.read_bytes_max = 100;
    let _owner = shard.owner();
    for n in 0..100 {
        shard.append(&[(&[1], n)]).await;
    }
    shard.until("following waits", |c| c.follow_stopped > 0).await;
    shard.until("and goes on", |c| c.entries == 100 && c.rows_written == 100).await;
    assert_eq!(shard.edge(1).await.drain(1, 0).await.bodies(), (0..100).map(body).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn the_log_is_trimmed_behind_the_checkpoint_when_receipts_are_old_and_keeps_its_entry() {
    let mut shard = Shard::new(300);
    shard.config.receipts_kept_ms = 60_000;
    let _owner = shard.owner();
    for n in 0..10 {
        shard.append(&[(&[1], n)]).await;
        sleep(Duration::from_secs(2)).await;
    }
    assert_eq!(shard.world.log_entries(SHARD).len(), 10);
    for n in 10..60 {
        shard.append(&[(&[1], n)]).await;
        sleep(Duration::from_secs(3)).await;
    }
    shard.until("trimmed", |c| c.log_trims > 0).await;
    let left = shard.world.log_entries(SHARD);
    assert!(left.len() < 40, "{}", left.len());
    let checkpoint = shard.world.queues().shard_state(SHARD).await.expect("readable").checkpoint;
    assert!(left.iter().any(|(seq, id)| *seq == checkpoint.position.seq() && Some(*id) == checkpoint.entry));
    assert!(checkpoint.position > Position::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_finds_no_room_is_given_up_and_what_is_acknowledged_meanwhile_needs_no_row() {
    let shard = Shard::new(300);
    let _owner = shard.owner();
    let edge = shard.edge(1).await;
    edge.announce(1, 1, 0, true).await;
    let full = QueueFaults { row_bytes_max: Some(0), ..QueueFaults::default() };
    shard.world.set_faults(FaultPlan { queues: full, ..FaultPlan::default() });
    for n in 0..50 {
        shard.append(&[(&[1], n)]).await;
    }
    shard.until("no room", |c| c.settles_without_room > 2).await;
    let before = shard.world.queues().shard_state(SHARD).await.expect("readable").checkpoint;
    let drained = edge.drain(1, 0).await;
    assert_eq!(drained.bodies(), (0..50).map(body).collect::<Vec<_>>());
    edge.ack(1, drained.to).await;
    // The disk stays full: only rows need room.
    shard.until("acknowledged", |c| c.acked == 50).await;
    let settles = shard.counts().settles;
    shard.until("settled", |c| c.settles > settles).await;
    assert_eq!(shard.counts().rows_written, 0);
    let after = shard.world.queues().shard_state(SHARD).await.expect("readable").checkpoint;
    assert!(after > before && after.position.seq().get() == 50, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn with_little_room_smaller_steps_are_settled() {
    let shard = Shard::new(300);
    let _owner = shard.owner();
    let little = QueueFaults { row_bytes_max: Some(2 * body(10).len()), ..QueueFaults::default() };
    shard.world.set_faults(FaultPlan { queues: little, ..FaultPlan::default() });
    for n in 10..30 {
        shard.append(&[(&[1], n)]).await;
    }
    shard.until("all rows", |c| c.rows_written == 20).await;
    assert!(shard.counts().settles_without_room > 0);
    assert_eq!(shard.edge(1).await.drain(1, 0).await.bodies(), (10..30).map(body).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_log_over_seventy_percent_is_trimmed_before_receipts_are_old_and_never_above_the_checkpoint() {
    for (appended, early) in [(60, false), (90, true)] {
        // 100 entries of this size fit.
        let one = Shard::new(10_000);
        one.append(&[(&[1], 10)]).await;
        let entry = one.world.log().reader(SHARD, Seq::ZERO.next()).await.expect("open").next(1).await.expect("one");
        let room = entry[0].bytes.len() as u64 * 100;
        let shard = Shard::with(10_000, WorldOptions { log_bytes_max: room, ..WorldOptions::default() });
        let _owner = shard.owner();
        for n in 0..appended {
            shard.append(&[(&[1], 10 + n % 80)]).await;
        }
        shard.until("settled", |counts| counts.rows_written == appended).await;
        sleep(Duration::from_secs(900)).await;
        let left = shard.world.log_entries(SHARD).len() as u64;
        let counts = shard.counts();
        assert_eq!((counts.log_trims_early > 0, left < appended), (early, early), "{left} of {appended} are left");
        let checkpoint = shard.world.queues().shard_state(SHARD).await.expect("readable").checkpoint.position.seq();
        assert!(shard.world.log_entries(SHARD).iter().any(|(seq, _)| *seq == checkpoint), "its own entry is kept");
        assert_eq!(shard.edge(1).await.drain(1, 0).await.shown.len() as u64, appended, "nothing is lost");
    }
}
