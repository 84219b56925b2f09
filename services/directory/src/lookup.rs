// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lookup and GetDeviceKey.

use bytes::Bytes;
use pli_api::directory::{GetDeviceKeyRequest, GetDeviceKeyResponse, LookupRequest, LookupResponse};
use pli_api::{Caller, address};
use pli_domain::Handle;

use crate::error::{DeviceKeyError, LookupError};
use crate::list;
use crate::service::Inner;

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

    /// What an edge needs to authenticate a device. A call that carries a client's identity is refused.
    pub(crate) async fn device_key(
        &self,
        caller: Caller,
        request: GetDeviceKeyRequest,
    ) -> Result<GetDeviceKeyResponse, DeviceKeyError> {
        if caller.device.is_some() {
            return Err(DeviceKeyError::NotForClients);
        }
        let address = address("device", request.device.as_ref())?;
        let account = self.accounts.account(address.account).await?.ok_or(DeviceKeyError::UnknownDevice)?;
        let (_, devices) = list::stored(&account.devices)?;
        let device = devices.iter().find(|d| d.device == address.device).ok_or(DeviceKeyError::UnknownDevice)?;
        let stock = self.accounts.key_package_stock(address.device).await?;
        Ok(GetDeviceKeyResponse { key: Bytes::copy_from_slice(&device.key), key_packages: stock.left })
    }
}
