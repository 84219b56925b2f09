// SPDX-License-Identifier: MIT OR Apache-2.0
//! More at once than there is room for, and what is refused for good or answered by nonsense: all of it settles, and
//! nothing is tried without pause.

use pli_client_core::{Command, Event};
use pli_domain::ConversationId;

use crate::ghost::Ghost;
use crate::world::{World, handle};

fn count(world: &World, n: usize, wanted: impl Fn(&Event) -> bool) -> usize {
    world.devices[n].events.iter().filter(|event| wanted(event)).count()
}

fn calls(world: &World, method: &str) -> usize {
    world.server.calls.iter().filter(|called| *called == method).count()
}

fn wait(world: &mut World, minutes: u64) {
    for _ in 0..4 * minutes {
        world.now += 15_000;
        world.run();
    }
}

/// The same where the world does not come to rest.
fn wait_restless(world: &mut World, minutes: u64) {
    let end = world.now + 60_000 * minutes;
    while world.now < end {
        world.run_on(20);
        world.now += 1_000;
    }
}

fn group(world: &mut World, name: &str, handles: &[&str]) -> ConversationId {
    let handles = handles.iter().map(|name| handle(name)).collect();
    world.command(0, Command::CreateGroup { name: name.into(), handles }).conversation.unwrap()
}

#[test]
fn many_large_groups_that_change_at_once_all_settle() {
    let mut world = World::new(&["alice", "bob"]);
    let names: Vec<String> = (0..100).map(|n| format!("crowd{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        Ghost::join(&mut world.server, name, u16::try_from(n).unwrap() + 100);
    }
    let names: Vec<&str> = names.iter().map(String::as_str).chain(["bob"]).collect();
    // Made at once too: each has a group info and a welcome that are stored first.
    let groups: Vec<_> = (0..6).map(|n| group(&mut world, &format!("large {n}"), &names)).collect();
    world.run();
    for id in &groups {
        assert_eq!(world.server.roster(*id).len(), 102);
    }
    let moved = world.server.pages_moved;
    let laptop = world.link(0, "laptop");
    for id in &groups {
        assert!(world.server.roster(*id).contains(&world.address(laptop)));
        world.say(0, *id, "to the laptop too");
    }
    world.run();
    for id in &groups {
        assert_eq!(world.history(laptop, *id).last().unwrap(), "me: to the laptop too");
        assert_eq!(world.history(1, *id).last().unwrap(), "alice: to the laptop too");
    }
    let moved = world.server.pages_moved - moved;
    assert!(moved <= 8 * groups.len(), "{moved} pages: objects were begun again");
}

#[test]
fn many_groups_that_are_joined_again_at_once_ask_for_each_group_info_once() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let groups: Vec<_> = (0..12).map(|n| group(&mut world, &format!("team {n}"), &["bob"])).collect();
    world.run();
    world.take_offline(1);
    for id in &groups {
        world.command(0, Command::AddMembers { conversation: *id, handles: vec![handle("carol")] });
    }
    world.run();
    let bob = world.address(1);
    let to = world.server.lose_queue(bob);
    world.server.gaps.insert(bob, to);
    world.server.commits_gone = true;
    world.server.inline_max = Some(64);
    world.bring_online(1);
    world.run();
    wait(&mut world, 1);
    world.server.inline_max = None;
    assert_eq!(count(&world, 1, |e| matches!(e, Event::Rejoining { .. })), groups.len());
    for id in &groups {
        world.say(1, *id, "here again");
    }
    world.run();
    for id in &groups {
        assert_eq!(world.history(2, *id).last().unwrap(), "bob: here again");
    }
    let asked = calls(&world, "GetGroupInfo");
    assert!(asked <= groups.len() + 2, "{asked} group infos for {} groups", groups.len());
}

