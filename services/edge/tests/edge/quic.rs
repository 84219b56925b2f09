// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bad input that only QUIC can get: packets that no good client sends, and clients that lie about what they were allowed.

use std::any::Any;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use pli_api::ErrorCode;
use pli_api::quic::{ALPN, STREAMS_MAX};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::crypto::{self, KeyPair, Keys};
use quinn::{ConnectionError, ConnectionId, Side, TransportErrorCode, VarInt};
use quinn_proto::transport_parameters::TransportParameters;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

use crate::client::{Client, Link, Quic, quic_config, tls_for};
use crate::table::Answer::{self, Closed, Ignored, StreamRefused, Taken};
use crate::table::{Row, Stage, UNPROVEN_MAX, alive, closed};

pub fn rows() -> Vec<Row> {
    vec![
        ("version negotiation flood", Answer::Quic("VERSION_NEGOTIATION"), |s| Box::pin(versions(s))),
        ("initial flood with spoofed addresses", Answer::Quic("RETRY"), |s| Box::pin(initials(s))),
        ("garbage instead of packets", Ignored, |s| Box::pin(garbage(s))),
        ("unknown ALPN", Answer::Quic("no_application_protocol"), |s| Box::pin(refused_with(s, b"h3"))),
        ("0-RTT attempt", Ignored, |s| Box::pin(early(s))),
        ("stream over the limit", Answer::Quic("STREAM_LIMIT_ERROR"), |s| Box::pin(too_many_streams(s))),
        ("a stream beside the session's", StreamRefused(ErrorCode::UnexpectedFrame), |s| Box::pin(another_stream(s))),
        ("streams again and again", Closed(ErrorCode::MalformedFrame, false), |s| Box::pin(streams(s))),
        ("a stream for one direction", Ignored, |s| Box::pin(one_direction(s))),
        ("reset mid-frame", Closed(ErrorCode::MalformedFrame, false), |s| Box::pin(ended(s, End::Reset))),
        ("end mid-frame", Closed(ErrorCode::MalformedFrame, false), |s| Box::pin(ended(s, End::Finished))),
        ("idle for an hour", Closed(ErrorCode::Temporary, true), |s| Box::pin(idle(s))),
        ("garbage after hello, below the frames", Closed(ErrorCode::FrameTooLarge, false), |s| {
            Box::pin(s.written(&[0xFF; 64]))
        }),
    ]
}

