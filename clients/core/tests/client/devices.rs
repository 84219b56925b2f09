// SPDX-License-Identifier: MIT OR Apache-2.0
//! Several devices of one account.

use pli_api::ErrorCode;
use pli_client_core::content::Kind;
use pli_client_core::{Command, CommandError, Event, NewKey};
use pli_domain::{AccountId, ConversationId, DeviceId, UnixMillis};

use crate::world::{World, handle};

/// Alice with a phone (0) and a tablet (2), and Bob (1).
fn two_and_bob() -> (World, usize) {
    let mut world = World::new(&["alice", "bob"]);
    let tablet = world.link(0, "tablet");
    (world, tablet)
}

fn account(world: &World, n: usize) -> AccountId {
    world.address(n).account
}

fn count(world: &World, n: usize, wanted: impl Fn(&Event) -> bool) -> usize {
    world.devices[n].events.iter().filter(|event| wanted(event)).count()
}

/// How many devices the server has in a conversation.
fn size(world: &World, id: ConversationId) -> usize {
    world.server.roster(id).len()
}

/// Everybody in the conversation has the same epoch and secret.
fn assert_one_group(world: &World, id: ConversationId, devices: &[usize]) {
    let of = |n: usize| world.devices[n].core.epoch_authenticator(id);
    let first = of(devices[0]);
    assert!(first.is_some(), "{} is not in the group", world.devices[devices[0]].name);
    for n in devices {
        assert_eq!(of(*n), first, "{}", world.devices[*n].name);
    }
    assert_eq!(size(world, id), devices.len());
}

#[test]
fn every_device_of_both_sides_is_in_a_new_chat_and_hears_everything() {
    let (mut world, tablet) = two_and_bob();
    let laptop = world.link(1, "laptop");
    let id = world.start(0, "bob");
    world.say(0, id, "from the phone");
    world.run();
    assert_one_group(&world, id, &[0, 1, tablet, laptop]);
    world.say(tablet, id, "from the tablet");
    world.say(laptop, id, "from the laptop");
    world.run();
    assert_eq!(world.history(1, id), ["alice: from the phone", "alice: from the tablet", "me: from the laptop"]);
    assert_eq!(world.history(laptop, id), ["alice: from the phone", "alice: from the tablet"]);
    assert_eq!(world.history(0, id), ["me: from the tablet", "bob: from the laptop"]);
    assert_eq!(world.history(tablet, id), ["me: from the phone", "bob: from the laptop"]);
    for n in [0, 1, tablet, laptop] {
        assert_eq!(count(&world, n, |e| matches!(e, Event::ListRefused { .. } | Event::ChangeFailed { .. })), 0);
        assert_eq!(world.devices[n].core.waiting(), (0, 0), "{}", world.devices[n].name);
        let view = world.devices[n].core.conversation(id).unwrap();
        assert_eq!(view.members.len(), 2, "two people, whatever devices they have");
    }
}

#[test]
fn what_was_written_while_away_reaches_devices_that_came_meanwhile() {
    let mut world = World::new(&["alice", "bob"]);
    let chat = world.start(0, "bob");
    world.say(0, chat, "before");
    world.run();
    world.take_offline(1);
    world.say(1, chat, "written before the link");
    let tablet = world.link(0, "tablet");
    world.say(1, chat, "written after it");
    world.bring_online(1);
    world.run();
    assert_eq!(world.history(tablet, chat), ["bob: written before the link", "bob: written after it"]);
    assert_eq!(world.history(0, chat), ["bob: written before the link", "bob: written after it"]);
}

