// SPDX-License-Identifier: MIT OR Apache-2.0
//! Servers and options that must be refused, in words that say what to do.

use std::time::Duration;

use bytes::Bytes;
use pli_engine_nats::{ConnectError, Credentials, Layout, MigrateError, NatsEngine, NatsOptions, Problem, log_stream};
use pli_ports::NewEntry;
use pli_testkit::engines::nats::{Down, NatsSettings};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use crate::support::{SHARD, append, engine, entry, in_time, one_server, options, raw, servers, text};

/// The words of everything that forbids to start.
async fn refusal(engine: &NatsEngine) -> String {
    match engine.check().await.into_result() {
        Ok(warnings) => panic!("nothing forbids to start; warnings: {warnings:?}"),
        Err(error) => error.to_string(),
    }
}

fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_sync_is_refused_unless_the_danger_is_named() {
    let settings = NatsSettings { synced: false, ..NatsSettings::default() };
    let Some(servers) = servers("a_server_that_does_not_sync_is_refused_unless_the_danger_is_named", settings).await
    else {
        return;
    };
    let careful = engine(options(&servers)).await;
    says(&refusal(&careful).await, &["n0", "sync_interval: always", "dangerously_allow_unsynced_storage"]);
    let bold = engine(NatsOptions { dangerously_allow_unsynced_storage: true, ..options(&servers) }).await;
    let warnings = bold.check().await.into_result().unwrap();
    assert!(warnings.iter().any(|p| matches!(p, Problem::NotSynced { .. })), "{warnings:?}");
}

#[tokio::test]
async fn a_synced_server_must_be_proven_to_be_one() {
    let Some(servers) = one_server("a_synced_server_must_be_proven_to_be_one").await else { return };
    let fine = engine(options(&servers)).await;
    assert!(fine.check().await.into_result().is_ok());
    let unproven = engine(NatsOptions { monitors: Vec::new(), ..options(&servers) }).await;
    says(&refusal(&unproven).await, &["nothing proves that server n0 is synced", "monitors"]);
    let deaf = engine(NatsOptions { monitors: vec!["127.0.0.1:1".into()], ..options(&servers) }).await;
    says(&refusal(&deaf).await, &["monitoring address 127.0.0.1:1 gives no answer", "nothing proves"]);
    // A client port is no monitoring port.
    let wrong = engine(NatsOptions { monitors: servers.addresses(), ..options(&servers) }).await;
    says(&refusal(&wrong).await, &["gives no answer", "not that of NATS monitoring"]);
}

#[tokio::test]
async fn one_replica_is_refused_in_production() {
    let Some(servers) = one_server("one_replica_is_refused_in_production").await else { return };
    let engine = engine(NatsOptions { dangerously_allow_one_replica: false, ..options(&servers) }).await;
    says(&refusal(&engine).await, &["one replica", "replicas = 3", "dangerously_allow_one_replica"]);
}

#[tokio::test]
async fn missing_streams_and_other_settings_are_refused_and_migrated() {
    let Some(servers) = one_server("missing_streams_and_other_settings_are_refused_and_migrated").await else { return };
    let engine = NatsEngine::connect(options(&servers)).await.unwrap();
    says(&text(&engine.shard_map().await.err().unwrap()), &["PLI_LOG_0", "pli migrate"]);
    says(&refusal(&engine).await, &["stream PLI_LOG_0 is missing", "stream KV_PLI_LEASES is missing", "migrate"]);
    engine.migrate().await.unwrap();
    // What somebody changed by hand.
    let client = raw(&servers).await;
    let info = client.request(format!("$JS.API.STREAM.INFO.{}", log_stream(0)), Bytes::new()).await.unwrap();
    let mut config = serde_json::from_slice::<serde_json::Value>(&info.payload).unwrap()["config"].take();
    config["max_age"] = 3_600_000_000_000u64.into();
    config["discard"] = "old".into();
    let update = format!("$JS.API.STREAM.UPDATE.{}", log_stream(0));
    client.request(update, config.to_string().into()).await.unwrap();
    says(&refusal(&engine).await, &["max_age is 3600000000000, must be 0", "discard is \"old\", must be \"new\""]);
    engine.migrate().await.unwrap();
    assert!(engine.check().await.problems.is_empty(), "{:?}", engine.check().await);
}

