// SPDX-License-Identifier: MIT OR Apache-2.0
//! QUIC: frames on the one stream that the edge opens.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::future::select_ok;
use futures::{FutureExt, TryFutureExt};
use pli_api::quic::{ALPN, CONNECTION_WINDOW, FrameCutter, STREAM_WINDOW, STREAMS_MAX, put_frame};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    ClientConfig, ConnectionError, Endpoint, EndpointConfig, IdleTimeout, ReadError, RecvStream, SendStream,
    TokioRuntime, TransportConfig, VarInt, WriteError,
};
use rustls::pki_types::CertificateDer;
use tokio::time::{Instant, sleep_until};

use super::{Connection, Ends, TLS_EXPORTER_LABEL, TransportError, WRITE_BUFFER_BYTES_MAX, moving};
use crate::{Fingerprint, ServerAddress};

/// An idle connection says so often that it is there: routers forget a silent UDP flow after half a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// A connection over which nothing is heard for so long is lost.
const IDLE_MAX: Duration = Duration::from_secs(45);
/// What asks for an answer gets one within a round trip. Where none came for so long the server is gone, or the way to it,
/// and a new connection is sooner than the end of ever longer pauses (RFC 9002 section 6.2.1).
const UNANSWERED_MAX: Duration = Duration::from_secs(5);
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Addresses of one name that are tried at once.
const ADDRESSES_MAX: usize = 4;
/// The transport error that the verifier of a pinned certificate raises: the alert `access_denied` (RFC 9001 section 4.8).
const WRONG_CERTIFICATE: u64 = 0x100 + 49;

/// Opens QUIC connections.
#[derive(Debug, Clone)]
pub(super) struct Dialer {
    config: ClientConfig,
    pin: Option<Fingerprint>,
}

impl Dialer {
    /// With a TLS configuration of its own, since ALPN is part of it.
    pub fn new(mut tls: rustls::ClientConfig, pin: Option<Fingerprint>) -> Self {
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let crypto = QuicClientConfig::try_from(tls).expect("aws-lc-rs has AES-128-GCM, which first packets need");
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport_config()));
        Self { config, pin }
    }

    /// Without a limit of time. Dropping the future leaves nothing open.
    pub async fn open(&self, address: &ServerAddress, port: u16) -> Result<Connection, TransportError> {
        let unreachable = |source| TransportError::Unreachable { address: address.to_string(), source };
        let found = tokio::net::lookup_host((address.host(), port)).await.map_err(unreachable)?;
        let attempts: Vec<_> = found.take(ADDRESSES_MAX).map(|to| self.attempt(address, to).boxed()).collect();
        if attempts.is_empty() {
            return Err(unreachable(io::ErrorKind::NotFound.into()));
        }
        Ok(select_ok(attempts).await?.0)
    }

    async fn attempt(&self, address: &ServerAddress, to: SocketAddr) -> Result<Connection, TransportError> {
        let unreachable = |source| TransportError::Unreachable { address: address.to_string(), source };
        let endpoint = endpoint(to).map_err(unreachable)?;
        let connecting = endpoint.connect_with(self.config.clone(), to, address.host());
        let connecting = connecting.map_err(|_| TransportError::Host(address.host().to_string()))?;
        let connection = connecting.await.map_err(|error| self.failed(address, error))?;
        let (exporter, fingerprint) = binding(address, &connection)?;
        let (send, recv) = connection.accept_bi().await.map_err(|error| self.failed(address, error))?;
        let sink = Sink { send, connection, out: BytesMut::new() };
        let watch = Watch::new(sink.connection.clone());
        let stream = Stream { recv, cutter: FrameCutter::default(), read: Bytes::new(), watch };
        Ok(Connection { ends: Ends::Quic(Box::new((sink, stream))), exporter, fingerprint, resumed: None })
    }

    fn failed(&self, address: &ServerAddress, error: ConnectionError) -> TransportError {
        let address = address.to_string();
        match (&error, self.pin) {
            (ConnectionError::TransportError(error), Some(pinned)) if u64::from(error.code) == WRONG_CERTIFICATE => {
                TransportError::WrongCertificate { address, pinned }
            }
            (ConnectionError::TransportError(_), _) => TransportError::Tls { address, source: io::Error::other(error) },
            _ => error.into(),
        }
    }
}

fn transport_config() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(CONNECTION_WINDOW.into())
        .datagram_receive_buffer_size(None)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(IdleTimeout::try_from(IDLE_MAX).ok());
    transport
}

