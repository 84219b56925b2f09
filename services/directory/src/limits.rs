// SPDX-License-Identifier: MIT OR Apache-2.0
//! Named rate limits: a token bucket per key, in bounded memory.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use pli_domain::AccountId;

use crate::config::{Config, Rate};

/// Most keys remembered by one limit (about 100 bytes each). When so many are active at once, unknown ones are
/// refused until others are idle again.
const KEYS_MAX: usize = 262_144;
/// Keys that are back at a full bucket are forgotten once in so many checks: governor's store only grows by itself.
const TRIM_EVERY: u32 = 4_096;

/// A named limit was reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("limit {limit} reached; retry in {retry_after_ms} ms")]
pub(crate) struct Limited {
    /// Its name, as refusals carry it.
    pub limit: &'static str,
    /// When a retry makes sense.
    pub retry_after_ms: u32,
}

/// One limit over keys of type `K`.
pub(crate) struct Limit<K: Hash + Eq + Clone> {
    name: &'static str,
    buckets: DefaultKeyedRateLimiter<K>,
    burst: NonZeroU32,
    clock: DefaultClock,
    checks: AtomicU32,
}

impl<K: Hash + Eq + Clone> Limit<K> {
    pub(crate) fn new(name: &'static str, rate: Rate) -> Self {
        let quota = Quota::per_minute(rate.per_minute).allow_burst(rate.burst);
        Self {
            name,
            buckets: RateLimiter::dashmap(quota),
            burst: rate.burst,
            clock: DefaultClock::default(),
            checks: AtomicU32::new(0),
        }
    }

    /// Takes `n` tokens of `key`, or none. More than the burst counts as the burst.
    pub(crate) fn take(&self, key: &K, n: usize) -> Result<(), Limited> {
        if self.checks.fetch_add(1, Ordering::Relaxed) % TRIM_EVERY == TRIM_EVERY - 1 {
            self.buckets.retain_recent();
        }
        let Some(n) = u32::try_from(n).ok().and_then(NonZeroU32::new) else { return Ok(()) };
        if self.buckets.len() >= KEYS_MAX {
            self.buckets.retain_recent();
            if self.buckets.len() >= KEYS_MAX {
                return Err(Limited { limit: self.name, retry_after_ms: 60_000 });
            }
        }
        match self.buckets.check_key_n(key, n.min(self.burst)) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_until)) => {
                let wait = not_until.wait_time_from(self.clock.now());
                let ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).saturating_add(1);
                Err(Limited { limit: self.name, retry_after_ms: ms })
            }
            Err(_) => Err(Limited { limit: self.name, retry_after_ms: u32::MAX }),
        }
    }
}

/// The directory's limits.
pub(crate) struct Limits {
    pub registrations: Limit<IpAddr>,
    pub lookups: Limit<AccountId>,
    pub claims: Limit<AccountId>,
    pub publications: Limit<AccountId>,
}

impl Limits {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            registrations: Limit::new("registrations_per_address", config.registrations_per_address),
            lookups: Limit::new("lookups_per_account", config.lookups_per_account),
            claims: Limit::new("claims_per_account", config.claims_per_account),
            publications: Limit::new("publications_per_account", config.publications_per_account),
        }
    }
}

/// What counts as one address: an IPv4 address, or an IPv6 /64, which is what one subscriber gets (RFC 6177). All
/// callers whose address is unknown count as one.
pub(crate) fn address_key(address: Option<IpAddr>) -> IpAddr {
    match address.map(|a| a.to_canonical()) {
        None => Ipv6Addr::UNSPECIFIED.into(),
        Some(IpAddr::V4(v4)) => v4.into(),
        Some(IpAddr::V6(v6)) => Ipv6Addr::from(u128::from(v6) & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_refuses_past_its_burst_and_says_when() {
        let limit = Limit::new("x", Rate::new(3, 1));
        assert_eq!(limit.take(&1, 2), Ok(()));
        assert_eq!(limit.take(&1, 1), Ok(()));
        let refused = limit.take(&1, 1).expect_err("empty");
        assert!((1..=60_001).contains(&refused.retry_after_ms), "{refused:?}");
        assert_eq!(limit.take(&2, 500), Ok(()), "more than the burst counts as the burst, other keys have their own");
        assert!(limit.take(&2, 1).is_err());
    }

    #[test]
    fn neighbours_in_one_ipv6_subnet_share_a_bucket() {
        let key = |text: &str| address_key(Some(text.parse().expect("an address")));
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:2"));
        assert_ne!(key("2001:db8:0:1::1"), key("2001:db8::1"));
        assert_eq!(key("::ffff:10.0.0.1"), key("10.0.0.1"));
        assert_ne!(key("10.0.0.1"), address_key(None));
    }
}
