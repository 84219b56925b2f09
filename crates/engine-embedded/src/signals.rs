// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bus inside one process.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pli_domain::limits::{SIGNAL_BYTES_MAX, SUBSCRIPTION_SIGNALS_MAX};
use pli_ports::{RequestError, Respond, Signal, SignalEvent, Signals, StoreError, Subject, Subscription};
use tokio::sync::{Notify, oneshot};

/// One sender, taken by whoever answers first.
type Answer = Arc<Mutex<Option<oneshot::Sender<Bytes>>>>;

#[derive(Default)]
struct Buffer {
    /// `None` marks the place of dropped messages; at most one mark per overflow.
    events: VecDeque<Option<Signal>>,
    closed: bool,
}

#[derive(Default)]
struct Mailbox {
    buffer: Mutex<Buffer>,
    arrived: Notify,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, signal: Signal) {
        let mut buffer = self.lock();
        if buffer.events.len() < SUBSCRIPTION_SIGNALS_MAX {
            buffer.events.push_back(Some(signal));
        } else if !matches!(buffer.events.back(), Some(None)) {
            buffer.events.push_back(None);
        }
        drop(buffer);
        self.arrived.notify_one();
    }
}

#[derive(Default)]
struct Bus {
    subscribers: BTreeMap<Subject, Vec<Arc<Mailbox>>>,
    closed: bool,
}

/// Subjects with their subscribers. A subject without subscribers is forgotten.
#[derive(Default, Clone)]
pub(crate) struct EmbeddedSignals(Arc<Mutex<Bus>>);

impl EmbeddedSignals {
    fn lock(&self) -> MutexGuard<'_, Bus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends every subscription after what it still holds.
    pub(crate) fn close(&self) {
        let mut bus = self.lock();
        bus.closed = true;
        for mailbox in std::mem::take(&mut bus.subscribers).into_values().flatten() {
            mailbox.lock().closed = true;
            mailbox.arrived.notify_one();
        }
    }

    /// Puts the message in every mailbox of the subject; answers how many there are.
    fn send(&self, subject: &Subject, payload: &Bytes, answer: Option<&Answer>) -> usize {
        let bus = self.lock();
        let Some(mailboxes) = bus.subscribers.get(subject) else {
            return 0;
        };
        for mailbox in mailboxes {
            let respond = answer.map(|answer| Box::new(Responder(Arc::clone(answer))) as Box<dyn Respond>);
            mailbox.put(Signal { subject: subject.clone(), payload: payload.clone(), respond });
        }
        mailboxes.len()
    }
}

fn check(operation: &'static str, payload: &Bytes) -> Result<(), StoreError> {
    if payload.len() <= SIGNAL_BYTES_MAX {
        return Ok(());
    }
    Err(StoreError::never(operation, format!("payload has {} bytes; send at most {SIGNAL_BYTES_MAX}", payload.len())))
}

#[async_trait]
impl Signals for EmbeddedSignals {
    async fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), StoreError> {
        check("publish", &payload)?;
        self.send(subject, &payload, None);
        Ok(())
    }

    async fn subscribe(&self, subject: &Subject) -> Result<Box<dyn Subscription>, StoreError> {
        let mailbox = Arc::new(Mailbox::default());
        let mut bus = self.lock();
        if bus.closed {
            return Err(StoreError::later("subscribe", "the bus is closed"));
        }
        bus.subscribers.entry(subject.clone()).or_default().push(Arc::clone(&mailbox));
        Ok(Box::new(Subscriber { subject: subject.clone(), mailbox, bus: Arc::downgrade(&self.0) }))
    }

    async fn request(&self, subject: &Subject, payload: Bytes, deadline: Duration) -> Result<Bytes, RequestError> {
        check("request", &payload)?;
        let (send, receive) = oneshot::channel();
        let answer: Answer = Arc::new(Mutex::new(Some(send)));
        if self.send(subject, &payload, Some(&answer)) == 0 {
            return Err(RequestError::NoResponder(subject.clone()));
        }
        // `answer` stays here, so a request dropped by everybody runs into the deadline.
        let received = tokio::time::timeout(deadline, receive).await;
        drop(answer);
        received.ok().and_then(Result::ok).ok_or_else(|| RequestError::Timeout(subject.clone()))
    }
}

