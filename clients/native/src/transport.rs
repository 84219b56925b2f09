// SPDX-License-Identifier: MIT OR Apache-2.0
//! One connection: WebSocket over TLS 1.3, one frame of the session protocol per binary message.

use std::sync::Arc;
use std::time::Duration;

use futures::{Sink, SinkExt, Stream, StreamExt};
use pli_api::edge::{ClientFrame, ServerFrame};
use pli_domain::limits::FRAME_BYTES_MAX;
use pli_domain::transcript::TLS_EXPORTER_LABEL;
use prost::Message as _;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::trust::client_config;
use crate::{Fingerprint, ServerAddress};

/// The path of the session endpoint.
const SESSION_PATH: &str = "/v1/session";
/// TCP, TLS and the upgrade together may take this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes kept for reading; frames larger than this grow it while they arrive.
const READ_BUFFER_BYTES: usize = 16 * 1024;
/// Unsent bytes above which sending fails: one frame, what is coalesced, and room for a pong.
const WRITE_BUFFER_BYTES_MAX: usize = 4 * FRAME_BYTES_MAX;

/// Why there is no connection, or no longer one.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The host cannot be reached.
    #[error("cannot reach {address}: {source}; is the server running? (`pli dev` starts one)")]
    Unreachable {
        /// Where to.
        address: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// No answer in time.
    #[error("{0} did not answer within 10 s")]
    Timeout(String),
    /// The presented certificate is not the pinned one.
    #[error(
        "the certificate of {address} is not the pinned one ({pinned}): somebody listens in, or the server was set up anew"
    )]
    WrongCertificate {
        /// Where.
        address: String,
        /// What was expected.
        pinned: Fingerprint,
    },
    /// TLS failed otherwise.
    #[error("TLS with {address} failed: {source}")]
    Tls {
        /// Where.
        address: String,
        /// What TLS said.
        #[source]
        source: std::io::Error,
    },
    /// A name that TLS cannot ask for.
    #[error("`{0}` is not a host name")]
    Host(String),
    /// The WebSocket failed or ended.
    #[error("the connection broke: {0}")]
    WebSocket(#[from] Box<tungstenite::Error>),
    /// The peer closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// Bytes that are no frame.
    #[error("the server sent a frame that cannot be read: {0}")]
    Frame(#[from] prost::DecodeError),
    /// A text message, which the protocol does not know.
    #[error("the server sent text instead of a frame")]
    Text,
}

impl From<tungstenite::Error> for TransportError {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => Self::Closed,
            // A server that was killed says no goodbye; for a user it is the same.
            tungstenite::Error::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Self::Closed,
            other => Self::WebSocket(Box::new(other)),
        }
    }
}

type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// Opens connections to one server. It keeps the session tickets of earlier connections, so a later one resumes TLS
/// (RFC 8446 section 2.2) and spares the server its signature; an authentication is bound to the new connection all the
/// same. Cheap to clone; clones share the tickets.
#[derive(Debug, Clone)]
pub struct Connector {
    tls: Arc<ClientConfig>,
    pin: Option<Fingerprint>,
}

impl Connector {
    /// With a pin, only the server that holds that certificate's key will do; without one any will, and the caller pins
    /// [`Connection::fingerprint`] before it trusts anything else.
    pub fn new(pin: Option<Fingerprint>) -> Self {
        let tls = client_config(pin).expect("aws-lc-rs has cipher suites for TLS 1.3");
        Self { tls: Arc::new(tls), pin }
    }

    /// The certificate that is insisted on.
    pub const fn pin(&self) -> Option<Fingerprint> {
        self.pin
    }

    /// Connects to `address` within 10 s. Dropping the future leaves nothing open.
    pub async fn open(&self, address: &ServerAddress) -> Result<Connection, TransportError> {
        timeout(CONNECT_TIMEOUT, self.open_unbounded(address))
            .await
            .map_err(|_| TransportError::Timeout(address.to_string()))?
    }

