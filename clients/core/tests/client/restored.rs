// SPDX-License-Identifier: MIT OR Apache-2.0
//! A server that went back to a backup while its clients did not.

use std::collections::BTreeSet;

use pli_client_core::content::{GroupInfo, Kind};
use pli_client_core::{Command, ConnectionState, Event, Member, NewKey};
use pli_domain::ConversationId;

use crate::ghost::Ghost;
use crate::server::Server;
use crate::world::{Kill, World, handle};

/// Everybody's connection breaks, and the server that answers next is this one.
fn go_back(world: &mut World, server: Server) {
    world.server = server;
    for n in 0..world.devices.len() {
        let now = world.now;
        if !world.devices[n].offline {
            world.devices[n].drop_connection(now);
        }
    }
}

/// The same, and all connect at once.
fn go_back_together(world: &mut World, server: Server) {
    go_back(world, server);
    let now = world.now;
    world.devices.iter_mut().for_each(|device| device.come_back(now));
}

/// So much time goes by, so often.
fn pass(world: &mut World, times: usize, ms: u64) {
    for _ in 0..times {
        world.now += ms;
        world.run();
    }
}

/// The device is in one chat, which has so many members.
fn has_one_chat(world: &World, n: usize, members: usize, context: &str) {
    let chats = world.devices[n].core.conversations();
    let open: Vec<_> = chats.iter().filter(|view| !view.left).collect();
    assert!(matches!(open[..], [view] if view.members.len() == members), "{context}: {n} {open:?}");
}

/// Texts of others in a chat, each at most once.
fn texts(world: &World, n: usize, id: ConversationId) -> Vec<String> {
    let lines = world.history(n, id);
    // Holes of several senders read alike.
    let said: Vec<&String> = lines.iter().filter(|line| !line.starts_with('[')).collect();
    let once: BTreeSet<&&String> = said.iter().collect();
    assert_eq!(once.len(), said.len(), "shown twice: {lines:?}");
    lines
}

fn saw(world: &World, n: usize, wanted: impl Fn(&Event) -> bool) -> bool {
    world.devices[n].events.iter().any(wanted)
}

#[test]
fn two_who_talked_before_and_after_the_backup_go_on() {
    let mut world = World::new(&["alice", "bob"]);
    let chat = world.start(0, "bob");
    world.say(0, chat, "before");
    world.run();
    let backup = world.server.restored(1);
    world.say(0, chat, "after the backup");
    world.run();
    // Accepted, and its receipt is still open when the server is gone.
    world.server.settle = false;
    world.say(1, chat, "unsettled");
    world.run();
    go_back(&mut world, backup);
    world.say(0, chat, "a new one");
    world.say(1, chat, "another");
    world.run();
    assert_eq!(texts(&world, 1, chat), ["alice: before", "alice: after the backup", "alice: a new one"]);
    assert_eq!(texts(&world, 0, chat), ["bob: unsettled", "bob: another"]);
    for n in 0..2 {
        assert_eq!(world.devices[n].core.waiting(), (0, 0));
        assert_eq!(world.devices[n].core.conversations().len(), 1, "one chat");
        assert!(saw(&world, n, |e| *e == Event::ServerRestored));
        assert!(!saw(&world, n, |e| matches!(e, Event::Refused { .. } | Event::Left { .. })));
    }
    assert_eq!(world.start(0, "bob"), world.start(1, "alice"));
    assert_ne!(world.start(0, "bob"), chat);
}

#[test]
fn what_was_on_the_wire_when_the_server_went_back_waits_for_the_heir() {
    let mut world = World::new(&["alice", "bob"]);
    let chat = world.start(0, "bob");
    world.say(0, chat, "before");
    world.run();
    let backup = world.server.restored(1);
    // Sealed and sent, and no verdict came.
    let bob = world.address(1);
    world.server.hold_results.insert(bob);
    world.say(1, chat, "on the wire");
    world.run();
    go_back(&mut world, backup);
    world.run();
    assert!(!saw(&world, 1, |e| matches!(e, Event::Refused { .. } | Event::Left { .. })));
    assert_eq!(texts(&world, 0, chat), ["bob: on the wire"]);
    assert!(world.server.refused.is_empty(), "{:?}", world.server.refused);
}

#[test]
fn what_was_sent_and_not_read_before_the_backup_is_read_after_it_and_once() {
    let mut world = World::new(&["alice", "bob"]);
    let chat = world.start(0, "bob");
    world.say(0, chat, "one");
    world.run();
    world.take_offline(1);
    world.say(0, chat, "two");
    world.run();
    let backup = world.server.restored(1);
    world.bring_online(1);
    world.say(0, chat, "three");
    world.run();
    // Bob has read more than the server knows of now, and the new positions of an equal number are others'.
    go_back(&mut world, backup);
    world.say(0, chat, "four");
    world.run();
    assert_eq!(texts(&world, 1, chat), ["alice: one", "alice: two", "alice: three", "alice: four"]);
}

