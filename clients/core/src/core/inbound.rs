// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the edge delivers, strictly in order. An envelope that needs something first (a large body, a device list, a
//! missed commit) holds up what follows; nothing of that is acknowledged, so it comes again after a restart. The
//! server's delivery window bounds what waits here; a server that does not keep to it is left.

use bytes::Bytes;
use pli_api::{common, edge, log};
use pli_domain::limits::QUEUE_BYTES_MAX;
use pli_domain::{AccountId, Class, ConversationId, DeviceAddress, DeviceId, Position, SendId, UnixMillis};
use prost::Message as _;

use super::conversation::{Conversation, LostThread, Phase, Work};
use super::history::Ordered;
use super::{Core, Event, Row};
use crate::content::{Frame, Kind, LIVES_TOLD_MAX, LifeSpan};
use crate::inbox::{Delivery, InLane};
use crate::mls::{Handshake, MlsError, OpenError, Opened};

/// Something that came in the order of the queue.
#[derive(Debug)]
pub(super) enum Inbound {
    Deliver(edge::Deliver),
    CaughtUp,
    Gap(Position),
}

impl Inbound {
    fn bytes(&self) -> usize {
        if let Self::Deliver(deliver) = self { deliver.envelope.len() } else { 0 }
    }
}

/// Most that waits here, far above any delivery window; more of it than a server keeps for a device is no queue.
const WAITING_MAX: usize = 8_192;
/// How often the bytes of what waits are counted.
const COUNTED_EVERY: usize = 64;

/// What became of the first in the queue.
enum Step {
    /// Done; the next one.
    Done,
    /// Waits for an answer.
    Wait,
}

/// An envelope with its fields checked.
struct Sealed {
    position: Position,
    sender: DeviceAddress,
    send_id: SendId,
    conversation: ConversationId,
    class: Class,
    epoch: u64,
    accepted_at: UnixMillis,
    body: Bytes,
}

impl Core {
    /// Puts something behind what waits; where that is too much the session is left, and all of it comes again.
    pub(super) fn queue(&mut self, inbound: Inbound) {
        self.inbound.push_back(inbound);
        let count = self.inbound.len();
        let too_much = count.is_multiple_of(COUNTED_EVERY)
            && (count >= WAITING_MAX || self.inbound.iter().map(Inbound::bytes).sum::<usize>() > QUEUE_BYTES_MAX);
        if too_much {
            self.leave_session();
        }
    }

    /// Works through the queue until something has to be waited for.
    pub(super) fn drain_inbound(&mut self, now: UnixMillis) {
        while let Some(first) = self.inbound.pop_front() {
            let step = match &first {
                Inbound::Deliver(deliver) => self.deliver(deliver, now),
                Inbound::CaughtUp => {
                    self.set_state(super::ConnectionState::Online);
                    Step::Done
                }
                Inbound::Gap(to) => self.gap(*to),
            };
            if matches!(step, Step::Wait) {
                self.inbound.push_front(first);
                return;
            }
            self.caught_up_for = None;
        }
    }

    fn gap(&mut self, to: Position) -> Step {
        self.inbox.gap(to);
        self.hurry_epochs();
        self.resync = true;
        self.dirty.insert(Row::Resync);
        self.out.events.push(Event::Gap);
        Step::Done
    }

    fn deliver(&mut self, deliver: &edge::Deliver, now: UnixMillis) -> Step {
        let Ok(position) = Position::from_u64(deliver.position) else { return Step::Done };
        if position <= self.inbox.position() {
            return Step::Done;
        }
        if position.epoch() > self.inbox.position().epoch() {
            // The log before may have lost its end, and commits with it; what is not here of them does not come again.
            self.hurry_epochs();
        }
        let Ok(envelope) = log::Envelope::decode(deliver.envelope.clone()) else { return self.skip(position) };
        let Some(mut sealed) = check(position, &envelope) else { return self.skip(position) };
        let content = envelope.content();
        if content == log::Content::Application && self.is_done(&sealed) {
            return self.skip(position);
        }
        if content == log::Content::Commit && self.mls.epoch(sealed.conversation) > Some(sealed.epoch) {
            // Its bytes are not needed any more.
            self.queue_reached(sealed.conversation, sealed.epoch + 1);
            return self.skip(position);
        }
        if content == log::Content::Commit && self.conversations.get(&sealed.conversation).is_some_and(|c| c.rejoining)
        {
            // Whoever joins again needs none of its bytes, which may be gone, but the group info that it brings.
            self.others_went_on(sealed.conversation);
            return self.skip(position);
        }
        sealed.body = match envelope.body_or_ref {
            Some(log::envelope::BodyOrRef::Body(body)) => body,
            Some(log::envelope::BodyOrRef::BodyRef(reference)) => match self.fetch(None, &[reference], now) {
                Some(Ok(bodies)) => bodies.into_iter().next().unwrap_or_default(),
                // Empty bytes open nothing: a welcome is then replaced by joining, a commit by asking for it.
                Some(Err(())) if content == log::Content::Welcome => Bytes::new(),
                Some(Err(())) if content == log::Content::Commit => {
                    return self.future(sealed.conversation, sealed.epoch + 1, position);
                }
                Some(Err(())) => return self.skip(position),
                None => return Step::Wait,
            },
            None => return self.skip(position),
        };
        match content {
            log::Content::Application => self.application(sealed, now),
            log::Content::Commit => self.handshake_envelope(&sealed, sealed.epoch + 1, now),
            log::Content::Proposal => self.handshake_envelope(&sealed, sealed.epoch, now),
            log::Content::Welcome => self.welcome(&sealed),
            log::Content::Renew => {
                self.asked_to_renew(sealed.conversation, sealed.sender);
                self.skip(position)
            }
            log::Content::Unspecified => self.skip(position),
        }
    }

