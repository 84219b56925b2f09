// SPDX-License-Identifier: MIT OR Apache-2.0
//! GetDeviceLists and PutDeviceList.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use pli_api::directory::{
    AccountDevices, GetDeviceListsRequest, GetDeviceListsResponse, PutDeviceListRequest, PutDeviceListResponse,
    SignedDeviceList,
};
use pli_api::{Caller, ids};
use pli_domain::limits::{CHAIN_LISTS_MAX, DEVICE_LISTS_MAX, FRAME_BYTES_MAX};
use pli_domain::{AccountId, DeviceAddress};
use pli_ports::{AccountRecord, Removal};
use prost::Message;

use crate::error::{GetDeviceListsError, ReplaceListError};
use crate::list::{self, InvalidDeviceList, VerifiedDeviceList};
use crate::service::Inner;

/// Accounts read at once for one request.
const READS_IN_FLIGHT_MAX: usize = 16;
/// Most bytes of an answer that must fit a session frame with its header.
pub(crate) const ANSWER_BYTES_MAX: usize = FRAME_BYTES_MAX - 4 * 1024;

impl Inner {
    /// The newest list of each account, or what is newer than the version that the caller has. Other services ask for
    /// whole groups, without limit; what goes to a client must fit a frame.
    pub(crate) async fn device_lists(
        &self,
        caller: Caller,
        request: GetDeviceListsRequest,
    ) -> Result<GetDeviceListsResponse, GetDeviceListsError> {
        let (accounts, known) = (request.accounts.len(), request.known.len());
        if accounts > DEVICE_LISTS_MAX {
            return Err(GetDeviceListsError::TooMany(accounts));
        }
        if known != 0 && known != accounts {
            return Err(GetDeviceListsError::Known { known, accounts });
        }
        if let Some(caller) = caller.device {
            self.limits.lists_fetched.take(&caller.account, accounts)?;
        }
        let response = GetDeviceListsResponse { accounts: self.newer(&request).await? };
        let bytes = response.encoded_len();
        if caller.device.is_some() && bytes > ANSWER_BYTES_MAX {
            return Err(GetDeviceListsError::TooLarge(bytes));
        }
        Ok(response)
    }

    /// The accounts that exist, in the order asked.
    async fn newer(&self, request: &GetDeviceListsRequest) -> Result<Vec<AccountDevices>, GetDeviceListsError> {
        let wanted =
            request.accounts.iter().map(|a| ids::from("accounts", a)).collect::<Result<Vec<AccountId>, _>>()?;
        let known = request.known.iter().copied().chain(std::iter::repeat(0));
        let reads = stream::iter(wanted.into_iter().zip(known)).map(|(account, known)| self.account(account, known));
        let found: Vec<_> = reads.buffered(READS_IN_FLIGHT_MAX).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn account(&self, account: AccountId, known: u64) -> Result<Option<AccountDevices>, GetDeviceListsError> {
        let Some(record) = self.accounts.account(account).await? else { return Ok(None) };
        let (signed, _) = list::stored(&record.devices)?;
        Ok(Some(AccountDevices {
            account: Bytes::copy_from_slice(record.account.as_bytes()),
            handle: record.handle.as_str().to_owned(),
            devices: (record.devices.version != known).then_some(signed),
            between: self.between(&record, known).await?,
        }))
    }

    /// The lists after version `known` and before the newest; none where the first of them is not kept any more.
    async fn between(&self, record: &AccountRecord, known: u64) -> Result<Vec<SignedDeviceList>, GetDeviceListsError> {
        let newest = record.devices.version;
        if known == 0 || newest.saturating_sub(known) < 2 {
            return Ok(Vec::new());
        }
        let max = CHAIN_LISTS_MAX.min(usize::try_from(newest - known - 1).unwrap_or(CHAIN_LISTS_MAX));
        let lists = self.accounts.device_lists(record.account, known, max).await?;
        if lists.first().is_none_or(|first| first.version != known + 1) {
            return Ok(Vec::new());
        }
        Ok(lists.iter().map(|list| list::stored(list).map(|(signed, _)| signed)).collect::<Result<_, _>>()?)
    }

    /// Puts a list behind the caller's newest one, and removes everywhere what it leaves out.
    pub(crate) async fn replace_list(
        &self,
        caller: Caller,
        request: PutDeviceListRequest,
    ) -> Result<PutDeviceListResponse, ReplaceListError> {
        let caller = caller.authenticated().map_err(|refused| ReplaceListError::Caller(Box::new(refused)))?;
        self.limits.lists_put.take(&caller.account, 1)?;
        let new = VerifiedDeviceList::verify(&request.devices.ok_or(ReplaceListError::NoList)?)?;
        if new.account != caller.account {
            return Err(InvalidDeviceList::Account.into());
        }
        let stored = self.accounts.account(caller.account).await?.ok_or(ReplaceListError::UnknownAccount)?;
        self.check_caller(caller, &stored).await?;
        check_successor(&stored, &new)?;
        let (previous, version) = (new.previous.unwrap_or_default(), new.version);
        let gone = self.accounts.put_device_list(caller.account, previous, new.into_record()).await?;
        self.metrics.lists_replaced.add(1, &[]);
        let removal = |device| Removal { account: caller.account, version, device };
        if !self.removals.carry_out(gone.into_iter().map(removal).collect()).await {
            return Err(ReplaceListError::Unfinished);
        }
        Ok(PutDeviceListResponse {})
    }

    /// A device that was removed changes nothing any more, however long its session lives.
    async fn check_caller(&self, caller: DeviceAddress, stored: &AccountRecord) -> Result<(), ReplaceListError> {
        if stored.devices.devices.contains(&caller.device) {
            return Ok(());
        }
        Err(ReplaceListError::NotListed(Box::new(self.not_listed(caller).await?)))
    }
}

/// The identity key stays for ever and so does each device's key; version and hash are compared by the store, atomically.
fn check_successor(stored: &AccountRecord, new: &VerifiedDeviceList) -> Result<(), ReplaceListError> {
    if new.identity_key != stored.identity_key {
        return Err(InvalidDeviceList::IdentityKey.into());
    }
    let (_, old) = list::stored(&stored.devices)?;
    let changed = |n: &list::ListedDevice| old.iter().any(|o| o.device == n.device && o.key != n.key);
    if new.devices.iter().any(changed) {
        return Err(InvalidDeviceList::KeyChanged.into());
    }
    Ok(())
}
