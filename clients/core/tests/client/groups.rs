// SPDX-License-Identifier: MIT OR Apache-2.0
use pli_client_core::{Command, Event};
use pli_domain::ConversationId;

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
    assert_eq!(world.history(2, id), ["alice: good"]);
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
    assert_eq!(world.history(1, id), ["alice: hello"]);
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
