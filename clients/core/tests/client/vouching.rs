// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who lost the thread comes back by a group info of somebody whom it knew, and asks for one.

use pli_client_core::{Command, Event};
use pli_domain::{ConversationId, DeviceAddress};

use crate::world::{World, handle};

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const BOB: usize = 1;

fn pass(world: &mut World, span: u64, step: u64) {
    for _ in 0..span / step {
        world.now += step;
        world.run();
    }
}

/// Some seconds, until it is so.
fn pass_a_little(world: &mut World, is_so: impl Fn(&World) -> bool) {
    for _ in 0..100 {
        if is_so(world) {
            return;
        }
        world.now += 100;
        world.run_a_little(50);
    }
}

/// Frames, and time, until it is so; answers how long that takes.
fn run_until(world: &mut World, is_so: impl Fn(&World) -> bool) -> u64 {
    let begun = world.now;
    for _ in 0..10_000 {
        if is_so(world) {
            return world.now - begun;
        }
        world.run_on(1);
        world.now += 100;
    }
    panic!("it does not come to that");
}

/// A group of Alice (0), Bob (1) and these; then carol and dave, in this order the last of all, come in while Bob is away,
/// and carol makes the newest epoch. All that was for Bob is gone.
fn lost_to_a_newcomer(others: &[&str]) -> (World, ConversationId) {
    let names: Vec<&str> = ["alice", "bob"].iter().chain(others).chain(&["carol", "dave"]).copied().collect();
    let mut world = World::new(&names);
    let handles = names[1..names.len() - 2].iter().map(|name| handle(name)).collect();
    let id = world.command(0, Command::CreateGroup { name: "team".into(), handles }).conversation.unwrap();
    world.run();
    world.take_offline(BOB);
    add(&mut world, 0, id, "carol");
    let carol = names.len() - 2;
    add(&mut world, carol, id, "dave");
    let bob = world.address(BOB);
    let to = world.server.lose_queue(bob);
    world.server.gaps.insert(bob, to);
    world.server.commits_gone = true;
    (world, id)
}

fn add(world: &mut World, n: usize, id: ConversationId, name: &str) {
    world.command(n, Command::AddMembers { conversation: id, handles: vec![handle(name)] });
    world.run();
}

fn remove(world: &mut World, n: usize, id: ConversationId, gone: usize) {
    let accounts = vec![world.address(gone).account];
    world.command(n, Command::RemoveMembers { conversation: id, accounts });
    world.run();
}

fn is_back(world: &World, id: ConversationId) -> bool {
    let of = |n: usize| world.devices[n].core.epoch_authenticator(id);
    of(BOB) == of(world.devices.len() - 1)
}

/// What Bob is told that it waits for.
fn waits(world: &World) -> Vec<&str> {
    let why = |event: &'_ Event| if let Event::Waiting { why, .. } = event { Some(why.message.clone()) } else { None };
    let all: Vec<String> = world.devices[BOB].events.iter().filter_map(why).collect();
    let is = |part: &'static str| all.iter().filter(move |why| why.contains(part)).map(move |_| part);
    is("are asked to").chain(is("nobody whom")).collect()
}

fn calls(world: &World, method: &str) -> usize {
    world.server.calls.iter().filter(|call| *call == method).count()
}

#[test]
fn members_that_it_knew_are_asked_and_one_of_them_brings_it_back_in_a_silent_group() {
    let (mut world, id) = lost_to_a_newcomer(&["erin", "frank"]);
    let (epoch, known) = (world.server.epoch(id), [0, 2, 3].map(|n| world.address(n)));
    world.bring_online(BOB);
    pass(&mut world, 2 * MINUTE, 100);
    assert!(is_back(&world, id));
    assert!(calls(&world, "GetGroupInfo") > 1, "carol had signed the first one, whom it never knew");
    let mut asked = world.server.renewals_asked.clone();
    asked.sort();
    assert_eq!(asked, sorted(&known));
    // The first of them renewed its keys, and Bob came back; the others had no reason any more.
    assert_eq!(world.server.epoch(id), epoch + 2);
    pass(&mut world, 60 * MINUTE, MINUTE);
    assert_eq!(world.server.epoch(id), epoch + 2);
    assert!(waits(&world).len() <= 1, "told once, where it takes long");
    world.say(BOB, id, "I am back");
    world.run();
    assert_eq!(world.history(0, id), ["bob: I am back"]);
}

fn sorted(devices: &[DeviceAddress]) -> Vec<DeviceAddress> {
    let mut devices = devices.to_vec();
    devices.sort();
    devices
}

