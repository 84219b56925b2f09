// SPDX-License-Identifier: MIT OR Apache-2.0
//! A device that its account removes, through directory, edges and owner together.

use std::time::{Duration, Instant};

use bytes::Bytes;
use pli_api::ErrorCode;
use pli_api::directory::{
    ClaimKeyPackagesRequest, ClaimKeyPackagesResponse, DeviceListEntry, PutDeviceListRequest, PutDeviceListResponse,
    SignedDeviceList,
};
use pli_client_core::identity::{Identity, ListChange};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::meeting::{Place, Session};

/// A session of a removed device ends within 5 s; a machine that is busy may take longer to say so.
const ENDS_WITHIN: Duration = Duration::from_secs(60);
/// A removal is asked for again until the owner has deleted the queue.
const DELETED_WITHIN: Duration = Duration::from_secs(60);

/// Puts a list as a client does: the same again where it is stored and not carried out yet.
async fn put(session: &mut Session, devices: &SignedDeviceList) {
    let (begun, request) = (Instant::now(), PutDeviceListRequest { devices: Some(devices.clone()) });
    loop {
        let answer = session.call::<PutDeviceListResponse>("/pli.directory.v1.Directory/PutDeviceList", &request).await;
        match answer {
            Ok(_) => return,
            Err(error) if error.code().is_temporary() && begun.elapsed() < DELETED_WITHIN => {
                tokio::time::sleep(Duration::from_millis(error.retry_after_ms.into())).await;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// The account's first device at `one`, its second one at `other`; the first removes the second.
pub async fn a_removed_device_is_out(one: &Place, other: &Place, handle: &str) {
    let (mut session, first) = Session::registered(one, handle).await;
    let account = first.address().account;
    let mut rng = ChaCha8Rng::from_seed(rand::rng().random());
    let second = Identity::companion(account, first.handle().clone(), first.identity_key(), &mut rng).expect("a key");
    let entry = DeviceListEntry {
        device: Bytes::copy_from_slice(second.address().device.as_bytes()),
        key: Bytes::copy_from_slice(&second.device_key()),
        name: "tablet".into(),
    };
    assert_eq!(Session::refused(other, &second).await.code(), ErrorCode::UnknownDevice, "before it is listed");
    let begun = first.device_list().expect("it signs");
    let both = first.next_list(&begun, &ListChange::Add(entry)).expect("a change");
    put(&mut session, &both).await;
    let at_work = Session::of(other, &second).await;

    let alone = first.next_list(&both, &ListChange::Remove(second.address().device)).expect("a change");
    let closed = tokio::spawn(tokio::time::timeout(ENDS_WITHIN, at_work.closed()));
    put(&mut session, &alone).await;
    let reason = closed.await.expect("no panic").expect("the session of a removed device ends");
    assert_eq!(reason.code(), ErrorCode::DeviceRemoved, "{reason:?}");
    for place in [one, other] {
        assert_eq!(Session::refused(place, &second).await.code(), ErrorCode::DeviceRemoved, "and it stays out");
    }
    let request = ClaimKeyPackagesRequest { devices: vec![second.address().into()] };
    let claimed: Result<ClaimKeyPackagesResponse, _> =
        session.call("/pli.directory.v1.Directory/ClaimKeyPackages", &request).await;
    assert_eq!(claimed.expect_err("nobody adds it again").code(), ErrorCode::NotFound);
}