#[test]
fn what_a_device_wrote_before_it_was_removed_reaches_whoever_was_away_all_the_while() {
    for knew in [false, true] {
        let mut world = World::new(&["alice", "bob"]);
        let id = world.start(0, "bob");
        world.say(0, id, "before");
        world.run();
        let away = |world: &mut World| world.take_offline(0);
        if !knew {
            away(&mut world);
        }
        let laptop = world.link(1, "laptop");
        world.run();
        away(&mut world);
        for text in ["one", "two", "three"] {
            world.say(laptop, id, text);
        }
        world.run();
        let device = world.address(laptop).device;
        world.take_offline(laptop);
        world.command(1, Command::RemoveDevice { device });
        world.run();
        world.bring_online(0);
        world.run();
        assert_eq!(world.history(0, id), ["bob: one", "bob: two", "bob: three"], "it had known of it: {knew}");
        assert_eq!(count(&world, 0, |event| matches!(event, Event::Unreadable { .. })), 0);
        world.say(1, id, "after");
        world.run();
        assert_eq!(world.history(0, id).last().unwrap(), "bob: after");
        assert_one_group(&world, id, &[0, 1]);
    }
}

#[test]
fn a_queue_that_stands_still_holds_messages_up_for_seconds_only() {
    let mut world = World::new(&["alice", "bob"]);
    let chat = world.start(0, "bob");
    world.say(0, chat, "before");
    world.run();
    world.take_offline(1);
    world.server.hold.insert(world.address(1));
    world.say(1, chat, "anyway");
    world.bring_online(1);
    let begun = world.now;
    world.run_a_little(8);
    assert_eq!(world.history(0, chat).len(), 0);
    while world.history(0, chat).is_empty() && world.now < begun + 60_000 {
        world.run_on(1);
    }
    assert_eq!(world.history(0, chat), ["bob: anyway"]);
    assert_eq!(world.now, begun + 3_000);
}

#[test]
fn a_new_device_is_brought_into_every_conversation_without_anybody_doing_anything() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let chat = world.start(0, "bob");
    world.say(0, chat, "before");
    let group =
        world.command(2, Command::CreateGroup { name: "team".into(), handles: vec![handle("alice"), handle("bob")] });
    let group = group.conversation.unwrap();
    world.run();
    let tablet = world.link(0, "tablet");
    assert_one_group(&world, chat, &[0, 1, tablet]);
    assert_one_group(&world, group, &[0, 1, 2, tablet]);
    world.say(2, group, "hello all");
    world.say(tablet, chat, "from the tablet");
    world.run();
    assert_eq!(world.history(tablet, group), ["carol: hello all"]);
    assert_eq!(world.history(1, chat), ["alice: before", "alice: from the tablet"]);
    let view = world.devices[tablet].core.conversation(group).unwrap();
    assert_eq!(view.name.as_deref(), Some("team"), "it learns what the group is called");
    let device = world.address(tablet).device;
    for n in [1, 2] {
        let told = count(&world, n, |e| matches!(e, Event::NewKey { what: NewKey::Device(d), .. } if *d == device));
        assert_eq!(told, 1, "{} sees that a device appeared", world.devices[n].name);
        assert_eq!(count(&world, n, |e| matches!(e, Event::MemberAdded { .. })), 0, "nobody came");
    }
    assert_eq!(count(&world, 0, |e| matches!(e, Event::DeviceAdded { device: d } if *d == device)), 1);
}

#[test]
fn a_new_device_writes_into_the_chat_that_was_silent_since_and_takes_no_group_of_two_for_one() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let chat = world.start(0, "bob");
    world.say(0, chat, "before");
    let duo = Command::CreateGroup { name: "duo".into(), handles: vec![handle("carol")] };
    let duo = world.command(0, duo).conversation.unwrap();
    world.run();
    let tablet = world.link(0, "tablet");
    world.run();
    let kind = |world: &World, id| world.devices[tablet].core.conversation(id).unwrap().kind;
    assert_eq!((kind(&world, chat), kind(&world, duo)), (Kind::Direct, Kind::Group));
    assert_eq!(world.start(tablet, "bob"), chat);
    world.say(tablet, chat, "from the tablet");
    let apart = world.start(tablet, "carol");
    assert_ne!(apart, duo, "a group of two with a name is no chat");
    world.say(tablet, apart, "for you");
    world.run();
    assert_eq!(world.history(1, chat), ["alice: before", "alice: from the tablet"]);
    assert_eq!((world.history(2, duo), world.history(2, apart)), (Vec::new(), vec!["alice: for you".to_owned()]));
    for n in [0, 1, 2, tablet] {
        assert_eq!(count(&world, n, |e| matches!(e, Event::SameChat { .. })), 0, "{}", world.devices[n].name);
    }
    assert!(world.devices[0].core.has_greeted(world.address(tablet).device));
}

