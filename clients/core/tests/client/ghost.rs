// SPDX-License-Identifier: MIT OR Apache-2.0
//! A device that keeps no rules: MLS and frames without the core. It stands for a third party, and for members of a
//! large group who only have to be there.

use std::collections::BTreeMap;

use bytes::Bytes;
use pli_api::{conversations as api, directory, edge, log};
use pli_client_core::content::{Content, Frame, Kind, Ticks};
use pli_client_core::identity::Identity;
use pli_client_core::mls::{Commit, Mls};
use pli_domain::{Class, ConversationId, DeviceAddress, Handle, SendId};
use prost::Message;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::server::{Connection, Server};

pub struct Ghost {
    pub identity: Identity,
    pub mls: Mls,
    connection: Connection,
    said: BTreeMap<ConversationId, u64>,
    ticked: u64,
}

impl Ghost {
    /// Registered, with one key package.
    pub fn join(server: &mut Server, name: &str, seed: u16) -> Self {
        let mut bytes = [9; 32];
        bytes[..2].copy_from_slice(&seed.to_be_bytes());
        let identity = Identity::create(name.parse::<Handle>().unwrap(), &mut ChaCha20Rng::from_seed(bytes));
        let mls = Mls::of(&identity, bytes);
        let mut ghost = Self { identity, mls, connection: Connection::default(), said: BTreeMap::new(), ticked: 0 };
        let (handle, devices) = (name.to_owned(), ghost.identity.device_list());
        let request = directory::RegisterRequest { handle, devices, invite: String::new() };
        ghost.call::<directory::RegisterResponse>(server, "directory.v1.Directory/Register", &request).unwrap();
        let own = ghost.address();
        ghost.connect_as(server, own);
        let key_packages = ghost.mls.key_packages(1).unwrap().into_iter().map(Bytes::from).collect();
        let last_resort = ghost.mls.last_resort().unwrap().into();
        let request = directory::PublishKeyPackagesRequest { key_packages, last_resort };
        let method = "directory.v1.Directory/PublishKeyPackages";
        ghost.call::<directory::PublishKeyPackagesResponse>(server, method, &request).unwrap();
        ghost
    }

    pub fn address(&self) -> DeviceAddress {
        self.identity.address()
    }

    /// A session as this device; the server of these tests believes what it is told.
    pub fn connect_as(&mut self, server: &mut Server, device: DeviceAddress) {
        let hello = edge::ClientHello {
            account: Bytes::copy_from_slice(device.account.as_bytes()),
            device: Bytes::copy_from_slice(device.device.as_bytes()),
            ..Default::default()
        };
        self.connection = Connection::default();
        let frame = edge::ClientFrame { frame: Some(edge::client_frame::Frame::Hello(hello)) };
        server.handle(&mut self.connection, frame, 1);
    }

    pub fn call<R: Message + Default>(
        &mut self,
        server: &mut Server,
        method: &str,
        request: &impl Message,
    ) -> Option<R> {
        let call = edge::Call { id: 1, method: format!("/pli.{method}"), body: request.encode_to_vec().into() };
        let frame = edge::ClientFrame { frame: Some(edge::client_frame::Frame::Call(call)) };
        let answers = server.handle(&mut self.connection, frame, 1);
        answers.into_iter().find_map(|answer| match answer.frame {
            Some(edge::server_frame::Frame::Reply(edge::Reply {
                result: Some(edge::reply::Result::Body(body)),
                ..
            })) => R::decode(body).ok(),
            _ => None,
        })
    }

    pub fn create(&mut self, server: &mut Server, id: ConversationId) {
        let info = self.mls.create(id).unwrap();
        let request = api::CreateRequest { group_info: Some(inline(info)) };
        self.call::<api::CreateResponse>(server, "conversations.v1.Conversations/Create", &request).unwrap();
    }

    /// Adds a device, whose key is looked up as anybody would.
    pub fn add(&mut self, server: &mut Server, id: ConversationId, device: DeviceAddress) {
        let request = directory::ClaimKeyPackagesRequest { devices: vec![device.into()] };
        let method = "directory.v1.Directory/ClaimKeyPackages";
        let claimed: directory::ClaimKeyPackagesResponse = self.call(server, method, &request).unwrap();
        let package = claimed.key_packages[0].key_package.to_vec();
        let accounts = vec![Bytes::copy_from_slice(device.account.as_bytes())];
        let request = directory::GetDeviceListsRequest { accounts, known: Vec::new() };
        let method = "directory.v1.Directory/GetDeviceLists";
        let lists: directory::GetDeviceListsResponse = self.call(server, method, &request).unwrap();
        let list = lists.accounts[0].devices.clone().unwrap().list;
        let key = directory::DeviceList::decode(list).unwrap().devices[0].key.to_vec();
        let commit = self.mls.commit(id, &[(device, key, package)], &[]).unwrap();
        self.commit(server, id, commit);
    }

