// SPDX-License-Identifier: MIT OR Apache-2.0
use pli_client_core::content::{GroupInfo, Kind};
use pli_client_core::{Command, CommandError, Event, Reached};
use pli_domain::{ConversationId, DeviceAddress, Handle, UnixMillis};

use crate::ghost::Ghost;
use crate::server::Server;
use crate::world::{World, handle};

fn group(world: &mut World, names: &[&str]) -> ConversationId {
    let handles = names.iter().map(|n| handle(n)).collect();
    let id = world.command(0, Command::CreateGroup { name: "team".into(), handles }).conversation.unwrap();
    world.run();
    id
}

#[test]
fn five_people_talk_in_a_group_and_know_its_name() {
    let mut world = World::new(&["alice", "bob", "carol", "dave", "erin"]);
    let id = group(&mut world, &["bob", "carol", "dave", "erin"]);
    for n in 0..5 {
        let name = world.devices[n].name.clone();
        world.say(n, id, &format!("I am {name}"));
    }
    world.run();
    for n in 0..5 {
        let view = world.devices[n].core.conversation(id).unwrap();
        assert_eq!((view.name.as_deref(), view.members.len(), view.ready), (Some("team"), 5, true));
        let mut history = world.history(n, id);
        history.sort();
        let others = ["alice", "bob", "carol", "dave", "erin"].iter().enumerate().filter(|(o, _)| *o != n);
        assert_eq!(history, others.map(|(_, name)| format!("{name}: I am {name}")).collect::<Vec<_>>());
    }
}

#[test]
fn people_come_and_go() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let id = group(&mut world, &["bob"]);
    world.say(0, id, "before");
    world.run();
    world.command(0, Command::AddMembers { conversation: id, handles: vec![handle("carol")] });
    world.run();
    world.say(1, id, "welcome");
    world.run();
    assert_eq!(world.history(2, id), ["bob: welcome"]);
    assert_eq!(world.devices[2].core.conversation(id).unwrap().name.as_deref(), Some("team"));
    assert!(world.devices[1].events.iter().any(|e| matches!(e, Event::MemberAdded { .. })));

    let bob = world.address(1).account;
    world.command(2, Command::RemoveMembers { conversation: id, accounts: vec![bob] });
    world.run();
    assert!(world.devices[1].events.iter().any(|e| matches!(e, Event::Left { .. })));
    // Whoever reads the last message when the removal is here already.
    world.command(1, Command::MarkRead { conversation: id });
    assert!(!world.try_command(1, &Command::MarkRead { conversation: ConversationId::from_bytes([9; 16]) }));
    assert!(world.devices[0].events.iter().any(|e| matches!(e, Event::MemberRemoved { by: Some(_), .. })));
    world.say(0, id, "without bob");
    world.run();
    assert_eq!(world.history(2, id).last().unwrap(), "alice: without bob");
    assert!(!world.history(1, id).iter().any(|line| line.contains("without")));

    world.command(0, Command::AddMembers { conversation: id, handles: vec![handle("bob")] });
    world.run();
    world.say(2, id, "back again");
    world.run();
    assert_eq!(world.history(1, id).last().unwrap(), "carol: back again");
}

#[test]
fn who_comes_back_waits_for_nothing_that_was_said_without_them() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let id = group(&mut world, &["bob", "carol"]);
    world.say(0, id, "before");
    world.run();
    let bob = world.address(1).account;
    world.command(0, Command::RemoveMembers { conversation: id, accounts: vec![bob] });
    world.run();
    world.say(0, id, "without bob");
    world.run();
    world.command(0, Command::AddMembers { conversation: id, handles: vec![handle("bob")] });
    world.run_a_little(200);
    world.say(0, id, "back again");
    // Frames move, and no time.
    world.run_a_little(200);
    assert_eq!(world.history(1, id), ["alice: before", "alice: back again"]);
    world.run();
    let lost = |event: &Event| matches!(event, Event::Lost { .. } | Event::Hole { .. });
    assert!(!world.devices.iter().any(|device| device.events.iter().any(lost)));
}

/// Carol says something that is on the wire when her group ends for her, without a verdict yet.
fn end_with_a_message_on_the_wire() -> (World, ConversationId) {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let id = group(&mut world, &["bob", "carol"]);
    let carol = world.address(2);
    // The server's answers, and so the verdict, come after the commit that removes her.
    world.server.hold_results.insert(carol);
    world.say(2, id, "on the wire");
    world.run_a_little(20);
    world.command(0, Command::RemoveMembers { conversation: id, accounts: vec![carol.account] });
    world.run_a_little(100);
    let left = |event: &Event| matches!(event, Event::Left { .. });
    assert!(world.devices[2].events.iter().any(left), "she knows that she is out");
    world.devices[2].events.clear();
    (world, id)
}

#[test]
fn what_is_on_the_wire_when_a_group_ends_becomes_what_the_server_says() {
    let (mut world, id) = end_with_a_message_on_the_wire();
    world.server.hold_results.clear();
    world.run();
    let events = &world.devices[2].events;
    assert!(events.iter().any(|e| matches!(e, Event::Accepted { .. })), "{events:?}");
    assert!(!events.iter().any(|e| matches!(e, Event::Refused { .. })), "{events:?}");
    assert_eq!(world.history(0, id), ["carol: on the wire"]);
    assert_eq!(world.devices[2].core.waiting(), (0, 0));
}

