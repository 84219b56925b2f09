// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an upload goes through.

use std::time::Duration;

use bytes::Bytes;
use pli_api::ErrorCode;
use pli_media::{Blobs, Config};
use pli_ports::{Accounts, DeviceListRecord};
use pli_testkit::memory::{FaultPlan, TableFaults};
use tokio_util::sync::CancellationToken;

use crate::fixture::{PART, Rig, device, part, refused};

/// The same over objects in memory and in a folder.
async fn both(run: impl AsyncFn(Rig)) {
    run(Rig::new(Config::default()).await).await;
    let folder = tempfile::tempdir().expect("a folder");
    let blobs = Blobs::local(&folder.path().join("made").join("anew")).expect("opened");
    run(Rig::over(blobs, Config::default()).await).await;
}

#[tokio::test]
async fn one_device_puts_parts_and_another_reads_them_at_another_replica() {
    both(async |rig| {
        let (mut one, mut other) = (rig.device(1, 1), rig.device(1, 2));
        let begun = one.begin(1, 2 * PART as u64 + 5).await.expect("begun");
        assert_eq!(begun.there.as_ref(), [0]);
        assert!(begun.left_ms > 6 * 86_400_000, "{begun:?}");
        for (number, bytes) in [(3, 5), (1, PART)] {
            one.put(1, number, part(number, bytes)).await.expect("put");
        }
        refused(other.read(1, 1).await, ErrorCode::UploadIncomplete);
        let refusal = refused(one.finish(1).await, ErrorCode::UploadIncomplete);
        assert!(refusal.message.contains("part 2 is missing"), "{refusal:?}");
        let seen = other.get(1).await.expect("there");
        assert_eq!((seen.bytes, seen.there.as_ref(), seen.finished), (2 * PART as u64 + 5, &[0b101][..], false));
        other.put(1, 2, part(2, PART)).await.expect("any device of the account may go on");
        one.finish(1).await.expect("finished");
        assert!(other.get(1).await.expect("there").finished);
        for (number, bytes) in [(2, PART), (3, 5), (1, PART)] {
            assert_eq!(other.read(1, number).await.expect("read"), part(number, bytes));
        }
    })
    .await;
}

#[tokio::test]
async fn an_upload_that_broke_off_goes_on() {
    both(async |rig| {
        let mut one = rig.device(1, 1);
        one.begin(1, 3 * PART as u64).await.expect("begun");
        one.put(1, 2, part(2, PART)).await.expect("put");
        let mut again = rig.device(1, 1);
        assert_eq!(again.begin(1, 3 * PART as u64).await.expect("begun before").there.as_ref(), [0b10]);
        for number in [2, 1, 3, 3] {
            again.put(1, number, part(number, PART)).await.expect("put");
        }
        again.finish(1).await.expect("finished");
        again.finish(1).await.expect("finished before");
        again.put(1, 3, part(3, PART)).await.expect("the same part, late");
        refused(again.put(1, 3, part(4, PART)).await, ErrorCode::PartConflict);
        assert_eq!(again.read(1, 3).await.expect("read"), part(3, PART));
    })
    .await;
}

#[tokio::test]
async fn a_deleted_upload_is_gone_with_its_objects() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::over(Blobs::local(folder.path()).expect("opened"), Config::default()).await;
    let (mut one, mut other) = (rig.device(1, 1), rig.device(1, 2));
    one.whole(1).await;
    other.delete(1).await.expect("deleted");
    other.delete(1).await.expect("deleted before");
    refused(one.get(1).await, ErrorCode::UploadUnknown);
    refused(one.begin(1, 2 * PART as u64 + 5).await, ErrorCode::UploadUnknown);
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0, "nothing is left");
}

