// SPDX-License-Identifier: MIT OR Apache-2.0
//! A queue that holds no more loses its oldest part, whatever that was: the device is told a gap, ends inside its
//! conversations, and every message is shown there, late or not, or told as lost to its sender.

use std::collections::{BTreeMap, BTreeSet};

use pli_client_core::{Command, Event};
use pli_domain::{ConversationId, SendId};

use crate::world::{World, handle};

/// Says texts and remembers their numbers, as a driver does.
fn say_all(world: &mut World, n: usize, id: ConversationId, texts: impl Iterator<Item = String>) -> Said {
    let said = texts.map(|text| (world.say(n, id, &text).message.unwrap(), text));
    Said(said.map(|(message, text)| (message.send_id, (message.lane_no, text))).collect())
}

/// Texts and numbers of messages by their names.
struct Said(BTreeMap<SendId, (u64, String)>);

impl Said {
    /// The texts that are lost to a member, as the sender's events say; each event of a message must make sense.
    fn lost(&self, events: &[Event], to: &str) -> BTreeSet<String> {
        let mut said = self.0.clone();
        let mut lost = BTreeSet::new();
        for event in events {
            match event {
                Event::Moved { message, .. } => {
                    if let Some((lane_no, text)) = said.get_mut(&message.send_id) {
                        *lane_no = message.lane_no;
                        assert!(!lost.contains(text), "{text} was told as lost");
                    }
                }
                Event::Lost { by, lane_nos: (first, last), messages, .. } if by.handle == Some(handle(to)) => {
                    let numbered = said.iter().filter(|(_, (lane_no, _))| (*first..=*last).contains(lane_no));
                    let numbered: Vec<_> = numbered.map(|(id, (_, text))| (*id, text.clone())).collect();
                    assert!(numbered.iter().all(|(id, _)| messages.contains(id)), "{messages:?} names them");
                    lost.extend(numbered.into_iter().map(|(_, text)| text));
                }
                _ => {}
            }
        }
        lost
    }
}

/// What a device was shown of a person, without marks; nothing twice.
fn shown(world: &World, n: usize, id: ConversationId, whose: &str) -> BTreeSet<String> {
    let lines = world.history(n, id).into_iter();
    let texts = lines.filter_map(|line| Some(line.strip_prefix(&format!("{whose}: "))?.replace(" (late)", "")));
    let all: Vec<String> = texts.collect();
    let once: BTreeSet<String> = all.iter().cloned().collect();
    assert_eq!(all.len(), once.len(), "{all:?}");
    once
}

fn count(world: &World, n: usize, wanted: impl Fn(&Event) -> bool) -> usize {
    world.devices[n].events.iter().filter(|event| wanted(event)).count()
}

/// The device comes back to a queue that has lost its oldest part.
fn overflow(world: &mut World, n: usize, lost: usize) {
    let last = world.server.lose_oldest(world.address(n), lost);
    world.bring_online(n);
    world.gap(n, last);
    world.run();
}

/// Every text is shown to a device or told as lost to it, and not both.
fn is_settled(world: &World, from: usize, to: (usize, &str), id: ConversationId, said: &Said) -> (usize, usize) {
    let all: BTreeSet<String> = said.0.values().map(|(_, text)| text.clone()).collect();
    let whose = world.devices[from].name.clone();
    let shown: BTreeSet<String> = shown(world, to.0, id, &whose).intersection(&all).cloned().collect();
    let lost = said.lost(&world.devices[from].events, to.1);
    assert!(shown.is_disjoint(&lost), "{shown:?} and {lost:?}");
    assert_eq!(shown.union(&lost).cloned().collect::<BTreeSet<_>>(), all, "nothing is silent");
    (shown.len(), lost.len())
}

#[test]
fn a_first_contact_whose_welcome_was_lost_is_joined_and_told_on_both_sides() {
    for lost in [1, 21, 41] {
        let mut world = World::new(&["alice", "bob"]);
        world.take_offline(1);
        let id = world.start(0, "bob");
        let said = say_all(&mut world, 0, id, (0..40).map(|n| format!("before {n}")));
        world.run();
        assert_eq!(world.server.waiting(world.address(1)), 41, "a welcome and what was said");
        world.devices[0].events.clear();
        overflow(&mut world, 1, lost);
        // Nobody has to say anything for it.
        assert_eq!(count(&world, 1, |e| matches!(e, Event::Gap)), 1);
        assert_eq!(count(&world, 1, |e| matches!(e, Event::Hole { lane_nos: (1, 40), .. })), 1, "{lost}");
        assert!(count(&world, 1, |e| matches!(e, Event::Unreadable { .. })) <= 1, "told once, not forty times");
        let (was_shown, was_lost) = is_settled(&world, 0, (1, "bob"), id, &said);
        assert_eq!((was_shown, was_lost), (16, 24), "as many as are kept");
        assert_eq!(count(&world, 0, |e| matches!(e, Event::Resending { .. })), 16);
        let after = say_all(&mut world, 0, id, ["after".to_owned()].into_iter());
        world.say(1, id, "I am here");
        world.run();
        assert_eq!(is_settled(&world, 0, (1, "bob"), id, &after), (1, 0));
        assert_eq!(world.history(1, id).last().unwrap(), "alice: after");
        assert_eq!(world.history(0, id), ["bob: I am here"]);
    }
}

