// SPDX-License-Identifier: MIT OR Apache-2.0
//! One kill, at every step of a device in turn, before and after its commit.

use pli_client_core::Command;

use crate::world::{Kill, World, handle};

/// A chat with a group change; answers how many steps each device took.
fn scenario(kill: Option<(usize, usize, Kill)>) -> Vec<usize> {
    let mut world = World::new(&["alice", "bob", "carol"]);
    if let Some((device, step, kill)) = kill {
        let at = world.devices[device].steps + step;
        world.devices[device].kill_at = Some((at, kill));
    }
    let before: Vec<usize> = world.devices.iter().map(|d| d.steps).collect();
    let id = world.start(0, "bob");
    world.say(0, id, "one");
    world.say(0, id, "two");
    world.run();
    world.say(1, id, "three");
    let handles = vec![handle("bob"), handle("carol")];
    let team = world.command(0, Command::CreateGroup { name: "team".into(), handles }).conversation.unwrap();
    world.say(0, team, "all");
    world.run();
    world.say(2, team, "yes");
    world.run();
    let label = format!("{kill:?}");
    assert_eq!(world.history(1, id), ["alice: one", "alice: two"], "{label}");
    assert_eq!(world.history(0, id), ["bob: three"], "{label}");
    assert_eq!(world.history(1, team), ["alice: all", "carol: yes"], "{label}");
    assert_eq!(world.history(2, team), ["alice: all"], "{label}");
    assert_eq!(world.history(0, team), ["carol: yes"], "{label}");
    for device in &world.devices {
        assert_eq!(device.core.waiting(), (0, 0), "{label}");
    }
    world.devices.iter().zip(before).map(|(d, b)| d.steps - b).collect()
}

#[test]
fn a_kill_at_any_step_loses_nothing_and_shows_nothing_twice() {
    let steps = scenario(None);
    assert!(steps.iter().all(|n| *n > 10), "{steps:?}");
    for (device, count) in steps.into_iter().enumerate() {
        for step in 1..=count {
            for kill in [Kill::BeforeCommit, Kill::AfterCommit] {
                scenario(Some((device, step, kill)));
            }
        }
    }
}

#[test]
fn a_kill_during_registration_is_repeated_by_the_next_start() {
    for step in 1..12 {
        for kill in [Kill::BeforeCommit, Kill::AfterCommit] {
            let mut world = World::new(&["alice"]);
            let bob = world.join("bob");
            world.devices[bob].kill_at = Some((step, kill));
            world.run();
            assert!(world.devices[bob].core.is_registered(), "{step} {kill:?}");
            let id = world.start(0, "bob");
            world.say(0, id, "hello");
            world.run();
            assert_eq!(world.history(bob, id), ["alice: hello"], "{step} {kill:?}");
        }
    }
}
