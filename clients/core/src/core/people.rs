// SPDX-License-Identifier: MIT OR Apache-2.0
//! Other accounts: handles, signed device lists, keys.

use std::collections::BTreeSet;

use bytes::Bytes;
use pli_api::directory::SignedDeviceList;
use pli_domain::{AccountId, ConversationId, DeviceAddress, DeviceId, Handle, UnixMillis};
use prost::Message as _;

use super::notices::Notice;
use super::parting::Keyed;
use super::tables::Table;
use super::{Core, LoadError, Member, NewKey, RefusedList, Row};
use crate::identity::{DeviceListError, VerifiedDevices, follow_lists, verify_devices};

/// Another account, as its newest verified device list describes it.
#[derive(Debug, Clone)]
pub(super) struct Contact {
    pub(super) handle: Option<Handle>,
    /// The handle that was its own until another account had it.
    former: Option<Handle>,
    pub(super) devices: VerifiedDevices,
    signed: SignedDeviceList,
    /// Devices that another one of the account removed from a group, with the version of the list that was known then: they
    /// do not come back by that list nor by an earlier one. A later one decides. At most [`GONE_MAX`]; of more the first
    /// are forgotten.
    gone: Vec<(DeviceId, u64)>,
    /// Local time when the list was learned of; 0 where an earlier version did not note it.
    learned_at: UnixMillis,
}

/// Removed devices that are remembered of one account.
const GONE_MAX: usize = 32;

/// Numbers are never reused.
#[derive(Clone, PartialEq, prost::Message)]
struct Record {
    #[prost(string, tag = "1")]
    handle: String,
    #[prost(bytes = "bytes", tag = "2")]
    list: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    signature: Bytes,
    #[prost(string, tag = "4")]
    former: String,
    #[prost(message, repeated, tag = "5")]
    gone: Vec<GoneDevice>,
    #[prost(uint64, tag = "6")]
    learned_at: u64,
}

/// Numbers are never reused.
#[derive(Clone, PartialEq, prost::Message)]
struct GoneDevice {
    #[prost(bytes = "bytes", tag = "1")]
    device: Bytes,
    /// Of the list that was known when it was removed.
    #[prost(uint64, tag = "2")]
    version: u64,
}

impl Contact {
    pub(super) fn encode(&self) -> Vec<u8> {
        let text = |handle: &Option<Handle>| handle.as_ref().map(ToString::to_string).unwrap_or_default();
        let SignedDeviceList { list, signature } = self.signed.clone();
        let gone = self.gone.iter().map(|(device, version)| GoneDevice {
            device: Bytes::copy_from_slice(device.as_bytes()),
            version: *version,
        });
        let gone = gone.collect();
        Record {
            handle: text(&self.handle),
            list,
            signature,
            former: text(&self.former),
            gone,
            learned_at: self.learned_at.0,
        }
        .encode_to_vec()
    }

    pub(super) fn decode(account: AccountId, bytes: &[u8]) -> Result<Self, LoadError> {
        let record = Record::decode(bytes).map_err(|_| LoadError::Row(Table::Contacts))?;
        let signed = SignedDeviceList { list: record.list, signature: record.signature };
        let devices = verify_devices(&signed, account, None).map_err(|_| LoadError::Row(Table::Contacts))?;
        let gone = record.gone.iter().map(|gone| Ok((gone.device.as_ref().try_into()?, gone.version)));
        let gone = gone.collect::<Result<_, pli_domain::InvalidId>>();
        let gone = gone.map_err(|_| LoadError::Row(Table::Contacts))?;
        Ok(Self {
            handle: record.handle.parse().ok(),
            former: record.former.parse().ok(),
            devices,
            signed,
            gone,
            learned_at: UnixMillis(record.learned_at),
        })
    }
}

