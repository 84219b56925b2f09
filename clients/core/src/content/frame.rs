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
    /// when one is sent again under another number or in another conversation of the chat. 0 for what is no message, and
    /// from clients that do not tell.
    #[prost(uint64, tag = "7")]
    pub place: u64,
    /// Members that were addressed before `lane_base` and have never told that anything was shown: for them this counts
    /// instead. At most [`ADDRESSED_MAX`], first of all those that came in again by themselves.
    #[prost(message, repeated, tag = "8")]
    pub addressed: Vec<Addressed>,
    /// The life in which the message was written; 0 where `place` is. Copies of a profile give places twice.
    #[prost(fixed64, tag = "9")]
    pub written_in: u64,
    /// Where the sender has written more since: the lives whose places are above or below in its own history, the newest
    /// first, at most [`LIVES_TOLD_MAX`]. What is shown after a higher place of one of them is late.
    #[prost(fixed64, repeated, tag = "10")]
    pub line: Vec<u64>,
    /// Numbers from this one up to the one before `lane_no` stand for nothing: what had them was refused. 0 for none.
    #[prost(uint64, tag = "11")]
    pub unsent_from: u64,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What was added last.
    const ADDED_LAST: &str = "5803";
    /// As the first version wrote it.
    const FIRST: &str = "08041003180220062a07636f6e74656e74";
    /// What was added stands behind it: earlier versions do not look at it.
    const ADDED: &str = concat!(
        "320b0907000000000000001002380942140a100101010101010101010101010101010110024907000000000000005210",
        "08000000000000000700000000000000",
    );

    #[test]
    fn a_frame_keeps_its_bytes() {
        let content = Bytes::from_static(b"content");
        let kind = Kind::Group.into();
        let first = Frame { lane_no: 4, lane_base: 3, kind, sent_at_ms: 6, content, ..Frame::default() };
        assert_eq!(hex::encode(first.to_bytes()), FIRST);
        let device = DeviceId::from_bytes([1; 16]);
        let added = Frame {
            lives: vec![LifeSpan { id: 7, first: 2 }],
            place: 9,
            written_in: 7,
            line: vec![8, 7],
            addressed: vec![Addressed { device: Bytes::copy_from_slice(device.as_bytes()), first: 2 }],
            ..first.clone()
        };
        assert_eq!(hex::encode(added.to_bytes()), [FIRST, ADDED].concat());
        let last = Frame { unsent_from: 3, ..added.clone() };
        assert_eq!(hex::encode(last.to_bytes()), [FIRST, ADDED, ADDED_LAST].concat());
        for frame in [&first, &added, &last] {
            assert_eq!(Frame::from_bytes(&frame.to_bytes()).expect("read"), *frame);
        }
        assert_eq!((first.base_for(device), added.base_for(device)), (3, 2));
        assert_eq!(added.base_for(DeviceId::from_bytes([2; 16])), 3, "not for another one");
    }

    /// Clients in other languages are generated from the contract.
    #[test]
    fn the_contract_describes_the_same_bytes() {
        let all = [FIRST.to_owned(), [FIRST, ADDED].concat(), [FIRST, ADDED, ADDED_LAST].concat()];
        for bytes in all.map(|text| hex::decode(text).expect("hex")) {
            let by_contract = pli_api::sealed::Frame::decode(bytes.as_slice()).expect("by the contract");
            assert_eq!(by_contract.encode_to_vec(), bytes, "no field is unknown to the contract");
            let Frame {
                lane_no,
                lane_base,
                kind,
                sent_at_ms,
                content,
                lives,
                place,
                addressed,
                written_in,
                line,
                unsent_from,
            } = Frame::from_bytes(&bytes).expect("by the derive");
            let lives = lives.into_iter().map(|life| pli_api::sealed::LifeSpan { id: life.id, first: life.first });
            let addressed =
                addressed.into_iter().map(|a| pli_api::sealed::Addressed { device: a.device, first: a.first });
            let same = pli_api::sealed::Frame {
                lane_no,
                lane_base,
                kind,
                sent_at_ms,
                content,
                lives: lives.collect(),
                place,
                addressed: addressed.collect(),
                written_in,
                line,
                unsent_from,
            };
            assert_eq!(by_contract, same);
        }
        for (kind, name) in
            [(Kind::Unknown, "KIND_UNSPECIFIED"), (Kind::Direct, "KIND_CHAT"), (Kind::Group, "KIND_GROUP")]
        {
            let by_contract = pli_api::sealed::Kind::try_from(i32::from(kind)).expect("a kind");
            assert_eq!(by_contract.as_str_name(), name);
        }
    }
}
