// SPDX-License-Identifier: MIT OR Apache-2.0
//! A server that lies. Each time the honest client notices, or is not harmed; docs/threat-model.md has the table.

use bytes::Bytes;
use pli_api::directory::{DeviceListEntry, SignedDeviceList};
use pli_api::{common, edge, log};
use pli_client_core::identity::{Identity, ListChange};
use pli_client_core::mls::Mls;
use pli_client_core::{Command, Event, NewKey, RefusedList, SessionAdvice, Table};
use pli_domain::{ConversationId, DeviceAddress, DeviceId, UnixMillis};
use prost::Message as _;

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
fn a_server_that_hides_the_last_list_alone_is_shown() {
    let (mut world, _) = known_devices();
    world.join("dave");
    world.run();
    let handles = vec![handle("alice")];
    let group = world.command(1, Command::CreateGroup { name: "team".into(), handles }).conversation.unwrap();
    world.run();
    [0, 2].into_iter().for_each(|n| world.take_offline(n));
    let alice = world.address(0);
    world.server.lose_newest_list(alice.account);
    // A commit is refused with her name, so that Bob asks.
    world.server.demanded = Some(DeviceAddress { device: DeviceId::from_bytes([9; 16]), ..alice });
    world.command(1, Command::AddMembers { conversation: group, handles: vec![handle("dave")] });
    world.run();
    assert_eq!(refused(&world, 1), [RefusedList::Older]);
}

#[test]
fn a_chain_that_leads_nowhere_is_refused_and_not_asked_for_without_end() {
    let (mut world, chat) = known_devices();
    let alice = identity(&world, 0);
    let mut lists = chain(&world, 0);
    for n in 9..14 {
        let next = alice.next_list(&lists[lists.len() - 1], &entry(n)).unwrap();
        lists.push(next);
    }
    lie(&mut world, 0, lists[6].clone(), vec![lists[0].clone()]);
    make_bob_ask(&mut world);
    assert_eq!(refused(&world, 1), [RefusedList::Unlinked]);
    assert_bob_waits(&mut world, chat);
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
}

#[test]
fn another_list_of_the_version_that_is_known_is_refused_and_shown() {
    let (mut world, chat) = known_devices();
    let other = identity(&world, 0).next_list(&chain(&world, 0)[0], &entry(9)).unwrap();
    lie(&mut world, 0, other, Vec::new());
    make_bob_ask(&mut world);
    assert_eq!(refused(&world, 1), [RefusedList::Forked]);
    assert_bob_waits(&mut world, chat);
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
    // What it seals in an epoch that it was in could have been accepted before its removal: only the server knows.
    assert_eq!(world.history(1, chat), ["alice: from the removed one", "alice: after the removal"]);
    assert_eq!(world.history(0, chat), ["bob: hello", "me: from the removed one", "bob: from bob"]);
    world.server.hold.clear();
    world.run();
    assert_eq!(world.history(2, chat), ["bob: hello"], "it reads nothing of what is said");
}

