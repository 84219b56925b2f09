// SPDX-License-Identifier: MIT OR Apache-2.0
//! Groups against the real service on its embedded engine: many devices that commit at once, and one that was away for
//! hundreds of epochs.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pli_api::conversations::commit_response::Outcome;
use pli_api::conversations::{CommitRequest, CommitResponse, CreateRequest, CreateResponse, Object, object};
use pli_api::directory::{
    ClaimKeyPackagesRequest, ClaimKeyPackagesResponse, DeviceList, LookupRequest, LookupResponse,
};
use pli_client::{Client, ClientOptions, Events, Transport};
use pli_client_core::mls::{Commit, Mls};
use pli_client_core::{Command, Core, Event};
use pli_domain::{ConversationId, DeviceAddress};
use prost::Message;

use crate::meeting::{Place, Session};
use crate::process::{PATIENCE, Server};

/// Devices that commit at once.
const CROWD: usize = 64;
/// Offers that may lose for each that wins; without waits there would be 32.
const LOST_EACH_MAX: f64 = 8.0;
const EPOCHS: u64 = 500;
/// How often a client is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What is counted by accounts and addresses is out of the way: all of them are on one machine.
const LIMITS: [(&str, &str); 6] = [
    ("PLI_DIRECTORY__REGISTRATIONS_PER_ADDRESS__BURST", "10000"),
    ("PLI_DIRECTORY__REGISTRATIONS_PER_ADDRESS__PER_MINUTE", "10000"),
    ("PLI_CONVERSATIONS__CHANGES_PER_ACCOUNT__BURST", "10000"),
    ("PLI_CONVERSATIONS__CHANGES_PER_ACCOUNT__PER_MINUTE", "10000"),
    ("PLI_CONVERSATIONS__QUESTIONS_PER_ACCOUNT__BURST", "10000"),
    ("PLI_CONVERSATIONS__QUESTIONS_PER_ACCOUNT__PER_MINUTE", "10000"),
];

/// A server with these settings besides.
fn start(home: &Path, settings: &[(&str, &str)]) -> (Server, Place) {
    let settings = [&LIMITS, settings].concat();
    let server = tokio::task::block_in_place(|| Server::start_with(home, 0, &settings));
    let fingerprint = server.about["fingerprint"].as_str().expect("a fingerprint").to_owned();
    let place = Place { address: server.address(), fingerprint };
    (server, place)
}

