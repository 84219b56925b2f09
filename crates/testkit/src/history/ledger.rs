// SPDX-License-Identifier: MIT OR Apache-2.0
//! Contents: what each device had to show and what it showed.

use std::collections::BTreeMap;

use super::event::Event;
use super::report::{DeviceReport, MessageName, Report};

#[derive(Debug, Default)]
struct Message {
    lane: String,
    lane_no: u64,
    recipients: Vec<String>,
    intended: bool,
    accepted: bool,
    stored: bool,
    refused: bool,
    expired: bool,
}

#[derive(Debug, Default)]
struct Lane {
    /// Highest number shown or marked as missing; the lane begins at the first one shown.
    reached: Option<u64>,
}

#[derive(Debug, Default)]
struct Device {
    /// Each content with the lane and number under which it was shown first.
    shown: BTreeMap<MessageName, (String, u64)>,
    lanes: BTreeMap<String, Lane>,
    gaps: Vec<(u64, u64)>,
    placed: BTreeMap<MessageName, Vec<u64>>,
    removed: bool,
    report: DeviceReport,
}

/// Counts contents.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    messages: BTreeMap<MessageName, Message>,
    devices: BTreeMap<String, Device>,
}

fn name(sender: &str, send_id: &str) -> MessageName {
    MessageName { sender: sender.into(), send_id: send_id.into() }
}

impl Ledger {
    fn message(&mut self, sender: &str, send_id: &str) -> &mut Message {
        self.messages.entry(name(sender, send_id)).or_default()
    }

    fn device(&mut self, device: &str) -> &mut Device {
        self.devices.entry(device.into()).or_default()
    }

    pub(super) fn record(&mut self, event: &Event) {
        match event {
            Event::Intended { sender, send_id, lane, lane_no, recipients } => {
                for device in recipients {
                    self.device(device);
                }
                let message = self.message(sender, send_id);
                message.intended = true;
                (message.lane, message.lane_no) = (lane.clone(), *lane_no);
                message.recipients.clone_from(recipients);
            }
            Event::Accepted { sender, send_id } => self.message(sender, send_id).accepted = true,
            Event::Stored { sender, send_id } => self.message(sender, send_id).stored = true,
            Event::Refused { sender, send_id } => self.message(sender, send_id).refused = true,
            Event::Expired { sender, send_id } => self.message(sender, send_id).expired = true,
            Event::Placed { device, sender, send_id, position } => {
                self.device(device).placed.entry(name(sender, send_id)).or_default().push(*position);
            }
            Event::Shown { device, sender, send_id, lane, lane_no, late } => {
                let shown = self.device(device);
                shown.show(name(sender, send_id), lane, *lane_no, *late);
            }
            Event::Hole { device, lane, from, to } => self.device(device).mark(lane, *from, *to),
            Event::Gap { device, from, to, .. } => {
                let device = self.device(device);
                device.gaps.push((*from, *to));
                device.report.gaps += 1;
            }
            Event::Removed { device } => self.device(device).removed = true,
            Event::Sent { .. }
            | Event::Dropped { .. }
            | Event::Session { .. }
            | Event::Delivered { .. }
            | Event::Committed { .. }
            | Event::Acked { .. }
            | Event::Cursor { .. } => {}
        }
    }

    pub(super) fn report(&self) -> Report {
        let mut devices = BTreeMap::new();
        for (id, device) in &self.devices {
            devices.insert(id.clone(), self.device_report(id, device));
        }
        let count = |test: fn(&Message) -> bool| self.messages.values().filter(|message| test(message)).count();
        let unaccepted = self.messages.iter().filter(|(_, m)| m.stored && !m.accepted);
        Report {
            devices,
            intended: count(|m| m.intended),
            accepted: count(|m| m.accepted),
            stored: count(|m| m.stored),
            stored_unaccepted: unaccepted.map(|(name, _)| name.clone()).collect(),
            broken: Vec::new(),
        }
    }

