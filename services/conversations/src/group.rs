// SPDX-License-Identifier: MIT OR Apache-2.0
//! A group's public state: made from a GroupInfo, kept as bytes, cached decoded.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use moka::future::Cache;
use openmls::messages::group_info::VerifiableGroupInfo;
use openmls::prelude::tls_codec::Serialize;
use openmls::prelude::{
    BasicCredential, Credential, DeserializeBytes, GroupId, LeafNodeIndex, MlsMessageBodyIn, MlsMessageIn,
    OpenMlsCrypto, OpenMlsSignaturePublicKey, ProposalStore, PublicGroup, Verifiable,
};
use pli_domain::limits::{CIPHER_SUITE_POST_QUANTUM, CIPHER_SUITES};
use pli_domain::{AccountId, ConversationId, DeviceAddress, DeviceId, MlsEpoch};
use pli_ports::ConversationHead;

use crate::record::{CorruptRecord, GroupRecord};
use crate::storage::GroupStorage;
use crate::wire;

/// Each device of a tree with its leaf's signature key.
pub(crate) type Leaves = BTreeMap<DeviceAddress, Vec<u8>>;

/// An error of MLS, of whatever kind.
pub(crate) type Source = Box<dyn std::error::Error + Send + Sync>;

/// What is wrong with a group or its GroupInfo.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidGroup {
    #[error("not an MLSMessage with a GroupInfo")]
    Encoding,
    #[error("the suite is not allowed; use 0x0001 or 0x0003, or 0x004f where the server has directory.post_quantum")]
    Suite,
    #[error("the group id must be the 16 bytes of the conversation id")]
    GroupId,
    #[error("a conversation begins at epoch 0")]
    Epoch,
    #[error("the group info lacks its {0} extension")]
    Extension(&'static str),
    #[error("the group info does not verify: {0}")]
    Verify(#[source] Source),
    #[error("the group info is of another group, epoch or tree than the commit makes")]
    OtherGroup,
    #[error("the group info must be signed by the committer's leaf")]
    Signer,
    #[error("a leaf's credential must be basic with the identity account id, device id")]
    Credential,
    #[error("two leaves belong to one device")]
    TwoLeaves,
    #[error("a new group has exactly one leaf, the caller's")]
    NotAlone,
}

/// A group at one epoch, with the GroupInfo for external commits.
pub(crate) struct Group {
    pub public: PublicGroup,
    pub group_info: Bytes,
}

impl Group {
    /// The group that its creator made, alone: signature, tree and leaf are verified.
    pub(crate) fn create(
        crypto: &impl OpenMlsCrypto,
        group_info: Bytes,
        creator: DeviceAddress,
        post_quantum: bool,
    ) -> Result<(ConversationId, Self, Bytes), InvalidGroup> {
        let info = parse_group_info(&group_info)?;
        let suite = u16::from(info.ciphersuite());
        if !(CIPHER_SUITES.contains(&suite) || post_quantum && suite == CIPHER_SUITE_POST_QUANTUM) {
            return Err(InvalidGroup::Suite);
        }
        let id = info.group_id().as_slice().try_into().map_err(|_| InvalidGroup::GroupId)?;
        if info.epoch().as_u64() != 0 {
            return Err(InvalidGroup::Epoch);
        }
        let extensions = info.extensions();
        extensions.external_pub().ok_or(InvalidGroup::Extension("external_pub"))?;
        let tree = extensions.ratchet_tree().ok_or(InvalidGroup::Extension("ratchet_tree"))?.ratchet_tree().clone();
        let storage = GroupStorage::default();
        let (public, _) = PublicGroup::from_external(crypto, &storage, tree, info, ProposalStore::new())
            .map_err(|e| InvalidGroup::Verify(e.into()))?;
        let group = Self { public, group_info };
        if !group.leaves()?.keys().eq([&creator]) {
            return Err(InvalidGroup::NotAlone);
        }
        let state = group.state(storage);
        Ok((id, group, state))
    }

    /// From its stored bytes.
    pub(crate) fn load(conversation: ConversationId, state: &Bytes) -> Result<Self, CorruptRecord> {
        let record = GroupRecord::read(state)?;
        let group_info = record.group_info.clone();
        let id = GroupId::from_slice(conversation.as_bytes());
        let public = PublicGroup::load(&GroupStorage::new(record), &id).map_err(CorruptRecord::encoding("group"))?;
        public.map(|public| Self { public, group_info }).ok_or(CorruptRecord::Missing { what: "group" })
    }

    /// Its bytes, from the storage that openmls wrote it to.
    pub(crate) fn state(&self, storage: GroupStorage) -> Bytes {
        GroupRecord { group_info: self.group_info.clone(), ..storage.into_record() }.encode_stamped()
    }

    pub(crate) fn epoch(&self) -> MlsEpoch {
        MlsEpoch(self.public.group_context().epoch().as_u64())
    }

    /// Every device with the signature key of its leaf; a device has one leaf.
    pub(crate) fn leaves(&self) -> Result<Leaves, InvalidGroup> {
        let mut leaves = Leaves::new();
        for member in self.public.members() {
            let device = device_of(&member.credential).ok_or(InvalidGroup::Credential)?;
            if leaves.insert(device, member.signature_key).is_some() {
                return Err(InvalidGroup::TwoLeaves);
            }
        }
        Ok(leaves)
    }

    /// The device at a leaf.
    pub(crate) fn device_at(&self, leaf: LeafNodeIndex) -> Option<DeviceAddress> {
        device_of(self.public.leaf(leaf)?.credential())
    }

    /// The ratchet tree as a joiner needs it.
    pub(crate) fn ratchet_tree(&self) -> Result<Bytes, CorruptRecord> {
        let tree = self.public.export_ratchet_tree();
        tree.tls_serialize_detached().map(Bytes::from).map_err(CorruptRecord::encoding("group"))
    }

    /// That `info` is the GroupInfo of exactly this group, signed by `signer`. Whether external_pub fits the group's
    /// secrets only a joiner can tell.
    pub(crate) fn check_group_info(
        &self,
        crypto: &impl OpenMlsCrypto,
        info: VerifiableGroupInfo,
        signer: LeafNodeIndex,
    ) -> Result<(), InvalidGroup> {
        info.extensions().external_pub().ok_or(InvalidGroup::Extension("external_pub"))?;
        if let Some(tree) = info.extensions().ratchet_tree() {
            let given = tree.ratchet_tree().tls_serialize_detached().map_err(|_| InvalidGroup::Encoding)?;
            if self.ratchet_tree().ok().as_deref() != Some(given.as_slice()) {
                return Err(InvalidGroup::OtherGroup);
            }
        }
        let (tag, by) = wire::tag_and_signer(&info).ok_or(InvalidGroup::Encoding)?;
        if info.group_context() != self.public.group_context() || &tag != self.public.confirmation_tag() {
            return Err(InvalidGroup::OtherGroup);
        }
        let leaf = self.public.leaf(signer).filter(|_| by == signer).ok_or(InvalidGroup::Signer)?;
        let scheme = self.public.ciphersuite().signature_algorithm();
        let key = OpenMlsSignaturePublicKey::from_signature_key(leaf.signature_key().clone(), scheme);
        info.verify(crypto, &key).map_err(|_| InvalidGroup::Signer)?;
        Ok(())
    }
}

/// The device that a credential names.
pub(crate) fn device_of(credential: &Credential) -> Option<DeviceAddress> {
    let basic = BasicCredential::try_from(credential.clone()).ok()?;
    let (account, device) = basic.identity().split_at_checked(16)?;
    Some(DeviceAddress { account: AccountId::try_from(account).ok()?, device: DeviceId::try_from(device).ok()? })
}

/// An MLSMessage with a GroupInfo and nothing behind it.
pub(crate) fn parse_group_info(bytes: &[u8]) -> Result<VerifiableGroupInfo, InvalidGroup> {
    let message = MlsMessageIn::tls_deserialize_exact_bytes(bytes).map_err(|_| InvalidGroup::Encoding)?;
    match message.extract() {
        MlsMessageBodyIn::GroupInfo(info) => Ok(info),
        _ => Err(InvalidGroup::Encoding),
    }
}

struct Cached {
    /// Empty while somebody works with the group.
    group: Mutex<Option<Group>>,
    bytes: u32,
}

/// Decoded groups, within a byte budget. Whoever works with a group takes it out and puts it back; meanwhile others
/// decode their own.
pub(crate) struct Groups {
    cache: Cache<ConversationId, Arc<Cached>>,
}

impl Groups {
    pub(crate) fn new(bytes_max: u64) -> Self {
        let weigh = |_: &ConversationId, cached: &Arc<Cached>| cached.bytes;
        Self { cache: Cache::builder().max_capacity(bytes_max).weigher(weigh).build() }
    }

    /// The group at the head's epoch: the cached one, else decoded from the head's state.
    pub(crate) async fn take(
        &self,
        conversation: ConversationId,
        head: &ConversationHead,
    ) -> Result<Group, CorruptRecord> {
        let cached = self.cache.get(&conversation).await.and_then(|c| lock(&c.group).take());
        match cached.filter(|group| group.epoch() == head.epoch) {
            Some(group) => Ok(group),
            None => Group::load(conversation, &head.state),
        }
    }

    /// Keeps a group that holds no proposals; `bytes` is the size of its stored state.
    pub(crate) async fn put(&self, conversation: ConversationId, group: Group, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.cache.insert(conversation, Arc::new(Cached { group: Mutex::new(Some(group)), bytes })).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
