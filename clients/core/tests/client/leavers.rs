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

/// Alice with a phone (0), a tablet (2) and a laptop (3) in a group with Bob (1), who has left it: nobody else is in.
fn own_devices_alone() -> (World, ConversationId, [usize; 3]) {
    let mut world = World::new(&["alice", "bob"]);
    let (tablet, laptop) = (world.link(0, "tablet"), world.link(0, "laptop"));
    let handles = vec![handle("bob")];
    let id = world.command(0, Command::CreateGroup { name: "team".into(), handles }).conversation.unwrap();
    world.run();
    world.command(BOB, Command::Leave { conversation: id });
    world.run();
    assert_eq!(world.server.roster(id).len(), 3);
    (world, id, [0, tablet, laptop])
}

fn has_left(world: &World, n: usize, id: ConversationId) -> bool {
    let told = world.devices[n].events.iter().filter(|event| matches!(event, Event::Left { .. })).count();
    let view = world.devices[n].core.conversation(id).unwrap();
    assert_eq!(usize::from(view.left), told, "told once: {}", world.devices[n].name);
    view.left && view.leaving.is_empty()
}

/// All of these are out, and neither time nor what the server says brings one of them back.
fn left_for_good(world: &mut World, id: ConversationId, devices: &[usize]) {
    world.run();
    let versions = world.server.chains[&world.address(0).account].len();
    for n in devices {
        assert!(has_left(world, *n, id), "{}", world.devices[*n].name);
    }
    for n in devices {
        let address = world.address(*n);
        let to = world.server.lose_queue(address);
        let now = world.now;
        world.devices[*n].restart(now);
        world.gap(*n, to + 1);
    }
    for _ in 0..5 {
        world.run();
        world.now += 60_000;
    }
    for n in devices {
        assert!(has_left(world, *n, id), "it stays out: {}", world.devices[*n].name);
        assert!(!world.devices[*n].core.is_changing(id), "{}", world.devices[*n].name);
        assert!(
            !world.devices[*n].events.iter().any(|e| matches!(e, Event::Rejoining { .. } | Event::ChangeFailed { .. }))
        );
    }
    assert_eq!(world.server.chains[&world.address(0).account].len(), versions, "the devices are the account's on");
}

#[test]
fn the_last_account_leaves_with_all_its_devices_from_whichever_one_it_does() {
    for which in 0..3 {
        let (mut world, id, devices) = own_devices_alone();
        world.command(devices[which], Command::Leave { conversation: id });
        world.run();
        // They are the account's as before, and come along wherever one of them goes.
        let chat = world.start(devices[which], "bob");
        world.run();
        assert_eq!(world.server.roster(chat).len(), 4);
        left_for_good(&mut world, id, &devices);
    }
}

#[test]
fn a_device_that_was_away_learns_later_that_the_last_account_has_left() {
    for which in 0..3 {
        let (mut world, id, devices) = own_devices_alone();
        let others: Vec<usize> = devices.into_iter().filter(|n| *n != devices[which]).collect();
        others.iter().for_each(|n| world.take_offline(*n));
        world.command(devices[which], Command::Leave { conversation: id });
        world.run();
        assert!(has_left(&world, devices[which], id), "nobody needs to be there for it");
        assert!(others.iter().all(|n| !has_left(&world, *n, id)));
        others.iter().for_each(|n| world.bring_online(*n));
        left_for_good(&mut world, id, &devices);
    }
}

#[test]
fn an_account_that_leaves_offline_is_out_on_all_its_devices_when_it_is_back() {
    let (mut world, id, devices) = own_devices_alone();
    world.take_offline(devices[1]);
    world.command(devices[1], Command::Leave { conversation: id });
    world.run();
    assert!(devices.iter().all(|n| !has_left(&world, *n, id)));
    assert_eq!(leaving(&world, devices[1], id), ["alice"]);
    let now = world.now;
    world.devices[devices[1]].restart(now);
    world.bring_online(devices[1]);
    left_for_good(&mut world, id, &devices);
}

#[test]
fn all_devices_of_the_last_account_may_leave_at_once() {
    let (mut world, id, devices) = own_devices_alone();
    for n in devices {
        world.command(n, Command::Leave { conversation: id });
    }
    left_for_good(&mut world, id, &devices);
    assert!(world.server.lost_races > 0, "they raced");
}

#[test]
fn the_last_others_and_all_devices_of_an_account_may_leave_at_once() {
    let mut world = World::new(&["alice", "bob"]);
    let tablet = world.link(0, "tablet");
    let handles = vec![handle("bob")];
    let id = world.command(0, Command::CreateGroup { name: "team".into(), handles }).conversation.unwrap();
    world.run();
    for n in [BOB, tablet] {
        world.command(n, Command::Leave { conversation: id });
    }
    left_for_good(&mut world, id, &[0, BOB, tablet]);
}

