// SPDX-License-Identifier: MIT OR Apache-2.0
//! Named rate limits: a token bucket per key (GCRA, by `governor`), in bounded memory.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use serde::{Deserialize, Serialize};

/// Most keys remembered by one limit (about 100 bytes each). When so many are active at once, everybody is refused
/// until some are back at a full bucket: the store cannot tell a key that it knows from a new one.
const KEYS_MAX: usize = 262_144;
/// Keys that are back at a full bucket are forgotten once in so many checks: governor's store only grows by itself.
const TRIM_EVERY: u32 = 4_096;
/// A full limit looks for idle keys at most this often, so that a flood of keys does not cost a scan per check.
const FULL_TRIM_EVERY: Duration = Duration::from_secs(1);
/// When to ask again after a limit that is full of keys.
const FULL_RETRY_AFTER_MS: u32 = 60_000;

/// A rate: a token bucket per key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// How many at once after a pause.
    pub burst: NonZeroU32,
    /// How many come back per minute.
    pub per_minute: NonZeroU32,
}

impl Rate {
    /// A rate; a zero counts as one.
    pub const fn new(burst: u32, per_minute: u32) -> Self {
        Self { burst: at_least_one(burst), per_minute: at_least_one(per_minute) }
    }
}

const fn at_least_one(n: u32) -> NonZeroU32 {
    match NonZeroU32::new(n) {
        Some(n) => n,
        None => NonZeroU32::MIN,
    }
}

/// A named limit was reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("limit {limit} reached; retry in {retry_after_ms} ms")]
pub struct Limited {
    /// Its name, as refusals carry it.
    pub limit: &'static str,
    /// When a retry makes sense, in milliseconds; at least 1.
    pub retry_after_ms: u32,
}

/// One limit over keys of type `K`, of which it remembers at most 262,144 at a time.
///
/// It runs on the real clock, not on tokio's.
#[derive(Debug)]
pub struct Limit<K: Hash + Eq + Clone> {
    name: &'static str,
    buckets: DefaultKeyedRateLimiter<K>,
    burst: NonZeroU32,
    keys_max: usize,
    clock: DefaultClock,
    checks: AtomicU32,
    full_trimmed_at: Mutex<Option<Instant>>,
}

impl<K: Hash + Eq + Clone> Limit<K> {
    /// A limit under this name, with every bucket full.
    pub fn new(name: &'static str, rate: Rate) -> Self {
        Self::with_keys_max(name, rate, KEYS_MAX)
    }

    fn with_keys_max(name: &'static str, rate: Rate, keys_max: usize) -> Self {
        let quota = Quota::per_minute(rate.per_minute).allow_burst(rate.burst);
        Self {
            name,
            buckets: RateLimiter::dashmap(quota),
            burst: rate.burst,
            keys_max,
            clock: DefaultClock::default(),
            checks: AtomicU32::new(0),
            full_trimmed_at: Mutex::new(None),
        }
    }

    /// Takes `n` tokens of `key`, or none and says when to ask again. More than the burst counts as the burst, zero
    /// always succeeds.
    pub fn take(&self, key: &K, n: usize) -> Result<(), Limited> {
        let Some(n) = NonZeroU32::new(u32::try_from(n).unwrap_or(u32::MAX)) else { return Ok(()) };
        if !self.has_room() {
            return Err(self.limited(FULL_RETRY_AFTER_MS));
        }
        match self.buckets.check_key_n(key, n.min(self.burst)) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_until)) => {
                let wait = not_until.wait_time_from(self.clock.now());
                Err(self.limited(u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).saturating_add(1)))
            }
            // More tokens than the bucket holds: cannot be, `n` is at most the burst. Refusing is the safe side.
            Err(_) => Err(self.limited(FULL_RETRY_AFTER_MS)),
        }
    }

    const fn limited(&self, retry_after_ms: u32) -> Limited {
        Limited { limit: self.name, retry_after_ms }
    }

    /// Whether one more key may be remembered; forgets idle ones now and then.
    fn has_room(&self) -> bool {
        if self.checks.fetch_add(1, Ordering::Relaxed) % TRIM_EVERY == TRIM_EVERY - 1 {
            self.trim();
        }
        if self.buckets.len() < self.keys_max {
            return true;
        }
        // Whoever finds the lock taken need not wait: somebody else is looking.
        let Ok(mut trimmed_at) = self.full_trimmed_at.try_lock() else { return false };
        if trimmed_at.is_none_or(|at| at.elapsed() >= FULL_TRIM_EVERY) {
            self.trim();
            *trimmed_at = Some(Instant::now());
        }
        self.buckets.len() < self.keys_max
    }

    fn trim(&self) {
        self.buckets.retain_recent();
        self.buckets.shrink_to_fit();
    }
}

/// What counts as one address in limits: an IPv4 address, or an IPv6 /64, which is what one subscriber gets (RFC 6177).
/// Loopback stays what it is.
pub fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        other => other,
    }
}

/// What a caller counts as: its [`subscriber`]. All callers whose address is unknown count as one.
pub fn address_key(address: Option<IpAddr>) -> IpAddr {
    address.map_or(Ipv6Addr::UNSPECIFIED.into(), subscriber)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_refuses_past_its_burst_and_says_when() {
        let limit = Limit::new("x", Rate::new(3, 1));
        assert_eq!(limit.take(&1, 2), Ok(()));
        assert_eq!(limit.take(&1, 1), Ok(()));
        assert_eq!(limit.take(&1, 0), Ok(()), "nothing asked, nothing refused");
        let refused = limit.take(&1, 1).expect_err("empty");
        assert_eq!(refused.limit, "x");
        assert!((1..=60_001).contains(&refused.retry_after_ms), "{refused:?}");
    }

    #[test]
    fn more_than_the_burst_counts_as_the_burst_and_keys_are_apart() {
        let limit = Limit::new("x", Rate::new(3, 1));
        assert_eq!(limit.take(&1, usize::MAX), Ok(()));
        assert!(limit.take(&1, 1).is_err());
        assert_eq!(limit.take(&2, 3), Ok(()));
    }

    #[test]
    fn a_limit_full_of_busy_keys_refuses_instead_of_growing() {
        let limit = Limit::with_keys_max("x", Rate::new(1, 1), 10);
        let taken = (0..100).filter(|key| limit.take(key, 1).is_ok()).count();
        assert_eq!((taken, limit.buckets.len()), (10, 10));
        assert_eq!(limit.take(&1_000, 1), Err(Limited { limit: "x", retry_after_ms: FULL_RETRY_AFTER_MS }));
    }

    #[test]
    fn keys_with_a_full_bucket_make_room_for_others() {
        // A token comes back within a microsecond, so every key is idle again at the next look.
        let limit = Limit::with_keys_max("x", Rate::new(1, u32::MAX), 10);
        let taken = (0..20).filter(|key| limit.take(key, 1).is_ok()).count();
        assert!((11..=20).contains(&taken), "{taken}");
    }

    #[test]
    fn neighbours_in_one_ipv6_subnet_count_as_one() {
        let key = |text: &str| subscriber(text.parse().expect("an address"));
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:2"));
        assert_ne!(key("2001:db8:0:1::1"), key("2001:db8::1"));
        assert_eq!(key("::ffff:10.0.0.1"), key("10.0.0.1"));
        assert!(key("::1").is_loopback());
        assert_eq!(address_key("10.0.0.1".parse().ok()), key("10.0.0.1"));
        assert_eq!(address_key(None), IpAddr::from(Ipv6Addr::UNSPECIFIED), "all that are unknown count as one");
    }
}