#[test]
fn a_re_join_that_is_refused_for_good_is_tried_less_and_less_often() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let id = group(&mut world, "team", &["bob"]);
    world.run();
    world.take_offline(1);
    world.command(0, Command::AddMembers { conversation: id, handles: vec![handle("carol")] });
    world.run();
    let bob = world.address(1);
    let to = world.server.lose_queue(bob);
    world.server.gaps.insert(bob, to);
    world.server.commits_gone = true;
    world.server.refuse_commits = true;
    world.bring_online(1);
    wait_restless(&mut world, 20);
    assert_eq!(count(&world, 1, |e| matches!(e, Event::Rejoining { .. })), 1);
    let asked = calls(&world, "GetGroupInfo");
    assert!((10..=90).contains(&asked), "{asked} tries in 20 minutes");
    world.server.refuse_commits = false;
    wait(&mut world, 2);
    world.say(1, id, "here again");
    world.run();
    assert_eq!(world.history(0, id), ["bob: here again"]);
}

#[test]
fn a_verdict_that_does_not_decode_voids_no_commit() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let id = group(&mut world, "team", &["bob"]);
    world.run();
    let before = (world.server.epoch(id), calls(&world, "ClaimKeyPackages"));
    world.server.garbled_verdicts = 3;
    // What it made comes in the queue too, which would tell.
    world.server.hold.insert(world.address(0));
    world.command(0, Command::AddMembers { conversation: id, handles: vec![handle("carol")] });
    world.run();
    wait(&mut world, 1);
    world.server.hold.clear();
    world.run();
    world.say(0, id, "all here");
    world.run();
    assert_eq!(world.history(2, id), ["alice: all here"]);
    assert_eq!(world.server.garbled_verdicts, 0);
    let after = (world.server.epoch(id), calls(&world, "ClaimKeyPackages"));
    assert_eq!(after, (before.0 + 1, before.1 + 1), "it was the same commit each time");
    assert_eq!(count(&world, 0, |e| matches!(e, Event::Rejoining { .. } | Event::ChangeFailed { .. })), 0);
}

#[test]
fn a_device_whose_key_packages_cannot_be_used_keeps_nobody_from_being_removed() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let id = group(&mut world, "team", &["bob", "carol"]);
    world.run();
    let laptop = world.prepare(0, "laptop");
    let (device, other) = (world.address(laptop), world.server.package_of(world.address(2)));
    world.server.swapped.insert(device, other);
    world.name_in_list(0, laptop);
    world.bring_online(laptop);
    world.run();
    wait(&mut world, 2);
    assert!(!world.server.roster(id).contains(&device));
    let accounts = vec![world.address(2).account];
    world.command(0, Command::RemoveMembers { conversation: id, accounts });
    world.run();
    wait(&mut world, 1);
    assert_eq!(count(&world, 0, |e| matches!(e, Event::ChangeFailed { .. })), 0, "{:?}", world.devices[0].events);
    assert_eq!(world.server.roster(id).len(), 2);
    assert_eq!(count(&world, 0, |e| matches!(e, Event::DeviceAwaited { .. })), 1, "the user is told once");
    // And it comes in when it has published some that can.
    world.server.swapped.clear();
    wait(&mut world, 3);
    assert!(world.server.roster(id).contains(&device));
}

#[test]
fn a_group_that_is_said_to_be_full_is_left_alone_until_it_changes() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let id = group(&mut world, "team", &["bob", "carol"]);
    world.run();
    world.server.devices_max = Some(3);
    let before = calls(&world, "ClaimKeyPackages");
    let laptop = world.link(0, "laptop");
    wait(&mut world, 30);
    assert!(!world.server.roster(id).contains(&world.address(laptop)));
    let claims = calls(&world, "ClaimKeyPackages") - before;
    assert!(claims <= 8, "{claims} claims of key packages for nothing");
    let accounts = vec![world.address(2).account];
    world.command(1, Command::RemoveMembers { conversation: id, accounts });
    wait(&mut world, 3);
    assert!(world.server.roster(id).contains(&world.address(laptop)), "there is room");
    assert_eq!(count(&world, 0, |e| matches!(e, Event::ChangeFailed { .. })), 0);
}

/// A group of which two of alice's devices are not, as there is no room for both.
fn full_group(people: &[&str], companions: &[&str]) -> (World, ConversationId, [usize; 2]) {
    let mut world = World::new(people);
    let id = group(&mut world, "team", &people[1..]);
    world.run();
    for name in companions {
        world.link(0, name);
    }
    wait(&mut world, 2);
    world.server.devices_max = Some(people.len() + companions.len());
    let added = ["laptop", "phone"].map(|name| world.link(0, name));
    wait(&mut world, 5);
    assert_eq!(world.server.roster(id).len(), people.len() + companions.len());
    (world, id, added)
}

