// SPDX-License-Identifier: MIT OR Apache-2.0
//! Positions: what sessions were sent, what devices acknowledged, what cursors were stored.

use std::collections::{BTreeMap, BTreeSet};

use super::event::Event;
use super::report::MessageName;

#[derive(Debug, Default)]
struct Session {
    sent: u64,
    gaps: Vec<(u64, u64)>,
}

#[derive(Debug, Default)]
struct Device {
    /// Queue of the device as its log has it, without what was dropped.
    placed: BTreeMap<u64, MessageName>,
    committed: Option<u64>,
    acked: u64,
    cursor: u64,
    sessions: BTreeMap<String, Session>,
}

/// Checks Q4 and Q5.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    devices: BTreeMap<String, Device>,
    expired: BTreeSet<MessageName>,
    broken: Vec<String>,
}

impl Sessions {
    /// What was found so far.
    pub(super) fn broken(&self) -> &[String] {
        &self.broken
    }

    fn device(&mut self, device: &str) -> &mut Device {
        self.devices.entry(device.into()).or_default()
    }

    pub(super) fn record(&mut self, event: &Event) {
        match event {
            Event::Expired { sender, send_id } => {
                self.expired.insert(MessageName { sender: sender.clone(), send_id: send_id.clone() });
            }
            Event::Placed { device, sender, send_id, position } => {
                let name = MessageName { sender: sender.clone(), send_id: send_id.clone() };
                self.device(device).placed.insert(*position, name);
            }
            Event::Dropped { device, position } => {
                self.device(device).placed.remove(position);
            }
            Event::Session { device, session, from } => {
                let opened = Session { sent: *from, gaps: Vec::new() };
                self.device(device).sessions.insert(session.clone(), opened);
            }
            Event::Gap { device, session, from, to } => self.gap(device, session, (*from, *to)),
            Event::Delivered { device, session, position } => self.delivered(device, session, *position),
            Event::Committed { device, position } => {
                let device = self.device(device);
                device.committed = device.committed.max(Some(*position));
            }
            Event::Acked { device, position } => self.acked(device, *position),
            Event::Cursor { device, position } => self.cursor(device, *position),
            _ => {}
        }
    }

    fn gap(&mut self, device: &str, session: &str, gap: (u64, u64)) {
        let session = self.device(device).sessions.entry(session.into()).or_default();
        session.gaps.push(gap);
        session.sent = session.sent.max(gap.1);
    }

    fn delivered(&mut self, name: &str, session: &str, position: u64) {
        let expired = std::mem::take(&mut self.expired);
        let device = self.device(name);
        let state = device.sessions.entry(session.into()).or_default();
        let mut found = Vec::new();
        if position <= state.sent {
            found.push(format!("Q4: {name} in session {session} was sent {position} after {}", state.sent));
        } else {
            let acked = device.acked.max(device.cursor);
            for (passed, message) in device.placed.range(state.sent + 1..position) {
                let told = state.gaps.iter().any(|(from, to)| from < passed && passed <= to);
                if *passed > acked && !told && !expired.contains(message) {
                    found
                        .push(format!("Q4: {name} in session {session} was sent {position} over {passed} ({message})"));
                }
            }
            state.sent = position;
        }
        self.expired = expired;
        self.broken.append(&mut found);
    }

    fn acked(&mut self, name: &str, position: u64) {
        let device = self.device(name);
        let (before, committed) = (device.acked, device.committed);
        device.acked = before.max(position);
        if position < before {
            self.broken.push(format!("Q5: {name} acknowledged {position} after {before}"));
        }
        self.not_above(name, "acknowledged", position, committed);
    }

    fn cursor(&mut self, name: &str, position: u64) {
        let device = self.device(name);
        let (before, committed) = (device.cursor, device.committed);
        device.cursor = before.max(position);
        if position < before {
            self.broken.push(format!("Q5: the cursor of {name} went from {before} back to {position}"));
        }
        self.not_above(name, "has its cursor at", position, committed);
    }

    fn not_above(&mut self, name: &str, what: &str, position: u64, committed: Option<u64>) {
        if let Some(committed) = committed.filter(|committed| position > *committed) {
            self.broken.push(format!("Q5: {name} {what} {position} above its commit {committed}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(send_id: &str, position: u64) -> Event {
        Event::Placed { device: "b".into(), sender: "a".into(), send_id: send_id.into(), position }
    }
    fn delivered(position: u64) -> Event {
        Event::Delivered { device: "b".into(), session: "s".into(), position }
    }
    fn committed(position: u64) -> Event {
        Event::Committed { device: "b".into(), position }
    }
    fn acked(position: u64) -> Event {
        Event::Acked { device: "b".into(), position }
    }
    fn broken(events: &[Event]) -> Vec<String> {
        let mut sessions = Sessions::default();
        events.iter().for_each(|event| sessions.record(event));
        sessions.broken().to_vec()
    }

    #[test]
    fn a_session_in_order_breaks_nothing() {
        let events = [placed("1", 5), placed("2", 9), delivered(5), committed(5), acked(5), delivered(9)];
        assert_eq!(broken(&events), [""; 0]);
    }

    #[test]
    fn a_position_that_does_not_increase_breaks_q4() {
        assert_eq!(broken(&[delivered(9), delivered(9)]), ["Q4: b in session s was sent 9 after 9"]);
        assert_eq!(broken(&[delivered(9), delivered(5)]), ["Q4: b in session s was sent 5 after 9"]);
    }

    #[test]
    fn passing_over_an_unacknowledged_envelope_breaks_q4() {
        let events = [placed("1", 5), placed("2", 9), delivered(9)];
        assert_eq!(broken(&events), ["Q4: b in session s was sent 9 over 5 (a/1)"]);
    }

    #[test]
    fn passing_over_what_is_acknowledged_expired_dropped_or_told_is_right() {
        let expired = Event::Expired { sender: "a".into(), send_id: "1".into() };
        let dropped = Event::Dropped { device: "b".into(), position: 5 };
        let gap = Event::Gap { device: "b".into(), session: "s".into(), from: 4, to: 5 };
        for excuse in [acked(5), expired, dropped, gap] {
            assert_eq!(broken(&[placed("1", 5), placed("2", 9), excuse, delivered(9)]), [""; 0]);
        }
    }

    #[test]
    fn a_gap_told_to_another_session_excuses_nothing() {
        let gap = Event::Gap { device: "b".into(), session: "other".into(), from: 4, to: 5 };
        assert_eq!(broken(&[placed("1", 5), gap, delivered(9)]).len(), 1);
    }

    #[test]
    fn acks_and_cursors_that_go_back_or_pass_the_commit_break_q5() {
        let cursor = |position| Event::Cursor { device: "b".into(), position };
        assert_eq!(broken(&[committed(9), acked(9), acked(5)]), ["Q5: b acknowledged 5 after 9"]);
        assert_eq!(broken(&[committed(5), acked(9)]), ["Q5: b acknowledged 9 above its commit 5"]);
        assert_eq!(broken(&[cursor(9), cursor(5)]), ["Q5: the cursor of b went from 9 back to 5"]);
        assert_eq!(broken(&[committed(5), cursor(9)]), ["Q5: b has its cursor at 9 above its commit 5"]);
    }
}
