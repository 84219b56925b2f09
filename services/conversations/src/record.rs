// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the service keeps in the fields that are opaque to the store. Old bytes must stay readable: the version stands
//! in front, unknown ones are refused.

use bytes::Bytes;
use pli_api::common::DeviceAddress;
use pli_api::conversations::Object;
use prost::Message;

/// Stored bytes that this version does not understand.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CorruptRecord {
    #[error("a stored {what} does not decode; it was written by another version or is damaged")]
    Encoding { what: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("a stored {what} is of version {version}; this version reads {known}")]
    Version { what: &'static str, version: u32, known: u32 },
    #[error("a stored {what} is missing")]
    Missing { what: &'static str },
}

impl CorruptRecord {
    /// For `map_err`: bytes stored as `what` that do not decode.
    pub(crate) fn encoding<E: std::error::Error + Send + Sync + 'static>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::Encoding { what, source: Box::new(error) }
    }
}

fn check_version(what: &'static str, version: u32, known: u32) -> Result<(), CorruptRecord> {
    if version == known { Ok(()) } else { Err(CorruptRecord::Version { what, version, known }) }
}

const GROUP_VERSION: u32 = 1;
const COMMIT_VERSION: u32 = 1;

/// A group's public state, `ConversationHead::state`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct GroupRecord {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// openmls's TreeSync, CBOR.
    #[prost(bytes = "bytes", tag = "2")]
    pub tree: Bytes,
    /// openmls's GroupContext, CBOR.
    #[prost(bytes = "bytes", tag = "3")]
    pub context: Bytes,
    /// openmls's InterimTranscriptHash, CBOR.
    #[prost(bytes = "bytes", tag = "4")]
    pub transcript_hash: Bytes,
    /// openmls's ConfirmationTag, CBOR.
    #[prost(bytes = "bytes", tag = "5")]
    pub confirmation_tag: Bytes,
    /// The GroupInfo of this epoch as its committer gave it, an MLSMessage.
    #[prost(bytes = "bytes", tag = "6")]
    pub group_info: Bytes,
}

impl GroupRecord {
    pub(crate) fn encode_stamped(mut self) -> Bytes {
        self.version = GROUP_VERSION;
        self.encode_to_vec().into()
    }
    pub(crate) fn read(bytes: &Bytes) -> Result<Self, CorruptRecord> {
        let record = Self::decode(bytes.clone()).map_err(CorruptRecord::encoding("group"))?;
        check_version("group", record.version, GROUP_VERSION)?;
        Ok(record)
    }
}

/// What a decided commit brings to whom, `CommitIntent::payload`. A pure function of the commit, so that a retry
/// is known by its bytes.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct CommitRecord {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    #[prost(message, optional, tag = "2")]
    pub commit: Option<Object>,
    #[prost(bytes = "bytes", tag = "3")]
    pub commit_sha256: Bytes,
    /// Absent when nobody is added.
    #[prost(message, optional, tag = "4")]
    pub welcome: Option<Object>,
    /// Who gets the welcome.
    #[prost(message, repeated, tag = "5")]
    pub added: Vec<DeviceAddress>,
}

impl CommitRecord {
    pub(crate) fn encode_stamped(mut self) -> Bytes {
        self.version = COMMIT_VERSION;
        self.encode_to_vec().into()
    }
    pub(crate) fn read(bytes: &Bytes) -> Result<Self, CorruptRecord> {
        let record = Self::decode(bytes.clone()).map_err(CorruptRecord::encoding("commit"))?;
        check_version("commit", record.version, COMMIT_VERSION)?;
        if record.commit.is_none() {
            return Err(CorruptRecord::Missing { what: "commit's object" });
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use pli_api::common::PayloadRef;
    use pli_api::conversations::object;

    use super::*;

    const GROUP: &str = "08011204747265651a07636f6e74657874220a7472616e7363726970742a037461673204696e666f";
    const COMMIT: &str = concat!(
        "080112080a06636f6d6d69741a200909090909090909090909090909090909090909090909090909090909090909223a",
        "12380a100808080808080808080808080808080810d086031a2007070707070707070707070707070707070707070707",
        "070707070707070707072a240a1001010101010101010101010101010101121002020202020202020202020202020202",
    );

    fn bytes(hex: &str) -> Bytes {
        hex::decode(hex).expect("hexadecimal").into()
    }

    fn id(n: u8) -> Bytes {
        Bytes::from(vec![n; 16])
    }

    #[test]
    fn a_group_keeps_its_bytes() {
        let group = GroupRecord {
            version: 1,
            tree: Bytes::from_static(b"tree"),
            context: Bytes::from_static(b"context"),
            transcript_hash: Bytes::from_static(b"transcript"),
            confirmation_tag: Bytes::from_static(b"tag"),
            group_info: Bytes::from_static(b"info"),
        };
        assert_eq!(hex::encode(group.clone().encode_stamped()), GROUP);
        assert_eq!(GroupRecord::read(&bytes(GROUP)).expect("read"), group);
    }

    #[test]
    fn a_commit_keeps_its_bytes() {
        let inline = object::Object::Inline(Bytes::from_static(b"commit"));
        let reference = PayloadRef { id: id(8), size: 50_000, sha256: Bytes::from(vec![7; 32]) };
        let commit = CommitRecord {
            version: 1,
            commit: Some(Object { object: Some(inline) }),
            commit_sha256: Bytes::from(vec![9; 32]),
            welcome: Some(Object { object: Some(object::Object::Ref(reference)) }),
            added: vec![DeviceAddress { account: id(1), device: id(2) }],
        };
        assert_eq!(hex::encode(commit.clone().encode_stamped()), COMMIT);
        assert_eq!(CommitRecord::read(&bytes(COMMIT)).expect("read"), commit);
    }

    #[test]
    fn what_another_version_wrote_or_what_lacks_its_commit_is_refused() {
        let other = GroupRecord { version: 2, ..GroupRecord::read(&bytes(GROUP)).expect("read") };
        let refused = GroupRecord::read(&other.encode_to_vec().into());
        assert!(matches!(refused, Err(CorruptRecord::Version { version: 2, known: 1, .. })), "{refused:?}");
        let empty = CommitRecord { version: 1, ..CommitRecord::default() }.encode_to_vec().into();
        assert!(matches!(CommitRecord::read(&empty), Err(CorruptRecord::Missing { .. })));
        assert!(matches!(CommitRecord::read(&Bytes::from_static(&[0xff])), Err(CorruptRecord::Encoding { .. })));
    }
}
