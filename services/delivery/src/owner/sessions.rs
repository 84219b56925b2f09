// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sessions: learnt from announcements, rung, displaced, forgotten. None of it is durable; a lost announcement costs
//! a delay, never a message.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;

use bytes::Bytes;
use pli_api::delivery::{
    Announce, Displace, Doorbell, DoorbellBatch, EdgeSignal, NotReady, OwnerReply, OwnerRequest, Registered, Removed,
    RepeatAnnouncements, Withdraw, edge_signal, owner_reply, owner_request,
};
use pli_domain::mutant::{Mutant, broken};
use pli_domain::{DeviceId, EdgeId, Position, Seq, SessionId};
use pli_ports::{DeviceState, Respond, ShardState, Signal, SignalEvent, StoreError, Subject};
use prost::Message;
use tokio::time::Instant;

use super::Context;
use super::devices::Session;
use super::live::{Done, Live};
use super::retry::retried;
use super::tail::Body;

/// Bytes of doorbells after which a batch is sent; a bus message holds 1 MiB.
const BATCH_BYTES: usize = 256 * 1024;
/// When a request that cannot be answered now makes sense again.
const RETRY_AFTER_MS: u32 = 300;
/// Sessions looked at in one sweep.
const SWEEP_MAX: usize = 4_096;

pub(super) type Responder = Option<Box<dyn Respond>>;

/// When to look whether a session is still heard of, oldest first. Bound: the sessions, each once.
pub(super) type Expiries = VecDeque<(Instant, DeviceId, SessionId)>;

/// Doorbells by edge.
#[derive(Default)]
pub(super) struct Doorbells {
    by_edge: BTreeMap<EdgeId, Vec<Doorbell>>,
}

/// An announcement whose answer needs the database or the log.
pub(super) struct Announced {
    hello: Hello,
    respond: Responder,
    found: Option<Lookup>,
}

/// An announcement.
#[derive(Debug, Clone, Copy)]
struct Hello {
    device: DeviceId,
    session: SessionId,
    edge: EdgeId,
    /// None when it cannot be.
    committed: Option<Position>,
    first: bool,
}

#[derive(Debug, Clone, Copy)]
struct Needs {
    registers: bool,
    log_head: bool,
    epoch: bool,
}

#[derive(Debug, Default)]
struct Lookup {
    registers: Option<DeviceState>,
    log_head: Option<Seq>,
    epoch: Option<ShardState>,
}

fn hello_of(announce: &Announce) -> Option<Hello> {
    Some(Hello {
        device: announce.device.as_ref().try_into().ok()?,
        session: announce.session.as_ref().try_into().ok()?,
        edge: announce.edge.as_ref().try_into().ok()?,
        committed: Position::from_u64(announce.committed).ok(),
        first: announce.first,
    })
}

fn id_bytes(id: &[u8; 16]) -> Bytes {
    Bytes::copy_from_slice(id)
}

impl Live {
    /// One event of the owner's subject.
    pub async fn signal(&mut self, event: SignalEvent) {
        let signal = match event {
            SignalEvent::Signal(signal) => signal,
            SignalEvent::Interrupted => return self.ask_for_announcements().await,
        };
        let Signal { payload, respond, .. } = signal;
        let request = OwnerRequest::decode(payload).ok().filter(|r| r.shard == u32::from(self.context.shard.get()));
        let Some(request) = request.and_then(|request| request.request) else {
            self.context.counters.malformed(1);
            return;
        };
        match request {
            owner_request::Request::Announce(announce) => self.announce(&announce, respond).await,
            owner_request::Request::ReadPage(read) => self.read_page(&read, respond).await,
            owner_request::Request::QueryReceipts(query) => self.query_receipts(query, respond).await,
            owner_request::Request::Ack(ack) => self.ack(&ack),
            owner_request::Request::Withdraw(withdraw) => self.withdraw(&withdraw),
            owner_request::Request::RemoveDevice(remove) => self.remove_device(&remove.device, respond).await,
        }
    }

    pub fn not_ready() -> owner_reply::Reply {
        owner_reply::Reply::NotReady(NotReady { retry_after_ms: RETRY_AFTER_MS })
    }

