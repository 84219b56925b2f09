// SPDX-License-Identifier: MIT OR Apache-2.0
//! The account's own list on its way to a directory that dies, forgets and lies; and groups that it overtakes.

use bytes::Bytes;
use pli_api::directory::DeviceListEntry;
use pli_client_core::identity::{Identity, ListChange};
use pli_client_core::{Command, Event, RefusedList, Table};
use pli_domain::ConversationId;

use crate::world::{World, handle};

fn count(world: &World, n: usize, wanted: impl Fn(&Event) -> bool) -> usize {
    world.devices[n].events.iter().filter(|event| wanted(event)).count()
}

fn versions(world: &World, n: usize) -> usize {
    world.server.chains[&world.address(n).account].len()
}

fn wait(world: &mut World, minutes: u64) {
    for _ in 0..minutes {
        world.now += 60_000;
        world.run();
    }
}

/// Alice (0) with a tablet (2) and a laptop (3), and Bob (1), in one chat.
fn three_and_bob() -> (World, ConversationId) {
    let mut world = World::new(&["alice", "bob"]);
    assert_eq!((world.link(0, "tablet"), world.link(0, "laptop")), (2, 3));
    let chat = world.start(0, "bob");
    world.say(0, chat, "hello");
    world.run();
    assert_eq!(world.server.roster(chat).len(), 4);
    (world, chat)
}

#[test]
fn the_answer_to_one_list_confirms_no_other_change() {
    let (mut world, chat) = three_and_bob();
    world.server.hold_puts = true;
    world.unlink(0, 2);
    world.unlink(0, 3);
    world.run_a_little(8);
    assert_eq!(versions(&world, 0), 4, "the first of them is taken, its answer is under way");
    // The laptop hears of it and commits; so the phone asks for its own list while its answer is still under way.
    world.drop_and_return(3);
    world.run();
    assert!(!world.server.roster(chat).contains(&world.address(2)));
    world.server.hold_puts = false;
    let shown = |e: &Event| matches!(e, Event::DeviceRemoved { .. });
    for _ in 0..200 {
        if count(&world, 0, shown) == 2 {
            break;
        }
        world.run_a_little(1);
    }
    assert_eq!(versions(&world, 0), 5, "the second is sent too");
    assert_eq!(world.server.listed(world.address(0).account).len(), 1);
    assert_eq!(count(&world, 0, shown), 2);
    world.run();
    assert_eq!(world.server.roster(chat).len(), 2);
}

#[test]
fn a_removal_that_a_dying_server_did_not_carry_out_is_carried_out_when_it_is_back() {
    let (mut world, chat) = three_and_bob();
    let tablet = world.address(2);
    world.take_offline(2);
    world.server.half_puts = 1;
    world.unlink(0, 2);
    world.run_a_little(8);
    assert_eq!(versions(&world, 0), 4);
    assert!(world.server.serves(tablet), "the list is taken, and nothing else was done");
    world.devices[0].restart(world.now);
    world.run();
    assert!(!world.server.serves(tablet));
    assert_eq!(versions(&world, 0), 4, "it was the same list");
    assert_eq!(count(&world, 0, |e| matches!(e, Event::DeviceRemoved { .. })), 1);
    assert_eq!(world.devices[0].core.open_changes(), 0);
    assert!(!world.server.roster(chat).contains(&tablet));
}

#[test]
fn a_restore_that_lost_several_own_lists_gets_them_again_and_the_devices_that_they_name_go_on() {
    let mut world = World::new(&["alice", "bob"]);
    let chat = world.start(0, "bob");
    world.say(0, chat, "hello");
    world.run();
    let backup = world.server.restored(1);
    let linked = ["tablet", "laptop", "desk"].map(|name| world.link(0, name));
    assert_eq!((versions(&world, 0), world.server.roster(chat).len()), (4, 5));
    world.devices[0].restart(world.now);
    world.run();
    world.server = backup;
    for n in (0..world.devices.len()).rev() {
        world.drop_and_return(n);
    }
    world.run();
    wait(&mut world, 5);
    assert_eq!(versions(&world, 0), 4);
    assert_eq!(world.server.listed(world.address(0).account).len(), 4);
    world.say(1, chat, "after");
    world.run();
    for n in linked {
        assert!(world.history(n, chat).contains(&"bob: after".to_owned()), "{}", world.devices[n].name);
    }
}

