// SPDX-License-Identifier: MIT OR Apache-2.0
//! One connection, over QUIC or over WebSocket; TLS 1.3 either way.

mod moving;
mod quic;
mod race;
mod shunned;
mod ws;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use pli_api::edge::{ClientFrame, ServerFrame};
use pli_domain::limits::FRAME_BYTES_MAX;
use pli_domain::transcript::TLS_EXPORTER_LABEL;
use prost::Message as _;
use tokio_tungstenite::tungstenite;

use crate::Fingerprint;
pub use race::Connector;

/// A handshake of any carrier may take this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Unsent bytes above which sending fails: one frame, what is coalesced, and room for a pong.
const WRITE_BUFFER_BYTES_MAX: usize = 4 * FRAME_BYTES_MAX;

/// What a client may connect over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Transport {
    /// QUIC where it works, else WebSocket.
    #[default]
    Auto,
    /// QUIC alone.
    Quic,
    /// WebSocket alone.
    WebSocket,
}

/// Text that names no transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a transport is one of `auto`, `quic` and `ws`")]
pub struct InvalidTransport;

impl FromStr for Transport {
    type Err = InvalidTransport;
    fn from_str(text: &str) -> Result<Self, InvalidTransport> {
        match text {
            "auto" => Ok(Self::Auto),
            "quic" => Ok(Self::Quic),
            "ws" => Ok(Self::WebSocket),
            _ => Err(InvalidTransport),
        }
    }
}

/// What a connection goes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// QUIC; survives a change of this computer's address.
    Quic,
    /// WebSocket over TLS.
    WebSocket,
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quic => "QUIC",
            Self::WebSocket => "WebSocket",
        })
    }
}

/// Why there is no connection, or no longer one.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The host cannot be reached.
    #[error("cannot reach {address}: {source}; is the server running? (`pli dev` starts one)")]
    Unreachable {
        /// Where to.
        address: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// No answer in time.
    #[error("{0} did not answer within 10 s")]
    Timeout(String),
    /// No answer over UDP.
    #[error(
        "no answer over QUIC from {address}, UDP port {port}, within 10 s; the server may not serve it, or the network may \
         block UDP: use --transport auto or ws"
    )]
    QuicTimeout {
        /// Where.
        address: String,
        /// The UDP port.
        port: u16,
    },
    /// The presented certificate is neither the pinned one nor, where none is pinned yet, the one that was named.
    #[error(
        "the certificate of {address} is not the expected one ({pinned}): somebody listens in, the server was set up anew, or \
         the fingerprint that was given is wrong"
    )]
    WrongCertificate {
        /// Where.
        address: String,
        /// What was expected.
        pinned: Fingerprint,
    },
    /// TLS failed otherwise.
    #[error(
        "TLS with {address} failed: {source}; is it the address of sessions, which the server prints at its start?"
    )]
    Tls {
        /// Where.
        address: String,
        /// What TLS said.
        #[source]
        source: std::io::Error,
    },
    /// A name that TLS cannot ask for.
    #[error("`{0}` is not a host name")]
    Host(String),
    /// The WebSocket failed or ended.
    #[error("the connection broke: {0}")]
    WebSocket(#[from] Box<tungstenite::Error>),
    /// The QUIC connection failed or ended.
    #[error("the connection broke: {0}")]
    Quic(#[from] quinn::ConnectionError),
    /// The peer, or the way to it, takes nothing.
    #[error("the server, or the network, takes nothing of what is sent")]
    Stalled,
    /// The peer closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// Bytes that are no frame.
    #[error("the server sent a frame that cannot be read: {0}")]
    Frame(#[from] prost::DecodeError),
    /// A frame that is announced to be too large.
    #[error("the server sent a frame that cannot be read: {0}")]
    TooLarge(#[from] pli_api::quic::FrameTooLarge),
    /// A text message, which the protocol does not know.
    #[error("the server sent text instead of a frame")]
    Text,
}

/// An open connection, before the session's hello.
#[derive(Debug)]
pub struct Connection {
    ends: Ends,
    /// The TLS exporter value that an authentication is bound to.
    pub exporter: [u8; 32],
    /// The certificate that the server presented, now or on the connection that this one resumes.
    pub fingerprint: Fingerprint,
    /// Its TLS resumes an earlier connection; none where that cannot be told (QUIC).
    pub resumed: Option<bool>,
}

#[derive(Debug)]
enum Ends {
    Quic(Box<(quic::Sink, quic::Stream)>),
    WebSocket(Box<ws::Socket>),
}

impl Connection {
    /// What it goes over.
    pub const fn carrier(&self) -> Carrier {
        match self.ends {
            Ends::Quic(_) => Carrier::Quic,
            Ends::WebSocket(_) => Carrier::WebSocket,
        }
    }

    /// The two directions.
    pub fn split(self) -> (FrameSink, FrameStream) {
        match self.ends {
            Ends::Quic(ends) => {
                let (sink, stream) = *ends;
                (FrameSink(Sink::Quic(Box::new(sink))), FrameStream(Stream::Quic(Box::new(stream))))
            }
            Ends::WebSocket(socket) => {
                let (sink, stream) = ws::split(*socket);
                (FrameSink(Sink::WebSocket(sink)), FrameStream(Stream::WebSocket(stream)))
            }
        }
    }
}

/// Both directions of a WebSocket over memory.
#[cfg(test)]
pub(crate) async fn over(near: tokio::io::DuplexStream) -> (FrameSink, FrameStream) {
    let (sink, stream) = ws::over(near).await;
    (FrameSink(Sink::WebSocket(sink)), FrameStream(Stream::WebSocket(stream)))
}

enum Sink {
    Quic(Box<quic::Sink>),
    WebSocket(ws::Sink),
}

/// Where frames go.
pub struct FrameSink(Sink);

impl FrameSink {
    /// Sends the frames in order and flushes once, however long a slow link needs for them; errors with
    /// [`TransportError::Stalled`] when nothing moves for 15 s. Dropping the future may leave part of them unsent; the
    /// next call begins with them.
    pub async fn send(&mut self, frames: &[ClientFrame]) -> Result<(), TransportError> {
        let frames = frames.iter().map(|frame| frame.encode_to_vec());
        match &mut self.0 {
            Sink::Quic(sink) => sink.send(frames).await,
            Sink::WebSocket(sink) => sink.send(frames).await,
        }
    }

    /// Says goodbye, and returns when the server has heard it.
    pub async fn close(&mut self) -> Result<(), TransportError> {
        match &mut self.0 {
            Sink::Quic(sink) => sink.close().await,
            Sink::WebSocket(sink) => sink.close().await,
        }
    }
}

enum Stream {
    Quic(Box<quic::Stream>),
    WebSocket(ws::Stream),
}

/// Where frames come from.
pub struct FrameStream(Stream);

impl FrameStream {
    /// The next frame. Cancel safe.
    pub async fn next(&mut self) -> Result<ServerFrame, TransportError> {
        let bytes = match &mut self.0 {
            Stream::Quic(stream) => stream.next().await?,
            Stream::WebSocket(stream) => stream.next().await?,
        };
        Ok(ServerFrame::decode(bytes)?)
    }
}
