// SPDX-License-Identifier: MIT OR Apache-2.0
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pli_api::edge;
use pli_client_core::content::Kind;
use pli_client_core::{Command, CommandError, Core, Event, NewKey, OutgoingMessage, Reached, SessionAdvice, Table};
use pli_domain::{ConversationId, UnixMillis};

use crate::world::{World, handle};

#[test]
fn two_people_talk_and_see_ticks() {
    let mut world = World::new(&["alice", "bob"]);
    let id = world.start(0, "bob");
    let hello = world.say(0, id, "hello").message.unwrap();
    world.run();
    assert_eq!(world.history(1, id), ["alice: hello"]);
    let back = world.start(1, "alice");
    assert_eq!(back, id, "the other side finds the same conversation");
    world.say(1, id, "hi");
    world.run();
    assert_eq!(world.history(0, id), ["bob: hi"]);

    let events = &world.devices[0].events;
    let has = |wanted: &dyn Fn(&Event) -> bool| events.iter().any(wanted);
    assert!(has(&|e| matches!(e, Event::NewKey { what: NewKey::FirstContact, .. })));
    assert!(has(&|e| matches!(e, Event::ConversationReady { kind: Kind::Direct, .. })));
    assert!(has(&|e| matches!(e, Event::Accepted { message, .. } if *message == hello.send_id)));
    assert!(has(&|e| matches!(e, Event::Stored { message, .. } if *message == hello.send_id)));
    assert!(has(&|e| matches!(e, Event::Delivered { up_to, .. } if *up_to == hello.lane_no)));
    assert!(!has(&|e| matches!(e, Event::Read { .. })));
    world.command(1, Command::MarkRead { conversation: id });
    world.run();
    let read = |e: &Event| matches!(e, Event::Read { up_to, by, .. } if *up_to == hello.lane_no && by.handle == Some(handle("bob")));
    assert!(world.devices[0].events.iter().any(read));
    assert_eq!(world.devices[0].core.waiting(), (0, 0));
    assert_eq!(
        world.devices[0].core.safety_number(&handle("bob")),
        world.devices[1].core.safety_number(&handle("alice"))
    );
}

#[test]
fn what_is_typed_while_the_server_is_away_is_sent_when_it_is_back() {
    let mut world = World::new(&["alice", "bob"]);
    world.take_offline(0);
    let id = world.start(0, "bob");
    for n in 0..20 {
        world.say(0, id, &n.to_string());
    }
    world.run();
    assert!(world.history(1, id).is_empty());
    world.bring_online(0);
    world.run();
    assert_eq!(world.history(1, id), (0..20).map(|n| format!("alice: {n}")).collect::<Vec<_>>());
}

#[test]
fn a_thousand_messages_wait_for_a_device_that_is_away() {
    let mut world = World::new(&["alice", "bob"]);
    let id = world.start(0, "bob");
    world.run();
    world.take_offline(1);
    for n in 0..1_000 {
        world.say(0, id, &n.to_string());
    }
    world.run();
    world.bring_online(1);
    world.run();
    assert_eq!(world.history(1, id), (0..1_000).map(|n| format!("alice: {n}")).collect::<Vec<_>>());
    let ticks = world.devices[0].events.iter().filter(|e| matches!(e, Event::Delivered { .. })).count();
    assert!(ticks <= 3, "{ticks} ticks for one queue");
}

#[test]
fn a_lost_receipt_is_sent_again_and_shown_once() {
    let mut world = World::new(&["alice", "bob"]);
    let id = world.start(0, "bob");
    world.run();
    world.server.settle = false;
    world.say(0, id, "one");
    world.say(0, id, "two");
    world.run();
    world.server.lose_receipts = true;
    let now = world.now;
    world.devices[0].drop_connection(now);
    world.run();
    world.server.lose_receipts = false;
    world.server.settle = true;
    world.devices[0].drop_connection(now);
    world.run();
    assert!(world.devices[0].events.iter().any(|e| matches!(e, Event::Resending { .. })));
    assert_eq!(world.history(1, id), ["alice: one", "alice: two"]);
    assert_eq!(world.devices[0].core.waiting(), (0, 0));
}

