// SPDX-License-Identifier: MIT OR Apache-2.0
//! Crashes, clean releases, two owners at once, and a log that loses its end.

use std::time::Duration;

use pli_api::log::{Entry, Envelope, Item};
use pli_domain::LogEpoch;
use pli_ports::DeviceQueues;
use prost::Message;
use tokio::time::sleep;

use crate::harness::{SHARD, SPILLS, Shard, body, device};

async fn epoch_of(shard: &Shard) -> LogEpoch {
    shard.world.queues().shard_state(SHARD).await.expect("readable").log_epoch.epoch
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_a_new_log_epoch_begins_and_everything_is_there() {
    for spill in SPILLS {
        let shard = Shard::new(spill);
        let owner = shard.owner();
        for n in 0..20 {
            shard.append(&[(&[1], n)]).await;
            sleep(Duration::from_millis(40)).await;
        }
        owner.crash().await;
        shard.append(&[(&[1], 20)]).await;
        let _owner = shard.owner();
        let edge = shard.edge(1).await;
        let registered = edge.announce(1, 1, 0, true).await;
        let mut seen = edge.drain(1, registered.from).await.bodies();
        seen.sort();
        seen.dedup();
        let mut wanted: Vec<_> = (0..21).map(body).collect();
        wanted.sort();
        assert_eq!(seen, wanted, "spill_after {spill}");
        assert_eq!(epoch_of(&shard).await.get(), 2);
        assert_eq!(shard.counts().epochs_begun, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_clean_release_the_log_epoch_is_kept_and_positions_with_it() {
    for spill in SPILLS {
        let shard = Shard::new(spill);
        let owner = shard.owner();
        for n in 0..10 {
            shard.append(&[(&[1], n)]).await;
        }
        let edge = shard.edge(1).await;
        let before = edge.drain(1, 0).await;
        assert_eq!(before.shown.len(), 10);
        owner.release().await;
        let _owner = shard.owner();
        let after = edge.drain(1, 0).await;
        assert_eq!(after.shown, before.shown);
        let counts = shard.counts();
        assert_eq!((counts.epochs_begun, counts.clean_starts, counts.marks_written), (1, 1, 1));
        assert_eq!(counts.handovers_with_tail, u64::from(spill > 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_mark_serves_once() {
    let shard = Shard::new(10_000);
    let owner = shard.owner();
    shard.append(&[(&[1], 0)]).await;
    shard.until("read", |c| c.entries == 1).await;
    owner.release().await;
    let owner = shard.owner();
    shard.until("started", |c| c.clean_starts == 1).await;
    owner.crash().await;
    let _owner = shard.owner();
    shard.until("a log epoch begins", |c| c.epochs_begun == 2).await;
    assert_eq!(shard.counts().clean_starts, 1);
}

#[tokio::test(start_paused = true)]
async fn the_embedded_log_keeps_its_epoch_after_a_crash() {
    let shard = Shard::embedded(300);
    let owner = shard.owner();
    shard.append(&[(&[1], 0)]).await;
    shard.until("settled", |c| c.rows_written == 1 && c.settles > 0).await;
    owner.crash().await;
    let _owner = shard.owner();
    shard.append(&[(&[1], 1)]).await;
    let edge = shard.edge(1).await;
    shard.until("read", |c| c.entries == 2).await;
    assert_eq!(edge.drain(1, 0).await.bodies(), [body(0), body(1)]);
    assert_eq!(shard.counts().epochs_begun, 1);
    shard.until("trimmed right up to the checkpoint", |c| c.log_trims > 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_zombie_finds_itself_fenced_and_both_lose_nothing() {
    for spill in [0, 300] {
        let shard = Shard::new(spill);
        let zombie = shard.owner();
        shard.append(&[(&[1], 0)]).await;
        shard.until("settled", |c| c.settles > 0).await;
        let second = shard.owner();
        shard.until("a second log epoch", |c| c.epochs_begun == 2).await;
        for n in 1..10 {
            shard.append(&[(&[1], n)]).await;
            sleep(Duration::from_millis(100)).await;
        }
        shard.until("the zombie saw it", |c| c.zombie_settles + c.fenced > 0).await;
        assert!(!zombie.ended() && !second.ended());
        zombie.crash().await;
        second.crash().await;
        let _owner = shard.owner();
        let mut seen = shard.edge(1).await.drain(1, 0).await.bodies();
        seen.sort();
        seen.dedup();
        assert_eq!(seen, (0..10).map(body).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn an_ack_that_names_a_higher_log_epoch_makes_a_zombie_start_again() {
    let shard = Shard::new(10_000);
    let zombie = shard.owner();
    shard.until("started", |c| c.starts == 1).await;
    let edge = shard.edge(1).await;
    edge.announce(1, 1, 0, true).await;
    // Another owner's log epoch, begun behind its back.
    let queues = shard.world.queues();
    let state = queues.shard_state(SHARD).await.expect("readable");
    let first = state.log_epoch.first;
    let to = pli_ports::LogEpochStart { epoch: state.log_epoch.epoch.next().expect("fits"), first };
    assert!(queues.begin_log_epoch(SHARD, state.log_epoch.epoch, to).await.expect("works"));
    let position = pli_domain::Position::new(to.epoch, first, 0);
    edge.ack(1, position.get()).await;
    shard.until("fenced", |c| c.fenced == 1 && c.starts >= 2).await;
    assert_eq!(shard.counts().acks_ignored, 1);
    zombie.crash().await;
}

#[tokio::test(start_paused = true)]
async fn a_log_that_lost_its_end_gets_a_new_log_epoch_and_the_rest_is_delivered() {
    for spill in SPILLS {
        let shard = Shard::new(spill);
        let _owner = shard.owner();
        for n in 0..10 {
            shard.append(&[(&[1], n)]).await;
        }
        shard.until("read", |c| c.entries == 10).await;
        shard.world.cut_log_end(SHARD, 3);
        for n in 10..15 {
            shard.append(&[(&[1], n)]).await;
        }
        shard.until("a new log epoch", |c| c.epochs_begun >= 2).await;
        let counts = shard.counts();
        assert!(counts.forks_above_checkpoint + counts.forks_below_checkpoint > 0 || counts.log_began_above > 0);
        let edge = shard.edge(1).await;
        edge.announce(1, 1, 0, true).await;
        let seen = edge.drain(1, 0).await.bodies();
        for n in (0..7).chain(10..15) {
            assert!(seen.contains(&body(n)), "{n} is missing with spill_after {spill}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_fork_above_the_checkpoint_is_seen_by_the_last_entry_read() {
    let shard = Shard::new(10_000);
    let _owner = shard.owner();
    for n in 0..5 {
        shard.append(&[(&[1], n)]).await;
    }
    shard.until("read", |c| c.entries == 5).await;
    shard.world.cut_log_end(SHARD, 1);
    // The log grows over the hole before the owner looks again.
    shard.append(&[(&[1], 5)]).await;
    shard.append(&[(&[1], 6)]).await;
    shard.until("the fork is seen", |c| c.forks_above_checkpoint == 1 && c.epochs_begun == 2).await;
    let seen = shard.edge(1).await.drain(1, 0).await.bodies();
    assert_eq!(seen, [0, 1, 2, 3, 5, 6].map(body));
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_reader_is_created_again_and_skips_nothing() {
    let shard = Shard::new(300);
    let _owner = shard.owner();
    for n in 0..30 {
        shard.append(&[(&[1], n)]).await;
        shard.world.interrupt_readers(SHARD);
        sleep(Duration::from_millis(30)).await;
    }
    shard.until("read", |c| c.entries == 30).await;
    assert_eq!(shard.edge(1).await.drain(1, 0).await.bodies(), (0..30).map(body).collect::<Vec<_>>());
    let counts = shard.counts();
    assert!(counts.readers_recreated > 0);
    assert_eq!(counts.epochs_begun, 1);
}

#[tokio::test(start_paused = true)]
async fn the_first_doorbell_of_a_new_owner_makes_a_session_read_what_no_doorbell_told() {
    let shard = Shard::new(300);
    let first = shard.owner();
    let mut edge = shard.edge(1).await;
    let registered = edge.announce(1, 1, 0, true).await;
    let sent = edge.drain(1, registered.from).await.to;
    // This one becomes a row; its doorbell is lost with its owner.
    shard.append(&[(&[1], 0)]).await;
    shard.until("a row", |c| c.rows_written == 1 && c.settles > 0).await;
    edge.bell().await;
    first.crash().await;
    let _second = shard.owner();
    edge.announce(1, 1, sent, false).await;
    shard.append(&[(&[1], 1)]).await;
    let bell = edge.bell().await;
    assert!(bell.prev.is_none_or(|prev| prev > sent), "the session is not complete up to {:?}", bell.prev);
    assert_eq!(edge.drain(1, sent).await.bodies(), [body(0), body(1)]);
}

#[tokio::test(start_paused = true)]
async fn what_a_new_owner_reads_again_is_not_counted_as_late() {
    let telemetry = pli_runtime::Telemetry::new("pli").expect("metrics");
    let shard = Shard::new(10_000);
    shard.counters.export(&telemetry.meter("delivery"));
    let count = |name: &str| {
        let text = telemetry.render().expect("text");
        let line = text.lines().find(|line| line.starts_with(&format!("{name}_count"))).map(str::to_owned);
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    let append = async |shard: &Shard| {
        let envelope = Envelope { accepted_at_ms: shard.clock_now_after(Duration::ZERO).0, ..Envelope::default() };
        let item = Item {
            devices: vec![pli_api::device_bytes(device(1))],
            expires_at_ms: shard.in_a_day().0,
            class: 3,
            envelope: envelope.encode_to_vec().into(),
        };
        shard.append_bytes(Entry { items: vec![item], ..Entry::default() }.encode_to_vec().into()).await;
    };
    let owner = shard.owner();
    let edge = shard.edge(1).await;
    edge.drain(1, 0).await;
    for _ in 0..3 {
        append(&shard).await;
    }
    assert_eq!(edge.drain(1, 0).await.shown.len(), 3);
    assert_eq!((count("pli_delivery_read_seconds"), count("pli_delivery_replay_seconds")), (3, 0));
    owner.crash().await;
    let _owner = shard.owner();
    assert_eq!(edge.drain(1, 0).await.shown.len(), 3);
    append(&shard).await;
    assert_eq!(edge.drain(1, 0).await.shown.len(), 4);
    assert_eq!((count("pli_delivery_read_seconds"), count("pli_delivery_replay_seconds")), (4, 3));
}

#[tokio::test(start_paused = true)]
async fn two_owners_that_fence_each_other_use_few_log_epochs() {
    let mut shard = Shard::new(0);
    shard.config.start_backoff_max_ms = 60_000;
    let (_one, _two) = (shard.owner(), shard.owner());
    for n in 0..100 {
        shard.append(&[(&[1], n)]).await;
        sleep(Duration::from_millis(100)).await;
    }
    let used = epoch_of(&shard).await.get();
    assert!((2..=7).contains(&used), "{used} log epochs in ten seconds");
}
