// SPDX-License-Identifier: MIT OR Apache-2.0
//! The connection, or the wait for the next one.

use std::time::Duration;

use futures::FutureExt;
use pli_api::edge::{ClientFrame, ServerFrame};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use crate::{Connection, Connector, Fingerprint, FrameSink, FrameStream, ServerAddress, TransportError};

/// How the connection stands.
enum State {
    /// The next attempt is due then.
    Waiting(Instant),
    Opening(AbortOnDropHandle<Result<Box<Connection>, TransportError>>),
    Open(FrameSink, FrameStream, Option<TransportError>),
}

/// What the link waited for.
pub(super) enum LinkEvent {
    Frame(Result<ServerFrame, TransportError>),
    Opened(Result<Box<Connection>, TransportError>),
    Due,
}

/// One server, one connection at a time.
pub(super) struct Link {
    server: ServerAddress,
    connector: Connector,
    state: State,
    exporter: [u8; 32],
}

impl Link {
    pub fn new(server: ServerAddress, pin: Option<Fingerprint>) -> Self {
        Self { server, connector: Connector::new(pin), state: State::Waiting(Instant::now()), exporter: [0; 32] }
    }

    pub const fn pin(&self) -> Option<Fingerprint> {
        self.connector.pin()
    }

    pub const fn server(&self) -> &ServerAddress {
        &self.server
    }

    /// What an authentication on the open connection is bound to.
    pub const fn exporter(&self) -> [u8; 32] {
        self.exporter
    }

    pub const fn is_open(&self) -> bool {
        matches!(self.state, State::Open(..))
    }

    /// Begins an attempt.
    pub fn connect(&mut self) {
        let (server, connector) = (self.server.clone(), self.connector.clone());
        let attempt = tokio::spawn(async move { connector.open(&server).await.map(Box::new) });
        self.state = State::Opening(AbortOnDropHandle::new(attempt));
    }

    /// The attempt succeeded.
    pub fn opened(&mut self, connection: Box<Connection>) {
        if self.pin().is_none() {
            self.connector = Connector::new(Some(connection.fingerprint));
        }
        self.exporter = connection.exporter;
        let (sink, stream) = connection.split();
        self.state = State::Open(sink, stream, None);
    }

    /// The next attempt is due after this time.
    pub fn retry_after(&mut self, after: Duration) {
        self.state = State::Waiting(Instant::now() + after);
    }

    /// The next thing that happens. With `read` false nothing is read from the server. Cancel safe.
    pub async fn next(&mut self, read: bool) -> LinkEvent {
        match &mut self.state {
            State::Waiting(at) => {
                sleep_until(*at).await;
                LinkEvent::Due
            }
            State::Opening(attempt) => LinkEvent::Opened(attempt.await.unwrap_or(Err(TransportError::Closed))),
            State::Open(_, _, failed @ Some(_)) => {
                LinkEvent::Frame(Err(failed.take().unwrap_or(TransportError::Closed)))
            }
            State::Open(_, stream, None) if read => LinkEvent::Frame(stream.next().await),
            State::Open(..) => std::future::pending().await,
        }
    }

    /// A frame that has arrived already.
    pub fn try_next(&mut self) -> Option<ServerFrame> {
        let State::Open(_, stream, failed) = &mut self.state else { return None };
        match stream.next().now_or_never()? {
            Ok(frame) => Some(frame),
            Err(error) => {
                // Told at the next turn, after what arrived before it.
                *failed = Some(error);
                None
            }
        }
    }

    /// Sends frames where there is a connection; drops them where there is none.
    pub async fn send(&mut self, frames: &[ClientFrame]) -> Result<(), TransportError> {
        match &mut self.state {
            State::Open(sink, _, None) if !frames.is_empty() => sink.send(frames).await,
            _ => Ok(()),
        }
    }

    /// Says goodbye.
    pub async fn close(&mut self) {
        if let State::Open(sink, ..) = &mut self.state {
            // The peer may be gone already.
            let _ = sink.close().await;
        }
        self.state = State::Waiting(Instant::now());
    }
}
