// SPDX-License-Identifier: MIT OR Apache-2.0
//! Knows whether a WebSocket message has begun and not ended, and whether it goes on, by following frame headers as bytes
//! pass (RFC 6455 section 5.2). The WebSocket library keeps that to itself.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::arrived::{Arrivals, Arrived};
use crate::carrier::Partial;

/// Where in a frame the next byte falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// First byte of a header.
    Start,
    /// Second byte: mask bit and 7-bit length.
    Length,
    /// So many bytes of an extended length and then of the mask are missing; the length so far.
    Extended { missing: u8, mask: bool, length: u64 },
    /// So many bytes of mask and payload are missing.
    Rest(u64),
}

/// Follows the headers of a byte stream.
#[derive(Debug)]
struct Headers {
    at: At,
    /// Whether the frame under way is the last of its message.
    last: bool,
    control: bool,
    /// A message was begun by a frame that was not its last.
    fragmented: bool,
}

impl Headers {
    const fn new() -> Self {
        Self { at: At::Start, last: true, control: false, fragmented: false }
    }

    fn between_messages(&self) -> bool {
        self.at == At::Start && !self.fragmented
    }

    /// Takes bytes; whether some moment between two messages was passed.
    fn feed(&mut self, mut bytes: &[u8]) -> bool {
        let mut ended = false;
        while let Some((&byte, rest)) = bytes.split_first() {
            if let At::Rest(missing) = self.at {
                let taken = missing.min(bytes.len() as u64);
                // `taken` is at most the length of a slice.
                bytes = &bytes[usize::try_from(taken).unwrap_or(bytes.len())..];
                self.at = At::Rest(missing - taken);
            } else {
                self.header(byte);
                bytes = rest;
            }
            if self.at == At::Rest(0) {
                self.at = At::Start;
                self.fragmented = if self.control { self.fragmented } else { !self.last };
                ended |= !self.fragmented;
            }
        }
        ended
    }

    fn header(&mut self, byte: u8) {
        self.at = match self.at {
            At::Start => {
                self.last = byte & 0x80 != 0;
                self.control = byte & 0x08 != 0;
                At::Length
            }
            At::Length => {
                let mask = byte & 0x80 != 0;
                match byte & 0x7F {
                    126 => At::Extended { missing: 2, mask, length: 0 },
                    127 => At::Extended { missing: 8, mask, length: 0 },
                    short => At::Rest(u64::from(short) + if mask { 4 } else { 0 }),
                }
            }
            At::Extended { missing, mask, length } => {
                let length = (length << 8) | u64::from(byte);
                match missing - 1 {
                    0 => At::Rest(length.saturating_add(if mask { 4 } else { 0 })),
                    missing => At::Extended { missing, mask, length },
                }
            }
            rest @ At::Rest(_) => rest,
        };
    }
}

/// A stream that says since when a frame is under way.
pub(super) struct Begun<S> {
    stream: S,
    headers: Headers,
    /// When the frame began that has not ended, and what had arrived then.
    since: Option<(Instant, u64)>,
    following: bool,
}

impl<S: Arrivals> Begun<S> {
    /// Follows nothing before [`Begun::follow`]: what comes first is HTTP.
    pub(super) fn new(stream: S) -> Self {
        Self { stream, headers: Headers::new(), since: None, following: false }
    }

    /// From here on the bytes are frames; `read` were read ahead.
    pub(super) fn follow(&mut self, read: &[u8]) {
        self.following = true;
        self.note(read);
    }

    /// The frame that has begun and not ended.
    pub(super) fn partial(&self) -> Option<Partial> {
        let (since, before) = self.since?;
        let Arrived { bytes, at } = self.stream.arrived();
        Some(Partial { since, moved: since.max(at), bytes: bytes - before })
    }

    fn note(&mut self, bytes: &[u8]) {
        if !self.following || bytes.is_empty() {
            return;
        }
        let ended = self.headers.feed(bytes);
        if self.headers.between_messages() {
            self.since = None;
        } else if ended || self.since.is_none() {
            self.since = Some((Instant::now(), self.stream.arrived().bytes));
        }
    }
}

impl<S: AsyncRead + Arrivals + Unpin> AsyncRead for Begun<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.note(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: std::time::Duration = std::time::Duration::from_secs(1);

    /// What arrives below.
    struct Below(Arrived);

    impl Default for Below {
        fn default() -> Self {
            Self(Arrived { bytes: 0, at: Instant::now() })
        }
    }

    impl Below {
        fn arrives(&mut self, bytes: u64) {
            self.0 = Arrived { bytes: self.0.bytes + bytes, at: Instant::now() };
        }
    }

    impl Arrivals for Below {
        fn arrived(&self) -> Arrived {
            self.0
        }
    }

    fn frame(first: u8, payload: usize) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload {
            0..126 => bytes.push(0x80 | payload as u8),
            126..65_536 => {
                bytes.push(0x80 | 126);
                bytes.extend((payload as u16).to_be_bytes());
            }
            _ => {
                bytes.push(0x80 | 127);
                bytes.extend((payload as u64).to_be_bytes());
            }
        }
        bytes.extend(vec![0; payload + 4]);
        bytes
    }

    #[test]
    fn every_prefix_of_a_message_is_under_way_and_the_whole_is_not() {
        for size in [0, 1, 125, 126, 70_000] {
            let bytes = frame(0x82, size);
            let mut headers = Headers::new();
            for (n, byte) in bytes.iter().enumerate() {
                assert!(n == 0 || !headers.between_messages(), "{size} after {n}");
                headers.feed(&[*byte]);
            }
            assert!(headers.between_messages(), "{size}");
        }
    }

    #[test]
    fn a_fragmented_message_is_under_way_until_its_last_fragment() {
        let mut headers = Headers::new();
        assert!(!headers.feed(&frame(0x02, 10)));
        assert!(!headers.feed(&frame(0x89, 3)), "a ping in between ends nothing");
        assert!(!headers.between_messages());
        assert!(headers.feed(&frame(0x80, 10)));
        assert!(headers.between_messages());
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_is_that_of_the_frame_under_way_and_not_of_one_before_it() {
        let mut begun = Begun::new(Below::default());
        let whole = frame(0x82, 200);
        begun.follow(&whole[..5]);
        let first = begun.partial().expect("begun").since;
        tokio::time::advance(SECOND).await;
        begun.note(&[&whole[5..], &whole[..3]].concat());
        assert!(begun.partial().expect("the second one began").since > first);
        begun.note(&whole[3..]);
        assert_eq!(begun.partial(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_arrives_below_goes_on_with_the_frame_under_way() {
        let mut begun = Begun::new(Below::default());
        begun.stream.arrives(1_000);
        begun.follow(&frame(0x82, 200)[..5]);
        let since = Instant::now();
        assert_eq!(begun.partial(), Some(Partial { since, moved: since, bytes: 0 }), "what came before is not of it");
        for n in 1..=3 {
            tokio::time::advance(SECOND).await;
            begun.stream.arrives(500);
            assert_eq!(begun.partial(), Some(Partial { since, moved: Instant::now(), bytes: n * 500 }));
        }
    }
}
