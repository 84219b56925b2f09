// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices that talk to a server with bare frames: no storage, no ordering, only what a figure needs.

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use pli_api::conversations::{CommitRequest, CreateRequest, Object, object};
use pli_api::directory::{PublishKeyPackagesRequest, RegisterRequest};
use pli_api::edge::{
    Ack, Binding, Call, ClientFrame, ClientHello, Send, SendBatch, ServerFrame, client_frame, reply, server_frame,
};
use pli_api::log::Class;
use pli_client::core::identity::Identity;
use pli_client::core::mls::Mls;
use pli_client::{Connector, FrameSink, FrameStream, ServerAddress};
use pli_domain::ConversationId;
use prost::Message;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::Ready;

/// A registered device.
pub struct Device {
    /// Its keys.
    pub identity: Identity,
    seed: u64,
}

/// An open session.
pub struct Session {
    /// Frames to the edge.
    pub sink: FrameSink,
    /// Frames from the edge.
    pub stream: FrameStream,
    /// Its TLS resumed an earlier connection; none where that cannot be told.
    pub resumed: Option<bool>,
}

fn frame(frame: client_frame::Frame) -> ClientFrame {
    ClientFrame { frame: Some(frame) }
}

impl Session {
    async fn hello(ready: &Ready, connector: &Connector, identity: Option<&Identity>) -> Result<Self> {
        let address: ServerAddress = ready.address.parse()?;
        let connection = connector.open(&address).await?;
        let (exporter, resumed) = (connection.exporter, connection.resumed);
        let (mut sink, mut stream) = connection.split();
        let Some(server_frame::Frame::Hello(server)) = stream.next().await?.frame else { bail!("no hello") };
        let mut hello = ClientHello { version: 1, user_agent: "pli-benches/0.1.0".into(), ..ClientHello::default() };
        if let Some(identity) = identity {
            let host = address.authority();
            let device = identity.address();
            hello.account = Bytes::copy_from_slice(device.account.as_bytes());
            hello.device = Bytes::copy_from_slice(device.device.as_bytes());
            hello.signature = Bytes::copy_from_slice(&identity.authenticate(&host, &server.nonce, &exporter));
            hello.host = host;
            hello.set_binding(Binding::TlsExporter);
        }
        sink.send(&[frame(client_frame::Frame::Hello(hello))]).await?;
        match stream.next().await?.frame {
            Some(server_frame::Frame::Ready(_)) => Ok(Self { sink, stream, resumed }),
            other => bail!("no ready but {other:?}"),
        }
    }

    /// Calls a method and waits for its answer; other frames are passed over.
    pub async fn call(&mut self, method: &str, request: &impl Message) -> Result<Bytes> {
        let call = Call { id: 1, method: method.into(), body: request.encode_to_vec().into() };
        self.sink.send(&[frame(client_frame::Frame::Call(call))]).await?;
        loop {
            if let Some(server_frame::Frame::Reply(answer)) = self.stream.next().await?.frame {
                return match answer.result {
                    Some(reply::Result::Body(body)) => Ok(body),
                    other => bail!("{method} is refused: {other:?}"),
                };
            }
        }
    }

    /// Acknowledges everything up to `position`.
    pub async fn ack(&mut self, position: u64) -> Result<()> {
        Ok(self.sink.send(&[frame(client_frame::Frame::Ack(Ack { position }))]).await?)
    }

    /// Sends one batch.
    pub async fn send(&mut self, sends: Vec<Send>) -> Result<()> {
        Ok(self.sink.send(&[frame(client_frame::Frame::Send(SendBatch { sends }))]).await?)
    }

    /// The next frame.
    pub async fn next(&mut self) -> Result<ServerFrame> {
        Ok(self.stream.next().await?)
    }
}

impl Device {
    /// A device of this identity; `seed` makes what its MLS draws.
    pub const fn of(identity: Identity, seed: u64) -> Self {
        Self { identity, seed }
    }

    /// A device that no server knows yet; `n` makes its handle and keys.
    pub fn new(n: u64) -> Result<Self> {
        let handle = format!("load.{n}").parse()?;
        Ok(Self { identity: Identity::create(handle, &mut ChaCha8Rng::seed_from_u64(n)), seed: n })
    }

