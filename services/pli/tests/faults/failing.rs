// SPDX-License-Identifier: MIT OR Apache-2.0
//! Device queues whose writes fail for a while: every other one before it is made, the rest after, so that the caller
//! cannot tell.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use pli_domain::{DeviceId, LogEpoch, Position, ShardId, UnixMillis};
use pli_ports::{
    DeviceQueues, DeviceState, LogEpochStart, Page, PageQuery, ReleaseMark, Settle, ShardState, StoreError, Usage,
    UsageBound,
};

/// Turns failing on and off; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Switch {
    on: Arc<AtomicBool>,
    failed: Arc<AtomicU64>,
}

impl Switch {
    /// Writes fail from now on, or no more.
    pub fn set(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    async fn write<T>(
        &self,
        operation: &'static str,
        write: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        if !self.on.load(Ordering::Relaxed) {
            return write.await;
        }
        if self.failed.fetch_add(1, Ordering::Relaxed) % 2 == 1 {
            drop(write.await?);
        }
        Err(StoreError::later(operation, "a write that was made to fail"))
    }
}

/// See the module.
pub struct FailingQueues {
    pub inner: Arc<dyn DeviceQueues>,
    pub switch: Switch,
}

#[async_trait]
impl DeviceQueues for FailingQueues {
    async fn settle(&self, shard: ShardId, settle: Settle) -> Result<(), StoreError> {
        self.switch.write("settle", self.inner.settle(shard, settle)).await
    }
    async fn trim(&self, trims: Vec<(DeviceId, Position)>) -> Result<(), StoreError> {
        self.switch.write("trim", self.inner.trim(trims)).await
    }
    async fn begin_log_epoch(&self, shard: ShardId, from: LogEpoch, to: LogEpochStart) -> Result<bool, StoreError> {
        self.switch.write("begin_log_epoch", self.inner.begin_log_epoch(shard, from, to)).await
    }
    async fn take_mark(&self, shard: ShardId) -> Result<ShardState, StoreError> {
        self.switch.write("take_mark", self.inner.take_mark(shard)).await
    }
    async fn put_mark(&self, shard: ShardId, mark: ReleaseMark) -> Result<bool, StoreError> {
        self.switch.write("put_mark", self.inner.put_mark(shard, mark)).await
    }
    async fn read_page(&self, query: PageQuery) -> Result<Page, StoreError> {
        self.inner.read_page(query).await
    }
    async fn shard_state(&self, shard: ShardId) -> Result<ShardState, StoreError> {
        self.inner.shard_state(shard).await
    }
    async fn device_states(&self, devices: &[DeviceId]) -> Result<Vec<DeviceState>, StoreError> {
        self.inner.device_states(devices).await
    }
    async fn usage(
        &self,
        device: DeviceId,
        above: Position,
        bound: UsageBound,
        now: UnixMillis,
    ) -> Result<Usage, StoreError> {
        self.inner.usage(device, above, bound, now).await
    }
    async fn remove_device(&self, device: DeviceId) -> Result<(), StoreError> {
        self.inner.remove_device(device).await
    }
}
