// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commits that add and remove, and what they must be.

use bytes::Bytes;
use pli_api::ErrorCode;
use pli_api::conversations::{GetCommitsRequest, GetGroupInfoRequest, GetRosterRequest, ReportFailureRequest};
use pli_api::log::Content;
use pli_api::log::envelope::BodyOrRef;
use pli_conversations::Config;
use pli_domain::limits::GROUP_DEVICES_MAX;
use pli_domain::{DeviceAddress, DeviceId};

use crate::device::{bytes_of, inline};
use crate::fixture::{Fixture, assert_refused, by};

fn sorted(devices: &[DeviceAddress]) -> Vec<pli_api::common::DeviceAddress> {
    let mut devices = devices.to_vec();
    devices.sort();
    devices.into_iter().map(Into::into).collect()
}

#[tokio::test]
async fn added_devices_get_the_welcome_and_everybody_else_the_commit() {
    let mut f = Fixture::new();
    let (mut alice, mut bob, mut carol) = (f.device(1, 1), f.device(2, 2), f.device(3, 3));
    f.conversation(7, &mut [&mut alice, &mut bob]).await;
    assert_eq!(f.told(bob.address).await, [(Content::Welcome, 1)]);
    assert_eq!(f.told(alice.address).await, [(Content::Commit, 0)], "it comes back to its committer");

    let request = bob.commit(&[carol.key_package()], &[]);
    assert_eq!(f.commit(bob.address, request).await, Ok(2));
    bob.won();
    assert_eq!(f.told(alice.address).await, [(Content::Commit, 0), (Content::Commit, 1)]);
    assert_eq!(f.told(carol.address).await, [(Content::Welcome, 2)]);

    let delivered = f.delivered().await;
    let body = |device: DeviceAddress| match &delivered[&device].last().expect("one").body_or_ref {
        Some(pli_api::log::envelope::BodyOrRef::Body(body)) => body.clone(),
        other => panic!("not inline: {other:?}"),
    };
    alice.receive(&body(alice.address));
    carol.join(&body(carol.address));
    assert_eq!((alice.secret(), carol.secret()), (bob.secret(), bob.secret()));
    let roster = f.roster(&alice.id(), 2).await.expect("known");
    assert_eq!(roster.devices, sorted(&[alice.address, bob.address, carol.address]));
    assert!(!roster.fan_out, "three are few");
}

#[tokio::test]
async fn a_commit_of_a_group_on_many_shards_is_left_to_its_fan_out_worker_and_the_welcome_is_not() {
    let mut f = Fixture::with(Config { fan_out_above_shards: 0, ..Config::default() });
    let (mut alice, mut bob, carol) = (f.device(1, 1), f.device(2, 2), f.device(3, 3));
    f.conversation(7, &mut [&mut alice, &mut bob]).await;
    let request = alice.commit(&[carol.key_package()], &[]);
    assert_eq!(f.commit(alice.address, request).await, Ok(2));
    alice.won();
    for device in [bob.address, carol.address] {
        assert!(f.told(device).await.iter().all(|(content, _)| *content == Content::Welcome));
    }
    assert_eq!(f.to_spread(&alice.id()).await, [(Content::Commit, 0), (Content::Commit, 1)]);
    assert!(f.roster(&alice.id(), 2).await.expect("known").fan_out, "edges are told");
}

#[tokio::test]
async fn a_removed_device_is_told_and_then_sees_nothing_more() {
    let mut f = Fixture::new();
    let (mut alice, mut bob, mut carol) = (f.device(1, 1), f.device(2, 2), f.device(3, 3));
    f.conversation(7, &mut [&mut alice, &mut bob, &mut carol]).await;
    let request = alice.commit(&[], &[bob.address]);
    let commit = bytes_of(&request.commit);
    assert_eq!(f.commit(alice.address, request).await, Ok(2));
    alice.won();
    assert_eq!(f.told(bob.address).await, [(Content::Welcome, 1), (Content::Commit, 1)]);
    carol.receive(&commit);
    assert_eq!(f.roster(&alice.id(), 2).await.expect("known").devices, sorted(&[alice.address, carol.address]));
    assert_eq!(f.roster(&alice.id(), 1).await.expect("still known").devices.len(), 3);

    let id = alice.id();
    let late = bob.commit(&[], &[carol.address]);
    assert_refused(f.client.commit(by(bob.address, late)).await, ErrorCode::UnknownConversation);
    let info = GetGroupInfoRequest { conversation: id.clone() };
    assert_refused(f.client.get_group_info(by(bob.address, info)).await, ErrorCode::UnknownConversation);
    let commits = GetCommitsRequest { conversation: id, from: 0 };
    assert_refused(f.client.get_commits(by(bob.address, commits)).await, ErrorCode::UnknownConversation);
}

