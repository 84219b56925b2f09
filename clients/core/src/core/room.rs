// SPDX-License-Identifier: MIT OR Apache-2.0
//! Groups that have no room for what they lack.
//!
//! A commit brings in, besides whom it is for, the devices that the members' lists name and the group lacks. Where that
//! makes the group too large it is made once more without them: above all, nobody stays in a group because there is no room
//! for somebody else. Those are tried again seldom, as each try uses up key packages, and soon when somebody has gone.

use std::collections::BTreeSet;
use std::time::Duration;

use pli_api::common;
use pli_domain::{AccountId, ConversationId, DeviceAddress, UnixMillis};

use super::conversation::{Conversation, Work};
use super::{Core, Row};
use crate::mls::CommitSummary;

/// The first delay until devices of this account are tried again; it doubles with each try, …
const AGAIN: Duration = Duration::from_secs(3_600);
/// … up to this.
const AGAIN_MAX: Duration = Duration::from_secs(24 * 3_600);
/// The same for devices of others, which every member tries.
const AGAIN_FOR_OTHERS: Duration = Duration::from_secs(24 * 3_600);
const AGAIN_FOR_OTHERS_MAX: Duration = Duration::from_secs(7 * 24 * 3_600);
/// When somebody went, others may be at it.
const AFTER_REMOVAL: Duration = Duration::from_secs(5);

impl Core {
    /// The devices that a commit of the first work brings in: those of whom it is for, and of all `accounts` unless there
    /// is no room for them.
    pub(super) fn wanted_devices(
        &self,
        id: ConversationId,
        asked: &BTreeSet<AccountId>,
        accounts: &BTreeSet<AccountId>,
    ) -> Vec<(DeviceAddress, [u8; 32])> {
        self.missing_devices(id, if self.is_lean(id) { asked } else { accounts })
    }

    /// Whether a commit of the first work brings in nobody but whom it is for.
    fn is_lean(&self, id: ConversationId) -> bool {
        let is_early = |c: &Conversation| c.room_at.is_some_and(|at| at > self.stepped_at);
        self.conversations.get(&id).is_some_and(|c| c.lean || c.crowded > 0 && (!self.aligns(id) || is_early(c)))
    }

    /// The service says that a commit, which brought somebody in where `added`, would make the group too large.
    pub(super) fn group_refused(&mut self, id: ConversationId, added: bool, why: &common::Error) {
        let (is_lean, own_lack) = (self.is_lean(id), self.lacks_own(id));
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        // Whoever adds people has asked for them; what else the commit brought in may be left out.
        let adds = matches!(conversation.work.front(), Some(Work::Add(_) | Work::Gather(..)));
        let carried = !adds || own_lack || conversation.aligned > 0;
        if added && carried && !is_lean {
            conversation.lean = true;
        } else if self.aligns(id) {
            // Nor may somebody go: there is nothing to be done by any commit.
            self.align_later(id);
            self.put_off_align(id);
        } else {
            self.fail_work(id, why);
        }
    }