    pub fn remove(&mut self, server: &mut Server, id: ConversationId, device: DeviceAddress) {
        let commit = self.mls.commit(id, &[], &[device]).unwrap();
        self.commit(server, id, commit);
    }

    fn commit(&mut self, server: &mut Server, id: ConversationId, commit: Commit) {
        let request = api::CommitRequest {
            conversation: Bytes::copy_from_slice(id.as_bytes()),
            epoch: commit.epoch,
            commit: Some(inline(commit.commit)),
            welcome: (!commit.welcome.is_empty()).then(|| inline(commit.welcome)),
            group_info: Some(inline(commit.group_info)),
        };
        self.call::<api::CommitResponse>(server, "conversations.v1.Conversations/Commit", &request).unwrap();
        self.mls.merge_commit(id).unwrap();
    }

    /// Asks the others to remove it.
    pub fn leave(&mut self, server: &mut Server, id: ConversationId) {
        let (epoch, proposal) = (self.mls.epoch(id).unwrap(), self.mls.propose_leave(id).unwrap().into());
        let (conversation, send_id) = (Bytes::copy_from_slice(id.as_bytes()), Bytes::from_static(&[3; 16]));
        let request = api::ProposeRequest { conversation, epoch, proposal, send_id };
        self.call::<api::ProposeResponse>(server, "conversations.v1.Conversations/Propose", &request).unwrap();
    }

    pub fn say(&mut self, server: &mut Server, id: ConversationId, kind: Kind, text: &str) {
        self.tell(server, id, kind, &Content::text([1; 16], text));
    }

    /// Sends any content and says of the conversation what it likes.
    pub fn tell(&mut self, server: &mut Server, id: ConversationId, kind: Kind, content: &Content) {
        let lane_no = self.said.entry(id).or_default();
        *lane_no += 1;
        let mut send_id = *id.as_bytes();
        send_id[8..].copy_from_slice(&lane_no.to_be_bytes());
        let send_id = SendId::from_bytes(send_id);
        let content = content.encode().into();
        let frame =
            Frame { lane_no: *lane_no, lane_base: 1, kind: kind.into(), sent_at_ms: 1, content, ..Frame::default() };
        self.send(server, id, (Class::Message, send_id), &frame);
    }

    /// Claims whatever it likes of somebody's messages.
    pub fn tick(&mut self, server: &mut Server, id: ConversationId, ticks: &Ticks) {
        self.ticked += 1;
        let content = ticks.content([2; 16]).encode().into();
        let kind = Kind::Group.into();
        let frame = Frame { lane_no: self.ticked, lane_base: 1, kind, sent_at_ms: 1, content, ..Frame::default() };
        let mut send_id = [0xee; 16];
        send_id[8..].copy_from_slice(&self.ticked.to_be_bytes());
        self.send(server, id, (Class::Tick, SendId::from_bytes(send_id)), &frame);
    }

    /// Leaves out a number.
    pub fn skip(&mut self, id: ConversationId) {
        *self.said.entry(id).or_default() += 1;
    }

    /// Takes in the commits that it has not made.
    pub fn follow(&mut self, server: &mut Server, id: ConversationId) {
        let (conversation, from) = (Bytes::copy_from_slice(id.as_bytes()), self.mls.epoch(id).unwrap());
        let request = api::GetCommitsRequest { conversation, from };
        let method = "conversations.v1.Conversations/GetCommits";
        let answer: api::GetCommitsResponse = self.call(server, method, &request).unwrap();
        for commit in answer.commits {
            let Some(api::object::Object::Inline(bytes)) = commit.commit.unwrap().object else { panic!("a large one") };
            self.mls.handshake(id, &bytes).unwrap();
        }
    }

    fn send(&mut self, server: &mut Server, id: ConversationId, (class, send_id): (Class, SendId), frame: &Frame) {
        let sealed = self.mls.seal(id, send_id, class, &frame.to_bytes()).unwrap();
        let send = edge::Send {
            send_id: Bytes::copy_from_slice(send_id.as_bytes()),
            conversation: Bytes::copy_from_slice(id.as_bytes()),
            epoch: sealed.epoch,
            class: log::Class::from(class).into(),
            expires_at_ms: u64::MAX,
            body: sealed.body,
        };
        let batch = edge::SendBatch { sends: vec![send] };
        let frame = edge::ClientFrame { frame: Some(edge::client_frame::Frame::Send(batch)) };
        server.handle(&mut self.connection, frame, 1);
    }
}

fn inline(bytes: Vec<u8>) -> api::Object {
    api::Object { object: Some(api::object::Object::Inline(bytes.into())) }
}
