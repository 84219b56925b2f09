// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commit.

use std::collections::BTreeSet;
use std::time::Instant;

use bytes::Bytes;
use pli_api::Caller;
use pli_api::conversations::{CommitLost, CommitRequest, CommitResponse, CommitWon, commit_response::Outcome};
use pli_domain::limits::{EXPIRY_MAX, GROUP_DEVICES_MAX, MEMBERS_MAX};
use pli_domain::{AccountId, DeviceAddress, MlsEpoch};
use pli_ports::{CommitIntent, CommitOutcome};

use crate::commits::COMMITS_MAX;
use crate::devices;
use crate::error::{CommitError, Denied};
use crate::finish::By;
use crate::objects;
use crate::offer::{self, Applied, Offer};
use crate::record::CommitRecord;
use crate::service::{Inner, Membership};
use crate::{derive, wire};

/// How often a commit is tried again because another one was in the way unseen.
const TRIES: u32 = 3;
/// Most proposals that one commit may refer to.
const REFERENCES_MAX: usize = 64;

/// The offered objects, at hand.
struct Offered {
    epoch: MlsEpoch,
    commit: Bytes,
    commit_sha256: [u8; 32],
    welcome: Bytes,
    group_info: Bytes,
}

impl Inner {
    /// Decides the commit of an epoch, or tells what came first.
    pub(crate) async fn commit(&self, caller: Caller, request: CommitRequest) -> Result<CommitResponse, CommitError> {
        let begun = Instant::now();
        let caller = self.caller(caller, &self.limits.changes)?;
        let conversation = request.conversation.clone();
        let offered = self.offered(request).await?;
        for _ in 0..TRIES {
            if let Some(response) = self.already_won(&conversation, caller, &offered).await? {
                return Ok(response);
            }
            let membership = self.membership(&conversation, caller).await?;
            if offered.epoch > membership.head.epoch {
                let current = membership.head.epoch;
                return Err(CommitError::Ahead { offered: offered.epoch.0, current });
            }
            if offered.epoch < membership.head.epoch {
                return self.lost(&membership, offered.epoch).await;
            }
            // Nothing is decided while an epoch is closed: what made it comes first.
            if !membership.head.open {
                self.finish(membership.conversation, MlsEpoch(offered.epoch.0.saturating_sub(1)), By::Other).await?;
            }
            if self.decide(&membership, &offered).await? {
                // Before anybody can hear of it, its committer too.
                self.metrics.commit("won");
                self.finish(membership.conversation, offered.epoch, By::Committer).await?;
                self.metrics.commit_seconds.record(begun.elapsed().as_secs_f64(), &[]);
                return Ok(won(offered.epoch));
            }
        }
        Err(CommitError::Contended)
    }

    async fn offered(&self, request: CommitRequest) -> Result<Offered, CommitError> {
        let (payloads, now) = (self.ports.payloads.as_ref(), self.ports.clock.now());
        let commit = objects::required(payloads, "commit", request.commit, now).await?;
        let welcome = objects::optional(payloads, "welcome", request.welcome, now).await?;
        let group_info = objects::required(payloads, "group_info", request.group_info, now).await?;
        let commit_sha256 = objects::sha256(&commit);
        Ok(Offered { epoch: MlsEpoch(request.epoch), commit, commit_sha256, welcome, group_info })
    }

    /// The caller asks again about a commit of its own that won: it is finished if it was not, and told so, even if
    /// the caller was removed since.
    async fn already_won(
        &self,
        conversation: &Bytes,
        caller: DeviceAddress,
        offered: &Offered,
    ) -> Result<Option<CommitResponse>, CommitError> {
        let conversation = pli_api::ids::from("conversation", conversation).map_err(Denied::from)?;
        let intent = self.ports.conversations.intent(conversation, offered.epoch).await.map_err(Denied::from)?;
        let Some(intent) = intent.filter(|intent| intent.committer == caller) else { return Ok(None) };
        let record = CommitRecord::read(&intent.payload).map_err(Denied::from)?;
        if record.commit_sha256 != offered.commit_sha256.as_slice() {
            return Ok(None);
        }
        let made = self.ports.conversations.roster(conversation, offered.epoch.next()).await.map_err(Denied::from)?;
        if made.is_some_and(|roster| !roster.open) {
            self.finish(conversation, offered.epoch, By::Retry).await?;
        }
        self.metrics.commit("again");
        Ok(Some(won(offered.epoch)))
    }

    async fn lost(&self, membership: &Membership, offered: MlsEpoch) -> Result<CommitResponse, CommitError> {
        let current = membership.head.epoch;
        let missed = self.commits_between(membership.conversation, offered, current, COMMITS_MAX).await?;
        self.metrics.commit("lost");
        let lost = CommitLost { current_epoch: current.0, missed: missed.commits };
        Ok(CommitResponse { outcome: Some(Outcome::Lost(lost)) })
    }

