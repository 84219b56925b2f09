// SPDX-License-Identifier: MIT OR Apache-2.0
//! The faults are what they say, and nothing else is wrong while they happen.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use pli_domain::{Checkpoint, DeviceId, EntryId, EntryRef, LogEpoch, OwnerId, Position, Seq, ShardId, UnixMillis};
use pli_ports::{
    AppendError, DeviceQueues, DeviceRegister, Leases, LogEpochStart, LogFate, NewEntry, PageQuery, QueueRow,
    ReadError, Retry, Settle, ShardLog, SignalEvent, Signals, StoreError, Subject,
};

use super::*;

const SHARD: ShardId = ShardId::new(1);
const OTHER: ShardId = ShardId::new(2);
const SEEDS: std::ops::Range<u64> = 0..40;

fn world(seed: u64) -> MemoryWorld {
    MemoryWorld::new(WorldOptions { seed, ..WorldOptions::default() })
}

fn entry(shard: ShardId, number: u8) -> NewEntry {
    NewEntry { shard, id: EntryId::from_bytes([number; 16]), bytes: Bytes::from(vec![number; 100]) }
}

async fn append(log: &MemoryLog, entry: NewEntry) -> Result<EntryRef, AppendError> {
    log.append(vec![entry]).await.pop().expect("one answer")
}

fn is_later<T>(answer: &Result<T, AppendError>) -> bool {
    matches!(answer, Err(AppendError::Store(StoreError { retry: Retry::Later, .. })))
}

fn log_faults(log: LogFaults) -> FaultPlan {
    FaultPlan { log, ..FaultPlan::default() }
}

fn queue_faults(queues: QueueFaults) -> FaultPlan {
    FaultPlan { queues, ..FaultPlan::default() }
}

#[tokio::test(start_paused = true)]
async fn a_log_that_loses_its_end_gives_its_sequences_to_other_entries() {
    for shards_share_stream in [false, true] {
        let world = MemoryWorld::new(WorldOptions { shards_share_stream, ..WorldOptions::default() });
        let log = world.log();
        let mut appended = Vec::new();
        for number in 0..6 {
            append(&log, entry(OTHER, 100 + number)).await.expect("no faults");
            appended.push(append(&log, entry(SHARD, number)).await.expect("no faults"));
        }
        let mut reader = log.reader(SHARD, Seq::ZERO).await.expect("no faults");
        world.cut_log_end(SHARD, 2);
        assert!(matches!(reader.next(1).await, Err(ReadError::Interrupted(_))));
        let bounds = log.bounds(SHARD).await.expect("no faults");
        assert!(bounds.head < appended[4].seq && bounds.head >= appended[3].seq, "{bounds:?}");
        let others = world.log_entries(OTHER).len();
        assert_eq!(others, if shards_share_stream { 5 } else { 6 }, "a shared stream loses its end for every shard");
        let again = append(&log, entry(SHARD, 50)).await.expect("no faults");
        assert!(again.seq <= appended[4].seq && again.id != appended[4].id, "{again:?} after {appended:?}");
        assert_eq!(log.entry_at(SHARD, again.seq).await.expect("no faults"), Some(again.id));
        assert!(world.counts().cut >= 2);
        // A retry of what was cut is appended, not answered from memory.
        append(&log, entry(SHARD, 5)).await.expect("no faults");
        assert_eq!(world.log_entries(SHARD).len(), 6);
    }
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "cannot lose its end")]
async fn a_log_that_shares_a_transaction_is_never_cut() {
    MemoryWorld::new(WorldOptions { fate: LogFate::OneTransaction, ..WorldOptions::default() }).cut_log_end(SHARD, 1);
}

