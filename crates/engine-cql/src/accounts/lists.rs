// SPDX-License-Identifier: MIT OR Apache-2.0
//! The chain of an account's device lists. The newest stands in the account's row and is decided there, by version; each
//! one before it was written to a table of its own before its successor was decided, so the chain never has a hole.

use bytes::Bytes;
use pli_domain::limits::DEVICE_LISTS_KEPT;
use pli_domain::{AccountId, DeviceId};
use pli_ports::{DeviceListRecord, ListHash, PutDeviceListError, StoreError};
use sha2::{Digest, Sha256};

use super::claims::{Claim, Holder};
use super::{CqlAccounts, Stored};
use crate::codec::{Damaged, devices, devices_bytes};
use crate::locks::Turn;
use crate::statements::Statement;
use crate::store::Op;

const OP: Op = Op("replace a device list");

impl CqlAccounts {
    pub(super) async fn replace_list(
        &self,
        account: AccountId,
        previous: &ListHash,
        list: &DeviceListRecord,
    ) -> Result<Vec<DeviceId>, PutDeviceListError> {
        let _turn = self.store.locks.turn(Turn::Account, account.as_bytes()).await;
        let before = self.stored(OP, Statement::ReadAccount, account).await?.filter(|found| found.live);
        let before = before.ok_or(PutDeviceListError::UnknownAccount)?;
        if is_same(&before.devices, list) {
            return self.left_out(before.gone).await;
        }
        check_place(&before.devices, previous, list)?;
        self.claim_devices(account, &before, list).await?;
        self.keep(account, &before.devices).await?;
        let left_out = |device: &&DeviceId| !list.devices.contains(device);
        let gone: Vec<DeviceId> = before.devices.devices.iter().filter(left_out).copied().collect();
        self.note_removals(OP, (account, list.version), &gone).await?;
        let row = (
            list.version as i64,
            &list.signed[..],
            devices_bytes(&list.devices),
            devices_bytes(&gone),
            &account.as_bytes()[..],
            before.devices.version as i64,
        );
        if self.store.decide(OP, Statement::PutDeviceList, row).await? {
            self.forget(account, list.version).await?;
            return self.left_out(gone).await;
        }
        // Somebody else's list, or the answer to an earlier attempt was lost.
        let after = self.stored(OP, Statement::ReadAccountDecided, account).await?;
        let after = after.ok_or(PutDeviceListError::UnknownAccount)?;
        if is_same(&after.devices, list) {
            return self.left_out(after.gone).await;
        }
        Err(PutDeviceListError::Version { current: after.devices.version })
    }

    async fn left_out(&self, gone: Vec<DeviceId>) -> Result<Vec<DeviceId>, PutDeviceListError> {
        self.remove_packages(&gone).await?;
        Ok(gone)
    }

    /// Claims the devices that are new in `list`, or none of them where one may not be named. Nothing is released:
    /// another list of this account may count on the same claim, and a device id of a former list is never free again.
    async fn claim_devices(
        &self,
        account: AccountId,
        before: &Stored,
        list: &DeviceListRecord,
    ) -> Result<(), PutDeviceListError> {
        let new = list.devices.iter().filter(|device| !before.devices.devices.contains(device));
        let (new, mut own) = (new.copied().collect::<Vec<_>>(), Vec::new());
        for device in &new {
            match self.holder_of(OP, *device, account, &before.attempt).await? {
                Holder::Another => return Err(PutDeviceListError::IdTaken),
                Holder::Itself => own.push(*device),
                Holder::Nobody => {}
            }
        }
        if !own.is_empty() && self.was_listed(account, before, &own).await? {
            return Err(PutDeviceListError::Removed);
        }
        for device in new {
            if self.claim_device(OP, device, account, &before.attempt).await? == Claim::Foreign {
                return Err(PutDeviceListError::IdTaken);
            }
        }
        Ok(())
    }

