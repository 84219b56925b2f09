// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an owner remembers and traces of each envelope. No envelope is looked into, and no clock asked, where nobody
//! wants to know.

use pli_api::{delivery, outside};
use pli_domain::{EdgeId, Position, SessionId, UnixMillis};
use pli_ports::LogEntry;
use pli_runtime::trail::{Hop, HopKind, SpanKind, TraceContext, tag};

use super::Context;
use super::live::Live;

impl Context {
    /// Notes a hop that names nobody, of the envelope at `position`.
    pub fn hop(&self, kind: HopKind, position: Position) {
        self.note(kind, position, 0, 0);
    }

    /// Notes a hop of the envelope at `position` to or from a session, by its tag.
    pub fn hop_of_session(&self, kind: HopKind, position: Position, session: u64) {
        self.note(kind, position, 0, session);
    }

    /// The owner rang for the envelope at `position`.
    pub fn rung(&self, position: Position, edge: EdgeId, session: SessionId) {
        self.note(HopKind::Rung, position, tag(edge.as_bytes()), tag(session.as_bytes()));
    }

    fn note(&self, kind: HopKind, position: Position, first: u64, second: u64) {
        if self.ports.trail.hops.is_on() {
            let (at_ms, place) = (self.ports.clock.now().0, position.get());
            self.ports.trail.hops.note(Hop { at_ms, kind, shard: self.shard.get(), place, first, second });
        }
    }
}

impl Live {
    /// The owner has read an envelope; the first of its entry also tells how late.
    pub fn note_read(&self, entry: &LogEntry, position: Position, envelope: &[u8], now: UnixMillis) {
        let trail = &self.context.ports.trail;
        let first = position.index() == 0;
        if envelope.is_empty() || !(first || trail.is_on()) {
            return;
        }
        let outside = outside(envelope);
        if first && outside.accepted_at_ms > 0 {
            let late = now.since(UnixMillis(outside.accepted_at_ms));
            let replayed = entry.seq <= self.replayed_to;
            self.context.counters.levels.read_after(late.as_secs_f64(), replayed);
        }
        let (shard, place) = (self.context.shard.get(), position.get());
        let (send, entry) = (tag(outside.send_id), tag(entry.id.as_bytes()));
        trail.hops.note(Hop { at_ms: now.0, kind: HopKind::Read, shard, place, first: send, second: entry });
        if !trail.tracer.is_on() {
            return;
        }
        if let Some(mut span) =
            trail.tracer.child(TraceContext::parse(outside.traceparent), "read", SpanKind::Consumer, now)
        {
            span.say("pli.shard", i64::from(shard));
            span.say("pli.position", place.cast_signed());
            span.end(now);
        }
    }

    /// A page goes to a session.
    pub fn note_page(&self, kind: HopKind, page: &delivery::Page, session: u64) {
        if !self.context.ports.trail.hops.is_on() {
            return;
        }
        for delivery in &page.deliveries {
            if let Ok(position) = Position::from_u64(delivery.position) {
                self.context.hop_of_session(kind, position, session);
            }
        }
    }

    /// Says how far behind the shard is and what the tail holds.
    pub fn note_levels(&self) {
        let oldest = self.tail.iter().next().map(|entry| entry.read_at);
        self.owned.levels.set(self.tail.len(), oldest, self.tail.bytes, self.tail.slots);
    }
}
