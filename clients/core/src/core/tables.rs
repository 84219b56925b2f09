// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the driver stores. Everything but [`Table::Messages`] is given back to [`super::Core::load`].

use bytes::Bytes;

/// A named set of rows. The number is the stored form and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// Keys, ids, registration: one row.
    Identity = 1,
    /// Messages on their way out.
    Outbox = 2,
    /// Next number of each lane of this device.
    OutLanes = 3,
    /// The committed position: one row.
    Position = 4,
    /// Dedupe ids.
    Seen = 5,
    /// What each lane of others waits for.
    InLanes = 6,
    /// Messages held behind a hole.
    Held = 7,
    /// MLS state.
    Mls = 8,
    /// Conversations.
    Conversations = 9,
    /// People: handles, device lists, keys.
    Contacts = 10,
    /// What was begun and is not finished.
    Flows = 11,
    /// The history: `conversation ‖ order` to [`super::MessageRow`]. For display; the core never reads it.
    Messages = 12,
    /// What is told once, the last of it.
    Notices = 13,
}

impl Table {
    /// Every table.
    pub const ALL: &'static [Self] = &[
        Self::Identity,
        Self::Outbox,
        Self::OutLanes,
        Self::Position,
        Self::Seen,
        Self::InLanes,
        Self::Held,
        Self::Mls,
        Self::Conversations,
        Self::Contacts,
        Self::Flows,
        Self::Messages,
        Self::Notices,
    ];
    /// Its number.
    pub const fn number(self) -> u8 {
        self as u8
    }
    /// The table with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|t| t.number() == number)
    }
}

/// One row to write, or to delete where `value` is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub table: Table,
    /// Its key; unique in its table.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Option<Vec<u8>>,
}

/// One transaction: all or nothing, durable before anything else of its step happens. Later changes of one key win.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct ChangeSet(pub Vec<Change>);

impl ChangeSet {
    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    pub(crate) fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.0.push(Change { table, key, value: Some(value) });
    }
    pub(crate) fn set(&mut self, table: Table, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.0.push(Change { table, key, value });
    }
}

/// What a row of the history is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum RowKind {
    /// Not known to this version.
    Unknown = 0,
    /// Somebody else's message.
    Incoming = 1,
    /// One's own message.
    Outgoing = 2,
    /// Missing messages: `lane_no` to `hole_to`.
    Hole = 3,
    /// One's own message, written on another device of the account.
    Elsewhere = 4,
}

/// How far one's own message came. Delivered and read are watermarks of the conversation, not of the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum RowStatus {
    /// In the outbox.
    Waiting = 0,
    /// A durable log has it.
    Accepted = 1,
    /// Everywhere settled.
    Stored = 2,
    /// It will never be sent.
    Refused = 3,
}

/// A row of [`Table::Messages`], as protobuf; numbers are never reused. Its key is the conversation's 16 bytes and the
/// order as a big-endian 64-bit number; orders rise over all conversations in the order of showing.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MessageRow {
    /// What it is.
    #[prost(enumeration = "RowKind", tag = "1")]
    pub kind: i32,
    /// 16 bytes: whose.
    #[prost(bytes = "bytes", tag = "2")]
    pub account: Bytes,
    /// 16 bytes: of which device.
    #[prost(bytes = "bytes", tag = "3")]
    pub device: Bytes,
    /// 16 bytes.
    #[prost(bytes = "bytes", tag = "4")]
    pub send_id: Bytes,
    /// Number in the device's lane.
    #[prost(uint64, tag = "5")]
    pub lane_no: u64,
    /// Last missing number of a hole.
    #[prost(uint64, tag = "6")]
    pub hole_to: u64,
    /// What was said.
    #[prost(string, tag = "7")]
    pub text: String,
    /// When it was written, in milliseconds since 1970.
    #[prost(uint64, tag = "8")]
    pub sent_at_ms: u64,
    /// When the server took it; 0 before.
    #[prost(uint64, tag = "9")]
    pub accepted_at_ms: u64,
    /// Shown after what follows it.
    #[prost(bool, tag = "10")]
    pub late: bool,
    /// Of one's own messages.
    #[prost(enumeration = "RowStatus", tag = "11")]
    pub status: i32,
    /// The handle when it was shown; empty if it was not known.
    #[prost(string, tag = "12")]
    pub handle: String,
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    const STORED: &str = concat!(
        "08011210010101010101010101010101010101011a100202020202020202020202020202020222100303030303030303",
        "0303030303030303280430053a047361696440064807500158026203626f62",
    );

    #[test]
    fn a_row_of_the_history_keeps_its_bytes() {
        let id = |n: u8| Bytes::from(vec![n; 16]);
        let row = MessageRow {
            kind: RowKind::Incoming.into(),
            account: id(1),
            device: id(2),
            send_id: id(3),
            lane_no: 4,
            hole_to: 5,
            text: "said".into(),
            sent_at_ms: 6,
            accepted_at_ms: 7,
            late: true,
            status: RowStatus::Stored.into(),
            handle: "bob".into(),
        };
        assert_eq!(hex::encode(row.encode_to_vec()), STORED);
        assert_eq!(MessageRow::decode(hex::decode(STORED).expect("hexadecimal").as_slice()).expect("read"), row);
    }
}
