// SPDX-License-Identifier: MIT OR Apache-2.0
//! As much of the services as the client can tell: accounts, key packages, one commit per epoch, queues, receipts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use openmls::prelude::tls_codec::DeserializeBytes as _;
use openmls::prelude::{BasicCredential, MlsMessageBodyIn, MlsMessageIn, ProposalStore, PublicGroup};
use openmls_rust_crypto::{MemoryStorage, RustCrypto};
use pli_api::edge::{client_frame, reply, send_result, server_frame, settled};
use pli_api::{ErrorCode, common, conversations as api, directory, edge, log, refusal};
use pli_client_core::mls::Suite;
use pli_domain::limits::PAGE_BYTES_MAX;
use pli_domain::{AccountId, ConversationId, DeviceAddress, LogEpoch, Position, Seq};
use prost::Message as _;
use sha2::{Digest, Sha256};

type Answer = Result<Vec<u8>, common::Error>;

#[derive(Default, Clone)]
struct Conversation {
    epoch: u64,
    roster: BTreeSet<DeviceAddress>,
    old_rosters: BTreeMap<u64, BTreeSet<DeviceAddress>>,
    group_info: Bytes,
    created: Bytes,
    commits: BTreeMap<u64, (DeviceAddress, Bytes)>,
}

#[derive(Default, Clone)]
pub struct Server {
    handles: BTreeMap<String, AccountId>,
    lists: BTreeMap<AccountId, (String, directory::SignedDeviceList)>,
    /// Every list of an account, the newest last.
    pub chains: BTreeMap<AccountId, Vec<directory::SignedDeviceList>>,
    /// What is served instead of an account's newest list, and of what lies between.
    pub lies: BTreeMap<AccountId, (directory::SignedDeviceList, Vec<directory::SignedDeviceList>)>,
    /// A GroupInfo that is served instead of a group's own.
    pub exchanged: Option<Bytes>,
    /// Removed devices are served on, and groups are not compared with lists: what no honest server does.
    pub spares_removed: bool,
    /// A device that every group is said to lack.
    pub demanded: Option<DeviceAddress>,
    /// Key packages that are given instead of the device's own.
    pub swapped: BTreeMap<DeviceAddress, Bytes>,
    /// Commits that were refused because the group and the lists differ.
    pub mismatches: usize,
    /// Whom devices that lost the thread have asked to renew their keys.
    pub renewals_asked: Vec<DeviceAddress>,
    packages: BTreeMap<DeviceAddress, (VecDeque<Bytes>, Bytes)>,
    conversations: BTreeMap<ConversationId, Conversation>,
    queues: BTreeMap<DeviceAddress, BTreeMap<u64, Bytes>>,
    acked: BTreeMap<DeviceAddress, u64>,
    /// Up to here what waited for a device is gone, which each of its connections is told until it has acknowledged it.
    pub gaps: BTreeMap<DeviceAddress, u64>,
    seq: u64,
    receipts: u64,
    /// Receipts that are settled as soon as they are given.
    pub settle: bool,
    /// Receipts that were lost: presented, they are to be sent again.
    pub lose_receipts: bool,
    /// Devices that nothing is delivered to for now.
    pub hold: BTreeSet<DeviceAddress>,
    /// Devices that are told that nothing waits before what waits is delivered: it is still on its way to them.
    pub late: BTreeSet<DeviceAddress>,
    /// Devices whose sends are answered later, and these answers.
    pub hold_results: BTreeSet<DeviceAddress>,
    held_results: Vec<(DeviceAddress, edge::ServerFrame)>,
    /// Devices whose messages, not their ticks, are refused for a while.
    pub refuse_messages: BTreeSet<DeviceAddress>,
    /// Devices whose messages, not their ticks, are taken and answered later, and these messages.
    pub hold_messages: BTreeSet<DeviceAddress>,
    held_messages: Vec<(DeviceAddress, edge::Send)>,
    /// Whether verdicts on commits are answered later, and these answers.
    pub hold_commits: bool,
    held_commits: Vec<(DeviceAddress, edge::ServerFrame)>,
    /// The method whose calls are answered later, and these answers.
    pub hold_calls: Option<&'static str>,
    held_calls: Vec<(DeviceAddress, edge::ServerFrame)>,
    /// Codes that sends were refused with.
    pub refused: Vec<ErrorCode>,
    /// Objects that are larger than one page, and pages of those that are not whole yet.
    pub payloads: BTreeMap<Bytes, Bytes>,
    pages: BTreeMap<(DeviceAddress, Bytes), BTreeMap<u64, Bytes>>,
    /// Pages that are answered as absent so many times.
    pub missing_pages: usize,
    /// Pages whose bytes are damaged so many times.
    pub damaged_pages: usize,
    /// Pages stored or fetched.
    pub pages_moved: usize,
    /// Devices that hear that a conversation exists only after what is delivered then, and these answers.
    pub late_creates: BTreeSet<DeviceAddress>,
    held_creates: Vec<(DeviceAddress, edge::ServerFrame)>,
    /// What this device hears when it makes a conversation.
    pub creating: Option<(DeviceAddress, ErrorCode)>,
    /// So many publications of key packages are refused for good.
    pub refuse_packages: usize,
    /// The packages of last resort that were offered, refused ones too.
    pub offered: Vec<Bytes>,
    /// What a restored server tells of itself.
    pub history: Bytes,
    log_epoch: u64,
    /// Whether commits of earlier epochs are not kept any more.
    pub commits_gone: bool,
    /// Commits that were told that another one came first.
    pub lost_races: usize,
    /// Commits are refused, for a reason that has nothing to do with devices.
    pub refuse_commits: bool,
    /// So many verdicts on commits are nonsense; the commits are taken.
    pub garbled_verdicts: usize,
    /// So many times it says nonsense of itself.
    pub garbled_infos: usize,
    /// No group has more devices.
    pub devices_max: Option<usize>,
    /// What is larger travels by reference; by default what does not fit a page.
    pub inline_max: Option<usize>,
    /// Lists that are taken so many times and nothing is done then: the server dies, and its answer never comes.
    pub half_puts: usize,
    /// Answers to lists that were put come when this is over.
    pub hold_puts: bool,
    held_puts: Vec<(DeviceAddress, edge::ServerFrame)>,
    /// Every envelope for a device, as somebody who taps the line records them.
    pub recorded: BTreeMap<DeviceAddress, Vec<log::Envelope>>,
    /// Ticks that were taken.
    pub ticks: usize,
    /// The suites that it takes besides those that every server takes.
    pub suites: Vec<Suite>,
    /// Every method that was called.
    pub calls: Vec<String>,
}