struct Responder(Answer);

#[async_trait]
impl Respond for Responder {
    async fn respond(self: Box<Self>, payload: Bytes) {
        let first = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(requester) = first {
            // The requester may have given up.
            let _ = requester.send(payload);
        }
    }
}

struct Subscriber {
    subject: Subject,
    mailbox: Arc<Mailbox>,
    bus: Weak<Mutex<Bus>>,
}

#[async_trait]
impl Subscription for Subscriber {
    async fn next(&mut self) -> Option<SignalEvent> {
        loop {
            {
                let mut buffer = self.mailbox.lock();
                match buffer.events.pop_front() {
                    Some(Some(signal)) => return Some(SignalEvent::Signal(signal)),
                    Some(None) => return Some(SignalEvent::Interrupted),
                    None if buffer.closed => return None,
                    None => {}
                }
            }
            // One waiter at a time, so a permit that was stored in between is not lost.
            self.mailbox.arrived.notified().await;
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let Some(bus) = self.bus.upgrade() else {
            return;
        };
        let mut bus = bus.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mailboxes) = bus.subscribers.get_mut(&self.subject) {
            mailboxes.retain(|mailbox| !Arc::ptr_eq(mailbox, &self.mailbox));
            if mailboxes.is_empty() {
                bus.subscribers.remove(&self.subject);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pli_domain::ShardId;

    fn subject() -> Subject {
        Subject::owner(ShardId::new(1))
    }

    #[tokio::test]
    async fn an_overflow_is_told_once_at_its_place() {
        let signals = EmbeddedSignals::default();
        let mut subscription = signals.subscribe(&subject()).await.unwrap();
        for n in 0..SUBSCRIPTION_SIGNALS_MAX as u32 + 10 {
            signals.publish(&subject(), Bytes::copy_from_slice(&n.to_be_bytes())).await.unwrap();
        }
        for n in 0..SUBSCRIPTION_SIGNALS_MAX as u32 {
            match subscription.next().await {
                Some(SignalEvent::Signal(signal)) => assert_eq!(signal.payload[..], n.to_be_bytes()),
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(subscription.next().await, Some(SignalEvent::Interrupted)));
        signals.publish(&subject(), Bytes::from_static(b"whole again")).await.unwrap();
        assert!(matches!(subscription.next().await, Some(SignalEvent::Signal(_))));
        signals.close();
        assert!(subscription.next().await.is_none());
        assert!(signals.subscribe(&subject()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn requests_find_the_first_answer_nobody_or_the_deadline() {
        let signals = EmbeddedSignals::default();
        let owner = subject();
        let ask = || signals.request(&owner, Bytes::from_static(b"?"), Duration::from_secs(1));
        assert!(matches!(ask().await, Err(RequestError::NoResponder(_))));
        let mut one = signals.subscribe(&subject()).await.unwrap();
        let mut two = signals.subscribe(&subject()).await.unwrap();
        let answer = async {
            for (subscription, text) in [(&mut one, "first"), (&mut two, "second")] {
                let Some(SignalEvent::Signal(Signal { respond: Some(respond), .. })) = subscription.next().await else {
                    panic!("no request");
                };
                respond.respond(Bytes::from_static(text.as_bytes())).await;
            }
        };
        let (answered, ()) = tokio::join!(ask(), answer);
        assert_eq!(answered.unwrap(), "first");
        let (dropped, _) = tokio::join!(ask(), async { (one.next().await, two.next().await) });
        assert!(matches!(dropped, Err(RequestError::Timeout(_))));
        drop((one, two));
        assert!(matches!(ask().await, Err(RequestError::NoResponder(_))));
    }

    #[tokio::test]
    async fn an_oversized_payload_is_refused() {
        let signals = EmbeddedSignals::default();
        let large = Bytes::from(vec![0; SIGNAL_BYTES_MAX + 1]);
        assert!(signals.publish(&subject(), large).await.is_err());
    }
}