/// A socket of its own address on this machine, as a sender that shows somebody else's has.
fn socket(n: usize) -> UdpSocket {
    let address = SocketAddr::from(([127, 0, 1, u8::try_from(n % 250).unwrap() + 1], 0));
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// The first datagram that comes back; none where none comes in a moment.
fn answer(socket: &UdpSocket, wait: Duration) -> BoxFuture<'_, Option<Vec<u8>>> {
    Box::pin(async move {
        let (mut space, until) = ([0; 2_048], Instant::now() + wait);
        loop {
            match socket.recv(&mut space) {
                Ok(bytes) => return Some(space[..bytes].to_vec()),
                Err(_) if Instant::now() >= until => return None,
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    })
}

/// Packets of a version that nobody speaks are answered by the one that is spoken, in less than they had, and leave
/// nothing behind.
async fn versions(stage: &Stage) -> Answer {
    let mut packet = vec![0xC0, 0xBA, 0xBA, 0xBA, 0xBA, 8];
    packet.extend([[7; 8], [8; 8]].concat());
    packet.resize(1_200, 0);
    packet.insert(14, 8);
    let sockets: Vec<_> = (0..20).map(socket).collect();
    for n in 0..2_000 {
        let sent = sockets[n % sockets.len()].send_to(&packet, stage.door.quic);
        assert!(sent.is_ok() || n > 0, "{sent:?}");
    }
    let said = answer(&sockets[0], Duration::from_secs(20)).await.expect("an answer");
    let listed = said.ends_with(&1u32.to_be_bytes()) || said[7..].windows(4).any(|version| version == [0, 0, 0, 1]);
    assert!(said.len() < packet.len() && said[1..5] == [0; 4] && listed, "{said:?}");
    if knock(stage).await { Answer::Quic("VERSION_NEGOTIATION") } else { Ignored }
}

/// Whether a client that does everything right gets a session.
async fn knock(stage: &Stage) -> bool {
    alive(&mut stage.logged_in().await).await
}

/// The first packet of a client that is never heard of again.
fn initial(stage: &Stage) -> Vec<u8> {
    let (config, now) = (Arc::new(quinn::EndpointConfig::default()), Instant::now());
    let mut endpoint = quinn_proto::Endpoint::new(config, None, true, None);
    let connected = endpoint.connect(now, stage.door.trust.quic.clone(), stage.door.quic, "localhost");
    let (_, mut connection) = connected.unwrap();
    let mut packet = Vec::new();
    assert!(connection.poll_transmit(now, 1, &mut packet).is_some());
    packet
}

/// The edge begins as many handshakes as it may; all others are asked to prove their address, which keeps nothing there.
/// Who does so gets in.
async fn initials(stage: &Stage) -> Answer {
    let sockets: Vec<_> = (0..200).map(socket).collect();
    for socket in &sockets {
        socket.send_to(&initial(stage), stage.door.quic).unwrap();
    }
    let (mut begun, mut retries) = (0, 0);
    for socket in &sockets {
        let Some(said) = answer(socket, Duration::from_secs(5)).await else { continue };
        // The type of a packet with a long header (RFC 9000 section 17.2).
        match (said[0] >> 4) & 3 {
            0 => begun += 1,
            3 => retries += 1,
            other => panic!("a packet of type {other}"),
        }
    }
    assert!(begun <= UNPROVEN_MAX && retries >= 100, "{begun} begun, {retries} asked");
    if knock(stage).await { Answer::Quic("RETRY") } else { Ignored }
}

async fn garbage(stage: &Stage) -> Answer {
    let socket = socket(0);
    for n in 0..1_500usize {
        let bytes: Vec<u8> = (0..n % 1_400).map(|byte| u8::try_from((byte * 31 + n) % 251).unwrap()).collect();
        // The system may have no room for so many.
        let _ = socket.send_to(&bytes, stage.door.quic);
    }
    if knock(stage).await { Ignored } else { Taken }
}

/// No protocol in common ends the handshake with TLS's alert for it (RFC 7301 section 3.2).
async fn refused_with(stage: &Stage, alpn: &[u8]) -> Answer {
    let config = quic_config(tls_for(&stage.door.trust.certificate, alpn));
    match Quic::connect(stage.door.quic, config).await {
        Err(ConnectionError::ConnectionClosed(closed)) if closed.error_code == TransportErrorCode::crypto(120) => {
            Answer::Quic("no_application_protocol")
        }
        Err(other) => panic!("{other:?}"),
        Ok(_) => Taken,
    }
}

/// A client that sends before the handshake has ended where a ticket lets it.
fn hasty(stage: &Stage) -> quinn::ClientConfig {
    let mut tls = tls_for(&stage.door.trust.certificate, ALPN);
    tls.enable_early_data = true;
    quic_config(tls)
}

/// The edge's own tickets let nobody. One that another server gave does, and the edge reads nothing of what comes early.
async fn early(stage: &Stage) -> Answer {
    let config = hasty(stage);
    let quic = Quic::connect(stage.door.quic, config.clone()).await.unwrap();
    // After two round trips the ticket is there.
    let client = Client::over_quic(quic, 1, stage.clock()).log_in(&stage.door.trust).await;
    let again = Quic::endpoint().connect_with(config, stage.door.quic, "localhost").unwrap();
    if again.into_0rtt().is_ok() {
        return Taken;
    }
    drop(client);
    let config = hasty(stage);
    let other = generous(stage);
    let endpoint = Quic::endpoint();
    let (connection, accepted) = loop {
        let before = endpoint.connect_with(config.clone(), other.local_addr().unwrap(), "localhost").unwrap();
        // The ticket stands before the stream.
        before.await.unwrap().accept_uni().await.unwrap();
        match endpoint.connect_with(config.clone(), stage.door.quic, "localhost").unwrap().into_0rtt() {
            Ok(begun) => break begun,
            Err(connecting) => drop(connecting.await),
        }
    };
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(&[0; 64]).await.unwrap();
    let taken = accepted.await;
    let client = Client::over_quic(Quic::over(endpoint, connection).await.unwrap(), 1, stage.clock());
    let lives = alive(&mut client.log_in(&stage.door.trust).await).await;
    if !taken && lives { Ignored } else { Taken }
}

/// A server with the edge's certificate that takes early data and says one byte to everybody.
fn generous(stage: &Stage) -> quinn::Endpoint {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::from_pem_slice(stage.door.pem.as_bytes()).unwrap();
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![stage.door.trust.certificate.clone()], key)
        .unwrap();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.max_early_data_size = u32::MAX;
    let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    let endpoint = quinn::Endpoint::server(config, SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let accepting = endpoint.clone();
    tokio::spawn(async move {
        while let Some(incoming) = accepting.accept().await {
            tokio::spawn(async move {
                let connection = incoming.await.unwrap();
                connection.open_uni().await.unwrap().write_all(&[1]).await.unwrap();
                connection.closed().await;
            });
        }
    });
    endpoint
}

/// A client that takes more streams than it was given.
async fn too_many_streams(stage: &Stage) -> Answer {
    let tls = tls_for(&stage.door.trust.certificate, ALPN);
    let lying = Lying(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let quic = Quic::connect(stage.door.quic, quinn::ClientConfig::new(Arc::new(lying))).await.unwrap();
    let mut open = Vec::new();
    for _ in 0..LIE {
        let Ok((mut send, recv)) = quic.connection.open_bi().await else { break };
        let _ = send.write_all(&[0]).await;
        open.push((send, recv));
    }
    match quic.connection.closed().await {
        ConnectionError::ConnectionClosed(closed) => {
            assert_eq!(closed.error_code, TransportErrorCode::STREAM_LIMIT_ERROR);
            Answer::Quic("STREAM_LIMIT_ERROR")
        }
        other => panic!("{other:?}"),
    }
}

/// Streams that a lying client believes it may open; below 64, which is what one byte says.
const LIE: u8 = 60;

struct Lying(Arc<QuicClientConfig>);

impl crypto::ClientConfig for Lying {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn crypto::Session>, quinn::ConnectError> {
        let session = crypto::ClientConfig::start_session(self.0.clone(), version, server_name, params)?;
        Ok(Box::new(LyingSession(session)))
    }
}

struct LyingSession(Box<dyn crypto::Session>);

impl crypto::Session for LyingSession {
    fn transport_parameters(&self) -> Result<Option<TransportParameters>, quinn_proto::TransportError> {
        let Some(told) = self.0.transport_parameters()? else { return Ok(None) };
        let mut bytes = Vec::new();
        told.write(&mut bytes);
        // initial_max_streams_bidi, RFC 9000 section 18.2: id, length, value.
        let at = bytes.windows(3).position(|entry| entry == [8, 1, u8::try_from(STREAMS_MAX).unwrap()]);
        bytes[at.expect("the limit is told") + 2] = LIE;
        Ok(Some(TransportParameters::read(Side::Client, &mut bytes.as_slice()).unwrap()))
    }
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        self.0.initial_keys(dst_cid, side)
    }
    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.0.handshake_data()
    }
    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.0.peer_identity()
    }
    fn early_crypto(&self) -> Option<(Box<dyn crypto::HeaderKey>, Box<dyn crypto::PacketKey>)> {
        self.0.early_crypto()
    }
    fn early_data_accepted(&self) -> Option<bool> {
        self.0.early_data_accepted()
    }
    fn is_handshaking(&self) -> bool {
        self.0.is_handshaking()
    }
    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, quinn_proto::TransportError> {
        self.0.read_handshake(buf)
    }
    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        self.0.write_handshake(buf)
    }
    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn crypto::PacketKey>>> {
        self.0.next_1rtt_keys()
    }
    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.0.is_valid_retry(orig_dst_cid, header, payload)
    }
    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), crypto::ExportKeyingMaterialError> {
        self.0.export_keying_material(output, label, context)
    }
}

