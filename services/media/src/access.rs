// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who calls, about which upload.

use bytes::Bytes;
use pli_api::{Caller, ids};
use pli_domain::UploadKey;

use crate::error::{InvalidField, Unfit};
use crate::service::Inner;

impl Inner {
    /// The upload that `field` names, for a device that its account's list names. The list is read anew: a device that
    /// was removed a moment ago may still have a session.
    pub(crate) async fn admit(&self, caller: &Caller, upload: &Bytes) -> Result<UploadKey, Unfit> {
        let device = caller.authenticated().map_err(|refused| Unfit::Caller(Box::new(refused)))?;
        let id = ids::from("upload", upload).map_err(InvalidField::from)?;
        self.limits.calls.take(&device.account, 1)?;
        let account = self.ports.accounts.account(device.account).await?;
        if !account.is_some_and(|account| account.devices.devices.contains(&device.device)) {
            return Err(Unfit::Removed);
        }
        Ok(UploadKey { account: device.account, id })
    }
}
