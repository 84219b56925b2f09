// SPDX-License-Identifier: MIT OR Apache-2.0
//! Leases in memory: in one process nobody else can hold one.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use pli_domain::{OwnerId, ShardId};
use pli_ports::{Lease, Leases, StoreError};
use tokio::time::Instant;

#[derive(Debug, Clone, Copy)]
struct Held {
    lease: Lease,
    until: Option<Instant>,
}

/// Generations of one opening of the folder; what was leased before is free and lies below.
const GENERATIONS_PER_OPENING: u64 = 1 << 32;

/// One record per shard that was ever leased.
#[derive(Debug)]
pub(crate) struct EmbeddedLeases {
    held: Mutex<BTreeMap<ShardId, Held>>,
    /// Workers, with the end of what they said last; those that are over go with the next one's word.
    workers: Mutex<BTreeMap<OwnerId, Instant>>,
    first_generation: u64,
}

impl EmbeddedLeases {
    /// Leases of the folder's `opening`-th opening.
    pub(crate) fn new(opening: u64) -> Self {
        let first_generation = opening.saturating_mul(GENERATIONS_PER_OPENING);
        Self { held: Mutex::default(), workers: Mutex::default(), first_generation }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ShardId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn is_held(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until > now)
    }
}

#[async_trait]
impl Leases for EmbeddedLeases {
    async fn acquire(&self, shard: ShardId, owner: OwnerId, ttl: Duration) -> Result<Option<Lease>, StoreError> {
        let now = Instant::now();
        let mut all = self.lock();
        let before = all.get(&shard);
        let generation = match before {
            Some(held) if held.lease.owner == owner && held.until.is_some() => held.lease.generation,
            Some(held) if held.is_held(now) => return Ok(None),
            Some(held) => held.lease.generation + 1,
            None => self.first_generation,
        };
        let lease = Lease { shard, owner, generation };
        all.insert(shard, Held { lease, until: Some(now + ttl) });
        Ok(Some(lease))
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        let now = Instant::now();
        match self.lock().get_mut(&lease.shard) {
            Some(held) if held.lease == *lease && held.is_held(now) => {
                held.until = Some(now + ttl);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        if let Some(held) = self.lock().get_mut(&lease.shard)
            && held.lease == *lease
        {
            held.until = None;
        }
        Ok(())
    }

    async fn held(&self) -> Result<Vec<Lease>, StoreError> {
        let now = Instant::now();
        Ok(self.lock().values().filter(|held| held.is_held(now)).map(|held| held.lease).collect())
    }

    async fn join(&self, owner: OwnerId, ttl: Duration) -> Result<Vec<OwnerId>, StoreError> {
        let now = Instant::now();
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.insert(owner, now + ttl);
        workers.retain(|_, until| *until > now);
        Ok(workers.keys().copied().collect())
    }

    async fn leave(&self, owner: OwnerId) -> Result<(), StoreError> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).remove(&owner);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_lease_expires_and_the_next_holder_has_a_higher_generation() {
        let leases = EmbeddedLeases::new(1);
        let (a, b) = (OwnerId::from_bytes([1; 16]), OwnerId::from_bytes([2; 16]));
        let shard = ShardId::new(3);
        let first = leases.acquire(shard, a, TTL).await.unwrap().unwrap();
        assert_eq!(leases.acquire(shard, a, TTL).await.unwrap(), Some(first));
        assert_eq!(leases.acquire(shard, b, TTL).await.unwrap(), None);
        tokio::time::advance(TTL).await;
        assert!(!leases.renew(&first, TTL).await.unwrap());
        let second = leases.acquire(shard, b, TTL).await.unwrap().unwrap();
        assert!(second.generation > first.generation);
        leases.release(&first).await.unwrap();
        assert_eq!(leases.held().await.unwrap(), [second]);
        leases.release(&second).await.unwrap();
        leases.release(&second).await.unwrap();
        assert!(leases.held().await.unwrap().is_empty());
        assert!(leases.acquire(shard, a, TTL).await.unwrap().unwrap().generation > second.generation);
    }
}
