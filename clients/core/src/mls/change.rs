// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commits and proposals: made, decided, taken in.

use openmls::prelude::tls_codec::DeserializeBytes as _;
use openmls::prelude::{
    LeafNodeIndex, MlsMessageBodyIn, MlsMessageIn, ProcessedMessageContent, Proposal, ProtocolMessage, PublicMessageIn,
    Sender, StagedCommit,
};
use pli_domain::{ConversationId, DeviceAddress};

use super::{Group, Mls, MlsError, device_of, load_group, refused};

/// The authenticated data of a commit that completes what goes on after a restore, and of no other.
const COMPLETES: &[u8] = &[1];

/// A device with the key of its device list and a key package.
pub type Addition = (DeviceAddress, Vec<u8>, Vec<u8>);

/// A commit that waits for the server's verdict, as MLSMessages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The epoch that it ends.
    pub epoch: u64,
    /// A PublicMessage.
    pub commit: Vec<u8>,
    /// For everybody who is added; empty when nobody is.
    pub welcome: Vec<u8>,
    /// Of the new epoch, with ratchet tree.
    pub group_info: Vec<u8>,
    /// It renews the keys of whoever made it, and nothing else.
    pub changes_nothing: bool,
}

/// What a commit did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommitSummary {
    /// Who made it; none if its credential is unreadable.
    pub by: Option<DeviceAddress>,
    /// Devices that came.
    pub added: Vec<DeviceAddress>,
    /// Devices that went.
    pub removed: Vec<DeviceAddress>,
    /// This device went.
    pub self_removed: bool,
    /// Whoever made it came, or came back, by it.
    pub external: bool,
    /// Whoever made it has new keys by it: it carries an update path.
    pub renewed: bool,
    /// Its maker says that whom it adds was in what the conversation goes on for, and that nobody wished for them now. Not
    /// known here of an own one.
    pub completes: bool,
}

/// What a handshake message was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handshake {
    /// A commit, merged.
    Commit(CommitSummary),
    /// This device's own pending commit, merged.
    OwnCommit(CommitSummary),
    /// A member wants to leave.
    Leave(DeviceAddress),
    /// Of an epoch that is over here.
    Old,
    /// Of an epoch that is not here yet.
    Future,
}

impl Mls {
    /// Makes a commit that adds and removes devices and keeps it pending. `add` are devices with the key of their
    /// device list and a key package. A pending commit made before is dropped. One that changes nothing renews this
    /// device's keys alone; one that adds alone is the only kind that does not.
    pub fn commit(
        &mut self,
        id: ConversationId,
        add: &[Addition],
        remove: &[DeviceAddress],
    ) -> Result<Commit, MlsError> {
        self.commit_as(id, add, remove, &[])
    }

    /// The same, of one that brings together again whoever was in what the conversation goes on for.
    pub fn commit_that_completes(
        &mut self,
        id: ConversationId,
        add: &[Addition],
        remove: &[DeviceAddress],
    ) -> Result<Commit, MlsError> {
        self.commit_as(id, add, remove, COMPLETES)
    }

    fn commit_as(
        &mut self,
        id: ConversationId,
        add: &[Addition],
        remove: &[DeviceAddress],
        authenticated: &[u8],
    ) -> Result<Commit, MlsError> {
        let packages = add.iter().map(|(device, key, package)| self.checked_package(*device, key, package));
        let packages = packages.collect::<Result<Vec<_>, _>>()?;
        self.drop_commit(id)?;
        self.touched.insert(id);
        let changes_nothing = add.is_empty() && remove.is_empty();
        let group = self.groups.get_mut(&id).ok_or(MlsError::NoGroup)?;
        let leaves: Vec<LeafNodeIndex> = group
            .mls
            .members()
            .filter(|m| device_of(&m.credential).is_some_and(|d| remove.contains(&d)))
            .map(|m| m.index)
            .collect();
        let (epoch, provider) = (group.mls.epoch().as_u64(), self.provider.on(&group.store));
        group.mls.set_aad(authenticated.to_vec());
        let bundle = group
            .mls
            .commit_builder()
            .propose_adds(packages)
            .propose_removals(leaves)
            .force_self_update(changes_nothing)
            .load_psks(group.store.memory())
            .map_err(refused("making a commit"))?
            .build(self.provider.rand(), self.provider.crypto(), &self.signer, |_| true)
            .map_err(refused("making a commit"))?
            .stage_commit(&provider)
            .map_err(refused("making a commit"))?;
        let (commit, welcome, group_info) = bundle.into_messages();
        let bytes = |m: openmls::prelude::MlsMessageOut| m.to_bytes().map_err(refused("encoding a commit"));
        Ok(Commit {
            epoch,
            commit: bytes(commit)?,
            welcome: welcome.map(bytes).transpose()?.unwrap_or_default(),
            group_info: group_info.map(bytes).transpose()?.ok_or(MlsError::Decode("the group info"))?,
            changes_nothing,
        })
    }

