// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which of a sender's messages in a chat was written first, whatever numbers they get.
//!
//! A message that is sent again gets a new lane number, and may go out in another conversation of the chat, where numbers
//! begin anew; clocks can be wrong. So every message has a place: it rises in the order of writing, over all conversations
//! of the chat, and stays with the message. What is shown after a message of a higher place is late.
//!
//! A profile that was restored from a copy gives places again. When it learns of that it adds to all of them what lifts
//! them above every one that the other may have given ([`super::lives`]).

use pli_domain::ConversationId;

use super::conversation::Conversation;
use super::{Core, Row};
use crate::inbox::InLane;

impl Core {
    /// The place of the next message in this conversation's chat, from 1.
    pub(super) fn next_place(&self, id: ConversationId) -> u64 {
        self.highest(id, |conversation| conversation.said).saturating_add(1)
    }

    /// What is added to the places of this conversation's chat.
    pub(super) fn place_shift(&self, id: ConversationId) -> u64 {
        self.highest(id, |conversation| conversation.place_shift)
    }

    /// The place was given to a message.
    pub(super) fn note_place(&mut self, id: ConversationId, place: u64) {
        let Some(conversation) = self.conversations.get_mut(&id).filter(|c| c.said < place) else { return };
        conversation.said = place;
        self.dirty.insert(Row::Conversation(id));
    }

    /// Whether a message that its sender wrote later was shown in the chat; a higher place is noted.
    pub(super) fn is_overtaken(&mut self, lane: InLane, place: u64) -> bool {
        let id = lane.conversation;
        let shown = |conversation: &Conversation| conversation.ours.get(&lane.sender).map_or(0, |mark| mark.place);
        if place == 0 {
            return false;
        }
        if place < self.highest(id, shown) {
            return true;
        }
        if let Some(conversation) = self.conversations.get_mut(&id) {
            conversation.ours.entry(lane.sender).or_default().place = place;
            self.dirty.insert(Row::Conversation(id));
        }
        false
    }

    fn highest(&self, id: ConversationId, of: impl Fn(&Conversation) -> u64) -> u64 {
        let parts = self.chat(id);
        // One that is not known yet is its own chat.
        let each = parts.iter().chain([&id]).filter_map(|part| self.conversations.get(part));
        each.map(of).max().unwrap_or(0)
    }
}
