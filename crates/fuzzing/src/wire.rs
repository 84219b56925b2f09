// SPDX-License-Identifier: MIT OR Apache-2.0
//! A session at the level of frames: what it says is what a caller gives it.

use std::time::Duration;

use bytes::Bytes;
use pli_api::edge::server_frame::Frame;
use pli_api::edge::{Binding, Call, ClientFrame, ClientHello, Reply, ServerFrame, client_frame};
use pli_client_core::identity::Identity;
use prost::Message;
use tokio::time::timeout;

use crate::cluster::{Cluster, EXPORTER, HOST};
use crate::line::Line;

/// Longest wait for a frame, on the cluster's clock.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// See the module. Dropping it closes the connection.
pub struct Wire {
    line: Line,
}

impl Wire {
    /// A connection that has said nothing yet.
    pub fn open(cluster: &Cluster, address: u8) -> Self {
        Self { line: cluster.connect(address) }
    }

    /// The hello of this device, or of nobody, to the nonce that came first; none when the edge hung up instead.
    pub async fn hello(&mut self, identity: Option<&Identity>) -> Option<ClientFrame> {
        let Frame::Hello(server) = self.next().await? else { return None };
        let mut hello = ClientHello { version: 1, user_agent: "pli/0.1.0".into(), ..ClientHello::default() };
        if let Some(identity) = identity {
            let address = identity.address();
            hello.account = Bytes::copy_from_slice(address.account.as_bytes());
            hello.device = Bytes::copy_from_slice(address.device.as_bytes());
            hello.binding = Binding::TlsExporter.into();
            hello.host = HOST.into();
            hello.signature = Bytes::copy_from_slice(&identity.authenticate(HOST, &server.nonce, &EXPORTER));
        }
        Some(ClientFrame { frame: Some(client_frame::Frame::Hello(hello)) })
    }

    /// A session of this device, or of nobody.
    ///
    /// # Panics
    /// When the edge does not let it in.
    pub async fn session(cluster: &Cluster, address: u8, identity: Option<&Identity>) -> Self {
        let mut this = Self::open(cluster, address);
        let hello = this.hello(identity).await.expect("the edge says hello");
        this.say(hello);
        let ready = this.until(|frame| matches!(frame, Frame::Ready(_)).then_some(())).await;
        assert!(ready.is_some(), "an honest session is let in");
        this
    }

    /// Sends a frame.
    pub fn say(&self, frame: ClientFrame) {
        self.say_bytes(frame.encode_to_vec().into());
    }

    /// Sends bytes; they are dropped where the edge has stopped reading.
    pub fn say_bytes(&self, bytes: Bytes) {
        let _ = self.line.say(bytes);
    }

    /// Calls a method and waits for the answer.
    ///
    /// # Panics
    /// When there is none.
    pub async fn call(&mut self, call: Call) -> Reply {
        let id = call.id;
        self.say(ClientFrame { frame: Some(client_frame::Frame::Call(call)) });
        let answer = |frame: Frame| match frame {
            Frame::Reply(reply) if reply.id == id => Some(reply),
            _ => None,
        };
        self.until(answer).await.expect("a call is answered")
    }

    /// The next frame; none when the session has ended or nothing came.
    pub async fn next(&mut self) -> Option<Frame> {
        let bytes = timeout(PATIENCE, self.line.hear()).await.ok()??;
        ServerFrame::decode(bytes).expect("the edge sends frames").frame
    }

    /// The first frame that `pick` takes; others are passed over.
    pub async fn until<T>(&mut self, mut pick: impl FnMut(Frame) -> Option<T>) -> Option<T> {
        loop {
            if let Some(picked) = pick(self.next().await?) {
                return Some(picked);
            }
        }
    }

    /// Everything that has come.
    pub fn at_hand(&mut self) -> Vec<Frame> {
        let bytes = std::iter::from_fn(|| self.line.try_hear().ok());
        bytes.filter_map(|bytes| ServerFrame::decode(bytes).expect("the edge sends frames").frame).collect()
    }
}
