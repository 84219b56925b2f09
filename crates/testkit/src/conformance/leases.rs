// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every [`Leases`] does.

use std::time::Duration;

use pli_domain::{OwnerId, ShardId};
use pli_ports::{Lease, Leases};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{Harness, Outcome, Restart, SOON, Stop, id_bytes, restarted};

type Store = dyn Leases;

cases! { Store:
    a_free_lease_is_given_and_then_held,
    its_holder_gets_it_again_in_the_same_generation,
    an_expired_lease_goes_to_another_in_a_higher_generation,
    a_renewed_lease_outlives_its_first_term,
    a_lost_lease_cannot_be_renewed,
    a_released_lease_is_free_at_once,
    a_release_of_a_lost_lease_spares_its_new_holder,
    leases_of_shards_are_apart,
    held_lists_what_is_not_expired,
    racing_owners_get_one_lease,
    generations_grow_across_a_restart,
    generations_grow_across_a_kill,
    workers_see_each_other_until_they_leave,
    a_worker_that_falls_silent_is_named_no_more,
}

const SHARD: ShardId = ShardId::new(1);
const OTHER: ShardId = ShardId::new(2);
/// Longer than any case takes.
const LONG: Duration = Duration::from_secs(600);

fn owner(number: u64) -> OwnerId {
    OwnerId::from_bytes(id_bytes(4, number))
}

/// A term that can be waited for, on whatever clock the engine has.
fn short(h: &dyn Harness<Store>) -> Duration {
    if h.is_networked() { Duration::from_secs(2) } else { Duration::from_secs(1) }
}

async fn acquire(leases: &Store, shard: ShardId, number: u64, ttl: Duration) -> Result<Lease, Stop> {
    let lease = leases.acquire(shard, owner(number), ttl).await?;
    let lease = lease.ok_or_else(|| Stop::failed(format!("a free lease of {shard:?} is refused")))?;
    check_eq!((lease.shard, lease.owner), (shard, owner(number)), "what was given");
    Ok(lease)
}

