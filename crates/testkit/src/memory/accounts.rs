// SPDX-License-Identifier: MIT OR Apache-2.0
//! Accounts and key packages.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use pli_domain::limits::{DEVICE_LISTS_KEPT, KEY_PACKAGES_MAX};
use pli_domain::{AccountId, DeviceId, Handle};
use pli_ports::{
    AccountRecord, Accounts, ClaimedKeyPackage, CreateAccountError, DeviceListRecord, KeyPackageStock, ListHash,
    NewAccount, PutDeviceListError, Removal, StoreError,
};
use sha2::{Digest, Sha256};

use super::{Inner, tables};

/// The model of [`Accounts`].
#[derive(Clone)]
pub struct MemoryAccounts {
    world: Arc<Inner>,
}

#[derive(Default)]
pub(super) struct State {
    accounts: BTreeMap<AccountId, AccountRecord>,
    /// Every kept list, the newest too.
    chains: BTreeMap<(AccountId, u64), DeviceListRecord>,
    handles: BTreeMap<Handle, AccountId>,
    devices: BTreeMap<DeviceId, AccountId>,
    key_packages: BTreeMap<DeviceId, KeyPackages>,
    removals: BTreeSet<Removal>,
}

#[derive(Default)]
struct KeyPackages {
    single_use: VecDeque<Bytes>,
    /// Every package ever stored: one that was handed out is not stored again.
    seen: BTreeSet<Bytes>,
    last_resort: Option<Bytes>,
}

impl KeyPackages {
    fn stock(&self) -> KeyPackageStock {
        let left = u32::try_from(self.single_use.len()).unwrap_or(u32::MAX);
        KeyPackageStock { left, last_resort: self.last_resort.clone() }
    }

    fn put(&mut self, single_use: Vec<Bytes>, last_resort: Option<Bytes>) -> KeyPackageStock {
        for package in single_use {
            if self.seen.insert(package.clone()) {
                self.single_use.push_back(package);
            }
        }
        let surplus = self.single_use.len().saturating_sub(KEY_PACKAGES_MAX);
        self.single_use.drain(..surplus);
        self.last_resort = last_resort.or(self.last_resort.take());
        self.stock()
    }

    fn claim(&mut self) -> Option<ClaimedKeyPackage> {
        let (key_package, last_resort) = match self.single_use.pop_front() {
            Some(package) => (package, false),
            None => (self.last_resort.clone()?, true),
        };
        Some(ClaimedKeyPackage { key_package, last_resort, left: self.stock().left })
    }
}

impl State {
    fn create(&mut self, new: NewAccount) -> Result<(), CreateAccountError> {
        if let Some(found) = self.accounts.get(&new.account) {
            let same = found.handle == new.handle && found.identity_key == new.identity_key;
            return if same { Ok(()) } else { Err(CreateAccountError::IdTaken) };
        }
        if self.handles.contains_key(&new.handle) {
            return Err(CreateAccountError::HandleTaken);
        }
        if new.devices.devices.iter().any(|device| self.devices.contains_key(device)) {
            return Err(CreateAccountError::IdTaken);
        }
        self.handles.insert(new.handle.clone(), new.account);
        self.devices.extend(new.devices.devices.iter().map(|device| (*device, new.account)));
        let NewAccount { account, handle, identity_key, devices, .. } = new;
        self.chains.insert((account, devices.version), devices.clone());
        self.accounts.insert(account, AccountRecord { account, handle, identity_key, devices });
        Ok(())
    }

    fn put_device_list(
        &mut self,
        account: AccountId,
        previous: ListHash,
        list: DeviceListRecord,
    ) -> Result<Vec<DeviceId>, PutDeviceListError> {
        let found = self.accounts.get_mut(&account).ok_or(PutDeviceListError::UnknownAccount)?;
        let current = found.devices.version;
        if list.version == current && list.signed == found.devices.signed {
            let before = self.chains.get(&(account, current.saturating_sub(1)));
            return Ok(before.map(|before| left_out(before, &list)).unwrap_or_default());
        }
        if current.checked_add(1) != Some(list.version) {
            return Err(PutDeviceListError::Version { current });
        }
        if <ListHash>::from(Sha256::digest(&found.devices.signed)) != previous {
            return Err(PutDeviceListError::Previous { current });
        }
        for device in list.devices.iter().filter(|device| !found.devices.devices.contains(device)) {
            match self.devices.get(device) {
                Some(owner) if *owner != account => return Err(PutDeviceListError::IdTaken),
                Some(_) => return Err(PutDeviceListError::Removed),
                None => {}
            }
        }
        let gone = left_out(&found.devices, &list);
        for device in &gone {
            self.key_packages.remove(device);
            self.removals.insert(Removal { account, version: list.version, device: *device });
        }
        self.devices.extend(list.devices.iter().map(|device| (*device, account)));
        self.chains.insert((account, list.version), list.clone());
        self.chains.remove(&(account, list.version.saturating_sub(DEVICE_LISTS_KEPT)));
        found.devices = list;
        Ok(gone)
    }

