// SPDX-License-Identifier: MIT OR Apache-2.0
//! Named rate limits. A refusal says which one and when to try again.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::HashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use pli_api::common::Error;
use pli_api::limit_reached;
use pli_runtime::limits::subscriber;
use tokio::time::Instant;

use crate::config::{LimitsConfig, Rate};

/// The runtime's clock, so that paused time holds for limits too.
#[derive(Debug, Clone, Copy)]
struct TokioClock(Instant);

impl Clock for TokioClock {
    type Instant = Nanos;
    fn now(&self) -> Nanos {
        self.0.elapsed().into()
    }
}

type Direct = RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Nanos>>;
type ByAddress = RateLimiter<IpAddr, HashMapStateStore<IpAddr>, TokioClock, NoOpMiddleware<Nanos>>;

fn quota(rate: Rate) -> Quota {
    let at_least_one = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
    Quota::per_second(at_least_one(rate.per_second)).allow_burst(at_least_one(rate.burst))
}

/// The refusal by a named limit.
pub(crate) fn limited(limit: &'static str, wait: Duration) -> Error {
    let ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).max(1);
    limit_reached(limit, format!("limit {limit} is reached"), ms)
}

/// One limit of one session.
struct Named {
    name: &'static str,
    limiter: Direct,
    burst: u32,
    clock: TokioClock,
}

impl Named {
    fn new(name: &'static str, rate: Rate, clock: TokioClock) -> Self {
        Self { name, burst: rate.burst.max(1), limiter: RateLimiter::direct_with_clock(quota(rate), clock), clock }
    }
    fn take(&self, n: u32) -> Result<(), Error> {
        // What is more than the burst counts as it: else it would never fit.
        let Some(n) = NonZeroU32::new(n.min(self.burst)) else { return Ok(()) };
        match self.limiter.check_n(n) {
            Ok(Err(until)) => Err(limited(self.name, until.wait_time_from(self.clock.now()))),
            _ => Ok(()),
        }
    }
}

/// The limits of one session. Bounded: four counters.
pub(crate) struct SessionLimits {
    sends: Named,
    bytes: Named,
    deliveries: Named,
    calls: Named,
}

impl SessionLimits {
    pub(crate) fn new(config: &LimitsConfig) -> Self {
        let clock = TokioClock(Instant::now());
        Self {
            sends: Named::new("session_sends", config.session_sends, clock),
            bytes: Named::new("session_send_bytes", config.session_send_bytes, clock),
            deliveries: Named::new("session_deliveries", config.session_deliveries, clock),
            calls: Named::new("session_calls", config.session_calls, clock),
        }
    }
    /// Takes one send with a body of so many bytes.
    pub(crate) fn send(&self, bytes: usize) -> Result<(), Error> {
        self.sends.take(1)?;
        self.bytes.take(u32::try_from(bytes).unwrap_or(u32::MAX))
    }
    /// Takes one send to so many devices: what a flood costs is what it is multiplied by.
    pub(crate) fn deliveries(&self, devices: usize) -> Result<(), Error> {
        self.deliveries.take(u32::try_from(devices).unwrap_or(u32::MAX))
    }
    /// Takes one call.
    pub(crate) fn call(&self) -> Result<(), Error> {
        self.calls.take(1)
    }
}

/// Most addresses remembered by each limit (about 50 bytes each). When so many are active at once, all but loopback are
/// refused until the next trim.
const ADDRESSES_MAX: usize = 1_048_576;
/// When to try again after a limit that is full of addresses; it is trimmed once a second then.
const FULL_RETRY: Duration = Duration::from_secs(1);

/// Limits by address, over all sessions. The stores are trimmed by [`AddressLimits::trim`].
pub(crate) struct AddressLimits {
    connections: ByAddress,
    /// Of addresses that may be somebody else's. A limit of its own, so that who names a stranger's address uses up
    /// nothing of the stranger's.
    unproven: ByAddress,
    hellos: ByAddress,
    clock: TokioClock,
    loopback: bool,
    addresses_max: usize,
}

