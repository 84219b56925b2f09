// SPDX-License-Identifier: MIT OR Apache-2.0
//! JoinRendezvous.

use pli_api::Caller;
use pli_api::links::{JoinRendezvousRequest, JoinRendezvousResponse};

use crate::access::{hashed, id};
use crate::error::JoinError;
use crate::service::Inner;

impl Inner {
    /// Makes the calling device the approver, if nobody else is.
    pub(crate) async fn join(
        &self,
        caller: Caller,
        request: JoinRendezvousRequest,
    ) -> Result<JoinRendezvousResponse, JoinError> {
        let device = caller.authenticated().map_err(|refused| JoinError::Caller(Box::new(refused)))?;
        let id = id(&request.rendezvous)?;
        let secret = hashed(&request.secret)?;
        self.limits.joined.take(&device.account, 1)?;
        let expires_at = self.links.join_rendezvous(id, (secret, device), self.clock.now()).await?;
        self.metrics.joined.add(1, &[]);
        Ok(JoinRendezvousResponse { left_ms: self.left_ms(expires_at) })
    }
}
