// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices that their accounts have removed: what was accepted of them before is read, although it comes after the news.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pli_api::directory::SignedDeviceList;
use pli_domain::limits::EXPIRY_MAX;
use pli_domain::{AccountId, DeviceAddress, DeviceId, UnixMillis};

use super::{Core, Row};
use crate::identity::{VerifiedDevices, follow_lists, list_version, verify_devices};

/// What was accepted of a removed device has come after so long in which this one was connected with nothing waiting. Until then
/// the device is heard where it is still a member, and as anybody is in the epochs before whose keys are kept.
const PARTS_AFTER: Duration = Duration::from_secs(3_600);
/// Lists that are looked at before the known one. Every device that they name is one that a server could keep in, and show to
/// somebody who meets its account for the first time.
const LOOKED_BACK: u64 = 8;
/// More are not kept; the longest known are forgotten first.
const PARTING_MAX: usize = 1_000;
/// That nothing waits any more is stored this often.
const STORED_EVERY: Duration = Duration::from_secs(900);

/// A device with its key.
pub(super) type Keyed = (DeviceId, [u8; 32]);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Parting {
    /// Devices that a list names and a later one does not, with the local time when that was known.
    devices: BTreeMap<DeviceAddress, ([u8; 32], UnixMillis)>,
    /// Accounts that were met after such a removal: their earlier lists are asked for once, at this time.
    looked_back: BTreeMap<AccountId, UnixMillis>,
    /// Those of them that are not answered.
    open: BTreeSet<AccountId>,
    /// When this device was last connected with nothing waiting.
    caught_up_at: Option<UnixMillis>,
    /// The same as it is stored.
    stored_at: Option<UnixMillis>,
}

impl Parting {
    pub(super) const fn caught_up_at(&self) -> Option<UnixMillis> {
        self.caught_up_at
    }

    pub(super) const fn load_caught_up_at(&mut self, at: UnixMillis) {
        (self.caught_up_at, self.stored_at) = (Some(at), Some(at));
    }
}

impl Core {
    /// Whether the device's account names it with this key; or a list that was followed named it and a later one did no more,
    /// lately: what stands before its removal in the queue was accepted of it.
    pub(super) fn is_heard(&self, device: DeviceAddress, key: &[u8]) -> bool {
        let is_parting = || self.parting.devices.get(&device).is_some_and(|(known, _)| known.as_slice() == key);
        self.is_listed(device, key) || is_parting()
    }

    /// The account that has removed the device.
    pub(super) fn account_parted_with(&self, device: DeviceId) -> Option<AccountId> {
        self.parting.devices.keys().find(|address| address.device == device).map(|address| address.account)
    }

    /// Forgets removed devices of which nothing is on its way any more.
    pub(super) fn forget_parted(&mut self) {
        let now = self.stepped_at;
        // After a sleep the connection may be gone with what it brought.
        if self.session.is_online() && self.session.is_alive(now) && self.inbound.is_empty() {
            self.parting.caught_up_at = Some(now);
            if self.parting.stored_at.is_none_or(|at| now.since(at).max(at.since(now)) >= STORED_EVERY) {
                self.parting.stored_at = Some(now);
                self.dirty.insert(Row::CaughtUp);
            }
        }
        let may_come = self.may_come();
        self.parting.devices.retain(|_, (_, at)| may_come(*at));
        self.parting.looked_back.retain(|_, at| may_come(*at));
        self.parting.open.retain(|account| self.lists_wanted.contains(account));
    }

    /// Whether something that was accepted before a removal may still be on its way, by when the removal was known: what
    /// waited has not been taken in since, or not for long, and it has not expired.
    fn may_come(&self) -> impl Fn(UnixMillis) -> bool + use<> {
        let (now, caught_up_at) = (self.stepped_at, self.parting.caught_up_at);
        let has_come = move |known_at: UnixMillis| caught_up_at.is_some_and(|at| known_at.after(PARTS_AFTER) <= at);
        move |known_at| !has_come(known_at) && now.since(known_at) < EXPIRY_MAX
    }

    /// These were removed, which is known since then.
    pub(super) fn note_parting(
        &mut self,
        account: AccountId,
        devices: impl IntoIterator<Item = Keyed>,
        known_at: UnixMillis,
    ) {
        let each = devices.into_iter().map(|(device, key)| (DeviceAddress { account, device }, (key, known_at)));
        self.parting.devices.extend(each);
        while self.parting.devices.len() > PARTING_MAX {
            let oldest = self.parting.devices.iter().min_by_key(|(_, (_, at))| *at).map(|(device, _)| *device);
            oldest.map(|device| self.parting.devices.remove(&device));
        }
    }

