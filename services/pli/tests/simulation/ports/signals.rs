// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bus.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pli_api::delivery::{
    Doorbell, EdgeSignal, OwnerReply, OwnerRequest, edge_signal, owner_reply::Reply, owner_request::Request,
};
use pli_domain::{DeviceId, Position, ShardId};
use pli_ports::{RequestError, Respond, Signal, SignalEvent, Signals, StoreError, Subject, Subscription};
use prost::Message;

use super::Seat;
use crate::simulation::oracle::Call;
use crate::simulation::world::lock;

/// The bus as one process sees it.
pub struct PortSignals {
    pub seat: Seat,
    pub inner: Arc<dyn Signals>,
}

impl PortSignals {
    fn look_at(&self, payload: &Bytes) {
        let Ok(signal) = EdgeSignal::decode(payload.clone()) else { return };
        let Ok(shard) = u16::try_from(signal.shard) else { return };
        let shard = ShardId::new(shard);
        let bells = match signal.signal {
            Some(edge_signal::Signal::Doorbell(bell)) => vec![bell],
            Some(edge_signal::Signal::Doorbells(batch)) => batch.doorbells,
            Some(edge_signal::Signal::Displace(displace)) if !displace.removed => {
                return self.seat.world.rare.displaced.one();
            }
            _ => return,
        };
        bells.iter().for_each(|bell| self.ring(shard, bell));
    }

    /// What a client acknowledges it has told itself; a fan-out worker is a client inside, and says it in two ways.
    fn look_at_worker(&self, payload: &Bytes) {
        let request = OwnerRequest::decode(payload.clone()).ok().and_then(|request| request.request);
        let (device, position) = match &request {
            Some(Request::Ack(ack)) => (&ack.device, ack.position),
            Some(Request::Announce(announce)) => (&announce.device, announce.committed),
            _ => return,
        };
        let device = DeviceId::try_from(device.as_ref()).ok().filter(DeviceId::is_reserved);
        if let (Some(device), Ok(position)) = (device, Position::from_u64(position)) {
            let world = &self.seat.world;
            if matches!(request, Some(Request::Ack(_))) {
                world.rare.spread.one();
                world.say(format_args!("{} acks {position} as {device}", self.seat.name()));
            }
            let log = world.oracle().shard_of.get(&device).map_or_else(Vec::new, |shard| world.log(*shard));
            let verdict = world.oracle().spread(device, position, &log, world.now());
            world.judge(verdict);
        }
    }

    fn ring(&self, shard: ShardId, bell: &Doorbell) {
        let (world, owner) = (&self.seat.world, self.seat.name());
        let Ok(position) = Position::from_u64(bell.position) else { return };
        world.say(format_args!("{owner} rings {position} after {:?}", bell.prev));
        if bell.prev.is_none() {
            world.rare.unknown_prev.one();
        }
        let log = world.log(shard);
        let verdict = world.oracle().judge_ring(&Call { owner, shard, log: &log, now: world.now() }, position);
        world.judge(verdict);
    }
}

/// Q3 at the edge's end of a request.
fn session_of(payload: &Bytes) -> Option<(Vec<u8>, bool)> {
    match OwnerRequest::decode(payload.clone()).ok()?.request? {
        Request::Announce(announce) => Some((announce.session.to_vec(), false)),
        Request::ReadPage(read) => Some((read.session.to_vec(), true)),
        _ => None,
    }
}

#[async_trait]
impl Signals for PortSignals {
    async fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), StoreError> {
        self.seat.process.pass().await;
        if subject.as_str().starts_with("pli.owner.") {
            self.look_at_worker(&payload);
        } else {
            self.look_at(&payload);
        }
        self.seat.call(self.inner.publish(subject, payload)).await
    }

    async fn subscribe(&self, subject: &Subject) -> Result<Box<dyn Subscription>, StoreError> {
        let inner = self.seat.call(self.inner.subscribe(subject)).await?;
        Ok(Box::new(PortSubscription { seat: self.seat.clone(), inner, ready: None }))
    }

    async fn request(&self, subject: &Subject, payload: Bytes, deadline: Duration) -> Result<Bytes, RequestError> {
        self.seat.process.pass().await;
        self.look_at_worker(&payload);
        let world = &self.seat.world;
        let session = session_of(&payload);
        if let Some((session, true)) = &session
            && !lock(&world.registered).contains(session)
        {
            world.judge(Err("Q3: a session reads before its registration is confirmed".into()));
        }
        let answer = self.seat.call(self.inner.request(subject, payload, deadline)).await;
        let reply = answer.as_ref().ok().and_then(|bytes| OwnerReply::decode(bytes.clone()).ok()?.reply);
        if let (Some((session, false)), Some(Reply::Registered(_))) = (session, reply) {
            lock(&world.registered).insert(session);
        }
        answer
    }
}

struct PortSubscription {
    seat: Seat,
    inner: Box<dyn Subscription>,
    /// Received, but not handed out yet: a dropped call loses nothing.
    ready: Option<Option<SignalEvent>>,
}

#[async_trait]
impl Subscription for PortSubscription {
    async fn next(&mut self) -> Option<SignalEvent> {
        self.seat.process.pass().await;
        if self.ready.is_none() {
            self.ready = Some(self.inner.next().await);
        }
        self.seat.process.pass().await;
        match self.ready.take().flatten()? {
            SignalEvent::Signal(Signal { subject, payload, respond }) => {
                let announced = announced(&payload);
                let seat = self.seat.clone();
                let wrap = |inner| Box::new(PortRespond { seat, inner, announced }) as Box<dyn Respond>;
                Some(SignalEvent::Signal(Signal { subject, payload, respond: respond.map(wrap) }))
            }
            interrupted => Some(interrupted),
        }
    }
}

fn announced(payload: &Bytes) -> Option<DeviceId> {
    match OwnerRequest::decode(payload.clone()).ok()?.request? {
        Request::Announce(announce) => DeviceId::try_from(announce.device.as_ref()).ok(),
        _ => None,
    }
}

struct PortRespond {
    seat: Seat,
    inner: Box<dyn Respond>,
    announced: Option<DeviceId>,
}

#[async_trait]
impl Respond for PortRespond {
    async fn respond(self: Box<Self>, payload: Bytes) {
        self.seat.process.pass().await;
        let reply = OwnerReply::decode(payload.clone()).ok().and_then(|reply| reply.reply);
        if let (Some(device), Some(Reply::Registered(registered))) = (self.announced, reply) {
            let from = Position::from_u64(registered.from).unwrap_or(Position::MAX);
            let verdict = self.seat.world.oracle().judge_registered(self.seat.name(), device, from);
            self.seat.world.say(format_args!("{} registers {device:?} above {from}", self.seat.name()));
            self.seat.world.judge(verdict);
        }
        self.inner.respond(payload).await;
    }
}
