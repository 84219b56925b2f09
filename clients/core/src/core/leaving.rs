// SPDX-License-Identifier: MIT OR Apache-2.0
//! Leaving: wishes of others, which this device carries out when it is its turn, and how it goes itself where nobody is there
//! who could.

use std::collections::BTreeSet;
use std::time::Duration;

use pli_domain::{AccountId, ConversationId, DeviceAddress, UnixMillis};

use super::calls::Ask;
use super::conversation::{WORK_MAX, Work};
use super::devices::is_own_alone;
use super::{Core, Row};
use crate::mls::CommitSummary;

/// Who reads first that somebody leaves removes them; the others wait this much longer each, so that few race.
const DISMISS_STEP: Duration = Duration::from_millis(1_500);

impl Core {
    /// Somebody has asked to leave: this device carries that out in its turn, unless another one did by then.
    pub(super) fn dismiss(&mut self, id: ConversationId, device: DeviceAddress, now: UnixMillis) {
        let own = self.identity.address();
        if device == own {
            return;
        }
        if device.account == own.account {
            // The whole account leaves; somebody else removes it, if there is anybody.
            if let Some(conversation) = self.conversations.get_mut(&id) {
                conversation.asked_elsewhere = true;
                self.dirty.insert(Row::Conversation(id));
            }
            if is_own_alone(&self.mls.members(id), own.account) {
                self.abandon(id);
            }
            return;
        }
        let members = self.mls.members(id);
        let others: BTreeSet<DeviceAddress> = members.into_iter().map(|(d, _)| d).filter(|d| *d != device).collect();
        let rank = others.iter().position(|d| *d == own).and_then(|r| u32::try_from(r).ok()).unwrap_or(0);
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        let known = conversation.work.iter().any(|w| matches!(w, Work::Dismiss(d, _) if d.contains(&device)));
        if known || conversation.work.len() >= WORK_MAX {
            return;
        }
        let dismiss = Work::Dismiss(vec![device], now.after(DISMISS_STEP * rank));
        // Where everybody leaves, somebody has to go last. What is begun goes on.
        let before = conversation.work.iter().position(|work| *work == Work::Leave);
        conversation.work.insert(before.unwrap_or(conversation.work.len()), dismiss);
        self.dirty.insert(Row::Conversation(id));
    }

    /// Somebody whom the user adds has asked to leave: it is this device's turn to carry that out.
    pub(super) fn hurry_wishes(&mut self, id: ConversationId, accounts: &BTreeSet<AccountId>) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        for work in conversation.work.iter_mut().filter(|work| is_wish_of(work, accounts)) {
            if let Work::Dismiss(_, at) = work {
                *at = UnixMillis(0);
            }
        }
    }

    /// Puts the wishes to leave of these before the first work, which adds them: taken out afterwards they would not be in.
    /// Answers whether there are any.
    pub(super) fn put_wishes_first(&mut self, id: ConversationId, accounts: &BTreeSet<AccountId>) -> bool {
        self.hurry_wishes(id, accounts);
        let Some(conversation) = self.conversations.get_mut(&id) else { return false };
        let Some(wish) = conversation.work.iter().position(|work| is_wish_of(work, accounts)) else { return false };
        if let Some(wish) = conversation.work.remove(wish) {
            conversation.work.push_front(wish);
        }
        // What was claimed for the first work, and found out in it, is not for this one.
        conversation.packages.clear();
        conversation.bare.clear();
        (conversation.aligned, conversation.lean) = (0, false);
        self.calls.abandon(&Ask::Claim(id));
        self.dirty.insert(Row::Conversation(id));
        true
    }

    /// Wishes to leave of those who are out: who is added again afterwards stays.
    pub(super) fn forget_wishes(&mut self, id: ConversationId) {
        let inside: BTreeSet<AccountId> = self.mls.members(id).into_iter().map(|(d, _)| d.account).collect();
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        for work in &mut conversation.work {
            if let Work::Dismiss(devices, at) = work {
                devices.retain(|device| inside.contains(&device.account));
                *at = if devices.is_empty() { UnixMillis(0) } else { *at };
            }
        }
        // The first work ends as every first work does.
        let mut first = true;
        let is_done = |work: &Work| matches!(work, Work::Dismiss(devices, _) if devices.is_empty());
        conversation.work.retain(|work| std::mem::take(&mut first) || !is_done(work));
        self.dirty.insert(Row::Conversation(id));
    }

    /// Whether a commit removed this device by which its account leaves: another device of it, which wants that, is the only
    /// one that stays, as nobody else was there who could have carried it out.
    pub(super) fn left_elsewhere(&self, id: ConversationId, summary: &CommitSummary) -> bool {
        let own = self.identity.address();
        let members = self.mls.members(id).into_iter().map(|(device, _)| device);
        let mut stay = members.filter(|device| !summary.removed.contains(device));
        summary.by.is_some_and(|by| by.account == own.account && stay.all(|device| device == by))
    }

    /// Whether this device, which wants to leave, took out the other devices of its account, and nobody else is in.
    pub(super) fn took_own_along(&mut self, id: ConversationId, summary: &CommitSummary) -> bool {
        let (own, members) = (self.identity.address(), self.mls.members(id));
        let Some(conversation) = self.conversations.get_mut(&id).filter(|c| c.work.contains(&Work::Leave)) else {
            return false;
        };
        let took = members.iter().all(|(device, _)| *device == own)
            && summary.removed.iter().all(|device| device.account == own.account);
        if took {
            conversation.forget_gone(summary.removed.iter(), u64::MAX);
        }
        took
    }

    /// Where nobody is there who could commit it: the account's other devices are taken out, which tells them that it leaves,
    /// and the last one is out without a commit. Answers whether it is so.
    pub(super) fn leave_last(&mut self, id: ConversationId, now: UnixMillis) -> bool {
        let (own, members) = (self.identity.address(), self.mls.members(id));
        let is_last = is_own_alone(&members, own.account);
        let others: Vec<_> = members.into_iter().map(|(device, _)| device).filter(|device| *device != own).collect();
        if is_last && others.is_empty() {
            self.abandon(id);
        } else if is_last {
            self.make_commit(id, &[], &others, now);
        }
        is_last
    }

    /// This device is out of it, of which the server knows nothing: the server still lists it.
    pub(super) fn abandon(&mut self, id: ConversationId) {
        self.left(id);
        if let Some(conversation) = self.conversations.get_mut(&id) {
            conversation.abandoned = true;
        }
    }
}

/// Whether it is to take out one of these, who asked to leave.
fn is_wish_of(work: &Work, accounts: &BTreeSet<AccountId>) -> bool {
    matches!(work, Work::Dismiss(devices, _) if devices.iter().any(|device| accounts.contains(&device.account)))
}
