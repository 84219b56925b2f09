// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ids that everybody who finishes a commit derives alike, so that finishing twice writes the same again.

use pli_domain::{ConversationId, DeviceId, EntryId, MlsEpoch, PayloadId, SendId, ShardId};
use sha2::{Digest, Sha256};

/// Which part of a commit's fan-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Commit,
    Welcome,
}

impl Part {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Commit => b"commit",
            Self::Welcome => b"welcome",
        }
    }
}

/// First 16 bytes of SHA-256 over the parts, each prefixed with its length.
fn id(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut id = [0; 16];
    id.copy_from_slice(&hash.finalize()[..16]);
    id
}

/// The log entry that brings a part of the commit of `from` to a shard.
pub(crate) fn fanout_entry(conversation: ConversationId, from: MlsEpoch, part: Part, shard: ShardId) -> EntryId {
    let (epoch, shard) = (from.0.to_be_bytes(), shard.get().to_be_bytes());
    EntryId::from_bytes(id(&[b"pli-fanout-1", conversation.as_bytes(), &epoch, part.label(), &shard]))
}

/// The send id of a part of the commit of `from`; its sender is the committer.
pub(crate) fn fanout_send(conversation: ConversationId, from: MlsEpoch, part: Part) -> SendId {
    SendId::from_bytes(id(&[b"pli-fanout-send-1", conversation.as_bytes(), &from.0.to_be_bytes(), part.label()]))
}

/// The log entry that brings a proposal to a shard.
pub(crate) fn proposal_entry(conversation: ConversationId, sender: DeviceId, send: SendId, shard: ShardId) -> EntryId {
    let shard = shard.get().to_be_bytes();
    let parts = [b"pli-proposal-1".as_slice(), conversation.as_bytes(), sender.as_bytes(), send.as_bytes(), &shard];
    EntryId::from_bytes(id(&parts))
}

/// The send id of what asks `asked` to renew its keys: one for each hour, so that asking again brings nothing more.
pub(crate) fn renewal_send(
    conversation: ConversationId,
    sender: DeviceId,
    asked: DeviceId,
    epoch: MlsEpoch,
    hour: u64,
) -> SendId {
    let (epoch, hour) = (epoch.0.to_be_bytes(), hour.to_be_bytes());
    let parts = [conversation.as_bytes(), sender.as_bytes(), asked.as_bytes()];
    let [conversation, sender, asked] = parts.map(<[u8; 16]>::as_slice);
    SendId::from_bytes(id(&[b"pli-renewal-1", conversation, sender, asked, &epoch, &hour]))
}

/// The log entry that brings it to the shard of the device that is asked.
pub(crate) fn renewal_entry(send: SendId) -> EntryId {
    EntryId::from_bytes(id(&[b"pli-renewal-entry-1", send.as_bytes()]))
}

/// Where a proposal is kept until a commit refers to it by its hash (RFC 9420 section 5.2).
pub(crate) fn proposal_payload(conversation: ConversationId, epoch: MlsEpoch, reference: &[u8]) -> PayloadId {
    let epoch = epoch.0.to_be_bytes();
    PayloadId::from_bytes(id(&[b"pli-proposal-payload-1", conversation.as_bytes(), &epoch, reference]))
}

/// Where a large object is kept. Who can name it has its bytes already.
pub(crate) fn object_payload(conversation: ConversationId, sha256: &[u8; 32]) -> PayloadId {
    PayloadId::from_bytes(id(&[b"pli-object-1", conversation.as_bytes(), sha256]))
}

/// Where a page of an upload waits until the last one has come. Per device, so that nobody writes into the upload of
/// somebody else.
pub(crate) fn upload_page(device: DeviceId, upload: PayloadId, offset: u64) -> PayloadId {
    let offset = offset.to_be_bytes();
    PayloadId::from_bytes(id(&[b"pli-upload-page-1", device.as_bytes(), upload.as_bytes(), &offset]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_pinned() {
        let (conversation, device) = (ConversationId::from_bytes([7; 16]), DeviceId::from_bytes([8; 16]));
        let (shard, send) = (ShardId::new(0), SendId::from_bytes([9; 16]));
        let all = [
            fanout_entry(conversation, MlsEpoch(1), Part::Commit, shard).to_string(),
            fanout_send(conversation, MlsEpoch(1), Part::Commit).to_string(),
            proposal_entry(conversation, device, send, shard).to_string(),
            proposal_payload(conversation, MlsEpoch(1), b"ref").to_string(),
            object_payload(conversation, &[0; 32]).to_string(),
            upload_page(device, PayloadId::from_bytes([9; 16]), 0).to_string(),
        ];
        let pinned = [
            "17148c544a765847e8dec7c6da6780d1",
            "ef64ffa5860aa99efc15af13f4bcc85c",
            "ca930dc01d787a9a682e8135dd8e8da1",
            "4cef8094e29a121b6db72e72f9c2234f",
            "dfc9bd124dba3c03e1beeb3bee7e2df2",
            "6905e18763d2a1debc7b0e8a43db23a8",
        ];
        assert_eq!(all, pinned);
    }

    #[test]
    fn ids_are_apart() {
        let conversation = ConversationId::from_bytes([7; 16]);
        let entry = |epoch, part, shard| fanout_entry(conversation, MlsEpoch(epoch), part, ShardId::new(shard));
        let all = [
            entry(1, Part::Commit, 0),
            entry(2, Part::Commit, 0),
            entry(1, Part::Welcome, 0),
            entry(1, Part::Commit, 1),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b));
        }
    }
}
