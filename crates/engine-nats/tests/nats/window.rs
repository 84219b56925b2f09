// SPDX-License-Identifier: MIT OR Apache-2.0
//! Appends above the window, and above what there is room for.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pli_domain::{EntryRef, Seq};
use pli_engine_nats::{NatsOptions, Problem};
use pli_ports::{AppendError, NewEntry, Retry, ShardLog};
use pli_testkit::engines::nats::NatsSettings;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::{SHARD, SOON, engine, entry, one_server, options, servers};

/// Between two tries.
const AGAIN: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_larger_than_the_window_do_not_wait_for_each_other() {
    let test = "calls_that_are_larger_than_the_window_do_not_wait_for_each_other";
    let Some(servers) = one_server(test).await else { return };
    let engine = engine(NatsOptions { in_flight_max: 8, ..options(&servers) }).await;
    let log = engine.shard_log();
    let mut calls = JoinSet::new();
    for call in 0..20 {
        let log = Arc::clone(&log);
        let batch = (0..20).map(|number| entry(SHARD, call * 20 + number)).collect();
        calls.spawn(async move { log.append(batch).await.into_iter().collect::<Result<Vec<_>, _>>() });
    }
    while let Some(done) = timeout(SOON, calls.join_next()).await.unwrap() {
        let appended = done.unwrap().unwrap();
        assert!(appended.is_sorted_by(|a, b| a.seq < b.seq), "{appended:?}");
    }
    assert_eq!(log.bounds(SHARD).await.unwrap().head, Seq::new(400).unwrap());
}

/// What the log says of an entry in the end: three servers may be choosing who leads the stream.
async fn decided(log: &dyn ShardLog, entry: NewEntry) -> Result<EntryRef, AppendError> {
    let repeated = async {
        loop {
            match log.append(vec![entry.clone()]).await.remove(0) {
                Err(AppendError::Store(error)) if error.retry == Retry::Later => tokio::time::sleep(AGAIN).await,
                decided => return decided,
            }
        }
    };
    timeout(SOON, repeated).await.expect("a stream without a leader for so long")
}

/// Fills the log until it refuses, then makes room and appends again.
async fn fills(replicas: usize, test: &str) {
    let Some(servers) = servers(test, NatsSettings { servers: replicas, ..NatsSettings::default() }).await else {
        return;
    };
    let mut small = options(&servers);
    small.layout.stream_bytes_max = 1 << 20;
    let engine = engine(small).await;
    let log = engine.shard_log();
    let sized = |number| NewEntry { bytes: Bytes::from(vec![7; 200_000]), ..entry(SHARD, number) };
    let mut appended = Vec::new();
    let refused = loop {
        assert!(appended.len() < 10, "2 MB fit into 1 MiB");
        match decided(log.as_ref(), sized(appended.len() as u64)).await {
            Ok(entry) => appended.push(entry),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, AppendError::Full { retry_after_ms: 2_000 }), "{refused:?}");
    let report = engine.check().await;
    assert!(report.warnings.iter().any(|p| matches!(p, Problem::StreamFull { .. })), "{report:?}");
    assert!(report.problems.is_empty(), "a full log must not keep owners from trimming it: {report:?}");
    log.trim(SHARD, appended[2].seq).await.unwrap();
    let again = decided(log.as_ref(), sized(100)).await.unwrap();
    assert!(again.seq > appended[appended.len() - 1].seq);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_log_refuses_for_later_and_takes_more_after_a_trim() {
    fills(1, "a_full_log_refuses_for_later_and_takes_more_after_a_trim").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_log_of_three_servers_refuses_for_later_and_takes_more_after_a_trim() {
    fills(3, "a_full_log_of_three_servers_refuses_for_later_and_takes_more_after_a_trim").await;
}
