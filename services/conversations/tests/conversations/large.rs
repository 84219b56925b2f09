// SPDX-License-Identifier: MIT OR Apache-2.0
//! Groups whose objects do not fit a frame.

use bytes::Bytes;
use openmls::prelude::KeyPackage;
use pli_api::ErrorCode;
use pli_api::common::PayloadRef;
use pli_api::conversations::{FetchPayloadRequest, Object, PutPayloadRequest, object};
use pli_api::log::Content;
use pli_api::log::envelope::BodyOrRef;
use pli_domain::DeviceAddress;
use pli_ports::Conversations;
use sha2::{Digest, Sha256};

use crate::device::{Device, bytes_of};
use crate::fixture::{Fixture, assert_refused, by};

const PAGE: usize = 48 * 1024;

async fn store(f: &mut Fixture, caller: DeviceAddress, id: u8, whole: &Bytes) -> Option<Object> {
    let id = Bytes::copy_from_slice(&[id; 16]);
    for offset in (0..whole.len()).step_by(PAGE) {
        let bytes = whole.slice(offset..whole.len().min(offset + PAGE));
        let page = PutPayloadRequest { id: id.clone(), bytes, offset: offset as u64, size: whole.len() as u64 };
        f.client.put_payload(by(caller, page)).await.expect("stored");
    }
    let sha256 = Bytes::copy_from_slice(&Sha256::digest(whole));
    Some(Object { object: Some(object::Object::Ref(PayloadRef { id, size: whole.len() as u64, sha256 })) })
}

async fn load(f: &mut Fixture, caller: DeviceAddress, reference: &PayloadRef) -> Bytes {
    let mut whole = Vec::new();
    while (whole.len() as u64) < reference.size {
        let request = FetchPayloadRequest { id: reference.id.clone(), offset: whole.len() as u64 };
        let page = f.client.fetch_payload(by(caller, request)).await.expect("there").into_inner();
        whole.extend_from_slice(&page.bytes);
    }
    assert_eq!(Sha256::digest(&whole).as_slice(), reference.sha256.as_ref());
    whole.into()
}

/// A commit that adds these, its objects stored as payloads from `id` on.
async fn by_reference(
    f: &mut Fixture,
    device: &mut Device,
    packages: &[KeyPackage],
    id: u8,
) -> (DeviceAddress, pli_api::conversations::CommitRequest) {
    let mut request = device.commit(packages, &[]);
    for (n, object) in [&mut request.welcome, &mut request.group_info, &mut request.commit].into_iter().enumerate() {
        let whole = bytes_of(object);
        *object = store(f, device.address, id + n as u8, &whole).await;
    }
    (device.address, request)
}

fn many(f: &Fixture, count: u8) -> (Vec<Device>, Vec<KeyPackage>) {
    let devices: Vec<_> = (0..count).map(|n| f.device(n.wrapping_add(2), n.wrapping_add(2))).collect();
    let packages = devices.iter().map(Device::key_package).collect();
    (devices, packages)
}

