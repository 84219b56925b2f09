// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages to many shards: the way through the fan-out worker, with paused time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pli_api::ErrorCode;
use pli_api::edge::{Deliver, settled::Outcome};
use pli_api::log::{Envelope, envelope::BodyOrRef};
use pli_domain::{Class, DeviceId, ShardId, ShardMap};
use pli_edge::Config;
use prost::Message as _;

use crate::client::{Client, body};
use crate::rig::{Rig, SHARDS, conversation, device};

/// An edge that sends everything through the workers, which run.
async fn rig() -> Rig {
    let rig = Rig::new(Config::default()).await;
    rig.conversations.fan_out.store(true, Ordering::Relaxed);
    *rig.conversations.payloads.lock().unwrap() = Some(rig.world.payloads());
    rig
}

fn work(rig: &Rig) -> Vec<tokio::task::JoinHandle<()>> {
    let start = |shard| {
        let (edge, payloads, stop) = (rig.edge.clone(), Arc::new(rig.world.payloads()), rig.stop.clone());
        tokio::spawn(async move { edge.fan_out(shard, payloads, stop).await })
    };
    (0..SHARDS).map(|n| start(ShardId::new(n as u16))).collect()
}

fn worker() -> DeviceId {
    let shards = ShardMap::new(SHARDS, [3; 16]).unwrap();
    DeviceId::fan_out(shards.shard_of_conversation(conversation(1)))
}

async fn get(client: &mut Client) -> Deliver {
    let delivered = client.delivery().await;
    client.ack(delivered.position).await;
    delivered
}

#[tokio::test(start_paused = true)]
async fn a_message_is_appended_once_and_comes_whole_to_everybody_from_one_payload() {
    let rig = rig().await;
    let (mut alice, mut bob, mut carol) = (rig.join(1).await, rig.join(2).await, rig.join(3).await);
    let sent = alice.message(1, b"hello everybody");
    let receipt = alice.send_one(sent).await.unwrap();
    assert_eq!(rig.owners.lock().queues[&worker()].all.len(), 1, "for the worker");
    let of_bob = |owners: &crate::owner::State| owners.queues.get(&device(2).device).map_or(0, |queue| queue.all.len());
    assert_eq!(of_bob(&rig.owners.lock()), 0, "nobody has spread it yet");
    work(&rig);
    for other in [&mut bob, &mut carol] {
        assert_eq!(body(&get(other).await), "hello everybody");
    }
    {
        let owners = rig.owners.lock();
        assert!(owners.queues.get(&device(1).device).is_none_or(|queue| queue.all.is_empty()), "not to its sender");
        let queued = Envelope::decode(owners.queues[&device(2).device].all[0].1.clone()).unwrap();
        assert!(matches!(queued.body_or_ref, Some(BodyOrRef::BodyRef(_))), "logs and queues hold a reference");
    }
    assert_eq!(*rig.conversations.fetched.lock().unwrap(), 1, "one fetch for all sessions of the edge");
    rig.owners.settle().await;
    rig.until("the worker's ack", |owners| owners.acks.iter().any(|(device, _)| *device == worker())).await;
    let settled = alice.settled().await;
    assert_eq!(settled[0].receipt, receipt);
    assert!(matches!(settled[0].outcome, Some(Outcome::Stored(_))));
}

#[tokio::test(start_paused = true)]
async fn the_worker_acknowledges_only_what_is_settled_everywhere() {
    let rig = rig().await;
    work(&rig);
    let (mut alice, mut bob) = (rig.join(1).await, rig.join(2).await);
    let sent = alice.message(1, b"hello");
    alice.send_one(sent).await.unwrap();
    get(&mut bob).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(rig.owners.lock().acks.iter().all(|(device, _)| *device != worker()));
    rig.owners.settle().await;
    rig.until("the worker's ack", |owners| owners.acks.iter().any(|(device, _)| *device == worker())).await;
}

