// SPDX-License-Identifier: MIT OR Apache-2.0
//! Copies of a database that is written to, and the history that begins on one.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use pli_domain::{
    AccountId, Checkpoint, ConversationId, DeviceAddress, DeviceId, LogEpoch, MlsEpoch, Party, Position, RendezvousId,
    SecretHash, ShardId, UnixMillis, Upload, UploadId, UploadKey,
};
use pli_engine_embedded::{
    BackupError, DATABASE_FILE, EmbeddedEngine, FolderLock, OpenError, VERSION_FILE, begin_history, copy_database,
    highest_log_epoch, log_epoch_above,
};
use pli_ports::{Access, LogEpochStart, NewConversation, NewRendezvous, Settle, SystemClock};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::support::{new_entry, open, seq};

/// A data folder with a copy of the database of `dir`.
fn copied(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_database(dir, &copy.path().join(DATABASE_FILE), &SystemClock, |_| {}).unwrap();
    std::fs::copy(dir.join(VERSION_FILE), copy.path().join(VERSION_FILE)).unwrap();
    copy
}

async fn append(engine: &EmbeddedEngine, shards: &[u16], rng: &mut ChaCha8Rng) {
    let entries = shards.iter().map(|shard| new_entry(ShardId::new(*shard), rng)).collect();
    assert!(engine.shard_log().append(entries).await.iter().all(Result::is_ok));
}

async fn head(engine: &EmbeddedEngine, shard: u16) -> u64 {
    engine.shard_log().bounds(ShardId::new(shard)).await.unwrap().head.get()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_beside_a_busy_server_is_the_state_of_one_moment() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for _ in 0..3_000 {
        append(&engine, &[0, 1], &mut rng).await;
    }
    let done = Arc::new(AtomicBool::new(false));
    let (writing, until) = (engine.clone(), Arc::clone(&done));
    let writer = tokio::spawn(async move {
        while !until.load(Ordering::Relaxed) {
            append(&writing, &[0, 1], &mut rng).await;
        }
    });
    let before = head(&engine, 0).await;
    let path = dir.path().to_owned();
    let copy = tokio::task::spawn_blocking(move || copied(&path)).await.unwrap();
    let after = head(&engine, 0).await;
    done.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    assert!(after > before, "nothing was written meanwhile");
    let restored = open(copy.path());
    let (one, other) = (head(&restored, 0).await, head(&restored, 1).await);
    // Both go into every group, so a torn copy would tell them apart.
    assert_eq!(one, other);
    assert!((before..=after).contains(&one), "{one} is not from {before} to {after}");
    for shard in 0..2 {
        for at in 1..=one {
            let (shard, at) = (ShardId::new(shard), seq(at));
            let ours = restored.shard_log().entry_at(shard, at).await.unwrap();
            assert_eq!(ours, engine.shard_log().entry_at(shard, at).await.unwrap());
            assert!(ours.is_some());
        }
    }
}

