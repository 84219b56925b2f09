// SPDX-License-Identifier: MIT OR Apache-2.0
//! One step of settling: entries aside, rows, registers, checkpoint, each durable before the next begins.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt};
use pli_domain::limits::SETTLE_ROWS_MAX;
use pli_domain::{Checkpoint, DeviceId, Position, ShardId};
use pli_ports::{DeviceRegister, QueueRow, Settle, StoreError};

use super::CqlDeviceQueues;
use crate::codec::{checkpoint_bytes, millis, pos, stamp};
use crate::statements::Statement;
use crate::store::Op;

const OP: Op = Op("settle");
/// Most rows of one batch, all of one device.
const BATCH_ROWS_MAX: usize = 128;
/// Most bytes of envelopes of one batch; a single larger row stands alone.
const BATCH_BYTES_MAX: usize = 64 * 1024;

/// The values of [`Statement::PutRow`].
type RowValues = (Vec<u8>, i64, i64, i32, Bytes, i64, i32);

/// Cuts rows into batches of one device each, within the bounds.
fn batches(rows: Vec<QueueRow>) -> Vec<Vec<QueueRow>> {
    let mut batches: Vec<Vec<QueueRow>> = Vec::new();
    let mut bytes = 0;
    for row in rows {
        bytes += row.envelope.len();
        match batches.last_mut() {
            Some(batch)
                if batch.len() < BATCH_ROWS_MAX
                    && bytes <= BATCH_BYTES_MAX
                    && batch.last().is_some_and(|last| last.device == row.device) =>
            {
                batch.push(row);
            }
            _ => {
                bytes = row.envelope.len();
                batches.push(vec![row]);
            }
        }
    }
    batches
}

/// The highest cursor and floor of each device.
fn highest(registers: Vec<DeviceRegister>) -> BTreeMap<DeviceId, (Option<Position>, Option<Position>)> {
    let mut highest = BTreeMap::<_, (Option<Position>, Option<Position>)>::new();
    for DeviceRegister { device, cursor, floor } in registers {
        let found = highest.entry(device).or_default();
        *found = (found.0.max(cursor), found.1.max(floor));
    }
    highest
}

impl CqlDeviceQueues {
    pub(super) async fn settle_in_order(&self, shard: ShardId, settle: Settle) -> Result<(), StoreError> {
        let Settle { aside, rows, registers, checkpoint } = settle;
        if rows.len() > SETTLE_ROWS_MAX {
            return Err(StoreError::never(
                OP.0,
                format!("a settle has {} rows; at most {SETTLE_ROWS_MAX}", rows.len()),
            ));
        }
        let shard = shard_key(shard);
        for aside in aside {
            let seq = aside.entry.seq.get() as i64;
            let row = (shard, seq, aside.entry.id.as_bytes().to_vec(), aside.bytes);
            self.store.write(OP, Statement::PutAside, row).await?;
        }
        self.put_rows(rows).await?;
        self.raise_registers(registers).await?;
        match checkpoint {
            Some(checkpoint) => self.raise_checkpoint(shard, checkpoint).await,
            None => Ok(()),
        }
    }

    async fn put_rows(&self, rows: Vec<QueueRow>) -> Result<(), StoreError> {
        let writes = batches(rows).into_iter().map(|batch| {
            let values = batch.into_iter().map(|row| (Statement::PutRow, self.row_values(row))).collect();
            self.store.batch(OP, values)
        });
        let mut writes = writes;
        let mut under_way: FuturesUnordered<_> = writes.by_ref().take(self.store.in_flight).collect();
        while let Some(done) = under_way.next().await {
            done?;
            under_way.extend(writes.next());
        }
        Ok(())
    }

    fn row_values(&self, row: QueueRow) -> RowValues {
        let QueueRow { device, position, expires_at, envelope } = row;
        let size = i32::try_from(envelope.len()).unwrap_or(i32::MAX);
        let ttl = self.store.ttl(expires_at);
        (device.as_bytes().to_vec(), pos(position), millis(expires_at), size, envelope, stamp(position), ttl)
    }

    async fn raise_registers(&self, registers: Vec<DeviceRegister>) -> Result<(), StoreError> {
        let writes = highest(registers).into_iter().map(|(device, (cursor, floor))| {
            let of = |statement, position: Option<Position>| {
                position.map(|at| (statement, (stamp(at), pos(at), device.as_bytes().to_vec())))
            };
            let both = [of(Statement::RaiseCursor, cursor), of(Statement::RaiseFloor, floor)];
            self.store.batch(OP, both.into_iter().flatten().collect())
        });
        let writes: Vec<_> = writes.collect();
        futures::stream::iter(writes).buffer_unordered(self.store.in_flight).try_collect().await
    }

    async fn raise_checkpoint(&self, shard: i32, checkpoint: Checkpoint) -> Result<(), StoreError> {
        let row = (stamp(checkpoint.position), checkpoint_bytes(&checkpoint), shard);
        self.store.write(OP, Statement::RaiseCheckpoint, row).await
    }
}

/// The key of a shard's rows.
pub(super) fn shard_key(shard: ShardId) -> i32 {
    i32::from(shard.get())
}

#[cfg(test)]
mod tests {
    use pli_domain::UnixMillis;

    use super::*;

    fn row(device: u8, size: usize) -> QueueRow {
        let envelope = Bytes::from(vec![0; size]);
        let device = DeviceId::from_bytes([device; 16]);
        QueueRow { device, position: Position::ZERO, expires_at: UnixMillis(0), envelope }
    }

    fn cut(rows: impl IntoIterator<Item = QueueRow>) -> Vec<usize> {
        batches(rows.into_iter().collect()).iter().map(Vec::len).collect()
    }

    #[test]
    fn a_batch_is_of_one_device_and_within_its_bounds() {
        assert_eq!(cut((0..300).map(|_| row(1, 10))), [128, 128, 44]);
        assert_eq!(cut([1, 1, 2, 2, 2, 1].map(|device| row(device, 10))), [2, 3, 1]);
        assert_eq!(cut([60_000, 60_000, 5_000, 600].map(|size| row(1, size))), [1, 2, 1]);
        assert_eq!(cut([row(1, 100_000), row(1, 1)]), [1, 1]);
        assert_eq!(cut([]), [0; 0]);
    }
}
