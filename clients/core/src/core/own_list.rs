// SPDX-License-Identifier: MIT OR Apache-2.0
//! This account's own device list.
//!
//! Who holds the identity key changes the list: the change is kept until the directory has confirmed it, and signed anew
//! on the newest list each time, which gives the same bytes as long as that is the same. One list is put at a time, and
//! what is confirmed is that list, whatever waits besides.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use pli_api::directory::{self, DeviceList, DeviceListEntry, SignedDeviceList};
use pli_api::{ErrorCode, common, refusal};
use pli_domain::limits::DEVICES_PER_ACCOUNT_MAX;
use pli_domain::{AccountId, DeviceId, UnixMillis};
use prost::Message as _;

use super::calls::Ask;
use super::{CommandError, Core, Event, LoadError, Row, Table};
use crate::identity::{DeviceListError, ListChange, list_hash, list_version};

/// Changes of the own list that wait at a time.
const CHANGES_MAX: usize = 16;
/// Own lists before the newest that are kept, for a directory that was restored and has lost some: more than are signed
/// between two backups.
const EARLIER_MAX: usize = 64;

/// Why a device is not added any more.
const LATE: &str = "the link was over before the server was reached: the new device is not added; begin again there";

/// See the module.
#[derive(Debug, Default)]
pub(super) struct OwnList {
    /// Changes that the directory has not confirmed, in order; stored.
    changes: VecDeque<ListChange>,
    /// The lists before the newest, in order; stored where this device signs them.
    earlier: Vec<SignedDeviceList>,
    /// What was put and is not answered yet.
    put: Option<SignedDeviceList>,
    /// The hash of the list that the directory confirmed last: it has carried out what that list removes.
    confirmed: Option<[u8; 32]>,
    /// Devices to add whose links are over: they are not put any more.
    late: BTreeSet<DeviceId>,
    /// The directory has this version, which is older than the newest: it was restored.
    behind: Option<u64>,
}

impl OwnList {
    /// How many changes wait.
    pub(super) fn waiting(&self) -> usize {
        self.changes.len()
    }

    /// Whether one of them is about this device.
    pub(super) fn has_waiting(&self, device: DeviceId) -> bool {
        self.changes.iter().any(|change| device_of(change) == device)
    }

    /// Whether everybody is still to be told that this device stays.
    pub(super) fn is_keeping(&self, device: DeviceId) -> bool {
        self.changes.iter().any(|change| matches!(change, ListChange::Keep(kept, _) if *kept == device))
    }
}

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
    /// Empty for a removal and for another name.
    #[prost(bytes = "bytes", tag = "2")]
    key: Bytes,
    /// Empty for a removal.
    #[prost(string, tag = "3")]
    name: String,
    /// Of a device that stays alone: the version that the list has to come above.
    #[prost(uint64, tag = "4")]
    above: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ChangesRecord {
    #[prost(message, repeated, tag = "1")]
    changes: Vec<ChangeRecord>,
    /// The own lists before the newest.
    #[prost(message, repeated, tag = "2")]
    earlier: Vec<SignedDeviceList>,
}

impl ChangeRecord {
    fn of(change: &ListChange) -> Self {
        match change {
            ListChange::Add(DeviceListEntry { device, key, name }) => {
                Self { device: device.clone(), key: key.clone(), name: name.clone(), above: 0 }
            }
            ListChange::Remove(device) => Self { device: Bytes::copy_from_slice(device.as_bytes()), ..Self::default() },
            ListChange::Rename(device, name) => {
                let device = Bytes::copy_from_slice(device.as_bytes());
                Self { device, name: name.clone(), ..Self::default() }
            }
            ListChange::Keep(device, above) => {
                let device = Bytes::copy_from_slice(device.as_bytes());
                Self { device, above: *above, ..Self::default() }
            }
        }
    }

    fn read(self) -> Option<ListChange> {
        let device = DeviceId::try_from(self.device.as_ref()).ok()?;
        Some(match self.key.is_empty() {
            true if self.above > 0 => ListChange::Keep(device, self.above),
            true if self.name.is_empty() => ListChange::Remove(device),
            true => ListChange::Rename(device, self.name),
            false => ListChange::Add(DeviceListEntry { device: self.device, key: self.key, name: self.name }),
        })
    }
}

fn adds(change: &ListChange, device: DeviceId) -> bool {
    matches!(change, ListChange::Add(_)) && device_of(change) == device
}

