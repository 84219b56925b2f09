// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices that their accounts have removed: what was accepted of them before is read, although it comes after the news.

use std::collections::BTreeMap;
use std::time::Duration;

use pli_api::directory::SignedDeviceList;
use pli_domain::limits::CHAIN_LISTS_MAX;
use pli_domain::{AccountId, DeviceAddress, DeviceId, UnixMillis};

use super::Core;
use crate::identity::{VerifiedDevices, follow_lists, list_version, verify_devices};

/// What was accepted of a removed device has come after so long, where this one is online and nothing waits. Until then the
/// device is heard where it is still a member, as is of the epochs that are kept whoever is none any more.
const PARTS_AFTER: Duration = Duration::from_secs(3_600);

/// A device with its key.
pub(super) type Keyed = (DeviceId, [u8; 32]);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Parting {
    /// Devices that a list names and a later one does not, with the local time when that was known.
    devices: BTreeMap<DeviceAddress, ([u8; 32], UnixMillis)>,
    /// Accounts that were met after such a removal: their earlier lists are asked for once, at this time.
    looked_back: BTreeMap<AccountId, UnixMillis>,
}

impl Core {
    /// Whether the device's account names it with this key; or a list that was followed named it and a later one did no more,
    /// lately: what stands before its removal in the queue was accepted of it.
    pub(super) fn is_heard(&self, device: DeviceAddress, key: &[u8]) -> bool {
        let is_parting = || self.parting.devices.get(&device).is_some_and(|(known, _)| known.as_slice() == key);
        self.is_listed(device, key) || is_parting()
    }

    /// A removed device is believed no longer when everything that waited has been taken in, and then for as long as what is
    /// on its way may take.
    pub(super) fn part(&mut self) {
        if self.session.is_online() && self.inbound.is_empty() {
            let now = self.stepped_at;
            let lately = |at: UnixMillis| at <= now && now.since(at) < PARTS_AFTER;
            self.parting.devices.retain(|_, (_, at)| lately(*at));
            self.parting.looked_back.retain(|_, at| lately(*at));
        }
    }

    /// These were removed.
    pub(super) fn note_parting(&mut self, account: AccountId, devices: impl IntoIterator<Item = Keyed>) {
        let now = self.stepped_at;
        let each = devices.into_iter().map(|(device, key)| (DeviceAddress { account, device }, (key, now)));
        self.parting.devices.extend(each);
    }

    /// Wants the lists of an account before the newest one, which names a device no more that something is here of. Answers
    /// whether waiting for them makes sense.
    pub(super) fn look_back(&mut self, account: AccountId) -> bool {
        // The first list and the one after it leave nothing between them.
        if self.list_version(account) < 3 {
            return false;
        }
        if !self.parting.looked_back.contains_key(&account) {
            self.parting.looked_back.insert(account, self.stepped_at);
            self.lists_wanted.insert(account);
        }
        self.lists_wanted.contains(&account)
    }

    /// The version after which lists of an account are asked for, where it is looked back.
    pub(super) fn looks_back_to(&self, account: AccountId) -> Option<u64> {
        let most = CHAIN_LISTS_MAX as u64 + 1;
        let looks_back = self.parting.looked_back.contains_key(&account);
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
        let Some(end) = not_before.filter(|end| *end > 0 && self.parting.looked_back.contains_key(&account)) else {
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