#[test]
fn a_group_goes_on_with_its_newest_members_and_accounts_register_again() {
    for first in 0..3 {
        let mut world = World::new(&["alice", "bob", "carol"]);
        let group = Command::CreateGroup { name: "team".into(), handles: vec![handle("bob")] };
        let id = world.command(0, group).conversation.unwrap();
        world.say(0, id, "hello");
        world.run();
        let backup = world.server.restored(1);
        let dave = world.join("dave");
        world.run();
        world.command(0, Command::AddMembers { conversation: id, handles: vec![handle("carol"), handle("dave")] });
        world.run();
        world.say(2, id, "carol is here");
        world.run();
        go_back(&mut world, backup);
        for n in (0..4).filter(|n| *n != first) {
            world.take_offline(n);
        }
        world.say(first, id, "from the first");
        world.run();
        for n in (0..4).filter(|n| *n != first) {
            world.bring_online(n);
        }
        world.run();
        for n in [0, 1, 2, dave] {
            world.say(n, id, &format!("{n} after"));
        }
        world.run();
        for n in [0, 1, 2, dave] {
            let view = world.devices[n].core.conversation(id).unwrap();
            assert_eq!((view.members.len(), view.label.as_str(), view.left), (4, "team", false), "{n} with {first}");
            let said = texts(&world, n, id);
            for other in [0, 1, 2, dave].into_iter().filter(|other| *other != n) {
                let text = format!("{}: {other} after", world.devices[other].name);
                assert!(said.contains(&text), "{text} is not in {said:?}, first {first}");
            }
            assert_eq!(world.devices[n].core.waiting(), (0, 0), "{n} with {first}");
        }
        let read = |n: usize| texts(&world, n, id).iter().any(|line| line.ends_with("from the first"));
        // Dave was not known to the server then, so he could not be had.
        assert!((0..3).filter(|n| *n != first).all(read), "{first}: {:?}", [0, 1, 2, 3].map(|n| texts(&world, n, id)));
    }
}

#[test]
fn a_conversation_of_after_the_backup_goes_on_too() {
    let mut world = World::new(&["alice", "bob"]);
    let backup = world.server.restored(1);
    let chat = world.start(0, "bob");
    world.say(0, chat, "hello");
    world.run();
    go_back(&mut world, backup);
    world.say(1, chat, "still here");
    world.run();
    world.say(0, chat, "good");
    world.run();
    assert_eq!(texts(&world, 0, chat), ["bob: still here"]);
    assert_eq!(texts(&world, 1, chat), ["alice: hello", "alice: good"]);
}

#[test]
fn two_restores_of_one_backup_and_a_kill_at_every_step_end_in_one_chat() {
    for step in 0..24 {
        let mut world = World::new(&["alice", "bob"]);
        let chat = world.start(0, "bob");
        world.say(0, chat, "before");
        world.run();
        let backups = [world.server.restored(1), world.server.restored(2)];
        for (round, backup) in backups.into_iter().enumerate() {
            go_back(&mut world, backup);
            let kill = if step % 2 == 0 { crate::world::Kill::BeforeCommit } else { crate::world::Kill::AfterCommit };
            world.devices[round].kill_at = Some((world.devices[round].steps + step / 2, kill));
            world.say(0, chat, &format!("a{round}"));
            world.say(1, chat, &format!("b{round}"));
            world.run();
        }
        assert_eq!(texts(&world, 1, chat), ["alice: before", "alice: a0", "alice: a1"], "{step}");
        assert_eq!(texts(&world, 0, chat), ["bob: b0", "bob: b1"], "{step}");
        assert_eq!(world.start(0, "bob"), world.start(1, "alice"), "{step}");
        assert!((0..2).all(|n| world.devices[n].core.conversations().len() == 1), "{step}");
    }
}

#[test]
fn a_device_that_was_removed_registers_once_and_then_stops() {
    let mut world = World::new(&["alice"]);
    let now = pli_domain::UnixMillis(world.now);
    let core = &mut world.devices[0].core;
    let close = || {
        let reason = Some(pli_api::refusal(pli_api::ErrorCode::UnknownDevice, "unknown"));
        let close = pli_api::edge::Close { reason, reconnect: false };
        pli_api::edge::ServerFrame { frame: Some(pli_api::edge::server_frame::Frame::Close(close)) }
    };
    let first = core.frame(close(), now);
    assert!(matches!(first.session, pli_client_core::SessionAdvice::Reconnect { .. }), "{first:?}");
    assert!(!core.is_registered());
    let again = core.frame(close(), now);
    assert!(matches!(again.session, pli_client_core::SessionAdvice::Stop { .. }), "{again:?}");
}

#[test]
fn nobody_can_pass_off_another_conversation_as_the_beginning_of_theirs() {
    let mut world = World::new(&["alice", "bob"]);
    let group = Command::CreateGroup { name: "team".into(), handles: vec![handle("bob")] };
    let team = world.command(0, group).conversation.unwrap();
    world.run();
    let mut mallory = Ghost::join(&mut world.server, "mallory", 1);
    let theirs = ConversationId::from_bytes([7; 16]);
    mallory.create(&mut world.server, theirs);
    let alice = world.address(0);
    mallory.add(&mut world.server, theirs, alice);
    let forged = GroupInfo { name: "theirs".into(), root: Some(team), outcasts: Vec::new() }.content([2; 16]);
    mallory.tell(&mut world.server, theirs, Kind::Group, &forged);
    world.run();
    let backup = world.server.restored(1);
    go_back(&mut world, backup);
    world.say(0, team, "for the team");
    world.say(0, theirs, "for mallory");
    world.run();
    assert_eq!(texts(&world, 1, team), ["alice: for the team"]);
    let own = |id| world.devices[0].core.conversation(id).unwrap().id;
    assert_ne!(own(team), own(theirs));
    assert_eq!(world.devices[0].core.waiting(), (0, 0));
}

/// Everybody says something and shows what the others say; each has one chat.
fn all_talk(world: &mut World, who: &[usize], id: ConversationId, what: &str) {
    for n in who {
        world.say(*n, id, &format!("{what} {n}"));
    }
    world.run();
    for n in who {
        let said = texts(world, *n, id);
        for other in who.iter().filter(|other| *other != n) {
            let text = format!("{}: {what} {other}", world.devices[*other].name);
            assert!(
                said.iter().any(|line| line.starts_with(&text)),
                "{} lacks `{text}`: {said:?}",
                world.devices[*n].name
            );
        }
        assert_eq!(world.devices[*n].core.waiting(), (0, 0), "{}", world.devices[*n].name);
    }
}

fn group(world: &mut World, others: &[&str]) -> ConversationId {
    let handles = others.iter().map(|name| handle(name)).collect();
    let id = world.command(0, Command::CreateGroup { name: "team".into(), handles }).conversation.unwrap();
    world.run();
    id
}

