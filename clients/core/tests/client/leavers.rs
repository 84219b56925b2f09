// SPDX-License-Identifier: MIT OR Apache-2.0
//! Wishes to leave that nobody has carried out yet, and what else is asked for meanwhile.

use pli_client_core::{Command, CommandError, Event};
use pli_domain::{ConversationId, DeviceAddress, UnixMillis};

use crate::world::{World, handle};

const BOB: usize = 1;

/// A group of which Bob has asked to leave. Only he and `here` of the others, in the order of their turns, are online.
fn asked_to_leave(names: &[&str], here: impl Fn(usize) -> bool) -> (World, ConversationId, Vec<usize>) {
    let mut world = World::new(names);
    let handles = names[1..].iter().map(|name| handle(name)).collect();
    let id = world.command(0, Command::CreateGroup { name: "team".into(), handles }).conversation.unwrap();
    world.run();
    let mut others: Vec<usize> = (0..names.len()).filter(|n| *n != BOB).collect();
    others.sort_by_key(|n| world.address(*n));
    others.iter().enumerate().filter(|(turn, _)| !here(*turn)).for_each(|(_, n)| world.take_offline(*n));
    world.command(BOB, Command::Leave { conversation: id });
    // Frames move, and no time: whose turn is later waits.
    world.run_a_little(100);
    (world, id, others)
}

fn add_bob(world: &mut World, n: usize, id: ConversationId) {
    world.command(n, Command::AddMembers { conversation: id, handles: vec![handle("bob")] });
}

fn is_in(world: &World, n: usize, id: ConversationId) -> bool {
    let bob: DeviceAddress = world.address(BOB);
    let view = world.devices[n].core.conversation(id).unwrap();
    view.members.iter().any(|member| member.account == bob.account) && view.leaving.is_empty()
}

fn leaving(world: &World, n: usize, id: ConversationId) -> Vec<String> {
    let view = world.devices[n].core.conversation(id).unwrap();
    view.leaving.iter().map(|member| member.name()).collect()
}

/// Bob went, came again and stays, as everybody knows.
fn went_and_came(world: &mut World, id: ConversationId, members: usize) {
    (0..members).for_each(|n| world.bring_online(n));
    for _ in 0..5 {
        world.run();
        world.now += 60_000;
    }
    assert!(world.server.roster(id).contains(&world.address(BOB)));
    for n in 0..members {
        assert!(is_in(world, n, id), "{n}");
        assert!(!world.devices[n].core.is_changing(id), "{n}");
        assert!(!world.devices[n].events.iter().any(|e| matches!(e, Event::ChangeFailed { .. })), "{n}");
    }
    let events = &world.devices[BOB].events;
    let left: Vec<usize> = (0..events.len()).filter(|at| matches!(events[*at], Event::Left { .. })).collect();
    let ready = events.iter().rposition(|event| matches!(event, Event::ConversationReady { .. }));
    assert!(left.len() == 1 && ready > Some(left[0]), "{events:?}");
    world.say(0, id, "welcome back");
    world.run();
    assert_eq!(world.history(BOB, id), ["alice: welcome back"]);
}

#[test]
fn who_has_asked_to_leave_and_is_added_goes_first_and_then_comes_in() {
    for restarted in [false, true] {
        let (mut world, id, others) = asked_to_leave(&["alice", "bob", "carol"], |turn| turn == 1);
        assert_eq!(leaving(&world, others[1], id), ["bob"], "it is not this one's turn yet");
        add_bob(&mut world, others[1], id);
        assert!(world.devices[others[1]].core.is_changing(id), "in is not what somebody is who goes");
        if restarted {
            let now = world.now;
            world.devices[others[1]].restart(now);
        }
        world.run_a_little(200);
        assert!(is_in(&world, others[1], id), "whoever is added waits for nobody's turn");
        went_and_came(&mut world, id, 3);
    }
}

#[test]
fn whose_turn_was_later_takes_nobody_out_who_was_added_again() {
    let (mut world, id, others) = asked_to_leave(&["alice", "bob", "carol", "dave"], |turn| turn > 0);
    assert_eq!(leaving(&world, others[2], id), ["bob"]);
    add_bob(&mut world, others[1], id);
    went_and_came(&mut world, id, 4);
    let epochs = world.server.epoch_and_tree(id).0;
    assert_eq!(epochs, 3, "made, out and in: nobody else changed anything");
}

#[test]
fn who_is_added_before_the_wish_to_leave_is_known_goes_first_too() {
    let (mut world, id, others) = asked_to_leave(&["alice", "bob", "carol"], |_| false);
    add_bob(&mut world, others[1], id);
    assert!(world.devices[others[1]].core.is_changing(id), "whether he is in is not known before all is here");
    went_and_came(&mut world, id, 3);
}

#[test]
fn two_who_add_a_leaver_at_once_bring_them_in_once() {
    let (mut world, id, others) = asked_to_leave(&["alice", "bob", "carol", "dave"], |turn| turn > 0);
    add_bob(&mut world, others[1], id);
    add_bob(&mut world, others[2], id);
    went_and_came(&mut world, id, 4);
}

#[test]
fn a_wish_to_leave_is_shown_until_it_is_carried_out() {
    let (mut world, id, others) = asked_to_leave(&["alice", "bob", "carol"], |_| false);
    assert_eq!(leaving(&world, BOB, id), ["bob"]);
    let now = world.now;
    world.devices[BOB].restart(now);
    world.run();
    assert_eq!(leaving(&world, BOB, id), ["bob"], "also after a restart");
    let add = Command::AddMembers { conversation: id, handles: vec![handle("carol")] };
    let error = world.devices[BOB].core.command(add, UnixMillis(world.now)).expect_err("nothing comes after it");
    assert!(matches!(error, CommandError::Leaving), "{error}");
    assert_eq!(world.devices[BOB].core.open_changes(), 0, "the server has it");
    world.bring_online(others[0]);
    world.run();
    assert!(world.devices[BOB].core.conversation(id).unwrap().left);
    assert!(leaving(&world, BOB, id).is_empty() && leaving(&world, others[0], id).is_empty());
}

#[test]
fn who_joins_again_takes_nobody_out_for_a_wish_of_before() {
    let (mut world, id, others) = asked_to_leave(&["alice", "bob", "carol", "dave"], |turn| turn > 0);
    let last = others[2];
    assert_eq!(leaving(&world, last, id), ["bob"]);
    world.take_offline(last);
    add_bob(&mut world, others[1], id);
    world.run();
    let address = world.address(last);
    let to = world.server.lose_queue(address);
    world.server.gaps.insert(address, to);
    world.server.commits_gone = true;
    went_and_came(&mut world, id, 4);
    assert!(world.devices[last].events.iter().any(|event| matches!(event, Event::Rejoining { .. })));
}
