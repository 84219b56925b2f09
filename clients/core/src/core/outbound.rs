// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages on their way out, and ticks for those that came in.

use std::collections::{BTreeMap, BTreeSet};

use pli_api::{ErrorCode, common, edge, refusal};
use pli_domain::limits::ENVELOPE_BODY_BYTES_MAX;
use pli_domain::{Class, ConversationId, SendId, UnixMillis};
use prost::Message as _;
use rand_chacha::rand_core::RngCore;

use super::conversation::{Conversation, Phase};
use super::history::Draft;
use super::lives::lives_of;
use super::tables::RowStatus;
use super::{Core, Event};
use crate::content::{Addressed, Content, Frame, GroupInfo, Kind, LifeSpan};
use crate::mls::Mls;
use crate::outbox::{OutLane, OutMessage, OutboxEvent, OutboxFull, Seal};

/// Said of a message whose answer was lost with a connection and that cannot be asked for again.
const IN_DOUBT: &str = ", and the answer to an earlier try was lost: it may have been accepted";

/// What sealing needs to know of a conversation that is ready.
struct Ready {
    kind: Kind,
    lane_base: u64,
    lives: Vec<LifeSpan>,
    /// The highest place in the chat, and the lives of this profile that gave places there.
    said: u64,
    line: Vec<u64>,
    addressed: Vec<Addressed>,
    /// Numbers that stand for nothing.
    unsent: Vec<(u64, u64)>,
}

impl Core {
    pub(super) fn random_id(&mut self) -> [u8; 16] {
        let mut id = [0; 16];
        self.rng.fill_bytes(&mut id);
        id
    }

    /// Puts a content into the outbox; `order` is its place in the history, 0 for none.
    pub(super) fn push(
        &mut self,
        lane: OutLane,
        order: u64,
        content: &Content,
        now: UnixMillis,
    ) -> Result<(SendId, u64), OutboxFull> {
        let mut draft = Draft { order, content: content.encode().into(), ..Draft::default() };
        if order != 0 {
            (draft.place, draft.written_in) = (self.said(lane.conversation).saturating_add(1), self.life);
        }
        let place = draft.place;
        let pushed = self.push_draft(lane, draft, now)?;
        self.note_said(lane.conversation, place);
        Ok(pushed)
    }

    /// The same for what has its place in the history and the chat, or none.
    pub(super) fn push_draft(
        &mut self,
        lane: OutLane,
        draft: Draft,
        now: UnixMillis,
    ) -> Result<(SendId, u64), OutboxFull> {
        let send_id = SendId::from_bytes(self.random_id());
        let draft = Draft { sent_at_ms: self.session.server_time(now).0, ..draft };
        let lane_no = self.outbox.push(send_id, lane, draft.encode_to_vec().into())?;
        self.note_number(lane, lane_no, send_id);
        Ok((send_id, lane_no))
    }

    /// Tells newcomers what they came into: what a group is called, and of a chat of two that it is one.
    pub(super) fn greet(&mut self, id: ConversationId, now: UnixMillis) {
        match self.conversations.get(&id).map(Conversation::kind) {
            Some(Kind::Group) => self.announce_name(id, now),
            Some(Kind::Direct) => self.tell_kind(id, now),
            Some(Kind::Unknown) | None => {}
        }
    }

    /// Tells everybody what the group is called.
    pub(super) fn announce_name(&mut self, id: ConversationId, now: UnixMillis) {
        let Some(content) = self.group_info(id) else { return };
        // A full outbox leaves newcomers without the name until the next change; messages matter more.
        let _ = self.push(OutLane { conversation: id, class: Class::Message }, 0, &content, now);
    }

    /// What a group with a name is called.
    pub(super) fn group_info(&mut self, id: ConversationId) -> Option<Content> {
        let conversation = self.conversations.get(&id)?;
        let (name, root) = (conversation.name.clone()?, conversation.root);
        // Only what goes on for another one is completed by its members.
        let outcasts = root.map(|_| self.outcasts_told(id));
        Some(GroupInfo { name, root, outcasts: outcasts.unwrap_or_default() }.content(self.random_id()))
    }

    /// Seals and sends what may leave now.
    pub(super) fn poll_outbox(&mut self, now: UnixMillis) {
        let ready = self.ready_conversations();
        let mls = &mut self.mls;
        let mut lowest: BTreeMap<ConversationId, u64> = BTreeMap::new();
        let poll = self.outbox.poll(now, |message| {
            let sealed = seal(mls, &ready, message);
            if matches!(sealed, Seal::Sealed(_)) && message.lane.class == Class::Message {
                let lowest = lowest.entry(message.lane.conversation).or_insert(message.lane_no);
                *lowest = message.lane_no.min(*lowest);
            }
            sealed
        });
        for (id, lane_no) in lowest {
            self.address_anew(id, lane_no);
        }
        self.out.frames.extend(poll.frames);
        for event in poll.events {
            self.outbox_event(event);
        }
    }

    fn ready_conversations(&self) -> BTreeMap<ConversationId, Option<Ready>> {
        if self.compare || !self.session.is_ready() || self.session.is_taking_in(self.stepped_at) {
            // What the server has of a conversation is not known yet, or nothing leaves.
            return BTreeMap::new();
        }
        let waiting: BTreeSet<ConversationId> = self.outbox.waiting_conversations();
        let each = waiting.into_iter().filter_map(|id| {
            let Some(conversation) = self.conversations.get(&id) else { return Some((id, None)) };
            let open = conversation.phase == Phase::Active
                && conversation.vouched
                && !conversation.rejoining
                && conversation.behind.is_none();
            match conversation.phase {
                Phase::Left | Phase::Failed if self.heir(id).is_some() => None,
                Phase::Left | Phase::Failed => Some((id, None)),
                _ if !open => None,
                _ => Some((
                    id,
                    Some(Ready {
                        kind: conversation.kind(),
                        lane_base: conversation.lane_base(),
                        lives: conversation.untold_lives(),
                        said: self.said(id),
                        line: self.line(id),
                        addressed: conversation.addressed(),
                        unsent: conversation.unsent.clone(),
                    }),
                )),
            }
        });
        each.collect()
    }

