// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices renew their keys: on a schedule, after much was said, after a removal; one after the other and never in the
//! way of anything else.

use pli_client_core::{Command, Event};
use pli_domain::{ConversationId, DeviceAddress};

use crate::world::{World, handle};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

fn group(world: &mut World, names: &[&str]) -> ConversationId {
    let handles = names.iter().map(|n| handle(n)).collect();
    let id = world.command(0, Command::CreateGroup { name: "team".into(), handles }).conversation.unwrap();
    world.run();
    id
}

/// Time goes by in steps.
fn pass(world: &mut World, span: u64, step: u64) {
    for _ in 0..span / step {
        world.now += step;
        world.run();
    }
}

/// How often each of these devices has committed since `epoch`.
fn renewals(world: &World, id: ConversationId, epoch: u64, devices: &[usize]) -> Vec<usize> {
    let by: Vec<DeviceAddress> = world.server.committers(id, epoch);
    devices.iter().map(|n| by.iter().filter(|by| **by == world.address(*n)).count()).collect()
}

fn is_quiet(world: &World, n: usize) -> bool {
    let change = |event: &Event| {
        matches!(
            event,
            Event::ChangeFailed { .. } | Event::Rejoining { .. } | Event::MemberAdded { .. } | Event::Refused { .. }
        )
    };
    !world.devices[n].events.iter().any(change)
}

#[test]
fn each_device_renews_its_keys_about_weekly_and_a_restart_keeps_the_date() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let id = group(&mut world, &["bob", "carol"]);
    let epoch = world.server.epoch(id);
    for day in 0..28 {
        world.say(0, id, &format!("day {day}"));
        pass(&mut world, DAY, 6 * HOUR);
        let n = day % 3;
        let now = world.now;
        world.devices[n].restart(now);
        world.run();
    }
    let each = renewals(&world, id, epoch, &[0, 1, 2]);
    // A first date within a week, then one in 5.25 to 8.75 days.
    assert!(each.iter().all(|n| (3..=5).contains(n)), "{each:?}");
    assert_eq!(each.iter().sum::<usize>(), world.server.committers(id, epoch).len(), "and nobody else did");
    world.say(0, id, "still here");
    world.run();
    for n in [1, 2] {
        assert_eq!(world.history(n, id).len(), 29);
        assert!(is_quiet(&world, n), "{:?}", world.devices[n].events);
    }
}

#[test]
fn a_device_that_says_much_renews_its_keys_sooner_but_not_at_once_again() {
    let mut world = World::new(&["alice", "bob"]);
    let id = group(&mut world, &["bob"]);
    let epoch = world.server.epoch(id);
    let talk = |world: &mut World, count: usize| {
        for n in 0..count {
            world.say(0, id, "x");
            if n % 50 == 49 {
                world.run();
            }
        }
        world.run();
    };
    talk(&mut world, 1_000);
    assert_eq!(renewals(&world, id, epoch, &[0, 1]), [0, 0], "the keys are not old enough");
    pass(&mut world, 8 * HOUR, HOUR);
    assert_eq!(renewals(&world, id, epoch, &[0])[0], 1);
    pass(&mut world, 8 * HOUR, HOUR);
    assert_eq!(renewals(&world, id, epoch, &[0])[0], 1, "nothing was said since");
    assert!(is_quiet(&world, 0) && is_quiet(&world, 1));
}

#[test]
fn after_a_removal_the_others_renew_their_keys_one_after_the_other() {
    let mut world = World::new(&["alice", "bob", "carol", "dave", "erin"]);
    let id = group(&mut world, &["bob", "carol", "dave", "erin"]);
    world.say(0, id, "hello");
    world.run();
    let dave = world.address(3).account;
    world.command(0, Command::RemoveMembers { conversation: id, accounts: vec![dave] });
    world.run();
    let epoch = world.server.epoch(id);
    assert_eq!(renewals(&world, id, epoch, &[0, 1, 2, 4]), [0, 0, 0, 0], "not at once");
    pass(&mut world, 2 * HOUR + 10 * MINUTE, 5 * MINUTE);
    assert_eq!(renewals(&world, id, epoch, &[1, 2, 4]), [1, 1, 1], "four devices within two hours");
    assert_eq!(renewals(&world, id, epoch, &[0]), [0], "whoever removed somebody has new keys by that");
}

#[test]
fn many_removals_are_followed_by_as_many_renewals_as_one() {
    let mut world = World::new(&["alice", "bob", "carol", "dave", "erin", "guest"]);
    let id = group(&mut world, &["bob", "carol", "dave", "erin"]);
    world.say(0, id, "hello");
    world.run();
    let (epoch, guest) = (world.server.epoch(id), world.address(5).account);
    for _ in 0..40 {
        world.command(0, Command::AddMembers { conversation: id, handles: vec![handle("guest")] });
        world.run();
        world.command(0, Command::RemoveMembers { conversation: id, accounts: vec![guest] });
        world.run();
    }
    pass(&mut world, 10 * MINUTE, MINUTE);
    let each = renewals(&world, id, epoch, &[1, 2, 3, 4]);
    assert!(each.iter().sum::<usize>() <= 2, "five devices have two and a half hours: {each:?}");
    pass(&mut world, 2 * HOUR + 30 * MINUTE, 5 * MINUTE);
    assert_eq!(renewals(&world, id, epoch, &[1, 2, 3, 4]), [1, 1, 1, 1]);
}

