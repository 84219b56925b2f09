// SPDX-License-Identifier: MIT OR Apache-2.0
//! What members claim of each other's messages, truly or not, and what is told as lost for it.

use std::collections::BTreeSet;

use pli_client_core::content::{Kind, Tick, Ticks};
use pli_client_core::{Event, OutgoingMessage};
use pli_domain::{ConversationId, SendId};

use crate::chat::lacking_two;
use crate::ghost::Ghost;
use crate::world::{World, handle};

/// A group that a device without rules has made, with alice and bob in it, in which alice has said three things.
fn with_ghost() -> (World, Ghost, ConversationId) {
    let mut world = World::new(&["alice", "bob"]);
    let mut ghost = Ghost::join(&mut world.server, "mallory", 7);
    let id = ConversationId::from_bytes([1; 16]);
    ghost.create(&mut world.server, id);
    for n in [0, 1] {
        let device = world.address(n);
        ghost.add(&mut world.server, id, device);
    }
    ghost.say(&mut world.server, id, Kind::Group, "mine");
    world.run();
    for n in 0..3 {
        world.say(0, id, &format!("text {n}"));
        world.run();
    }
    world.devices[0].events.clear();
    (world, ghost, id)
}

fn claim(world: &World, delivered: u64, lost: &[(u64, u64)], life: u64) -> Ticks {
    Ticks(vec![Tick { sender: world.address(0).device, delivered, read: delivered, lost: lost.to_vec(), life }])
}

/// What a device was shown of alice, without marks.
fn of_alice(world: &World, n: usize, id: ConversationId) -> Vec<String> {
    let lines = world.history(n, id).into_iter();
    lines.filter_map(|line| Some(line.strip_prefix("alice: ")?.replace(" (late)", ""))).collect()
}

fn delivered_by(world: &World, who: &str) -> u64 {
    let up_to = |event: &Event| match event {
        Event::Delivered { by, up_to, .. } if by.handle == Some(handle(who)) => Some(*up_to),
        _ => None,
    };
    world.devices[0].events.iter().filter_map(up_to).max().unwrap_or(0)
}

fn count(world: &World, wanted: impl Fn(&Event) -> bool) -> usize {
    world.devices[0].events.iter().filter(|event| wanted(event)).count()
}

#[test]
fn claims_that_cannot_be_true_change_nothing() {
    let (mut world, mut ghost, id) = with_ghost();
    for claim in [
        // Far above every number, in no life and in one that never was.
        claim(&world, u64::MAX, &[], 0),
        claim(&world, 1 << 40, &[(1, 1 << 39)], 0x77),
        // Lost is what was never given.
        claim(&world, 0, &[(4, u64::MAX)], 0),
        // A life that never was, of no number.
        claim(&world, 0, &[], 0x78),
    ] {
        ghost.tick(&mut world.server, id, &claim);
        world.run();
    }
    assert_eq!(world.devices[0].events, [], "nothing is told");
    world.say(0, id, "and on");
    world.run();
    assert_eq!(of_alice(&world, 1, id), ["text 0", "text 1", "text 2", "and on"]);
    assert_eq!((delivered_by(&world, "bob"), delivered_by(&world, "mallory")), (4, 0));
}

#[test]
fn a_member_that_claims_more_than_was_given_makes_little_work_and_nobody_is_shown_anything_twice() {
    let (mut world, mut ghost, id) = with_ghost();
    for n in 0..20 {
        let claim = claim(&world, 50 * (n + 1), &[], 0x1000 + n);
        ghost.tick(&mut world.server, id, &claim);
        world.run();
        ghost.follow(&mut world.server, id);
    }
    assert_eq!(count(&world, |e| matches!(e, Event::OlderProfile)), 1);
    let moved = count(&world, |e| matches!(e, Event::Moved { .. }));
    assert!((1..=4 * 3).contains(&moved), "{moved}");
    // Numbers that were skipped stand for nothing that anybody could lack.
    assert_eq!(count(&world, |e| matches!(e, Event::Lost { .. })), 0);
    world.say(0, id, "and on");
    world.run();
    assert_eq!(of_alice(&world, 1, id), ["text 0", "text 1", "text 2", "and on"]);
    let last = world.rows(0, id).into_values().last().unwrap().1.lane_no;
    assert_eq!(delivered_by(&world, "bob"), last, "and the others settle it");
    assert_eq!(delivered_by(&world, "mallory"), 0);
}

#[test]
fn a_member_that_claims_less_than_it_has_makes_others_send_again_a_few_times_and_then_hears_of_loss() {
    let (mut world, mut ghost, id) = with_ghost();
    for _ in 0..20 {
        // Whatever numbers the messages have by now.
        let rows = world.rows(0, id).into_values().filter(|(_, row)| row.text.starts_with("text"));
        let numbers: Vec<u64> = rows.map(|(_, row)| row.lane_no).collect();
        let up_to = numbers.iter().copied().max().unwrap();
        let lost: Vec<(u64, u64)> = numbers.into_iter().collect::<BTreeSet<_>>().into_iter().map(|n| (n, n)).collect();
        let claim = claim(&world, up_to, &lost, 0);
        ghost.tick(&mut world.server, id, &claim);
        world.run();
    }
    let again = count(&world, |e| matches!(e, Event::Resending { .. }));
    assert!((1..=4 * 3).contains(&again), "{again}");
    assert!(count(&world, |e| matches!(e, Event::Lost { by, .. } if by.handle == Some(handle("mallory")))) > 0);
    assert_eq!(count(&world, |e| matches!(e, Event::Lost { by, .. } if by.handle != Some(handle("mallory")))), 0);
    assert_eq!(of_alice(&world, 1, id), ["text 0", "text 1", "text 2"], "nobody is shown anything twice");
    world.say(0, id, "and on");
    world.run();
    assert_eq!(of_alice(&world, 1, id).last().unwrap(), "and on");
}

