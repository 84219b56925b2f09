// SPDX-License-Identifier: MIT OR Apache-2.0
//! What to ask next, from what is missing.

use std::collections::BTreeSet;

use bytes::Bytes;
use pli_api::{ErrorCode, conversations as api, directory, refusal};
use pli_domain::{AccountId, ConversationId, UnixMillis};
use prost::Message as _;

use super::calls::Ask;
use super::conversation::{Conversation, Phase};
use super::notices::Notice;
use super::{Core, Event, Member, Row};
use crate::content::Kind;

pub(super) fn id_bytes(id: ConversationId) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

impl Core {
    /// Moves everything on as far as it goes without an answer, and asks for what is missing.
    pub(super) fn reconcile(&mut self, now: UnixMillis) {
        if self.session.is_anonymous() {
            if self.suite_is_taken() {
                self.ask(Ask::Register, |core| Some(core.registration()), now);
            } else {
                self.ask(Ask::Info, |_| Some(Vec::new()), now);
            }
        }
        if !self.session.is_ready() {
            return;
        }
        self.renew_packages(now);
        self.ask(Ask::Publish, |core| core.packages.clone(), now);
        if self.compare {
            self.compare_conversations(now);
            return self.ask_rest(now);
        }
        self.ask_list(now);
        let ids: Vec<ConversationId> = self.conversations.keys().copied().collect();
        for id in ids {
            self.vouch(id);
            // Each round finishes one piece of work or asks; the bound of work bounds the rounds.
            while self.advance(id, now) {}
            // The work may have made the group active or changed it; nothing else may happen for a long time.
            self.vouch(id);
        }
        self.ask_rest(now);
    }

    /// Asks which conversations the account is in, if that is wanted.
    pub(super) fn ask_list(&mut self, now: UnixMillis) {
        if self.resync {
            let page = |core: &mut Self| Some(api::ListRequest { after: core.resync_after.clone() }.encode_to_vec());
            self.ask(Ask::List, page, now);
        }
    }

    /// Wants to know which conversations the account is in, from the first on.
    pub(super) fn resync_all(&mut self) {
        (self.resync, self.resync_after) = (true, Bytes::new());
        self.dirty.insert(Row::Resync);
    }

    /// What envelopes wait for.
    fn ask_rest(&mut self, now: UnixMillis) {
        self.put_own_list(now);
        if !self.lists_wanted.is_empty() {
            let accounts: Vec<AccountId> = self.lists_wanted.iter().copied().take(self.lists_at_once).collect();
            let accounts: Vec<_> = accounts.into_iter().map(|account| (account, self.list_version(account))).collect();
            let named = accounts.iter().map(|(account, _)| Bytes::copy_from_slice(account.as_bytes())).collect();
            // From the one before on, so that the known one comes along: another one of its version is a fork.
            let before = |version: u64| if version > 1 { version - 1 } else { version };
            let known = accounts.iter().map(|(account, version)| match self.lists_doubted.contains(account) {
                true => 0,
                false => self.looks_back_to(*account).unwrap_or_else(|| before(*version)),
            });
            let known = known.collect();
            let request = directory::GetDeviceListsRequest { accounts: named, known };
            let ask = |core: &mut Self| {
                core.lists_open = accounts;
                Some(request.encode_to_vec())
            };
            self.ask(Ask::Lists, ask, now);
        }
        self.move_objects(now);
    }

    fn registration(&self) -> Vec<u8> {
        let (handle, devices) = (self.identity.handle().to_string(), self.identity.device_list());
        directory::RegisterRequest { handle, devices, invite: String::new() }.encode_to_vec()
    }

    /// Wants the device lists of these accounts. Answers whether waiting for them makes sense: not when they were
    /// answered already since the group last changed.
    pub(super) fn ask_lists(&mut self, accounts: impl IntoIterator<Item = AccountId>) -> bool {
        let open: BTreeSet<AccountId> = accounts.into_iter().filter(|a| !self.asked_lists.contains(a)).collect();
        let wait = !open.is_empty();
        self.lists_wanted.extend(open);
        wait
    }

    /// Checks the leaves of a group that changed against the device lists; says that it is ready when all are right.
    fn vouch(&mut self, id: ConversationId) {
        let Some(conversation) = self.conversations.get(&id) else { return };
        if conversation.phase != Phase::Active || conversation.vouched && conversation.announced {
            return;
        }
        if !conversation.vouched {
            let unvouched = self.unvouched(id);
            if !unvouched.is_empty() {
                let is_asked = self.ask_lists(unvouched.iter().copied())
                    || unvouched.iter().any(|account| self.lists_wanted.contains(account));
                if !is_asked {
                    self.warn(id);
                    self.repair(id, |core, account| {
                        core.answered_lists.contains(&account) && unvouched.contains(&account)
                    });
                }
                return;
            }
            // A list that changed while somebody else's commit was under way, or before this device came in.
            self.repair(id, |_, _| true);
        }
        self.note_members(id);
        let members = self.members(id);
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        conversation.vouched = true;
        if !conversation.announced {
            conversation.announced = true;
            let (kind, name) = (conversation.kind(), conversation.name.clone());
            let is_due = name.is_some() || conversation.heard() > 0;
            let added_by = self.added_by(id);
            self.out.events.push(Event::ConversationReady { conversation: id, kind, name, members, added_by });
            self.dirty.insert(Row::Conversation(id));
            if is_due {
                self.tell_stranger(id);
                self.forget_who_wrote_first(id);
            }
        }
    }

    /// Who let this account in, as long as that is news. Whoever brings everybody together again after a restore did not.
    fn added_by(&self, id: ConversationId) -> Option<Member> {
        let own = self.identity.address().account;
        let by = self.conversations.get(&id)?.added_by.filter(|by| *by != own)?;
        (!self.goes_on_for_known(id)).then(|| self.member(by))
    }

    /// In a chat of two it was the other one, and that was said.
    fn forget_who_wrote_first(&mut self, id: ConversationId) {
        if let Some(chat) = self.conversations.get_mut(&id).filter(|c| c.kind == Some(Kind::Direct)) {
            chat.added_by = None;
        }
    }

    /// Says once that a group is of somebody with whom there is no chat: anybody can add anybody. Told when its name is known,
    /// else with its first message.
    pub(super) fn tell_stranger(&mut self, id: ConversationId) {
        let is_told = |c: &&mut Conversation| c.kind() == Kind::Group && c.added_by.is_some();
        let Some(group) = self.conversations.get_mut(&id).filter(is_told) else { return };
        let (name, by, announced) = (group.name.clone(), group.added_by, group.announced);
        // Whoever brings everybody together again after a restore is no stranger for that.
        let unknown = |by: &AccountId| self.parts_with(*by).next().is_none() && !self.goes_on_for_known(id);
        let own = self.identity.address().account;
        let stranger = by.filter(|by| *by != own && unknown(by));
        if stranger.is_none() && !announced {
            // Who it was is said when it is ready.
            return;
        }
        if let Some(group) = self.conversations.get_mut(&id) {
            group.added_by = None;
        }
        if let Some(by) = stranger {
            self.notify(Notice::AddedByStranger { conversation: id, name, by });
        }
    }

    fn warn(&mut self, id: ConversationId) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        if !conversation.warned {
            conversation.warned = true;
            let why = refusal(
                ErrorCode::DevicesMismatch,
                "a device in the group is in nobody's signed device list; nothing is sent until it is gone",
            );
            self.out.events.push(Event::Waiting { conversation: id, why });
        }
    }
}
