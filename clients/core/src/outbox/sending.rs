// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections and what leaves on them.

use bytes::Bytes;
use pli_api::{ErrorCode, edge, log, refusal};
use pli_domain::{ConversationId, UnixMillis};

use super::spread::{InOrder, OnWire};
use super::{
    BATCH_BODY_BYTES_MAX, BATCH_SENDS_MAX, OutMessage, Outbox, OutboxEvent, PENDING_RECEIPTS_MAX, Seal, SendState,
};

/// What [`Outbox::poll`] answers.
#[derive(Debug, Default)]
pub struct OutboxPoll {
    /// To be sent in this order, after the changes of the same step are committed.
    pub frames: Vec<edge::ClientFrame>,
    /// What became of messages without the server's doing (expired, cannot be sealed).
    pub events: Vec<OutboxEvent>,
}

impl Outbox {
    /// A session is `Ready`: what was in flight is sent again and every open receipt presented. `server_now` is the
    /// server's time at local time `now`.
    pub fn connected(&mut self, now: UnixMillis, server_now: UnixMillis, send_window: usize) {
        self.disconnected();
        self.connected = true;
        self.server_offset_ms = server_now.0.cast_signed().wrapping_sub(now.0.cast_signed());
        self.window = send_window.max(1);
        self.to_present = self.by_receipt.keys().cloned().collect();
        self.present_at = None;
    }

    /// The connection is gone: nothing leaves until [`Outbox::connected`].
    pub fn disconnected(&mut self) {
        self.connected = false;
        self.to_present.clear();
        for at in std::mem::take(&mut self.in_flight) {
            if let Some(message) = self.messages.get_mut(&at) {
                message.state = SendState::Queued { not_before: UnixMillis(0) };
                self.queued.entry(message.lane).or_default().insert(at);
            }
        }
    }

    /// The conversation caught up with the server's epoch: what waited for it is sealed again and sent.
    pub fn epoch_ready(&mut self, conversation: ConversationId) {
        self.held.remove(&conversation);
        for message in self.messages.values_mut().filter(|m| m.lane.conversation == conversation) {
            message.sealed.iter_mut().for_each(InOrder::spend);
        }
    }

    /// What leaves now. `seal` is asked for each message that leaves and is not sealed in memory, or was so long before
    /// others of its conversation that its key may be gone; it sees the content and its lane number.
    pub fn poll(&mut self, now: UnixMillis, mut seal: impl FnMut(&OutMessage) -> Seal) -> OutboxPoll {
        self.polled_at = now;
        let mut out = OutboxPoll::default();
        if !self.connected {
            return out;
        }
        self.present(now, &mut out);
        let mut batch = Batch::default();
        let mut waiting = std::collections::BTreeSet::new();
        let mut wire = self.on_wire();
        while self.in_flight.len() < self.window {
            let head = self.queued.iter().filter(|(lane, _)| !waiting.contains(*lane)).filter_map(|(lane, set)| {
                let at = *set.first()?;
                self.may_leave(&self.messages[&at], now).then_some((at, *lane))
            });
            let Some((at, lane)) = head.min() else { break };
            match self.prepare(at, now, &mut wire, &mut seal) {
                Prepared::Send(send) => {
                    self.unqueue(at, lane);
                    self.in_flight.insert(at);
                    batch.add(send, &mut out.frames);
                }
                Prepared::Wait => {
                    waiting.insert(lane);
                }
                Prepared::Dropped(event) => out.events.push(event),
            }
        }
        batch.finish(&mut out.frames);
        out
    }

    /// When to call [`Outbox::poll`] again if nothing else happens.
    pub fn next_deadline(&self) -> Option<UnixMillis> {
        if !self.connected {
            return None;
        }
        let heads = self.queued.values().filter_map(|set| match self.messages[set.first()?].state {
            SendState::Queued { not_before } if not_before > self.polled_at => Some(not_before),
            _ => None,
        });
        heads.chain(self.present_at.filter(|_| !self.by_receipt.is_empty())).min()
    }