/// Where some accounts are.
async fn mapped(engine: &NatsEngine) -> Vec<pli_domain::ShardId> {
    let map = engine.shard_map().await.unwrap();
    (0..64).map(|n| map.shard_of(pli_domain::AccountId::from_bytes([n; 16]))).collect()
}

#[tokio::test]
async fn migrating_twice_at_once_and_again_is_harmless() {
    let Some(servers) = one_server("migrating_twice_at_once_and_again_is_harmless").await else { return };
    let one = NatsEngine::connect(options(&servers)).await.unwrap();
    let two = NatsEngine::connect(options(&servers)).await.unwrap();
    let (first, second) = tokio::join!(one.migrate(), two.migrate());
    first.unwrap();
    second.unwrap();
    let shards = mapped(&one).await;
    assert_eq!(mapped(&two).await, shards, "whoever came first decided for both");
    let mut larger = options(&servers);
    larger.layout.stream_bytes_max *= 2;
    let one = NatsEngine::connect(larger.clone()).await.unwrap();
    let two = NatsEngine::connect(larger).await.unwrap();
    let (first, second) = tokio::join!(one.migrate(), two.migrate());
    first.unwrap();
    second.unwrap();
    assert!(two.check().await.problems.is_empty());
    assert_eq!(mapped(&two).await, shards, "it stays as long as the cluster");
}

#[tokio::test]
async fn a_log_says_how_full_its_stream_is() {
    let Some(servers) = one_server("a_log_says_how_full_its_stream_is").await else { return };
    let mut small = options(&servers);
    small.layout.stream_bytes_max = 1 << 20;
    let engine = engine(small).await;
    let log = engine.shard_log();
    assert_eq!(log.fullness(SHARD).await.unwrap(), 0);
    for number in 0..12 {
        append(&log, NewEntry { bytes: Bytes::from(vec![7; 64 << 10]), ..entry(SHARD, number) }).await;
    }
    let full = log.fullness(SHARD).await.unwrap();
    assert!((750..800).contains(&full), "{full}: 12 of 16 times 64 KiB, and some for heads");
}

#[tokio::test]
async fn another_number_of_streams_is_refused() {
    let Some(servers) = one_server("another_number_of_streams_is_refused").await else { return };
    engine(options(&servers)).await;
    let mut other = options(&servers);
    other.layout.streams = 2;
    let error = NatsEngine::connect(other).await.unwrap().migrate().await.unwrap_err();
    assert!(matches!(error, MigrateError::Fixed { .. }), "{error:?}");
    says(&text(&error), &["PLI_LOG_0", "fixed when a cluster is created"]);
}

#[tokio::test]
async fn no_room_and_too_few_servers_are_told() {
    let settings = NatsSettings { max_file_store: 100 << 20, ..NatsSettings::default() };
    let Some(servers) = servers("no_room_and_too_few_servers_are_told", settings).await else { return };
    let mut large = options(&servers);
    large.layout.stream_bytes_max = 1 << 30;
    let error = NatsEngine::connect(large).await.unwrap().migrate().await.unwrap_err();
    assert!(matches!(error, MigrateError::NoRoom { .. }), "{error:?}");
    says(&text(&error), &["max_file_store", "stream_bytes_max"]);
    let mut three = options(&servers);
    three.layout.replicas = 3;
    let error = NatsEngine::connect(three).await.unwrap().migrate().await.unwrap_err();
    says(&text(&error), &["replicas"]);
}

#[tokio::test]
async fn a_server_without_jetstream_is_refused() {
    let settings = NatsSettings { jetstream: false, ..NatsSettings::default() };
    let Some(servers) = servers("a_server_without_jetstream_is_refused", settings).await else { return };
    let engine = NatsEngine::connect(options(&servers)).await.unwrap();
    says(&refusal(&engine).await, &["JetStream is off on n0", "jetstream block"]);
    says(&text(&engine.migrate().await.unwrap_err()), &["JetStream is off"]);
}