#[test]
fn a_message_whose_verdict_was_lost_with_the_connection_is_not_called_unsent() {
    let (mut world, _) = end_with_a_message_on_the_wire();
    let now = world.now;
    world.devices[2].drop_connection(now);
    world.server.lose_results();
    world.run();
    let why = |e: &Event| match e {
        Event::Refused { why, .. } => Some(why.message.clone()),
        _ => None,
    };
    let said: Vec<_> = world.devices[2].events.iter().filter_map(why).collect();
    assert!(matches!(&said[..], [one] if one.contains("may have been accepted")), "{said:?}");
    assert_eq!(world.devices[2].core.waiting(), (0, 0));
}

#[test]
fn a_change_is_open_until_it_is_made_and_a_wish_to_leave_until_the_server_has_it() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let id = group(&mut world, &["bob"]);
    let open = |world: &World| world.devices[0].core.open_changes();
    assert_eq!(open(&world), 0);
    world.command(0, Command::AddMembers { conversation: id, handles: vec![handle("carol")] });
    assert_eq!(open(&world), 1);
    world.run();
    assert_eq!(open(&world), 0);
    world.take_offline(0);
    world.command(0, Command::RemoveMembers { conversation: id, accounts: vec![world.address(2).account] });
    world.command(0, Command::Leave { conversation: id });
    assert_eq!(open(&world), 2);
    // Nobody is there who could carry the wish out.
    (1..3).for_each(|n| world.take_offline(n));
    world.bring_online(0);
    world.run();
    assert_eq!(open(&world), 0);
    assert!(!world.devices[0].core.conversation(id).unwrap().left);
}

#[test]
fn who_leaves_is_gone_and_the_others_go_on() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let id = group(&mut world, &["bob", "carol"]);
    world.command(2, Command::Leave { conversation: id });
    world.run();
    assert!(world.devices[2].core.conversation(id).unwrap().left);
    for n in 0..2 {
        assert_eq!(world.devices[n].core.conversation(id).unwrap().members.len(), 2);
        assert!(world.devices[n].events.iter().any(|e| matches!(e, Event::MemberRemoved { by: None, .. })), "{n}");
    }
    world.say(0, id, "two of us");
    world.run();
    assert_eq!(world.history(1, id), ["alice: two of us"]);
    world.command(0, Command::Leave { conversation: id });
    world.command(1, Command::Leave { conversation: id });
    world.run();
    assert!(world.devices[0].core.conversation(id).unwrap().left);
}

#[test]
fn racing_changes_all_happen() {
    let mut world = World::new(&["alice", "bob", "carol", "dave", "erin"]);
    let id = group(&mut world, &["bob", "carol"]);
    for _ in 0..3 {
        world.command(0, Command::AddMembers { conversation: id, handles: vec![handle("dave")] });
        world.command(1, Command::AddMembers { conversation: id, handles: vec![handle("erin")] });
        world.say(2, id, "meanwhile");
        world.run();
        for n in 0..5 {
            let view = world.devices[n].core.conversation(id).unwrap();
            assert_eq!(view.members.len(), 5, "{n}");
        }
        let (dave, erin) = (world.address(3).account, world.address(4).account);
        world.command(1, Command::RemoveMembers { conversation: id, accounts: vec![dave] });
        world.command(2, Command::RemoveMembers { conversation: id, accounts: vec![erin] });
        world.say(0, id, "and now");
        world.run();
        assert_eq!(world.devices[0].core.conversation(id).unwrap().members.len(), 3);
        assert!(world.devices[3].core.conversation(id).unwrap().left);
    }
    let expected = ["carol: meanwhile"; 3];
    assert_eq!(world.history(0, id), expected);
    let calls = world.server.calls.iter().filter(|c| *c == "ReportFailure").count();
    assert_eq!(calls, 0, "nobody lost the thread");
}

#[test]
fn a_device_whose_queue_was_lost_comes_back() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let id = group(&mut world, &["bob", "carol"]);
    world.take_offline(1);
    let carol = world.address(2).account;
    world.command(0, Command::RemoveMembers { conversation: id, accounts: vec![carol] });
    world.run();
    world.say(0, id, "lost");
    world.run();
    let last = world.server.lose_queue(world.address(1));
    world.bring_online(1);
    world.gap(1, last);
    world.run();
    world.say(0, id, "after");
    world.say(1, id, "I am here");
    world.run();
    assert!(world.devices[1].events.contains(&Event::Gap));
    let history = world.history(1, id);
    assert_eq!(history.last().unwrap(), "alice: after");
    assert_eq!(world.history(0, id), ["bob: I am here"]);
}

#[test]
fn a_device_that_lost_a_welcome_joins_by_itself() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    world.take_offline(2);
    let id = group(&mut world, &["bob", "carol"]);
    let last = world.server.lose_queue(world.address(2));
    world.bring_online(2);
    world.gap(2, last);
    world.run();
    world.say(2, id, "late but here");
    world.say(0, id, "good");
    world.run();
    assert!(world.devices[2].events.iter().any(|e| matches!(e, Event::Rejoining { .. })));
    assert_eq!(world.history(0, id), ["carol: late but here"]);
    // What said the name was lost with the welcome.
    assert_eq!(world.history(2, id), ["[1-1 missing]", "alice: good"]);
    assert_eq!(world.devices[2].core.conversation(id).unwrap().name.as_deref(), Some("team"));
}

