// SPDX-License-Identifier: MIT OR Apache-2.0
//! The receiving side of a session: announces it to the shard's owner, reads, and passes acks on.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use pli_api::delivery::{Ack, Announce, Page, ReadPage, Registered, Withdraw};
use pli_domain::{DeviceAddress, DeviceId, Position, SessionId, ShardId};
use pli_runtime::trail::Span;
use tokio::time::Instant;

use crate::config::ms;
use crate::edge::Shared;
use crate::owner::NotNow;
use crate::retry::Backoff;
use crate::session::feed::{Bell, Feed, PageRead, Rung, Tell};
use crate::session::pages::PageRows;

/// A session looks for missed mail within this time after its bus connection was interrupted.
const RECHECK_SOON: Duration = Duration::from_secs(1);

/// What the shard's owner answered.
pub(crate) enum Answered {
    Registered(Result<Registered, NotNow>),
    Page(Result<Page, NotNow>),
}

/// Frames to come, in order.
pub(crate) type Tells = Vec<Tell<Bytes>>;

/// Which device queue a session receives from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Queue {
    pub(crate) device: DeviceId,
    pub(crate) shard: ShardId,
    /// Deliveries that may wait for their ack.
    pub(crate) window: usize,
    /// Of a client's device: bodies that lie apart are put back, and what is told counts as delivered.
    pub(crate) is_clients: bool,
}

impl Queue {
    /// Of a client's device.
    pub(crate) fn of(device: DeviceAddress, shared: &Shared) -> Self {
        let window = shared.config.session.delivery_window as usize;
        Self { device: device.device, shard: shared.shards.shard_of(device.account), window, is_clients: true }
    }
}

/// The receiving side of one device's session. Keeps the positions of what is not acknowledged, at most a delivery
/// window of them, and no body.
pub(crate) struct Delivering {
    shared: Arc<Shared>,
    session: SessionId,
    device: DeviceId,
    shard: ShardId,
    window: usize,
    is_clients: bool,
    feed: Feed,
    /// The newest ack, or what the hello named.
    committed: Position,
    unacked: VecDeque<Position>,
    /// Spans of those that are traced, at most a delivery window of them.
    traced: VecDeque<(Position, Span)>,
    announcing: Option<BoxFuture<'static, Result<Registered, NotNow>>>,
    announce_at: Option<Instant>,
    announce_backoff: Backoff,
    reading: Option<BoxFuture<'static, Result<Page, NotNow>>>,
    read_at: Option<Instant>,
    read_backoff: Backoff,
    page_rows: PageRows,
    telling: Option<BoxFuture<'static, ()>>,
    ack_told: Position,
    ack_at: Option<Instant>,
    recheck_at: Instant,
}

impl Delivering {
    /// Of a session whose client has committed up to `committed`.
    pub(crate) fn new(shared: Arc<Shared>, session: SessionId, queue: Queue, committed: Position) -> Self {
        let Queue { device, shard, window, is_clients } = queue;
        let now = Instant::now();
        let backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        let page_rows = PageRows::new(shared.config.session.page_rows);
        let mut this = Self {
            shard,
            shared,
            session,
            device,
            window,
            is_clients,
            feed: Feed::new(committed),
            committed,
            unacked: VecDeque::new(),
            traced: VecDeque::new(),
            announcing: None,
            announce_at: Some(now),
            announce_backoff: backoff,
            reading: None,
            read_at: None,
            read_backoff: backoff,
            page_rows,
            telling: None,
            ack_told: Position::ZERO,
            ack_at: None,
            recheck_at: now,
        };
        this.recheck_at = this.next_recheck();
        this
    }

    pub(crate) fn shard(&self) -> ShardId {
        self.shard
    }
    /// Up to where the client was told.
    pub(crate) fn told(&self) -> Position {
        self.feed.told()
    }

    /// Whether the client has something to acknowledge.
    pub(crate) fn has_unacked(&self) -> bool {
        !self.unacked.is_empty()
    }

    /// Starts whatever is due. `room` says whether more frames may be produced.
    pub(crate) fn advance(&mut self, room: bool) {
        let now = Instant::now();
        if self.recheck_at <= now {
            self.recheck_at = self.next_recheck();
            self.announce_at.get_or_insert(now);
            self.feed.doubt();
        }
        if self.announcing.is_none() && self.announce_at.is_some_and(|at| at <= now) {
            self.announce_at = None;
            self.announcing = Some(self.announce());
        }
        if self.reading.is_none() && self.read_at.is_none_or(|at| at <= now) {
            self.read_at = None;
            let left = self.window_left();
            if let Some(after) = self.feed.begin_read(room && left > 0) {
                self.reading = Some(self.read(after, left));
            }
        }
        if self.telling.is_none() && self.ack_at.is_some_and(|at| at <= now) {
            self.ack_at = None;
            self.ack_told = self.committed;
            self.telling = Some(Box::pin(self.tell_ack()));
        }
    }

