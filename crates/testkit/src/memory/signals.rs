// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bus.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pli_domain::limits::{SIGNAL_BYTES_MAX, SUBSCRIPTION_SIGNALS_MAX};
use pli_ports::{RequestError, Respond, Signal, SignalEvent, Signals, StoreError, Subject, Subscription};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::faults::{Dice, SignalFaults};
use super::{Inner, lock};

/// The model of [`Signals`].
#[derive(Clone)]
pub struct MemorySignals {
    world: Arc<Inner>,
}

pub(super) struct State {
    dice: Dice,
    subscribers: BTreeMap<Subject, BTreeMap<u64, Arc<Inbox>>>,
    /// On their way, by due time; bounded by what is sent within the longest delay.
    under_way: BTreeMap<(Instant, u64), (Arc<Inbox>, Message)>,
    /// When the newest message of a subject is due, so that nothing overtakes it.
    newest_due: BTreeMap<Subject, Instant>,
    count: u64,
}

#[derive(Clone)]
struct Message {
    subject: Subject,
    payload: Bytes,
    answer: Option<mpsc::Sender<Bytes>>,
}

/// What one subscriber has not taken yet.
#[derive(Default)]
struct Inbox {
    queue: Mutex<Queue>,
    bell: Notify,
}

#[derive(Default)]
struct Queue {
    /// At most [`SUBSCRIPTION_SIGNALS_MAX`] messages and the interruption above them; none stands for one.
    events: VecDeque<Option<Message>>,
    closed: bool,
}

impl Inbox {
    /// False when there was no room.
    fn push(&self, message: Message) -> bool {
        let mut queue = lock(&self.queue);
        let fits = queue.events.len() < SUBSCRIPTION_SIGNALS_MAX;
        if fits {
            queue.events.push_back(Some(message));
        } else if !matches!(queue.events.back(), Some(None)) {
            queue.events.push_back(None);
        }
        drop(queue);
        self.bell.notify_one();
        fits
    }
    fn interrupt(&self) {
        let mut queue = lock(&self.queue);
        if !matches!(queue.events.back(), Some(None)) {
            queue.events.push_back(None);
        }
        drop(queue);
        self.bell.notify_one();
    }
    fn close(&self) {
        lock(&self.queue).closed = true;
        self.bell.notify_one();
    }
}

impl State {
    pub fn new(seed: u64) -> Self {
        Self {
            dice: Dice::new(seed, 4),
            subscribers: BTreeMap::new(),
            under_way: BTreeMap::new(),
            newest_due: BTreeMap::new(),
            count: 0,
        }
    }

    pub fn interrupt(&mut self) {
        self.subscribers.values().flat_map(BTreeMap::values).for_each(|inbox| inbox.interrupt());
    }

    /// Ends every subscription and loses what is on its way.
    pub fn close(&mut self) {
        self.under_way.clear();
        let subscribers = std::mem::take(&mut self.subscribers);
        subscribers.values().flat_map(BTreeMap::values).for_each(|inbox| inbox.close());
    }

    fn inboxes(&self, subject: &Subject) -> Vec<Arc<Inbox>> {
        self.subscribers.get(subject).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }

    /// When a message that is sent now arrives.
    fn due(&mut self, subject: &Subject, plan: &SignalFaults) -> Instant {
        let mut due = Instant::now() + self.dice.up_to_ms(plan.delay_ms_max);
        if plan.delay_ms_max > 0 && !plan.reordered {
            due = self.newest_due.get(subject).map_or(due, |newest| due.max(*newest));
            self.newest_due.insert(subject.clone(), due);
        }
        due
    }

    /// Puts a message on its way to one subscriber. Answers when it is due, or none when it is lost.
    fn send(&mut self, inbox: &Arc<Inbox>, message: &Message, plan: &SignalFaults) -> Option<Instant> {
        if self.dice.happens(plan.interrupted) {
            inbox.interrupt();
            return None;
        }
        if self.dice.happens(plan.lost) {
            return None;
        }
        let due = self.due(&message.subject, plan);
        for _ in 0..if self.dice.happens(plan.duplicated) { 2 } else { 1 } {
            self.count += 1;
            self.under_way.insert((due, self.count), (inbox.clone(), message.clone()));
        }
        Some(due)
    }

    /// Hands over what is due. Answers how many messages found no room.
    fn arrive(&mut self) -> u64 {
        let now = Instant::now();
        let mut lost = 0;
        while let Some(entry) = self.under_way.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let (inbox, message) = entry.remove();
            lost += u64::from(!inbox.push(message));
        }
        lost
    }
}

impl MemorySignals {
    pub(super) fn new(world: Arc<Inner>) -> Self {
        Self { world }
    }

    fn arrive(world: &Inner) {
        let lost = lock(&world.signals).arrive();
        world.count(|c| c.signals_lost += lost);
    }

