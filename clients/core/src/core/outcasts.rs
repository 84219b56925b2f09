// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who was removed from a conversation, so that what goes on for it after a restore goes on without them.
//!
//! A server that was restored has lost the commit that removed somebody. Whoever had not read it makes the successor
//! ([`super::restored`]), or completes it, with that one in it. So each conversation remembers whom this device saw
//! removed; nobody of them is brought in; and whoever meets one of them in a successor, or sees one brought in to complete
//! it, takes them out again. What completes a successor is marked in its commit, so an addition that somebody wished for
//! counts: who was added since is struck out.
//!
//! Those who had not read it are told with the group's name. That keeps out only whom they were about to bring in: nobody
//! is removed on the word of somebody else, and no list grows by it beyond the members that there were.

use std::collections::BTreeSet;

use pli_domain::{AccountId, ConversationId};

use super::conversation::{Conversation, WORK_MAX, Work};
use super::{Core, Event, Row};
use crate::content::GROUP_OUTCASTS_MAX;
use crate::mls::CommitSummary;

/// Most that are remembered of one conversation, the latest.
pub(super) const OUTCASTS_MAX: usize = 256;

impl Core {
    /// Everybody who was removed from what `id` is, or goes on for, and was not added since.
    pub(super) fn outcasts(&self, id: ConversationId) -> BTreeSet<AccountId> {
        self.line_of(id).iter().flat_map(|part| self.outcasts_of(*part)).copied().collect()
    }

    /// Those of them that newcomers are told of, the latest removals of each conversation first.
    pub(super) fn outcasts_told(&self, id: ConversationId) -> Vec<AccountId> {
        let mut told: Vec<AccountId> = Vec::new();
        for account in self.line_of(id).iter().flat_map(|part| self.outcasts_of(*part).iter().rev()) {
            if told.len() < GROUP_OUTCASTS_MAX && !told.contains(account) {
                told.push(*account);
            }
        }
        told
    }

    fn outcasts_of(&self, id: ConversationId) -> &[AccountId] {
        self.conversations.get(&id).map(|conversation| conversation.outcasts.as_slice()).unwrap_or_default()
    }

    /// These were removed.
    pub(super) fn cast_out(&mut self, id: ConversationId, accounts: impl IntoIterator<Item = AccountId>) {
        let own = self.identity.address().account;
        for account in accounts.into_iter().filter(|account| *account != own) {
            let Some(conversation) = self.conversations.get_mut(&id) else { return };
            conversation.outcasts.retain(|known| *known != account);
            conversation.outcasts.push(account);
            let over = conversation.outcasts.len().saturating_sub(OUTCASTS_MAX);
            conversation.outcasts.drain(..over);
            self.dirty.insert(Row::Conversation(id));
        }
    }

    /// These came by a commit: somebody wished for them, but where it only completes what goes on, or is of one who was
    /// removed.
    pub(super) fn admit(&mut self, id: ConversationId, summary: &CommitSummary, came: &[AccountId]) {
        if came.is_empty() {
            return;
        }
        if summary.completes || summary.by.is_some_and(|by| self.outcasts(id).contains(&by.account)) {
            return self.keep_out(id);
        }
        came.iter().for_each(|account| self.take_back(id, *account));
    }

    /// Somebody wished for this one in `id`, also before this device knows that it goes on for another.
    fn take_back(&mut self, id: ConversationId, account: AccountId) {
        let knowing = self.conversations.iter().filter(|(_, c)| c.outcasts.contains(&account));
        let line = self.line_of(id);
        let in_line = |(part, c): &(&ConversationId, &Conversation)| {
            line.contains(part) || self.is_successor(id, c.root.unwrap_or(**part))
        };
        for part in knowing.filter(in_line).map(|(part, _)| *part).collect::<Vec<_>>() {
            self.strike_out(part, |outcast| *outcast == account);
        }
    }

    /// This device is in `id` again and did not see what happened meanwhile: whoever is in was let in.
    pub(super) fn take_back_present(&mut self, id: ConversationId) {
        let inside = self.accounts_in(id);
        self.strike_out(id, |outcast| inside.contains(outcast));
    }

    fn strike_out(&mut self, id: ConversationId, is_back: impl Fn(&AccountId) -> bool) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        let before = conversation.outcasts.len();
        conversation.outcasts.retain(|outcast| !is_back(outcast));
        if conversation.outcasts.len() < before {
            self.dirty.insert(Row::Conversation(id));
        }
    }

    /// Takes out of what goes on whoever was removed from what was before.
    pub(super) fn keep_out(&mut self, id: ConversationId) {
        let outcasts = self.outcasts(id);
        let back: Vec<AccountId> = self.accounts_in(id).intersection(&outcasts).copied().collect();
        let Some(conversation) = self.conversations.get_mut(&id).filter(|_| !back.is_empty()) else { return };
        let remove = Work::Remove(back);
        if conversation.work.len() < WORK_MAX && !conversation.work.contains(&remove) {
            conversation.work.push_back(remove);
            self.dirty.insert(Row::Conversation(id));
        }
    }

    /// Somebody in `id` says who was removed: whom this device was about to bring in it leaves out, and the user is told.
    pub(super) fn heed(&mut self, id: ConversationId, outcasts: &[AccountId], by: AccountId) {
        let awaits_list = self.compare;
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        if awaits_list {
            conversation.said_out.extend(outcasts.iter().map(|account| (*account, by)));
            let over = conversation.said_out.len().saturating_sub(OUTCASTS_MAX);
            conversation.said_out.drain(..over);
            return;
        }
        let mut left_out = BTreeSet::new();
        for work in &mut conversation.work {
            if let Work::Gather(accounts, _) = work {
                left_out.extend(accounts.iter().filter(|account| outcasts.contains(account)));
                accounts.retain(|account| !outcasts.contains(account));
            }
        }
        conversation.absent.retain(|account| !outcasts.contains(account) || !left_out.insert(*account));
        self.cast_out(id, left_out.iter().copied());
        for account in left_out {
            let (member, by) = (self.member(account), Some(self.member(by)));
            self.out.events.push(Event::MemberRemoved { conversation: id, member, by });
        }
    }

    /// Heeds what was said in `id` before it was known whom this device is to bring in.
    pub(super) fn heed_what_was_said(&mut self, id: ConversationId) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        for (account, by) in std::mem::take(&mut conversation.said_out) {
            self.heed(id, &[account], by);
        }
    }

    /// Somebody says that `id` goes on for what began as `root`. Who was removed from that, and did not hear so, makes one
    /// for all of them when nobody lets them in: where it goes on elsewhere, they are removed from this one, and it is left.
    pub(super) fn turn_down(&mut self, id: ConversationId, root: ConversationId, by: AccountId) {
        let goes_on = self.heir(root).filter(|heir| *heir != id && !self.is_successor(id, root));
        if goes_on.is_none() || !self.outcasts(root).contains(&by) {
            return;
        }
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        if !conversation.work.contains(&Work::Leave) && conversation.work.len() + 1 < WORK_MAX {
            // They hear of it by that, too.
            conversation.work.extend([Work::Remove(vec![by]), Work::Leave]);
            self.dirty.insert(Row::Conversation(id));
        }
    }
}
