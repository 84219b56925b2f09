// SPDX-License-Identifier: MIT OR Apache-2.0
//! What this device sent and is not `stored` yet.
//!
//! A message stays here from the moment it is typed until everything its receipt names is settled; only then can the
//! servers no longer lose it. The machine is pure: it is told what happened and when, and answers with frames, events
//! and records to write. It does not know MLS: a closure seals a content at the moment it leaves, so that a resend in
//! a newer epoch is sealed again under the same send id.
//!
//! Order: within a lane nothing is sent while an earlier message of the lane waits to be sent. What is in flight
//! (sent, un-answered) is bounded by the window of `Ready`.
//!
//! Receivers keep the keys of so many of a sender's messages in a group that they skipped ([`OutboxConfig::spread_max`]),
//! and what is sealed later may come earlier: a resend after a back-off, a message that the server is slow to take. So a
//! body that falls behind is sealed again before it leaves, and nothing is sealed while one on the wire is that far behind.
//!
//! After a reconnect everything sent but un-answered is sent again with the same send id (the receiver removes the
//! duplicate) and every open receipt is presented again.

mod message;
mod record;
mod results;
mod sending;
mod spread;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use pli_api::common;
use pli_domain::limits::{EXPIRY_MAX, OUTBOX_BYTES_MAX, OUTBOX_MESSAGES_MAX};
use pli_domain::{Class, ConversationId, SendId, UnixMillis};

use crate::mls::OUT_OF_ORDER_TOLERANCE;
pub use message::{OutMessage, SendState};
pub use record::RecordError;
pub use sending::OutboxPoll;

/// Receipts in one `Pending` frame.
pub const PENDING_RECEIPTS_MAX: usize = 256;
/// Bytes of sealed bodies in one `Send` frame, below the frame limit by the room that headers need.
const BATCH_BODY_BYTES_MAX: usize = 64 * 1024;
/// Sends in one frame.
const BATCH_SENDS_MAX: usize = 64;

/// An order domain of this device: one conversation and class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutLane {
    /// The conversation.
    pub conversation: ConversationId,
    /// The class.
    pub class: Class,
}

/// Bounds and times of an [`Outbox`].
#[derive(Debug, Clone)]
pub struct OutboxConfig {
    /// Most messages that are not `stored`.
    pub messages_max: usize,
    /// Most bytes of content that are not `stored`.
    pub bytes_max: usize,
    /// Sends in flight until `Ready` names a window.
    pub send_window: usize,
    /// Upper end of the first full-jitter delay; it doubles with each try.
    pub backoff_first: Duration,
    /// Upper end of every full-jitter delay.
    pub backoff_max: Duration,
    /// Life of a message from its first try, in server time; an hour below the limit so that a drifting clock is not
    /// refused.
    pub life: Duration,
    /// How many bodies of its conversation a sealed one may be behind the newest: at so many it is sealed again when it
    /// leaves again, and while it is on the wire nothing is sealed that would put it there. Below
    /// [`crate::mls::OUT_OF_ORDER_TOLERANCE`].
    pub spread_max: u64,
    /// A receipt whose end was not heard in this time is presented again on a living connection.
    pub receipt_repeat: Duration,
}

impl Default for OutboxConfig {
    fn default() -> Self {
        Self {
            messages_max: OUTBOX_MESSAGES_MAX,
            bytes_max: OUTBOX_BYTES_MAX,
            send_window: 64,
            backoff_first: Duration::from_millis(250),
            backoff_max: Duration::from_secs(60),
            life: EXPIRY_MAX - Duration::from_secs(3600),
            spread_max: u64::from(OUT_OF_ORDER_TOLERANCE) * 7 / 8,
            receipt_repeat: Duration::from_secs(120),
        }
    }
}

/// Why the outbox takes no more, and with that why sending waits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutboxFull {
    /// Too many messages wait.
    #[error(
        "{waiting} messages wait to be stored ({unsent} not sent yet); sending goes on when the server stores them"
    )]
    Messages {
        /// Messages in the outbox.
        waiting: usize,
        /// Of these, not accepted yet.
        unsent: usize,
    },
    /// Too many bytes wait.
    #[error("{bytes} bytes wait to be stored; sending goes on when the server stores them")]
    Bytes {
        /// Bytes of content in the outbox.
        bytes: usize,
    },
    /// The send id is in the outbox already.
    #[error("the send id is in use")]
    SendIdTaken,
}

