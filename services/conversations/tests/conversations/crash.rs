// SPDX-License-Identifier: MIT OR Apache-2.0
//! A commit that was decided and not brought to everybody: whoever notices finishes it, once.

use std::time::Duration;

use pli_api::ErrorCode;
use pli_api::conversations::CommitRequest;
use pli_api::log::Content;
use pli_ports::Conversations;
use tokio_util::sync::CancellationToken;

use crate::device::{Device, bytes_of};
use crate::fixture::{Fixture, assert_refused, by};

/// Alice's commit that adds Carol is decided while the log takes nothing.
async fn left_behind() -> (Fixture, [Device; 3], CommitRequest) {
    let mut f = Fixture::new();
    let (mut alice, mut bob, carol) = (f.device(1, 1), f.device(2, 2), f.device(3, 3));
    f.conversation(7, &mut [&mut alice, &mut bob]).await;
    let request = alice.commit(&[carol.key_package()], &[]);
    f.set_log_down(true);
    let error = assert_refused(f.client.commit(by(alice.address, request.clone())).await, ErrorCode::Temporary);
    assert!(error.retry_after_ms > 0);
    let roster = f.roster(&alice.id(), 2).await.expect("decided");
    assert!(!roster.open && roster.retry_after_ms > 0 && roster.current_epoch == 2);
    assert!(f.roster(&alice.id(), 1).await.expect("known").open, "the epoch before stays open");
    f.set_log_down(false);
    (f, [alice, bob, carol], request)
}

async fn assert_finished(f: &mut Fixture, devices: &[Device; 3]) {
    let [alice, bob, carol] = devices;
    assert!(f.roster(&alice.id(), 2).await.expect("known").open);
    assert_eq!(f.told(bob.address).await[..2], [(Content::Welcome, 1), (Content::Commit, 1)]);
    assert_eq!(f.told(carol.address).await[0], (Content::Welcome, 2));
}

#[tokio::test(start_paused = true)]
async fn the_committer_who_asks_again_finishes_it() {
    let (mut f, devices, request) = left_behind().await;
    assert_eq!(f.commit(devices[0].address, request).await, Ok(2));
    assert_finished(&mut f, &devices).await;
}

#[tokio::test(start_paused = true)]
async fn a_loser_and_the_next_committer_finish_it() {
    let (mut f, mut devices, request) = left_behind().await;
    let losing = devices[1].commit(&[], &[]);
    let lost = f.commit(devices[1].address, losing).await.expect_err("decided before");
    assert_eq!(lost.current_epoch, 2);
    devices[1].lost();
    devices[1].receive(&bytes_of(&lost.missed[0].commit));
    let next = devices[1].commit(&[], &[]);
    assert_eq!(f.commit(devices[1].address, next).await, Ok(3));
    assert_finished(&mut f, &devices).await;
    assert_eq!(f.commit(devices[0].address, request).await, Ok(2), "the first committer hears that it won");
}

#[tokio::test(start_paused = true)]
async fn an_edge_that_asks_for_the_roster_finishes_it_once_it_is_left_behind() {
    let (mut f, devices, _) = left_behind().await;
    assert!(!f.roster(&devices[0].id(), 2).await.expect("known").open, "its committer may still be at it");
    f.clock.advance(Duration::from_secs(3));
    assert!(f.roster(&devices[0].id(), 2).await.expect("known").open);
    assert_finished(&mut f, &devices).await;
}

#[tokio::test(start_paused = true)]
async fn the_sweep_finishes_it() {
    let (mut f, devices, _) = left_behind().await;
    f.clock.advance(Duration::from_secs(3));
    let (service, stop) = (f.service.clone(), CancellationToken::new());
    let sweep = tokio::spawn({
        let stop = stop.clone();
        async move { service.run(stop).await }
    });
    let conversations = f.world.conversations();
    let id = devices[0].conversation();
    tokio::time::timeout(Duration::from_secs(10), async {
        while !conversations.head(id).await.expect("reads").expect("known").open {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .expect("swept in time");
    stop.cancel();
    sweep.await.expect("stops");
    assert_finished(&mut f, &devices).await;
}

#[tokio::test(start_paused = true)]
async fn finishing_twice_brings_the_same_once() {
    let (mut f, devices, request) = left_behind().await;
    let (mut one, mut two) = (f.client.clone(), f.client.clone());
    let alice = devices[0].address;
    let (a, b) = tokio::join!(one.commit(by(alice, request.clone())), two.commit(by(alice, request)));
    a.expect("won");
    b.expect("won");
    assert_finished(&mut f, &devices).await;
    assert_eq!(f.told(devices[1].address).await.len(), 2);
    assert_eq!(f.told(devices[2].address).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_takes_only_some_is_asked_again_within_the_call() {
    let mut f = Fixture::new();
    let mut devices: Vec<_> = (1..=12).map(|n| f.device(n, n)).collect();
    f.conversation(7, &mut devices.iter_mut().collect::<Vec<_>>()).await;
    let log = pli_testkit::memory::LogFaults { lost: 300, answer_lost: 200, ..Default::default() };
    f.world.set_faults(pli_testkit::memory::FaultPlan { log, ..Default::default() });
    let request = devices[0].commit(&[], &[]);
    let finished = async {
        loop {
            match f.client.commit(by(devices[0].address, request.clone())).await {
                Ok(_) => break,
                Err(status) => assert_eq!(status.code(), tonic::Code::Unavailable),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), finished).await.expect("gets through");
    for device in &devices[1..] {
        assert_eq!(f.told(device.address).await.last(), Some(&(Content::Commit, 1)));
    }
}
