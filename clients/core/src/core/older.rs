// SPDX-License-Identifier: MIT OR Apache-2.0
//! A profile that went back in time: restored from a copy, or used in two places.
//!
//! Its MLS keys and lane numbers would be used twice, which others cannot open. It shows in two ways. A device
//! acknowledges only what it has committed, so a server that reads above the position of the hello knows of more than
//! this profile does. And somebody's watermark speaks of another life of it (`lives.rs`). Either way the
//! conversation is joined again by external commit, which makes new keys. What was sealed before it showed may have used
//! keys twice, and is sent again.

use pli_domain::{ConversationId, Position};

use super::conversation::{LostThread, Phase};
use super::{Core, Event, Row};

impl Core {
    /// The server says that this device has acknowledged up to `from`.
    pub(super) fn older_profile(&mut self, from: Position) {
        self.out.events.push(Event::OlderProfile);
        // What was acknowledged is not delivered again: as with a gap, commits and conversations may be missing.
        self.inbox.gap(from);
        self.resync = true;
        self.dirty.insert(Row::Resync);
        let active = self.conversations.iter().filter(|(_, c)| c.phase == Phase::Active && c.created);
        for id in active.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.renew(id);
        }
    }

    /// Somebody has messages of this device that this profile knows nothing of.
    pub(super) fn older_than_sent(&mut self, id: ConversationId) {
        if !self.conversations.get(&id).is_none_or(|c| c.renewed) {
            self.out.events.push(Event::OlderProfile);
            self.renew(id);
        }
    }

    fn renew(&mut self, id: ConversationId) {
        self.lost_thread(id, &LostThread::Older);
        if let Some(conversation) = self.conversations.get_mut(&id) {
            conversation.renewed = true;
        }
    }
}
