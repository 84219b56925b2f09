// SPDX-License-Identifier: MIT OR Apache-2.0
//! What people did when the session was recorded.

use std::time::Duration;

use bytes::Bytes;
use pli_api::conversations::ListRequest;
use pli_api::directory::LookupRequest;
use pli_api::edge::client_frame::Frame as Said;
use pli_api::edge::server_frame::Frame as Heard;
use pli_api::edge::{Call, ClientFrame, Ping, Send, SendBatch};
use pli_api::links::{JoinRendezvousRequest, OpenRendezvousRequest, PutBlobRequest, Side, WaitBlobRequest};
use pli_api::log::Class;
use pli_client_core::identity::Identity;
use pli_client_core::{Command, Event, Table};
use pli_domain::ConversationId;
use pli_testkit::time::START;
use prost::Message;
use sha2::{Digest, Sha256};

use super::{NONCE, Session};
use crate::cluster::{Cluster, runtime};
use crate::line::PAUSE_MS;
use crate::person::{Person, Rows};
use crate::tape::{Stage, identity};
use crate::templates::{Calls, media_calls};
use crate::wire::Wire;

/// Who are there; the first comes from address 1.
pub const NAMES: [&str; 3] = ["alice", "bob", "carol"];
const ALICE: usize = 0;
const BOB: usize = 1;
const CAROL: usize = 2;
/// Key packages of which the private keys are kept.
const SPARE_KEPT: usize = 2;
/// The address of who has no account.
const NOBODY: u8 = 9;

impl Session {
    /// Plays it with the clients and the server of today.
    pub fn record(contracts: Vec<(String, Bytes)>) -> Self {
        runtime().block_on(async {
            let mut stage = Stage::new(Cluster::recorded(NONCE), &NAMES).await;
            let chat = two(&mut stage).await;
            let group = three(&mut stage).await;
            while_away(&mut stage, chat, group).await;
            back(&mut stage, chat, group).await;
            let carol = stage.people.remove(CAROL);
            bare(&stage.cluster, carol).await;
            stage.rest(20).await;
            Self { contracts, happenings: stage.cluster.happenings(), rows: stored(&stage.people[BOB]) }
        })
    }
}

/// What it stored, but for most of the key packages that nobody has claimed: they are alike, and most of it.
fn stored(person: &Person) -> Rows {
    let mut spare = 0;
    let mut rows = person.rows.clone();
    rows.retain(|(table, key), _| {
        spare += usize::from(*table == Table::Mls && key.starts_with(b"\0KeyPackage"));
        spare <= SPARE_KEPT || !key.starts_with(b"\0KeyPackage")
    });
    rows
}

/// A chat of two with ticks and read marks. Alice loses a connection before she knows what became of a message.
async fn two(stage: &mut Stage) -> ConversationId {
    let handle = NAMES[BOB].parse().expect("a handle");
    let chat = stage.command(ALICE, Command::StartConversation { handle }).expect("a conversation");
    stage.say(ALICE, chat, "hello bob", &[BOB]).await;
    stage.say(BOB, chat, "hello alice", &[ALICE]).await;
    stage.command(ALICE, Command::MarkRead { conversation: chat });
    stage.command(BOB, Command::MarkRead { conversation: chat });
    stage.rest(20).await;
    let accepted = |person: &Person| person.events.iter().filter(|e| matches!(e, Event::Accepted { .. })).count();
    let before = accepted(&stage.people[ALICE]);
    stage.write(ALICE, chat, "here comes a tunnel");
    stage.until("accepted", |people| accepted(&people[ALICE]) > before).await;
    let now = stage.cluster.now();
    stage.people[ALICE].lose(now);
    stage.rest(20).await;
    chat
}

/// A group of two that becomes one of three.
async fn three(stage: &mut Stage) -> ConversationId {
    let handle = |n: usize| NAMES[n].parse().expect("a handle");
    let team = Command::CreateGroup { name: "team".into(), handles: vec![handle(BOB)] };
    let group = stage.command(ALICE, team).expect("a conversation");
    stage.say(ALICE, group, "welcome", &[BOB]).await;
    stage.command(ALICE, Command::AddMembers { conversation: group, handles: vec![handle(CAROL)] });
    let ready = |e: &Event| matches!(e, Event::ConversationReady { conversation, .. } if *conversation == group);
    stage.until("carol is in the group", |people| people[CAROL].events.iter().any(ready)).await;
    stage.say(CAROL, group, "hello from carol", &[ALICE, BOB]).await;
    stage.say(BOB, group, "hello carol", &[ALICE, CAROL]).await;
    stage.command(CAROL, Command::MarkRead { conversation: group });
    stage.rest(20).await;
    group
}

/// Bob is away while others write, and Carol leaves, which Alice completes with a commit.
async fn while_away(stage: &mut Stage, chat: ConversationId, group: ConversationId) {
    let mut bob = stage.people.remove(BOB);
    bob.lose(stage.cluster.now());
    let carol = CAROL - 1;
    stage.write(ALICE, chat, "are you there");
    stage.say(ALICE, group, "where is bob", &[carol]).await;
    stage.say(carol, group, "away", &[ALICE]).await;
    stage.command(carol, Command::Leave { conversation: group });
    let left = |e: &Event| matches!(e, Event::Left { conversation, .. } if *conversation == group);
    stage.until("carol is out", |people| people[carol].events.iter().any(left)).await;
    stage.rest(20).await;
    stage.people.insert(BOB, bob);
}