#[tokio::test]
async fn the_largest_group_has_its_welcome_and_tree_by_reference_and_goes_on() {
    let mut f = Fixture::new();
    let mut alice = f.device(1, 1);
    f.conversation(7, &mut [&mut alice]).await;
    let (mut devices, packages) = many(&f, 249);
    let mut request = alice.commit(&packages, &[]);
    let (welcome, info) = (bytes_of(&request.welcome), bytes_of(&request.group_info));
    assert!(welcome.len() > PAGE, "{}", welcome.len());
    request.welcome = store(&mut f, alice.address, 100, &welcome).await;
    request.group_info = store(&mut f, alice.address, 101, &info).await;
    request.commit = store(&mut f, alice.address, 102, &bytes_of(&request.commit)).await;

    let mut wrong = request.clone();
    if let Some(Object { object: Some(object::Object::Ref(reference)) }) = &mut wrong.welcome {
        reference.sha256 = Bytes::copy_from_slice(&[0; 32]);
    }
    assert_refused(f.client.commit(by(alice.address, wrong)).await, ErrorCode::BadRequest);
    assert_eq!(f.commit(alice.address, request).await, Ok(1));
    alice.won();

    let told = f.delivered().await;
    let envelope = &told[&devices[50].address][0];
    let Some(BodyOrRef::BodyRef(reference)) = &envelope.body_or_ref else { panic!("inline: {envelope:?}") };
    assert_eq!(envelope.content(), Content::Welcome);
    let bob = &mut devices[50];
    let fetched = load(&mut f, bob.address, &reference.clone()).await;
    bob.join(&fetched);
    assert_eq!(bob.secret(), alice.secret());

    let next = bob.commit(&[], &[alice.address]);
    let next = pli_api::conversations::CommitRequest {
        group_info: store(&mut f, bob.address, 103, &bytes_of(&next.group_info)).await,
        ..next
    };
    assert_eq!(f.commit(bob.address, next).await, Ok(2));
    let given = f.group_info(devices[51].address, &alice.id()).await;
    assert!(matches!(given.ratchet_tree, Some(Object { object: Some(object::Object::Ref(_)) })), "large tree");
}

#[tokio::test]
async fn the_stored_state_stays_near_the_size_of_the_tree() {
    let mut f = Fixture::new();
    let mut alice = f.device(1, 1);
    f.conversation(7, &mut [&mut alice]).await;
    let (_, packages) = many(&f, 60);
    let request = alice.commit(&packages, &[]);
    assert_eq!(f.commit(alice.address, request).await, Ok(1));
    let head = f.world.conversations().head(alice.conversation()).await.expect("reads").expect("known");
    println!("state of 61 leaves: {} bytes", head.state.len());
    assert!(head.state.len() < 61 * 2_048, "{}", head.state.len());
}

#[tokio::test]
async fn a_group_of_more_accounts_than_allowed_is_refused() {
    let mut f = Fixture::new();
    let mut alice = f.device(1, 1);
    f.conversation(7, &mut [&mut alice]).await;
    let (_, packages) = many(&f, 250);
    let mut request = alice.commit(&packages, &[]);
    request.welcome = store(&mut f, alice.address, 100, &bytes_of(&request.welcome)).await;
    request.group_info = store(&mut f, alice.address, 101, &bytes_of(&request.group_info)).await;
    request.commit = store(&mut f, alice.address, 102, &bytes_of(&request.commit)).await;
    let error = assert_refused(f.client.commit(by(alice.address, request)).await, ErrorCode::GroupTooLarge);
    assert!(error.message.contains("add fewer people"), "{}", error.message);
}

#[tokio::test]
async fn a_group_of_a_thousand_devices_is_taken_and_one_more_is_not() {
    let mut f = Fixture::new();
    let mut alice = f.device(1, 1);
    f.conversation(7, &mut [&mut alice]).await;
    let others = (1..=250).flat_map(|account| (1..=4).map(move |device| (account, device))).skip(1);
    let mut packages: Vec<_> = others.map(|(account, device)| f.device(account, device).key_package()).collect();
    let one_more = f.device(250, 5);
    packages.push(one_more.key_package());
    let request = by_reference(&mut f, &mut alice, &packages, 100).await;
    let error = assert_refused(f.client.commit(by(request.0, request.1)).await, ErrorCode::GroupTooLarge);
    assert!(error.message.contains("1001 devices"), "{}", error.message);
    f.unlist(one_more.address);
    packages.pop();
    alice.lost();
    let request = by_reference(&mut f, &mut alice, &packages, 200).await;
    assert_eq!(f.commit(request.0, request.1).await, Ok(1));
    assert_eq!(f.roster(&alice.id(), 1).await.expect("known").devices.len(), 1_000);
}
