// SPDX-License-Identifier: MIT OR Apache-2.0
//! What four people and a server really said to each other, recorded once when it is first needed: whole lives of a
//! client with the frames that it heard, and every frame that a member of its group sent. Fuzzed sessions are these, until
//! they are mutated.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use pli_api::edge::{ClientFrame, client_frame};
use pli_client_core::identity::Identity;
use pli_client_core::{Command, ConnectionState, Event, Table};
use pli_domain::{AccountId, ConversationId, DeviceAddress};
use prost::Message;

use crate::cluster::{Cluster, runtime};
use crate::person::{Life, Person, Rows, play};

/// Longest time that a part of the recording may take, on its own clock.
const MOST: Duration = Duration::from_secs(600);

/// The client that is lied to.
pub const ALICE: usize = 0;
/// Her honest contact.
pub const BOB: usize = 1;
/// A member of a group with both, who attacks.
pub const MALLORY: usize = 2;
/// Somebody with an account and nothing else.
pub const DAVE: usize = 3;
const NAMES: [&str; 4] = ["alice", "bob", "mallory", "dave"];

/// See the module.
pub struct Tape {
    /// Alice's, from one start of her program to the next.
    pub lives: Vec<Life>,
    /// What each device really wrote into each conversation.
    pub written: Written,
    /// Who is in each conversation of two.
    pub pairs: BTreeMap<ConversationId, [AccountId; 2]>,
    /// What people were answered, by method: valid answers.
    pub answers: BTreeMap<String, Vec<Bytes>>,
    /// Every person's rows at the end.
    pub rows: Vec<Rows>,
    /// The calls that made the accounts, the conversation of two and the group, in order, with who called.
    pub setup: Vec<(usize, ClientFrame)>,
    /// The conversation of Alice and Bob, with its epoch.
    pub chat: (ConversationId, u64),
    /// The group of Alice, Bob and Mallory, with its epoch when it was set up.
    pub group: (ConversationId, u64),
    /// What Mallory and Dave sent after that.
    pub attack: Vec<Bytes>,
}

/// See [`Tape::written`].
pub type Written = BTreeMap<(DeviceAddress, ConversationId), Vec<String>>;

/// The recording.
pub fn tape() -> &'static Tape {
    static TAPE: OnceLock<Tape> = OnceLock::new();
    TAPE.get_or_init(|| runtime().block_on(record()))
}

/// Keys and ids of a person, as its rows hold them.
///
/// # Panics
/// When the rows hold none.
pub fn identity(rows: &Rows) -> Identity {
    let row = rows.iter().find(|((table, _), _)| *table == Table::Identity);
    Identity::decode(row.expect("every core has one").1).expect("as it was written")
}

/// People of one cluster who do things in turn.
pub struct Stage {
    /// Where they meet.
    pub cluster: Cluster,
    /// They, in the order of their names.
    pub people: Vec<Person>,
    written: Written,
}

impl Stage {
    /// Everybody registers, and is online.
    pub async fn new(cluster: Cluster, names: &[&str]) -> Self {
        let number = |n: usize| u8::try_from(n + 1).expect("a few people");
        let people = names.iter().enumerate().map(|(n, name)| Person::new(name, number(n), cluster.now()));
        let mut this = Self { people: people.collect(), cluster, written: BTreeMap::new() };
        this.until("online", |people| people.iter().all(|p| p.core.connection() == ConnectionState::Online)).await;
        this
    }

    /// Waits for it.
    ///
    /// # Panics
    /// When it does not come about.
    pub async fn until(&mut self, what: &str, done: impl FnMut(&[Person]) -> bool) {
        assert!(play(&mut self.people, &self.cluster, MOST, done).await, "never: {what}");
    }

    /// A while in which everything comes to rest.
    pub async fn rest(&mut self, seconds: u64) {
        let _ = play(&mut self.people, &self.cluster, Duration::from_secs(seconds), |_| false).await;
    }

