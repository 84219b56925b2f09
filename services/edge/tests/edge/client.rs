// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client that speaks the session protocol and nothing more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ed25519_dalek::Signer;
use futures::{SinkExt, StreamExt};
use pli_api::ErrorCode;
use pli_api::edge::{
    Ack, Binding, Call, ClientFrame, ClientHello, Close, Deliver, Pending, Ready, Reply, Send, SendBatch, SendResult,
    ServerFrame, Settled, client_frame, reply, send_result, server_frame::Frame,
};
use pli_api::log::{Class, Envelope, envelope::BodyOrRef};
use pli_api::quic::{ALPN, FrameCutter, put_frame};
use pli_domain::transcript::{self, TLS_EXPORTER_LABEL};
use pli_edge::CarrierName;
use pli_edge::carrier::MemoryPeer;
use pli_ports::Clock;
use prost::Message;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;

use crate::rig::{Door, conversation, device, key};

/// What a client over TLS trusts; keeps session tickets.
#[derive(Clone)]
pub struct Trust {
    pub tls: Arc<ClientConfig>,
    pub quic: quinn::ClientConfig,
    pub certificate: CertificateDer<'static>,
}

impl Trust {
    pub fn new(certificate: CertificateDer<'static>) -> Self {
        let (tls, quic) = (tls(&certificate), quic_config(tls_for(&certificate, ALPN)));
        Self { tls: Arc::new(tls), quic, certificate }
    }

    pub async fn tls(&self, address: SocketAddr) -> TlsStream<TcpStream> {
        let tcp = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        tokio_rustls::TlsConnector::from(self.tls.clone()).connect(name, tcp).await.unwrap()
    }
}

fn tls(certificate: &CertificateDer<'static>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// What trusts this certificate and speaks this protocol.
pub fn tls_for(certificate: &CertificateDer<'static>, alpn: &[u8]) -> ClientConfig {
    let mut tls = tls(certificate);
    tls.alpn_protocols = vec![alpn.to_vec()];
    tls
}

pub fn quic_config(tls: ClientConfig) -> quinn::ClientConfig {
    quinn::ClientConfig::new(Arc::new(quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap()))
}

pub type Ws = WebSocketStream<TlsStream<TcpStream>>;

/// The edge's stream on a QUIC connection.
pub struct Quic {
    pub endpoint: quinn::Endpoint,
    pub connection: quinn::Connection,
    pub send: quinn::SendStream,
    recv: quinn::RecvStream,
    cutter: FrameCutter,
    read: Bytes,
}

impl Quic {
    /// From an address of this machine.
    pub fn endpoint() -> quinn::Endpoint {
        quinn::Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap()
    }

    pub async fn connect(address: SocketAddr, config: quinn::ClientConfig) -> Result<Self, quinn::ConnectionError> {
        let endpoint = Self::endpoint();
        let connection = endpoint.connect_with(config, address, "localhost").unwrap().await?;
        Self::over(endpoint, connection).await
    }

    /// Waits for the edge's stream.
    pub async fn over(
        endpoint: quinn::Endpoint,
        connection: quinn::Connection,
    ) -> Result<Self, quinn::ConnectionError> {
        let (send, recv) = connection.accept_bi().await?;
        let cutter = FrameCutter::default();
        Ok(Self { endpoint, connection, send, recv, cutter, read: Bytes::new() })
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if !self.read.is_empty()
                && let Some(frame) = self.cutter.cut(&mut self.read).unwrap()
            {
                return Some(frame);
            }
            self.read = self.recv.read_chunk(usize::MAX, true).await.ok()??.bytes;
        }
    }
}

pub enum Link {
    Memory(MemoryPeer),
    Ws(Box<Ws>),
    Quic(Box<Quic>),
}

pub struct Client {
    pub link: Link,
    pub n: u8,
    clock: Arc<dyn Clock>,
    /// Frames that came while another kind was waited for.
    kept: Vec<Frame>,
    pub ready: Option<Ready>,
}

impl Client {
    pub fn over_memory(peer: MemoryPeer, n: u8, clock: Arc<dyn Clock>) -> Self {
        Self { link: Link::Memory(peer), n, clock, kept: Vec::new(), ready: None }
    }

    /// Connects over this carrier; no hello yet.
    pub async fn over(carrier: CarrierName, door: &Door, n: u8, clock: Arc<dyn Clock>) -> Self {
        match carrier {
            CarrierName::Quic => {
                let quic = Quic::connect(door.quic, door.trust.quic.clone()).await.unwrap();
                Self::over_quic(quic, n, clock)
            }
            _ => Self::over_ws_from(door, n, clock, None).await,
        }
    }

