// SPDX-License-Identifier: MIT OR Apache-2.0
//! Accounts, handles, device lists and key packages.

use async_trait::async_trait;
use bytes::Bytes;
use pli_domain::limits::{DEVICE_LISTS_KEPT, KEY_PACKAGES_MAX};
use pli_domain::{AccountId, DeviceId, Handle};
use pli_ports::{
    AccountRecord, Accounts, ClaimedKeyPackage, CreateAccountError, DeviceListRecord, KeyPackageStock, ListHash,
    NewAccount, PutDeviceListError, Removal, StoreError,
};
use rusqlite::{Connection, OptionalExtension, Row, params};
use sha2::{Digest, Sha256};

use crate::database::{damaged, millis, number};
use crate::store::{Ask, Store};

/// `account` holds the newest device list, `device_list` those before it; `device_removal` the devices left out whose
/// removal is not carried out, written with the list that leaves them out. `device_account` keeps every device id for ever: ids are never reused. A handed-out key package stays as its
/// digest alone, so that a late retry of its upload does not bring it back.
pub(crate) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS account (
    id BLOB PRIMARY KEY, handle TEXT NOT NULL UNIQUE, identity_key BLOB NOT NULL, created INTEGER NOT NULL,
    list_version INTEGER NOT NULL, list_signed BLOB NOT NULL, list_devices BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS device_list (
    account BLOB NOT NULL, version INTEGER NOT NULL, signed BLOB NOT NULL, devices BLOB NOT NULL,
    PRIMARY KEY (account, version)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS device_account (device BLOB PRIMARY KEY, account BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS device_removal (
    account BLOB NOT NULL, version INTEGER NOT NULL, device BLOB NOT NULL, PRIMARY KEY (account, version, device)
) STRICT, WITHOUT ROWID;
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
const KEEP_LIST: &str = "INSERT INTO device_list (account, version, signed, devices)
    SELECT id, list_version, list_signed, list_devices FROM account WHERE id = ?1";
const FORGET_LISTS: &str = "DELETE FROM device_list WHERE account = ?1 AND version <= ?2";
const LIST_DEVICES: &str = "SELECT devices FROM device_list WHERE account = ?1 AND version = ?2";
const LISTS: &str = "SELECT version, signed, devices FROM device_list WHERE account = ?1 AND version > ?2
    UNION ALL SELECT list_version, list_signed, list_devices FROM account WHERE id = ?1 AND list_version > ?2
    ORDER BY 1 LIMIT ?3";
const PUT_REMOVAL: &str = "INSERT OR IGNORE INTO device_removal (account, version, device) VALUES (?1, ?2, ?3)";
const REMOVALS: &str = "SELECT account, version, device FROM device_removal
    WHERE (account, version, device) > (?1, ?2, ?3) ORDER BY account, version, device LIMIT ?4";
const FINISH_REMOVAL: &str = "DELETE FROM device_removal WHERE account = ?1 AND version = ?2 AND device = ?3";
const PUT_PACKAGE: &str = "INSERT OR IGNORE INTO key_package (device, digest, bytes) VALUES (?1, ?2, ?3)";
const PUT_LAST_RESORT: &str = "INSERT INTO last_resort (device, bytes) VALUES (?1, ?2)
    ON CONFLICT (device) DO UPDATE SET bytes = excluded.bytes";
const LAST_RESORT: &str = "SELECT bytes FROM last_resort WHERE device = ?1";
const LEFT: &str = "SELECT count(*) FROM key_package WHERE device = ?1 AND bytes IS NOT NULL";
const OLDEST: &str =
    "SELECT number, bytes FROM key_package WHERE device = ?1 AND bytes IS NOT NULL ORDER BY number LIMIT 1";
const SPEND: &str = "UPDATE key_package SET bytes = NULL WHERE number = ?1";
const SPEND_OLDEST: &str = "UPDATE key_package SET bytes = NULL WHERE number IN (
    SELECT number FROM key_package WHERE device = ?1 AND bytes IS NOT NULL ORDER BY number LIMIT ?2)";
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

fn account_of(conn: &Connection, device: DeviceId) -> rusqlite::Result<Option<AccountId>> {
    let mut find = conn.prepare_cached(DEVICE_ACCOUNT)?;
    let owner = find.query_row([device.as_bytes()], |row| row.get::<_, [u8; 16]>(0)).optional()?;
    Ok(owner.map(AccountId::from_bytes))
}

fn has_foreign_device(conn: &Connection, account: AccountId, list: &DeviceListRecord) -> rusqlite::Result<bool> {
    for device in &list.devices {
        if account_of(conn, *device)?.is_some_and(|owner| owner != account) {
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
    let devices = list_of(row, 3)?;
    Ok(AccountRecord { account: AccountId::from_bytes(row.get(0)?), handle, identity_key: row.get(2)?, devices })
}

/// Version, signed bytes and devices, from column `first` on.
fn list_of(row: &Row<'_>, first: usize) -> rusqlite::Result<DeviceListRecord> {
    let signed = Bytes::from(row.get::<_, Vec<u8>>(first + 1)?);
    let devices = devices_of(&row.get::<_, Vec<u8>>(first + 2)?)?;
    Ok(DeviceListRecord { version: number(row.get(first)?)?, signed, devices })
}

fn devices_of(bytes: &[u8]) -> rusqlite::Result<Vec<DeviceId>> {
    bytes.chunks(16).map(DeviceId::try_from).collect::<Result<Vec<_>, _>>().map_err(damaged)
}

/// What the database decided about a device list.
type Replaced = Result<Vec<DeviceId>, PutDeviceListError>;

fn put_device_list(
    conn: &Connection,
    id: AccountId,
    previous: &ListHash,
    list: &DeviceListRecord,
) -> rusqlite::Result<Replaced> {
    let Some(known) = account(conn, id)? else {
        return Ok(Err(PutDeviceListError::UnknownAccount));
    };
    let before = known.devices;
    if before.version == list.version && before.signed == list.signed {
        return Ok(Ok(left_out_by_newest(conn, id, list)?));
    }
    if let Err(refused) = check_successor(conn, id, &before, (previous, list))? {
        return Ok(Err(refused));
    }
    conn.prepare_cached(KEEP_LIST)?.execute([id.as_bytes()])?;
    let forgotten = version_of(list).saturating_sub(DEVICE_LISTS_KEPT as i64);
    conn.prepare_cached(FORGET_LISTS)?.execute(params![id.as_bytes(), forgotten])?;
    let devices = devices_as_bytes(&list.devices);
    conn.prepare_cached(PUT_LIST)?.execute(params![id.as_bytes(), version_of(list), &list.signed[..], devices])?;
    put_devices(conn, id, list)?;
    let gone = left_out(&before.devices, list);
    for device in &gone {
        conn.prepare_cached(DELETE_PACKAGES)?.execute([device.as_bytes()])?;
        conn.prepare_cached(DELETE_LAST_RESORT)?.execute([device.as_bytes()])?;
        conn.prepare_cached(PUT_REMOVAL)?.execute(params![id.as_bytes(), version_of(list), device.as_bytes()])?;
    }
    Ok(Ok(gone))
}

/// Whether `list` may follow `before`. A device id that is the account's and not in its newest list was in an earlier
/// one: both are written in one transaction.
fn check_successor(
    conn: &Connection,
    id: AccountId,
    before: &DeviceListRecord,
    (previous, list): (&ListHash, &DeviceListRecord),
) -> rusqlite::Result<Result<(), PutDeviceListError>> {
    let current = before.version;
    if current.checked_add(1) != Some(list.version) {
        return Ok(Err(PutDeviceListError::Version { current }));
    }
    if <ListHash>::from(Sha256::digest(&before.signed)) != *previous {
        return Ok(Err(PutDeviceListError::Previous { current }));
    }
    for device in list.devices.iter().filter(|device| !before.devices.contains(device)) {
        match account_of(conn, *device)? {
            Some(owner) if owner != id => return Ok(Err(PutDeviceListError::IdTaken)),
            Some(_) => return Ok(Err(PutDeviceListError::Removed)),
            None => {}
        }
    }
    Ok(Ok(()))
}

fn left_out(before: &[DeviceId], after: &DeviceListRecord) -> Vec<DeviceId> {
    before.iter().filter(|device| !after.devices.contains(device)).copied().collect()
}

fn left_out_by_newest(conn: &Connection, id: AccountId, newest: &DeviceListRecord) -> rusqlite::Result<Vec<DeviceId>> {
    let before = params![id.as_bytes(), version_of(newest) - 1];
    let before = conn.prepare_cached(LIST_DEVICES)?.query_row(before, |row| row.get::<_, Vec<u8>>(0)).optional()?;
    Ok(left_out(&devices_of(&before.unwrap_or_default())?, newest))
}

fn device_lists(conn: &Connection, id: AccountId, after: u64, max: usize) -> rusqlite::Result<Vec<DeviceListRecord>> {
    let (after, max) = (i64::try_from(after).unwrap_or(i64::MAX), i64::try_from(max).unwrap_or(i64::MAX));
    let mut read = conn.prepare_cached(LISTS)?;
    let lists = read.query_map(params![id.as_bytes(), after, max], |row| list_of(row, 0))?;
    lists.collect()
}

fn removals(conn: &Connection, after: Option<Removal>, max: usize) -> rusqlite::Result<Vec<Removal>> {
    let max = i64::try_from(max).unwrap_or(i64::MAX);
    let (account, version, device) = match &after {
        Some(after) => (&after.account.as_bytes()[..], i64::try_from(after.version).unwrap_or(i64::MAX), after.device),
        // Before every other.
        None => (&[][..], 0, DeviceId::from_bytes([0; 16])),
    };
    let mut read = conn.prepare_cached(REMOVALS)?;
    let found = read.query_map(params![account, version, device.as_bytes(), max], |row| {
        let account = AccountId::from_bytes(row.get(0)?);
        Ok(Removal { account, version: number(row.get(1)?)?, device: DeviceId::from_bytes(row.get(2)?) })
    })?;
    found.collect()
}

fn finish_removal(conn: &Connection, removal: Removal) -> rusqlite::Result<()> {
    let Removal { account, version, device } = removal;
    let version = i64::try_from(version).unwrap_or(i64::MAX);
    conn.prepare_cached(FINISH_REMOVAL)?.execute(params![account.as_bytes(), version, device.as_bytes()])?;
    // What was published while the list was replaced.
    conn.prepare_cached(DELETE_PACKAGES)?.execute([device.as_bytes()])?;
    conn.prepare_cached(DELETE_LAST_RESORT)?.execute([device.as_bytes()])?;
    Ok(())
}

fn put_key_packages(
    conn: &Connection,
    device: DeviceId,
    single_use: &[Bytes],
    last_resort: Option<&Bytes>,
) -> rusqlite::Result<KeyPackageStock> {
    for package in single_use {
        let digest: [u8; 32] = Sha256::digest(package).into();
        // Nothing changes for one that was stored before.
        conn.prepare_cached(PUT_PACKAGE)?.execute(params![device.as_bytes(), digest, &package[..]])?;
    }
    let surplus = (packages_left(conn, device)? as usize).saturating_sub(KEY_PACKAGES_MAX);
    if surplus > 0 {
        conn.prepare_cached(SPEND_OLDEST)?.execute(params![device.as_bytes(), surplus as i64])?;
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
    let last_resort = last_resort(conn, device)?.map(Bytes::from);
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

    async fn put_device_list(
        &self,
        account: AccountId,
        previous: ListHash,
        list: DeviceListRecord,
    ) -> Result<Vec<DeviceId>, PutDeviceListError> {
        let ask = Ask::growth("replace a device list", list.signed.len());
        self.store.write(ask, move |conn| put_device_list(conn, account, &previous, &list)).await?
    }

    async fn device_lists(
        &self,
        account: AccountId,
        after: u64,
        max: usize,
    ) -> Result<Vec<DeviceListRecord>, StoreError> {
        self.store.read("read device lists", move |conn| device_lists(conn, account, after, max)).await
    }

    async fn removals(&self, after: Option<Removal>, max: usize) -> Result<Vec<Removal>, StoreError> {
        self.store.read("list removals", move |conn| removals(conn, after, max)).await
    }

    async fn finish_removal(&self, removal: Removal) -> Result<(), StoreError> {
        self.store.write(Ask::freeing("finish a removal", 0), move |conn| finish_removal(conn, removal)).await
    }

    async fn device_account(&self, device: DeviceId) -> Result<Option<AccountId>, StoreError> {
        self.store.read("find a device's account", move |conn| account_of(conn, device)).await
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