#[test]
fn whoever_is_asked_while_away_does_it_when_it_comes_and_until_then_little_is_asked() {
    let (mut world, id) = lost_to_a_newcomer(&[]);
    world.take_offline(0);
    world.bring_online(BOB);
    pass(&mut world, 24 * 60 * MINUTE, MINUTE);
    assert!(!is_back(&world, id));
    assert_eq!(waits(&world), ["are asked to"], "told once");
    // Every ten minutes, and asked anew each hour.
    let (infos, asked) = (calls(&world, "GetGroupInfo"), world.server.renewals_asked.len());
    assert!((100..=160).contains(&infos) && (20..=25).contains(&asked), "{infos} {asked}");
    world.bring_online(0);
    pass(&mut world, 2 * MINUTE, 100);
    assert!(is_back(&world, id));
    // However often it was asked.
    let alice = world.address(0);
    pass(&mut world, 3 * 60 * MINUTE, MINUTE);
    let epochs = world.server.epoch(id);
    let committers = world.server.committers(id, epochs.saturating_sub(3));
    assert!(committers.iter().filter(|by| **by == alice).count() <= 2, "{committers:?}");
}

#[test]
fn a_restart_while_it_waits_asks_again() {
    let (mut world, id) = lost_to_a_newcomer(&[]);
    world.take_offline(0);
    world.bring_online(BOB);
    pass(&mut world, 30 * MINUTE, MINUTE);
    let now = world.now;
    world.devices[BOB].restart(now);
    world.bring_online(0);
    pass(&mut world, 5 * MINUTE, SECOND);
    assert!(is_back(&world, id));
}

#[test]
fn where_all_that_it_knew_are_gone_it_says_so_and_can_leave_and_be_added_again() {
    let (mut world, id) = lost_to_a_newcomer(&[]);
    let (carol, dave) = (2, 3);
    remove(&mut world, carol, id, 0);
    world.bring_online(BOB);
    pass(&mut world, 20 * MINUTE, MINUTE);
    assert_eq!(waits(&world), ["nobody whom"], "told once");
    assert!(world.server.renewals_asked.is_empty(), "there is nobody to be asked");
    assert!(!world.devices[BOB].core.conversation(id).unwrap().left);

    world.command(BOB, Command::Leave { conversation: id });
    world.run();
    assert!(world.devices[BOB].core.conversation(id).unwrap().left);
    // The server has it in there on, and names it: it does not come back by that.
    let now = world.now;
    world.devices[BOB].restart(now);
    pass(&mut world, 20 * MINUTE, MINUTE);
    assert!(world.devices[BOB].core.conversation(id).unwrap().left);
    remove(&mut world, dave, id, BOB);
    add(&mut world, dave, id, "bob");
    world.say(carol, id, "welcome");
    world.run();
    assert!(is_back(&world, id));
    assert_eq!(world.history(BOB, id), ["carol: welcome"]);
}

#[test]
fn who_asks_all_the_time_is_heeded_every_ten_minutes() {
    let mut world = World::new(&["alice", "bob", "mallory"]);
    let handles = vec![handle("bob"), handle("mallory")];
    let id = world.command(0, Command::CreateGroup { name: "team".into(), handles }).conversation.unwrap();
    world.run();
    let (epoch, mallory, alice) = (world.server.epoch(id), world.address(2), world.address(0));
    let begun = world.now;
    while world.now < begun + 60 * MINUTE {
        world.server.ask_to_renew(mallory, id, &[alice]);
        pass(&mut world, MINUTE, 10 * SECOND);
    }
    let renewed = world.server.epoch(id) - epoch;
    let most = (world.now - begun) / (10 * MINUTE) + 1;
    assert!((most / 2..=most).contains(&renewed), "{renewed} of {most}");
    // Nobody heeds who is not in the group.
    remove(&mut world, 0, id, 2);
    let epoch = world.server.epoch(id);
    pass(&mut world, 11 * MINUTE, MINUTE);
    world.server.ask_to_renew(mallory, id, &[alice]);
    pass(&mut world, 5 * MINUTE, MINUTE);
    assert!(!world.server.committers(id, epoch).contains(&alice), "she has new keys by the removal");
}

