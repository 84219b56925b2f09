// SPDX-License-Identifier: MIT OR Apache-2.0
//! Groups whose objects do not fit a frame.

use bytes::Bytes;
use openmls::prelude::{Ciphersuite, KeyPackage};
use pli_api::ErrorCode;
use pli_api::common::PayloadRef;
use pli_api::conversations::{CommitRequest, FetchPayloadRequest, Object, PutPayloadRequest, object};
use pli_api::log::Content;
use pli_api::log::envelope::BodyOrRef;
use pli_conversations::Config;
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
) -> (DeviceAddress, CommitRequest) {
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
    let next = CommitRequest { group_info: store(&mut f, bob.address, 103, &bytes_of(&next.group_info)).await, ..next };
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
    assert!(error.message.contains("remove people, or devices that nobody uses any more"), "{}", error.message);
    f.unlist(one_more.address);
    packages.pop();
    alice.lost();
    let request = by_reference(&mut f, &mut alice, &packages, 200).await;
    assert_eq!(f.commit(request.0, request.1).await, Ok(1));
    assert_eq!(f.roster(&alice.id(), 1).await.expect("known").devices.len(), 1_000);
}

/// A commit that adds the devices of these, its welcome, and its objects by reference from `id` on.
async fn adds(f: &mut Fixture, device: &mut Device, packages: &[KeyPackage], id: u8) -> (CommitRequest, Bytes) {
    let mut request = device.commit(packages, &[]);
    let welcome = request.welcome.as_ref().map_or_else(Bytes::new, |_| bytes_of(&request.welcome));
    let all = [&mut request.welcome, &mut request.group_info, &mut request.commit];
    for (n, object) in all.into_iter().enumerate().filter(|(_, object)| object.is_some()) {
        let bytes = bytes_of(object);
        *object = store(f, device.address, id + n as u8, &bytes).await;
    }
    (request, welcome)
}

/// The size of the public state as it is stored.
async fn state_bytes(f: &Fixture, device: &Device) -> u64 {
    let head = f.world.conversations().head(device.conversation()).await.expect("reads").expect("known");
    head.state.len() as u64
}

/// Keys of suite 0x004F are so long that bytes bound a group before the number of its devices does; here at a sixteenth of
/// the bytes.
#[tokio::test]
async fn a_group_of_long_keys_takes_devices_in_up_to_half_its_bytes_and_has_room_for_all_their_renewals() {
    const STATE_BYTES_MAX: u64 = 256 * 1024;
    let suite = Ciphersuite::MLS_128_MLKEM768X25519_AES128GCM_SHA256_Ed25519;
    let config = Config { post_quantum: true, state_bytes_max: STATE_BYTES_MAX, ..Config::default() };
    let mut f = Fixture::with(config);
    let mut alice = f.device(1, 1);
    f.client.create(by(alice.address, alice.begin_of(suite, &[7; 16]))).await.expect("made");
    let mut crowd: Vec<Device> = (2..42).map(|n| f.device(n, n)).collect();
    let packages: Vec<_> = crowd.iter().map(|device| device.key_package_of(suite)).collect();
    let (mut id, mut refusals) = (1, 0);
    let welcome = loop {
        let (request, welcome) = adds(&mut f, &mut alice, &packages[..crowd.len()], id).await;
        let answer = f.client.commit(by(alice.address, request)).await;
        if answer.is_ok() {
            break welcome;
        }
        let error = assert_refused(answer, ErrorCode::GroupTooLarge);
        assert!(error.message.contains("keys of this suite are too long"), "{}", error.message);
        alice.lost();
        (id, refusals) = (id + 3, refusals + 1);
        crowd.drain(crowd.len() - 3..).for_each(|device| f.unlist(device.address));
    };
    alice.won();
    let young = state_bytes(&f, &alice).await;
    println!("{} devices: {young} bytes after {refusals} refusals", crowd.len() + 1);
    assert!(refusals > 0 && (STATE_BYTES_MAX / 3..=STATE_BYTES_MAX / 2).contains(&young), "{young}");
    crowd.iter_mut().for_each(|device| device.join(&welcome));
    crowd.push(alice);
    for n in 0..crowd.len() {
        let mut renewing = crowd.remove(n);
        let (request, _) = adds(&mut f, &mut renewing, &[], 30 + 3 * n as u8).await;
        let commit = loaded(&mut f, renewing.address, &request).await;
        assert_eq!(f.commit(renewing.address, request).await, Ok(renewing.epoch() + 1), "renewal {n}");
        renewing.won();
        crowd.iter_mut().for_each(|device| device.receive(&commit));
        crowd.insert(n, renewing);
    }
    let settled = state_bytes(&f, &crowd[0]).await;
    println!("and {settled} bytes when all have renewed their keys");
    assert!(settled > young && settled <= STATE_BYTES_MAX, "{settled}");
    // It is full; who leaves makes room.
    let last = f.device(99, 99);
    let package = last.key_package_of(suite);
    let (request, _) = adds(&mut f, &mut crowd[0], &[package], 220).await;
    assert_refused(f.client.commit(by(crowd[0].address, request)).await, ErrorCode::GroupTooLarge);
}

/// The bytes of a commit that is offered by reference.
async fn loaded(f: &mut Fixture, caller: DeviceAddress, request: &CommitRequest) -> Bytes {
    match request.commit.as_ref().and_then(|commit| commit.object.as_ref()) {
        Some(object::Object::Ref(reference)) => load(f, caller, &reference.clone()).await,
        _ => bytes_of(&request.commit),
    }
}
