// SPDX-License-Identifier: MIT OR Apache-2.0
//! Accounts, handles, device lists and key packages.

mod claims;
mod create;
mod key_packages;
mod lists;
mod removals;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use pli_domain::{AccountId, DeviceId, Handle};
use pli_ports::{
    AccountRecord, Accounts, ClaimedKeyPackage, CreateAccountError, DeviceListRecord, KeyPackageStock, ListHash,
    NewAccount, PutDeviceListError, Removal, StoreError,
};

use crate::codec::{Damaged, devices, time};
use crate::statements::Statement;
use crate::store::{Op, Store};

/// [`Accounts`] on CQL.
pub(crate) struct CqlAccounts {
    pub(crate) store: Arc<Store>,
}

/// handle, identity_key, reserved_at, attempt, live, list_version, list_signed, list_devices, list_gone
type AccountRow = (
    Option<String>,
    Option<Vec<u8>>,
    Option<i64>,
    Option<Vec<u8>>,
    Option<bool>,
    Option<i64>,
    Option<Bytes>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
);

/// An account as stored, live or not.
struct Stored {
    handle: Handle,
    identity_key: [u8; 32],
    reserved_at: pli_domain::UnixMillis,
    /// The creation whose claims count.
    attempt: Vec<u8>,
    live: bool,
    devices: DeviceListRecord,
    /// Devices that the newest list left out, whose key packages go.
    gone: Vec<DeviceId>,
}

impl Stored {
    fn read(row: AccountRow) -> Result<Self, Damaged> {
        const WHAT: Damaged = Damaged { what: "account" };
        let (handle, identity_key, reserved_at, attempt, live, version, signed, list, gone) = row;
        let version = version.and_then(|version| u64::try_from(version).ok()).ok_or(WHAT)?;
        Ok(Self {
            handle: handle.and_then(|handle| handle.parse().ok()).ok_or(WHAT)?,
            identity_key: identity_key.and_then(|key| key.try_into().ok()).ok_or(WHAT)?,
            reserved_at: time(reserved_at.unwrap_or(0)),
            attempt: attempt.ok_or(WHAT)?,
            live: live == Some(true),
            devices: DeviceListRecord {
                version,
                signed: signed.unwrap_or_default(),
                devices: devices(&list.unwrap_or_default())?,
            },
            gone: devices(&gone.unwrap_or_default())?,
        })
    }

    fn record(self, account: AccountId) -> AccountRecord {
        let Self { handle, identity_key, devices, .. } = self;
        AccountRecord { account, handle, identity_key, devices }
    }
}

impl CqlAccounts {
    /// The account, live or not, read by `statement`.
    async fn stored(&self, op: Op, how: Statement, account: AccountId) -> Result<Option<Stored>, StoreError> {
        let key = (&account.as_bytes()[..],);
        let row: Option<AccountRow> = self.store.first(op, how, key).await?;
        row.map(Stored::read).transpose().map_err(op.damaged())
    }

    async fn find_by_handle(&self, handle: &Handle) -> Result<Option<AccountRecord>, StoreError> {
        const OP: Op = Op("look up a handle");
        let claim = self.store.first::<(Vec<u8>, Vec<u8>)>(OP, Statement::ReadHandle, (handle.as_str(),)).await?;
        let Some((account, attempt)) = claim else { return Ok(None) };
        let account = crate::codec::id("handle", &account).map_err(OP.damaged())?;
        let found = self.stored(OP, Statement::ReadAccount, account).await?;
        // A claim counts once the creation that made it is complete.
        Ok(found.filter(|found| found.live && found.attempt == attempt).map(|found| found.record(account)))
    }
}

#[async_trait]
impl Accounts for CqlAccounts {
    async fn create(&self, account: NewAccount) -> Result<(), CreateAccountError> {
        self.create_account(&account).await
    }

    async fn account(&self, account: AccountId) -> Result<Option<AccountRecord>, StoreError> {
        let found = self.stored(Op("read an account"), Statement::ReadAccount, account).await?;
        Ok(found.filter(|found| found.live).map(|found| found.record(account)))
    }

    async fn by_handle(&self, handle: &Handle) -> Result<Option<AccountRecord>, StoreError> {
        self.find_by_handle(handle).await
    }

    async fn put_device_list(
        &self,
        account: AccountId,
        previous: ListHash,
        list: DeviceListRecord,
    ) -> Result<Vec<DeviceId>, PutDeviceListError> {
        self.replace_list(account, &previous, &list).await
    }

    async fn device_lists(
        &self,
        account: AccountId,
        after: u64,
        max: usize,
    ) -> Result<Vec<DeviceListRecord>, StoreError> {
        self.chain(account, after, max).await
    }

    async fn removals(&self, after: Option<Removal>, max: usize) -> Result<Vec<Removal>, StoreError> {
        self.list_removals(after, max).await
    }

    async fn finish_removal(&self, removal: Removal) -> Result<(), StoreError> {
        self.end_removal(removal).await
    }

    async fn device_account(&self, device: DeviceId) -> Result<Option<AccountId>, StoreError> {
        self.account_of(device).await
    }

    async fn put_key_packages(
        &self,
        device: DeviceId,
        single_use: Vec<Bytes>,
        last_resort: Option<Bytes>,
    ) -> Result<KeyPackageStock, StoreError> {
        self.put_packages(device, single_use, last_resort).await
    }

    async fn claim_key_package(&self, device: DeviceId) -> Result<Option<ClaimedKeyPackage>, StoreError> {
        self.claim_package(device).await
    }

    async fn key_package_stock(&self, device: DeviceId) -> Result<KeyPackageStock, StoreError> {
        self.stock(device).await
    }
}