    fn device_lists(&self, account: AccountId, after: u64, max: usize) -> Vec<DeviceListRecord> {
        let Some(first) = after.checked_add(1) else { return Vec::new() };
        let chain = self.chains.range((account, first)..=(account, u64::MAX));
        chain.take(max).map(|(_, list)| list.clone()).collect()
    }

    fn removals(&self, after: Option<Removal>, max: usize) -> Vec<Removal> {
        self.removals.iter().filter(|removal| after.is_none_or(|after| **removal > after)).take(max).copied().collect()
    }
}

fn left_out(before: &DeviceListRecord, after: &DeviceListRecord) -> Vec<DeviceId> {
    before.devices.iter().filter(|device| !after.devices.contains(device)).copied().collect()
}

impl MemoryAccounts {
    pub(super) fn new(world: Arc<Inner>) -> Self {
        Self { world }
    }
}

#[async_trait]
impl Accounts for MemoryAccounts {
    async fn create(&self, account: NewAccount) -> Result<(), CreateAccountError> {
        tables::write(&self.world, "create account", |state| state.accounts.create(account)).await?
    }

    async fn account(&self, account: AccountId) -> Result<Option<AccountRecord>, StoreError> {
        tables::read(&self.world, "account", |state| state.accounts.accounts.get(&account).cloned()).await
    }

    async fn by_handle(&self, handle: &Handle) -> Result<Option<AccountRecord>, StoreError> {
        let find = |state: &tables::State| {
            let account = state.accounts.handles.get(handle)?;
            state.accounts.accounts.get(account).cloned()
        };
        tables::read(&self.world, "account by handle", find).await
    }

    async fn put_device_list(
        &self,
        account: AccountId,
        previous: ListHash,
        list: DeviceListRecord,
    ) -> Result<Vec<DeviceId>, PutDeviceListError> {
        let put = |state: &mut tables::State| state.accounts.put_device_list(account, previous, list);
        tables::write(&self.world, "put device list", put).await?
    }

    async fn device_lists(
        &self,
        account: AccountId,
        after: u64,
        max: usize,
    ) -> Result<Vec<DeviceListRecord>, StoreError> {
        tables::read(&self.world, "device lists", |state| state.accounts.device_lists(account, after, max)).await
    }

    async fn removals(&self, after: Option<Removal>, max: usize) -> Result<Vec<Removal>, StoreError> {
        tables::read(&self.world, "removals", |state| state.accounts.removals(after, max)).await
    }

    async fn finish_removal(&self, removal: Removal) -> Result<(), StoreError> {
        let finish = |state: &mut tables::State| {
            state.accounts.removals.remove(&removal);
            state.accounts.key_packages.remove(&removal.device);
        };
        tables::write(&self.world, "finish a removal", finish).await
    }

    async fn device_account(&self, device: DeviceId) -> Result<Option<AccountId>, StoreError> {
        tables::read(&self.world, "account of a device", |state| state.accounts.devices.get(&device).copied()).await
    }

    async fn put_key_packages(
        &self,
        device: DeviceId,
        single_use: Vec<Bytes>,
        last_resort: Option<Bytes>,
    ) -> Result<KeyPackageStock, StoreError> {
        let put = |state: &mut tables::State| {
            state.accounts.key_packages.entry(device).or_default().put(single_use, last_resort)
        };
        tables::write(&self.world, "put key packages", put).await
    }

    async fn claim_key_package(&self, device: DeviceId) -> Result<Option<ClaimedKeyPackage>, StoreError> {
        let claim = |state: &mut tables::State| state.accounts.key_packages.get_mut(&device)?.claim();
        tables::write(&self.world, "claim key package", claim).await
    }

    async fn key_package_stock(&self, device: DeviceId) -> Result<KeyPackageStock, StoreError> {
        let stock = |state: &tables::State| {
            let found = state.accounts.key_packages.get(&device).map(KeyPackages::stock);
            found.unwrap_or_default()
        };
        tables::read(&self.world, "key package stock", stock).await
    }
}