impl Core {
    /// Takes in what the directory says of an account: lists in order, the first of which follows what is known, the last
    /// the newest. Nothing of them is taken unless all of them verify and none goes back or was made from another one.
    pub(super) fn meet(
        &mut self,
        account: AccountId,
        handle: Option<Handle>,
        lists: &[SignedDeviceList],
    ) -> Result<(), DeviceListError> {
        let Some(signed) = lists.last() else { return Ok(()) };
        let (devices, parting) = self.follow(account, lists)?;
        self.note_parting(account, parting, self.stepped_at);
        let known = self.contacts.get(&account);
        // Nobody else is called as this account is.
        let handle = handle.filter(|handle| handle != self.identity.handle());
        let (handle, former) = match (handle, known) {
            (None, Some(known)) => (known.handle.clone(), known.former.clone()),
            (handle, _) => (handle, None),
        };
        let gone = known.map_or(Vec::new(), |known| still_gone(known, &devices));
        let believed_again = known.is_some_and(|known| gone.len() < known.gone.len());
        let mut news = known.map_or(Vec::new(), |known| news_of(known, &devices));
        let changed = known.is_some_and(|known| known.devices.devices != devices.devices);
        let as_known = known.filter(|known| known.devices.hash == devices.hash);
        let learned_at = as_known.map_or(self.stepped_at, |known| known.learned_at);
        let known = known.is_some();
        match handle.as_ref().is_some_and(|handle| self.take_handle(account, handle)) {
            true if news.contains(&NewKey::Identity) => {}
            true => news.insert(0, NewKey::Identity),
            false if !known => news.push(NewKey::FirstContact),
            false => {}
        }
        let signed = SignedDeviceList {
            list: Bytes::copy_from_slice(&signed.list),
            signature: Bytes::copy_from_slice(&signed.signature),
        };
        if account == self.identity.address().account && self.identity.signs_lists() {
            self.keep_earlier_lists(lists);
        }
        self.contacts.insert(account, Contact { handle, former, devices, signed, gone, learned_at });
        self.dirty.insert(Row::Contact(account));
        if account != self.identity.address().account {
            news.into_iter().for_each(|what| self.notify(Notice::NewKey { account, what }));
        } else if known {
            // Whoever holds the identity key made the change; another device of the account may know nothing of it.
            let this = self.identity.address().device;
            let devices = news.into_iter().filter(|what| matches!(what, NewKey::Device(device) if *device != this));
            let devices: Vec<_> = devices.filter(|_| !self.identity.signs_lists()).collect();
            devices.into_iter().for_each(|what| self.notify(Notice::NewKey { account, what }));
        }
        if changed || believed_again {
            self.align_all_of(account);
        }
        Ok(())
    }

    /// The list at the end of the chain, and devices with their keys that it, or one before it, names no more.
    fn follow(
        &self,
        account: AccountId,
        lists: &[SignedDeviceList],
    ) -> Result<(VerifiedDevices, Vec<Keyed>), DeviceListError> {
        let own = account == self.identity.address().account;
        let newest = || {
            let newest = lists.last().ok_or(DeviceListError::Malformed)?;
            let devices = verify_devices(newest, account, None)?;
            match own && devices.identity_key != self.identity.identity_key() {
                true => Err(DeviceListError::IdentityKey),
                false => Ok((devices, Vec::new())),
            }
        };
        let Some(known) = self.contacts.get(&account).map(|contact| &contact.devices) else { return newest() };
        match follow_lists(known, lists) {
            Ok(mut chain) => {
                let newest = chain.pop().unwrap_or_else(|| known.clone());
                let earlier = std::iter::once(known).chain(&chain).flat_map(|list| &list.devices);
                let parting = earlier.filter(|device| !newest.devices.contains(device)).copied().collect();
                Ok((newest, parting))
            }
            // Shown as what it is: an account that was made anew, or somebody in between.
            Err(DeviceListError::IdentityKey) if !own => newest(),
            Err(error) => Err(error),
        }
    }

    /// A list that is not taken: what is known stays, and the user is told, once for each account and reason.
    pub(super) fn refuse_list(&mut self, account: AccountId, why: DeviceListError) {
        let why = match why {
            DeviceListError::Version => RefusedList::Older,
            DeviceListError::Fork => RefusedList::Forked,
            DeviceListError::Unlinked => RefusedList::Unlinked,
            DeviceListError::Malformed
            | DeviceListError::OtherAccount
            | DeviceListError::Signature
            | DeviceListError::IdentityKey => RefusedList::Invalid,
        };
        self.notify_once(Notice::ListRefused { account, why });
    }

    /// The newest list of an account that is known, as it was signed.
    pub(super) fn list_of(&self, account: AccountId) -> Option<&SignedDeviceList> {
        self.contacts.get(&account).map(|contact| &contact.signed)
    }

    /// When that was learned of, in local time.
    pub(super) fn list_learned_at(&self, account: AccountId) -> Option<UnixMillis> {
        self.contacts.get(&account).map(|contact| contact.learned_at)
    }

    /// The version of it; 0 for none.
    pub(super) fn list_version(&self, account: AccountId) -> u64 {
        self.contacts.get(&account).map_or(0, |contact| contact.devices.version)
    }

    /// Takes the handle from whoever else was known by it; answers whether there was somebody. A directory that lost the
    /// account, because it was restored or because it lies, gives the handle to another one.
    fn take_handle(&mut self, account: AccountId, handle: &Handle) -> bool {
        let others =
            self.contacts.iter_mut().filter(|(other, c)| **other != account && c.handle.as_ref() == Some(handle));
        let mut taken = false;
        for (other, contact) in others {
            contact.former = contact.handle.take();
            self.dirty.insert(Row::Contact(*other));
            taken = true;
        }
        taken
    }

    /// Another device of its account removed this one.
    pub(super) fn forget_device(&mut self, device: DeviceAddress) {
        let Some(contact) = self.contacts.get_mut(&device.account) else { return };
        contact.gone.retain(|(gone, _)| *gone != device.device);
        contact.gone.push((device.device, contact.devices.version));
        contact.gone.drain(..contact.gone.len().saturating_sub(GONE_MAX));
        self.dirty.insert(Row::Contact(device.account));
    }