    /// Verifies the offer and decides it by compare-and-set; false when another commit was first.
    async fn decide(&self, membership: &Membership, offered: &Offered) -> Result<bool, CommitError> {
        let conversation = membership.conversation;
        let applied = self.apply(membership, offered).await?;
        check_size(&applied, self.config.state_bytes_max)?;
        let whole = brought(&applied);
        let leaves = if applied.external { only(&applied, membership.caller) } else { applied.leaves.clone() };
        if let Some(unfit) = devices::compare(&self.ports.directory, &leaves, &whole, membership.caller).await? {
            return Err(unfit.into());
        }
        let intent = self.intent(membership, offered, &applied).await?;
        match self.ports.conversations.commit(intent).await.map_err(Denied::from)? {
            CommitOutcome::Won => {
                self.groups.put(conversation, applied.group, applied.state.len()).await;
                Ok(true)
            }
            CommitOutcome::Lost { .. } => Ok(false),
            CommitOutcome::Unknown => Err(Denied::UnknownConversation.into()),
        }
    }

    async fn apply(&self, membership: &Membership, offered: &Offered) -> Result<Applied, CommitError> {
        let conversation = membership.conversation;
        let proposals = self.proposals(membership, &offered.commit).await?;
        let group = self.groups.take(conversation, &membership.head).await.map_err(Denied::from)?;
        let offer = Offer {
            caller: membership.caller,
            commit: &offered.commit,
            welcome: &offered.welcome,
            group_info: offered.group_info.clone(),
            proposals: &proposals,
        };
        match offer::apply(&self.crypto, group, offer) {
            Ok(applied) => Ok(applied),
            Err(refused) => {
                if let Some(group) = refused.unchanged {
                    self.groups.put(conversation, *group, membership.head.state.len()).await;
                }
                Err(refused.invalid.into())
            }
        }
    }

    /// The proposals of this epoch that the commit refers to. One that is not known fails the verification later.
    async fn proposals(&self, membership: &Membership, commit: &[u8]) -> Result<Vec<Bytes>, CommitError> {
        let now = self.ports.clock.now();
        let mut proposals = Vec::new();
        for reference in wire::proposal_references(commit).into_iter().take(REFERENCES_MAX) {
            let id = derive::proposal_payload(membership.conversation, membership.head.epoch, &reference);
            let found = objects::whole(self.ports.payloads.as_ref(), id, now).await.map_err(Denied::from)?;
            proposals.extend(found);
        }
        Ok(proposals)
    }

    async fn intent(
        &self,
        membership: &Membership,
        offered: &Offered,
        applied: &Applied,
    ) -> Result<CommitIntent, CommitError> {
        let (payloads, conversation) = (self.ports.payloads.as_ref(), membership.conversation);
        let decided_at = self.ports.clock.now();
        let expires_at = decided_at.after(EXPIRY_MAX);
        let commit = objects::keep(payloads, conversation, offered.commit.clone(), expires_at);
        let mut record = CommitRecord {
            commit: Some(commit.await.map_err(Denied::from)?),
            commit_sha256: Bytes::copy_from_slice(&offered.commit_sha256),
            added: applied.added.iter().map(|&device| device.into()).collect(),
            ..CommitRecord::default()
        };
        if !applied.added.is_empty() {
            let welcome = objects::keep(payloads, conversation, offered.welcome.clone(), expires_at);
            record.welcome = Some(welcome.await.map_err(Denied::from)?);
        }
        Ok(CommitIntent {
            conversation,
            from: offered.epoch,
            roster: applied.leaves.keys().copied().collect(),
            state: applied.state.clone(),
            committer: membership.caller,
            payload: record.encode_stamped(),
            decided_at,
        })
    }
}

fn won(offered: MlsEpoch) -> CommitResponse {
    CommitResponse { outcome: Some(Outcome::Won(CommitWon { epoch: offered.next().0 })) }
}

/// The accounts of which the commit brings in devices, as far as there is room for more.
fn brought(applied: &Applied) -> BTreeSet<AccountId> {
    let has_room = applied.leaves.len() < GROUP_DEVICES_MAX;
    applied.added.iter().filter(|_| has_room).map(|device| device.account).collect()
}

/// A re-join answers for its own leaf only: it can neither add nor remove others.
fn only(applied: &Applied, device: DeviceAddress) -> crate::group::Leaves {
    applied.leaves.iter().filter(|(d, _)| **d == device).map(|(d, k)| (*d, k.clone())).collect()
}

fn check_size(applied: &Applied, state_bytes_max: u64) -> Result<(), CommitError> {
    let accounts = applied.leaves.keys().map(|device| device.account).collect::<BTreeSet<_>>().len();
    if accounts > MEMBERS_MAX {
        return Err(CommitError::TooManyAccounts { accounts });
    }
    let devices = applied.leaves.len();
    if devices > GROUP_DEVICES_MAX {
        return Err(CommitError::TooManyDevices { devices });
    }
    // Renewals make the state larger too, as they fill the tree: room for them is kept.
    let bytes_max = if applied.added.is_empty() { state_bytes_max } else { state_bytes_max / 2 };
    let bytes = applied.state.len();
    if bytes as u64 > bytes_max {
        return Err(CommitError::StateTooLarge { bytes, bytes_max });
    }
    Ok(())
}