#[test]
fn a_directory_with_another_list_of_the_same_version_is_shown_and_changes_of_it_fail() {
    let (mut world, _) = three_and_bob();
    let phone = world.devices[0].rows[&(Table::Identity, Vec::new())].clone();
    let chain = world.server.chains[&world.address(0).account].clone();
    let (device, key) = (Bytes::from_static(&[9; 16]), Bytes::from_static(&[9; 32]));
    let pad = ListChange::Add(DeviceListEntry { device, key, name: "pad".into() });
    // It names a pad, where the one that all know names the laptop.
    let other = Identity::decode(&phone).unwrap().next_list(&chain[1], &pad).unwrap();
    world.server.spares_removed = true;
    world.server.fork(world.address(0).account, other);
    for n in [0, 2] {
        world.drop_and_return(n);
    }
    world.run();
    for n in [0, 2] {
        let forked = |e: &Event| matches!(e, Event::ListRefused { why: RefusedList::Forked, .. });
        assert_eq!(count(&world, n, forked), 1, "{}", world.devices[n].name);
        assert_eq!(world.devices[n].core.devices().len(), 3, "what was known stands");
    }
    world.unlink(0, 2);
    world.run();
    assert_eq!(count(&world, 0, |e| matches!(e, Event::DeviceChangeFailed { .. })), 1, "it is not tried for ever");
    assert_eq!(world.devices[0].core.open_changes(), 0);
}

#[test]
fn a_device_that_was_removed_while_a_commit_brought_it_in_is_removed_from_that_group_too() {
    let mut world = World::new(&["alice", "bob"]);
    assert_eq!((world.link(0, "tablet"), world.link(0, "laptop")), (2, 3));
    let (phone, tablet) = (world.address(0), world.address(2));
    world.take_offline(2);
    world.take_offline(3);
    // The commit was judged by the list before; when that changes, the phone is in no group that it could bring in line.
    world.server.hold.insert(phone);
    let handles = vec![handle("alice")];
    let group = world.command(1, Command::CreateGroup { name: "team".into(), handles }).conversation.unwrap();
    world.run();
    assert!(world.server.roster(group).contains(&tablet));
    world.unlink(0, 2);
    world.run();
    assert_eq!(versions(&world, 0), 4);
    world.server.hold.clear();
    world.run();
    wait(&mut world, 1);
    assert!(!world.server.roster(group).contains(&tablet));
    assert_eq!(world.server.roster(group).len(), 3);
}

#[test]
fn whoever_joins_a_group_with_a_device_that_no_list_names_brings_it_in_line() {
    let (mut world, _) = three_and_bob();
    world.join("carol");
    world.run();
    let handles = vec![handle("bob")];
    let group = world.command(0, Command::CreateGroup { name: "team".into(), handles }).conversation.unwrap();
    world.run();
    let tablet = world.address(2);
    // Nobody of the account and no old member can commit: the list is changed while the group stands still.
    world.server.spares_removed = true;
    world.take_offline(3);
    world.server.hold.insert(world.address(1));
    world.take_offline(2);
    world.server.refuse_commits = true;
    world.unlink(0, 2);
    world.run();
    world.take_offline(0);
    world.server.refuse_commits = false;
    world.server.hold.clear();
    world.run();
    assert!(world.server.roster(group).contains(&tablet));
    world.command(1, Command::AddMembers { conversation: group, handles: vec![handle("carol")] });
    world.run();
    world.take_offline(1);
    world.run();
    wait(&mut world, 1);
    assert!(!world.server.roster(group).contains(&tablet), "the newcomer looked at the lists");
}