/// Nobody but the server knows that the chat was made after the removal.
#[test]
fn a_removed_device_that_the_server_serves_on_is_told_of_and_taken_out_by_who_meets_it_first() {
    let mut world = World::new(&["alice", "bob"]);
    let tablet = world.link(0, "tablet");
    world.run();
    world.server.spares_removed = true;
    let stolen = world.address(tablet);
    world.server.hold.insert(stolen);
    world.unlink(0, tablet);
    world.run();
    let chat = world.start(tablet, "bob");
    world.say(tablet, chat, "it is me");
    world.run();
    let told = |event: &Event| matches!(event, Event::Waiting { why, .. } if why.message.contains("nobody's signed"));
    assert_eq!(count(&world, 1, told), 1);
    world.say(1, chat, "really?");
    world.run();
    world.server.hold.clear();
    world.run();
    assert_eq!(world.history(tablet, chat), Vec::<String>::new(), "nothing is sealed to it");
    assert!(!world.server.roster(chat).contains(&stolen));
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

/// Somebody who works together with the server has a group of the id of Alice's chat with Bob, with a key of its own in a leaf
/// that says it is `named`; Alice is said to have lost the thread of hers.
fn exchange_the_group(named: usize) {
    let mut world = World::new(&["alice", "bob", "dave"]);
    let chat = world.start(0, "bob");
    world.say(0, chat, "hello");
    world.run();
    let (named, key) = (world.address(named), ed25519_dalek::SigningKey::from_bytes(&[4; 32]));
    world.server.exchanged = Some(Mls::new(named, &key, [9; 32]).create(chat).unwrap().into());
    world.take_offline(0);
    world.say(1, chat, "lost");
    world.link(1, "tablet");
    let alice = world.address(0);
    let to = world.server.lose_queue(alice);
    world.server.gaps.insert(alice, to);
    world.server.commits_gone = true;
    world.bring_online(0);
    wait(&mut world, 10);
    let members = |world: &World| world.devices[0].core.conversation(chat).unwrap().members.len();
    assert_eq!((count(&world, 0, |event| matches!(event, Event::Rejoining { .. })), members(&world)), (1, 2));
    world.say(0, chat, "a secret");
    wait(&mut world, 10);
    assert_eq!(world.history(1, chat), ["alice: hello"], "it waits");
    // What the real group answers is taken.
    world.server.exchanged = None;
    wait(&mut world, 90);
    assert_eq!(world.history(1, chat), ["alice: hello", "alice: a secret"]);
}

#[test]
fn a_strangers_group_under_the_id_of_a_chat_is_not_joined_in_its_place() {
    for named in 0..3 {
        exchange_the_group(named);
    }
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

/// An envelope that waits for its body, which is asked for.
fn pointing(position: u64) -> edge::ServerFrame {
    let id = |byte: u8| Bytes::from(vec![byte; 16]);
    let reference = common::PayloadRef { id: id(9), size: 50_000, sha256: vec![9; 32].into() };
    let envelope = log::Envelope {
        sender: Some(common::DeviceAddress { account: id(7), device: id(8) }),
        send_id: id(6),
        conversation: id(5),
        class: log::Class::Message.into(),
        content: log::Content::Commit.into(),
        body_or_ref: Some(log::envelope::BodyOrRef::BodyRef(reference)),
        ..log::Envelope::default()
    };
    let deliver = edge::Deliver { position, envelope: envelope.encode_to_vec().into(), ..edge::Deliver::default() };
    edge::ServerFrame { frame: Some(edge::server_frame::Frame::Deliver(deliver)) }
}

/// The first of so many frames after which Alice leaves the session; `behind` come behind one that waits for an answer.
fn left_after(most: u64, behind: impl Fn(u64) -> edge::ServerFrame) -> Option<u64> {
    let mut world = World::new(&["alice"]);
    let (now, core) = (UnixMillis(world.now), &mut world.devices[0].core);
    let first = core.frame(pointing(1 << 20), now);
    assert!(!first.frames.is_empty(), "she asks for the body");
    (1..most).find(|n| core.frame(behind((1 << 20) + n), now).session != SessionAdvice::Keep)
}

#[test]
fn a_server_that_does_not_keep_to_its_window_is_left() {
    let large = |position| {
        let deliver = edge::Deliver { position, envelope: vec![1; 70_000].into(), ..edge::Deliver::default() };
        edge::ServerFrame { frame: Some(edge::server_frame::Frame::Deliver(deliver)) }
    };
    let left = left_after(2_000, large).unwrap();
    assert!((480..=544).contains(&left), "at 32 MiB: {left}");
    let caught_up = |position| {
        let frame = edge::server_frame::Frame::CaughtUp(edge::CaughtUp { position });
        edge::ServerFrame { frame: Some(frame) }
    };
    assert_eq!(left_after(20_000, caught_up), Some(8_191));
    assert_eq!(left_after(8_000, pointing), None, "far above every window");
}

/// A device that keeps no rules removes others of its account from a conversation, with the keys that its profile has.
fn evict(world: &mut World, by: usize, chat: ConversationId, others: &[usize]) {
    let mut mls = Mls::of(&identity(world, by), [77; 32]);
    let rows = world.devices[by].rows.iter().filter(|((table, _), _)| *table == Table::Mls);
    mls.load(rows.map(|((_, key), value)| (key.clone(), value.clone()))).unwrap();
    let gone: Vec<DeviceAddress> = others.iter().map(|n| world.address(*n)).collect();
    let commit = mls.commit(chat, &[], &gone).unwrap();
    world.server.commit_of(world.address(by), chat, commit);
    assert!(!gone.iter().any(|device| world.server.roster(chat).contains(device)));
}

fn wait(world: &mut World, minutes: u64) {
    for _ in 0..minutes {
        world.now += 60_000;
        world.run();
    }
}

fn assert_all_in(world: &World, chat: ConversationId, devices: &[usize]) {
    let inside = devices.iter().map(|n| world.address(*n)).collect();
    assert_eq!(world.server.roster(chat), inside);
    let of = |n: usize| world.devices[n].core.epoch_authenticator(chat);
    for n in devices {
        assert_eq!(of(*n), of(devices[0]), "{}", world.devices[*n].name);
    }
}

/// Alice (0) with a tablet (2) and a laptop (3), which is stolen, and Bob (1), in one chat.
fn stolen_laptop() -> (World, ConversationId) {
    let (mut world, chat) = known_devices();
    assert_eq!(world.link(0, "laptop"), 3);
    world.say(0, chat, "from the phone");
    world.run();
    assert_all_in(&world, chat, &[0, 1, 2, 3]);
    // Whoever has it runs another program.
    world.take_offline(3);
    (world, chat)
}

#[test]
fn a_stolen_companion_that_removes_the_first_device_removes_it_for_moments_only() {
    for others in [&[0][..], &[2], &[0, 2]] {
        let (mut world, chat) = stolen_laptop();
        evict(&mut world, 3, chat, others);
        world.run();
        wait(&mut world, 3);
        assert_eq!(world.server.roster(chat).len(), 4, "all are back, and it is still there");
        world.unlink(0, 3);
        world.run();
        wait(&mut world, 3);
        assert_all_in(&world, chat, &[0, 1, 2]);
        // Also in conversations to come.
        let handles = vec![handle("alice")];
        let group = world.command(1, Command::CreateGroup { name: "team".into(), handles }).conversation.unwrap();
        world.run();
        assert_all_in(&world, group, &[0, 1, 2]);
        for (n, text) in [(0, "phone"), (1, "bob"), (2, "tablet")] {
            world.say(n, chat, text);
        }
        world.run();
        assert_eq!(world.history(1, chat)[world.history(1, chat).len() - 2..], ["alice: phone", "alice: tablet"]);
        assert!(world.history(2, chat).ends_with(&["me: phone".to_owned(), "bob: bob".to_owned()]), "{others:?}");
    }
}

#[test]
fn a_first_device_that_was_away_while_a_stolen_companion_removed_it_comes_back_by_itself() {
    let (mut world, chat) = stolen_laptop();
    world.take_offline(0);
    evict(&mut world, 3, chat, &[0]);
    world.run();
    wait(&mut world, 3);
    assert!(!world.server.roster(chat).contains(&world.address(0)), "the mark stands while nobody signs against it");
    world.bring_online(0);
    world.run();
    world.unlink(0, 3);
    world.run();
    wait(&mut world, 3);
    assert_all_in(&world, chat, &[0, 1, 2]);
}

#[test]
fn a_list_change_that_races_a_stolen_companion_ends_right() {
    let (mut world, chat) = stolen_laptop();
    // The laptop is removed before the first device has heard that it was put out by it, and the answer is late.
    world.server.hold_puts = true;
    evict(&mut world, 3, chat, &[0, 2]);
    world.unlink(0, 3);
    world.run_a_little(20);
    world.server.hold_puts = false;
    world.run();
    wait(&mut world, 3);
    assert_all_in(&world, chat, &[0, 1, 2]);
}

#[test]
fn what_was_accepted_before_a_removal_is_shown_when_it_comes_after_it() {
    let (mut world, chat) = known_devices();
    let tablet = world.address(2);
    world.take_offline(1);
    world.server.hold_messages.insert(tablet);
    world.say(2, chat, "accepted before");
    world.run_a_little(4);
    world.unlink(0, 2);
    world.run();
    assert!(!world.server.roster(chat).contains(&tablet));
    let now = UnixMillis(world.now);
    assert_eq!(world.server.release_messages(now.0), 1);
    world.bring_online(1);
    world.run();
    assert_eq!(world.history(1, chat), ["alice: accepted before"]);
    assert_eq!(world.history(0, chat), ["bob: hello", "me: accepted before"]);
}

#[test]
fn a_first_message_of_a_device_that_was_removed_since_is_shown() {
    let mut world = World::new(&["alice", "bob"]);
    world.take_offline(1);
    let tablet = world.link(0, "tablet");
    let chat = world.start(tablet, "bob");
    world.say(tablet, chat, "accepted before");
    world.run();
    world.unlink(0, tablet);
    world.run();
    assert!(!world.server.roster(chat).contains(&world.address(tablet)));
    world.bring_online(1);
    world.run();
    assert_eq!(world.history(1, chat), ["alice: accepted before"]);
    assert_eq!(count(&world, 1, |event| matches!(event, Event::Unreadable { .. })), 0);
    assert_eq!(
        count(&world, 1, |event| matches!(event, Event::Waiting { .. })),
        0,
        "the lists before were on their way"
    );
    assert_eq!(refused(&world, 1), []);
}

#[test]
fn a_first_message_of_a_device_that_was_removed_since_is_shown_to_who_was_closed_or_asleep_after_the_news() {
    for is_closed in [false, true] {
        let mut world = World::new(&["alice", "bob"]);
        let bob = world.address(1);
        let tablet = world.link(0, "tablet");
        world.server.hold.insert(bob);
        let chat = world.start(tablet, "bob");
        world.say(tablet, chat, "accepted before");
        world.run();
        world.unlink(0, tablet);
        world.run();
        // He meets Alice in another way, and is gone for a day.
        world.command(1, Command::CreateGroup { name: "news".into(), handles: vec![handle("alice")] });
        world.run();
        world.take_offline(1);
        world.now += 86_400_000;
        let now = world.now;
        if is_closed {
            world.devices[1].restart(now);
        }
        world.server.hold.clear();
        world.bring_online(1);
        world.run();
        assert_eq!(world.history(1, chat), ["alice: accepted before"], "closed: {is_closed}");
    }
}

#[test]
fn a_first_message_of_a_device_is_shown_however_its_list_changed_lately_and_told_of_where_that_was_too_often() {
    for (changes, is_shown) in [(7, true), (9, false)] {
        let mut world = World::new(&["alice", "bob"]);
        world.take_offline(1);
        let tablet = world.link(0, "tablet");
        let chat = world.start(tablet, "bob");
        world.say(tablet, chat, "accepted before");
        world.run();
        world.unlink(0, tablet);
        let device = world.address(0).device;
        for n in 0..changes {
            world.command(0, Command::RenameDevice { device, name: format!("name {n}") });
            world.run();
        }
        world.bring_online(1);
        world.run();
        let shown = world.history(1, chat);
        let unreadable = count(&world, 1, |event| matches!(event, Event::Unreadable { .. }));
        match is_shown {
            true => assert_eq!((shown, unreadable), (vec!["alice: accepted before".to_owned()], 0)),
            false => assert_eq!((shown, unreadable), (Vec::new(), 1)),
        }
    }
}

/// As over a slow link: the device is online all the time, and hears of the removal before what was accepted.
#[test]
fn what_was_accepted_before_a_removal_is_shown_to_who_is_online_and_slow() {
    let (mut world, chat) = known_devices();
    let (bob, tablet) = (world.address(1), world.address(2));
    world.server.hold.insert(bob);
    for n in 0..40 {
        world.say(2, chat, &format!("accepted before {n}"));
    }
    world.run();
    world.unlink(0, 2);
    world.run();
    assert!(!world.server.roster(chat).contains(&tablet));
    // In the meantime Bob follows Alice's list, for a group.
    let news = world.command(1, Command::CreateGroup { name: "news".into(), handles: vec![handle("alice")] });
    world.run();
    assert!(!world.server.roster(news.conversation.unwrap()).contains(&tablet), "Bob knows the list without it");
    world.server.hold.clear();
    world.run();
    let shown: Vec<String> = (0..40).map(|n| format!("alice: accepted before {n}")).collect();
    assert_eq!(world.history(1, chat), shown);
    assert_eq!(count(&world, 1, |event| matches!(event, Event::Unreadable { .. })), 0);
}

#[test]
fn a_first_message_of_a_device_that_was_removed_since_is_shown_to_who_is_online() {
    let mut world = World::new(&["alice", "bob"]);
    let bob = world.address(1);
    let tablet = world.link(0, "tablet");
    world.server.hold.insert(bob);
    let chat = world.start(tablet, "bob");
    world.say(tablet, chat, "accepted before");
    world.run();
    world.unlink(0, tablet);
    world.run();
    world.server.hold.clear();
    world.run();
    assert_eq!(world.history(1, chat), ["alice: accepted before"]);
    assert_eq!(
        count(&world, 1, |event| matches!(event, Event::Waiting { .. })),
        0,
        "the lists before were on their way"
    );
}