#[test]
fn a_welcome_that_is_quicker_than_the_answer_is_not_forgotten() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let team = group(&mut world, &["bob", "carol"]);
    let chat = world.start(0, "bob");
    all_talk(&mut world, &[0, 1, 2], team, "before");
    all_talk(&mut world, &[0, 1], chat, "before");
    let mut backup = world.server.restored(1);
    backup.late_creates = (0..3).map(|n| world.address(n)).collect();
    // The first one hears at once.
    backup.late_creates.remove(&world.address(0));
    go_back_together(&mut world, backup);
    (0..3).for_each(|n| world.devices[n].events.clear());
    all_talk(&mut world, &[0, 1, 2], team, "after");
    all_talk(&mut world, &[0, 1], chat, "after");
    for n in 0..3 {
        assert!(!saw(&world, n, |e| matches!(e, Event::AddedByStranger { .. })), "{}", world.devices[n].name);
    }
}

#[test]
fn a_copy_of_a_profile_from_before_the_restore_is_let_in_after_it() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let team = group(&mut world, &["bob", "carol"]);
    let chat = world.start(2, "alice");
    all_talk(&mut world, &[0, 1, 2], team, "before");
    all_talk(&mut world, &[0, 2], chat, "before");
    let copy = world.devices[2].rows.clone();
    let backup = world.server.restored(1);
    go_back(&mut world, backup);
    all_talk(&mut world, &[0, 1, 2], team, "after");
    all_talk(&mut world, &[0, 2], chat, "after");
    world.devices[2].rows = copy;
    world.devices[2].restart(world.now);
    world.run();
    all_talk(&mut world, &[0, 1, 2], team, "from the copy");
    all_talk(&mut world, &[0, 2], chat, "from the copy");
    for n in 0..3 {
        let chats = world.devices[n].core.conversations();
        assert_eq!(chats.iter().filter(|view| view.kind == Kind::Group && !view.left).count(), 1, "{chats:?}");
    }
}

#[test]
fn whoever_missed_two_restores_finds_the_group_of_the_others() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let team = group(&mut world, &["bob", "carol"]);
    all_talk(&mut world, &[0, 1, 2], team, "before");
    world.take_offline(2);
    for history in 1..=2 {
        let backup = world.server.restored(history);
        go_back(&mut world, backup);
        all_talk(&mut world, &[0, 1], team, &format!("{history}"));
    }
    world.bring_online(2);
    world.run();
    all_talk(&mut world, &[0, 1, 2], team, "together");
    for n in 0..3 {
        let chats = world.devices[n].core.conversations();
        assert_eq!(chats.iter().filter(|view| !view.left).count(), 1, "{}: {chats:?}", world.devices[n].name);
    }
}

#[test]
fn two_that_began_at_once_and_of_whom_one_was_silent_go_on() {
    // Either of the two may have the lower id.
    for seed in 0..8 {
        let mut world = World::seeded(&["alice", "bob"], seed);
        let (ours, theirs) = (world.start(0, "bob"), world.start(1, "alice"));
        world.run();
        world.say(0, ours, "before");
        world.run();
        let backup = world.server.restored(1);
        go_back_together(&mut world, backup);
        world.server.calls.clear();
        all_talk(&mut world, &[0, 1], ours, "after");
        all_talk(&mut world, &[0, 1], theirs, "again");
        let made = world.server.calls.iter().filter(|method| *method == "Create").count();
        assert!(made <= 2, "each tries to make the one that goes on: {made}");
        for n in 0..2 {
            let chats = world.devices[n].core.conversations();
            assert_eq!(chats.iter().filter(|view| !view.left).count(), 1, "{}: {chats:?}", world.devices[n].name);
        }
    }
}

#[test]
fn a_verdict_that_a_restored_server_cannot_give_keeps_nothing_waiting() {
    let mut world = World::new(&["alice", "bob"]);
    world.take_offline(1);
    let chat = world.start(0, "bob");
    world.say(0, chat, "before");
    world.run();
    // Bob lost the invitation, joins by himself, and hears no verdict; what Alice says to him then waits for it.
    let last = world.server.lose_oldest(world.address(1), 2);
    world.bring_online(1);
    world.gap(1, last);
    world.server.hold_commits = true;
    world.run_a_little(100);
    world.say(0, chat, "after");
    world.run_a_little(100);
    let backup = world.server.restored(1);
    go_back_together(&mut world, backup);
    world.run();
    all_talk(&mut world, &[0, 1], chat, "on the restored one");
}

#[test]
fn an_invitation_that_every_restore_brings_back_makes_no_second_group() {
    for seed in 0..8 {
        let mut world = World::seeded(&["alice", "bob"], seed);
        world.take_offline(1);
        let team = group(&mut world, &["bob"]);
        let backup = world.server.clone();
        for history in 1..=3 {
            go_back(&mut world, backup.restored(history));
            // Whoever had read it makes the one that goes on, and the invitation to that lies behind the old one.
            world.say(0, team, &format!("{history}"));
            world.run();
            world.bring_online(1);
            world.run();
            all_talk(&mut world, &[0, 1], team, &format!("in {history}"));
            world.take_offline(1);
        }
        for n in 0..2 {
            let chats = world.devices[n].core.conversations();
            assert_eq!(chats.iter().filter(|view| !view.left).count(), 1, "{seed} {n}: {chats:?}");
        }
    }
}

