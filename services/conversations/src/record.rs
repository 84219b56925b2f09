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
