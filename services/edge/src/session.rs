// SPDX-License-Identifier: MIT OR Apache-2.0
//! One session, from `Ready` to its end: one task, one timer, no buffer while idle.

mod calling;
pub(crate) mod delivering;
pub mod feed;
pub(crate) mod hello;
pub(crate) mod inbox;
mod pages;
mod sending;
pub(crate) mod wire;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use pli_api::common::Error;
use pli_api::delivery::Registered;
use pli_api::edge::{
    CaughtUp, Close, Deliver, Gap, GoAway, KeyPackagesLow, Notice, Ping, Pong, Ready, SendBatch, SendResult,
    SendResults, Settled, SettledBatch, client_frame, notice, server_frame::Frame,
};
use pli_api::{ErrorCode, refusal};
use pli_domain::{DeviceId, Position, SessionId, ShardId};
use prost::Message;
use tokio::time::{Instant, Sleep};

use crate::carrier::CarrierError;
use crate::config::ms;
use crate::edge::Shared;
use crate::limits::SessionLimits;
use delivering::{Answered, Delivering, Queue, Tells};
use feed::Tell;
use hello::{Greeted, Who};
use inbox::{End, Inbox, Mail};
use sending::{PENDING_MAX, Sender};
use wire::Wire;

/// Results and settled receipts of one frame: bytes after which the next frame begins, well below the frame limit.
const BATCH_BYTES: usize = 32 * 1024;

/// Something that a session reacts to.
enum Event {
    Frame(Bytes),
    Broken(CarrierError),
    Mail(Mail),
    Owner(Answered),
    Admitted(Vec<SendResult>),
    Timer,
}

/// How a session ends.
enum Ending {
    /// The client is gone.
    Gone,
    /// With a last frame.
    Close(Close),
}

impl Ending {
    fn because(error: Error) -> Self {
        let reconnect = error.code().is_temporary();
        Self::Close(Close { reason: Some(error), reconnect })
    }
}

/// One session of one device, or an anonymous one.
pub(crate) struct Session {
    shared: Arc<Shared>,
    id: SessionId,
    who: Who,
    key_packages: Option<u32>,
    inbox: Arc<Inbox>,
    limits: Arc<SessionLimits>,
    /// None for an anonymous session.
    delivering: Option<Box<Delivering>>,
    admitting: Option<BoxFuture<'static, Vec<SendResult>>>,
    sends_open: u32,
    calls_open: u32,
    ready: bool,
    ready_by: Instant,
    /// When the last whole frame of the client came, and when it was pinged last.
    heard: Instant,
    pinged: Instant,
    /// Since when frames are read; none while backpressure holds.
    reading_since: Option<Instant>,
    leave_at: Option<Instant>,
}

impl Session {
    pub(crate) fn new(shared: Arc<Shared>, id: SessionId, greeted: Greeted) -> Self {
        let Greeted { who, key_packages } = greeted;
        let now = Instant::now();
        let deliver = |device| Box::new(Delivering::new(shared.clone(), id, Queue::of(device, &shared), who.committed));
        Self {
            delivering: who.device.map(deliver),
            limits: Arc::new(SessionLimits::new(&shared.config.limits)),
            ready_by: now + ms(shared.config.session.ready_wait_ms),
            shared,
            id,
            who,
            key_packages,
            inbox: Arc::default(),
            admitting: None,
            sends_open: 0,
            calls_open: 0,
            ready: false,
            heard: now,
            pinged: now,
            reading_since: None,
            leave_at: None,
        }
    }

    pub(crate) fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    /// The device and shard under which owners speak of it.
    pub(crate) fn registration(&self) -> Option<(DeviceId, ShardId)> {
        Some((self.who.device?.device, self.delivering.as_ref()?.shard()))
    }

    /// Runs until the session ends. Dropping it forgets the session; owners hear no withdrawal then.
    pub(crate) async fn run(mut self: Box<Self>, mut wire: Wire) {
        if self.delivering.is_none() {
            self.say_ready(&mut wire, None);
        }
        let mut timer = Box::pin(tokio::time::sleep_until(self.due(&wire)));
        let ending = loop {
            let event = poll_fn(|cx| self.poll_event(&mut wire, timer.as_mut(), cx)).await;
            if let Err(ending) = self.on(event, &mut wire).await {
                break ending;
            }
        };
        Box::pin(self.finish(wire, ending)).await;
    }

