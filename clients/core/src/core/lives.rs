// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lives of a profile, and messages that are sent again because another life has used their numbers.
//!
//! A profile that was restored from a copy gives lane numbers that it has given before, and seals them under keys that
//! others have used up: nobody can open them. A watermark alone cannot tell: it names a number, and the number is right.
//! Waiting for what is on its way before anything is sealed is not enough either, for whoever tells may be away. So every
//! start of the program is a life with a random name, a number belongs to the life it was given in, both sides keep the
//! life with the watermark, and a watermark of a life that this profile does not know, or above what it gave in that life,
//! settles nothing. It says instead that this profile is older than what was sent from it: the conversation is joined
//! again, and what has not arrived is sent again, under the same send id, so that it is shown once, and a new number.
//!
//! A frame tells the lives that not everybody has told of. Whoever was away while both a copy and its original sent sees by
//! them that what it was shown under a number was the other's, and tells the number as lost.
//!
//! A member that joins again by itself has lost what it had not read. Whoever wrote meanwhile answers with a number that
//! shows nothing ([`Core::answer_return`]): what is missing below it is then told as lost like any other.
//!
//! Messages are kept for all that beyond `stored` until everybody has told of the life they were sent in, at most 16 and
//! 64 KiB of one conversation and until somebody joins who was not to read them; the rest is told as lost. Clients that do
//! not tell lives are believed as before. A member may lie about what it has: it makes others send again a few times.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use pli_domain::{Class, ConversationId, DeviceAddress, DeviceId, SendId, UnixMillis};
use prost::Message as _;
use rand_chacha::rand_core::RngCore;

use super::conversation::Conversation;
use super::history::Draft;
use super::mark::{Mark, join};
use super::notices::Notice;
use super::tables::RowStatus;
use super::{Core, Event, OutgoingMessage, Row};
use crate::content::{ADDRESSED_MAX, Addressed, LIVES_TOLD_MAX, LifeSpan, Tick};
use crate::outbox::{OutLane, OutMessage};

/// Lives that are known of one conversation; the oldest is forgotten, and what is told of it is believed.
const LIVES_MAX: usize = 64;
/// Most messages of one conversation that are kept, and their bytes.
const KEPT_MAX: usize = 16;
const KEPT_BYTES_MAX: usize = 64 * 1024;
/// A watermark that lies further above the numbers in use is not believed: no copy of a profile lags so far behind, and
/// every number that is skipped is a hole to the others.
const LANE_JUMP_MAX: u64 = 1 << 20;
/// A message lives 30 days after it is sent again, and send ids are known for 35: nobody may be shown it twice.
const SENT_AGAIN_WITHIN_MS: u64 = 4 * 24 * 3_600 * 1_000;
/// How often in one run of the program something is sent again in a conversation because one member says so.
const BELIEVED_MAX: u8 = 4;
/// How often in one run of the program members that came in again are answered in one conversation.
const ANSWERS_MAX: usize = 32;
/// Ranges of numbers that stand for nothing that are remembered of one conversation.
pub(super) const VOID_MAX: usize = 1_024;
/// Ranges of refused numbers that are kept.
pub(super) const UNSENT_MAX: usize = 16;
/// Most numbers of one conversation whose messages are remembered in one run of the program.
const NUMBERED_MAX: usize = 1_024;

/// A message that may have to be sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) send_id: SendId,
    pub(super) lane_no: u64,
    /// An encoded [`Draft`].
    pub(super) content: Bytes,
}

/// Numbers are never reused.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct KeptRecord {
    #[prost(bytes = "bytes", tag = "1")]
    send_id: Bytes,
    #[prost(uint64, tag = "2")]
    lane_no: u64,
    #[prost(bytes = "bytes", tag = "3")]
    content: Bytes,
}

impl KeptRecord {
    pub(super) fn of(kept: &Kept) -> Self {
        let send_id = Bytes::copy_from_slice(kept.send_id.as_bytes());
        Self { send_id, lane_no: kept.lane_no, content: kept.content.clone() }
    }
    pub(super) fn read(&self) -> Option<Kept> {
        let send_id = SendId::try_from(self.send_id.as_ref()).ok()?;
        Some(Kept { send_id, lane_no: self.lane_no, content: self.content.clone() })
    }
}

/// What a frame with this number tells of lives; nothing for what was numbered by a version that knew none.
pub(super) fn lives_of(lives: &[LifeSpan], lane_no: u64) -> Vec<LifeSpan> {
    let until = lives.iter().rposition(|life| life.first <= lane_no).map_or(0, |at| at + 1);
    lives[until.saturating_sub(LIVES_TOLD_MAX)..until].to_vec()
}

