// SPDX-License-Identifier: MIT OR Apache-2.0
//! The stored form of the outbox.

use bytes::Bytes;
use pli_api::log;
use pli_domain::{ConversationId, InvalidId, SendId, UnixMillis};
use prost::Message as _;

use super::{OutLane, OutMessage, Outbox, OutboxConfig, SendState};

/// A record that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not a record of this kind.
    #[error("an outbox record does not decode")]
    Decode(#[from] prost::DecodeError),
    /// An id without 16 bytes.
    #[error("an outbox record names an id that is none")]
    Id(#[from] InvalidId),
}

/// Numbers are never reused.
#[derive(Clone, PartialEq, prost::Message)]
struct Record {
    #[prost(bytes = "bytes", tag = "1")]
    send_id: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    conversation: Bytes,
    #[prost(enumeration = "log::Class", tag = "3")]
    class: i32,
    #[prost(uint64, tag = "4")]
    lane_no: u64,
    #[prost(bytes = "bytes", tag = "5")]
    content: Bytes,
    #[prost(uint64, optional, tag = "6")]
    expires_at_ms: Option<u64>,
    #[prost(uint32, tag = "7")]
    attempts: u32,
    #[prost(bytes = "bytes", optional, tag = "8")]
    receipt: Option<Bytes>,
    #[prost(uint64, tag = "9")]
    accepted_at_ms: u64,
    /// It was sent, and its answer had not come.
    #[prost(bool, tag = "10")]
    asked: bool,
}

/// What was sent but not answered is stored as waiting: that is what it is after a restart.
pub(super) fn encode(message: &OutMessage) -> Vec<u8> {
    let (receipt, accepted_at_ms) = match &message.state {
        SendState::Accepted { receipt, accepted_at } => (Some(receipt.clone()), accepted_at.0),
        SendState::Queued { .. } | SendState::Sent => (None, 0),
    };
    Record {
        send_id: Bytes::copy_from_slice(message.send_id.as_bytes()),
        conversation: Bytes::copy_from_slice(message.lane.conversation.as_bytes()),
        class: log::Class::from(message.lane.class).into(),
        lane_no: message.lane_no,
        content: message.content.clone(),
        expires_at_ms: message.expires_at.map(|t| t.0),
        attempts: message.attempts,
        receipt,
        accepted_at_ms,
        asked: message.is_in_doubt(),
    }
    .encode_to_vec()
}

fn decode(bytes: &[u8]) -> Result<OutMessage, RecordError> {
    let record = Record::decode(bytes)?;
    let lane =
        OutLane { conversation: ConversationId::try_from(record.conversation.as_ref())?, class: record.class().into() };
    let mut message =
        OutMessage::new(SendId::try_from(record.send_id.as_ref())?, lane, record.lane_no, record.content.clone());
    message.expires_at = record.expires_at_ms.map(UnixMillis);
    message.attempts = record.attempts;
    message.asked = record.asked;
    if let Some(receipt) = record.receipt {
        message.state = SendState::Accepted { receipt, accepted_at: UnixMillis(record.accepted_at_ms) };
    }
    Ok(message)
}

impl Outbox {
    /// The outbox as its committed records describe it.
    pub fn load<M, L>(config: OutboxConfig, messages: M, lanes: L) -> Result<Self, RecordError>
    where
        M: IntoIterator<Item = (u64, Vec<u8>)>,
        L: IntoIterator<Item = (OutLane, u64)>,
    {
        let mut outbox = Self::new(config);
        outbox.lane_next = lanes.into_iter().collect();
        for (at, bytes) in messages {
            outbox.insert(at, decode(&bytes)?);
            outbox.next_place = outbox.next_place.max(at + 1);
        }
        Ok(outbox)
    }
}

#[cfg(test)]
mod tests {
    use pli_domain::Class;

    use super::*;

    const WAITING: &str = concat!(
        "0a1001010101010101010101010101010101121002020202020202020202020202020202180320042a07636f6e74656e",
        "743080d0eab6b7333802",
    );
    const ACCEPTED: &str = concat!(
        "0a1001010101010101010101010101010101121002020202020202020202020202020202180320042a07636f6e74656e",
        "743080d0eab6b73338024207726563656970744809",
    );

    /// Sent, and not answered.
    const ASKED: &str = concat!(
        "0a1001010101010101010101010101010101121002020202020202020202020202020202180320042a07636f6e74656e",
        "743080d0eab6b73338025001",
    );

    #[test]
    fn an_outbox_record_keeps_its_bytes() {
        let lane = OutLane { conversation: ConversationId::from_bytes([2; 16]), class: Class::Message };
        let mut message = OutMessage::new(SendId::from_bytes([1; 16]), lane, 4, Bytes::from_static(b"content"));
        message.expires_at = Some(UnixMillis(1_767_225_600_000));
        message.attempts = 2;
        assert_eq!(hex::encode(encode(&message)), WAITING);
        message.asked = true;
        assert_eq!(hex::encode(encode(&message)), ASKED);
        message.asked = false;
        message.state = SendState::Accepted { receipt: Bytes::from_static(b"receipt"), accepted_at: UnixMillis(9) };
        assert_eq!(hex::encode(encode(&message)), ACCEPTED);
        for stored in [WAITING, ACCEPTED, ASKED] {
            let read = decode(&hex::decode(stored).expect("hexadecimal")).expect("read");
            assert_eq!(read.is_in_doubt(), stored == ASKED);
            assert_eq!(hex::encode(encode(&read)), stored);
        }
        assert!(decode(&[0xff]).is_err());
    }
}