    async fn finish(self: Box<Self>, mut wire: Wire, ending: Ending) {
        self.inbox.close();
        if let Some(delivering) = self.delivering {
            delivering.end().await;
        }
        match ending {
            Ending::Gone => {}
            Ending::Close(close) => {
                let code = close.reason.as_ref().map_or(ErrorCode::Unspecified, Error::code);
                self.shared.metrics.closed(code);
                wire.push(Frame::Close(close));
                wire.finish().await;
            }
        }
    }

    /// The next event, always looked for in the same order.
    fn poll_event(&mut self, wire: &mut Wire, timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<Event> {
        if let Poll::Ready(Err(error)) = wire.poll_send(cx) {
            return Poll::Ready(Event::Broken(error));
        }
        if let Poll::Ready(mail) = self.inbox.poll_take(cx) {
            return Poll::Ready(Event::Mail(mail));
        }
        if let Some(delivering) = &mut self.delivering {
            delivering.advance(wire.has_room());
            if let Poll::Ready(answered) = delivering.poll(cx) {
                return Poll::Ready(Event::Owner(answered));
            }
        }
        if let Some(Poll::Ready(refused)) = self.admitting.as_mut().map(|f| f.as_mut().poll(cx)) {
            self.admitting = None;
            return Poll::Ready(Event::Admitted(refused));
        }
        if self.may_read(wire) {
            self.reading_since.get_or_insert_with(Instant::now);
            if let Poll::Ready(frame) = wire.poll_recv(cx) {
                return Poll::Ready(frame.map_or_else(Event::Broken, Event::Frame));
            }
        } else {
            self.reading_since = None;
        }
        self.poll_timer(wire, timer, cx)
    }

    /// The one timer of the connection. It is moved when something is due earlier; what is due later lets it fire once
    /// for nothing, which is cheaper than moving it with every frame.
    fn poll_timer(&self, wire: &Wire, mut timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<Event> {
        loop {
            let due = self.due(wire);
            if due < timer.deadline() {
                timer.as_mut().reset(due);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if due <= Instant::now() {
                // Far away until the event was handled and the next poll moves it near again.
                timer.as_mut().reset(Instant::now() + Duration::from_secs(24 * 3600));
                return Poll::Ready(Event::Timer);
            }
            timer.as_mut().reset(due);
        }
    }

    /// Backpressure: while results, replies or frames wait, the client waits as well.
    fn may_read(&self, wire: &Wire) -> bool {
        let config = &self.shared.config.session;
        self.ready
            && wire.answers_have_room()
            && self.admitting.is_none()
            && self.sends_open < config.send_window
            && self.calls_open < config.call_window
    }

    /// When something must happen at the latest.
    fn due(&self, wire: &Wire) -> Instant {
        let candidates = [
            Some(self.ping_due()),
            self.frame_due(wire),
            wire.stalled().map(|since| since + ms(self.shared.config.session.write_stall_ms)),
            (!self.ready).then_some(self.ready_by),
            self.leave_at,
            self.delivering.as_ref().map(|delivering| delivering.due()),
        ];
        candidates.into_iter().flatten().fold(self.silence_due(wire), Instant::min)
    }

    /// A client whose frame takes long is not silent, and hears that the edge is there.
    fn silence_due(&self, wire: &Wire) -> Instant {
        let moved = wire.partial().map_or(self.heard, |partial| partial.moved);
        self.heard.max(moved) + ms(self.shared.config.session.idle_ms)
    }

    fn ping_due(&self) -> Instant {
        self.heard.max(self.pinged) + ms(self.shared.config.session.idle_ms) / 2
    }

    fn frame_due(&self, wire: &Wire) -> Option<Instant> {
        Some(wire.partial()?.due(self.reading_since?, &self.shared.config.session))
    }

    async fn on(&mut self, event: Event, wire: &mut Wire) -> Result<(), Ending> {
        match event {
            Event::Frame(bytes) => self.on_frame(bytes, wire),
            Event::Broken(error) => Err(broken(&error)),
            Event::Mail(mail) => self.on_mail(mail, wire).await,
            Event::Owner(answered) => {
                self.on_answer(answered, wire);
                Ok(())
            }
            Event::Admitted(refused) => {
                self.say_results(refused, wire);
                Ok(())
            }
            Event::Timer => self.on_timer(wire),
        }
    }

    fn on_frame(&mut self, bytes: Bytes, wire: &mut Wire) -> Result<(), Ending> {
        self.heard = Instant::now();
        match hello::decoded(bytes).map_err(Ending::because)? {
            client_frame::Frame::Hello(_) => {
                Err(Ending::because(refusal(ErrorCode::UnexpectedFrame, "the hello was given already")))
            }
            client_frame::Frame::Send(batch) => self.on_send(batch, wire),
            client_frame::Frame::Pending(pending) => {
                if pending.receipts.len() > PENDING_MAX {
                    let text = format!("Pending has at most {PENDING_MAX} receipts");
                    return Err(Ending::because(refusal(ErrorCode::MalformedFrame, text)));
                }
                let ended = self.sender()?.present(pending);
                say_settled(ended, wire);
                Ok(())
            }
            client_frame::Frame::Ack(ack) => {
                let position = Position::from_u64(ack.position).unwrap_or(Position::MAX);
                let delivering = self.delivering.as_mut().ok_or_else(anonymous)?;
                delivering.ack(position);
                self.leave_when_done()
            }
            client_frame::Frame::Call(call) => {
                self.on_call(call, wire);
                Ok(())
            }
            client_frame::Frame::Ping(ping) => {
                wire.push(Frame::Pong(Pong { id: ping.id }));
                Ok(())
            }
            client_frame::Frame::Pong(_) => Ok(()),
            client_frame::Frame::Signal(_) => {
                Err(Ending::because(refusal(ErrorCode::UnknownFrame, "this server carries no signals yet")))
            }
        }
    }

    fn on_send(&mut self, batch: SendBatch, wire: &mut Wire) -> Result<(), Ending> {
        let sender = self.sender()?;
        self.sends_open += u32::try_from(batch.sends.len()).unwrap_or(u32::MAX);
        if self.leave_at.is_some() {
            let error = refusal(ErrorCode::Draining, "the server is going down").retry_after(1_000);
            let refused = |send: pli_api::edge::Send| SendResult {
                send_id: send.send_id,
                result: Some(pli_api::edge::send_result::Result::Refused(error.clone())),
            };
            let refused = batch.sends.into_iter().map(refused).collect();
            self.say_results(refused, wire);
            return Ok(());
        }
        self.admitting = Some(Box::pin(sender.admit(batch.sends)));
        Ok(())
    }

    fn sender(&self) -> Result<Sender, Ending> {
        Ok(Sender {
            device: self.who.device.ok_or_else(anonymous)?,
            shared: self.shared.clone(),
            inbox: self.inbox.clone(),
            limits: self.limits.clone(),
        })
    }

    async fn on_mail(&mut self, mail: Mail, wire: &mut Wire) -> Result<(), Ending> {
        self.say_results(mail.results, wire);
        say_settled(mail.settled, wire);
        for reply in mail.replies {
            self.calls_open = self.calls_open.saturating_sub(1);
            wire.push(Frame::Reply(reply));
        }
        if let Some(delivering) = &mut self.delivering {
            let mut tells = Tells::new();
            if let Some(floor) = mail.floor {
                delivering.floor(floor, &mut tells);
            }
            for bell in mail.bells {
                delivering.bell(bell, self.ready && wire.has_room(), &mut tells);
            }
            if mail.doubt {
                delivering.doubt();
            }
            if mail.recheck {
                delivering.recheck_soon();
            }
            if mail.announce {
                delivering.announce_again();
            }
            say(tells, wire);
        }
        if let Some(reconnect_after_ms) = mail.go_away {
            wire.push(Frame::GoAway(GoAway { reconnect_after_ms }));
            self.leave_at = Some(Instant::now() + ms(self.shared.config.drain_session_ms));
        }
        match mail.end {
            Some(end) => Err(self.ended(end)),
            None => self.leave_when_done(),
        }
    }

    /// While draining: once nothing is open, the session ends.
    fn leave_when_done(&self) -> Result<(), Ending> {
        let Some(leave_at) = self.leave_at else { return Ok(()) };
        let unacked = self.delivering.as_ref().is_some_and(|delivering| delivering.has_unacked());
        let open = self.sends_open > 0 || self.calls_open > 0 || self.admitting.is_some() || unacked;
        if open && Instant::now() < leave_at {
            return Ok(());
        }
        Err(Ending::because(refusal(ErrorCode::Draining, "the server is going down").retry_after(500)))
    }

    fn ended(&self, end: End) -> Ending {
        let error = match end {
            End::Displaced => refusal(ErrorCode::Displaced, "a newer session of the device took over"),
            End::Removed => {
                if let Some(device) = self.who.device {
                    self.shared.keys.mark_removed(device.device);
                }
                hello::removed()
            }
        };
        Ending::Close(Close { reason: Some(error), reconnect: false })
    }

    fn on_answer(&mut self, answered: Answered, wire: &mut Wire) {
        let Some(delivering) = &mut self.delivering else { return };
        let mut tells = Tells::new();
        match answered {
            Answered::Registered(answer) => {
                if delivering.registered(&answer, &mut tells)
                    && let Ok(registered) = answer
                {
                    if registered.position_ignored {
                        self.shared.metrics.positions_ignored.add(1, &[]);
                    }
                    if !self.ready {
                        self.say_ready(wire, Some(&registered));
                    }
                }
            }
            Answered::Page(answer) => delivering.page(answer, &mut tells),
        }
        say(tells, wire);
    }

    fn on_timer(&mut self, wire: &mut Wire) -> Result<(), Ending> {
        let now = Instant::now();
        let timeout = |code, text: &str| Err(Ending::because(refusal(code, text)));
        if self.frame_due(wire).is_some_and(|due| due <= now) {
            return timeout(ErrorCode::FrameTimeout, "the frame came too slowly");
        }
        if wire.stalled().is_some_and(|since| since + ms(self.shared.config.session.write_stall_ms) <= now) {
            return Err(Ending::Gone);
        }
        if self.silence_due(wire) <= now {
            return timeout(ErrorCode::Temporary, "nothing was heard for longer than the idle timeout");
        }
        if self.ping_due() <= now {
            self.pinged = now;
            wire.push(Frame::Ping(Ping { id: 0 }));
        }
        if !self.ready && self.ready_by <= now {
            self.say_ready(wire, None);
        }
        self.leave_when_done()
    }

    /// `registered` is what the owner said; without it the hello's own word stands for the moment.
    fn say_ready(&mut self, wire: &mut Wire, registered: Option<&Registered>) {
        self.ready = true;
        let told = self.delivering.as_ref().map_or(Position::ZERO, |delivering| delivering.told());
        wire.push(Frame::Ready(Ready {
            limits: Some(self.shared.session_limits()),
            mail_waiting: registered.map_or(self.delivering.is_some(), |registered| registered.mail_waiting),
            now_ms: self.shared.ports.clock.now().0,
            session: Bytes::copy_from_slice(self.id.as_bytes()),
            from: registered.map_or(told.get(), |registered| registered.from),
            position_ignored: self.who.other_history
                || registered.is_some_and(|registered| registered.position_ignored),
            history: Bytes::copy_from_slice(self.shared.ports.history()),
        }));
        if let Some(left) = self.key_packages.filter(|left| *left < self.shared.config.key_packages_low) {
            let low = notice::Notice::KeyPackagesLow(KeyPackagesLow { left });
            wire.push(Frame::Notice(Notice { notice: Some(low) }));
        }
    }

    fn say_results(&mut self, results: Vec<SendResult>, wire: &mut Wire) {
        self.sends_open = self.sends_open.saturating_sub(u32::try_from(results.len()).unwrap_or(u32::MAX));
        in_batches(results, |results| wire.push(Frame::SendResults(SendResults { results })));
    }
}

fn say_settled(settled: Vec<Settled>, wire: &mut Wire) {
    in_batches(settled, |settled| wire.push(Frame::Settled(SettledBatch { settled })));
}

/// Cuts a list into frames.
fn in_batches<T: Message>(items: Vec<T>, mut push: impl FnMut(Vec<T>)) {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for item in items {
        bytes += item.encoded_len();
        batch.push(item);
        if bytes >= BATCH_BYTES {
            push(std::mem::take(&mut batch));
            bytes = 0;
        }
    }
    if !batch.is_empty() {
        push(batch);
    }
}

fn say(tells: Tells, wire: &mut Wire) {
    for tell in tells {
        wire.push_delivery(match tell {
            Tell::Deliver { position, previous, body } => {
                Frame::Deliver(Deliver { position: position.get(), envelope: body, previous: previous.get() })
            }
            Tell::Gap { from, to } => Frame::Gap(Gap { from: from.get(), to: to.get() }),
            Tell::CaughtUp { position } => Frame::CaughtUp(CaughtUp { position: position.get() }),
        });
    }
}

fn anonymous() -> Ending {
    Ending::because(refusal(ErrorCode::Anonymous, "an anonymous session can only call"))
}

fn broken(error: &CarrierError) -> Ending {
    match error {
        CarrierError::Closed | CarrierError::Io(_) => Ending::Gone,
        CarrierError::TooLarge | CarrierError::NotAFrame(_) => Ending::because(hello::refusal_of(error)),
    }
}