fn device_of(change: &ListChange) -> DeviceId {
    match change {
        ListChange::Add(entry) => entry.device.as_ref().try_into().unwrap_or(DeviceId::from_bytes([0; 16])),
        ListChange::Remove(device) | ListChange::Rename(device, _) | ListChange::Keep(device, _) => *device,
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

    /// Whether no device can be added, counting those that wait for the directory.
    pub(super) fn own_list_is_full(&self) -> bool {
        let waiting = self.own_list.changes.iter().filter(|change| matches!(change, ListChange::Add(_))).count();
        self.newest_own_list().is_ok_and(|listed| listed.devices.len() + waiting >= DEVICES_PER_ACCOUNT_MAX)
    }

    /// What a device is called in the newest list of its account that is known.
    pub fn device_name(&self, account: AccountId, device: DeviceId) -> Option<String> {
        let list = DeviceList::decode(self.list_of(account)?.list.as_ref()).ok()?;
        let entry = list.devices.into_iter().find(|entry| entry.device.as_ref() == device.as_bytes())?;
        Some(entry.name).filter(|name| !name.is_empty())
    }

    pub(super) fn add_device(&mut self, device: DeviceId, key: [u8; 32], name: &str) -> Result<(), CommandError> {
        let listed = self.newest_own_list()?;
        let name = crate::linking::device_name(name).map_err(|_| CommandError::DeviceName)?;
        let has = |entry: &DeviceListEntry| entry.device.as_ref() == device.as_bytes() || entry.key.as_ref() == key;
        if listed.devices.iter().any(has) || key == self.identity.identity_key() {
            return Err(CommandError::DeviceListed);
        }
        if self.own_list_is_full() {
            return Err(CommandError::TooManyDevices);
        }
        let (id, key) = (Bytes::copy_from_slice(device.as_bytes()), Bytes::copy_from_slice(&key));
        self.change_list(ListChange::Add(DeviceListEntry { device: id, key, name: name.into() }))
    }

    pub(super) fn remove_device(&mut self, device: DeviceId) -> Result<(), CommandError> {
        let listed = self.newest_own_list()?;
        if device == self.identity.address().device {
            return Err(CommandError::FirstDevice);
        }
        let waiting = self.own_list.changes.len();
        // One that waits to be added is not; where the directory has taken it all the same, it is removed again.
        self.own_list.changes.retain(|change| !adds(change, device));
        let is_listed = listed.devices.iter().any(|entry| entry.device.as_ref() == device.as_bytes());
        if !is_listed && self.own_list.changes.len() == waiting {
            return Err(CommandError::NoSuchDevice);
        }
        self.change_list(ListChange::Remove(device))
    }

    pub(super) fn rename_device(&mut self, device: DeviceId, name: &str) -> Result<(), CommandError> {
        let listed = self.newest_own_list()?;
        let name = crate::linking::device_name(name).map_err(|_| CommandError::DeviceName)?;
        if !listed.devices.iter().any(|entry| entry.device.as_ref() == device.as_bytes()) {
            return Err(CommandError::NoSuchDevice);
        }
        self.change_list(ListChange::Rename(device, name.to_owned()))
    }

    /// Nobody waits any more for the additions that wait here, as whoever asked for them is gone: a device that the directory
    /// has not been told of by now is not added, which is told ([`Event::DeviceChangeFailed`]). Its owner begins again.
    pub fn links_ended(&mut self) {
        let added = self.own_list.changes.iter().filter(|change| matches!(change, ListChange::Add(_)));
        self.own_list.late = added.map(device_of).collect();
    }

    /// Another device of this account, which has no say in it, took this one out of a group. Who signs the lists names it
    /// once more, in a version that nobody has seen: then it is believed again everywhere.
    pub(super) fn keep_device(&mut self, device: DeviceId) {
        let (own, keeps) = (self.identity.address().account, |known: &OwnDevice| known.device == device);
        let goes = |change: &ListChange| matches!(change, ListChange::Remove(gone) if *gone == device);
        if !self.devices().iter().any(keeps) || self.own_list.changes.iter().any(goes) {
            return;
        }
        // More changes wait than may: one of them makes another version anyway.
        let _ = self.change_list(ListChange::Keep(device, self.list_version(own)));
    }

    fn newest_own_list(&self) -> Result<DeviceList, CommandError> {
        if !self.identity.signs_lists() {
            return Err(CommandError::NotTheFirst);
        }
        let signed = self.list_of(self.identity.address().account).ok_or(CommandError::NoListYet)?;
        DeviceList::decode(signed.list.as_ref()).map_err(|_| CommandError::NoListYet)
    }

    fn change_list(&mut self, change: ListChange) -> Result<(), CommandError> {
        // The same change twice is one, where nothing that came after it says otherwise.
        let about = self.own_list.changes.iter().rfind(|waiting| device_of(waiting) == device_of(&change));
        if about == Some(&change) {
            return Ok(());
        }
        if self.own_list.changes.len() >= CHANGES_MAX {
            return Err(CommandError::Busy(self.own_list.changes.len()));
        }
        self.own_list.changes.push_back(change);
        self.dirty.insert(Row::ListChanges);
        Ok(())
    }

    pub(super) fn encode_list_changes(&self) -> Option<Vec<u8>> {
        let changes: Vec<_> = self.own_list.changes.iter().map(ChangeRecord::of).collect();
        let earlier = self.own_list.earlier.clone();
        (!changes.is_empty() || !earlier.is_empty()).then(|| ChangesRecord { changes, earlier }.encode_to_vec())
    }

    pub(super) fn load_list_changes(&mut self, value: &[u8]) -> Result<(), LoadError> {
        let bad = || LoadError::Row(Table::Flows);
        let record = ChangesRecord::decode(value).map_err(|_| bad())?;
        let changes = record.changes.into_iter().map(ChangeRecord::read).collect::<Option<_>>().ok_or_else(bad)?;
        self.own_list = OwnList { changes, earlier: record.earlier, ..OwnList::default() };
        Ok(())
    }

    /// The newest own list is about to follow the one that is known, by way of these.
    pub(super) fn keep_earlier_lists(&mut self, lists: &[SignedDeviceList]) {
        let newest = lists.last().map_or(0, list_version);
        let known = self.list_of(self.identity.address().account).cloned();
        for list in known.iter().chain(lists).filter(|list| list_version(list) < newest) {
            if self.own_list.earlier.last().is_none_or(|last| list_version(last) < list_version(list)) {
                self.own_list.earlier.push(list.clone());
            }
        }
        let over = self.own_list.earlier.len().saturating_sub(EARLIER_MAX);
        self.own_list.earlier.drain(..over);
        self.dirty.insert(Row::ListChanges);
    }

    /// The list that the directory is to have next: the one after its own where it was restored, else the first change
    /// that waits. One that changes nothing any more is done, once the directory has said so of the newest list: if it
    /// was interrupted after it took the list, it carries out the rest when that is put again.
    fn next_own_list(&mut self) -> Option<SignedDeviceList> {
        let newest = self.list_of(self.identity.address().account)?.clone();
        if let Some(behind) = self.own_list.behind {
            let lost = self.own_list.earlier.iter().find(|list| list_version(list) == behind + 1);
            return Some(lost.cloned().unwrap_or(newest));
        }
        while let Some(change) = self.own_list.changes.front() {
            if let Some(next) = self.identity.next_list(&newest, change) {
                if !matches!(change, ListChange::Add(_)) || !self.own_list.late.contains(&device_of(change)) {
                    return Some(next);
                }
                let why = refusal(ErrorCode::RendezvousExpired, LATE);
                let change = self.own_list.changes.pop_front();
                self.dirty.insert(Row::ListChanges);
                change.into_iter().for_each(|change| self.failed_change(&change, &why));
                continue;
            }
            if self.own_list.confirmed != Some(list_hash(&newest)) {
                return Some(newest);
            }
            let change = self.own_list.changes.pop_front();
            self.dirty.insert(Row::ListChanges);
            change.into_iter().for_each(|change| self.changed_list(&change));
        }
        None
    }

    pub(super) fn put_own_list(&mut self, now: UnixMillis) {
        let own = self.identity.address().account;
        let nothing = self.own_list.changes.is_empty() && self.own_list.behind.is_none();
        // The answer that is under way is of the list that was put: nothing else is looked at before.
        if nothing || self.calls.is_open(&Ask::PutList) {
            return;
        }
        // Signed on what the directory has.
        if self.ask_lists([own]) || self.lists_wanted.contains(&own) {
            return;
        }
        let Some(list) = self.next_own_list() else { return };
        let put = |core: &mut Self| {
            core.own_list.put = Some(list.clone());
            Some(directory::PutDeviceListRequest { devices: Some(list) }.encode_to_vec())
        };
        self.ask(Ask::PutList, put, now);
    }

    /// The directory has the list that was put.
    pub(super) fn own_list_put(&mut self) {
        let Some(list) = self.own_list.put.take() else { return };
        let own = self.identity.address().account;
        self.own_list.confirmed = Some(list_hash(&list));
        let version = list_version(&list);
        self.own_list.behind = Some(version).filter(|version| *version < self.list_version(own));
        if self.own_list.behind.is_none()
            && let Err(error) = self.meet(own, None, &[list])
        {
            self.refuse_list(own, error);
        }
    }

    fn changed_list(&mut self, change: &ListChange) {
        let device = device_of(change);
        self.out.events.push(match change {
            ListChange::Add(_) => Event::DeviceAdded { device },
            ListChange::Remove(_) => Event::DeviceRemoved { device },
            ListChange::Rename(..) => Event::DeviceRenamed { device },
            // Nobody asked for it. Groups that lack it may take it in now.
            ListChange::Keep(..) => return self.align_all_of(self.identity.address().account),
        });
    }

    /// The directory does not take the list.
    pub(super) fn own_list_refused(&mut self, why: &common::Error, now: UnixMillis) {
        self.own_list.put = None;
        let repaired = self.own_list.behind.take().is_some();
        if why.code() == ErrorCode::DeviceListVersion {
            // Another list is the newest: made anew on that one.
            let own = self.identity.address().account;
            self.forget_lists_of(own);
            self.lists_wanted.insert(own);
            return self.ask_later(Ask::PutList, why, now);
        }
        if repaired {
            return;
        }
        let Some(change) = self.own_list.changes.pop_front() else { return };
        self.dirty.insert(Row::ListChanges);
        self.failed_change(&change, why);
    }

    fn failed_change(&mut self, change: &ListChange, why: &common::Error) {
        if !matches!(change, ListChange::Keep(..)) {
            self.out.events.push(Event::DeviceChangeFailed { device: device_of(change), why: why.clone() });
        }
    }

    /// The directory's list of an account is not one that follows. Of this one it may have lost the last lists, because it
    /// was restored: who signed them has them still, and puts them again. Where it has one that this device never signed,
    /// nothing can be signed on it.
    pub(super) fn note_list_behind(&mut self, account: AccountId, theirs: &SignedDeviceList, error: DeviceListError) {
        if account != self.identity.address().account || !self.identity.signs_lists() {
            return;
        }
        if self.own_list.earlier.contains(theirs) {
            (self.own_list.behind, self.own_list.confirmed) = (Some(list_version(theirs)), None);
        } else if matches!(error, DeviceListError::Version | DeviceListError::Fork) {
            let why = "the directory has a device list of this account that does not lead to the newest one here";
            self.fail_list_changes(&refusal(ErrorCode::DeviceListVersion, why));
        }
    }

    fn fail_list_changes(&mut self, why: &common::Error) {
        self.calls.done(&Ask::PutList);
        for change in std::mem::take(&mut self.own_list.changes) {
            self.dirty.insert(Row::ListChanges);
            self.failed_change(&change, why);
        }
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
        let earlier = Vec::new();
        let record = ChangesRecord { changes: changes.iter().map(ChangeRecord::of).collect(), earlier };
        assert_eq!(hex::encode(record.encode_to_vec()), STORED);
        let read = ChangesRecord::decode(hex::decode(STORED).expect("hexadecimal").as_slice()).expect("read");
        assert_eq!(read.changes.into_iter().map(ChangeRecord::read).collect::<Vec<_>>(), changes.map(Some));
        assert_eq!(ChangeRecord::default().read(), None);
        let rename = ListChange::Rename(DeviceId::from_bytes([3; 16]), "slate".into());
        let record = ChangeRecord::of(&rename);
        assert_eq!(hex::encode(record.encode_to_vec()), "0a10030303030303030303030303030303031a05736c617465");
        assert_eq!(record.read(), Some(rename));
        let keep = ListChange::Keep(DeviceId::from_bytes([3; 16]), 7);
        let record = ChangeRecord::of(&keep);
        assert_eq!(hex::encode(record.encode_to_vec()), "0a10030303030303030303030303030303032007");
        assert_eq!(record.read(), Some(keep));
        let (list, signature) = (Bytes::from_static(b"list"), Bytes::from_static(b"signature"));
        let earlier = vec![SignedDeviceList { list, signature }];
        let record = ChangesRecord { changes: Vec::new(), earlier };
        assert_eq!(hex::encode(record.encode_to_vec()), "12110a046c69737412097369676e6174757265");
    }
}