#[test]
fn whoever_left_a_group_stays_out_of_it_where_a_restore_brings_the_invitation_back() {
    for seed in 0..16 {
        let mut world = World::seeded(&["alice", "bob", "carol"], seed);
        world.take_offline(1);
        if seed >= 8 {
            // Of who is away there are only packages of last resort, which open an invitation twice.
            let first = world.server.restored(2);
            go_back(&mut world, first);
            world.run();
        }
        let team = group(&mut world, &["bob", "carol"]);
        let backup = world.server.restored(1);
        world.bring_online(1);
        world.run();
        all_talk(&mut world, &[0, 1, 2], team, "before");
        let account = world.address(1).account;
        world.command(0, Command::RemoveMembers { conversation: team, accounts: vec![account] });
        world.run();
        assert!(saw(
            &world,
            1,
            |e| matches!(e, Event::Left { by: Some(by), .. } if by.handle == Some(handle("alice")))
        ));
        world.devices[1].events.clear();
        go_back_together(&mut world, backup);
        world.run();
        all_talk(&mut world, &[0, 2], team, "after");
        let chats = world.devices[1].core.conversations();
        assert!(chats.iter().all(|view| view.left), "{seed}: {chats:?}");
        assert!(!saw(&world, 1, |e| matches!(e, Event::Rejoining { .. } | Event::SameChat { .. })), "{seed}");
    }
}

/// Alice removes bob from a group of four after the backup; who of carol and dave hears of it, and who connects first.
fn removed_before_a_restore(seed: u8, heard: &[usize], order: &[usize]) -> (World, ConversationId) {
    let mut world = World::seeded(&["alice", "bob", "carol", "dave"], seed);
    let team = group(&mut world, &["bob", "carol", "dave"]);
    all_talk(&mut world, &[0, 1, 2, 3], team, "before");
    let backup = world.server.restored(1);
    for n in (1..4).filter(|n| !heard.contains(n)) {
        world.take_offline(n);
    }
    let account = world.address(1).account;
    world.command(0, Command::RemoveMembers { conversation: team, accounts: vec![account] });
    world.run();
    go_back(&mut world, backup);
    world.take_offline(0);
    heard.iter().for_each(|n| world.take_offline(*n));
    for n in order {
        world.bring_online(*n);
        world.run();
    }
    pass(&mut world, 20, 10_000);
    (world, team)
}

#[test]
fn whoever_was_removed_before_a_restore_is_out_after_it_whoever_had_heard_and_whoever_is_first() {
    let mut seed = 0;
    for heard in [&[][..], &[3], &[2, 3], &[1]] {
        for order in [[0, 1, 2, 3], [1, 2, 3, 0], [2, 1, 0, 3], [3, 2, 1, 0], [1, 3, 0, 2]] {
            seed += 1;
            let (mut world, team) = removed_before_a_restore(seed, heard, &order);
            let context = format!("{heard:?} {order:?}");
            all_talk(&mut world, &[0, 2, 3], team, "after");
            for n in [0, 2, 3] {
                has_one_chat(&world, n, 3, &context);
            }
            assert!(!texts(&world, 1, team).iter().any(|text| text.contains("after")), "{context}");
            let by = |e: &Event| matches!(e, Event::Left { by: Some(by), .. } if by.handle != Some(handle("bob")));
            world.now += 300_000;
            world.run();
            let chats = world.devices[1].core.conversations();
            assert!(saw(&world, 1, by) && chats.iter().all(|view| view.left), "{context}: {chats:?}");
            for n in [0, 2, 3] {
                has_one_chat(&world, n, 3, &context);
            }
        }
    }
}

#[test]
fn whoever_was_removed_hears_so_in_the_end_also_by_commands_that_are_short() {
    let (mut world, _) = removed_before_a_restore(1, &[], &[0, 2, 3]);
    for _ in 0..10 {
        world.bring_online(1);
        world.run_a_little(200);
        world.take_offline(1);
        let now = world.now;
        world.devices[1].restart(now);
        world.now += 40_000;
    }
    let by = |e: &Event| matches!(e, Event::Left { by: Some(_), .. });
    let waits = |e: &Event| matches!(e, Event::Waiting { why, .. } if why.message.contains("you were removed"));
    assert!(saw(&world, 1, waits) && saw(&world, 1, by), "{:?}", world.devices[1].core.conversations());
}

#[test]
fn whoever_leaves_out_somebody_on_the_word_of_another_tells_whose_word_it_was() {
    let (world, team) = removed_before_a_restore(1, &[], &[0, 1, 2, 3]);
    for n in [2, 3] {
        let goes_on = world.devices[n].core.conversation(team).unwrap().id;
        let told = |e: &Event| match e {
            Event::MemberRemoved { conversation, member, by: Some(by) } => {
                let names = (member.handle.clone(), by.handle.clone());
                *conversation == goes_on && names == (Some(handle("bob")), Some(handle("alice")))
            }
            _ => false,
        };
        assert_eq!(world.devices[n].events.iter().filter(|e| told(e)).count(), 1, "{n}");
    }
}

#[test]
fn whoever_left_and_is_brought_in_again_after_a_restore_hears_by_whom() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let team = group(&mut world, &["bob", "carol"]);
    let backup = world.server.restored(1);
    [0, 2].into_iter().for_each(|n| world.take_offline(n));
    world.command(1, Command::Leave { conversation: team });
    world.run();
    go_back(&mut world, backup);
    world.devices[1].events.clear();
    world.bring_online(2);
    world.run();
    let by_carol = |by: &Option<Member>| by.as_ref().is_some_and(|by| by.handle == Some(handle("carol")));
    assert!(saw(&world, 1, |e| matches!(e, Event::ConversationReady { added_by, .. } if by_carol(added_by))));
}

