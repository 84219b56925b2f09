// SPDX-License-Identifier: MIT OR Apache-2.0
//! Accounts, handles, device lists and key packages.

use async_trait::async_trait;
use bytes::Bytes;
use pli_domain::limits::KEY_PACKAGES_MAX;
use pli_domain::{AccountId, DeviceId, Handle};
use pli_ports::{
    AccountRecord, Accounts, ClaimedKeyPackage, CreateAccountError, DeviceListRecord, KeyPackageStock, NewAccount,
    PutDeviceListError, StoreError,
};
use rusqlite::{Connection, OptionalExtension, Row, params};
use sha2::{Digest, Sha256};

use crate::database::{damaged, millis, number};
use crate::store::{Ask, Store};

/// `device_account` keeps every device id for ever: ids are never reused. A handed-out key package stays as its
/// digest alone, so that a late retry of its upload does not bring it back.
pub(crate) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS account (
    id BLOB PRIMARY KEY, handle TEXT NOT NULL UNIQUE, identity_key BLOB NOT NULL, created INTEGER NOT NULL,
    list_version INTEGER NOT NULL, list_signed BLOB NOT NULL, list_devices BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS device_account (device BLOB PRIMARY KEY, account BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS key_package (
    number INTEGER PRIMARY KEY, device BLOB NOT NULL, digest BLOB NOT NULL, bytes BLOB, UNIQUE (device, digest)
) STRICT;
CREATE INDEX IF NOT EXISTS key_package_left ON key_package (device, number) WHERE bytes IS NOT NULL;
CREATE TABLE IF NOT EXISTS last_resort (device BLOB PRIMARY KEY, bytes BLOB NOT NULL) STRICT;";

const RECORD: &str =
    "SELECT id, handle, identity_key, list_version, list_signed, list_devices FROM account WHERE id = ?1";
const BY_HANDLE: &str =
    "SELECT id, handle, identity_key, list_version, list_signed, list_devices FROM account WHERE handle = ?1";
const DEVICE_ACCOUNT: &str = "SELECT account FROM device_account WHERE device = ?1";
const PUT_ACCOUNT: &str = "INSERT INTO account
    (id, handle, identity_key, created, list_version, list_signed, list_devices) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
const PUT_DEVICE: &str = "INSERT OR IGNORE INTO device_account (device, account) VALUES (?1, ?2)";
const PUT_LIST: &str = "UPDATE account SET list_version = ?2, list_signed = ?3, list_devices = ?4 WHERE id = ?1";
const PUT_PACKAGE: &str = "INSERT OR IGNORE INTO key_package (device, digest, bytes) VALUES (?1, ?2, ?3)";
const PUT_LAST_RESORT: &str = "INSERT INTO last_resort (device, bytes) VALUES (?1, ?2)
    ON CONFLICT (device) DO UPDATE SET bytes = excluded.bytes";
const LAST_RESORT: &str = "SELECT bytes FROM last_resort WHERE device = ?1";
const LEFT: &str = "SELECT count(*) FROM key_package WHERE device = ?1 AND bytes IS NOT NULL";
const OLDEST: &str =
    "SELECT number, bytes FROM key_package WHERE device = ?1 AND bytes IS NOT NULL ORDER BY number LIMIT 1";
const SPEND: &str = "UPDATE key_package SET bytes = NULL WHERE number = ?1";
const FORGET_SPENT: &str = "DELETE FROM key_package WHERE number IN (
    SELECT number FROM key_package WHERE device = ?1 AND bytes IS NULL ORDER BY number DESC LIMIT -1 OFFSET ?2)";
const DELETE_PACKAGES: &str = "DELETE FROM key_package WHERE device = ?1";
const DELETE_LAST_RESORT: &str = "DELETE FROM last_resort WHERE device = ?1";

/// Digests of handed-out key packages kept per device; a retry of an upload is not that late.
const SPENT_KEPT: i64 = 1_000;

/// What the database decided about an account.
enum Created {
    Yes,
    HandleTaken,
    IdTaken,
}

fn create(conn: &Connection, new: &NewAccount) -> rusqlite::Result<Created> {
    if let Some(known) = account(conn, new.account)? {
        let same = known.handle == new.handle && known.identity_key == new.identity_key;
        return Ok(if same { Created::Yes } else { Created::IdTaken });
    }
    if has_foreign_device(conn, new.account, &new.devices)? {
        return Ok(Created::IdTaken);
    }
    if by_handle(conn, new.handle.as_str())?.is_some() {
        return Ok(Created::HandleTaken);
    }
    let version = version_of(&new.devices);
    conn.prepare_cached(PUT_ACCOUNT)?.execute(params![
        new.account.as_bytes(),
        new.handle.as_str(),
        new.identity_key,
        millis(new.created_at),
        version,
        &new.devices.signed[..],
        devices_as_bytes(&new.devices.devices),
    ])?;
    put_devices(conn, new.account, &new.devices)?;
    Ok(Created::Yes)
}

fn version_of(list: &DeviceListRecord) -> i64 {
    i64::try_from(list.version).unwrap_or(i64::MAX)
}

fn has_foreign_device(conn: &Connection, account: AccountId, list: &DeviceListRecord) -> rusqlite::Result<bool> {
    let mut find = conn.prepare_cached(DEVICE_ACCOUNT)?;
    for device in &list.devices {
        let owner = find.query_row([device.as_bytes()], |row| row.get::<_, [u8; 16]>(0)).optional()?;
        if owner.is_some_and(|owner| owner != *account.as_bytes()) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn put_devices(conn: &Connection, account: AccountId, list: &DeviceListRecord) -> rusqlite::Result<()> {
    for device in &list.devices {
        conn.prepare_cached(PUT_DEVICE)?.execute([device.as_bytes(), account.as_bytes()])?;
    }
    Ok(())
}

fn devices_as_bytes(devices: &[DeviceId]) -> Vec<u8> {
    devices.iter().flat_map(|device| *device.as_bytes()).collect()
}

fn account(conn: &Connection, account: AccountId) -> rusqlite::Result<Option<AccountRecord>> {
    conn.prepare_cached(RECORD)?.query_row([account.as_bytes()], record_of).optional()
}

fn by_handle(conn: &Connection, handle: &str) -> rusqlite::Result<Option<AccountRecord>> {
    conn.prepare_cached(BY_HANDLE)?.query_row([handle], record_of).optional()
}

fn record_of(row: &Row<'_>) -> rusqlite::Result<AccountRecord> {
    let handle = row.get::<_, String>(1)?.parse::<Handle>().map_err(damaged)?;
    let devices = row.get::<_, Vec<u8>>(5)?;
    let devices = devices.chunks(16).map(DeviceId::try_from).collect::<Result<Vec<_>, _>>().map_err(damaged)?;
    let signed = Bytes::from(row.get::<_, Vec<u8>>(4)?);
    let devices = DeviceListRecord { version: number(row.get(3)?)?, signed, devices };
    Ok(AccountRecord { account: AccountId::from_bytes(row.get(0)?), handle, identity_key: row.get(2)?, devices })
}

/// What the database decided about a device list.
enum Replaced {
    Yes,
    Version(u64),
    UnknownAccount,
    ForeignDevice,
}

fn put_device_list(conn: &Connection, id: AccountId, list: &DeviceListRecord) -> rusqlite::Result<Replaced> {
    let Some(known) = account(conn, id)? else {
        return Ok(Replaced::UnknownAccount);
    };
    let before = known.devices;
    if before.version == list.version && before.signed == list.signed {
        return Ok(Replaced::Yes);
    }
    if before.version.checked_add(1) != Some(list.version) {
        return Ok(Replaced::Version(before.version));
    }
    if has_foreign_device(conn, id, list)? {
        return Ok(Replaced::ForeignDevice);
    }
    let devices = devices_as_bytes(&list.devices);
    conn.prepare_cached(PUT_LIST)?.execute(params![id.as_bytes(), version_of(list), &list.signed[..], devices])?;
    put_devices(conn, id, list)?;
    for gone in before.devices.iter().filter(|device| !list.devices.contains(device)) {
        conn.prepare_cached(DELETE_PACKAGES)?.execute([gone.as_bytes()])?;
        conn.prepare_cached(DELETE_LAST_RESORT)?.execute([gone.as_bytes()])?;
    }
    Ok(Replaced::Yes)
}

fn put_key_packages(
    conn: &Connection,
    device: DeviceId,
    single_use: &[Bytes],
    last_resort: Option<&Bytes>,
) -> rusqlite::Result<KeyPackageStock> {
    let mut left = packages_left(conn, device)?;
    for package in single_use {
        if left as usize >= KEY_PACKAGES_MAX {
            break;
        }
        let digest: [u8; 32] = Sha256::digest(package).into();
        let row = params![device.as_bytes(), digest, &package[..]];
        // Nothing changes for one that was stored before.
        left += u32::from(conn.prepare_cached(PUT_PACKAGE)?.execute(row)? > 0);
    }
    if let Some(package) = last_resort {
        conn.prepare_cached(PUT_LAST_RESORT)?.execute(params![device.as_bytes(), &package[..]])?;
    }
    conn.prepare_cached(FORGET_SPENT)?.execute(params![device.as_bytes(), SPENT_KEPT])?;
    stock(conn, device)
}

fn packages_left(conn: &Connection, device: DeviceId) -> rusqlite::Result<u32> {
    conn.prepare_cached(LEFT)?.query_row([device.as_bytes()], |row| row.get(0))
}

fn last_resort(conn: &Connection, device: DeviceId) -> rusqlite::Result<Option<Vec<u8>>> {
    conn.prepare_cached(LAST_RESORT)?.query_row([device.as_bytes()], |row| row.get(0)).optional()
}

fn stock(conn: &Connection, device: DeviceId) -> rusqlite::Result<KeyPackageStock> {
    let last_resort = last_resort(conn, device)?.is_some();
    Ok(KeyPackageStock { left: packages_left(conn, device)?, last_resort })
}

fn claim(conn: &Connection, device: DeviceId) -> rusqlite::Result<Option<ClaimedKeyPackage>> {
    let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?));
    let oldest = conn.prepare_cached(OLDEST)?.query_row([device.as_bytes()], read).optional()?;
    if let Some((number, package)) = oldest {
        conn.prepare_cached(SPEND)?.execute([number])?;
        let left = packages_left(conn, device)?;
        return Ok(Some(ClaimedKeyPackage { key_package: package.into(), last_resort: false, left }));
    }
    let package = last_resort(conn, device)?;
    Ok(package.map(|package| ClaimedKeyPackage { key_package: package.into(), last_resort: true, left: 0 }))
}

/// [`Accounts`] on SQLite.
pub(crate) struct EmbeddedAccounts {
    pub(crate) store: Store,
}

#[async_trait]
impl Accounts for EmbeddedAccounts {
    async fn create(&self, new: NewAccount) -> Result<(), CreateAccountError> {
        let ask = Ask::growth("create an account", new.devices.signed.len());
        match self.store.write(ask, move |conn| create(conn, &new)).await? {
            Created::Yes => Ok(()),
            Created::HandleTaken => Err(CreateAccountError::HandleTaken),
            Created::IdTaken => Err(CreateAccountError::IdTaken),
        }
    }

    async fn account(&self, id: AccountId) -> Result<Option<AccountRecord>, StoreError> {
        self.store.read("read an account", move |conn| account(conn, id)).await
    }

    async fn by_handle(&self, handle: &Handle) -> Result<Option<AccountRecord>, StoreError> {
        let handle = handle.clone();
        self.store.read("look up a handle", move |conn| by_handle(conn, handle.as_str())).await
    }

    async fn put_device_list(&self, account: AccountId, list: DeviceListRecord) -> Result<(), PutDeviceListError> {
        let ask = Ask::growth("replace a device list", list.signed.len());
        match self.store.write(ask, move |conn| put_device_list(conn, account, &list)).await? {
            Replaced::Yes => Ok(()),
            Replaced::Version(current) => Err(PutDeviceListError::Version { current }),
            Replaced::UnknownAccount => Err(PutDeviceListError::UnknownAccount),
            Replaced::ForeignDevice => Err(PutDeviceListError::IdTaken),
        }
    }

    async fn put_key_packages(
        &self,
        device: DeviceId,
        single_use: Vec<Bytes>,
        last_resort: Option<Bytes>,
    ) -> Result<KeyPackageStock, StoreError> {
        let bytes = single_use.iter().chain(&last_resort).map(Bytes::len).sum();
        let ask = Ask::growth("store key packages", bytes);
        self.store.write(ask, move |conn| put_key_packages(conn, device, &single_use, last_resort.as_ref())).await
    }

    async fn claim_key_package(&self, device: DeviceId) -> Result<Option<ClaimedKeyPackage>, StoreError> {
        self.store.write(Ask::growth("claim a key package", 0), move |conn| claim(conn, device)).await
    }

    async fn key_package_stock(&self, device: DeviceId) -> Result<KeyPackageStock, StoreError> {
        self.store.read("count key packages", move |conn| stock(conn, device)).await
    }
}
