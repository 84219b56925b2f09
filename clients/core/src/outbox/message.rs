// SPDX-License-Identifier: MIT OR Apache-2.0
//! One message of the outbox.

use bytes::Bytes;
use pli_domain::{SendId, UnixMillis};

use super::OutLane;
use super::spread::InOrder;

/// How far a message has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendState {
    /// Waits to be sent, not before this local time.
    Queued {
        /// Local time.
        not_before: UnixMillis,
    },
    /// Sent on this connection, not answered.
    Sent,
    /// A durable log has it; its receipt is open.
    Accepted {
        /// Opaque.
        receipt: Bytes,
        /// Server time.
        accepted_at: UnixMillis,
    },
}

/// A message that is not `stored` yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutMessage {
    /// Names its content for ever.
    pub send_id: SendId,
    /// Its lane.
    pub lane: OutLane,
    /// Its consecutive number in the lane, from 1.
    pub lane_no: u64,
    /// What is to be sealed.
    pub content: Bytes,
    /// Server time; none before the first try.
    pub expires_at: Option<UnixMillis>,
    /// How far it has come.
    pub state: SendState,
    /// Tries that failed; steers the backoff.
    pub attempts: u32,
    /// It was sent, and the answer has not come.
    pub(super) asked: bool,
    /// An answer to an earlier try was lost with its connection: the server may have taken it, whatever it says of this
    /// one.
    pub(super) in_doubt: bool,
    /// Kept in memory only, until it is accepted: after a restart it is sealed again.
    pub(super) sealed: Option<InOrder>,
}

impl OutMessage {
    /// Server time when a log took it, while that stands.
    pub fn accepted_at(&self) -> Option<UnixMillis> {
        match self.state {
            SendState::Accepted { accepted_at, .. } => Some(accepted_at),
            _ => None,
        }
    }

    /// Whether the server may have taken it although no answer says so.
    pub fn is_in_doubt(&self) -> bool {
        self.in_doubt || self.asked
    }

    pub(super) fn new(send_id: SendId, lane: OutLane, lane_no: u64, content: Bytes) -> Self {
        let state = SendState::Queued { not_before: UnixMillis(0) };
        Self {
            send_id,
            lane,
            lane_no,
            content,
            expires_at: None,
            state,
            attempts: 0,
            asked: false,
            in_doubt: false,
            sealed: None,
        }
    }
}
