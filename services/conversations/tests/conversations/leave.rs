// SPDX-License-Identifier: MIT OR Apache-2.0
//! Proposals to leave.

use bytes::Bytes;
use pli_api::ErrorCode;
use pli_api::conversations::ProposeRequest;
use pli_api::log::Content;
use pli_api::log::envelope::BodyOrRef;

use crate::device::Device;
use crate::fixture::{Fixture, assert_refused, by};

fn proposal(of: &Device, proposal: Bytes) -> ProposeRequest {
    ProposeRequest { conversation: of.id(), epoch: of.epoch(), proposal, send_id: Bytes::from_static(&[5; 16]) }
}

#[tokio::test]
async fn who_wants_to_leave_is_heard_by_everybody_and_committed_by_reference() {
    let mut f = Fixture::new();
    let (mut alice, mut bob, mut carol) = (f.device(1, 1), f.device(2, 2), f.device(3, 3));
    f.conversation(7, &mut [&mut alice, &mut bob, &mut carol]).await;
    let leave = bob.leave();
    let request = proposal(&bob, leave.clone());
    for _ in 0..2 {
        f.client.propose(by(bob.address, request.clone())).await.expect("brought");
    }
    let delivered = f.delivered().await;
    let heard = delivered[&alice.address].last().expect("one");
    assert_eq!((heard.content(), heard.epoch, heard.send_id.as_ref()), (Content::Proposal, 1, &[5; 16][..]));
    assert_eq!(heard.body_or_ref, Some(BodyOrRef::Body(leave.clone())));
    assert_eq!(f.told(carol.address).await, [(Content::Welcome, 1), (Content::Proposal, 1)]);
    assert_eq!(f.told(bob.address).await, [(Content::Welcome, 1)]);

    alice.receive(&leave);
    let request = alice.commit(&[], &[]);
    assert_eq!(f.commit(alice.address, request).await, Ok(2));
    alice.won();
    assert_eq!(f.roster(&alice.id(), 2).await.expect("known").devices.len(), 2);
    assert_eq!(f.told(bob.address).await.last(), Some(&(Content::Commit, 1)));

    let late = ProposeRequest { epoch: 1, ..proposal(&carol, leave) };
    let error = assert_refused(f.client.propose(by(carol.address, late)).await, ErrorCode::WrongEpoch);
    assert_eq!(error.current_epoch, 2);
}

#[tokio::test]
async fn a_commit_that_refers_to_what_was_never_proposed_is_refused() {
    let mut f = Fixture::new();
    let (mut alice, mut bob) = (f.device(1, 1), f.device(2, 2));
    f.conversation(7, &mut [&mut alice, &mut bob]).await;
    alice.receive(&bob.leave());
    let request = alice.commit(&[], &[]);
    assert_refused(f.client.commit(by(alice.address, request)).await, ErrorCode::CommitInvalid);
}

#[tokio::test]
async fn only_a_members_own_wish_to_leave_is_a_proposal() {
    let mut f = Fixture::new();
    let (mut alice, mut bob) = (f.device(1, 1), f.device(2, 2));
    f.conversation(7, &mut [&mut alice, &mut bob]).await;
    let leave = bob.leave();
    let by_alice = proposal(&alice, leave.clone());
    assert_refused(f.client.propose(by(alice.address, by_alice)).await, ErrorCode::CommitInvalid);

    let bob_leaf = alice.group().members().find(|m| m.signature_key == bob.signer.public()).expect("there").index;
    let Device { group, provider, signer, .. } = &mut alice;
    let (removal, _) = group.as_mut().expect("in").propose_remove_member(provider, signer, bob_leaf).expect("proposes");
    let removal = proposal(&alice, crate::device::to_bytes(removal));
    assert_refused(f.client.propose(by(alice.address, removal)).await, ErrorCode::CommitInvalid);

    let garbage = proposal(&bob, Bytes::from_static(&[1; 64]));
    assert_refused(f.client.propose(by(bob.address, garbage)).await, ErrorCode::CommitInvalid);
    let large = proposal(&bob, Bytes::from(vec![0; 9_000]));
    assert_refused(f.client.propose(by(bob.address, large)).await, ErrorCode::BadRequest);
    let stranger = f.device(9, 9);
    let refused = f.client.propose(by(stranger.address, proposal(&bob, leave))).await;
    assert_refused(refused, ErrorCode::UnknownConversation);
    assert_eq!(f.told(alice.address).await, [(Content::Commit, 0)], "no proposal came");
}
