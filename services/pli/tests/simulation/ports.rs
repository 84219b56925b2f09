// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ports as one process sees them: the models behind a gate that pauses and kills, with every call traced and
//! judged.

mod log;
mod queues;
mod signals;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use pli_domain::{OwnerId, ShardId};
use pli_ports::{Lease, Leases, StoreError};

use crate::simulation::process::Process;
use crate::simulation::world::{World, lock};

pub use log::PortLog;
pub use queues::PortQueues;
pub use signals::PortSignals;

/// What every port of one process holds.
#[derive(Clone)]
pub struct Seat {
    pub world: Arc<World>,
    pub process: Arc<Process>,
}

impl Seat {
    /// Runs one call: it begins and its answer arrives only while the process runs.
    async fn call<T>(&self, call: impl Future<Output = T>) -> T {
        self.process.pass().await;
        let answer = call.await;
        self.process.pass().await;
        answer
    }
    fn name(&self) -> &str {
        self.process.name()
    }
}

/// Leases.
pub struct PortLeases {
    pub seat: Seat,
    pub inner: Arc<dyn Leases>,
    /// The last answer to [`Leases::join`], for a process that is deceived.
    present: Mutex<Vec<OwnerId>>,
}

impl PortLeases {
    /// The leases of one process.
    pub fn new(seat: Seat, inner: Arc<dyn Leases>) -> Self {
        Self { seat, inner, present: Mutex::default() }
    }
}

#[async_trait]
impl Leases for PortLeases {
    async fn acquire(&self, shard: ShardId, owner: OwnerId, ttl: Duration) -> Result<Option<Lease>, StoreError> {
        let answer = self.seat.call(self.inner.acquire(shard, owner, ttl)).await;
        if let Ok(Some(lease)) = &answer {
            let (name, generation) = (self.seat.name(), lease.generation);
            self.seat.world.say(format_args!("{name} holds {shard:?}, generation {generation}"));
        }
        answer
    }
    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        if self.seat.process.is_deceived() {
            return self.seat.call(async { Ok(true) }).await;
        }
        let answer = self.seat.call(self.inner.renew(lease, ttl)).await;
        if let Ok(false) = answer {
            self.seat.world.say(format_args!("{} lost {:?}", self.seat.name(), lease.shard));
        }
        answer
    }
    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        self.seat.call(self.inner.release(lease)).await
    }
    async fn held(&self) -> Result<Vec<Lease>, StoreError> {
        self.seat.call(self.inner.held()).await
    }
    async fn join(&self, owner: OwnerId, ttl: Duration) -> Result<Vec<OwnerId>, StoreError> {
        if self.seat.process.is_deceived() {
            let present = lock(&self.present).clone();
            return self.seat.call(async { Ok(present) }).await;
        }
        let present = self.seat.call(self.inner.join(owner, ttl)).await?;
        lock(&self.present).clone_from(&present);
        Ok(present)
    }
    async fn leave(&self, owner: OwnerId) -> Result<(), StoreError> {
        self.seat.call(self.inner.leave(owner)).await
    }
}