/// Begins a life with this number. One that gave none is forgotten.
fn begin(lives: &mut Vec<LifeSpan>, id: u64, first: u64) {
    while lives.pop_if(|last| last.first >= first).is_some() {}
    lives.push(LifeSpan { id, first });
    lives.drain(..lives.len().saturating_sub(LIVES_MAX));
}

impl Conversation {
    /// These devices came in: they are addressed from this number on.
    pub(super) fn address_from<'a>(&mut self, first: u64, newcomers: impl Iterator<Item = &'a DeviceAddress>) {
        for newcomer in newcomers {
            let mark = self.theirs.entry(newcomer.device).or_default();
            (mark.base, mark.returned) = (first, false);
        }
        self.lane_base = first;
        // Whoever joins is not to read what was said before; whoever was in already is.
        self.kept.clear();
    }

    /// These numbers stand for no message, or not any more.
    fn make_void(&mut self, first: u64, last: u64) {
        if first <= last {
            self.void.push((first, last));
            self.void.drain(..self.void.len().saturating_sub(VOID_MAX));
        }
    }

    /// The last number up to this one that stands for a message.
    fn last_real(&self, mut last: u64) -> u64 {
        while let Some((first, _)) = self.void.iter().find(|(first, end)| (*first..=*end).contains(&last)) {
            last = first.saturating_sub(1);
        }
        last
    }

    /// Whom a frame tells from which number on it is addressed.
    pub(super) fn addressed(&self) -> Vec<Addressed> {
        let is_before = |mark: &Mark| (1..self.lane_base()).contains(&mark.base) && mark.delivered < mark.base;
        let those = || self.theirs.iter().filter(|(_, mark)| is_before(mark));
        let returned = those().filter(|(_, mark)| mark.returned).chain(those().filter(|(_, mark)| !mark.returned));
        let each = returned
            .take(ADDRESSED_MAX)
            .map(|(device, mark)| Addressed { device: Bytes::copy_from_slice(device.as_bytes()), first: mark.base });
        each.collect()
    }

    /// The lives that somebody has not told of, and the one before them.
    pub(super) fn untold_lives(&self) -> Vec<LifeSpan> {
        let place = |mark: &Mark| self.lives.iter().position(|life| life.id == mark.life);
        let last = self.lives.len().saturating_sub(1);
        let told = self
            .theirs
            .values()
            .filter(|mark| mark.is_told())
            .map(|mark| if mark.life == 0 { last } else { place(mark).unwrap_or(0) });
        self.lives[told.min().unwrap_or(0)..].to_vec()
    }
}

/// The last number that was given in a life, of `sent` in all; none for a life of somebody else.
fn last_given(lives: &[LifeSpan], tick: &Tick, sent: u64) -> Option<u64> {
    // Nothing is known of lives, on that side or on this one.
    if tick.life == 0 || lives.is_empty() {
        return Some(sent);
    }
    match lives.iter().position(|life| life.id == tick.life) {
        Some(at) => Some(lives.get(at + 1).map_or(sent, |next| next.first.saturating_sub(1))),
        // Of a life that is forgotten.
        None => lives.first().map(|oldest| oldest.first.saturating_sub(1)).filter(|last| tick.delivered <= *last),
    }
}

fn message_lane(id: ConversationId) -> OutLane {
    OutLane { conversation: id, class: Class::Message }
}

impl Core {
    /// Notes what got a number, and the life in which it is given. A message has no other number any more.
    pub(super) fn note_number(&mut self, lane: OutLane, lane_no: u64, send_id: SendId) {
        let id = self.life;
        if lane.class != Class::Message {
            return;
        }
        let Some(conversation) = self.conversations.get_mut(&lane.conversation) else { return };
        conversation.numbered.retain(|_, other| *other != send_id);
        conversation.numbered.insert(lane_no, send_id);
        if conversation.numbered.len() > NUMBERED_MAX {
            conversation.numbered.pop_first();
        }
        if conversation.lives.last().is_some_and(|last| last.id == id) {
            return;
        }
        begin(&mut conversation.lives, id, lane_no);
        self.dirty.insert(Row::Conversation(lane.conversation));
    }

