// SPDX-License-Identifier: MIT OR Apache-2.0
//! What MLS seals: a content with the place it has in its lane.

use bytes::Bytes;
use prost::Message as _;

/// Bytes that are not a frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Not a frame at all.
    #[error("the sealed frame does not decode")]
    Decode(#[from] prost::DecodeError),
    /// Lane numbers begin at 1.
    #[error("the sealed frame has no lane number")]
    LaneNumber,
}

/// What a conversation is, as its creator made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Kind {
    /// Not known yet.
    Unknown = 0,
    /// Two people.
    Direct = 1,
    /// A group with a name.
    Group = 2,
}

/// The plaintext of an MLS application message, as protobuf; numbers are never reused, unknown ones are ignored.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Frame {
    /// Consecutive in the lane, from 1.
    #[prost(uint64, tag = "1")]
    pub lane_no: u64,
    /// The lane number from which on the newest member is addressed.
    #[prost(uint64, tag = "2")]
    pub lane_base: u64,
    /// What the conversation is.
    #[prost(enumeration = "Kind", tag = "3")]
    pub kind: i32,
    /// Server time when it was written, as the sender knows it, in milliseconds since 1970.
    #[prost(uint64, tag = "4")]
    pub sent_at_ms: u64,
    /// An encoded [`super::Content`].
    #[prost(bytes = "bytes", tag = "5")]
    pub content: Bytes,
    /// The life of the sender's profile in which the number was given: random, another one with every start of the
    /// program. 0 from clients that do not tell.
    #[prost(uint64, tag = "6")]
    pub life: u64,
    /// The first number of that life. What was shown under it or a higher one before the life began is of a copy of the
    /// sender's profile, and is not what the sender means by it.
    #[prost(uint64, tag = "7")]
    pub life_first: u64,
    /// The life before this one, whose numbers count nevertheless; 0 for none.
    #[prost(uint64, tag = "8")]
    pub life_before: u64,
}

impl Frame {
    /// Its bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    /// Errors when `bytes` are not a frame with a lane number.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FrameError> {
        let frame = Self::decode(bytes)?;
        if frame.lane_no == 0 {
            return Err(FrameError::LaneNumber);
        }
        Ok(frame)
    }
}