#[test]
fn whoever_was_removed_and_registers_after_the_others_is_taken_out_again_though_the_remover_comes_last() {
    for (seed, order) in [[3, 1, 0, 2], [3, 0, 1, 2], [0, 3, 1, 2], [1, 3, 2, 0]].into_iter().enumerate() {
        let mut world = World::seeded(&["alice", "carol", "dave"], u8::try_from(seed).unwrap());
        let backup = world.server.restored(1);
        let bob = world.join("bob");
        world.run();
        let team = group(&mut world, &["carol", "dave", "bob"]);
        all_talk(&mut world, &[0, 1, 2, bob], team, "before");
        [1, 2].into_iter().for_each(|n| world.take_offline(n));
        let account = world.address(bob).account;
        world.command(0, Command::RemoveMembers { conversation: team, accounts: vec![account] });
        world.run();
        go_back(&mut world, backup);
        [0, bob].into_iter().for_each(|n| world.take_offline(n));
        // In the names of the order 3 is bob.
        for n in order {
            world.bring_online(n);
            world.run();
            world.now += 20_000;
            world.run();
        }
        pass(&mut world, 20, 10_000);
        all_talk(&mut world, &[0, 1, 2], team, "after");
        for n in 0..3 {
            has_one_chat(&world, n, 3, &format!("{order:?}"));
        }
        assert!(!texts(&world, bob, team).iter().any(|text| text.contains("after")), "{order:?}");
    }
}

#[test]
fn nobody_is_removed_on_the_word_of_a_stranger() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let mut mallory = Ghost::join(&mut world.server, "mallory", 1);
    let backup = world.server.restored(1);
    let others = Command::CreateGroup { name: "team".into(), handles: vec![handle("bob")] };
    let team = world.command(2, others).conversation.unwrap();
    world.run();
    // Mallory knows the team's id, and brings alice, who is not in it, into one of her own that she says goes on for it,
    // from which bob was removed; before her eyes, too.
    let (alice, bob) = (world.address(0), world.address(1));
    let theirs = ConversationId::from_bytes([7; 16]);
    mallory.create(&mut world.server, theirs);
    mallory.add(&mut world.server, theirs, alice);
    let outcasts = vec![bob.account];
    let forged = GroupInfo { name: "theirs".into(), root: Some(team), outcasts }.content([2; 16]);
    mallory.tell(&mut world.server, theirs, Kind::Group, &forged);
    world.run();
    mallory.add(&mut world.server, theirs, bob);
    world.run();
    mallory.remove(&mut world.server, theirs, bob);
    world.run();
    world.command(2, Command::AddMembers { conversation: team, handles: vec![handle("alice")] });
    world.run();
    all_talk(&mut world, &[0, 1, 2], team, "together");
    go_back_together(&mut world, backup);
    world.run();
    all_talk(&mut world, &[0, 1, 2], team, "after");
}

#[test]
fn whoever_was_added_again_while_somebody_was_away_is_in_after_a_restore() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let backup = world.server.restored(1);
    let team = group(&mut world, &["bob", "carol"]);
    all_talk(&mut world, &[0, 1, 2], team, "before");
    let account = world.address(1).account;
    world.command(0, Command::RemoveMembers { conversation: team, accounts: vec![account] });
    world.run();
    // Alice comes back by herself into a group that has bob again.
    world.take_offline(0);
    world.command(2, Command::AddMembers { conversation: team, handles: vec![handle("bob")] });
    world.run();
    let last = world.server.lose_queue(world.address(0));
    world.server.commits_gone = true;
    world.bring_online(0);
    world.gap(0, last);
    pass(&mut world, 10, 30_000);
    assert!(saw(&world, 0, |e| matches!(e, Event::Rejoining { .. })));
    all_talk(&mut world, &[0, 1, 2], team, "again");
    go_back(&mut world, backup);
    pass(&mut world, 20, 10_000);
    all_talk(&mut world, &[0, 1, 2], team, "after");
}

#[test]
fn whoever_is_added_again_after_a_restore_goes_on_with_all_after_the_next_one() {
    let mut world = World::new(&["alice", "bob", "carol", "dave"]);
    let team = group(&mut world, &["bob", "carol", "dave"]);
    all_talk(&mut world, &[0, 1, 2, 3], team, "before");
    let (first, second) = (world.server.restored(1), world.server.restored(2));
    let account = world.address(3).account;
    world.command(0, Command::RemoveMembers { conversation: team, accounts: vec![account] });
    world.run();
    go_back(&mut world, first);
    world.run();
    world.command(1, Command::AddMembers { conversation: team, handles: vec![handle("dave")] });
    world.run();
    go_back(&mut world, second);
    pass(&mut world, 10, 10_000);
    for n in 0..4 {
        has_one_chat(&world, n, 4, "");
    }
    // Dave left the first, and has what he was added to as a chat of its own.
    let open = world.devices[3].core.conversations().into_iter().find(|view| !view.left).unwrap().id;
    world.say(3, open, "here again");
    world.say(0, team, "welcome");
    world.run();
    assert!(texts(&world, 1, team).contains(&"dave: here again".into()));
    assert!(texts(&world, 3, open).contains(&"alice: welcome".into()));
}

#[test]
fn a_device_that_meets_a_restored_server_comes_in_by_its_invitation_however_late() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let backup = world.server.restored(1);
    go_back(&mut world, backup);
    world.run();
    let team = group(&mut world, &["bob", "carol"]);
    let lap = world.prepare(0, "alice/lap");
    world.name_in_list(0, lap);
    world.run();
    // The invitation is on its way to it when it asks which conversations it is in.
    let late = world.address(lap);
    world.server.late.insert(late);
    world.bring_online(lap);
    world.run();
    world.now += 60_000;
    world.run();
    world.server.late.clear();
    world.run();
    assert!(!saw(&world, lap, |e| matches!(e, Event::Rejoining { .. })));
    let chats = world.devices[lap].core.conversations();
    assert_eq!(chats.iter().map(|view| view.name.as_deref()).collect::<Vec<_>>(), [Some("team")]);
    world.say(1, team, "hello, laptop");
    world.run();
    assert_eq!(texts(&world, lap, team), ["bob: hello, laptop"]);
}

/// Alice with bob, who came and talked with her after the backup was taken.
fn met_after_the_backup() -> (World, Server, usize, ConversationId) {
    let mut world = World::new(&["alice"]);
    let backup = world.server.restored(1);
    let bob = world.join("bob");
    world.run();
    let chat = world.start(0, "bob");
    world.say(0, chat, "before");
    world.run();
    (world, backup, bob, chat)
}