    pub(super) fn send_results(&mut self, results: &edge::SendResults, now: UnixMillis) {
        for result in &results.results {
            if let Some(event) = self.outbox.on_result(result, now, &mut self.rng) {
                self.outbox_event(event);
            }
        }
    }

    pub(super) fn settled(&mut self, batch: &edge::SettledBatch, now: UnixMillis) {
        for settled in &batch.settled {
            for event in self.outbox.on_settled(settled, now, &mut self.rng) {
                self.outbox_event(event);
            }
        }
    }

    pub(super) fn outbox_event(&mut self, event: OutboxEvent) {
        match event {
            OutboxEvent::Accepted { send_id, lane, accepted_at } => {
                let Some(message) = self.outbox.get(&send_id).cloned() else { return };
                self.write_own(&message, RowStatus::Accepted, accepted_at);
                self.tell(
                    &message,
                    Event::Accepted { conversation: lane.conversation, message: send_id, at: accepted_at },
                );
            }
            OutboxEvent::Stored { send_id, lane, message } => {
                let at = message.accepted_at().unwrap_or(UnixMillis(0));
                self.write_own(&message, RowStatus::Stored, at);
                self.tell(&message, Event::Stored { conversation: lane.conversation, message: send_id });
                self.keep(&message);
            }
            OutboxEvent::Resending { send_id, lane } => {
                let Some(message) = self.outbox.get(&send_id).cloned() else { return };
                self.write_own(&message, RowStatus::Waiting, UnixMillis(0));
                self.tell(&message, Event::Resending { conversation: lane.conversation, message: send_id });
            }
            OutboxEvent::Waiting { lane, why, .. } => {
                self.out.events.push(Event::Waiting { conversation: lane.conversation, why });
            }
            OutboxEvent::WrongEpoch { lane, current_epoch, .. } => {
                self.await_epoch(lane.conversation, current_epoch);
            }
            OutboxEvent::Refused { lane, message, why, .. } => {
                let over = why.code() == ErrorCode::UnknownConversation;
                match self.heir(lane.conversation).filter(|_| over) {
                    Some(heir) => self.readdress(*message, heir),
                    None => self.refuse(&message, &why),
                }
                if over {
                    self.left(lane.conversation);
                }
            }
        }
    }

    /// One's own message will never be sent, or not again.
    pub(super) fn refuse(&mut self, message: &OutMessage, why: &common::Error) {
        self.write_own(message, RowStatus::Refused, UnixMillis(0));
        // Who misses it later has lost nothing that could be sent again.
        self.renumbered(message.lane, message.lane_no);
        let conversation = message.lane.conversation;
        let mut why = why.clone();
        if message.is_in_doubt() {
            why.message.push_str(IN_DOUBT);
        }
        self.tell(message, Event::Refused { conversation, message: message.send_id, why });
    }

    /// Events are for what a user wrote, not for ticks and names.
    fn tell(&mut self, message: &OutMessage, event: Event) {
        if Draft::decode(message.content.clone()).is_ok_and(|draft| draft.order != 0) {
            self.out.events.push(event);
        }
    }
}

/// The first of the numbers before this one that stand for nothing; 0 for none.
fn unsent_before(unsent: &[(u64, u64)], lane_no: u64) -> u64 {
    unsent.iter().find(|(first, last)| (*first..=*last).contains(&(lane_no - 1))).map_or(0, |(first, _)| *first)
}

fn seal(mls: &mut Mls, ready: &BTreeMap<ConversationId, Option<Ready>>, message: &OutMessage) -> Seal {
    let id = message.lane.conversation;
    let ready = match ready.get(&id) {
        None => return Seal::Wait,
        Some(None) => return Seal::Refuse(refusal(ErrorCode::UnknownConversation, "the conversation was left")),
        Some(Some(ready)) => ready,
    };
    let Ok(draft) = Draft::decode(message.content.clone()) else {
        return Seal::Refuse(refusal(ErrorCode::Internal, "the stored message does not decode"));
    };
    let numbered = message.lane.class == Class::Message;
    let frame = Frame {
        lane_no: message.lane_no,
        lane_base: ready.lane_base,
        kind: ready.kind.into(),
        sent_at_ms: draft.sent_at_ms,
        content: draft.content,
        lives: if numbered { lives_of(&ready.lives, message.lane_no) } else { Vec::new() },
        place: draft.place,
        written_in: draft.written_in,
        line: if (1..ready.said).contains(&draft.place) { ready.line.clone() } else { Vec::new() },
        addressed: if numbered { ready.addressed.clone() } else { Vec::new() },
        unsent_from: if numbered { unsent_before(&ready.unsent, message.lane_no) } else { 0 },
    };
    match mls.seal(id, message.send_id, message.lane.class, &frame.to_bytes()) {
        Ok(sealed) if sealed.body.len() > ENVELOPE_BODY_BYTES_MAX => {
            Seal::Refuse(refusal(ErrorCode::EnvelopeTooLarge, "the sealed message is larger than an envelope"))
        }
        Ok(sealed) => Seal::Sealed(sealed),
        Err(_) => Seal::Wait,
    }
}
