// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long who waits.

use std::time::Duration;

use pli_api::ErrorCode;
use pli_domain::UnixMillis;
use pli_links::Config;
use pli_ports::Links;
use pli_testkit::time::START;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::fixture::{End, Rig, met, open, refused};

#[tokio::test(start_paused = true)]
async fn a_wait_ends_soon_after_the_blob_was_put_at_another_replica() {
    let rig = Rig::new(Config::default());
    let (new_one, first) = met(&mut rig.client(), 1).await;
    let mut first = End { client: rig.client(), ..first };
    for (number, after_ms) in [(1, 0), (2, 150), (3, 6_900)] {
        let mut new_one = new_one.clone();
        let begun = Instant::now();
        let putting = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(after_ms)).await;
            new_one.put(number, b"sealed").await
        });
        assert_eq!(first.wait(number, 8_000).await.expect("there"), "sealed");
        putting.await.expect("no panic").expect("put");
        let late = begun.elapsed().saturating_sub(Duration::from_millis(after_ms));
        assert!(late <= Duration::from_secs(1), "{late:?} after a put after {after_ms} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_without_a_blob_is_answered_with_nothing_within_its_bound() {
    let rig = Rig::new(Config::default());
    let (mut new_one, _) = met(&mut rig.client(), 1).await;
    for (asked_ms, waited_ms) in [(0, 0), (1, 1), (2_500, 2_500), (8_000, 8_000), (u32::MAX, 8_000)] {
        let begun = Instant::now();
        assert_eq!(new_one.wait(1, asked_ms).await.expect("an answer"), "");
        assert_eq!(begun.elapsed(), Duration::from_millis(waited_ms), "asked for {asked_ms} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_with_the_life_of_the_rendezvous() {
    let rig = Rig::new(Config::default());
    let (mut new_one, mut first) = met(&mut rig.client(), 1).await;
    tokio::time::sleep(Duration::from_secs(55)).await;
    let begun = Instant::now();
    refused(new_one.wait(1, 8_000).await, ErrorCode::RendezvousExpired);
    let ended = begun.elapsed();
    assert!((Duration::from_secs(5)..Duration::from_secs(6)).contains(&ended), "after {ended:?}");
    refused(first.put(1, b"late").await, ErrorCode::RendezvousExpired);
}

#[tokio::test(start_paused = true)]
async fn what_is_over_is_forgotten_by_the_sweep() {
    let rig = Rig::new(Config::default());
    let mut client = rig.client();
    let (service, stop) = (rig.service(), CancellationToken::new());
    let until = stop.clone();
    let running = tokio::spawn(async move { service.run(until).await });
    met(&mut client, 1).await;
    tokio::time::sleep(Duration::from_secs(55)).await;
    client.open_rendezvous(open(2)).await.expect("opened");
    tokio::time::sleep(Duration::from_secs(16)).await;
    let far = UnixMillis(START.0 + 1_000_000);
    assert_eq!(rig.world.links().expire_rendezvous(far, 10).await.expect("forgotten"), 1, "the first one is gone");
    stop.cancel();
    running.await.expect("ended");
}
