// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rivals for names, lists, key packages and epochs that do not share a process, so that only the database decides
//! between them.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use pli_domain::{AccountId, ConversationId, DeviceAddress, DeviceId, MlsEpoch};
use pli_engine_cql::CqlEngine;
use pli_ports::{
    Accounts, CommitIntent, CommitOutcome, Conversations, CreateAccountError, CreateOutcome, DeviceListRecord,
    ListHash, NewAccount, NewConversation, PutDeviceListError, Removal,
};
use pli_testkit::time::START;
use sha2::{Digest, Sha256};

use crate::support::server;

const ROUNDS: u8 = 6;
/// Openings of the engine, each with its own connection, clock and turns.
const OPENINGS: u8 = 5;

fn device(round: u8, n: u8) -> DeviceId {
    DeviceId::from_bytes([0xA8, round, n, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8])
}

fn account(round: u8, n: u8) -> AccountId {
    AccountId::from_bytes([0xA9, round, n, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8])
}

fn list(version: u64, devices: Vec<DeviceId>) -> DeviceListRecord {
    DeviceListRecord { version, signed: Bytes::from(format!("list {version} of {devices:?}")), devices }
}

fn hash(list: &DeviceListRecord) -> ListHash {
    Sha256::digest(&list.signed).into()
}

/// The place of the one that won; the others must have been refused as expected.
fn winner<T: Debug, E: Debug>(answers: &[Result<T, E>], refused: impl Fn(&E) -> bool) -> u8 {
    let others = answers.iter().filter(|answer| answer.as_ref().is_err_and(&refused)).count();
    assert_eq!(others + 1, answers.len(), "not one winner: {answers:?}");
    answers.iter().position(Result::is_ok).and_then(|won| u8::try_from(won).ok()).unwrap()
}

fn new(round: u8, n: u8, handle: &str, devices: Vec<DeviceId>) -> NewAccount {
    NewAccount {
        account: account(round, n),
        handle: handle.parse().unwrap(),
        identity_key: [n; 32],
        devices: list(1, devices),
        created_at: START,
    }
}

/// Each creates another account of one handle, and then another one of one device.
async fn create(openings: &[Arc<dyn Accounts>], round: u8) -> AccountId {
    let handle = format!("rival{round}");
    let created = openings.iter().zip(0..).map(|(accounts, n)| {
        let new = new(round, n, &handle, vec![device(round, n)]);
        accounts.create(new)
    });
    let won = winner(&join_all(created).await, |error| matches!(error, CreateAccountError::HandleTaken));
    for accounts in openings {
        let found = accounts.by_handle(&handle.parse().unwrap()).await.unwrap().map(|found| found.account);
        assert_eq!(found, Some(account(round, won)), "all see the winner's");
    }
    let shared = device(round, 100);
    let created = openings
        .iter()
        .zip(0..)
        .map(|(accounts, n)| accounts.create(new(round, 100 + n, &format!("rival{round}of{n}"), vec![shared])));
    winner(&join_all(created).await, |error| matches!(error, CreateAccountError::IdTaken));
    account(round, won)
}

/// Each puts another list of the same version, which leaves out all but one device.
async fn put(openings: &[Arc<dyn Accounts>], round: u8, owner: AccountId) {
    let newest = openings[0].account(owner).await.unwrap().unwrap().devices;
    let of = |n: u8| device(round, 50 + n);
    let all = list(2, newest.devices.iter().copied().chain((0..OPENINGS).map(of)).collect());
    openings[0].put_device_list(owner, hash(&newest), all.clone()).await.unwrap();
    let lists =
        openings.iter().zip(0..).map(|(accounts, n)| accounts.put_device_list(owner, hash(&all), list(3, vec![of(n)])));
    let taken = |error: &PutDeviceListError| matches!(error, PutDeviceListError::Version { current: 3 });
    let won = winner(&join_all(lists).await, taken);
    let left: BTreeSet<_> = all.devices.iter().copied().filter(|device| *device != of(won)).collect();
    for accounts in openings {
        let found = accounts.account(owner).await.unwrap().unwrap().devices;
        assert_eq!(found, list(3, vec![of(won)]), "all see the winner's list");
        let removals = accounts.removals(None, 1_000).await.unwrap();
        let gone = removals.iter().filter(|removal| removal.account == owner).map(|removal| removal.device);
        assert_eq!(gone.collect::<BTreeSet<_>>(), left, "what it left out, and nothing that a loser did");
    }
    for device in left {
        openings[1].finish_removal(Removal { account: owner, version: 3, device }).await.unwrap();
    }
    let removals = openings[0].removals(None, 1_000).await.unwrap();
    assert!(removals.iter().all(|removal| removal.account != owner), "nothing is left: {removals:?}");
}

