// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client whose way to the server takes nothing for a while, and brings everything back at once.

use std::net::SocketAddr;
use std::path::Path;

use pli_client::{Client, Events, Transport};
use pli_client_core::Event;
use pli_domain::ConversationId;
use pli_testkit::proxy::{Proxy, Way};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::process::{PATIENCE, Server};

/// More than systems and way keep of what is sent.
const MESSAGES: usize = 60;
const MESSAGE_BYTES: usize = 32 * 1024;

/// A way to the server that takes what a client sends while it is told to.
async fn way(server: SocketAddr) -> (SocketAddr, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let (takes, taking) = watch::channel(true);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(server).await.expect("the server");
            let ((mut up, mut down), (mut from_server, mut to_server)) = (client.into_split(), server.into_split());
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut down).await });
            let mut taking = taking.clone();
            tokio::spawn(async move {
                let mut page = vec![0; 16 * 1024];
                while taking.wait_for(|taking| *taking).await.is_ok()
                    && let Ok(read @ 1..) = up.read(&mut page).await
                    && to_server.write_all(&page[..read]).await.is_ok()
                {}
            });
        }
    });
    (address, takes)
}

async fn client(home: &Path, server: &str, name: &str) -> (Client, Events) {
    let builder = Client::builder(server, name).home(home).transport(Transport::WebSocket);
    let (client, events) = builder.connect().await.expect("a client");
    timeout(PATIENCE, client.online()).await.expect("in time").expect("online");
    (client, events)
}

/// The next message that is shown.
async fn message(events: &mut Events) -> String {
    let wait = async {
        loop {
            if let Event::Message(message) = events.next().await.expect("an event") {
                break message.text;
            }
        }
    };
    timeout(PATIENCE, wait).await.expect("a message in time")
}

/// Much more than the way takes at once.
async fn say_much(client: &Client, conversation: ConversationId) -> Vec<String> {
    let said: Vec<String> = (0..MESSAGES).map(|n| format!("{n:0MESSAGE_BYTES$}")).collect();
    for text in &said {
        client.send(conversation, text).await.expect("taken");
    }
    said
}

#[tokio::test]
async fn what_arrives_is_shown_while_much_is_being_sent_and_nothing_is_lost_or_shown_twice() {
    let home = tempfile::tempdir().expect("a folder");
    // It gives up no frame while the way takes nothing, however long this machine is busy.
    let server = Server::start_with(home.path(), 0, &[("PLI_EDGE__SESSION__FRAME_MS", "60000")]);
    let (address, takes) = way(server.address().parse().expect("an address")).await;
    let (bob, mut for_bob) = client(home.path(), &server.address(), "bob").await;
    let (alice, mut for_alice) = client(home.path(), &address.to_string(), "alice").await;
    let with_bob = alice.conversation_with("bob".parse().expect("a handle")).await.expect("a conversation");
    alice.send(with_bob, "hello").await.expect("taken");
    assert_eq!(message(&mut for_bob).await, "hello");
    takes.send_replace(false);
    let said = say_much(&alice, with_bob).await;
    let with_alice = bob.conversation_with("alice".parse().expect("a handle")).await.expect("a conversation");
    for n in 0..10 {
        bob.send(with_alice, n.to_string()).await.expect("taken");
        assert_eq!(message(&mut for_alice).await, n.to_string(), "while nothing is taken");
    }
    alice.send(with_bob, "seen").await.expect("taken");
    takes.send_replace(true);
    for text in said.iter().map(String::as_str).chain(["seen"]) {
        assert_eq!(message(&mut for_bob).await, text);
    }
    alice.close().await;
    bob.close().await;
}

#[tokio::test]
async fn a_connection_that_is_cut_while_much_is_being_sent_loses_and_repeats_nothing() {
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start(home.path());
    let proxy = Proxy::to(server.address().parse().expect("an address")).await.expect("a port");
    let (bob, mut for_bob) = client(home.path(), &server.address(), "bob").await;
    let (alice, _) = client(home.path(), &proxy.address().to_string(), "alice").await;
    let with_bob = alice.conversation_with("bob".parse().expect("a handle")).await.expect("a conversation");
    alice.send(with_bob, "hello").await.expect("taken");
    assert_eq!(message(&mut for_bob).await, "hello");
    let said = say_much(&alice, with_bob).await;
    // Some of it has come, and more is on its way.
    assert_eq!(message(&mut for_bob).await, said[0]);
    proxy.set(Way::Silent);
    alice.send(with_bob, "before the cut").await.expect("taken");
    proxy.cut();
    proxy.set(Way::Open);
    for text in said[1..].iter().map(String::as_str).chain(["before the cut"]) {
        assert_eq!(message(&mut for_bob).await, text);
    }
    alice.close().await;
    bob.close().await;
}