#[tokio::test(start_paused = true)]
async fn what_one_worker_left_another_one_spreads_in_order() {
    let rig = rig().await;
    let (mut alice, mut bob) = (rig.join(1).await, rig.join(2).await);
    for n in 0..40u8 {
        let sent = alice.message(n, &[n]);
        alice.send_one(sent).await.unwrap();
    }
    let first = work(&rig);
    for n in 0..5u8 {
        assert_eq!(body(&get(&mut bob).await)[..], [n]);
    }
    first.into_iter().for_each(|task| task.abort());
    work(&rig);
    // What the first one had spread comes again; whatever comes for the first time comes in order.
    let (mut last, mut seen) = (4, 5);
    while seen < 40 {
        let n = body(&get(&mut bob).await)[0];
        if n > last {
            assert_eq!(n, last + 1);
            (last, seen) = (n, seen + 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_displaced_again_and_again_spreads_ever_more_seldom() {
    let rig = rig().await;
    let mut alice = rig.join(1).await;
    let sent = alice.message(1, b"hello");
    alice.send_one(sent).await.unwrap();
    work(&rig);
    // As by a second worker of the shard that begins as soon as it can, before anything is settled.
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let sessions = rig.owners.lock().queues[&worker()].sessions();
        for (session, edge) in sessions {
            rig.owners.displace(edge, session, false).await;
        }
    }
    let copies = rig.owners.lock().queues[&device(2).device].all.len();
    assert!((2..60).contains(&copies), "{copies} copies in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_cannot_be_had_stays_a_reference() {
    let rig = rig().await;
    work(&rig);
    let (mut alice, mut bob) = (rig.join(1).await, rig.join(2).await);
    *rig.conversations.payloads.lock().unwrap() = None;
    let sent = alice.message(1, b"hello");
    alice.send_one(sent).await.unwrap();
    let envelope = Envelope::decode(get(&mut bob).await.envelope).unwrap();
    let Some(BodyOrRef::BodyRef(reference)) = envelope.body_or_ref else { panic!("a body out of nothing") };
    assert_eq!((reference.size, reference.id.len(), reference.sha256.len()), (5, 16, 32));
    // What could not be had is not kept: whoever comes next has it asked for again.
    *rig.conversations.payloads.lock().unwrap() = Some(rig.world.payloads());
    let mut carol = rig.join(3).await;
    assert_eq!(body(&get(&mut carol).await), "hello");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_comes_too_late_for_one_session_is_there_for_the_next() {
    let rig = rig().await;
    work(&rig);
    let (mut alice, mut bob) = (rig.join(1).await, rig.join(2).await);
    *rig.conversations.fetch_takes.lock().unwrap() = Duration::from_secs(5);
    let sent = alice.message(1, b"hello");
    alice.send_one(sent).await.unwrap();
    let envelope = Envelope::decode(get(&mut bob).await.envelope).unwrap();
    assert!(matches!(envelope.body_or_ref, Some(BodyOrRef::BodyRef(_))), "after two seconds nobody waits any more");
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut carol = rig.join(3).await;
    assert_eq!(body(&get(&mut carol).await), "hello");
    assert_eq!(*rig.conversations.fetched.lock().unwrap(), 1, "one fetch for both");
}

#[tokio::test(start_paused = true)]
async fn while_a_worker_is_behind_more_is_refused_for_a_while() {
    let rig = rig().await;
    let mut alice = rig.join(1).await;
    let sent = alice.message(1, b"first");
    alice.send_one(sent).await.unwrap();
    rig.owners.lock().fan_out_full = true;
    rig.owners.settle().await;
    alice.settled().await;
    let sent = alice.message(2, b"second");
    let error = alice.send_one(sent.clone()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NoSpace);
    assert!((1..=5_000).contains(&error.retry_after_ms), "{}", error.retry_after_ms);
    tokio::time::sleep(Duration::from_secs(6)).await;
    alice.send_one(sent).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_takes_nothing_costs_the_others_no_copies_and_gets_all_in_order() {
    let rig = rig().await;
    let shards = ShardMap::new(SHARDS, [3; 16]).unwrap();
    let of = |n: u8| shards.shard_of(device(n).account);
    let work_at = shards.shard_of_conversation(conversation(1));
    let away = (2..=5).find(|n| of(*n) != work_at).expect("a shard of its own");
    let near = (2..=5).find(|n| of(*n) != of(away)).expect("another one");
    rig.group(1, &[1, away, near]);
    work(&rig);
    let (mut alice, mut far, mut other) = (rig.join(1).await, rig.join(away).await, rig.join(near).await);
    rig.world.set_shard_full(of(away), true);
    for n in 0..5u8 {
        let sent = alice.message(n, &[n]);
        alice.send_one(sent).await.unwrap();
        assert_eq!(body(&get(&mut other).await)[..], [n]);
    }
    // Many tries later.
    tokio::time::sleep(Duration::from_secs(20)).await;
    let copies = rig.owners.lock().queues[&device(near).device].all.len();
    assert_eq!(copies, 5, "no shard gets again what it has");
    rig.world.set_shard_full(of(away), false);
    for n in 0..5u8 {
        assert_eq!(body(&get(&mut far).await)[..], [n]);
    }
    assert!(rig.owners.lock().acks.iter().all(|(device, _)| *device != worker()), "nothing is settled");
    rig.owners.settle().await;
    rig.until("the worker's ack", |owners| owners.acks.iter().any(|(device, _)| *device == worker())).await;
    assert_eq!(rig.owners.lock().queues[&device(near).device].all.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_message_of_which_nobody_knows_to_whom_it_goes_is_given_up_after_an_hour() {
    let rig = Rig::new(Config { roster_cache_bytes: 0, ..Config::default() }).await;
    rig.conversations.fan_out.store(true, Ordering::Relaxed);
    *rig.conversations.payloads.lock().unwrap() = Some(rig.world.payloads());
    let mut alice = rig.join(1).await;
    let sent = alice.message(1, b"lost");
    alice.send_one(sent).await.unwrap();
    rig.conversations.groups.lock().unwrap().remove(&conversation(1));
    work(&rig);
    let acks = |owners: &crate::owner::State| owners.acks.iter().any(|(device, _)| *device == worker());
    tokio::time::sleep(Duration::from_secs(3_500)).await;
    assert!(!acks(&rig.owners.lock()), "it may come back");
    tokio::time::sleep(Duration::from_secs(200)).await;
    rig.until("the worker's ack", acks).await;
}

#[tokio::test(start_paused = true)]
async fn workers_that_hold_too_many_bodies_read_on_when_they_are_stored() {
    let mut config = Config::default();
    config.fan_out.body_bytes = 1;
    let rig = Rig::new(config).await;
    rig.conversations.fan_out.store(true, Ordering::Relaxed);
    *rig.conversations.payloads.lock().unwrap() = Some(rig.world.payloads());
    let (mut alice, mut bob) = (rig.join(1).await, rig.join(2).await);
    work(&rig);
    for n in 0..40u8 {
        let sent = alice.message(n, &[n]);
        alice.send_one(sent).await.unwrap();
    }
    for n in 0..40u8 {
        assert_eq!(body(&get(&mut bob).await)[..], [n]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_of_long_bodies_comes_whole_in_several_reads() {
    let rig = rig().await;
    let mut alice = rig.join(1).await;
    work(&rig);
    let long = |n: u8| vec![n; 50_000];
    for n in 0..9u8 {
        let sent = alice.message(n, &long(n));
        alice.send_one(sent).await.unwrap();
    }
    rig.until("bob's queue", |owners| owners.queues.get(&device(2).device).is_some_and(|q| q.all.len() == 9)).await;
    let mut bob = rig.join(2).await;
    for n in 0..9u8 {
        assert_eq!(body(&get(&mut bob).await)[..], long(n));
    }
}

#[tokio::test(start_paused = true)]
async fn few_shards_are_sent_to_directly() {
    let rig = Rig::new(Config::default()).await;
    let mut alice = rig.join(1).await;
    let mut sent = alice.message(1, b"hello");
    sent.class = pli_api::log::Class::from(Class::Tick).into();
    alice.send_one(sent).await.unwrap();
    let queued = |owners: &crate::owner::State| owners.queues.get(&device(2).device).is_some_and(|q| !q.all.is_empty());
    rig.until("bob's queue", queued).await;
    assert!(!rig.owners.lock().queues.contains_key(&worker()));
}
