// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lookup and GetDeviceKey.

use bytes::Bytes;
use pli_api::common::Error as WireError;
use pli_api::directory::{GetDeviceKeyRequest, GetDeviceKeyResponse, LookupRequest, LookupResponse};
use pli_api::{Caller, ErrorCode, address, refusal};
use pli_domain::{DeviceAddress, Handle};
use pli_ports::StoreError;

use crate::error::{DeviceKeyError, LookupError};
use crate::list;
use crate::service::Inner;

/// When a device asks again that was just added.
const ADDED_RETRY_AFTER_MS: u32 = 100;

impl Inner {
    /// The account with exactly this handle. There is one way to say no, so that an account which may not be seen
    /// cannot be told from one that does not exist.
    pub(crate) async fn lookup(&self, caller: Caller, request: LookupRequest) -> Result<LookupResponse, LookupError> {
        let caller = caller.authenticated().map_err(|refused| LookupError::Caller(Box::new(refused)))?;
        let handle: Handle = request.handle.parse()?;
        self.limits.lookups.take(&caller.account, 1)?;
        let found = self.accounts.by_handle(&handle).await?.ok_or(LookupError::NotFound)?;
        let (signed, _) = list::stored(&found.devices)?;
        Ok(LookupResponse {
            account: Bytes::copy_from_slice(found.account.as_bytes()),
            handle: found.handle.as_str().to_owned(),
            devices: Some(signed),
        })
    }

    /// What an edge needs to authenticate a device, and what says whether it can be added. A call that carries a client's
    /// identity is refused.
    pub(crate) async fn device_key(
        &self,
        caller: Caller,
        request: GetDeviceKeyRequest,
    ) -> Result<GetDeviceKeyResponse, DeviceKeyError> {
        if caller.device.is_some() {
            return Err(DeviceKeyError::NotForClients);
        }
        let address = address("device", request.device.as_ref())?;
        let account = self.accounts.account(address.account).await?;
        let devices = account.map(|account| list::stored(&account.devices)).transpose()?;
        let listed = devices.and_then(|(_, devices)| devices.into_iter().find(|d| d.device == address.device));
        let Some(device) = listed else {
            return Err(DeviceKeyError::NotListed(Box::new(self.not_listed(address).await?)));
        };
        let stock = self.stock(address.device).await?;
        let key = Bytes::copy_from_slice(&device.key);
        Ok(GetDeviceKeyResponse { key, key_packages: stock.left, last_resort: stock.last_resort.is_some() })
    }

    /// What a device is told that was not found in its account's newest list: whether one ever named it. A list that
    /// names it may have come since the one that was looked at; it must not take itself for removed then.
    pub(crate) async fn not_listed(&self, device: DeviceAddress) -> Result<WireError, StoreError> {
        let owner = self.accounts.device_account(device.device).await?;
        if owner != Some(device.account) {
            return Ok(refusal(ErrorCode::UnknownDevice, "no such device in this account; register it first"));
        }
        let newest = self.accounts.account(device.account).await?;
        if newest.is_some_and(|account| account.devices.devices.contains(&device.device)) {
            let text = "the account was adding this device; ask again";
            return Ok(refusal(ErrorCode::Temporary, text).retry_after(ADDED_RETRY_AFTER_MS));
        }
        Ok(refusal(ErrorCode::DeviceRemoved, "the account removed this device; link it again as a new one"))
    }
}