#[test]
fn a_damaged_commit_makes_a_device_join_again() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let id = group(&mut world, &["bob"]);
    world.take_offline(1);
    world.command(0, Command::AddMembers { conversation: id, handles: vec![handle("carol")] });
    world.run();
    world.server.damage_queue(world.address(1));
    world.bring_online(1);
    world.run();
    world.say(0, id, "all here?");
    world.run();
    assert!(world.server.calls.iter().any(|c| c == "ReportFailure"));
    assert_eq!(world.history(1, id).last().unwrap(), "alice: all here?");
    assert_eq!(world.devices[1].core.conversation(id).unwrap().members.len(), 3);
}

#[test]
fn a_welcome_that_cannot_be_used_does_not_keep_a_device_out() {
    let mut world = World::new(&["alice", "bob"]);
    world.take_offline(1);
    let id = world.start(0, "bob");
    world.say(0, id, "lost with the keys");
    world.run();
    world.server.damage_queue(world.address(1));
    world.bring_online(1);
    world.run();
    world.say(0, id, "hello");
    world.say(1, id, "here I am");
    world.run();
    assert_eq!(world.history(1, id), ["[1-1 missing]", "alice: lost with the keys", "alice: hello"]);
    assert_eq!(world.history(0, id), ["bob: here I am"]);
}

#[test]
fn one_commit_wins_when_two_change_the_same_thing() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let id = group(&mut world, &["bob"]);
    world.command(0, Command::AddMembers { conversation: id, handles: vec![handle("carol")] });
    world.command(1, Command::AddMembers { conversation: id, handles: vec![handle("carol")] });
    world.run();
    for n in 0..3 {
        assert_eq!(world.devices[n].core.conversation(id).unwrap().members.len(), 3, "{n}");
        assert_eq!(world.devices[n].core.waiting(), (0, 0));
    }
    world.say(2, id, "once");
    world.run();
    assert_eq!((world.history(0, id), world.history(1, id)), (vec!["carol: once".into()], vec!["carol: once".into()]));
}

/// A stranger's group with this name.
fn invited(world: &mut World, stranger: &mut Ghost, id: u8, name: &str) -> ConversationId {
    let (id, alice) = (ConversationId::from_bytes([id; 16]), world.address(0));
    stranger.create(&mut world.server, id);
    stranger.add(&mut world.server, id, alice);
    let content = GroupInfo { name: name.into(), root: None, outcasts: Vec::new() }.content([2; 16]);
    stranger.tell(&mut world.server, id, Kind::Group, &content);
    world.run();
    id
}

#[test]
fn an_invitation_cannot_take_a_name_that_is_known() {
    let mut world = World::new(&["alice", "bob"]);
    let team = group(&mut world, &["bob"]);
    let mut stranger = Ghost::join(&mut world.server, "stranger", 1);
    let theirs = invited(&mut world, &mut stranger, 0, "team");
    let label = |world: &World, id| world.devices[0].core.conversation(id).unwrap().label;
    assert_eq!(label(&world, team), "team");
    assert_eq!(label(&world, theirs), "team~000000");
    let now = world.now;
    world.devices[0].restart(now);
    world.run();
    assert_eq!((label(&world, team), label(&world, theirs)), ("team".into(), "team~000000".into()));
    world.command(0, Command::Leave { conversation: team });
    world.run();
    assert_eq!(label(&world, theirs), "team", "nobody else has the name any more");
}

#[test]
fn a_name_that_is_taken_is_refused_with_the_fix() {
    let mut world = World::new(&["alice", "bob"]);
    group(&mut world, &["bob"]);
    let again = Command::CreateGroup { name: " team ".into(), handles: vec![handle("bob")] };
    let error = world.devices[0].core.command(again, UnixMillis(world.now)).expect_err("taken");
    assert!(matches!(error, CommandError::GroupNameTaken(_)), "{error}");
    assert!(error.to_string().contains("choose another name"), "{error}");
    assert_eq!(world.devices[0].core.conversations().len(), 1);
}

#[test]
fn a_name_that_cannot_be_shown_is_none_and_short_ids_stay_apart() {
    let mut world = World::new(&["alice"]);
    let mut stranger = Ghost::join(&mut world.server, "stranger", 1);
    for (n, name) in [(0, "te\u{202e}am"), (1, "team~000000"), (2, "  "), (3, "a\u{200b}")] {
        let id = invited(&mut world, &mut stranger, n, name);
        let view = world.devices[0].core.conversation(id).unwrap();
        assert_eq!((view.name, view.label), (None, format!("~{}", view.short_id)), "{name:?}");
    }
    let mut near = [0; 16];
    near[15] = 1;
    let near = ConversationId::from_bytes(near);
    let alice = world.address(0);
    stranger.create(&mut world.server, near);
    stranger.add(&mut world.server, near, alice);
    world.run();
    let short = |id| world.devices[0].core.conversation(id).unwrap().short_id;
    assert_eq!(short(near), near.to_string());
    assert_ne!(short(near), short(ConversationId::from_bytes([0; 16])));
    assert_eq!(short(ConversationId::from_bytes([3; 16])).len(), 6);
}

#[test]
fn a_chat_of_two_takes_no_name() {
    let mut world = World::new(&["alice"]);
    let mut peer = Ghost::join(&mut world.server, "peer", 1);
    let (id, alice) = (ConversationId::from_bytes([7; 16]), world.address(0));
    peer.create(&mut world.server, id);
    peer.add(&mut world.server, id, alice);
    peer.say(&mut world.server, id, Kind::Direct, "hello");
    peer.tell(
        &mut world.server,
        id,
        Kind::Direct,
        &GroupInfo { name: "team".into(), root: None, outcasts: Vec::new() }.content([2; 16]),
    );
    world.run();
    let view = world.devices[0].core.conversation(id).unwrap();
    assert_eq!((view.kind, view.name, view.label.as_str()), (Kind::Direct, None, ""));
}