/// Bob finds a queue when he comes back, talks, and is removed from the group.
async fn back(stage: &mut Stage, chat: ConversationId, group: ConversationId) {
    let shown = |e: &Event| matches!(e, Event::Message(m) if m.text == "away");
    stage.until("bob has caught up", |people| people[BOB].events.iter().any(shown)).await;
    stage.say(BOB, group, "back in the group", &[ALICE]).await;
    stage.say(BOB, chat, "back again", &[ALICE]).await;
    let account = stage.people[BOB].core.address().account;
    stage.command(ALICE, Command::RemoveMembers { conversation: group, accounts: vec![account] });
    let left = |e: &Event| matches!(e, Event::Left { conversation, .. } if *conversation == group);
    stage.until("bob is out", |people| people[BOB].events.iter().any(left)).await;
    stage.command(BOB, Command::MarkRead { conversation: chat });
    stage.rest(20).await;
}

/// What clients of this version say without the core: a session of nobody, links, media, and what is refused.
async fn bare(cluster: &Cluster, mut carol: Person) {
    carol.lose(cluster.now());
    let identity = identity(&carol.rows);
    drop(carol);
    pause().await;
    let mut nobody = Wire::session(cluster, NOBODY, None).await;
    let lookup = |handle: &str| LookupRequest { handle: handle.into() }.encode_to_vec();
    let asked = vec![
        ("/pli.edge.v1.Edge/Info", Vec::new()),
        ("/pli.directory.v1.Directory/Lookup", lookup("alice")),
        ("/pli.conversations.v1.Conversations/List", ListRequest::default().encode_to_vec()),
    ];
    call_all(&mut nobody, asked).await;
    pause().await;
    let mut wire = Wire::session(cluster, CAROL as u8 + 1, Some(&identity)).await;
    let refused = vec![
        ("/pli.directory.v1.Directory/Lookup", lookup("nobody")),
        ("/pli.directory.v1.Directory/Lookup", lookup("No Handle")),
        ("/pli.edge.v1.Edge/Unknown", Vec::new()),
    ];
    call_all(&mut wire, [link_calls(), media_calls(), refused].concat()).await;
    pause().await;
    wire.say(ClientFrame { frame: Some(Said::Send(SendBatch { sends: vec![stray()] })) });
    let refused = |frame| matches!(frame, Heard::SendResults(_)).then_some(());
    wire.until(refused).await.expect("every send has a result");
    pause().await;
    wire.say(ClientFrame { frame: Some(Said::Ping(Ping { id: 7 })) });
    wire.until(|frame| matches!(frame, Heard::Pong(_)).then_some(())).await.expect("a ping is answered");
    pause().await;
    wire.say_bytes(Bytes::from_static(&[0xFF, 0xFF]));
    while wire.next().await.is_some() {}
    forged(cluster, &identity).await;
}

/// A hello whose signature is another's.
async fn forged(cluster: &Cluster, identity: &Identity) {
    pause().await;
    let mut wire = Wire::open(cluster, NOBODY);
    let mut hello = wire.hello(Some(identity)).await.expect("the edge says hello");
    if let Some(Said::Hello(hello)) = &mut hello.frame {
        hello.signature = vec![1; 64].into();
    }
    wire.say(hello);
    while wire.next().await.is_some() {}
}

/// Opens a rendezvous, joins it, and leaves something there for the other side.
fn link_calls() -> Calls {
    let (rendezvous, opener, approver) = (Bytes::from(vec![4; 16]), Bytes::from(vec![8; 32]), Bytes::from(vec![9; 32]));
    let hash = |secret: &Bytes| Bytes::from(Sha256::digest(secret).to_vec());
    let open = OpenRendezvousRequest {
        rendezvous: rendezvous.clone(),
        opener_secret_sha256: hash(&opener),
        approver_secret_sha256: hash(&approver),
    };
    let join = JoinRendezvousRequest { rendezvous: rendezvous.clone(), secret: approver.clone() };
    let put = PutBlobRequest {
        rendezvous: rendezvous.clone(),
        side: Side::Opener.into(),
        secret: opener,
        number: 1,
        blob: vec![6; 50].into(),
    };
    let wait = WaitBlobRequest { rendezvous, side: Side::Approver.into(), secret: approver, number: 1, wait_ms: 100 };
    vec![
        ("/pli.links.v1.Links/OpenRendezvous", open.encode_to_vec()),
        ("/pli.links.v1.Links/JoinRendezvous", join.encode_to_vec()),
        ("/pli.links.v1.Links/PutBlob", put.encode_to_vec()),
        ("/pli.links.v1.Links/WaitBlob", wait.encode_to_vec()),
    ]
}

/// Their replies may be refusals.
async fn call_all(wire: &mut Wire, calls: Calls) {
    for (id, (method, body)) in (1..).zip(calls) {
        pause().await;
        let _ = wire.call(Call { id, method: method.into(), body: body.into() }).await;
    }
}

/// What was said before is done with.
async fn pause() {
    tokio::time::sleep(Duration::from_millis(PAUSE_MS)).await;
}

/// Into a conversation that is none.
fn stray() -> Send {
    Send {
        send_id: vec![21; 16].into(),
        conversation: vec![22; 16].into(),
        epoch: 1,
        class: Class::Message.into(),
        expires_at_ms: START.0 + 3_600_000,
        body: vec![23; 64].into(),
    }
}