/// A sealed body and the MLS epoch it is sealed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The MLS epoch.
    pub epoch: u64,
    /// 1 byte to 64 KiB.
    pub body: Bytes,
}

/// What the sealing closure answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Seal {
    /// Send it.
    Sealed(Sealed),
    /// The conversation is not ready; the lane waits, ask again at a later [`Outbox::poll`].
    Wait,
    /// It can never be sealed; the message is dropped and reported.
    Refuse(common::Error),
}

/// What happened to a message.
#[derive(Debug, Clone, PartialEq)]
pub enum OutboxEvent {
    /// A durable log has it (one tick).
    Accepted {
        /// The message.
        send_id: SendId,
        /// Its conversation.
        lane: OutLane,
        /// Server time.
        accepted_at: UnixMillis,
    },
    /// Settled everywhere; it left the outbox.
    Stored {
        /// The message.
        send_id: SendId,
        /// Its conversation.
        lane: OutLane,
        /// As it was.
        message: Box<OutMessage>,
    },
    /// It will be sent again; `accepted` no longer holds.
    Resending {
        /// The message.
        send_id: SendId,
        /// Its conversation.
        lane: OutLane,
    },
    /// The server asks for a later try.
    Waiting {
        /// The message.
        send_id: SendId,
        /// Its conversation.
        lane: OutLane,
        /// Why.
        why: common::Error,
    },
    /// The MLS epoch moved on: catch up, then call [`Outbox::epoch_ready`].
    WrongEpoch {
        /// The message.
        send_id: SendId,
        /// Its conversation.
        lane: OutLane,
        /// The server's newest epoch.
        current_epoch: u64,
    },
    /// Final; it left the outbox.
    Refused {
        /// The message.
        send_id: SendId,
        /// Its conversation.
        lane: OutLane,
        /// As it was.
        message: Box<OutMessage>,
        /// Why.
        why: common::Error,
    },
}

/// A record to write or delete in the driver's next transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutboxChange {
    /// A message by its place in the outbox; `None` deletes it.
    Message(u64, Option<Vec<u8>>),
    /// The next lane number of a lane.
    Lane(OutLane, u64),
}

/// See the module.
#[derive(Debug)]
pub struct Outbox {
    config: OutboxConfig,
    messages: BTreeMap<u64, OutMessage>,
    by_send_id: BTreeMap<SendId, u64>,
    /// Several messages of one micro-batch may share a receipt.
    by_receipt: BTreeMap<Bytes, BTreeSet<u64>>,
    /// What waits to be sent, in order.
    queued: BTreeMap<OutLane, BTreeSet<u64>>,
    /// Conversations that must catch up first.
    held: BTreeSet<ConversationId>,
    lane_next: BTreeMap<OutLane, u64>,
    in_flight: BTreeSet<u64>,
    /// Bodies sealed since the program began, of each conversation.
    seals: BTreeMap<ConversationId, u64>,
    /// Receipts to present, each once per connection and after `receipt_repeat`.
    to_present: BTreeSet<Bytes>,
    present_at: Option<UnixMillis>,
    next_place: u64,
    bytes: usize,
    window: usize,
    connected: bool,
    /// Server time minus local time, in milliseconds.
    server_offset_ms: i64,
    polled_at: UnixMillis,
    dirty: BTreeSet<u64>,
    dirty_lanes: BTreeSet<OutLane>,
}

impl Outbox {
    /// An empty outbox.
    pub fn new(config: OutboxConfig) -> Self {
        let window = config.send_window;
        Self {
            config,
            messages: BTreeMap::new(),
            by_send_id: BTreeMap::new(),
            by_receipt: BTreeMap::new(),
            queued: BTreeMap::new(),
            held: BTreeSet::new(),
            lane_next: BTreeMap::new(),
            in_flight: BTreeSet::new(),
            seals: BTreeMap::new(),
            to_present: BTreeSet::new(),
            present_at: None,
            next_place: 0,
            bytes: 0,
            window,
            connected: false,
            server_offset_ms: 0,
            polled_at: UnixMillis(0),
            dirty: BTreeSet::new(),
            dirty_lanes: BTreeSet::new(),
        }
    }

