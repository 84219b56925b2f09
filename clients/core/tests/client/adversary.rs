// SPDX-License-Identifier: MIT OR Apache-2.0
//! A server that lies. Each time the honest client notices, or is not harmed; docs/threat-model.md has the table.

use bytes::Bytes;
use pli_api::directory::{DeviceListEntry, SignedDeviceList};
use pli_client_core::identity::{Identity, ListChange};
use pli_client_core::{Command, Event, NewKey, RefusedList, Table};
use pli_domain::{ConversationId, DeviceId};

use crate::world::{World, handle};

/// The keys of a device, as its profile has them.
fn identity(world: &World, n: usize) -> Identity {
    Identity::decode(&world.devices[n].rows[&(Table::Identity, Vec::new())]).unwrap()
}

/// The chain of a device's account, as the server has it.
fn chain(world: &World, n: usize) -> Vec<SignedDeviceList> {
    world.server.chains[&world.address(n).account].clone()
}

fn lie(world: &mut World, about: usize, newest: SignedDeviceList, between: Vec<SignedDeviceList>) {
    let account = world.address(about).account;
    world.server.lies.insert(account, (newest, between));
}

fn refused(world: &World, n: usize) -> Vec<RefusedList> {
    let events = world.devices[n].events.iter();
    events.filter_map(|e| if let Event::ListRefused { why, .. } = e { Some(*why) } else { None }).collect()
}

fn count(world: &World, n: usize, wanted: impl Fn(&Event) -> bool) -> usize {
    world.devices[n].events.iter().filter(|event| wanted(event)).count()
}

/// A device that nobody has.
fn entry(n: u8) -> ListChange {
    let key = ed25519_dalek::SigningKey::from_bytes(&[n; 32]).verifying_key().to_bytes();
    let device = Bytes::copy_from_slice(DeviceId::from_bytes([n; 16]).as_bytes());
    ListChange::Add(DeviceListEntry { device, key: Bytes::copy_from_slice(&key), name: "spy".into() })
}

/// Alice (0) with a tablet (2), and Bob (1), who knows both of her devices from a chat.
fn known_devices() -> (World, ConversationId) {
    let mut world = World::new(&["alice", "bob"]);
    let tablet = world.link(0, "tablet");
    assert_eq!(tablet, 2);
    let chat = world.start(1, "alice");
    world.say(1, chat, "hello");
    world.run();
    assert_eq!(world.server.roster(chat).len(), 3);
    (world, chat)
}

/// Another device of Alice comes into the chat, for which Bob has to ask for her list; answers it.
fn make_bob_ask(world: &mut World) -> usize {
    let lies = std::mem::take(&mut world.server.lies);
    let laptop = world.prepare(0, "laptop");
    world.take_offline(1);
    world.name_in_list(0, laptop);
    world.run();
    world.bring_online(laptop);
    world.now += 120_000;
    world.run();
    world.server.lies = lies;
    world.bring_online(1);
    world.run();
    laptop
}

/// Bob goes on with what he knew: nothing is said into the group with the leaf that nothing vouches for.
fn assert_bob_waits(world: &mut World, chat: ConversationId) {
    world.say(1, chat, "a secret");
    world.run();
    assert_eq!(world.history(0, chat), ["bob: hello"], "nothing is sealed for a device that no list vouches for");
    assert!(count(world, 1, |e| matches!(e, Event::Waiting { .. })) > 0, "and the user is told");
}

#[test]
fn an_old_list_is_refused_and_shown() {
    let (mut world, chat) = known_devices();
    let old = chain(&world, 0)[0].clone();
    lie(&mut world, 0, old, Vec::new());
    make_bob_ask(&mut world);
    assert_eq!(refused(&world, 1), [RefusedList::Older]);
    assert_bob_waits(&mut world, chat);
    // When the server tells the truth, everything goes on.
    world.server.lies.clear();
    world.take_offline(1);
    world.bring_online(1);
    world.run();
    assert_eq!(world.history(0, chat), ["bob: hello", "bob: a secret"]);
    assert_eq!(refused(&world, 1), [RefusedList::Older], "it is told once");
}

#[test]
fn a_list_that_another_key_signed_is_refused_and_shown() {
    let (mut world, chat) = known_devices();
    // It names Alice's identity key; Mallory's signed it.
    let newest = chain(&world, 0)[1].clone();
    let mut forged = identity(&world, 0).next_list(&newest, &entry(9)).unwrap();
    forged.signature = identity(&world, 1).device_list().unwrap().signature;
    lie(&mut world, 0, forged, Vec::new());
    make_bob_ask(&mut world);
    assert_eq!(refused(&world, 1), [RefusedList::Invalid]);
    assert_bob_waits(&mut world, chat);
}