#[test]
fn whoever_waits_for_an_account_that_the_restored_server_does_not_know_hears_why() {
    let (mut world, backup, bob, chat) = met_after_the_backup();
    go_back(&mut world, backup);
    world.take_offline(bob);
    world.say(0, chat, "are you there?");
    world.run();
    let waits = |e: &Event| matches!(e, Event::Waiting { why, .. } if why.message.contains("does not know @bob yet"));
    assert_eq!(world.devices[0].events.iter().filter(|e| waits(e)).count(), 1);
    world.bring_online(bob);
    world.run();
    assert!(texts(&world, bob, chat).contains(&"alice: are you there?".to_owned()));
}

#[test]
fn a_group_keeps_its_name_and_what_was_told_of_its_messages() {
    for seed in 0..6 {
        let mut world = World::seeded(&["alice", "bob", "carol"], seed * 16);
        let team = |others: &[&str]| Command::CreateGroup {
            name: "team".into(),
            handles: others.iter().map(|other| handle(other)).collect(),
        };
        let first = world.command(0, team(&["bob"])).conversation.unwrap();
        world.run();
        let second = world.command(2, team(&["alice", "bob"])).conversation.unwrap();
        let lane_no = world.say(0, first, "hello").message.unwrap().lane_no;
        world.run();
        let label = |world: &World, id| world.devices[0].core.label_of(id).1;
        assert_eq!(label(&world, first), "team");
        let (named, told) = (label(&world, second), world.devices[0].core.reached(first, lane_no));
        assert!(named.starts_with("team~") && told.len() == 1, "{named} {told:?}");
        let backup = world.server.restored(1);
        go_back(&mut world, backup);
        world.run();
        // By the ids of before and those of now.
        for id in world.devices[0].core.chat(first) {
            assert_eq!(label(&world, id), "team", "{seed}");
        }
        assert!(label(&world, second).starts_with("team~"), "{seed}");
        assert_eq!(world.devices[0].core.reached(first, lane_no), told, "{seed}");
        assert!((0..3).all(|n| world.devices[n].core.has_caught_up()), "{seed}");
    }
}

#[test]
fn a_handle_that_somebody_else_has_after_a_restore_is_told_as_a_new_identity_and_named_apart() {
    let (mut world, backup, old, _) = met_after_the_backup();
    world.take_offline(old);
    go_back(&mut world, backup);
    let other = world.join("bob");
    let greeting = world.start(other, "alice");
    world.say(other, greeting, "I am bob as well");
    world.run();
    let told = |world: &World| -> Vec<(String, NewKey)> {
        let events = world.devices[0].events.iter();
        events
            .filter_map(|e| match e {
                Event::NewKey { member, what, .. } => Some((member.name(), *what)),
                _ => None,
            })
            .collect()
    };
    assert_eq!(told(&world), [("bob".into(), NewKey::FirstContact), ("bob".into(), NewKey::Identity)]);
    let short = &world.address(old).account.to_string()[..6];
    let mut chats: Vec<Vec<String>> = world.devices[0]
        .core
        .conversations()
        .into_iter()
        .map(|view| view.members.iter().map(Member::name).filter(|name| name != "alice").collect())
        .collect();
    chats.sort();
    assert_eq!(chats.last().unwrap(), &["bob"], "the new one has the name: {chats:?}");
    let now = world.now;
    world.devices[0].restart(now);
    let with = world.start(0, "bob");
    assert_eq!(world.devices[0].core.chat(with), world.devices[0].core.chat(greeting), "@bob means the new one");
    world.say(0, with, "who are you");
    world.run();
    assert_eq!(texts(&world, other, greeting), ["alice: who are you"]);
    let former = world.devices[0].core.notices(0);
    assert!(
        matches!(&former[0], Event::NewKey { member, .. } if member.name() == format!("bob~{short}")),
        "{former:?}"
    );
}

#[test]
fn what_is_told_once_is_kept_for_whoever_looks_later() {
    let mut world = World::new(&["alice", "bob"]);
    let chat = world.start(0, "bob");
    world.say(0, chat, "hello");
    world.run();
    let once =
        |event: &&Event| matches!(event, Event::NewKey { .. } | Event::AddedByStranger { .. } | Event::Lost { .. });
    let told: Vec<Event> = world.devices[1].events.iter().filter(once).cloned().collect();
    assert_eq!(told.len(), 1);
    let now = world.now;
    world.devices[1].restart(now);
    assert_eq!(world.devices[1].core.notices(0), told);
    assert_eq!(world.devices[1].core.notices(told[0].order().unwrap()), []);
}

#[test]
fn a_group_of_one_goes_on_after_a_restore_and_takes_others_in() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let id = group(&mut world, &["bob"]);
    let bob = world.address(1).account;
    world.command(0, Command::RemoveMembers { conversation: id, accounts: vec![bob] });
    world.run();
    let backup = world.server.restored(1);
    go_back_together(&mut world, backup);
    world.run();
    let views = world.devices[0].core.conversations();
    let team = views.iter().find(|view| view.name.as_deref() == Some("team")).expect("it is there");
    assert!(!team.left && team.ready && team.members.len() == 1, "{team:?}");
    let now = team.id;
    world.command(0, Command::AddMembers { conversation: now, handles: vec![handle("carol")] });
    world.run();
    world.say(0, now, "more of us");
    world.run();
    assert_eq!(texts(&world, 2, now), ["alice: more of us"]);
}

