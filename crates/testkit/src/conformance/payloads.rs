// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every [`Payloads`] does.

use bytes::Bytes;
use pli_domain::{PayloadId, UnixMillis, limits::PAGE_BYTES_MAX};
use pli_ports::Payloads;

use super::{Harness, Outcome, Restart, Stop, id_bytes, restarted};

type Store = dyn Payloads;

cases! { Store:
    a_payload_is_read_in_pages,
    a_page_from_past_the_end_is_empty,
    a_payload_that_never_was_is_absent,
    storing_a_payload_again_is_accepted,
    payloads_up_to_their_bound_come_whole,
    a_larger_payload_is_refused,
    an_expired_payload_is_absent,
    expired_payloads_are_forgotten_within_a_limit,
    payloads_survive_a_restart,
    payloads_survive_a_kill,
    payloads_survive_a_power_cut,
}

const NOW: UnixMillis = UnixMillis(1_767_225_600_000);
const LATER: UnixMillis = UnixMillis(NOW.0 + 3_600_000);

fn id(number: u64) -> PayloadId {
    PayloadId::from_bytes(id_bytes(9, number))
}

fn body(size: usize) -> Bytes {
    (0..size).map(|n| (n % 251) as u8).collect::<Vec<u8>>().into()
}

/// The whole payload, page by page.
async fn read(store: &Store, number: u64) -> Result<Vec<u8>, Stop> {
    let mut bytes = Vec::new();
    loop {
        let page = store.page(id(number), bytes.len() as u64, NOW).await?;
        let page = page.ok_or_else(|| Stop::failed(format!("payload {number} is not there")))?;
        check!(page.bytes.len() <= PAGE_BYTES_MAX, "a page of {} bytes", page.bytes.len());
        if page.bytes.is_empty() {
            check_eq!(page.size, bytes.len() as u64, "size of payload {number}");
            return Ok(bytes);
        }
        bytes.extend_from_slice(&page.bytes);
    }
}

async fn a_payload_is_read_in_pages(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    let sizes = [0, 1, PAGE_BYTES_MAX - 1, PAGE_BYTES_MAX, PAGE_BYTES_MAX + 1, 3 * PAGE_BYTES_MAX + 17];
    for (number, size) in (0..).zip(sizes) {
        store.put(id(number), body(size), LATER).await?;
        check!(read(&*store, number).await? == body(size), "a payload of {size} bytes came back changed");
    }
    let middle = store.page(id(5), 100, NOW).await?.map(|page| page.bytes);
    check!(middle.as_deref() == Some(&body(sizes[5])[100..100 + PAGE_BYTES_MAX]), "a page from the middle");
    Ok(())
}

async fn a_page_from_past_the_end_is_empty(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    store.put(id(1), body(10), LATER).await?;
    for offset in [10, 11, 1 << 40, u64::MAX] {
        let found = store.page(id(1), offset, NOW).await?.map(|page| (page.bytes.len(), page.size));
        check_eq!(found, Some((0, 10)), "the page from {offset}");
    }
    Ok(())
}

async fn a_payload_that_never_was_is_absent(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    store.put(id(1), body(10), LATER).await?;
    check_eq!(store.page(id(2), 0, NOW).await?, None, "a payload that never was");
    check_eq!(store.expire(NOW, 10).await?, 0, "payloads forgotten");
    Ok(())
}

async fn storing_a_payload_again_is_accepted(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    for _ in 0..3 {
        store.put(id(1), body(70_000), LATER).await?;
    }
    check!(read(&*store, 1).await? == body(70_000), "a payload stored thrice came back changed");
    Ok(())
}

async fn payloads_up_to_their_bound_come_whole(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    store.put(id(1), body(4 * 1024 * 1024), LATER).await?;
    check!(read(&*store, 1).await? == body(4 * 1024 * 1024), "a payload of 4 MiB came back changed");
    Ok(())
}

async fn a_larger_payload_is_refused(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    let answer = store.put(id(1), body(4 * 1024 * 1024 + 1), LATER).await;
    check!(answer.is_err(), "a payload of 4 MiB and a byte is accepted");
    check_eq!(store.page(id(1), 0, NOW).await?, None, "the payload that was refused");
    Ok(())
}

async fn an_expired_payload_is_absent(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    store.put(id(1), body(10), LATER).await?;
    check!(store.page(id(1), 0, UnixMillis(LATER.0 - 1)).await?.is_some(), "a payload is gone before it expires");
    check_eq!(store.page(id(1), 0, LATER).await?, None, "a payload at the moment it expires");
    Ok(())
}

async fn expired_payloads_are_forgotten_within_a_limit(h: &mut dyn Harness<Store>) -> Outcome {
    let store = h.fresh().await;
    for number in 0..10 {
        let expires_at = if number < 7 { UnixMillis(NOW.0 + number) } else { LATER };
        store.put(id(number), body(10), expires_at).await?;
    }
    let then = UnixMillis(NOW.0 + 6);
    if h.forgets_by_itself() {
        check_eq!(store.expire(then, 100).await?, 0, "forgotten when asked, by a store that does it by itself");
        for number in 0..10 {
            let there = store.page(id(number), 0, then).await?.is_some();
            check_eq!(there, number >= 7, "payload {number} is there");
        }
        return Ok(());
    }
    check_eq!(store.expire(UnixMillis(NOW.0 - 1), 100).await?, 0, "forgotten before any expires");
    check_eq!(store.expire(then, 4).await?, 4, "forgotten within a limit of 4");
    check_eq!(store.expire(then, 100).await?, 3, "forgotten of the rest");
    check_eq!(store.expire(then, 100).await?, 0, "forgotten once all are");
    for number in 0..10 {
        let there = store.page(id(number), 0, UnixMillis(0)).await?.is_some();
        check_eq!(there, number >= 7, "payload {number} is there");
    }
    Ok(())
}

async fn payloads_survive(h: &mut dyn Harness<Store>, how: Restart) -> Outcome {
    let store = h.fresh().await;
    store.put(id(1), body(100_000), LATER).await?;
    drop(store);
    let store = restarted(h, how).await?;
    check!(read(&*store, 1).await? == body(100_000), "a payload came back changed after {how:?}");
    check_eq!(store.page(id(1), 0, LATER).await?, None, "an expired payload after {how:?}");
    Ok(())
}

async fn payloads_survive_a_restart(h: &mut dyn Harness<Store>) -> Outcome {
    payloads_survive(h, Restart::Clean).await
}
async fn payloads_survive_a_kill(h: &mut dyn Harness<Store>) -> Outcome {
    payloads_survive(h, Restart::Kill).await
}
async fn payloads_survive_a_power_cut(h: &mut dyn Harness<Store>) -> Outcome {
    payloads_survive(h, Restart::PowerCut).await
}