    /// Messages that are not `stored`.
    pub fn len(&self) -> usize {
        self.messages.len()
    }
    /// Whether everything is `stored`.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
    /// Bytes of content that are not `stored`.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
    /// Messages not accepted yet.
    pub fn unsent(&self) -> usize {
        self.in_flight.len() + self.queued.values().map(BTreeSet::len).sum::<usize>()
    }
    /// The message with this send id, while it is here.
    pub fn get(&self, send_id: &SendId) -> Option<&OutMessage> {
        self.messages.get(self.by_send_id.get(send_id)?)
    }
    /// Whether the lane has a message that is not accepted yet.
    pub fn lane_busy(&self, lane: &OutLane) -> bool {
        self.queued.contains_key(lane) || self.in_flight.iter().any(|at| self.messages[at].lane == *lane)
    }
    /// What no log has yet.
    pub fn each_unsent(&self) -> impl Iterator<Item = &OutMessage> {
        self.messages.values().filter(|message| !matches!(message.state, SendState::Accepted { .. }))
    }
    /// The numbers of everything of the lane that is here.
    pub fn numbers_of(&self, lane: &OutLane) -> impl Iterator<Item = u64> {
        self.messages.values().filter(move |message| message.lane == *lane).map(|message| message.lane_no)
    }
    /// Numbers up to `last` were used before, by another copy of this device: they are not used again.
    pub fn skip_to(&mut self, lane: OutLane, last: u64) {
        if self.next_lane_no(&lane) <= last {
            self.lane_next.insert(lane, last.saturating_add(1));
            self.dirty_lanes.insert(lane);
        }
    }
    /// The number that the lane's next message will carry; from 1.
    pub fn next_lane_no(&self, lane: &OutLane) -> u64 {
        self.lane_next.get(lane).copied().unwrap_or(1)
    }

    /// The lowest number of the lane that waits to be sent, or the next one.
    pub fn first_queued_lane_no(&self, lane: &OutLane) -> u64 {
        let first = self.queued.get(lane).and_then(|set| set.first()).map(|at| self.messages[at].lane_no);
        first.unwrap_or_else(|| self.next_lane_no(lane))
    }

    /// The lowest number of the lane that cannot be at the server yet.
    pub fn first_untried_lane_no(&self, lane: &OutLane) -> u64 {
        let untried =
            |message: &OutMessage| matches!(message.state, SendState::Queued { .. }) && !message.is_in_doubt();
        let tried = self.messages.values().filter(|message| message.lane == *lane && !untried(message));
        let after = tried.map(|message| message.lane_no.saturating_add(1)).max().unwrap_or(0);
        after.max(self.first_queued_lane_no(lane))
    }

    /// Conversations with messages that wait to be sent.
    pub fn waiting_conversations(&self) -> BTreeSet<ConversationId> {
        self.queued.keys().map(|lane| lane.conversation).collect()
    }

    /// Takes a message; it is sent when its turn comes. Answers its lane number, consecutive from 1 in its lane.
    pub fn push(&mut self, send_id: SendId, lane: OutLane, content: Bytes) -> Result<u64, OutboxFull> {
        if self.messages.len() >= self.config.messages_max {
            return Err(OutboxFull::Messages { waiting: self.messages.len(), unsent: self.unsent() });
        }
        if self.bytes + content.len() > self.config.bytes_max {
            return Err(OutboxFull::Bytes { bytes: self.bytes });
        }
        if self.by_send_id.contains_key(&send_id) {
            return Err(OutboxFull::SendIdTaken);
        }
        let lane_no = self.next_lane_no(&lane);
        self.lane_next.insert(lane, lane_no + 1);
        self.dirty_lanes.insert(lane);
        let at = self.next_place;
        self.next_place += 1;
        self.insert(at, OutMessage::new(send_id, lane, lane_no, content));
        self.dirty.insert(at);
        Ok(lane_no)
    }