/// What the server keeps of a connection.
#[derive(Default)]
pub struct Connection {
    pub device: Option<DeviceAddress>,
    sent: u64,
    hello: bool,
}

fn frame(frame: server_frame::Frame) -> edge::ServerFrame {
    edge::ServerFrame { frame: Some(frame) }
}

impl Server {
    pub fn hello() -> edge::ServerHello {
        edge::ServerHello { nonce: Bytes::from_static(&[5; 32]), versions: vec![1], now_ms: 0 }
    }

    pub fn handle(&mut self, from: &mut Connection, received: edge::ClientFrame, now: u64) -> Vec<edge::ServerFrame> {
        assert!(received.encoded_len() <= pli_domain::limits::FRAME_BYTES_MAX);
        match received.frame.expect("a frame") {
            client_frame::Frame::Hello(hello) => self.open(from, &hello, now),
            client_frame::Frame::Call(call) => {
                let late = from.device.filter(|d| self.late_creates.contains(d) && call.method.ends_with("/Create"));
                let is_held = self.hold_commits && call.method.ends_with("/Commit");
                let is_late = self.hold_calls.is_some_and(|method| call.method.ends_with(method));
                let is_put = call.method.ends_with("/PutDeviceList");
                let dies = is_put && self.half_puts > 0;
                let answer = self.call(from, call);
                if dies {
                    return Vec::new();
                }
                if let Some(device) = from.device.filter(|_| is_put && self.hold_puts) {
                    self.held_puts.push((device, answer));
                    return Vec::new();
                }
                if let Some(device) = from.device.filter(|_| is_late) {
                    self.held_calls.push((device, answer));
                    return Vec::new();
                }
                let refused = format!("{answer:?}").contains("Error(");
                match (from.device, late) {
                    (_, Some(device)) if refused => self.held_creates.push((device, answer)),
                    (Some(device), _) if is_held => self.held_commits.push((device, answer)),
                    _ => return vec![answer],
                }
                Vec::new()
            }
            client_frame::Frame::Send(batch) => {
                assert!(from.hello);
                let device = from.device.expect("authenticated");
                let answers: Vec<_> = batch.sends.into_iter().flat_map(|send| self.send(device, send, now)).collect();
                if self.hold_results.contains(&device) {
                    self.held_results.extend(answers.into_iter().map(|answer| (device, answer)));
                    return Vec::new();
                }
                answers
            }
            client_frame::Frame::Pending(pending) => {
                let lost = self.lose_receipts;
                let each = pending.receipts.into_iter().map(|receipt| {
                    let outcome = if lost {
                        settled::Outcome::Resend(edge::Resend {})
                    } else {
                        settled::Outcome::Stored(edge::Stored {})
                    };
                    edge::Settled { receipt, outcome: Some(outcome) }
                });
                vec![frame(server_frame::Frame::Settled(edge::SettledBatch { settled: each.collect() }))]
            }
            client_frame::Frame::Ack(ack) => {
                let queue = self.queues.entry(from.device.expect("authenticated")).or_default();
                *queue = queue.split_off(&(ack.position + 1));
                let acked = self.acked.entry(from.device.expect("authenticated")).or_default();
                *acked = ack.position.max(*acked);
                Vec::new()
            }
            client_frame::Frame::Ping(ping) => vec![frame(server_frame::Frame::Pong(edge::Pong { id: ping.id }))],
            client_frame::Frame::Signal(_) | client_frame::Frame::Pong(_) => Vec::new(),
        }
    }

    fn open(&mut self, from: &mut Connection, hello: &edge::ClientHello, now: u64) -> Vec<edge::ServerFrame> {
        from.hello = true;
        if !hello.account.is_empty() {
            let account = hello.account.as_ref().try_into().unwrap();
            from.device = Some(DeviceAddress { account, device: hello.device.as_ref().try_into().unwrap() });
        }
        if let Some(device) = from.device.filter(|device| self.is_unknown(*device)) {
            from.device = None;
            let reason = Some(refusal(ErrorCode::UnknownDevice, format!("{device:?} is in no list")));
            return vec![frame(server_frame::Frame::Close(edge::Close { reason, reconnect: false }))];
        }
        if let Some(device) = from.device.filter(|device| self.is_removed(*device)) {
            from.device = None;
            let reason = Some(refusal(ErrorCode::DeviceRemoved, format!("{device:?} was removed")));
            return vec![frame(server_frame::Frame::Close(edge::Close { reason, reconnect: false }))];
        }
        let known = from.device.is_none_or(|device| self.lists.contains_key(&device.account));
        if !known {
            let close = edge::Close { reason: Some(refusal(ErrorCode::UnknownDevice, "unknown")), reconnect: false };
            return vec![frame(server_frame::Frame::Close(close))];
        }
        let position_ignored = hello.history != self.history;
        if let (true, Some(device)) = (position_ignored, from.device) {
            self.acked.remove(&device);
        }
        let acked = from.device.and_then(|device| self.acked.get(&device)).copied().unwrap_or(0);
        from.sent = if position_ignored { 0 } else { hello.committed.max(acked) };
        let limits = edge::Limits { send_window: 8, call_window: 4, idle_timeout_ms: 60_000, ..Default::default() };
        let history = self.history.clone();
        let ready = edge::Ready {
            limits: Some(limits),
            now_ms: now,
            from: from.sent,
            history,
            position_ignored,
            ..Default::default()
        };
        let mut opened = vec![frame(server_frame::Frame::Ready(ready))];
        if let Some(to) = from.device.and_then(|device| self.gaps.get(&device)).filter(|to| **to > from.sent) {
            opened.push(frame(server_frame::Frame::Gap(edge::Gap { from: from.sent, to: *to })));
            from.sent = *to;
        }
        opened
    }

    /// The last frame of a session whose device was removed since it began.
    pub fn closing(&self, to: &Connection) -> Option<edge::ServerFrame> {
        to.device.filter(|device| self.is_removed(*device))?;
        let reason = Some(refusal(ErrorCode::DeviceRemoved, "removed"));
        Some(frame(server_frame::Frame::Close(edge::Close { reason, reconnect: false })))
    }