    /// Registers a new device.
    pub async fn register(ready: &Ready, n: u64) -> Result<Self> {
        let device = Self::new(n)?;
        let mut session = Session::hello(ready, &connector(ready)?, None).await?;
        let (handle, devices) = (device.identity.handle().to_string(), device.identity.device_list());
        let request = RegisterRequest { handle, devices, invite: String::new() };
        session.call("/pli.directory.v1.Directory/Register", &request).await?;
        Ok(device)
    }

    /// Opens an authenticated session with a full TLS handshake.
    pub async fn connect(&self, ready: &Ready) -> Result<Session> {
        self.connect_by(ready, &connector(ready)?).await
    }

    /// Opens an authenticated session, which resumes TLS where the connector has a ticket.
    pub async fn connect_by(&self, ready: &Ready, connector: &Connector) -> Result<Session> {
        Session::hello(ready, connector, Some(&self.identity)).await
    }

    /// Its MLS state, new.
    pub fn mls(&self) -> Mls {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_be_bytes());
        Mls::of(&self.identity, seed)
    }
}

/// Connects to the server without tickets of earlier connections.
pub fn connector(ready: &Ready) -> Result<Connector> {
    Ok(Connector::new(Some(ready.fingerprint.parse()?), ready.transport))
}

/// A conversation of two: `alice` makes it and adds `bob`. Answers its id; messages belong to epoch 1.
pub async fn converse(alice: (&Device, &mut Session), bob: (&Device, &mut Session)) -> Result<ConversationId> {
    let id = conversation_of(alice.0.seed, bob.0.seed);
    let package = bob.0.mls().key_packages(1)?.remove(0);
    let publish = PublishKeyPackagesRequest { key_packages: vec![package.clone().into()], last_resort: Bytes::new() };
    bob.1.call("/pli.directory.v1.Directory/PublishKeyPackages", &publish).await?;
    let mut mls = alice.0.mls();
    let group_info = mls.create(id)?;
    let create = CreateRequest { group_info: Some(inline(group_info)) };
    alice.1.call("/pli.conversations.v1.Conversations/Create", &create).await?;
    let commit = mls.commit(id, &[(bob.0.identity.address(), bob.0.identity.device_key().to_vec(), package)], &[])?;
    let request = CommitRequest {
        conversation: Bytes::copy_from_slice(id.as_bytes()),
        epoch: commit.epoch,
        commit: Some(inline(commit.commit)),
        welcome: Some(inline(commit.welcome)),
        group_info: Some(inline(commit.group_info)),
    };
    let answer = alice.1.call("/pli.conversations.v1.Conversations/Commit", &request).await?;
    let answer = pli_api::conversations::CommitResponse::decode(answer)?;
    ensure!(
        matches!(answer.outcome, Some(pli_api::conversations::commit_response::Outcome::Won(_))),
        "the commit is lost: {answer:?}"
    );
    Ok(id)
}

/// The id of the conversation of `load.{a}` and `load.{b}`.
pub(crate) fn conversation_of(a: u64, b: u64) -> ConversationId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&a.to_be_bytes());
    id[8..].copy_from_slice(&b.to_be_bytes());
    ConversationId::from_bytes(id)
}

fn inline(bytes: Vec<u8>) -> Object {
    Object { object: Some(object::Object::Inline(bytes.into())) }
}

/// How every send id of [`message`] ends.
pub(crate) const SEND_ID_END: [u8; 8] = [0x11; 8];

/// A message of `bytes` equal bytes, `n` of its sender; the server looks into none.
pub fn message(conversation: ConversationId, n: u64, bytes: usize, expires_at_ms: u64) -> Send {
    let send_id = [n.to_be_bytes(), SEND_ID_END].concat();
    Send {
        send_id: send_id.into(),
        conversation: Bytes::copy_from_slice(conversation.as_bytes()),
        epoch: 1,
        class: Class::Message.into(),
        expires_at_ms,
        body: vec![0xC3; bytes].into(),
    }
}

/// Milliseconds since 1970, an hour ahead.
pub fn in_an_hour_ms() -> Result<u64> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).context("a clock after 1970")?;
    Ok(u64::try_from(now.as_millis())? + 3_600_000)
}