#[tokio::test(start_paused = true)]
async fn appends_fail_in_each_of_their_ways() {
    let world = world(1);
    let log = world.log();
    world.set_faults(log_faults(LogFaults { lost: 1_000, ..LogFaults::default() }));
    assert!(is_later(&append(&log, entry(SHARD, 1)).await));
    assert!(world.log_entries(SHARD).is_empty(), "a lost append was appended");
    world.set_faults(log_faults(LogFaults { answer_lost: 1_000, ..LogFaults::default() }));
    assert!(is_later(&append(&log, entry(SHARD, 2)).await));
    assert_eq!(world.log_entries(SHARD).len(), 1, "an append whose answer is lost was not appended");
    world.set_faults(log_faults(LogFaults { late: 1_000, ..LogFaults::default() }));
    assert!(is_later(&append(&log, entry(SHARD, 3)).await));
    assert_eq!(world.log_entries(SHARD).len(), 1, "a late append was appended at once");
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(world.log_entries(SHARD).len(), 2, "a late append was not appended later");
    world.set_faults(FaultPlan::default());
    world.set_log_full(true);
    assert!(matches!(append(&log, entry(SHARD, 4)).await, Err(AppendError::Full { .. })));
    world.set_log_full(false);
    append(&log, entry(SHARD, 4)).await.expect("room again");
}

#[tokio::test(start_paused = true)]
async fn a_log_is_full_until_it_is_trimmed() {
    let log = MemoryWorld::new(WorldOptions { log_bytes_max: 250, ..WorldOptions::default() }).log();
    let first = append(&log, entry(SHARD, 1)).await.expect("room");
    append(&log, entry(SHARD, 2)).await.expect("room");
    assert!(matches!(append(&log, entry(SHARD, 3)).await, Err(AppendError::Full { .. })));
    log.trim(SHARD, first.seq).await.expect("no faults");
    append(&log, entry(SHARD, 3)).await.expect("room again");
}