    fn is_removed(&self, device: DeviceAddress) -> bool {
        let listed = self.listed(device.account);
        !self.spares_removed && !listed.is_empty() && !listed.contains_key(&device)
    }

    /// No list of its account ever named it, as where the server was restored from before it was linked.
    fn is_unknown(&self, device: DeviceAddress) -> bool {
        let chain = self.chains.get(&device.account).map_or(&[][..], Vec::as_slice);
        let names = |signed: &directory::SignedDeviceList| devices_of(device.account, signed).contains_key(&device);
        !chain.is_empty() && !chain.iter().any(names)
    }

    /// Whether anything is kept for a device.
    pub fn serves(&self, device: DeviceAddress) -> bool {
        self.packages.contains_key(&device) || self.queues.get(&device).is_some_and(|queue| !queue.is_empty())
    }

    /// The newest list of an account is another one of the same version: the server was restored, and so was whoever signs.
    pub fn fork(&mut self, account: AccountId, other: directory::SignedDeviceList) {
        *self.chains.get_mut(&account).unwrap().last_mut().unwrap() = other.clone();
        self.lists.get_mut(&account).unwrap().1 = other;
    }

    /// The directory loses the newest list of an account, and nothing else.
    pub fn lose_newest_list(&mut self, account: AccountId) {
        let chain = self.chains.get_mut(&account).unwrap();
        chain.pop();
        self.lists.get_mut(&account).unwrap().1 = chain.last().unwrap().clone();
    }

    /// A commit of somebody who keeps no rules, who is told nothing.
    pub fn commit_of(&mut self, device: DeviceAddress, id: ConversationId, commit: pli_client_core::mls::Commit) {
        let inline = |bytes: Vec<u8>| Some(api::Object { object: Some(api::object::Object::Inline(bytes.into())) });
        let request = api::CommitRequest {
            conversation: Bytes::copy_from_slice(id.as_bytes()),
            epoch: commit.epoch,
            commit: inline(commit.commit),
            welcome: None,
            group_info: inline(commit.group_info),
        };
        self.commit(device, &request).expect("taken");
    }

    /// The devices of an account's newest list, with their keys; none where there is no account.
    pub fn listed(&self, account: AccountId) -> BTreeMap<DeviceAddress, Bytes> {
        self.lists.get(&account).map_or_else(BTreeMap::new, |(_, signed)| devices_of(account, signed))
    }

    /// How a group differs from its members' lists: devices that it lacks, and that it should not have.
    fn differences(&self, roster: &BTreeSet<DeviceAddress>) -> (Vec<DeviceAddress>, Vec<DeviceAddress>) {
        let accounts: BTreeSet<AccountId> = roster.iter().map(|device| device.account).collect();
        let listed: BTreeSet<DeviceAddress> = accounts.iter().flat_map(|a| self.listed(*a).into_keys()).collect();
        // One that has published nothing yet cannot be had.
        let lacks = listed.difference(roster).filter(|device| self.packages.contains_key(device));
        (lacks.copied().collect(), roster.difference(&listed).copied().collect())
    }

    /// What waits for the device and was not sent on this connection.
    pub fn deliveries(&mut self, to: &mut Connection, caught_up: &mut bool) -> Vec<edge::ServerFrame> {
        let Some(device) = to.device.filter(|device| !self.hold.contains(device)) else { return Vec::new() };
        let mut out = Vec::new();
        if !self.hold_results.contains(&device) {
            let held = std::mem::take(&mut self.held_results).into_iter();
            let (due, rest) = held.partition(|(to, _): &(DeviceAddress, _)| *to == device);
            self.held_results = rest;
            let due: Vec<_> = due;
            out.extend(due.into_iter().map(|(_, answer)| answer));
        }
        if !self.hold_puts {
            let (due, rest) = std::mem::take(&mut self.held_puts).into_iter().partition(|(to, _)| *to == device);
            self.held_puts = rest;
            let due: Vec<_> = due;
            out.extend(due.into_iter().map(|(_, answer)| answer));
        }
        if !self.hold_commits {
            let (due, rest) = std::mem::take(&mut self.held_commits).into_iter().partition(|(to, _)| *to == device);
            self.held_commits = rest;
            let due: Vec<_> = due;
            out.extend(due.into_iter().map(|(_, answer)| answer));
        }
        if self.hold_calls.is_none() {
            let (due, rest) = std::mem::take(&mut self.held_calls).into_iter().partition(|(to, _)| *to == device);
            self.held_calls = rest;
            let due: Vec<_> = due;
            out.extend(due.into_iter().map(|(_, answer)| answer));
        }
        let queue = self.queues.entry(device).or_default();
        let before = to.sent;
        let here = !self.late.contains(&device);
        for (&position, envelope) in queue.range(to.sent + 1..).filter(|_| here) {
            let deliver = edge::Deliver { position, envelope: envelope.clone(), previous: to.sent };
            out.push(frame(server_frame::Frame::Deliver(deliver)));
            to.sent = position;
        }
        if to.sent > before {
            let held = std::mem::take(&mut self.held_creates).into_iter();
            let (due, rest): (Vec<_>, Vec<_>) = held.partition(|(to, _)| *to == device);
            self.held_creates = rest;
            out.extend(due.into_iter().map(|(_, answer)| answer));
        }
        if !*caught_up {
            *caught_up = true;
            out.push(frame(server_frame::Frame::CaughtUp(edge::CaughtUp { position: to.sent })));
        }
        out
    }

    /// What a backup of now brings back when it is restored: `pli_engine_embedded::begin_history`.
    pub fn restored(&self, history: u8) -> Self {
        let mut restored = self.clone();
        restored.history = vec![history; 16].into();
        restored.log_epoch = self.log_epoch + 1;
        restored.conversations.clear();
        // Answers die with their connections.
        restored.hold_commits = false;
        (restored.held_commits, restored.held_creates, restored.held_results) = (Vec::new(), Vec::new(), Vec::new());
        restored.packages.values_mut().for_each(|(single_use, _)| single_use.clear());
        restored
    }

    /// Takes a device off a roster without telling it.
    pub fn expel(&mut self, id: ConversationId, device: DeviceAddress) {
        self.conversations.get_mut(&id).unwrap().roster.remove(&device);
    }

    /// Who is in a conversation.
    pub fn roster(&self, id: ConversationId) -> BTreeSet<DeviceAddress> {
        self.conversations[&id].roster.clone()
    }