#[tokio::test]
async fn options_that_cannot_be_used_are_refused() {
    let fine = NatsOptions { servers: vec!["127.0.0.1:1".into()], ..NatsOptions::default() };
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "SUnonsense").unwrap();
    let of_file = |file: &str| Credentials { nkey_seed_file: Some(file.into()), tls: None };
    let cases = [
        (NatsOptions { servers: Vec::new(), ..fine.clone() }, "servers is empty"),
        (NatsOptions { servers: vec!["nats://:x".into()], ..fine.clone() }, "servers has"),
        (NatsOptions { in_flight_max: 0, ..fine.clone() }, "in_flight_max"),
        (NatsOptions { layout: Layout { streams: 1, ..Layout::default() }, ..fine.clone() }, "streams = 1"),
        (NatsOptions { credentials: of_file("/nowhere/seed"), ..fine.clone() }, "/nowhere/seed cannot be read"),
        (NatsOptions { credentials: of_file(file.path().to_str().unwrap()), ..fine.clone() }, "no NKey user seed"),
        (fine, "no connection to 127.0.0.1:1"),
    ];
    for (options, expected) in cases {
        let error = NatsEngine::connect(options).await.unwrap_err();
        let text = text(&error);
        assert!(text.contains(expected), "{expected:?} is missing in: {text}");
        assert!(!text.contains("SUnonsense"), "an error shows a seed: {text}");
    }
}

/// Speaks as an old server does, as far as connecting goes.
async fn old_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (read, mut write) = stream.into_split();
                let info = r#"{"server_id":"A","server_name":"old","version":"2.12.1","max_payload":1048576,"headers":true,"jetstream":true}"#;
                write.write_all(format!("INFO {info}\r\n").as_bytes()).await.ok();
                let mut lines = BufReader::new(read).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    if line.starts_with("PING") {
                        write.write_all(b"PONG\r\n").await.ok();
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_server_that_is_too_old_is_refused() {
    let servers = vec![old_server().await];
    let answer_timeout = Duration::from_millis(300);
    let options = NatsOptions { servers, answer_timeout, ..NatsOptions::default() };
    let engine = NatsEngine::connect(options).await.unwrap();
    says(&refusal(&engine).await, &["server old is NATS 2.12.1", "run 2.15 or newer"]);
}

#[tokio::test]
async fn refused_credentials_are_told() {
    let user = nkeys::KeyPair::new_user();
    let more = format!("authorization {{ users = [ {{ nkey: \"{}\" }} ] }}\n", user.public_key());
    let settings = NatsSettings { more, ..NatsSettings::default() };
    let Some(servers) = servers("refused_credentials_are_told", settings).await else { return };
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), nkeys::KeyPair::new_user().seed().unwrap()).unwrap();
    let mut options = options(&servers);
    for stranger in [None, Some(file.path().to_path_buf())] {
        options.credentials.nkey_seed_file = stranger;
        let error = NatsEngine::connect(options.clone()).await.unwrap_err();
        assert!(matches!(error, ConnectError::Refused { .. }), "{error:?}");
        says(&text(&error), &["refused the credentials", "NKey"]);
    }
    std::fs::write(file.path(), user.seed().unwrap()).unwrap();
    engine(options).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_three_that_is_down_forbids_no_start() {
    let settings = NatsSettings { servers: 3, ..NatsSettings::default() };
    let Some(mut three) = servers("a_server_of_three_that_is_down_forbids_no_start", settings).await else { return };
    let engine = engine(options(&three)).await;
    in_time("a whole cluster", async || engine.check().await.problems.is_empty().then_some(())).await;
    three.down(2, Down::Killed);
    let name = three.names()[2].clone();
    let down = |problem: &Problem| matches!(problem, Problem::HolderDown { server } if *server == name);
    in_time("a cluster of two", async || {
        let report = engine.check().await;
        (report.problems.is_empty() && report.warnings.iter().any(down)).then_some(())
    })
    .await;
    three.up(2).await.unwrap();
    in_time("a whole cluster again", async || {
        let report = engine.check().await;
        (report.problems.is_empty() && report.warnings.is_empty()).then_some(())
    })
    .await;
}