    async fn announce(&mut self, announce: &Announce, respond: Responder) {
        let Some(hello) = hello_of(announce) else {
            self.context.counters.malformed(1);
            return;
        };
        let committed = hello.committed.unwrap_or(Position::ZERO);
        let future = committed.epoch() > self.epoch.epoch;
        let loaded = self.devices.get(hello.device).is_some_and(|device| device.loaded);
        if future && !self.may_check_epoch() {
            // Too early to look again. It may have been told by an owner that fenced this one since the last look.
            return self.context.answer(respond, Self::not_ready()).await;
        }
        // Above what this owner knows of the log: perhaps a lie, and then its stored cursor stands.
        let above = committed > self.furthest();
        let needs = Needs {
            epoch: future,
            log_head: above && !future,
            // What is loaded may be forgotten while the log or the log epoch is looked up.
            registers: above || (!loaded && committed < self.checkpoint.position),
        };
        if !(needs.epoch || needs.log_head || needs.registers) {
            return self.register(hello, Lookup::default(), respond).await;
        }
        if self.asked >= self.context.config.jobs_max {
            return self.context.answer(respond, Self::not_ready()).await;
        }
        self.asked += 1;
        let context = self.context.clone();
        self.spawn(async move {
            let found = look_up(&context, hello.device, needs).await;
            Done::Announced(Box::new(Announced { hello, respond, found }))
        });
    }

    pub async fn announced(&mut self, announced: Announced) {
        self.asked -= 1;
        let Announced { hello, respond, found } = announced;
        let Some(found) = found else { return self.context.answer(respond, Self::not_ready()).await };
        if let Some(state) = &found.epoch {
            self.fence(state);
        }
        if self.end.is_some() {
            return self.context.answer(respond, Self::not_ready()).await;
        }
        self.register(hello, found, respond).await;
    }

    /// Takes the hello's position into account, notes the session and answers where it reads from.
    async fn register(&mut self, hello: Hello, found: Lookup, respond: Responder) {
        if let Some(head) = found.log_head {
            self.log_head = self.log_head.max(head);
        }
        let committed = hello.committed.filter(|position| *position <= self.furthest());
        if let Some(state) = found.registers {
            self.merge(hello.device, state).await;
            let device = self.devices.entry(hello.device);
            if let Some(position) = committed.filter(|position| *position > device.cursor) {
                // Its durable cursor lags behind what it knows: an owner crashed, and there may be rows.
                device.suppose_rows(position);
            }
        }
        match committed {
            Some(position) => self.raise_cursor(hello.device, position),
            None => self.context.counters.positions_ignored(1),
        }
        let new = self.note_session(hello);
        if hello.first {
            self.displace_others(hello.device, hello.session).await;
        }
        let registered = self.registered(hello.device, committed);
        let waiting = self.devices.get(hello.device).and_then(|device| device.slots.back()).map(|slot| slot.position);
        self.context.answer(respond, owner_reply::Reply::Registered(registered)).await;
        if let (true, false, Some(position)) = (new, hello.first, waiting) {
            self.ring_read(hello, position).await;
        }
    }

    fn registered(&mut self, id: DeviceId, committed: Option<Position>) -> Registered {
        let checkpoint = self.checkpoint.position;
        let device = self.devices.entry(id);
        let from = match committed {
            Some(position) if broken(Mutant::CursorGoesBack) => position,
            Some(position) => device.cursor.max(position),
            None => device.cursor,
        };
        let floor = if device.floor > from { device.floor } else { Position::ZERO };
        let in_tail = device.slots.back().is_some_and(|slot| slot.position > from);
        Registered {
            from: from.get(),
            floor: floor.get(),
            mail_waiting: in_tail || floor > from || from < checkpoint,
            position_ignored: committed.is_none(),
            log_epoch: self.epoch.epoch.get(),
        }
    }

    /// True when this owner did not know the session.
    fn note_session(&mut self, hello: Hello) -> bool {
        let (now, config) = (Instant::now(), self.context.config.clone());
        let checked_at = now + config.session_idle();
        self.notices.seen(hello.edge, now, config.edges_max);
        let device = self.devices.entry(hello.device);
        if let Some(session) = device.sessions.iter_mut().find(|session| session.id == hello.session) {
            (session.seen, session.edge) = (now, hello.edge);
            return false;
        }
        if device.sessions.len() >= config.sessions_per_device_max {
            device.sessions.remove(0);
        }
        let wire = (id_bytes(hello.session.as_bytes()), id_bytes(hello.device.as_bytes()));
        device.sessions.push(Session { id: hello.session, edge: hello.edge, wire, seen: now });
        self.expiries.push_back((checked_at, hello.device, hello.session));
        self.context.counters.sessions(1);
        true
    }