    /// Whether the content was seen and nothing is left of it to be done. A message may come again under another number
    /// or from another conversation of its chat; which place it has there only opening it tells.
    fn is_done(&self, sealed: &Sealed) -> bool {
        sealed.class == Class::Tick && self.inbox.is_seen(sealed.sender.device, sealed.send_id)
    }

    fn skip(&mut self, position: Position) -> Step {
        self.inbox.pass(position);
        Step::Done
    }

    fn application(&mut self, sealed: Sealed, now: UnixMillis) -> Step {
        let id = sealed.conversation;
        if self.waits_for_list(&sealed) {
            return Step::Wait;
        }
        let opened = match self.mls.open(id, sealed.send_id, sealed.class, &sealed.body) {
            Ok(opened) => opened,
            Err(OpenError::Future(_) | OpenError::NoGroup) if self.comes_for(id, sealed.epoch) => return Step::Wait,
            Err(OpenError::Future(epoch)) => return self.future(id, epoch, sealed.position),
            Err(OpenError::NoGroup) => return self.skip(sealed.position),
            Err(OpenError::TooOld(_) | OpenError::Repeated | OpenError::OtherEnvelope | OpenError::Invalid(_)) => {
                return self.unreadable(&sealed);
            }
        };
        self.queue_reached(id, sealed.epoch);
        let Some(frame) = self.vouched_frame(&sealed, &opened) else { return self.unreadable(&sealed) };
        self.learn_kind(id, &frame);
        if let Some(conversation) = self.conversations.get_mut(&id) {
            conversation.unreadable.remove(&sealed.sender.device);
        }
        if self.conversations.get(&id).is_some_and(|c| c.peer.is_none()) {
            self.note_members(id);
        }
        if sealed.class == Class::Tick {
            self.ticks_from(id, sealed.sender, &frame);
            self.inbox.remember(sealed.sender.device, sealed.send_id, now);
            return self.skip(sealed.position);
        }
        let seen = self.inbox.is_seen(sealed.sender.device, sealed.send_id);
        let own = self.identity.address().device;
        let mut delivery = delivery(&sealed, &frame, (own, seen));
        delivery.floor = self.first_missing(delivery.lane);
        let shown = self.inbox.deliver(delivery, now);
        let is_shown = !shown.is_empty();
        self.show(shown);
        // Behind the message, which may say what the group is called.
        if is_shown {
            self.tell_stranger(id);
        }
        Step::Done
    }

    /// The first number of a lane that this device can lack, as far as it knows by itself.
    fn first_missing(&self, lane: InLane) -> u64 {
        let mark = self.conversations.get(&lane.conversation).and_then(|known| known.ours.get(&lane.sender));
        mark.filter(|_| lane.class == Class::Message).map_or(1, |mark| mark.shown().saturating_add(1))
    }

    /// Says that there was a message, and tells its sender anew how far this device has come: one that went back in time
    /// learns from it which numbers it has used.
    fn unreadable(&mut self, sealed: &Sealed) -> Step {
        if self.inbox.is_seen(sealed.sender.device, sealed.send_id) {
            // The same bytes once more.
            return self.skip(sealed.position);
        }
        if sealed.class != Class::Tick && sealed.sender != self.identity.address() {
            let (conversation, device) = (sealed.conversation, sealed.sender.device);
            let from = self.member(sealed.sender.account);
            let mut is_news = true;
            if let Some(known) = self.conversations.get_mut(&conversation) {
                is_news = known.unreadable.insert(device);
                known.told.remove(&device);
                self.dirty.insert(Row::Conversation(conversation));
            }
            if is_news {
                self.out.events.push(Event::Unreadable { conversation, from, device });
            }
        }
        self.skip(sealed.position)
    }