#[test]
fn what_goes_on_has_the_name_before_the_restored_server_was_asked() {
    let mut world = World::new(&["alice", "bob"]);
    let id = group(&mut world, &["bob"]);
    let backup = world.server.restored(1);
    world.take_offline(1);
    go_back(&mut world, backup);
    world.run();
    world.say(0, id, "after");
    world.run();
    world.bring_online(1);
    let (mut both, mut online) = (false, false);
    for _ in 0..200 {
        world.run_a_little(1);
        let core = &world.devices[1].core;
        let views = core.conversations();
        for view in &views {
            let label = core.label_of(view.id).1;
            // The name is learned a moment after the invitation.
            assert!(["", "team"].contains(&label.as_str()) || label.starts_with('~'), "{label}");
            both |= views.len() == 2 && label == "team" && view.id != id;
        }
        // That it has read all that waited is not enough to know what is here.
        online |= core.connection() == ConnectionState::Online && !core.has_caught_up();
    }
    assert!(both && online);
    assert!(world.devices[1].core.has_caught_up());
    assert_eq!(world.devices[1].core.conversations().len(), 1);
}

#[test]
fn what_goes_on_is_a_group_also_where_its_maker_went_before_saying_so() {
    for steps in 0..30 {
        let mut world = World::new(&["alice", "bob"]);
        let id = group(&mut world, &["bob"]);
        let backup = world.server.restored(1);
        world.take_offline(1);
        go_back(&mut world, backup);
        world.run_a_little(steps);
        world.take_offline(0);
        world.bring_online(1);
        world.run();
        world.bring_online(0);
        world.run();
        for n in 0..2 {
            let views = world.devices[n].core.conversations();
            assert_eq!(views.len(), 1, "{steps}: {views:?}");
            assert!(
                views[0].peer.is_none() && views[0].parts.len() == 2 && views[0].parts[1] == id,
                "{steps}: {views:?}"
            );
        }
    }
}

#[test]
fn a_group_of_one_goes_on_wherever_its_member_is_killed() {
    for (step, kill) in (1..14).flat_map(|step| [(step, Kill::BeforeCommit), (step, Kill::AfterCommit)]) {
        let mut world = World::new(&["alice", "bob"]);
        let id = group(&mut world, &["bob"]);
        let bob = world.address(1).account;
        world.command(0, Command::RemoveMembers { conversation: id, accounts: vec![bob] });
        world.run();
        let backup = world.server.restored(1);
        go_back_together(&mut world, backup);
        let at = world.devices[0].steps + step;
        world.devices[0].kill_at = Some((at, kill));
        world.run();
        let views = world.devices[0].core.conversations();
        let team = views.iter().find(|view| view.name.as_deref() == Some("team")).expect("it is there");
        assert!(!team.left && team.ready && team.members.len() == 1, "step {step} {kill:?}: {team:?}");
    }
}

#[test]
fn what_was_held_back_while_the_conversation_went_on_is_late() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let id = group(&mut world, &["bob", "carol"]);
    let backup = world.server.restored(1);
    world.take_offline(1);
    world.say(0, id, "lost");
    world.say(0, id, "held");
    world.run();
    let bob = world.address(1);
    world.server.lose_first(bob);
    world.bring_online(1);
    world.run_a_little(30);
    assert!(world.history(1, id).is_empty(), "held for what is missing: {:?}", world.history(1, id));
    let now = world.now;
    world.devices[0].restart(now);
    go_back_together(&mut world, backup);
    world.say(0, id, "new");
    world.run();
    assert_eq!(world.history(1, id), ["alice: new", "[2-2 missing]", "alice: held (late)"]);
}

#[test]
fn whoever_went_on_in_a_history_that_was_lost_is_with_those_who_went_on_in_the_next() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let (first, second) = (world.server.restored(1), world.server.restored(2));
    let team = group(&mut world, &["bob", "carol"]);
    all_talk(&mut world, &[0, 1, 2], team, "before");
    // Carol makes what goes on in one history, and alice in the next, which the third is a copy of.
    go_back(&mut world, first);
    [0, 1].into_iter().for_each(|n| world.take_offline(n));
    world.run();
    go_back(&mut world, second);
    world.take_offline(2);
    world.bring_online(0);
    world.run();
    let third = world.server.restored(3);
    go_back(&mut world, third);
    [2, 1].into_iter().for_each(|n| world.bring_online(n));
    world.run();
    pass(&mut world, 10, 10_000);
    all_talk(&mut world, &[0, 1, 2], team, "after");
    for n in 0..3 {
        let chats = world.devices[n].core.conversations();
        assert!(matches!(&chats[..], [chat] if chat.members.len() == 3), "{n} {chats:?}");
    }
}

#[test]
fn whoever_removes_somebody_in_what_goes_on_does_not_bring_them_in_again() {
    for again in [false, true] {
        let mut world = World::new(&["alice", "bob", "carol"]);
        let backup = world.server.restored(1);
        let team = group(&mut world, &["bob", "carol"]);
        all_talk(&mut world, &[0, 1, 2], team, "before");
        go_back(&mut world, backup);
        [0, 1].into_iter().for_each(|n| world.take_offline(n));
        world.run();
        // Alice is let in, and is still to look whether all are there.
        world.bring_online(0);
        while world.devices[0].core.conversation(team).is_none_or(|view| view.id == team || !view.ready) {
            world.run_on(1);
        }
        let account = world.address(1).account;
        world.command(0, Command::RemoveMembers { conversation: team, accounts: vec![account] });
        world.run();
        if again {
            // Bob reads all at once, that he was added again by a wish too.
            world.command(2, Command::AddMembers { conversation: team, handles: vec![handle("bob")] });
            world.run();
        }
        world.bring_online(1);
        world.run();
        pass(&mut world, 5, 60_000);
        let all: &[usize] = if again { &[0, 1, 2] } else { &[0, 2] };
        for n in [0, 2] {
            let view = world.devices[n].core.conversation(team).unwrap();
            assert_eq!(view.members.len(), all.len(), "{n} {again}");
        }
        let next = world.devices[0].core.conversation(team).unwrap().id;
        assert_eq!(world.server.was_back(next, world.address(1)), again);
        world.say(0, team, "after");
        world.run();
        let open = world.devices[1].core.conversations().into_iter().find(|view| !view.left);
        assert_eq!(open.is_some(), again, "{open:?}");
    }
}

