// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every [`Links`] does.

use bytes::Bytes;
use pli_domain::limits::{RENDEZVOUS_BLOB_BYTES_MAX, RENDEZVOUS_BLOBS_MAX};
use pli_domain::{
    AccountId, DeviceAddress, DeviceId, NoPlace, NotAdmitted, Party, RendezvousId, SecretHash, UnixMillis,
};
use pli_ports::{
    Access, GetBlobError, JoinRendezvousError, Links, NewRendezvous, OpenRendezvousError, PutBlobError, Retry,
    StoreError,
};
use tokio::task::JoinSet;

use super::{Harness, Outcome, Restart, Stop, id_bytes, restarted, rivals};

type Store = dyn Links;

cases! { Store:
    blobs_of_both_sides_arrive_in_order,
    opening_again_is_answered_as_the_first_time,
    an_id_is_for_one_opening,
    what_was_never_opened_answers_as_what_is_over,
    a_wrong_secret_answers_as_nothing,
    a_device_that_has_not_joined_is_told_so,
    a_second_approver_is_refused,
    racing_approvers_join_once,
    the_same_blob_again_is_accepted,
    other_bytes_under_a_number_are_refused,
    racing_blobs_of_one_number_are_written_once,
    a_blob_that_does_not_follow_is_refused,
    a_ninth_blob_is_refused,
    racing_sides_put_no_ninth_blob,
    blobs_up_to_their_bound_come_whole,
    a_blob_outside_its_bound_is_refused,
    rendezvous_are_apart,
    everything_is_over_at_its_end,
    expired_rendezvous_are_forgotten_within_a_limit,
    rendezvous_survive_a_restart,
    rendezvous_survive_a_kill,
    rendezvous_survive_a_power_cut,
}

const NOW: UnixMillis = UnixMillis(1_767_225_600_000);
/// A minute later.
const END: UnixMillis = UnixMillis(NOW.0 + 60_000);
/// The last moment before it.
const LAST: UnixMillis = UnixMillis(END.0 - 1);

fn id(number: u64) -> RendezvousId {
    RendezvousId::from_bytes(id_bytes(0xB, number))
}

fn secret(kind: u8, number: u64) -> SecretHash {
    let mut bytes = [kind; 32];
    bytes[24..].copy_from_slice(&number.to_be_bytes());
    SecretHash::from_bytes(bytes)
}

fn device(number: u64) -> DeviceAddress {
    let account = AccountId::from_bytes(id_bytes(6, number));
    DeviceAddress { account, device: DeviceId::from_bytes(id_bytes(7, number)) }
}

fn new(number: u64) -> NewRendezvous {
    NewRendezvous { id: id(number), opener: secret(1, number), approver: secret(2, number), expires_at: END }
}

/// The opener of rendezvous `number`.
fn opener(number: u64) -> Access {
    Access { id: id(number), party: Party::Opener(secret(1, number)), now: NOW }
}

/// Device `by`, as approver of rendezvous `number`.
fn approver(number: u64, by: u64) -> Access {
    Access { id: id(number), party: Party::Approver(secret(2, number), device(by)), now: NOW }
}

async fn join(store: &Store, number: u64, by: u64) -> Result<UnixMillis, JoinRendezvousError> {
    store.join_rendezvous(id(number), (secret(2, number), device(by)), NOW).await
}

/// Rendezvous `number`, which device 1 has joined.
async fn joined(store: &Store, number: u64) -> Result<(), Stop> {
    store.open_rendezvous(new(number), NOW).await?;
    check_eq!(join(store, number, 1).await?, END, "the end that joining answers");
    Ok(())
}