    fn device_report(&self, id: &str, device: &Device) -> DeviceReport {
        let mut report = device.report.clone();
        report.shown = device.shown.len();
        let foreign = |(name, shown): &(&MessageName, &(String, u64))| !self.is_meant(name, id, shown);
        report.foreign.extend(device.shown.iter().filter(foreign).map(|(name, _)| name.clone()));
        for (name, message) in &self.messages {
            if device.removed || !message.recipients.iter().any(|r| r == id) {
                continue;
            }
            let missing = !device.shown.contains_key(name);
            if !message.accepted || (message.refused && missing) {
                continue;
            }
            if message.expired && missing {
                report.expired += 1;
                continue;
            }
            report.expected += 1;
            if missing {
                report.missing.push(name.clone());
                let told = device.in_told_gap(name);
                if told { report.in_gap.push(name.clone()) } else { report.lost.push(name.clone()) }
            }
        }
        report
    }

    /// Whether the content was intended for this device and under this lane and number.
    fn is_meant(&self, name: &MessageName, device: &str, (lane, lane_no): &(String, u64)) -> bool {
        let meant = |m: &Message| {
            m.intended && m.recipients.iter().any(|r| r == device) && m.lane == *lane && m.lane_no == *lane_no
        };
        self.messages.get(name).is_some_and(meant)
    }
}

impl Device {
    fn show(&mut self, name: MessageName, lane: &str, lane_no: u64, late: bool) {
        if self.shown.contains_key(&name) {
            self.report.twice.push(name);
            return;
        }
        let state = self.lanes.entry(lane.into()).or_default();
        match state.reached {
            _ if late => self.report.late += 1,
            Some(reached) if lane_no <= reached => self.report.reordered.push(name.clone()),
            Some(reached) if lane_no > reached + 1 => self.report.unmarked.push(name.clone()),
            _ => {}
        }
        state.reached = state.reached.max(Some(lane_no));
        self.shown.insert(name, (lane.into(), lane_no));
    }

    fn mark(&mut self, lane: &str, from: u64, to: u64) {
        let state = self.lanes.entry(lane.into()).or_default();
        state.reached = state.reached.max(Some(to));
        self.report.holes += (to + 1).saturating_sub(from);
    }

