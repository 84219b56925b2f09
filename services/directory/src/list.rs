// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signed device lists: what may be stored, and what stored ones say.

use std::collections::BTreeSet;

use bytes::Bytes;
use ed25519_dalek::{Signature, VerifyingKey};
use pli_api::directory::{DeviceList, SignedDeviceList};
use pli_domain::limits::{DEVICE_NAME_BYTES_MAX, DEVICES_PER_ACCOUNT_MAX};
use pli_domain::{AccountId, DeviceId, transcript};
use pli_ports::{DeviceListRecord, ListHash};
use prost::Message;

/// Most bytes of an encoded list: ten devices of about 130 bytes and a frame of 140, with room.
const LIST_BYTES_MAX: usize = 4_096;

/// Why a device list cannot be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDeviceList {
    /// There is none, or its bytes are not a canonical encoding.
    #[error("device list is not a canonical DeviceList: encode the known fields once, in order")]
    Encoding,
    /// More bytes than any valid list has.
    #[error("device list has {0} bytes; at most {LIST_BYTES_MAX} are allowed")]
    Size(usize),
    /// An id that is not 16 bytes.
    #[error("{0} must have 16 bytes")]
    Id(&'static str),
    /// Bytes that are not a usable Ed25519 public key.
    #[error("{0} is not an Ed25519 public key")]
    Key(&'static str),
    /// The signature does not verify under the list's identity key.
    #[error("the signature does not verify under the identity key over pli-devices-1 and the list")]
    Signature,
    /// No device.
    #[error("the list names no device; the last one cannot be removed: sign a list that names another one first")]
    Empty,
    /// Too many devices.
    #[error("the list names {0} devices of at most {DEVICES_PER_ACCOUNT_MAX}; remove one that is not used any more")]
    Count(usize),
    /// A name that is too long or holds control characters.
    #[error("a device name must have at most {DEVICE_NAME_BYTES_MAX} bytes and no control characters")]
    Name,
    /// An id that the server keeps for itself: whoever had it would read what waits there.
    #[error("the list names a device id that the server keeps for itself; draw another one at random")]
    Reserved,
    /// Two entries share a device id or a key, or a device has the identity key.
    #[error("device ids and keys must differ from each other and from the identity key")]
    Duplicate,
    /// The version is not the one that this call needs.
    #[error("the first list of an account has version 1")]
    FirstVersion,
    /// A first list with a list before it, or a later one without.
    #[error("previous must be empty in version 1, and the 32 bytes of SHA-256 of the signed list before it later on")]
    Previous,
    /// The list belongs to another account.
    #[error("the list names another account than the caller's")]
    Account,
    /// The identity key is not the stored one, which never changes.
    #[error("the identity key is not the account's")]
    IdentityKey,
    /// A device that the stored list names with another key.
    #[error("a device never changes its key; give the new key a new device id")]
    KeyChanged,
}

/// One device of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedDevice {
    /// Its id.
    pub device: DeviceId,
    /// Its Ed25519 public key, also the MLS signature key of its leaves.
    pub key: [u8; 32],
}

/// A device list whose signature and content were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedDeviceList {
    /// Whose it is.
    pub account: AccountId,
    /// Counts up from 1.
    pub version: u64,
    /// The key that signed it.
    pub identity_key: [u8; 32],
    /// Hash of the signed list before it; none of version 1.
    pub previous: Option<ListHash>,
    /// 1 to [`DEVICES_PER_ACCOUNT_MAX`] devices, in the order of the list.
    pub devices: Vec<ListedDevice>,
    signed: Bytes,
}

