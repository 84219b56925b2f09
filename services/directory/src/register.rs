// SPDX-License-Identifier: MIT OR Apache-2.0
//! Register.

use pli_api::Caller;
use pli_api::directory::{RegisterRequest, RegisterResponse};
use pli_domain::{AccountId, Handle};
use pli_ports::{CreateAccountError, NewAccount};
use pli_runtime::limits::address_key;

use crate::config::Registration;
use crate::error::RegisterError;
use crate::list::{InvalidDeviceList, VerifiedDeviceList};
use crate::service::Inner;

impl Inner {
    /// Creates an account. What is cheap to refuse is refused before the limit is touched, the signature check after.
    pub(crate) async fn register(
        &self,
        caller: Caller,
        request: RegisterRequest,
    ) -> Result<RegisterResponse, RegisterError> {
        if self.config.registration != Registration::Open {
            return Err(RegisterError::Closed);
        }
        let handle: Handle = request.handle.parse()?;
        let signed = request.devices.ok_or(RegisterError::NoList)?;
        self.limits.registrations.take(&address_key(caller.address), 1)?;
        let list = VerifiedDeviceList::verify(&signed)?;
        if list.version != 1 {
            return Err(InvalidDeviceList::FirstVersion.into());
        }
        if let Err(error) = handle.check_new()
            && !self.holds(list.account, &handle).await?
        {
            return Err(error.into());
        }
        let account = NewAccount {
            account: list.account,
            handle: handle.clone(),
            identity_key: list.identity_key,
            devices: list.into_record(),
            created_at: self.clock.now(),
        };
        self.accounts.create(account).await?;
        self.metrics.registrations.add(1, &[]);
        Ok(RegisterResponse { handle: handle.as_str().to_owned() })
    }
    /// Whether the account has this handle, from before the rule for new ones; asking again is answered as it was.
    async fn holds(&self, account: AccountId, handle: &Handle) -> Result<bool, RegisterError> {
        let found = self.accounts.by_handle(handle).await.map_err(CreateAccountError::from)?;
        Ok(found.is_some_and(|found| found.account == account))
    }
}
