// SPDX-License-Identifier: MIT OR Apache-2.0
//! What stands in an archive: `proto/pli/sealed/v1/archive.proto`.

use bytes::Bytes;
use pli_domain::{AccountId, ConversationId, DeviceId, SendId};
use prost::Message as _;
use zeroize::Zeroizing;

use super::{ArchiveError, ORDERS_END, parts_of};
use crate::core::{MessageRow, RowKind, RowStatus};

/// What an encoded head has at most.
const HEAD_BYTES_MAX: usize = 32;
/// Rows that an archive claims and whose room is made at once.
const ROWS_AT_ONCE: usize = 1_024;

#[derive(Clone, PartialEq, prost::Message)]
struct ArchiveHead {
    #[prost(uint64, tag = "1")]
    rows: u64,
    #[prost(uint64, tag = "2")]
    made_at_ms: u64,
    #[prost(bool, tag = "3")]
    cut: bool,
}

/// One message of an archive.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ArchiveRow {
    /// 16 bytes: the conversation in which its chat goes on.
    #[prost(bytes = "bytes", tag = "1")]
    pub conversation: Bytes,
    /// Its place; rises over all conversations, below [`ORDERS_END`].
    #[prost(uint64, tag = "2")]
    pub order: u64,
    /// 16 bytes: whose.
    #[prost(bytes = "bytes", tag = "3")]
    pub account: Bytes,
    /// 16 bytes: of which device.
    #[prost(bytes = "bytes", tag = "4")]
    pub device: Bytes,
    /// 16 bytes.
    #[prost(bytes = "bytes", tag = "5")]
    pub send_id: Bytes,
    /// Number in the device's lane.
    #[prost(uint64, tag = "6")]
    pub lane_no: u64,
    /// What was said.
    #[prost(string, tag = "7")]
    pub text: String,
    /// When it was written.
    #[prost(uint64, tag = "8")]
    pub sent_at_ms: u64,
    /// When the server took it.
    #[prost(uint64, tag = "9")]
    pub accepted_at_ms: u64,
    /// The writer's handle when it was shown.
    #[prost(string, tag = "10")]
    pub handle: String,
}

impl ArchiveRow {
    /// A row of the history as an archive has it, with the conversation in which its chat goes on; none for what is not
    /// archived: holes, what no log has taken, and what this version does not know.
    pub fn of(conversation: ConversationId, order: u64, row: &MessageRow) -> Option<Self> {
        let taken = match row.kind() {
            RowKind::Incoming | RowKind::Elsewhere => true,
            RowKind::Outgoing => matches!(row.status(), RowStatus::Accepted | RowStatus::Stored),
            RowKind::Hole | RowKind::Unknown => false,
        };
        (taken && order < ORDERS_END).then(|| Self {
            conversation: Bytes::copy_from_slice(conversation.as_bytes()),
            order,
            account: row.account.clone(),
            device: row.device.clone(),
            send_id: row.send_id.clone(),
            lane_no: row.lane_no,
            text: row.text.clone(),
            sent_at_ms: row.sent_at_ms,
            accepted_at_ms: row.accepted_at_ms,
            handle: row.handle.clone(),
        })
    }

    /// The message that it is.
    pub fn message(&self) -> Option<(DeviceId, SendId)> {
        Some((self.device.as_ref().try_into().ok()?, self.send_id.as_ref().try_into().ok()?))
    }

    /// Where it goes and what stands there, on another device of account `own`.
    pub fn shown(&self, own: AccountId) -> Option<(ConversationId, MessageRow)> {
        let conversation = self.conversation.as_ref().try_into().ok()?;
        self.message()?;
        let writer = AccountId::try_from(self.account.as_ref()).ok()?;
        let kind = if writer == own { RowKind::Elsewhere } else { RowKind::Incoming };
        let row = MessageRow {
            kind: kind.into(),
            account: self.account.clone(),
            device: self.device.clone(),
            send_id: self.send_id.clone(),
            lane_no: self.lane_no,
            text: self.text.clone(),
            sent_at_ms: self.sent_at_ms,
            accepted_at_ms: self.accepted_at_ms,
            handle: self.handle.clone(),
            ..MessageRow::default()
        };
        Some((conversation, row))
    }
}

/// What was archived.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Archive {
    /// When, in milliseconds since 1970.
    pub made_at_ms: u64,
    /// Older rows were left out.
    pub cut: bool,
    /// In the order of showing.
    pub rows: Vec<ArchiveRow>,
}

impl Archive {
    /// The newest of these rows that fit an archive, in the order of showing.
    pub fn of(mut rows: Vec<ArchiveRow>, made_at_ms: u64) -> Self {
        rows.sort_unstable_by_key(|row| row.order);
        let (mut bytes, mut first) = (HEAD_BYTES_MAX, rows.len());
        while let Some(row) = first.checked_sub(1).and_then(|before| rows.get(before)) {
            bytes += prost::length_delimiter_len(row.encoded_len()) + row.encoded_len();
            if parts_of(bytes).is_none() {
                break;
            }
            first -= 1;
        }
        rows.drain(..first);
        Self { made_at_ms, cut: first > 0, rows }
    }

    /// As it is sealed, but for the zeros.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let head = ArchiveHead { rows: self.rows.len() as u64, made_at_ms: self.made_at_ms, cut: self.cut };
        let mut plain = Zeroizing::new(head.encode_length_delimited_to_vec());
        for row in &self.rows {
            plain.extend(Zeroizing::new(row.encode_length_delimited_to_vec()).iter());
        }
        plain
    }

    /// What was opened. Errors where it is no archive, where rows do not rise, and where something stands behind them.
    pub fn decode(plain: &[u8]) -> Result<Self, ArchiveError> {
        let mut rest = plain;
        let head = ArchiveHead::decode_length_delimited(&mut rest).map_err(|_| ArchiveError::Contents)?;
        let count = usize::try_from(head.rows).map_err(|_| ArchiveError::Contents)?;
        let mut rows = Vec::with_capacity(count.min(ROWS_AT_ONCE));
        let mut before = None;
        for _ in 0..count {
            let row = ArchiveRow::decode_length_delimited(&mut rest).map_err(|_| ArchiveError::Contents)?;
            // A length of 0 is no row: zeros do not stand for one.
            let rises = before.is_none_or(|before| before < row.order) && row.order < ORDERS_END;
            if !rises || row.message().is_none() || row.conversation.len() != 16 || row.account.len() != 16 {
                return Err(ArchiveError::Contents);
            }
            before = Some(row.order);
            rows.push(row);
        }
        if rest.iter().any(|byte| *byte != 0) {
            return Err(ArchiveError::Contents);
        }
        Ok(Self { made_at_ms: head.made_at_ms, cut: head.cut, rows })
    }
}
