// SPDX-License-Identifier: MIT OR Apache-2.0
//! A QUIC stream as a carrier.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use pli_api::ErrorCode;
use pli_api::quic::{FrameCutter, put_frame};
use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream, StoppedError, VarInt, WriteError};
use tokio::time::Instant;

use super::NO_ERROR;
use crate::carrier::{Carrier, CarrierError, CarrierName, Partial};
use crate::metrics::Metrics;

/// Frames are gathered up to this before they are handed to the connection, which keeps them until they are acknowledged,
/// at most `CONNECTION_WINDOW` bytes.
const WRITE_BUFFER: usize = 16 * 1024;
/// Streams of the client's own that are refused before the session is.
const REFUSED_MAX: u32 = 64;

type Other = BoxFuture<'static, Result<(SendStream, RecvStream), ConnectionError>>;
type Acknowledged = BoxFuture<'static, Result<Option<VarInt>, StoppedError>>;

/// The session's stream with its connection.
pub(super) struct Stream {
    connection: Connection,
    send: SendStream,
    recv: RecvStream,
    cutter: FrameCutter,
    /// Read and not cut yet.
    read: Bytes,
    /// The frame of which a part was read, and what had arrived when that was last looked at.
    partial: Option<(Partial, Arrived)>,
    /// Taken and not handed to the connection yet; at most [`WRITE_BUFFER`] and one frame.
    out: BytesMut,
    /// The next stream that the client opens.
    other: Option<Other>,
    refused: u32,
    closing: Closing,
    metrics: Arc<Metrics>,
}

/// What has come over the connection.
#[derive(Debug, Clone, Copy)]
struct Arrived {
    /// STREAM frames (RFC 9000 section 19.8), also those that cannot be read yet.
    pieces: u64,
    /// In datagrams.
    bytes: u64,
}

/// How far the goodbye is.
enum Closing {
    Writing,
    /// Everything was handed over; the client's side of the connection has not acknowledged it yet.
    Finished(Acknowledged),
    Closed,
}

impl Stream {
    pub(super) fn new(connection: Connection, send: SendStream, recv: RecvStream, metrics: Arc<Metrics>) -> Self {
        Self {
            other: Some(next_stream(&connection)),
            connection,
            send,
            recv,
            cutter: FrameCutter::default(),
            read: Bytes::new(),
            partial: None,
            out: BytesMut::new(),
            refused: 0,
            closing: Closing::Writing,
            metrics,
        }
    }

    /// A frame out of what was read.
    fn cut(&mut self) -> Result<Option<Bytes>, CarrierError> {
        if self.read.is_empty() {
            return Ok(None);
        }
        let frame = self.cutter.cut(&mut self.read).map_err(|_| CarrierError::TooLarge)?;
        if self.cutter.is_between() {
            self.partial = None;
        } else if self.partial.is_none() {
            let now = Instant::now();
            self.partial = Some((Partial { since: now, moved: now, bytes: 0 }, self.arrived()));
        }
        if self.read.is_empty() {
            self.read = Bytes::new();
        }
        Ok(frame)
    }

    fn arrived(&self) -> Arrived {
        let stats = self.connection.stats();
        Arrived { pieces: stats.frame_rx.stream, bytes: stats.udp_rx.bytes }
    }