    /// Tells every older session of the device to close.
    async fn displace_others(&mut self, device: DeviceId, newest: SessionId) {
        let others: Vec<Session> = match self.devices.get(device) {
            Some(device) => device.sessions.iter().filter(|session| session.id != newest).cloned().collect(),
            None => Vec::new(),
        };
        for session in others {
            self.context.counters.displaced(1);
            let displace = Displace { session: id_bytes(session.id.as_bytes()), removed: false };
            self.context.tell(session.edge, edge_signal::Signal::Displace(displace)).await;
        }
    }

    /// A session that another owner knew learns that something waits.
    async fn ring_read(&mut self, hello: Hello, position: Position) {
        let mut bells = Doorbells::default();
        self.context.rung(position, hello.edge, hello.session);
        let bell = Doorbell {
            session: id_bytes(hello.session.as_bytes()),
            device: id_bytes(hello.device.as_bytes()),
            prev: None,
            position: position.get(),
            envelope: Bytes::new(),
        };
        bells.by_edge.entry(hello.edge).or_default().push(bell);
        self.context.counters.unknown_prev_sent(1);
        self.ring(bells).await;
    }

    /// Adds a doorbell for every session of the device.
    pub fn bell(&self, id: DeviceId, prev: Option<Position>, position: Position, bells: &mut Doorbells) {
        let Some(device) = self.devices.get(id) else { return };
        let body_max = self.context.config.ring_body_bytes_max;
        let envelope = match device.slots.back() {
            Some(slot) if slot.position == position => match &slot.body {
                Body::Held(envelope) if envelope.len() <= body_max => envelope.clone(),
                _ => Bytes::new(),
            },
            _ => Bytes::new(),
        };
        let prev = if broken(Mutant::UnknownPrevIsZero) { prev.or(Some(Position::ZERO)) } else { prev };
        for session in &device.sessions {
            self.context.counters.unknown_prev_sent(usize::from(prev.is_none()));
            self.context.rung(position, session.edge, session.id);
            bells.by_edge.entry(session.edge).or_default().push(Doorbell {
                session: session.wire.0.clone(),
                device: session.wire.1.clone(),
                prev: prev.map(Position::get),
                position: position.get(),
                envelope: envelope.clone(),
            });
        }
    }

    /// Sends doorbells, in batches per edge.
    pub async fn ring(&mut self, bells: Doorbells) {
        for (edge, bells) in bells.by_edge {
            self.context.counters.doorbells(bells.len());
            let (mut batch, mut bytes) = (Vec::new(), 0);
            for bell in bells {
                bytes += bell.envelope.len() + 64;
                batch.push(bell);
                if bytes >= BATCH_BYTES {
                    bytes = 0;
                    let doorbells = std::mem::take(&mut batch);
                    self.context.tell(edge, edge_signal::Signal::Doorbells(DoorbellBatch { doorbells })).await;
                }
            }
            if !batch.is_empty() {
                self.context.tell(edge, edge_signal::Signal::Doorbells(DoorbellBatch { doorbells: batch })).await;
            }
        }
    }

    fn withdraw(&mut self, withdraw: &Withdraw) {
        let ids = (DeviceId::try_from(withdraw.device.as_ref()), SessionId::try_from(withdraw.session.as_ref()));
        let (Ok(device), Ok(session)) = ids else {
            self.context.counters.malformed(1);
            return;
        };
        self.forget_session(device, session);
    }

    fn forget_session(&mut self, id: DeviceId, session: SessionId) {
        if let Some(device) = self.devices.get_mut(id) {
            device.sessions.retain(|known| known.id != session);
        }
        self.devices.release(id, self.context.config.idle_devices_max);
    }

