// SPDX-License-Identifier: MIT OR Apache-2.0
//! Logs that lost their end while the servers were down.

use pli_domain::{EntryRef, Seq};
use pli_engine_nats::log_stream;
use pli_testkit::engines::nats::{Down, NatsServers, NatsSettings};

use crate::support::{SHARD, append, engine, entry, one_server, options, read_through, servers};

/// What an owner looks at: the end is lower, what was lost is not there, and what grows again where it was has another
/// id.
async fn shows_what_it_lost(servers: &NatsServers, appended: &[EntryRef], kept: usize) {
    let engine = engine(options(servers)).await;
    let log = engine.shard_log();
    let bounds = log.bounds(SHARD).await.unwrap();
    assert_eq!((bounds.first, bounds.head), (appended[0].seq, appended[kept - 1].seq), "bounds after the loss");
    for (number, entry) in appended.iter().enumerate() {
        let expected = (number < kept).then_some(entry.id);
        assert_eq!(log.entry_at(SHARD, entry.seq).await.unwrap(), expected, "entry {number}");
    }
    let again = append(&log, entry(SHARD, 1_000)).await;
    assert_eq!(again.seq, appended[kept].seq, "the log grows where it was cut");
    assert_eq!(log.entry_at(SHARD, again.seq).await.unwrap(), Some(again.id));
    let mut expected = appended[..kept].to_vec();
    expected.push(again);
    assert_eq!(read_through(&log, Seq::ZERO, again).await, expected);
    // A retry of what was lost is appended, not taken for a repetition.
    let retried = append(&log, entry(SHARD, kept as u64)).await;
    assert_eq!((retried.seq, retried.id), (again.seq.next(), appended[kept].id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_cut_off_the_files_of_one_server_shows() {
    let Some(mut servers) = one_server("an_end_cut_off_the_files_of_one_server_shows").await else { return };
    let mut appended = Vec::new();
    {
        let engine = engine(options(&servers)).await;
        let log = engine.shard_log();
        for number in 0..20 {
            appended.push(append(&log, entry(SHARD, number)).await);
        }
        engine.close().await;
    }
    servers.all_down(Down::Killed);
    // The last byte of a record is enough to lose all of it.
    servers.cut_stream(&log_stream(0), 1).unwrap();
    servers.start_all().await.unwrap();
    shows_what_it_lost(&servers, &appended, 19).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_all_three_servers_lost_shows() {
    let settings = NatsSettings { servers: 3, ..NatsSettings::default() };
    let Some(mut servers) = servers("an_end_that_all_three_servers_lost_shows", settings).await else { return };
    let mut appended = Vec::new();
    for (numbers, keep) in [(0..10, true), (10..20, false)] {
        let engine = engine(options(&servers)).await;
        let log = engine.shard_log();
        for number in numbers {
            appended.push(append(&log, entry(SHARD, number)).await);
        }
        engine.close().await;
        servers.all_down(Down::Killed);
        if keep {
            servers.keep_data().unwrap();
            servers.start_all().await.unwrap();
        }
    }
    servers.go_back_to_kept_data().unwrap();
    servers.start_all().await.unwrap();
    shows_what_it_lost(&servers, &appended, 10).await;
}
