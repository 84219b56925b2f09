// SPDX-License-Identifier: MIT OR Apache-2.0
//! One consumer and its pull requests: what is delivered, without a hole, or the end (NATS ADR-15 and ADR-17).

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::ApiError;
use crate::layout::nanos;
use crate::link::{Happened, Link};
use crate::wire::{Done, delivered};

/// Most messages of one pull request, and so most that wait here.
const PULL_MESSAGES_MAX: u32 = 256;
/// About the most bytes of one pull request; above an entry of the largest size with its headers.
const PULL_BYTES_MAX: usize = 512 * 1024;
/// How long a pull request waits on the server before it is made again, in heartbeats.
const PULL_HEARTBEATS: u32 = 6;
/// Wait before a pull request that nobody took is made again.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(10);
/// How long the server keeps a consumer that nobody asks: longer than an owner stops following at times.
const CONSUMER_IDLE: Duration = Duration::from_secs(300);

/// Why nothing more is delivered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the connection was lost")]
    Connection,
    #[error("a delivery is missing: number {found} came after number {expected}")]
    Hole { expected: u64, found: u64 },
    #[error("nothing was heard of the consumer for {0:?}")]
    Silent(Duration),
    #[error("the server ended the consumer: {0}")]
    Ended(String),
    #[error("the server could not be asked")]
    Asking(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the log no longer holds what was read last")]
    Changed,
}

/// One message as it was delivered.
pub(crate) struct Delivered {
    pub stream_seq: u64,
    pub message: Message,
}

/// A consumer of our own. Never made again under the same value.
pub(crate) struct Pull {
    link: Arc<Link>,
    stream: String,
    consumer: String,
    inbox: String,
    arriving: Subscriber,
    happened: watch::Receiver<Happened>,
    interruptions: u64,
    /// Number of the last delivery that was taken.
    delivery: u64,
    /// Messages that the open pull request still may bring; none is open at 0.
    asked: u32,
    heard: Instant,
    heartbeat: Duration,
    /// Until then nobody may take the pull requests yet; none once somebody did.
    unknown_until: Option<Instant>,
    /// Not to be asked before.
    ask_at: Instant,
}

impl Pull {
    /// Creates the consumer of one subject of a stream, from a sequence on.
    pub async fn open(
        link: Arc<Link>,
        stream: &str,
        subject: &str,
        from: u64,
        heartbeat: Duration,
    ) -> Result<Self, ApiError> {
        let happened = link.happened();
        // Noted first: what happens while the consumer is made already ends it.
        let interruptions = happened.borrow().interruptions;
        let inbox = link.client.new_inbox();
        let arriving = link.client.subscribe(inbox.clone()).await;
        let arriving = arriving.map_err(|error| ApiError::Disconnected(error.into()))?;
        let consumer = format!("pli-{:016x}", rand::random::<u64>());
        let config = json!({
            "name": consumer,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": from.max(1),
            "ack_policy": "none",
            "replay_policy": "instant",
            "filter_subject": subject,
            "inactive_threshold": nanos(CONSUMER_IDLE.max(heartbeat * PULL_HEARTBEATS * 4)),
            "num_replicas": 1,
            "mem_storage": true,
        });
        let body = json!({ "stream_name": stream, "action": "create", "config": config });
        link.api::<Done>(&format!("CONSUMER.CREATE.{stream}.{consumer}.{subject}"), &body).await?;
        let now = Instant::now();
        let unknown_until = Some(now + link.answer_timeout);
        let stream = stream.to_owned();
        let (delivery, asked, heard, ask_at) = (0, 0, now, now);
        Ok(Self {
            link,
            stream,
            consumer,
            inbox,
            arriving,
            happened,
            interruptions,
            delivery,
            asked,
            heard,
            heartbeat,
            unknown_until,
            ask_at,
        })
    }

    /// What has arrived already.
    pub fn at_hand(&mut self) -> Result<Option<Delivered>, Broken> {
        self.connected()?;
        while let Some(message) = self.arriving.next().now_or_never() {
            if let Some(delivered) = self.take(message)? {
                return Ok(Some(delivered));
            }
        }
        Ok(None)
    }