    /// Notes whether a frame that is not whole goes on. What follows a lost packet arrives and cannot be read yet: on a slow
    /// link nothing of the stream can for seconds, though the connection never rests.
    fn note_progress(&mut self) {
        let Some((mut partial, before)) = self.partial else { return };
        let now = self.arrived();
        // Acknowledgements arrive without it, too.
        if now.pieces > before.pieces {
            partial.moved = Instant::now();
            partial.bytes += now.bytes - before.bytes;
            self.partial = Some((partial, now));
        }
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CarrierError>> {
        // The future holds nothing of its own, so that polling a new one each time loses nothing.
        let chunk = ready!(pin!(self.recv.read_chunk(usize::MAX, true)).poll(cx));
        Poll::Ready(match chunk {
            Ok(Some(chunk)) => {
                self.read = chunk.bytes;
                Ok(())
            }
            Ok(None) if self.cutter.is_between() => Err(CarrierError::Closed),
            Ok(None) => Err(CarrierError::NotAFrame("the stream ended within a frame".into())),
            Err(ReadError::Reset(_)) => Err(CarrierError::NotAFrame("the stream was reset".into())),
            Err(_) => Err(CarrierError::Closed),
        })
    }

    /// Refuses streams that the client opens, each by itself: the session has one, and a newer client may try.
    fn poll_others(&mut self, cx: &mut Context<'_>) -> Result<(), CarrierError> {
        while let Some(other) = &mut self.other {
            let Poll::Ready(opened) = other.as_mut().poll(cx) else { return Ok(()) };
            // Without a connection there are no more, which reading tells too.
            self.other = opened.is_ok().then(|| next_stream(&self.connection));
            let Ok((mut send, mut recv)) = opened else { return Ok(()) };
            let code = VarInt::from_u32(ErrorCode::UnexpectedFrame as u32);
            // Who has ended it already knows enough.
            let _ = (send.reset(code), recv.stop(code));
            self.metrics.quic_streams_refused.add(1, &[]);
            self.refused += 1;
            if self.refused > REFUSED_MAX {
                return Err(CarrierError::NotAFrame("streams again and again; a session has one".into()));
            }
        }
        Ok(())
    }

    /// Hands what was taken to the connection.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CarrierError>> {
        let mut waiting = self.out.split().freeze();
        while !waiting.is_empty() {
            let written = pin!(self.send.write_chunks(std::slice::from_mut(&mut waiting))).poll(cx);
            match written {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(unwritten(&error))),
                Poll::Pending => {
                    self.out = waiting.try_into_mut().unwrap_or_else(|kept| BytesMut::from(&kept[..]));
                    return Poll::Pending;
                }
            }
        }
        // No buffer while idle.
        self.out = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

/// The next stream that the client opens. Boxed and kept, because a new wait each time would lose the wake-up.
fn next_stream(connection: &Connection) -> Other {
    let connection = connection.clone();
    Box::pin(async move { connection.accept_bi().await })
}

const fn unwritten(error: &WriteError) -> CarrierError {
    match error {
        // The client stopped the stream, or the connection is gone.
        WriteError::Stopped(_)
        | WriteError::ConnectionLost(_)
        | WriteError::ClosedStream
        | WriteError::ZeroRttRejected => CarrierError::Closed,
    }
}

impl Carrier for Stream {
    fn name(&self) -> CarrierName {
        CarrierName::Quic
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, CarrierError>> {
        loop {
            if let Some(frame) = self.cut()? {
                return Poll::Ready(Ok(frame));
            }
            if let Poll::Ready(read) = self.poll_chunk(cx) {
                read?;
                continue;
            }
            self.poll_others(cx)?;
            self.note_progress();
            return Poll::Pending;
        }
    }

    fn partial(&self) -> Option<Partial> {
        self.partial.map(|(partial, _)| partial)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CarrierError>> {
        if self.out.len() < WRITE_BUFFER { Poll::Ready(Ok(())) } else { self.poll_write(cx) }
    }

    fn start_send(&mut self, frame: Bytes) -> Result<(), CarrierError> {
        put_frame(&mut self.out, &frame);
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CarrierError>> {
        self.poll_write(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut self.closing {
                Closing::Writing => {
                    let written = ready!(self.poll_write(cx));
                    let finished = written.is_ok() && self.send.finish().is_ok();
                    self.closing =
                        if finished { Closing::Finished(Box::pin(self.send.stopped())) } else { Closing::Closed };
                }
                Closing::Finished(acknowledged) => {
                    let _ = ready!(acknowledged.as_mut().poll(cx));
                    self.closing = Closing::Closed;
                }
                Closing::Closed => {
                    self.connection.close(NO_ERROR, b"");
                    return Poll::Ready(());
                }
            }
        }
    }
}