#[tokio::test(start_paused = true)]
async fn after_seven_days_everything_is_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::over(Blobs::local(folder.path()).expect("opened"), Config::default()).await;
    let (mut one, mut other) = (rig.device(1, 1), rig.device(1, 2));
    one.whole(1).await;
    let (service, stop) = (rig.service(), CancellationToken::new());
    let until = stop.clone();
    let running = tokio::spawn(async move { service.run(until).await });
    let days = |days: u64| Duration::from_secs(days * 86_400);
    tokio::time::sleep(days(6)).await;
    one.begin(2, 1).await.expect("begun");
    one.put(2, 1, part(1, 1)).await.expect("put");
    one.finish(2).await.expect("finished");
    assert_eq!(other.read(1, 3).await.expect("read"), part(3, 5));
    tokio::time::sleep(days(1)).await;
    refused(other.read(1, 3).await, ErrorCode::UploadUnknown);
    tokio::time::sleep(days(1) + Duration::from_secs(1_200)).await;
    let left = std::fs::read_dir(folder.path()).expect("a folder").count();
    assert_eq!(left, 1, "the day of the other upload");
    assert_eq!(other.read(2, 1).await.expect("read"), part(1, 1));
    stop.cancel();
    running.await.expect("ended");
}

#[tokio::test]
async fn another_account_finds_nothing() {
    let rig = Rig::new(Config::default()).await;
    let (mut one, mut stranger) = (rig.device(1, 1), rig.device(2, 1));
    one.whole(1).await;
    let mut seen = vec![
        refused(stranger.get(1).await, ErrorCode::UploadUnknown),
        refused(stranger.read(1, 1).await, ErrorCode::UploadUnknown),
        refused(stranger.put(1, 1, part(1, PART)).await, ErrorCode::UploadUnknown),
        refused(stranger.finish(1).await, ErrorCode::UploadUnknown),
        refused(stranger.get(9).await, ErrorCode::UploadUnknown),
    ];
    stranger.delete(1).await.expect("nothing to delete");
    assert_eq!(one.read(1, 1).await.expect("still there"), part(1, PART));
    let first = seen.remove(0);
    assert!(seen.iter().all(|error| *error == first), "{seen:#?}");
    stranger.begin(1, 1).await.expect("ids of two accounts never meet");
}

#[tokio::test]
async fn a_removed_device_neither_uploads_nor_reads() {
    let rig = Rig::new(Config::default()).await;
    let (mut one, mut removed) = (rig.device(1, 1), rig.device(1, 2));
    one.whole(1).await;
    removed.begin(2, 1).await.expect("begun");
    let kept = device(1, 1).expect("a device");
    let list = DeviceListRecord { version: 2, signed: Bytes::from_static(b"two"), devices: vec![kept.device] };
    let account = rig.world.accounts().account(kept.account).await.expect("read").expect("there");
    let before = crate::fixture::sha256(&account.devices.signed).as_ref().try_into().expect("32 bytes");
    rig.world.accounts().put_device_list(kept.account, before, list).await.expect("put");
    for refusal in [
        removed.begin(3, 1).await.map(drop),
        removed.put(2, 1, part(1, 1)).await,
        removed.finish(2).await,
        removed.get(1).await.map(drop),
        removed.read(1, 1).await.map(drop),
        removed.delete(1).await,
    ] {
        let error = refused(refusal, ErrorCode::DeviceRemoved);
        assert!(error.message.contains("link it again as a new one"), "{error:?}");
    }
    assert_eq!(one.read(1, 1).await.expect("read"), part(1, PART));
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_outcome_is_unknown_is_temporary_and_may_be_repeated() {
    let rig = Rig::new(Config::default()).await;
    let mut one = rig.device(1, 1);
    let lost = TableFaults { answer_lost: 1_000, ..TableFaults::default() };
    rig.world.set_faults(FaultPlan { tables: lost, ..FaultPlan::default() });
    refused(one.begin(1, 1).await, ErrorCode::Temporary);
    refused(one.put(1, 1, part(1, 1)).await, ErrorCode::Temporary);
    refused(one.finish(1).await, ErrorCode::Temporary);
    rig.world.set_faults(FaultPlan::default());
    assert_eq!(one.begin(1, 1).await.expect("begun before").there.as_ref(), [1]);
    one.put(1, 1, part(1, 1)).await.expect("put before");
    one.finish(1).await.expect("finished before");
    assert_eq!(one.read(1, 1).await.expect("read"), part(1, 1));
}
