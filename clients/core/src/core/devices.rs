// SPDX-License-Identifier: MIT OR Apache-2.0
//! This account's own devices, and groups that follow device lists.
//!
//! Who holds the identity key changes the list: the change is kept until the directory has confirmed it, and signed anew
//! on the newest list each time, which gives the same bytes as long as that is the same. Then every conversation is
//! brought in line with it by a commit; the other members look after that later, if nobody did.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use pli_api::directory::{self, DeviceList, DeviceListEntry, SignedDeviceList};
use pli_api::{ErrorCode, common};
use pli_domain::limits::{DEVICE_NAME_BYTES_MAX, DEVICES_PER_ACCOUNT_MAX};
use pli_domain::{AccountId, ConversationId, DeviceAddress, DeviceId, UnixMillis};
use prost::Message as _;

use super::calls::Ask;
use super::conversation::{Conversation, Phase, WORK_MAX, Work};
use super::{CommandError, Core, Event, LoadError, Row, Table};
use crate::identity::{DeviceListError, ListChange};
use crate::mls::CommitSummary;

/// Changes of the own list that wait at a time.
const CHANGES_MAX: usize = 16;
/// Members of other accounts bring a group in line so long after they learn of a list, if its own devices did not.
const ALIGN_AFTER: Duration = Duration::from_secs(5);
/// And each with a higher rank so much later, so that few race.
const ALIGN_STEP: Duration = Duration::from_millis(1_500);
/// Upper end of the delay between two tries to have a device that has published no key packages yet; it doubles.
const ALIGN_MAX: Duration = Duration::from_secs(60);

/// One of this account's devices, for display.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnDevice {
    /// Which.
    pub device: DeviceId,
    /// What its owner calls it.
    pub name: String,
    /// It is this one.
    pub is_this: bool,
}

/// A change that waits, as it is stored. Numbers are never reused.
#[derive(Clone, PartialEq, prost::Message)]
struct ChangeRecord {
    #[prost(bytes = "bytes", tag = "1")]
    device: Bytes,
    /// Empty for a removal.
    #[prost(bytes = "bytes", tag = "2")]
    key: Bytes,
    #[prost(string, tag = "3")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ChangesRecord {
    #[prost(message, repeated, tag = "1")]
    changes: Vec<ChangeRecord>,
}

impl ChangeRecord {
    fn of(change: &ListChange) -> Self {
        match change {
            ListChange::Add(DeviceListEntry { device, key, name }) => {
                Self { device: device.clone(), key: key.clone(), name: name.clone() }
            }
            ListChange::Remove(device) => Self { device: Bytes::copy_from_slice(device.as_bytes()), ..Self::default() },
        }
    }

    fn read(self) -> Option<ListChange> {
        let device = DeviceId::try_from(self.device.as_ref()).ok()?;
        Some(match self.key.is_empty() {
            true => ListChange::Remove(device),
            false => ListChange::Add(DeviceListEntry { device: self.device, key: self.key, name: self.name }),
        })
    }
}

fn device_of(change: &ListChange) -> DeviceId {
    match change {
        ListChange::Add(entry) => entry.device.as_ref().try_into().unwrap_or(DeviceId::from_bytes([0; 16])),
        ListChange::Remove(device) => *device,
    }
}

impl Core {
    /// The public key of this device, which the account's first device signs into the list.
    pub fn device_key(&self) -> [u8; 32] {
        self.identity.device_key()
    }

    /// The account's public identity key.
    pub fn identity_key(&self) -> [u8; 32] {
        self.identity.identity_key()
    }

    /// Whether this device adds and removes the account's devices.
    pub fn signs_lists(&self) -> bool {
        self.identity.signs_lists()
    }

    /// This account's devices, as the newest list that is known names them.
    pub fn devices(&self) -> Vec<OwnDevice> {
        let own = self.identity.address();
        let list = self.list_of(own.account).and_then(|signed| DeviceList::decode(signed.list.as_ref()).ok());
        let entries = list.into_iter().flat_map(|list| list.devices);
        let device = |entry: DeviceListEntry| {
            let device = DeviceId::try_from(entry.device.as_ref()).ok()?;
            Some(OwnDevice { device, name: entry.name, is_this: device == own.device })
        };
        entries.filter_map(device).collect()
    }