    /// When [`Delivering::advance`] has something to do at the latest.
    pub(crate) fn due(&self) -> Instant {
        let announce = self.announce_at.filter(|_| self.announcing.is_none());
        let read = self.read_at.filter(|_| self.reading.is_none());
        let ack = self.ack_at.filter(|_| self.telling.is_none());
        [announce, read, ack].into_iter().flatten().fold(self.recheck_at, Instant::min)
    }

    /// The next answer of the owner.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Answered> {
        if let Some(telling) = &mut self.telling
            && telling.as_mut().poll(cx).is_ready()
        {
            self.telling = None;
            // An ack that came meanwhile is due again; the session's timer decides when.
            cx.waker().wake_by_ref();
        }
        if let Some(Poll::Ready(answer)) = self.announcing.as_mut().map(|f| f.as_mut().poll(cx)) {
            self.announcing = None;
            return Poll::Ready(Answered::Registered(answer));
        }
        if let Some(Poll::Ready(answer)) = self.reading.as_mut().map(|f| f.as_mut().poll(cx)) {
            self.reading = None;
            return Poll::Ready(Answered::Page(answer));
        }
        Poll::Pending
    }

    /// The owner's answer to an announcement; whether it is a confirmation.
    pub(crate) fn registered(&mut self, answer: &Result<Registered, NotNow>, out: &mut Tells) -> bool {
        let confirmed = answer.as_ref().ok().and_then(|registered| {
            let from = Position::from_u64(registered.from).ok()?;
            Some((from, Position::from_u64(registered.floor).ok()?))
        });
        let Some((from, floor)) = confirmed else {
            let hint = answer.as_ref().err().and_then(|not_now| not_now.after);
            self.shared.metrics.owner_retries.add(1, &[]);
            let wait = self.announce_backoff.next(&self.shared.dice, hint);
            self.announce_at = Some(Instant::now() + wait);
            return false;
        };
        self.announce_backoff.reset();
        if !self.feed.is_registered() {
            self.committed = from;
        }
        self.shared.receipts.saw(self.shard, from);
        if let Ok(registered) = answer {
            self.shared.receipts.saw_log_epoch(self.shard, registered.log_epoch);
        }
        self.feed.registered(from, floor, out);
        self.note(out);
        true
    }

    /// The owner's answer to a read.
    pub(crate) fn page(&mut self, answer: Result<Page, NotNow>, out: &mut Tells) {
        let hint = match answer.map(page_of) {
            Ok(Some(page)) => {
                self.read_backoff.reset();
                self.page_rows.came();
                self.feed.page(page, out);
                self.note(out);
                return;
            }
            Ok(None) => {
                tracing::warn!(shard = %self.shard, "a page cannot be used");
                None
            }
            Err(not_now) => {
                if not_now.late {
                    self.page_rows.late();
                }
                not_now.after
            }
        };
        self.shared.metrics.owner_retries.add(1, &[]);
        self.feed.read_failed();
        self.read_at = Some(Instant::now() + self.read_backoff.next(&self.shared.dice, hint));
    }

    /// A doorbell.
    pub(crate) fn bell(&mut self, bell: Bell<Bytes>, room: bool, out: &mut Tells) {
        let room = room && self.window_left() > out.len();
        let before = out.len();
        let rung = self.feed.doorbell(bell, room, out);
        self.note_from(before, out);
        match rung {
            Rung::Read => self.shared.metrics.doorbells_read.add(1, &[]),
            Rung::Dropped => self.shared.metrics.doorbells_dropped.add(1, &[]),
            Rung::Inline => {}
        }
    }

    /// The floor rose.
    pub(crate) fn floor(&mut self, floor: Position, out: &mut Tells) {
        let before = out.len();
        self.feed.floor(floor, out);
        self.note_from(before, out);
    }

    /// A doorbell was lost.
    pub(crate) fn doubt(&mut self) {
        self.feed.doubt();
    }

    /// The bus may have lost something.
    pub(crate) fn recheck_soon(&mut self) {
        let soon = Instant::now() + self.shared.dice.between(Duration::ZERO, RECHECK_SOON);
        self.recheck_at = self.recheck_at.min(soon);
    }

    /// The shard may have a new owner: announce again.
    pub(crate) fn announce_again(&mut self) {
        self.announce_at = Some(Instant::now());
        self.announce_backoff.reset();
    }

    /// An ack from the client. One above what was sent, or not above the last one, is ignored and counted.
    pub(crate) fn ack(&mut self, position: Position) {
        if position > self.feed.told() {
            self.shared.metrics.acks_above_sent.add(1, &[]);
            return;
        }
        if position <= self.committed {
            self.shared.metrics.acks_below.add(1, &[]);
            return;
        }
        self.committed = position;
        while self.unacked.front().is_some_and(|unacked| *unacked <= position) {
            self.unacked.pop_front();
        }
        if self.unacked.is_empty() {
            self.unacked = VecDeque::new();
        }
        let notes = &self.shared.metrics.notes;
        notes.acked(self.shard, position, self.session);
        while let Some((_, span)) = self.traced.pop_front_if(|(at, _)| *at <= position) {
            notes.end(Some(span), None);
        }
        let soon = Instant::now() + ms(self.shared.config.session.ack_forward_ms);
        self.ack_at.get_or_insert(soon);
    }

    /// The session has ended: the last ack goes out, and the owner stops ringing.
    pub(crate) async fn end(mut self) {
        if let Some(telling) = self.telling.take() {
            telling.await;
        }
        if self.committed > self.ack_told && self.ack_at.is_some() {
            self.tell_ack().await;
        }
        for (_, span) in self.traced.drain(..) {
            self.shared.metrics.notes.unacknowledged(span);
        }
        let (session, device) = (self.session_bytes(), self.device_bytes());
        self.shared.owners.withdraw(self.shard, Withdraw { session, device }).await;
    }

    fn window_left(&self) -> usize {
        self.window.saturating_sub(self.unacked.len())
    }

    fn note(&mut self, out: &Tells) {
        self.note_from(0, out);
    }

    fn note_from(&mut self, start: usize, out: &Tells) {
        for tell in &out[start..] {
            match tell {
                Tell::Deliver { position, .. } if !self.is_clients => self.unacked.push_back(*position),
                Tell::Gap { to, .. } if !self.is_clients => self.unacked.push_back(*to),
                Tell::Deliver { position, body, .. } => {
                    let notes = &self.shared.metrics.notes;
                    let span = notes.told(self.shard, *position, self.session, body);
                    self.traced.extend(span.map(|span| (*position, span)));
                    self.unacked.push_back(*position);
                    self.shared.metrics.deliveries.add(1, &[]);
                }
                Tell::Gap { to, .. } => {
                    self.unacked.push_back(*to);
                    self.shared.metrics.gaps.add(1, &[]);
                }
                Tell::CaughtUp { .. } => {}
            }
        }
    }

    fn next_recheck(&self) -> Instant {
        let config = &self.shared.config.session;
        Instant::now() + self.shared.dice.between(ms(config.recheck_min_ms), ms(config.recheck_max_ms))
    }

    fn announce(&self) -> BoxFuture<'static, Result<Registered, NotNow>> {
        let announce = Announce {
            session: self.session_bytes(),
            edge: Bytes::copy_from_slice(self.shared.id.as_bytes()),
            device: self.device_bytes(),
            committed: self.committed.get(),
            first: !self.feed.is_registered(),
        };
        let (owners, shard) = (self.shared.owners.clone(), self.shard);
        Box::pin(async move { owners.announce(shard, announce).await })
    }

    fn read(&mut self, after: Position, left: usize) -> BoxFuture<'static, Result<Page, NotNow>> {
        let read = ReadPage {
            device: self.device_bytes(),
            after: after.get(),
            rows_max: self.page_rows.ask(left),
            bytes_max: self.shared.config.session.page_bytes,
            session: self.session_bytes(),
        };
        let (shared, shard, is_clients) = (self.shared.clone(), self.shard, self.is_clients);
        Box::pin(async move {
            let mut page = shared.owners.read(shard, read).await?;
            if is_clients {
                shared.bodies.fill(&mut page, shared.config.session.page_bytes as usize).await;
            }
            Ok(page)
        })
    }

    fn tell_ack(&self) -> impl Future<Output = ()> + Send + 'static {
        let (session, device) = (self.session_bytes(), self.device_bytes());
        let ack = Ack { session, device, position: self.committed.get() };
        let (owners, shard) = (self.shared.owners.clone(), self.shard);
        async move { owners.ack(shard, ack).await }
    }

    fn session_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.session.as_bytes())
    }
    fn device_bytes(&self) -> Bytes {
        pli_api::device_bytes(self.device)
    }
}

fn page_of(page: Page) -> Option<PageRead<Bytes>> {
    let position = |value| Position::from_u64(value).ok();
    let deliveries: Option<Vec<_>> =
        page.deliveries.into_iter().map(|d| Some((position(d.position)?, d.envelope))).collect();
    let gaps: Option<Vec<_>> = page.gaps.iter().map(|gap| Some((position(gap.from)?, position(gap.to)?))).collect();
    Some(PageRead { deliveries: deliveries?, next: position(page.next)?, at_head: page.at_head, gaps: gaps? })
}