#[test]
fn where_the_others_are_away_all_devices_of_an_account_are_out_when_one_of_them_is_back() {
    let mut world = World::new(&["alice", "bob"]);
    let tablet = world.link(0, "tablet");
    let handles = vec![handle("bob")];
    let id = world.command(0, Command::CreateGroup { name: "team".into(), handles }).conversation.unwrap();
    world.run();
    world.take_offline(BOB);
    world.command(tablet, Command::Leave { conversation: id });
    world.run();
    assert!(!has_left(&world, 0, id) && !has_left(&world, tablet, id));
    world.bring_online(BOB);
    left_for_good(&mut world, id, &[0, tablet]);
    assert_eq!(world.server.roster(id).len(), 1);
}

#[test]
fn a_chat_that_nobody_whom_the_account_knew_is_in_can_be_left_on_each_of_its_devices() {
    let mut world = World::new(&["alice", "bob", "carol", "dave"]);
    let tablet = world.link(BOB, "tablet");
    let handles = vec![handle("bob")];
    let id = world.command(0, Command::CreateGroup { name: "team".into(), handles }).conversation.unwrap();
    world.run();
    [BOB, tablet].iter().for_each(|n| world.take_offline(*n));
    for (by, name) in [(0, "carol"), (2, "dave")] {
        world.command(by, Command::AddMembers { conversation: id, handles: vec![handle(name)] });
        world.run();
    }
    let accounts = vec![world.address(0).account];
    world.command(2, Command::RemoveMembers { conversation: id, accounts });
    world.run();
    world.server.commits_gone = true;
    for n in [BOB, tablet] {
        let address = world.address(n);
        let to = world.server.lose_queue(address);
        world.server.gaps.insert(address, to);
        world.bring_online(n);
    }
    for _ in 0..20 {
        world.run();
        world.now += 60_000;
    }
    for n in [BOB, tablet] {
        let told =
            |event: &&Event| matches!(event, Event::Waiting { why, .. } if why.message.contains("on each of them"));
        assert_eq!(world.devices[n].events.iter().filter(told).count(), 1, "{}", world.devices[n].name);
        world.command(n, Command::Leave { conversation: id });
        world.run();
        assert!(has_left(&world, n, id), "{}", world.devices[n].name);
    }
}

#[test]
fn two_who_leave_at_once_while_devices_are_awaited_do_not_wait_for_each_other() {
    let mut world = World::new(&["alice", "bob"]);
    let handles = vec![handle("bob")];
    let id = world.command(0, Command::CreateGroup { name: "team".into(), handles }).conversation.unwrap();
    world.run();
    // Each has a device more that has published nothing yet: the group is to be brought in line later.
    for n in [0, BOB] {
        let tablet = world.prepare(n, "tablet");
        world.name_in_list(n, tablet);
        world.run();
    }
    for n in [0, BOB] {
        world.command(n, Command::Leave { conversation: id });
    }
    for _ in 0..5 {
        world.run();
        world.now += 60_000;
    }
    for n in [0, BOB] {
        assert!(has_left(&world, n, id), "{n}");
    }
}

#[test]
fn what_was_found_out_for_who_is_added_is_not_taken_for_who_goes_first() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let handles = vec![handle("bob")];
    let id = world.command(0, Command::CreateGroup { name: "team".into(), handles }).conversation.unwrap();
    world.run();
    let tablet = world.prepare(2, "tablet");
    world.name_in_list(2, tablet);
    world.run();
    // Alice hears of Bob's wish after she was told that Carol's tablet has published nothing, and before the rest came.
    let alice = world.address(0);
    world.server.hold.insert(alice);
    world.server.hold_calls = Some("/ClaimKeyPackages");
    world.command(BOB, Command::Leave { conversation: id });
    let handles = vec![handle("bob"), handle("carol")];
    world.command(0, Command::AddMembers { conversation: id, handles });
    world.run_a_little(50);
    world.server.hold_calls = None;
    world.server.hold.clear();
    world.run();
    let events = &world.devices[0].events;
    let at = |what: &dyn Fn(&Event) -> bool| (0..events.len()).filter(|n| what(&events[*n])).collect::<Vec<_>>();
    let carol = world.address(2).account;
    let added = at(&|e| matches!(e, Event::MemberAdded { member, .. } if member.account == carol));
    let removed = at(&|e| matches!(e, Event::MemberRemoved { .. }));
    let awaited = at(&|e| matches!(e, Event::DeviceAwaited { .. }));
    assert_eq!((added.len(), removed.len(), awaited.len()), (1, 1, 1), "{events:?}");
    assert!(removed < added && added < awaited, "{events:?}");
    went_and_came(&mut world, id, 3);
}

#[test]
fn whoever_leaves_on_one_device_was_removed_by_nobody_on_the_others() {
    let mut world = World::new(&["alice", "bob"]);
    let laptop = world.link(0, "laptop");
    let handles = vec![handle("alice")];
    let id = world.command(BOB, Command::CreateGroup { name: "team".into(), handles }).conversation.unwrap();
    world.run();
    world.take_offline(0);
    world.command(laptop, Command::Leave { conversation: id });
    world.run();
    world.bring_online(0);
    world.run();
    for n in [0, laptop] {
        assert!(has_left(&world, n, id));
        let told = |e: &Event| matches!(e, Event::Left { by: None, .. });
        assert!(world.devices[n].events.iter().any(told), "{n}");
    }
}
