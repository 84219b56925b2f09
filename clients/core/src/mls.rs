// SPDX-License-Identifier: MIT OR Apache-2.0
//! MLS (RFC 9420) by openmls: one group per conversation, its leaves are devices.
//!
//! openmls writes to an in-memory store of its own per conversation; after each operation [`Mls::take_changes`] is the
//! difference, to be committed before anything that the operation made leaves. An operation that fails leaves the store
//! as it was.
//!
//! - Suite 0x0001 by default, 0x0003 allowed, 0x004F where the server takes it ([`Suite`]); a device makes conversations and
//!   key packages of one suite. The group id is the conversation id.
//! - A leaf's credential is basic: account id, then device id; its signature key is the device key.
//! - Handshakes are PublicMessages (the server keeps the public state), application messages PrivateMessages, padded
//!   to multiples of [`PADDING_BYTES`].
//! - The authenticated data of an application message is its send id and class, so that a server cannot give a message
//!   another name.
//! - Three past epochs can still be opened: the two that the server still takes, and one more.

mod change;
mod join;
mod message;
mod packages;
mod provider;
mod spent;
mod store;
mod suite;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ed25519_dalek::{Signer as _, SigningKey};
use openmls::prelude::{
    BasicCredential, Credential, CredentialWithKey, GroupId, MlsGroup, MlsGroupCreateConfig, MlsGroupJoinConfig,
    PURE_PLAINTEXT_WIRE_FORMAT_POLICY, SenderRatchetConfiguration,
};
use openmls_traits::signatures::{Signer, SignerError};
use openmls_traits::types::SignatureScheme;
use pli_domain::limits::EPOCHS_BEHIND_MAX;
use pli_domain::{AccountId, ConversationId, DeviceAddress, DeviceId, UnixMillis};

pub use change::{Addition, Commit, CommitSummary, Handshake};
pub use message::{OpenError, Opened};
use provider::{Provider, Rand};
use store::Store;
pub use suite::{InvalidSuite, Suite};

/// Application messages are padded to a multiple of this.
pub const PADDING_BYTES: usize = 128;
/// How far out of order messages of one sender may arrive within an epoch: twice the send window. The outbox keeps what it
/// seals within it.
pub const OUT_OF_ORDER_TOLERANCE: u32 = 128;
/// How many messages of one sender may be missing in a row: twice a full outbox. Bounds the work that a forged
/// generation costs.
const FORWARD_DISTANCE_MAX: u32 = 20_000;