/// Alice makes four epochs that Bob does not hear of, then Bob says three things in the one that he is in. With `late`
/// his queue stands still until the server has refused them, else for ever.
fn sealed_too_early(late: bool) -> (World, ConversationId) {
    let mut world = World::new(&["alice", "bob", "carol", "dave"]);
    let id = group(&mut world, &["bob", "carol"]);
    let bob = world.address(1);
    world.server.hold.insert(bob);
    for round in 0..2 {
        world.command(0, Command::AddMembers { conversation: id, handles: vec![handle("dave")] });
        world.say(0, id, &format!("round {round}"));
        world.run();
        let dave = world.address(3).account;
        world.command(0, Command::RemoveMembers { conversation: id, accounts: vec![dave] });
        world.run();
    }
    assert!(world.server.refused.is_empty());
    for text in ["one", "two", "three"] {
        world.say(1, id, text);
    }
    if late {
        world.run_a_little(8);
    } else {
        world.run();
        world.now += 120_000;
        world.run();
    }
    assert!(!world.server.refused.is_empty(), "nothing was refused: the test tests nothing");
    world.server.hold.clear();
    world.say(0, id, "seen");
    world.run();
    for n in [0, 2] {
        let history = world.history(n, id);
        let bobs: Vec<_> = history.iter().filter(|line| line.starts_with("bob")).collect();
        assert_eq!(bobs, ["bob: one", "bob: two", "bob: three"], "{n}");
    }
    for device in &world.devices[..3] {
        assert_eq!(device.core.waiting(), (0, 0), "{}", device.name);
        assert!(!device.events.iter().any(|e| matches!(e, Event::Rejoining { .. } | Event::Refused { .. })));
    }
    (world, id)
}

#[test]
fn what_is_sealed_in_an_epoch_that_is_over_is_sealed_again_and_costs_nothing_that_waits() {
    let (world, id) = sealed_too_early(true);
    assert_eq!(world.history(1, id), ["alice: round 0", "alice: round 1", "alice: seen"]);
    assert!(!world.server.calls.iter().any(|call| call == "GetCommits"), "the queue has the commits");
}

#[test]
fn commits_that_do_not_come_are_asked_for_and_what_is_then_too_old_is_marked() {
    let (world, id) = sealed_too_early(false);
    assert!(world.server.calls.iter().any(|call| call == "GetCommits"));
    let history = world.history(1, id);
    assert_eq!(history.last().unwrap(), "alice: seen");
    assert!(history.iter().any(|line| line.contains("missing")), "{history:?}");
}

#[test]
fn who_comes_back_and_writes_at_once_reads_everything_that_waited_through_many_epochs() {
    let mut world = World::new(&["alice", "bob", "carol", "dave"]);
    let id = group(&mut world, &["bob", "carol"]);
    world.take_offline(1);
    for round in 0..4 {
        world.command(0, Command::AddMembers { conversation: id, handles: vec![handle("dave")] });
        world.say(0, id, &format!("with dave {round}"));
        world.run();
        let dave = world.address(3).account;
        world.command(2, Command::RemoveMembers { conversation: id, accounts: vec![dave] });
        world.say(0, id, &format!("without {round}"));
        world.run();
    }
    world.say(1, id, "I was away");
    world.bring_online(1);
    world.run();
    let all = (0..4).flat_map(|n| [format!("alice: with dave {n}"), format!("alice: without {n}")]);
    assert_eq!(world.history(1, id), all.collect::<Vec<_>>());
    assert_eq!(world.history(0, id), ["bob: I was away"]);
}

#[test]
fn a_group_of_a_stranger_is_told_as_one_and_once() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let chat = world.start(1, "alice");
    world.say(1, chat, "we have talked");
    world.run();
    let id = group(&mut world, &["bob", "carol"]);
    let now = world.now;
    world.devices[2].restart(now);
    world.say(0, id, "hello");
    world.run();
    let told = |n: usize| {
        let by = |event: &Event| match event {
            Event::AddedByStranger { conversation, name, by, .. } if *conversation == id => {
                Some((name.clone(), by.handle.clone()))
            }
            _ => None,
        };
        world.devices[n].events.iter().filter_map(by).collect::<Vec<_>>()
    };
    assert_eq!(told(2), [(Some("team".into()), Some(handle("alice")))]);
    assert!(told(1).is_empty() && told(0).is_empty());
}

#[test]
fn a_late_verdict_on_one_commit_is_not_taken_for_the_next_one() {
    let mut world = World::new(&["alice", "bob", "carol", "dave"]);
    let id = group(&mut world, &["bob", "carol"]);
    // Her own commit comes back to her before the answer.
    world.server.hold_commits = true;
    world.command(0, Command::AddMembers { conversation: id, handles: vec![handle("dave")] });
    world.run_a_little(40);
    let carol = world.address(2).account;
    world.command(0, Command::RemoveMembers { conversation: id, accounts: vec![carol] });
    world.run_a_little(40);
    world.server.hold_commits = false;
    world.run();
    let state = |n: usize| world.devices[n].core.epoch_authenticator(id);
    let epoch = state(0).map(|(epoch, _)| epoch);
    assert_eq!((epoch, &state(1), &state(3)), (Some(3), &state(0), &state(0)), "one group");
    assert_eq!(world.server.roster(id).len(), 3);
    world.say(0, id, "without carol");
    world.run();
    assert_eq!(world.history(3, id), ["alice: without carol"]);
    assert_eq!(world.history(2, id), Vec::<String>::new());
}

