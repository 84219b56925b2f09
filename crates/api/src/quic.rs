// SPDX-License-Identifier: MIT OR Apache-2.0
//! What both ends of the QUIC carrier share: its name, its bounds, and frames on a byte stream.
//!
//! The session is one bidirectional stream, which the edge opens as soon as the handshake has ended. Each frame on it is
//! its length as a big-endian 32-bit number, then its bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use pli_domain::limits::FRAME_BYTES_MAX;

/// The protocol as ALPN names it (RFC 7301).
pub const ALPN: &[u8] = b"pli/1";
/// Bidirectional streams that either end may have opened at a time. The session takes one, of the edge's; the others are
/// for what comes later, and each is refused on its own until then.
pub const STREAMS_MAX: u32 = 8;
/// Bytes of one stream that may be on their way to an end that has not read them.
pub const STREAM_WINDOW: u32 = 64 * 1024;
/// The same of all streams of a connection.
pub const CONNECTION_WINDOW: u32 = 256 * 1024;

/// Bytes of a frame's length.
const HEAD_BYTES: usize = 4;

/// A frame is announced to be larger than [`FRAME_BYTES_MAX`]; nothing behind it can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} bytes is larger than the limit of {FRAME_BYTES_MAX}")]
pub struct FrameTooLarge(pub u32);

/// Adds a frame to what is to be written. A frame of this program's own is never near 4 GiB.
pub fn put_frame(out: &mut BytesMut, frame: &[u8]) {
    out.reserve(HEAD_BYTES + frame.len());
    out.put_u32(u32::try_from(frame.len()).unwrap_or(u32::MAX));
    out.put_slice(frame);
}

/// Cuts a byte stream into frames. Keeps nothing between frames, and within one at most what has arrived of it, so at most
/// [`FRAME_BYTES_MAX`] bytes.
#[derive(Debug, Default)]
pub struct FrameCutter {
    head: [u8; HEAD_BYTES],
    /// Bytes of the head that are known.
    have: usize,
    body: Vec<u8>,
}

impl FrameCutter {
    /// Takes bytes out of `read`, up to the end of a frame: that frame, or none when its rest has not been read. After an
    /// error nothing more can be cut.
    pub fn cut(&mut self, read: &mut Bytes) -> Result<Option<Bytes>, FrameTooLarge> {
        let wanted = (HEAD_BYTES - self.have).min(read.len());
        read.copy_to_slice(&mut self.head[self.have..self.have + wanted]);
        self.have += wanted;
        if self.have < HEAD_BYTES {
            return Ok(None);
        }
        let announced = u32::from_be_bytes(self.head);
        let length = usize::try_from(announced).unwrap_or(usize::MAX);
        if length > FRAME_BYTES_MAX {
            return Err(FrameTooLarge(announced));
        }
        let taken = (length - self.body.len()).min(read.len());
        if self.body.is_empty() && taken == length {
            self.have = 0;
            // A copy: what was read may be a small part of a datagram buffer, which a frame would keep alive.
            let frame = Bytes::copy_from_slice(&read[..taken]);
            read.advance(taken);
            return Ok(Some(frame));
        }
        self.body.extend_from_slice(&read[..taken]);
        read.advance(taken);
        if self.body.len() < length {
            return Ok(None);
        }
        self.have = 0;
        Ok(Some(std::mem::take(&mut self.body).into()))
    }

    /// Whether no frame is under way.
    pub const fn is_between(&self) -> bool {
        self.have == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut_in_pieces(stream: &[u8], size: usize) -> Vec<Bytes> {
        let (mut cutter, mut frames) = (FrameCutter::default(), Vec::new());
        for piece in stream.chunks(size) {
            let mut read = Bytes::copy_from_slice(piece);
            while let Some(frame) = cutter.cut(&mut read).expect("small enough") {
                frames.push(frame);
                if read.is_empty() {
                    break;
                }
            }
            assert!(read.is_empty(), "nothing is left over");
        }
        assert!(cutter.is_between());
        frames
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let frames: Vec<Vec<u8>> = [1, 0, 300, 70_000, FRAME_BYTES_MAX].map(|n| vec![7; n]).to_vec();
        let mut stream = BytesMut::new();
        frames.iter().for_each(|frame| put_frame(&mut stream, frame));
        for size in [1, 3, 4, 5, 1_200, stream.len()] {
            assert_eq!(cut_in_pieces(&stream, size), frames, "in pieces of {size}");
        }
    }

    #[test]
    fn the_page_shows_a_frame_as_it_is_written() {
        use prost::Message;
        let ping = crate::edge::client_frame::Frame::Ping(crate::edge::Ping { id: 7 });
        let mut stream = BytesMut::new();
        put_frame(&mut stream, &crate::edge::ClientFrame { frame: Some(ping) }.encode_to_vec());
        let page = include_str!("../../../docs/protocol.md");
        assert!(page.contains(&format!("`Ping{{id: 7}}` is `{}`", hex::encode(&stream))), "{}", hex::encode(&stream));
    }

    #[test]
    fn a_frame_is_under_way_from_its_first_byte() {
        let mut cutter = FrameCutter::default();
        assert!(cutter.is_between());
        assert_eq!(cutter.cut(&mut Bytes::from_static(&[0])), Ok(None));
        assert!(!cutter.is_between());
        assert_eq!(cutter.cut(&mut Bytes::from_static(&[0, 0, 2, 9])), Ok(None));
        assert!(!cutter.is_between());
        assert_eq!(cutter.cut(&mut Bytes::from_static(&[8])), Ok(Some(Bytes::from_static(&[9, 8]))));
        assert!(cutter.is_between());
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_before_its_bytes_come() {
        let mut stream = BytesMut::new();
        stream.put_u32(u32::try_from(FRAME_BYTES_MAX).expect("small") + 1);
        let refused = FrameCutter::default().cut(&mut stream.freeze());
        assert_eq!(refused, Err(FrameTooLarge(81_921)));
    }
}
