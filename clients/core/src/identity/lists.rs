// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signed device lists, as everybody else verifies and follows them.

use ed25519_dalek::{Signature, VerifyingKey};
use pli_api::directory::{DeviceList, SignedDeviceList};
use pli_domain::limits::DEVICES_PER_ACCOUNT_MAX;
use pli_domain::{AccountId, DeviceId, transcript};
use prost::Message as _;
use sha2::{Digest, Sha256};

/// Why a signed device list is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeviceListError {
    /// Not a list, or one that contradicts itself.
    #[error("the device list is malformed")]
    Malformed,
    /// Of another account.
    #[error("the device list is of another account")]
    OtherAccount,
    /// Not signed by the identity key that it names.
    #[error("the signature of the device list does not verify")]
    Signature,
    /// Older than one seen before.
    #[error("the device list is older than one that was seen before")]
    Version,
    /// Another list of the same version was seen before, or one that this one was not made from.
    #[error("the device list was made from another one than the one that was seen before")]
    Fork,
    /// What lies between it and the one seen before is not given.
    #[error("the lists between this device list and the one that was seen before are missing")]
    Unlinked,
    /// Signed by another identity key than this device knows for its own account.
    #[error("the device list is signed by another identity key than this account's")]
    IdentityKey,
}

/// A device list whose signature verified under the identity key that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedDevices {
    /// Whose.
    pub account: AccountId,
    /// From 1, up by one.
    pub version: u64,
    /// The identity key.
    pub identity_key: [u8; 32],
    /// Devices with their keys.
    pub devices: Vec<(DeviceId, [u8; 32])>,
    /// What the next list names as the one before it.
    pub hash: [u8; 32],
    /// What this one names; none of version 1.
    pub previous: Option<[u8; 32]>,
}

/// What names a signed list in the one that follows it: SHA-256 of its encoding.
pub fn list_hash(signed: &SignedDeviceList) -> [u8; 32] {
    Sha256::digest(signed.encode_to_vec()).into()
}

/// The version that a list names, whoever signed it; 0 where it is none.
pub(crate) fn list_version(signed: &SignedDeviceList) -> u64 {
    DeviceList::decode(signed.list.as_ref()).map_or(0, |list| list.version)
}

/// Checks a signed device list of `account`; `seen` is the newest version seen before under the same identity key.
pub fn verify_devices(
    signed: &SignedDeviceList,
    account: AccountId,
    seen: Option<(u64, [u8; 32])>,
) -> Result<VerifiedDevices, DeviceListError> {
    let malformed = DeviceListError::Malformed;
    let list = DeviceList::decode(signed.list.as_ref()).map_err(|_| malformed)?;
    // Two readers must not see two lists in the same signed bytes.
    if list.encode_to_vec() != signed.list || !(1..=DEVICES_PER_ACCOUNT_MAX).contains(&list.devices.len()) {
        return Err(malformed);
    }
    if list.account.as_ref() != account.as_bytes() {
        return Err(DeviceListError::OtherAccount);
    }
    let identity_key: [u8; 32] = list.identity_key.as_ref().try_into().map_err(|_| malformed)?;
    let key = VerifyingKey::from_bytes(&identity_key).map_err(|_| malformed)?;
    let signature = Signature::from_slice(&signed.signature).map_err(|_| DeviceListError::Signature)?;
    key.verify_strict(&transcript::device_list(&signed.list), &signature).map_err(|_| DeviceListError::Signature)?;
    if seen.is_some_and(|(version, key)| key == identity_key && list.version < version) {
        return Err(DeviceListError::Version);
    }
    let mut devices = Vec::new();
    for entry in &list.devices {
        let device = DeviceId::try_from(entry.device.as_ref()).map_err(|_| malformed)?;
        let key = entry.key.as_ref().try_into().map_err(|_| malformed)?;
        if devices.iter().any(|(known, other)| *known == device || *other == key) {
            return Err(malformed);
        }
        devices.push((device, key));
    }
    let previous = match list.previous.as_ref() {
        [] => None,
        previous => Some(previous.try_into().map_err(|_| malformed)?),
    };
    Ok(VerifiedDevices { account, version: list.version, identity_key, devices, hash: list_hash(signed), previous })
}

/// Follows a chain from the list that is known, which the first of `lists` follows; answers how many of them do, each
/// verified. The same list again is a chain of none. Errors where a list goes back, or was made from another one.
pub fn follow_lists(
    known: &VerifiedDevices,
    lists: &[SignedDeviceList],
) -> Result<Vec<VerifiedDevices>, DeviceListError> {
    let mut chain: Vec<VerifiedDevices> = Vec::new();
    for signed in lists {
        let next = verify_devices(signed, known.account, None)?;
        let before = chain.last().unwrap_or(known);
        if next.identity_key != known.identity_key {
            return Err(DeviceListError::IdentityKey);
        }
        match next.version {
            version if version < before.version => return Err(DeviceListError::Version),
            version if version == before.version && next.hash == before.hash => continue,
            version if version == before.version => return Err(DeviceListError::Fork),
            version if version > before.version + 1 => return Err(DeviceListError::Unlinked),
            _ if next.previous != Some(before.hash) => return Err(DeviceListError::Fork),
            _ => chain.push(next),
        }
    }
    Ok(chain)
}
