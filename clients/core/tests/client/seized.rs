// SPDX-License-Identifier: MIT OR Apache-2.0
//! Somebody has recorded everything that was ever sent to a device and then takes the device, with all that it stores.
//!
//! What the device shows is its history ([`Table::Messages`]), in plain text by its nature and with a table of its own.
//! Everything else must not help to read what was received before: the keys that opened it are gone.

use pli_api::log;
use pli_client_core::identity::Identity;
use pli_client_core::mls::{Mls, OpenError};
use pli_client_core::{Command, Event, Table};
use pli_domain::{Class, ConversationId, SendId};

use crate::world::{Rows, World, handle};

/// What a tapper of the line has of one message or welcome.
struct Recorded {
    conversation: ConversationId,
    epoch: u64,
    content: log::Content,
    send_id: SendId,
    class: Class,
    body: Vec<u8>,
}

fn recorded(world: &World, n: usize) -> Vec<Recorded> {
    let all = world.server.recorded[&world.address(n)].iter().map(|envelope| Recorded {
        conversation: ConversationId::try_from(envelope.conversation.as_ref()).unwrap(),
        epoch: envelope.epoch,
        content: envelope.content(),
        send_id: SendId::try_from(envelope.send_id.as_ref()).unwrap(),
        class: match envelope.class() {
            log::Class::Live => Class::Live,
            log::Class::Urgent => Class::Urgent,
            log::Class::Tick => Class::Tick,
            _ => Class::Message,
        },
        body: match &envelope.body_or_ref {
            Some(log::envelope::BodyOrRef::Body(body)) => body.to_vec(),
            other => panic!("a body by reference: {other:?}"),
        },
    });
    all.collect()
}

/// The MLS side of a device, from what it stores; without its groups where `packages_alone`.
fn stolen(rows: &Rows, packages_alone: bool) -> Mls {
    let identity = rows.iter().find(|((table, _), _)| *table == Table::Identity).unwrap().1;
    let mut mls = Mls::of(&Identity::decode(identity).unwrap(), [77; 32]);
    let of_mls = rows.iter().filter(|((table, key), _)| *table == Table::Mls && !(packages_alone && key[0] != 0));
    mls.load(of_mls.map(|((_, key), value)| (key.clone(), value.clone()))).unwrap();
    mls
}

/// Epochs of the messages that open with what is stored, each tried with the keys as they are stored.
fn opened(rows: &Rows, recorded: &[Recorded]) -> Vec<u64> {
    let messages = recorded.iter().filter(|one| one.content == log::Content::Application);
    let opens = |one: &&Recorded| {
        let opened = stolen(rows, false).open(one.conversation, one.send_id, one.class, &one.body);
        assert!(!matches!(opened, Err(OpenError::OtherEnvelope)), "it opened");
        opened.is_ok()
    };
    messages.filter(opens).map(|one| one.epoch).collect()
}

/// How many of the welcomes open with the private keys of key packages that are stored.
fn entered(rows: &Rows, recorded: &[Recorded]) -> usize {
    let welcomes = recorded.iter().filter(|one| one.content == log::Content::Welcome);
    welcomes.filter(|one| stolen(rows, true).join(&one.body, None).is_ok()).count()
}

/// Bob hears messages in several epochs and is then seized. `hoards` plants the fault: what is to be gone is kept.
fn heard(hoards: bool) -> (World, ConversationId) {
    let mut world = World::new(&["alice", "bob", "carol"]);
    if hoards {
        let rows = world.devices[1].rows.clone();
        world.devices[1].hoard = Some(vec![rows]);
    }
    let handles = vec![handle("bob"), handle("carol")];
    let id = world.command(0, Command::CreateGroup { name: "team".into(), handles }).conversation.unwrap();
    world.run();
    for day in 0..30 {
        for from in [0, 2] {
            world.say(from, id, &format!("secret of day {day}"));
        }
        world.now += 24 * 3_600_000;
        world.run();
    }
    assert_eq!(world.history(1, id).len(), 60);
    assert!(world.server.epoch(id) > 6, "epochs have passed: {}", world.server.epoch(id));
    (world, id)
}

#[test]
fn what_was_received_cannot_be_opened_with_what_is_stored() {
    let (world, _) = heard(false);
    let (rows, all) = (&world.devices[1].rows, recorded(&world, 1));
    assert!(all.iter().filter(|one| one.content == log::Content::Application).count() >= 60);
    assert_eq!(opened(rows, &all), Vec::<u64>::new(), "keys of messages that were received are gone");
    assert_eq!(all.iter().filter(|one| one.content == log::Content::Welcome).count(), 1);
    assert_eq!(entered(rows, &all), 0, "the key of the used key package is gone");
}