/// More claims than packages, at all of them.
async fn claim(openings: &[Arc<dyn Accounts>], round: u8) {
    let of = device(round, 200);
    let packages: Vec<_> = (0..8).map(|n| Bytes::from(format!("package {round} {n}"))).collect();
    openings[0].put_key_packages(of, packages.clone(), None).await.unwrap();
    let claims = (0..3).flat_map(|_| openings.iter().map(|accounts| accounts.claim_key_package(of)));
    let claimed = join_all(claims).await.into_iter().filter_map(Result::unwrap).map(|claimed| claimed.key_package);
    let mut claimed: Vec<_> = claimed.collect();
    claimed.sort();
    assert_eq!(claimed, packages, "each is handed out once");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_alone_decides_between_accounts() {
    let Some(server) = server("the_database_alone_decides_between_accounts").await else { return };
    let engines = join_all((0..OPENINGS).map(|_| server.engine())).await;
    let openings: Vec<Arc<dyn Accounts>> = engines.iter().map(CqlEngine::accounts).collect();
    for round in 0..ROUNDS {
        let owner = create(&openings, round).await;
        put(&openings, round, owner).await;
        claim(&openings, round).await;
    }
}

/// Each creates the conversation in its own way; then each ends every epoch.
#[tokio::test(flavor = "multi_thread")]
async fn the_database_alone_decides_between_commits() {
    let Some(server) = server("the_database_alone_decides_between_commits").await else { return };
    let engines = join_all((0..OPENINGS).map(|_| server.engine())).await;
    let openings: Vec<Arc<dyn Conversations>> = engines.iter().map(CqlEngine::conversations).collect();
    let conversation = ConversationId::from_bytes([0xAA; 16]);
    let member = |n: u8| DeviceAddress { account: account(255, n), device: device(255, n) };
    let state = |n: u8| Bytes::from(format!("state of {n}"));
    let created = openings.iter().zip(0..).map(|(store, n)| {
        let roster = vec![member(n)];
        store.create(NewConversation { conversation, epoch: MlsEpoch(0), roster, state: state(n), created_at: START })
    });
    let created: Vec<_> = join_all(created).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(created.iter().filter(|outcome| **outcome == CreateOutcome::Created).count(), 1, "{created:?}");
    for from in (0..u64::from(ROUNDS)).map(MlsEpoch) {
        let commits = openings.iter().zip(0..).map(|(store, n)| {
            store.commit(CommitIntent {
                conversation,
                from,
                roster: vec![member(n)],
                state: state(n),
                committer: member(n),
                payload: Bytes::from(format!("commit of {n}")),
                decided_at: START,
            })
        });
        let outcomes: Vec<_> = join_all(commits).await.into_iter().map(Result::unwrap).collect();
        let won: Vec<_> = (0..).zip(&outcomes).filter(|(_, outcome)| **outcome == CommitOutcome::Won).collect();
        assert_eq!(won.len(), 1, "not one winner of epoch {from:?}: {outcomes:?}");
        for store in &openings {
            let intent = store.intent(conversation, from).await.unwrap().map(|intent| intent.committer);
            assert_eq!(intent, Some(member(won[0].0)), "all see the winner's");
        }
        openings[0].finish(conversation, from).await.unwrap();
    }
}