    /// The first work, which is to bring the group in line, waits until there may be room.
    fn put_off_align(&mut self, id: ConversationId) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        if let (Some(room), Some(Work::Align(at))) = (conversation.room_at, conversation.work.front_mut()) {
            *at = room.max(*at);
        }
    }

    /// Whether the group lacks devices of this account.
    fn lacks_own(&self, id: ConversationId) -> bool {
        !self.missing_devices(id, &BTreeSet::from([self.identity.address().account])).is_empty()
    }

    /// The first work is done, to bring the group in line where it `aligns`; `lean` where there was no room for all that the
    /// group lacks. That is tried again when there may be room, however soon the work came.
    pub(super) fn note_lack(&mut self, id: ConversationId, lean: bool, aligns: bool) {
        if lean {
            self.crowd(id);
        }
        let Some(conversation) = self.conversations.get(&id).filter(|_| lean || aligns) else { return };
        let tries = conversation.crowded;
        match conversation.room_at.filter(|at| tries > 0 && *at > self.stepped_at) {
            // It may lack devices of this account by now, which wait for less.
            Some(at) => {
                let at = at.min(self.room_after(id, tries - 1));
                self.set_room_at(id, at, tries);
                self.plan_align(id, at);
            }
            None => self.set_has_room(id),
        }
    }

    /// There is no room for what the group lacks, and nobody looks again before a while.
    pub(super) fn crowd(&mut self, id: ConversationId) {
        let tries = self.conversations.get(&id).map_or(0, |conversation| conversation.crowded);
        let at = self.room_after(id, tries);
        self.set_room_at(id, at, tries.saturating_add(1));
    }

    /// When there may be room, after so many tries before.
    fn room_after(&mut self, id: ConversationId, tries: u32) -> UnixMillis {
        let (first, max) =
            if self.lacks_own(id) { (AGAIN, AGAIN_MAX) } else { (AGAIN_FOR_OTHERS, AGAIN_FOR_OTHERS_MAX) };
        self.stepped_at.after(first.saturating_mul(1 << tries.min(5)).min(max) + self.turn(id))
    }

    fn set_room_at(&mut self, id: ConversationId, at: UnixMillis, tries: u32) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        (conversation.crowded, conversation.room_at) = (tries, Some(at));
        self.dirty.insert(Row::Conversation(id));
    }

    /// The group has what it lacked.
    fn set_has_room(&mut self, id: ConversationId) {
        if let Some(conversation) = self.conversations.get_mut(&id) {
            (conversation.crowded, conversation.room_at) = (0, None);
        }
    }

    /// A commit removed somebody, who may have made room.
    pub(super) fn note_room(&mut self, id: ConversationId, summary: &CommitSummary) {
        let Some(conversation) = self.conversations.get(&id) else { return };
        if summary.removed.is_empty() || !(conversation.lean || conversation.crowded > 0) {
            return;
        }
        let members = self.mls.members(id);
        if summary.removed.iter().all(|device| members.iter().any(|(member, _)| member == device)) {
            return;
        }
        let at = self.stepped_at.after(AFTER_REMOVAL + self.turn(id));
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        (conversation.lean, conversation.room_at) = (false, None);
        if std::mem::take(&mut conversation.crowded) > 0 {
            self.plan_align(id, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use pli_api::{ErrorCode, edge};
    use pli_domain::limits::GROUP_DEVICES_MAX;
    use pli_domain::{DeviceId, Handle};
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng as _;

    use super::*;
    use crate::core::{Command, Event};
    use crate::identity::Identity;

    const NOW: UnixMillis = UnixMillis(1_000);

    /// What became of a group that is made with so many devices of others: why it failed, and whether key packages were
    /// claimed.
    fn founded(others: usize) -> (Option<ErrorCode>, bool) {
        let (mut core, _) = Core::create("alice".parse().expect("a handle"), [1; 32], NOW);
        core.identity.registered = true;
        let mut handles: Vec<Handle> = Vec::new();
        for n in 0..others.div_ceil(10) {
            let handle: Handle = format!("bob{n}").parse().expect("a handle");
            let mut rng = ChaCha20Rng::seed_from_u64(n as u64);
            let identity = Identity::create(handle.clone(), &mut rng);
            let account = identity.address().account;
            let list = identity.device_list().expect("a first device");
            core.meet(account, Some(handle.clone()), &[list]).expect("verifies");
            let listed = &mut core.contacts.get_mut(&account).expect("met").devices.devices;
            let more = (others - n * 10).min(10) - 1;
            listed.extend((0..more).map(|n| (DeviceId::from_bytes([u8::try_from(n).expect("small"); 16]), [2; 32])));
            handles.push(handle);
        }
        let hello = edge::ServerHello { nonce: vec![0; 32].into(), versions: vec![1], now_ms: NOW.0 };
        core.handshake(&hello, "localhost", (edge::Binding::TlsExporter, &[0; 32]), NOW).expect("answered");
        core.ready(&edge::Ready { now_ms: NOW.0, ..edge::Ready::default() }, NOW);
        let effects = core.command(Command::CreateGroup { name: "team".into(), handles }, NOW).expect("taken");
        let failed = effects.events.iter().find_map(|event| match event {
            Event::ConversationFailed { why, .. } => Some(why.code()),
            _ => None,
        });
        let claims = effects.frames.iter().any(|frame| {
            matches!(&frame.frame, Some(edge::client_frame::Frame::Call(call)) if call.method.ends_with("/ClaimKeyPackages"))
        });
        (failed, claims)
    }

    #[test]
    fn whoever_makes_a_group_counts_among_its_devices() {
        assert_eq!(founded(GROUP_DEVICES_MAX - 1), (None, true));
        assert_eq!(founded(GROUP_DEVICES_MAX), (Some(ErrorCode::GroupTooLarge), false));
    }
}