    /// Wants the lists of an account before the newest one, which names a device no more that something is here of. Answers
    /// whether waiting for them makes sense. Of a list that is known for longer nothing is on its way any more: whoever goes on
    /// to serve a removed device gains nothing by a new connection.
    pub(super) fn look_back(&mut self, account: AccountId) -> bool {
        // The first list and the one after it leave nothing between them.
        if self.list_version(account) < 3 || !self.list_learned_at(account).is_some_and(self.may_come()) {
            return false;
        }
        if !self.parting.looked_back.contains_key(&account) {
            self.parting.looked_back.insert(account, self.stepped_at);
            self.parting.open.insert(account);
            self.lists_wanted.insert(account);
            // An answer that is under way was not asked for these.
            self.lists_open.retain(|(open, _)| *open != account);
        }
        // Not where the directory answered without the account, or refused.
        self.parting.open.contains(&account) && self.lists_wanted.contains(&account)
    }

    /// The version after which lists of an account are asked for, where it is looked back.
    pub(super) fn looks_back_to(&self, account: AccountId) -> Option<u64> {
        // The known one comes along, although another one has come behind it.
        let after = |version: u64| version.saturating_sub(LOOKED_BACK + 1).max(1);
        self.parting.open.contains(&account).then(|| after(self.list_version(account)))
    }

