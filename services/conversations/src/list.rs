// SPDX-License-Identifier: MIT OR Apache-2.0
//! List.

use bytes::Bytes;
use pli_api::conversations::{ConversationEpoch, ListRequest, ListResponse};
use pli_api::{Caller, ids};

use crate::error::{Denied, QuestionError};
use crate::service::Inner;

/// Most conversations of one page.
const PAGE_MAX: u32 = 256;

impl Inner {
    /// A page of the caller's conversations.
    pub(crate) async fn list(&self, caller: Caller, request: ListRequest) -> Result<ListResponse, QuestionError> {
        let caller = self.caller(caller, &self.limits.questions)?;
        let after = match request.after.is_empty() {
            true => None,
            false => Some(ids::from("after", &request.after).map_err(Denied::from)?),
        };
        let mut found = self.ports.conversations.of_account(caller.account, after, PAGE_MAX + 1).await?;
        let more = found.len() > PAGE_MAX as usize;
        found.truncate(PAGE_MAX as usize);
        let conversations = found.into_iter().map(|(conversation, epoch)| ConversationEpoch {
            conversation: Bytes::copy_from_slice(conversation.as_bytes()),
            epoch: epoch.0,
        });
        Ok(ListResponse { conversations: conversations.collect(), more })
    }
}
