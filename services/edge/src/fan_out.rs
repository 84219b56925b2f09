// SPDX-License-Identifier: MIT OR Apache-2.0
//! The fan-out worker of one shard: takes the messages that go to many shards from a device queue of their own and
//! appends each to every shard of its roster, as a reference to one payload.
//!
//! It is a session without a client. Its queue is read, rung and acknowledged like any other, so whatever holds for a
//! message to a device holds for one to the worker. A position is acknowledged when everything that it was spread to is
//! settled: a worker that dies, or a second one, spreads it once more, and receivers remove the duplicates.

mod room;
mod spread;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use opentelemetry::metrics::UpDownCounter;
use pli_api::log::Envelope;
use pli_domain::mutant::{Mutant, broken};
use pli_domain::{ConversationId, DeviceId, Position, SessionId, ShardId};
use pli_ports::Payloads;
use prost::Message as _;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::edge::{Edge, Shared};
use crate::retry::Backoff;
use crate::session::delivering::{Answered, Delivering, Queue, Tells};
use crate::session::feed::Tell;
use crate::session::inbox::{Inbox, Mail};
pub(crate) use room::Room;
use spread::{Appended, Spread, Tried};

/// Shortest and longest time without a session after one was displaced, before the worker begins another. What was not
/// acknowledged is spread once more then: of two workers that displace each other each must be left alone for long enough
/// to have what it spread settled.
const DISPLACED_PAUSE_MIN: Duration = Duration::from_secs(1);
const DISPLACED_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Shortest and longest wait between two tries of what a shard, the conversations service or the table of payloads does
/// not take; a message is tried until it expires. What comes meanwhile to the same conversation waits as long.
const TRY_AGAIN_MIN: Duration = Duration::from_millis(50);
const TRY_AGAIN_MAX: Duration = Duration::from_secs(2);
/// How often a worker that may read no more looks whether it may again.
const NO_ROOM_LOOK: Duration = Duration::from_millis(100);