    /// What it answers is the conversation.
    pub fn command(&mut self, n: usize, command: Command) -> Option<ConversationId> {
        let now = self.cluster.now();
        self.people[n].command(command, now).conversation
    }

    /// `n` writes, and everybody of `to` is shown it.
    pub async fn say(&mut self, n: usize, conversation: ConversationId, text: &str, to: &[usize]) {
        self.write(n, conversation, text);
        let shown = |person: &Person| person.events.iter().any(|e| matches!(e, Event::Message(m) if m.text == text));
        self.until(text, |people| to.iter().all(|n| shown(&people[*n]))).await;
    }

    /// `n` writes.
    pub fn write(&mut self, n: usize, conversation: ConversationId, text: &str) {
        let device = self.people[n].core.address();
        self.written.entry((device, conversation)).or_default().push(text.into());
        self.command(n, Command::SendText { conversation, text: text.into() });
    }

    fn restart(&mut self, n: usize, seed: u8) {
        let now = self.cluster.now();
        self.people[n].restart(seed, now);
    }

    fn epoch(&self, n: usize, id: ConversationId) -> u64 {
        self.people[n].core.epoch_authenticator(id).expect("a member").0
    }

    fn sent(&self) -> Vec<usize> {
        self.people.iter().map(|person| person.sent.len()).collect()
    }
}

async fn record() -> Tape {
    let mut stage = Stage::new(Cluster::start(), &NAMES).await;
    let handle = |n: usize| NAMES[n].parse().expect("a handle");
    stage.restart(ALICE, 101);
    let chat = stage.command(ALICE, Command::StartConversation { handle: handle(BOB) }).expect("a conversation");
    stage.say(ALICE, chat, "hello bob", &[BOB]).await;
    stage.say(BOB, chat, "hello alice", &[ALICE]).await;
    let team = Command::CreateGroup { name: "team".into(), handles: vec![handle(BOB), handle(MALLORY)] };
    let group = stage.command(ALICE, team).expect("a conversation");
    stage.say(ALICE, group, "welcome", &[BOB, MALLORY]).await;
    stage.rest(20).await;
    let (chat, group) = ((chat, stage.epoch(ALICE, chat)), (group, stage.epoch(ALICE, group)));
    let set_up = stage.sent();
    let other = in_the_group(&mut stage, group.0).await;
    comings_and_goings(&mut stage, group.0).await;
    while_away(&mut stage, chat.0, group.0).await;
    let pair = |n: usize| [ALICE, n].map(|n| stage.people[n].core.address().account);
    Tape {
        pairs: BTreeMap::from([(chat.0, pair(BOB)), (other, pair(DAVE))]),
        answers: answers(&stage.people),
        setup: calls(&stage.people, &set_up),
        attack: attack(&stage.people, &set_up),
        lives: std::mem::take(&mut stage.people[ALICE].lives),
        rows: stage.people.iter().map(|person| person.rows.clone()).collect(),
        written: stage.written,
        chat,
        group,
    }
}

/// Answers the conversation of Dave and Alice.
async fn in_the_group(stage: &mut Stage, group: ConversationId) -> ConversationId {
    stage.restart(ALICE, 102);
    let alice = NAMES[ALICE].parse().expect("a handle");
    let other = stage.command(DAVE, Command::StartConversation { handle: alice }).expect("a conversation");
    stage.say(DAVE, other, "we have not met", &[ALICE]).await;
    for n in 0..3 {
        stage.say(BOB, group, &format!("bob {n}"), &[ALICE, MALLORY]).await;
        stage.say(MALLORY, group, &format!("mallory {n}"), &[ALICE, BOB]).await;
        stage.say(ALICE, group, &format!("alice {n}"), &[BOB, MALLORY]).await;
    }
    stage.command(ALICE, Command::MarkRead { conversation: group });
    stage.command(MALLORY, Command::MarkRead { conversation: group });
    stage.rest(20).await;
    other
}

