// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who may what.

use std::time::Duration;

use bytes::Bytes;
use pli_api::ErrorCode;
use pli_api::links::{JoinRendezvousRequest, OpenRendezvousRequest, Side};
use pli_domain::DeviceAddress;
use pli_links::Config;
use pli_testkit::memory::{FaultPlan, TableFaults};

use crate::fixture::{
    APPROVER_SECRET, End, OPENER_SECRET, Rig, answer, device, from, id, join, met, open, refused, sha256,
};

#[tokio::test(start_paused = true)]
async fn two_devices_at_two_replicas_exchange_what_linking_needs() {
    let rig = Rig::new(Config::default());
    let (mut one, mut other) = (rig.client(), rig.client());
    let opened = one.open_rendezvous(open(1)).await.expect("opened").into_inner();
    assert_eq!(opened.left_ms, 60_000);
    let (mut new_one, mut first) = (End::opener(&one, 1), End::approver(&other, 1, device(1)));
    new_one.put(1, b"key, device, name").await.expect("put");
    let joined = other.join_rendezvous(join(1, device(1))).await.expect("joined").into_inner();
    assert!((59_000..=60_000).contains(&joined.left_ms), "{joined:?}");
    assert_eq!(first.wait(1, 8_000).await.expect("there"), "key, device, name");
    first.put(1, b"account").await.expect("put");
    assert_eq!(new_one.wait(1, 8_000).await.expect("there"), "account");
    new_one.put(2, b"yes").await.expect("put");
    assert_eq!(first.wait(2, 8_000).await.expect("there"), "yes");
    first.put(2, b"list").await.expect("put");
    assert_eq!(new_one.wait(2, 8_000).await.expect("there"), "list");
    new_one.put(3, b"stored").await.expect("put");
    assert_eq!(first.wait(3, 8_000).await.expect("there"), "stored");
    assert_eq!(first.wait(1, 0).await.expect("still there"), "key, device, name");
}

#[tokio::test(start_paused = true)]
async fn asking_again_is_harmless_and_other_bytes_are_refused() {
    let rig = Rig::new(Config::default());
    let mut client = rig.client();
    let (mut new_one, mut first) = met(&mut client, 1).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let again = client.open_rendezvous(open(1)).await.expect("opened before").into_inner();
    assert_eq!(again.left_ms, 50_000, "what is left of the first time");
    client.join_rendezvous(join(1, device(1))).await.expect("joined before");
    for _ in 0..2 {
        new_one.put(1, b"one").await.expect("the same bytes");
        first.put(1, b"one").await.expect("the same bytes of the other side");
    }
    refused(new_one.put(1, b"two").await, ErrorCode::BlobConflict);
    assert_eq!(first.wait(1, 0).await.expect("there"), "one");
    let other = OpenRendezvousRequest { opener_secret_sha256: sha256(b"another"), ..open(1) };
    refused(answer(client.open_rendezvous(other).await), ErrorCode::IdTaken);
}

#[tokio::test(start_paused = true)]
async fn one_device_is_the_approver() {
    let rig = Rig::new(Config::default());
    let mut client = rig.client();
    let (mut new_one, mut first) = met(&mut client, 1).await;
    let sibling = DeviceAddress { account: device(1).account, ..device(2) };
    for rival in [device(2), sibling] {
        refused(answer(client.join_rendezvous(join(1, rival)).await), ErrorCode::RendezvousTaken);
        let mut rival = End::approver(&client, 1, rival);
        refused(rival.put(1, b"mine").await, ErrorCode::RendezvousTaken);
        refused(rival.wait(1, 8_000).await, ErrorCode::RendezvousTaken);
    }
    first.put(1, b"of the first").await.expect("put");
    assert_eq!(new_one.wait(1, 0).await.expect("there"), "of the first");
}