#[test]
fn a_device_that_connects_long_after_it_was_listed_is_waited_for() {
    let mut world = World::new(&["alice", "bob"]);
    let chat = world.start(0, "bob");
    world.say(0, chat, "before");
    world.run();
    let tablet = world.prepare(0, "tablet");
    world.name_in_list(0, tablet);
    world.run();
    assert_eq!(size(&world, chat), 2, "it has published nothing");
    world.say(1, chat, "meanwhile");
    world.run();
    assert_eq!(count(&world, 0, |e| matches!(e, Event::ChangeFailed { .. })), 0);
    world.bring_online(tablet);
    world.now += 120_000;
    world.run();
    assert_one_group(&world, chat, &[0, 1, tablet]);
}

#[test]
fn a_removed_device_is_out_of_every_group_and_reads_nothing_that_is_sent_after() {
    let (mut world, tablet) = two_and_bob();
    let chat = world.start(0, "bob");
    world.say(0, chat, "before");
    world.run();
    assert_one_group(&world, chat, &[0, 1, tablet]);
    world.unlink(0, tablet);
    world.run();
    assert_eq!(world.devices[tablet].stopped, Some(ErrorCode::DeviceRemoved));
    assert_one_group(&world, chat, &[0, 1]);
    world.say(1, chat, "after");
    world.run();
    assert_eq!(world.history(0, chat), ["bob: after"]);
    assert_eq!(world.history(tablet, chat), ["me: before"]);
    let device = world.address(tablet).device;
    assert_eq!(count(&world, 0, |e| matches!(e, Event::DeviceRemoved { device: d } if *d == device)), 1);
    assert_eq!(count(&world, 1, |e| matches!(e, Event::MemberRemoved { .. })), 0, "nobody went");
    // It comes back neither by itself nor by a restart.
    world.devices[tablet].restart(world.now);
    world.run();
    assert_eq!(world.devices[tablet].stopped, Some(ErrorCode::DeviceRemoved));
}

#[test]
fn other_members_remove_a_device_whose_own_account_is_away() {
    let (mut world, tablet) = two_and_bob();
    let handles = vec![handle("bob")];
    let group = world.command(0, Command::CreateGroup { name: "team".into(), handles }).conversation.unwrap();
    world.join("carol");
    world.run();
    assert_eq!(size(&world, group), 3);
    // The list is changed, and the phone goes away before it commits anything.
    world.unlink(0, tablet);
    world.run_a_little(2);
    world.take_offline(0);
    world.command(1, Command::AddMembers { conversation: group, handles: vec![handle("carol")] });
    world.run();
    assert!(world.server.mismatches > 0, "the server says that the group differs from the lists");
    assert!(!world.server.roster(group).contains(&world.address(tablet)));
    assert_eq!(size(&world, group), 3);
    assert_eq!(count(&world, 1, |e| matches!(e, Event::ChangeFailed { .. })), 0);
    world.bring_online(0);
    world.run();
    assert_one_group(&world, group, &[0, 1, 3]);
}

#[test]
fn whoever_leaves_takes_all_devices_along() {
    let (mut world, tablet) = two_and_bob();
    world.join("carol");
    world.run();
    let handles = vec![handle("bob"), handle("carol")];
    let group = world.command(0, Command::CreateGroup { name: "team".into(), handles }).conversation.unwrap();
    world.run();
    assert_one_group(&world, group, &[0, 1, tablet, 3]);
    world.command(tablet, Command::Leave { conversation: group });
    world.run();
    assert_one_group(&world, group, &[1, 3]);
    for n in [0, tablet] {
        assert!(world.devices[n].core.conversation(group).unwrap().left, "{}", world.devices[n].name);
    }
    assert_eq!(count(&world, 1, |e| matches!(e, Event::MemberRemoved { by: None, .. })), 1);
}

