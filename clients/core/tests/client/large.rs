// SPDX-License-Identifier: MIT OR Apache-2.0
//! A group so large that its welcomes, group infos and commits travel by reference.

use pli_client_core::{Command, Event};
use pli_domain::limits::PAGE_BYTES_MAX;
use pli_domain::{ConversationId, Handle};

use crate::ghost::Ghost;
use crate::world::{World, handle};

/// Members who only have to be there: so many that every object is larger than one page.
const CROWD: u16 = 200;

/// Alice, Bob and Carol, and a crowd that is registered.
fn world() -> (World, Vec<Handle>) {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let names = (0..CROWD).map(|n| format!("crowd{n}"));
    let crowd = names.enumerate().map(|(n, name)| {
        Ghost::join(&mut world.server, &name, u16::try_from(n).unwrap() + 100);
        handle(&name)
    });
    let crowd = crowd.collect();
    (world, crowd)
}

/// A group of everybody but Carol.
fn large_group(world: &mut World, crowd: &[Handle]) -> ConversationId {
    let handles = crowd.iter().cloned().chain([handle("bob")]).collect();
    let id = world.command(0, Command::CreateGroup { name: "large".into(), handles }).conversation.unwrap();
    world.say(0, id, "welcome all");
    world.run();
    id
}

fn sizes(world: &World) -> Vec<usize> {
    world.server.payloads.values().map(bytes::Bytes::len).collect()
}

fn is_whole(world: &World, n: usize, id: ConversationId, members: usize) {
    let view = world.devices[n].core.conversation(id).unwrap();
    assert_eq!((view.members.len(), view.ready), (members, true), "{}", world.devices[n].name);
    assert_eq!(world.devices[n].core.waiting(), (0, 0));
}

#[test]
fn large_objects_go_by_reference_both_ways() {
    let (mut world, crowd) = world();
    let handles = vec![handle("bob")];
    let id = world.command(0, Command::CreateGroup { name: "large".into(), handles }).conversation.unwrap();
    world.run();
    let rejoined = |world: &World| world.server.calls.iter().filter(|c| *c == "ReportFailure").count();
    // Bob's commit is large for Alice, Alice's welcome for Carol.
    world.command(1, Command::AddMembers { conversation: id, handles: crowd });
    world.say(0, id, "meanwhile");
    world.run();
    world.command(0, Command::AddMembers { conversation: id, handles: vec![handle("carol")] });
    world.run();
    for n in 0..3 {
        is_whole(&world, n, id, 203);
    }
    assert_eq!(rejoined(&world), 0, "nobody lost the thread");
    assert!(sizes(&world).iter().filter(|bytes| **bytes > PAGE_BYTES_MAX).count() >= 4, "{:?}", sizes(&world));
    world.say(2, id, "I read it all");
    world.run();
    assert_eq!(world.history(0, id), ["carol: I read it all"]);
    assert_eq!(world.history(1, id), ["alice: meanwhile", "carol: I read it all"]);
}

#[test]
fn an_upload_that_is_interrupted_goes_on_where_it_stood() {
    let (mut world, crowd) = world();
    let handles = crowd.iter().cloned().chain([handle("bob")]).collect();
    let id = world.command(0, Command::CreateGroup { name: "large".into(), handles }).conversation.unwrap();
    let mut interrupted = 0;
    for _ in 0..2_000 {
        let before = world.server.pages_moved;
        world.run_a_little(1);
        if world.server.pages_moved > before && interrupted < 5 {
            interrupted += 1;
            let now = world.now;
            world.devices[0].drop_connection(now);
            world.devices[0].come_back(now);
        }
    }
    world.say(0, id, "at last");
    world.run();
    assert!(interrupted >= 3, "{interrupted} interruptions");
    is_whole(&world, 1, id, 202);
    assert_eq!(world.history(1, id), ["alice: at last"]);
}

#[test]
fn a_kill_in_an_upload_begins_it_again() {
    let (mut world, crowd) = world();
    let handles = crowd.iter().cloned().chain([handle("bob")]).collect();
    let id = world.command(0, Command::CreateGroup { name: "large".into(), handles }).conversation.unwrap();
    while world.server.pages_moved < 2 {
        world.run_a_little(1);
    }
    let now = world.now;
    world.devices[0].restart(now);
    world.say(0, id, "after all");
    world.run();
    is_whole(&world, 1, id, 202);
    assert_eq!(world.history(1, id), ["alice: after all"]);
}

/// What a member does whose welcome, or later commit, cannot be had the first time.
fn spoiled(spoil: impl Fn(&mut World)) {
    let (mut world, crowd) = world();
    world.take_offline(1);
    let id = large_group(&mut world, &crowd);
    spoil(&mut world);
    world.bring_online(1);
    world.run();
    // The welcome could not be used, so Bob came in by himself, by a group info that is just as large.
    assert!(world.devices[1].events.iter().any(|e| matches!(e, Event::Rejoining { .. })));
    is_whole(&world, 1, id, 202);
    world.say(0, id, "after");
    world.say(1, id, "here");
    world.run();
    // The name and a greeting came before he was inside; what is kept comes again.
    assert_eq!(world.history(1, id), ["[1-2 missing]", "alice: welcome all", "alice: after"]);
    assert_eq!(world.history(0, id), ["bob: here"]);
    // And a large commit that cannot be had.
    world.take_offline(1);
    world.command(0, Command::RemoveMembers { conversation: id, accounts: crowd_accounts(&world, id) });
    world.run();
    world.command(0, Command::AddMembers { conversation: id, handles: crowd });
    world.say(0, id, "the crowd is back");
    world.run();
    spoil(&mut world);
    world.bring_online(1);
    world.run();
    is_whole(&world, 1, id, 202);
    world.say(0, id, "the end");
    world.run();
    assert_eq!(world.history(1, id).last().unwrap(), "alice: the end");
}

fn crowd_accounts(world: &World, id: ConversationId) -> Vec<pli_domain::AccountId> {
    let (alice, bob) = (world.address(0).account, world.address(1).account);
    let members = world.devices[0].core.conversation(id).unwrap().members;
    members.into_iter().map(|m| m.account).filter(|a| *a != alice && *a != bob).collect()
}

#[test]
fn an_object_with_another_hash_is_not_used_and_fetched_again_when_it_is_needed() {
    spoiled(|world| world.server.damaged_pages = 1);
    spoiled(|world| world.server.damaged_pages = 3);
}

#[test]
fn an_object_that_lacks_a_page_is_not_used_and_fetched_again_when_it_is_needed() {
    spoiled(|world| world.server.missing_pages = 1);
    spoiled(|world| world.server.missing_pages = 3);
}