    /// Takes those of an answer's lists that lie before the known one, where they were asked for; answers the others.
    pub(super) fn take_earlier(
        &mut self,
        account: AccountId,
        mut lists: Vec<SignedDeviceList>,
    ) -> Vec<SignedDeviceList> {
        let looks_back = self.parting.open.remove(&account);
        let Some(known) = self.contacts.get(&account).map(|contact| contact.devices.clone()) else { return lists };
        let not_before = lists.iter().position(|list| list_version(list) >= known.version);
        let Some(end) = not_before.filter(|end| *end > 0 && looks_back) else {
            return lists;
        };
        if let Some(earlier) = chain_to(&known, &lists[..=end]) {
            let devices = earlier.into_iter().flat_map(|list| list.devices);
            let known_at = self.list_learned_at(account).unwrap_or(self.stepped_at);
            self.note_parting(account, devices.filter(|device| !known.devices.contains(device)), known_at);
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use pli_api::directory::DeviceListEntry;
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng as _;

    use super::*;
    use crate::identity::{Identity, ListChange};

    const HOUR: u64 = 3_600_000;

    fn signer(n: u64) -> Identity {
        Identity::create("alice".parse().expect("a handle"), &mut ChaCha20Rng::seed_from_u64(n))
    }

    /// A device comes and goes in the second and the third list; the newest is the fourth.
    fn chain(identity: &Identity) -> (Vec<SignedDeviceList>, DeviceAddress, [u8; 32]) {
        let entry = |n: u8| {
            let key = ed25519_dalek::SigningKey::from_bytes(&[n; 32]).verifying_key().to_bytes();
            let device = Bytes::copy_from_slice(DeviceId::from_bytes([n; 16]).as_bytes());
            (ListChange::Add(DeviceListEntry { device, key: Bytes::copy_from_slice(&key), name: "tablet".into() }), key)
        };
        let device = DeviceId::from_bytes([7; 16]);
        let changes = [entry(7).0, ListChange::Remove(device), entry(8).0];
        let mut lists = vec![identity.device_list().expect("its first list")];
        for change in &changes {
            lists.push(identity.next_list(&lists[lists.len() - 1], change).expect("a list"));
        }
        (lists, DeviceAddress { account: identity.address().account, device }, entry(7).1)
    }

    fn core() -> Core {
        Core::create("bob".parse().expect("a handle"), [1; 32], UnixMillis(0)).0
    }

    /// Bob knows the newest list, and asks for the earlier ones.
    fn looking(newest: &SignedDeviceList, account: AccountId) -> Core {
        let mut core = core();
        core.stepped_at = UnixMillis(HOUR);
        core.meet(account, None, std::slice::from_ref(newest)).expect("a list");
        assert!(core.look_back(account));
        assert_eq!(core.looks_back_to(account), Some(1));
        core
    }

    #[test]
    fn an_earlier_list_vouches_for_a_device_if_it_leads_to_the_known_one() {
        let alice = signer(1);
        let (lists, tablet, key) = chain(&alice);
        let stranger = chain(&signer(2)).0;
        let forged = [lists[1].clone(), stranger[2].clone(), lists[3].clone()];
        let hole = [lists[1].clone(), lists[3].clone()];
        for (answer, is_heard) in [(lists[1..].to_vec(), true), (forged.to_vec(), false), (hole.to_vec(), false)] {
            let mut core = looking(&lists[3], tablet.account);
            assert_eq!(core.take_earlier(tablet.account, answer), [lists[3].clone()]);
            assert_eq!(core.is_heard(tablet, &key), is_heard);
            assert!(!core.is_heard(tablet, &[0; 32]));
            assert!(!core.look_back(tablet.account), "once");
        }
        let mut core = looking(&lists[3], tablet.account);
        core.lists_wanted.remove(&tablet.account);
        assert!(!core.look_back(tablet.account), "nobody waits for what was answered without the account");
        let mut core = looking(&lists[3], tablet.account);
        let later = [lists[3].clone()];
        assert_eq!(core.take_earlier(tablet.account, later.to_vec()), later);
        // Whoever signs is the same, and it leads to another one than the known.
        let mut core = looking(&lists[3], tablet.account);
        let fork = alice.next_list(&lists[2], &ListChange::Keep(alice.address().device, 4)).expect("a list");
        let answer = vec![lists[1].clone(), lists[2].clone(), fork.clone()];
        assert_eq!(core.take_earlier(tablet.account, answer), [fork]);
        assert!(!core.is_heard(tablet, &key));
    }

    #[test]
    fn an_answer_that_was_under_way_does_not_stand_for_the_earlier_lists() {
        let (lists, tablet, key) = chain(&signer(1));
        let mut core = core();
        core.stepped_at = UnixMillis(HOUR);
        core.meet(tablet.account, None, &lists[3..]).expect("a list");
        core.lists_open = vec![(tablet.account, 4)];
        assert!(core.look_back(tablet.account));
        assert!(core.lists_open.is_empty(), "nobody takes it for the answer");
        assert_eq!(core.take_earlier(tablet.account, lists[1..].to_vec()), [lists[3].clone()]);
        assert!(core.is_heard(tablet, &key));
    }

    #[test]
    fn of_a_list_that_is_known_for_an_hour_nothing_is_looked_for() {
        let (lists, tablet, _) = chain(&signer(1));
        let mut core = core();
        core.stepped_at = UnixMillis(HOUR);
        core.meet(tablet.account, None, &lists[3..]).expect("a list");
        core.stepped_at = UnixMillis(9 * HOUR);
        core.meet(tablet.account, None, &lists[3..]).expect("the same list");
        core.parting.caught_up_at = Some(UnixMillis(2 * HOUR));
        assert!(!core.look_back(tablet.account));
        core.parting.caught_up_at = Some(UnixMillis(2 * HOUR - 1));
        assert!(core.look_back(tablet.account));
        assert!(!looks_back_without(&lists[1..2], tablet.account), "nothing lies before the second list");
    }

    #[test]
    fn a_removed_device_is_heard_until_nothing_waits_for_an_hour_and_no_longer_than_a_message_lives() {
        let (lists, tablet, key) = chain(&signer(1));
        let heard = |now: UnixMillis, caught_up_at: u64| {
            let mut core = looking(&lists[3], tablet.account);
            core.stepped_at = UnixMillis(HOUR + 1);
            core.take_earlier(tablet.account, lists[1..].to_vec());
            (core.stepped_at, core.parting.caught_up_at) = (now, Some(UnixMillis(caught_up_at)));
            core.forget_parted();
            core.is_heard(tablet, &key)
        };
        let day = 24 * HOUR;
        assert!(heard(UnixMillis(2 * day), HOUR + 10), "it was away");
        assert!(heard(UnixMillis(2 * HOUR), 2 * HOUR - 1));
        assert!(!heard(UnixMillis(2 * HOUR), 2 * HOUR), "counted from when the list was learned");
        assert!(heard(UnixMillis(HOUR - 1), HOUR - 1), "a clock that was set back a little");
        assert!(heard(UnixMillis(HOUR - 1).after(EXPIRY_MAX), HOUR));
        assert!(!heard(UnixMillis(HOUR).after(EXPIRY_MAX), HOUR), "a server that never says that nothing waits");
    }

    #[test]
    fn no_more_removed_devices_are_kept_than_there_is_room_for() {
        let mut core = core();
        let account = signer(1).address().account;
        for n in 0..PARTING_MAX as u128 + 20 {
            let device = DeviceId::from_bytes(n.to_be_bytes());
            core.note_parting(account, [(device, [1; 32])], UnixMillis(n as u64));
        }
        assert_eq!(core.parting.devices.len(), PARTING_MAX);
        let first = DeviceAddress { account, device: DeviceId::from_bytes(20u128.to_be_bytes()) };
        assert_eq!(core.parting.devices.keys().next(), Some(&first), "the latest");
    }

    fn looks_back_without(lists: &[SignedDeviceList], account: AccountId) -> bool {
        let mut core = core();
        core.meet(account, None, lists).expect("a list");
        core.look_back(account)
    }
}