    /// Whether this device may be in that epoch as soon as the verdict on its own commit comes: somebody who heard of it
    /// first may have answered already.
    fn comes_for(&self, id: ConversationId, epoch: u64) -> bool {
        // The server no longer has the verdict on a commit of another history.
        if self.compare {
            return false;
        }
        let conversation = self.conversations.get(&id).filter(|c| c.rejoining);
        conversation.and_then(|c| c.commit.as_ref()).is_some_and(|commit| epoch > commit.epoch)
    }

    /// Whether the sender's device list is asked for first: a member that no list vouches for yet.
    fn waits_for_list(&mut self, sealed: &Sealed) -> bool {
        let members = self.mls.members(sealed.conversation);
        let Some((_, key)) = members.into_iter().find(|(device, _)| *device == sealed.sender) else { return false };
        let account = sealed.sender.account;
        !self.is_heard(sealed.sender, &key) && (self.ask_lists([account]) || self.look_back(account))
    }

    /// What was sealed, if its leaf is the sender that the edge named and its account's device list vouches for it.
    fn vouched_frame(&self, sealed: &Sealed, opened: &Opened) -> Option<Frame> {
        let members = self.mls.members(sealed.conversation);
        let key = members.into_iter().find(|(device, _)| *device == opened.sender).map(|(_, key)| key);
        // Who is out meanwhile, for whatever reason, was vouched for while it was in, and sealed it then: nobody has the keys
        // of an epoch that it is not in. What was accepted before a removal may come after it.
        let vouched = key.is_none_or(|key| self.is_heard(opened.sender, &key));
        if opened.sender != sealed.sender || !vouched {
            return None;
        }
        Frame::from_bytes(&opened.plaintext).ok()
    }

