// SPDX-License-Identifier: MIT OR Apache-2.0
//! What goes on after a restore and is waited for: somebody else was first to make it, or this device does not know yet what
//! it goes on for.
//!
//! A conversation that was itself a successor says with its name as which one it began. Who came into it just before the
//! server was restored may not have heard that, and would derive another id than all others. So it makes none and waits; a
//! root that it hears of is that of its own conversation if that is its successor in an earlier history, which nobody can
//! pass off.

use std::time::Duration;

use bytes::Bytes;
use pli_api::{ErrorCode, refusal};
use pli_domain::{AccountId, ConversationId, UnixMillis};

use super::conversation::{Phase, Work};
use super::restored::{LINE_MAX, successor};
use super::rows::HISTORY_BYTES;
use super::{Core, Event, Row};
use crate::content::Kind;

/// How long the welcome of somebody who was first to make a conversation is waited for, until the server is asked
/// whether this device is in it already: another copy of the profile may have read the welcome.
const WELCOME_AWAITED: Duration = Duration::from_secs(15);
/// How long whoever was first is waited for after that, until another conversation is made.
const MAKER_AWAITED: Duration = Duration::from_secs(285);
/// How long somebody is waited for who knows what a conversation goes on for, until it is taken for the first of its line.
const ROOT_AWAITED: Duration = Duration::from_secs(24 * 3_600);

impl Core {
    /// Another member was first to make the conversation: its welcome comes, or was quicker than the answer.
    pub(super) fn await_welcome(&mut self, id: ConversationId, now: UnixMillis) {
        let Some(conversation) = self.conversations.get_mut(&id).filter(|c| c.phase == Phase::Founding) else { return };
        conversation.awaits_welcome = true;
        conversation.looked_for = false;
        conversation.packages.clear();
        self.mls.forget(id);
        self.wait_until(id, now.after(WELCOME_AWAITED));
    }

    /// Waits as long as whoever was first may need; then goes on in another one.
    pub(super) fn advance_awaited(&mut self, id: ConversationId, accounts: &[AccountId], now: UnixMillis) {
        let Some(conversation) = self.conversations.get(&id) else { return };
        if !conversation.looked_for {
            self.look_for(id, now);
        } else if conversation.rootless {
            self.await_root_no_more(id, now);
        } else {
            // The same for all who wait, so that they make one.
            let next = successor(id, &self.history);
            self.pass_on(id, next, accounts.iter().copied().collect(), now);
        }
    }

    /// The welcome did not come: asks the server whether this device is in the conversation all the same.
    fn look_for(&mut self, id: ConversationId, now: UnixMillis) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        conversation.looked_for = true;
        let rootless = conversation.rootless;
        self.wait_until(id, now.after(if rootless { ROOT_AWAITED } else { MAKER_AWAITED }));
        let why = if rootless {
            "after the restore it goes on when a member has connected who knows its name"
        } else {
            "somebody was first to begin it anew after the restore and has not let this device in: they may know that you \
             were removed, or be away; in five minutes all are asked once more"
        };
        self.out.events.push(Event::Waiting { conversation: id, why: refusal(ErrorCode::Temporary, why) });
        self.resync_all();
        self.ask_list(now);
    }

    /// The others did not wait for what this device began and let nobody into: what they made instead goes on for it.
    pub(super) fn give_way(&mut self, id: ConversationId) {
        let own = self.identity.address().account;
        let lonely = |first: ConversationId| self.accounts_in(first).iter().all(|account| *account == own);
        let begun = self.conversations.iter().find(|(first, c)| {
            let waits = c.awaits_welcome && !c.looked_for;
            c.root.is_some() && c.heir.is_none() && !waits && self.is_successor(id, **first) && lonely(**first)
        });
        let Some(first) = begun.map(|(first, _)| *first) else { return };
        let Some(conversation) = self.conversations.get_mut(&first) else { return };
        let waiting = conversation.gathered_accounts();
        self.pass_on(first, id, waiting, self.stepped_at);
    }

    fn wait_until(&mut self, id: ConversationId, until: UnixMillis) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        match conversation.work.front_mut() {
            Some(Work::Gather(_, at)) => *at = until,
            _ => conversation.work.push_front(Work::Gather(Vec::new(), until)),
        }
        self.dirty.insert(Row::Conversation(id));
    }

    /// A history of the server that is over; at most [`LINE_MAX`] are remembered, the latest.
    pub(super) fn remember_history(&mut self, history: Bytes) {
        if history.len() != HISTORY_BYTES {
            return;
        }
        self.earlier.push(history);
        let over = self.earlier.len().saturating_sub(LINE_MAX);
        self.earlier.drain(..over);
        self.dirty.insert(Row::Earlier);
    }

    /// Whether this may be the successor of one that is not known here: this device came into it in a history that others had
    /// gone on in, and nobody has said yet what it is called. Who is in a chat of two needs no name.
    pub(super) fn is_rootless(&self, id: ConversationId) -> bool {
        let Some(conversation) = self.conversations.get(&id) else { return false };
        let unsaid = conversation.name.is_none() && conversation.root.is_none() && conversation.kind() == Kind::Group;
        conversation.rootless || unsaid && !self.earlier.is_empty()
    }

    /// Makes nothing of its own before somebody says what it goes on for.
    pub(super) fn await_root(&mut self, id: ConversationId, now: UnixMillis) {
        self.await_welcome(id, now);
        if let Some(conversation) = self.conversations.get_mut(&id).filter(|c| c.awaits_welcome) {
            conversation.rootless = true;
        }
    }

    fn await_root_no_more(&mut self, id: ConversationId, now: UnixMillis) {
        if let Some(conversation) = self.conversations.get_mut(&id) {
            (conversation.rootless, conversation.awaits_welcome) = (false, false);
        }
        self.wait_until(id, now);
    }

    /// Somebody said that `root` went on in another conversation: what waits for that, if it is what it waits for, goes on.
    pub(super) fn root_heard(&mut self, root: ConversationId, now: UnixMillis) {
        let rootless: Vec<ConversationId> =
            self.conversations.iter().filter(|(_, c)| c.rootless).map(|(id, _)| *id).collect();
        for id in rootless {
            if !self.line_of(id).iter().any(|part| self.went_on(root, *part)) {
                continue;
            }
            self.await_root_no_more(id, now);
            let Some(conversation) = self.conversations.get_mut(&id) else { continue };
            conversation.root = Some(root);
            let accounts = conversation.gathered_accounts();
            let next = successor(root, &self.history);
            if next != id && !self.compare {
                self.pass_on(id, next, accounts, now);
            }
        }
    }

    /// Whether `root` went on in `part` in one of the histories before this one.
    fn went_on(&self, root: ConversationId, part: ConversationId) -> bool {
        root == part || self.earlier.iter().any(|history| successor(root, history) == part)
    }
}