#[test]
fn a_handle_that_nobody_has_fails_the_conversation_and_refuses_its_messages() {
    let mut world = World::new(&["alice"]);
    let id = world.start(0, "nobody");
    let message = world.say(0, id, "hello?").message.unwrap();
    world.run();
    let events = &world.devices[0].events;
    let why = |e: &Event| match e {
        Event::ConversationFailed { conversation, why } if *conversation == id => Some(why.message.clone()),
        _ => None,
    };
    let said: Vec<String> = events.iter().filter_map(why).collect();
    assert!(matches!(&said[..], [one] if one.starts_with("@nobody: ")), "{said:?}");
    assert!(events.iter().any(|e| matches!(e, Event::Refused { message: m, .. } if *m == message.send_id)));
    assert_eq!(world.devices[0].core.waiting(), (0, 0));
}

#[test]
fn both_may_begin_at_once_and_end_in_one_conversation() {
    let mut world = World::new(&["alice", "bob"]);
    let ours = world.start(0, "bob");
    let theirs = world.start(1, "alice");
    world.say(0, ours, "from alice");
    world.say(1, theirs, "from bob");
    world.run();
    assert_eq!(world.start(0, "bob"), world.start(1, "alice"));
    assert_eq!(world.start(0, "bob"), ours.min(theirs));
    assert_eq!(
        (world.history(1, theirs), world.history(0, ours)),
        (vec!["alice: from alice".into()], vec!["bob: from bob".into()])
    );
}

#[test]
fn commands_that_make_no_sense_are_refused_and_change_nothing() {
    let (mut core, _) = Core::create(handle("alice"), [3; 32], UnixMillis(0));
    let unknown = pli_domain::ConversationId::from_bytes([1; 16]);
    let mut refused = |command| core.command(command, UnixMillis(0)).expect_err("refused");
    assert!(matches!(refused(Command::StartConversation { handle: handle("alice") }), CommandError::Oneself));
    let text = |text: &str| Command::SendText { conversation: unknown, text: text.into() };
    assert!(matches!(refused(text("hi")), CommandError::UnknownConversation));
    assert!(matches!(refused(text("")), CommandError::TextEmpty));
    assert!(matches!(refused(text(&"x".repeat(40_000))), CommandError::TextTooLong(40_000)));
    let group = |name: &str, handles| Command::CreateGroup { name: name.into(), handles };
    assert!(matches!(refused(group(" ", vec![handle("bob")])), CommandError::GroupName(_)));
    assert!(matches!(refused(group("te\u{202e}am", vec![handle("bob")])), CommandError::GroupName(_)));
    assert!(matches!(refused(group("team", Vec::new())), CommandError::GroupSize));
    assert!(core.conversations().is_empty());
}

#[test]
fn nobody_waits_longer_than_five_seconds_for_the_next_attempt_and_not_all_at_once() {
    let (mut core, _) = Core::create(handle("alice"), [3; 32], UnixMillis(0));
    let mut waits = Vec::new();
    for n in 0..200 {
        match core.disconnected(UnixMillis(n)).session {
            SessionAdvice::Reconnect { after, at_least } => {
                assert!(at_least.is_zero() && after <= Duration::from_secs(5), "{after:?}");
                waits.push(after);
            }
            other => panic!("{other:?}"),
        }
    }
    let late = waits[50..].iter().filter(|wait| **wait > Duration::from_millis(2_500)).count();
    assert!((40..110).contains(&late), "{late} of 150 in the upper half: not full jitter");
}

#[test]
fn what_the_server_asks_for_is_added_and_named() {
    let (mut core, _) = Core::create(handle("alice"), [3; 32], UnixMillis(0));
    let frame = |frame| edge::ServerFrame { frame: Some(frame) };
    let away = edge::GoAway { reconnect_after_ms: 20_000 };
    let advice = core.frame(frame(edge::server_frame::Frame::GoAway(away)), UnixMillis(1)).session;
    let asked = Duration::from_secs(20);
    assert_eq!(advice, SessionAdvice::Reconnect { after: asked, at_least: asked });
    let reason = Some(pli_api::refusal(pli_api::ErrorCode::Draining, "later").retry_after(20_000));
    let close = edge::Close { reason, reconnect: true };
    match core.frame(frame(edge::server_frame::Frame::Close(close)), UnixMillis(2)).session {
        SessionAdvice::Reconnect { after, at_least } => {
            assert!(at_least == asked && after >= asked && after <= asked + Duration::from_secs(5), "{after:?}");
        }
        other => panic!("{other:?}"),
    }
}

/// What a device was told of its messages.
fn lost(world: &World, n: usize) -> Vec<(u64, u64)> {
    let lost = |event: &Event| match event {
        Event::Lost { lane_nos, .. } => Some(*lane_nos),
        _ => None,
    };
    world.devices[n].events.iter().filter_map(lost).collect()
}