#[tokio::test]
async fn a_device_that_its_account_removed_commits_nothing_although_the_group_still_has_it() {
    let mut f = Fixture::new();
    let (mut alice, mut bob, mut tablet) = (f.device(1, 1), f.device(2, 2), f.device(2, 22));
    f.conversation(7, &mut [&mut alice, &mut bob, &mut tablet]).await;
    f.unlist(tablet.address);
    let commit = tablet.commit(&[], &[]);
    let error = assert_refused(f.client.commit(by(tablet.address, commit)).await, ErrorCode::DeviceRemoved);
    assert!(error.message.contains("link it again as a new one"), "{}", error.message);
    let removal = bob.commit(&[], &[tablet.address]);
    assert_eq!(f.commit(bob.address, removal).await, Ok(2), "the others go on");
}

#[tokio::test]
async fn strangers_and_members_of_nothing_get_one_answer() {
    let mut f = Fixture::new();
    let (mut alice, mut mallory) = (f.device(1, 1), f.device(9, 9));
    f.conversation(7, &mut [&mut alice]).await;
    mallory.begin(&[7; 16]);
    let real = mallory.commit(&[], &[]);
    let mut unreal = real.clone();
    unreal.conversation = Bytes::from_static(&[8; 16]);
    let one = assert_refused(f.client.commit(by(mallory.address, real)).await, ErrorCode::UnknownConversation);
    let other = assert_refused(f.client.commit(by(mallory.address, unreal)).await, ErrorCode::UnknownConversation);
    assert_eq!(one, other);
    assert!(one.message.contains("ask a member to add you"), "{}", one.message);
}

#[tokio::test]
async fn epochs_out_of_turn_are_told_the_current_one() {
    let mut f = Fixture::new();
    let (mut alice, mut bob) = (f.device(1, 1), f.device(2, 2));
    f.conversation(7, &mut [&mut alice, &mut bob]).await;
    let mut ahead = alice.commit(&[], &[]);
    alice.lost();
    ahead.epoch = 9;
    let error = assert_refused(f.client.commit(by(alice.address, ahead)).await, ErrorCode::WrongEpoch);
    assert_eq!(error.current_epoch, 1);

    let mut lying = alice.commit(&[], &[]);
    alice.lost();
    let (old, older) = (bob.commit(&[], &[]), lying.clone());
    assert_eq!(f.commit(bob.address, old.clone()).await, Ok(2));
    let lost = f.commit(alice.address, older).await.expect_err("late");
    assert_eq!((lost.current_epoch, lost.missed.len()), (2, 1));
    assert_eq!(bytes_of(&lost.missed[0].commit), bytes_of(&old.commit));
    assert_eq!(lost.missed[0].committer, Some(bob.address.into()));
    lying.epoch = 2;
    assert_refused(f.client.commit(by(alice.address, lying)).await, ErrorCode::CommitInvalid);
}

#[tokio::test]
async fn the_winner_may_ask_again_even_after_others_went_on() {
    let mut f = Fixture::new();
    let (mut alice, mut bob) = (f.device(1, 1), f.device(2, 2));
    f.conversation(7, &mut [&mut alice, &mut bob]).await;
    let request = alice.commit(&[], &[]);
    for _ in 0..2 {
        assert_eq!(f.commit(alice.address, request.clone()).await, Ok(2));
    }
    alice.won();
    bob.receive(&bytes_of(&request.commit));
    let removal = bob.commit(&[], &[alice.address]);
    assert_eq!(f.commit(bob.address, removal).await, Ok(3));
    assert_eq!(f.commit(alice.address, request).await, Ok(2), "though she is out by now");
}

