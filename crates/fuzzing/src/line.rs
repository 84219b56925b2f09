// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client's end of a connection to the cluster. What goes over it is written down where somebody wants that.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use pli_domain::UnixMillis;
use pli_edge::carrier::MemoryPeer;
use pli_ports::Clock;
use pli_testkit::time::{RuntimeClock, START};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

/// Between two things that recorded clients do: longer than a server gathers what comes at the same time, so that nothing
/// that it answers depends on how it does that.
pub const PAUSE_MS: u64 = 50;

/// What happened on a connection, as its client saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// It was opened from `192.0.2.x`.
    Opened(u8),
    /// The client sent a frame.
    Said(Bytes),
    /// The client took a frame of the server.
    Heard(Bytes),
    /// The client took the server's end of the connection.
    HungUp,
    /// The client ended it.
    Left,
}

/// Where and when it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happening {
    /// Milliseconds since the cluster was started.
    pub at_ms: u64,
    /// Connections are numbered from 0.
    pub connection: usize,
    /// What it was.
    pub what: What,
}

/// What happens on all connections of a cluster, in order.
#[derive(Clone, Default)]
pub struct Recording(Arc<Mutex<Vec<Happening>>>);

impl Recording {
    /// So far.
    pub fn happenings(&self) -> Vec<Happening> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether no client has done anything for a while, [`PAUSE_MS`].
    pub fn is_quiet(&self, now: UnixMillis) -> bool {
        let happenings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done =
            happenings.iter().rev().filter(|one| matches!(one.what, What::Opened(_) | What::Said(_) | What::Left));
        done.next().is_none_or(|last| START.0 + last.at_ms + PAUSE_MS <= now.0)
    }

    fn add(&self, happening: Happening) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(happening);
    }
}

/// See the module. Dropping it closes the connection.
pub struct Line {
    to_edge: mpsc::Sender<Bytes>,
    from_edge: mpsc::Receiver<Bytes>,
    number: usize,
    clock: RuntimeClock,
    recording: Option<Recording>,
}

impl Line {
    /// A connection with this number, opened from `192.0.2.address` just now.
    pub fn new(
        peer: MemoryPeer,
        (number, address): (usize, u8),
        clock: RuntimeClock,
        recording: Option<Recording>,
    ) -> Self {
        let (to_edge, from_edge) = peer.split();
        let this = Self { to_edge, from_edge, number, clock, recording };
        this.note(What::Opened(address));
        this
    }

    /// Sends a frame; false where there is no room for it or the edge reads no more.
    pub fn say(&self, frame: Bytes) -> bool {
        let said = self.to_edge.try_send(frame.clone()).is_ok();
        if said {
            self.note(What::Said(frame));
        }
        said
    }

    /// The next frame, where one has come.
    ///
    /// # Errors
    /// As a channel's.
    pub fn try_hear(&mut self) -> Result<Bytes, TryRecvError> {
        let heard = self.from_edge.try_recv();
        match &heard {
            Ok(frame) => self.note(What::Heard(frame.clone())),
            Err(TryRecvError::Disconnected) => self.note(What::HungUp),
            Err(TryRecvError::Empty) => {}
        }
        heard
    }

    /// The next frame; none when the edge has ended the connection. Cancellation: loses nothing.
    pub async fn hear(&mut self) -> Option<Bytes> {
        let heard = self.from_edge.recv().await;
        self.note(heard.clone().map_or(What::HungUp, What::Heard));
        heard
    }

    fn note(&self, what: What) {
        if let Some(recording) = &self.recording {
            let at_ms = self.clock.now().0 - START.0;
            recording.add(Happening { at_ms, connection: self.number, what });
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.note(What::Left);
    }
}