    fn in_told_gap(&self, name: &MessageName) -> bool {
        let told = |position: &u64| self.gaps.iter().any(|(from, to)| from < position && position <= to);
        self.placed.get(name).is_some_and(|positions| positions.iter().any(told))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(ledger: &mut Ledger, numbers: std::ops::RangeInclusive<u64>) {
        for lane_no in numbers {
            let (sender, send_id) = ("a".to_owned(), format!("{lane_no:02}"));
            let recipients = vec!["b".to_owned(), "c".to_owned()];
            let (s, i) = (sender.clone(), send_id.clone());
            ledger.record(&Event::Intended { sender, send_id, lane: "a/x".into(), lane_no, recipients });
            ledger.record(&Event::Accepted { sender: s, send_id: i });
        }
    }

    fn show(ledger: &mut Ledger, lane_no: u64, late: bool) {
        let (device, sender, send_id) = ("b".into(), "a".into(), format!("{lane_no:02}"));
        ledger.record(&Event::Shown { device, sender, send_id, lane: "a/x".into(), lane_no, late });
    }

    fn judged(shown: &[(u64, bool)], more: &[Event]) -> DeviceReport {
        let mut ledger = Ledger::default();
        sent(&mut ledger, 1..=3);
        more.iter().for_each(|event| ledger.record(event));
        shown.iter().for_each(|(no, late)| show(&mut ledger, *no, *late));
        ledger.report().devices["b"].clone()
    }

    fn hole(from: u64, to: u64) -> Event {
        Event::Hole { device: "b".into(), lane: "a/x".into(), from, to }
    }

    #[test]
    fn what_is_shown_once_in_order_is_no_fault() {
        let b = judged(&[(1, false), (2, false), (3, false)], &[]);
        assert_eq!((b.expected, b.shown, b.missing.len(), b.late), (3, 3, 0, 0));
        assert!(b.twice.is_empty() && b.reordered.is_empty() && b.unmarked.is_empty() && b.foreign.is_empty());
    }

    #[test]
    fn an_accepted_message_that_is_never_shown_is_lost() {
        let b = judged(&[(1, false), (2, false)], &[]);
        assert_eq!(b.lost, [name("a", "03")]);
        assert_eq!(b.missing, b.lost);
    }

    #[test]
    fn a_message_that_was_never_accepted_is_not_expected() {
        let mut ledger = Ledger::default();
        let recipients = vec!["b".into()];
        let (sender, send_id, lane) = ("a".into(), "01".into(), "a/x".into());
        ledger.record(&Event::Intended { sender, send_id, lane, lane_no: 1, recipients });
        assert_eq!(ledger.report().devices["b"].expected, 0);
    }

    #[test]
    fn an_expired_message_is_counted_apart() {
        let b = judged(&[(1, false), (2, false)], &[Event::Expired { sender: "a".into(), send_id: "03".into() }]);
        assert_eq!((b.lost.len(), b.expired, b.expected), (0, 1, 2));
    }

    #[test]
    fn a_message_inside_a_told_gap_is_not_lost_and_one_beside_it_is() {
        let placed =
            |no: &str, position| Event::Placed { device: "b".into(), sender: "a".into(), send_id: no.into(), position };
        let gap = Event::Gap { device: "b".into(), session: String::new(), from: 10, to: 20 };
        let b = judged(&[], &[placed("01", 10), placed("02", 11), placed("03", 20), gap]);
        assert_eq!(b.in_gap, [name("a", "02"), name("a", "03")]);
        assert_eq!((b.lost, b.gaps), (vec![name("a", "01")], 1));
    }

    #[test]
    fn nothing_is_expected_of_a_removed_device() {
        assert_eq!(judged(&[], &[Event::Removed { device: "b".into() }]).expected, 0);
    }

    #[test]
    fn a_content_shown_again_is_twice() {
        let b = judged(&[(1, false), (2, false), (1, false), (3, false)], &[]);
        assert_eq!((b.twice, b.reordered.len()), (vec![name("a", "01")], 0));
    }

    #[test]
    fn a_lower_number_after_a_higher_one_is_reordered_unless_it_is_shown_as_late() {
        assert_eq!(judged(&[(2, false), (1, false)], &[]).reordered, [name("a", "01")]);
        let b = judged(&[(2, false), (1, true)], &[]);
        assert_eq!((b.reordered.len(), b.late), (0, 1));
    }

    #[test]
    fn a_hole_must_be_marked_before_it_is_jumped() {
        assert_eq!(judged(&[(1, false), (3, false)], &[]).unmarked, [name("a", "03")]);
        let mut ledger = Ledger::default();
        sent(&mut ledger, 1..=3);
        show(&mut ledger, 1, false);
        ledger.record(&hole(2, 2));
        show(&mut ledger, 3, false);
        show(&mut ledger, 2, true);
        let b = ledger.report().devices["b"].clone();
        assert_eq!((b.unmarked.len(), b.holes, b.late, b.lost.len()), (0, 1, 1, 0));
    }

    #[test]
    fn what_was_marked_as_a_hole_comes_late_or_is_reordered() {
        assert_eq!(judged(&[(2, false)], &[hole(1, 2)]).reordered, [name("a", "02")]);
    }

    #[test]
    fn a_message_for_somebody_else_or_under_another_number_is_foreign() {
        let mut ledger = Ledger::default();
        sent(&mut ledger, 1..=2);
        let shown = |device: &str, send_id: &str, lane_no| Event::Shown {
            device: device.into(),
            sender: "a".into(),
            send_id: send_id.into(),
            lane: "a/x".into(),
            lane_no,
            late: false,
        };
        ledger.record(&shown("z", "01", 1));
        ledger.record(&shown("b", "01", 2));
        ledger.record(&shown("c", "09", 9));
        let report = ledger.report();
        for (device, send_id) in [("z", "01"), ("b", "01"), ("c", "09")] {
            assert_eq!(report.devices[device].foreign, [name("a", send_id)], "{device}");
        }
        assert!(!report.is_clean());
    }

    #[test]
    fn stored_without_accepted_is_a_fault() {
        let mut ledger = Ledger::default();
        ledger.record(&Event::Stored { sender: "a".into(), send_id: "01".into() });
        assert_eq!(ledger.report().stored_unaccepted, [name("a", "01")]);
    }

    #[test]
    fn the_verdict_is_the_last_line() {
        let mut ledger = Ledger::default();
        sent(&mut ledger, 1..=2);
        show(&mut ledger, 1, false);
        let text = ledger.report().to_string();
        assert!(text.contains("b: expected 2, shown 1, missing a/02"), "{text}");
        assert_eq!(text.lines().last(), Some("lost 3, twice 0, reordered 0"));
    }
}
