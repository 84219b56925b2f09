// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who was removed from a conversation, so that what goes on for it after a restore goes on without them.
//!
//! A server that was restored has lost the commit that removed somebody. Whoever had not read it makes the successor
//! ([`super::restored`]), or completes it, with that one in it. So each conversation remembers whom this device saw
//! removed; nobody of them is brought in; and whoever meets one of them in a successor, or sees one brought in to complete
//! it, takes them out again. What completes a successor is marked in its commit, so an addition that somebody wished for
//! counts: who was added since is struck out.
//!
//! Those who had not read it are told with the group's name. That is kept apart: they do not bring in whom they hear of, and
//! leave what such a one makes. Nobody is removed, and nothing told on, because somebody else said so.

use std::collections::{BTreeMap, BTreeSet};

use pli_domain::{AccountId, ConversationId, UnixMillis};

use super::conversation::{Conversation, WORK_MAX, Work};
use super::{Core, Event, Row};
use crate::content::GROUP_OUTCASTS_MAX;
use crate::mls::CommitSummary;

/// Most that are remembered of one conversation, the latest; of those seen and of those heard of.
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

    /// Of whom somebody said that they were removed, and who said so last; not on the word of one who was removed.
    fn said_out(&self, id: ConversationId, outcasts: &BTreeSet<AccountId>) -> BTreeMap<AccountId, AccountId> {
        let line = self.line_of(id);
        let said = line.iter().filter_map(|part| self.conversations.get(part)).flat_map(|c| &c.said_out);
        said.filter(|(_, by)| !outcasts.contains(by)).copied().collect()
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

    /// Somebody in `id` says that these were removed.
    pub(super) fn hear_of_outcasts(&mut self, id: ConversationId, outcasts: &[AccountId], by: AccountId) {
        let Some(conversation) = self.conversations.get_mut(&id).filter(|_| !outcasts.is_empty()) else { return };
        conversation.said_out.retain(|(known, _)| !outcasts.contains(known));
        conversation.said_out.extend(outcasts.iter().map(|account| (*account, by)));
        let over = conversation.said_out.len().saturating_sub(OUTCASTS_MAX);
        conversation.said_out.drain(..over);
        self.dirty.insert(Row::Conversation(id));
    }

    /// These came by a commit. Somebody wished for them, but where it only completes what goes on, or is of one who was
    /// removed.
    pub(super) fn judge_additions(&mut self, id: ConversationId, summary: &CommitSummary, came: &[AccountId]) {
        if came.is_empty() {
            return;
        }
        if summary.completes || summary.by.is_some_and(|by| self.outcasts(id).contains(&by.account)) {
            return self.keep_out(id);
        }
        came.iter().for_each(|account| self.take_back(id, *account));
    }

    /// Somebody wished for this one in `id`, also before this device knows that it goes on for another.
    pub(super) fn take_back(&mut self, id: ConversationId, account: AccountId) {
        let names =
            |c: &Conversation| c.outcasts.contains(&account) || c.said_out.iter().any(|(out, _)| *out == account);
        let knowing = self.conversations.iter().filter(|(_, c)| names(c));
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
        conversation.outcasts.retain(|outcast| !is_back(outcast));
        conversation.said_out.retain(|(outcast, _)| !is_back(outcast));
        self.dirty.insert(Row::Conversation(id));
    }

    /// Whoever was removed from what was before is to be taken out of what goes on.
    pub(super) fn keep_out(&mut self, id: ConversationId) {
        let is_back = !self.accounts_in(id).is_disjoint(&self.outcasts(id));
        let Some(conversation) = self.conversations.get_mut(&id).filter(|_| is_back) else { return };
        if conversation.work.len() < WORK_MAX && !conversation.work.contains(&Work::KeepOut) {
            conversation.work.push_back(Work::KeepOut);
            self.dirty.insert(Row::Conversation(id));
        }
    }

    /// Takes them out, as far as nobody wished for them meanwhile.
    pub(super) fn advance_keep_out(&mut self, id: ConversationId, now: UnixMillis) -> bool {
        let outcasts = self.outcasts(id);
        self.advance_remove(id, |device| outcasts.contains(&device.account), now)
    }

    /// Whom this device was about to bring into `id` and who was removed is left out; the user is told where somebody else
    /// said so. Answers whether there was one.
    pub(super) fn leave_out(&mut self, id: ConversationId, about_to: &[AccountId]) -> bool {
        let outcasts = self.outcasts(id);
        let said = self.said_out(id, &outcasts);
        let is_out = |account: &AccountId| outcasts.contains(account) || said.contains_key(account);
        let left_out: Vec<AccountId> = about_to.iter().filter(|account| is_out(account)).copied().collect();
        let Some(conversation) = self.conversations.get_mut(&id).filter(|_| !left_out.is_empty()) else { return false };
        if let Some(Work::Gather(accounts, _)) = conversation.work.front_mut() {
            accounts.retain(|account| !left_out.contains(account));
        }
        conversation.absent.retain(|account| !left_out.contains(account));
        self.dirty.insert(Row::Conversation(id));
        for account in left_out.iter().filter(|account| !outcasts.contains(account)) {
            let (member, by) = (self.member(*account), said.get(account).map(|by| self.member(*by)));
            self.out.events.push(Event::MemberRemoved { conversation: id, member, by });
        }
        true
    }

    /// Somebody says that `id` goes on for what began as `root`. Who was removed from that, and did not hear so, makes one
    /// for all of them when nobody lets them in: where it goes on elsewhere, those who saw it remove them, so that they
    /// hear, and all leave it.
    pub(super) fn turn_down(&mut self, id: ConversationId, root: ConversationId, by: AccountId) {
        if self.compare {
            // Where it goes on is known when the server has said what it has.
            if let Some(conversation) = self.conversations.get_mut(&id) {
                conversation.claims = Some((root, by));
            }
            return;
        }
        let goes_on = self.heir(root).filter(|heir| *heir != id && !self.is_successor(id, root));
        let outcasts = self.outcasts(root);
        let seen = outcasts.contains(&by);
        if goes_on.is_none() || !seen && !self.said_out(root, &outcasts).contains_key(&by) {
            return;
        }
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        if !conversation.work.contains(&Work::Leave) && conversation.work.len() + 1 < WORK_MAX {
            conversation.work.extend(seen.then(|| Work::Remove(vec![by])));
            conversation.work.push_back(Work::Leave);
            self.dirty.insert(Row::Conversation(id));
        }
    }

    /// The same of everybody who said so while the server was asked what it has.
    pub(super) fn turn_down_claims(&mut self) {
        let claims = self.conversations.iter_mut().filter_map(|(id, c)| Some((*id, c.claims.take()?)));
        for (id, (root, by)) in claims.collect::<Vec<_>>() {
            self.turn_down(id, root, by);
        }
    }
}
