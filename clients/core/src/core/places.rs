// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which of a sender's messages in a chat was written first, whatever numbers they get.
//!
//! A message that is sent again gets a new lane number, and may go out in another conversation of the chat, where numbers
//! begin anew; clocks can be wrong. So every message has a place: it rises in the order of writing, over all conversations
//! of the chat, and stays with the message. What is shown after a message of a higher place is late.
//!
//! Copies of one profile give the same places, in lives that know nothing of each other. So a place is compared only with
//! those of its own life, and of the lives that the sender names as its own.

use pli_domain::ConversationId;

use super::conversation::Conversation;
use super::history::Ordered;
use super::{Core, Row};
use crate::content::LIVES_TOLD_MAX;
use crate::inbox::InLane;

/// Lives of a sender whose highest places are remembered in one conversation; the oldest are forgotten.
pub(super) const PLACES_MAX: usize = 4;

impl Core {
    /// The highest place that was given in this conversation's chat.
    pub(super) fn said(&self, id: ConversationId) -> u64 {
        self.parts(id).map(|conversation| conversation.said).max().unwrap_or(0)
    }

    /// The place was given to a message.
    pub(super) fn note_said(&mut self, id: ConversationId, place: u64) {
        let Some(conversation) = self.conversations.get_mut(&id).filter(|c| c.said < place) else { return };
        conversation.said = place;
        self.dirty.insert(Row::Conversation(id));
    }

    /// The lives of this profile that gave places in this conversation's chat, the newest of each conversation first.
    pub(super) fn line(&self, id: ConversationId) -> Vec<u64> {
        let mut line: Vec<u64> = Vec::new();
        for conversation in self.parts(id) {
            for life in conversation.lives.iter().rev().take(LIVES_TOLD_MAX) {
                if !line.contains(&life.id) {
                    line.push(life.id);
                }
            }
        }
        line.truncate(LIVES_TOLD_MAX);
        line
    }

    /// Whether a message that its sender wrote later was shown in the chat; a higher place is noted.
    pub(super) fn is_overtaken(&mut self, lane: InLane, message: &Ordered) -> bool {
        let (id, own, place) = (lane.conversation, message.written_in, message.place);
        if place == 0 {
            return false;
        }
        let shown = self.parts(id).filter_map(|conversation| conversation.ours.get(&lane.sender));
        let is_later = |(life, shown): &(u64, u64)| *shown > place && (*life == own || message.line.contains(life));
        if shown.flat_map(|mark| &mark.places).any(is_later) || self.went_on_before(lane) {
            return true;
        }
        if let Some(conversation) = self.conversations.get_mut(&id) {
            let places = &mut conversation.ours.entry(lane.sender).or_default().places;
            places.retain(|(life, _)| *life != own);
            places.push((own, place));
            places.drain(..places.len().saturating_sub(PLACES_MAX));
            self.dirty.insert(Row::Conversation(id));
        }
        false
    }

    /// Whether something of this sender was shown in a conversation that goes on for this one: what was held back here
    /// was written before, in whatever life.
    fn went_on_before(&self, lane: InLane) -> bool {
        let later = self.onward_from(lane.conversation).skip(1);
        let mut ours = later.filter_map(|id| self.conversations.get(&id)?.ours.get(&lane.sender));
        ours.any(|mark| !mark.places.is_empty())
    }

    /// The conversations of a chat; one that is not known yet is its own.
    fn parts(&self, id: ConversationId) -> impl Iterator<Item = &Conversation> {
        let alone = |c: &Conversation| c.peer.is_none() && c.root.is_none() && c.heir.is_none();
        let is_alone = self.conversations.get(&id).is_none_or(alone);
        let mut parts = if is_alone { vec![id] } else { self.chat(id) };
        if !parts.contains(&id) {
            parts.push(id);
        }
        parts.into_iter().filter_map(|part| self.conversations.get(&part))
    }
}
