// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lane order and holes.

use std::collections::BTreeMap;

use bytes::Bytes;
use pli_domain::{ConversationId, SendId, UnixMillis};

use super::{Delivery, InLane, Inbox, InboxChange, Shown, record};

/// What one lane waits for and what it holds behind a hole.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) expected: u64,
    pub(super) held: BTreeMap<u64, Held>,
    /// When the first hole is marked; none while nothing is held.
    pub(super) release_at: Option<UnixMillis>,
}

#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) send_id: SendId,
    pub(super) body: Bytes,
    pub(super) since: UnixMillis,
    /// See [`Delivery::unsent_from`].
    pub(super) unsent_from: u64,
}

impl Held {
    /// What is missing where `expected` is, before this one, which has the number `lane_no`.
    fn hole(&self, expected: u64, lane_no: u64) -> Option<(u64, u64)> {
        let end = if self.unsent_from == 0 { lane_no } else { self.unsent_from.min(lane_no) };
        (expected < end).then(|| (expected, end - 1))
    }
}

impl Inbox {
    pub(super) fn arrange(&mut self, delivery: Delivery, now: UnixMillis) -> Vec<Shown> {
        let Delivery { lane, send_id, lane_no, lane_base, floor, unsent_from, body, .. } = delivery;
        let expected = match self.lanes.get(&lane) {
            Some(known) => known.expected,
            // It does not say where the lane goes on.
            None if lane_no < floor => floor,
            None => self.begin(lane, lane_base.max(1).min(lane_no).max(floor)),
        };
        if lane_no < expected {
            return vec![Shown::Message { lane, lane_no, send_id, body, late: true }];
        }
        if lane_no == expected {
            let mut shown = vec![Shown::Message { lane, lane_no, send_id, body, late: false }];
            self.expect(lane, lane_no.saturating_add(1));
            self.follow_on(lane, now, &mut shown);
            return shown;
        }
        let mut shown = self.hold(lane, lane_no, Held { send_id, body, since: now, unsent_from });
        if unsent_from != 0 {
            self.follow_on(lane, now, &mut shown);
        }
        shown
    }

    /// Takes the place of a content that was seen under another number.
    pub(super) fn fill(&mut self, delivery: Delivery, now: UnixMillis) -> Vec<Shown> {
        let taken = |lane: &Lane| delivery.lane_no < lane.expected || lane.held.contains_key(&delivery.lane_no);
        if self.lanes.get(&delivery.lane).is_some_and(taken) {
            return Vec::new();
        }
        self.arrange(delivery, now)
    }

    /// Marks the first hole of a lane and shows what it held up.
    pub(super) fn release(&mut self, lane: InLane, now: UnixMillis) -> Vec<Shown> {
        let Some(state) = self.lanes.get(&lane) else { return Vec::new() };
        let Some((&first, held)) = state.held.first_key_value() else { return Vec::new() };
        let hole = held.hole(state.expected, first).map(|(from, to)| Shown::Hole { lane, from, to });
        let mut shown: Vec<Shown> = hole.into_iter().collect();
        self.expect(lane, first);
        self.follow_on(lane, now, &mut shown);
        shown
    }

    /// Forgets the lanes of a conversation, so that each begins with its next message; answers what they held.
    pub(crate) fn begin_again(&mut self, conversation: ConversationId, now: UnixMillis) -> Vec<Shown> {
        let lanes: Vec<InLane> = self.lanes.keys().filter(|lane| lane.conversation == conversation).copied().collect();
        let mut shown = Vec::new();
        for lane in lanes {
            // Each round shows at least one.
            while self.lanes.get(&lane).is_some_and(|state| !state.held.is_empty()) {
                shown.append(&mut self.release(lane, now));
            }
            self.lanes.remove(&lane);
            self.changes.push(InboxChange::Expected(lane, None));
        }
        shown
    }

    fn begin(&mut self, lane: InLane, expected: u64) -> u64 {
        if self.lanes.len() >= self.config.lanes_max {
            self.forget_one();
        }
        self.lanes.insert(lane, Lane { expected, held: BTreeMap::new(), release_at: None });
        self.changes.push(InboxChange::Expected(lane, Some(expected)));
        expected
    }

    /// Most lanes hold nothing, so the first ones looked at will do; those that hold something are fewer than `held_max`.
    fn forget_one(&mut self) {
        let idle = self.lanes.iter().find(|(_, state)| state.held.is_empty()).map(|(lane, _)| *lane);
        if let Some(lane) = idle {
            self.lanes.remove(&lane);
            self.changes.push(InboxChange::Expected(lane, None));
        }
    }

    fn expect(&mut self, lane: InLane, next: u64) {
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.expected = next;
            self.changes.push(InboxChange::Expected(lane, Some(next)));
        }
    }

    fn hold(&mut self, lane: InLane, lane_no: u64, held: Held) -> Vec<Shown> {
        let now = held.since;
        let Some(state) = self.lanes.get_mut(&lane) else { return Vec::new() };
        if state.held.contains_key(&lane_no) {
            // Two contents claim one number: a defect of the sender. Both are shown, this one out of order.
            return vec![Shown::Message { lane, lane_no, send_id: held.send_id, body: held.body, late: true }];
        }
        let deadline = now.after(self.config.hole_held);
        state.release_at = Some(state.release_at.map_or(deadline, |at| at.min(deadline)));
        self.changes.push(InboxChange::Held(lane, lane_no, Some(record::encode_held(&held))));
        state.held.insert(lane_no, held);
        self.held += 1;
        let full = state.held.len() > self.config.lane_held_max || self.held > self.config.held_max;
        if full { self.release(lane, now) } else { Vec::new() }
    }

    /// Shows what follows without a hole and sets the deadline of the next hole from the oldest that it holds up. A
    /// hole whose time is over already is marked in the same step.
    fn follow_on(&mut self, lane: InLane, now: UnixMillis, shown: &mut Vec<Shown>) {
        let hole_held = self.config.hole_held;
        let Some(state) = self.lanes.get_mut(&lane) else { return };
        let before = state.expected;
        while let Some((&lane_no, held)) = state.held.first_key_value() {
            if let Some((from, to)) = held.hole(state.expected, lane_no) {
                let oldest = state.held.values().map(|h| h.since).min().unwrap_or(held.since);
                let deadline = oldest.after(hole_held);
                state.release_at = Some(deadline);
                if deadline > now {
                    break;
                }
                shown.push(Shown::Hole { lane, from, to });
            }
            if let Some(Held { send_id, body, .. }) = state.held.remove(&lane_no) {
                self.held -= 1;
                self.changes.push(InboxChange::Held(lane, lane_no, None));
                shown.push(Shown::Message { lane, lane_no, send_id, body, late: false });
            }
            state.expected = lane_no.saturating_add(1);
        }
        if state.held.is_empty() {
            state.release_at = None;
        }
        let next = state.expected;
        if next != before {
            self.changes.push(InboxChange::Expected(lane, Some(next)));
        }
    }
}
