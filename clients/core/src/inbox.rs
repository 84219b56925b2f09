// SPDX-License-Identifier: MIT OR Apache-2.0
//! What arrives is shown once (Q9) and, within a lane, in the order sent (Q10).
//!
//! The machine is pure. For every envelope the driver asks [`Inbox::is_seen`], opens it, and gives it to
//! [`Inbox::deliver`]; what comes back is to be shown now. [`Inbox::take_changes`] are the records that must be
//! committed, in one transaction with the message and the ratchet state, before [`Inbox::take_ack`] may leave.
//!
//! A lane is one sender device in one conversation and class; the sealed content carries a consecutive number. A
//! number above the expected one is held until the missing ones arrive, at most 10 s; then the hole is marked and what
//! was held is shown. What arrives below the expected number is shown as late.
//!
//! Bounds: see [`InboxConfig`].

mod dedupe;
mod lanes;
mod record;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use pli_domain::limits::{DEDUPE_KEPT, LANE_HOLE_HELD};
use pli_domain::mutant::{Mutant, broken};
use pli_domain::{Class, ConversationId, DeviceId, Position, SendId, UnixMillis};

use dedupe::Dedupe;
use lanes::Lane;
pub use record::InboxRecordError;

/// An order domain of another device: its messages of one class in one conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InLane {
    /// The sending device.
    pub sender: DeviceId,
    /// The conversation.
    pub conversation: ConversationId,
    /// The class.
    pub class: Class,
}

/// Bounds and times of an [`Inbox`].
#[derive(Debug, Clone)]
pub struct InboxConfig {
    /// How long a hole is held.
    pub hole_held: Duration,
    /// How long a dedupe id is kept.
    pub dedupe_kept: Duration,
    /// Most dedupe ids; above it the oldest are dropped first (about 100 bytes of memory each).
    pub dedupe_max: usize,
    /// Most messages held behind holes in one lane; above it the first hole is marked at once.
    pub lane_held_max: usize,
    /// Most lanes; above it one that holds nothing is forgotten for each new one (about 150 bytes of memory each). A
    /// forgotten lane begins again behind what was shown of it; nothing is lost.
    pub lanes_max: usize,
    /// Most messages held in all lanes; above it the lane that received one is released at once.
    pub held_max: usize,
}

impl Default for InboxConfig {
    fn default() -> Self {
        Self {
            hole_held: LANE_HOLE_HELD,
            dedupe_kept: DEDUPE_KEPT,
            dedupe_max: 1_000_000,
            lanes_max: 100_000,
            lane_held_max: 1_024,
            held_max: 8_192,
        }
    }
}

/// An opened envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Where it stood in the session's queue.
    pub position: Position,
    /// Its lane.
    pub lane: InLane,
    /// Names its content.
    pub send_id: SendId,
    /// Consecutive in its lane, from 1.
    pub lane_no: u64,
    /// The lane number from which on this device is addressed, as the sender knows it; 1 unless the device joined
    /// later. Looked at for the first message of a lane only.
    pub lane_base: u64,
    /// The first number that this device can lack, as far as it knows itself. Looked at while the lane is not known.
    pub floor: u64,
    /// Numbers from this one up to the one before `lane_no` stand for nothing; 0 for none.
    pub unsent_from: u64,
    /// What the lane orders.
    pub body: Bytes,
}

/// Something to show, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// A message.
    Message {
        /// Its lane.
        lane: InLane,
        /// Its number.
        lane_no: u64,
        /// Names its content.
        send_id: SendId,
        /// What was delivered.
        body: Bytes,
        /// It arrived after what follows it was shown.
        late: bool,
    },
    /// Messages `from` to `to` did not arrive in time.
    Hole {
        /// The lane.
        lane: InLane,
        /// First missing number.
        from: u64,
        /// Last missing number.
        to: u64,
    },
}

/// A record to write or delete in the driver's next transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InboxChange {
    /// Everything up to here is committed.
    Committed(Position),
    /// A content was seen at this local time; `None` deletes it.
    Seen(DeviceId, SendId, Option<UnixMillis>),
    /// The number that a lane waits for; `None` deletes it.
    Expected(InLane, Option<u64>),
    /// A message held behind a hole, by lane and number; `None` deletes it.
    Held(InLane, u64, Option<Vec<u8>>),
}

