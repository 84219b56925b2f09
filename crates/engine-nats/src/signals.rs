// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bus: core NATS, without memory.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, Subscriber};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use pli_domain::limits::SIGNAL_BYTES_MAX;
use pli_domain::protocol::{RoleProtocol, UnknownProtocol};
use pli_ports::{RequestError, Respond, Signal, SignalEvent, Signals, StoreError, Subject, Subscription};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::error::ApiError;
use crate::link::{Happened, Link};
use crate::mailbox::Mailbox;

/// Messages after which a pump that is never idle looks whether any were lost.
const LOOK_EVERY: usize = 1_024;

/// Header of an answer that refuses its request, with the reason.
const REFUSED: &str = "pli-refused";

pub(crate) struct NatsSignals {
    link: Arc<Link>,
    protocol: RoleProtocol,
}

impl NatsSignals {
    pub(crate) fn new(link: Arc<Link>, protocol: RoleProtocol) -> Self {
        Self { link, protocol }
    }

    /// What a message says about its version.
    fn headers(&self) -> Option<HeaderMap> {
        let mut headers = HeaderMap::new();
        headers.insert(RoleProtocol::HEADER, self.protocol.said()?.as_str());
        Some(headers)
    }
}

/// What a process speaks that sent this.
fn heard(message: &Message) -> Result<RoleProtocol, UnknownProtocol> {
    let headers = message.headers.as_ref();
    RoleProtocol::heard(headers.and_then(|headers| headers.get(RoleProtocol::HEADER)).map(|said| said.as_str()))
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
        let subject = subject.as_str().to_owned();
        let sent = async {
            match self.headers() {
                Some(headers) => self.link.client.publish_with_headers(subject, headers, payload).await,
                None => self.link.client.publish(subject, payload).await,
            }
        };
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
        let client = self.link.client.clone();
        let pump = Pump { subject: subject.clone(), mailbox: Arc::clone(&mailbox), client, refused: None };
        let pumping = tokio::spawn(pump.run(arriving, happened, losses));
        Ok(Box::new(NatsSubscription { mailbox, pumping, _link: Arc::clone(&self.link) }))
    }

    async fn request(&self, subject: &Subject, payload: Bytes, deadline: Duration) -> Result<Bytes, RequestError> {
        check("request", &payload)?;
        match self.link.ask(subject.as_str(), self.headers(), payload, deadline).await {
            Ok(answer) => match answer.headers.as_ref().and_then(|headers| headers.get(REFUSED)) {
                Some(why) => Err(StoreError::never("request", why.as_str()).into()),
                None => Ok(answer.payload),
            },
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
    /// The version that was refused last: it is told once.
    refused: Option<UnknownProtocol>,
}

impl Pump {
    async fn run(mut self, mut arriving: Subscriber, mut happened: watch::Receiver<Happened>, mut losses: u64) {
        let mut taken = 0;
        loop {
            tokio::select! {
                // What arrived before a loss stands before its mark: a mark that comes early would promise that what
                // follows is whole.
                biased;
                message = arriving.next() => {
                    let Some(message) = message else { break };
                    match heard(&message) {
                        Ok(_) => self.put(message),
                        Err(unknown) => self.refuse(message, unknown).await,
                    }
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

    /// A message is lost, a request is told why.
    async fn refuse(&mut self, message: Message, unknown: UnknownProtocol) {
        if self.refused.as_ref() != Some(&unknown) {
            tracing::warn!(subject = %self.subject, %unknown, "a message of another process is refused");
        }
        if let Some(reply) = message.reply {
            let mut headers = HeaderMap::new();
            headers.insert(REFUSED, unknown.to_string().as_str());
            if let Err(error) = self.client.publish_with_headers(reply, headers, Bytes::new()).await {
                tracing::debug!(%error, "a refusal was not sent");
            }
        }
        self.refused = Some(unknown);
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