#[tokio::test(start_paused = true)]
async fn the_approver_needs_its_device_and_has_to_join() {
    let rig = Rig::new(Config::default());
    let mut client = rig.client();
    client.open_rendezvous(open(1)).await.expect("opened");
    let mut early = End::approver(&client, 1, device(1));
    for refusal in [early.put(1, b"early").await.map(|()| Bytes::new()), early.wait(1, 0).await] {
        let error = refused(refusal, ErrorCode::BadRequest);
        assert!(error.message.contains("join it first"), "{error:?}");
    }
    let request = JoinRendezvousRequest { rendezvous: id(1), secret: Bytes::from_static(&APPROVER_SECRET) };
    refused(answer(client.join_rendezvous(from(None, [192, 0, 2, 2], request)).await), ErrorCode::Anonymous);
    client.join_rendezvous(join(1, device(1))).await.expect("joined");
    let mut anonymous = End { device: None, ..End::approver(&client, 1, device(1)) };
    refused(anonymous.put(1, b"anonymous").await, ErrorCode::Anonymous);
    refused(anonymous.wait(1, 0).await, ErrorCode::Anonymous);
    // The opener may be anybody who has its secret.
    let mut new_one = End { device: Some(device(9)), ..End::opener(&client, 1) };
    new_one.put(1, b"one").await.expect("put");
}

#[tokio::test(start_paused = true)]
async fn nobody_can_tell_what_is_not_there_from_what_is_not_theirs() {
    let rig = Rig::new(Config::default());
    let mut client = rig.client();
    met(&mut client, 1).await;
    let wrong = Bytes::from_static(&[0xC; 32]);
    // What a stolen store has: the hash is no secret.
    let stolen = [sha256(&OPENER_SECRET), sha256(&APPROVER_SECRET)];
    let mut ends = vec![
        End::opener(&client, 2),
        End::approver(&client, 2, device(1)),
        End { secret: wrong.clone(), ..End::opener(&client, 1) },
        End { secret: wrong.clone(), ..End::approver(&client, 1, device(1)) },
        End { secret: wrong, ..End::approver(&client, 1, device(2)) },
        End { secret: stolen[0].clone(), ..End::opener(&client, 1) },
        End { secret: stolen[1].clone(), ..End::approver(&client, 1, device(1)) },
        End { side: Side::Approver, device: Some(device(1)), ..End::opener(&client, 1) },
        End { side: Side::Opener, ..End::approver(&client, 1, device(1)) },
    ];
    let mut seen = Vec::new();
    for end in &mut ends {
        seen.push(refused(end.put(1, b"x").await, ErrorCode::RendezvousExpired));
        seen.push(refused(end.wait(1, 8_000).await, ErrorCode::RendezvousExpired));
        if let Some(by) = end.device {
            let request = JoinRendezvousRequest { rendezvous: id(end.n), secret: end.secret.clone() };
            if end.n == 1 && end.secret == Bytes::from_static(&APPROVER_SECRET) {
                continue;
            }
            let joined = client.join_rendezvous(from(Some(by), [192, 0, 2, 2], request)).await;
            seen.push(refused(answer(joined), ErrorCode::RendezvousExpired));
        }
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    seen.push(refused(End::opener(&client, 1).put(1, b"x").await, ErrorCode::RendezvousExpired));
    seen.push(refused(answer(client.open_rendezvous(open(1)).await), ErrorCode::RendezvousExpired));
    assert!(seen.iter().all(|error| error == &seen[0]), "{seen:#?}");
    assert!(seen[0].message.contains("begin again on the new device"), "says what to do: {}", seen[0].message);
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_outcome_is_unknown_is_temporary_and_may_be_repeated() {
    let rig = Rig::new(Config::default());
    let mut client = rig.client();
    let lost =
        FaultPlan { tables: TableFaults { answer_lost: 1_000, ..TableFaults::default() }, ..FaultPlan::default() };
    let down =
        FaultPlan { tables: TableFaults { read_timeout: 1_000, ..TableFaults::default() }, ..FaultPlan::default() };
    rig.world.set_faults(lost);
    refused(answer(client.open_rendezvous(open(1)).await), ErrorCode::Temporary);
    refused(answer(client.join_rendezvous(join(1, device(1))).await), ErrorCode::Temporary);
    let (mut new_one, mut first) = (End::opener(&client, 1), End::approver(&client, 1, device(1)));
    refused(new_one.put(1, b"one").await, ErrorCode::Temporary);
    rig.world.set_faults(down);
    refused(first.wait(1, 8_000).await, ErrorCode::Temporary);
    rig.world.set_faults(FaultPlan::default());
    assert_eq!(client.open_rendezvous(open(1)).await.expect("opened before").into_inner().left_ms, 60_000);
    client.join_rendezvous(join(1, device(1))).await.expect("joined before");
    new_one.put(1, b"one").await.expect("put before");
    assert_eq!(first.wait(1, 0).await.expect("there"), "one");
}
