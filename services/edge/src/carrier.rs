// SPDX-License-Identifier: MIT OR Apache-2.0
//! What carries the frames of one session: WebSocket, QUIC, memory in tests. A session never learns which.

use std::net::IpAddr;
use std::task::{Context, Poll};

use bytes::Bytes;
use pli_domain::limits::FRAME_BYTES_MAX;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::PollSender;

use crate::config::{SessionConfig, ms};

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

/// A frame of which a part has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partial {
    /// When it began.
    pub since: Instant,
    /// When the newest bytes of it arrived.
    pub moved: Instant,
    /// So many bytes arrived since it began, at least as many as it has grown by.
    pub bytes: u64,
}

impl Partial {
    /// When it is given up unless more of it arrives: a slow link may take its time, and who keeps a session busy with a
    /// frame that is never whole may not. Time in which nothing was read, before `reading_since`, is not the client's.
    pub(crate) fn due(&self, reading_since: Instant, config: &SessionConfig) -> Instant {
        let pause = ms(config.frame_ms);
        let bytes = self.bytes.min(FRAME_BYTES_MAX as u64);
        let earned = ms(bytes * 1_000 / u64::from(config.frame_bytes_per_s.max(1)));
        let (moved, since) = (self.moved.max(reading_since), self.since.max(reading_since));
        (moved + pause).min(since + pause + earned)
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

    /// The frame of which a part has arrived; none between two frames.
    fn partial(&self) -> Option<Partial>;

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
    fn partial(&self) -> Option<Partial> {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// When a frame of `bytes` bytes that come evenly over `takes` is given up; none where it is whole before.
    fn given_up(bytes: u64, takes: Duration, every: Duration) -> Option<Duration> {
        let (config, since) = (SessionConfig::default(), Instant::now());
        let mut partial = Partial { since, moved: since, bytes: 0 };
        let steps = u32::try_from(takes.as_millis() / every.as_millis()).expect("few");
        for step in 1..=steps {
            let (now, due) = (since + every * step, partial.due(since, &config));
            if due < now {
                return Some(due - since);
            }
            partial = Partial { since, moved: now, bytes: bytes * u64::from(step) / u64::from(steps) };
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_may_take_as_long_as_it_keeps_coming_and_not_longer() {
        let s = Duration::from_secs;
        assert_eq!(given_up(64 * 1024, s(60), s(1)), None, "a slow link");
        assert_eq!(given_up(64 * 1024, s(60), s(4)), None, "in bursts");
        assert_eq!(given_up(64 * 1024, s(60), s(6)), Some(s(5)), "with pauses that are too long");
        assert_eq!(given_up(64, s(64), s(1)), Some(Duration::from_millis(5_004)), "a byte a second");
        // Half the rate that is asked for: what has come earns less and less of the time that it took.
        let half = given_up(64 * 1024, s(128), s(1)).expect("too slow");
        assert!(half > s(8) && half < s(11), "{half:?}");
        let longest = s(5) + s(FRAME_BYTES_MAX as u64 / 1024);
        let padded = given_up(1024 * 1024, s(1_000), s(1)).expect("as long as no frame is");
        assert!(padded <= longest, "{padded:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nothing_was_read_is_not_counted() {
        let (config, since) = (SessionConfig::default(), Instant::now());
        let partial = Partial { since, moved: since, bytes: 10 * 1024 };
        let reading_since = since + Duration::from_secs(100);
        assert_eq!(partial.due(since, &config), since + Duration::from_secs(5));
        assert_eq!(partial.due(reading_since, &config), reading_since + Duration::from_secs(5));
    }
}