/// What the edge ends a stream of the client's own with.
async fn refused_stream(connection: &quinn::Connection) -> Option<ErrorCode> {
    let (mut send, mut recv) = connection.open_bi().await.ok()?;
    // It may be refused before all is written.
    let _ = send.write_all(b"hello").await;
    let code = recv.received_reset().await.ok()??;
    i32::try_from(code.into_inner()).ok().and_then(|code| ErrorCode::try_from(code).ok())
}

async fn another_stream(stage: &Stage) -> Answer {
    let mut client = stage.logged_in().await;
    let Link::Quic(quic) = &client.link else { unreachable!() };
    let mut last = ErrorCode::Unspecified;
    // More than may be open at a time: those that were refused make room.
    for _ in 0..2 * STREAMS_MAX {
        last = refused_stream(&quic.connection).await.expect("a code");
    }
    assert!(alive(&mut client).await);
    StreamRefused(last)
}

async fn streams(stage: &Stage) -> Answer {
    let client = stage.logged_in().await;
    let Link::Quic(quic) = &client.link else { unreachable!() };
    while refused_stream(&quic.connection).await.is_some() {}
    closed(client).await
}

/// None may be opened, so that a client waits for ever, and nothing else does.
async fn one_direction(stage: &Stage) -> Answer {
    let mut client = stage.logged_in().await;
    let Link::Quic(quic) = &client.link else { unreachable!() };
    let opened = tokio::time::timeout(Duration::from_millis(50), quic.connection.open_uni()).await;
    if opened.is_err() && alive(&mut client).await { Ignored } else { Taken }
}

enum End {
    Reset,
    Finished,
}

async fn ended(stage: &Stage, end: End) -> Answer {
    let mut client = stage.logged_in().await;
    client.write(&[0, 0, 0, 100, 1, 2, 3]).await;
    // What was written has come when this is answered, since both are one connection's.
    let Link::Quic(quic) = &mut client.link else { unreachable!() };
    refused_stream(&quic.connection).await.expect("a code");
    match end {
        End::Reset => quic.send.reset(VarInt::from_u32(9)).unwrap(),
        End::Finished => quic.send.finish().unwrap(),
    }
    closed(client).await
}

/// Below the session all is well: the connection says so every now and then.
async fn idle(stage: &Stage) -> Answer {
    let (mut config, mut transport) = (stage.door.trust.quic.clone(), quinn::TransportConfig::default());
    transport.keep_alive_interval(Some(Duration::from_millis(200)));
    config.transport_config(Arc::new(transport));
    let quic = Quic::connect(stage.door.quic, config).await.unwrap();
    closed(Client::over_quic(quic, 1, stage.clock()).log_in(&stage.door.trust).await).await
}