#[test]
fn the_devices_of_an_account_that_lost_one_renew_their_keys_within_minutes() {
    let mut world = World::new(&["alice", "bob"]);
    let laptop = world.link(0, "laptop");
    let phone = world.link(0, "tablet");
    let id = world.start(0, "bob");
    world.say(0, id, "hello");
    world.run();
    world.unlink(0, laptop);
    world.run();
    let epoch = world.server.epoch(id);
    pass(&mut world, 12 * MINUTE, 2 * MINUTE);
    assert_eq!(renewals(&world, id, epoch, &[phone]), [1]);
    assert!(renewals(&world, id, epoch, &[1])[0] <= 1, "who is of another account has more time");
}

/// Whoever has a stolen device may have copied the keys of the others from it.
#[test]
fn after_a_device_of_the_account_was_removed_its_others_have_new_keys_before_anything_is_said() {
    for silent_days in [0, 30] {
        let mut world = World::new(&["alice", "bob"]);
        let laptop = world.link(0, "laptop");
        let tablet = world.link(0, "tablet");
        let id = world.start(0, "bob");
        world.run();
        pass(&mut world, silent_days * DAY, DAY);
        let epoch = world.server.epoch(id);
        world.unlink(0, laptop);
        world.run();
        pass(&mut world, 12 * MINUTE, 2 * MINUTE);
        assert_eq!(renewals(&world, id, epoch, &[tablet]), [1], "after {silent_days} days of silence");
    }
}

#[test]
fn a_device_that_was_away_takes_in_what_waits_before_it_renews_its_keys() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let id = group(&mut world, &["bob", "carol"]);
    world.take_offline(1);
    for n in 0..6 {
        world.say(0, id, &format!("message {n}"));
        pass(&mut world, 5 * DAY, DAY);
    }
    let epoch = world.server.epoch(id);
    assert!(epoch > 4, "the others went on: {epoch}");
    world.bring_online(1);
    world.run();
    pass(&mut world, 10 * MINUTE, MINUTE);
    let told: Vec<String> = (0..6).map(|n| format!("alice: message {n}")).collect();
    assert_eq!(world.history(1, id), told, "nothing was too old to be opened");
    assert!(renewals(&world, id, epoch, &[1])[0] >= 1, "its date had gone by");
    assert!(is_quiet(&world, 1), "{:?}", world.devices[1].events);
}

#[test]
fn devices_whose_dates_have_all_gone_by_do_not_starve_each_other() {
    let names = ["alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi"];
    let mut world = World::new(&names);
    let id = group(&mut world, &names[1..]);
    for n in 0..8 {
        world.take_offline(n);
    }
    world.now += 30 * DAY;
    let epoch = world.server.epoch(id);
    world.say(0, id, "back again");
    for n in 0..8 {
        world.bring_online(n);
    }
    world.run();
    pass(&mut world, 4 * HOUR, MINUTE);
    let each = renewals(&world, id, epoch, &[0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(each, [1; 8]);
    assert!(world.server.lost_races <= 12, "{} commits in vain", world.server.lost_races);
}

#[test]
fn a_renewal_that_the_server_refuses_is_tried_again_later_and_nobody_is_told() {
    let mut world = World::new(&["alice", "bob"]);
    let id = group(&mut world, &["bob"]);
    let epoch = world.server.epoch(id);
    world.server.refuse_commits = true;
    world.say(0, id, "hello");
    world.run();
    world.now += 8 * DAY;
    world.run();
    let tries = world.server.calls.iter().filter(|call| *call == "Commit").count();
    pass(&mut world, 50 * MINUTE, 10 * MINUTE);
    assert_eq!(world.server.calls.iter().filter(|call| *call == "Commit").count(), tries, "not before an hour");
    assert_eq!(world.server.epoch(id), epoch);
    world.server.refuse_commits = false;
    pass(&mut world, 2 * HOUR, 10 * MINUTE);
    assert_eq!(renewals(&world, id, epoch, &[0, 1]), [1, 1]);
    assert!(is_quiet(&world, 0) && is_quiet(&world, 1), "{:?}", world.devices[0].events);
}

#[test]
fn a_wish_to_change_members_waits_for_the_renewal_that_is_under_way() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let id = group(&mut world, &["bob"]);
    let epoch = world.server.epoch(id);
    world.say(0, id, "before");
    world.run();
    world.server.hold_commits = true;
    world.now += 8 * DAY;
    world.run_a_little(50);
    assert!(!renewals(&world, id, epoch, &[0, 1]).is_empty());
    world.command(0, Command::AddMembers { conversation: id, handles: vec![handle("carol")] });
    world.say(0, id, "with carol");
    world.run_a_little(50);
    world.server.hold_commits = false;
    world.run();
    pass(&mut world, HOUR, MINUTE);
    assert_eq!(world.devices[0].core.conversation(id).unwrap().members.len(), 3);
    assert_eq!(world.history(1, id), ["alice: before", "alice: with carol"]);
    world.say(2, id, "thanks");
    world.run();
    assert_eq!(world.history(0, id), ["carol: thanks"]);
}

#[test]
fn a_conversation_in_which_nobody_says_anything_costs_nothing_until_somebody_does() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let id = group(&mut world, &["bob", "carol"]);
    world.say(0, id, "hello");
    pass(&mut world, 20 * DAY, 6 * HOUR);
    let epoch = world.server.epoch(id);
    pass(&mut world, 60 * DAY, DAY);
    assert_eq!(world.server.epoch(id), epoch, "nothing was said since the last renewals");
    world.say(1, id, "back again");
    world.run();
    assert_eq!(world.server.epoch(id), epoch, "not at once");
    pass(&mut world, 2 * HOUR, 5 * MINUTE);
    assert_eq!(renewals(&world, id, epoch, &[0, 1, 2]), [1, 1, 1]);
    pass(&mut world, 4 * DAY, 6 * HOUR);
    assert_eq!(renewals(&world, id, epoch, &[0, 1, 2]), [1, 1, 1]);
}
