// SPDX-License-Identifier: MIT OR Apache-2.0
//! OpenRendezvous.

use std::time::Duration;

use pli_api::Caller;
use pli_api::links::{OpenRendezvousRequest, OpenRendezvousResponse};
use pli_ports::NewRendezvous;
use pli_runtime::limits::address_key;

use crate::access::{hash, id};
use crate::error::{InvalidField, OpenError};
use crate::service::Inner;

impl Inner {
    /// Opens a rendezvous. What is cheap to refuse is refused before a limit is touched.
    pub(crate) async fn open(
        &self,
        caller: Caller,
        request: OpenRendezvousRequest,
    ) -> Result<OpenRendezvousResponse, OpenError> {
        let id = id(&request.rendezvous)?;
        let opener = hash("opener_secret_sha256", &request.opener_secret_sha256)?;
        let approver = hash("approver_secret_sha256", &request.approver_secret_sha256)?;
        if opener == approver {
            return Err(InvalidField::SameSecret.into());
        }
        self.limits.opened.take(&address_key(caller.address), 1)?;
        let now = self.clock.now();
        let expires_at = now.after(Duration::from_millis(self.config.rendezvous_ms.into()));
        self.limits.open.take(now, expires_at)?;
        let new = NewRendezvous { id, opener, approver, expires_at };
        let expires_at = self.links.open_rendezvous(new, now).await?;
        self.metrics.opened.add(1, &[]);
        Ok(OpenRendezvousResponse { left_ms: self.left_ms(expires_at) })
    }
}