impl VerifiedDeviceList {
    /// Checks signature (strictly: RFC 8032 without small-order keys or malleable encodings) and content of a list.
    /// Whether it may follow the stored one is for the caller to ask.
    pub fn verify(signed: &SignedDeviceList) -> Result<Self, InvalidDeviceList> {
        if signed.list.len() > LIST_BYTES_MAX {
            return Err(InvalidDeviceList::Size(signed.list.len()));
        }
        let list = DeviceList::decode(signed.list.clone()).map_err(|_| InvalidDeviceList::Encoding)?;
        // Two readers must not see two lists in the same signed bytes (repeated or unknown fields).
        if list.encode_to_vec() != signed.list {
            return Err(InvalidDeviceList::Encoding);
        }
        let account = list.account.as_ref().try_into().map_err(|_| InvalidDeviceList::Id("account"))?;
        let identity_key = public_key("identity_key", &list.identity_key)?;
        let previous = previous(&list)?;
        let devices = devices(&list)?;
        if devices.iter().any(|d| d.key == identity_key.to_bytes()) {
            return Err(InvalidDeviceList::Duplicate);
        }
        let signature = Signature::from_slice(&signed.signature).map_err(|_| InvalidDeviceList::Signature)?;
        identity_key
            .verify_strict(&transcript::device_list(&signed.list), &signature)
            .map_err(|_| InvalidDeviceList::Signature)?;
        Ok(Self {
            account,
            version: list.version,
            identity_key: identity_key.to_bytes(),
            previous,
            devices,
            signed: signed.encode_to_vec().into(),
        })
    }

    /// What the store keeps of it.
    pub(crate) fn into_record(self) -> DeviceListRecord {
        DeviceListRecord {
            version: self.version,
            signed: self.signed,
            devices: self.devices.iter().map(|d| d.device).collect(),
        }
    }
}

fn previous(list: &DeviceList) -> Result<Option<ListHash>, InvalidDeviceList> {
    match (list.version, list.previous.as_ref()) {
        (0 | 1, []) => Ok(None),
        (0 | 1, _) => Err(InvalidDeviceList::Previous),
        (_, previous) => previous.try_into().map(Some).map_err(|_| InvalidDeviceList::Previous),
    }
}

fn devices(list: &DeviceList) -> Result<Vec<ListedDevice>, InvalidDeviceList> {
    match list.devices.len() {
        0 => return Err(InvalidDeviceList::Empty),
        1..=DEVICES_PER_ACCOUNT_MAX => {}
        count => return Err(InvalidDeviceList::Count(count)),
    }
    let (mut ids, mut keys) = (BTreeSet::new(), BTreeSet::new());
    let mut devices = Vec::with_capacity(list.devices.len());
    for entry in &list.devices {
        if entry.name.len() > DEVICE_NAME_BYTES_MAX || entry.name.chars().any(char::is_control) {
            return Err(InvalidDeviceList::Name);
        }
        let device: DeviceId = entry.device.as_ref().try_into().map_err(|_| InvalidDeviceList::Id("device"))?;
        if device.is_reserved() {
            return Err(InvalidDeviceList::Reserved);
        }
        let key = public_key("key", &entry.key)?.to_bytes();
        if !ids.insert(device) || !keys.insert(key) {
            return Err(InvalidDeviceList::Duplicate);
        }
        devices.push(ListedDevice { device, key });
    }
    Ok(devices)
}

fn public_key(field: &'static str, bytes: &Bytes) -> Result<VerifyingKey, InvalidDeviceList> {
    let bytes: &[u8; 32] = bytes.as_ref().try_into().map_err(|_| InvalidDeviceList::Key(field))?;
    let key = VerifyingKey::from_bytes(bytes).map_err(|_| InvalidDeviceList::Key(field))?;
    if key.is_weak() { Err(InvalidDeviceList::Key(field)) } else { Ok(key) }
}

/// A stored list that does not read back as what was verified before it was stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CorruptList {
    #[error("a stored device list does not decode")]
    Encoding(#[from] prost::DecodeError),
    #[error("a stored device list is not one that may be stored")]
    Content(#[from] InvalidDeviceList),
}

/// The signed list as it goes over the wire, and its devices. Stored lists were verified when they came.
pub(crate) fn stored(record: &DeviceListRecord) -> Result<(SignedDeviceList, Vec<ListedDevice>), CorruptList> {
    let signed = SignedDeviceList::decode(record.signed.clone())?;
    let list = DeviceList::decode(signed.list.clone())?;
    let devices = devices(&list)?;
    Ok((signed, devices))
}