#[test]
fn what_was_sent_while_somebody_was_out_is_never_told_as_delivered_there() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let id = group(&mut world, &["bob", "carol"]);
    world.say(0, id, "to all");
    world.run();
    let carol = world.address(2).account;
    world.command(0, Command::RemoveMembers { conversation: id, accounts: vec![carol] });
    world.run();
    let without = world.say(0, id, "without carol").message.unwrap().lane_no;
    world.run();
    world.devices[0].events.clear();
    world.command(0, Command::AddMembers { conversation: id, handles: vec![handle("carol")] });
    world.run();
    let with = world.say(0, id, "carol again").message.unwrap().lane_no;
    world.run();
    world.command(2, Command::MarkRead { conversation: id });
    world.run();
    let by_carol = |event: &Event| match event {
        Event::Delivered { by, from, up_to, .. } if by.account == carol => Some((Reached::Delivered, *from, *up_to)),
        Event::Read { by, from, up_to, .. } if by.account == carol => Some((Reached::Read, *from, *up_to)),
        _ => None,
    };
    let told: Vec<_> = world.devices[0].events.iter().filter_map(by_carol).collect();
    for reached in [Reached::Delivered, Reached::Read] {
        assert!(told.iter().any(|told| told.0 == reached && told.2 == with), "{told:?}");
    }
    assert!(told.iter().all(|(_, from, up_to)| from <= up_to && !(*from..=*up_to).contains(&without)), "{told:?}");
}

#[test]
fn what_somebody_told_before_going_is_of_that_time_even_if_it_comes_later() {
    for again in [false, true] {
        let mut world = World::new(&["alice", "bob", "carol"]);
        let id = group(&mut world, &["bob", "carol"]);
        let bob = world.address(1);
        let put_out = Command::RemoveMembers { conversation: id, accounts: vec![bob.account] };
        let let_in = Command::AddMembers { conversation: id, handles: vec![handle("bob")] };
        world.command(2, put_out.clone());
        world.run();
        let without = world.say(0, id, "without bob").message.unwrap().lane_no;
        world.run();
        world.command(2, let_in.clone());
        world.run();
        let with = world.say(0, id, "with bob").message.unwrap().lane_no;
        world.devices[0].events.clear();
        // It is stored, and bob's answer waits for alice behind the commit that puts him out.
        world.run_a_little(1);
        world.take_offline(0);
        world.run();
        world.command(2, put_out);
        world.run();
        world.server.reverse(world.address(0));
        if again {
            world.command(2, let_in);
            world.run();
        }
        world.bring_online(0);
        world.run();
        let told = |event: &Event| match event {
            Event::Delivered { by, from, up_to, .. } if by.account == bob.account => Some((*from, *up_to)),
            _ => None,
        };
        let told: Vec<_> = world.devices[0].events.iter().filter_map(told).collect();
        assert!(told.iter().any(|(from, up_to)| (*from..=*up_to).contains(&with)), "{told:?}");
        assert!(told.iter().all(|(from, _)| *from > without), "{told:?}");
        assert_eq!(
            reached(&world, id, with),
            [(handle("bob"), Reached::Delivered), (handle("carol"), Reached::Delivered)]
        );
    }
}

#[test]
fn what_was_refused_is_not_told_as_lost_when_one_is_in_again() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let id = group(&mut world, &["bob", "carol"]);
    world.say(1, id, "hello");
    world.run();
    world.take_offline(1);
    let refused = world.say(1, id, "too late").message.unwrap();
    let bob = world.address(1).account;
    world.command(2, Command::RemoveMembers { conversation: id, accounts: vec![bob] });
    world.run();
    world.bring_online(1);
    world.run();
    let is_refused = |event: &&Event| matches!(event, Event::Refused { message, .. } if *message == refused.send_id);
    assert_eq!(world.devices[1].events.iter().filter(is_refused).count(), 1);
    world.command(2, Command::AddMembers { conversation: id, handles: vec![handle("bob")] });
    world.run();
    let again = world.say(1, id, "in again").message.unwrap().lane_no;
    world.run();
    assert_eq!(world.devices[1].core.reached(id, again).len(), 2, "{:?}", world.history(0, id));
    assert!(!world.devices[1].events.iter().any(|event| matches!(event, Event::Lost { .. })));
    for n in [0, 2] {
        assert_eq!(world.history(n, id), ["bob: hello", "bob: in again"], "nobody lacks what was never there");
    }
    world.say(1, id, "and on");
    world.run();
    assert_eq!(world.history(0, id).last().map(String::as_str), Some("bob: and on"));
}