/// An MLS operation that failed; the store is as it was.
#[derive(Debug, thiserror::Error)]
pub enum MlsError {
    /// There is no such group here.
    #[error("there is no group for the conversation")]
    NoGroup,
    /// A welcome for a group that this device is in.
    #[error("this device is in the group already")]
    AlreadyIn,
    /// Bytes that are not what they should be.
    #[error("{0} does not decode")]
    Decode(&'static str),
    /// openmls refused.
    #[error("{operation} failed: {source}")]
    Refused {
        /// What was tried.
        operation: &'static str,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A key package of another device or suite than asked for.
    #[error("the key package is not the device's")]
    KeyPackage,
    /// A key package for groups of another suite.
    #[error("the other device takes part in conversations of suite {theirs} alone, and this one makes them of {ours}")]
    Suite {
        /// The package's.
        theirs: String,
        /// This device's.
        ours: Suite,
    },
    /// A leaf whose credential is not account and device.
    #[error("a leaf's credential is not an account and a device")]
    Credential,
}

/// Of which device a leaf says that it is, and its key.
pub type Leaf = (DeviceAddress, Vec<u8>);

fn leaves(group: &MlsGroup) -> Vec<Leaf> {
    group.members().filter_map(|m| Some((device_of(&m.credential)?, m.signature_key))).collect()
}

fn refused<E>(operation: &'static str) -> impl FnOnce(E) -> MlsError
where
    E: std::error::Error + Send + Sync + 'static,
{
    move |source| MlsError::Refused { operation, source: Box::new(source) }
}

/// Signs with the device key, as openmls wants it.
struct DeviceSigner(SigningKey);

impl Signer for DeviceSigner {
    fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, SignerError> {
        Ok(self.0.sign(payload).to_bytes().to_vec())
    }
    fn signature_scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// A record of MLS state: which store (see [`Mls::load`]), its key there, and the value or none to delete it.
pub type MlsChange = (Vec<u8>, Option<Vec<u8>>);

struct Group {
    store: Store,
    mls: MlsGroup,
    /// A re-join that waits for the server's verdict: the group as it will be.
    rejoin: Option<Box<(Store, MlsGroup)>>,
}

/// See the module.
pub struct Mls {
    provider: Provider,
    signer: DeviceSigner,
    credential: CredentialWithKey,
    suite: Suite,
    /// Key packages.
    account: Store,
    /// Keys of rows of key packages of last resort that were used, with the server time of the first use.
    spent: BTreeMap<Vec<u8>, UnixMillis>,
    groups: BTreeMap<ConversationId, Group>,
    /// Groups whose stores may have changed since the last changes were taken.
    touched: BTreeSet<ConversationId>,
    deleted: Vec<MlsChange>,
}

impl fmt::Debug for Mls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mls({} groups)", self.groups.len())
    }
}

const ACCOUNT: u8 = 0;
const GROUP: u8 = 1;
const REJOIN: u8 = 2;

impl Mls {
    /// The MLS side of a device that has no state yet.
    pub fn new(address: DeviceAddress, device_key: &SigningKey, seed: [u8; 32]) -> Self {
        let identity = [address.account.as_bytes().as_slice(), address.device.as_bytes()].concat();
        let credential = CredentialWithKey {
            credential: BasicCredential::new(identity).into(),
            signature_key: device_key.verifying_key().to_bytes().to_vec().into(),
        };
        Self {
            provider: Provider::new(Rand::new(seed)),
            signer: DeviceSigner(device_key.clone()),
            credential,
            suite: Suite::default(),
            account: Store::new(vec![ACCOUNT]),
            spent: BTreeMap::new(),
            groups: BTreeMap::new(),
            touched: BTreeSet::new(),
            deleted: Vec::new(),
        }
    }

    /// The MLS side of this identity's device, without state yet.
    pub fn of(identity: &crate::identity::Identity, seed: [u8; 32]) -> Self {
        Self { suite: identity.suite(), ..Self::new(identity.address(), identity.signing_key(), seed) }
    }

    /// Makes key packages and groups of another suite from now on.
    pub(crate) const fn set_suite(&mut self, suite: Suite) {
        self.suite = suite;
    }

    /// Adds the state that committed changes describe; errors when a group cannot be read.
    pub fn load(&mut self, rows: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<(), MlsError> {
        let mut stores: BTreeMap<Vec<u8>, Store> = BTreeMap::new();
        for (key, value) in rows {
            let scope = if key.first() == Some(&ACCOUNT) { 1 } else { 17 };
            let (scope, key) = key.split_at_checked(scope).ok_or(MlsError::Decode("an MLS row"))?;
            stores.entry(scope.to_vec()).or_insert_with(|| Store::new(scope.to_vec())).restore(key, value);
        }
        self.account = stores.remove([ACCOUNT].as_slice()).unwrap_or_else(|| Store::new(vec![ACCOUNT]));
        self.load_spent()?;
        let mut rejoins: BTreeMap<ConversationId, Store> = BTreeMap::new();
        for (scope, store) in stores {
            let id = ConversationId::try_from(&scope[1..]).map_err(|_| MlsError::Decode("an MLS row"))?;
            match scope[0] {
                GROUP => {
                    let mls = load_group(&store, id)?;
                    self.groups.insert(id, Group { store, mls, rejoin: None });
                }
                REJOIN => drop(rejoins.insert(id, store)),
                _ => return Err(MlsError::Decode("an MLS row")),
            }
        }
        for (id, store) in rejoins {
            let mls = load_group(&store, id)?;
            match self.groups.get_mut(&id) {
                Some(group) => group.rejoin = Some(Box::new((store, mls))),
                None => drop(self.groups.insert(id, join::placeholder(id, store, mls)?)),
            }
        }
        Ok(())
    }

    /// The records changed since the last call. Commit them before anything made since leaves.
    pub fn take_changes(&mut self) -> Vec<MlsChange> {
        let mut changes = std::mem::take(&mut self.deleted);
        self.account.diff(&mut changes);
        for id in std::mem::take(&mut self.touched) {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            group.store.diff(&mut changes);
            if let Some(rejoin) = &mut group.rejoin {
                rejoin.0.diff(&mut changes);
            }
        }
        changes
    }

    /// Whether there is a group for the conversation.
    pub fn has(&self, id: ConversationId) -> bool {
        self.groups.get(&id).is_some_and(|g| !g.store.is_empty())
    }
    /// The epoch of the group.
    pub fn epoch(&self, id: ConversationId) -> Option<u64> {
        self.groups.get(&id).map(|g| g.mls.epoch().as_u64())
    }
    /// The epoch with its authenticator (RFC 9420 section 8.7).
    pub fn epoch_authenticator(&self, id: ConversationId) -> Option<(u64, Vec<u8>)> {
        let group = self.groups.get(&id).filter(|group| !group.store.is_empty())?;
        Some((group.mls.epoch().as_u64(), group.mls.epoch_authenticator().as_slice().to_vec()))
    }
    /// The hash of the group's ratchet tree (RFC 9420 section 7.8).
    pub fn tree_hash(&self, id: ConversationId) -> Option<Vec<u8>> {
        self.groups.get(&id).filter(|group| !group.store.is_empty())?;
        // openmls shows the group's context in a GroupInfo only.
        let info = join::verifiable(&self.group_info(id).ok()?).ok()?;
        Some(info.group_context().tree_hash().to_vec())
    }
    /// Whether this device is still in the group.
    pub fn is_active(&self, id: ConversationId) -> bool {
        self.has(id) && self.groups.get(&id).is_some_and(|g| g.mls.is_active())
    }
    /// Every device in the group with the key of its leaf, in leaf order; devices with an unreadable credential are
    /// left out.
    pub fn members(&self, id: ConversationId) -> Vec<Leaf> {
        self.groups.get(&id).map_or_else(Vec::new, |group| leaves(&group.mls))
    }
    /// How many devices are in the group.
    pub fn size(&self, id: ConversationId) -> usize {
        self.groups.get(&id).map_or(0, |group| group.mls.members().count())
    }
    /// The epoch and bytes of a commit that waits for the server's verdict live with the caller; this says whether the
    /// group has one.
    pub fn has_pending_commit(&self, id: ConversationId) -> bool {
        self.groups.get(&id).is_some_and(|g| g.mls.pending_commit().is_some())
    }

    /// Removes the group's state.
    pub fn forget(&mut self, id: ConversationId) {
        if let Some(mut group) = self.groups.remove(&id) {
            group.store.clear(&mut self.deleted);
            if let Some(mut rejoin) = group.rejoin {
                rejoin.0.clear(&mut self.deleted);
            }
        }
    }

    /// Makes the group of a new conversation, with this device alone in it at epoch 0. Answers its GroupInfo with
    /// ratchet tree, as MLSMessage.
    pub fn create(&mut self, id: ConversationId) -> Result<Vec<u8>, MlsError> {
        let store = Store::new(scope(GROUP, id));
        let provider = self.provider.on(&store);
        let mls = MlsGroup::new_with_group_id(
            &provider,
            &self.signer,
            &create_config(self.suite),
            GroupId::from_slice(id.as_bytes()),
            self.credential.clone(),
        )
        .map_err(refused("making the group"))?;
        let info = mls
            .export_group_info(self.provider.crypto(), &self.signer, true)
            .map_err(refused("exporting the group info"))?
            .to_bytes()
            .map_err(refused("encoding the group info"))?;
        self.groups.insert(id, Group { store, mls, rejoin: None });
        self.touched.insert(id);
        Ok(info)
    }

    /// The GroupInfo of the group as it stands, with ratchet tree, as MLSMessage.
    pub fn group_info(&self, id: ConversationId) -> Result<Vec<u8>, MlsError> {
        let group = self.groups.get(&id).ok_or(MlsError::NoGroup)?;
        let info = group
            .mls
            .export_group_info(self.provider.crypto(), &self.signer, true)
            .map_err(refused("exporting the group info"))?;
        info.to_bytes().map_err(refused("encoding the group info"))
    }
}

fn scope(kind: u8, id: ConversationId) -> Vec<u8> {
    [[kind].as_slice(), id.as_bytes()].concat()
}

fn load_group(store: &Store, id: ConversationId) -> Result<MlsGroup, MlsError> {
    MlsGroup::load(store.memory(), &GroupId::from_slice(id.as_bytes()))
        .map_err(refused("reading the group"))?
        .ok_or(MlsError::Decode("a stored group"))
}

fn ratchet() -> SenderRatchetConfiguration {
    SenderRatchetConfiguration::new(OUT_OF_ORDER_TOLERANCE, FORWARD_DISTANCE_MAX)
}

/// What the server still takes, and one more: this device may be an epoch ahead of its queue by a commit of its own.
fn past_epochs() -> usize {
    usize::try_from(EPOCHS_BEHIND_MAX + 1).unwrap_or(3)
}

fn create_config(suite: Suite) -> MlsGroupCreateConfig {
    MlsGroupCreateConfig::builder()
        .ciphersuite(suite.ciphersuite())
        .capabilities(suite.capabilities(&[]))
        .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
        .padding_size(PADDING_BYTES)
        .max_past_epochs(past_epochs())
        .use_ratchet_tree_extension(true)
        .sender_ratchet_configuration(ratchet())
        .build()
}

fn join_config() -> MlsGroupJoinConfig {
    MlsGroupJoinConfig::builder()
        .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
        .padding_size(PADDING_BYTES)
        .max_past_epochs(past_epochs())
        .use_ratchet_tree_extension(true)
        .sender_ratchet_configuration(ratchet())
        .build()
}

/// The device that a leaf's credential names.
fn device_of(credential: &Credential) -> Option<DeviceAddress> {
    let basic = BasicCredential::try_from(credential.clone()).ok()?;
    let (account, device) = basic.identity().split_at_checked(16)?;
    Some(DeviceAddress { account: AccountId::try_from(account).ok()?, device: DeviceId::try_from(device).ok()? })
}

#[cfg(test)]
mod tests;
