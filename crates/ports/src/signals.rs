// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages that may be lost: doorbells, notices, announcements, requests to owners.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pli_domain::{EdgeId, ShardId};

use crate::StoreError;

/// A bus subject. Only the constructors below make one, so the list of subjects is this file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Subject(String);

impl Subject {
    /// Requests, announcements and removed devices to whoever owns `shard`.
    pub fn owner(shard: ShardId) -> Self {
        Self(format!("pli.owner.{shard}"))
    }
    /// Doorbells, notices and displacements for one edge.
    pub fn edge(edge: EdgeId) -> Self {
        Self(format!("pli.edge.{edge}"))
    }
    /// To every edge: announce your sessions of these shards again, or end those of a device that was removed.
    pub fn edges() -> Self {
        Self("pli.edges".into())
    }
    /// The subject as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Answers one request; dropped unused, the requester's deadline passes.
#[async_trait]
pub trait Respond: Send {
    /// Sends the answer. At most once, may be lost.
    async fn respond(self: Box<Self>, payload: Bytes);
}

/// One message.
pub struct Signal {
    /// The subject it was sent to.
    pub subject: Subject,
    /// An encoded message of `pli.delivery.v1`.
    pub payload: Bytes,
    /// Present when the sender waits for an answer.
    pub respond: Option<Box<dyn Respond>>,
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signal({}, {} bytes, request: {})", self.subject, self.payload.len(), self.respond.is_some())
    }
}

/// What a subscription yields.
#[derive(Debug)]
pub enum SignalEvent {
    /// A message.
    Signal(Signal),
    /// Messages may have been lost here: the bus reconnected, or the subscriber was too slow and its bounded buffer
    /// overflowed. What follows is whole again.
    Interrupted,
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Nobody subscribes to the subject; nothing was done.
    #[error("nobody answers on {0}")]
    NoResponder(Subject),
    /// No answer in time; it may have been acted upon.
    #[error("no answer on {0} in time")]
    Timeout(Subject),
    /// The bus cannot be reached.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A bus without memory.
#[async_trait]
pub trait Signals: Send + Sync + 'static {
    /// Sends to every subscriber of `subject` now. At most once each; may be lost, and messages to different
    /// subjects may overtake each other. `Ok` promises nothing about arrival. Payload at most
    /// [`pli_domain::limits::SIGNAL_BYTES_MAX`].
    async fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), StoreError>;

    /// Receives what is sent to `subject` from the moment this returns, through a buffer of
    /// [`pli_domain::limits::SUBSCRIPTION_SIGNALS_MAX`] messages. Dropping the subscription ends it.
    async fn subscribe(&self, subject: &Subject) -> Result<Box<dyn Subscription>, StoreError>;

    /// Sends and waits for the first answer. Idempotency is the message's own affair: it may be acted upon although
    /// this answers an error.
    async fn request(&self, subject: &Subject, payload: Bytes, deadline: Duration) -> Result<Bytes, RequestError>;
}

/// One subscriber's end.
#[async_trait]
pub trait Subscription: Send {
    /// The next event; none when the bus is closed for good. Cancellation: dropping the future loses nothing.
    async fn next(&mut self) -> Option<SignalEvent>;
}