#[test]
fn who_comes_in_with_somebody_who_was_in_before_lacks_nothing_of_theirs() {
    for together in [false, true] {
        let mut world = World::new(&["alice", "bob", "carol", "dave"]);
        let id = group(&mut world, &["bob", "carol"]);
        for text in ["one", "two"] {
            world.say(1, id, text);
        }
        world.run();
        let accounts = vec![world.address(1).account];
        world.command(0, Command::RemoveMembers { conversation: id, accounts });
        world.run();
        let names = if together { vec![vec!["bob", "dave"]] } else { vec![vec!["dave"], vec!["bob"]] };
        for names in names {
            let handles = names.into_iter().map(handle).collect();
            world.command(0, Command::AddMembers { conversation: id, handles });
            world.run();
        }
        let lane_no = world.say(1, id, "three").message.unwrap().lane_no;
        world.run();
        assert_eq!(world.history(3, id), ["bob: three"]);
        assert_eq!(world.history(0, id), ["bob: one", "bob: two", "bob: three"]);
        let told = |event: &Event| matches!(event, Event::Lost { .. } | Event::Hole { .. });
        assert!(!world.devices.iter().any(|device| device.events.iter().any(told)));
        assert_eq!(world.devices[1].core.reached(id, lane_no).len(), 3);
    }
}

#[test]
fn who_writes_before_hearing_of_being_put_out_reads_what_was_said_before() {
    for again in [false, true] {
        let mut world = World::new(&["alice", "bob", "carol"]);
        let id = group(&mut world, &["bob", "carol"]);
        let bob = world.address(1);
        world.server.hold.insert(bob);
        world.say(0, id, "before");
        world.run();
        world.command(2, Command::RemoveMembers { conversation: id, accounts: vec![bob.account] });
        world.run();
        world.say(1, id, "too late");
        world.run();
        if again {
            world.command(2, Command::AddMembers { conversation: id, handles: vec![handle("bob")] });
            world.run();
        }
        world.server.hold.clear();
        world.run();
        assert_eq!(world.history(1, id), ["alice: before"]);
        let is_in = world.devices[1].core.conversation(id).is_some_and(|view| !view.left);
        assert_eq!(is_in, again);
        if again {
            world.say(1, id, "here");
            world.say(0, id, "too");
            world.run();
            assert_eq!(world.history(1, id).last().unwrap(), "alice: too");
            assert_eq!(world.history(0, id).last().unwrap(), "bob: here");
            assert!(!world.history(0, id).iter().any(|line| line.contains("missing")), "{:?}", world.history(0, id));
        }
    }
}

#[test]
fn what_was_lost_before_somebody_was_put_out_stays_lost_and_is_told_once() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let id = group(&mut world, &["bob", "carol"]);
    let bob = world.address(1);
    world.say(0, id, "one");
    world.run();
    world.take_offline(1);
    let lost = world.say(0, id, "two").message.unwrap().lane_no;
    world.say(0, id, "three");
    world.run();
    world.server.lose_first(bob);
    world.bring_online(1);
    world.run_on(20);
    let told = |world: &World| world.devices[0].events.iter().filter(|e| matches!(e, Event::Lost { .. })).count();
    let before = told(&world);
    world.command(2, Command::RemoveMembers { conversation: id, accounts: vec![bob.account] });
    world.run();
    world.command(2, Command::AddMembers { conversation: id, handles: vec![handle("bob")] });
    world.run();
    assert!(reached(&world, id, lost).contains(&(handle("bob"), Reached::Lost)), "{:?}", reached(&world, id, lost));
    world.say(0, id, "four");
    world.run();
    assert!(reached(&world, id, lost).contains(&(handle("bob"), Reached::Lost)));
    assert_eq!(told(&world), before);
}

#[test]
fn what_its_sender_said_before_being_put_out_is_told_to_them_too() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let id = group(&mut world, &["bob", "carol"]);
    let bob = world.address(1);
    world.take_offline(0);
    let mut said = Vec::new();
    for text in ["one", "two", "three"] {
        said.push(world.say(1, id, text).message.unwrap().lane_no);
        world.run();
        world.command(2, Command::RemoveMembers { conversation: id, accounts: vec![bob.account] });
        world.run();
        world.command(2, Command::AddMembers { conversation: id, handles: vec![handle("bob")] });
        world.run();
    }
    said.push(world.say(1, id, "four").message.unwrap().lane_no);
    world.run();
    world.bring_online(0);
    world.run();
    for lane_no in said {
        assert_eq!(world.devices[1].core.reached(id, lane_no).len(), 2, "{lane_no}");
    }
}

#[test]
fn who_was_let_in_and_comes_in_by_itself_leaves_no_hole_either() {
    let mut world = World::new(&["alice", "bob", "carol", "dave"]);
    let id = group(&mut world, &["bob", "carol"]);
    world.say(1, id, "hello");
    world.run();
    world.take_offline(1);
    world.say(1, id, "too late");
    let bob = world.address(1);
    world.command(2, Command::RemoveMembers { conversation: id, accounts: vec![bob.account] });
    world.run();
    world.bring_online(1);
    world.run();
    world.take_offline(1);
    for name in ["bob", "dave"] {
        world.command(2, Command::AddMembers { conversation: id, handles: vec![handle(name)] });
        world.run();
    }
    // The welcome is gone.
    let to = world.server.lose_queue(bob);
    world.server.gaps.insert(bob, to);
    world.bring_online(1);
    world.run();
    world.devices[1].restart(world.now);
    world.run();
    world.say(1, id, "in again");
    world.run();
    assert_eq!(world.history(0, id), ["bob: hello", "bob: in again"]);
    assert_eq!(world.history(3, id), ["bob: in again"]);
    assert!(!world.devices[1].events.iter().any(|event| matches!(event, Event::Lost { .. })));
}

