// SPDX-License-Identifier: MIT OR Apache-2.0
//! How many shards one worker owns: its part of all of them among the workers that are there, rounded up, so that every
//! shard finds an owner. A worker below its part asks for free shards, one above it hands some over in order.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pli_domain::{OwnerId, ShardId};
use pli_ports::{Leases, StoreError};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::config::Config;

/// Of the shards that others hold, about so many are asked for in one renewal interval: what is known of them lags
/// behind, and a store may forget to end a lease.
const PROBES: u32 = 8;
/// Shards that one worker hands over at the same time.
const HANDED_OVER_MAX: u32 = 8;

/// What the shards of one worker share.
pub(crate) struct Share {
    shards: u32,
    /// Shards that this worker may own.
    most: AtomicU32,
    /// Shards that it owns or asks for.
    owned: AtomicU32,
    /// Those of them that are being handed over.
    leaving: Mutex<u32>,
    /// Shards that nobody holds, as far as is known.
    free: Mutex<BTreeSet<ShardId>>,
    /// Wakes, in their order, those that wait for a shard.
    looked: Notify,
}

impl Share {
    pub fn new(shards: u16) -> Self {
        Self {
            shards: shards.into(),
            // Nothing until the first look at who else is there.
            most: AtomicU32::new(0),
            owned: AtomicU32::new(0),
            leaving: Mutex::default(),
            free: Mutex::default(),
            looked: Notify::new(),
        }
    }

    /// A place for one more shard, if there is one and it is worth asking for this shard.
    pub fn take(&self, shard: ShardId, rng: &mut ChaCha8Rng) -> Option<Place<'_>> {
        if !self.is_free(shard) && rng.random_range(0..self.shards) >= PROBES {
            return None;
        }
        let one_more = |owned| (owned < self.most.load(Ordering::SeqCst)).then_some(owned + 1);
        let taken = self.owned.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more);
        taken.ok().map(|_| Place { share: self, kept: false })
    }

    /// A shard that was owned is not any more; `surplus` when [`Share::is_surplus`] said so of it.
    pub fn give_back(&self, surplus: bool) {
        let mut leaving = lock(&self.leaving);
        self.owned.fetch_sub(1, Ordering::SeqCst);
        *leaving -= u32::from(surplus);
    }

    /// Whether the shard that asks is one too many and should be handed over now.
    pub fn is_surplus(&self) -> bool {
        let mut leaving = lock(&self.leaving);
        let staying = self.owned.load(Ordering::SeqCst).saturating_sub(*leaving);
        let surplus = staying > self.most.load(Ordering::SeqCst) && *leaving < HANDED_OVER_MAX;
        *leaving += u32::from(surplus);
        surplus
    }

    /// Resolves when this shard has become free and there is a place for it.
    pub async fn freed(&self, shard: ShardId) {
        loop {
            self.looked.notified().await;
            if self.has_room() && self.is_free(shard) {
                return;
            }
        }
    }

    fn has_room(&self) -> bool {
        self.owned.load(Ordering::SeqCst) < self.most.load(Ordering::SeqCst)
    }

    fn is_free(&self, shard: ShardId) -> bool {
        lock(&self.free).contains(&shard)
    }

    /// Says again and again that this worker is there, and learns who else is and what is free. Never ends.
    pub async fn attend(self: Arc<Self>, leases: Arc<dyn Leases>, id: OwnerId, config: Arc<Config>, seed: u64) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x5348_4152_4500);
        let mut said: Option<Instant> = None;
        loop {
            if said.is_none_or(|said| said.elapsed() >= config.lease_renew()) {
                match leases.join(id, config.lease_ttl()).await {
                    Ok(workers) => {
                        self.divide(workers.len());
                        said = Some(Instant::now());
                    }
                    Err(error) => {
                        tracing::warn!(error = &error as &dyn Error, "saying that this worker is there failed");
                    }
                }
            }
            if let Err(error) = self.look(&*leases).await {
                tracing::warn!(error = &error as &dyn Error, "reading the leases failed");
            }
            sleep(pause(&config, &mut rng)).await;
        }
    }

    fn divide(&self, workers: usize) {
        let workers = u32::try_from(workers).unwrap_or(u32::MAX).max(1);
        self.most.store(self.shards.div_ceil(workers), Ordering::SeqCst);
    }

    /// Only who has room needs to know what is free.
    async fn look(&self, leases: &dyn Leases) -> Result<(), StoreError> {
        if !self.has_room() {
            return Ok(());
        }
        let held: BTreeSet<ShardId> = leases.held().await?.into_iter().map(|lease| lease.shard).collect();
        let all = (0..self.shards).filter_map(|shard| u16::try_from(shard).ok()).map(ShardId::new);
        *lock(&self.free) = all.filter(|shard| !held.contains(shard)).collect();
        self.looked.notify_waiters();
        Ok(())
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A quarter of a renewal interval with jitter: a shard that was given back is soon taken.
fn pause(config: &Config, rng: &mut ChaCha8Rng) -> Duration {
    (config.lease_renew() / 4).mul_f64(rng.random_range(0.75..1.25))
}

/// A place for a shard, given back unless it is kept.
pub(crate) struct Place<'a> {
    share: &'a Share,
    kept: bool,
}

impl Place<'_> {
    /// The lease was given.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.share.owned.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rng() -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(1)
    }

    #[test]
    fn every_shard_finds_an_owner_and_no_worker_has_more_than_one_too_many() {
        for (shards, workers) in [(16u16, 1usize), (16, 3), (1, 2), (1_024, 7), (4, 9)] {
            let share = Share::new(shards);
            share.divide(workers);
            let most = share.most.load(Ordering::SeqCst);
            assert!(u64::from(most) * workers as u64 >= u64::from(shards), "{shards} {workers}");
            assert!((most - 1) * u32::try_from(workers).expect("few") < u32::from(shards), "{shards} {workers}");
        }
    }

    #[test]
    fn a_place_is_given_until_the_share_is_full_and_comes_back() {
        let share = Share::new(2);
        assert!(share.take(ShardId::new(0), &mut rng()).is_none(), "nobody knows yet who else is there");
        share.divide(2);
        let place = share.take(ShardId::new(0), &mut rng()).expect("one of two");
        assert!(share.take(ShardId::new(1), &mut rng()).is_none());
        drop(place);
        share.take(ShardId::new(1), &mut rng()).expect("free again").keep();
        assert!(share.take(ShardId::new(0), &mut rng()).is_none());
        share.give_back(false);
        assert!(share.take(ShardId::new(0), &mut rng()).is_some());
    }

    #[test]
    fn what_is_too_much_is_handed_over_a_few_at_a_time() {
        let share = Share::new(64);
        share.divide(1);
        *lock(&share.free) = (0..64).map(ShardId::new).collect();
        for shard in 0..64 {
            share.take(ShardId::new(shard), &mut rng()).expect("there is room for all").keep();
        }
        assert!(!share.is_surplus());
        share.divide(4);
        let leaving = (0..64).filter(|_| share.is_surplus()).count();
        assert_eq!(u32::try_from(leaving), Ok(HANDED_OVER_MAX));
        for _ in 0..leaving {
            share.give_back(true);
        }
        let mut left = 64 - leaving;
        while share.is_surplus() {
            share.give_back(true);
            left -= 1;
        }
        assert_eq!(left, 16);
    }
}
