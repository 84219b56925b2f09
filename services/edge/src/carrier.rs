// SPDX-License-Identifier: MIT OR Apache-2.0
//! What carries the frames of one session: WebSocket, QUIC, memory in tests. A session never learns which.

use std::net::IpAddr;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::PollSender;

/// Why a carrier yields no more frames.
#[derive(Debug, thiserror::Error)]
pub enum CarrierError {
    /// The peer is gone, cleanly or not.
    #[error("the peer closed the connection")]
    Closed,
    /// A frame is larger than [`pli_domain::limits::FRAME_BYTES_MAX`]; nothing more can be read, but a last frame can
    /// be sent.
    #[error("a frame is larger than the limit")]
    TooLarge,
    /// What arrived is not of this carrier (a text message, a protocol error); a last frame can be sent.
    #[error("not a frame: {0}")]
    NotAFrame(String),
    /// The connection broke.
    #[error("the connection broke")]
    Io(#[source] std::io::Error),
}

/// Which carrier it is, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CarrierName {
    /// WebSocket over TLS.
    WebSocket,
    /// QUIC.
    Quic,
    /// No network: simulation and tests.
    Memory,
}

impl CarrierName {
    /// As a label and for people.
    pub const fn word(self) -> &'static str {
        match self {
            Self::WebSocket => "ws",
            Self::Quic => "quic",
            Self::Memory => "memory",
        }
    }
}

/// Two-way transport of whole frames. Poll-shaped so that one task both reads and writes and keeps no buffer while
/// idle. Order: frames arrive in the order sent. Nothing is durable: a frame that was accepted for sending may be lost.
pub trait Carrier: Send + Unpin {
    /// Which carrier it is.
    fn name(&self) -> CarrierName;

    /// The next whole frame. After an error only [`CarrierError::TooLarge`] and [`CarrierError::NotAFrame`] leave the
    /// sending side usable. Not calling it stops the peer by the transport's own flow control.
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, CarrierError>>;

    /// When the first byte of a frame arrived that is not whole yet.
    fn begun(&self) -> Option<Instant>;

    /// Whether there is room for one more frame; bounded by the carrier's write buffer.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CarrierError>>;

    /// Takes one frame after `poll_ready` said yes.
    fn start_send(&mut self, frame: Bytes) -> Result<(), CarrierError>;

    /// Hands everything taken to the transport.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CarrierError>>;

    /// Says goodbye in the transport's own way.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

/// Who is at the other end, as the listener knows it.
#[derive(Debug, Clone)]
pub struct PeerInfo {
    /// Where the connection comes from.
    pub address: IpAddr,
    /// The TLS exporter's 32 bytes; none where the listener does not end TLS.
    pub exporter: Option<[u8; 32]>,
    /// SHA-256 of the server's end-entity certificate in DER.
    pub server_certificate_sha256: [u8; 32],
    /// The web origin that a browser named.
    pub origin: Option<String>,
}

/// A carrier without a network; the other end is a [`MemoryPeer`].
pub struct MemoryCarrier {
    incoming: mpsc::Receiver<Bytes>,
    outgoing: PollSender<Bytes>,
}

/// The client's end of a [`MemoryCarrier`]. Dropping it closes the connection.
pub struct MemoryPeer {
    outgoing: mpsc::Sender<Bytes>,
    incoming: mpsc::Receiver<Bytes>,
}

/// A pair of ends, each with room for `frames` frames on their way.
pub fn memory(frames: usize) -> (MemoryCarrier, MemoryPeer) {
    let (to_edge, from_client) = mpsc::channel(frames.max(1));
    let (to_client, from_edge) = mpsc::channel(frames.max(1));
    let carrier = MemoryCarrier { incoming: from_client, outgoing: PollSender::new(to_client) };
    (carrier, MemoryPeer { outgoing: to_edge, incoming: from_edge })
}

impl Carrier for MemoryCarrier {
    fn name(&self) -> CarrierName {
        CarrierName::Memory
    }
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, CarrierError>> {
        self.incoming.poll_recv(cx).map(|frame| frame.ok_or(CarrierError::Closed))
    }
    fn begun(&self) -> Option<Instant> {
        None
    }
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CarrierError>> {
        self.outgoing.poll_reserve(cx).map_err(|_| CarrierError::Closed)
    }
    fn start_send(&mut self, frame: Bytes) -> Result<(), CarrierError> {
        self.outgoing.send_item(frame).map_err(|_| CarrierError::Closed)
    }
    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CarrierError>> {
        Poll::Ready(Ok(()))
    }
    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<()> {
        self.outgoing.close();
        Poll::Ready(())
    }
}

impl MemoryPeer {
    /// Sends one encoded `ClientFrame`, waiting while the edge does not read; false when the session has ended.
    pub async fn send(&self, frame: Bytes) -> bool {
        self.outgoing.send(frame).await.is_ok()
    }
    /// The next encoded `ServerFrame`; none when the session has ended. Cancellation: loses nothing.
    pub async fn recv(&mut self) -> Option<Bytes> {
        self.incoming.recv().await
    }
    /// Splits the two directions.
    pub fn split(self) -> (mpsc::Sender<Bytes>, mpsc::Receiver<Bytes>) {
        (self.outgoing, self.incoming)
    }
}