/// Bob was shown "one" and "three", and never "two"; what was accepted meanwhile is stored at once, or not yet.
pub fn lacking_two(is_stored: bool) -> (World, ConversationId) {
    let mut world = World::new(&["alice", "bob"]);
    let id = world.start(0, "bob");
    world.say(0, id, "one");
    world.run();
    world.take_offline(1);
    world.server.settle = is_stored;
    for text in ["two", "three"] {
        world.say(0, id, text);
    }
    world.run();
    let bob = world.address(1);
    world.server.lose_first(bob);
    world.bring_online(1);
    world.run();
    assert_eq!(world.history(1, id), ["alice: one", "[2-2 missing]", "alice: three"]);
    (world, id)
}

#[test]
fn a_message_that_was_never_shown_is_told_as_lost_and_not_as_delivered() {
    let (mut world, id) = lacking_two(true);
    assert_eq!(lost(&world, 0), [(2, 2)]);
    let place = |wanted: &dyn Fn(&Event) -> bool| world.devices[0].events.iter().position(wanted);
    let told = place(&|e| matches!(e, Event::Lost { .. }));
    assert!(told < place(&|e| matches!(e, Event::Delivered { up_to: 3, .. })), "told before the watermark passes it");
    let reached = |world: &World, lane_no| {
        let all = world.devices[0].core.reached(id, lane_no);
        all.into_iter().map(|(member, reached)| (member.handle.unwrap(), reached)).collect::<Vec<_>>()
    };
    for (lane_no, how_far) in [(1, Reached::Delivered), (2, Reached::Lost), (3, Reached::Delivered)] {
        assert_eq!(reached(&world, lane_no), [(handle("bob"), how_far)], "{lane_no}");
    }
    // Both sides know it after a restart, and tell it once.
    let now = world.now;
    for n in [0, 1] {
        world.devices[n].restart(now);
    }
    world.run();
    world.command(1, Command::MarkRead { conversation: id });
    world.run();
    assert_eq!(reached(&world, 2), [(handle("bob"), Reached::Lost)]);
    assert_eq!(reached(&world, 3), [(handle("bob"), Reached::Read)]);
    assert_eq!(lost(&world, 0), [(2, 2)]);
}

fn told_older(world: &World, n: usize) -> usize {
    world.devices[n].events.iter().filter(|event| matches!(event, Event::OlderProfile)).count()
}

#[test]
fn a_profile_that_went_back_in_time_joins_again_and_is_read() {
    let mut world = World::new(&["alice", "bob"]);
    let id = world.start(0, "bob");
    world.say(0, id, "one");
    world.run();
    let copy = world.devices[0].rows.clone();
    for text in ["two", "three"] {
        world.say(0, id, text);
    }
    world.run();
    world.devices[0].rows = copy;
    let now = world.now;
    world.devices[0].restart(now);
    world.say(0, id, "from the copy");
    world.run();
    assert_eq!(told_older(&world, 0), 1);
    world.say(0, id, "and on");
    world.run();
    let read = world.history(1, id);
    assert_eq!(read, ["alice: one", "alice: two", "alice: three", "alice: from the copy (late)", "alice: and on"]);
    assert!(!world.devices[1].events.iter().any(|event| matches!(event, Event::Unreadable { .. })));
    // A restart is no way back.
    world.devices[0].restart(now);
    world.run();
    assert_eq!(told_older(&world, 0), 1);
}

#[test]
fn a_message_that_cannot_be_opened_is_told_on_both_sides() {
    let mut world = World::new(&["alice", "bob"]);
    let id = world.start(0, "bob");
    world.say(0, id, "one");
    world.run();
    let (copy, alice) = (world.devices[0].rows.clone(), world.address(0));
    // Nothing reaches her, so the server knows of no acknowledgement.
    world.server.hold.insert(alice);
    for text in ["two", "three"] {
        world.say(0, id, text);
    }
    world.run();
    world.devices[0].rows = copy;
    let now = world.now;
    world.devices[0].restart(now);
    world.say(0, id, "under a key of two");
    world.run();
    let unreadable = |e: &Event| matches!(e, Event::Unreadable { from, .. } if from.handle == Some(handle("alice")));
    assert_eq!(world.devices[1].events.iter().filter(|event| unreadable(event)).count(), 1);
    world.server.hold.clear();
    world.run();
    assert_eq!(told_older(&world, 0), 1);
    world.say(0, id, "and on");
    world.run();
    let read = ["alice: one", "alice: two", "alice: three", "alice: under a key of two", "alice: and on"];
    assert_eq!(world.history(1, id), read);
}

