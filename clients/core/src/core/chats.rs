// SPDX-License-Identifier: MIT OR Apache-2.0
//! One chat per pair of people, whatever number of MLS groups carries it.
//!
//! Where both write first at once, each founds a group. Neither is given up: what waits in either goes out there, and
//! both are read. New messages go into the one with the lowest id that this device is in with the other person, which
//! both sides choose without talking. What is over gives what it had not sent to the one that goes on.
//!
//! Who a group is a chat with follows from the accounts of its leaves, each vouched for by its account's signed device
//! list, and never changes: a group that a third account was ever in is a group for ever, whatever id its maker gave it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use pli_domain::{AccountId, ConversationId, Handle, UnixMillis};
use prost::Message as _;

use super::conversation::{Conversation, Phase, WORK_MAX, Work};
use super::history::Draft;
use super::tables::{RowStatus, Table};
use super::{Core, Event, OutgoingMessage, Row};
use crate::content::Kind;
use crate::outbox::{OutLane, OutMessage};

/// Groups of one pair that this device stays in; it leaves those with higher ids. Two people who both write first make
/// two.
pub(super) const DIRECT_GROUPS_MAX: usize = 8;
/// Groups of one pair whose history is read, those that go on first, then the newest.
const PARTS_MAX: usize = 64;

impl Core {
    /// The conversations that are one chat for the user, the one that takes what is new first; at most 64. One that is
    /// no chat of two stands alone.
    pub fn chat(&self, id: ConversationId) -> Vec<ConversationId> {
        let Some(peer) = self.peer(id) else { return self.line_of(id) };
        self.arrange(peer, self.parts_with(peer).map(|(id, _)| id).collect())
    }

    fn arrange(&self, peer: AccountId, mut parts: Vec<ConversationId>) -> Vec<ConversationId> {
        let target = self.target_among(peer, &parts);
        let age = |id: &ConversationId| self.conversations.get(id).map_or(0, |c| c.known);
        parts.sort_by_cached_key(|id| (Some(*id) != target, !self.goes_on(*id, peer), Reverse(age(id))));
        parts.truncate(PARTS_MAX);
        parts
    }

    /// The conversations of every chat, the one in which it goes on first: whatever may be read in a history.
    pub fn chats_with_parts(&self) -> Vec<Vec<ConversationId>> {
        self.chats()
    }

    /// The parts of every chat.
    pub(super) fn chats(&self) -> Vec<Vec<ConversationId>> {
        let mut pairs: BTreeMap<AccountId, Vec<ConversationId>> = BTreeMap::new();
        let mut chats = Vec::new();
        for (id, conversation) in &self.conversations {
            match conversation.of_two_with() {
                Some(peer) => pairs.entry(peer).or_default().push(*id),
                None if self.next_of(*id).is_none() => chats.push(self.line_of(*id)),
                None => {}
            }
        }
        for (peer, parts) in pairs {
            chats.push(self.arrange(peer, parts));
        }
        chats.sort_unstable();
        chats
    }

    /// Where a message for this conversation goes.
    pub(super) fn target(&self, id: ConversationId) -> ConversationId {
        let direct = self.peer(id).and_then(|peer| self.direct_with(peer));
        direct.unwrap_or_else(|| self.last_of(id))
    }

    /// Where a message for this person goes, if there is a conversation of two.
    pub(super) fn direct_with(&self, peer: AccountId) -> Option<ConversationId> {
        let parts: Vec<ConversationId> = self.parts_with(peer).map(|(id, _)| id).collect();
        self.target_among(peer, &parts)
    }

    /// The conversation of two that is being made for somebody whose account is not known yet.
    pub(super) fn founded_for(&self, handle: &Handle) -> Option<ConversationId> {
        let founds = |c: &Conversation| {
            let adds = matches!(c.work.front(), Some(Work::Add(handles)) if handles.contains(handle));
            c.kind() == Kind::Direct && c.phase == Phase::Founding && adds && !leaves(c)
        };
        self.conversations.iter().find(|(_, c)| founds(c)).map(|(id, _)| *id)
    }

    fn peer(&self, id: ConversationId) -> Option<AccountId> {
        self.conversations.get(&id)?.of_two_with()
    }

    pub(super) fn parts_with(&self, peer: AccountId) -> impl Iterator<Item = (ConversationId, &Conversation)> {
        self.conversations.iter().filter(move |(_, c)| c.of_two_with() == Some(peer)).map(|(id, c)| (*id, c))
    }

    /// The lowest that both are in; where there is none, the one that is being made.
    fn target_among(&self, peer: AccountId, parts: &[ConversationId]) -> Option<ConversationId> {
        let founding =
            |id: &&ConversationId| self.conversations.get(id).is_some_and(|c| c.phase == Phase::Founding && !leaves(c));
        let going_on = parts.iter().filter(|id| self.goes_on(**id, peer)).min();
        going_on.or_else(|| parts.iter().filter(founding).min()).copied()
    }

    /// Whether both are in the group, it is known to be one of two, and this device does not leave it.
    fn goes_on(&self, id: ConversationId, peer: AccountId) -> bool {
        let Some(conversation) = self.conversations.get(&id) else { return false };
        conversation.phase == Phase::Active
            && conversation.kind() == Kind::Direct
            && !leaves(conversation)
            && self.mls.members(id).iter().any(|(device, _)| device.account == peer)
    }

