// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is refused, by name.

use bytes::Bytes;
use pli_api::ErrorCode;
use pli_api::media::PutPartRequest;
use pli_media::Config;
use pli_runtime::limits::Rate;

use crate::fixture::{End, PART, Rig, id, part, refused, sha256};

#[tokio::test]
async fn a_field_that_cannot_be_used_is_named_with_the_fix() {
    let rig = Rig::new(Config::default()).await;
    let mut one = rig.device(1, 1);
    let short = Bytes::from_static(&[1; 15]);
    for (field, upload, bytes) in [
        ("upload must have 16", short.clone(), 1),
        ("bytes: 0 given; an upload has 1 to 67108864", id(1), 0),
        ("bytes: 67108865", id(1), (64 << 20) + 1),
    ] {
        let error = refused(one.begin_with(upload, bytes).await, ErrorCode::BadRequest);
        assert!(error.message.contains(field), "{error:?}");
    }
    one.begin(1, PART as u64 + 5).await.expect("begun");
    refused(one.begin(1, PART as u64 + 6).await, ErrorCode::IdTaken);
    let right = PutPartRequest { upload: id(1), number: 2, part: part(2, 5), sha256: sha256(&part(2, 5)) };
    for (field, request) in [
        ("upload must have 16", PutPartRequest { upload: short, ..right.clone() }),
        ("parts 1 to 2", PutPartRequest { number: 0, ..right.clone() }),
        ("parts 1 to 2", PutPartRequest { number: 3, ..right.clone() }),
        ("part: 5 bytes; this one has 65536", PutPartRequest { number: 1, ..right.clone() }),
        ("part: 0 bytes; this one has 5", PutPartRequest { part: Bytes::new(), ..right.clone() }),
        ("part: 6 bytes; this one has 5", PutPartRequest { part: part(2, 6), ..right.clone() }),
        ("sha256 must have 32", PutPartRequest { sha256: Bytes::new(), ..right.clone() }),
        ("sha256: not that of part", PutPartRequest { sha256: sha256(b""), ..right.clone() }),
    ] {
        let error = refused(one.put_with(request).await, ErrorCode::BadRequest);
        assert!(error.message.contains(field), "{error:?}");
    }
    one.put_with(right).await.expect("put");
    let error = refused(one.read(1, 3).await, ErrorCode::BadRequest);
    assert!(error.message.contains("parts 1 to 2"), "{error:?}");
}

#[tokio::test]
async fn every_call_needs_a_device() {
    let rig = Rig::new(Config::default()).await;
    let mut nobody = End { who: None, ..rig.device(1, 1) };
    for refusal in [
        nobody.begin(1, 1).await.map(drop),
        nobody.put(1, 1, part(1, 1)).await,
        nobody.finish(1).await,
        nobody.get(1).await.map(drop),
        nobody.read(1, 1).await.map(drop),
        nobody.delete(1).await,
    ] {
        refused(refusal, ErrorCode::Anonymous);
    }
}

#[tokio::test]
async fn the_room_of_an_account_is_kept() {
    let rig = Rig::new(Config { quota_bytes: 100, ..Config::default() }).await;
    let (mut one, mut other) = (rig.device(1, 1), rig.device(1, 2));
    one.begin(1, 60).await.expect("begun");
    let error = refused(other.begin(2, 41).await, ErrorCode::MediaQuota);
    assert!(error.message.contains("60 bytes of 100; delete one"), "{error:?}");
    rig.device(2, 1).begin(2, 100).await.expect("another account has room of its own");
    one.delete(1).await.expect("deleted");
    other.begin(2, 100).await.expect("begun");
}

#[tokio::test(start_paused = true)]
async fn calls_are_limited_by_account_and_by_name() {
    let few = Config {
        uploads_begun_per_account: Rate::new(1, 1),
        media_calls_per_account: Rate::new(3, 1),
        ..Config::default()
    };
    let rig = Rig::new(few).await;
    // Limits are kept by each process.
    let mut one = rig.device(1, 1);
    one.begin(1, 1).await.expect("begun");
    let error = refused(one.begin(2, 1).await, ErrorCode::RateLimited);
    assert_eq!(error.limit, "uploads_begun_per_account");
    one.get(1).await.expect("there");
    let error = refused(one.get(1).await, ErrorCode::RateLimited);
    assert_eq!(error.limit, "media_calls_per_account");
    let mut stranger = End { who: crate::fixture::device(2, 1), ..one.clone() };
    stranger.begin(1, 1).await.expect("another account");
}
