// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the server answers.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use pli_api::{ErrorCode, common, edge};
use pli_domain::{SendId, UnixMillis};
use rand_chacha::rand_core::RngCore;

use super::{Outbox, OutboxConfig, OutboxEvent, SendState};

impl Outbox {
    /// The verdict on one send. Nothing for a message that is no longer here or was answered before.
    pub fn on_result(
        &mut self,
        result: &edge::SendResult,
        now: UnixMillis,
        rng: &mut impl RngCore,
    ) -> Option<OutboxEvent> {
        let send_id = SendId::try_from(result.send_id.as_ref()).ok()?;
        let at = *self.by_send_id.get(&send_id)?;
        if !self.in_flight.contains(&at) {
            return None;
        }
        let result = result.result.as_ref()?;
        if let Some(message) = self.messages.get_mut(&at) {
            message.asked = false;
            self.dirty.insert(at);
        }
        match result {
            edge::send_result::Result::Accepted(accepted) => self.accepted(at, accepted),
            edge::send_result::Result::Refused(why) => self.refused(at, why, now, rng),
        }
    }

    /// What became of a receipt: one event for each message that it stands for.
    pub fn on_settled(&mut self, settled: &edge::Settled, now: UnixMillis, rng: &mut impl RngCore) -> Vec<OutboxEvent> {
        let Some(places) = self.by_receipt.get(&settled.receipt).cloned() else { return Vec::new() };
        let stored = match &settled.outcome {
            Some(edge::settled::Outcome::Stored(_)) => true,
            // A receipt that the server does not know tells nothing about the message: send it again.
            Some(edge::settled::Outcome::Resend(_) | edge::settled::Outcome::Refused(_)) => false,
            None => return Vec::new(),
        };
        let each = places.into_iter().filter_map(|at| {
            if stored {
                let message = self.remove(at)?;
                let (send_id, lane) = (message.send_id, message.lane);
                return Some(OutboxEvent::Stored { send_id, lane, message: Box::new(message) });
            }
            self.resend(at, &settled.receipt, now, rng)
        });
        each.collect()
    }

    /// The server no longer knows what it accepted: everything with an open receipt is sent again. One event for each.
    /// Nothing leaves as it was sealed: whether its conversation is still there is to be asked first.
    pub fn send_all_again(&mut self) -> Vec<OutboxEvent> {
        self.messages.values_mut().for_each(|message| message.sealed = None);
        let open: BTreeSet<u64> = std::mem::take(&mut self.by_receipt).into_values().flatten().collect();
        self.to_present.clear();
        let mut events = Vec::new();
        for at in open {
            self.queue_again(at, UnixMillis(0));
            self.dirty.insert(at);
            let message = self.messages.get(&at);
            events.extend(message.map(|m| OutboxEvent::Resending { send_id: m.send_id, lane: m.lane }));
        }
        events
    }

    fn accepted(&mut self, at: u64, accepted: &edge::Accepted) -> Option<OutboxEvent> {
        let message = self.messages.get_mut(&at)?;
        let accepted_at = UnixMillis(accepted.accepted_at_ms);
        // Copied: the frame that the receipt came in must not live as long as the receipt.
        let receipt = Bytes::copy_from_slice(&accepted.receipt);
        message.state = SendState::Accepted { receipt: receipt.clone(), accepted_at };
        message.sealed = None;
        let event = OutboxEvent::Accepted { send_id: message.send_id, lane: message.lane, accepted_at };
        self.by_receipt.entry(receipt).or_default().insert(at);
        self.in_flight.remove(&at);
        self.dirty.insert(at);
        Some(event)
    }

    fn refused(
        &mut self,
        at: u64,
        why: &common::Error,
        now: UnixMillis,
        rng: &mut impl RngCore,
    ) -> Option<OutboxEvent> {
        let (send_id, lane) = self.messages.get(&at).map(|m| (m.send_id, m.lane))?;
        // Who was put out since hears of it in the queue, behind what was said before.
        let is_ahead = why.code() == ErrorCode::UnknownConversation && why.current_epoch > 0;
        if why.code() == ErrorCode::WrongEpoch || is_ahead {
            // The first catch-up is at once; a server that keeps refusing is not asked in a loop.
            let delay = self.backoff(at, rng);
            let repeated = self.messages.get(&at).is_some_and(|m| m.attempts > 2);
            self.queue_again(at, if repeated { now.after(delay) } else { now });
            self.held.insert(lane.conversation);
            if let Some(message) = self.messages.get_mut(&at) {
                message.sealed = None;
            }
            return Some(OutboxEvent::WrongEpoch { send_id, lane, current_epoch: why.current_epoch });
        }
        if !why.code().is_temporary() {
            let message = Box::new(self.remove(at)?);
            return Some(OutboxEvent::Refused { send_id, lane, message, why: why.clone() });
        }
        let asked = Duration::from_millis(u64::from(why.retry_after_ms));
        let delay = asked.saturating_add(self.backoff(at, rng));
        self.queue_again(at, now.after(delay));
        Some(OutboxEvent::Waiting { send_id, lane, why: why.clone() })
    }

    fn resend(&mut self, at: u64, receipt: &Bytes, now: UnixMillis, rng: &mut impl RngCore) -> Option<OutboxEvent> {
        self.forget_receipt(receipt, at);
        let delay = self.backoff(at, rng);
        self.queue_again(at, now.after(delay));
        self.dirty.insert(at);
        self.messages.get(&at).map(|m| OutboxEvent::Resending { send_id: m.send_id, lane: m.lane })
    }

    fn queue_again(&mut self, at: u64, not_before: UnixMillis) {
        self.in_flight.remove(&at);
        if let Some(message) = self.messages.get_mut(&at) {
            // What had a receipt was given to others, or some of them.
            message.in_doubt |= matches!(message.state, SendState::Accepted { .. });
            message.state = SendState::Queued { not_before };
            self.queued.entry(message.lane).or_default().insert(at);
        }
    }

    fn backoff(&mut self, at: u64, rng: &mut impl RngCore) -> Duration {
        let Some(message) = self.messages.get_mut(&at) else { return Duration::ZERO };
        message.attempts = message.attempts.saturating_add(1);
        full_jitter(&self.config, message.attempts, rng)
    }
}

/// A delay drawn evenly from zero to the doubled bound ("full jitter": M. Brooker, Exponential Backoff And Jitter,
/// 2015).
fn full_jitter(config: &OutboxConfig, attempt: u32, rng: &mut impl RngCore) -> Duration {
    let first = u64::try_from(config.backoff_first.as_millis()).unwrap_or(u64::MAX);
    let most = u64::try_from(config.backoff_max.as_millis()).unwrap_or(u64::MAX);
    let bound = first.saturating_mul(1 << attempt.saturating_sub(1).min(20)).min(most);
    Duration::from_millis(rng.next_u64() % (bound + 1))
}
