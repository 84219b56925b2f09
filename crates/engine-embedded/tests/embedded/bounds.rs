// SPDX-License-Identifier: MIT OR Apache-2.0
//! The folder stays bounded, and what the engine keeps to itself.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pli_domain::{Checkpoint, DeviceId, EntryId, LogEpoch, Position, ShardId, UnixMillis};
use pli_engine_embedded::EmbeddedEngine;
use pli_ports::{DeviceRegister, NewEntry, PageQuery, QueueRow, Settle};
use tokio::time::{Instant, sleep};

use crate::support::{FAR, at, open};

const SHARD: ShardId = ShardId::new(1);
const SLACK: u64 = 64 << 20;
const SOON: Duration = Duration::from_secs(60);

/// Bytes of the blocks that the folder's files occupy.
fn occupied(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).unwrap();
    files.filter_map(|file| file.unwrap().metadata().ok()).map(|found| found.blocks() * 512).sum()
}

fn device(number: u64) -> DeviceId {
    let mut id = [9; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    DeviceId::from_bytes(id)
}

const DEVICES: u64 = 50;

/// Appends one entry of `count` envelopes of `bytes` each, settles it with rows for the `kept` first ones, and trims.
async fn deliver(engine: &EmbeddedEngine, count: u64, bytes: usize, kept: u64) -> u64 {
    let id = EntryId::from_bytes([1; 16]);
    let new = NewEntry { shard: SHARD, id, bytes: Bytes::from(vec![1; bytes * count as usize]) };
    let entry = engine.shard_log().append(vec![new]).await.remove(0).unwrap();
    let row = |n: u64| QueueRow {
        device: device((entry.seq.get() + n) % DEVICES),
        position: Position::new(LogEpoch::new(1).unwrap(), entry.seq, n as u16),
        expires_at: FAR,
        envelope: Bytes::from(vec![2; bytes]),
    };
    let position = Position::end_of(LogEpoch::new(1).unwrap(), entry.seq);
    let checkpoint = Some(Checkpoint { position, entry: Some(id) });
    let rows = (0..kept).map(row).collect();
    engine.device_queues().settle(SHARD, Settle { rows, checkpoint, ..Settle::default() }).await.unwrap();
    engine.shard_log().trim(SHARD, entry.seq).await.unwrap();
    entry.seq.get()
}

/// Everything of these devices up to and including entry `last` is acknowledged.
async fn acknowledge(engine: &EmbeddedEngine, devices: impl Iterator<Item = u64> + Clone, last: u64) {
    let register = |n| DeviceRegister { device: device(n), cursor: Some(at(last + 1)), floor: None };
    let settle = Settle { registers: devices.clone().map(register).collect(), ..Settle::default() };
    engine.device_queues().settle(SHARD, settle).await.unwrap();
    engine.device_queues().trim(devices.map(|n| (device(n), at(last + 1))).collect()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_folder_is_bounded_by_what_is_not_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let (mut sent, mut last) = (0, 0);
    for size in [150, 700, 1_100, 2_100, 4_500, 20_000] {
        let count = (200_000 / size as u64).clamp(10, 1_000);
        let end = sent + (30 << 20);
        while sent < end {
            last = deliver(&engine, count, size, count / 5).await;
            sent += count * size as u64;
        }
    }
    // Every other device is on line: of a fifth of what was sent, half is acknowledged.
    acknowledge(&engine, (0..DEVICES).step_by(2), last).await;
    let kept = sent / 10;
    let end = Instant::now() + SOON;
    let mut blocks = occupied(dir.path());
    while blocks > 2 * kept + SLACK / 2 && Instant::now() < end {
        sleep(Duration::from_millis(50)).await;
        blocks = occupied(dir.path());
    }
    println!("{sent} bytes sent, {kept} not acknowledged, {blocks} bytes on disk");
    assert!(blocks <= 2 * kept + SLACK, "{blocks} bytes on disk for {kept} not acknowledged");
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_folder_shrinks_when_a_long_queue_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let mut last = 0;
    for _ in 0..480 {
        last = deliver(&engine, 200, 1_000, 200).await;
    }
    assert!(occupied(dir.path()) > SLACK + (16 << 20));
    acknowledge(&engine, 0..DEVICES, last).await;
    let end = Instant::now() + SOON;
    while occupied(dir.path()) > SLACK {
        assert!(Instant::now() < end, "{} bytes on disk for nothing", occupied(dir.path()));
        sleep(Duration::from_millis(50)).await;
    }
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_and_their_key_stay_with_the_folder() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let account = |n: u8| pli_domain::AccountId::from_bytes([n; 16]);
    let shards = |engine: &EmbeddedEngine| {
        let map = engine.shard_map();
        (map.count(), (0..=255).map(|n| map.shard_of(account(n))).collect::<Vec<_>>())
    };
    let first = open(one.path());
    let before = shards(&first);
    drop(first);
    assert_eq!(shards(&open(one.path())), before);
    let other = shards(&open(two.path()));
    assert_eq!((before.0, other.0), (16, 16));
    assert_ne!(before.1, other.1, "two folders share a key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_engine_refuses_and_its_followers_learn_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let mut reader = engine.shard_log().reader(SHARD, pli_domain::Seq::ZERO).await.unwrap();
    let follower = tokio::spawn(async move { reader.next(1).await });
    deliver(&engine, 1, 10, 1).await;
    let log = Arc::clone(&engine.shard_log());
    engine.close().await;
    engine.close().await;
    let id = EntryId::from_bytes([1; 16]);
    assert!(log.append(vec![NewEntry { shard: SHARD, id, bytes: Bytes::new() }]).await.remove(0).is_err());
    let query = PageQuery {
        device: device(0),
        after: Position::ZERO,
        through: Position::MAX,
        now: UnixMillis(0),
        rows_max: 1,
        bytes_max: 1,
    };
    assert!(engine.device_queues().read_page(query).await.is_err());
    let mut end = engine.shard_log().reader(SHARD, pli_domain::Seq::MAX).await.unwrap();
    assert!(end.next(1).await.is_err());
    // Either the entry before the end, or the end.
    let _ = follower.await.unwrap();
    assert!(engine.failure().is_none());
}
