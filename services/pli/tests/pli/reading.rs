// SPDX-License-Identifier: MIT OR Apache-2.0
//! The client library as a program uses it: what becomes of events that nobody reads, and where a bot begins.

use std::collections::BTreeMap;
use std::path::Path;

use pli_client::core::{Core, Event};
use pli_client::{Client, Events, SendId};

use crate::process::{PATIENCE, Server, run, text};

/// Of each message two events tell: more than the channel to their reader holds.
const MESSAGES: usize = 600;

async fn open(home: &Path, server: &Server, name: &str) -> (Client, Events) {
    let opened = Client::builder(server.address(), name).home(home.join("programs")).connect().await;
    let (client, events) = opened.expect("opened");
    tokio::time::timeout(PATIENCE, client.online()).await.expect("in time").expect("online");
    (client, events)
}

/// Sends to bob, many at a time, and answers what was sent.
async fn sent(client: &Client) -> Vec<SendId> {
    let bob = client.conversation_with("bob".parse().expect("a handle")).await.expect("begun");
    let mut sends = tokio::task::JoinSet::new();
    for number in 0..MESSAGES {
        let client = client.clone();
        sends.spawn(async move { client.send(bob, format!("message {number}")).await.expect("in the outbox") });
    }
    tokio::time::timeout(PATIENCE, sends.join_all()).await.expect("commands are answered")
}

fn bob_is_there(home: &Path) -> Server {
    let server = Server::start(home);
    text(&run(home, &["recv", "bob", "--data", "data"]));
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_nobody_reads_wait_and_none_is_lost() {
    let home = tempfile::tempdir().expect("a folder");
    let server = bob_is_there(home.path());
    let (client, mut events) = open(home.path(), &server, "alice").await;
    let sent = sent(&client).await;
    // Nobody has read an event yet, and what is asked is answered.
    assert!(client.query(Core::is_registered).await.expect("answered"));
    let mut told: BTreeMap<SendId, (usize, usize)> = sent.iter().map(|id| (*id, (0, 0))).collect();
    let reading = async {
        while told.values().any(|(_, stored)| *stored == 0) {
            match events.next().await.expect("the client goes on") {
                Event::Accepted { message, .. } => told.get_mut(&message).expect("it was sent").0 += 1,
                Event::Stored { message, .. } => told.get_mut(&message).expect("it was sent").1 += 1,
                _ => {}
            }
        }
    };
    tokio::time::timeout(2 * PATIENCE, reading).await.expect("everything is told");
    assert!(told.values().all(|times| *times == (1, 1)), "each is told once");
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_events_are_dropped_goes_on_without_them() {
    let home = tempfile::tempdir().expect("a folder");
    let server = bob_is_there(home.path());
    let (client, events) = open(home.path(), &server, "alice").await;
    drop(events);
    sent(&client).await;
    let all_stored = async {
        while client.query(|core| core.waiting().1).await.expect("a client") > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(2 * PATIENCE, all_stored).await.expect("what is sent does not wait for a reader");
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_begins_now_is_given_nothing_of_before_and_nothing_less_afterwards() {
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start(home.path());
    let say = |words: &str| {
        text(&run(home.path(), &["send", "alice", "bot", words, "--data", "data", "--wait", "stored"]));
    };
    let (client, events) = open(home.path(), &server, "bot").await;
    say("handled");
    let mut messages = client.messages(events).await.expect("read");
    let message = tokio::time::timeout(PATIENCE, messages.next()).await.expect("in time").expect("a message");
    assert_eq!(message.text, "handled");
    message.done().await.expect("handled");
    say("here and not handled");
    let message = tokio::time::timeout(PATIENCE, messages.next()).await.expect("in time").expect("a message");
    assert_eq!(message.text, "here and not handled");
    client.close().await;
    say("while it was away");

    let (client, events) = open(home.path(), &server, "bot").await;
    let begun = tokio::time::timeout(PATIENCE, client.messages_from_now(events)).await.expect("in time");
    let mut messages = begun.expect("begun");
    say("new");
    let message = tokio::time::timeout(PATIENCE, messages.next()).await.expect("in time").expect("a message");
    assert_eq!(message.text, "new");
    client.close().await;

    // It was not handled, so it comes again; what was before does not.
    let (client, events) = open(home.path(), &server, "bot").await;
    let mut messages = client.messages(events).await.expect("read");
    let message = tokio::time::timeout(PATIENCE, messages.next()).await.expect("in time").expect("a message");
    assert_eq!(message.text, "new");
    client.close().await;
}
