// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices that their accounts removed while this one was away: what was accepted of them before is read.

use std::collections::{BTreeMap, BTreeSet};

use pli_api::directory::SignedDeviceList;
use pli_domain::limits::CHAIN_LISTS_MAX;
use pli_domain::{AccountId, DeviceAddress, DeviceId};

use super::Core;
use crate::identity::{VerifiedDevices, follow_lists, list_version, verify_devices};

/// A device with its key.
pub(super) type Keyed = (DeviceId, [u8; 32]);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Parting {
    /// Devices that a list names and a later one does not.
    devices: BTreeMap<DeviceAddress, [u8; 32]>,
    /// Accounts that were met after such a removal: their earlier lists are asked for, once.
    looked_back: BTreeSet<AccountId>,
}

impl Core {
    /// Whether the device's account names it with this key; or a list that was followed named it and a later one did no more,
    /// while this device is catching up: what stands before its removal in the queue was accepted of it.
    pub(super) fn is_heard(&self, device: DeviceAddress, key: &[u8]) -> bool {
        let is_parting = || self.parting.devices.get(&device).is_some_and(|known| known.as_slice() == key);
        self.is_listed(device, key) || is_parting()
    }

    /// Everything that waited has been taken in: a removed device is believed no longer.
    pub(super) fn part(&mut self) {
        if self.session.is_online() && self.inbound.is_empty() {
            self.parting = Parting::default();
        }
    }

    /// These were removed.
    pub(super) fn note_parting(&mut self, account: AccountId, devices: impl IntoIterator<Item = Keyed>) {
        let each = devices.into_iter().map(|(device, key)| (DeviceAddress { account, device }, key));
        self.parting.devices.extend(each);
    }

    /// Wants the lists of an account before the newest one, which names a device no more that something is here of. Answers
    /// whether waiting for them makes sense.
    pub(super) fn look_back(&mut self, account: AccountId) -> bool {
        // The first list and the one after it leave nothing between them.
        if self.session.is_online() || self.list_version(account) < 3 {
            return false;
        }
        if self.parting.looked_back.insert(account) {
            self.lists_wanted.insert(account);
        }
        self.lists_wanted.contains(&account)
    }

    /// The version after which lists of an account are asked for, where it is looked back.
    pub(super) fn looks_back_to(&self, account: AccountId) -> Option<u64> {
        let most = CHAIN_LISTS_MAX as u64 + 1;
        let looks_back = self.parting.looked_back.contains(&account);
        looks_back.then(|| self.list_version(account).saturating_sub(most).max(1))
    }

    /// Takes those of an answer's lists that lie before the known one; answers the others.
    pub(super) fn take_earlier(
        &mut self,
        account: AccountId,
        mut lists: Vec<SignedDeviceList>,
    ) -> Vec<SignedDeviceList> {
        let Some(known) = self.contacts.get(&account).map(|contact| contact.devices.clone()) else { return lists };
        let not_before = lists.iter().position(|list| list_version(list) >= known.version);
        let Some(end) = not_before.filter(|end| *end > 0 && self.parting.looked_back.contains(&account)) else {
            return lists;
        };
        if let Some(earlier) = chain_to(&known, &lists[..=end]) {
            let devices = earlier.into_iter().flat_map(|list| list.devices);
            self.note_parting(account, devices.filter(|device| !known.devices.contains(device)));
        }
        lists.split_off(end)
    }
}

/// The lists of a chain that ends at the known one, each verified.
fn chain_to(known: &VerifiedDevices, lists: &[SignedDeviceList]) -> Option<Vec<VerifiedDevices>> {
    let (first, rest) = lists.split_first()?;
    let first = verify_devices(first, known.account, None).ok()?;
    let chain = follow_lists(&first, rest).ok()?;
    (chain.last()?.hash == known.hash).then(|| std::iter::once(first).chain(chain).collect())
}