    /// Looks at who is in a conversation: somebody third makes it a group for ever; one other, vouched for, is whom a
    /// conversation of two is with.
    pub(super) fn note_members(&mut self, id: ConversationId) {
        let own = self.identity.address().account;
        let members = self.mls.members(id);
        let others: BTreeSet<AccountId> = members.iter().map(|(d, _)| d.account).filter(|a| *a != own).collect();
        let vouched = members.iter().all(|(device, key)| self.vouched(*device, key));
        let Some(conversation) = self.conversations.get_mut(&id).filter(|c| c.phase == Phase::Active) else { return };
        if others.len() > 1 && conversation.kind() != Kind::Group {
            conversation.kind = Some(Kind::Group);
            conversation.peer = None;
            self.dirty.insert(Row::Conversation(id));
            return;
        }
        // Whose first message is still to come may be of two; until it is known to be it takes nothing.
        let open = conversation.kind() != Kind::Group && conversation.peer.is_none() && !conversation.rejoining;
        if let (true, true, 1, Some(peer)) = (open, vouched, others.len(), others.first()) {
            self.set_peer(id, *peer);
        }
    }

    /// The conversation of two is with this account.
    pub(super) fn set_peer(&mut self, id: ConversationId, peer: AccountId) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        if conversation.peer.replace(peer) == Some(peer) {
            return;
        }
        self.dirty.insert(Row::Conversation(id));
        self.joined_chat(id);
    }

    /// The conversation is known to be of two, and with whom.
    pub(super) fn joined_chat(&mut self, id: ConversationId) {
        let direct = self.conversations.get(&id).filter(|c| c.kind() == Kind::Direct);
        let Some(peer) = direct.and_then(|c| c.peer) else { return };
        let going_on: Vec<ConversationId> =
            self.parts_with(peer).map(|(id, _)| id).filter(|id| self.goes_on(*id, peer)).collect();
        if let Some(other) = going_on.iter().copied().find(|other| *other != id) {
            let into = self.target(id);
            // Where this one is what goes on, that is news of another.
            let conversation = if into == id { other } else { id };
            self.out.events.push(Event::SameChat { conversation, into });
        }
        for id in going_on.into_iter().skip(DIRECT_GROUPS_MAX) {
            let Some(conversation) = self.conversations.get_mut(&id) else { continue };
            if conversation.work.len() < WORK_MAX {
                conversation.work.push_back(Work::Leave);
                self.dirty.insert(Row::Conversation(id));
            }
        }
    }

    /// Whether this device leaves the conversation because the pair has too many: then it does not wait for the other
    /// side's answer, which a peer that makes them without end would not give.
    pub(super) fn is_surplus(&self, id: ConversationId) -> bool {
        let Some(peer) = self.peer(id) else { return false };
        let lower = self.parts_with(peer).filter(|(other, _)| *other < id && self.goes_on(*other, peer));
        lower.count() >= DIRECT_GROUPS_MAX
    }

    /// Says of a conversation that was there before this version, or is new, since when it is known.
    pub(super) fn number(&mut self, id: ConversationId) {
        let next = self.conversations.values().map(|c| c.known).max().unwrap_or(0) + 1;
        if let Some(conversation) = self.conversations.get_mut(&id).filter(|c| c.known == 0) {
            conversation.known = next;
            self.dirty.insert(Row::Conversation(id));
        }
    }

    /// Gives a message that no log has to another conversation of the chat. It keeps its send id, so that it is shown
    /// once even if the first try arrived after all.
    pub(super) fn readdress(&mut self, message: OutMessage, heir: ConversationId) {
        let order = match Draft::decode(message.content.clone()) {
            Ok(draft) if draft.order != 0 => draft.order,
            // Ticks and names mean the conversation that they were for.
            _ => return,
        };
        let old = message.lane.conversation;
        let send_id = message.send_id;
        let lane = OutLane { conversation: heir, ..message.lane };
        let lane_no = self.outbox.push_again(message, lane);
        self.note_number(lane, lane_no, send_id);
        let key = [old.as_bytes().as_slice(), &order.to_be_bytes()].concat();
        self.out.changes.set(Table::Messages, key, None);
        if let Some(message) = self.outbox.get(&send_id).cloned() {
            self.write_own(&message, RowStatus::Waiting, UnixMillis(0));
        }
        let message = OutgoingMessage { send_id, lane_no, order };
        self.out.events.push(Event::Moved { conversation: old, into: heir, message });
    }

    /// Gives what waits in conversations that are over to those that go on. What is in flight is waited for: it was said
    /// before, and its answer, which names the send id alone, could not be told from the answer to the next try.
    pub(super) fn move_orphans(&mut self) {
        for id in self.outbox.waiting_conversations() {
            let over = self.is_over(id) && !self.outbox.in_flight_of(id);
            let Some(heir) = self.heir(id).filter(|_| over) else { continue };
            for message in self.outbox.take_queued(id) {
                self.readdress(message, heir);
            }
        }
    }

    /// The conversation that takes over from one that is over.
    pub(super) fn heir(&self, id: ConversationId) -> Option<ConversationId> {
        if let Some(last) = Some(self.last_of(id)).filter(|last| *last != id && !self.is_over(*last)) {
            return Some(last);
        }
        let peer = self.peer(id)?;
        let others: Vec<ConversationId> = self.parts_with(peer).map(|(other, _)| other).filter(|o| *o != id).collect();
        self.target_among(peer, &others)
    }
}

fn leaves(conversation: &Conversation) -> bool {
    conversation.work.contains(&Work::Leave)
}