/// Commits offered so far, by outcome.
fn commits(server: &Server, outcome: &str) -> f64 {
    let (_, page) = tokio::task::block_in_place(|| server.admin("/metrics"));
    let wanted = format!("outcome=\"{outcome}\"");
    let lines =
        page.lines().filter(|line| line.starts_with("pli_conversations_commits_total{") && line.contains(&wanted));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

struct Member {
    client: Client,
    events: Events,
    name: String,
}

impl Member {
    /// Opens a profile and waits until the server has its key packages.
    async fn open(home: &Path, place: &Place, name: &str) -> Self {
        let options = ClientOptions {
            server: place.address.parse().expect("an address"),
            others: Vec::new(),
            transport: Transport::WebSocket,
            quic_port: None,
            fingerprint: Some(place.fingerprint.parse().expect("a fingerprint")),
            home: home.join("profiles"),
            name: name.parse().expect("a name"),
            suite: pli_client::Suite::default(),
            offline: false,
        };
        let (client, events) = Client::open(options).await.expect("opened");
        let member = Self { client, events, name: name.to_owned() };
        tokio::time::timeout(PATIENCE, member.client.online()).await.expect("online in time").expect("online");
        member.until("it is idle", |core| core.is_idle()).await;
        member
    }

    async fn until(&self, what: &str, wanted: impl Fn(&Core) -> bool + Send + Clone + 'static) {
        let holds = async {
            while !self.client.query(wanted.clone()).await.expect("a client") {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::time::timeout(2 * PATIENCE, holds)
            .await
            .unwrap_or_else(|_| panic!("{}: not in time: {what}", self.name));
    }

    async fn state(&self, group: ConversationId) -> Option<(u64, Vec<u8>)> {
        self.client.query(move |core| core.epoch_authenticator(group)).await.expect("a client")
    }

    /// Everything that it was told, to its end.
    async fn close(mut self) -> Vec<Event> {
        self.client.close().await;
        let mut all = Vec::new();
        while let Some(event) = self.events.next().await {
            all.push(event);
        }
        all
    }
}

/// `CROWD` members, and as many whom they remove, who are away.
async fn crowd(home: &Path, place: &Place) -> (Vec<Member>, Vec<pli_domain::AccountId>, ConversationId) {
    let mut gone = Vec::new();
    for n in 0..CROWD {
        let member = Member::open(home, place, &format!("gone.{n}")).await;
        gone.push(member.client.query(|core| core.address().account).await.expect("a client"));
        member.close().await;
    }
    let mut members = Vec::new();
    for n in 0..CROWD {
        members.push(Member::open(home, place, &format!("member.{n}")).await);
    }
    let others = (1..CROWD).map(|n| format!("member.{n}")).chain((0..CROWD).map(|n| format!("gone.{n}")));
    let handles = others.map(|name| name.parse().expect("a handle")).collect();
    let made = members[0].client.command(Command::CreateGroup { name: "crowd".into(), handles }).await;
    let group = made.expect("made").conversation.expect("one");
    for member in &members {
        let is_in = move |core: &Core| core.conversation(group).is_some_and(|view| view.ready);
        member.until("it is in the group", is_in).await;
    }
    (members, gone, group)
}

#[tokio::test(flavor = "multi_thread")]
async fn members_who_commit_at_once_all_get_their_turn() {
    let home = tempfile::tempdir().expect("a folder");
    let (server, place) = start(home.path(), &[]);
    let (members, gone, group) = crowd(home.path(), &place).await;
    let (won, lost) = (commits(&server, "won"), commits(&server, "lost"));
    for (member, account) in members.iter().zip(gone) {
        let command = Command::RemoveMembers { conversation: group, accounts: vec![account] };
        member.client.command(command).await.expect("taken");
    }
    for member in &members {
        let done = move |core: &Core| {
            core.is_settled(group) && core.conversation(group).is_some_and(|view| view.members.len() == CROWD)
        };
        member.until("its change and all others are made", done).await;
    }
    let state = members[0].state(group).await;
    for member in &members {
        assert_eq!(member.state(group).await, state, "{}", member.name);
    }
    let (won, lost) = (commits(&server, "won") - won, commits(&server, "lost") - lost);
    println!("{won} commits won, {lost} lost");
    assert_eq!(won, CROWD as f64, "one commit for each change");
    assert!(lost <= LOST_EACH_MAX * won, "{lost} offers lost for {won} that won");
    for member in members {
        let name = member.name.clone();
        let refused = |event: &Event| matches!(event, Event::ChangeFailed { .. } | Event::Rejoining { .. });
        assert!(!member.close().await.iter().any(refused), "{name}");
    }
}

fn inline(bytes: Vec<u8>) -> Option<Object> {
    Some(Object { object: Some(object::Object::Inline(bytes.into())) })
}

/// A member without a client, which commits as fast as the service takes it.
struct Bare {
    session: Session,
    mls: Mls,
    group: ConversationId,
}

impl Bare {
    async fn new(place: &Place, handle: &str) -> Self {
        let (mut session, identity) = Session::registered(place, handle).await;
        let mut mls = Mls::of(&identity, [9; 32]);
        let group = ConversationId::from_bytes([5; 16]);
        let group_info = inline(mls.create(group).expect("a group"));
        let made = session.call("/pli.conversations.v1.Conversations/Create", &CreateRequest { group_info }).await;
        let _: CreateResponse = made.expect("made");
        Self { session, mls, group }
    }

    async fn add(&mut self, handle: &str) {
        let lookup = LookupRequest { handle: handle.into() };
        let found: LookupResponse =
            self.session.call("/pli.directory.v1.Directory/Lookup", &lookup).await.expect("found");
        let list = DeviceList::decode(found.devices.expect("a list").list).expect("a list");
        let (account, entry) = (found.account.as_ref().try_into().expect("an id"), &list.devices[0]);
        let device = DeviceAddress { account, device: entry.device.as_ref().try_into().expect("an id") };
        let claim = ClaimKeyPackagesRequest { devices: vec![device.into()] };
        let claimed: ClaimKeyPackagesResponse =
            self.session.call("/pli.directory.v1.Directory/ClaimKeyPackages", &claim).await.expect("claimed");
        let package = claimed.key_packages[0].key_package.to_vec();
        let commit = self.mls.commit(self.group, &[(device, entry.key.to_vec(), package)], &[]).expect("a commit");
        self.offer(commit).await;
    }

    /// New keys for its own leaf, and nothing else.
    async fn update(&mut self) {
        let commit = self.mls.commit(self.group, &[], &[]).expect("a commit");
        self.offer(commit).await;
    }

    async fn offer(&mut self, commit: Commit) {
        let request = CommitRequest {
            conversation: Bytes::copy_from_slice(self.group.as_bytes()),
            epoch: commit.epoch,
            commit: inline(commit.commit),
            welcome: Some(commit.welcome).filter(|welcome| !welcome.is_empty()).and_then(inline),
            group_info: inline(commit.group_info),
        };
        let answer = self.session.call("/pli.conversations.v1.Conversations/Commit", &request).await;
        let answer: CommitResponse = answer.expect("answered");
        assert!(matches!(answer.outcome, Some(Outcome::Won(_))), "{answer:?}");
        self.mls.merge_commit(self.group).expect("merged");
        drop(self.mls.take_changes());
    }

    fn state(&self) -> Option<(u64, Vec<u8>)> {
        self.mls.epoch_authenticator(self.group)
    }
}

/// Somebody is away for 500 epochs and comes back when so many envelopes are gone from its queue; what it was told then.
async fn away(settings: &[(&str, &str)], gapped: f64) -> Vec<Event> {
    let home = tempfile::tempdir().expect("a folder");
    let (server, place) = start(home.path(), settings);
    let carol = Member::open(home.path(), &place, "carol").await;
    let mut bare = Bare::new(&place, "bare").await;
    bare.add("carol").await;
    let group = bare.group;
    carol.until("it is in the group", move |core| core.epoch_authenticator(group).is_some()).await;
    carol.close().await;
    for _ in 0..EPOCHS {
        bare.update().await;
    }
    let deadline = Instant::now() + PATIENCE;
    while tokio::task::block_in_place(|| server.metric("pli_delivery_gapped")) < gapped {
        assert!(Instant::now() < deadline, "nothing is gone from the queue");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let carol = Member::open(home.path(), &place, "carol").await;
    let wanted = bare.state();
    assert_eq!(wanted.as_ref().map(|(epoch, _)| *epoch), Some(EPOCHS + 1));
    carol.until("it has caught up", move |core| core.epoch_authenticator(group) == wanted).await;
    // It stays so: it goes on with what comes now.
    bare.update().await;
    let wanted = bare.state();
    carol.until("it goes on", move |core| core.epoch_authenticator(group) == wanted).await;
    carol.close().await
}

fn rejoined(events: &[Event]) -> bool {
    events.iter().any(|event| matches!(event, Event::Rejoining { .. }))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_for_five_hundred_epochs_takes_them_in_from_its_queue() {
    let events = away(&[], 0.0).await;
    assert!(!rejoined(&events), "{events:?}");
    assert!(!events.iter().any(|event| matches!(event, Event::Gap)), "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_for_longer_than_its_queue_goes_back_fetches_the_commits() {
    let events = away(&[("PLI_DELIVERY__QUEUE_ROWS_MAX", "100"), ("PLI_DELIVERY__SPILL_AFTER_MS", "0")], 300.0).await;
    assert!(events.iter().any(|event| matches!(event, Event::Gap)), "no gap: the test tests nothing: {events:?}");
    assert!(!rejoined(&events), "{events:?}");
}
