// SPDX-License-Identifier: MIT OR Apache-2.0
//! Three nodes, three replicas, LOCAL_QUORUM: one node may be killed at any time. Only in the long mode.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pli_domain::{Checkpoint, DeviceId, EntryId, LogEpoch, Position, Seq, ShardId, UnixMillis};
use pli_engine_cql::{CqlEngine, CqlOptions, check, migrate};
use pli_ports::{DeviceRegister, LogEpochStart, PageQuery, QueueRow, Retry, Settle, StoreError};
use pli_testkit::engines::cassandra::{Cassandra, Launch, free_addresses, jars};
use pli_testkit::time::{RuntimeClock, START};

use crate::support::{folder, options, soaking};

const DEVICES: u8 = 20;

fn at(number: u64) -> Position {
    Position::end_of(LogEpoch::new(1).unwrap(), Seq::new(number).unwrap())
}

/// Step `number`: a row and a cursor for each device, then the checkpoint.
fn step(number: u64) -> Settle {
    let expires_at = UnixMillis(START.0 + 3_600_000);
    let devices = (0..DEVICES).map(|device| DeviceId::from_bytes([device; 16]));
    let row = |device| QueueRow { device, position: at(number), expires_at, envelope: Bytes::from(vec![1; 200]) };
    let register = |device| DeviceRegister { device, cursor: Some(at(number - 1)), floor: None };
    Settle {
        aside: vec![],
        rows: devices.clone().map(row).collect(),
        registers: devices.map(register).collect(),
        checkpoint: Some(Checkpoint { position: at(number), entry: Some(EntryId::from_bytes([3; 16])) }),
    }
}

/// As owners do: until it succeeds.
async fn repeated<T, F: Future<Output = Result<T, StoreError>>>(ask: impl Fn() -> F) -> T {
    for _ in 0..100 {
        match ask().await {
            Ok(done) => return done,
            Err(error) => assert_eq!(error.retry, Retry::Later, "{error:?}"),
        }
    }
    panic!("100 calls did not succeed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_of_three_goes_on_while_a_node_is_killed() {
    if !soaking() {
        return;
    }
    let name = "a_ring_of_three_goes_on_while_a_node_is_killed";
    let jars = match jars() {
        Ok(jars) => jars,
        Err(why) => return println!("skipped: {name}: {why}"),
    };
    let addresses = free_addresses(3).unwrap();
    let launch = Launch { jars, folder: folder("ring"), nodes: 3, login: false, certificate: None };
    let mut ring = Cassandra::start(launch, &addresses).await.unwrap();
    let clock = Arc::new(RuntimeClock::new(START));
    let options = CqlOptions { replication: 3, production: true, clock, ..options(ring.contact_points()) };
    migrate(&options).await.unwrap();
    check(&options).await.unwrap();
    let queues = CqlEngine::open(&options).await.unwrap().device_queues();
    let shard = ShardId::new(3);
    let first = LogEpochStart { epoch: LogEpoch::new(1).unwrap(), first: Seq::new(1).unwrap() };
    assert!(repeated(|| queues.begin_log_epoch(shard, LogEpoch::NONE, first)).await);
    for number in 1..=90 {
        match number {
            // Another node each time, killed under load, back 15 steps later on what it has.
            10 | 40 | 70 => ring.kill(number as usize / 30),
            25 | 55 | 85 => ring.resume(number as usize / 30).await.unwrap(),
            _ => {}
        }
        repeated(|| queues.settle(shard, step(number))).await;
        let state = repeated(|| queues.shard_state(shard)).await;
        assert_eq!(state.checkpoint.position, at(number), "the checkpoint after step {number}");
    }
    tokio::time::timeout(Duration::from_secs(120), judge(&*queues)).await.unwrap();
}

async fn judge(queues: &dyn pli_ports::DeviceQueues) {
    let expected: Vec<Position> = (1..=90).map(at).collect();
    for device in (0..DEVICES).map(|device| DeviceId::from_bytes([device; 16])) {
        let (after, through) = (Position::ZERO, Position::MAX);
        let query = PageQuery { device, after, through, now: START, rows_max: 1_000, bytes_max: usize::MAX };
        let page = repeated(|| queues.read_page(query)).await;
        assert_eq!(page.rows.iter().map(|row| row.position).collect::<Vec<_>>(), expected, "rows of {device}");
        let asked = [device];
        assert_eq!(repeated(|| queues.device_states(&asked)).await[0].cursor, at(89), "cursor of {device}");
    }
}
