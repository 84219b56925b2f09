// SPDX-License-Identifier: MIT OR Apache-2.0
//! Other accounts: handles, signed device lists, keys.

use std::collections::BTreeSet;

use bytes::Bytes;
use pli_api::directory::SignedDeviceList;
use pli_domain::{AccountId, ConversationId, DeviceAddress, Handle};
use prost::Message as _;

use super::tables::Table;
use super::{Core, Event, LoadError, Member, NewKey, Row};
use crate::identity::{DeviceListError, VerifiedDevices, verify_devices};

/// Another account, as its newest verified device list describes it.
#[derive(Debug, Clone)]
pub(super) struct Contact {
    pub(super) handle: Option<Handle>,
    pub(super) devices: VerifiedDevices,
    signed: SignedDeviceList,
}

/// Numbers are never reused.
#[derive(Clone, PartialEq, prost::Message)]
struct Record {
    #[prost(string, tag = "1")]
    handle: String,
    #[prost(bytes = "bytes", tag = "2")]
    list: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    signature: Bytes,
}

impl Contact {
    pub(super) fn encode(&self) -> Vec<u8> {
        let handle = self.handle.as_ref().map(ToString::to_string).unwrap_or_default();
        Record { handle, list: self.signed.list.clone(), signature: self.signed.signature.clone() }.encode_to_vec()
    }

    pub(super) fn decode(account: AccountId, bytes: &[u8]) -> Result<Self, LoadError> {
        let record = Record::decode(bytes).map_err(|_| LoadError::Row(Table::Contacts))?;
        let signed = SignedDeviceList { list: record.list, signature: record.signature };
        let devices = verify_devices(&signed, account, None).map_err(|_| LoadError::Row(Table::Contacts))?;
        Ok(Self { handle: record.handle.parse().ok(), devices, signed })
    }
}

impl Core {
    /// Takes in what the directory says of an account, if it is signed and not older than what is known.
    pub(super) fn meet(
        &mut self,
        account: AccountId,
        handle: Option<Handle>,
        signed: &SignedDeviceList,
    ) -> Result<(), DeviceListError> {
        let known = self.contacts.get(&account);
        let seen = known.map(|c| (c.devices.version, c.devices.identity_key));
        let devices = verify_devices(signed, account, seen)?;
        let mut news = Vec::new();
        match known {
            None => news.push(NewKey::FirstContact),
            Some(c) if c.devices.identity_key != devices.identity_key => news.push(NewKey::Identity),
            Some(c) => {
                let new = devices.devices.iter().filter(|d| !c.devices.devices.contains(d));
                news.extend(new.map(|(device, _)| NewKey::Device(*device)));
            }
        }
        let handle = handle.or_else(|| known.and_then(|c| c.handle.clone()));
        let signed = SignedDeviceList {
            list: Bytes::copy_from_slice(&signed.list),
            signature: Bytes::copy_from_slice(&signed.signature),
        };
        self.contacts.insert(account, Contact { handle, devices, signed });
        self.dirty.insert(Row::Contact(account));
        if account != self.identity.address().account {
            let member = self.member(account);
            self.out.events.extend(news.into_iter().map(|what| Event::NewKey { member: member.clone(), what }));
        }
        Ok(())
    }

    /// Whether the device's account has signed for this key.
    pub(super) fn vouched(&self, device: DeviceAddress, key: &[u8]) -> bool {
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
        let handle = if account == self.identity.address().account {
            Some(self.identity.handle().clone())
        } else {
            self.contacts.get(&account).and_then(|c| c.handle.clone())
        };
        Member { account, handle }
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

#[cfg(test)]
mod tests {
    use super::*;

    const STORED: &str = "0a03626f6212046c6973741a097369676e6174757265";

    #[test]
    fn a_contact_keeps_its_bytes() {
        let (list, signature) = (Bytes::from_static(b"list"), Bytes::from_static(b"signature"));
        let record = Record { handle: "bob".into(), list, signature };
        assert_eq!(hex::encode(record.encode_to_vec()), STORED);
        let read = Contact::decode(AccountId::from_bytes([1; 16]), &hex::decode(STORED).expect("hexadecimal"));
        assert!(read.is_err(), "a list that is not signed is not read back");
    }
}
