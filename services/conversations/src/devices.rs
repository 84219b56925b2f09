// SPDX-License-Identifier: MIT OR Apache-2.0
//! A group's leaves against its members' signed device lists. One question to the directory per commit, and one for each
//! device that the group lacks; none per message.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use pli_api::directory::directory_client::DirectoryClient;
use pli_api::directory::{AccountDevices, DeviceList, GetDeviceKeyRequest, GetDeviceListsRequest};
use pli_api::{Channel, error_of_status};
use pli_domain::limits::{CLAIM_DEVICES_MAX, GROUP_DEVICES_MAX};
use pli_domain::{AccountId, DeviceAddress};
use prost::Message;
use tonic::Status;

use crate::group::Leaves;

/// Devices that are asked about at a time.
const ASKED_AT_ONCE: usize = 8;

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
    #[error("the account removed this device; link it again as a new one")]
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

/// What speaks against a group with these leaves, offered by `caller`; or none. What is there must be right. Of the
/// accounts in `whole` every device must be there that somebody could add: those that the commit brings devices of. No
/// other commit waits for what a member lists; clients bring that in by commits of their own.
pub(crate) async fn compare(
    directory: &Channel,
    leaves: &Leaves,
    whole: &BTreeSet<AccountId>,
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
    let mut mismatch = difference(leaves, &listed, whole);
    mismatch.missing = addable(directory, mismatch.missing).await?;
    Ok(Some(mismatch).filter(|m| *m != Mismatch::default()).map(Unfit::Devices))
}

/// Those of the devices that have published something: one that is listed and never connected keeps nobody waiting. At most
/// as many as anybody could claim at once. No more are asked about than a group may have: whoever commits chooses whose
/// devices are missing, and of 250 accounts those may be thousands, none of which has published anything.
async fn addable(directory: &Channel, missing: Vec<DeviceAddress>) -> Result<Vec<DeviceAddress>, DirectoryError> {
    let asked = missing.into_iter().take(GROUP_DEVICES_MAX);
    let asked = asked.map(async |device| Ok((device, has_packages(directory, device).await?)));
    let asked = stream::iter(asked).buffered(ASKED_AT_ONCE);
    let addable = asked.try_filter_map(async |(device, has)| Ok(has.then_some(device)));
    addable.take(CLAIM_DEVICES_MAX).try_collect().await
}

async fn has_packages(directory: &Channel, device: DeviceAddress) -> Result<bool, DirectoryError> {
    let request = GetDeviceKeyRequest { device: Some(device.into()) };
    match DirectoryClient::new(directory.clone()).get_device_key(request).await {
        Ok(answer) => Ok(answer.get_ref().key_packages > 0 || answer.get_ref().last_resort),
        Err(status) if error_of_status(&status).code().is_temporary() => Err(DirectoryError::Call(Box::new(status))),
        // It is not in its account's list any more.
        Err(_) => Ok(false),
    }
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

fn difference(leaves: &Leaves, listed: &Leaves, whole: &BTreeSet<AccountId>) -> Mismatch {
    let mut mismatch = Mismatch::default();
    for (&device, key) in leaves {
        match listed.get(&device) {
            None => mismatch.extra.push(device),
            Some(listed) if listed != key => mismatch.stale.push(device),
            Some(_) => {}
        }
    }
    let missing = listed.keys().filter(|device| whole.contains(&device.account) && !leaves.contains_key(device));
    mismatch.missing = missing.copied().collect();
    mismatch
}

#[cfg(test)]
mod tests {
    use pli_domain::DeviceId;

    use super::*;

    fn leaf(n: u8, key: u8) -> (DeviceAddress, Vec<u8>) {
        let device = DeviceAddress { account: AccountId::from_bytes([1; 16]), device: DeviceId::from_bytes([n; 16]) };
        (device, vec![key; 32])
    }

    #[test]
    fn each_kind_of_difference_is_named() {
        let leaves = Leaves::from([leaf(1, 1), leaf(2, 9), leaf(3, 3)]);
        let listed = Leaves::from([leaf(1, 1), leaf(2, 2), leaf(4, 4)]);
        let all = difference(&leaves, &listed, &BTreeSet::from([AccountId::from_bytes([1; 16])]));
        assert_eq!(all.missing, [leaf(4, 0).0]);
        assert_eq!(all.extra, [leaf(3, 0).0]);
        assert_eq!(all.stale, [leaf(2, 0).0]);
        assert!(difference(&leaves, &listed, &BTreeSet::new()).missing.is_empty());
    }
}