#[tokio::test(start_paused = true)]
async fn a_retry_is_appended_again_by_chance_and_after_two_minutes() {
    let world = world(2);
    let log = world.log();
    let first = append(&log, entry(SHARD, 1)).await.expect("no faults");
    assert_eq!(append(&log, entry(SHARD, 1)).await.expect("no faults"), first);
    world.set_faults(log_faults(LogFaults { duplicated: 1_000, ..LogFaults::default() }));
    let second = append(&log, entry(SHARD, 1)).await.expect("no such fault");
    world.set_faults(FaultPlan::default());
    tokio::time::sleep(Duration::from_secs(121)).await;
    let third = append(&log, entry(SHARD, 1)).await.expect("no faults");
    assert!(first.seq < second.seq && second.seq < third.seq);
    assert_eq!(world.log_entries(SHARD).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_power_cut_drops_what_was_not_synced_and_a_kill_keeps_it() {
    for (keeps, expected) in [(true, 2), (false, 1)] {
        let world = world(3);
        let log = world.log();
        append(&log, entry(SHARD, 1)).await.expect("no faults");
        world.set_faults(log_faults(LogFaults { append_ms_max: 1_000, ..LogFaults::default() }));
        let writing = tokio::spawn({
            let log = log.clone();
            async move { append(&log, entry(SHARD, 2)).await }
        });
        let written = || !lock(&world.inner.log).streams_are_synced();
        assert!(crate::time::eventually(Duration::from_secs(2), written).await, "nothing was written");
        if keeps {
            world.crash()
        } else {
            world.power_cut()
        }
        assert!(is_later(&writing.await.expect("no panic")), "an append across a crash was acknowledged");
        assert_eq!(world.log_entries(SHARD).len(), expected);
        world.set_faults(FaultPlan::default());
        let next = append(&log, entry(SHARD, 9)).await.expect("no faults");
        assert_eq!(next.seq.get(), expected as u64 + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn readers_are_interrupted_on_demand_and_by_chance() {
    let world = world(4);
    let log = world.log();
    let mut reader = log.reader(SHARD, Seq::ZERO).await.expect("no faults");
    let waiting = tokio::spawn(async move { reader.next(1).await });
    tokio::task::yield_now().await;
    world.interrupt_readers(SHARD);
    assert!(matches!(waiting.await.expect("no panic"), Err(ReadError::Interrupted(_))));
    append(&log, entry(SHARD, 1)).await.expect("no faults");
    world.set_faults(log_faults(LogFaults { interrupted: 1_000, ..LogFaults::default() }));
    let mut reader = log.reader(SHARD, Seq::ZERO).await.expect("no faults");
    assert!(reader.next(1).await.is_err());
    world.set_faults(FaultPlan::default());
    assert!(reader.next(1).await.is_err(), "an interrupted reader went on");
    let mut reader = log.reader(SHARD, Seq::ZERO).await.expect("no faults");
    assert_eq!(reader.next(1).await.expect("a new reader goes on").len(), 1);
    assert_eq!(world.counts().readers_interrupted, 3);
}

fn device(number: u8) -> DeviceId {
    DeviceId::from_bytes([number; 16])
}

fn at(number: u64) -> Position {
    Position::end_of(LogEpoch::new(1).expect("fits"), Seq::new(number).expect("fits"))
}

fn row(number: u64) -> QueueRow {
    let envelope = Bytes::from(vec![number as u8; 10]);
    QueueRow { device: device(1), position: at(number), expires_at: UnixMillis(u64::MAX), envelope }
}

fn checkpoint(number: u64) -> Checkpoint {
    Checkpoint { position: at(number), entry: Some(EntryId::from_bytes([1; 16])) }
}

async fn positions(queues: &MemoryQueues, through: Position) -> Result<BTreeSet<u64>, StoreError> {
    let query = PageQuery {
        device: device(1),
        after: Position::ZERO,
        through,
        now: UnixMillis(0),
        rows_max: 1_000,
        bytes_max: usize::MAX,
    };
    Ok(queues.read_page(query).await?.rows.iter().map(|row| row.position.seq().get()).collect())
}

/// Everything that may go wrong with writes, while reads answer.
fn failing_writes() -> QueueFaults {
    QueueFaults { write_timeout: 400, replica_missed: 400, late: 500, ..QueueFaults::default() }
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_is_read_whatever_replicas_miss() {
    for seed in SEEDS {
        let world = world(seed);
        world.set_faults(queue_faults(failing_writes()));
        let queues = world.queues();
        let mut acknowledged = BTreeSet::new();
        let mut newest = 0;
        for number in 1..60 {
            // A zombie repeats older steps now and then.
            let step = if number % 7 == 0 { number / 2 + 1 } else { number };
            let settle = Settle {
                rows: vec![row(step)],
                registers: vec![DeviceRegister { device: device(2), cursor: Some(at(step)), floor: None }],
                checkpoint: Some(checkpoint(step)),
                ..Settle::default()
            };
            if queues.settle(SHARD, settle).await.is_ok() {
                acknowledged.insert(step);
                newest = newest.max(step);
            }
            let found = positions(&queues, Position::MAX).await.expect("reads answer");
            assert!(found.is_superset(&acknowledged), "seed {seed}: {found:?} lacks some of {acknowledged:?}");
            let state = queues.shard_state(SHARD).await.expect("reads answer");
            assert!(newest == 0 || state.checkpoint.position >= at(newest), "seed {seed}: {state:?} below {newest}");
            let cursor = queues.device_states(&[device(2)]).await.expect("reads answer")[0].cursor;
            assert!(newest == 0 || cursor >= at(newest), "seed {seed}: {cursor} below {newest}");
        }
        assert!(world.counts().writes_timed_out > 5, "seed {seed} met no time-out");
    }
}

#[tokio::test(start_paused = true)]
async fn no_later_part_of_a_settle_is_there_without_the_earlier_ones() {
    let (mut stopped_before, mut stopped_after) = (0, 0);
    for seed in SEEDS {
        let world = world(seed);
        let queues = world.queues();
        world.set_faults(queue_faults(QueueFaults { write_timeout: 1_000, ..QueueFaults::default() }));
        let rows = (1..5).map(row).collect();
        let settle = Settle { rows, checkpoint: Some(checkpoint(4)), ..Settle::default() };
        assert!(queues.settle(SHARD, settle).await.is_err());
        world.set_faults(FaultPlan::default());
        if queues.shard_state(SHARD).await.expect("no faults").checkpoint == checkpoint(4) {
            stopped_after += 1;
            assert_eq!(positions(&queues, Position::MAX).await.expect("no faults").len(), 4, "seed {seed}");
        } else {
            stopped_before += 1;
        }
    }
    assert!(stopped_before > 0 && stopped_after > 0, "{stopped_before} before the checkpoint, {stopped_after} after");
}

#[tokio::test(start_paused = true)]
async fn a_read_is_stable_once_it_was_repaired() {
    for seed in SEEDS {
        let world = world(seed);
        let queues = world.queues();
        world.set_faults(queue_faults(QueueFaults { write_timeout: 1_000, ..QueueFaults::default() }));
        drop(queues.settle(SHARD, Settle { checkpoint: Some(checkpoint(9)), ..Settle::default() }).await);
        world.set_faults(queue_faults(QueueFaults { replica_missed: 1, ..QueueFaults::default() }));
        let first = queues.shard_state(SHARD).await.expect("reads answer").checkpoint;
        for _ in 0..10 {
            let again = queues.shard_state(SHARD).await.expect("reads answer").checkpoint;
            assert!(again >= first, "seed {seed}: a checkpoint that was read is gone");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn late_writes_arrive_later() {
    let world = world(5);
    let queues = world.queues();
    world.set_faults(queue_faults(QueueFaults { replica_missed: 1_000, late: 1_000, ..QueueFaults::default() }));
    for number in 1..10 {
        queues.settle(SHARD, Settle { rows: vec![row(number)], ..Settle::default() }).await.expect("a quorum has it");
    }
    assert_eq!(world.counts().writes_late, 0);
    tokio::time::sleep(Duration::from_secs(61)).await;
    positions(&queues, Position::MAX).await.expect("reads answer");
    assert_eq!(world.counts().writes_late, 9);
    queues.settle(SHARD, Settle { rows: vec![row(10)], ..Settle::default() }).await.expect("a quorum has it");
    world.deliver_late_writes();
    assert_eq!(world.counts().writes_late, 10);
}

#[tokio::test(start_paused = true)]
async fn forgotten_tombstones_bring_rows_back_below_the_cursor_only() {
    let world = world(6);
    let queues = world.queues();
    let rows = (1..6).map(row).collect();
    let registers = vec![DeviceRegister { device: device(1), cursor: Some(at(3)), floor: None }];
    queues.settle(SHARD, Settle { rows, registers, ..Settle::default() }).await.expect("no faults");
    queues.trim(vec![(device(1), at(3))]).await.expect("no faults");
    assert_eq!(positions(&queues, Position::MAX).await.expect("no faults"), BTreeSet::from([4, 5]));
    world.forget_tombstones(0, device(1));
    let found = positions(&queues, Position::MAX).await.expect("no faults");
    assert_eq!(found, BTreeSet::from([4, 5]), "another replica still has the tombstone");
    (0..3).for_each(|replica| world.forget_tombstones(replica, device(1)));
    let found = positions(&queues, Position::MAX).await.expect("no faults");
    assert_eq!(found, BTreeSet::from([1, 2, 3, 4, 5]), "nothing hides them any more");
    let cursor = queues.device_states(&[device(1)]).await.expect("no faults")[0].cursor;
    assert_eq!(cursor, at(3), "the register that keeps readers above them stays");
}

#[tokio::test(start_paused = true)]
async fn after_an_unknown_outcome_only_the_winner_knows_its_win() {
    let (mut unknown_wins, mut winners) = (0, 0);
    for seed in SEEDS {
        let world = world(seed);
        let (one, other) = (world.queues(), world.queues());
        let to = LogEpochStart { epoch: LogEpoch::new(1).expect("fits"), first: Seq::ZERO.next() };
        world.set_faults(queue_faults(QueueFaults { cas_unknown: 1_000, ..QueueFaults::default() }));
        assert!(one.begin_log_epoch(SHARD, LogEpoch::NONE, to).await.is_err());
        world.set_faults(FaultPlan::default());
        let begun = one.shard_state(SHARD).await.expect("no faults").log_epoch == to;
        unknown_wins += u32::from(begun);
        let other_won = other.begin_log_epoch(SHARD, LogEpoch::NONE, to).await.expect("no faults");
        let one_won = one.clone().begin_log_epoch(SHARD, LogEpoch::NONE, to).await.expect("no faults");
        assert_eq!((one_won, other_won), (begun, !begun), "seed {seed}");
        winners += 1;
    }
    assert!(unknown_wins > 0 && unknown_wins < winners, "{unknown_wins} of {winners} were done");
}

#[tokio::test(start_paused = true)]
async fn signals_are_lost_repeated_reordered_and_interrupted() {
    let world = world(7);
    let signals = world.signals();
    let subject = Subject::edges();
    let mut subscription = signals.subscribe(&subject).await.expect("no faults");
    let faults = SignalFaults { lost: 100, duplicated: 100, interrupted: 50, delay_ms_max: 50, reordered: true };
    world.set_faults(FaultPlan { signals: faults, ..FaultPlan::default() });
    for number in 0..200u8 {
        signals.publish(&subject, Bytes::from(vec![number])).await.expect("always accepted");
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    let (mut seen, mut interrupted) = (Vec::new(), 0);
    while let Ok(event) = tokio::time::timeout(Duration::from_secs(1), subscription.next()).await {
        match event.expect("the bus is not closed") {
            SignalEvent::Signal(signal) => seen.push(signal.payload[0]),
            SignalEvent::Interrupted => interrupted += 1,
        }
    }
    let different: BTreeSet<u8> = seen.iter().copied().collect();
    assert!(different.len() < 190, "few were lost: {}", different.len());
    assert!(seen.len() > different.len(), "none was repeated");
    assert!(!seen.is_sorted(), "none overtook another");
    assert!(interrupted > 0, "no interruption");
    world.crash();
    assert!(subscription.next().await.is_none(), "a subscription outlived the bus");
}

#[tokio::test(start_paused = true)]
async fn stolen_and_expired_leases_have_two_owners_at_once() {
    let world = world(8);
    let leases = world.leases();
    let (one, other) = (OwnerId::from_bytes([1; 16]), OwnerId::from_bytes([2; 16]));
    let ttl = Duration::from_secs(10);
    let first = leases.acquire(SHARD, one, ttl).await.expect("no faults").expect("free");
    world.set_faults(FaultPlan {
        leases: LeaseFaults { stolen: 1_000, ..LeaseFaults::default() },
        ..FaultPlan::default()
    });
    let second = leases.acquire(SHARD, other, ttl).await.expect("no such fault").expect("stolen");
    assert!(second.generation > first.generation && world.counts().leases_stolen == 1);
    assert!(!leases.renew(&first, ttl).await.expect("no such fault"));
    world.set_faults(FaultPlan::default());
    world.expire_lease(SHARD);
    assert!(!leases.renew(&second, ttl).await.expect("no faults"));
    assert!(leases.acquire(SHARD, one, ttl).await.expect("no faults").is_some());
}

/// What several tasks see of a rough world, line by line.
async fn history(seed: u64) -> (Vec<String>, WorldCounts) {
    let world = world(seed);
    world.set_faults(FaultPlan::rough());
    let (log, queues, signals) = (world.log(), world.queues(), world.signals());
    let lines = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..4u8 {
        let (log, queues, signals, lines) = (log.clone(), queues.clone(), signals.clone(), lines.clone());
        tasks.spawn(async move {
            for number in 0..25u8 {
                let appended = append(&log, entry(SHARD, task * 40 + number)).await.ok();
                let settle = Settle { rows: vec![row(u64::from(number))], ..Settle::default() };
                let settled = queues.settle(SHARD, settle).await.is_ok();
                let read = positions(&queues, Position::MAX).await.ok();
                let answer = signals.request(&Subject::edges(), Bytes::new(), Duration::from_millis(50)).await.is_ok();
                lock(&lines).push(format!("{task} {number} {appended:?} {settled} {read:?} {answer}"));
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    let lines = lock(&lines).clone();
    (lines, world.counts())
}

#[test]
fn one_seed_gives_one_history() {
    let run = |seed| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(history(seed))
    };
    let histories: BTreeMap<u64, _> = (0..5).map(|seed| (seed, run(seed))).collect();
    for (seed, history) in &histories {
        assert_eq!(&run(*seed), history, "seed {seed}");
        assert!(history.1.writes_timed_out > 0 && history.1.appended > 0, "seed {seed}: {:?}", history.1);
    }
    assert_ne!(histories[&0], histories[&1], "the seed changes nothing");
}