    /// Who was in a conversation at an epoch.
    pub fn roster_at(&self, id: ConversationId, epoch: u64) -> BTreeSet<DeviceAddress> {
        let conversation = &self.conversations[&id];
        conversation.old_rosters.get(&epoch).unwrap_or(&conversation.roster).clone()
    }

    /// Whether a device was in a conversation and was out of it afterwards.
    pub fn was_out(&self, id: ConversationId, device: DeviceAddress) -> bool {
        let mut inside = self.presence(id, device);
        inside.any(|is_in| is_in) && inside.any(|is_in| !is_in)
    }

    /// Whether a device was ever in a conversation.
    pub fn was_in(&self, id: ConversationId, device: DeviceAddress) -> bool {
        self.presence(id, device).any(|is_in| is_in)
    }

    /// Whether a device was out of a conversation after it was in, and was in again.
    pub fn was_back(&self, id: ConversationId, device: DeviceAddress) -> bool {
        let mut inside = self.presence(id, device);
        inside.any(|is_in| is_in) && inside.any(|is_in| !is_in) && inside.any(|is_in| is_in)
    }

    /// Whether a device is in a conversation, epoch by epoch.
    fn presence(&self, id: ConversationId, device: DeviceAddress) -> impl Iterator<Item = bool> {
        let Conversation { old_rosters, roster, .. } = &self.conversations[&id];
        old_rosters.values().chain([roster]).map(move |roster| roster.contains(&device))
    }

    /// The epoch and the tree hash of a conversation, from the GroupInfo of its last commit.
    pub fn epoch_and_tree(&self, id: ConversationId) -> (u64, Vec<u8>) {
        let group = public_group(&self.conversations[&id].group_info);
        (group.group_context().epoch().as_u64(), group.group_context().tree_hash().to_vec())
    }

    /// Puts a device on a roster that its group does not have, as no honest server does.
    pub fn smuggle(&mut self, id: ConversationId, device: DeviceAddress) {
        self.conversations.get_mut(&id).unwrap().roster.insert(device);
    }

    /// A key package that somebody has published.
    pub fn package_of(&self, device: DeviceAddress) -> Bytes {
        self.packages[&device].1.clone()
    }

    /// Leaves a device at the directory with its package of last resort alone; answers that.
    pub fn exhaust(&mut self, device: DeviceAddress) -> Bytes {
        let (single_use, last_resort) = self.packages.get_mut(&device).unwrap();
        single_use.clear();
        last_resort.clone()
    }

    /// Later positions lie above those of another branch of this server's story.
    pub fn skip_positions(&mut self, count: u64) {
        self.seq += count;
    }

    /// What waits for a device comes once more after it.
    pub fn replay(&mut self, device: DeviceAddress) {
        let again: Vec<Bytes> = self.queues.entry(device).or_default().values().cloned().collect();
        for bytes in again {
            self.queue(device, &log::Envelope::decode(bytes).unwrap());
        }
    }

    /// What waits for a device comes the other way round.
    pub fn reverse(&mut self, device: DeviceAddress) {
        let queue = self.queues.entry(device).or_default();
        let bodies: Vec<Bytes> = queue.values().rev().cloned().collect();
        queue.values_mut().zip(bodies).for_each(|(place, body)| *place = body);
    }

    /// Loses what waits for a device.
    pub fn lose_queue(&mut self, device: DeviceAddress) -> u64 {
        let queue = self.queues.entry(device).or_default();
        let last = queue.keys().next_back().copied().unwrap_or(0);
        queue.clear();
        last
    }

    /// The log loses its end: what waits for a device, and a new log epoch begins.
    pub fn lose_log(&mut self, device: DeviceAddress) {
        self.lose_queue(device);
        self.log_epoch += 1;
    }

    /// Loses the answers that were held.
    pub fn lose_results(&mut self) {
        self.held_results.clear();
        self.hold_results.clear();
    }

    /// Loses so many of what waits for a device, the oldest first; answers the position of the last one.
    pub fn lose_oldest(&mut self, device: DeviceAddress, count: usize) -> u64 {
        let queue = self.queues.entry(device).or_default();
        let mut last = 0;
        for _ in 0..count {
            (last, _) = queue.pop_first().expect("so many wait");
        }
        last
    }

    /// How much waits for a device.
    pub fn waiting(&self, device: DeviceAddress) -> usize {
        self.queues.get(&device).map_or(0, BTreeMap::len)
    }

    /// Loses the message that waits for a device first.
    pub fn lose_first(&mut self, device: DeviceAddress) {
        self.queues.entry(device).or_default().pop_first().expect("a message waits");
    }

    /// Flips a bit in the body of everything that waits for a device.
    pub fn damage_queue(&mut self, device: DeviceAddress) {
        for bytes in self.queues.entry(device).or_default().values_mut() {
            let mut envelope = log::Envelope::decode(bytes.clone()).unwrap();
            if let Some(log::envelope::BodyOrRef::Body(body)) = &mut envelope.body_or_ref {
                let mut damaged = body.to_vec();
                *damaged.last_mut().unwrap() ^= 1;
                *body = damaged.into();
            }
            *bytes = envelope.encode_to_vec().into();
        }
    }

    /// An object as the service gives it: larger than a page by reference.
    fn object(&mut self, bytes: Bytes) -> api::Object {
        let object = match self.reference(&bytes) {
            Some(reference) => api::object::Object::Ref(reference),
            None => api::object::Object::Inline(bytes),
        };
        api::Object { object: Some(object) }
    }

    fn reference(&mut self, bytes: &Bytes) -> Option<common::PayloadRef> {
        if bytes.len() <= self.inline_max.unwrap_or(PAGE_BYTES_MAX) {
            return None;
        }
        let sha256 = Bytes::copy_from_slice(&Sha256::digest(bytes));
        let id = sha256.slice(16..);
        self.payloads.insert(id.clone(), bytes.clone());
        Some(common::PayloadRef { id, size: bytes.len() as u64, sha256 })
    }

    fn bytes_of(&self, object: Option<&api::Object>) -> Bytes {
        match object.and_then(|o| o.object.as_ref()) {
            Some(api::object::Object::Inline(bytes)) => bytes.clone(),
            Some(api::object::Object::Ref(reference)) => {
                let bytes = self.payloads.get(&reference.id).expect("stored before it is named").clone();
                assert_eq!(bytes.len() as u64, reference.size);
                assert_eq!(Sha256::digest(&bytes).as_slice(), reference.sha256.as_ref());
                bytes
            }
            None => panic!("no object"),
        }
    }

