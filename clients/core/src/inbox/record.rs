// SPDX-License-Identifier: MIT OR Apache-2.0
//! The stored form of the inbox.

use bytes::Bytes;
use pli_domain::{InvalidId, Position, SendId, UnixMillis};
use prost::Message as _;

use super::lanes::{Held, Lane};
use super::{Inbox, InboxChange, InboxConfig};

/// A record that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InboxRecordError {
    /// Not a record of this kind.
    #[error("an inbox record does not decode")]
    Decode(#[from] prost::DecodeError),
    /// An id without 16 bytes.
    #[error("an inbox record names an id that is none")]
    Id(#[from] InvalidId),
}

/// Numbers are never reused.
#[derive(Clone, PartialEq, prost::Message)]
struct Record {
    #[prost(bytes = "bytes", tag = "1")]
    send_id: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    body: Bytes,
    #[prost(uint64, tag = "3")]
    since_ms: u64,
    #[prost(uint64, tag = "4")]
    unsent_from: u64,
}

pub(super) fn encode_held(held: &Held) -> Vec<u8> {
    let send_id = Bytes::copy_from_slice(held.send_id.as_bytes());
    let Held { body, since, unsent_from, .. } = held.clone();
    Record { send_id, body, since_ms: since.0, unsent_from }.encode_to_vec()
}

fn decode_held(bytes: &[u8]) -> Result<Held, InboxRecordError> {
    let record = Record::decode(bytes)?;
    let send_id = SendId::try_from(record.send_id.as_ref())?;
    let Record { body, since_ms, unsent_from, .. } = record;
    Ok(Held { send_id, body, since: UnixMillis(since_ms), unsent_from })
}

impl Inbox {
    /// The inbox as its committed changes describe it, in any order that keeps the last value of each record.
    pub fn load(config: InboxConfig, records: impl IntoIterator<Item = InboxChange>) -> Result<Self, InboxRecordError> {
        let mut inbox = Self::new(config);
        let mut all_held = Vec::new();
        for record in records {
            match record {
                InboxChange::Committed(position) => inbox.committed = position.max(Position::ZERO),
                InboxChange::Seen(sender, send_id, Some(at)) => inbox.dedupe.restore(sender, send_id, at),
                InboxChange::Expected(lane, Some(expected)) => {
                    inbox.lanes.entry(lane).or_insert_with(Lane::empty).expected = expected;
                }
                InboxChange::Held(lane, lane_no, Some(bytes)) => all_held.push((lane, lane_no, decode_held(&bytes)?)),
                InboxChange::Seen(_, _, None) | InboxChange::Held(_, _, None) | InboxChange::Expected(_, None) => {}
            }
        }
        for (lane, lane_no, held) in all_held {
            let deadline = held.since.after(inbox.config.hole_held);
            let state = inbox.lanes.entry(lane).or_insert_with(Lane::empty);
            state.release_at = Some(state.release_at.map_or(deadline, |at| at.min(deadline)));
            inbox.held += usize::from(state.held.insert(lane_no, held).is_none());
        }
        inbox.acked = inbox.committed;
        Ok(inbox)
    }
}

impl Lane {
    fn empty() -> Self {
        Self { expected: 1, held: std::collections::BTreeMap::new(), release_at: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELD: &str = "0a10010101010101010101010101010101011204626f64791809";

    #[test]
    fn a_held_message_keeps_its_bytes() {
        let body = Bytes::from_static(b"body");
        let first = Held { send_id: SendId::from_bytes([1; 16]), body, since: UnixMillis(9), unsent_from: 0 };
        let later = Held { unsent_from: 3, ..first.clone() };
        for (held, bytes) in [(first, HELD.to_owned()), (later, format!("{HELD}2003"))] {
            assert_eq!(hex::encode(encode_held(&held)), bytes);
            let read = decode_held(&hex::decode(bytes).expect("hexadecimal")).expect("read");
            assert_eq!(
                (read.send_id, read.body, read.since, read.unsent_from),
                (held.send_id, held.body, held.since, held.unsent_from)
            );
        }
        assert!(decode_held(&[0xff]).is_err());
    }
}
