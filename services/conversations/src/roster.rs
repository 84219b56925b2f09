// SPDX-License-Identifier: MIT OR Apache-2.0
//! GetRoster.

use std::time::Duration;

use pli_api::conversations::{GetRosterRequest, GetRosterResponse};
use pli_api::{Caller, ids};
use pli_domain::limits::EPOCHS_BEHIND_MAX;
use pli_domain::{ConversationId, MlsEpoch};
use pli_ports::{EpochRoster, StoreError};

use crate::error::RosterError;
use crate::finish::By;
use crate::service::Inner;

impl Inner {
    /// The devices of an epoch, for edges: of the newest one and of as many before it as messages may be behind, or of
    /// any for what was accepted before. A call that carries a client's identity is refused.
    pub(crate) async fn roster(
        &self,
        caller: Caller,
        request: GetRosterRequest,
    ) -> Result<GetRosterResponse, RosterError> {
        if caller.device.is_some() {
            return Err(RosterError::NotForClients);
        }
        let conversation: ConversationId = ids::from("conversation", &request.conversation)?;
        let epoch = MlsEpoch(request.epoch);
        let found = self.ports.conversations.roster_at(conversation, epoch).await?;
        let EpochRoster { current, roster } = found.ok_or(RosterError::UnknownConversation)?;
        if epoch > current || (!request.accepted_before && current.0 - epoch.0 > EPOCHS_BEHIND_MAX) {
            return Err(RosterError::WrongEpoch { current });
        }
        let roster = roster.ok_or(RosterError::WrongEpoch { current })?;
        let fan_out = self.is_spread(&roster.devices);
        let open = roster.open || self.finish_left_behind(conversation, epoch).await?;
        Ok(GetRosterResponse {
            open,
            devices: roster.devices.into_iter().map(Into::into).collect(),
            current_epoch: current.0,
            retry_after_ms: if open { 0 } else { self.config.not_open_retry_ms },
            fan_out,
        })
    }

    /// Finishes the commit that made a closed epoch if whoever decided it seems gone; true when the epoch is open.
    async fn finish_left_behind(&self, conversation: ConversationId, epoch: MlsEpoch) -> Result<bool, StoreError> {
        let from = MlsEpoch(epoch.0.saturating_sub(1));
        let Some(intent) = self.ports.conversations.intent(conversation, from).await? else { return Ok(false) };
        let age = self.ports.clock.now().since(intent.decided_at);
        if age < Duration::from_millis(self.config.left_behind_after_ms) {
            return Ok(false);
        }
        Ok(self.finish(conversation, from, By::Other).await.is_ok())
    }
}