#[test]
fn what_was_said_stands_in_the_history_alone() {
    let (world, _) = heard(false);
    let holds = |value: &[u8]| value.windows(13).any(|part| part == b"secret of day");
    let tables: Vec<Table> =
        world.devices[1].rows.iter().filter(|(_, value)| holds(value)).map(|((table, _), _)| *table).collect();
    assert_eq!(tables.len(), 60);
    assert!(tables.iter().all(|table| *table == Table::Messages), "{tables:?}");
}

#[test]
fn a_device_that_keeps_its_keys_is_found_out() {
    let (world, _) = heard(true);
    let all = recorded(&world, 1);
    let messages = all.iter().filter(|one| one.content == log::Content::Application);
    let said = messages.filter(|one| one.class == Class::Message).count();
    let hoard = world.devices[1].hoard.as_ref().unwrap();
    let welcomes: usize = hoard.iter().map(|rows| usize::from(entered(rows, &all) > 0)).max().unwrap();
    assert_eq!(welcomes, 1, "the welcome opens with the key package as it was");
    // Each state opens what came next: any one that is left over is enough.
    let left_over = hoard.iter().step_by(hoard.len() / 12).map(|rows| opened(rows, &all).len());
    let most = left_over.max().unwrap();
    assert!(most > 0 && said >= 60, "{most} of {said}");
}

const MINUTE: u64 = 60_000;

/// Bob is let into conversations by his package of last resort, while he is away; answers that package too.
fn reached_by_last_resort() -> (World, Vec<ConversationId>, bytes::Bytes) {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let bob = world.address(1);
    let last_resort = world.server.exhaust(bob);
    world.take_offline(1);
    let ids = vec![world.start(0, "bob"), world.start(2, "bob")];
    for (n, id) in [0, 2].into_iter().zip(&ids) {
        world.say(n, *id, "you were away");
    }
    world.run();
    (world, ids, last_resort)
}

fn rejoins(world: &World, n: usize) -> usize {
    world.devices[n].events.iter().filter(|event| matches!(event, Event::Rejoining { .. })).count()
}

#[test]
fn the_private_key_of_a_last_resort_package_is_gone_an_hour_after_its_use() {
    let (mut world, ids, last_resort) = reached_by_last_resort();
    let (bob, epochs) = (world.address(1), [world.server.epoch(ids[0]), world.server.epoch(ids[1])]);
    world.bring_online(1);
    world.run();
    assert_eq!((world.history(1, ids[0]).len(), world.history(1, ids[1]).len(), rejoins(&world, 1)), (1, 1, 0));
    assert_ne!(world.server.package_of(bob), last_resort, "there is another one at once");
    let all = recorded(&world, 1);
    assert_eq!(entered(&world.devices[1].rows, &all), 2, "it is kept for welcomes that are under way");
    for _ in 0..3 {
        world.now += 5 * MINUTE;
        world.run();
    }
    for (id, epoch) in ids.iter().zip(epochs) {
        assert!(world.server.committers(*id, epoch).contains(&bob), "the leaf is renewed within minutes");
    }
    let now = world.now;
    world.devices[1].restart(now);
    world.run();
    let offers = world.server.offered.len();
    world.now += 60 * MINUTE;
    world.run();
    assert_eq!(entered(&world.devices[1].rows, &all), 0, "the key is gone");
    assert_eq!(world.server.offered.len(), offers, "and nothing else is made anew");
    world.say(0, ids[0], "still here");
    world.run();
    assert_eq!(world.history(1, ids[0]).last().unwrap(), "alice: still here");
}

#[test]
fn a_device_that_never_works_its_queue_through_drops_the_key_within_a_week() {
    let (mut world, ids, _) = reached_by_last_resort();
    let bob = world.address(1);
    world.bring_online(1);
    while world.history(1, ids[0]).is_empty() {
        world.run_a_little(1);
    }
    world.take_offline(1);
    let all = recorded(&world, 1);
    for day in 0..8 {
        assert_eq!(entered(&world.devices[1].rows, &all) > 0, day < 7, "day {day}");
        world.now += 24 * 60 * MINUTE;
        let now = world.now;
        let device = &mut world.devices[1];
        device.restart(now);
        device.drop_connection(now);
    }
    assert!(world.server.serves(bob));
}

#[test]
fn a_welcome_that_uses_a_last_resort_package_too_late_costs_a_join_and_no_conversation() {
    let (mut world, _, last_resort) = reached_by_last_resort();
    world.bring_online(1);
    world.run();
    world.now += 90 * MINUTE;
    world.run();
    let bob = world.address(1);
    world.server.swapped.insert(bob, last_resort);
    let handles = vec![handle("bob"), handle("carol")];
    let id = world.command(0, Command::CreateGroup { name: "late".into(), handles }).conversation.unwrap();
    world.run();
    assert_eq!(rejoins(&world, 1), 1);
    world.say(1, id, "here");
    world.run();
    assert_eq!(world.history(0, id), ["bob: here"]);
}
