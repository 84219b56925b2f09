// SPDX-License-Identifier: MIT OR Apache-2.0
//! The limit of everything that goes over a session: a server of the same library that only echoes, and of which the
//! handshake alone can be asked; over TLS and WebSocket, and over QUIC.

mod quic;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{SinkExt, StreamExt};
use pli_client::Transport;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::Process;

/// In the environment of a bench binary this makes it the echo server of the transport that it names.
pub const ECHO: &str = "PLI_BENCH_ECHO";

/// Serves echoes until it is killed; prints address and certificate as the first line.
pub async fn serve(transport: &str) -> Result<()> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_string()])?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    let certificate = hex::encode(made.cert.der());
    if transport == word(Transport::Quic) {
        return quic::serve(config, &certificate).await;
    }
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{} {certificate}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(echo(acceptor.clone(), stream));
    }
}

const fn word(transport: Transport) -> &'static str {
    if matches!(transport, Transport::Quic) { "quic" } else { "ws" }
}

/// An echo server of this transport as a process of its own.
fn start(transport: Transport) -> Result<Process> {
    Process::start(std::process::Command::new(std::env::current_exe()?).env(ECHO, word(transport)))
}

/// Where an echo server listens and what it presents.
struct Target {
    address: String,
    tls: Arc<ClientConfig>,
}

impl Target {
    /// From the line that the server has printed; without tickets of earlier connections.
    fn new(first_line: &str) -> Result<Self> {
        let (address, certificate) = first_line.trim().split_once(' ').context("address and certificate")?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(hex::decode(certificate)?))?;
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { address: address.into(), tls: Arc::new(config) })
    }

    async fn handshake(&self) -> Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(&self.address).await?;
        tcp.set_nodelay(true)?;
        Ok(TlsConnector::from(self.tls.clone()).connect(ServerName::try_from("localhost")?, tcp).await?)
    }

    async fn connect(&self) -> Result<WebSocketStream<TlsStream<TcpStream>>> {
        Ok(tokio_tungstenite::client_async("ws://localhost/", self.handshake().await?).await?.0)
    }
}

/// CPU of the echo server per QUIC handshake with the certificate's signature that is closed at once, in microseconds.
pub async fn cpu_us_per_quic_handshake(handshakes: usize) -> Result<f64> {
    let server = start(Transport::Quic)?;
    let before = server.cpu_us()?;
    for _ in 0..handshakes {
        quic::handshake(&Target::new(&server.first_line)?).await?;
    }
    Ok((server.cpu_us()? - before) / handshakes as f64)
}

/// CPU of the echo server per TLS handshake that is closed at once, in microseconds: with the certificate's signature, or
/// resumed from a ticket.
pub async fn cpu_us_per_handshake(resumed: bool, handshakes: usize) -> Result<f64> {
    let server = start(Transport::WebSocket)?;
    let warm = Target::new(&server.first_line)?;
    close(warm.handshake().await?).await?;
    let before = server.cpu_us()?;
    for _ in 0..handshakes {
        let fresh = Target::new(&server.first_line)?;
        let stream = if resumed { &warm } else { &fresh }.handshake().await?;
        let kind = stream.get_ref().1.handshake_kind();
        ensure!((kind == Some(HandshakeKind::Resumed)) == resumed, "the handshake was {kind:?}");
        close(stream).await?;
    }
    Ok((server.cpu_us()? - before) / handshakes as f64)
}

/// Says goodbye and reads to the end, before which a ticket may stand. The server says no goodbye of its own.
async fn close(mut stream: TlsStream<TcpStream>) -> Result<()> {
    stream.shutdown().await?;
    match stream.read_to_end(&mut Vec::new()).await {
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => Err(error.into()),
        _ => Ok(()),
    }
}

async fn echo(acceptor: TlsAcceptor, stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let limits = WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(0);
    let mut socket = tokio_tungstenite::accept_async_with_config(acceptor.accept(stream).await?, Some(limits)).await?;
    while let Some(message) = socket.next().await {
        let message = message?;
        if message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok(())
}

/// CPU of the echo server per echo of `bytes`, with one in flight on each of `connections`, in microseconds.
pub async fn cpu_us_per_echo(
    transport: Transport,
    connections: usize,
    bytes: usize,
    measured: Duration,
) -> Result<f64> {
    let server = start(transport)?;
    let target = Target::new(&server.first_line)?;
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(match transport {
            Transport::Quic => Echoing::Quic(quic::Stream::open(&target).await?),
            _ => Echoing::WebSocket(Box::new(target.connect().await?)),
        });
    }
    let (before, end) = (server.cpu_us()?, Instant::now() + measured);
    let tasks: Vec<_> = open.into_iter().map(|each| tokio::spawn(each.until(end, bytes))).collect();
    let mut echoes = 0;
    for task in tasks {
        echoes += task.await??;
    }
    Ok((server.cpu_us()? - before) / echoes as f64)
}

/// A connection on which one echo is asked for after the other.
enum Echoing {
    Quic(quic::Stream),
    WebSocket(Box<WebSocketStream<TlsStream<TcpStream>>>),
}

impl Echoing {
    async fn until(mut self, end: Instant, bytes: usize) -> Result<u64> {
        let message = Message::Binary(vec![0xC3; bytes].into());
        let mut echoes = 0;
        while Instant::now() < end {
            match &mut self {
                Self::Quic(stream) => stream.echo(bytes).await?,
                Self::WebSocket(socket) => {
                    socket.send(message.clone()).await?;
                    socket.next().await.context("an echo")??;
                }
            }
            echoes += 1;
        }
        Ok(echoes)
    }
}