#[test]
fn a_renewal_that_is_due_for_another_reason_stays_due_when_whoever_asked_is_back() {
    let mut world = World::new(&["alice", "bob", "mallory"]);
    let laptop = world.link(0, "laptop");
    let handles = vec![handle("bob"), handle("mallory")];
    let id = world.command(0, Command::CreateGroup { name: "team".into(), handles }).conversation.unwrap();
    world.run();
    let tablet = world.link(0, "tablet");
    pass(&mut world, MINUTE, SECOND);
    // Its account removes the tablet, which may have been stolen: the laptop renews its keys within ten minutes.
    world.take_offline(2);
    world.unlink(0, tablet);
    pass_a_little(&mut world, |world| !world.server.roster(id).contains(&world.address(tablet)));
    let (epoch, device, mallory) = (world.server.epoch(id), world.address(laptop), world.address(2));
    world.server.ask_to_renew(mallory, id, &[device]);
    world.run_a_little(20);
    world.server.damage_queue(mallory);
    world.bring_online(2);
    pass_a_little(&mut world, |world| !world.server.committers(id, epoch).is_empty());
    assert_eq!(world.server.committers(id, epoch), [mallory], "it is back before anybody renewed keys");
    pass(&mut world, 11 * MINUTE, SECOND);
    assert!(world.server.committers(id, epoch).contains(&device));
}

#[test]
fn whoever_is_asked_and_is_late_by_a_newcomers_commit_tries_again_within_two_minutes() {
    let (mut world, id) = lost_to_a_newcomer(&[]);
    let (alice, dave, _) = (world.address(0), 3, world.join("frank"));
    world.run();
    world.bring_online(BOB);
    run_until(&mut world, |world| world.server.renewals_asked == [alice]);
    world.run_a_little(20);
    // Dave, whom Bob does not know, commits, and Alice renews her keys before she hears of that.
    world.server.hold.insert(alice);
    let epoch = world.server.epoch(id);
    world.command(dave, Command::AddMembers { conversation: id, handles: vec![handle("frank")] });
    world.run_a_little(50);
    assert_eq!(world.server.epoch(id), epoch + 1);
    run_until(&mut world, |world| world.server.lost_races > 0);
    world.server.hold.clear();
    let took = run_until(&mut world, |world| is_back(world, id));
    assert!(took < 2 * MINUTE, "{took}");
    assert_eq!(world.server.committers(id, epoch + 1), [alice, world.address(BOB)]);
}

#[test]
fn who_asks_while_another_is_waited_for_is_served_although_that_one_is_back_first() {
    let mut world = World::new(&["alice", "bob", "mallory", "carol"]);
    let (alice, mallory) = (world.address(0), 2);
    let handles = vec![handle("bob"), handle("mallory")];
    let id = world.command(0, Command::CreateGroup { name: "team".into(), handles }).conversation.unwrap();
    world.run();
    world.take_offline(mallory);
    add(&mut world, BOB, id, "carol");
    let epoch = world.server.epoch(id);
    for asking in [mallory, BOB] {
        let by = world.address(asking);
        world.server.ask_to_renew(by, id, &[alice]);
        world.run_a_little(20);
    }
    let back = world.address(mallory);
    world.server.damage_queue(back);
    world.bring_online(mallory);
    pass_a_little(&mut world, |world| !world.server.committers(id, epoch).is_empty());
    assert_eq!(world.server.committers(id, epoch), [back], "it is back before anybody renewed keys");
    pass(&mut world, 2 * MINUTE, SECOND);
    assert_eq!(world.server.committers(id, epoch), [back, alice]);
}

/// Bob has waited so long for Alice, who is away, that it asks for the group info every ten minutes.
fn waits_long(inline_max: Option<usize>) -> (World, ConversationId) {
    let (mut world, id) = lost_to_a_newcomer(&[]);
    world.server.inline_max = inline_max;
    world.take_offline(0);
    world.bring_online(BOB);
    pass(&mut world, 30 * MINUTE, MINUTE);
    (world, id)
}

#[test]
fn a_group_info_of_before_the_commit_that_is_waited_for_delays_nothing() {
    // One that was asked for before, and one of which the bytes were.
    for (held, inline_max) in [("GetGroupInfo", None), ("FetchPayload", Some(64))] {
        let (mut world, id) = waits_long(inline_max);
        world.server.hold_calls = Some(held);
        let before = calls(&world, held);
        run_until(&mut world, |world| calls(world, held) > before);
        let epoch = world.server.epoch(id);
        world.bring_online(0);
        run_until(&mut world, |world| world.server.epoch(id) > epoch);
        world.run_a_little(20);
        world.server.hold_calls = None;
        let took = run_until(&mut world, |world| is_back(world, id));
        assert!(took < MINUTE, "{held}: {took}");
    }
}

#[test]
fn a_commit_of_which_the_bytes_are_gone_ends_the_wait_for_it_too() {
    let (mut world, id) = waits_long(Some(64));
    let (bob, epoch) = (world.address(BOB), world.server.epoch(id));
    world.server.hold.insert(bob);
    world.bring_online(0);
    run_until(&mut world, |world| world.server.epoch(id) > epoch);
    world.server.payloads.clear();
    world.server.hold.clear();
    let took = run_until(&mut world, |world| is_back(world, id));
    assert!(took < MINUTE, "{took}");
}