    pub fn over_quic(quic: Quic, n: u8, clock: Arc<dyn Clock>) -> Self {
        Self { link: Link::Quic(Box::new(quic)), n, clock, kept: Vec::new(), ready: None }
    }

    pub async fn over_ws_from(door: &Door, n: u8, clock: Arc<dyn Clock>, origin: Option<&str>) -> Self {
        let address = door.ws;
        let tls = door.trust.tls(address).await;
        let mut request = http::Request::get(format!("wss://localhost:{}/v1/session", address.port()))
            .header("host", format!("localhost:{}", address.port()))
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", tungstenite::handshake::client::generate_key());
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        let (ws, _) = tokio_tungstenite::client_async(request.body(()).unwrap(), tls).await.unwrap();
        Self { link: Link::Ws(Box::new(ws)), n, clock, kept: Vec::new(), ready: None }
    }

    /// The right hello for this connection.
    pub async fn hello(&mut self, trust: &Trust, binding: Binding, committed: u64) -> ClientHello {
        let Frame::Hello(server) = self.next().await else { panic!("the first frame is a hello") };
        let bytes = match binding {
            Binding::TlsExporter => self.exporter().to_vec(),
            Binding::ServerCertificate => Sha256::digest(&trust.certificate).to_vec(),
            Binding::Origin => b"https://app.example".to_vec(),
            Binding::Unspecified => Vec::new(),
        };
        let (host, me) = ("localhost", device(self.n));
        let signed = transcript::authentication(host, me.account, me.device, &server.nonce, &bytes);
        ClientHello {
            version: 1,
            account: Bytes::copy_from_slice(me.account.as_bytes()),
            device: Bytes::copy_from_slice(me.device.as_bytes()),
            binding: binding.into(),
            host: host.into(),
            signature: key(self.n).sign(&signed).to_bytes().to_vec().into(),
            committed,
            user_agent: "pli/0.1.0".into(),
            history: Bytes::new(),
        }
    }

    pub fn exporter(&self) -> [u8; 32] {
        match &self.link {
            Link::Ws(ws) => ws.get_ref().get_ref().1.export_keying_material([0; 32], TLS_EXPORTER_LABEL, None).unwrap(),
            Link::Quic(quic) => {
                let mut exporter = [0; 32];
                quic.connection.export_keying_material(&mut exporter, TLS_EXPORTER_LABEL, &[]).unwrap();
                exporter
            }
            Link::Memory(_) => panic!("no TLS"),
        }
    }

    /// Says the right hello and waits for `Ready`.
    pub async fn log_in(mut self, trust: &Trust) -> Self {
        let hello = self.hello(trust, Binding::TlsExporter, 0).await;
        self.say(client_frame::Frame::Hello(hello)).await;
        self.ready().await;
        self
    }

    pub async fn ready(&mut self) -> Ready {
        let Frame::Ready(ready) = self.wait(|frame| matches!(frame, Frame::Ready(_))).await else { unreachable!() };
        self.ready = Some(ready.clone());
        ready
    }

    pub async fn say(&mut self, frame: client_frame::Frame) {
        self.say_bytes(ClientFrame { frame: Some(frame) }.encode_to_vec()).await;
    }

    pub async fn say_bytes(&mut self, bytes: Vec<u8>) {
        match &mut self.link {
            Link::Memory(peer) => {
                peer.send(bytes.into()).await;
            }
            // The edge may have hung up meanwhile; what it said last is still to be read.
            Link::Ws(ws) => drop(ws.send(tungstenite::Message::Binary(bytes.into())).await),
            Link::Quic(quic) => {
                let mut out = BytesMut::new();
                put_frame(&mut out, &bytes);
                drop(quic.send.write_all(&out).await);
            }
        }
    }

    /// Bytes below the frames.
    pub async fn write(&mut self, bytes: &[u8]) {
        assert!(self.try_write(bytes).await, "the edge has hung up");
    }

    /// The same; false where the edge has hung up.
    pub async fn try_write(&mut self, bytes: &[u8]) -> bool {
        match &mut self.link {
            Link::Memory(_) => panic!("there is nothing below"),
            Link::Ws(ws) => ws.get_mut().write_all(bytes).await.is_ok() && ws.get_mut().flush().await.is_ok(),
            Link::Quic(quic) => quic.send.write_all(bytes).await.is_ok(),
        }
    }