    fn may_leave(&self, message: &OutMessage, now: UnixMillis) -> bool {
        let due = matches!(message.state, SendState::Queued { not_before } if not_before <= now);
        due && !self.held.contains(&message.lane.conversation)
    }

    fn prepare(
        &mut self,
        at: u64,
        now: UnixMillis,
        wire: &mut OnWire,
        seal: &mut impl FnMut(&OutMessage) -> Seal,
    ) -> Prepared {
        let server_now = self.server_time(now);
        let expires_at = self.messages[&at].expires_at.unwrap_or_else(|| server_now.after(self.config.life));
        if expires_at <= server_now {
            return self.give_up(at, refusal(ErrorCode::EnvelopeExpired, "it was not sent within its life"));
        }
        let sealed = match self.in_order(at, wire, seal) {
            Seal::Sealed(sealed) => sealed,
            Seal::Wait => return Prepared::Wait,
            Seal::Refuse(why) => return self.give_up(at, why),
        };
        let Some(message) = self.messages.get_mut(&at) else { return Prepared::Wait };
        let first = message.expires_at.replace(expires_at).is_none();
        message.in_doubt |= message.asked;
        if !std::mem::replace(&mut message.asked, true) || first {
            self.dirty.insert(at);
        }
        message.state = SendState::Sent;
        Prepared::Send(edge::Send {
            send_id: Bytes::copy_from_slice(message.send_id.as_bytes()),
            conversation: Bytes::copy_from_slice(message.lane.conversation.as_bytes()),
            epoch: sealed.epoch,
            class: log::Class::from(message.lane.class).into(),
            expires_at_ms: expires_at.0,
            body: sealed.body,
        })
    }

    fn give_up(&mut self, at: u64, why: pli_api::common::Error) -> Prepared {
        match self.remove(at) {
            Some(m) => {
                let (send_id, lane) = (m.send_id, m.lane);
                Prepared::Dropped(OutboxEvent::Refused { send_id, lane, message: Box::new(m), why })
            }
            None => Prepared::Wait,
        }
    }

    fn present(&mut self, now: UnixMillis, out: &mut OutboxPoll) {
        match self.present_at {
            Some(at) if at <= now => self.to_present = self.by_receipt.keys().cloned().collect(),
            Some(_) => {}
            None => self.present_at = Some(now.after(self.config.receipt_repeat)),
        }
        if self.to_present.is_empty() {
            return;
        }
        self.present_at = Some(now.after(self.config.receipt_repeat));
        let receipts: Vec<Bytes> = std::mem::take(&mut self.to_present).into_iter().collect();
        for part in receipts.chunks(PENDING_RECEIPTS_MAX) {
            let pending = edge::Pending { receipts: part.to_vec() };
            out.frames.push(edge::ClientFrame { frame: Some(edge::client_frame::Frame::Pending(pending)) });
        }
    }
}

enum Prepared {
    Send(edge::Send),
    Wait,
    Dropped(OutboxEvent),
}

#[derive(Default)]
struct Batch {
    sends: Vec<edge::Send>,
    bytes: usize,
}

impl Batch {
    fn add(&mut self, send: edge::Send, frames: &mut Vec<edge::ClientFrame>) {
        if self.sends.len() >= BATCH_SENDS_MAX || self.bytes + send.body.len() > BATCH_BODY_BYTES_MAX {
            self.finish(frames);
        }
        self.bytes += send.body.len();
        self.sends.push(send);
    }

    fn finish(&mut self, frames: &mut Vec<edge::ClientFrame>) {
        if !self.sends.is_empty() {
            let batch = edge::SendBatch { sends: std::mem::take(&mut self.sends) };
            frames.push(edge::ClientFrame { frame: Some(edge::client_frame::Frame::Send(batch)) });
        }
        self.bytes = 0;
    }
}
