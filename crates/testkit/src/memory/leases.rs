// SPDX-License-Identifier: MIT OR Apache-2.0
//! Leases.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pli_domain::{OwnerId, ShardId};
use pli_ports::{Lease, Leases, StoreError};
use tokio::time::Instant;

use super::faults::{Dice, LeaseFaults};
use super::{Inner, lock, pause};

/// The model of [`Leases`]; time is the runtime's.
#[derive(Clone)]
pub struct MemoryLeases {
    world: Arc<Inner>,
}

pub(super) struct State {
    dice: Dice,
    /// The last lease of each shard and when it ends; kept after that, for its generation.
    leases: BTreeMap<ShardId, (Lease, Instant)>,
    /// Workers, with the end of what they said last.
    workers: BTreeMap<OwnerId, Instant>,
}

impl State {
    pub fn new(seed: u64) -> Self {
        Self { dice: Dice::new(seed, 3), leases: BTreeMap::new(), workers: BTreeMap::new() }
    }

    pub fn expire(&mut self, shard: ShardId) {
        if let Some((_, ends)) = self.leases.get_mut(&shard) {
            *ends = Instant::now();
        }
    }

    fn acquire(&mut self, wanted: (ShardId, OwnerId), ttl: Duration, stolen: bool) -> Option<Lease> {
        let (shard, owner) = wanted;
        let now = Instant::now();
        let before = self.leases.get(&shard).copied();
        let held = before.filter(|(_, ends)| *ends > now).map(|(lease, _)| lease);
        let lease = match held {
            Some(lease) if lease.owner == owner => lease,
            Some(_) if !stolen => return None,
            _ => Lease { shard, owner, generation: before.map_or(0, |(lease, _)| lease.generation) + 1 },
        };
        self.leases.insert(shard, (lease, now + ttl));
        Some(lease)
    }

    fn current(&mut self, lease: &Lease) -> Option<&mut Instant> {
        let now = Instant::now();
        self.leases.get_mut(&lease.shard).filter(|(held, ends)| held == lease && *ends > now).map(|(_, ends)| ends)
    }
}

impl MemoryLeases {
    pub(super) fn new(world: Arc<Inner>) -> Self {
        Self { world }
    }

    async fn call<T>(
        &self,
        operation: &'static str,
        call: impl FnOnce(&mut State, &LeaseFaults) -> T + Send,
    ) -> Result<T, StoreError> {
        let plan = self.world.plan().leases;
        let life = self.world.life();
        let time = lock(&self.world.leases).dice.up_to_ms(plan.step_ms_max);
        pause(time).await;
        self.world.alive(life, operation)?;
        let mut state = lock(&self.world.leases);
        let unknown = state.dice.happens(plan.unknown);
        if unknown && state.dice.happens(500) {
            return Err(StoreError::later(operation, "the question was lost"));
        }
        let answer = call(&mut state, &plan);
        if unknown { Err(StoreError::later(operation, "the answer was lost")) } else { Ok(answer) }
    }
}

#[async_trait]
impl Leases for MemoryLeases {
    async fn acquire(&self, shard: ShardId, owner: OwnerId, ttl: Duration) -> Result<Option<Lease>, StoreError> {
        let mut stolen = false;
        let acquire = |state: &mut State, plan: &LeaseFaults| {
            let lease = state.acquire((shard, owner), ttl, false);
            if lease.is_some() || !state.dice.happens(plan.stolen) {
                return lease;
            }
            stolen = true;
            state.acquire((shard, owner), ttl, true)
        };
        let lease = self.call("acquire lease", acquire).await;
        self.world.count(|c| c.leases_stolen += u64::from(stolen));
        lease
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        let renew = |state: &mut State, _: &LeaseFaults| match state.current(lease) {
            Some(ends) => {
                *ends = Instant::now() + ttl;
                true
            }
            None => false,
        };
        self.call("renew lease", renew).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        let release = |state: &mut State, _: &LeaseFaults| {
            if let Some(ends) = state.current(lease) {
                *ends = Instant::now();
            }
        };
        self.call("release lease", release).await
    }

    async fn held(&self) -> Result<Vec<Lease>, StoreError> {
        let held = |state: &mut State, _: &LeaseFaults| {
            let now = Instant::now();
            state.leases.values().filter(|(_, ends)| *ends > now).map(|(lease, _)| *lease).collect()
        };
        self.call("held leases", held).await
    }

    async fn join(&self, owner: OwnerId, ttl: Duration) -> Result<Vec<OwnerId>, StoreError> {
        let join = |state: &mut State, _: &LeaseFaults| {
            let now = Instant::now();
            state.workers.insert(owner, now + ttl);
            state.workers.retain(|_, ends| *ends > now);
            state.workers.keys().copied().collect()
        };
        self.call("join workers", join).await
    }

    async fn leave(&self, owner: OwnerId) -> Result<(), StoreError> {
        let leave = |state: &mut State, _: &LeaseFaults| {
            state.workers.remove(&owner);
        };
        self.call("leave workers", leave).await
    }
}
