// SPDX-License-Identifier: MIT OR Apache-2.0
//! Uploads and downloads in pages.

use std::time::Duration;

use bytes::Bytes;
use pli_api::conversations::{FetchPayloadRequest, PutPayloadRequest};
use pli_api::{Caller, ErrorCode};
use pli_conversations::Config;
use pli_runtime::limits::Rate;

use crate::fixture::{Fixture, assert_refused, by};

const PAGE: usize = 48 * 1024;

fn pages(id: u8, whole: &Bytes) -> Vec<PutPayloadRequest> {
    let page = |offset: usize| PutPayloadRequest {
        id: Bytes::copy_from_slice(&[id; 16]),
        bytes: whole.slice(offset..whole.len().min(offset + PAGE)),
        offset: offset as u64,
        size: whole.len() as u64,
    };
    (0..whole.len()).step_by(PAGE).map(page).collect()
}

fn fetch(id: u8, offset: u64) -> FetchPayloadRequest {
    FetchPayloadRequest { id: Bytes::copy_from_slice(&[id; 16]), offset }
}

fn some(bytes: usize) -> Bytes {
    (0..bytes).map(|n| (n % 251) as u8).collect::<Vec<_>>().into()
}

#[tokio::test]
async fn what_was_stored_in_pages_is_fetched_in_pages() {
    let mut f = Fixture::new();
    let (alice, bob) = (f.device(1, 1).address, f.device(2, 2).address);
    for (id, size) in [(1, 1), (2, PAGE), (3, PAGE + 1), (4, 5 * PAGE - 7)] {
        let whole = some(size);
        for _ in 0..2 {
            for page in pages(id, &whole) {
                f.client.put_payload(by(alice, page)).await.expect("stored");
            }
        }
        let mut read = Vec::new();
        while read.len() < size {
            let page = f.client.fetch_payload(by(bob, fetch(id, read.len() as u64))).await.expect("there").into_inner();
            assert!(page.bytes.len() <= PAGE && page.size == size as u64);
            read.extend_from_slice(&page.bytes);
        }
        assert_eq!(read, whole);
    }
    assert_refused(f.client.fetch_payload(by(bob, fetch(9, 0))).await, ErrorCode::NotFound);
    let mut anonymous = tonic::Request::new(fetch(1, 0));
    Caller { device: None, address: Some(std::net::Ipv4Addr::LOCALHOST.into()) }.put(anonymous.metadata_mut());
    assert_refused(f.client.fetch_payload(anonymous).await, ErrorCode::Anonymous);
    let of_an_edge = f.client.fetch_payload(fetch(1, 0)).await.expect("there").into_inner();
    assert_eq!(of_an_edge.size, 1);
}

#[tokio::test]
async fn pages_out_of_shape_or_order_are_refused() {
    let mut f = Fixture::new();
    let alice = f.device(1, 1).address;
    let whole = some(2 * PAGE + 5);
    let good = pages(1, &whole);
    let mut wrong = Vec::new();
    let mut change = |n: usize, change: &dyn Fn(&mut PutPayloadRequest)| {
        let mut page = good[n].clone();
        change(&mut page);
        wrong.push(page);
    };
    change(0, &|p| p.id = Bytes::from_static(b"short"));
    change(0, &|p| p.size = 0);
    change(0, &|p| p.size = 4 * 1024 * 1024 + 1);
    change(0, &|p| p.bytes = Bytes::new());
    change(0, &|p| p.bytes.truncate(PAGE - 1));
    change(0, &|p| p.offset = 1);
    change(0, &|p| p.offset = u64::MAX);
    change(2, &|p| p.bytes.truncate(4));
    change(2, &|p| p.offset = p.size);
    for page in wrong {
        assert_refused(f.client.put_payload(by(alice, page)).await, ErrorCode::BadRequest);
    }
    f.client.put_payload(by(alice, good[0].clone())).await.expect("first");
    let error = assert_refused(f.client.put_payload(by(alice, good[2].clone())).await, ErrorCode::BadRequest);
    assert!(error.message.contains(&PAGE.to_string()), "names the missing page: {}", error.message);
}

#[tokio::test]
async fn nobody_writes_into_the_upload_of_another_or_changes_what_is_stored() {
    let mut f = Fixture::new();
    let (alice, mallory) = (f.device(1, 1).address, f.device(9, 9).address);
    let (whole, other) = (some(PAGE + 9), Bytes::from(vec![7; PAGE + 9]));
    f.client.put_payload(by(alice, pages(1, &whole)[0].clone())).await.expect("first");
    f.client.put_payload(by(mallory, pages(1, &other)[0].clone())).await.expect("in an upload of its own");
    f.client.put_payload(by(alice, pages(1, &whole)[1].clone())).await.expect("last");
    assert_refused(f.client.put_payload(by(mallory, pages(1, &other)[1].clone())).await, ErrorCode::BadRequest);
    let page = f.client.fetch_payload(by(alice, fetch(1, 0))).await.expect("there").into_inner();
    assert_eq!(page.bytes, whole.slice(..PAGE));
}

#[tokio::test]
async fn payloads_expire_and_are_limited_by_account() {
    let mut f = Fixture::with(Config { pages_stored_per_account: Rate::new(2, 1), ..Config::default() });
    let alice = f.device(1, 1).address;
    for id in 1..=2 {
        f.client.put_payload(by(alice, pages(id, &some(9))[0].clone())).await.expect("stored");
    }
    let error =
        assert_refused(f.client.put_payload(by(alice, pages(3, &some(9))[0].clone())).await, ErrorCode::RateLimited);
    assert_eq!(error.limit, "pages_stored_per_account");
    f.clock.advance(Duration::from_secs(31 * 24 * 3600));
    assert_refused(f.client.fetch_payload(by(alice, fetch(1, 0))).await, ErrorCode::NotFound);
}