    /// Whether a watermark over this device's messages speaks of numbers that this profile has given.
    pub(super) fn is_of_this_life(&self, id: ConversationId, tick: &Tick) -> bool {
        let sent = self.outbox.next_lane_no(&message_lane(id)).saturating_sub(1);
        let Some(conversation) = self.conversations.get(&id) else { return false };
        last_given(&conversation.lives, tick, sent).is_some_and(|last| tick.delivered <= last)
    }

    /// Takes a watermark over numbers that this profile has not given: it is an older one, which joins again and sends
    /// again; once for each number, and a member is believed only so often.
    pub(super) fn tell_older(&mut self, id: ConversationId, from: DeviceId, tick: &Tick) {
        let sent = self.outbox.next_lane_no(&message_lane(id)).saturating_sub(1);
        let Some(conversation) = self.conversations.get(&id) else { return };
        let is_news = tick.delivered > conversation.disowned && tick.delivered.saturating_sub(sent) <= LANE_JUMP_MAX;
        if is_news && self.is_believed(id, from) {
            self.disown(id, tick.delivered, sent);
        }
    }

    /// The first number of this device's messages that is not on the wire or accepted: who comes in now is addressed from it.
    pub(super) fn first_unsent(&self, id: ConversationId) -> u64 {
        self.outbox.first_queued_lane_no(&message_lane(id))
    }

    /// The first number of this device's messages that nobody has.
    pub(super) fn first_untried(&self, id: ConversationId) -> u64 {
        self.outbox.first_untried_lane_no(&message_lane(id))
    }