fn blob(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn put(store: &Store, access: Access, number: u8, text: &str) -> Result<(), PutBlobError> {
    store.put_blob(access, number, blob(text)).await
}

/// Fails unless the other side's blob `number` is `text`, or there is none.
async fn holds(store: &Store, access: Access, number: u8, text: Option<&str>) -> Outcome {
    let found = store.blob(access, number).await?;
    check_eq!(found, text.map(blob), "blob {number} of the other side");
    Ok(())
}

const GONE: Option<NotAdmitted> = Some(NotAdmitted::Gone);

/// Why each call about a rendezvous was not let in: joining, putting, reading.
async fn refusals(store: &Store, access: Access) -> Result<[Option<NotAdmitted>; 3], Stop> {
    let joining = match access.party {
        Party::Opener(secret) => (secret, device(1)),
        Party::Approver(secret, device) => (secret, device),
    };
    let join = match store.join_rendezvous(access.id, joining, access.now).await {
        Err(JoinRendezvousError::NotAdmitted(why)) => Some(why),
        other => other.map(|_| None)?,
    };
    let put = match put(store, access, 1, "refused").await {
        Err(PutBlobError::NotAdmitted(why)) => Some(why),
        other => other.map(|()| None)?,
    };
    let read = match store.blob(access, 1).await {
        Err(GetBlobError::NotAdmitted(why)) => Some(why),
        other => other.map(|_| None)?,
    };
    Ok([join, put, read])
}

async fn blobs_of_both_sides_arrive_in_order(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    let (new_one, first) = (opener(1), approver(1, 1));
    check_eq!(store.open_rendezvous(new(1), NOW).await?, END, "the end that opening answers");
    // The opener need not wait for anybody.
    put(&*store, new_one, 1, "key and name").await?;
    check_eq!(join(&*store, 1, 1).await?, END, "the end that joining answers");
    holds(&*store, first, 1, Some("key and name")).await?;
    holds(&*store, first, 2, None).await?;
    holds(&*store, new_one, 1, None).await?;
    put(&*store, first, 1, "account").await?;
    holds(&*store, new_one, 1, Some("account")).await?;
    put(&*store, new_one, 2, "yes").await?;
    put(&*store, first, 2, "list").await?;
    put(&*store, new_one, 3, "stored").await?;
    for (number, text) in [(1, "key and name"), (2, "yes"), (3, "stored")] {
        holds(&*store, first, number, Some(text)).await?;
    }
    for (number, text) in [(1, "account"), (2, "list")] {
        holds(&*store, new_one, number, Some(text)).await?;
    }
    for number in [0, 3, 4, 8, 9, u8::MAX] {
        holds(&*store, new_one, number, None).await?;
    }
    Ok(())
}

async fn opening_again_is_answered_as_the_first_time(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    store.open_rendezvous(new(1), NOW).await?;
    put(&*store, opener(1), 1, "kept").await?;
    let later = NewRendezvous { expires_at: UnixMillis(END.0 + 30_000), ..new(1) };
    for _ in 0..2 {
        check_eq!(store.open_rendezvous(later, NOW).await?, END, "the end of a rendezvous that was opened again");
    }
    join(&*store, 1, 1).await?;
    store.open_rendezvous(new(1), NOW).await?;
    holds(&*store, approver(1, 1), 1, Some("kept")).await?;
    let late = store.open_rendezvous(later, END).await;
    check!(
        matches!(late, Err(OpenRendezvousError::NotAdmitted(NotAdmitted::Gone))),
        "opened again when it was over: {late:?}"
    );
    Ok(())
}

async fn an_id_is_for_one_opening(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    joined(&*store, 1).await?;
    put(&*store, opener(1), 1, "kept").await?;
    let others = [
        NewRendezvous { opener: secret(1, 9), ..new(1) },
        NewRendezvous { approver: secret(2, 9), ..new(1) },
        NewRendezvous { opener: secret(2, 1), approver: secret(1, 1), ..new(1) },
    ];
    for other in others {
        let answer = store.open_rendezvous(other, NOW).await;
        check!(matches!(answer, Err(OpenRendezvousError::IdTaken)), "an id opened twice: {answer:?}");
    }
    holds(&*store, approver(1, 1), 1, Some("kept")).await
}

async fn what_was_never_opened_answers_as_what_is_over(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    joined(&*store, 1).await?;
    for access in [opener(2), approver(2, 1), Access { now: END, ..opener(1) }, Access { now: END, ..approver(1, 1) }] {
        check_eq!(refusals(&*store, access).await?, [GONE; 3], "answers to {access:?}");
    }
    check_eq!(store.expire_rendezvous(NOW, 10).await?, 0, "rendezvous forgotten before any is over");
    Ok(())
}

async fn a_wrong_secret_answers_as_nothing(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    joined(&*store, 1).await?;
    let one = |party| Access { party, ..opener(1) };
    for party in [
        Party::Opener(secret(2, 1)),
        Party::Opener(secret(1, 2)),
        Party::Approver(secret(1, 1), device(1)),
        Party::Approver(secret(2, 2), device(1)),
        Party::Approver(secret(2, 2), device(2)),
    ] {
        let seen = refusals(&*store, one(party)).await?;
        // Joining with the approver's secret is right, whoever claims to be the opener besides.
        let join = if party == Party::Opener(secret(2, 1)) { None } else { GONE };
        check_eq!(seen, [join, GONE, GONE], "answers to {party:?}");
    }
    holds(&*store, approver(1, 1), 1, None).await
}

async fn a_device_that_has_not_joined_is_told_so(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    store.open_rendezvous(new(1), NOW).await?;
    let early = put(&*store, approver(1, 1), 1, "early").await;
    check!(matches!(early, Err(PutBlobError::NotAdmitted(NotAdmitted::NotJoined))), "put before joining: {early:?}");
    let early = store.blob(approver(1, 1), 1).await;
    check!(matches!(early, Err(GetBlobError::NotAdmitted(NotAdmitted::NotJoined))), "read before joining: {early:?}");
    join(&*store, 1, 1).await?;
    put(&*store, approver(1, 1), 1, "after").await?;
    holds(&*store, opener(1), 1, Some("after")).await
}

async fn a_second_approver_is_refused(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    joined(&*store, 1).await?;
    let taken = Some(NotAdmitted::Taken);
    let sibling = DeviceAddress { account: device(1).account, device: device(3).device };
    for rival in [device(2), sibling] {
        let access = Access { party: Party::Approver(secret(2, 1), rival), ..opener(1) };
        check_eq!(refusals(&*store, access).await?, [taken; 3], "answers to a second approver");
    }
    for _ in 0..2 {
        check_eq!(join(&*store, 1, 1).await?, END, "the first approver joins again");
    }
    put(&*store, approver(1, 1), 1, "the first").await?;
    holds(&*store, opener(1), 1, Some("the first")).await
}

async fn racing_approvers_join_once(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    store.open_rendezvous(new(1), NOW).await?;
    let mut race = JoinSet::new();
    for number in 0..rivals(h).min(200) as u64 {
        let store = store.clone();
        race.spawn(async move { (number, join(&*store, 1, number).await) });
    }
    let mut winners = Vec::new();
    while let Some(done) = race.join_next().await {
        match done? {
            (number, Ok(_)) => winners.push(number),
            (_, Err(JoinRendezvousError::NotAdmitted(NotAdmitted::Taken))) => {}
            (number, Err(error)) => return Err(Stop::failed(format!("device {number}: {error}"))),
        }
    }
    check_eq!(winners.len(), 1, "devices that joined: {winners:?}");
    put(&*store, approver(1, winners[0]), 1, "the winner").await?;
    holds(&*store, opener(1), 1, Some("the winner")).await
}

async fn the_same_blob_again_is_accepted(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    joined(&*store, 1).await?;
    for _ in 0..3 {
        put(&*store, opener(1), 1, "one").await?;
    }
    put(&*store, opener(1), 2, "two").await?;
    put(&*store, opener(1), 1, "one").await?;
    put(&*store, opener(1), 3, "three").await?;
    for (number, text) in [(1, Some("one")), (2, Some("two")), (3, Some("three")), (4, None)] {
        holds(&*store, approver(1, 1), number, text).await?;
    }
    Ok(())
}

async fn other_bytes_under_a_number_are_refused(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    joined(&*store, 1).await?;
    for access in [opener(1), approver(1, 1)] {
        put(&*store, access, 1, "first").await?;
        for other in ["second", "first ", "firs"] {
            let answer = put(&*store, access, 1, other).await;
            check!(matches!(answer, Err(PutBlobError::Conflict)), "{other:?} over another blob: {answer:?}");
        }
    }
    holds(&*store, opener(1), 1, Some("first")).await?;
    holds(&*store, approver(1, 1), 1, Some("first")).await
}

async fn racing_blobs_of_one_number_are_written_once(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    joined(&*store, 1).await?;
    let mut race = JoinSet::new();
    for number in 0..rivals(h).min(100) {
        let (store, text) = (store.clone(), format!("blob {number}"));
        race.spawn(async move { (text.clone(), put(&*store, opener(1), 1, &text).await) });
    }
    let mut winners = Vec::new();
    while let Some(done) = race.join_next().await {
        match done? {
            (text, Ok(())) => winners.push(text),
            (_, Err(PutBlobError::Conflict)) => {}
            (text, Err(error)) => return Err(Stop::failed(format!("{text}: {error}"))),
        }
    }
    check_eq!(winners.len(), 1, "blobs that were accepted: {winners:?}");
    holds(&*store, approver(1, 1), 1, Some(&winners[0])).await
}

async fn a_blob_that_does_not_follow_is_refused(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    joined(&*store, 1).await?;
    put(&*store, opener(1), 1, "one").await?;
    for (access, number, follows) in
        [(opener(1), 3, 2), (opener(1), 0, 2), (opener(1), u8::MAX, 2), (approver(1, 1), 2, 1)]
    {
        let answer = put(&*store, access, number, "early").await;
        let right = matches!(answer, Err(PutBlobError::NoPlace(NoPlace::Order { next })) if next == follows);
        check!(right, "blob {number} where {follows} follows: {answer:?}");
    }
    holds(&*store, approver(1, 1), 3, None).await?;
    put(&*store, opener(1), 2, "two").await?;
    holds(&*store, approver(1, 1), 2, Some("two")).await
}

async fn a_ninth_blob_is_refused(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    for (rendezvous, openers) in [(1, RENDEZVOUS_BLOBS_MAX), (2, 5), (3, 0)] {
        joined(&*store, rendezvous).await?;
        let approvers = RENDEZVOUS_BLOBS_MAX - openers;
        for (access, count) in [(opener(rendezvous), openers), (approver(rendezvous, 1), approvers)] {
            for number in 1..=count {
                put(&*store, access, number, &format!("blob {number}")).await?;
            }
        }
        for (access, count) in [(opener(rendezvous), openers), (approver(rendezvous, 1), approvers)] {
            let ninth = put(&*store, access, count + 1, "too many").await;
            check!(matches!(ninth, Err(PutBlobError::NoPlace(NoPlace::Full))), "a ninth blob: {ninth:?}");
            if count > 0 {
                put(&*store, access, count, &format!("blob {count}")).await?;
            }
        }
        holds(&*store, opener(rendezvous), approvers + 1, None).await?;
    }
    Ok(())
}

async fn racing_sides_put_no_ninth_blob(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    for rendezvous in 0..8 {
        joined(&*store, rendezvous).await?;
        for number in 1..=4 {
            put(&*store, opener(rendezvous), number, "of the opener").await?;
        }
        for number in 1..=3 {
            put(&*store, approver(rendezvous, 1), number, "of the approver").await?;
        }
        let (one, other) = tokio::join!(
            put(&*store, opener(rendezvous), 5, "the eighth"),
            put(&*store, approver(rendezvous, 1), 4, "the eighth")
        );
        let full = |answer: &Result<(), PutBlobError>| matches!(answer, Err(PutBlobError::NoPlace(NoPlace::Full)));
        check!(
            (one.is_ok() && full(&other)) || (full(&one) && other.is_ok()),
            "two sides race for the eighth blob: {one:?}, {other:?}"
        );
    }
    Ok(())
}

async fn blobs_up_to_their_bound_come_whole(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    joined(&*store, 1).await?;
    for (number, size) in (1..).zip([1, 2, 1_000, RENDEZVOUS_BLOB_BYTES_MAX]) {
        let bytes: Bytes = (0..size).map(|n| (n % 251) as u8).collect::<Vec<u8>>().into();
        for (access, reader) in [(opener(1), approver(1, 1)), (approver(1, 1), opener(1))] {
            store.put_blob(access, number, bytes.clone()).await?;
            let found = store.blob(reader, number).await?;
            check!(found.as_ref() == Some(&bytes), "a blob of {size} bytes came back changed");
        }
    }
    Ok(())
}

async fn a_blob_outside_its_bound_is_refused(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    joined(&*store, 1).await?;
    for size in [0, RENDEZVOUS_BLOB_BYTES_MAX + 1] {
        let answer = store.put_blob(opener(1), 1, vec![7; size].into()).await;
        let never = matches!(answer, Err(PutBlobError::Store(StoreError { retry: Retry::Never, .. })));
        check!(never, "a blob of {size} bytes: {answer:?}");
    }
    holds(&*store, approver(1, 1), 1, None).await?;
    put(&*store, opener(1), 1, "one").await?;
    Ok(())
}

async fn rendezvous_are_apart(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    for number in [1, 2, u64::MAX] {
        joined(&*store, number).await?;
        put(&*store, opener(number), 1, &format!("of {number}")).await?;
    }
    for number in [1, 2, u64::MAX] {
        holds(&*store, approver(number, 1), 1, Some(&format!("of {number}"))).await?;
        holds(&*store, opener(number), 1, None).await?;
    }
    Ok(())
}

async fn everything_is_over_at_its_end(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    joined(&*store, 1).await?;
    put(&*store, opener(1), 1, "one").await?;
    for access in [opener(1), approver(1, 1)] {
        let last = Access { now: LAST, ..access };
        check!(store.blob(last, 1).await.is_ok(), "a rendezvous is over before its end");
        let over = Access { now: END, ..access };
        check_eq!(refusals(&*store, over).await?, [GONE; 3], "answers at its end");
    }
    put(&*store, Access { now: LAST, ..opener(1) }, 2, "just in time").await?;
    holds(&*store, Access { now: LAST, ..approver(1, 1) }, 2, Some("just in time")).await?;
    holds(&*store, Access { now: LAST, ..approver(1, 1) }, 3, None).await
}

async fn expired_rendezvous_are_forgotten_within_a_limit(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    for number in 0..10 {
        let expires_at = if number < 7 { UnixMillis(END.0 + number) } else { UnixMillis(END.0 + 1_000) };
        store.open_rendezvous(NewRendezvous { expires_at, ..new(number) }, NOW).await?;
        put(&*store, opener(number), 1, "forgotten").await?;
    }
    let then = UnixMillis(END.0 + 6);
    let at = |number: u64, now| Access { now, ..opener(number) };
    if h.forgets_by_itself() {
        check_eq!(
            store.expire_rendezvous(then, 100).await?,
            0,
            "forgotten when asked, by a store that does it by itself"
        );
    } else {
        check_eq!(store.expire_rendezvous(LAST, 100).await?, 0, "forgotten before any is over");
        check_eq!(store.expire_rendezvous(then, 4).await?, 4, "forgotten within a limit of 4");
        check_eq!(store.expire_rendezvous(then, 100).await?, 3, "forgotten of the rest");
        check_eq!(store.expire_rendezvous(then, 100).await?, 0, "forgotten once all are");
    }
    // What was forgotten stays so for whoever has a clock that is behind.
    let seen = if h.forgets_by_itself() { then } else { NOW };
    for number in 0..10 {
        let gone = matches!(store.blob(at(number, seen), 1).await, Err(GetBlobError::NotAdmitted(NotAdmitted::Gone)));
        check_eq!(gone, number < 7, "rendezvous {number} is over");
    }
    if !h.forgets_by_itself() {
        // Nothing of the blobs is left either.
        let again = NewRendezvous { expires_at: UnixMillis(END.0 + 60_000), ..new(1) };
        store.open_rendezvous(again, END).await?;
        store.join_rendezvous(id(1), (secret(2, 1), device(1)), END).await?;
        holds(&*store, Access { now: END, ..approver(1, 1) }, 1, None).await?;
        put(&*store, Access { now: END, ..opener(1) }, 1, "of the second time").await?;
    }
    Ok(())
}

async fn rendezvous_survive(h: &mut dyn Harness<Store>, how: Restart) -> Outcome {
    let store = h.fresh().await;
    joined(&*store, 1).await?;
    put(&*store, opener(1), 1, "one").await?;
    put(&*store, approver(1, 1), 1, "answer").await?;
    drop(store);
    let store = restarted(h, how).await?;
    holds(&*store, approver(1, 1), 1, Some("one")).await?;
    holds(&*store, opener(1), 1, Some("answer")).await?;
    let rival = refusals(&*store, approver(1, 2)).await?;
    check_eq!(rival, [Some(NotAdmitted::Taken); 3], "answers to a second approver after {how:?}");
    let other = put(&*store, opener(1), 1, "other").await;
    check!(matches!(other, Err(PutBlobError::Conflict)), "other bytes after {how:?}: {other:?}");
    put(&*store, opener(1), 2, "two").await?;
    holds(&*store, approver(1, 1), 2, Some("two")).await?;
    check_eq!(refusals(&*store, Access { now: END, ..opener(1) }).await?, [GONE; 3], "answers at its end");
    Ok(())
}

async fn rendezvous_survive_a_restart(h: &mut dyn Harness<Store>) -> Outcome {
    rendezvous_survive(h, Restart::Clean).await
}
async fn rendezvous_survive_a_kill(h: &mut dyn Harness<Store>) -> Outcome {
    rendezvous_survive(h, Restart::Kill).await
}
async fn rendezvous_survive_a_power_cut(h: &mut dyn Harness<Store>) -> Outcome {
    rendezvous_survive(h, Restart::PowerCut).await
}