    /// Whether another device of its account removed it from a group, and no later list of the account was seen.
    pub(super) fn is_gone(&self, device: DeviceAddress) -> bool {
        let contact = self.contacts.get(&device.account);
        contact.is_some_and(|contact| contact.gone.iter().any(|(gone, _)| *gone == device.device))
    }

    /// Whether it is not brought in now: it is gone, or the list that names it anew is not known to anybody yet.
    pub(super) fn stays_out(&self, device: DeviceAddress) -> bool {
        let is_own = device.account == self.identity.address().account;
        self.is_gone(device) || is_own && self.own_list.is_keeping(device.device)
    }

    /// Whether the device's account has signed for this key, and has not removed it since.
    pub(super) fn vouched(&self, device: DeviceAddress, key: &[u8]) -> bool {
        self.is_listed(device, key) && !self.is_gone(device)
    }

    /// Whether the newest list that is known names the device with this key. Enough to hear it where it is a member: that it
    /// was put out of another conversation takes nothing away that was accepted of it here.
    pub(super) fn is_listed(&self, device: DeviceAddress, key: &[u8]) -> bool {
        if device == self.identity.address() {
            return key == self.identity.device_key();
        }
        let Some(contact) = self.contacts.get(&device.account) else { return false };
        contact.devices.devices.iter().any(|(d, k)| *d == device.device && k.as_slice() == key)
    }

    /// Accounts in a conversation with a device that their device list, as known here, does not vouch for.
    pub(super) fn unvouched(&self, id: ConversationId) -> BTreeSet<AccountId> {
        let members = self.mls.members(id);
        members.iter().filter(|(d, key)| !self.vouched(*d, key)).map(|(d, _)| d.account).collect()
    }

    /// The account with its handle, where that is known.
    pub(super) fn member(&self, account: AccountId) -> Member {
        if account == self.identity.address().account {
            return Member { account, handle: Some(self.identity.handle().clone()), former: None };
        }
        let contact = self.contacts.get(&account);
        let (handle, former) = contact.map_or((None, None), |c| (c.handle.clone(), c.former.clone()));
        Member { account, handle, former }
    }

    /// The account with this handle, if it was met.
    pub(super) fn account_of(&self, handle: &Handle) -> Option<AccountId> {
        if handle == self.identity.handle() {
            return Some(self.identity.address().account);
        }
        self.contacts.iter().find(|(_, c)| c.handle.as_ref() == Some(handle)).map(|(account, _)| *account)
    }

    /// Everybody in a conversation, once each.
    pub(super) fn members(&self, id: ConversationId) -> Vec<Member> {
        let accounts: BTreeSet<AccountId> = self.mls.members(id).into_iter().map(|(d, _)| d.account).collect();
        accounts.into_iter().map(|account| self.member(account)).collect()
    }
}

/// The marks that stand: a later list that leaves the device out says the same, and one that names it is the word of
/// whoever holds the identity key, which the other devices of the account do not.
fn still_gone(known: &Contact, devices: &VerifiedDevices) -> Vec<(DeviceId, u64)> {
    let is_other = known.devices.identity_key != devices.identity_key;
    known.gone.iter().filter(|(_, version)| !is_other && devices.version <= *version).copied().collect()
}

/// What is new about the keys of somebody who was known.
fn news_of(known: &Contact, devices: &VerifiedDevices) -> Vec<NewKey> {
    if known.devices.identity_key != devices.identity_key {
        return vec![NewKey::Identity];
    }
    let is_new = |device: &&(DeviceId, [u8; 32])| !known.devices.devices.contains(device);
    devices.devices.iter().filter(is_new).map(|(device, _)| NewKey::Device(*device)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORED: &str = "0a03626f6212046c6973741a097369676e6174757265";

    #[test]
    fn a_contact_keeps_its_bytes() {
        let (list, signature) = (Bytes::from_static(b"list"), Bytes::from_static(b"signature"));
        let record =
            Record { handle: "bob".into(), list, signature, former: String::new(), gone: Vec::new(), learned_at: 0 };
        assert_eq!(hex::encode(record.encode_to_vec()), STORED);
        let later = Record { former: "ann".into(), handle: String::new(), ..record };
        let rest = STORED.strip_prefix("0a03626f62").expect("the handle stands first");
        assert_eq!(hex::encode(later.encode_to_vec()), format!("{rest}2203616e6e"));
        let marked = GoneDevice { device: Bytes::from_static(&[5; 16]), version: 3 };
        let gone = Record { gone: vec![marked], former: String::new(), ..later };
        let marked = format!("{rest}2a140a10{}1003", "05".repeat(16));
        assert_eq!(hex::encode(gone.encode_to_vec()), marked);
        let learned = Record { learned_at: 9, gone: Vec::new(), ..gone };
        assert_eq!(hex::encode(learned.encode_to_vec()), format!("{rest}3009"));
        let read = Contact::decode(AccountId::from_bytes([1; 16]), &hex::decode(STORED).expect("hexadecimal"));
        assert!(read.is_err(), "a list that is not signed is not read back");
    }
}
