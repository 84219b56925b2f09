// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checking an offered commit against a group's public state.

use std::collections::BTreeSet;

use bytes::Bytes;
use openmls::prelude::{
    DeserializeBytes, LeafNodeIndex, MlsMessageBodyIn, MlsMessageIn, OpenMlsCrypto, ProcessedMessageContent, Proposal,
    ProtocolMessage, QueuedProposal, Sender, StagedCommit,
};
use pli_domain::DeviceAddress;

use crate::group::{self, Group, InvalidGroup, Leaves, Source};
use crate::storage::GroupStorage;

/// Why a commit, proposal or welcome is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidMessage {
    #[error("{0} is not an MLSMessage of the right kind")]
    Encoding(&'static str),
    #[error("the message does not verify: {0}; make it anew from the group's newest epoch")]
    Verify(#[source] Source),
    #[error("the message is not the caller's: its sender is another device; sign it with the device's own leaf")]
    Sender,
    #[error("only a member may do this; re-join by an external commit that removes only your own old leaf")]
    NotExternal,
    #[error("this kind of proposal is not allowed here")]
    Proposal,
    #[error("an added leaf's credential must be basic with the identity account id, device id")]
    Credential,
    #[error("the welcome must be for exactly the key packages that the commit adds")]
    Welcome,
    #[error("the group that the commit makes: {0}")]
    Group(#[from] InvalidGroup),
    #[error("the server's view of the group cannot be changed: {0}")]
    Merge(#[source] Source),
}

/// What a device offers: MLSMessages; the welcome is empty when nobody is added. `proposals` are those that the
/// commit refers to and the service knows.
pub(crate) struct Offer<'a> {
    pub caller: DeviceAddress,
    pub commit: &'a Bytes,
    pub welcome: &'a Bytes,
    pub group_info: Bytes,
    pub proposals: &'a [Bytes],
}

/// A commit that verified, applied.
pub(crate) struct Applied {
    /// The group after it.
    pub group: Group,
    /// The same as bytes.
    pub state: Bytes,
    /// Who is in it, and with which keys.
    pub leaves: Leaves,
    /// Who gets the welcome, sorted.
    pub added: Vec<DeviceAddress>,
    /// The committer joined by it rather than being a member before.
    pub external: bool,
}

/// An offer that did not verify.
pub(crate) struct Refused {
    /// The group as it was, unless it was touched.
    pub unchanged: Option<Box<Group>>,
    pub invalid: InvalidMessage,
}

/// Applies an offer, or says why not.
pub(crate) fn apply(crypto: &impl OpenMlsCrypto, mut group: Group, offer: Offer<'_>) -> Result<Applied, Refused> {
    let untouched = offer.proposals.is_empty();
    match stage(crypto, &mut group, &offer) {
        Ok(staged) => merge(crypto, group, staged, offer).map_err(|invalid| Refused { unchanged: None, invalid }),
        Err(invalid) => Err(Refused { unchanged: untouched.then(|| Box::new(group)), invalid }),
    }
}

struct Staged {
    commit: Box<StagedCommit>,
    signer: LeafNodeIndex,
    external: bool,
}

fn stage(crypto: &impl OpenMlsCrypto, group: &mut Group, offer: &Offer<'_>) -> Result<Staged, InvalidMessage> {
    for bytes in offer.proposals {
        let (proposal, _) = proposal(crypto, group, bytes)?;
        // The storage keeps no proposals, so this cannot fail.
        group.public.add_proposal(&GroupStorage::default(), proposal).map_err(|e| InvalidMessage::Merge(e.into()))?;
    }
    let message = public_message("commit", offer.commit)?;
    let verify = |e: openmls::group::PublicProcessMessageError| InvalidMessage::Verify(e.into());
    let processed = group.public.process_message(crypto, message).map_err(verify)?;
    let (sender, named) = (processed.sender().clone(), group::device_of(processed.credential()));
    let ProcessedMessageContent::StagedCommitMessage(commit) = processed.into_content() else {
        return Err(InvalidMessage::Encoding("commit"));
    };
    if named != Some(offer.caller) {
        return Err(InvalidMessage::Sender);
    }
    if !commit.queued_proposals().all(|p| is_allowed(p.proposal())) {
        return Err(InvalidMessage::Proposal);
    }
    match sender {
        Sender::Member(signer) => Ok(Staged { commit, signer, external: false }),
        Sender::NewMemberCommit => external(group, commit, offer.caller),
        Sender::External(_) | Sender::NewMemberProposal => Err(InvalidMessage::Sender),
    }
}

/// A re-join removes nothing but the old leaf of the same device (RFC 9420 section 12.4.3.2 leaves that to us).
fn external(group: &Group, commit: Box<StagedCommit>, caller: DeviceAddress) -> Result<Staged, InvalidMessage> {
    let own = |leaf| group.device_at(leaf) == Some(caller);
    if !commit.remove_proposals().all(|p| own(p.remove_proposal().removed())) {
        return Err(InvalidMessage::NotExternal);
    }
    let signer = group.public.ext_commit_sender_index(&commit).map_err(|e| InvalidMessage::Verify(e.into()))?;
    Ok(Staged { commit, signer, external: true })
}

fn is_allowed(proposal: &Proposal) -> bool {
    matches!(
        proposal,
        Proposal::Add(_)
            | Proposal::Remove(_)
            | Proposal::SelfRemove
            | Proposal::PreSharedKey(_)
            | Proposal::ExternalInit(_)
            | Proposal::GroupContextExtensions(_)
    )
}

fn merge(
    crypto: &impl OpenMlsCrypto,
    mut group: Group,
    staged: Staged,
    offer: Offer<'_>,
) -> Result<Applied, InvalidMessage> {
    let Staged { commit, signer, external } = staged;
    let added = added(&commit)?;
    check_welcome(crypto, &commit, offer.welcome)?;

    let storage = GroupStorage::default();
    group.public.merge_commit(&storage, *commit).map_err(|e| InvalidMessage::Merge(e.into()))?;
    if group.device_at(signer) != Some(offer.caller) {
        return Err(InvalidMessage::Sender);
    }
    let leaves = group.leaves()?;
    group.check_group_info(crypto, group::parse_group_info(&offer.group_info)?, signer)?;
    group.group_info = offer.group_info;
    let state = group.state(storage);
    Ok(Applied { group, state, leaves, added, external })
}

fn added(commit: &StagedCommit) -> Result<Vec<DeviceAddress>, InvalidMessage> {
    let mut added = BTreeSet::new();
    for add in commit.add_proposals() {
        let credential = add.add_proposal().key_package().leaf_node().credential();
        added.insert(group::device_of(credential).ok_or(InvalidMessage::Credential)?);
    }
    Ok(added.into_iter().collect())
}

/// The welcome names exactly the key packages that the commit adds.
fn check_welcome(crypto: &impl OpenMlsCrypto, commit: &StagedCommit, welcome: &Bytes) -> Result<(), InvalidMessage> {
    let reference = |kp: &openmls::prelude::KeyPackage| kp.hash_ref(crypto).map(|r| r.as_slice().to_vec());
    let added = commit.add_proposals().map(|add| reference(add.add_proposal().key_package()));
    let mut added = added.collect::<Result<Vec<_>, _>>().map_err(|e| InvalidMessage::Verify(e.into()))?;
    if added.is_empty() && welcome.is_empty() {
        return Ok(());
    }
    let message = MlsMessageIn::tls_deserialize_exact_bytes(welcome);
    let Ok(MlsMessageBodyIn::Welcome(welcome)) = message.map(MlsMessageIn::extract) else {
        return Err(InvalidMessage::Encoding("welcome"));
    };
    let mut named: Vec<_> = welcome.secrets().iter().map(|s| s.new_member().as_slice().to_vec()).collect();
    added.sort();
    named.sort();
    let suite = commit.group_context().ciphersuite();
    if added == named && welcome.ciphersuite() == suite { Ok(()) } else { Err(InvalidMessage::Welcome) }
}

/// A proposal by a member to leave: what may be proposed apart from a commit. Answers who leaves.
pub(crate) fn proposal(
    crypto: &impl OpenMlsCrypto,
    group: &Group,
    bytes: &Bytes,
) -> Result<(QueuedProposal, DeviceAddress), InvalidMessage> {
    let message = public_message("proposal", bytes)?;
    let processed = group.public.process_message(crypto, message).map_err(|e| InvalidMessage::Verify(e.into()))?;
    let Sender::Member(leaf) = *processed.sender() else { return Err(InvalidMessage::Sender) };
    let sender = group.device_at(leaf).ok_or(InvalidMessage::Sender)?;
    let ProcessedMessageContent::ProposalMessage(proposal) = processed.into_content() else {
        return Err(InvalidMessage::Encoding("proposal"));
    };
    match proposal.proposal() {
        Proposal::SelfRemove => Ok((*proposal, sender)),
        Proposal::Remove(remove) if remove.removed() == leaf => Ok((*proposal, sender)),
        _ => Err(InvalidMessage::Proposal),
    }
}

fn public_message(what: &'static str, bytes: &[u8]) -> Result<ProtocolMessage, InvalidMessage> {
    let message = MlsMessageIn::tls_deserialize_exact_bytes(bytes).map_err(|_| InvalidMessage::Encoding(what))?;
    match message.extract() {
        MlsMessageBodyIn::PublicMessage(message) => Ok(message.into()),
        _ => Err(InvalidMessage::Encoding(what)),
    }
}