impl Edge {
    /// Works as the fan-out worker of `shard` until `stop`. [`Edge::run`] must run beside it. At most one a shard is
    /// needed; two at once cost double work and duplicates that receivers remove. Dropping the future loses nothing.
    pub async fn fan_out(&self, shard: ShardId, payloads: Arc<dyn Payloads>, stop: CancellationToken) {
        let mut backoff = Backoff::new(DISPLACED_PAUSE_MIN, DISPLACED_PAUSE_MAX);
        while !stop.is_cancelled() {
            let began = Instant::now();
            if let Some(worker) = Worker::enter(self.shared().clone(), payloads.clone(), shard) {
                worker.run(&stop).await;
            }
            if began.elapsed() >= DISPLACED_PAUSE_MAX {
                backoff.reset();
            }
            let pause = backoff.next(&self.shared().dice, None);
            tokio::select! { biased; () = stop.cancelled() => {}, () = tokio::time::sleep(pause) => {} }
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

/// A lane of which something is being appended.
struct Busy {
    /// What waits meanwhile, in the order in which it was accepted.
    waiting: BTreeMap<Position, Spread>,
    /// Between tries of what failed.
    backoff: Backoff,
}

/// Something that the worker reacts to.
enum Event {
    Mail(Mail),
    Owner(Answered),
    /// Messages of a lane were tried.
    Tried(Lane, Tried),
    /// Everything of a message is settled; or something is lost, and it has to be appended again.
    Settled(Position, Option<Box<Spread>>),
}

/// A session in the registry, until it is dropped.
struct Registered {
    shared: Arc<Shared>,
    session: SessionId,
    inbox: Arc<Inbox>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.inbox.close();
        self.shared.registry.leave(self.session);
    }
}

/// Everything told and not acknowledged, in order. Bound: the window.
struct Told {
    work: BTreeMap<Position, Work>,
    level: UpDownCounter<i64>,
}

impl Told {
    fn open(&mut self, position: Position) {
        self.level.add(1, &[]);
        self.work.insert(position, Work::Open);
    }

    fn done(&mut self, position: Position) {
        if let Some(Work::Open) = self.work.insert(position, Work::Done) {
            self.level.add(-1, &[]);
        }
    }

    /// Up to where everything is done.
    fn take_done(&mut self) -> Option<Position> {
        let mut done = None;
        while let Some(first) = self.work.first_entry().filter(|first| matches!(first.get(), Work::Done)) {
            done = Some(first.remove_entry().0);
        }
        done
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let open = self.work.values().filter(|work| matches!(work, Work::Open)).count();
        self.level.add(-i64::try_from(open).unwrap_or(i64::MAX), &[]);
    }
}

struct Worker {
    shared: Arc<Shared>,
    payloads: Arc<dyn Payloads>,
    shard: ShardId,
    registered: Registered,
    delivering: Box<Delivering>,
    told: Told,
    /// Lanes of which something is being appended. Bound: the window, messages included.
    lanes: BTreeMap<Lane, Busy>,
    /// Bound: a lane each, and the window.
    steps: FuturesUnordered<BoxFuture<'static, Event>>,
}

impl Worker {
    /// From here on signals for its session arrive. None while the edge takes no sessions.
    fn enter(shared: Arc<Shared>, payloads: Arc<dyn Payloads>, shard: ShardId) -> Option<Self> {
        let session = SessionId::from_bytes(shared.dice.id());
        let device = DeviceId::fan_out(shard);
        let queue = Queue { device, shard, window: shared.config.fan_out.window, is_clients: false };
        let registered = Registered { shared: shared.clone(), session, inbox: Arc::default() };
        if !shared.registry.enter(session, Some((device, shard)), &registered.inbox) {
            return None;
        }
        let told = Told { work: BTreeMap::new(), level: shared.metrics.fan_out_open.clone() };
        Some(Self {
            delivering: Box::new(Delivering::new(shared.clone(), session, queue, Position::ZERO)),
            shared,
            payloads,
            shard,
            registered,
            told,
            lanes: BTreeMap::new(),
            steps: FuturesUnordered::new(),
        })
    }

    /// Until `stop`, or until another session of the queue takes over.
    async fn run(mut self, stop: &CancellationToken) {
        loop {
            let look = (!self.shared.fan_out_room.is_left()).then(|| Instant::now() + NO_ROOM_LOOK);
            let due = look.into_iter().fold(self.delivering.due(), Instant::min);
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
                Event::Tried(lane, tried) => self.on_tried(lane, tried),
                Event::Settled(position, lost) => self.on_settled(position, lost),
            }
            self.acknowledge();
        }
        drop(self.registered);
        self.delivering.end().await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Poll::Ready(mail) = self.registered.inbox.poll_take(cx) {
            return Poll::Ready(Event::Mail(mail));
        }
        self.delivering.advance(self.shared.fan_out_room.is_left());
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
            self.delivering.bell(bell, self.shared.fan_out_room.is_left(), &mut tells);
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
                // What expired in the queue, which its owner has counted, or was kept aside there as unreadable.
                Tell::Gap { to, .. } => self.told.done(to),
                Tell::CaughtUp { .. } => {}
            }
        }
    }

    fn take(&mut self, position: Position, body: Bytes) {
        let envelope = Envelope::decode(body).ok();
        let Some(spread) = envelope.and_then(|envelope| Spread::new(envelope, &self.shared.fan_out_room)) else {
            tracing::error!(shard = %self.shard, position = position.get(), "a message to many shards cannot be read");
            self.shared.metrics.fan_out_unreadable.add(1, &[]);
            self.told.done(position);
            return;
        };
        self.told.open(position);
        self.spread(position, spread);
    }

    /// Behind what stands before it in its lane, and before what stands behind it as far as that is not on its way.
    fn spread(&mut self, position: Position, spread: Spread) {
        let lane = spread.lane();
        match self.lanes.get_mut(&lane) {
            Some(busy) => drop(busy.waiting.insert(position, spread)),
            None => {
                let backoff = Backoff::new(TRY_AGAIN_MIN, TRY_AGAIN_MAX);
                self.append(lane, vec![(position, spread)], (backoff, Duration::ZERO));
            }
        }
    }

    /// Tries a batch of a lane, in order, after a pause.
    fn append(&mut self, lane: Lane, batch: Vec<(Position, Spread)>, (backoff, pause): (Backoff, Duration)) {
        self.lanes.insert(lane, Busy { waiting: BTreeMap::new(), backoff });
        let (shared, payloads) = (self.shared.clone(), self.payloads.clone());
        self.steps.push(Box::pin(async move {
            tokio::time::sleep(pause).await;
            Event::Tried(lane, spread::append(&shared, &*payloads, batch).await)
        }));
    }

    /// What failed is tried again, before what came meanwhile, which does not wait for it where the shards take it.
    fn on_tried(&mut self, lane: Lane, tried: Tried) {
        for (position, appended) in tried.done {
            match appended {
                Appended::Everywhere(settling) if !broken(Mutant::FanOutAcknowledgedEarly) => {
                    self.shared.metrics.fan_outs.add(1, &[]);
                    self.steps.push(Box::pin(async move { Event::Settled(position, settling.lost().await) }));
                }
                Appended::Everywhere(_) | Appended::ToNobody => self.told.done(position),
                Appended::Expired => {
                    self.shared.metrics.fan_out_expired.add(1, &[]);
                    self.told.done(position);
                }
                Appended::Unknown => {
                    self.shared.metrics.fan_out_unreadable.add(1, &[]);
                    self.told.done(position);
                }
            }
        }
        let Some(Busy { mut waiting, mut backoff }) = self.lanes.remove(&lane) else { return };
        let pause = if tried.left.is_empty() {
            backoff.reset();
            Duration::ZERO
        } else {
            self.shared.metrics.fan_out_retries.add(tried.left.len() as u64, &[]);
            backoff.next(&self.shared.dice, tried.after)
        };
        waiting.extend(tried.left);
        if !waiting.is_empty() {
            self.append(lane, waiting.into_iter().collect(), (backoff, pause));
        }
    }

    fn on_settled(&mut self, position: Position, lost: Option<Box<Spread>>) {
        let Some(spread) = lost else { return self.told.done(position) };
        self.shared.metrics.fan_outs_again.add(1, &[]);
        self.spread(position, *spread);
    }

    /// Acknowledges as far as everything is done.
    fn acknowledge(&mut self) {
        if let Some(position) = self.told.take_done() {
            self.delivering.ack(position);
        }
    }
}