#[test]
fn a_member_that_tells_no_lives_is_believed_and_understood() {
    let (mut world, mut ghost, id) = with_ghost();
    // Its frames name neither lives nor places.
    ghost.skip(id);
    ghost.say(&mut world.server, id, Kind::Group, "third");
    world.run();
    assert_eq!(world.history(0, id), ["mallory: mine", "[2-2 missing]", "mallory: third"]);
    let claim_of = |world: &World, up_to, lost: &[(u64, u64)]| claim(world, up_to, lost, 0);
    let three = claim_of(&world, 3, &[]);
    ghost.tick(&mut world.server, id, &three);
    world.run();
    assert_eq!(delivered_by(&world, "mallory"), 3);
    // Also what another run of the program has given.
    let now = world.now;
    world.devices[0].restart(now);
    world.say(0, id, "of another run");
    world.run();
    let four = claim_of(&world, 4, &[]);
    ghost.tick(&mut world.server, id, &four);
    world.run();
    assert_eq!(delivered_by(&world, "mallory"), 4);
    assert_eq!(count(&world, |e| matches!(e, Event::OlderProfile | Event::Lost { .. })), 0);
    world.say(0, id, "not shown");
    world.say(0, id, "shown");
    world.run();
    let six = claim_of(&world, 6, &[(5, 5)]);
    ghost.tick(&mut world.server, id, &six);
    world.run();
    assert_eq!(delivered_by(&world, "mallory"), 6);
    let told = |e: &Event| matches!(e, Event::Lost { lane_nos: (5, 5), .. } | Event::Resending { .. });
    assert_eq!(count(&world, told), 1);
}

#[test]
fn what_is_sent_again_is_told_as_such_and_never_as_lost() {
    for (original, copy) in [(1, 1), (3, 1), (1, 3), (5, 5), (2, 12)] {
        let mut world = World::new(&["alice", "bob"]);
        let id = world.start(0, "bob");
        world.say(0, id, "one");
        world.run();
        let (rows, alice) = (world.devices[0].rows.clone(), world.address(0));
        world.server.hold.insert(alice);
        for n in 0..original {
            world.say(0, id, &format!("original {n}"));
        }
        world.run();
        world.devices[0].rows = rows;
        let now = world.now;
        world.devices[0].restart(now);
        world.devices[0].events.clear();
        let mut said: Vec<OutgoingMessage> = Vec::new();
        for n in 0..copy {
            said.extend(world.say(0, id, &format!("copy {n}")).message);
        }
        world.run();
        world.server.hold.clear();
        world.run();
        said.extend(world.say(0, id, "after").message);
        world.run();
        let shown: BTreeSet<SendId> = world.devices[1].events.iter().filter_map(shown_id).collect();
        let mut numbers: Vec<(SendId, u64)> = said.iter().map(|m| (m.send_id, m.lane_no)).collect();
        let mut lost: BTreeSet<SendId> = BTreeSet::new();
        for event in &world.devices[0].events {
            match event {
                Event::Moved { message, .. } => {
                    numbers.iter_mut().filter(|(id, _)| *id == message.send_id).for_each(|one| one.1 = message.lane_no);
                }
                Event::Lost { lane_nos: (first, last), messages, .. } => {
                    lost.extend(messages);
                    lost.extend(numbers.iter().filter(|(_, n)| (*first..=*last).contains(n)).map(|(id, _)| id));
                }
                _ => {}
            }
        }
        assert!(lost.is_disjoint(&shown), "{original} {copy}: {:?}", world.devices[0].events);
        assert!(said.iter().all(|m| shown.contains(&m.send_id) || lost.contains(&m.send_id)), "{original} {copy}");
        // Written later than everything of the copy, and shown as such: what comes again behind it is late.
        let order = of_alice_with_marks(&world, id);
        let mut highest = 0;
        for (text, late) in order.iter().filter(|(text, _)| text.starts_with("copy")) {
            let n: u64 = text.rsplit(' ').next().unwrap().parse().unwrap();
            assert!(*late || n >= highest, "{original} {copy}: {order:?}");
            highest = highest.max(n);
        }
        let after = order.iter().position(|(text, _)| text == "after").unwrap();
        assert!(order[after + 1..].iter().all(|(_, late)| *late) && !order[after].1, "{original} {copy}: {order:?}");
    }
}

fn shown_id(event: &Event) -> Option<SendId> {
    match event {
        Event::Message(message) => Some(message.send_id),
        _ => None,
    }
}

fn of_alice_with_marks(world: &World, id: ConversationId) -> Vec<(String, bool)> {
    let lines = world.history(1, id).into_iter().filter_map(|line| Some(line.strip_prefix("alice: ")?.to_owned()));
    lines.map(|line| (line.replace(" (late)", ""), line.ends_with(" (late)"))).collect()
}

#[test]
fn what_is_not_stored_yet_goes_again_when_it_is_and_is_not_told_as_lost_before() {
    let (mut world, id) = lacking_two(false);
    assert_eq!(delivered_by(&world, "bob"), 3);
    // Its receipt is settled.
    world.server.settle = true;
    world.take_offline(0);
    world.bring_online(0);
    world.run();
    assert_eq!(world.history(1, id).last().unwrap(), "alice: two (late)");
    assert_eq!(count(&world, |e| matches!(e, Event::Lost { .. })), 0, "{:?}", world.devices[0].events);
    assert_eq!(count(&world, |e| matches!(e, Event::Resending { .. })), 1);
}