    fn put_page(&mut self, device: DeviceAddress, request: &api::PutPayloadRequest) -> Answer {
        assert!(request.bytes.len() <= PAGE_BYTES_MAX);
        self.pages_moved += 1;
        let pages = self.pages.entry((device, request.id.clone())).or_default();
        pages.insert(request.offset, request.bytes.clone());
        if request.offset + request.bytes.len() as u64 == request.size {
            let whole: Vec<u8> = pages.values().flatten().copied().collect();
            if whole.len() as u64 != request.size {
                return Err(refusal(ErrorCode::BadRequest, "a page is missing"));
            }
            self.payloads.insert(request.id.clone(), whole.into());
        }
        Ok(api::PutPayloadResponse {}.encode_to_vec())
    }

    fn fetch_page(&mut self, request: &api::FetchPayloadRequest) -> Answer {
        self.pages_moved += 1;
        if self.missing_pages > 0 && request.offset > 0 {
            self.missing_pages -= 1;
            return Err(refusal(ErrorCode::NotFound, "the page is gone"));
        }
        let whole = self.payloads.get(&request.id).ok_or_else(|| refusal(ErrorCode::NotFound, "no payload"))?;
        let from = usize::try_from(request.offset).unwrap();
        let mut bytes = whole[from..whole.len().min(from + PAGE_BYTES_MAX)].to_vec();
        let size = whole.len() as u64;
        if self.damaged_pages > 0 {
            self.damaged_pages -= 1;
            bytes[0] ^= 1;
        }
        Ok(api::FetchPayloadResponse { bytes: bytes.into(), size }.encode_to_vec())
    }

    /// The commits from an epoch on, one at a time where they are large.
    fn missed(&mut self, id: ConversationId, from: u64) -> Vec<api::EpochCommit> {
        let commits: Vec<_> =
            self.conversations[&id].commits.range(from..).take(64).map(|(e, (d, c))| (*e, *d, c.clone())).collect();
        let each = commits.into_iter().map(|(epoch, committer, commit)| api::EpochCommit {
            epoch,
            committer: Some(committer.into()),
            commit: Some(self.object(commit)),
        });
        each.collect()
    }

    /// Who made the epochs of a conversation from `epoch` on.
    pub fn committers(&self, id: ConversationId, epoch: u64) -> Vec<DeviceAddress> {
        self.conversations[&id].commits.range(epoch..).map(|(_, (by, _))| *by).collect()
    }

    /// The epoch of a conversation.
    pub fn epoch(&self, id: ConversationId) -> u64 {
        self.conversations[&id].epoch
    }

    fn queue(&mut self, to: DeviceAddress, envelope: &log::Envelope) {
        let large = match &envelope.body_or_ref {
            Some(log::envelope::BodyOrRef::Body(body)) => self.reference(&body.clone()),
            _ => None,
        };
        let mut envelope = envelope.clone();
        self.recorded.entry(to).or_default().push(envelope.clone());
        if let Some(reference) = large {
            envelope.body_or_ref = Some(log::envelope::BodyOrRef::BodyRef(reference));
        }
        self.seq += 1;
        let position = Position::new(LogEpoch::new(1 + self.log_epoch).unwrap(), Seq::new(self.seq).unwrap(), 0);
        self.queues.entry(to).or_default().insert(position.get(), envelope.encode_to_vec().into());
    }

    /// What was held goes on its way, as it was admitted; answers how many messages.
    pub fn release_messages(&mut self, now: u64) -> usize {
        self.hold_messages.clear();
        let held = std::mem::take(&mut self.held_messages);
        let count = held.len();
        for (sender, send) in held {
            let answers = self.append(sender, &send, now);
            self.held_results.extend(answers.into_iter().map(|answer| (sender, answer)));
        }
        count
    }

    fn send(&mut self, sender: DeviceAddress, send: edge::Send, now: u64) -> Vec<edge::ServerFrame> {
        let is_message = send.class() == log::Class::Message;
        let id = ConversationId::try_from(send.conversation.as_ref()).unwrap();
        let result = |result| {
            let result = edge::SendResult { send_id: send.send_id.clone(), result: Some(result) };
            frame(server_frame::Frame::SendResults(edge::SendResults { results: vec![result] }))
        };
        let refused = |error| vec![result(send_result::Result::Refused(error))];
        let Some(conversation) = self.conversations.get(&id).filter(|c| c.roster.contains(&sender)) else {
            let mut error = refusal(ErrorCode::UnknownConversation, "unknown");
            // Whoever was put out since hears of the epoch.
            let epoch = self.conversations.get(&id).map(|c| c.epoch).filter(|epoch| *epoch > send.epoch);
            error.current_epoch = epoch.unwrap_or_default();
            return refused(error);
        };
        if is_message && self.refuse_messages.contains(&sender) {
            self.refused.push(ErrorCode::Temporary);
            return refused(refusal(ErrorCode::Temporary, "a shard does not answer"));
        }
        if send.epoch > conversation.epoch || send.epoch + 2 < conversation.epoch {
            let mut why = refusal(ErrorCode::WrongEpoch, "epoch");
            why.current_epoch = conversation.epoch;
            self.refused.push(ErrorCode::WrongEpoch);
            return refused(why);
        }
        assert!(send.expires_at_ms > now && !send.body.is_empty());
        if is_message && self.hold_messages.contains(&sender) {
            self.held_messages.push((sender, send));
            return Vec::new();
        }
        self.append(sender, &send, now)
    }

