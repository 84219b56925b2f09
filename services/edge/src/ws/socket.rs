// SPDX-License-Identifier: MIT OR Apache-2.0
//! A WebSocket as a carrier: one binary message is one frame.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::{Sink, Stream};
use pli_domain::limits::FRAME_BYTES_MAX;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::arrived::Arrivals;
use super::begun::Begun;
use crate::carrier::{Carrier, CarrierError, CarrierName, Partial};

/// Read buffer of a connection, allocated as long as it lives; the library's default is 128 KiB.
const READ_BUFFER: usize = 1024;
/// Small frames are gathered up to this before they are written; allocated as long as the connection lives.
const WRITE_BUFFER: usize = 512;
/// What a peer may still send after the last frame before the connection is cut; without reading it the last frame
/// could be lost to a reset.
const LINGER_BYTES: usize = 1024 * 1024;

/// A WebSocket connection.
pub(super) struct Socket<S> {
    ws: WebSocketStream<Begun<S>>,
    closing: Closing,
}

/// How far the goodbye is.
enum Closing {
    Frame,
    Shutdown,
    Linger { left: usize },
}

impl<S: AsyncRead + AsyncWrite + Arrivals + Send + Unpin> Socket<S> {
    /// Takes over a stream after the upgrade; `read` was read ahead.
    pub(super) async fn new(mut stream: Begun<S>, read: Vec<u8>) -> Self {
        stream.follow(&read);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            .max_write_buffer_size(WRITE_BUFFER + 2 * FRAME_BYTES_MAX)
            .max_message_size(Some(FRAME_BYTES_MAX))
            .max_frame_size(Some(FRAME_BYTES_MAX));
        let ws = WebSocketStream::from_partially_read(stream, read, Role::Server, Some(config)).await;
        Self { ws, closing: Closing::Frame }
    }

    fn poll_linger(&mut self, left: usize, cx: &mut Context<'_>) -> Poll<usize> {
        let mut space = [0u8; 1024];
        let mut buf = ReadBuf::new(&mut space);
        match ready!(Pin::new(self.ws.get_mut()).poll_read(cx, &mut buf)) {
            Ok(()) if !buf.filled().is_empty() => Poll::Ready(left.saturating_sub(buf.filled().len())),
            _ => Poll::Ready(0),
        }
    }
}

fn carried(error: Error) -> CarrierError {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => CarrierError::Closed,
        Error::Io(error) => match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                CarrierError::Closed
            }
            _ => CarrierError::Io(error),
        },
        Error::Capacity(_) => CarrierError::TooLarge,
        Error::Protocol(tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
            CarrierError::Closed
        }
        other => CarrierError::NotAFrame(other.to_string()),
    }
}

impl<S: AsyncRead + AsyncWrite + Arrivals + Send + Unpin> Carrier for Socket<S> {
    fn name(&self) -> CarrierName {
        CarrierName::WebSocket
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, CarrierError>> {
        loop {
            return Poll::Ready(match ready!(Pin::new(&mut self.ws).poll_next(cx)) {
                Some(Ok(Message::Binary(frame))) => Ok(frame),
                // The library answers pings itself, and keeps at most one answer.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Ok(Message::Text(_))) => Err(CarrierError::NotAFrame("a text message".into())),
                Some(Ok(Message::Close(_))) | None => Err(CarrierError::Closed),
                Some(Err(error)) => Err(carried(error)),
            });
        }
    }

    fn partial(&self) -> Option<Partial> {
        self.ws.get_ref().partial()
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CarrierError>> {
        Pin::new(&mut self.ws).poll_ready(cx).map_err(carried)
    }

    fn start_send(&mut self, frame: Bytes) -> Result<(), CarrierError> {
        Pin::new(&mut self.ws).start_send(Message::Binary(frame)).map_err(carried)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CarrierError>> {
        Pin::new(&mut self.ws).poll_flush(cx).map_err(carried)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.closing {
                Closing::Frame => {
                    let _ = ready!(Pin::new(&mut self.ws).poll_close(cx));
                    self.closing = Closing::Shutdown;
                }
                Closing::Shutdown => {
                    let _ = ready!(Pin::new(self.ws.get_mut()).poll_shutdown(cx));
                    self.closing = Closing::Linger { left: LINGER_BYTES };
                }
                Closing::Linger { left: 0 } => return Poll::Ready(()),
                Closing::Linger { left } => {
                    let left = ready!(self.poll_linger(left, cx));
                    self.closing = Closing::Linger { left };
                }
            }
        }
    }
}