/// A profile is copied, sends so many messages, and is put back; what it says then has a number that bob knows.
fn put_back_after(messages: u64) -> (World, ConversationId, OutgoingMessage) {
    let mut world = World::new(&["alice", "bob"]);
    let id = world.start(0, "bob");
    world.say(0, id, "one");
    world.run();
    let (copy, alice) = (world.devices[0].rows.clone(), world.address(0));
    world.server.hold.insert(alice);
    for n in 0..messages {
        world.say(0, id, &n.to_string());
    }
    world.run();
    world.devices[0].rows = copy;
    let now = world.now;
    world.devices[0].restart(now);
    world.devices[0].events.clear();
    let said = world.say(0, id, "from the copy").message.unwrap();
    world.run();
    (world, id, said)
}

fn delivered_up_to(world: &World, n: usize) -> u64 {
    let up_to = |event: &Event| match event {
        Event::Delivered { up_to, .. } => Some(*up_to),
        _ => None,
    };
    world.devices[n].events.iter().filter_map(up_to).max().unwrap_or(0)
}

#[test]
fn the_watermark_of_another_life_settles_nothing_and_what_could_not_be_opened_is_sent_again() {
    for restarted in [false, true] {
        let (mut world, id, said) = put_back_after(1);
        assert_eq!(said.lane_no, 2, "the number was used before");
        assert_eq!(world.devices[0].core.waiting(), (0, 0), "it is stored, and out of the outbox");
        if restarted {
            let now = world.now;
            world.devices[0].restart(now);
        }
        world.server.hold.clear();
        world.run();
        assert_eq!(world.history(1, id), ["alice: one", "alice: 0", "alice: from the copy"], "{restarted}");
        let moved = |event: &Event| match event {
            Event::Moved { message, .. } if message.send_id == said.send_id => Some(message.lane_no),
            _ => None,
        };
        let number = world.devices[0].events.iter().find_map(moved).expect("it has a new number");
        let place = |wanted: &dyn Fn(&Event) -> bool| world.devices[0].events.iter().position(wanted);
        let (moved, told) = (place(&|e| moved(e).is_some()), place(&|e| matches!(e, Event::Delivered { .. })));
        assert!(moved < told && moved.is_some(), "nothing settles it before: {:?}", world.devices[0].events);
        assert!(delivered_up_to(&world, 0) >= number);
        assert_eq!(told_older(&world, 0), 1);
        assert!(!world.devices[0].events.iter().any(|e| matches!(e, Event::Lost { .. })), "nothing stays lost");
        // It is over: the next start is no news.
        let now = world.now;
        world.devices[0].restart(now);
        world.say(0, id, "and on");
        world.run();
        assert_eq!(told_older(&world, 0), 1);
        assert_eq!(world.history(1, id).last().unwrap(), "alice: and on");
    }
}

#[test]
fn as_many_of_a_copy_as_of_the_original_are_not_taken_for_it_by_whoever_was_away_for_both() {
    for count in [1, 3, 16] {
        let mut world = World::new(&["alice", "bob"]);
        let id = world.start(0, "bob");
        world.say(0, id, "first");
        world.run();
        world.take_offline(1);
        let copy = world.devices[0].rows.clone();
        let run = |world: &mut World, name: &str| {
            for n in 0..count {
                let now = world.now;
                world.devices[0].restart(now);
                world.say(0, id, &format!("{name} {n}"));
                world.run();
            }
        };
        run(&mut world, "original");
        world.devices[0].rows = copy;
        run(&mut world, "copy");
        world.bring_online(1);
        world.run();
        let now = world.now;
        world.devices[0].restart(now);
        world.devices[0].events.clear();
        world.say(0, id, "after");
        world.run();
        let shown = world.history(1, id);
        let of = |name: &str| shown.iter().filter(|line| line.contains(name)).count();
        assert_eq!((of("first"), of("original"), of("copy"), of("after")), (1, count, count, 1), "{shown:?}");
    }
}