#[test]
fn a_list_of_another_identity_is_shown_as_a_new_key_and_never_taken_for_ones_own() {
    let (mut world, _) = known_devices();
    let other = world.join("mallory");
    world.run();
    let theirs = identity(&world, other).device_list().unwrap();
    // Of another account: it says so itself.
    lie(&mut world, 0, theirs, Vec::new());
    make_bob_ask(&mut world);
    assert_eq!(refused(&world, 1), [RefusedList::Invalid]);
    assert_eq!(count(&world, 1, |e| matches!(e, Event::NewKey { what: NewKey::Identity, .. })), 0);
    // Alice's own devices ask for their list when they connect.
    world.take_offline(2);
    world.bring_online(2);
    world.run();
    assert_eq!(refused(&world, 2), [RefusedList::Invalid]);
}

#[test]
fn a_device_that_the_server_adds_gets_into_no_group() {
    let (mut world, chat) = known_devices();
    let newest = chain(&world, 0)[1].clone();
    let mut forged = identity(&world, 0).next_list(&newest, &entry(9)).unwrap();
    // The server has no identity key: it can only break the signature.
    let mut signature = forged.signature.to_vec();
    signature[0] ^= 1;
    forged.signature = signature.into();
    lie(&mut world, 0, forged, Vec::new());
    for n in [0, 2] {
        world.take_offline(n);
        world.bring_online(n);
    }
    world.run();
    for n in [0, 2] {
        assert_eq!(refused(&world, n), [RefusedList::Invalid], "{}", world.devices[n].name);
        assert_eq!(world.devices[n].core.devices().len(), 2);
    }
    assert_eq!(world.server.roster(chat).len(), 3);
}

#[test]
fn a_chain_that_was_made_from_another_list_is_refused_and_shown() {
    let (mut world, chat) = known_devices();
    // Two lists of version 2 were signed; Bob saw one, and the chain goes on from the other.
    let (alice, first) = (identity(&world, 0), chain(&world, 0)[0].clone());
    let other = alice.next_list(&first, &entry(9)).unwrap();
    let third = alice.next_list(&other, &entry(10)).unwrap();
    lie(&mut world, 0, third, Vec::new());
    make_bob_ask(&mut world);
    assert_eq!(refused(&world, 1), [RefusedList::Forked]);
    assert_bob_waits(&mut world, chat);
    // So is another list of the version that he knows.
    lie(&mut world, 0, other, Vec::new());
    world.take_offline(1);
    world.bring_online(1);
    world.run();
    assert_eq!(refused(&world, 1), [RefusedList::Forked]);
}

#[test]
fn a_chain_with_a_hole_is_refused_and_shown() {
    let (mut world, chat) = known_devices();
    let alice = identity(&world, 0);
    let mut lists = chain(&world, 0);
    for n in 9..12 {
        let next = alice.next_list(&lists[lists.len() - 1], &entry(n)).unwrap();
        lists.push(next);
    }
    // Version 5 to somebody who knows version 2, and nothing that lies between.
    lie(&mut world, 0, lists[4].clone(), Vec::new());
    make_bob_ask(&mut world);
    assert_eq!(refused(&world, 1), [RefusedList::Unlinked]);
    assert_bob_waits(&mut world, chat);
}

#[test]
fn a_removal_that_the_server_hides_leaves_the_removed_device_without_anything_that_is_said_after() {
    let (mut world, chat) = known_devices();
    world.server.spares_removed = true;
    // The tablet hears nothing of its removal, and the server goes on to serve it.
    let tablet = world.address(2);
    world.server.hold.insert(tablet);
    world.unlink(0, 2);
    world.run();
    world.server.lose_queue(tablet);
    world.server.smuggle(chat, tablet);
    world.say(2, chat, "from the removed one");
    world.run();
    world.say(0, chat, "after the removal");
    world.say(1, chat, "from bob");
    world.run();
    assert_eq!(world.history(1, chat), ["alice: after the removal"], "the removed device is not heard any more");
    assert_eq!(world.history(0, chat), ["bob: hello", "bob: from bob"]);
    world.server.hold.clear();
    world.run();
    assert_eq!(world.history(2, chat), ["bob: hello"], "and reads nothing of what is said");
    assert!(count(&world, 1, |e| matches!(e, Event::Unreadable { .. })) > 0);
}

