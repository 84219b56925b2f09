// SPDX-License-Identifier: MIT OR Apache-2.0
//! Broken buses and lease stores.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pli_domain::{OwnerId, ShardId};
use pli_ports::{Lease, Leases, RequestError, SignalEvent, Signals, StoreError, Subject, Subscription};
use pli_testkit::conformance;
use pli_testkit::memory::{FaultPlan, MemoryLeases, MemorySignals, MemoryWorld, SignalFaults};

use super::caught;

/// Hides interruptions, and that nobody listens.
struct Untold(MemorySignals);
struct UntoldSubscription(Box<dyn Subscription>);

#[async_trait]
impl Signals for Untold {
    async fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), StoreError> {
        self.0.publish(subject, payload).await
    }
    async fn subscribe(&self, subject: &Subject) -> Result<Box<dyn Subscription>, StoreError> {
        Ok(Box::new(UntoldSubscription(self.0.subscribe(subject).await?)))
    }
    async fn request(&self, subject: &Subject, payload: Bytes, deadline: Duration) -> Result<Bytes, RequestError> {
        match self.0.request(subject, payload, deadline).await {
            Err(RequestError::NoResponder(subject)) => {
                tokio::time::sleep(deadline).await;
                Err(RequestError::Timeout(subject))
            }
            answer => answer,
        }
    }
}

#[async_trait]
impl Subscription for UntoldSubscription {
    async fn next(&mut self) -> Option<SignalEvent> {
        loop {
            match self.0.next().await {
                Some(SignalEvent::Interrupted) => {}
                event => return event,
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn broken_buses_are_caught() {
    for expected in [
        "a_slow_subscriber_is_told_and_then_whole_again",
        "a_request_to_nobody_says_so_at_once",
        "a_dropped_subscription_receives_no_more",
    ] {
        caught::<dyn Signals>(conformance::signals::CASES, expected, |world| Arc::new(Untold(world.signals()))).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_loses_repeats_or_reorders_is_caught() {
    let none = SignalFaults::default();
    for (expected, signals) in [
        ("one_senders_messages_on_one_subject_keep_their_order", SignalFaults { lost: 100, ..none }),
        ("every_subscriber_receives_a_message", SignalFaults { duplicated: 1_000, ..none }),
        ("a_request_is_answered", SignalFaults { lost: 200, ..none }),
        ("a_buffer_holds_8192_messages", SignalFaults { interrupted: 10, ..none }),
        (
            "one_senders_messages_on_one_subject_keep_their_order",
            SignalFaults { delay_ms_max: 20, reordered: true, ..none },
        ),
    ] {
        let open = move |world: &MemoryWorld| {
            world.set_faults(FaultPlan { signals, ..FaultPlan::default() });
            Arc::new(world.signals()) as Arc<dyn Signals>
        };
        caught(conformance::signals::CASES, expected, open).await;
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    GivenToAnyone,
    NeverExpires,
    GenerationStays,
    RenewedForEver,
    ReleasedByAnyone,
    StaysForEver,
    NamesOnlyItself,
}

struct Broken {
    leases: MemoryLeases,
    fault: Fault,
}

impl Broken {
    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }
    async fn holder(&self, shard: ShardId) -> Result<Option<Lease>, StoreError> {
        Ok(self.leases.held().await?.into_iter().find(|lease| lease.shard == shard))
    }
}

#[async_trait]
impl Leases for Broken {
    async fn acquire(&self, shard: ShardId, owner: OwnerId, ttl: Duration) -> Result<Option<Lease>, StoreError> {
        if let (Fault::GivenToAnyone, Some(held)) = (self.fault, self.holder(shard).await?) {
            self.leases.release(&held).await?;
        }
        let ttl = if self.is(Fault::NeverExpires) { Duration::from_secs(1 << 30) } else { ttl };
        let lease = self.leases.acquire(shard, owner, ttl).await?;
        Ok(lease.map(|l| Lease { generation: if self.is(Fault::GenerationStays) { 1 } else { l.generation }, ..l }))
    }
    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        Ok(self.leases.renew(lease, ttl).await? || self.is(Fault::RenewedForEver))
    }
    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        match self.holder(lease.shard).await? {
            Some(held) if self.is(Fault::ReleasedByAnyone) => self.leases.release(&held).await,
            _ => self.leases.release(lease).await,
        }
    }
    async fn held(&self) -> Result<Vec<Lease>, StoreError> {
        self.leases.held().await
    }
    async fn join(&self, owner: OwnerId, ttl: Duration) -> Result<Vec<OwnerId>, StoreError> {
        let ttl = if self.is(Fault::StaysForEver) { Duration::from_secs(1 << 30) } else { ttl };
        let all = self.leases.join(owner, ttl).await?;
        Ok(if self.is(Fault::NamesOnlyItself) { vec![owner] } else { all })
    }
    async fn leave(&self, owner: OwnerId) -> Result<(), StoreError> {
        self.leases.leave(owner).await
    }
}

#[tokio::test(start_paused = true)]
async fn broken_leases_are_caught() {
    for (fault, expected) in [
        (Fault::GivenToAnyone, "a_free_lease_is_given_and_then_held"),
        (Fault::GivenToAnyone, "racing_owners_get_one_lease"),
        (Fault::NeverExpires, "an_expired_lease_goes_to_another_in_a_higher_generation"),
        (Fault::GenerationStays, "a_released_lease_is_free_at_once"),
        (Fault::RenewedForEver, "a_lost_lease_cannot_be_renewed"),
        (Fault::ReleasedByAnyone, "a_release_of_a_lost_lease_spares_its_new_holder"),
        (Fault::StaysForEver, "a_worker_that_falls_silent_is_named_no_more"),
        (Fault::NamesOnlyItself, "workers_see_each_other_until_they_leave"),
    ] {
        let open = move |world: &MemoryWorld| Arc::new(Broken { leases: world.leases(), fault }) as Arc<dyn Leases>;
        caught(conformance::leases::CASES, expected, open).await;
    }
}