    /// Waits for the next message, or none when a pull request ended without. Cancellation: loses nothing.
    pub async fn next(&mut self) -> Result<Option<Delivered>, Broken> {
        self.connected()?;
        if self.asked == 0 {
            self.ask().await?;
        }
        while self.asked > 0 {
            // Two heartbeats missed, and half of one for the way.
            let patience = self.heartbeat * 5 / 2;
            let interruptions = self.interruptions;
            tokio::select! {
                biased;
                message = self.arriving.next() => {
                    if let Some(delivered) = self.take(message)? {
                        return Ok(Some(delivered));
                    }
                }
                () = changed(&mut self.happened, interruptions) => return Err(Broken::Connection),
                () = tokio::time::sleep_until(self.heard + patience) => return Err(Broken::Silent(patience)),
            }
        }
        Ok(None)
    }

    fn connected(&self) -> Result<(), Broken> {
        if self.happened.borrow().interruptions == self.interruptions { Ok(()) } else { Err(Broken::Connection) }
    }

    async fn ask(&mut self) -> Result<(), Broken> {
        tokio::time::sleep_until(self.ask_at).await;
        let body = json!({
            "batch": PULL_MESSAGES_MAX,
            "max_bytes": PULL_BYTES_MAX,
            "expires": nanos(self.heartbeat * PULL_HEARTBEATS),
            "idle_heartbeat": nanos(self.heartbeat),
        });
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", self.stream, self.consumer);
        let sent = self.link.client.publish_with_reply(subject, self.inbox.clone(), body.to_string().into());
        sent.await.map_err(|error| Broken::Asking(error.into()))?;
        self.asked = PULL_MESSAGES_MAX;
        self.heard = Instant::now();
        Ok(())
    }

    /// What one arrival means.
    fn take(&mut self, message: Option<Message>) -> Result<Option<Delivered>, Broken> {
        let message = message.ok_or(Broken::Connection)?;
        self.heard = Instant::now();
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return self.nobody_took_it().map(|()| None);
        }
        self.unknown_until = None;
        match message.status {
            None | Some(StatusCode::OK) => {}
            Some(status) => return self.told(status, &message).map(|()| None),
        }
        let Some((stream_seq, delivery)) = message.reply.as_deref().and_then(delivered) else {
            return Err(Broken::Ended("a message without its place in the stream".into()));
        };
        let expected = self.delivery + 1;
        if delivery != expected {
            return Err(Broken::Hole { expected, found: delivery });
        }
        self.delivery = delivery;
        self.asked = self.asked.saturating_sub(1);
        Ok(Some(Delivered { stream_seq, message }))
    }

    fn told(&mut self, status: StatusCode, message: &Message) -> Result<(), Broken> {
        let text = message.description.as_deref().unwrap_or_default();
        match status {
            StatusCode::IDLE_HEARTBEAT => {
                let last = message.headers.as_ref().and_then(|headers| headers.get("Nats-Last-Consumer"));
                match last.and_then(|last| last.as_str().parse::<u64>().ok()) {
                    // What was delivered before the heartbeat has arrived before it.
                    Some(found) if found > self.delivery => Err(Broken::Hole { expected: self.delivery, found }),
                    _ => Ok(()),
                }
            }
            // The request ran out, or its bytes are used up: ask again.
            StatusCode::TIMEOUT => self.asked_up(),
            StatusCode::REQUEST_TERMINATED if text.contains("MaxBytes") || text.contains("Batch Completed") => {
                self.asked_up()
            }
            other => Err(Broken::Ended(format!("{} {text}", other.as_u16()))),
        }
    }

    /// The server of this connection may hear of a consumer on another one later than of the answer that it was made.
    fn nobody_took_it(&mut self) -> Result<(), Broken> {
        if self.unknown_until.is_none_or(|end| self.heard > end) {
            return Err(Broken::Ended("it is gone".into()));
        }
        self.ask_at = self.heard + ASK_AGAIN_AFTER;
        self.asked_up()
    }

    fn asked_up(&mut self) -> Result<(), Broken> {
        self.asked = 0;
        Ok(())
    }
}

/// Waits until the connection was interrupted once more, or is gone.
async fn changed(happened: &mut watch::Receiver<Happened>, interruptions: u64) {
    // An error says that nobody is left to tell.
    let _ = happened.wait_for(|h| h.interruptions != interruptions).await;
}

impl Drop for Pull {
    /// Deletes the consumer if that can be asked; else the server forgets it when it was idle for long.
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let client = self.link.client.clone();
        let subject = format!("$JS.API.CONSUMER.DELETE.{}.{}", self.stream, self.consumer);
        let nobody = client.new_inbox();
        let patience = self.link.answer_timeout;
        runtime.spawn(async move {
            // Bounded: the library takes no commands while it is full and disconnected.
            let sent = client.publish_with_reply(subject, nobody, Bytes::new());
            tokio::time::timeout(patience, sent).await.ok();
        });
    }
}
