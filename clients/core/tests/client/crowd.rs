// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many devices that commit at once: each gets its turn, and the offers that lose stay few.

use pli_client_core::{Command, Event};
use pli_domain::ConversationId;

use crate::world::{World, handle};

const CROWD: usize = 64;
/// Offers for one commit that wins, on average. Without waits there would be 32: each of those that lost offers again at
/// once, and one of them wins.
const OFFERS_EACH_MAX: usize = 4;

/// `CROWD` people and as many whom they remove, who are away and stay so.
fn crowd(seed: u8) -> (World, ConversationId) {
    let names: Vec<String> = (0..2 * CROWD).map(|n| format!("member.{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::seeded(&names, seed);
    (CROWD..2 * CROWD).for_each(|n| world.take_offline(n));
    let handles = names[1..].iter().map(|name| handle(name)).collect();
    let group = world.command(0, Command::CreateGroup { name: "crowd".into(), handles }).conversation.unwrap();
    world.run();
    assert_eq!(world.server.roster(group).len(), 2 * CROWD);
    (world, group)
}

fn is_settled(world: &World, group: ConversationId) -> bool {
    (0..CROWD).all(|n| world.devices[n].core.is_settled(group))
}

#[test]
fn sixty_four_devices_that_commit_at_once_all_get_their_turn() {
    let seed = 7;
    eprintln!("seed {seed}");
    let (mut world, group) = crowd(seed);
    let (before, _) = world.server.epoch_and_tree(group);
    world.server.lost_races = 0;
    let begun = world.now;
    for n in 0..CROWD {
        let accounts = vec![world.address(CROWD + n).account];
        world.command(n, Command::RemoveMembers { conversation: group, accounts });
    }
    world.say(0, group, "meanwhile");
    for _ in 0..100_000 {
        if is_settled(&world, group) {
            break;
        }
        world.run_on(1);
    }
    assert!(is_settled(&world, group), "somebody starves");
    let raced_ms = world.now - begun;
    world.run();
    let (after, tree) = world.server.epoch_and_tree(group);
    let won = usize::try_from(after - before).unwrap();
    eprintln!("{won} commits, {} offers lost, {} ms", world.server.lost_races, raced_ms);
    assert_eq!(won, CROWD, "one commit for each change");
    assert!(world.server.lost_races >= CROWD - 1, "they did not race");
    assert!(world.server.lost_races <= OFFERS_EACH_MAX * CROWD, "{} offers lost", world.server.lost_races);
    assert_eq!(world.server.roster(group).len(), CROWD);
    for n in 0..CROWD {
        let core = &world.devices[n].core;
        let epoch = core.epoch_authenticator(group).map(|(epoch, _)| epoch);
        assert_eq!((epoch, core.tree_hash(group).as_ref()), (Some(after), Some(&tree)), "{n}");
        assert!(
            !world.devices[n].events.iter().any(|e| matches!(e, Event::ChangeFailed { .. } | Event::Rejoining { .. }))
        );
        let heard = world.history(n, group).iter().filter(|line| line.contains("meanwhile")).count();
        assert_eq!(heard, usize::from(n > 0), "{n} heard what was said meanwhile");
    }
}

/// Everybody tells everybody how far they are: what is said shortly after is told of together.
#[test]
fn in_a_large_group_one_tick_tells_of_much() {
    let names: Vec<String> = (0..40).map(|n| format!("member.{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::seeded(&names, 3);
    let handles = names[1..].iter().map(|name| handle(name)).collect();
    let group = world.command(0, Command::CreateGroup { name: "crowd".into(), handles }).conversation.unwrap();
    world.run();
    let before = world.server.ticks;
    for n in 0..20 {
        world.say(0, group, &format!("text {n}"));
        world.run_a_little(8);
    }
    assert!(world.server.ticks < before + 5, "nobody tells at once");
    world.run();
    let ticks = world.server.ticks - before;
    assert!(ticks <= 2 * names.len(), "{ticks} ticks");
    for n in 1..names.len() {
        assert_eq!(world.history(n, group).len(), 20);
        assert_eq!(world.devices[n].core.waiting(), (0, 0));
    }
    let told = |event: &&Event| matches!(event, Event::Delivered { up_to: 21, .. });
    assert_eq!(world.devices[0].events.iter().filter(told).count(), names.len() - 1, "everybody has everything");
}

/// As a phone does that is woken by a push and put to sleep again.
#[test]
fn a_device_that_is_awake_for_seconds_only_tells_at_its_next_waking() {
    let names: Vec<String> = (0..40).map(|n| format!("member.{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::seeded(&names, 3);
    let handles = names[1..].iter().map(|name| handle(name)).collect();
    let group = world.command(0, Command::CreateGroup { name: "crowd".into(), handles }).conversation.unwrap();
    world.run();
    let sleeper = world.address(7).device;
    world.take_offline(7);
    world.say(0, group, "wake up");
    world.run();
    let has_told = |world: &World| {
        let told = |event: &Event| matches!(event, Event::Delivered { device, up_to: 2, .. } if *device == sleeper);
        world.devices[0].events.iter().any(told)
    };
    let mut wakings = 0;
    while !has_told(&world) {
        wakings += 1;
        assert!(wakings <= 2, "it never tells: {:?}, {} ticks", world.history(7, group), world.server.ticks);
        world.now += 10 * 60_000;
        let now = world.now;
        world.devices[7].restart(now);
        world.bring_online(7);
        world.run_a_little(100);
        world.take_offline(7);
    }
    assert_eq!((wakings, world.history(7, group).len()), (2, 1));
}