#[test]
fn bringing_a_group_in_line_is_tried_on_whatever_refuses_it() {
    let mut world = World::new(&["alice", "bob"]);
    let chat = world.start(0, "bob");
    world.say(0, chat, "hello");
    world.run();
    let tablet = world.prepare(0, "tablet");
    world.name_in_list(0, tablet);
    world.server.refuse_commits = true;
    world.run();
    world.bring_online(tablet);
    wait(&mut world, 8);
    assert_eq!(world.server.roster(chat).len(), 2);
    world.server.refuse_commits = false;
    wait(&mut world, 2);
    assert_eq!(world.server.roster(chat).len(), 3);
    assert_eq!(count(&world, 0, |e| matches!(e, Event::ChangeFailed { .. })), 0, "nobody asked for it");
}

#[test]
fn a_listed_device_that_never_connected_keeps_no_change_of_members_waiting() {
    let mut world = World::new(&["alice", "bob", "carol", "dave", "erin"]);
    let handles = vec![handle("bob"), handle("carol")];
    let group = world.command(0, Command::CreateGroup { name: "team".into(), handles }).conversation.unwrap();
    world.run();
    let [tablet, pad] = [(1, "tablet"), (3, "pad")].map(|(n, name)| {
        let device = world.prepare(n, name);
        world.name_in_list(n, device);
        world.run();
        device
    });
    assert_eq!(world.server.roster(group).len(), 3);
    let carol = world.address(2).account;
    world.command(0, Command::RemoveMembers { conversation: group, accounts: vec![carol] });
    world.run();
    assert_eq!(world.server.roster(group).len(), 2, "one is out");
    world.command(0, Command::AddMembers { conversation: group, handles: vec![handle("dave")] });
    world.run();
    assert_eq!(world.server.roster(group).len(), 3, "one came, with the device that there is");
    for n in [0, 1] {
        assert_eq!(count(&world, n, |e| matches!(e, Event::ChangeFailed { .. })), 0);
    }
    let device = world.address(pad).device;
    assert_eq!(count(&world, 0, |e| matches!(e, Event::DeviceAwaited { device: d, .. } if *d == device)), 1);
    for n in [tablet, pad] {
        world.bring_online(n);
    }
    world.run();
    wait(&mut world, 2);
    assert_eq!(world.server.roster(group).len(), 5, "both came when they connected");
}

/// The directory alone goes back by one list; all devices connect anew.
fn lose_newest(world: &mut World, devices: &[usize]) {
    world.server.lose_newest_list(world.address(0).account);
    for n in devices {
        world.drop_and_return(*n);
    }
    world.run();
    wait(world, 3);
}

#[test]
fn a_directory_that_lost_the_last_list_alone_gets_the_removal_again() {
    let (mut world, chat) = three_and_bob();
    let tablet = world.address(2);
    world.unlink(0, 2);
    world.run();
    assert_eq!(versions(&world, 0), 4);
    lose_newest(&mut world, &[0, 1, 3]);
    assert_eq!(versions(&world, 0), 4);
    assert!(!world.server.listed(tablet.account).contains_key(&tablet));
    assert!(!world.server.roster(chat).contains(&tablet));
    let older = |e: &Event| matches!(e, Event::ListRefused { why: RefusedList::Older, .. });
    assert_eq!(count(&world, 3, older), 1, "the laptop sees it too, whoever is first");
}

#[test]
fn a_directory_that_lost_the_last_list_alone_gets_the_newest_device_again() {
    let (mut world, chat) = three_and_bob();
    world.take_offline(0);
    lose_newest(&mut world, &[3]);
    let told = |world: &World| count(world, 3, |e| matches!(e, Event::DeviceUnknown));
    assert_eq!((told(&world), versions(&world, 0)), (1, 2), "its owner is told, once, while it is tried on");
    world.bring_online(0);
    wait(&mut world, 3);
    assert_eq!(versions(&world, 0), 3);
    world.say(1, chat, "after");
    world.run();
    assert!(world.history(3, chat).contains(&"bob: after".to_owned()));
}

#[test]
fn a_change_after_the_directory_lost_the_last_list_alone_is_made() {
    let (mut world, _) = three_and_bob();
    world.take_offline(3);
    world.server.lose_newest_list(world.address(0).account);
    world.unlink(0, 2);
    world.run();
    wait(&mut world, 3);
    assert_eq!(count(&world, 0, |e| matches!(e, Event::DeviceRemoved { .. })), 1);
    assert_eq!(versions(&world, 0), 4);
    assert_eq!(world.server.listed(world.address(0).account).len(), 2);
}