    fn learn_kind(&mut self, id: ConversationId, frame: &Frame) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        if conversation.kind.is_none() && frame.kind() != Kind::Unknown {
            conversation.kind = Some(frame.kind());
            self.dirty.insert(Row::Conversation(id));
            if frame.kind() == Kind::Group {
                conversation.peer = None;
            }
            self.joined_chat(id);
        }
    }

    /// Made in an epoch that is not here: fetch the commits up to it first, and no others: what stands behind it in the
    /// queue may be as old. After that it is what it is.
    fn future(&mut self, id: ConversationId, epoch: u64, position: Position) -> Step {
        let Some(conversation) = self.conversations.get_mut(&id) else { return self.skip(position) };
        if conversation.rejoining || conversation.phase != Phase::Active {
            return self.skip(position);
        }
        if conversation.behind.is_some() {
            return Step::Wait;
        }
        // The server no longer has the commits of another history.
        if self.compare || self.caught_up_for == Some((id, epoch)) {
            return self.skip(position);
        }
        conversation.behind = Some(epoch);
        self.caught_up_for = Some((id, epoch));
        Step::Wait
    }

    /// After it the queue has come to the epoch `reached`.
    fn handshake_envelope(&mut self, sealed: &Sealed, reached: u64, now: UnixMillis) -> Step {
        let id = sealed.conversation;
        if !self.mls.is_active(id) || self.conversations.get(&id).is_none_or(|c| c.rejoining) {
            return self.skip(sealed.position);
        }
        match self.mls.handshake(id, &sealed.body) {
            Ok(Handshake::Future) => return self.future(id, sealed.epoch, sealed.position),
            Ok(handshake) => {
                self.took_handshake(id, handshake, now);
                self.queue_reached(id, reached);
            }
            Err(error) => self.lost_thread(id, &LostThread::Commit(error)),
        }
        self.skip(sealed.position)
    }

    fn welcome(&mut self, sealed: &Sealed) -> Step {
        let id = sealed.conversation;
        if self.conversations.get(&id).is_some_and(|c| c.heir.is_some()) {
            // A restored server has it once more; the conversation goes on in another one.
            return self.skip(sealed.position);
        }
        if self.conversations.get(&id).is_some_and(|c| c.phase == Phase::Founding && !c.created) {
            // Another member was first to make it.
            self.mls.forget(id);
        }
        if self.compare && self.conversations.get(&id).is_some_and(|c| c.phase == Phase::Left) {
            // One of before the backup, perhaps: the server is asked which conversations it has this device in.
            self.all_comes = false;
            return self.skip(sealed.position);
        }
        match self.mls.join(&sealed.body, None) {
            Ok(id) => {
                self.let_in(id, sealed.sender.account);
                self.note_last_resort(id);
            }
            Err(_) if self.mls.has(sealed.conversation) => {}
            // One of before the backup: this device may have left since. The server is asked which ones it has.
            Err(_) if self.compare => self.all_comes = false,
            Err(error) => self.shut_out(sealed.conversation, error),
        }
        self.skip(sealed.position)
    }

    /// This device is in the group by a welcome.
    fn let_in(&mut self, id: ConversationId, by: AccountId) {
        let held = self.inbox.begin_again(id, self.stepped_at);
        self.show(held);
        let is_new = self.conversations.get(&id).is_none_or(|known| known.phase == Phase::Founding);
        let mut old = self.conversations.remove(&id).unwrap_or_default();
        old.put_out();
        // Whom the maker did not know of is brought in by those who do.
        let gather = std::mem::take(&mut old.work).into_iter().filter(|work| matches!(work, Work::Gather(..)));
        let conversation = Conversation {
            root: old.root,
            work: gather.collect(),
            kind: old.kind,
            name: old.name,
            peer: old.peer,
            known: old.known,
            phase: Phase::Active,
            created: true,
            // Nobody who has come in meanwhile lacks what has a lower number.
            lane_base: self.first_unsent(id),
            ours: old.ours,
            told: old.told,
            theirs: old.theirs,
            gone: old.gone,
            added_by: Some(by),
            lives: old.lives,
            disowned: old.disowned,
            outcasts: old.outcasts,
            said_out: old.said_out,
            kept: old.kept,
            void: old.void,
            unsent: old.unsent,
            said: old.said,
            ..Conversation::default()
        };
        self.conversations.insert(id, conversation);
        self.gather_soon(id, self.stepped_at);
        self.number(id);
        self.doubt_unvouched(id);
        self.note_members(id);
        if is_new {
            self.keep_out(id);
        } else {
            self.take_back_present(id);
        }
        self.give_way(id);
        self.note_bases(id);
        // What was refused in an epoch of before is sealed in this one, and what was asked before is not about it.
        self.outbox.epoch_ready(id);
        self.calls.abandon_all_of(id);
    }

    /// The welcome is for a key package that is gone, or damaged: the server has this device in the group all the same, so
    /// it comes in by itself.
    fn shut_out(&mut self, id: ConversationId, error: MlsError) {
        let conversation = self.conversations.entry(id).or_default();
        conversation.phase = Phase::Active;
        conversation.created = true;
        conversation.awaits_welcome = false;
        self.dirty.insert(Row::Conversation(id));
        self.number(id);
        self.lost_thread(id, &LostThread::Welcome(error));
    }
}

/// What the inbox of `own` puts in order; what was `seen` only takes its place, without its content.
fn delivery(sealed: &Sealed, frame: &Frame, (own, seen): (DeviceId, bool)) -> Delivery {
    let lane_base = frame.base_for(own);
    let body = Ordered {
        account: Bytes::copy_from_slice(sealed.sender.account.as_bytes()),
        content: if seen { Bytes::new() } else { frame.content.clone() },
        sent_at_ms: frame.sent_at_ms,
        accepted_at_ms: sealed.accepted_at.0,
        // What was given before this device was addressed is nothing that it lacks.
        lives: frame.lives[frame.lives.len().saturating_sub(LIVES_TOLD_MAX)..]
            .iter()
            .map(|life| LifeSpan { first: life.first.max(lane_base), ..*life })
            .collect(),
        place: frame.place,
        written_in: frame.written_in,
        line: frame.line.iter().copied().take(LIVES_TOLD_MAX).collect(),
    };
    Delivery {
        position: sealed.position,
        lane: InLane { sender: sealed.sender.device, conversation: sealed.conversation, class: sealed.class },
        send_id: sealed.send_id,
        lane_no: frame.lane_no,
        lane_base,
        floor: 1,
        unsent_from: frame.unsent_from,
        body: body.encode_to_vec().into(),
    }
}

fn check(position: Position, envelope: &log::Envelope) -> Option<Sealed> {
    let sender: &common::DeviceAddress = envelope.sender.as_ref()?;
    Some(Sealed {
        position,
        sender: DeviceAddress::try_from(sender).ok()?,
        send_id: SendId::try_from(envelope.send_id.as_ref()).ok()?,
        conversation: ConversationId::try_from(envelope.conversation.as_ref()).ok()?,
        class: envelope.class().into(),
        epoch: envelope.epoch,
        accepted_at: UnixMillis(envelope.accepted_at_ms),
        body: Bytes::new(),
    })
}