#[test]
fn a_device_that_was_removed_is_not_brought_in_again_whatever_the_server_says() {
    let (mut world, _) = known_devices();
    let dave = world.join("dave");
    world.run();
    let handles = vec![handle("alice")];
    let group = world.command(1, Command::CreateGroup { name: "team".into(), handles }).conversation.unwrap();
    world.run();
    let (tablet, old) = (world.address(2), chain(&world, 0));
    let package = world.server.package_of(tablet);
    world.unlink(0, 2);
    world.run();
    assert!(!world.server.roster(group).contains(&tablet));
    // The list before the removal is given, a package of the device, and every commit without it is refused.
    lie(&mut world, 0, old[1].clone(), Vec::new());
    world.server.swapped.insert(tablet, package);
    world.server.demanded = Some(tablet);
    world.command(1, Command::AddMembers { conversation: group, handles: vec![handle("dave")] });
    world.run();
    assert!(!world.server.roster(group).contains(&tablet));
    assert!(world.server.mismatches > 1);
    assert!(count(&world, 1, |e| matches!(e, Event::ChangeFailed { .. })) > 0, "the user is told");
    assert!(world.devices[dave].core.conversations().is_empty());
}

#[test]
fn a_key_package_of_somebody_else_brings_nobody_in() {
    let mut world = World::new(&["alice", "bob", "mallory"]);
    let stolen = world.server.package_of(world.address(2));
    let bob = world.address(1);
    world.server.swapped.insert(bob, stolen);
    let chat = world.start(0, "bob");
    world.say(0, chat, "a secret");
    world.run();
    assert!(count(&world, 0, |e| matches!(e, Event::ConversationFailed { .. })) > 0, "the user is told");
    assert!(world.devices[2].core.conversations().is_empty());
    assert!(world.server.waiting(world.address(2)) == 0);
}

#[test]
fn a_group_that_the_server_forks_is_noticed_by_whoever_cannot_read_the_other_side() {
    let mut world = World::new(&["alice", "bob", "carol", "dave", "erin"]);
    let handles = vec![handle("bob"), handle("carol")];
    let group = world.command(0, Command::CreateGroup { name: "team".into(), handles }).conversation.unwrap();
    world.run();
    let before = world.server.clone();
    // Alice is shown one next epoch …
    (1..5).for_each(|n| world.take_offline(n));
    world.command(0, Command::AddMembers { conversation: group, handles: vec![handle("dave")] });
    world.run();
    world.take_offline(0);
    let hers = std::mem::replace(&mut world.server, before);
    // … and Bob and Carol another one.
    [1, 2].into_iter().for_each(|n| world.bring_online(n));
    world.command(2, Command::AddMembers { conversation: group, handles: vec![handle("erin")] });
    world.run();
    let secret = |world: &World, n: usize| world.devices[n].core.epoch_authenticator(group);
    assert_eq!(secret(&world, 1), secret(&world, 2));
    assert_ne!(secret(&world, 0), secret(&world, 1), "no two branches share a secret");
    world.server = hers;
    world.server.skip_positions(1_000);
    world.server.smuggle(group, world.address(1));
    [0, 1].into_iter().for_each(|n| world.bring_online(n));
    world.say(0, group, "into one branch");
    world.run();
    assert!(world.history(1, group).iter().all(|line| !line.contains("into one branch")));
    let noticed = |e: &Event| matches!(e, Event::Unreadable { .. } | Event::Rejoining { .. });
    assert!(count(&world, 1, noticed) > 0, "{:?}", world.devices[1].events);
}

#[test]
fn what_is_replayed_is_shown_once_and_what_is_reordered_in_the_order_written() {
    let (mut world, chat) = known_devices();
    world.take_offline(1);
    for n in 1..=4 {
        world.say(0, chat, &format!("phone {n}"));
        world.say(2, chat, &format!("tablet {n}"));
        world.run();
    }
    let bob = world.address(1);
    world.server.replay(bob);
    world.server.reverse(bob);
    world.bring_online(1);
    world.run();
    world.now += 20_000;
    world.run();
    let history = world.history(1, chat);
    for device in ["phone", "tablet"] {
        let shown: Vec<&String> = history.iter().filter(|line| line.contains(device)).collect();
        assert_eq!(
            shown,
            (1..=4).map(|n| format!("alice: {device} {n}")).collect::<Vec<_>>().iter().collect::<Vec<_>>()
        );
    }
    // The sender's other device is no exception.
    assert_eq!(world.history(0, chat).iter().filter(|line| line.starts_with("me: tablet")).count(), 4);
}
