// SPDX-License-Identifier: MIT OR Apache-2.0
//! Conversations of every suite, and devices whose suites differ.

use pli_api::ErrorCode;
use pli_client_core::mls::Suite;
use pli_client_core::{Command, Event};

use crate::world::{World, handle};

/// A group that people join, leave and talk in, with a companion device, and a week in which keys are renewed.
fn talks(suite: Suite) {
    let mut world = World::with(&["alice", "bob", "carol"], 0, suite);
    let handles = vec![handle("bob")];
    let id = world.command(0, Command::CreateGroup { name: "team".into(), handles }).conversation.unwrap();
    world.say(0, id, "one");
    world.run();
    world.command(1, Command::AddMembers { conversation: id, handles: vec![handle("carol")] });
    world.run();
    world.say(1, id, "two");
    world.run();
    let laptop = world.link(0, "laptop");
    assert_eq!(world.devices[laptop].core.suite(), suite, "a companion has the suite of its account");
    world.say(2, id, "three");
    world.run();
    world.say(0, id, "all week");
    world.run();
    for _ in 0..9 {
        world.now += 24 * 3_600_000;
        world.run();
    }
    let epoch = world.server.epoch(id);
    assert!(epoch >= 6, "keys are renewed: {epoch}");
    let carol = world.address(2).account;
    world.command(0, Command::RemoveMembers { conversation: id, accounts: vec![carol] });
    world.say(0, id, "four");
    world.run();
    assert_eq!(world.history(1, id), ["alice: one", "carol: three", "alice: all week", "alice: four"], "{suite}");
    assert_eq!(world.history(2, id), ["bob: two", "alice: all week"], "{suite}");
    assert_eq!(world.history(laptop, id), ["carol: three", "me: all week", "me: four"], "{suite}");
    for n in [0, 1, laptop] {
        assert_eq!(world.devices[n].core.waiting(), (0, 0));
        world.devices[n].restart(1);
        assert_eq!(world.devices[n].core.suite(), suite, "it is kept");
    }
}

#[test]
fn people_talk_in_every_suite() {
    Suite::ALL.into_iter().for_each(talks);
}

#[test]
fn an_account_that_nobody_could_write_to_is_not_registered_and_may_take_another_suite() {
    let mut world = World::with(&["bob"], 0, Suite::default());
    assert!(!world.server.calls.contains(&"Info".to_owned()), "every server takes this one");
    (world.suite, world.server.suites) = (Suite::PostQuantum, vec![Suite::Aes, Suite::ChaCha]);
    let alice = world.join("alice");
    world.devices[alice].may_stop = true;
    let id = world.start(alice, "bob");
    world.say(alice, id, "hello");
    world.run();
    let refused = |event: &Event| match event {
        Event::RegistrationRefused { why } => Some((why.code(), why.message.clone())),
        _ => None,
    };
    let (code, why) = world.devices[alice].events.iter().find_map(refused).expect("told");
    assert_eq!(code, ErrorCode::SuiteNotTaken);
    assert!(why.contains("0x0001 and 0x0003") && why.contains("0x004f"), "{why}");
    assert_eq!(world.server.calls.iter().filter(|call| *call == "Register").count(), 1, "bob's");
    assert!(!world.devices[alice].core.is_registered());
    // What it was told to do before waits, and is done with a suite that the server takes.
    assert!(world.devices[0].core.choose_suite(Suite::PostQuantum).0.is_empty(), "bob is registered");
    world.choose_suite(alice, Suite::Aes);
    world.run();
    assert!(world.devices[alice].core.is_registered());
    assert_eq!(world.history(0, id), ["alice: hello"]);
    world.devices[alice].restart(1);
    assert_eq!(world.devices[alice].core.suite(), Suite::Aes);
}

#[test]
fn a_server_that_says_nonsense_of_itself_is_asked_again_less_and_less_often() {
    let mut world = World::with(&["bob"], 0, Suite::PostQuantum);
    world.server.garbled_infos = 4;
    let before = world.server.calls.len();
    let alice = world.join("alice");
    let id = world.start(alice, "bob");
    world.say(alice, id, "hello");
    let began = world.now;
    world.run();
    let asked = world.server.calls[before..].iter().filter(|call| *call == "Info").count();
    assert_eq!((asked, world.server.garbled_infos), (5, 0));
    assert!(world.now > began + 1_000, "it waits longer each time: {}", world.now - began);
    let told = world.devices[alice].events.iter().find_map(|event| match event {
        Event::RegistrationRefused { why } => Some(why.code()),
        _ => None,
    });
    assert_eq!(told, Some(ErrorCode::Temporary), "and the user is told that it is not registered yet");
    assert_eq!(world.history(0, id), ["alice: hello"]);
}

#[test]
fn devices_of_another_suite_are_refused_in_words() {
    let mut world = World::with(&["alice"], 0, Suite::PostQuantum);
    world.suite = Suite::default();
    world.join("bob");
    world.run();
    let id = world.start(0, "bob");
    world.say(0, id, "hello");
    world.run();
    let why = world.devices[0].events.iter().find_map(|event| match event {
        Event::ConversationFailed { conversation, why } if *conversation == id => Some(why.clone()),
        _ => None,
    });
    let why = why.expect("told");
    assert_eq!(why.code(), ErrorCode::SuiteNotTaken);
    let why = why.message;
    assert!(why.contains("0x0001 alone") && why.contains("0x004f"), "{why}");
    assert!(world.devices[0].events.iter().any(|event| matches!(event, Event::Refused { .. })));
}
