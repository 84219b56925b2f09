// SPDX-License-Identifier: MIT OR Apache-2.0
use super::*;
use proptest::prelude::*;

fn lane() -> InLane {
    InLane {
        sender: DeviceId::from_bytes([1; 16]),
        conversation: ConversationId::from_bytes([2; 16]),
        class: Class::Message,
    }
}
fn send_id(n: u64) -> SendId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&n.to_be_bytes());
    SendId::from_bytes(id)
}
fn delivery(position: u64, lane_no: u64) -> Delivery {
    let position = Position::from_u64(position).expect("small");
    Delivery {
        position,
        lane: lane(),
        send_id: send_id(lane_no),
        lane_no,
        lane_base: 1,
        floor: 1,
        unsent_from: 0,
        body: Bytes::new(),
    }
}
/// Numbers shown; late ones negative, holes as (from, to).
fn numbers(shown: &[Shown]) -> Vec<(i64, i64)> {
    let each = shown.iter().map(|s| match *s {
        Shown::Message { lane_no, late, .. } => (lane_no as i64 * if late { -1 } else { 1 }, 0),
        Shown::Hole { from, to, .. } => (from as i64, to as i64),
    });
    each.collect()
}
/// Applies changes to a map as a driver's table would.
fn apply(table: &mut BTreeMap<String, InboxChange>, changes: Vec<InboxChange>) {
    for change in changes {
        let (key, deleted) = match &change {
            InboxChange::Committed(_) => ("c".into(), false),
            InboxChange::Seen(d, s, v) => (format!("s{d}{s}"), v.is_none()),
            InboxChange::Expected(l, v) => (format!("e{l:?}"), v.is_none()),
            InboxChange::Held(l, n, v) => (format!("h{l:?}{n}"), v.is_none()),
        };
        if deleted {
            table.remove(&key);
        } else {
            table.insert(key, change);
        }
    }
}

#[test]
fn a_hole_is_held_then_marked_and_what_comes_after_it_is_late() {
    let mut inbox = Inbox::new(InboxConfig::default());
    assert_eq!(numbers(&inbox.deliver(delivery(10, 1), UnixMillis(0))), [(1, 0)]);
    assert!(inbox.deliver(delivery(11, 3), UnixMillis(5)).is_empty());
    assert_eq!(inbox.next_deadline(), Some(UnixMillis(10_005)));
    assert!(inbox.tick(UnixMillis(10_004)).is_empty());
    assert_eq!(numbers(&inbox.tick(UnixMillis(10_005))), [(2, 2), (3, 0)]);
    assert_eq!(numbers(&inbox.deliver(delivery(12, 2), UnixMillis(20_000))), [(-2, 0)]);
    assert_eq!(inbox.next_deadline(), None);
}

#[test]
fn lanes_are_bounded_and_one_that_holds_something_is_not_forgotten() {
    let config = InboxConfig { lanes_max: 3, ..InboxConfig::default() };
    let mut inbox = Inbox::new(config.clone());
    let of = |position, sender: u8, lane_no| {
        let lane = InLane { sender: DeviceId::from_bytes([sender; 16]), ..lane() };
        Delivery { lane, send_id: send_id(100 * u64::from(sender) + lane_no), ..delivery(position, lane_no) }
    };
    let (mut table, mut position) = (BTreeMap::new(), 0);
    let mut give = |inbox: &mut Inbox, sender, lane_no| {
        position += 1;
        let shown = numbers(&inbox.deliver(of(position, sender, lane_no), UnixMillis(0)));
        apply(&mut table, inbox.take_changes());
        (shown, table.keys().filter(|key| key.starts_with('e')).count())
    };
    // The first one holds a message behind a hole, so it stays whatever comes.
    give(&mut inbox, 1, 1);
    assert_eq!(give(&mut inbox, 1, 3), (vec![], 1));
    for sender in 2..=20 {
        let (shown, lanes) = give(&mut inbox, sender, 1);
        assert_eq!(shown, [(1, 0)]);
        assert!(lanes <= 3, "{lanes} lanes are kept, in memory and in rows");
    }
    assert_eq!(give(&mut inbox, 1, 2), (vec![(2, 0), (3, 0)], 3));
    // One that was forgotten begins again: what comes waits like behind a hole, and is shown.
    assert_eq!(give(&mut inbox, 2, 5), (vec![], 3));
    assert_eq!(numbers(&inbox.tick(UnixMillis(10_000))), [(1, 4), (5, 0)]);
    let again = Inbox::load(config, table.into_values()).expect("own records");
    assert_eq!(again.lanes.len(), 3);
}

#[test]
fn the_same_content_is_shown_once_whatever_its_position() {
    let mut inbox = Inbox::new(InboxConfig::default());
    assert_eq!(inbox.deliver(delivery(10, 1), UnixMillis(0)).len(), 1);
    assert!(inbox.deliver(delivery(500, 1), UnixMillis(1)).is_empty());
    assert_eq!(inbox.take_ack(), Position::from_u64(500).ok());
    assert_eq!(inbox.take_ack(), None);
    assert!(inbox.is_seen(lane().sender, send_id(1)));
}

#[test]
fn a_dedupe_id_is_forgotten_after_its_time_and_not_before() {
    let mut inbox = Inbox::new(InboxConfig::default());
    inbox.deliver(delivery(10, 1), UnixMillis(0));
    let kept = UnixMillis(0).after(DEDUPE_KEPT);
    inbox.tick(kept);
    assert!(inbox.is_seen(lane().sender, send_id(1)));
    inbox.tick(UnixMillis(kept.0 + 1));
    assert!(!inbox.is_seen(lane().sender, send_id(1)));
}

