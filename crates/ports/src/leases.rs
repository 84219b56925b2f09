// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who works, and on which shards. A lease spares double work; correctness never rests on it.

use std::time::Duration;

use async_trait::async_trait;
use pli_domain::{OwnerId, ShardId};

use crate::StoreError;

/// A held lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// What is held.
    pub shard: ShardId,
    /// Who holds it.
    pub owner: OwnerId,
    /// Grows with every change of holder.
    pub generation: u64,
}

/// The lease store.
#[async_trait]
pub trait Leases: Send + Sync + 'static {
    /// Takes the lease of `shard` for `ttl` if it is free, expired, or already held by `owner` (then it is renewed
    /// and keeps its generation). None when somebody else holds it. An unknown outcome is an error; ask again.
    async fn acquire(&self, shard: ShardId, owner: OwnerId, ttl: Duration) -> Result<Option<Lease>, StoreError>;

    /// Extends the lease by `ttl` from now. False when it is no longer held: stop working on the shard.
    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError>;

    /// Gives the lease back if it is still held. Idempotent.
    async fn release(&self, lease: &Lease) -> Result<(), StoreError>;

    /// Every unexpired lease, by shard. May lag behind by a second.
    async fn held(&self) -> Result<Vec<Lease>, StoreError>;

    /// Says that the worker `owner` is at work, for `ttl` from now; repeat it meanwhile. Answers all that are, this one
    /// included, in the order of their ids. One that has stopped may be named for a few seconds longer than it said.
    async fn join(&self, owner: OwnerId, ttl: Duration) -> Result<Vec<OwnerId>, StoreError>;

    /// Takes back what [`Leases::join`] said. Idempotent.
    async fn leave(&self, owner: OwnerId) -> Result<(), StoreError>;
}