    /// The server took the pending commit.
    pub fn merge_commit(&mut self, id: ConversationId) -> Result<CommitSummary, MlsError> {
        let own = self.credential.credential.clone();
        self.touched.insert(id);
        let group = self.groups.get_mut(&id).ok_or(MlsError::NoGroup)?;
        let mut summary = group.mls.pending_commit().map(|staged| summarize(&group.mls, staged)).unwrap_or_default();
        summary.by = device_of(&own);
        let provider = self.provider.on(&group.store);
        group.mls.merge_pending_commit(&provider).map_err(refused("merging the commit"))?;
        Ok(summary)
    }

    /// Another commit won: the pending one is void.
    pub fn drop_commit(&mut self, id: ConversationId) -> Result<(), MlsError> {
        self.touched.insert(id);
        let group = self.groups.get_mut(&id).ok_or(MlsError::NoGroup)?;
        if group.mls.pending_commit().is_some() {
            group.mls.clear_pending_commit(group.store.memory()).map_err(refused("dropping the commit"))?;
        }
        Ok(())
    }

    /// Says to the others that this device leaves; a PublicMessage for the current epoch. Whoever reads it removes this
    /// device by a commit.
    pub fn propose_leave(&mut self, id: ConversationId) -> Result<Vec<u8>, MlsError> {
        self.drop_commit(id)?;
        self.touched.insert(id);
        let group = self.groups.get_mut(&id).ok_or(MlsError::NoGroup)?;
        let provider = self.provider.on(&group.store);
        let proposal = group.mls.leave_group(&provider, &self.signer).map_err(refused("proposing to leave"))?;
        // Members answer it with a removal by value, so nothing waits for this proposal here.
        group.mls.clear_pending_proposals(group.store.memory()).map_err(refused("proposing to leave"))?;
        proposal.to_bytes().map_err(refused("encoding a proposal"))
    }

    /// Takes in a commit or a proposal that the server decided on, in the order of epochs.
    pub fn handshake(&mut self, id: ConversationId, bytes: &[u8]) -> Result<Handshake, MlsError> {
        let message = public_message(bytes)?;
        self.touched.insert(id);
        let group = self.groups.get_mut(&id).ok_or(MlsError::NoGroup)?;
        let (theirs, ours) = (message.epoch().as_u64(), group.mls.epoch().as_u64());
        if theirs != ours {
            return Ok(if theirs < ours { Handshake::Old } else { Handshake::Future });
        }
        let clean = group.store.is_clean();
        let outcome = take_in(&self.provider, group, message);
        if outcome.is_err() && clean {
            group.store.roll_back();
            group.mls = load_group(&group.store, id)?;
        }
        outcome
    }
}

fn take_in(provider: &super::Provider, group: &mut Group, message: PublicMessageIn) -> Result<Handshake, MlsError> {
    let on = provider.on(&group.store);
    let message = ProtocolMessage::from(message);
    let processed = group.mls.process_message(&on, message).map_err(refused("processing a handshake"))?;
    let (sender, by) = (processed.sender().clone(), device_of(processed.credential()));
    let completes = processed.aad() == COMPLETES;
    match processed.into_content() {
        ProcessedMessageContent::StagedCommitMessage(staged) => {
            let external = sender == Sender::NewMemberCommit;
            let summary = CommitSummary { by, external, completes, ..summarize(&group.mls, &staged) };
            group.mls.merge_staged_commit(&on, *staged).map_err(refused("merging a commit"))?;
            Ok(Handshake::Commit(summary))
        }
        ProcessedMessageContent::OwnPendingCommit => {
            let mut summary =
                group.mls.pending_commit().map(|staged| summarize(&group.mls, staged)).unwrap_or_default();
            summary.by = by;
            group.mls.merge_pending_commit(&on).map_err(refused("merging the commit"))?;
            Ok(Handshake::OwnCommit(summary))
        }
        ProcessedMessageContent::ProposalMessage(proposal) => match (proposal.proposal(), sender) {
            (Proposal::SelfRemove, Sender::Member(_)) => by.map(Handshake::Leave).ok_or(MlsError::Credential),
            (Proposal::Remove(remove), Sender::Member(leaf)) if remove.removed() == leaf => {
                by.map(Handshake::Leave).ok_or(MlsError::Credential)
            }
            _ => Err(MlsError::Decode("a proposal to leave")),
        },
        _ => Err(MlsError::Decode("a handshake")),
    }
}

fn summarize(group: &openmls::prelude::MlsGroup, staged: &StagedCommit) -> CommitSummary {
    let added =
        staged.add_proposals().filter_map(|a| device_of(a.add_proposal().key_package().leaf_node().credential()));
    let removed = staged.remove_proposals().filter_map(|r| {
        let leaf = r.remove_proposal().removed();
        device_of(&group.member_at(leaf)?.credential)
    });
    CommitSummary {
        by: None,
        added: added.collect(),
        removed: removed.collect(),
        self_removed: staged.self_removed(),
        external: false,
        renewed: staged.update_path_leaf_node().is_some(),
        completes: false,
    }
}

fn public_message(bytes: &[u8]) -> Result<PublicMessageIn, MlsError> {
    match MlsMessageIn::tls_deserialize_exact_bytes(bytes).map(MlsMessageIn::extract) {
        Ok(MlsMessageBodyIn::PublicMessage(message)) => Ok(message),
        _ => Err(MlsError::Decode("a handshake")),
    }
}