    /// To everybody of the epoch that it was sealed in.
    fn append(&mut self, sender: DeviceAddress, send: &edge::Send, now: u64) -> Vec<edge::ServerFrame> {
        let result = |result| {
            let result = edge::SendResult { send_id: send.send_id.clone(), result: Some(result) };
            frame(server_frame::Frame::SendResults(edge::SendResults { results: vec![result] }))
        };
        let id = ConversationId::try_from(send.conversation.as_ref()).unwrap();
        self.ticks += usize::from(send.class() == log::Class::Tick);
        let conversation = &self.conversations[&id];
        let roster = conversation.old_rosters.get(&send.epoch).unwrap_or(&conversation.roster).clone();
        let envelope = log::Envelope {
            sender: Some(sender.into()),
            send_id: send.send_id.clone(),
            conversation: send.conversation.clone(),
            epoch: send.epoch,
            class: send.class,
            content: log::Content::Application.into(),
            accepted_at_ms: now,
            expires_at_ms: send.expires_at_ms,
            body_or_ref: Some(log::envelope::BodyOrRef::Body(send.body.clone())),
            traceparent: Bytes::new(),
        };
        for device in roster.iter().filter(|d| **d != sender) {
            self.queue(*device, &envelope);
        }
        self.receipts += 1;
        let receipt = Bytes::copy_from_slice(&self.receipts.to_be_bytes());
        let accepted = edge::Accepted { receipt: receipt.clone(), accepted_at_ms: now };
        let mut out = vec![result(send_result::Result::Accepted(accepted))];
        if self.settle {
            let outcome = Some(settled::Outcome::Stored(edge::Stored {}));
            let batch = edge::SettledBatch { settled: vec![edge::Settled { receipt, outcome }] };
            out.push(frame(server_frame::Frame::Settled(batch)));
        }
        out
    }

    fn call(&mut self, from: &Connection, call: edge::Call) -> edge::ServerFrame {
        let method = call.method.rsplit('/').next().unwrap().to_owned();
        self.calls.push(method.clone());
        let body = call.body;
        let answer = match (method.as_str(), from.device) {
            ("Info", _) if self.garbled_infos > 0 => {
                self.garbled_infos -= 1;
                Ok(if self.garbled_infos.is_multiple_of(2) { vec![0xff; 3] } else { Vec::new() })
            }
            ("Info", _) => {
                let cipher_suites = self.suites.iter().map(|suite| suite.number().into()).collect();
                Ok(edge::ServerInfo { cipher_suites, ..edge::ServerInfo::default() }.encode_to_vec())
            }
            ("Register", None) => self.register(directory::RegisterRequest::decode(body).unwrap()),
            (_, None) => Err(refusal(ErrorCode::Anonymous, "anonymous")),
            ("Lookup", _) => self.lookup(&directory::LookupRequest::decode(body).unwrap()),
            ("GetDeviceLists", _) => self.device_lists(&directory::GetDeviceListsRequest::decode(body).unwrap()),
            ("PutDeviceList", Some(device)) => {
                self.put_list(device, directory::PutDeviceListRequest::decode(body).unwrap())
            }
            ("PublishKeyPackages", Some(device)) => {
                let request = directory::PublishKeyPackagesRequest::decode(body).unwrap();
                self.offered.push(request.last_resort.clone());
                match self.refuse_packages.checked_sub(1) {
                    Some(left) => {
                        self.refuse_packages = left;
                        Err(refusal(ErrorCode::BadRequest, "key_packages[0] has expired"))
                    }
                    None => {
                        self.packages.insert(device, (request.key_packages.into(), request.last_resort));
                        Ok(directory::PublishKeyPackagesResponse { stock: 100 }.encode_to_vec())
                    }
                }
            }
            ("ClaimKeyPackages", _) => self.claim(&directory::ClaimKeyPackagesRequest::decode(body).unwrap()),
            ("Create", Some(device)) => self.create(device, &api::CreateRequest::decode(body).unwrap()),
            ("Commit", Some(device)) => {
                let verdict = self.commit(device, &api::CommitRequest::decode(body).unwrap());
                match self.garbled_verdicts.checked_sub(1) {
                    Some(left) => {
                        self.garbled_verdicts = left;
                        Ok(vec![0xff; 3])
                    }
                    None => verdict,
                }
            }
            ("Propose", Some(device)) => self.propose(device, api::ProposeRequest::decode(body).unwrap()),
            ("GetCommits", Some(_)) => self.get_commits(&api::GetCommitsRequest::decode(body).unwrap()),
            ("GetGroupInfo", Some(device)) => {
                self.get_group_info(device, &api::GetGroupInfoRequest::decode(body).unwrap())
            }
            ("PutPayload", Some(device)) => self.put_page(device, &api::PutPayloadRequest::decode(body).unwrap()),
            ("FetchPayload", Some(_)) => self.fetch_page(&api::FetchPayloadRequest::decode(body).unwrap()),
            ("ReportFailure", Some(device)) => self.report(device, api::ReportFailureRequest::decode(body).unwrap()),
            ("List", Some(device)) => Ok(self.list(device)),
            (other, _) => panic!("unexpected call {other}"),
        };
        let result = match answer {
            Ok(body) => reply::Result::Body(body.into()),
            Err(error) => reply::Result::Error(error),
        };
        frame(server_frame::Frame::Reply(edge::Reply { id: call.id, result: Some(result) }))
    }

    fn register(&mut self, request: directory::RegisterRequest) -> Answer {
        let signed = request.devices.unwrap();
        let list = directory::DeviceList::decode(signed.list.clone()).unwrap();
        let account = AccountId::try_from(list.account.as_ref()).unwrap();
        if self.handles.get(&request.handle).is_some_and(|other| *other != account) {
            return Err(refusal(ErrorCode::HandleTaken, "taken"));
        }
        self.handles.insert(request.handle.clone(), account);
        self.chains.insert(account, vec![signed.clone()]);
        self.lists.insert(account, (request.handle.clone(), signed));
        Ok(directory::RegisterResponse { handle: request.handle }.encode_to_vec())
    }

    fn put_list(&mut self, caller: DeviceAddress, request: directory::PutDeviceListRequest) -> Answer {
        let signed = request.devices.unwrap();
        let list = directory::DeviceList::decode(signed.list.clone()).unwrap();
        assert_eq!(list.account.as_ref(), caller.account.as_bytes());
        let (handle, newest) = self.lists[&caller.account].clone();
        let before = directory::DeviceList::decode(newest.list.clone()).unwrap();
        let hash = Sha256::digest(newest.encode_to_vec());
        if signed != newest && (list.version != before.version + 1 || list.previous != hash.as_slice()) {
            return Err(refusal(ErrorCode::DeviceListVersion, format!("the newest is {}", before.version)));
        }
        if signed != newest {
            self.chains.entry(caller.account).or_default().push(signed.clone());
        }
        self.lists.insert(caller.account, (handle, signed));
        if self.half_puts > 0 {
            self.half_puts -= 1;
            return Ok(directory::PutDeviceListResponse {}.encode_to_vec());
        }
        let listed = self.listed(caller.account);
        let gone = |device: &DeviceAddress| device.account == caller.account && !listed.contains_key(device);
        if !self.spares_removed {
            self.packages.retain(|device, _| !gone(device));
            self.queues.retain(|device, _| !gone(device));
        }
        Ok(directory::PutDeviceListResponse {}.encode_to_vec())
    }