#[test]
fn a_device_that_joins_later_begins_at_the_base_of_the_sender() {
    let mut inbox = Inbox::new(InboxConfig::default());
    let later = |n| Delivery { lane_base: 41, ..delivery(n, n) };
    assert!(inbox.deliver(later(42), UnixMillis(0)).is_empty());
    assert_eq!(numbers(&inbox.deliver(later(41), UnixMillis(0))), [(41, 0), (42, 0)]);
    assert_eq!(numbers(&inbox.deliver(later(43), UnixMillis(0))), [(43, 0)]);
}

#[test]
fn a_full_lane_marks_its_hole_at_once() {
    let mut inbox = Inbox::new(InboxConfig { lane_held_max: 2, ..InboxConfig::default() });
    assert!(inbox.deliver(delivery(1, 2), UnixMillis(0)).is_empty());
    assert!(inbox.deliver(delivery(2, 3), UnixMillis(0)).is_empty());
    assert_eq!(numbers(&inbox.deliver(delivery(3, 4), UnixMillis(0))), [(1, 1), (2, 0), (3, 0), (4, 0)]);
    assert_eq!(inbox.held(), 0);
}

#[test]
fn a_position_that_the_server_does_not_know_is_given_up() {
    let mut inbox = Inbox::new(InboxConfig::default());
    inbox.deliver(delivery(900, 1), UnixMillis(0));
    inbox.follow(Position::from_u64(5).expect("small"));
    assert!(inbox.deliver(delivery(6, 1), UnixMillis(0)).is_empty());
    assert_eq!(inbox.take_ack(), Position::from_u64(6).ok());
}

#[test]
fn a_content_that_was_moved_takes_its_new_place_once() {
    let mut inbox = Inbox::new(InboxConfig::default());
    let new = InLane { conversation: ConversationId::from_bytes([3; 16]), ..lane() };
    let body = Bytes::from_static(b"said");
    let moved = |position, lane_no, of| Delivery { lane: new, lane_no, send_id: send_id(of), ..delivery(position, 1) };
    inbox.deliver(Delivery { body: body.clone(), ..delivery(1, 7) }, UnixMillis(0));
    let shown = inbox.deliver(Delivery { body: Bytes::new(), ..moved(2, 1, 7) }, UnixMillis(0));
    assert!(matches!(&shown[..], [Shown::Message { lane_no: 1, body, .. }] if body.is_empty()), "{shown:?}");
    // No hole before what follows, and a third time says nothing.
    let next = inbox.deliver(Delivery { body, ..moved(3, 2, 8) }, UnixMillis(0));
    assert_eq!(numbers(&next), [(2, 0)]);
    assert!(inbox.deliver(moved(4, 1, 7), UnixMillis(0)).is_empty());
}

proptest! {
    /// Any arrival order with duplicates, restarts in between: each number once, in order unless late.
    #[test]
    fn every_content_is_shown_once_and_in_order_unless_late(
        arrivals in prop::collection::vec((1u64..30, 0u64..4_000, any::<bool>()), 1..120)
    ) {
        let (mut inbox, mut table, mut now) = (Inbox::new(InboxConfig::default()), BTreeMap::new(), UnixMillis(0));
        let (mut shown, mut position) = (Vec::new(), 0);
        for (lane_no, pause, restart) in &arrivals {
            now = UnixMillis(now.0 + pause);
            position += 1;
            shown.extend(inbox.tick(now));
            shown.extend(inbox.deliver(delivery(position, *lane_no), now));
            apply(&mut table, inbox.take_changes());
            if *restart {
                inbox = Inbox::load(InboxConfig::default(), table.values().cloned()).expect("own records");
                prop_assert_eq!(inbox.position().get(), position);
            }
            prop_assert!(inbox.next_deadline().is_none_or(|at| at > now));
        }
        shown.extend(inbox.tick(UnixMillis(now.0 + 10_000)));
        let mut last = 0;
        let mut seen = std::collections::BTreeSet::new();
        for one in &shown {
            match one {
                Shown::Message { lane_no, late, .. } => {
                    prop_assert!(seen.insert(*lane_no), "{} twice", lane_no);
                    if *late { prop_assert!(*lane_no < last) } else { prop_assert_eq!(*lane_no, last + 1); last = *lane_no }
                }
                Shown::Hole { from, to, .. } => { prop_assert_eq!(*from, last + 1); last = *to }
            }
        }
        let sent: std::collections::BTreeSet<u64> = arrivals.iter().map(|a| a.0).collect();
        prop_assert_eq!(seen, sent);
    }
}

#[test]
fn what_comes_again_is_acknowledged_again_and_not_above_what_came() {
    let mut inbox = Inbox::new(InboxConfig::default());
    inbox.deliver(delivery(10, 1), UnixMillis(0));
    inbox.deliver(delivery(20, 2), UnixMillis(0));
    assert_eq!(inbox.take_ack(), Position::from_u64(20).ok());
    inbox.connected();
    assert!(inbox.deliver(delivery(10, 1), UnixMillis(0)).is_empty());
    assert_eq!(inbox.take_ack(), Position::from_u64(10).ok());
    assert_eq!(inbox.take_ack(), None);
    inbox.deliver(delivery(20, 2), UnixMillis(0));
    inbox.deliver(delivery(30, 3), UnixMillis(0));
    assert_eq!(inbox.take_ack(), Position::from_u64(30).ok());
}