#[test]
fn where_whoever_was_first_never_lets_anybody_in_the_others_have_one_group() {
    let mut world = World::new(&["alice", "bob", "carol", "dave"]);
    let backup = world.server.restored(1);
    let team = group(&mut world, &["bob", "carol", "dave"]);
    all_talk(&mut world, &[0, 1, 2, 3], team, "before");
    go_back(&mut world, backup);
    (1..4).for_each(|n| world.take_offline(n));
    world.server.calls.clear();
    while !world.server.calls.iter().any(|call| call == "Create") {
        world.run_on(1);
    }
    world.take_offline(0);
    for n in 1..4 {
        world.bring_online(n);
    }
    world.run();
    pass(&mut world, 12, 60_000);
    for n in 1..4 {
        let chats = world.devices[n].core.conversations();
        assert!(matches!(&chats[..], [chat] if chat.members.len() == 4), "{n} {chats:?}");
    }
    all_talk(&mut world, &[1, 2, 3], team, "without alice");
    world.bring_online(0);
    world.run();
    pass(&mut world, 12, 60_000);
    for n in 0..4 {
        let chats = world.devices[n].core.conversations();
        assert!(matches!(&chats[..], [chat] if chat.members.len() == 4), "{n} {chats:?}");
    }
    all_talk(&mut world, &[0, 1, 2, 3], team, "after");
}

/// Alice, bob and carol in a group that has gone on once, and another device that was let in by alice and does not know what
/// it is in; then the next backup. The device has gone, and has said something.
fn let_in_without_a_name(linked: bool) -> (World, ConversationId, usize, Server) {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let first = world.server.restored(1);
    let team = group(&mut world, &["bob", "carol"]);
    all_talk(&mut world, &[0, 1, 2], team, "before");
    go_back(&mut world, first);
    pass(&mut world, 3, 10_000);
    let new = if linked { None } else { Some(world.join("erin")) };
    world.run();
    let alice = world.address(0);
    world.server.hold_messages.insert(alice);
    let new = new.unwrap_or_else(|| world.link(0, "alice/lap"));
    if !linked {
        world.command(0, Command::AddMembers { conversation: team, handles: vec![handle("erin")] });
    }
    while world.devices[new].core.conversations().is_empty() {
        world.run_on(1);
    }
    let mut second = world.server.restored(2);
    second.hold_messages.clear();
    world.take_offline(new);
    let unnamed = world.devices[new].core.conversations()[0].id;
    world.say(new, unnamed, "where am I?");
    (world, team, new, second)
}

#[test]
fn whoever_did_not_hear_what_a_group_goes_on_for_waits_and_is_with_the_others() {
    for (linked, killed) in [(true, false), (true, true), (false, false), (false, true)] {
        let (mut world, team, new, second) = let_in_without_a_name(linked);
        let third = second.restored(3);
        go_back(&mut world, second);
        [0, 1, 2].into_iter().for_each(|n| world.take_offline(n));
        world.bring_online(new);
        pass(&mut world, 12, 60_000);
        if killed {
            // Yet another history, and the program ends and begins again.
            go_back(&mut world, third);
            let now = world.now;
            world.devices[new].restart(now);
            pass(&mut world, 2, 60_000);
        }
        [0, 1, 2].into_iter().for_each(|n| world.bring_online(n));
        pass(&mut world, 12, 60_000);
        let (members, context) = (if linked { 3 } else { 4 }, format!("{linked} {killed}"));
        for n in [0, 1, 2, new] {
            has_one_chat(&world, n, members, &context);
        }
        let open = world.devices[new].core.conversations().into_iter().find(|view| !view.left).unwrap();
        assert_eq!(open.name.as_deref(), Some("team"), "{context}");
        world.say(new, open.id, "here");
        all_talk(&mut world, &[0, 1, 2], team, "after");
        for said in [": where am I?", ": here"] {
            assert!(texts(&world, 1, team).iter().any(|line| line.ends_with(said)), "{context}: {said}");
        }
        assert!(texts(&world, new, open.id).contains(&"carol: after 2".into()), "{context}");
    }
}

#[test]
fn whoever_was_removed_unseen_by_a_device_without_a_name_is_not_brought_in_by_it() {
    let (mut world, team, lap, second) = let_in_without_a_name(true);
    let account = world.address(2).account;
    world.command(1, Command::RemoveMembers { conversation: team, accounts: vec![account] });
    world.run();
    go_back(&mut world, second);
    [0, 1, 2].into_iter().for_each(|n| world.take_offline(n));
    world.bring_online(lap);
    world.run();
    [0, 1, 2].into_iter().for_each(|n| world.bring_online(n));
    pass(&mut world, 12, 60_000);
    for n in [0, 1, lap] {
        has_one_chat(&world, n, 2, "");
    }
    let next = world.devices[0].core.conversation(team).unwrap().id;
    assert!(!world.server.was_in(next, world.address(2)));
    assert!(world.devices[2].core.conversations().iter().all(|view| view.left || view.id != next));
}

#[test]
fn a_group_that_nobody_is_left_to_name_goes_on_after_a_day() {
    let (mut world, _, lap, second) = let_in_without_a_name(true);
    go_back(&mut world, second);
    [0, 1, 2].into_iter().for_each(|n| world.take_offline(n));
    world.bring_online(lap);
    pass(&mut world, 20, 3_600_000);
    let unmade = |view: &pli_client_core::ConversationView| !view.left && !view.ready;
    assert!(matches!(&world.devices[lap].core.conversations()[..], [view] if unmade(view)));
    pass(&mut world, 6, 3_600_000);
    has_one_chat(&world, lap, 3, "");
    assert_eq!(world.devices[lap].core.waiting(), (0, 0));
}
