// SPDX-License-Identifier: MIT OR Apache-2.0
//! A device with its keys and at most one MLS group.

use bytes::Bytes;
use openmls::prelude::tls_codec::{Deserialize, Serialize};
use openmls::prelude::{
    BasicCredential, Capabilities, Ciphersuite, CredentialWithKey, GroupId, KeyPackage, LeafNodeIndex,
    MIXED_PLAINTEXT_WIRE_FORMAT_POLICY, MlsGroup, MlsGroupCreateConfig, MlsGroupJoinConfig, MlsMessageBodyIn,
    MlsMessageIn, MlsMessageOut, OpenMlsProvider, ProcessedMessageContent, RatchetTreeIn, SignatureScheme,
    StagedWelcome,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use pli_api::conversations::{CommitRequest, CreateRequest, GetGroupInfoResponse, Object, object};
use pli_domain::{AccountId, ConversationId, DeviceAddress, DeviceId};

pub const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

pub struct Device {
    pub address: DeviceAddress,
    pub signer: SignatureKeyPair,
    pub provider: OpenMlsRustCrypto,
    pub group: Option<MlsGroup>,
}

pub fn inline(bytes: impl Into<Bytes>) -> Option<Object> {
    Some(Object { object: Some(object::Object::Inline(bytes.into())) })
}

pub fn bytes_of(object: &Option<Object>) -> Bytes {
    match object.as_ref().and_then(|o| o.object.as_ref()) {
        Some(object::Object::Inline(bytes)) => bytes.clone(),
        other => panic!("not inline: {other:?}"),
    }
}

pub fn to_bytes(message: MlsMessageOut) -> Bytes {
    message.tls_serialize_detached().expect("encodes").into()
}

pub fn message(bytes: &[u8]) -> MlsMessageBodyIn {
    MlsMessageIn::tls_deserialize_exact(bytes).expect("an MLSMessage").extract()
}

impl Device {
    /// A device of account `account`; numbers become ids.
    pub fn new(account: u8, device: u8) -> Self {
        let address =
            DeviceAddress { account: AccountId::from_bytes([account; 16]), device: DeviceId::from_bytes([device; 16]) };
        let signer = SignatureKeyPair::new(SignatureScheme::ED25519).expect("random bytes");
        Self { address, signer, provider: OpenMlsRustCrypto::default(), group: None }
    }

    pub fn credential(&self) -> CredentialWithKey {
        let identity = [self.address.account.as_bytes().as_slice(), self.address.device.as_bytes()].concat();
        CredentialWithKey {
            credential: BasicCredential::new(identity).into(),
            signature_key: self.signer.public().into(),
        }
    }

    pub fn group(&mut self) -> &mut MlsGroup {
        self.group.as_mut().expect("in a group")
    }

    pub fn id(&self) -> Bytes {
        Bytes::copy_from_slice(self.group.as_ref().expect("in a group").group_id().as_slice())
    }

    pub fn conversation(&self) -> ConversationId {
        self.id().as_ref().try_into().expect("16 bytes")
    }

    pub fn epoch(&self) -> u64 {
        self.group.as_ref().expect("in a group").epoch().as_u64()
    }

    /// A group of this device alone.
    pub fn begin(&mut self, id: &[u8]) -> CreateRequest {
        self.begin_of(SUITE, id)
    }

    /// The same in a group of this suite.
    pub fn begin_of(&mut self, suite: Ciphersuite, id: &[u8]) -> CreateRequest {
        let config = MlsGroupCreateConfig::builder()
            .ciphersuite(suite)
            .capabilities(Capabilities::new(None, Some(&[suite]), None, None, None))
            .wire_format_policy(MIXED_PLAINTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(true)
            .build();
        let group = MlsGroup::new_with_group_id(
            &self.provider,
            &self.signer,
            &config,
            GroupId::from_slice(id),
            self.credential(),
        );
        self.group = Some(group.expect("a group"));
        CreateRequest { group_info: inline(self.group_info(true)) }
    }

    pub fn group_info(&self, with_tree: bool) -> Bytes {
        let group = self.group.as_ref().expect("in a group");
        to_bytes(group.export_group_info(self.provider.crypto(), &self.signer, with_tree).expect("exports"))
    }

    pub fn key_package(&self) -> KeyPackage {
        self.key_package_of(SUITE)
    }

    /// The same for groups of this suite.
    pub fn key_package_of(&self, suite: Ciphersuite) -> KeyPackage {
        let bundle = KeyPackage::builder()
            .leaf_node_capabilities(Capabilities::new(None, Some(&[suite]), None, None, None))
            .build(suite, &self.provider, &self.signer, self.credential());
        bundle.expect("builds").key_package().clone()
    }

    /// A commit that adds and removes; pending until [`Device::won`] or [`Device::lost`]. Proposals that the group
    /// knows go in by reference.
    pub fn commit(&mut self, add: &[KeyPackage], remove: &[DeviceAddress]) -> CommitRequest {
        let id = self.id();
        let Self { group, provider, signer, .. } = self;
        let group = group.as_mut().expect("in a group");
        let leaves: Vec<LeafNodeIndex> = group
            .members()
            .filter(|m| remove.iter().any(|d| d.device.as_bytes() == &m.credential.serialized_content()[16..]))
            .map(|m| m.index)
            .collect();
        let epoch = group.epoch().as_u64();
        let bundle = group
            .commit_builder()
            .propose_adds(add.iter().cloned())
            .propose_removals(leaves)
            .force_self_update(true)
            .load_psks(provider.storage())
            .expect("no psks")
            .build(provider.rand(), provider.crypto(), signer, |_| true)
            .expect("builds")
            .stage_commit(provider)
            .expect("stages");
        let (commit, welcome, info) = bundle.into_messages();
        CommitRequest {
            conversation: id,
            epoch,
            commit: inline(to_bytes(commit)),
            welcome: welcome.map(|w| inline(to_bytes(w))).unwrap_or_default(),
            group_info: inline(to_bytes(info.expect("asked for"))),
        }
    }

    pub fn won(&mut self) {
        let Self { group, provider, .. } = self;
        group.as_mut().expect("in a group").merge_pending_commit(provider).expect("merges");
    }

    pub fn lost(&mut self) {
        let Self { group, provider, .. } = self;
        group.as_mut().expect("in a group").clear_pending_commit(provider.storage()).expect("clears");
    }

    /// Takes in a commit, or keeps a proposal.
    pub fn receive(&mut self, bytes: &[u8]) {
        let MlsMessageBodyIn::PublicMessage(public) = message(bytes) else { panic!("not a handshake") };
        let Self { group, provider, .. } = self;
        let group = group.as_mut().expect("in a group");
        match group.process_message(provider, public).expect("processes").into_content() {
            ProcessedMessageContent::StagedCommitMessage(commit) => {
                group.merge_staged_commit(provider, *commit).expect("merges");
            }
            ProcessedMessageContent::ProposalMessage(proposal) => {
                group.store_pending_proposal(provider.storage(), *proposal).expect("stores");
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    pub fn join(&mut self, welcome: &[u8]) {
        let MlsMessageBodyIn::Welcome(welcome) = message(welcome) else { panic!("not a welcome") };
        let config = MlsGroupJoinConfig::builder()
            .wire_format_policy(MIXED_PLAINTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(true)
            .build();
        let staged = StagedWelcome::new_from_welcome(&self.provider, &config, welcome, None).expect("for this device");
        self.group = Some(staged.into_group(&self.provider).expect("joins"));
    }

    /// An external commit from what the service gave; the group is merged already.
    pub fn rejoin(&mut self, given: &GetGroupInfoResponse) -> CommitRequest {
        let MlsMessageBodyIn::GroupInfo(info) = message(&bytes_of(&given.group_info)) else {
            panic!("not a group info")
        };
        let id = Bytes::copy_from_slice(info.group_id().as_slice());
        let tree = RatchetTreeIn::tls_deserialize_exact(bytes_of(&given.ratchet_tree)).expect("a tree");
        let config = MlsGroupJoinConfig::builder()
            .wire_format_policy(MIXED_PLAINTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(true)
            .build();
        let builder = MlsGroup::external_commit_builder().with_ratchet_tree(tree).with_config(config);
        let (group, bundle) = builder
            .build_group(&self.provider, info, self.credential())
            .expect("builds")
            .load_psks(self.provider.storage())
            .expect("no psks")
            .build(self.provider.rand(), self.provider.crypto(), &self.signer, |_| true)
            .expect("builds")
            .finalize(&self.provider)
            .expect("finalizes");
        let (commit, _, info) = bundle.into_messages();
        self.group = Some(group);
        CommitRequest {
            conversation: id,
            epoch: given.epoch,
            commit: inline(to_bytes(commit)),
            welcome: None,
            group_info: inline(to_bytes(info.expect("asked for"))),
        }
    }

    /// Asks to leave, as a proposal to remove the own leaf.
    pub fn leave(&mut self) -> Bytes {
        let Self { group, provider, signer, .. } = self;
        to_bytes(group.as_mut().expect("in a group").leave_group(provider, signer).expect("proposes"))
    }

    /// The secret of the epoch, which members share.
    pub fn secret(&self) -> Vec<u8> {
        let group = self.group.as_ref().expect("in a group");
        group.export_secret(self.provider.crypto(), "test", &[], 32).expect("exports")
    }
}