/// A device that is listed and has never connected has no key packages.
#[tokio::test]
async fn no_change_waits_for_a_device_that_nobody_can_add_and_a_removal_for_none() {
    let mut f = Fixture::new();
    let (mut alice, mut bob, mut carol) = (f.device(1, 1), f.device(2, 2), f.device(3, 3));
    f.conversation(7, &mut [&mut alice, &mut bob, &mut carol]).await;
    let never_seen = f.device(2, 22);
    let removal = alice.commit(&[], &[carol.address]);
    assert_eq!(f.commit(alice.address, removal.clone()).await, Ok(2));
    alice.won();
    bob.receive(&bytes_of(&removal.commit));
    // What brings in devices of an account has to bring in all that can be added, and what stays has to be right.
    let (dave, erin) = (f.device(4, 4), f.device(5, 5));
    let bare = f.device(2, 23);
    f.is_bare(bare.address);
    let second = f.device(4, 44);
    let incomplete = alice.commit(&[dave.key_package()], &[]);
    alice.lost();
    let error = assert_refused(f.client.commit(by(alice.address, incomplete)).await, ErrorCode::DevicesMismatch);
    assert_eq!(error.missing, [second.address.into()]);
    let renewal = alice.commit(&[], &[]);
    assert_eq!(f.commit(alice.address, renewal).await, Ok(3), "keys are renewed whatever others list");
    alice.won();
    let others = alice.commit(&[erin.key_package()], &[]);
    assert_eq!(f.commit(alice.address, others).await, Ok(4), "nobody waits for what a member lists");
    alice.won();
    let without_bare = alice.commit(&[never_seen.key_package()], &[]);
    assert_eq!(f.commit(alice.address, without_bare).await, Ok(5));
    alice.won();
    f.unlist(bob.address);
    let keeping = alice.commit(&[bare.key_package()], &[]);
    alice.lost();
    let error = assert_refused(f.client.commit(by(alice.address, keeping)).await, ErrorCode::DevicesMismatch);
    assert_eq!(error.extra, [bob.address.into()]);
}

/// Whoever commits chooses whose devices are missing, which may be thousands that have published nothing.
#[tokio::test]
async fn the_directory_is_asked_about_no_more_devices_than_a_group_may_have() {
    let mut f = Fixture::new();
    let (mut alice, mallory) = (f.device(1, 1), f.device(2, 1));
    f.conversation(7, &mut [&mut alice]).await;
    for n in 0..3_000_u16 {
        let mut id = [9; 16];
        id[..2].copy_from_slice(&n.to_be_bytes());
        let device = DeviceAddress { account: mallory.address.account, device: DeviceId::from_bytes(id) };
        f.list_key(device, &[9; 32]);
        f.is_bare(device);
    }
    let commit = alice.commit(&[mallory.key_package()], &[]);
    assert_eq!(f.commit(alice.address, commit).await, Ok(1), "none of them could be added");
    assert_eq!(f.asked(), GROUP_DEVICES_MAX);
}

#[tokio::test]
async fn a_group_must_have_exactly_the_devices_of_its_members() {
    let mut f = Fixture::new();
    let (mut alice, mut bob) = (f.device(1, 1), f.device(2, 2));
    f.conversation(7, &mut [&mut alice, &mut bob]).await;

    let (tablet, laptop) = (f.device(2, 22), f.device(2, 23));
    let without = alice.commit(&[laptop.key_package()], &[]);
    alice.lost();
    let error = assert_refused(f.client.commit(by(alice.address, without)).await, ErrorCode::DevicesMismatch);
    assert_eq!((error.missing, error.extra.len()), (vec![tablet.address.into()], 0));
    f.unlist(laptop.address);
    let with = alice.commit(&[tablet.key_package()], &[]);
    assert_eq!(f.commit(alice.address, with).await, Ok(2));
    alice.won();

    f.unlist(tablet.address);
    let keeping = alice.commit(&[], &[]);
    alice.lost();
    let error = assert_refused(f.client.commit(by(alice.address, keeping)).await, ErrorCode::DevicesMismatch);
    assert_eq!(error.extra, [tablet.address.into()]);

    f.list_key(bob.address, &[9; 32]);
    let stale = alice.commit(&[], &[tablet.address]);
    alice.lost();
    let error = assert_refused(f.client.commit(by(alice.address, stale)).await, ErrorCode::DevicesMismatch);
    assert_eq!(error.stale, [bob.address.into()]);
    let removing = alice.commit(&[], &[tablet.address, bob.address]);
    assert_eq!(f.commit(alice.address, removing).await, Ok(3));
}

#[tokio::test]
async fn missed_commits_come_in_order_and_within_a_frame() {
    let mut f = Fixture::new();
    let (mut alice, mut bob) = (f.device(1, 1), f.device(2, 2));
    f.conversation(7, &mut [&mut alice, &mut bob]).await;
    for _ in 0..70 {
        let request = alice.commit(&[], &[]);
        f.commit(alice.address, request).await.expect("wins");
        alice.won();
    }
    let (mut from, mut calls) = (1, 0);
    while from < 71 {
        let request = GetCommitsRequest { conversation: alice.id(), from };
        let answer = f.client.get_commits(by(bob.address, request)).await.expect("given").into_inner();
        assert_eq!((answer.current_epoch, answer.gone), (71, false));
        assert!((1..=64).contains(&answer.commits.len()), "{}", answer.commits.len());
        for commit in &answer.commits {
            assert_eq!(commit.epoch, from);
            bob.receive(&bytes_of(&commit.commit));
            from += 1;
        }
        calls += 1;
    }
    assert!(calls >= 2);
    assert_eq!(bob.secret(), alice.secret());
    let request = GetCommitsRequest { conversation: alice.id(), from: u64::MAX };
    assert!(f.client.get_commits(by(bob.address, request)).await.expect("given").into_inner().commits.is_empty());
    let too_old = f.roster(&alice.id(), 68).await.expect_err("three behind");
    assert_eq!((too_old.code(), too_old.current_epoch), (ErrorCode::WrongEpoch, 71));
    assert!(f.roster(&alice.id(), 69).await.expect("two behind").open);
    for epoch in [1, 68, 71] {
        let accepted_before = GetRosterRequest { conversation: alice.id(), epoch, accepted_before: true };
        let roster = f.client.get_roster(accepted_before).await.expect("given").into_inner();
        assert!(roster.open && !roster.devices.is_empty(), "{epoch}");
    }
    let ahead = GetRosterRequest { conversation: alice.id(), epoch: 72, accepted_before: true };
    assert_refused(f.client.get_roster(ahead).await, ErrorCode::WrongEpoch);
}