    fn lookup(&self, request: &directory::LookupRequest) -> Answer {
        let account = self.handles.get(&request.handle).ok_or_else(|| refusal(ErrorCode::NotFound, "nobody"))?;
        let (handle, mut devices) = self.lists[account].clone();
        if let Some((lie, _)) = self.lies.get(account) {
            devices = lie.clone();
        }
        let account = Bytes::copy_from_slice(account.as_bytes());
        Ok(directory::LookupResponse { account, handle, devices: Some(devices) }.encode_to_vec())
    }

    fn device_lists(&self, request: &directory::GetDeviceListsRequest) -> Answer {
        let known = request.known.iter().copied().chain(std::iter::repeat(0));
        let accounts = request.accounts.iter().zip(known).filter_map(|(account, known)| {
            let id = AccountId::try_from(account.as_ref()).unwrap();
            let (handle, newest) = self.lists.get(&id)?.clone();
            let chain = self.chains.get(&id).map_or(&[][..], Vec::as_slice);
            let after = chain.get(usize::try_from(known).unwrap()..).unwrap_or_default();
            let between = after.split_last().filter(|_| known > 0).map(|(_, between)| between.to_vec());
            let (devices, between) = match self.lies.get(&id) {
                Some((lie, between)) => (Some(lie.clone()), between.clone()),
                None if known == u64::try_from(chain.len()).unwrap() => (None, Vec::new()),
                None => (Some(newest), between.unwrap_or_default()),
            };
            Some(directory::AccountDevices { account: account.clone(), handle, devices, between })
        });
        Ok(directory::GetDeviceListsResponse { accounts: accounts.collect() }.encode_to_vec())
    }

    fn claim(&mut self, request: &directory::ClaimKeyPackagesRequest) -> Answer {
        let mut key_packages = Vec::new();
        for device in &request.devices {
            let address = DeviceAddress::try_from(device).unwrap();
            let listed = self.lists.contains_key(&address.account);
            let stock = self.packages.get_mut(&address).filter(|_| listed);
            let exhausted = || {
                let mut why = refusal(ErrorCode::KeyPackagesExhausted, "none");
                why.missing.push(device.clone());
                why
            };
            let (packages, last) = stock.ok_or_else(exhausted)?;
            let key_package = packages.pop_front().unwrap_or_else(|| last.clone());
            let key_package = self.swapped.get(&address).cloned().unwrap_or(key_package);
            key_packages.push(directory::DeviceKeyPackage { device: Some(device.clone()), key_package });
        }
        Ok(directory::ClaimKeyPackagesResponse { key_packages }.encode_to_vec())
    }

    fn create(&mut self, creator: DeviceAddress, request: &api::CreateRequest) -> Answer {
        if let Some((_, code)) = self.creating.filter(|(device, _)| *device == creator) {
            return Err(refusal(code, "as the test wants"));
        }
        let info = self.bytes_of(request.group_info.as_ref());
        let (id, epoch, roster) = read_group(&info);
        assert_eq!((epoch, &roster), (0, &[creator].into()));
        if self.conversations.get(&id).is_some_and(|there| there.created != info) {
            return Err(refusal(ErrorCode::ConversationTaken, "taken"));
        }
        let created = info.clone();
        let conversation = Conversation { roster, created, group_info: info, ..Conversation::default() };
        self.conversations.entry(id).or_insert(conversation);
        Ok(api::CreateResponse {}.encode_to_vec())
    }

    fn commit(&mut self, committer: DeviceAddress, request: &api::CommitRequest) -> Answer {
        let id = ConversationId::try_from(request.conversation.as_ref()).unwrap();
        let commit = self.bytes_of(request.commit.as_ref());
        let group_info = self.bytes_of(request.group_info.as_ref());
        let welcome = request.welcome.as_ref().map(|w| self.bytes_of(Some(w))).unwrap_or_default();
        let unknown = || refusal(ErrorCode::UnknownConversation, "unknown");
        let conversation = self.conversations.get_mut(&id).ok_or_else(unknown)?;
        if !conversation.roster.iter().any(|d| d.account == committer.account) {
            return Err(unknown());
        }
        if conversation.commits.get(&request.epoch) == Some(&(committer, commit.clone())) {
            let won = api::CommitWon { epoch: request.epoch + 1 };
            return Ok(api::CommitResponse { outcome: Some(api::commit_response::Outcome::Won(won)) }.encode_to_vec());
        }
        if request.epoch != conversation.epoch {
            let current_epoch = conversation.epoch;
            let missed = self.missed(id, request.epoch);
            self.lost_races += 1;
            let lost = api::CommitLost { current_epoch, missed };
            return Ok(api::CommitResponse { outcome: Some(api::commit_response::Outcome::Lost(lost)) }.encode_to_vec());
        }
        if self.refuse_commits {
            return Err(refusal(ErrorCode::CommitInvalid, "as the test wants"));
        }
        let (_, epoch, roster) = read_group(&group_info);
        assert_eq!(epoch, request.epoch + 1);
        if self.devices_max.is_some_and(|most| roster.len() > most) {
            return Err(refusal(ErrorCode::GroupTooLarge, "as the test wants"));
        }
        let external = !conversation.roster.contains(&committer);
        let shrinks = roster.is_subset(&conversation.roster) && roster != conversation.roster;
        let (mut missing, mut extra) = self.differences(&roster);
        let mut fits = self.spares_removed || extra.is_empty() && (external || shrinks || missing.is_empty());
        if let Some(demanded) = self.demanded.filter(|device| !roster.contains(device)) {
            (missing, extra, fits) = (vec![demanded], Vec::new(), false);
        }
        if !fits {
            self.mismatches += 1;
            let mut why = refusal(ErrorCode::DevicesMismatch, format!("missing {missing:?}, extra {extra:?}"));
            why.missing = missing.into_iter().map(Into::into).collect();
            why.extra = extra.into_iter().map(Into::into).collect();
            return Err(why);
        }
        let conversation = self.conversations.get_mut(&id).ok_or_else(unknown)?;
        let old = std::mem::replace(&mut conversation.roster, roster.clone());
        conversation.old_rosters.insert(request.epoch, old.clone());
        conversation.epoch = epoch;
        conversation.group_info = group_info;
        conversation.commits.insert(request.epoch, (committer, commit.clone()));
        let content = envelope(committer, id, request.epoch, log::Content::Commit, commit);
        old.iter().for_each(|device| self.queue(*device, &content));
        if !welcome.is_empty() {
            let content = envelope(committer, id, request.epoch, log::Content::Welcome, welcome);
            roster.difference(&old).for_each(|device| self.queue(*device, &content));
        }
        let won = api::CommitWon { epoch };
        Ok(api::CommitResponse { outcome: Some(api::commit_response::Outcome::Won(won)) }.encode_to_vec())
    }

