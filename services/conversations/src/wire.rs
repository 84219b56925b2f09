// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading MLS bytes that openmls keeps to itself: the proposals that a commit refers to, and who signed a GroupInfo.
//! Formats are of RFC 9420 sections 6 and 12.4.3.

use openmls::messages::group_info::{GroupInfo, VerifiableGroupInfo};
use openmls::prelude::tls_codec::{Deserialize, Serialize, VLBytes};
use openmls::prelude::{ConfirmationTag, Extensions, GroupContext, GroupId, LeafNodeIndex, ProposalOrRefIn, Sender};

const MLS_10: u16 = 1;
const PUBLIC_MESSAGE: u16 = 1;
const CONTENT_COMMIT: u8 = 3;

/// References to proposals in a commit, in order; none when the bytes are not a commit in a PublicMessage. openmls
/// decides later whether the bytes are a valid commit; this only says which proposals it will want.
pub(crate) fn proposal_references(mut message: &[u8]) -> Vec<Vec<u8>> {
    references(&mut message).unwrap_or_default()
}

fn references(rest: &mut &[u8]) -> Option<Vec<Vec<u8>>> {
    if (u16::tls_deserialize(rest).ok()?, u16::tls_deserialize(rest).ok()?) != (MLS_10, PUBLIC_MESSAGE) {
        return None;
    }
    GroupId::tls_deserialize(rest).ok()?;
    u64::tls_deserialize(rest).ok()?;
    Sender::tls_deserialize(rest).ok()?;
    VLBytes::tls_deserialize(rest).ok()?;
    if u8::tls_deserialize(rest).ok()? != CONTENT_COMMIT {
        return None;
    }
    let proposals = Vec::<ProposalOrRefIn>::tls_deserialize(rest).ok()?;
    let reference = |proposal| match proposal {
        ProposalOrRefIn::Reference(reference) => Some(reference.as_slice().to_vec()),
        ProposalOrRefIn::Proposal(_) => None,
    };
    Some(proposals.into_iter().filter_map(reference).collect())
}

/// What stands behind the extensions of a GroupInfo: the confirmation tag and the leaf that signed.
pub(crate) fn tag_and_signer(info: &VerifiableGroupInfo) -> Option<(ConfirmationTag, LeafNodeIndex)> {
    let bytes = info.tls_serialize_detached().ok()?;
    let rest = &mut bytes.as_slice();
    GroupContext::tls_deserialize(rest).ok()?;
    Extensions::<GroupInfo>::tls_deserialize(rest).ok()?;
    let tag = ConfirmationTag::tls_deserialize(rest).ok()?;
    let signer = u32::tls_deserialize(rest).ok()?;
    Some((tag, LeafNodeIndex::new(signer)))
}
