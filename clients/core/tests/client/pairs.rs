// SPDX-License-Identifier: MIT OR Apache-2.0
//! One chat per pair of people, whoever wrote first.

use std::collections::BTreeMap;

use pli_api::ErrorCode;
use pli_client_core::content::Kind;
use pli_client_core::{Command, Event, RowKind, RowStatus, Table};
use pli_domain::ConversationId;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::ghost::Ghost;
use crate::world::World;

const NAMES: [&str; 2] = ["alice", "bob"];

/// Both write first, neither knowing of the other.
fn crossed() -> (World, ConversationId, ConversationId) {
    let mut world = World::new(&NAMES);
    let (ours, theirs) = (world.start(0, "bob"), world.start(1, "alice"));
    world.say(0, ours, "a1");
    world.say(1, theirs, "b1");
    world.run();
    (world, ours, theirs)
}

/// The texts of a sender in a device's chat, in the order shown; fails where one is missing or twice, or late although the
/// numbers at the ends of the texts rise, or not late although they do not.
fn texts(world: &World, n: usize, id: ConversationId, kind: RowKind) -> Vec<String> {
    let rows = world.rows(n, id);
    let mut lanes: BTreeMap<ConversationId, u64> = BTreeMap::new();
    let (mut texts, mut highest) = (Vec::new(), 0);
    for (part, row) in rows.values() {
        assert!(row.kind() != RowKind::Hole, "{row:?}");
        if row.kind() != kind {
            continue;
        }
        let written = row.text.rsplit(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(highest);
        assert_eq!(row.late, kind == RowKind::Incoming && written < highest, "{row:?} after {highest}");
        highest = highest.max(written);
        let before = lanes.insert(*part, row.lane_no).unwrap_or(0);
        assert!(before < row.lane_no, "{row:?} after number {before} of its lane");
        assert!(kind != RowKind::Outgoing || row.status() == RowStatus::Stored, "{row:?}");
        texts.push(row.text.clone());
    }
    texts
}

/// One chat on both sides, with everything that was said, and one place for what is new.
fn judge(world: &mut World, said: &[Vec<String>; 2], label: &str) {
    let sorted = |mut all: Vec<String>| {
        all.sort();
        all
    };
    let ids = [world.start(0, "bob"), world.start(1, "alice")];
    assert_eq!(ids[0], ids[1], "{label}");
    for n in 0..2 {
        let (view, other) = (world.devices[n].core.conversations(), 1 - n);
        assert_eq!(view.len(), 1, "{label}");
        assert_eq!((view[0].id, view[0].members.len(), view[0].ready), (ids[n], 2, true), "{label}");
        let lines = (world.rows(n, ids[n]), world.devices[n].core.waiting(), &said[other]);
        assert_eq!(texts(world, n, ids[n], RowKind::Incoming).len(), said[other].len(), "{label}: {lines:#?}");
        assert_eq!(sorted(texts(world, n, ids[n], RowKind::Incoming)), sorted(said[other].clone()), "{label}");
        assert_eq!(sorted(texts(world, n, ids[n], RowKind::Outgoing)), sorted(said[n].clone()), "{label}");
        assert_eq!(world.devices[n].core.waiting(), (0, 0), "{label}");
        let shown = world.devices[n].events.iter().filter(|e| matches!(e, Event::Message(_))).count();
        assert!(shown <= said[other].len(), "{label}");
    }
}

/// Two people who write, go away, are killed and come back at random.
fn play(seed: u64) {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let mut world = World::seeded(&NAMES, (seed % 200) as u8);
    let mut said = [Vec::new(), Vec::new()];
    for step in 0..40 {
        let n = (rng.next_u32() % 2) as usize;
        match rng.next_u32() % 10 {
            0 => world.take_offline(n),
            1 | 2 if world.devices[n].offline => world.bring_online(n),
            3 => {
                let now = world.now;
                world.devices[n].restart(now);
            }
            4 => world.run(),
            5 | 6 => world.run_a_little((rng.next_u32() % 6) as usize),
            _ => {
                let id = world.start(n, NAMES[1 - n]);
                let text = format!("{} {step}", NAMES[n]);
                world.say(n, id, &text);
                said[n].push(text);
            }
        }
    }
    for n in (0..2).filter(|n| world.devices[*n].offline).collect::<Vec<_>>() {
        world.bring_online(n);
    }
    world.run();
    judge(&mut world, &said, &format!("seed {seed}"));
}

#[test]
fn two_who_write_at_random_end_in_one_chat_with_everything_once_and_in_order() {
    let mut crossed = 0;
    for seed in 0..150 {
        play(seed);
        let mut world = World::new(&NAMES);
        world.run_a_little((seed % 7) as usize);
        let ours = world.start(0, "bob");
        world.run_a_little((seed % 11) as usize);
        crossed += usize::from(world.start(1, "alice") != ours);
    }
    assert!(crossed > 20, "{crossed} of 150 worlds crossed: the seeds test nothing");
}

#[test]
fn several_messages_wait_on_both_sides_before_either_knows_of_the_other() {
    let mut world = World::new(&NAMES);
    let mut said = [Vec::new(), Vec::new()];
    for n in 0..2 {
        world.take_offline(n);
        let id = world.start(n, NAMES[1 - n]);
        for number in 0..12 {
            let text = format!("{n}-{number}");
            world.say(n, id, &text);
            said[n].push(text);
        }
    }
    world.bring_online(0);
    world.run_a_little(8);
    world.bring_online(1);
    world.run();
    judge(&mut world, &said, "queued");
    assert!(world.devices.iter().any(|d| d.events.iter().any(|e| matches!(e, Event::SameChat { .. }))));
}

#[test]
fn naming_either_conversation_means_the_chat() {
    let (mut world, ours, theirs) = crossed();
    let target = ours.min(theirs);
    for id in [ours, theirs] {
        assert_eq!(world.say(0, id, "again").conversation, Some(target));
    }
    world.run();
    world.command(1, Command::MarkRead { conversation: target });
    world.run();
    for id in [ours, theirs] {
        let read = |e: &&Event| matches!(e, Event::Read { conversation, .. } if *conversation == id);
        let mine = world.devices[0].events.iter().filter(read).count();
        // What Alice said before they knew of each other stands in her own.
        assert_eq!(mine > 0, id == target || id == ours, "{id}");
    }
    assert_eq!(world.history(1, ours), ["alice: a1", "alice: again", "alice: again"]);
    assert_eq!(world.history(1, ours), world.history(1, theirs));
}

#[test]
fn rows_of_an_earlier_version_become_one_chat() {
    let (mut world, ours, theirs) = crossed();
    for device in &mut world.devices {
        for ((table, _), value) in &mut device.rows {
            if *table == Table::Conversations {
                *value = without(value, &[15, 16]);
            }
        }
    }
    let now = world.now;
    for n in 0..2 {
        world.devices[n].restart(now);
        assert_eq!(world.devices[n].core.conversations().len(), 1);
        assert_eq!(world.devices[n].core.chat(ours).len(), 2);
    }
    world.run();
    assert_eq!(world.start(0, "bob"), ours.min(theirs));
    assert_eq!(world.history(0, ours), ["bob: b1"]);
}

/// A protobuf message without these fields.
fn without(bytes: &[u8], fields: &[u64]) -> Vec<u8> {
    let mut rest = bytes;
    let mut out = Vec::new();
    while !rest.is_empty() {
        let before = rest;
        let key = prost::decode_length_delimiter(&mut rest).unwrap();
        let value = prost::decode_length_delimiter(&mut rest).unwrap();
        if key & 7 == 2 {
            rest = &rest[value..];
        }
        if !fields.contains(&(key as u64 >> 3)) {
            out.extend_from_slice(&before[..before.len() - rest.len()]);
        }
    }
    out
}

#[test]
fn what_waits_in_a_conversation_that_cannot_be_made_goes_into_the_other_one() {
    let mut world = World::new(&NAMES);
    let alice = world.address(0);
    world.take_offline(0);
    let ours = world.start(0, "bob");
    world.say(0, ours, "a1");
    world.say(0, ours, "a2");
    let theirs = world.start(1, "alice");
    world.say(1, theirs, "b1");
    world.run();
    world.server.creating = Some((alice, ErrorCode::Temporary));
    world.bring_online(0);
    world.run_a_little(60);
    assert_eq!(world.history(0, ours), ["bob: b1"]);
    world.server.creating = Some((alice, ErrorCode::ConversationTaken));
    world.run();
    assert_eq!(world.history(1, theirs), ["alice: a1", "alice: a2"]);
    let events = &world.devices[0].events;
    assert_eq!(events.iter().filter(|e| matches!(e, Event::Moved { .. })).count(), 2);
    assert!(!events.iter().any(|e| matches!(e, Event::Refused { .. } | Event::ConversationFailed { .. })));
    judge(&mut world, &[vec!["a1".into(), "a2".into()], vec!["b1".into()]], "failed");
}

#[test]
fn what_waits_in_a_conversation_that_is_over_goes_into_the_other_one_also_through_kills() {
    let (world, ours, theirs) = crossed();
    drop(world);
    for step in 0..12 {
        let (mut world, ..) = crossed();
        let (target, other, alice) = (ours.min(theirs), ours.max(theirs), world.address(0));
        world.take_offline(0);
        // More than the server takes at a time.
        let said: Vec<String> = (0..20).map(|n| format!("x{n}")).collect();
        for text in &said {
            assert_eq!(world.say(0, target, text).conversation, Some(target));
        }
        world.server.expel(target, alice);
        if step > 0 {
            let kill = if step % 2 == 0 { crate::world::Kill::BeforeCommit } else { crate::world::Kill::AfterCommit };
            world.devices[0].kill_at = Some((world.devices[0].steps + step, kill));
        }
        world.bring_online(0);
        world.run();
        let all: Vec<String> = std::iter::once("a1".into()).chain(said).collect();
        assert_eq!(texts(&world, 1, other, RowKind::Incoming), all, "{step}");
        assert_eq!(world.start(0, "bob"), other, "{step}");
        assert!(!world.devices[0].events.iter().any(|e| matches!(e, Event::Refused { .. } | Event::Left { .. })));
        assert_eq!(world.devices[0].core.conversations().len(), 1);
        assert_eq!(texts(&world, 0, other, RowKind::Outgoing), all, "{step}");
    }
}

#[test]
fn who_lost_the_other_ones_conversation_comes_back_into_one_chat() {
    let mut world = World::new(&NAMES);
    world.take_offline(1);
    let ours = world.start(0, "bob");
    world.run();
    let theirs = world.start(1, "alice");
    world.say(1, theirs, "b1");
    let last = world.server.lose_queue(world.address(1));
    world.bring_online(1);
    world.gap(1, last);
    world.run();
    world.say(0, ours, "a1");
    world.run();
    world.say(1, theirs, "b2");
    world.run();
    judge(&mut world, &[vec!["a1".into()], vec!["b1".into(), "b2".into()]], "lost");
}

#[test]
fn leaving_means_every_conversation_of_the_chat_and_writing_again_begins_anew() {
    let (mut world, ours, theirs) = crossed();
    world.command(0, Command::Leave { conversation: ours });
    world.run();
    assert!(world.devices[0].core.conversation(theirs).unwrap().left);
    assert_eq!(world.devices[0].events.iter().filter(|e| matches!(e, Event::Left { .. })).count(), 2);
    let anew = world.start(0, "bob");
    assert!(anew != ours && anew != theirs);
    world.say(0, anew, "back");
    world.run();
    assert_eq!(world.start(1, "alice"), anew);
    assert_eq!(world.devices[1].core.conversations().len(), 1);
    assert_eq!(world.history(1, ours), ["alice: a1", "alice: back"]);
    assert_eq!(world.history(0, anew), ["bob: b1"]);
}

#[test]
fn a_third_party_cannot_slip_its_conversation_under_a_chat_of_two_others() {
    let mut world = World::new(&NAMES);
    let chat = world.start(0, "bob");
    world.say(0, chat, "hello");
    world.run();
    let mut mallory = Ghost::join(&mut world.server, "mallory", 1);
    let low = ConversationId::from_bytes([0; 16]);
    let (alice, bob) = (world.address(0), world.address(1));
    mallory.create(&mut world.server, low);
    mallory.add(&mut world.server, low, alice);
    mallory.say(&mut world.server, low, Kind::Direct, "I am nobody");
    world.run();
    assert_eq!(world.start(0, "mallory"), low, "until then it is a chat with its maker");
    mallory.add(&mut world.server, low, bob);
    mallory.say(&mut world.server, low, Kind::Direct, "this is your chat");
    world.run();
    mallory.leave(&mut world.server, low);
    world.run();
    for (n, other) in [(0, "bob"), (1, "alice")] {
        assert_eq!(world.devices[n].core.conversation(low).unwrap().members.len(), 2, "only the two are left in it");
        assert_eq!(world.start(n, other), chat);
        assert_eq!(world.devices[n].core.chat(chat), [chat]);
        assert_eq!(world.devices[n].core.conversation(low).unwrap().kind, Kind::Group);
    }
}

#[test]
fn a_leaf_that_only_claims_an_account_makes_no_chat_with_it() {
    let mut world = World::new(&NAMES);
    let chat = world.start(0, "bob");
    world.say(0, chat, "hello");
    world.run();
    let (alice, bob) = (world.address(0), world.address(1));
    let mut mallory = Ghost::join(&mut world.server, "mallory", 1);
    let key = ed25519_dalek::SigningKey::from_bytes(&[4; 32]);
    mallory.mls = pli_client_core::mls::Mls::new(bob, &key, [5; 32]);
    mallory.connect_as(&mut world.server, bob);
    let low = ConversationId::from_bytes([0; 16]);
    mallory.create(&mut world.server, low);
    mallory.add(&mut world.server, low, alice);
    mallory.say(&mut world.server, low, Kind::Direct, "I am bob");
    world.run();
    assert_eq!(world.start(0, "bob"), chat);
    assert_eq!(world.devices[0].core.chat(chat), [chat]);
    assert!(!world.history(0, low).iter().any(|line| line.contains("I am bob")));
}

#[test]
fn a_peer_that_makes_conversations_without_end_stays_one_chat_and_few_are_kept() {
    let mut world = World::new(&["alice"]);
    let mut peer = Ghost::join(&mut world.server, "peer", 1);
    for n in (1..=40).rev() {
        let id = ConversationId::from_bytes([n; 16]);
        peer.create(&mut world.server, id);
        let alice = world.address(0);
        peer.add(&mut world.server, id, alice);
        peer.say(&mut world.server, id, Kind::Direct, &n.to_string());
        world.run();
    }
    let core = &world.devices[0].core;
    assert_eq!(core.conversations().len(), 1);
    let lowest = ConversationId::from_bytes([1; 16]);
    assert_eq!(world.history(0, lowest).len(), 40, "all of them were shown");
    let groups = world.devices[0].rows.keys().filter(|(table, key)| *table == Table::Mls && key.first() == Some(&1));
    let groups: std::collections::BTreeSet<_> = groups.map(|(_, key)| key[1..17].to_vec()).collect();
    assert!(groups.len() <= 8, "{} groups are kept", groups.len());
    assert_eq!(world.start(0, "peer"), lowest);
}