#[test]
fn what_was_written_after_the_loss_makes_what_comes_again_late() {
    for restarted in [false, true] {
        let mut world = World::new(&["alice", "bob"]);
        world.take_offline(1);
        let id = world.start(0, "bob");
        let said = say_all(&mut world, 0, id, (0..3).map(|n| format!("before {n}")));
        world.run();
        let last = world.server.lose_oldest(world.address(1), 4);
        world.bring_online(1);
        world.gap(1, last);
        // Frames move, and no time: he is inside and waits for what is before the first number that he heard.
        world.run_a_little(100);
        if restarted {
            // Another life of hers knows what the one before has written.
            let now = world.now;
            world.devices[0].restart(now);
            world.run_a_little(20);
        }
        let after = say_all(&mut world, 0, id, ["after".to_owned()].into_iter());
        world.run();
        let shown = ["before 0", "before 1", "before 2"].map(|text| format!("alice: {text} (late)"));
        assert_eq!(
            world.history(1, id),
            [vec!["[1-3 missing]".into(), "alice: after".into()], shown.to_vec()].concat()
        );
        assert_eq!(is_settled(&world, 0, (1, "bob"), id, &said), (3, 0));
        assert_eq!(is_settled(&world, 0, (1, "bob"), id, &after), (1, 0));
        world.say(0, id, "and on");
        world.run();
        assert_eq!(world.history(1, id).last().unwrap(), "alice: and on");
    }
}

#[test]
fn a_group_that_lost_its_commits_or_its_welcome_is_whole_again() {
    for was_in in [false, true] {
        for lost in [1, 4, 11, 30] {
            let mut world = World::new(&["alice", "bob", "carol", "dave"]);
            let handles = ["bob", "carol"].map(handle).to_vec();
            if !was_in {
                world.take_offline(1);
            }
            let command = Command::CreateGroup { name: "team".into(), handles };
            let id = world.command(0, command).conversation.unwrap();
            world.run();
            world.take_offline(1);
            let mut each = Vec::new();
            for round in 0..3 {
                for n in [0, 2] {
                    let texts = (0..3).map(|text| format!("{round} {n} {text}"));
                    each.push((n, say_all(&mut world, n, id, texts)));
                    world.run();
                }
                let handles = vec![handle("dave")];
                let dave = world.address(3).account;
                if round % 2 == 0 {
                    world.command(0, Command::AddMembers { conversation: id, handles });
                } else {
                    world.command(0, Command::RemoveMembers { conversation: id, accounts: vec![dave] });
                }
                world.run();
            }
            let waiting = world.server.waiting(world.address(1));
            overflow(&mut world, 1, lost.min(waiting));
            world.say(1, id, "I am here");
            for n in [0, 2] {
                world.say(n, id, "after");
            }
            world.run();
            for (n, said) in each {
                is_settled(&world, n, (1, "bob"), id, &said);
            }
            for n in [0, 2] {
                assert!(world.history(n, id).contains(&"bob: I am here".to_owned()));
                assert!(shown(&world, 1, id, &world.devices[n].name).contains("after"));
            }
            let view = world.devices[1].core.conversation(id).unwrap();
            assert_eq!((view.ready, view.members.len(), view.name.as_deref()), (true, 4, Some("team")));
        }
    }
}

#[test]
fn whoever_was_removed_and_let_in_again_behind_a_gap_is_inside() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let handles = ["bob", "carol"].map(handle).to_vec();
    let id = world.command(0, Command::CreateGroup { name: "team".into(), handles }).conversation.unwrap();
    world.say(0, id, "one");
    world.run();
    world.take_offline(1);
    let bob = world.address(1).account;
    world.command(0, Command::RemoveMembers { conversation: id, accounts: vec![bob] });
    world.run();
    world.say(0, id, "not for bob");
    world.run();
    world.command(0, Command::AddMembers { conversation: id, handles: vec![handle("bob")] });
    world.run();
    let said = say_all(&mut world, 0, id, (0..3).map(|n| format!("again {n}")));
    world.run();
    let waiting = world.server.waiting(world.address(1));
    overflow(&mut world, 1, waiting - 1);
    world.say(0, id, "after");
    world.run();
    is_settled(&world, 0, (1, "bob"), id, &said);
    let shown = shown(&world, 1, id, "alice");
    assert!(shown.contains("after") && !shown.contains("not for bob"), "{shown:?}");
}

#[test]
fn what_the_others_say_before_the_verdict_on_joining_again_is_waited_for() {
    for was_in in [false, true] {
        let mut world = World::new(&["alice", "bob"]);
        if !was_in {
            world.take_offline(1);
        }
        let id = world.start(0, "bob");
        let said = say_all(&mut world, 0, id, ["before".to_owned()].into_iter());
        world.run();
        if was_in {
            // He goes on from a copy of himself, and with that joins again.
            let copy = world.devices[1].rows.clone();
            world.say(0, id, "not in the copy");
            world.run();
            world.devices[1].rows = copy;
            let now = world.now;
            world.devices[1].restart(now);
        } else {
            let last = world.server.lose_oldest(world.address(1), 2);
            world.bring_online(1);
            world.gap(1, last);
        }
        world.server.hold_commits = true;
        world.run_a_little(100);
        let after = say_all(&mut world, 0, id, (0..3).map(|n| format!("after {n}")));
        world.run_a_little(100);
        assert!(!shown(&world, 1, id, "alice").contains("after 0"), "he cannot read it yet");
        world.server.hold_commits = false;
        world.run_a_little(100);
        world.run();
        let all = shown(&world, 1, id, "alice");
        assert!(after.0.values().all(|(_, text)| all.contains(text)), "{was_in}: {all:?}");
        assert_eq!(is_settled(&world, 0, (1, "bob"), id, &said), (1, 0));
        let again = |e: &Event| matches!(e, Event::Resending { message, .. } if after.0.contains_key(message));
        assert_eq!(count(&world, 0, again), 0, "nothing of it had to come twice");
        assert_eq!(count(&world, 1, |e| matches!(e, Event::Unreadable { .. })), 0);
    }
}