    pub(super) fn add_device(&mut self, device: DeviceId, key: [u8; 32], name: &str) -> Result<(), CommandError> {
        let listed = self.own_list()?;
        if name.len() > DEVICE_NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(CommandError::DeviceName);
        }
        let has = |entry: &DeviceListEntry| entry.device.as_ref() == device.as_bytes() || entry.key.as_ref() == key;
        if listed.devices.iter().any(has) || key == self.identity.identity_key() {
            return Err(CommandError::DeviceListed);
        }
        let waiting = self.list_changes.iter().filter(|change| matches!(change, ListChange::Add(_))).count();
        if listed.devices.len() + waiting >= DEVICES_PER_ACCOUNT_MAX {
            return Err(CommandError::TooManyDevices);
        }
        let (id, key) = (Bytes::copy_from_slice(device.as_bytes()), Bytes::copy_from_slice(&key));
        self.change_list(ListChange::Add(DeviceListEntry { device: id, key, name: name.into() }))
    }

    pub(super) fn remove_device(&mut self, device: DeviceId) -> Result<(), CommandError> {
        let listed = self.own_list()?;
        if device == self.identity.address().device {
            return Err(CommandError::FirstDevice);
        }
        if !listed.devices.iter().any(|entry| entry.device.as_ref() == device.as_bytes()) {
            return Err(CommandError::NoSuchDevice);
        }
        self.change_list(ListChange::Remove(device))
    }

    fn own_list(&self) -> Result<DeviceList, CommandError> {
        if !self.identity.signs_lists() {
            return Err(CommandError::NotTheFirst);
        }
        let signed = self.list_of(self.identity.address().account).ok_or(CommandError::NoListYet)?;
        DeviceList::decode(signed.list.as_ref()).map_err(|_| CommandError::NoListYet)
    }

    fn change_list(&mut self, change: ListChange) -> Result<(), CommandError> {
        if self.list_changes.contains(&change) {
            return Ok(());
        }
        if self.list_changes.len() >= CHANGES_MAX {
            return Err(CommandError::Busy(self.list_changes.len()));
        }
        self.list_changes.push_back(change);
        self.dirty.insert(Row::ListChanges);
        Ok(())
    }

    pub(super) fn encode_list_changes(&self) -> Option<Vec<u8>> {
        let changes: Vec<_> = self.list_changes.iter().map(ChangeRecord::of).collect();
        (!changes.is_empty()).then(|| ChangesRecord { changes }.encode_to_vec())
    }

    pub(super) fn load_list_changes(&mut self, value: &[u8]) -> Result<(), LoadError> {
        let bad = || LoadError::Row(Table::Flows);
        let record = ChangesRecord::decode(value).map_err(|_| bad())?;
        self.list_changes =
            record.changes.into_iter().map(ChangeRecord::read).collect::<Option<_>>().ok_or_else(bad)?;
        Ok(())
    }

    /// The list that the directory is to have next: the newest once more where it has the one before, else the first
    /// change that waits. What changes nothing any more is done.
    fn next_own_list(&mut self) -> Option<SignedDeviceList> {
        let newest = self.list_of(self.identity.address().account)?.clone();
        if self.list_behind {
            return Some(newest);
        }
        while let Some(change) = self.list_changes.front() {
            if let Some(next) = self.identity.next_list(&newest, change) {
                return Some(next);
            }
            let change = self.list_changes.pop_front();
            self.dirty.insert(Row::ListChanges);
            change.into_iter().for_each(|change| self.changed_list(&change));
        }
        None
    }

    pub(super) fn put_own_list(&mut self, now: UnixMillis) {
        let own = self.identity.address().account;
        if self.list_changes.is_empty() && !self.list_behind {
            return;
        }
        // Signed on what the directory has.
        if self.ask_lists([own]) || self.lists_wanted.contains(&own) {
            return;
        }
        let Some(list) = self.next_own_list() else { return };
        let request = directory::PutDeviceListRequest { devices: Some(list) };
        self.ask(Ask::PutList, |_| Some(request.encode_to_vec()), now);
    }

    /// The directory has the list that was put.
    pub(super) fn own_list_put(&mut self) {
        if std::mem::take(&mut self.list_behind) {
            return;
        }
        let own = self.identity.address().account;
        let Some(newest) = self.list_of(own).cloned() else { return };
        let Some(change) = self.list_changes.pop_front() else { return };
        self.dirty.insert(Row::ListChanges);
        if let Some(next) = self.identity.next_list(&newest, &change)
            && let Err(error) = self.meet(own, None, &[next])
        {
            self.refuse_list(own, error);
        }
        self.changed_list(&change);
    }

    fn changed_list(&mut self, change: &ListChange) {
        let device = device_of(change);
        self.out.events.push(match change {
            ListChange::Add(_) => Event::DeviceAdded { device },
            ListChange::Remove(_) => Event::DeviceRemoved { device },
        });
    }

    /// The directory does not take the list.
    pub(super) fn own_list_refused(&mut self, why: &common::Error, now: UnixMillis) {
        if why.code() == ErrorCode::DeviceListVersion {
            // Another list is the newest: made anew on that one.
            self.list_behind = false;
            let own = self.identity.address().account;
            self.forget_lists_of(own);
            self.lists_wanted.insert(own);
            return self.ask_later(Ask::PutList, why, now);
        }
        if std::mem::take(&mut self.list_behind) {
            return;
        }
        let Some(change) = self.list_changes.pop_front() else { return };
        self.dirty.insert(Row::ListChanges);
        self.out.events.push(Event::DeviceChangeFailed { device: device_of(&change), why: why.clone() });
    }

    /// What the directory says of one account to who had the version `asked` when it was asked. Answers whether there is
    /// more to be asked for.
    pub(super) fn met(&mut self, account: AccountId, answer: &directory::AccountDevices, asked: u64) -> bool {
        let handle = answer.handle.parse().ok();
        let copied = |signed: &SignedDeviceList| SignedDeviceList {
            list: Bytes::copy_from_slice(&signed.list),
            signature: Bytes::copy_from_slice(&signed.signature),
        };
        let between: Vec<_> = answer.between.iter().map(copied).collect();
        // Nothing newer: what is known stands, under the handle that the directory names.
        let newest = answer.devices.as_ref().map(copied).or_else(|| self.list_of(account).cloned());
        let whole: Vec<_> = between.iter().cloned().chain(newest).collect();
        let error = match self.meet(account, handle, &whole) {
            Ok(()) => return false,
            Err(error) => error,
        };
        let newest = whole.last().and_then(|signed| DeviceList::decode(signed.list.as_ref()).ok());
        if error == DeviceListError::Version && newest.is_some_and(|list| list.version >= asked) {
            // Overtaken by a later answer.
            return false;
        }
        if error == DeviceListError::Unlinked && asked != self.list_version(account) {
            // It begins where another answer has gone on from.
            return true;
        }
        if error == DeviceListError::Unlinked && !between.is_empty() {
            let before = self.list_version(account);
            if self.meet(account, None, &between).is_ok() && self.list_version(account) > before {
                return true;
            }
        }
        self.note_list_behind(account, &whole);
        self.refuse_list(account, error);
        false
    }

    /// The directory may have lost the last list of this account, because it was restored: who signed it has it still.
    fn note_list_behind(&mut self, account: AccountId, lists: &[SignedDeviceList]) {
        if account != self.identity.address().account || !self.identity.signs_lists() {
            return;
        }
        let newest = lists.last().and_then(|signed| DeviceList::decode(signed.list.as_ref()).ok());
        let known = self.list_of(account).and_then(|signed| DeviceList::decode(signed.list.as_ref()).ok());
        if let (Some(newest), Some(known)) = (newest, known) {
            self.list_behind = newest.version + 1 == known.version;
        }
    }

    /// The list of an account changed: conversations that it is in follow.
    pub(super) fn align_all_of(&mut self, account: AccountId) {
        let active = self.conversations.iter().filter(|(_, c)| c.phase == Phase::Active);
        let ids: Vec<ConversationId> = active.map(|(id, _)| *id).collect();
        for id in ids {
            if self.differs(id, account) {
                self.align(id, account);
            }
        }
    }

    /// Whether the group has other devices of an account that is in it than its newest list.
    fn differs(&self, id: ConversationId, account: AccountId) -> bool {
        let members = self.mls.members(id);
        let inside: BTreeMap<DeviceAddress, Vec<u8>> =
            members.into_iter().filter(|(device, _)| device.account == account).collect();
        let foreign = inside.iter().any(|(device, key)| !self.vouched(*device, key));
        let Some(contact) = self.contacts.get(&account).filter(|_| !inside.is_empty()) else { return false };
        let missing = contact.devices.devices.iter().any(|(device, _)| {
            let device = DeviceAddress { account, device: *device };
            device != self.identity.address() && !inside.contains_key(&device)
        });
        foreign || missing
    }

    /// Brings the group in line with the lists of its members, soon: the device that changed the list at once, the other
    /// devices of its account and then the other members if it did not.
    fn align(&mut self, id: ConversationId, account: AccountId) {
        let own = self.identity.address();
        let members: BTreeSet<DeviceAddress> = self.mls.members(id).into_iter().map(|(device, _)| device).collect();
        let rank = members.iter().position(|device| *device == own).and_then(|rank| u32::try_from(rank).ok());
        let step = ALIGN_STEP * rank.unwrap_or(0).saturating_add(1);
        let delay = match (account == own.account, self.identity.signs_lists()) {
            (true, true) => Duration::ZERO,
            (true, false) => step,
            (false, _) => ALIGN_AFTER + step,
        };
        let at = self.stepped_at.after(delay);
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        let waiting = conversation.work.iter().position(|work| matches!(work, Work::Align(_)));
        match waiting {
            Some(place) => conversation.work[place] = Work::Align(at.min(align_at_of(&conversation.work[place]))),
            // Where there is no room, whatever is committed later brings it in line too.
            None if conversation.work.len() >= WORK_MAX => return,
            None => conversation.work.push_back(Work::Align(at)),
        }
        self.dirty.insert(Row::Conversation(id));
    }

    /// A device that is to come in has published nothing yet.
    pub(super) fn align_later(&mut self, id: ConversationId, now: UnixMillis) {
        let delay = self.next_delay(id);
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        if let Some(Work::Align(at)) = conversation.work.front_mut() {
            *at = now.after(delay);
        }
        self.dirty.insert(Row::Conversation(id));
    }

    /// How long a device that has published nothing is waited for until it is tried again; it doubles.
    fn next_delay(&mut self, id: ConversationId) -> Duration {
        let Some(conversation) = self.conversations.get_mut(&id) else { return ALIGN_MAX };
        let delay = Duration::from_millis(500 << conversation.aligns.min(10)).min(ALIGN_MAX);
        conversation.aligns = conversation.aligns.saturating_add(1);
        delay
    }

    /// Whether the first work is to bring the group in line.
    pub(super) fn aligns(&self, id: ConversationId) -> bool {
        self.conversations.get(&id).is_some_and(|c| matches!(c.work.front(), Some(Work::Align(_))))
    }

    /// A change of members that cannot be made now for want of a key package. The device may have been removed since, so
    /// its account's list is asked for. Where it is of an account that is in already, it is waited for: whoever is added
    /// fails if they cannot be had.
    pub(super) fn claim_refused(&mut self, id: ConversationId, why: &common::Error, now: UnixMillis) {
        let named: BTreeSet<AccountId> =
            why.missing.iter().filter_map(|device| AccountId::try_from(device.account.as_ref()).ok()).collect();
        for account in &named {
            self.forget_lists_of(*account);
            self.lists_wanted.insert(*account);
        }
        if self.aligns(id) {
            return self.align_later(id, now);
        }
        let own = self.identity.address().account;
        let inside: BTreeSet<AccountId> = self.mls.members(id).into_iter().map(|(device, _)| device.account).collect();
        if !named.is_empty() && named.iter().all(|account| *account == own || inside.contains(account)) {
            let delay = self.next_delay(id);
            return self.calls.put_off(Ask::Claim(id), now.after(delay));
        }
        self.fail_work(id, why);
    }

    /// Whether a message is of a device whose account goes on in the group without it: it was removed.
    pub(super) fn was_removed(&self, id: ConversationId, device: DeviceAddress) -> bool {
        let members = self.mls.members(id);
        let is_in = members.iter().any(|(member, _)| *member == device);
        let account_is_in = members.iter().any(|(member, _)| member.account == device.account);
        !is_in && account_is_in
    }

    /// What was answered of this account may not be so any more.
    pub(super) fn forget_lists_of(&mut self, account: AccountId) {
        self.asked_lists.remove(&account);
        self.answered_lists.remove(&account);
    }

    /// This device is new in a group: lists may be older than devices that it has.
    pub(super) fn doubt_unvouched(&mut self, id: ConversationId) {
        for account in self.unvouched(id) {
            self.forget_lists_of(account);
        }
    }

    /// A commit removed devices of accounts that stay. Those that another device of their own account removed are gone for
    /// good: whatever list the server gives, they are not brought in again. Their lists are asked for.
    pub(super) fn note_gone(&mut self, id: ConversationId, summary: &CommitSummary) {
        let members = self.mls.members(id);
        let stays = |account: AccountId| members.iter().any(|(device, _)| device.account == account);
        let is_in = |device: &DeviceAddress| members.iter().any(|(member, _)| member == device);
        for device in summary.removed.iter().filter(|device| stays(device.account) && !is_in(device)) {
            self.forget_lists_of(device.account);
            self.lists_wanted.insert(device.account);
            if summary.by.is_some_and(|by| by.account == device.account) {
                self.forget_device(*device);
            }
        }
    }

    /// Leaves that no list of their account vouches for, besides `leaves`; none while such a list is still to be asked for.
    /// Where it cannot be had nobody is taken for foreign.
    pub(super) fn foreign_leaves(
        &mut self,
        id: ConversationId,
        leaves: &BTreeSet<DeviceAddress>,
    ) -> Option<BTreeSet<DeviceAddress>> {
        let members = self.mls.members(id).into_iter().filter(|(device, _)| !leaves.contains(device));
        let unvouched = members.filter(|(device, key)| !self.vouched(*device, key)).map(|(device, _)| device);
        let unvouched: BTreeSet<DeviceAddress> = unvouched.collect();
        let accounts: BTreeSet<AccountId> = unvouched.iter().map(|device| device.account).collect();
        let waits = accounts.iter().any(|account| self.lists_wanted.contains(account));
        if self.ask_lists(accounts) || waits {
            return None;
        }
        Some(unvouched.into_iter().filter(|device| self.answered_lists.contains(&device.account)).collect())
    }
}

