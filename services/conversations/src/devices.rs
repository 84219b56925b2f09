// SPDX-License-Identifier: MIT OR Apache-2.0
//! A group's leaves against its members' signed device lists. One question to the directory per commit, none per
//! message.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use pli_api::Channel;
use pli_api::directory::directory_client::DirectoryClient;
use pli_api::directory::{AccountDevices, DeviceList, GetDeviceListsRequest};
use pli_domain::DeviceAddress;
use prost::Message;
use tonic::Status;

use crate::group::Leaves;

/// Which leaves a group must have for an account that is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Completeness {
    /// Every device of every member: what a member's commit must make, since it can add and remove.
    All,
    /// Only those that are there must be right: a first epoch, or a re-join, which can add nobody else.
    Present,
}

/// How a group differs from its members' device lists.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
#[error("the group lacks {} devices of its members, {} of its devices stand in no list, {} have another key", missing.len(), extra.len(), stale.len())]
pub(crate) struct Mismatch {
    /// Devices of members that the group lacks.
    pub missing: Vec<DeviceAddress>,
    /// Devices in the group that no list names.
    pub extra: Vec<DeviceAddress>,
    /// Devices whose leaf has another key than the list.
    pub stale: Vec<DeviceAddress>,
}

/// Why a group may not become what is offered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    /// It differs from its members' device lists.
    #[error(transparent)]
    Devices(Mismatch),
    /// The list of the caller's own account does not name the caller any more.
    #[error("the account removed this device; link it again as a new device")]
    CallerRemoved,
}

/// Why the comparison could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DirectoryError {
    #[error("the directory does not answer")]
    Call(#[source] Box<Status>),
    #[error("the directory's answer does not decode")]
    Answer,
}

/// What speaks against a group with these leaves, offered by `caller`; or none.
pub(crate) async fn compare(
    directory: &Channel,
    leaves: &Leaves,
    completeness: Completeness,
    caller: DeviceAddress,
) -> Result<Option<Unfit>, DirectoryError> {
    let accounts: BTreeSet<_> = leaves.keys().map(|device| device.account).collect();
    let accounts = accounts.iter().map(|a| Bytes::copy_from_slice(a.as_bytes())).collect();
    let request = GetDeviceListsRequest { accounts, known: Vec::new() };
    let answer = DirectoryClient::new(directory.clone()).get_device_lists(request).await;
    let answer = answer.map_err(|status| DirectoryError::Call(Box::new(status)))?.into_inner();
    let mut listed = Leaves::new();
    for account in &answer.accounts {
        listed.append(&mut devices(account).ok_or(DirectoryError::Answer)?);
    }
    if !listed.contains_key(&caller) && listed.keys().any(|device| device.account == caller.account) {
        return Ok(Some(Unfit::CallerRemoved));
    }
    let mismatch = difference(leaves, &listed, completeness);
    Ok(Some(mismatch).filter(|m| *m != Mismatch::default()).map(Unfit::Devices))
}

fn devices(account: &AccountDevices) -> Option<Leaves> {
    let list = DeviceList::decode(account.devices.as_ref()?.list.clone()).ok()?;
    let of = account.account.as_ref().try_into().ok()?;
    let entry = |d: &pli_api::directory::DeviceListEntry| {
        let device = d.device.as_ref().try_into().ok()?;
        Some((DeviceAddress { account: of, device }, d.key.to_vec()))
    };
    list.devices.iter().map(entry).collect()
}

fn difference(leaves: &Leaves, listed: &BTreeMap<DeviceAddress, Vec<u8>>, completeness: Completeness) -> Mismatch {
    let mut mismatch = Mismatch::default();
    for (&device, key) in leaves {
        match listed.get(&device) {
            None => mismatch.extra.push(device),
            Some(listed) if listed != key => mismatch.stale.push(device),
            Some(_) => {}
        }
    }
    if completeness == Completeness::All {
        mismatch.missing = listed.keys().filter(|device| !leaves.contains_key(device)).copied().collect();
    }
    mismatch
}

#[cfg(test)]
mod tests {
    use pli_domain::{AccountId, DeviceId};

    use super::*;

    fn leaf(n: u8, key: u8) -> (DeviceAddress, Vec<u8>) {
        let device = DeviceAddress { account: AccountId::from_bytes([1; 16]), device: DeviceId::from_bytes([n; 16]) };
        (device, vec![key; 32])
    }

    #[test]
    fn each_kind_of_difference_is_named() {
        let leaves = Leaves::from([leaf(1, 1), leaf(2, 9), leaf(3, 3)]);
        let listed = Leaves::from([leaf(1, 1), leaf(2, 2), leaf(4, 4)]);
        let all = difference(&leaves, &listed, Completeness::All);
        assert_eq!(all.missing, [leaf(4, 0).0]);
        assert_eq!(all.extra, [leaf(3, 0).0]);
        assert_eq!(all.stale, [leaf(2, 0).0]);
        assert!(difference(&leaves, &listed, Completeness::Present).missing.is_empty());
    }
}