    /// A message of this number is sealed now: whoever came in while it was on the wire is addressed by it after all.
    pub(super) fn address_anew(&mut self, id: ConversationId, lane_no: u64) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        let bases = conversation.theirs.values_mut().map(|mark| &mut mark.base).chain([&mut conversation.lane_base]);
        for base in bases.filter(|base| **base > lane_no) {
            *base = lane_no;
            self.dirty.insert(Row::Conversation(id));
        }
    }

    /// This device has come in: whoever is there is addressed from its next number on, if not before.
    pub(super) fn note_bases(&mut self, id: ConversationId) {
        let first = self.first_unsent(id);
        let others = self.other_devices(id);
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        for other in others {
            let mark = conversation.theirs.entry(other.device).or_default();
            if mark.base == 0 {
                mark.base = first;
            }
        }
        self.dirty.insert(Row::Conversation(id));
    }

    /// A member has come in again by itself. If anything that was numbered before may be missing there, it hears of a number
    /// above: from the one that it is told next it finds out. What waits to be sent tells it as well.
    pub(super) fn answer_return(&mut self, id: ConversationId, device: DeviceId, now: UnixMillis) {
        let lane = message_lane(id);
        let next = self.outbox.next_lane_no(&lane);
        let waits = self.outbox.first_queued_lane_no(&lane) < next;
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        let delivered = conversation.theirs.get(&device).map_or(0, |mark| mark.delivered);
        let answers: usize = conversation.answered.values().map(|n| usize::from(*n)).sum();
        if waits || delivered >= conversation.last_real(next.saturating_sub(1)) || answers >= ANSWERS_MAX {
            return;
        }
        let answered = conversation.answered.entry(device).or_default();
        if *answered >= BELIEVED_MAX {
            return;
        }
        *answered += 1;
        conversation.make_void(next, next);
        // It may not know what the group is called.
        let content = self.group_info(id).map(|info| info.encode().into()).unwrap_or_default();
        // In a full outbox something waits that tells it later.
        let _ = self.push_draft(lane, Draft { content, ..Draft::default() }, now);
    }

    /// Whether something is sent again on the word of this member, who may lie: it is counted.
    fn is_believed(&mut self, id: ConversationId, member: DeviceId) -> bool {
        let Some(conversation) = self.conversations.get_mut(&id) else { return false };
        let said = conversation.believed.entry(member).or_default();
        *said = said.saturating_add(1);
        *said <= BELIEVED_MAX
    }

    /// Others have messages up to `told` of another life; this one has given numbers up to `sent`.
    fn disown(&mut self, id: ConversationId, told: u64, sent: u64) {
        let lane = message_lane(id);
        self.outbox.skip_to(lane, told);
        let first = self.outbox.next_lane_no(&lane);
        self.life = self.rng.next_u64().max(1);
        let life = self.life;
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        conversation.disowned = told.max(sent);
        conversation.make_void(sent.saturating_add(1), told);
        // Numbers up to `sent` alone were given.
        conversation.lives.retain(|life| life.first <= sent);
        begin(&mut conversation.lives, life, first);
        let kept = std::mem::take(&mut conversation.kept);
        self.dirty.insert(Row::Conversation(id));
        self.older_than_sent(id);
        // What is on the wire, or accepted, is looked at when it is stored.
        let queued = self.outbox.take_queued(id);
        for message in queued {
            let (send_id, lane, content) = (message.send_id, message.lane, message.content.clone());
            self.renumbered(lane, message.lane_no);
            let lane_no = self.outbox.push_again(message, lane);
            self.moved(send_id, lane, (lane_no, content));
        }
        for one in kept {
            self.send_again(lane, one);
        }
    }

    /// Gives a message that is stored a new number, unless it is old; a full outbox keeps it for the next time. Answers
    /// whether it goes.
    fn send_again(&mut self, lane: OutLane, kept: Kept) -> bool {
        let id = lane.conversation;
        let draft = Draft::decode(kept.content.clone()).unwrap_or_default();
        if self.session.server_time(self.stepped_at).0.saturating_sub(draft.sent_at_ms) > SENT_AGAIN_WITHIN_MS {
            return false;
        }
        let Ok(lane_no) = self.outbox.push(kept.send_id, lane, kept.content.clone()) else {
            if let Some(conversation) = self.conversations.get_mut(&id).filter(|_| lane.class == Class::Message) {
                conversation.kept.push(kept);
            }
            return false;
        };
        self.renumbered(lane, kept.lane_no);
        if draft.order != 0 {
            self.out.events.push(Event::Resending { conversation: id, message: kept.send_id });
        }
        self.moved(kept.send_id, lane, (lane_no, kept.content));
        true
    }

    /// The message of this number goes under another one, or not at all.
    pub(super) fn renumbered(&mut self, lane: OutLane, lane_no: u64) {
        if let Some(conversation) =
            self.conversations.get_mut(&lane.conversation).filter(|_| lane.class == Class::Message)
        {
            conversation.make_void(lane_no, lane_no);
            join(&mut conversation.unsent, (lane_no, lane_no));
            conversation.unsent.drain(..conversation.unsent.len().saturating_sub(UNSENT_MAX));
            self.dirty.insert(Row::Conversation(lane.conversation));
        }
    }

    /// A message of the outbox has got another number.
    fn moved(&mut self, send_id: SendId, lane: OutLane, (lane_no, content): (u64, Bytes)) {
        let id = lane.conversation;
        self.note_number(lane, lane_no, send_id);
        let order = Draft::decode(content).map_or(0, |draft| draft.order);
        let Some(message) = self.outbox.get(&send_id).cloned().filter(|_| order != 0) else { return };
        self.write_own(&message, RowStatus::Waiting, UnixMillis(0));
        let message = OutgoingMessage { send_id, lane_no, order };
        self.out.events.push(Event::Moved { conversation: id, into: id, message });
    }

    /// Sends again what a member tells as lost, as far as it is kept; what is not stored yet follows when it is. Answers the
    /// numbers of both, and what was kept and does not go.
    pub(super) fn send_lost_again(
        &mut self,
        id: ConversationId,
        from: DeviceId,
        ranges: &[(u64, u64)],
    ) -> (BTreeSet<u64>, BTreeMap<u64, SendId>) {
        let (mut again, mut stay) = (BTreeSet::new(), BTreeMap::new());
        let is_lost = |lane_no: u64| ranges.iter().any(|(first, last)| (*first..=*last).contains(&lane_no));
        if ranges.is_empty() || !self.is_believed(id, from) {
            return (again, stay);
        }
        let lane = message_lane(id);
        again.extend(self.outbox.numbers_of(&lane).filter(|lane_no| is_lost(*lane_no)));
        let Some(conversation) = self.conversations.get_mut(&id) else { return (again, stay) };
        let (lost, rest) = std::mem::take(&mut conversation.kept).into_iter().partition(|kept| is_lost(kept.lane_no));
        conversation.kept = rest;
        let lost: Vec<Kept> = lost;
        for kept in lost {
            let (lane_no, send_id) = (kept.lane_no, kept.send_id);
            if self.send_again(lane, kept) {
                again.insert(lane_no);
            } else {
                stay.insert(lane_no, send_id);
            }
        }
        (again, stay)
    }

    /// The messages with these numbers, as far as they are known: `more` besides those of this run.
    pub(super) fn messages_numbered(
        &self,
        id: ConversationId,
        (first, last): (u64, u64),
        more: &BTreeMap<u64, SendId>,
    ) -> Vec<SendId> {
        let mut all: BTreeMap<u64, SendId> = more.range(first..=last).map(|(n, id)| (*n, *id)).collect();
        let known = self.conversations.get(&id).map(|conversation| &conversation.numbered);
        all.extend(known.into_iter().flat_map(|known| known.range(first..=last)).map(|(n, id)| (*n, *id)));
        all.into_values().collect()
    }

    /// A message is stored: it may have to be kept, or was sent under a number that is not its own.
    pub(super) fn keep(&mut self, message: &OutMessage) {
        let (lane, lane_no) = (message.lane, message.lane_no);
        let confirmed = self.is_confirmed(lane.conversation);
        let Some(conversation) = self.conversations.get_mut(&lane.conversation) else { return };
        let is_empty = Draft::decode(message.content.clone()).is_ok_and(|draft| draft.content.is_empty());
        if lane.class != Class::Message || is_empty || self.mls.epoch(lane.conversation).is_none() {
            return;
        }
        let kept = Kept { send_id: message.send_id, lane_no, content: message.content.clone() };
        let is_believed = |device| conversation.believed.get(device).is_none_or(|said| *said <= BELIEVED_MAX);
        let is_missed = conversation.theirs.iter().any(|(device, mark)| mark.is_lost(lane_no) && is_believed(device));
        if lane_no <= conversation.disowned || is_missed {
            let send_id = kept.send_id;
            // Whoever joined since is not to read it.
            let is_for_all = lane_no <= conversation.disowned || lane_no >= conversation.lane_base();
            if !(is_for_all && self.send_again(lane, kept)) {
                self.tell_lost(lane.conversation, lane_no, send_id);
            }
            return;
        }
        if confirmed {
            return;
        }
        let current = conversation.lives.last().map_or(0, |life| life.first);
        let all = &mut conversation.kept;
        let room = |all: &[Kept]| {
            let bytes: usize = all.iter().map(|kept| kept.content.len()).sum();
            all.len() < KEPT_MAX && bytes + kept.content.len() <= KEPT_BYTES_MAX
        };
        // The first of a life are those that may not be openable.
        while !room(all) && all.first().is_some_and(|first| first.lane_no < current) {
            all.remove(0);
        }
        if room(all) {
            all.push(kept);
            self.dirty.insert(Row::Conversation(lane.conversation));
        }
    }

    /// Says to whom a message is lost that could not go again.
    fn tell_lost(&mut self, id: ConversationId, lane_no: u64, send_id: SendId) {
        let others = self.other_devices(id);
        let Some(conversation) = self.conversations.get(&id) else { return };
        let lacks = |device: DeviceId| conversation.theirs.get(&device).is_some_and(|mark| mark.is_lost(lane_no));
        let lacking: Vec<DeviceAddress> = others.into_iter().filter(|other| lacks(other.device)).collect();
        for DeviceAddress { account, device } in lacking {
            let (lane_nos, messages) = ((lane_no, lane_no), vec![send_id]);
            self.notify(Notice::Lost { conversation: id, by: account, device, lane_nos, messages });
        }
    }

    /// Forgets what everybody has.
    pub(super) fn forget_kept(&mut self, id: ConversationId) {
        if self.conversations.get(&id).is_none_or(|conversation| conversation.kept.is_empty()) {
            return;
        }
        let confirmed = self.is_confirmed(id);
        let others = self.other_devices(id);
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        let theirs = &conversation.theirs;
        let delivered = |device: &DeviceAddress| theirs.get(&device.device).map_or(0, |mark| mark.delivered);
        let by_all = others.iter().map(delivered).min().unwrap_or(0);
        conversation.kept.retain(|kept| !confirmed && kept.lane_no > by_all);
        self.dirty.insert(Row::Conversation(id));
    }

    /// Whether everybody has told of the life that this device is in, or tells of none.
    fn is_confirmed(&self, id: ConversationId) -> bool {
        let Some(conversation) = self.conversations.get(&id) else { return true };
        let life = conversation.lives.last().map_or(0, |life| life.id);
        let mark = |device: &DeviceAddress| conversation.theirs.get(&device.device).filter(|mark| mark.is_told());
        let told = |device: &DeviceAddress| mark(device).map(|mark| mark.life);
        self.other_devices(id).iter().all(|device| told(device).is_some_and(|told| told == life || told == 0))
    }

    fn other_devices(&self, id: ConversationId) -> Vec<DeviceAddress> {
        let own = self.identity.address();
        self.mls.members(id).into_iter().map(|(device, _)| device).filter(|device| *device != own).collect()
    }
}