    /// The next frame; none when the edge has hung up.
    pub async fn maybe(&mut self) -> Option<Frame> {
        let bytes = match &mut self.link {
            Link::Memory(peer) => peer.recv().await?,
            Link::Quic(quic) => quic.next().await?,
            Link::Ws(ws) => loop {
                match ws.next().await? {
                    Ok(tungstenite::Message::Binary(bytes)) => break bytes,
                    Ok(tungstenite::Message::Close(_)) | Err(_) => return None,
                    Ok(_) => {}
                }
            },
        };
        ServerFrame::decode(bytes).unwrap().frame
    }

    pub async fn next(&mut self) -> Frame {
        let next = tokio::time::timeout(Duration::from_secs(60), self.maybe());
        next.await.expect("a frame in time").expect("a frame before the end")
    }

    /// The next frame of a kind; others are kept.
    pub async fn wait(&mut self, wanted: impl Fn(&Frame) -> bool) -> Frame {
        if let Some(at) = self.kept.iter().position(&wanted) {
            return self.kept.remove(at);
        }
        loop {
            let frame = self.next().await;
            if wanted(&frame) {
                return frame;
            }
            self.kept.push(frame);
        }
    }

    /// The last frame: what the edge closed the session with; none when it hung up without a word.
    pub async fn closed(&mut self) -> Option<Close> {
        loop {
            let next = tokio::time::timeout(Duration::from_secs(60), self.maybe()).await.expect("an end in time");
            match next {
                Some(Frame::Close(close)) => return Some(close),
                Some(_) => {}
                None => return None,
            }
        }
    }

    pub fn message(&self, send_id: u8, body: &[u8]) -> Send {
        Send {
            send_id: vec![send_id; 16].into(),
            conversation: Bytes::copy_from_slice(conversation(1).as_bytes()),
            epoch: 1,
            class: Class::Message.into(),
            expires_at_ms: self.clock.now().0 + 3_600_000,
            body: Bytes::copy_from_slice(body),
        }
    }

    pub async fn send(&mut self, sends: Vec<Send>) {
        self.say(client_frame::Frame::Send(SendBatch { sends })).await;
    }

    /// Sends one message and waits for its verdict.
    pub async fn send_one(&mut self, send: Send) -> Result<Bytes, pli_api::common::Error> {
        let id = send.send_id.clone();
        self.send(vec![send]).await;
        let result = self.result().await;
        assert_eq!(result.send_id, id);
        match result.result.unwrap() {
            send_result::Result::Accepted(accepted) => Ok(accepted.receipt),
            send_result::Result::Refused(error) => Err(error),
        }
    }

    pub async fn results(&mut self) -> Vec<SendResult> {
        let frame = self.wait(|frame| matches!(frame, Frame::SendResults(_))).await;
        let Frame::SendResults(results) = frame else { unreachable!() };
        results.results
    }

    pub async fn result(&mut self) -> SendResult {
        let mut results = self.results().await;
        assert_eq!(results.len(), 1);
        results.remove(0)
    }

    pub async fn settled(&mut self) -> Vec<Settled> {
        let frame = self.wait(|frame| matches!(frame, Frame::Settled(_))).await;
        let Frame::Settled(batch) = frame else { unreachable!() };
        batch.settled
    }

    pub async fn present(&mut self, receipts: Vec<Bytes>) {
        self.say(client_frame::Frame::Pending(Pending { receipts })).await;
    }

    pub async fn ack(&mut self, position: u64) {
        self.say(client_frame::Frame::Ack(Ack { position })).await;
    }

    pub async fn delivery(&mut self) -> Deliver {
        let frame = self.wait(|frame| matches!(frame, Frame::Deliver(_))).await;
        let Frame::Deliver(deliver) = frame else { unreachable!() };
        deliver
    }

    pub async fn call(&mut self, id: u64, method: &str, body: Vec<u8>) -> Result<Bytes, ErrorCode> {
        self.say(client_frame::Frame::Call(Call { id, method: method.into(), body: body.into() })).await;
        let frame = self.wait(|frame| matches!(frame, Frame::Reply(reply) if reply.id == id)).await;
        let Frame::Reply(Reply { result, .. }) = frame else { unreachable!() };
        match result.unwrap() {
            reply::Result::Body(body) => Ok(body),
            reply::Result::Error(error) => Err(error.code()),
        }
    }
}

/// The sealed body of a delivered envelope.
pub fn body(deliver: &Deliver) -> Bytes {
    match Envelope::decode(deliver.envelope.clone()).unwrap().body_or_ref {
        Some(BodyOrRef::Body(body)) => body,
        other => panic!("no body: {other:?}"),
    }
}
