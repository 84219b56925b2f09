// SPDX-License-Identifier: MIT OR Apache-2.0
//! What settling costs, in time and statements, on one node. Printed, never judged.

use std::time::Instant;

use bytes::Bytes;
use pli_domain::{DeviceId, LogEpoch, Position, Seq, ShardId, UnixMillis};
use pli_ports::{DeviceRegister, QueueRow, Settle};
use pli_testkit::time::START;

use crate::support::{server, soaking};

const ROWS: u64 = 4_096;

/// 4,096 rows of 300 bytes over so many devices, and as many cursors.
fn settle(devices: u64, round: u64) -> Settle {
    let device = |number: u64| {
        let mut bytes = [77; 16];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        bytes[8..].copy_from_slice(&devices.to_be_bytes());
        DeviceId::from_bytes(bytes)
    };
    let at = |n: u64| Position::new(LogEpoch::new(1).unwrap(), Seq::new(1 + round * ROWS + n).unwrap(), 0);
    let row = |n: u64| QueueRow {
        device: device(n * devices / ROWS),
        position: at(n),
        expires_at: UnixMillis(START.0 + 3_600_000),
        envelope: Bytes::from(vec![7; 300]),
    };
    let register = |n: u64| DeviceRegister { device: device(n), cursor: Some(at(0)), floor: None };
    let rows = (0..ROWS).map(row).collect();
    Settle { rows, registers: (0..devices).map(register).collect(), ..Settle::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn settling_is_measured() {
    if !soaking() {
        return;
    }
    let Some(server) = server("settling_is_measured").await else { return };
    let engine = server.engine().await;
    let queues = engine.device_queues();
    for devices in [1, 64, 4_096] {
        for round in 0..4 {
            let (sent, started) = (engine.statements_sent(), Instant::now());
            let mut step = settle(devices, round);
            let registers = std::mem::take(&mut step.registers);
            queues.settle(ShardId::new(1), step).await.unwrap();
            let rows = (started.elapsed().as_secs_f64(), engine.statements_sent() - sent);
            let (sent, started) = (engine.statements_sent(), Instant::now());
            queues.settle(ShardId::new(1), Settle { registers, ..Settle::default() }).await.unwrap();
            let cursors = (started.elapsed().as_secs_f64(), engine.statements_sent() - sent);
            println!(
                "{ROWS} rows over {devices} devices: {:.0} rows/s, {} statements; {devices} cursors: {:.0}/s, {} statements",
                ROWS as f64 / rows.0,
                rows.1,
                devices as f64 / cursors.0,
                cursors.1
            );
        }
    }
}
