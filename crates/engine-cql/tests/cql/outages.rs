// SPDX-License-Identifier: MIT OR Apache-2.0
//! A node that goes down and comes back.

use std::time::Duration;

use bytes::Bytes;
use pli_domain::{DeviceId, EntryRef, LogEpoch, PayloadId, Position, Seq, ShardId, UnixMillis};
use pli_engine_cql::{CqlEngine, CqlOptions, OpenError, check};
use pli_ports::{DeviceQueues, LogEpochStart, QueueRow, ReleaseMark, Retry, Settle, StoreError};
use pli_testkit::time::START;

use crate::support::server;

fn one_row(device: DeviceId) -> Settle {
    let position = Position::new(LogEpoch::new(1).unwrap(), Seq::new(7).unwrap(), 0);
    let expires_at = UnixMillis(START.0 + 3_600_000);
    let rows = vec![QueueRow { device, position, expires_at, envelope: Bytes::from_static(b"sealed") }];
    Settle { rows, ..Settle::default() }
}

async fn has_row(queues: &dyn DeviceQueues, device: DeviceId) -> Result<bool, StoreError> {
    let bound = pli_ports::UsageBound { rows_max: 10, bytes_max: 1_000 };
    Ok(queues.usage(device, Position::ZERO, bound, START).await?.rows == 1)
}

fn later<T: std::fmt::Debug>(answer: Result<T, StoreError>) {
    let error = answer.expect_err("a node that is down answers");
    assert_eq!(error.retry, Retry::Later, "{error:?}");
    assert!(std::error::Error::source(&error).is_some(), "an error without its source");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_down_means_later_and_the_same_call_succeeds_once_it_is_back() {
    let name = "a_node_that_is_down_means_later_and_the_same_call_succeeds_once_it_is_back";
    let Some(mut server) = server(name).await else { return };
    if server.ring.is_none() {
        println!("skipped: {name}: a server that was there already is not broken");
        return;
    }
    let attempt_timeout = Duration::from_millis(300);
    let options = CqlOptions { deadline: Duration::from_secs(1), attempt_timeout, ..server.options.clone() };
    let engine = CqlEngine::open(&options).await.unwrap();
    let queues = engine.device_queues();
    let device = DeviceId::from_bytes([200; 16]);
    server.ring.as_mut().unwrap().stop(0).await;
    later(queues.settle(ShardId::new(9), one_row(device)).await);
    later(queues.shard_state(ShardId::new(9)).await);
    later(queues.device_states(&[device]).await);
    later(queues.begin_log_epoch(ShardId::new(9), LogEpoch::NONE, start()).await);
    later(engine.payloads().put(PayloadId::from_bytes([1; 16]), Bytes::from_static(b"x"), START).await);
    assert!(matches!(check(&options).await, Err(OpenError::Unreachable { .. })));
    server.ring.as_mut().unwrap().resume(0).await.unwrap();
    // The session finds the node again by itself.
    let mut settled = queues.settle(ShardId::new(9), one_row(device)).await;
    for _ in 0..60 {
        if settled.is_ok() {
            break;
        }
        settled = queues.settle(ShardId::new(9), one_row(device)).await;
    }
    settled.unwrap();
    assert!(has_row(&*queues, device).await.unwrap());
    // The call whose outcome was unknown is repeated, and knows its win.
    assert!(queues.begin_log_epoch(ShardId::new(9), LogEpoch::NONE, start()).await.unwrap());
    assert!(queues.begin_log_epoch(ShardId::new(9), LogEpoch::NONE, start()).await.unwrap());
}

fn start() -> LogEpochStart {
    LogEpochStart { epoch: LogEpoch::new(1).unwrap(), first: Seq::new(3).unwrap() }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_opening_does_not_take_a_log_epoch_for_its_own() {
    let Some(server) = server("another_opening_does_not_take_a_log_epoch_for_its_own").await else { return };
    let (first, second) = (server.engine().await.device_queues(), server.engine().await.device_queues());
    let shard = ShardId::new(11);
    assert!(first.begin_log_epoch(shard, LogEpoch::NONE, start()).await.unwrap());
    assert!(!second.begin_log_epoch(shard, LogEpoch::NONE, start()).await.unwrap(), "two owners began one log epoch");
    let last = EntryRef { seq: Seq::new(5).unwrap(), id: pli_domain::EntryId::from_bytes([5; 16]) };
    let mark = ReleaseMark { epoch: start().epoch, last: Some(last) };
    // Equal marks are different marks: each serves once.
    for _ in 0..2 {
        assert!(first.put_mark(shard, mark).await.unwrap());
        let (one, other) = tokio::join!(first.take_mark(shard), second.take_mark(shard));
        let taken = [one.unwrap().mark, other.unwrap().mark];
        assert_eq!(taken.iter().flatten().count(), 1, "{taken:?}");
    }
}