#[test]
fn ten_devices_talk_and_an_eleventh_is_refused() {
    let mut world = World::new(&["alice", "bob"]);
    let linked: Vec<usize> = (0..9).map(|n| world.link(0, &format!("device {n}"))).collect();
    let chat = world.start(1, "alice");
    world.say(1, chat, "hello");
    world.run();
    assert_eq!(size(&world, chat), 11);
    for n in linked.iter().chain(&[0]) {
        assert_eq!(world.history(*n, chat), ["bob: hello"], "{}", world.devices[*n].name);
    }
    world.say(linked[8], chat, "the last one");
    world.run();
    assert_eq!(world.history(1, chat), ["alice: the last one"]);
    let core = &mut world.devices[0].core;
    let add =
        |device, key, name: &str| Command::AddDevice { device: DeviceId::from_bytes(device), key, name: name.into() };
    let refused = core.command(add([9; 16], [9; 32], "eleventh"), UnixMillis(world.now)).unwrap_err();
    assert!(matches!(refused, CommandError::TooManyDevices), "{refused}");
    assert_eq!(core.devices().len(), 10);
}

#[test]
fn bad_changes_of_the_list_are_refused_with_what_to_do() {
    let (mut world, tablet) = two_and_bob();
    let (now, phone, other) = (UnixMillis(world.now), world.address(0).device, world.address(tablet).device);
    let key = world.devices[tablet].core.device_key();
    let add = |device, key, name: &str| Command::AddDevice { device, key, name: name.into() };
    let fresh = DeviceId::from_bytes([9; 16]);
    let long = "x".repeat(65);
    let cases: [(usize, Command, &str); 8] = [
        (tablet, add(fresh, [9; 32], "x"), "first device"),
        (tablet, Command::RemoveDevice { device: phone }, "first device"),
        (0, add(other, [9; 32], "x"), "in the list already"),
        (0, add(fresh, key, "x"), "in the list already"),
        (0, add(fresh, [9; 32], &long), "at most 64 bytes"),
        (0, add(fresh, [9; 32], "a\nb"), "control characters"),
        (0, Command::RemoveDevice { device: fresh }, "no such device"),
        (0, Command::RemoveDevice { device: phone }, "cannot be left out"),
    ];
    for (n, command, says) in cases {
        let refused = world.devices[n].core.command(command.clone(), now).unwrap_err().to_string();
        assert!(refused.contains(says), "{command:?}: {refused}");
    }
}

#[test]
fn a_change_of_the_list_survives_a_restart_and_an_answer_that_was_lost() {
    let mut world = World::new(&["alice", "bob"]);
    let chat = world.start(0, "bob");
    world.say(0, chat, "before");
    world.run();
    let tablet = world.prepare(0, "tablet");
    world.take_offline(0);
    world.name_in_list(0, tablet);
    world.devices[0].restart(world.now);
    assert_eq!(world.devices[0].core.open_changes(), 1);
    world.bring_online(0);
    // The list is put, its answer is lost.
    for _ in 0..40 {
        if world.server.chains[&account(&world, 0)].len() == 2 {
            break;
        }
        world.run_a_little(1);
    }
    assert_eq!(world.server.chains[&account(&world, 0)].len(), 2);
    world.devices[0].restart(world.now);
    world.run();
    assert_eq!(world.devices[0].core.open_changes(), 0);
    assert_eq!(world.server.chains[&account(&world, 0)].len(), 2, "it was put once");
    world.bring_online(tablet);
    world.now += 120_000;
    world.run();
    assert_one_group(&world, chat, &[0, 1, tablet]);
}
