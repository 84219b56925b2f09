// SPDX-License-Identifier: MIT OR Apache-2.0
//! What fuzzing reaches that nothing else may.

use bytes::Bytes;
use openmls_rust_crypto::RustCrypto;
use pli_domain::{ConversationId, DeviceAddress};

use crate::group::{self, Group};
use crate::offer::{self, Offer};
use crate::record::CommitRecord;
use crate::wire;

/// Reads a GroupInfo; whether it is one.
pub fn group_info(bytes: &[u8]) -> bool {
    group::parse_group_info(bytes).is_ok_and(|info| wire::tag_and_signer(&info).is_some())
}

/// Reads what is stored of a commit that was decided; whether it is that. What reads is written again as the same.
///
/// # Panics
/// When it is not.
pub fn commit_record(bytes: &Bytes) -> bool {
    let Ok(record) = CommitRecord::read(bytes) else { return false };
    let again = CommitRecord::read(&record.clone().encode_stamped());
    assert!(again.is_ok_and(|again| again == record), "what was read is written again as the same");
    true
}

/// Reads the references of a commit.
pub fn commit(bytes: &[u8]) -> usize {
    wire::proposal_references(bytes).len()
}

/// Reads the stored state of a group; whether it is one, with leaves that name devices.
pub fn state(conversation: ConversationId, bytes: &Bytes) -> bool {
    Group::load(conversation, bytes).is_ok_and(|group| group.leaves().is_ok())
}

/// What a creator and then a committer offer: commit, welcome and GroupInfo. How many steps are taken.
pub fn offered(created: Bytes, creator: DeviceAddress, [commit, welcome, group_info]: &[Bytes; 3]) -> usize {
    let crypto = RustCrypto::default();
    let Ok((_, group, _)) = Group::create(&crypto, created, creator, true) else { return 0 };
    let offer = Offer { caller: creator, commit, welcome, group_info: group_info.clone(), proposals: &[] };
    1 + usize::from(offer::apply(&crypto, group, offer).is_ok())
}
