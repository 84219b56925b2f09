// SPDX-License-Identifier: MIT OR Apache-2.0
//! WebSocket over TLS 1.3: one frame of the session protocol per binary message.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use pli_domain::limits::FRAME_BYTES_MAX;
use rustix::net::sockopt;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};

use super::moving::{CountedWrites, Taken};
use super::{Connection, Ends, TLS_EXPORTER_LABEL, TransportError, WRITE_BUFFER_BYTES_MAX};
use crate::{Fingerprint, ServerAddress};

/// The path of the session endpoint.
const SESSION_PATH: &str = "/v1/session";
/// Bytes kept for reading; frames larger than this grow it while they arrive.
const READ_BUFFER_BYTES: usize = 16 * 1024;
/// What the system keeps of what is sent. It says that there is room again when a third of it is free: of the megabytes that
/// it would take for itself that is more than a slow link moves before it is taken for dead.
const SEND_BUFFER_BYTES: usize = 64 * 1024;

impl From<tungstenite::Error> for TransportError {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => Self::Closed,
            // A server that was killed says no goodbye; for a user it is the same.
            tungstenite::Error::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Self::Closed,
            tungstenite::Error::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => Self::Stalled,
            other => Self::WebSocket(Box::new(other)),
        }
    }
}

/// CountedWrites below TLS, which takes more than it passes on.
type Tls = TlsStream<CountedWrites<TcpStream>>;
pub(super) type Socket = WebSocketStream<Tls>;

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
        // Where that cannot be set a slow link is given up too early; nothing else depends on it.
        let _ = sockopt::set_socket_send_buffer_size(&tcp, SEND_BUFFER_BYTES);
        let tls = self.handshake(address, CountedWrites::watched(tcp)).await?;
        let (exporter, fingerprint) = binding(address, &tls)?;
        let resumed = Some(tls.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed));
        let request = format!("wss://{}{SESSION_PATH}", address.authority());
        let (socket, _) = tokio_tungstenite::client_async_with_config(request, tls, Some(limits())).await?;
        Ok(Connection { ends: Ends::WebSocket(Box::new(socket)), exporter, fingerprint, resumed })
    }

    async fn handshake(&self, address: &ServerAddress, tcp: CountedWrites<TcpStream>) -> Result<Tls, TransportError> {
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

fn binding(address: &ServerAddress, tls: &Tls) -> Result<([u8; 32], Fingerprint), TransportError> {
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
    let taken = socket.get_ref().get_ref().0.taken();
    halves(socket, taken)
}

fn halves<S>(socket: WebSocketStream<S>, taken: Taken) -> (Sink, Stream)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sink, stream) = socket.split();
    (Sink { sink: Box::pin(sink), taken }, Stream(Box::pin(stream)))
}

/// The client's end of a WebSocket over memory.
#[cfg(test)]
pub(super) async fn over(near: tokio::io::DuplexStream) -> (Sink, Stream) {
    use tokio_tungstenite::tungstenite::protocol::Role;
    let near = CountedWrites::new(near);
    let taken = near.taken();
    halves(WebSocketStream::from_raw_socket(near, Role::Client, Some(limits())).await, taken)
}

/// The sending side.
pub(super) struct Sink {
    sink: Pin<Box<dyn futures::Sink<Message, Error = tungstenite::Error> + Send>>,
    taken: Taken,
}

impl Sink {
    pub async fn send(&mut self, frames: impl Iterator<Item = Vec<u8>>) -> Result<(), TransportError> {
        let sink = &mut self.sink;
        let sending = async {
            for frame in frames {
                sink.feed(Message::Binary(frame.into())).await?;
            }
            Ok(sink.flush().await?)
        };
        self.taken.moving(sending).await
    }

    pub async fn close(&mut self) -> Result<(), TransportError> {
        Ok(self.sink.close().await?)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};
    use tokio::time::{Instant, sleep, timeout};

    use super::*;

    /// Nothing that is tested here takes so long.
    const HOUR: Duration = Duration::from_secs(3_600);

    /// The sending side, over a link that holds 16 KiB, and the other end of it.
    async fn sink() -> (Sink, DuplexStream) {
        let (near, far) = duplex(16 * 1024);
        (over(near).await.0, far)
    }

    /// Takes 16 KiB each ten seconds, until there are `bytes`.
    async fn take(far: &mut DuplexStream, bytes: usize) {
        let (mut read, mut page) = (0, vec![0; 16 * 1024]);
        while read < bytes {
            sleep(Duration::from_secs(10)).await;
            read += far.read(&mut page).await.expect("read");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn eight_large_frames_go_over_a_slow_link_in_minutes() {
        let (mut sink, mut far) = sink().await;
        let frames = vec![vec![7; 48 * 1024]; 8];
        let bytes: usize = frames.iter().map(Vec::len).sum();
        let began = Instant::now();
        let both = async { tokio::join!(sink.send(frames.into_iter()), take(&mut far, bytes)) };
        let (sent, ()) = timeout(HOUR, both).await.expect("all of it comes");
        sent.expect("sent");
        assert!(began.elapsed() > Duration::from_secs(200), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_that_dies_half_way_is_noticed_in_seconds() {
        let (mut sink, mut far) = sink().await;
        let frames = vec![vec![7; 48 * 1024]; 8];
        let dies = async {
            take(&mut far, 100_000).await;
            Instant::now()
        };
        let both = async { tokio::join!(sink.send(frames.into_iter()), dies) };
        let (sent, died) = timeout(HOUR, both).await.expect("it is noticed");
        assert!(matches!(sent, Err(TransportError::Stalled)), "{sent:?}");
        assert!(died.elapsed() < Duration::from_secs(18), "{:?}", died.elapsed());
    }
}
