// SPDX-License-Identifier: MIT OR Apache-2.0
//! Create.

use std::collections::BTreeSet;

use pli_api::Caller;
use pli_api::conversations::{CreateRequest, CreateResponse};
use pli_ports::{CreateOutcome, NewConversation};

use crate::devices;
use crate::error::CreateError;
use crate::group::Group;
use crate::objects;
use crate::service::Inner;

impl Inner {
    /// Makes a conversation from the group that the caller made, alone. Its other devices come with its first commit.
    pub(crate) async fn create(&self, caller: Caller, request: CreateRequest) -> Result<CreateResponse, CreateError> {
        let caller = self.caller(caller, &self.limits.changes)?;
        let now = self.ports.clock.now();
        let payloads = self.ports.payloads.as_ref();
        let group_info = objects::required(payloads, "group_info", request.group_info, now).await?;
        let (conversation, group, state) = Group::create(&self.crypto, group_info, caller, self.config.post_quantum)?;
        let leaves = group.leaves()?;
        if let Some(unfit) = devices::compare(&self.ports.directory, &leaves, &BTreeSet::new(), caller).await? {
            return Err(unfit.into());
        }
        let bytes = state.len();
        let epoch = group.epoch();
        let new = NewConversation { conversation, epoch, roster: vec![caller], state, created_at: now };
        match self.ports.conversations.create(new).await? {
            CreateOutcome::Created => {
                self.groups.put(conversation, group, bytes).await;
                self.metrics.created.add(1, &[]);
                Ok(CreateResponse {})
            }
            CreateOutcome::Taken => Err(CreateError::Taken),
        }
    }
}