#[test]
fn what_somebody_was_shown_of_each_time_that_they_were_in_is_told() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let id = group(&mut world, &["bob", "carol"]);
    let carol = world.address(2).account;
    world.run();
    world.take_offline(2);
    let mut said = Vec::new();
    for stay in ["first", "second", "third"] {
        said.push((world.say(0, id, stay).message.unwrap().lane_no, true));
        world.run();
        world.command(1, Command::RemoveMembers { conversation: id, accounts: vec![carol] });
        world.run();
        said.push((world.say(0, id, "without carol").message.unwrap().lane_no, false));
        world.run();
        world.command(1, Command::AddMembers { conversation: id, handles: vec![handle("carol")] });
        world.run();
    }
    said.push((world.say(0, id, "the last").message.unwrap().lane_no, true));
    world.run();
    let all = |world: &World, which: Reached| {
        let has = |lane_no| {
            world.devices[0].core.reached(id, lane_no).into_iter().any(|(by, how)| by.account == carol && how == which)
        };
        said.iter().map(|(lane_no, _)| has(*lane_no)).collect::<Vec<bool>>()
    };
    let expected: Vec<bool> = said.iter().map(|(_, with)| *with).collect();
    world.devices[0].events.clear();
    world.bring_online(2);
    world.run();
    assert_eq!(world.history(2, id).len(), 4, "{:?}", world.history(2, id));
    assert_eq!(all(&world, Reached::Delivered), expected);
    world.devices[2].restart(world.now);
    world.run();
    world.command(2, Command::MarkRead { conversation: id });
    world.run();
    assert_eq!(all(&world, Reached::Read), expected, "read as well, though it was read in the last stay");
    let told = |event: &Event| match event {
        Event::Delivered { by, from, up_to, .. } if by.account == carol => Some((*from, *up_to)),
        _ => None,
    };
    let told: Vec<_> = world.devices[0].events.iter().filter_map(told).collect();
    for (lane_no, with) in said {
        let within = told.iter().any(|(from, up_to)| (*from..=*up_to).contains(&lane_no));
        assert_eq!(within, with, "{lane_no} in {told:?}");
    }
}

#[test]
fn what_was_told_by_somebody_who_left_is_shown_on_and_nobody_else_is_named() {
    let mut world = World::new(&["alice", "bob", "carol", "dave"]);
    let id = group(&mut world, &["bob", "carol"]);
    let lane_no = world.say(0, id, "to all").message.unwrap().lane_no;
    world.run();
    world.command(1, Command::MarkRead { conversation: id });
    world.run();
    let told = [(handle("bob"), Reached::Read), (handle("carol"), Reached::Delivered)];
    assert_eq!(reached(&world, id, lane_no), told);
    let bob = world.address(1).account;
    world.command(0, Command::RemoveMembers { conversation: id, accounts: vec![bob] });
    world.run();
    assert_eq!(reached(&world, id, lane_no), told);
    world.command(0, Command::AddMembers { conversation: id, handles: vec![handle("dave"), handle("bob")] });
    world.run();
    let later = world.say(0, id, "dave too").message.unwrap().lane_no;
    world.run();
    assert_eq!(reached(&world, id, later).len(), 3);
    // Dave was not there, and bob has read it before he went.
    assert_eq!(reached(&world, id, lane_no), told);
    let now = world.now;
    world.devices[0].restart(now);
    assert_eq!(reached(&world, id, lane_no), told);
    // Once one is out oneself.
    let alice = world.address(0).account;
    world.run();
    world.command(2, Command::RemoveMembers { conversation: id, accounts: vec![alice] });
    world.run();
    assert!(world.devices[0].core.conversation(id).unwrap().left);
    assert_eq!(reached(&world, id, lane_no), told);
}

fn reached(world: &World, id: ConversationId, lane_no: u64) -> Vec<(Handle, Reached)> {
    let all = world.devices[0].core.reached(id, lane_no);
    let mut all: Vec<_> = all.into_iter().map(|(member, reached)| (member.handle.unwrap(), reached)).collect();
    all.sort();
    all
}

/// Says something to Alice, whose queue stands still, and lets `change` happen some times before it moves again; then
/// she must have heard it.
fn heard_through_changes(change: impl Fn(&mut World, ConversationId, usize)) -> World {
    let names = ["alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy"];
    let mut world = World::new(&names);
    let id = group(&mut world, &["bob", "carol"]);
    let alice = world.address(0);
    world.server.hold.insert(alice);
    world.say(1, id, "one");
    world.run_a_little(20);
    for round in 0..3 {
        change(&mut world, id, round);
        world.run_a_little(20);
    }
    world.say(1, id, "two");
    world.run();
    world.server.hold.clear();
    world.run();
    assert_eq!(world.history(0, id), ["bob: one", "bob: two"]);
    let members = world.devices[1].core.conversation(id).unwrap().members.len();
    for device in &world.devices[..3] {
        let view = device.core.conversation(id).unwrap();
        assert_eq!((view.members.len(), device.core.waiting()), (members, (0, 0)), "{}", device.name);
    }
    assert!(!world.server.calls.iter().any(|call| call == "ReportFailure"), "nobody lost the thread");
    world
}

fn adds(world: &mut World, n: usize, id: ConversationId, whom: &str) {
    world.command(n, Command::AddMembers { conversation: id, handles: vec![handle(whom)] });
}

#[test]
fn races_that_are_lost_take_nobody_past_what_waits_in_the_queue() {
    let world = heard_through_changes(|world, id, round| {
        adds(world, 1, id, ["dave", "erin", "frank"][round]);
        world.run_a_little(20);
        adds(world, 0, id, ["grace", "heidi", "ivan"][round]);
    });
    assert!(world.server.lost_races > 0, "nothing was lost: the test tests nothing");
    assert_eq!(world.devices[0].core.conversations()[0].members.len(), 9);
}