    /// A sign of life. A session that this owner does not know lost its announcement.
    pub fn heard_of(&mut self, device: DeviceId, session: SessionId) -> bool {
        let known = self.devices.get_mut(device).and_then(|d| d.sessions.iter_mut().find(|s| s.id == session));
        match known {
            Some(session) => session.seen = Instant::now(),
            None => return false,
        }
        true
    }

    /// Forgets sessions of edges that died without a word.
    pub fn forget_silent_sessions(&mut self) {
        let (now, idle) = (Instant::now(), self.context.config.session_idle());
        for _ in 0..SWEEP_MAX {
            let Some((_, id, session)) = self.expiries.pop_front_if(|(at, _, _)| *at <= now) else { return };
            let seen = self.devices.get(id).and_then(|d| d.sessions.iter().find(|s| s.id == session)).map(|s| s.seen);
            match seen {
                Some(seen) if seen + idle > now => self.expiries.push_back((seen + idle, id, session)),
                Some(_) => {
                    self.context.counters.sessions_forgotten(1);
                    self.forget_session(id, session);
                }
                None => {}
            }
        }
    }

    /// Ends the device's sessions and deletes its queue; answered once that is durable.
    async fn remove_device(&mut self, device: &Bytes, respond: Responder) {
        let Ok(id) = DeviceId::try_from(device.as_ref()) else {
            self.context.counters.malformed(1);
            return;
        };
        if self.asked >= self.context.config.jobs_max {
            return self.context.answer(respond, Self::not_ready()).await;
        }
        if let Some(device) = self.devices.remove(id) {
            self.context.counters.removed(device.slots.len());
            for slot in &device.slots {
                self.tail.close(slot.ordinal);
            }
            for session in device.sessions {
                let displace = Displace { session: id_bytes(session.id.as_bytes()), removed: true };
                self.context.tell(session.edge, edge_signal::Signal::Displace(displace)).await;
            }
        }
        self.asked += 1;
        let context = self.context.clone();
        self.spawn(async move {
            match retried(&context, || context.ports.queues.remove_device(id)).await {
                Ok(()) => context.answer(respond, owner_reply::Reply::Removed(Removed {})).await,
                Err(error) => {
                    tracing::error!(shard = %context.shard, error = &error as &dyn Error, "removing a device failed")
                }
            }
            Done::Answered
        });
    }
}

impl Context {
    pub async fn answer(&self, respond: Responder, reply: owner_reply::Reply) {
        if matches!(reply, owner_reply::Reply::NotReady(_)) {
            self.counters.not_ready(1);
        }
        if let Some(respond) = respond {
            respond.respond(OwnerReply { reply: Some(reply) }.encode_to_vec().into()).await;
        }
    }

    /// An answer, or none and a line in the log.
    fn known<T>(&self, answer: Result<T, StoreError>) -> Option<T> {
        let shard = self.shard;
        answer.inspect_err(|error| tracing::info!(%shard, error = error as &dyn Error, "a look-up failed")).ok()
    }

    pub async fn tell(&self, edge: EdgeId, signal: edge_signal::Signal) {
        self.publish(&Subject::edge(edge), signal).await;
    }

    pub async fn tell_edges(&self) {
        self.publish(&Subject::edges(), edge_signal::Signal::RepeatAnnouncements(RepeatAnnouncements {})).await;
    }

    async fn publish(&self, subject: &Subject, signal: edge_signal::Signal) {
        let message = EdgeSignal { shard: u32::from(self.shard.get()), signal: Some(signal) };
        if let Err(error) = self.ports.signals.publish(subject, message.encode_to_vec().into()).await {
            tracing::debug!(%subject, error = &error as &dyn Error, "a signal was lost");
        }
    }
}

/// One try each: the asker has a deadline and asks again.
async fn look_up(context: &Context, device: DeviceId, needs: Needs) -> Option<Lookup> {
    let mut found = Lookup::default();
    if needs.epoch {
        found.epoch = Some(context.known(context.ports.queues.shard_state(context.shard).await)?);
    }
    if needs.log_head {
        found.log_head = Some(context.known(context.ports.log.bounds(context.shard).await)?.head);
    }
    if needs.registers {
        context.counters.register_reads(1);
        let states = context.known(context.ports.queues.device_states(&[device]).await)?;
        found.registers = Some(states.first().copied()?);
    }
    Some(found)
}
