// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the edge remembers and traces of each message: hops and spans, with the time of the clock port. Nothing is
//! looked at, and no clock is asked, where nobody wants to know.

use std::sync::Arc;

use pli_api::common::Error;
use pli_api::outside;
use pli_domain::{EdgeId, EntryRef, LogEpoch, Position, SessionId, ShardId, UnixMillis};
use pli_ports::Clock;
use pli_runtime::Trail;
use pli_runtime::trail::{Hop, HopKind, Span, SpanKind, TraceContext, tag};

use crate::ticket::Ticket;

/// The notes of one edge.
pub(crate) struct Notes {
    trail: Trail,
    clock: Arc<dyn Clock>,
}

impl Notes {
    pub(crate) fn new(trail: Trail, clock: Arc<dyn Clock>, edge: EdgeId) -> Self {
        trail.hops.introduce("edge", edge.as_bytes());
        Self { trail, clock }
    }

    /// A trace begins here, for the configured part of what is asked for. Kinds are those of OpenTelemetry's conventions
    /// for messaging spans (<https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/#span-kind>): who
    /// makes a message's context is its producer, who takes it over a consumer, who only passes it on a client.
    pub(crate) fn begin(&self, name: &'static str, kind: SpanKind) -> Option<Span> {
        if !self.trail.tracer.is_on() {
            return None;
        }
        self.trail.tracer.root(name, kind, self.clock.now())
    }

    /// The session has ended before the device acknowledged.
    pub(crate) fn unacknowledged(&self, mut span: Span) {
        span.fail("session_ended");
        span.end(self.clock.now());
    }

    /// The span ends, by this error if it failed.
    pub(crate) fn end(&self, span: Option<Span>, failed: Option<&Error>) {
        let Some(mut span) = span else { return };
        if let Some(error) = failed {
            span.fail(error.code().as_str_name());
        }
        span.end(self.clock.now());
    }

    /// Something happened to a send that stands in no one log.
    pub(crate) fn of_send(&self, kind: HopKind, send_id: &[u8]) {
        if self.trail.hops.is_on() {
            self.trail.hops.note(Hop::of_send(kind, self.clock.now(), tag(send_id), 0));
        }
    }

    /// The send was refused.
    pub(crate) fn refused(&self, send_id: &[u8], error: &Error) {
        if self.trail.hops.is_on() {
            let code = u64::try_from(error.code).unwrap_or(0);
            self.trail.hops.note(Hop::of_send(HopKind::Refused, self.clock.now(), tag(send_id), code));
        }
    }

    /// When an append begins, where somebody will want to know.
    pub(crate) fn appending(&self) -> Option<UnixMillis> {
        self.trail.tracer.is_on().then(|| self.clock.now())
    }

    /// The entry with these sends, in the order of its items, is durable.
    pub(crate) fn appended(&self, shard: ShardId, at: EntryRef, tickets: &[Arc<Ticket>], began: Option<UnixMillis>) {
        if !self.trail.is_on() {
            return;
        }
        let (now, entry) = (self.clock.now(), tag(at.id.as_bytes()));
        for (index, ticket) in (0u16..).zip(tickets) {
            let place = Position::new(LogEpoch::NONE, at.seq, index).get();
            let (kind, ids, shard) = (HopKind::Accepted, shard, shard.get());
            let send = tag(ticket.send_id());
            self.trail.hops.note(Hop { at_ms: now.0, kind, shard, place, first: send, second: entry });
            if let Some(mut span) = self.append_span(ids, ticket, began) {
                span.say("pli.seq", at.seq.get().cast_signed());
                span.end(now);
            }
        }
    }

    /// The entry with these sends will not be appended any more.
    pub(crate) fn append_failed(
        &self,
        shard: ShardId,
        tickets: &[Arc<Ticket>],
        began: Option<UnixMillis>,
        error: &Error,
    ) {
        for ticket in tickets {
            let span = self.append_span(shard, ticket, began);
            self.end(span, Some(error));
        }
    }

    fn append_span(&self, shard: ShardId, ticket: &Ticket, began: Option<UnixMillis>) -> Option<Span> {
        let mut span = self.trail.tracer.child(ticket.context(), "append", SpanKind::Client, began?)?;
        span.say("pli.shard", i64::from(shard.get()));
        Some(span)
    }

    /// A doorbell came in.
    pub(crate) fn bell(&self, shard: ShardId, position: Position, session: SessionId) {
        self.of_session(HopKind::Bell, shard, position, session);
    }

    /// The device acknowledged up to here.
    pub(crate) fn acked(&self, shard: ShardId, position: Position, session: SessionId) {
        self.of_session(HopKind::Acked, shard, position, session);
    }

    fn of_session(&self, kind: HopKind, shard: ShardId, position: Position, session: SessionId) {
        if self.trail.hops.is_on() {
            let (at_ms, second) = (self.clock.now().0, tag(session.as_bytes()));
            self.trail.hops.note(Hop { at_ms, kind, shard: shard.get(), place: position.get(), first: 0, second });
        }
    }

    /// An encoded envelope goes to the device; the span of one that is traced, which lasts until it is acknowledged.
    pub(crate) fn told(&self, shard: ShardId, position: Position, session: SessionId, envelope: &[u8]) -> Option<Span> {
        if !self.trail.is_on() {
            return None;
        }
        let (now, outside) = (self.clock.now(), outside(envelope));
        let (place, first, second) = (position.get(), tag(outside.send_id), tag(session.as_bytes()));
        self.trail.hops.note(Hop { at_ms: now.0, kind: HopKind::Told, shard: shard.get(), place, first, second });
        let mut span =
            self.trail.tracer.child(TraceContext::parse(outside.traceparent), "deliver", SpanKind::Client, now)?;
        span.say("pli.shard", i64::from(shard.get()));
        span.say("pli.position", place.cast_signed());
        Some(span)
    }
}
