// SPDX-License-Identifier: MIT OR Apache-2.0
//! Knows whether bytes keep arriving, below everything that keeps them until it has enough of them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::Tls;

/// What has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrived {
    /// So many bytes,
    pub(super) bytes: u64,
    /// the last of them then.
    pub(super) at: Instant,
}

/// Says what has arrived at the bottom of a stream.
pub(super) trait Arrivals {
    /// Until now.
    fn arrived(&self) -> Arrived;
}

impl Arrivals for Tls {
    fn arrived(&self) -> Arrived {
        self.get_ref().0.arrived
    }
}

/// A stream that counts what arrives.
#[derive(Debug)]
pub(super) struct CountedReads<S> {
    stream: S,
    arrived: Arrived,
}

impl<S> CountedReads<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, arrived: Arrived { bytes: 0, at: Instant::now() } }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CountedReads<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        if read > 0 {
            self.arrived = Arrived { bytes: self.arrived.bytes + read as u64, at: Instant::now() };
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CountedReads<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
