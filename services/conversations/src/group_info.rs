// SPDX-License-Identifier: MIT OR Apache-2.0
//! GetGroupInfo.

use std::time::Duration;

use pli_api::Caller;
use pli_api::conversations::{GetGroupInfoRequest, GetGroupInfoResponse};
use pli_domain::MlsEpoch;

use crate::error::QuestionError;
use crate::finish::By;
use crate::objects;
use crate::service::Inner;

/// How long a large group info or tree is kept for a joiner to fetch.
const KEPT: Duration = Duration::from_secs(24 * 3600);

impl Inner {
    /// What a device needs to re-join by external commit: the newest epoch's GroupInfo as its committer signed it,
    /// and the tree of the state that the service keeps.
    pub(crate) async fn group_info(
        &self,
        caller: Caller,
        request: GetGroupInfoRequest,
    ) -> Result<GetGroupInfoResponse, QuestionError> {
        let caller = self.caller(caller, &self.limits.questions)?;
        let membership = self.membership(&request.conversation, caller).await?;
        let (conversation, head) = (membership.conversation, &membership.head);
        if !head.open {
            // Best effort: the commit that will be made from this answer finishes it otherwise.
            let _ = self.finish(conversation, MlsEpoch(head.epoch.0.saturating_sub(1)), By::Other).await;
        }
        let group = self.groups.take(conversation, head).await?;
        let (group_info, tree) = (group.group_info.clone(), group.ratchet_tree()?);
        self.groups.put(conversation, group, head.state.len()).await;

        let payloads = self.ports.payloads.as_ref();
        let expires_at = self.ports.clock.now().after(KEPT);
        Ok(GetGroupInfoResponse {
            group_info: Some(objects::keep(payloads, conversation, group_info, expires_at).await?),
            ratchet_tree: Some(objects::keep(payloads, conversation, tree, expires_at).await?),
            epoch: head.epoch.0,
        })
    }
}