#[test]
fn an_addition_whose_link_is_over_is_made_only_where_the_directory_has_it() {
    let mut world = World::new(&["alice", "bob"]);
    let tablet = world.prepare(0, "tablet");
    world.take_offline(0);
    world.name_in_list(0, tablet);
    world.devices[0].restart(world.now);
    world.devices[0].core.links_ended();
    world.bring_online(0);
    world.run();
    assert_eq!(versions(&world, 0), 1, "nobody has the keys of it any more");
    assert_eq!(count(&world, 0, |e| matches!(e, Event::DeviceChangeFailed { .. })), 1, "which is told");
    assert_eq!(world.devices[0].core.open_changes(), 0);
    // The list is taken, and the first device dies before it hears so: it may be at work already.
    let pad = world.prepare(0, "pad");
    world.server.half_puts = 1;
    world.name_in_list(0, pad);
    world.run_a_little(8);
    assert_eq!(versions(&world, 0), 2);
    world.devices[0].restart(world.now);
    world.devices[0].core.links_ended();
    world.run();
    assert_eq!(count(&world, 0, |e| matches!(e, Event::DeviceAdded { .. })), 1);
    assert!(world.server.listed(world.address(0).account).contains_key(&world.address(pad)));
}

#[test]
fn an_addition_that_is_taken_back_leaves_no_device() {
    let mut world = World::new(&["alice", "bob"]);
    let tablet = world.prepare(0, "tablet");
    world.take_offline(0);
    world.name_in_list(0, tablet);
    world.unlink(0, tablet);
    world.bring_online(0);
    world.run();
    assert_eq!((versions(&world, 0), world.devices[0].core.open_changes()), (1, 0));
    // On its way: it is added, and removed again.
    let pad = world.prepare(0, "pad");
    world.server.hold_puts = true;
    world.name_in_list(0, pad);
    world.run_a_little(8);
    assert_eq!(versions(&world, 0), 2);
    world.unlink(0, pad);
    world.server.hold_puts = false;
    world.run();
    assert_eq!(world.server.listed(world.address(0).account).len(), 1);
    assert_eq!(world.devices[0].core.open_changes(), 0);
    assert_eq!(count(&world, 0, |e| matches!(e, Event::DeviceAdded { .. })), 0);
}

#[test]
fn the_last_of_several_names_stays() {
    let (mut world, _) = three_and_bob();
    world.take_offline(0);
    let device = world.address(2).device;
    for name in ["one", "two", "one"] {
        world.command(0, Command::RenameDevice { device, name: name.into() });
    }
    world.bring_online(0);
    world.run();
    let named = world.devices[0].core.devices().into_iter().find(|own| own.device == device).unwrap();
    assert_eq!(named.name, "one");
}

#[test]
fn a_device_that_never_publishes_is_asked_for_ever_less_until_it_does() {
    let mut world = World::new(&["alice", "bob"]);
    let tablet = world.prepare(0, "tablet");
    world.name_in_list(0, tablet);
    world.run();
    world.take_offline(0);
    let handles = vec![handle("alice")];
    let group = world.command(1, Command::CreateGroup { name: "team".into(), handles }).conversation.unwrap();
    world.run();
    let before = world.server.calls.len();
    wait(&mut world, 180);
    let claims = world.server.calls[before..].iter().filter(|call| *call == "ClaimKeyPackages").count();
    assert!((5..=20).contains(&claims), "{claims} claims in three hours and more");
    // Its own account's devices look every minute, and after an hour every ten.
    world.bring_online(0);
    wait(&mut world, 90);
    let before = world.server.calls.len();
    wait(&mut world, 180);
    let claims = world.server.calls[before..].iter().filter(|call| *call == "ClaimKeyPackages").count();
    assert!((15..=25).contains(&claims), "{claims} claims of two devices in three hours");
    world.bring_online(tablet);
    wait(&mut world, 12);
    assert_eq!(world.server.roster(group).len(), 3);
}