#[test]
fn many_of_a_life_that_cannot_be_opened_are_each_shown_once_or_told_as_lost() {
    let mut world = World::new(&["alice", "bob"]);
    let id = world.start(0, "bob");
    world.say(0, id, "one");
    world.run();
    let (copy, alice) = (world.devices[0].rows.clone(), world.address(0));
    world.server.hold.insert(alice);
    for n in 0..40 {
        world.say(0, id, &format!("before {n}"));
    }
    world.run();
    world.devices[0].rows = copy;
    let now = world.now;
    world.devices[0].restart(now);
    world.devices[0].events.clear();
    let mut open: BTreeMap<_, _> = BTreeMap::new();
    for n in 0..41 {
        let said = world.say(0, id, &format!("after {n}")).message.unwrap();
        open.insert(said.send_id, said.lane_no);
    }
    world.run();
    world.server.hold.clear();
    world.run();
    let mut lost = 0;
    for event in &world.devices[0].events {
        match event {
            Event::Moved { message, .. } => drop(open.insert(message.send_id, message.lane_no)),
            Event::Lost { lane_nos: (first, last), .. } => {
                let before = open.len();
                open.retain(|_, lane_no| !(*first..=*last).contains(lane_no));
                lost += before - open.len();
            }
            _ => {}
        }
    }
    let shown = world.history(1, id).iter().filter(|line| line.starts_with("alice: after")).count();
    let settled = open.values().filter(|lane_no| **lane_no <= delivered_up_to(&world, 0)).count();
    assert_eq!((settled, shown + lost), (shown, 41), "delivered are exactly those that were shown");
    assert!(lost > 0 && shown >= 16, "{shown} shown, {lost} lost");
}

#[test]
fn key_packages_are_published_once_however_often_an_edge_calls_them_low_right_after() {
    let mut world = World::new(&["alice"]);
    let published = |world: &World| world.server.calls.iter().filter(|call| *call == "PublishKeyPackages").count();
    assert_eq!(published(&world), 1);
    for _ in 0..3 {
        let now = world.now;
        world.devices[0].restart(now);
        world.key_packages_low(0);
        world.run();
    }
    assert_eq!(published(&world), 1, "the number is of before");
    world.now += 61_000;
    let now = world.now;
    world.devices[0].restart(now);
    world.key_packages_low(0);
    world.run();
    assert_eq!(published(&world), 2, "and later it is believed");
}

#[test]
fn key_packages_that_are_refused_for_good_are_made_anew_and_seldom() {
    let mut world = World::new(&["alice"]);
    world.server.refuse_packages = 3;
    world.now += 29 * 24 * 3_600_000;
    let now = world.now;
    world.devices[0].restart(now);
    world.run_on(2_000);
    let offered = &world.server.offered;
    let different: BTreeSet<_> = offered.iter().collect();
    assert_eq!(world.server.refuse_packages, 0, "they are offered again");
    assert_eq!(different.len(), 3, "the first ones, those that were due, and those made anew once: {}", offered.len());
    assert!(offered.len() >= 5, "and the last of them was taken");
}

/// A directory that refuses what is offered for days, as where a clock was wrong, makes a device forget none of the key
/// packages that others can have.
#[test]
fn published_key_packages_can_be_used_however_many_others_are_refused() {
    let mut world = World::new(&["alice", "bob"]);
    let private_keys = |world: &World| {
        let mls = world.devices[0].rows.keys().filter(|(table, key)| *table == Table::Mls && key[0] == 0);
        mls.count()
    };
    assert_eq!(private_keys(&world), 101);
    world.server.refuse_packages = 1_000;
    world.now += 29 * 24 * 3_600_000;
    for _ in 0..8 {
        let now = world.now;
        world.devices[0].restart(now);
        world.run_on(200);
        world.now += 3_600_000;
    }
    assert!(world.server.offered.iter().collect::<BTreeSet<_>>().len() >= 8);
    assert!(private_keys(&world) <= 202, "{}", private_keys(&world));
    let id = world.start(1, "alice");
    world.say(1, id, "hello");
    world.run_on(500);
    assert_eq!(world.history(0, id), ["bob: hello"]);
    assert!(
        !world.devices[0].events.iter().any(|event| matches!(event, Event::Rejoining { .. })),
        "the welcome opened"
    );
}

#[test]
fn key_packages_are_made_anew_long_before_they_expire() {
    const DAY: u64 = 24 * 3_600_000;
    let mut world = World::new(&["alice"]);
    let published = |world: &World| world.server.calls.iter().filter(|call| *call == "PublishKeyPackages").count();
    let restart = |world: &mut World, days: u64| {
        world.now += days * DAY;
        let now = world.now;
        world.devices[0].restart(now);
        world.run();
    };
    restart(&mut world, 27);
    assert_eq!(published(&world), 1, "they are young enough");
    world.now += 2 * DAY;
    world.run();
    assert_eq!(published(&world), 2, "whoever stays connected makes them anew");
    for n in 3..6 {
        restart(&mut world, 29);
        assert_eq!(published(&world), n, "and whoever comes back");
    }
}