#[tokio::test]
async fn a_history_begins_above_the_old_one_and_without_what_clients_have_used_up() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    append(&engine, &[0, 0, 0], &mut rng).await;
    append(&engine, &[0, 0], &mut rng).await;
    let (queues, shard) = (engine.device_queues(), ShardId::new(0));
    let first = LogEpochStart { epoch: LogEpoch::new(4).unwrap(), first: seq(1) };
    assert!(queues.begin_log_epoch(shard, LogEpoch::NONE, first).await.unwrap());
    let checkpoint = Checkpoint { position: Position::end_of(first.epoch, seq(3)), entry: None };
    queues.settle(shard, Settle { checkpoint: Some(checkpoint), ..Settle::default() }).await.unwrap();
    let device = DeviceAddress { account: AccountId::from_bytes([1; 16]), device: DeviceId::from_bytes([2; 16]) };
    let (single, last) = (vec![Bytes::from_static(b"single")], Some(Bytes::from_static(b"last resort")));
    engine.accounts().put_key_packages(device.device, single, last).await.unwrap();
    let conversation = ConversationId::from_bytes([3; 16]);
    let new = NewConversation {
        conversation,
        epoch: MlsEpoch(0),
        roster: vec![device],
        state: Bytes::from_static(b"state"),
        created_at: UnixMillis(1),
    };
    engine.conversations().create(new).await.unwrap();
    let hash = SecretHash::from_bytes;
    let meeting = NewRendezvous {
        id: RendezvousId::from_bytes([4; 16]),
        opener: hash([5; 32]),
        approver: hash([6; 32]),
        expires_at: UnixMillis(100),
    };
    engine.links().open_rendezvous(meeting, UnixMillis(1)).await.unwrap();
    let access = Access { id: meeting.id, party: Party::Opener(meeting.opener), now: UnixMillis(1) };
    engine.links().put_blob(access, 1, Bytes::from_static(b"sealed")).await.unwrap();
    let upload = UploadKey { account: device.account, id: UploadId::from_bytes([4; 16]) };
    let begun = Upload::new(1, UnixMillis(100)).unwrap();
    engine.media().begin_upload(upload, begun, 1, UnixMillis(1)).await.unwrap();
    assert_eq!(engine.history(), None);
    engine.close().await;

    let copy = copied(dir.path());
    assert_eq!(highest_log_epoch(copy.path()).unwrap(), first.epoch);
    let next = log_epoch_above(first.epoch, false).unwrap();
    begin_history(copy.path(), [9; 16], next).unwrap();
    let restored = open(copy.path());
    assert_eq!(restored.history(), Some([9; 16]));
    for shard in restored.shard_map().shards() {
        let state = restored.device_queues().shard_state(shard).await.unwrap();
        // Behind what is settled: the rest gets new positions, and receipts of it are answered `resend`.
        let first = if shard == ShardId::new(0) { seq(4) } else { seq(1) };
        assert_eq!(state.log_epoch, LogEpochStart { epoch: next, first });
        assert!(state.mark.is_none());
    }
    assert_eq!(head(&restored, 0).await, 5, "what is not settled is still there");
    assert!(restored.conversations().head(conversation).await.unwrap().is_none());
    assert!(restored.links().blob(access, 1).await.is_err(), "nobody writes a blob twice");
    let again = restored.media().begin_upload(upload, begun, 1, UnixMillis(1)).await;
    assert!(again.is_ok() && restored.media().parts(upload, UnixMillis(1)).await.unwrap().is_empty(), "begun anew");
    let stock = restored.accounts().key_package_stock(device.device).await.unwrap();
    assert_eq!((stock.left, stock.last_resort.is_some()), (0, true));
    restored.close().await;
    assert_eq!(open(dir.path()).history(), None, "the old folder is as it was");
}

#[test]
fn a_log_epoch_lies_above_all_that_are_known_and_jumps_where_one_may_be_unknown() {
    let epoch = |n| LogEpoch::new(n).unwrap();
    assert_eq!(log_epoch_above(epoch(7), false).unwrap(), epoch(8));
    let jumps: Vec<u64> = (0..200).map(|_| log_epoch_above(epoch(7), true).unwrap().get()).collect();
    assert!(jumps.iter().all(|jump| (8..=8 + 500).contains(jump)), "{jumps:?}");
    let different: std::collections::BTreeSet<_> = jumps.iter().collect();
    assert!(different.len() > 100, "{different:?}");
    assert_eq!(log_epoch_above(epoch(8_000), true).unwrap(), epoch(8_001));
    assert!(log_epoch_above(LogEpoch::MAX, true).is_err());
}

#[test]
fn what_is_no_data_folder_is_not_copied_and_a_taken_lock_names_its_holder() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("copy");
    let copy = |from: &Path| copy_database(from, &to, &SystemClock, |_| {});
    assert!(matches!(copy(&dir.path().join("none")), Err(BackupError::NoFolder { .. })));
    assert!(matches!(copy(dir.path()), Err(BackupError::NoData { .. })));
    std::fs::write(dir.path().join(VERSION_FILE), format!("1\n{}\n", "0".repeat(32))).unwrap();
    assert!(matches!(copy(dir.path()), Err(BackupError::Folder(OpenError::DatabaseGone { .. }))));
    assert!(!to.exists());
    let _held = FolderLock::take(dir.path()).unwrap();
    match FolderLock::take(dir.path()) {
        Err(OpenError::InUse { pid, .. }) => assert_eq!(pid, std::process::id()),
        other => panic!("{other:?}"),
    }
}