#[test]
fn nobody_stays_in_a_group_because_there_is_no_room_for_somebody_else() {
    for restarted in [false, true] {
        let (mut world, id, added) = full_group(&["alice", "bob", "carol", "dave"], &[]);
        if restarted {
            // It knows on that there is no room.
            let now = world.now;
            world.devices[0].restart(now);
            world.run();
        }
        let before = calls(&world, "ClaimKeyPackages");
        for (n, left) in [(3, 3), (2, 4)] {
            let accounts = vec![world.address(n).account];
            world.command(0, Command::RemoveMembers { conversation: id, accounts });
            world.run_a_little(200);
            assert!(!world.server.roster(id).contains(&world.address(n)), "{restarted}: {n} is gone at once");
            wait(&mut world, 5);
            assert_eq!(world.server.roster(id).len(), left, "{restarted}: both come in when there is room for both");
        }
        assert!(added.iter().all(|n| world.server.roster(id).contains(&world.address(*n))));
        assert_eq!(count(&world, 0, |e| matches!(e, Event::ChangeFailed { .. })), 0);
        let claims = calls(&world, "ClaimKeyPackages") - before;
        assert!(claims <= 6, "{restarted}: {claims} claims of key packages");
    }
}

#[test]
fn a_removed_device_goes_out_of_a_full_group_which_is_then_left_alone() {
    let (mut world, id, _) = full_group(&["alice", "bob"], &["tablet"]);
    let before = calls(&world, "ClaimKeyPackages");
    let tablet = world.address(2);
    world.unlink(0, 2);
    wait(&mut world, 1);
    assert!(!world.server.roster(id).contains(&tablet), "{:?}", world.server.roster(id));
    wait(&mut world, 30);
    let claims = calls(&world, "ClaimKeyPackages") - before;
    assert!(claims <= 6, "{claims} claims of key packages for nothing");
    world.say(0, id, "it is out");
    world.run();
    assert_eq!(world.history(1, id), ["alice: it is out"]);
}

#[test]
fn a_group_that_is_too_large_either_way_claims_nothing_until_there_may_be_room() {
    for restarted in [false, true] {
        let mut world = World::new(&["alice", "bob"]);
        let id = group(&mut world, "team", &["bob"]);
        world.run();
        let tablet = world.link(0, "tablet");
        wait(&mut world, 2);
        assert_eq!(world.server.roster(id).len(), 3);
        // No commit is taken, of a removal neither.
        world.server.devices_max = Some(1);
        world.unlink(0, tablet);
        let laptop = world.link(0, "laptop");
        wait(&mut world, 5);
        let before = calls(&world, "ClaimKeyPackages");
        for _ in 0..8 {
            wait(&mut world, 5);
            if restarted {
                let now = world.now;
                world.devices[0].restart(now);
                world.run();
            }
        }
        let claims = calls(&world, "ClaimKeyPackages") - before;
        // Each of three devices tries what others lack once.
        assert!(claims <= 2, "{restarted}: {claims} claims of key packages for nothing");
        world.server.devices_max = None;
        wait(&mut world, 90);
        assert!(!world.server.roster(id).contains(&world.address(tablet)), "{restarted}");
        assert!(world.server.roster(id).contains(&world.address(laptop)), "{restarted}: it is tried again");
    }
}

#[test]
fn a_list_that_changes_makes_no_room() {
    let (mut world, id, _) = full_group(&["alice", "bob"], &["tablet"]);
    let phone = world.link(1, "bobs-phone");
    wait(&mut world, 5);
    let before = calls(&world, "ClaimKeyPackages");
    for name in ["one", "two"] {
        let added = world.link(1, name);
        world.unlink(1, added);
        wait(&mut world, 5);
    }
    let claims = calls(&world, "ClaimKeyPackages") - before;
    assert_eq!(claims, 0, "claims of key packages for nothing");
    // A device of one's own is tried again within hours, where those of others wait for days.
    world.server.devices_max = None;
    wait(&mut world, 150);
    assert!(world.server.roster(id).contains(&world.address(phone)));
}
