// SPDX-License-Identifier: MIT OR Apache-2.0
//! Members who were away for hundreds of epochs come back without help, each by the shortest way that loses nothing: what
//! waits in their queue, else the commits that the server keeps, else an external commit.

use pli_client_core::{Command, Event};
use pli_domain::ConversationId;

use crate::world::{World, handle};

const EPOCHS: u64 = 500;
const NAMES: [&str; 7] = ["alice", "bob", "guest", "queued", "gapped", "forgotten", "expelled"];
const ALICE: usize = 0;
const BOB: usize = 1;
const GUEST: usize = 2;
const QUEUED: usize = 3;
const GAPPED: usize = 4;
const FORGOTTEN: usize = 5;
const EXPELLED: usize = 6;

/// Everybody but alice and bob is away while those two make so many epochs; something is said in every tenth.
fn away() -> (World, ConversationId, Vec<String>) {
    let mut world = World::new(&NAMES);
    let handles = NAMES[1..].iter().filter(|name| **name != "guest").map(|name| handle(name)).collect();
    let group = world.command(ALICE, Command::CreateGroup { name: "team".into(), handles }).conversation.unwrap();
    world.run();
    (GUEST..NAMES.len()).for_each(|n| world.take_offline(n));
    let (first, mut said) = (world.server.epoch_and_tree(group).0, Vec::new());
    for n in 0..EPOCHS {
        let (conversation, whom) = (group, if n < 2 { EXPELLED } else { GUEST });
        // Whom the first epochs remove and bring in again has two welcomes' worth of history missing.
        let removes = (n % 2 == 0) == (n < 2);
        let command = if removes {
            Command::RemoveMembers { conversation, accounts: vec![world.address(whom).account] }
        } else {
            Command::AddMembers { conversation, handles: vec![handle(NAMES[whom])] }
        };
        world.command(if n % 3 == 0 { BOB } else { ALICE }, command);
        world.run();
        if n % 10 == 5 {
            said.push(format!("in {n}"));
            world.say(ALICE, group, said.last().unwrap());
            world.run();
        }
    }
    assert_eq!(world.server.epoch_and_tree(group).0, first + EPOCHS);
    (world, group, said)
}

/// Says something on both sides; everybody who is there has one epoch, and nothing waits.
fn goes_on(world: &mut World, group: ConversationId, n: usize) {
    world.run();
    let state = |world: &World, n: usize| {
        (world.devices[n].core.epoch_authenticator(group), world.devices[n].core.tree_hash(group))
    };
    assert_eq!(state(world, n), state(world, ALICE), "{}", NAMES[n]);
    world.say(n, group, "back");
    world.say(ALICE, group, "welcome back");
    world.run();
    let heard = |by: usize, line: &str| world.history(by, group).iter().filter(|heard| *heard == line).count();
    assert_eq!(heard(ALICE, &format!("{}: back", NAMES[n])), 1, "{}", NAMES[n]);
    assert!(heard(n, "alice: welcome back") >= 1, "{}", NAMES[n]);
    assert_eq!(world.devices[n].core.waiting(), (0, 0), "{}", NAMES[n]);
}

fn rejoined(world: &World, n: usize) -> bool {
    world.devices[n].events.iter().any(|event| matches!(event, Event::Rejoining { .. }))
}

fn calls(world: &World, method: &str) -> usize {
    world.server.calls.iter().filter(|call| *call == method).count()
}

#[test]
fn members_who_were_away_for_five_hundred_epochs_come_back_without_help() {
    let (mut world, group, said) = away();

    // Everything waits in the queue; the program is started anew on the way.
    assert!(world.server.waiting(world.address(QUEUED)) > 500);
    world.bring_online(QUEUED);
    world.run_a_little(200);
    let now = world.now;
    world.devices[QUEUED].restart(now);
    world.run();
    let all: Vec<String> = said.iter().map(|text| format!("alice: {text}")).collect();
    assert_eq!(world.history(QUEUED, group), all, "every epoch is opened in its turn");
    assert_eq!((rejoined(&world, QUEUED), calls(&world, "GetCommits")), (false, 0));
    goes_on(&mut world, group, QUEUED);

    // The queue is gone, the commits are kept: a page of 64 a call, and no commit of one's own.
    let epoch = world.server.epoch_and_tree(group).0;
    lose(&mut world, GAPPED);
    world.run();
    let pages = usize::try_from(EPOCHS.div_ceil(64)).unwrap();
    assert_eq!((rejoined(&world, GAPPED), calls(&world, "GetCommits")), (false, pages));
    goes_on(&mut world, group, GAPPED);
    assert_eq!(world.server.epoch_and_tree(group).0, epoch, "to come back so costs the others nothing");

    // The commits are gone too: in again by a commit of one's own, one epoch for the others.
    world.server.commits_gone = true;
    lose(&mut world, FORGOTTEN);
    world.run();
    assert!(rejoined(&world, FORGOTTEN));
    assert_eq!(calls(&world, "GetGroupInfo"), 1);
    goes_on(&mut world, group, FORGOTTEN);
    assert_eq!(world.server.epoch_and_tree(group).0, epoch + 1);
    world.server.commits_gone = false;

    // Removed and brought in again meanwhile: the welcome in the queue is all that is needed.
    world.bring_online(EXPELLED);
    world.run();
    assert!(!rejoined(&world, EXPELLED));
    goes_on(&mut world, group, EXPELLED);
    for n in [ALICE, BOB] {
        assert!(!rejoined(&world, n));
    }
}

/// What waits for a device is gone, which it is told when it comes back.
fn lose(world: &mut World, n: usize) {
    let address = world.address(n);
    let to = world.server.lose_queue(address);
    world.server.gaps.insert(address, to);
    world.bring_online(n);
}