impl AddressLimits {
    pub(crate) fn new(config: &LimitsConfig) -> Self {
        let clock = TokioClock(Instant::now());
        Self {
            connections: RateLimiter::hashmap_with_clock(quota(config.address_connections), clock),
            unproven: RateLimiter::hashmap_with_clock(quota(config.address_connections), clock),
            hellos: RateLimiter::hashmap_with_clock(quota(config.address_hellos), clock),
            clock,
            loopback: config.loopback,
            addresses_max: ADDRESSES_MAX,
        }
    }
    /// Takes one connection of this address.
    pub(crate) fn connection(&self, address: IpAddr) -> Result<(), Error> {
        self.take("address_connections", &self.connections, address)
    }
    /// Takes one connection of an address that is not proven to be the sender's; refused, it is to be proven.
    pub(crate) fn unproven(&self, address: IpAddr) -> Result<(), Error> {
        self.take("address_connections", &self.unproven, address)
    }
    /// Takes one hello of this address.
    pub(crate) fn hello(&self, address: IpAddr) -> Result<(), Error> {
        self.take("address_hellos", &self.hellos, address)
    }
    /// Whether a trim is due before its time.
    pub(crate) fn is_full(&self) -> bool {
        self.connections.len().max(self.unproven.len()).max(self.hellos.len()) >= self.addresses_max
    }
    /// Forgets addresses whose limits have recovered.
    pub(crate) fn trim(&self) {
        for limiter in [&self.connections, &self.unproven, &self.hellos] {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }
    fn take(&self, name: &'static str, limiter: &ByAddress, address: IpAddr) -> Result<(), Error> {
        let address = subscriber(address);
        if address.is_loopback() && !self.loopback {
            return Ok(());
        }
        if limiter.len() >= self.addresses_max {
            return Err(limited(name, FULL_RETRY));
        }
        limiter.check_key(&address).map_err(|until| limited(name, until.wait_time_from(self.clock.now())))
    }
}

#[cfg(test)]
mod tests {
    use pli_api::ErrorCode;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_refusal_names_the_limit_and_the_wait_and_waiting_helps() {
        let config = LimitsConfig { session_sends: Rate { per_second: 2, burst: 1 }, ..LimitsConfig::default() };
        let limits = SessionLimits::new(&config);
        assert_eq!(limits.send(10), Ok(()));
        let refused = limits.send(10).expect_err("the burst is one");
        assert_eq!((refused.code(), refused.limit.as_str()), (ErrorCode::RateLimited, "session_sends"));
        assert!((400..=500).contains(&refused.retry_after_ms), "{}", refused.retry_after_ms);
        tokio::time::advance(Duration::from_millis(refused.retry_after_ms.into())).await;
        assert_eq!(limits.send(10), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_of_one_v6_subscriber_count_together_and_are_forgotten() {
        let config = LimitsConfig { address_hellos: Rate { per_second: 1, burst: 1 }, ..LimitsConfig::default() };
        let limits = AddressLimits::new(&config);
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert!(limits.hello(address("2001:db8::1")).is_ok());
        assert!(limits.hello(address("2001:db8::2")).is_err());
        assert!(limits.hello(address("2001:db8:0:1::2")).is_ok());
        assert!(limits.hello(address("127.0.0.1")).is_ok() && limits.hello(address("127.0.0.1")).is_ok());
        tokio::time::advance(Duration::from_secs(5)).await;
        limits.trim();
        assert_eq!(limits.hellos.len(), 0);
    }
    #[tokio::test(start_paused = true)]
    async fn a_flood_of_addresses_is_refused_until_a_trim_makes_room() {
        let config = LimitsConfig { address_hellos: Rate { per_second: 1, burst: 1 }, ..LimitsConfig::default() };
        let limits = AddressLimits { addresses_max: 2, ..AddressLimits::new(&config) };
        let hello = |n: u8| limits.hello(IpAddr::from([192, 0, 2, n]));
        assert!(hello(1).is_ok() && !limits.is_full() && hello(2).is_ok() && limits.is_full());
        assert_eq!(hello(3).expect_err("no room").retry_after_ms, 1_000);
        tokio::time::advance(Duration::from_secs(5)).await;
        limits.trim();
        assert!(hello(3).is_ok());
    }
}
