// SPDX-License-Identifier: MIT OR Apache-2.0
//! The fan-out worker of one shard: takes the messages that go to many shards from a device queue of their own and
//! appends each to every shard of its roster, as a reference to one payload.
//!
//! It is a session without a client. Its queue is read, rung and acknowledged like any other, so whatever holds for a
//! message to a device holds for one to the worker. A position is acknowledged when everything that it was spread to is
//! settled: a worker that dies, or a second one, spreads it once more, and receivers remove the duplicates.

mod spread;

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use pli_api::log::Envelope;
use pli_domain::mutant::{Mutant, broken};
use pli_domain::{ConversationId, DeviceId, Position, SessionId, ShardId};
use pli_ports::Payloads;
use prost::Message as _;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::edge::{Edge, Shared};
use crate::session::delivering::{Answered, Delivering, Queue, Tells};
use crate::session::feed::Tell;
use crate::session::inbox::{Inbox, Mail};
use spread::{Appended, Spread};

/// Time without a session after one was displaced, before the worker begins another.
const DISPLACED_PAUSE: Duration = Duration::from_secs(1);

impl Edge {
    /// Works as the fan-out worker of `shard` until `stop`. [`Edge::run`] must run beside it. At most one a shard is
    /// needed; two at once cost double work and duplicates that receivers remove. Dropping the future loses nothing.
    pub async fn fan_out(&self, shard: ShardId, payloads: Arc<dyn Payloads>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let worker = Worker::new(self.shared().clone(), payloads.clone(), shard);
            let registered = worker.enter();
            if registered {
                worker.run(&stop).await;
            }
            tokio::select! { biased; () = stop.cancelled() => {}, () = tokio::time::sleep(DISPLACED_PAUSE) => {} }
        }
    }
}

/// What is spread in order: everything of a conversation, so that in every log its messages stand as they were accepted.
type Lane = ConversationId;

/// A message between its delivery and its acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// Nothing is left to do.
    Done,
    /// It waits for its lane, is being appended, or is not settled yet.
    Open,
}

/// Messages of one lane that wait while others of it are being appended.
#[derive(Default)]
struct Waiting(VecDeque<(Position, Spread)>);

/// Something that the worker reacts to.
enum Event {
    Mail(Mail),
    Owner(Answered),
    /// Messages of a lane were appended, or need not be.
    Appended(Lane, Vec<(Position, Appended)>),
    /// Everything of a message is settled; or something is lost, and it has to be appended again.
    Settled(Position, Option<Spread>),
}

struct Worker {
    shared: Arc<Shared>,
    payloads: Arc<dyn Payloads>,
    session: SessionId,
    device: DeviceId,
    shard: ShardId,
    inbox: Arc<Inbox>,
    delivering: Box<Delivering>,
    /// Everything told and not acknowledged, in order. Bound: the window.
    work: BTreeMap<Position, Work>,
    /// Lanes of which something is being appended. Bound: the window, messages included.
    lanes: BTreeMap<Lane, Waiting>,
    /// Bound: a lane each, and the window.
    steps: FuturesUnordered<BoxFuture<'static, Event>>,
}

impl Worker {
    fn new(shared: Arc<Shared>, payloads: Arc<dyn Payloads>, shard: ShardId) -> Self {
        let session = SessionId::from_bytes(shared.dice.id());
        let device = DeviceId::fan_out(shard);
        let queue = Queue { device, shard, window: shared.config.fan_out.window };
        Self {
            delivering: Box::new(Delivering::new(shared.clone(), session, queue, Position::ZERO)),
            shared,
            payloads,
            session,
            device,
            shard,
            inbox: Arc::default(),
            work: BTreeMap::new(),
            lanes: BTreeMap::new(),
            steps: FuturesUnordered::new(),
        }
    }

    /// From here on signals for the session arrive.
    fn enter(&self) -> bool {
        self.shared.registry.enter(self.session, Some((self.device, self.shard)), &self.inbox)
    }

