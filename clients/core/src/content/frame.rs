// SPDX-License-Identifier: MIT OR Apache-2.0
//! What MLS seals: a content with the place it has in its lane.

use bytes::Bytes;
use pli_domain::DeviceId;
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
    /// Lives of the sender's profile, rising, from one that everybody has told of to the one in which the number was
    /// given, at most [`LIVES_TOLD_MAX`]; none from clients that do not tell.
    #[prost(message, repeated, tag = "6")]
    pub lives: Vec<LifeSpan>,
    /// Which of the sender's messages in this chat it is: rises in the order in which they were written, and stays the same
    /// when one is sent again under another number or in another conversation of the chat; numbers may be left out. 0 for
    /// what is no message, and from clients that do not tell.
    #[prost(uint64, tag = "7")]
    pub place: u64,
    /// Members that were addressed before `lane_base` and have never told that anything was shown: for them this counts
    /// instead. At most [`ADDRESSED_MAX`], first of all those that came in again by themselves.
    #[prost(message, repeated, tag = "8")]
    pub addressed: Vec<Addressed>,
}

/// Most members whose own first number is in a frame, 30 bytes each.
pub const ADDRESSED_MAX: usize = 16;

/// From which lane number on a device is addressed.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Addressed {
    /// 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub device: Bytes,
    /// The first number.
    #[prost(uint64, tag = "2")]
    pub first: u64,
}

/// Most lives in a frame, 15 bytes each.
pub const LIVES_TOLD_MAX: usize = 32;

/// A life of a profile: a run of its program, until others are found to have numbers that it has not given. Profiles that
/// were copied give one number in several lives.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct LifeSpan {
    /// Random, not 0.
    #[prost(fixed64, tag = "1")]
    pub id: u64,
    /// The first number that was given in it.
    #[prost(uint64, tag = "2")]
    pub first: u64,
}

impl Frame {
    /// The lane number from which on this device is addressed, as the sender knows it.
    pub fn base_for(&self, device: DeviceId) -> u64 {
        let own = self.addressed.iter().find(|one| one.device == device.as_bytes().as_slice());
        own.map_or(self.lane_base, |own| own.first)
    }

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