    async fn open_unbounded(&self, address: &ServerAddress) -> Result<Connection, TransportError> {
        let unreachable = |source| TransportError::Unreachable { address: address.to_string(), source };
        let tcp = TcpStream::connect((address.host(), address.port())).await.map_err(unreachable)?;
        tcp.set_nodelay(true).map_err(unreachable)?;
        let tls = self.handshake(address, tcp).await?;
        let (exporter, fingerprint) = binding(address, &tls)?;
        let resumed = tls.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        let request = format!("wss://{}{SESSION_PATH}", address.authority());
        let (socket, _) = tokio_tungstenite::client_async_with_config(request, tls, Some(limits())).await?;
        Ok(Connection { socket, exporter, fingerprint, resumed })
    }

    async fn handshake(&self, address: &ServerAddress, tcp: TcpStream) -> Result<TlsStream<TcpStream>, TransportError> {
        let name = ServerName::try_from(address.host().to_string())
            .map_err(|_| TransportError::Host(address.host().to_string()))?;
        TlsConnector::from(self.tls.clone()).connect(name, tcp).await.map_err(|source| match self.pin {
            Some(pinned) if is_wrong_certificate(&source) => {
                TransportError::WrongCertificate { address: address.to_string(), pinned }
            }
            _ => TransportError::Tls { address: address.to_string(), source },
        })
    }
}

/// An open connection, before the session's hello.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    /// The TLS exporter value that an authentication is bound to.
    pub exporter: [u8; 32],
    /// The certificate that the server presented, now or on the connection that this one resumes.
    pub fingerprint: Fingerprint,
    /// It resumes an earlier connection.
    pub resumed: bool,
}

impl Connection {
    /// The two directions.
    pub fn split(self) -> (FrameSink, FrameStream) {
        let (sink, stream) = self.socket.split();
        (FrameSink(Box::pin(sink)), FrameStream(Box::pin(stream)))
    }
}

fn is_wrong_certificate(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidCertificate(rustls::CertificateError::ApplicationVerificationFailure)))
}

fn binding(address: &ServerAddress, tls: &TlsStream<TcpStream>) -> Result<([u8; 32], Fingerprint), TransportError> {
    let failed = |e| TransportError::Tls { address: address.to_string(), source: std::io::Error::other(e) };
    let (_, session) = tls.get_ref();
    let exporter = session.export_keying_material([0u8; 32], TLS_EXPORTER_LABEL, None).map_err(failed)?;
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.ok_or_else(|| failed(rustls::Error::NoCertificatesPresented))?;
    Ok((exporter, Fingerprint::of(certificate)))
}

fn limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
        .max_message_size(Some(FRAME_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX))
}

/// Where frames go.
pub struct FrameSink(std::pin::Pin<Box<dyn Sink<Message, Error = tungstenite::Error> + Send>>);

impl FrameSink {
    /// Sends the frames in order and flushes once. Dropping the future may leave part of them unsent.
    pub async fn send(&mut self, frames: &[ClientFrame]) -> Result<(), TransportError> {
        for frame in frames {
            self.0.feed(Message::Binary(frame.encode_to_vec().into())).await?;
        }
        Ok(self.0.flush().await?)
    }
    /// Says goodbye.
    pub async fn close(&mut self) -> Result<(), TransportError> {
        Ok(self.0.close().await?)
    }
}

/// Where frames come from.
pub struct FrameStream(std::pin::Pin<Box<dyn Stream<Item = Result<Message, tungstenite::Error>> + Send>>);

impl FrameStream {
    /// The next frame. Cancel safe.
    pub async fn next(&mut self) -> Result<ServerFrame, TransportError> {
        loop {
            match self.0.next().await.ok_or(TransportError::Closed)?? {
                Message::Binary(bytes) => return Ok(ServerFrame::decode(bytes)?),
                Message::Close(_) => return Err(TransportError::Closed),
                Message::Text(_) => return Err(TransportError::Text),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }
}