/// An endpoint for one connection; it ends with the connection. Bound to no address of this computer, so that packets
/// leave by whatever network there is.
fn endpoint(to: SocketAddr) -> io::Result<Endpoint> {
    let any = match to {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    Endpoint::new(EndpointConfig::default(), None, UdpSocket::bind(any)?, Arc::new(TokioRuntime))
}

fn binding(address: &ServerAddress, connection: &quinn::Connection) -> Result<([u8; 32], Fingerprint), TransportError> {
    let failed = |what: &str| TransportError::Tls { address: address.to_string(), source: io::Error::other(what) };
    let mut exporter = [0; 32];
    let exported = connection.export_keying_material(&mut exporter, TLS_EXPORTER_LABEL, &[]);
    exported.map_err(|_| failed("there is no exporter"))?;
    let shown = connection.peer_identity().and_then(|shown| shown.downcast::<Vec<CertificateDer<'static>>>().ok());
    let certificate = shown.as_ref().and_then(|chain| chain.first());
    let certificate = certificate.ok_or_else(|| failed("no certificate was presented"))?;
    Ok((exporter, Fingerprint::of(certificate)))
}

/// The sending side.
#[derive(Debug)]
pub(super) struct Sink {
    send: SendStream,
    connection: quinn::Connection,
    /// Not handed to the connection yet; at most [`WRITE_BUFFER_BYTES_MAX`].
    out: BytesMut,
}

impl Sink {
    pub async fn send(&mut self, frames: impl Iterator<Item = Vec<u8>>) -> Result<(), TransportError> {
        for frame in frames {
            put_frame(&mut self.out, &frame);
            if self.out.len() >= WRITE_BUFFER_BYTES_MAX {
                self.flush().await?;
            }
        }
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), TransportError> {
        while !self.out.is_empty() {
            let write = self.send.write(&self.out).map_err(unwritten);
            let written = moving::one_write(write).await?;
            self.out.advance(written);
        }
        Ok(())
    }

    /// The end of the stream is the goodbye; the server answers by closing the connection.
    pub async fn close(&mut self) -> Result<(), TransportError> {
        self.flush().await?;
        if self.send.finish().is_ok() {
            self.connection.closed().await;
        }
        Ok(())
    }
}

fn unwritten(error: WriteError) -> TransportError {
    match error {
        WriteError::ConnectionLost(error) => lost(error),
        WriteError::Stopped(_) | WriteError::ClosedStream | WriteError::ZeroRttRejected => TransportError::Closed,
    }
}

fn lost(error: ConnectionError) -> TransportError {
    match error {
        // What the server had to say it has said in a frame. A restarted server knows nothing of the connection.
        ConnectionError::ApplicationClosed(_) | ConnectionError::LocallyClosed | ConnectionError::Reset => {
            TransportError::Closed
        }
        other => other.into(),
    }
}

/// Notices that nothing is answered any more.
#[derive(Debug)]
struct Watch {
    connection: quinn::Connection,
    next: Instant,
    seen: Seen,
}

/// What was seen at the last look.
#[derive(Debug, Default)]
struct Seen {
    /// Datagrams received until then.
    received: u64,
    /// Frames that ask for an answer, sent until something was received last.
    asking: u64,
    unanswered_since: Option<Instant>,
}

impl Watch {
    fn new(connection: quinn::Connection) -> Self {
        let next = Instant::now() + LOOK_EVERY;
        Self { connection, next, seen: Seen::default() }
    }

    /// Ends when nothing is answered any more. Cancel safe.
    async fn silence(&mut self) {
        loop {
            sleep_until(self.next).await;
            let now = Instant::now();
            self.next = now + LOOK_EVERY;
            let stats = self.connection.stats();
            self.seen.look(stats.udp_rx.datagrams, stats.frame_tx.stream + stats.frame_tx.ping, now);
            if self.seen.is_silent(now) {
                return;
            }
        }
    }
}

impl Seen {
    fn is_silent(&self, now: Instant) -> bool {
        self.unanswered_since.is_some_and(|since| now - since >= UNANSWERED_MAX)
    }

    fn look(&mut self, received: u64, asking: u64, now: Instant) {
        if received != self.received {
            (self.received, self.asking, self.unanswered_since) = (received, asking, None);
        } else if asking != self.asking {
            self.unanswered_since.get_or_insert(now);
        }
    }
}

/// The receiving side.
#[derive(Debug)]
pub(super) struct Stream {
    recv: RecvStream,
    cutter: FrameCutter,
    /// Read and not cut yet.
    read: Bytes,
    watch: Watch,
}

impl Stream {
    /// Cancel safe: what was read stays here.
    pub async fn next(&mut self) -> Result<Bytes, TransportError> {
        loop {
            if !self.read.is_empty()
                && let Some(frame) = self.cutter.cut(&mut self.read)?
            {
                return Ok(frame);
            }
            let read = tokio::select! {
                biased;
                read = self.recv.read_chunk(usize::MAX, true) => read,
                () = self.watch.silence() => return Err(ConnectionError::TimedOut.into()),
            };
            self.read = match read {
                Ok(Some(chunk)) => chunk.bytes,
                Ok(None) => return Err(TransportError::Closed),
                Err(ReadError::ConnectionLost(error)) => return Err(lost(error)),
                Err(_) => return Err(TransportError::Closed),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_what_asks_and_is_not_answered_for_seconds_is_silence() {
        let (mut seen, mut silent) = (Seen::default(), Vec::new());
        // Received and asked so far: an answer each time, then a long quiet, then two questions of which none is answered.
        let quiet = [(1, 1), (2, 3), (2, 3), (2, 3), (2, 3), (2, 3), (2, 3), (2, 3)];
        for (received, asking) in quiet.into_iter().chain([(2, 4), (2, 4), (2, 5), (2, 5), (2, 5), (2, 5), (3, 5)]) {
            seen.look(received, asking, Instant::now());
            silent.push(seen.is_silent(Instant::now()));
            tokio::time::advance(LOOK_EVERY).await;
        }
        let at = silent.iter().position(|silent| *silent);
        assert_eq!((at, silent.iter().filter(|silent| **silent).count()), (Some(13), 1), "{silent:?}");
    }
}
