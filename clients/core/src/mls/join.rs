// SPDX-License-Identifier: MIT OR Apache-2.0
//! Coming into a group: by a welcome, or again by an external commit (RFC 9420 section 12.4.3.2).

use openmls::messages::group_info::VerifiableGroupInfo;
use openmls::prelude::tls_codec::DeserializeBytes as _;
use openmls::prelude::{
    JoinBuilder, LeafNodeParameters, MlsGroup, MlsMessageBodyIn, MlsMessageIn, ProcessedWelcome, RatchetTreeIn,
};
use pli_domain::ConversationId;

use super::{Commit, GROUP, Group, Mls, MlsError, REJOIN, Store, join_config, refused, scope};

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
    pub fn rejoin(&mut self, id: ConversationId, group_info: &[u8], tree: Option<&[u8]>) -> Result<Commit, MlsError> {
        let info = verifiable(group_info)?;
        if info.group_id().as_slice() != id.as_bytes() {
            return Err(MlsError::Decode("the group id of a group info"));
        }
        let epoch = info.epoch().as_u64();
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
        Ok(commit)
    }

    /// Whether a re-join waits for the server's verdict.
    pub fn has_rejoin(&self, id: ConversationId) -> bool {
        self.groups.get(&id).is_some_and(|g| g.rejoin.is_some())
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

fn ratchet_tree(bytes: &[u8]) -> Result<RatchetTreeIn, MlsError> {
    RatchetTreeIn::tls_deserialize_exact_bytes(bytes).map_err(|_| MlsError::Decode("a ratchet tree"))
}
