// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bus: core NATS, without memory.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Message, Subscriber};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use pli_domain::limits::SIGNAL_BYTES_MAX;
use pli_ports::{RequestError, Respond, Signal, SignalEvent, Signals, StoreError, Subject, Subscription};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::error::ApiError;
use crate::link::{Happened, Link};
use crate::mailbox::Mailbox;

/// Messages after which a pump that is never idle looks whether any were lost.
const LOOK_EVERY: usize = 1_024;

pub(crate) struct NatsSignals {
    link: Arc<Link>,
}

impl NatsSignals {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        Self { link }
    }
}

fn check(operation: &'static str, payload: &Bytes) -> Result<(), StoreError> {
    if payload.len() <= SIGNAL_BYTES_MAX {
        return Ok(());
    }
    Err(StoreError::never(operation, format!("payload has {} bytes; send at most {SIGNAL_BYTES_MAX}", payload.len())))
}

#[async_trait]
impl Signals for NatsSignals {
    async fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), StoreError> {
        check("publish", &payload)?;
        // While the connection is down it would be sent when nobody waits for it any more.
        self.link.is_up().await.map_err(|error| error.of("publish"))?;
        let sent = self.link.client.publish(subject.as_str().to_owned(), payload);
        match tokio::time::timeout(self.link.answer_timeout, sent).await {
            Ok(sent) => sent.map_err(|error| StoreError::later("publish", error)),
            Err(elapsed) => Err(StoreError::later("publish", elapsed)),
        }
    }

    /// Returns when the server that this process is connected to knows of the subscription. The others of the cluster
    /// learn of it on the same way on which they are told what is published after it; one that is published to them
    /// within that time may be lost, as any signal may.
    async fn subscribe(&self, subject: &Subject) -> Result<Box<dyn Subscription>, StoreError> {
        let failed = |error: ApiError| error.of("subscribe");
        self.link.is_up().await.map_err(failed)?;
        let mut happened = self.link.happened();
        let losses = happened.borrow_and_update().losses;
        let arriving = self.link.client.subscribe(subject.as_str().to_owned()).await;
        let arriving = arriving.map_err(|error| StoreError::later("subscribe", error))?;
        self.link.fence().await.map_err(failed)?;
        let mailbox = Arc::new(Mailbox::default());
        let pump = Pump { subject: subject.clone(), mailbox: Arc::clone(&mailbox), client: self.link.client.clone() };
        let pumping = tokio::spawn(pump.run(arriving, happened, losses));
        Ok(Box::new(NatsSubscription { mailbox, pumping, _link: Arc::clone(&self.link) }))
    }

    async fn request(&self, subject: &Subject, payload: Bytes, deadline: Duration) -> Result<Bytes, RequestError> {
        check("request", &payload)?;
        match self.link.ask(subject.as_str(), None, payload, deadline).await {
            Ok(answer) => Ok(answer.payload),
            Err(ApiError::NoResponder(_)) => Err(RequestError::NoResponder(subject.clone())),
            Err(ApiError::Timeout(_)) => Err(RequestError::Timeout(subject.clone())),
            Err(error) => Err(error.of("request").into()),
        }
    }
}

/// Empties the library's buffer, which drops what does not fit, into a mailbox that says where something is missing.
struct Pump {
    subject: Subject,
    mailbox: Arc<Mailbox>,
    client: Client,
}

impl Pump {
    async fn run(self, mut arriving: Subscriber, mut happened: watch::Receiver<Happened>, mut losses: u64) {
        let mut taken = 0;
        loop {
            tokio::select! {
                // What arrived before a loss stands before its mark: a mark that comes early would promise that what
                // follows is whole.
                biased;
                message = arriving.next() => {
                    let Some(message) = message else { break };
                    self.put(message);
                    taken += 1;
                    if taken % LOOK_EVERY != 0 {
                        continue;
                    }
                }
                changed = happened.changed() => if changed.is_err() { break },
            }
            let now = happened.borrow_and_update().losses;
            if now != losses {
                losses = now;
                self.mailbox.lost();
            }
        }
        self.mailbox.close();
    }

    fn put(&self, message: Message) {
        let answer = |reply| Box::new(Responder { client: self.client.clone(), reply }) as Box<dyn Respond>;
        let respond = message.reply.map(answer);
        self.mailbox.put(Signal { subject: self.subject.clone(), payload: message.payload, respond });
    }
}

struct Responder {
    client: Client,
    reply: async_nats::Subject,
}

#[async_trait]
impl Respond for Responder {
    async fn respond(self: Box<Self>, payload: Bytes) {
        if let Err(error) = self.client.publish(self.reply, payload).await {
            tracing::debug!(%error, "an answer was not sent");
        }
    }
}

struct NatsSubscription {
    mailbox: Arc<Mailbox>,
    pumping: JoinHandle<()>,
    /// Tells what happens to the connection.
    _link: Arc<Link>,
}

impl Drop for NatsSubscription {
    fn drop(&mut self) {
        // The subscriber that it holds ends the subscription.
        self.pumping.abort();
    }
}

#[async_trait]
impl Subscription for NatsSubscription {
    async fn next(&mut self) -> Option<SignalEvent> {
        self.mailbox.next().await
    }
}