    /// Until `stop`, or until another session of the queue takes over.
    async fn run(mut self, stop: &CancellationToken) {
        loop {
            let due = self.delivering.due();
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                event = poll_fn(|cx| self.poll(cx)) => event,
                () = sleep_until(due.max(Instant::now())) => continue,
            };
            match event {
                Event::Mail(mail) if mail.end.is_some() || mail.go_away.is_some() => break,
                Event::Mail(mail) => self.on_mail(mail),
                Event::Owner(answered) => self.on_answer(answered),
                Event::Appended(lane, appended) => self.on_appended(lane, appended),
                Event::Settled(position, lost) => self.on_settled(position, lost),
            }
            self.acknowledge();
        }
        self.inbox.close();
        self.shared.registry.leave(self.session);
        self.delivering.end().await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Poll::Ready(mail) = self.inbox.poll_take(cx) {
            return Poll::Ready(Event::Mail(mail));
        }
        self.delivering.advance(true);
        if let Poll::Ready(answered) = self.delivering.poll(cx) {
            return Poll::Ready(Event::Owner(answered));
        }
        match self.steps.poll_next_unpin(cx) {
            Poll::Ready(Some(event)) => Poll::Ready(event),
            // Empty: new ones are pushed by other events only.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    fn on_mail(&mut self, mail: Mail) {
        let mut tells = Tells::new();
        if let Some(floor) = mail.floor {
            self.delivering.floor(floor, &mut tells);
        }
        for bell in mail.bells {
            self.delivering.bell(bell, true, &mut tells);
        }
        if mail.doubt {
            self.delivering.doubt();
        }
        if mail.recheck {
            self.delivering.recheck_soon();
        }
        if mail.announce {
            self.delivering.announce_again();
        }
        self.told(tells);
    }

    fn on_answer(&mut self, answered: Answered) {
        let mut tells = Tells::new();
        match answered {
            Answered::Registered(answer) => {
                self.delivering.registered(&answer, &mut tells);
            }
            Answered::Page(answer) => self.delivering.page(answer, &mut tells),
        }
        self.told(tells);
    }

    fn told(&mut self, tells: Tells) {
        for tell in tells {
            match tell {
                Tell::Deliver { position, body, .. } => self.take(position, body),
                // What expired before it was spread; the senders said until when it is worth something.
                Tell::Gap { to, .. } => {
                    self.work.insert(to, Work::Done);
                }
                Tell::CaughtUp { .. } => {}
            }
        }
    }

    fn take(&mut self, position: Position, body: Bytes) {
        let Some(spread) = Envelope::decode(body).ok().and_then(Spread::new) else {
            tracing::error!(shard = %self.shard, position = position.get(), "a message to many shards cannot be read");
            self.shared.metrics.fan_out_unreadable.add(1, &[]);
            self.work.insert(position, Work::Done);
            return;
        };
        self.work.insert(position, Work::Open);
        let lane = spread.lane();
        match self.lanes.get_mut(&lane) {
            Some(waiting) => waiting.0.push_back((position, spread)),
            None => self.append(lane, vec![(position, spread)]),
        }
    }

    fn append(&mut self, lane: Lane, batch: Vec<(Position, Spread)>) {
        self.lanes.entry(lane).or_default();
        let (shared, payloads) = (self.shared.clone(), self.payloads.clone());
        self.steps
            .push(Box::pin(async move { Event::Appended(lane, spread::append(&shared, &*payloads, batch).await) }));
    }

    fn on_appended(&mut self, lane: Lane, appended: Vec<(Position, Appended)>) {
        for (position, appended) in appended {
            match appended {
                Appended::Everywhere(settling) if !broken(Mutant::FanOutAcknowledgedEarly) => {
                    self.shared.metrics.fan_outs.add(1, &[]);
                    self.steps.push(Box::pin(async move { Event::Settled(position, settling.lost().await) }));
                }
                _ => {
                    self.work.insert(position, Work::Done);
                }
            }
        }
        let waiting = self.lanes.remove(&lane).unwrap_or_default().0;
        if !waiting.is_empty() {
            self.append(lane, waiting.into());
        }
    }

    fn on_settled(&mut self, position: Position, lost: Option<Spread>) {
        let Some(spread) = lost else {
            self.work.insert(position, Work::Done);
            return;
        };
        self.shared.metrics.fan_outs_again.add(1, &[]);
        let lane = spread.lane();
        match self.lanes.get_mut(&lane) {
            // Before what has not been appended at all.
            Some(waiting) => waiting.0.push_front((position, spread)),
            None => self.append(lane, vec![(position, spread)]),
        }
    }

    /// Acknowledges as far as everything is done.
    fn acknowledge(&mut self) {
        let mut done = None;
        while let Some(first) = self.work.first_entry().filter(|first| matches!(first.get(), Work::Done)) {
            done = Some(first.remove_entry().0);
        }
        if let Some(position) = done {
            self.delivering.ack(position);
        }
    }
}