#[tokio::test]
async fn a_device_that_cannot_process_a_commit_can_say_so() {
    let mut f = Fixture::new();
    let (mut alice, stranger) = (f.device(1, 1), f.device(2, 2));
    f.conversation(7, &mut [&mut alice]).await;
    let report = |reason: &str| ReportFailureRequest {
        conversation: alice.id(),
        epoch: 0,
        reason: reason.into(),
        renew: Vec::new(),
    };
    f.client.report_failure(by(alice.address, report("tree_hash"))).await.expect("taken");
    for bad in ["two words", "Ärger", &"x".repeat(65)] {
        assert_refused(f.client.report_failure(by(alice.address, report(bad))).await, ErrorCode::BadRequest);
    }
    let refused = f.client.report_failure(by(stranger.address, report("x"))).await;
    assert_refused(refused, ErrorCode::UnknownConversation);
}

#[tokio::test]
async fn whoever_lost_the_thread_asks_members_of_the_newest_epoch_to_renew_their_keys() {
    let mut f = Fixture::new();
    let (mut alice, mut bob, mut carol) = (f.device(1, 1), f.device(2, 2), f.device(3, 3));
    f.conversation(7, &mut [&mut alice, &mut bob, &mut carol]).await;
    let (stranger, told) = (f.device(4, 4), f.told(carol.address).await.len());
    let report = |renew: Vec<DeviceAddress>| ReportFailureRequest {
        conversation: alice.id(),
        epoch: 1,
        reason: "commit".into(),
        renew: renew.into_iter().map(Into::into).collect(),
    };
    // Twice in an hour is once; who is not in it, and the one that asks, is left out.
    for _ in 0..2 {
        let asked = vec![bob.address, stranger.address, alice.address, bob.address];
        f.client.report_failure(by(alice.address, report(asked))).await.expect("taken");
    }
    assert_eq!(f.told(bob.address).await, [(Content::Welcome, 1), (Content::Renew, 1)]);
    let heard = f.delivered().await.remove(&bob.address).expect("told").pop().expect("asked");
    assert_eq!((heard.sender, heard.body_or_ref), (Some(alice.address.into()), Some(BodyOrRef::Body(Bytes::new()))));
    assert_eq!((f.told(carol.address).await.len(), f.told(stranger.address).await.len()), (told, 0));

    let error = f.client.report_failure(by(alice.address, report(vec![bob.address; 9]))).await;
    assert!(assert_refused(error, ErrorCode::BadRequest).message.contains("renew: 9 devices named"));
    let mut short = report(vec![bob.address]);
    short.renew[0].device = Bytes::from_static(b"short");
    let error = assert_refused(f.client.report_failure(by(alice.address, short)).await, ErrorCode::BadRequest);
    assert!(error.message.contains("renew"), "{}", error.message);
    let refused = f.client.report_failure(by(stranger.address, report(vec![bob.address]))).await;
    assert_refused(refused, ErrorCode::UnknownConversation);
}

#[tokio::test]
async fn a_request_without_its_objects_names_the_field() {
    let mut f = Fixture::new();
    let mut alice = f.device(1, 1);
    f.conversation(7, &mut [&mut alice]).await;
    let good = alice.commit(&[], &[]);
    let mut no_commit = good.clone();
    no_commit.commit = None;
    let mut empty_info = good.clone();
    empty_info.group_info = inline(Bytes::new());
    for (request, field) in [(no_commit, "commit"), (empty_info, "group_info")] {
        let error = assert_refused(f.client.commit(by(alice.address, request)).await, ErrorCode::BadRequest);
        assert!(error.message.contains(field), "{}", error.message);
    }
    assert_eq!(f.commit(alice.address, good).await, Ok(1));
}
