// SPDX-License-Identifier: MIT OR Apache-2.0
//! WebSocket over TLS 1.3: one frame of the session protocol per binary message.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use pli_domain::limits::FRAME_BYTES_MAX;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};

use super::{Connection, Ends, TLS_EXPORTER_LABEL, TransportError, WRITE_BUFFER_BYTES_MAX};
use crate::{Fingerprint, ServerAddress};

/// The path of the session endpoint.
const SESSION_PATH: &str = "/v1/session";
/// Bytes kept for reading; frames larger than this grow it while they arrive.
const READ_BUFFER_BYTES: usize = 16 * 1024;

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

pub(super) type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// Opens WebSockets.
#[derive(Debug, Clone)]
pub(super) struct Dialer {
    pub tls: Arc<ClientConfig>,
    pub pin: Option<Fingerprint>,
}

impl Dialer {
    /// Without a limit of time. Dropping the future leaves nothing open.
    pub async fn open(&self, address: &ServerAddress) -> Result<Connection, TransportError> {
        let unreachable = |source| TransportError::Unreachable { address: address.to_string(), source };
        let tcp = TcpStream::connect((address.host(), address.port())).await.map_err(unreachable)?;
        tcp.set_nodelay(true).map_err(unreachable)?;
        let tls = self.handshake(address, tcp).await?;
        let (exporter, fingerprint) = binding(address, &tls)?;
        let resumed = Some(tls.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed));
        let request = format!("wss://{}{SESSION_PATH}", address.authority());
        let (socket, _) = tokio_tungstenite::client_async_with_config(request, tls, Some(limits())).await?;
        Ok(Connection { ends: Ends::WebSocket(Box::new(socket)), exporter, fingerprint, resumed })
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

pub(super) fn split(socket: Socket) -> (Sink, Stream) {
    let (sink, stream) = socket.split();
    (Sink(Box::pin(sink)), Stream(Box::pin(stream)))
}

/// The sending side.
pub(super) struct Sink(Pin<Box<dyn futures::Sink<Message, Error = tungstenite::Error> + Send>>);

impl Sink {
    pub async fn send(&mut self, frames: impl Iterator<Item = Vec<u8>>) -> Result<(), TransportError> {
        for frame in frames {
            self.0.feed(Message::Binary(frame.into())).await?;
        }
        Ok(self.0.flush().await?)
    }

    pub async fn close(&mut self) -> Result<(), TransportError> {
        Ok(self.0.close().await?)
    }
}

/// The receiving side.
pub(super) struct Stream(Pin<Box<dyn futures::Stream<Item = Result<Message, tungstenite::Error>> + Send>>);

impl Stream {
    pub async fn next(&mut self) -> Result<Bytes, TransportError> {
        loop {
            match self.0.next().await.ok_or(TransportError::Closed)?? {
                Message::Binary(bytes) => return Ok(bytes),
                Message::Close(_) => return Err(TransportError::Closed),
                Message::Text(_) => return Err(TransportError::Text),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }
}