async fn comings_and_goings(stage: &mut Stage, group: ConversationId) {
    stage.restart(ALICE, 103);
    let dave = NAMES[DAVE].parse().expect("a handle");
    stage.command(MALLORY, Command::AddMembers { conversation: group, handles: vec![dave] });
    let is_in = |p: &Person| {
        p.events.iter().any(|e| matches!(e, Event::ConversationReady { conversation, .. } if *conversation == group))
    };
    stage.until("dave is in the group", |people| is_in(&people[DAVE])).await;
    stage.say(DAVE, group, "hello from dave", &[ALICE, BOB, MALLORY]).await;
    stage.say(ALICE, group, "hello dave", &[BOB, MALLORY, DAVE]).await;
    let account = stage.people[DAVE].core.address().account;
    stage.command(MALLORY, Command::RemoveMembers { conversation: group, accounts: vec![account] });
    let is_out =
        |p: &Person| p.events.iter().any(|e| matches!(e, Event::Left { conversation, .. } if *conversation == group));
    stage.until("dave is out", |people| is_out(&people[DAVE])).await;
    stage.rest(20).await;
}

/// Alice finds a queue when she comes back, which ends with a member that leaves.
async fn while_away(stage: &mut Stage, chat: ConversationId, group: ConversationId) {
    let mut alice = stage.people.remove(ALICE);
    alice.lose(stage.cluster.now());
    // The others only; their places are one lower meanwhile.
    let (bob, mallory) = (BOB - 1, MALLORY - 1);
    for n in 0..4 {
        stage.write(bob, chat, &format!("are you there {n}"));
        stage.write(bob, group, &format!("where is alice {n}"));
        stage.say(mallory, group, &format!("away {n}"), &[bob]).await;
    }
    stage.command(mallory, Command::Leave { conversation: group });
    stage.rest(30).await;
    stage.people.insert(ALICE, alice);
    stage.restart(ALICE, 104);
    let shown = |p: &Person| p.events.iter().any(|e| matches!(e, Event::Message(m) if m.text == "away 3"));
    stage.until("alice has caught up", |people| shown(&people[ALICE])).await;
    stage.say(ALICE, chat, "back again", &[BOB]).await;
    stage.rest(20).await;
}

/// The calls of everybody up to these numbers of frames, in the order in which they were made.
fn calls(people: &[Person], until: &[usize]) -> Vec<(usize, ClientFrame)> {
    let mut calls: Vec<(u64, usize, ClientFrame)> = Vec::new();
    for (n, person) in people.iter().enumerate() {
        for (place, bytes) in &person.sent[..until[n]] {
            let frame = ClientFrame::decode(bytes.clone()).expect("as it was sent");
            if matches!(frame.frame, Some(client_frame::Frame::Call(_))) {
                calls.push((*place, n, frame));
            }
        }
    }
    calls.sort_by_key(|(place, ..)| *place);
    calls.into_iter().map(|(_, n, frame)| (n, frame)).collect()
}

/// Answers of one kind that are kept.
const ANSWERS_EACH_MAX: usize = 32;

fn answers(people: &[Person]) -> BTreeMap<String, Vec<Bytes>> {
    let mut answers: BTreeMap<String, Vec<Bytes>> = BTreeMap::new();
    for (method, body) in people.iter().flat_map(|person| &person.answers) {
        let kept = answers.entry(method.clone()).or_default();
        if kept.len() < ANSWERS_EACH_MAX && !kept.contains(body) {
            kept.push(body.clone());
        }
    }
    answers
}

/// What Mallory and Dave sent from these numbers on, but for hellos, which are bound to their connection.
fn attack(people: &[Person], from: &[usize]) -> Vec<Bytes> {
    let frames = [MALLORY, DAVE].into_iter().flat_map(|n| people[n].sent[from[n]..].iter());
    let is_hello = |bytes: &Bytes| bytes.first() == Some(&0x0A);
    frames.map(|(_, bytes)| bytes.clone()).filter(|bytes| !is_hello(bytes)).collect()
}
