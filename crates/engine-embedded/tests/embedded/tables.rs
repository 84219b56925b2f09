// SPDX-License-Identifier: MIT OR Apache-2.0
//! Databases of earlier releases.

use bytes::Bytes;
use pli_domain::{AccountId, DeviceId};
use pli_engine_embedded::DATABASE_FILE;
use pli_ports::{DeviceListRecord, ListHash, PutDeviceListError};
use sha2::{Digest, Sha256};

use crate::support::open;

/// An account as the release before chains of device lists stored it: version 2, after one change.
const STORED: &str = "
    DROP TABLE device_list;
    INSERT INTO account (id, handle, identity_key, created, list_version, list_signed, list_devices) VALUES (
        x'01010101010101010101010101010101', 'alice',
        x'0303030303030303030303030303030303030303030303030303030303030303', 5, 2, x'6c697374',
        x'0202020202020202020202020202020204040404040404040404040404040404');
    INSERT INTO device_account (device, account) VALUES
        (x'02020202020202020202020202020202', x'01010101010101010101010101010101'),
        (x'04040404040404040404040404040404', x'01010101010101010101010101010101'),
        (x'05050505050505050505050505050505', x'01010101010101010101010101010101');";

fn device(n: u8) -> DeviceId {
    DeviceId::from_bytes([n; 16])
}

#[tokio::test]
async fn device_lists_of_a_release_without_chains_are_read_and_followed() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).close().await;
    rusqlite::Connection::open(dir.path().join(DATABASE_FILE)).unwrap().execute_batch(STORED).unwrap();

    let engine = open(dir.path());
    let (accounts, alice) = (engine.accounts(), AccountId::from_bytes([1; 16]));
    let second =
        DeviceListRecord { version: 2, signed: Bytes::from_static(b"list"), devices: vec![device(2), device(4)] };
    assert_eq!(accounts.account(alice).await.unwrap().unwrap().devices, second);
    assert_eq!(accounts.device_lists(alice, 0, 9).await.unwrap(), std::slice::from_ref(&second));
    let before: ListHash = Sha256::digest(b"list").into();
    let next = |devices| DeviceListRecord { version: 3, signed: Bytes::from_static(b"next"), devices };
    let again = accounts.put_device_list(alice, before, next(vec![device(2), device(5)])).await;
    assert!(matches!(again, Err(PutDeviceListError::Removed)), "one that was removed then: {again:?}");
    let third = next(vec![device(2), device(6)]);
    assert_eq!(accounts.put_device_list(alice, before, third.clone()).await.unwrap(), [device(4)]);
    assert_eq!(accounts.device_lists(alice, 0, 9).await.unwrap(), [second, third]);
    engine.close().await;
}