    fn propose(&mut self, sender: DeviceAddress, request: api::ProposeRequest) -> Answer {
        let id = ConversationId::try_from(request.conversation.as_ref()).unwrap();
        let conversation = &self.conversations[&id];
        if request.epoch != conversation.epoch {
            return Err(refusal(ErrorCode::WrongEpoch, "epoch"));
        }
        let content = envelope(sender, id, request.epoch, log::Content::Proposal, request.proposal);
        let others: Vec<DeviceAddress> = conversation.roster.iter().filter(|d| **d != sender).copied().collect();
        others.into_iter().for_each(|device| self.queue(device, &content));
        Ok(api::ProposeResponse {}.encode_to_vec())
    }

    fn report(&mut self, sender: DeviceAddress, request: api::ReportFailureRequest) -> Answer {
        let id = ConversationId::try_from(request.conversation.as_ref()).unwrap();
        let conversation = &self.conversations[&id];
        let asked = request.renew.iter().map(|device| DeviceAddress::try_from(device).unwrap());
        let asked: Vec<DeviceAddress> = asked.filter(|device| conversation.roster.contains(device)).collect();
        self.ask_to_renew(sender, id, &asked);
        self.renewals_asked.extend(asked);
        Ok(api::ReportFailureResponse {}.encode_to_vec())
    }

    pub fn ask_to_renew(&mut self, sender: DeviceAddress, id: ConversationId, asked: &[DeviceAddress]) {
        let content = envelope(sender, id, self.conversations[&id].epoch, log::Content::Renew, Bytes::new());
        asked.iter().for_each(|device| self.queue(*device, &content));
    }

    fn get_commits(&mut self, request: &api::GetCommitsRequest) -> Answer {
        let id = ConversationId::try_from(request.conversation.as_ref()).unwrap();
        let commits = self.missed(id, request.from);
        let current_epoch = self.conversations[&id].epoch;
        let gone = self.commits_gone && !commits.is_empty();
        Ok(api::GetCommitsResponse { commits, current_epoch, gone }.encode_to_vec())
    }

    fn get_group_info(&mut self, device: DeviceAddress, request: &api::GetGroupInfoRequest) -> Answer {
        let id = ConversationId::try_from(request.conversation.as_ref()).unwrap();
        let conversation = &self.conversations[&id];
        if !conversation.roster.iter().any(|d| d.account == device.account) {
            return Err(refusal(ErrorCode::UnknownConversation, "unknown"));
        }
        let (info, epoch) = (conversation.group_info.clone(), conversation.epoch);
        let info = self.exchanged.clone().unwrap_or(info);
        let group_info = Some(self.object(info));
        Ok(api::GetGroupInfoResponse { group_info, ratchet_tree: None, epoch }.encode_to_vec())
    }

    fn list(&self, device: DeviceAddress) -> Vec<u8> {
        let inside = self.conversations.iter().filter(|(_, c)| c.roster.iter().any(|d| d.account == device.account));
        let conversations = inside.map(|(id, c)| api::ConversationEpoch {
            conversation: Bytes::copy_from_slice(id.as_bytes()),
            epoch: c.epoch,
        });
        api::ListResponse { conversations: conversations.collect(), more: false }.encode_to_vec()
    }
}

fn devices_of(account: AccountId, signed: &directory::SignedDeviceList) -> BTreeMap<DeviceAddress, Bytes> {
    let list = directory::DeviceList::decode(signed.list.clone()).unwrap();
    let entry = |entry: &directory::DeviceListEntry| {
        (DeviceAddress { account, device: entry.device.as_ref().try_into().unwrap() }, entry.key.clone())
    };
    list.devices.iter().map(entry).collect()
}

fn envelope(
    sender: DeviceAddress,
    id: ConversationId,
    epoch: u64,
    content: log::Content,
    body: Bytes,
) -> log::Envelope {
    let mut send_id = [0; 16];
    send_id[..8].copy_from_slice(&epoch.to_be_bytes());
    send_id[8] = content as u8;
    log::Envelope {
        sender: Some(sender.into()),
        send_id: Bytes::copy_from_slice(&send_id),
        conversation: Bytes::copy_from_slice(id.as_bytes()),
        epoch,
        class: log::Class::Message.into(),
        content: content.into(),
        accepted_at_ms: 1,
        expires_at_ms: u64::MAX,
        body_or_ref: Some(log::envelope::BodyOrRef::Body(body)),
        traceparent: Bytes::new(),
    }
}

/// Id, epoch and roster of a GroupInfo with ratchet tree, verified as the service would.
fn read_group(info: &[u8]) -> (ConversationId, u64, BTreeSet<DeviceAddress>) {
    let group = public_group(info);
    let id = ConversationId::try_from(group.group_id().as_slice()).unwrap();
    let roster = group.members().map(|m| {
        let credential = BasicCredential::try_from(m.credential).unwrap();
        let (account, device) = credential.identity().split_at(16);
        DeviceAddress { account: account.try_into().unwrap(), device: device.try_into().unwrap() }
    });
    (id, group.group_context().epoch().as_u64(), roster.collect())
}

fn public_group(info: &[u8]) -> PublicGroup {
    let MlsMessageBodyIn::GroupInfo(info) = MlsMessageIn::tls_deserialize_exact_bytes(info).unwrap().extract() else {
        panic!("not a group info")
    };
    let tree = info.extensions().ratchet_tree().expect("a tree").ratchet_tree().clone();
    let (crypto, storage) = (RustCrypto::default(), MemoryStorage::default());
    PublicGroup::from_external(&crypto, &storage, tree, info, ProposalStore::new()).expect("valid").0
}