    /// Takes back a message that left the outbox, for another lane, under the same send id. It takes the room that it
    /// had. Answers its new number.
    pub fn push_again(&mut self, message: OutMessage, lane: OutLane) -> u64 {
        let lane_no = self.next_lane_no(&lane);
        self.lane_next.insert(lane, lane_no + 1);
        self.dirty_lanes.insert(lane);
        let at = self.next_place;
        self.next_place += 1;
        let in_doubt = message.is_in_doubt();
        let mut again = OutMessage::new(message.send_id, lane, lane_no, message.content);
        (again.expires_at, again.in_doubt) = (message.expires_at, in_doubt);
        self.insert(at, again);
        self.dirty.insert(at);
        lane_no
    }

    /// Whether a message of the conversation was sent and not answered.
    pub fn in_flight_of(&self, conversation: ConversationId) -> bool {
        self.in_flight.iter().any(|at| self.messages[at].lane.conversation == conversation)
    }

    /// Takes out what waits to be sent in a conversation, oldest first.
    pub fn take_queued(&mut self, conversation: ConversationId) -> Vec<OutMessage> {
        let lanes = self.queued.iter().filter(|(lane, _)| lane.conversation == conversation);
        let mut queued: Vec<u64> = lanes.flat_map(|(_, set)| set.iter().copied()).collect();
        queued.sort_unstable();
        queued.into_iter().filter_map(|at| self.remove(at)).collect()
    }

    /// Drops every message of a conversation that is no more, but for what is on the wire; answers them, oldest first.
    pub fn drop_conversation(&mut self, conversation: ConversationId) -> Vec<OutMessage> {
        let gone: Vec<u64> =
            self.messages.iter().filter(|(_, m)| m.lane.conversation == conversation).map(|(&at, _)| at).collect();
        let gone = gone.into_iter().filter(|at| !self.in_flight.contains(at)).collect::<Vec<_>>();
        self.held.remove(&conversation);
        gone.into_iter().filter_map(|at| self.remove(at)).collect()
    }

    /// The records changed since the last call. Write them before frames of the same step leave.
    pub fn take_changes(&mut self) -> Vec<OutboxChange> {
        let lanes = std::mem::take(&mut self.dirty_lanes);
        let mut changes: Vec<_> = lanes.into_iter().map(|l| OutboxChange::Lane(l, self.next_lane_no(&l))).collect();
        for at in std::mem::take(&mut self.dirty) {
            changes.push(OutboxChange::Message(at, self.messages.get(&at).map(record::encode)));
        }
        changes
    }

    fn insert(&mut self, at: u64, message: OutMessage) {
        self.bytes += message.content.len();
        self.by_send_id.insert(message.send_id, at);
        match &message.state {
            SendState::Accepted { receipt, .. } => {
                self.by_receipt.entry(receipt.clone()).or_default().insert(at);
            }
            _ => {
                self.queued.entry(message.lane).or_default().insert(at);
            }
        }
        self.messages.insert(at, message);
    }

    fn remove(&mut self, at: u64) -> Option<OutMessage> {
        let message = self.messages.remove(&at)?;
        self.bytes -= message.content.len();
        self.by_send_id.remove(&message.send_id);
        self.in_flight.remove(&at);
        self.unqueue(at, message.lane);
        if let SendState::Accepted { receipt, .. } = &message.state {
            self.forget_receipt(&receipt.clone(), at);
        }
        self.dirty.insert(at);
        Some(message)
    }

    fn unqueue(&mut self, at: u64, lane: OutLane) {
        if let Some(set) = self.queued.get_mut(&lane) {
            set.remove(&at);
            if set.is_empty() {
                self.queued.remove(&lane);
            }
        }
    }

    fn forget_receipt(&mut self, receipt: &Bytes, at: u64) {
        if let Some(set) = self.by_receipt.get_mut(receipt) {
            set.remove(&at);
            if set.is_empty() {
                self.by_receipt.remove(receipt);
                self.to_present.remove(receipt);
            }
        }
    }

    fn server_time(&self, now: UnixMillis) -> UnixMillis {
        UnixMillis(now.0.saturating_add_signed(self.server_offset_ms))
    }
}

#[cfg(test)]
mod tests;