    /// Whether a list before the newest named one of the account's own devices. What is not kept any more may have.
    pub(super) async fn was_listed(
        &self,
        account: AccountId,
        before: &Stored,
        own: &[DeviceId],
    ) -> Result<bool, StoreError> {
        let key = (&account.as_bytes()[..],);
        let rows: Vec<(i64, Option<Vec<u8>>)> = self.store.rows(OP, Statement::ReadListedDevices, key).await?;
        let oldest = rows.first().map_or(before.devices.version as i64, |(version, _)| *version);
        if oldest > 1 {
            return Ok(true);
        }
        for (_, listed) in rows {
            let listed = devices(&listed.unwrap_or_default()).map_err(OP.damaged())?;
            if own.iter().any(|device| listed.contains(device)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes down the list that is about to have a successor.
    async fn keep(&self, account: AccountId, list: &DeviceListRecord) -> Result<(), StoreError> {
        let row = (&account.as_bytes()[..], list.version as i64, &list.signed[..], devices_bytes(&list.devices));
        self.store.write(OP, Statement::KeepList, row).await
    }

    /// Drops what lies too far behind `newest`.
    async fn forget(&self, account: AccountId, newest: u64) -> Result<(), StoreError> {
        match newest.checked_sub(DEVICE_LISTS_KEPT).filter(|version| *version > 0) {
            Some(version) => {
                let row = (&account.as_bytes()[..], version as i64);
                self.store.write(OP, Statement::ForgetLists, row).await
            }
            None => Ok(()),
        }
    }

    /// Lists above `after`. The newest is read first: what is kept reaches up to it then, whoever adds another meanwhile.
    pub(super) async fn chain(
        &self,
        account: AccountId,
        after: u64,
        max: usize,
    ) -> Result<Vec<DeviceListRecord>, StoreError> {
        const OP: Op = Op("read device lists");
        let newest = self.stored(OP, Statement::ReadAccount, account).await?.filter(|found| found.live);
        let Some(newest) = newest.map(|found| found.devices).filter(|list| list.version > after) else {
            return Ok(Vec::new());
        };
        let (from, most) = (i64::try_from(after).unwrap_or(i64::MAX), i32::try_from(max).unwrap_or(i32::MAX));
        let key = (&account.as_bytes()[..], from, most);
        let rows: Vec<(i64, Option<Bytes>, Option<Vec<u8>>)> = self.store.rows(OP, Statement::ReadLists, key).await?;
        let lists = rows.into_iter().map(list_of).collect::<Result<Vec<_>, _>>().map_err(OP.damaged())?;
        let mut lists: Vec<_> = lists.into_iter().filter(|list| list.version < newest.version).collect();
        if lists.len() < max {
            lists.push(newest);
        }
        Ok(lists)
    }
}

/// Whether `list` is the one that follows.
fn check_place(
    before: &DeviceListRecord,
    previous: &ListHash,
    list: &DeviceListRecord,
) -> Result<(), PutDeviceListError> {
    let current = before.version;
    if current.checked_add(1) != Some(list.version) {
        return Err(PutDeviceListError::Version { current });
    }
    if <ListHash>::from(Sha256::digest(&before.signed)) != *previous {
        return Err(PutDeviceListError::Previous { current });
    }
    Ok(())
}

fn list_of(row: (i64, Option<Bytes>, Option<Vec<u8>>)) -> Result<DeviceListRecord, Damaged> {
    const WHAT: Damaged = Damaged { what: "device list" };
    let (version, signed, listed) = row;
    Ok(DeviceListRecord {
        version: u64::try_from(version).map_err(|_| WHAT)?,
        signed: signed.ok_or(WHAT)?,
        devices: devices(&listed.unwrap_or_default())?,
    })
}

fn is_same(stored: &DeviceListRecord, list: &DeviceListRecord) -> bool {
    stored.version == list.version && stored.signed == list.signed
}