/// See the module.
#[derive(Debug)]
pub struct Inbox {
    config: InboxConfig,
    committed: Position,
    acked: Position,
    /// Highest position that came again although it was committed: the session waits for its ack.
    again: Option<Position>,
    dedupe: Dedupe,
    lanes: BTreeMap<InLane, Lane>,
    held: usize,
    changes: Vec<InboxChange>,
}

impl Inbox {
    /// An inbox that has seen nothing.
    pub fn new(config: InboxConfig) -> Self {
        let dedupe = Dedupe::new(config.dedupe_kept, config.dedupe_max);
        Self {
            config,
            committed: Position::ZERO,
            acked: Position::ZERO,
            again: None,
            dedupe,
            lanes: BTreeMap::new(),
            held: 0,
            changes: Vec::new(),
        }
    }

    /// The highest position whose changes were handed out: what the next hello names.
    pub fn position(&self) -> Position {
        self.committed
    }

    /// Whether the content was delivered before; it is delivered again without its content, for its place in the lane.
    pub fn is_seen(&self, sender: DeviceId, send_id: SendId) -> bool {
        !broken(Mutant::DedupeMissing) && self.dedupe.contains(sender, send_id)
    }

    /// Takes an opened envelope; answers what is to be shown now. A content seen before only moves the position, and takes
    /// its place in a lane that it was moved into since: the caller leaves the content out of its body.
    pub fn deliver(&mut self, delivery: Delivery, now: UnixMillis) -> Vec<Shown> {
        self.pass(delivery.position);
        let (lane, send_id) = (delivery.lane, delivery.send_id);
        if self.is_seen(lane.sender, send_id) {
            return if broken(Mutant::LaneOrderBroken) { Vec::new() } else { self.fill(delivery, now) };
        }
        self.dedupe.insert(lane.sender, send_id, now, &mut self.changes);
        if broken(Mutant::LaneOrderBroken) {
            let Delivery { lane_no, body, .. } = delivery;
            return vec![Shown::Message { lane, lane_no, send_id, body, late: false }];
        }
        self.arrange(delivery, now)
    }

    /// Moves the position past an envelope that shows nothing in a lane (a commit, a duplicate, what cannot be opened).
    pub fn pass(&mut self, position: Position) {
        if position > self.committed {
            self.committed = position;
            self.changes.push(InboxChange::Committed(position));
        } else {
            self.again = self.again.max(Some(position));
        }
    }

    /// Remembers a content that is not ordered in a lane, so that it is not processed again.
    pub fn remember(&mut self, sender: DeviceId, send_id: SendId, now: UnixMillis) {
        self.dedupe.insert(sender, send_id, now, &mut self.changes);
    }

    /// Everything up to and including `to` is gone or was delivered.
    pub fn gap(&mut self, to: Position) {
        self.pass(to);
    }

    /// The server does not know the position of the hello and reads from `from`: follow it. Dedupe removes what comes
    /// again.
    pub fn follow(&mut self, from: Position) {
        self.committed = from;
        self.acked = from;
        self.again = None;
        self.changes.push(InboxChange::Committed(from));
    }

    /// Releases holes that were held long enough and forgets old dedupe ids.
    pub fn tick(&mut self, now: UnixMillis) -> Vec<Shown> {
        self.dedupe.expire(now, &mut self.changes);
        let due: Vec<InLane> =
            self.lanes.iter().filter(|(_, l)| l.release_at.is_some_and(|at| at <= now)).map(|(&l, _)| l).collect();
        due.into_iter().flat_map(|lane| self.release(lane, now)).collect()
    }

    /// When to call [`Inbox::tick`] again.
    pub fn next_deadline(&self) -> Option<UnixMillis> {
        self.lanes.values().filter_map(|l| l.release_at).min()
    }

    /// The records changed since the last call, in the order to apply them.
    pub fn take_changes(&mut self) -> Vec<InboxChange> {
        std::mem::take(&mut self.changes)
    }

    /// The position to acknowledge, if it moved since the last call. May leave only after the changes handed out so far
    /// are committed. What came again is acknowledged again, or a session whose owner knows less than the hello said
    /// would wait for its window for ever.
    pub fn take_ack(&mut self) -> Option<Position> {
        let again = self.again.take();
        if self.committed > self.acked {
            self.acked = self.committed;
            return Some(self.committed);
        }
        again
    }

    /// A new session begins; its hello names [`Inbox::position`], so nothing is left to acknowledge.
    pub fn connected(&mut self) {
        self.acked = self.committed;
        self.again = None;
    }

    /// Messages held behind holes.
    pub fn held(&self) -> usize {
        self.held
    }
}

#[cfg(test)]
mod tests;
