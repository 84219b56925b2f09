// SPDX-License-Identifier: MIT OR Apache-2.0
//! Durable appends per second of the engine and of the bare client library, on synced servers of this machine.
//!
//! Prints one line a case. `PLI_APPENDS_SECONDS` is how long each is measured (3).
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement prints, and ends when something fails")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use pli_domain::{EntryId, ShardId};
use pli_engine_nats::{Layout, NatsEngine, NatsOptions, Role, log_subject};
use pli_ports::{NewEntry, ShardLog};
use pli_testkit::engines::nats::{self, NatsServers, NatsSettings};

const BYTES: usize = 256;
const SHARDS: u16 = 16;

/// Runs `append` in so many tasks for a while; answers how many were done in a second.
async fn measure<F>(in_flight: usize, append: impl Fn(u16) -> F + Clone + Send + 'static) -> f64
where
    F: Future<Output = ()> + Send,
{
    let seconds = std::env::var("PLI_APPENDS_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let end = Instant::now() + Duration::from_secs(seconds);
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..in_flight {
        let append = append.clone();
        tasks.spawn(async move {
            let mut done = 0u32;
            while Instant::now() < end {
                append(u16::try_from(task).unwrap_or(0) % SHARDS).await;
                done += 1;
            }
            done
        });
    }
    let mut done = 0;
    while let Some(of_task) = tasks.join_next().await {
        done += of_task.unwrap();
    }
    f64::from(done) / started.elapsed().as_secs_f64()
}

async fn of_engine(log: &Arc<dyn ShardLog>, in_flight: usize) -> f64 {
    let log = Arc::clone(log);
    measure(in_flight, move |shard| {
        let log = Arc::clone(&log);
        async move {
            let id = EntryId::from_bytes(rand::random());
            let entry = NewEntry { shard: ShardId::new(shard), id, bytes: Bytes::from_static(&[7; BYTES]) };
            log.append(vec![entry]).await.remove(0).unwrap();
        }
    })
    .await
}

async fn of_library(servers: &NatsServers, in_flight: usize, named: bool) -> f64 {
    let client = async_nats::connect(servers.addresses()[0].clone()).await.unwrap();
    let context = ContextBuilder::new().max_ack_inflight(in_flight).build(client);
    measure(in_flight, move |shard| {
        let context = context.clone();
        async move {
            let mut message = PublishMessage::build().payload(Bytes::from_static(&[7; BYTES]));
            if named {
                message = message.message_id(EntryId::from_bytes(rand::random()).to_string());
            }
            context.send_publish(log_subject(ShardId::new(shard)), message).await.unwrap().await.unwrap();
        }
    })
    .await
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let binary = nats::binary().unwrap();
    println!("servers in_flight engine/s library/s library_with_ids/s engine/library_with_ids");
    for servers in [1, 3] {
        let settings = NatsSettings { servers, max_file_store: 8 << 30, ..NatsSettings::default() };
        let running = NatsServers::start(&binary, Path::new("target"), settings).await.unwrap();
        let layout = Layout {
            shards: SHARDS.into(),
            streams: 1,
            replicas: servers,
            stream_bytes_max: 4 << 30,
            ..Layout::default()
        };
        // The engine and the library through the same server.
        let addresses = vec![running.addresses()[0].clone()];
        let options = NatsOptions { servers: addresses, roles: Role::ALL.to_vec(), layout, ..NatsOptions::default() };
        let engine = NatsEngine::connect(options).await.unwrap();
        engine.migrate().await.unwrap();
        let log = engine.shard_log();
        // The server of this connection may hear of a new stream on another one a little later.
        let first = NewEntry { shard: ShardId::new(0), id: EntryId::from_bytes([1; 16]), bytes: Bytes::new() };
        while log.append(vec![first.clone()]).await.remove(0).is_err() {}
        for in_flight in [1, 64, 1_024] {
            let ours = of_engine(&log, in_flight).await;
            let bare = of_library(&running, in_flight, false).await;
            let named = of_library(&running, in_flight, true).await;
            println!("R{servers} {in_flight} {ours:.0} {bare:.0} {named:.0} {:.2}", ours / named);
        }
    }
}
