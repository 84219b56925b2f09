// SPDX-License-Identifier: MIT OR Apache-2.0
//! Coming into a group: by a welcome, or again by an external commit (RFC 9420 section 12.4.3.2).

use openmls::messages::group_info::{GroupInfo, VerifiableGroupInfo};
use openmls::prelude::tls_codec::{Deserialize as _, DeserializeBytes as _, Serialize as _};
use openmls::prelude::{
    ConfirmationTag, Extensions, GroupContext, JoinBuilder, LeafNodeIndex, LeafNodeParameters, MlsGroup,
    MlsMessageBodyIn, MlsMessageIn, ProcessedWelcome, RatchetTreeIn,
};
use pli_domain::ConversationId;

use super::{Commit, GROUP, Group, Leaf, Mls, MlsError, REJOIN, Store, device_of, join_config, leaves, refused, scope};

impl Mls {
    /// Joins by a welcome (MLSMessage) for one of this device's key packages; the package is used up. `tree` is needed
    /// where the welcome does not carry it. Answers the conversation. A group that is there already is replaced only
    /// if this device was removed from it.
    pub fn join(&mut self, welcome: &[u8], tree: Option<&[u8]>) -> Result<ConversationId, MlsError> {
        let clean = self.account.is_clean();
        let joined = self.join_with(welcome, tree);
        if joined.is_err() && clean {
            self.account.roll_back();
        }
        joined
    }

    fn join_with(&mut self, welcome: &[u8], tree: Option<&[u8]>) -> Result<ConversationId, MlsError> {
        let Ok(MlsMessageBodyIn::Welcome(welcome)) =
            MlsMessageIn::tls_deserialize_exact_bytes(welcome).map(MlsMessageIn::extract)
        else {
            return Err(MlsError::Decode("a welcome"));
        };
        let account = self.provider.on(&self.account);
        let processed = ProcessedWelcome::new_from_welcome(&account, &join_config(), welcome)
            .map_err(refused("opening a welcome"))?;
        let id = ConversationId::try_from(processed.unverified_group_info().group_id().as_slice())
            .map_err(|_| MlsError::Decode("the group id of a welcome"))?;
        if self.is_active(id) {
            return Err(MlsError::AlreadyIn);
        }
        let store = Store::new(scope(GROUP, id));
        let on = self.provider.on(&store);
        // Leaves that were never updated may be older than a key package's life; what counts is the device list.
        let mut builder = JoinBuilder::new(&on, processed).skip_lifetime_validation();
        if let Some(tree) = tree {
            builder = builder.with_ratchet_tree(ratchet_tree(tree)?);
        }
        let staged = builder.build().map_err(refused("checking a welcome"))?;
        let mls = staged.into_group(&on).map_err(refused("joining by a welcome"))?;
        self.forget(id);
        self.groups.insert(id, Group { store, mls, rejoin: None });
        self.touched.insert(id);
        Ok(id)
    }

    /// Makes an external commit by which this device comes into the group again; its old leaf goes. The group that
    /// stands is kept until [`Mls::finish_rejoin`].
    ///
    /// Answers the leaf that signed the group info, too: it knows the secret that the commit begins with, so the caller has
    /// to know that it may bring this device back.
    pub fn rejoin(
        &mut self,
        id: ConversationId,
        group_info: &[u8],
        tree: Option<&[u8]>,
    ) -> Result<(Commit, Leaf), MlsError> {
        let info = verifiable(group_info)?;
        if info.group_id().as_slice() != id.as_bytes() {
            return Err(MlsError::Decode("the group id of a group info"));
        }
        let epoch = info.epoch().as_u64();
        let signer = signer(&info).ok_or(MlsError::Decode("the signer of a group info"))?;
        let store = Store::new(scope(REJOIN, id));
        let (mls, bundle) = {
            let on = self.provider.on(&store);
            let leaf = LeafNodeParameters::builder().with_capabilities(self.suite.capabilities(&[])).build();
            let mut builder = MlsGroup::external_commit_builder().with_config(join_config()).skip_lifetime_validation();
            if let Some(tree) = tree {
                builder = builder.with_ratchet_tree(ratchet_tree(tree)?);
            }
            builder
                .build_group(&on, info, self.credential.clone())
                .map_err(refused("re-joining"))?
                .leaf_node_parameters(leaf)
                .load_psks(store.memory())
                .map_err(refused("re-joining"))?
                .build(self.provider.rand(), self.provider.crypto(), &self.signer, |_| true)
                .map_err(refused("re-joining"))?
                .finalize(&on)
                .map_err(refused("re-joining"))?
        };
        // openmls has verified the signature under a leaf, and only this device's old one is gone.
        let signer = leaf_at(&mls, signer).or_else(|| self.own_leaf()).ok_or(MlsError::Credential)?;
        let (commit, _, group_info) = bundle.into_messages();
        let bytes = |m: openmls::prelude::MlsMessageOut| m.to_bytes().map_err(refused("encoding a commit"));
        let commit = Commit {
            epoch,
            commit: bytes(commit)?,
            welcome: Vec::new(),
            group_info: group_info.map(bytes).transpose()?.ok_or(MlsError::Decode("the group info"))?,
            changes_nothing: false,
        };
        self.drop_rejoin(id);
        self.touched.insert(id);
        match self.groups.get_mut(&id) {
            Some(group) => group.rejoin = Some(Box::new((store, mls))),
            None => drop(self.groups.insert(id, placeholder(id, store, mls)?)),
        }
        Ok((commit, signer))
    }

