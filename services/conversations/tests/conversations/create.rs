// SPDX-License-Identifier: MIT OR Apache-2.0
//! Create, List, GetRoster of a young conversation.

use bytes::Bytes;
use openmls::prelude::Ciphersuite;
use pli_api::ErrorCode;
use pli_api::conversations::{CreateRequest, GetRosterRequest, ListRequest};
use pli_conversations::Config;
use pli_runtime::limits::Rate;

use crate::device::inline;
use crate::fixture::{Fixture, assert_refused, by};

#[tokio::test]
async fn a_creator_alone_makes_a_conversation_and_asking_again_is_harmless() {
    let mut f = Fixture::new();
    let mut alice = f.device(1, 1);
    let request = alice.begin(&[7; 16]);
    for _ in 0..2 {
        f.client.create(by(alice.address, request.clone())).await.expect("creates");
    }
    let roster = f.roster(&alice.id(), 0).await.expect("known");
    assert!(roster.open);
    assert_eq!((roster.devices, roster.current_epoch), (vec![alice.address.into()], 0));
    let list = f.client.list(by(alice.address, ListRequest::default())).await.expect("lists").into_inner();
    assert_eq!((list.conversations.len(), list.more), (1, false));
    let after = ListRequest { after: alice.id() };
    assert!(f.client.list(by(alice.address, after)).await.expect("lists").into_inner().conversations.is_empty());
}

#[tokio::test]
async fn an_id_belongs_to_the_first_group_with_it() {
    let mut f = Fixture::new();
    let (mut alice, mut bob) = (f.device(1, 1), f.device(2, 2));
    f.client.create(by(alice.address, alice.begin(&[7; 16]))).await.expect("creates");
    let taken = bob.begin(&[7; 16]);
    assert_refused(f.client.create(by(bob.address, taken)).await, ErrorCode::ConversationTaken);
}

#[tokio::test]
async fn a_group_that_is_not_the_callers_alone_at_epoch_0_is_refused() {
    let mut f = Fixture::new();
    let (mut alice, bob) = (f.device(1, 1), f.device(2, 2));
    let good = alice.begin(&[7; 16]);
    let invalid = |group_info: Bytes| CreateRequest { group_info: inline(group_info) };

    let hers = f.client.create(by(bob.address, good.clone())).await;
    assert_refused(hers, ErrorCode::CommitInvalid);
    assert_refused(f.client.create(good.clone()).await, ErrorCode::Anonymous);
    let treeless = invalid(alice.group_info(false));
    let mut forged = alice.group_info(true).to_vec();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let mut long_id = f.device(3, 3);
    let long_id_request = long_id.begin(&[7; 17]);
    alice.commit(&[bob.key_package()], &[]);
    alice.won();
    let later = invalid(alice.group_info(true));
    for bad in [treeless, later, invalid(forged.into()), invalid(Bytes::from_static(&[1; 99]))] {
        assert_refused(f.client.create(by(alice.address, bad)).await, ErrorCode::CommitInvalid);
    }
    assert_refused(f.client.create(by(long_id.address, long_id_request)).await, ErrorCode::CommitInvalid);
    assert_refused(f.client.create(by(alice.address, CreateRequest::default())).await, ErrorCode::BadRequest);
    f.client.create(by(alice.address, good)).await.expect("nothing of that was stored");
}

#[tokio::test]
async fn a_creator_whose_key_is_not_listed_is_refused() {
    let mut f = Fixture::new();
    let mut alice = f.device(1, 1);
    let request = alice.begin(&[7; 16]);
    f.list_key(alice.address, &[9; 32]);
    let error = assert_refused(f.client.create(by(alice.address, request.clone())).await, ErrorCode::DevicesMismatch);
    assert_eq!(error.stale, [alice.address.into()]);
    f.unlist(alice.address);
    let error = assert_refused(f.client.create(by(alice.address, request)).await, ErrorCode::DevicesMismatch);
    assert_eq!(error.extra, [alice.address.into()]);
}

#[tokio::test]
async fn conversations_of_the_suite_against_quantum_computers_are_made_where_the_server_is_set_to() {
    let suite = Ciphersuite::MLS_128_MLKEM768X25519_AES128GCM_SHA256_Ed25519;
    let mut f = Fixture::new();
    let mut alice = f.device(1, 1);
    let request = alice.begin_of(suite, &[7; 16]);
    let error = assert_refused(f.client.create(by(alice.address, request)).await, ErrorCode::CommitInvalid);
    assert!(error.message.contains("directory.post_quantum"), "{}", error.message);

    let mut f = Fixture::with(Config { post_quantum: true, ..Config::default() });
    let mut alice = f.device(1, 1);
    let request = alice.begin_of(suite, &[7; 16]);
    f.client.create(by(alice.address, request)).await.expect("made");
    let request = alice.commit(&[], &[]);
    f.client.commit(by(alice.address, request)).await.expect("followed");
}

#[tokio::test]
async fn changes_are_limited_by_account() {
    let mut f = Fixture::with(Config { changes_per_account: Rate::new(1, 1), ..Config::default() });
    let mut alice = f.device(1, 1);
    let request = alice.begin(&[7; 16]);
    f.client.create(by(alice.address, request.clone())).await.expect("creates");
    let error = assert_refused(f.client.create(by(alice.address, request)).await, ErrorCode::RateLimited);
    assert_eq!(error.limit, "changes_per_account");
    assert!(error.retry_after_ms > 0);
}

#[tokio::test]
async fn rosters_are_for_edges_only_and_unknown_conversations_have_none() {
    let mut f = Fixture::new();
    let mut alice = f.device(1, 1);
    f.conversation(7, &mut [&mut alice]).await;
    let request = GetRosterRequest { conversation: alice.id(), epoch: 0, accepted_before: false };
    assert_refused(f.client.get_roster(by(alice.address, request)).await, ErrorCode::UnknownMethod);
    let unknown = f.roster(&Bytes::from_static(&[9; 16]), 0).await.expect_err("unknown");
    assert_eq!(unknown.code(), ErrorCode::UnknownConversation);
    let ahead = f.roster(&alice.id(), 1).await.expect_err("ahead");
    assert_eq!((ahead.code(), ahead.current_epoch), (ErrorCode::WrongEpoch, 0));
    let malformed = f.roster(&Bytes::from_static(b"x"), 0).await.expect_err("malformed");
    assert_eq!(malformed.code(), ErrorCode::BadRequest);
}
