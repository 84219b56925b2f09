// SPDX-License-Identifier: MIT OR Apache-2.0
//! Register.

use pli_api::Caller;
use pli_api::directory::{RegisterRequest, RegisterResponse};
use pli_domain::Handle;
use pli_ports::NewAccount;

use crate::config::Registration;
use crate::error::RegisterError;
use crate::limits::address_key;
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
}