    fn own_leaf(&self) -> Option<Leaf> {
        let key = self.credential.signature_key.as_slice().to_vec();
        Some((device_of(&self.credential.credential)?, key))
    }

    /// Whether there is a state of the group besides the one that a re-join would make.
    pub fn has_followed(&self, id: ConversationId) -> bool {
        self.groups.get(&id).is_some_and(|group| !group.store.is_empty())
    }

    /// Whether a re-join waits for the server's verdict.
    pub fn has_rejoin(&self, id: ConversationId) -> bool {
        self.groups.get(&id).is_some_and(|g| g.rejoin.is_some())
    }

    /// The leaves of the group that this device would join again, its own new one among them.
    pub fn members_to_rejoin(&self, id: ConversationId) -> Vec<Leaf> {
        let rejoin = self.groups.get(&id).and_then(|group| group.rejoin.as_ref());
        rejoin.map_or_else(Vec::new, |rejoin| leaves(&rejoin.1))
    }

    /// The server took the external commit: the new group replaces the old one.
    pub fn finish_rejoin(&mut self, id: ConversationId) -> Result<(), MlsError> {
        self.touched.insert(id);
        let group = self.groups.get_mut(&id).ok_or(MlsError::NoGroup)?;
        let (store, mls) = *group.rejoin.take().ok_or(MlsError::NoGroup)?;
        group.store.clear(&mut self.deleted);
        group.store = store.moved(scope(GROUP, id), &mut self.deleted);
        group.mls = mls;
        Ok(())
    }

    /// The external commit lost, or its answer will never come.
    pub fn drop_rejoin(&mut self, id: ConversationId) {
        self.touched.insert(id);
        let Some(group) = self.groups.get_mut(&id) else { return };
        if let Some(mut rejoin) = group.rejoin.take() {
            rejoin.0.clear(&mut self.deleted);
        }
        if group.store.is_empty() {
            self.groups.remove(&id);
        }
    }
}

/// A re-join of a group whose state this device never had or lost: nothing stands until it is finished.
pub(super) fn placeholder(id: ConversationId, store: Store, mls: MlsGroup) -> Result<Group, MlsError> {
    let shown = super::load_group(&store, id)?;
    Ok(Group { store: Store::new(scope(GROUP, id)), mls: shown, rejoin: Some(Box::new((store, mls))) })
}

pub(super) fn verifiable(bytes: &[u8]) -> Result<VerifiableGroupInfo, MlsError> {
    match MlsMessageIn::tls_deserialize_exact_bytes(bytes).map(MlsMessageIn::extract) {
        Ok(MlsMessageBodyIn::GroupInfo(info)) => Ok(info),
        _ => Err(MlsError::Decode("a group info")),
    }
}

/// The leaf that signed, which openmls keeps to itself: what stands behind the confirmation tag (RFC 9420 section 12.4.3).
fn signer(info: &VerifiableGroupInfo) -> Option<LeafNodeIndex> {
    let bytes = info.tls_serialize_detached().ok()?;
    let rest = &mut bytes.as_slice();
    GroupContext::tls_deserialize(rest).ok()?;
    Extensions::<GroupInfo>::tls_deserialize(rest).ok()?;
    ConfirmationTag::tls_deserialize(rest).ok()?;
    u32::tls_deserialize(rest).ok().map(LeafNodeIndex::new)
}

/// Nothing proves whose a leaf is but a list that names its key. Whoever signed is
/// still where it was; where nobody is, it was this device, whose new leaf may be in another place.
fn leaf_at(mls: &MlsGroup, leaf: LeafNodeIndex) -> Option<Leaf> {
    let member = mls.members().find(|member| member.index == leaf)?;
    Some((device_of(&member.credential)?, member.signature_key))
}

fn ratchet_tree(bytes: &[u8]) -> Result<RatchetTreeIn, MlsError> {
    RatchetTreeIn::tls_deserialize_exact_bytes(bytes).map_err(|_| MlsError::Decode("a ratchet tree"))
}
