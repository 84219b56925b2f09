// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the tests share.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pli_domain::{EntryId, EntryRef, Seq, ShardId};
use pli_engine_nats::{Layout, NatsEngine, NatsOptions, Role};
use pli_ports::{LogEntry, LogReader, NewEntry, ShardLog};
use pli_testkit::engines::nats::{self, NatsServers, NatsSettings};
use tokio::time::{Instant, sleep, timeout};

/// What must come has come by then.
pub const SOON: Duration = Duration::from_secs(30);
pub const SHARD: ShardId = ShardId::new(3);
pub const MANY_BYTES: usize = 1 << 30;

/// Servers with these settings, or none and a line that says why.
pub async fn servers(test: &str, settings: NatsSettings) -> Option<NatsServers> {
    match nats::binary() {
        Ok(binary) => {
            let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
            Some(NatsServers::start(&binary, base, settings).await.unwrap())
        }
        Err(why) => {
            println!("skipped: nats {test}: {why}");
            None
        }
    }
}

/// One synced server.
pub async fn one_server(test: &str) -> Option<NatsServers> {
    servers(test, NatsSettings::default()).await
}

/// Options for these servers, whose number is that of the replicas.
pub fn options(servers: &NatsServers) -> NatsOptions {
    let replicas = servers.addresses().len();
    NatsOptions {
        servers: servers.addresses(),
        monitors: servers.monitors(),
        roles: Role::ALL.to_vec(),
        layout: Layout { shards: 16, streams: 1, replicas, stream_bytes_max: 64 << 20, ..Layout::default() },
        heartbeat: Duration::from_millis(500),
        audit_every: Duration::from_secs(1),
        dangerously_allow_one_replica: true,
        ..NatsOptions::default()
    }
}

/// Connected, with streams. After all servers were down, streams have no leader for some seconds.
pub async fn engine(options: NatsOptions) -> NatsEngine {
    let engine = NatsEngine::connect(options).await.unwrap();
    let end = Instant::now() + SOON;
    while let Err(error) = engine.migrate().await {
        assert!(Instant::now() < end, "{}", text(&error));
    }
    engine
}

/// A connection without any of the engine.
pub async fn raw(servers: &NatsServers) -> async_nats::Client {
    let addresses: Vec<async_nats::ServerAddr> = servers.addresses().iter().map(|at| at.parse().unwrap()).collect();
    async_nats::connect(addresses).await.unwrap()
}

/// Deletes every stream.
pub async fn delete_streams(servers: &NatsServers) {
    let client = raw(servers).await;
    let names = client.request("$JS.API.STREAM.NAMES", Bytes::new()).await.unwrap();
    let names: serde_json::Value = serde_json::from_slice(&names.payload).unwrap();
    for name in names["streams"].as_array().into_iter().flatten() {
        let subject = format!("$JS.API.STREAM.DELETE.{}", name.as_str().unwrap());
        client.request(subject, Bytes::new()).await.unwrap();
    }
}

pub fn entry(shard: ShardId, number: u64) -> NewEntry {
    let mut id = [9; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    NewEntry { shard, id: EntryId::from_bytes(id), bytes: Bytes::from(format!("entry {number}")) }
}

/// Appends until it is acknowledged.
pub async fn append(log: &Arc<dyn ShardLog>, new: NewEntry) -> EntryRef {
    let end = Instant::now() + SOON;
    loop {
        match log.append(vec![new.clone()]).await.remove(0) {
            Ok(appended) => return appended,
            Err(error) => assert!(Instant::now() < end, "an append is refused for too long: {error:?}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

pub async fn next(reader: &mut dyn LogReader) -> Vec<LogEntry> {
    timeout(SOON, reader.next(MANY_BYTES)).await.unwrap().unwrap()
}

/// Everything from `from` on until `last`, with new readers where one is interrupted.
pub async fn read_through(log: &Arc<dyn ShardLog>, from: Seq, last: EntryRef) -> Vec<EntryRef> {
    let end = Instant::now() + SOON;
    let mut read: Vec<EntryRef> = Vec::new();
    loop {
        assert!(Instant::now() < end, "{last:?} is not read in time; got {} entries", read.len());
        let next = read.last().map_or(from, |entry| entry.seq.next());
        let Ok(mut reader) = log.reader(SHARD, next).await else {
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        while let Ok(Ok(entries)) = timeout(SOON, reader.next(MANY_BYTES)).await {
            read.extend(entries.iter().map(|entry| EntryRef { seq: entry.seq, id: entry.id }));
            if read.last() == Some(&last) {
                return read;
            }
        }
    }
}

/// Asks until the answer is there.
pub async fn in_time<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let end = Instant::now() + SOON;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < end, "{what} takes too long");
        sleep(Duration::from_millis(20)).await;
    }
}

/// The text of an error and of everything under it.
pub fn text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
