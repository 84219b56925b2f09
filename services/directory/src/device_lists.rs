// SPDX-License-Identifier: MIT OR Apache-2.0
//! GetDeviceLists and PutDeviceList.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use pli_api::directory::{
    AccountDevices, GetDeviceListsRequest, GetDeviceListsResponse, PutDeviceListRequest, PutDeviceListResponse,
};
use pli_api::{Caller, ids};
use pli_domain::AccountId;
use pli_domain::limits::{DEVICE_LISTS_MAX, FRAME_BYTES_MAX};
use pli_ports::AccountRecord;
use prost::Message;

use crate::error::{GetDeviceListsError, ReplaceListError};
use crate::list::{self, CorruptList, InvalidDeviceList, VerifiedDeviceList};
use crate::service::Inner;

/// Accounts read at once for one request.
const READS_IN_FLIGHT_MAX: usize = 16;
/// Most bytes of an answer that must fit a session frame with its header.
pub(crate) const ANSWER_BYTES_MAX: usize = FRAME_BYTES_MAX - 4 * 1024;

impl Inner {
    /// The newest list of each account. Other services ask for whole groups, without limit; what goes to a client must fit
    /// a frame.
    pub(crate) async fn device_lists(
        &self,
        caller: Caller,
        request: GetDeviceListsRequest,
    ) -> Result<GetDeviceListsResponse, GetDeviceListsError> {
        if request.accounts.len() > DEVICE_LISTS_MAX {
            return Err(GetDeviceListsError::TooMany(request.accounts.len()));
        }
        if let Some(caller) = caller.device {
            self.limits.lists_fetched.take(&caller.account, request.accounts.len())?;
        }
        let accounts = self.records(&request.accounts).await?;
        let accounts = accounts.iter().map(account_devices).collect::<Result<_, _>>()?;
        let response = GetDeviceListsResponse { accounts };
        let bytes = response.encoded_len();
        if caller.device.is_some() && bytes > ANSWER_BYTES_MAX {
            return Err(GetDeviceListsError::TooLarge(bytes));
        }
        Ok(response)
    }

    /// The accounts that exist, in the order asked.
    async fn records(&self, accounts: &[Bytes]) -> Result<Vec<AccountRecord>, GetDeviceListsError> {
        let wanted = accounts.iter().map(|a| ids::from("accounts", a)).collect::<Result<Vec<AccountId>, _>>()?;
        let reads = stream::iter(wanted).map(|account| self.accounts.account(account));
        let found: Vec<_> = reads.buffered(READS_IN_FLIGHT_MAX).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Replaces the caller's list by its successor.
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
        check_successor(&stored, &new)?;
        self.accounts.put_device_list(caller.account, new.into_record()).await?;
        self.metrics.lists_replaced.add(1, &[]);
        Ok(PutDeviceListResponse {})
    }
}

/// The identity key stays for ever and so does each device's key; the version is compared by the store, atomically.
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

fn account_devices(record: &AccountRecord) -> Result<AccountDevices, CorruptList> {
    let (signed, _) = list::stored(&record.devices)?;
    Ok(AccountDevices {
        account: Bytes::copy_from_slice(record.account.as_bytes()),
        handle: record.handle.as_str().to_owned(),
        devices: Some(signed),
    })
}
