// SPDX-License-Identifier: MIT OR Apache-2.0
//! Propose.

use std::time::Duration;

use pli_api::conversations::{Object, ProposeRequest, ProposeResponse, object};
use pli_api::log::Content;
use pli_api::{Caller, ids};
use pli_domain::limits::EXPIRY_MAX;
use pli_domain::{MlsEpoch, SendId};

use crate::derive;
use crate::error::{Denied, ProposeError};
use crate::fanout::Letter;
use crate::finish::By;
use crate::offer::{self, InvalidMessage};
use crate::service::{Inner, Membership};

/// Most bytes of a proposal; one to leave has about 250.
pub(crate) const PROPOSAL_BYTES_MAX: usize = 8 * 1024;
/// How long a proposal can be referred to: as long as its envelope lives.
const KEPT: Duration = EXPIRY_MAX;

impl Inner {
    /// Brings a member's wish to leave to everybody. It is kept by its hash first, since whoever commits it only
    /// refers to it.
    pub(crate) async fn propose(
        &self,
        caller: Caller,
        request: ProposeRequest,
    ) -> Result<ProposeResponse, ProposeError> {
        let caller = self.caller(caller, &self.limits.changes)?;
        if request.proposal.len() > PROPOSAL_BYTES_MAX {
            return Err(ProposeError::TooLarge(request.proposal.len()));
        }
        let send_id: SendId = ids::from("send_id", &request.send_id).map_err(Denied::from)?;
        let membership = self.member(&request.conversation, caller).await?;
        let epoch = membership.head.epoch;
        if epoch.0 != request.epoch {
            return Err(ProposeError::WrongEpoch { current: epoch });
        }
        if !membership.head.open {
            self.finish(membership.conversation, MlsEpoch(epoch.0.saturating_sub(1)), By::Other).await?;
        }
        self.keep_proposal(&membership, &request).await?;

        let conversation = membership.conversation;
        let letter = Letter {
            sender: caller,
            send_id,
            conversation,
            epoch,
            content: Content::Proposal,
            body: Object { object: Some(object::Object::Inline(request.proposal)) },
            accepted_at: self.ports.clock.now(),
        };
        let others = membership.roster.iter().copied().filter(|device| *device != caller);
        let id = |shard| derive::proposal_entry(conversation, caller.device, send_id, shard);
        let entries = match self.is_spread(&membership.roster) {
            true => vec![self.entry_to_spread(&letter, id)],
            false => self.entries(&letter, others, id),
        };
        self.append(entries).await?;
        Ok(ProposeResponse {})
    }

    /// Verifies the proposal and keeps it where a commit of this epoch finds it.
    async fn keep_proposal(&self, membership: &Membership, request: &ProposeRequest) -> Result<(), ProposeError> {
        let (conversation, head) = (membership.conversation, &membership.head);
        let group = self.groups.take(conversation, head).await.map_err(Denied::from)?;
        let verified = offer::proposal(&self.crypto, &group, &request.proposal);
        self.groups.put(conversation, group, head.state.len()).await;
        let (proposal, sender) = verified?;
        if sender != membership.caller {
            return Err(InvalidMessage::Sender.into());
        }
        let reference = proposal.proposal_reference_ref().as_slice();
        let id = derive::proposal_payload(conversation, head.epoch, reference);
        let expires_at = self.ports.clock.now().after(KEPT);
        self.ports.payloads.put(id, request.proposal.clone(), expires_at).await?;
        Ok(())
    }
}