#[test]
fn changes_of_ones_own_take_nobody_past_what_waits_in_the_queue() {
    let world = heard_through_changes(|world, id, round| adds(world, 0, id, ["dave", "erin", "frank"][round]));
    assert_eq!(world.devices[0].core.conversations()[0].members.len(), 6);
}

#[test]
fn a_device_killed_after_a_change_of_its_own_still_waits_for_its_queue() {
    heard_through_changes(|world, id, round| {
        adds(world, 0, id, ["dave", "erin", "frank"][round]);
        world.run_a_little(20);
        let now = world.now;
        world.devices[0].restart(now);
    });
}

#[test]
fn after_a_gap_only_the_commits_that_are_missing_are_fetched() {
    let mut world = World::new(&["alice", "bob", "carol", "dave"]);
    let id = group(&mut world, &["bob", "carol"]);
    let (alice, dave) = (world.address(0), world.address(3).account);
    world.take_offline(0);
    adds(&mut world, 1, id, "dave");
    world.run();
    let to = world.server.lose_oldest(alice, 1);
    for round in 0..3 {
        world.say(1, id, &format!("with dave {round}"));
        world.run();
        world.command(1, Command::RemoveMembers { conversation: id, accounts: vec![dave] });
        world.say(1, id, &format!("without {round}"));
        world.run();
        adds(&mut world, 1, id, "dave");
        world.run();
    }
    world.server.gaps.insert(alice, to);
    world.bring_online(0);
    world.run();
    let all = (0..3).flat_map(|n| [format!("bob: with dave {n}"), format!("bob: without {n}")]);
    assert_eq!(world.history(0, id), all.collect::<Vec<_>>());
    assert!(
        world.server.calls.iter().any(|call| call == "GetCommits"),
        "no commit was missing: the test tests nothing"
    );
}

#[test]
fn a_change_is_settled_when_the_newcomers_have_the_name() {
    let mut world = World::new(&["alice", "bob", "carol", "dave"]);
    let id = group(&mut world, &["bob", "carol"]);
    let alice = world.address(0);
    world.server.hold.insert(alice);
    adds(&mut world, 0, id, "dave");
    world.run_a_little(20);
    let core = &world.devices[0].core;
    assert_eq!((core.conversation(id).unwrap().members.len(), core.is_settled(id)), (4, false), "made, but not told");
    world.server.hold.clear();
    world.run();
    assert!(world.devices[0].core.is_settled(id));
    assert_eq!(world.devices[3].core.conversation(id).unwrap().label, "team");
}

#[test]
fn who_waits_for_a_commit_that_the_log_lost_goes_on_when_the_next_log_epoch_is_heard_of() {
    let mut world = World::new(&["alice", "bob", "carol", "dave", "erin"]);
    let id = group(&mut world, &["bob", "carol"]);
    let alice = world.address(0);
    world.server.hold.insert(alice);
    adds(&mut world, 0, id, "dave");
    world.run_a_little(20);
    world.server.lose_log(alice);
    world.server.hold.clear();
    world.say(1, id, "after");
    adds(&mut world, 0, id, "erin");
    world.run();
    for n in 0..5 {
        assert_eq!(world.devices[n].core.conversation(id).unwrap().members.len(), 5, "{n}");
    }
    assert_eq!(world.history(0, id), ["bob: after"]);
}

/// Bob has said three things that are on their way while he tells of 200 messages of carol.
fn tells_while_messages_wait(wait: impl Fn(&mut Server, DeviceAddress) -> bool) -> (World, ConversationId) {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let id = group(&mut world, &["bob", "carol"]);
    let bob = world.address(1);
    assert!(wait(&mut world.server, bob));
    for text in ["one", "two", "three"] {
        world.say(1, id, text);
    }
    for n in 0..200 {
        world.say(2, id, &format!("text {n}"));
        world.run_a_little(8);
    }
    (world, id)
}

fn has_heard_bob(world: &World, id: ConversationId) {
    for n in [0, 2] {
        let heard = world.history(n, id).into_iter().filter(|line| line.starts_with("bob"));
        assert_eq!(heard.collect::<Vec<_>>(), ["bob: one", "bob: two", "bob: three"], "{}", world.devices[n].name);
        assert!(!world.devices[n].events.iter().any(|event| matches!(event, Event::Unreadable { .. })));
    }
}

#[test]
fn what_is_refused_for_a_while_can_be_opened_when_it_is_taken() {
    let (mut world, id) = tells_while_messages_wait(|server, bob| server.refuse_messages.insert(bob));
    let refused = world.server.refused.len();
    assert!((3..60).contains(&refused), "{refused} refusals");
    world.server.refuse_messages.clear();
    world.now += 60_000;
    world.run();
    has_heard_bob(&world, id);
    assert_eq!(world.history(1, id).len(), 200);
}

#[test]
fn what_a_server_is_slow_to_take_can_be_opened_when_it_does() {
    let (mut world, id) = tells_while_messages_wait(|server, bob| server.hold_messages.insert(bob));
    world.server.release_messages(world.now);
    world.run();
    has_heard_bob(&world, id);
    assert_eq!(world.history(1, id).len(), 200);
    let told = |event: &&Event| matches!(event, Event::Delivered { up_to: 200, .. });
    assert_eq!(world.devices[2].events.iter().filter(told).count(), 2, "alice's ticks and bob's");
}