    /// Sends to everybody who listens now. Answers whether anybody does.
    fn send(&self, message: &Message) -> bool {
        let plan = self.world.plan().signals;
        let (inboxes, dues): (usize, Vec<Option<Instant>>) = {
            let mut state = lock(&self.world.signals);
            let inboxes = state.inboxes(&message.subject);
            (inboxes.len(), inboxes.iter().map(|inbox| state.send(inbox, message, &plan)).collect())
        };
        let lost = dues.iter().filter(|due| due.is_none()).count() as u64;
        self.world.count(|c| c.signals_lost += lost);
        Self::arrive(&self.world);
        let now = Instant::now();
        for due in dues.into_iter().flatten().filter(|due| *due > now) {
            let world = self.world.clone();
            tokio::spawn(async move {
                tokio::time::sleep_until(due).await;
                Self::arrive(&world);
            });
        }
        inboxes > 0
    }
}

fn bounded(operation: &'static str, payload: &Bytes) -> Result<(), StoreError> {
    if payload.len() <= SIGNAL_BYTES_MAX {
        return Ok(());
    }
    Err(StoreError::never(operation, "a payload has at most 1 MiB"))
}

#[async_trait]
impl Signals for MemorySignals {
    async fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), StoreError> {
        bounded("publish", &payload)?;
        self.send(&Message { subject: subject.clone(), payload, answer: None });
        Ok(())
    }

    async fn subscribe(&self, subject: &Subject) -> Result<Box<dyn Subscription>, StoreError> {
        let inbox = Arc::new(Inbox::default());
        let mut state = lock(&self.world.signals);
        state.count += 1;
        let id = state.count;
        state.subscribers.entry(subject.clone()).or_default().insert(id, inbox.clone());
        Ok(Box::new(MemorySubscription { world: self.world.clone(), subject: subject.clone(), id, inbox }))
    }

    async fn request(&self, subject: &Subject, payload: Bytes, deadline: Duration) -> Result<Bytes, RequestError> {
        bounded("request", &payload)?;
        // The first answer counts; one slot is enough, later answers find it taken or gone.
        let (answer, mut answers) = mpsc::channel(1);
        // Kept while waiting: a responder that drops its end unused must not end the wait before the deadline.
        let message = Message { subject: subject.clone(), payload, answer: Some(answer) };
        if !self.send(&message) {
            return Err(RequestError::NoResponder(subject.clone()));
        }
        match tokio::time::timeout(deadline, answers.recv()).await {
            Ok(Some(answer)) => Ok(answer),
            _ => Err(RequestError::Timeout(subject.clone())),
        }
    }
}

struct MemoryRespond {
    world: Arc<Inner>,
    answer: mpsc::Sender<Bytes>,
}

#[async_trait]
impl Respond for MemoryRespond {
    async fn respond(self: Box<Self>, payload: Bytes) {
        let plan = self.world.plan().signals;
        let (lost, delay) = {
            let mut state = lock(&self.world.signals);
            (state.dice.happens(plan.lost), state.dice.up_to_ms(plan.delay_ms_max))
        };
        if lost {
            self.world.count(|c| c.signals_lost += 1);
            return;
        }
        if delay.is_zero() {
            // A full slot means that somebody answered first.
            let _ = self.answer.try_send(payload);
            return;
        }
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let _ = self.answer.try_send(payload);
        });
    }
}

struct MemorySubscription {
    world: Arc<Inner>,
    subject: Subject,
    id: u64,
    inbox: Arc<Inbox>,
}

impl MemorySubscription {
    fn event(&self, message: Message) -> SignalEvent {
        let respond = message.answer.map(|answer| MemoryRespond { world: self.world.clone(), answer });
        let respond = respond.map(|respond| Box::new(respond) as Box<dyn Respond>);
        SignalEvent::Signal(Signal { subject: message.subject, payload: message.payload, respond })
    }
}

#[async_trait]
impl Subscription for MemorySubscription {
    async fn next(&mut self) -> Option<SignalEvent> {
        loop {
            {
                let mut queue = lock(&self.inbox.queue);
                match queue.events.pop_front() {
                    Some(Some(message)) => return Some(self.event(message)),
                    Some(None) => return Some(SignalEvent::Interrupted),
                    None if queue.closed => return None,
                    None => {}
                }
            }
            // One waiter per inbox; a permit left by a push before this is kept.
            self.inbox.bell.notified().await;
        }
    }
}

impl Drop for MemorySubscription {
    fn drop(&mut self) {
        let mut state = lock(&self.world.signals);
        if let Some(subscribers) = state.subscribers.get_mut(&self.subject) {
            subscribers.remove(&self.id);
            if subscribers.is_empty() {
                state.subscribers.remove(&self.subject);
            }
        }
    }
}
