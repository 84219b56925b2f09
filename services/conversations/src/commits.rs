// SPDX-License-Identifier: MIT OR Apache-2.0
//! GetCommits.

use pli_api::Caller;
use pli_api::conversations::{EpochCommit, GetCommitsRequest, GetCommitsResponse};
use pli_domain::limits::PAGE_BYTES_MAX;
use pli_domain::{ConversationId, MlsEpoch};
use prost::Message;

use crate::error::{Denied, QuestionError};
use crate::record::CommitRecord;
use crate::service::Inner;

/// Most commits of one answer.
pub(crate) const COMMITS_MAX: usize = 64;

/// Commits in order, and whether one of them is no longer kept.
pub(crate) struct Commits {
    pub commits: Vec<EpochCommit>,
    pub gone: bool,
}

impl Inner {
    /// The commits from an epoch on, for members.
    pub(crate) async fn get_commits(
        &self,
        caller: Caller,
        request: GetCommitsRequest,
    ) -> Result<GetCommitsResponse, QuestionError> {
        let caller = self.caller(caller, &self.limits.questions)?;
        let membership = self.membership(&request.conversation, caller).await?;
        let current = membership.head.epoch;
        let from = MlsEpoch(request.from);
        let found = self.commits_between(membership.conversation, from, current, COMMITS_MAX).await?;
        Ok(GetCommitsResponse { commits: found.commits, current_epoch: current.0, gone: found.gone })
    }

    /// The commits that ended the epochs from `from` to before `to`: at most `limit`, and no more than fit an answer
    /// (one always does).
    pub(crate) async fn commits_between(
        &self,
        conversation: ConversationId,
        from: MlsEpoch,
        to: MlsEpoch,
        limit: usize,
    ) -> Result<Commits, Denied> {
        let mut found = Commits { commits: Vec::new(), gone: false };
        let mut bytes = 0;
        for epoch in (from.0..to.0).take(limit) {
            let Some(intent) = self.ports.conversations.intent(conversation, MlsEpoch(epoch)).await? else {
                found.gone = true;
                break;
            };
            let commit = CommitRecord::read(&intent.payload)?.commit;
            let commit = EpochCommit { epoch, committer: Some(intent.committer.into()), commit };
            bytes += commit.encoded_len();
            if bytes > PAGE_BYTES_MAX && !found.commits.is_empty() {
                break;
            }
            found.commits.push(commit);
        }
        Ok(found)
    }
}
