// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disks that are really small or really read-only.

use std::time::Duration;

use bytes::Bytes;
use pli_domain::{Checkpoint, EntryId, LogEpoch, PayloadId, Position, ShardId};
use pli_engine_embedded::{EmbeddedEngine, OpenError};
use pli_ports::{AppendError, DeviceRegister, NewEntry, Retry, Settle, ShardLog};
use pli_testkit::disk::SmallDisk;
use tokio::time::{Instant, sleep};

use crate::support::{FAR, at, device, open, options};

const SHARD: ShardId = ShardId::new(2);
const SOON: Duration = Duration::from_secs(20);

fn entry(number: u64, bytes: usize) -> NewEntry {
    let mut id = [5; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    NewEntry { shard: SHARD, id: EntryId::from_bytes(id), bytes: Bytes::from(vec![number as u8; bytes]) }
}

/// Appends until the log stays full; answers the accepted sequences.
async fn fill(log: &dyn ShardLog) -> Vec<u64> {
    let (mut accepted, mut refused) = (Vec::new(), 0);
    for number in 0..10_000 {
        match log.append(vec![entry(number, 60_000)]).await.remove(0) {
            Ok(entry) => {
                accepted.push(entry.seq.get());
                refused = 0;
            }
            Err(AppendError::Full { retry_after_ms }) => {
                assert!(retry_after_ms > 0);
                refused += 1;
                // The engine looks for room a few times a second; then it has found none.
                if refused == 4 {
                    return accepted;
                }
                sleep(Duration::from_millis(250)).await;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    panic!("the disk never got full");
}

/// The number of entries that a new reader yields.
async fn count(log: &dyn ShardLog) -> u64 {
    let bounds = log.bounds(SHARD).await.unwrap();
    let wanted = (bounds.head.get() + 1) - bounds.first.get();
    let mut reader = log.reader(SHARD, bounds.first).await.unwrap();
    let mut found = 0;
    while found < wanted {
        found += reader.next(1 << 20).await.unwrap().len() as u64;
    }
    found
}

async fn accepted_again(log: &dyn ShardLog) -> u64 {
    let end = Instant::now() + SOON;
    loop {
        match log.append(vec![entry(1, 1_000)]).await.remove(0) {
            Ok(entry) => return entry.seq.get(),
            Err(AppendError::Full { .. }) => assert!(Instant::now() < end, "still refused although there is room"),
            Err(other) => panic!("{other:?}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_appends_while_acks_and_trims_go_on_and_then_accepts_again() {
    let Some(disk) = SmallDisk::mount("32m") else { return };
    let engine = open(&disk.dir());
    let (log, queues) = (engine.shard_log(), engine.device_queues());
    let accepted = fill(&*log).await;
    assert!(accepted.len() > 20, "{} entries on 32 MiB", accepted.len());
    assert!(engine.stats().refused_full > 0);
    let last = *accepted.last().unwrap();
    assert_eq!(count(&*log).await, last);
    let refused = engine.payloads().put(PayloadId::from_bytes([1; 16]), Bytes::from(vec![1; 1 << 20]), FAR).await;
    assert_eq!(refused.unwrap_err().retry, Retry::Room);
    // Acks of many devices, settles and trims, all while the disk is full.
    for through in 1..=last {
        let register = DeviceRegister { device: device(SHARD), cursor: Some(at(through)), floor: None };
        let position = Position::end_of(LogEpoch::new(1).unwrap(), at(through).seq());
        let checkpoint = Some(Checkpoint { position, entry: None });
        queues.settle(SHARD, Settle { registers: vec![register], checkpoint, ..Settle::default() }).await.unwrap();
        log.trim(SHARD, at(through).seq()).await.unwrap();
    }
    assert!(accepted_again(&*log).await > last);
    assert!(engine.failure().is_none());
    engine.close().await;
    let again = open(&disk.dir());
    assert_eq!(count(&*again.shard_log()).await, 1);
    again.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_others_filled_is_used_again_when_they_make_room() {
    let Some(disk) = SmallDisk::mount("48m") else { return };
    let engine = open(&disk.dir());
    let log = engine.shard_log();
    let first = accepted_again(&*log).await;
    let ballast = disk.fill();
    let refused = fill(&*log).await;
    let settle = Settle { registers: vec![], checkpoint: None, ..Settle::default() };
    engine.device_queues().settle(SHARD, settle).await.unwrap();
    std::fs::remove_file(&ballast).unwrap();
    let after = accepted_again(&*log).await;
    assert_eq!(after, first + refused.len() as u64 + 1);
    assert_eq!(count(&*log).await, after);
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_opens_on_a_full_disk_with_everything_accepted() {
    let Some(disk) = SmallDisk::mount("32m") else { return };
    let engine = open(&disk.dir());
    let accepted = fill(&*engine.shard_log()).await.len() as u64;
    engine.close().await;
    disk.fill();
    let engine = open(&disk.dir());
    let log = engine.shard_log();
    assert_eq!(count(&*log).await, accepted);
    assert!(matches!(log.append(vec![entry(0, 60_000)]).await.remove(0), Err(AppendError::Full { .. })));
    engine.close().await;
}

#[test]
fn a_read_only_folder_is_refused() {
    let Some(disk) = SmallDisk::mount("32m") else { return };
    let parent = disk.root().to_owned();
    std::fs::create_dir(disk.dir()).unwrap();
    disk.remount("ro");
    for dir in [disk.dir(), parent.join("missing")] {
        let refused = EmbeddedEngine::open(&dir, options()).unwrap_err();
        assert!(matches!(refused, OpenError::ReadOnly { .. }), "{refused:?}");
    }
    disk.remount("rw");
    drop(open(&disk.dir()));
}