/// Asks until the lease is given: terms may end a little late.
async fn acquire_in_time(leases: &Store, shard: ShardId, number: u64, ttl: Duration) -> Result<Lease, Stop> {
    let end = Instant::now() + SOON;
    loop {
        if let Some(lease) = leases.acquire(shard, owner(number), ttl).await? {
            return Ok(lease);
        }
        check!(Instant::now() < end, "an expired lease is still held after {SOON:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn a_free_lease_is_given_and_then_held(h: &mut dyn Harness<Store>) -> Outcome {
    let leases = h.fresh().await;
    acquire(&*leases, SHARD, 1, LONG).await?;
    for _ in 0..3 {
        check_eq!(leases.acquire(SHARD, owner(2), LONG).await?, None, "a lease that somebody else holds");
    }
    Ok(())
}

async fn its_holder_gets_it_again_in_the_same_generation(h: &mut dyn Harness<Store>) -> Outcome {
    let leases = h.fresh().await;
    let first = acquire(&*leases, SHARD, 1, LONG).await?;
    let again = acquire(&*leases, SHARD, 1, LONG).await?;
    check_eq!(again, first, "the lease asked for again");
    check!(leases.renew(&first, LONG).await?, "a held lease is not renewed");
    check_eq!(leases.acquire(SHARD, owner(2), LONG).await?, None, "a lease that somebody else holds");
    Ok(())
}

async fn an_expired_lease_goes_to_another_in_a_higher_generation(h: &mut dyn Harness<Store>) -> Outcome {
    let leases = h.fresh().await;
    let asked = Instant::now();
    let first = acquire(&*leases, SHARD, 1, short(h)).await?;
    let early = leases.acquire(SHARD, owner(2), LONG).await?;
    check!(early.is_none() || asked.elapsed() > short(h), "somebody else got it before it expired");
    if early.is_some() {
        return Err(Stop::Skipped("the machine stood still for a whole term".into()));
    }
    sleep(short(h)).await;
    let second = acquire_in_time(&*leases, SHARD, 2, LONG).await?;
    check!(second.generation > first.generation, "{second:?} follows {first:?}");
    check_eq!(leases.acquire(SHARD, owner(1), LONG).await?, None, "the lease that the first holder lost");
    Ok(())
}

async fn a_renewed_lease_outlives_its_first_term(h: &mut dyn Harness<Store>) -> Outcome {
    let leases = h.fresh().await;
    let lease = acquire(&*leases, SHARD, 1, short(h)).await?;
    check!(leases.renew(&lease, LONG).await?, "a held lease is not renewed");
    sleep(short(h) * 2).await;
    check_eq!(leases.acquire(SHARD, owner(2), LONG).await?, None, "a lease that was renewed");
    check!(leases.renew(&lease, short(h)).await?, "a held lease is not renewed");
    sleep(short(h)).await;
    acquire_in_time(&*leases, SHARD, 2, LONG).await?;
    Ok(())
}

async fn a_lost_lease_cannot_be_renewed(h: &mut dyn Harness<Store>) -> Outcome {
    let leases = h.fresh().await;
    let first = acquire(&*leases, SHARD, 1, short(h)).await?;
    sleep(short(h)).await;
    let second = acquire_in_time(&*leases, SHARD, 2, LONG).await?;
    check!(!leases.renew(&first, LONG).await?, "a lease that another holds is renewed");
    check!(leases.renew(&second, LONG).await?, "the new holder's lease is not renewed");
    let never = Lease { shard: OTHER, owner: owner(1), generation: 1 };
    check!(!leases.renew(&never, LONG).await?, "a lease that never was is renewed");
    Ok(())
}

async fn a_released_lease_is_free_at_once(h: &mut dyn Harness<Store>) -> Outcome {
    let leases = h.fresh().await;
    let first = acquire(&*leases, SHARD, 1, LONG).await?;
    leases.release(&first).await?;
    leases.release(&first).await?;
    check!(!leases.renew(&first, LONG).await?, "a released lease is renewed");
    let second = acquire(&*leases, SHARD, 2, LONG).await?;
    check!(second.generation > first.generation, "{second:?} follows {first:?}");
    Ok(())
}

async fn a_release_of_a_lost_lease_spares_its_new_holder(h: &mut dyn Harness<Store>) -> Outcome {
    let leases = h.fresh().await;
    let first = acquire(&*leases, SHARD, 1, LONG).await?;
    leases.release(&first).await?;
    let second = acquire(&*leases, SHARD, 2, LONG).await?;
    leases.release(&first).await?;
    check!(leases.renew(&second, LONG).await?, "the new holder lost its lease to a late release");
    check_eq!(leases.acquire(SHARD, owner(3), LONG).await?, None, "a held lease");
    Ok(())
}

async fn leases_of_shards_are_apart(h: &mut dyn Harness<Store>) -> Outcome {
    let leases = h.fresh().await;
    let first = acquire(&*leases, SHARD, 1, LONG).await?;
    acquire(&*leases, OTHER, 2, LONG).await?;
    leases.release(&first).await?;
    check_eq!(leases.acquire(OTHER, owner(1), LONG).await?, None, "the lease of the other shard");
    Ok(())
}

async fn held_lists_what_is_not_expired(h: &mut dyn Harness<Store>) -> Outcome {
    let leases = h.fresh().await;
    let mut expected = Vec::new();
    for number in [7, 2, 300, 5] {
        expected.push(acquire(&*leases, ShardId::new(number), u64::from(number), LONG).await?);
    }
    acquire(&*leases, SHARD, 1, short(h)).await?;
    leases.release(&acquire(&*leases, ShardId::new(9), 1, LONG).await?).await?;
    sleep(short(h)).await;
    expected.sort_by_key(|lease| lease.shard);
    // May lag behind by a second.
    let end = Instant::now() + SOON;
    loop {
        let held = leases.held().await?;
        if held == expected {
            return Ok(());
        }
        check!(Instant::now() < end, "held leases: {held:?} is not {expected:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn racing_owners_get_one_lease(h: &mut dyn Harness<Store>) -> Outcome {
    let leases = h.fresh().await;
    for shard in 10..14 {
        let mut race = JoinSet::new();
        for number in 0..32 {
            let leases = leases.clone();
            race.spawn(async move { leases.acquire(ShardId::new(shard), owner(number), LONG).await });
        }
        let mut holders = Vec::new();
        while let Some(lease) = race.join_next().await {
            holders.extend(lease??);
        }
        check_eq!(holders.len(), 1, "holders of one lease: {holders:?}");
    }
    Ok(())
}

async fn generations_grow_across(h: &mut dyn Harness<Store>, how: Restart) -> Outcome {
    let leases = h.fresh().await;
    let first = acquire(&*leases, SHARD, 1, short(h)).await?;
    leases.release(&first).await?;
    let second = acquire(&*leases, SHARD, 2, short(h)).await?;
    drop(leases);
    let leases = restarted(h, how).await?;
    let third = acquire_in_time(&*leases, SHARD, 3, LONG).await?;
    check!(third.generation > second.generation, "{third:?} follows {second:?} across {how:?}");
    check!(!leases.renew(&second, LONG).await?, "a lease from before {how:?} is renewed");
    Ok(())
}

async fn generations_grow_across_a_restart(h: &mut dyn Harness<Store>) -> Outcome {
    generations_grow_across(h, Restart::Clean).await
}
async fn generations_grow_across_a_kill(h: &mut dyn Harness<Store>) -> Outcome {
    generations_grow_across(h, Restart::Kill).await
}

/// Joins again and again until exactly these are named: what is said may lag behind.
async fn until_named(leases: &Store, number: u64, expected: &[u64], ttl: Duration) -> Outcome {
    let expected: Vec<OwnerId> = expected.iter().map(|number| owner(*number)).collect();
    let end = Instant::now() + SOON;
    loop {
        let named = leases.join(owner(number), ttl).await?;
        if named == expected {
            return Ok(());
        }
        check!(Instant::now() < end, "{named:?} are named after {SOON:?} instead of {expected:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn workers_see_each_other_until_they_leave(h: &mut dyn Harness<Store>) -> Outcome {
    let leases = h.fresh().await;
    until_named(&*leases, 1, &[1], LONG).await?;
    until_named(&*leases, 2, &[1, 2], LONG).await?;
    until_named(&*leases, 1, &[1, 2], LONG).await?;
    leases.leave(owner(2)).await?;
    leases.leave(owner(2)).await?;
    until_named(&*leases, 1, &[1], LONG).await?;
    check!(leases.held().await?.is_empty(), "a worker is no lease");
    Ok(())
}

async fn a_worker_that_falls_silent_is_named_no_more(h: &mut dyn Harness<Store>) -> Outcome {
    let leases = h.fresh().await;
    until_named(&*leases, 2, &[2], short(h)).await?;
    until_named(&*leases, 1, &[1, 2], LONG).await?;
    sleep(short(h)).await;
    until_named(&*leases, 1, &[1], LONG).await
}
