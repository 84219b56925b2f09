// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is refused, by name.

use bytes::Bytes;
use pli_api::ErrorCode;
use pli_api::links::{JoinRendezvousRequest, OpenRendezvousRequest, Side};
use pli_links::Config;
use pli_runtime::limits::Rate;

use crate::fixture::{APPROVER_SECRET, End, Rig, answer, device, from, id, join, met, open, refused, sha256};

#[tokio::test(start_paused = true)]
async fn a_field_that_cannot_be_used_is_named_with_the_fix() {
    let rig = Rig::new(Config::default());
    let mut client = rig.client();
    let (new_one, first) = met(&mut client, 1).await;
    let short = || Bytes::from_static(&[1; 31]);
    for (field, request) in [
        ("rendezvous must have 16", OpenRendezvousRequest { rendezvous: short(), ..open(2) }),
        ("opener_secret_sha256 must", OpenRendezvousRequest { opener_secret_sha256: short(), ..open(2) }),
        ("approver_secret_sha256 must", OpenRendezvousRequest { approver_secret_sha256: Bytes::new(), ..open(2) }),
        (
            "approver_secret_sha256 are the same; draw a secret for each",
            OpenRendezvousRequest { opener_secret_sha256: sha256(&APPROVER_SECRET), ..open(2) },
        ),
    ] {
        let error = refused(answer(client.open_rendezvous(request).await), ErrorCode::BadRequest);
        assert!(error.message.contains(field), "{error:?}");
    }
    for (field, request) in [
        ("rendezvous must have 16", JoinRendezvousRequest { rendezvous: short(), secret: sha256(b"") }),
        ("secret must have 32", JoinRendezvousRequest { rendezvous: id(1), secret: short() }),
    ] {
        let joined = client.join_rendezvous(from(Some(device(1)), [192, 0, 2, 2], request)).await;
        assert!(refused(answer(joined), ErrorCode::BadRequest).message.contains(field));
    }
    let unspecified = End { side: Side::Unspecified, ..new_one.clone() };
    let no_secret = End { secret: short(), ..new_one.clone() };
    for (field, end, number, blob) in [
        ("side must be", unspecified, 1, vec![1]),
        ("secret must have 32", no_secret, 1, vec![1]),
        ("number: 0 given", new_one.clone(), 0, vec![1]),
        ("number: 9 given", new_one.clone(), 9, vec![1]),
        ("number: 257 given", new_one.clone(), 257, vec![1]),
        ("the next blob of this side is 1", new_one.clone(), 2, vec![1]),
        ("blob: 0 bytes", new_one.clone(), 1, Vec::new()),
        ("blob: 16385 bytes; put 1 to 16384", first.clone(), 1, vec![1; 16 * 1024 + 1]),
    ] {
        let error = refused(end.clone().put(number, &blob).await, ErrorCode::BadRequest);
        assert!(error.message.contains(field), "{error:?}");
    }
    let error = refused(first.clone().wait(9, 0).await, ErrorCode::BadRequest);
    assert!(error.message.contains("number: 9 given"), "{error:?}");
    new_one.clone().put(1, &[1; 16 * 1024]).await.expect("the largest one");
}

#[tokio::test(start_paused = true)]
async fn eight_blobs_fit_and_a_ninth_does_not() {
    let rig = Rig::new(Config::default());
    let (mut new_one, mut first) = met(&mut rig.client(), 1).await;
    for number in 1..=4 {
        new_one.put(number, b"of the opener").await.expect("put");
        first.put(number, b"of the approver").await.expect("put");
    }
    for end in [&mut new_one, &mut first] {
        let error = refused(end.put(5, b"too many").await, ErrorCode::BadRequest);
        assert!(error.message.contains("8 blobs"), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_limit_is_refused_by_its_name() {
    let config = Config {
        rendezvous_open_max: 3,
        rendezvous_opened_per_address: Rate::new(2, 1),
        rendezvous_joined_per_account: Rate::new(1, 1),
        rendezvous_calls_per_address: Rate::new(4, 1),
        rendezvous_waits_max: 1,
        ..Config::default()
    };
    let rig = Rig::new(config);
    let mut client = rig.client();
    let opening = |n, last| from(None, [192, 0, 2, last], open(n));
    for n in 1..=2 {
        client.open_rendezvous(opening(n, 1)).await.expect("within the limit");
    }
    let named = |limit: &str, error: pli_api::common::Error| assert_eq!(error.limit, limit, "{error:?}");
    let error = refused(answer(client.open_rendezvous(opening(3, 1)).await), ErrorCode::RateLimited);
    named("rendezvous_opened_per_address", error);
    client.open_rendezvous(opening(3, 2)).await.expect("another address");
    let error = refused(answer(client.open_rendezvous(opening(4, 3)).await), ErrorCode::RateLimited);
    assert!((1..=60_000).contains(&error.retry_after_ms), "{error:?}");
    named("rendezvous_open_max", error);

    client.join_rendezvous(join(1, device(1))).await.expect("within the limit");
    let error = refused(answer(client.join_rendezvous(join(2, device(1))).await), ErrorCode::RateLimited);
    named("rendezvous_joined_per_account", error);
    client.join_rendezvous(join(2, device(2))).await.expect("another account");

    let (new_one, mut first) = (End::opener(&client, 1), End::approver(&client, 1, device(1)));
    let mut waiting = new_one.clone();
    let waits = tokio::spawn(async move { waiting.wait(1, 8_000).await });
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    named("rendezvous_waits_max", refused(first.wait(1, 8_000).await, ErrorCode::RateLimited));
    assert_eq!(first.wait(1, 0).await.expect("who does not wait needs no place"), "");
    assert_eq!(waits.await.expect("no panic").expect("an answer"), "");
    assert_eq!(first.wait(1, 8_000).await.expect("the place is free"), "");

    let mut busy = End { address: [192, 0, 2, 9], ..new_one };
    for _ in 0..4 {
        busy.wait(1, 0).await.expect("within the limit");
    }
    named("rendezvous_calls_per_address", refused(busy.put(1, b"x").await, ErrorCode::RateLimited));
    named("rendezvous_calls_per_address", refused(busy.wait(1, 0).await, ErrorCode::RateLimited));
}
