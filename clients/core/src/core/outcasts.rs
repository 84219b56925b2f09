// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who was removed from a conversation, so that what goes on for it after a restore goes on without them.
//!
//! A server that was restored has lost the commit that removed somebody. Whoever had not read it makes the successor
//! ([`super::restored`]), or completes it, with that one in it. So each conversation remembers whom this device saw
//! removed, newcomers of a successor are told, nobody of them is brought in, and whoever is let into a successor in which
//! one of them is takes them out again. Somebody who was added since is struck out.

use std::collections::BTreeSet;

use pli_domain::{AccountId, ConversationId};

use super::conversation::{WORK_MAX, Work};
use super::restored::successor;
use super::{Core, Row};

/// Most that are remembered of one conversation; which ones of more is not said.
pub(super) const OUTCASTS_MAX: usize = 256;

impl Core {
    /// Everybody who was removed from what `id` is, or goes on for, and was not added since.
    pub(super) fn outcasts(&self, id: ConversationId) -> BTreeSet<AccountId> {
        self.successions(id)
            .iter()
            .filter_map(|part| self.conversations.get(part))
            .flat_map(|c| &c.outcasts)
            .copied()
            .collect()
    }

    /// These were removed.
    pub(super) fn cast_out(&mut self, id: ConversationId, accounts: impl IntoIterator<Item = AccountId>) {
        let own = self.identity.address().account;
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        let before = conversation.outcasts.len();
        conversation.outcasts.extend(accounts.into_iter().filter(|account| *account != own));
        while conversation.outcasts.len() > OUTCASTS_MAX {
            conversation.outcasts.pop_last();
        }
        if conversation.outcasts.len() != before {
            self.dirty.insert(Row::Conversation(id));
        }
        let outcasts = self.outcasts(id);
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        for work in &mut conversation.work {
            if let Work::Gather(accounts, _) = work {
                accounts.retain(|account| !outcasts.contains(account));
            }
        }
    }

    /// This one was added.
    pub(super) fn take_back(&mut self, id: ConversationId, account: AccountId) {
        for part in self.successions(id) {
            if self.conversations.get_mut(&part).is_some_and(|c| c.outcasts.remove(&account)) {
                self.dirty.insert(Row::Conversation(part));
            }
        }
    }

    /// This device was let into something that goes on, in which somebody may be who was removed from what was before.
    pub(super) fn keep_out(&mut self, id: ConversationId) {
        let outcasts = self.outcasts(id);
        let inside = self.mls.members(id).into_iter().map(|(device, _)| device.account);
        let back: BTreeSet<AccountId> = inside.filter(|account| outcasts.contains(account)).collect();
        let Some(conversation) = self.conversations.get_mut(&id).filter(|_| !back.is_empty()) else { return };
        if conversation.work.len() < WORK_MAX {
            conversation.work.push_back(Work::Remove(back.into_iter().collect()));
            self.dirty.insert(Row::Conversation(id));
        }
    }

    /// Somebody says that `id` goes on for what began as `root`. Who was removed from that, and did not hear so, makes one
    /// for all of them when nobody lets them in: where it goes on elsewhere, this one is left.
    pub(super) fn turn_down(&mut self, id: ConversationId, root: ConversationId, by: AccountId) {
        let goes_on = self.heir(root).filter(|heir| *heir != id && successor(root, &self.history) != id);
        if goes_on.is_none() || !self.outcasts(root).contains(&by) {
            return;
        }
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        if !conversation.work.contains(&Work::Leave) && conversation.work.len() < WORK_MAX {
            conversation.work.push_back(Work::Leave);
            self.dirty.insert(Row::Conversation(id));
        }
    }

    /// The conversations that went on for one another in the histories of this server, `id` among them.
    fn successions(&self, id: ConversationId) -> Vec<ConversationId> {
        let root = |first: &ConversationId| self.conversations.get(first).and_then(|c| c.root).unwrap_or(*first);
        let begins = self.conversations.keys().map(root);
        // What this device was let into by a welcome does not name its root yet.
        let leads_here = |first: &ConversationId| !self.history.is_empty() && successor(*first, &self.history) == id;
        let own =
            Some(root(&id)).filter(|own| *own != id).or_else(|| begins.into_iter().find(leads_here)).unwrap_or(id);
        let mut line: Vec<ConversationId> =
            self.conversations.keys().filter(|part| root(part) == own).copied().collect();
        if !line.contains(&id) {
            line.push(id);
        }
        line
    }
}
