// SPDX-License-Identifier: MIT OR Apache-2.0
//! External commits.

use pli_api::ErrorCode;
use pli_api::conversations::GetGroupInfoRequest;
use pli_api::log::Content;

use crate::device::{Device, bytes_of};
use crate::fixture::{Fixture, assert_refused, by};

#[tokio::test]
async fn a_device_that_lost_its_state_comes_back_in_its_own_place() {
    let mut f = Fixture::new();
    let (mut alice, mut bob) = (f.device(1, 1), f.device(2, 2));
    f.conversation(7, &mut [&mut alice, &mut bob]).await;
    for _ in 0..3 {
        let request = alice.commit(&[], &[]);
        f.commit(alice.address, request).await.expect("wins");
        alice.won();
    }
    let id = alice.id();
    bob.group = None;
    let given = f.group_info(bob.address, &id).await;
    assert_eq!(given.epoch, 4);
    let mut fresh = Device::new(2, 2);
    std::mem::swap(&mut fresh.signer, &mut bob.signer);
    let request = fresh.rejoin(&given);
    assert_eq!(f.commit(bob.address, request.clone()).await, Ok(5));
    alice.receive(&bytes_of(&request.commit));
    assert_eq!(alice.secret(), fresh.secret());
    assert_eq!(f.roster(&id, 5).await.expect("known").devices.len(), 2, "not twice in the group");
    assert_eq!(f.told(alice.address).await.last(), Some(&(Content::Commit, 4)));
}

#[tokio::test]
async fn another_listed_device_of_a_member_joins_by_itself_and_nobody_else_does() {
    let mut f = Fixture::new();
    let (mut alice, mut bob) = (f.device(1, 1), f.device(2, 2));
    f.conversation(7, &mut [&mut alice, &mut bob]).await;
    let id = alice.id();
    let given = f.group_info(bob.address, &id).await;

    let mut mallory = f.device(9, 9);
    let request = mallory.rejoin(&given);
    let info = GetGroupInfoRequest { conversation: id.clone() };
    assert_refused(f.client.get_group_info(by(mallory.address, info)).await, ErrorCode::UnknownConversation);
    let refused = f.client.commit(by(mallory.address, request.clone())).await;
    assert_refused(refused, ErrorCode::UnknownConversation);
    assert_refused(f.client.commit(by(bob.address, request)).await, ErrorCode::CommitInvalid);

    let mut unlisted = Device::new(2, 23);
    let request = unlisted.rejoin(&given);
    let error = assert_refused(f.client.commit(by(unlisted.address, request)).await, ErrorCode::DeviceRemoved);
    assert!(error.message.contains("link it again as a new one"), "{}", error.message);

    let mut tablet = f.device(2, 22);
    let request = tablet.rejoin(&given);
    assert_eq!(f.commit(tablet.address, request.clone()).await, Ok(2));
    alice.receive(&bytes_of(&request.commit));
    assert_eq!(alice.secret(), tablet.secret());
}

#[tokio::test]
async fn a_device_does_not_get_a_second_leaf() {
    let mut f = Fixture::new();
    let (mut alice, mut bob) = (f.device(1, 1), f.device(2, 2));
    f.conversation(7, &mut [&mut alice, &mut bob]).await;
    let given = f.group_info(bob.address, &alice.id()).await;
    // Other keys, so that its old leaf is not recognised and stays.
    let mut twin = Device::new(2, 2);
    f.list(&twin);
    let request = twin.rejoin(&given);
    let error = assert_refused(f.client.commit(by(bob.address, request)).await, ErrorCode::CommitInvalid);
    assert!(error.message.contains("two leaves"), "{}", error.message);
}