/// Whether nobody but devices of this account is in it.
pub(super) fn is_own_alone(members: &[(DeviceAddress, Vec<u8>)], account: AccountId) -> bool {
    members.iter().all(|(device, _)| device.account == account)
}

/// Whether a conversation waits for a device that is to come in.
pub(super) fn align_at(conversation: &Conversation) -> Option<UnixMillis> {
    conversation.work.iter().find(|work| matches!(work, Work::Align(_))).map(align_at_of)
}

fn align_at_of(work: &Work) -> UnixMillis {
    match work {
        Work::Align(at) => *at,
        _ => UnixMillis(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORED: &str = concat!(
        "0a3c0a10010101010101010101010101010101011220020202020202020202020202020202020202020202020202020202",
        "02020202021a067461626c65740a120a1003030303030303030303030303030303",
    );

    #[test]
    fn changes_that_wait_keep_their_bytes() {
        let entry = DeviceListEntry {
            device: Bytes::from_static(&[1; 16]),
            key: Bytes::from_static(&[2; 32]),
            name: "tablet".into(),
        };
        let changes = [ListChange::Add(entry), ListChange::Remove(DeviceId::from_bytes([3; 16]))];
        let record = ChangesRecord { changes: changes.iter().map(ChangeRecord::of).collect() };
        assert_eq!(hex::encode(record.encode_to_vec()), STORED);
        let read = ChangesRecord::decode(hex::decode(STORED).expect("hexadecimal").as_slice()).expect("read");
        assert_eq!(read.changes.into_iter().map(ChangeRecord::read).collect::<Vec<_>>(), changes.map(Some));
        assert_eq!(ChangeRecord::default().read(), None);
    }
}
