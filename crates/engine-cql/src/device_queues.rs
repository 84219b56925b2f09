// SPDX-License-Identifier: MIT OR Apache-2.0
//! Device queues, registers and shard states.

mod pages;
mod settle;
mod shards;

use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use pli_domain::{DeviceId, LogEpoch, Position, ShardId, UnixMillis};
use pli_ports::{
    DeviceQueues, DeviceState, LogEpochStart, Page, PageQuery, ReleaseMark, Settle, ShardState, StoreError, Usage,
    UsageBound,
};

use crate::codec::{pos, position, stamp};
use crate::statements::Statement;
use crate::store::{Op, Store};

/// [`DeviceQueues`] on CQL.
pub(crate) struct CqlDeviceQueues {
    pub(crate) store: Arc<Store>,
}

/// acked_pos, floor, removed
type RegisterRow = (Option<i64>, Option<i64>, Option<bool>);

impl CqlDeviceQueues {
    async fn device_state(&self, device: DeviceId) -> Result<DeviceState, StoreError> {
        const OP: Op = Op("read device registers");
        let key = (&device.as_bytes()[..],);
        let found: Option<RegisterRow> = self.store.first(OP, Statement::ReadRegisters, key).await?;
        let (cursor, floor) = match found {
            Some((cursor, floor, removed)) if removed != Some(true) => (cursor, floor),
            _ => (None, None),
        };
        let or_zero = |stored: Option<i64>| stored.map_or(Ok(Position::ZERO), position).map_err(OP.damaged());
        Ok(DeviceState { cursor: or_zero(cursor)?, floor: or_zero(floor)? })
    }
}

#[async_trait]
impl DeviceQueues for CqlDeviceQueues {
    async fn settle(&self, shard: ShardId, settle: Settle) -> Result<(), StoreError> {
        self.settle_in_order(shard, settle).await
    }

    async fn read_page(&self, query: PageQuery) -> Result<Page, StoreError> {
        self.page(query).await
    }

    async fn shard_state(&self, shard: ShardId) -> Result<ShardState, StoreError> {
        self.read_shard(shard).await
    }

    async fn take_mark(&self, shard: ShardId) -> Result<ShardState, StoreError> {
        self.take(shard).await
    }

    async fn put_mark(&self, shard: ShardId, mark: ReleaseMark) -> Result<bool, StoreError> {
        self.put(shard, mark).await
    }

    async fn begin_log_epoch(&self, shard: ShardId, from: LogEpoch, to: LogEpochStart) -> Result<bool, StoreError> {
        self.begin(shard, from, to).await
    }

    async fn device_states(&self, devices: &[DeviceId]) -> Result<Vec<DeviceState>, StoreError> {
        let reads: Vec<_> = devices.iter().map(|device| self.device_state(*device)).collect();
        futures::stream::iter(reads).buffered(self.store.in_flight).try_collect().await
    }

    async fn trim(&self, trims: Vec<(DeviceId, Position)>) -> Result<(), StoreError> {
        const OP: Op = Op("trim device queues");
        // Nothing stands at zero.
        let trims = trims.into_iter().filter(|(_, through)| *through > Position::ZERO);
        let writes = trims.map(|(device, through)| async move {
            let row = (stamp(through), &device.as_bytes()[..], pos(through));
            self.store.write(OP, Statement::TrimRows, row).await
        });
        let writes: Vec<_> = writes.collect();
        futures::stream::iter(writes).buffer_unordered(self.store.in_flight).try_collect().await
    }

    async fn usage(
        &self,
        device: DeviceId,
        above: Position,
        bound: UsageBound,
        now: UnixMillis,
    ) -> Result<Usage, StoreError> {
        self.count(device, above, bound, now).await
    }

    /// The deletion covers what is there; the mark beside it, one microsecond later, hides what is written after the
    /// deletion's tombstone is gone.
    async fn remove_device(&self, device: DeviceId) -> Result<(), StoreError> {
        const OP: Op = Op("remove a device");
        let (key, at) = (&device.as_bytes()[..], self.store.stamps.next());
        let rows = vec![(Statement::RemoveRows, (at, key)), (Statement::MarkRowsRemoved, (at + 1, key))];
        let registers = vec![(Statement::RemoveRegisters, (at, key)), (Statement::MarkRegistersRemoved, (at + 1, key))];
        self.store.batch(OP, rows).await?;
        self.store.batch(OP, registers).await
    }
}
