// SPDX-License-Identifier: MIT OR Apache-2.0
//! Servers that go away and come back while a subscriber, a reader and an appender live.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use pli_domain::{EntryRef, Seq};
use pli_engine_nats::log_stream;
use pli_ports::{ReadError, ShardLog, SignalEvent, Subject, Subscription};
use pli_testkit::engines::nats::{Down, NatsServers, NatsSettings};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::{
    MANY_BYTES, SHARD, SOON, append, engine, entry, in_time, next, one_server, options, raw, read_through, servers,
};

async fn event(subscription: &mut dyn Subscription) -> SignalEvent {
    timeout(SOON, subscription.next()).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_interrupts_subscribers_and_readers_and_loses_nothing_acknowledged() {
    let test = "a_restart_interrupts_subscribers_and_readers_and_loses_nothing_acknowledged";
    let Some(mut servers) = one_server(test).await else { return };
    let engine = engine(options(&servers)).await;
    let (log, bus) = (engine.shard_log(), engine.signals());
    let subject = Subject::owner(SHARD);
    let mut subscription = bus.subscribe(&subject).await.unwrap();
    let first = append(&log, entry(SHARD, 0)).await;
    let mut reader = log.reader(SHARD, Seq::ZERO).await.unwrap();
    assert_eq!(next(reader.as_mut()).await.len(), 1);

    servers.down(0, Down::Killed);
    let ended = timeout(SOON, reader.next(MANY_BYTES)).await.unwrap();
    assert!(matches!(ended, Err(ReadError::Interrupted(_))), "{ended:?}");
    assert!(reader.next(MANY_BYTES).await.is_err(), "a reader comes back to life");
    servers.up(0).await.unwrap();
    assert!(matches!(event(subscription.as_mut()).await, SignalEvent::Interrupted));

    // Whole again, with the subscription and the connection of before.
    let second = append(&log, entry(SHARD, 1)).await;
    assert_eq!(read_through(&log, Seq::ZERO, second).await, [first, second]);
    in_time("publishing", async || bus.publish(&subject, Bytes::from_static(b"again")).await.ok()).await;
    match event(subscription.as_mut()).await {
        SignalEvent::Signal(signal) => assert_eq!(signal.payload, "again"),
        SignalEvent::Interrupted => panic!("interrupted twice by one restart"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_whose_consumer_vanishes_is_interrupted_and_never_made_again_in_silence() {
    let test = "a_reader_whose_consumer_vanishes_is_interrupted_and_never_made_again_in_silence";
    let Some(servers) = one_server(test).await else { return };
    let engine = engine(options(&servers)).await;
    let log = engine.shard_log();
    append(&log, entry(SHARD, 0)).await;
    let mut reader = log.reader(SHARD, Seq::ZERO).await.unwrap();
    next(reader.as_mut()).await;
    let client = raw(&servers).await;
    let names = client.request(format!("$JS.API.CONSUMER.NAMES.{}", log_stream(0)), Bytes::new()).await.unwrap();
    let names: serde_json::Value = serde_json::from_slice(&names.payload).unwrap();
    let consumer = names["consumers"][0].as_str().unwrap();
    client.request(format!("$JS.API.CONSUMER.DELETE.{}.{consumer}", log_stream(0)), Bytes::new()).await.unwrap();
    append(&log, entry(SHARD, 1)).await;
    let ended = timeout(SOON, reader.next(MANY_BYTES)).await.unwrap();
    assert!(matches!(ended, Err(ReadError::Interrupted(_))), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_notices_that_the_last_entry_it_read_is_another_one() {
    let test = "a_reader_notices_that_the_last_entry_it_read_is_another_one";
    let Some(servers) = one_server(test).await else { return };
    let engine = engine(options(&servers)).await;
    let log = engine.shard_log();
    let only = append(&log, entry(SHARD, 0)).await;
    let mut reader = log.reader(SHARD, Seq::ZERO).await.unwrap();
    next(reader.as_mut()).await;
    // The connection and the consumer stay; the entry goes, as where a replica is reset under a consumer.
    let body = format!("{{\"seq\":{}}}", only.seq.get());
    let delete = format!("$JS.API.STREAM.MSG.DELETE.{}", log_stream(0));
    raw(&servers).await.request(delete, body.into()).await.unwrap();
    let ended = timeout(SOON, reader.next(MANY_BYTES)).await.unwrap();
    assert!(matches!(ended, Err(ReadError::Interrupted(_))), "{ended:?}");
}

/// Appends one after the other until it is told to stop.
fn appending(log: &Arc<dyn ShardLog>, stop: &Arc<AtomicBool>) -> JoinHandle<Vec<EntryRef>> {
    let (log, stop) = (Arc::clone(log), Arc::clone(stop));
    tokio::spawn(async move {
        let mut acknowledged = Vec::new();
        for number in 0.. {
            if stop.load(Ordering::SeqCst) {
                break;
            }
            acknowledged.push(append(&log, entry(SHARD, number)).await);
        }
        acknowledged
    })
}

async fn leader(servers: &NatsServers) -> usize {
    let client = raw(servers).await;
    let info = client.request(format!("$JS.API.STREAM.INFO.{}", log_stream(0)), Bytes::new()).await.unwrap();
    let info: serde_json::Value = serde_json::from_slice(&info.payload).unwrap();
    servers.names().iter().position(|name| info["cluster"]["leader"] == name.as_str()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_of_three_loses_nothing_acknowledged() {
    let settings = NatsSettings { servers: 3, ..NatsSettings::default() };
    let Some(mut servers) = servers("a_killed_leader_of_three_loses_nothing_acknowledged", settings).await else {
        return;
    };
    let engine = engine(options(&servers)).await;
    assert!(engine.check().await.problems.is_empty(), "{:?}", engine.check().await);
    let log = engine.shard_log();
    let stop = Arc::new(AtomicBool::new(false));
    let appender = appending(&log, &stop);
    let mut reader = log.reader(SHARD, Seq::ZERO).await.unwrap();
    next(reader.as_mut()).await;
    let leader = leader(&servers).await;
    servers.down(leader, Down::Killed);
    // The others elect a leader and go on.
    let before = in_time("a new leader", async || log.bounds(SHARD).await.ok()).await.head;
    in_time("an append", async || log.bounds(SHARD).await.ok().filter(|bounds| bounds.head > before)).await;
    servers.up(leader).await.unwrap();
    stop.store(true, Ordering::SeqCst);
    let acknowledged = appender.await.unwrap();
    let last = *acknowledged.last().unwrap();
    let read: BTreeSet<EntryRef> = read_through(&log, Seq::ZERO, last).await.into_iter().collect();
    let lost: Vec<_> = acknowledged.iter().filter(|entry| !read.contains(entry)).collect();
    assert!(lost.is_empty(), "acknowledged and not there: {lost:?}");
}
