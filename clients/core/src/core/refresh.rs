// SPDX-License-Identifier: MIT OR Apache-2.0
//! Self-updates: now and then this device renews its keys in a group by a commit that changes nothing else (RFC 9420
//! sections 12.4 and 16.6), so that whoever took them once is locked out again.
//!
//! Every device has a date of its own in every conversation, in server time and stored, that is drawn at random within a
//! span that grows with the group: whatever its size, a group has one self-update in [`PER_DEVICE`] on the average.
//! A removal by somebody else draws an earlier date, unless the date is early enough: many removals are followed by as many
//! renewals as one, and not by all of them at once. A commit of this device that renews its keys anyway (a removal, a
//! re-join) counts. Where nothing was said since the last one the date goes by, and another one is drawn when something
//! is: a chat that nobody uses costs nothing, but where a device of the own account was removed, which may have been stolen
//! with what the others had on them, the keys are new before anything is said. It is made only when the queue is worked
//! through and nothing else is to be done in the conversation.

use std::collections::BTreeSet;
use std::time::Duration;

use pli_domain::{Class, ConversationId, DeviceAddress, UnixMillis};
use rand_chacha::rand_core::RngCore as _;

use super::conversation::{Conversation, Phase, Refresh, Work};
use super::{Core, Row};
use crate::mls::CommitSummary;
use crate::outbox::OutLane;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// The span of small groups: a device renews its keys about weekly.
const PERIOD_MIN: Duration = Duration::from_secs(7 * 24 * 3600);
/// A group has at most one self-update in so long, on the average: 1,000 devices renew theirs in 21 days.
const PER_DEVICE: Duration = Duration::from_secs(30 * 60);
/// Messages of this device after which it renews its keys before its date, …
const MESSAGES: u64 = 1_000;
/// … but not before this part of the span has gone by.
const MESSAGES_PART: u32 = 24;
/// After a device of its own account was removed, which may have been stolen, the others renew theirs within so long.
const OWN_REMOVED: Duration = Duration::from_secs(10 * 60);
/// Whoever asks for it waits for it.
const ASKED_FOR: Duration = Duration::from_secs(30);
/// Nobody is heeded more often, whoever asks.
const ASKED_EVERY: Duration = Duration::from_secs(10 * 60);
/// Another commit came first: the next try is so much later at least.
const AGAIN: Duration = Duration::from_secs(60);
/// And so much later where the server refuses it for a reason that time may change.
const REFUSED: Duration = Duration::from_secs(3600);
/// The date of a conversation in which nothing was said when it went by.
const ASLEEP: UnixMillis = UnixMillis(0);
/// No lane has come so far: what was said last is another number, so that the conversation does not count as quiet.
const NOT_QUIET: u64 = u64::MAX;
/// A date further ahead was drawn under a clock that was wrong.
const DATE_MAX: Duration = Duration::from_secs(100 * 24 * 3600);

/// How long a device keeps its keys in a group of `devices`, on the average.
fn period(devices: usize) -> Duration {
    PERIOD_MIN.max(PER_DEVICE * u32::try_from(devices).unwrap_or(u32::MAX))
}

impl Core {
    /// Renews this device's keys if that is due. Nothing else is to be done in the conversation.
    pub(super) fn advance_refresh(&mut self, id: ConversationId, now: UnixMillis) {
        if !self.may_refresh(id) {
            return;
        }
        let at = self.session.server_time(now);
        let Some(refresh) = self.conversations.get(&id).and_then(|c| c.refresh) else {
            return self.schedule_first(id, at);
        };
        if refresh.due > at.after(DATE_MAX) {
            return self.schedule_first(id, at);
        }
        if refresh.due > at && !self.has_said_much(id, refresh, at) {
            return;
        }
        match (self.is_quiet(id, refresh), refresh.due == ASLEEP) {
            (false, false) => self.make_refresh(id, now),
            // Many devices may find out at once.
            (false, true) => {
                let within = self.turn_span(id);
                let due = at.after(self.drawn(within));
                self.set_due(id, due);
            }
            (true, false) => self.set_due(id, ASLEEP),
            (true, true) => {}
        }
    }

    /// Whether nothing was said since the keys are new.
    fn is_quiet(&self, id: ConversationId, refresh: Refresh) -> bool {
        let lane = OutLane { conversation: id, class: Class::Message };
        let heard = self.conversations.get(&id).map_or(0, Conversation::heard);
        self.outbox.next_lane_no(&lane) == refresh.from && heard == refresh.heard
    }

    fn set_due(&mut self, id: ConversationId, due: UnixMillis) {
        let Some(refresh) = self.conversations.get_mut(&id).and_then(|c| c.refresh.as_mut()) else { return };
        refresh.due = due;
        self.dirty.insert(Row::Conversation(id));
    }

    /// In so long every device of the group has its turn.
    fn turn_span(&self, id: ConversationId) -> Duration {
        PER_DEVICE * u32::try_from(self.mls.members(id).len()).unwrap_or(u32::MAX)
    }

    fn may_refresh(&self, id: ConversationId) -> bool {
        let Some(conversation) = self.conversations.get(&id) else { return false };
        self.session.is_online()
            && self.inbound.is_empty()
            && conversation.phase == Phase::Active
            && conversation.created
            && conversation.vouched
            && conversation.commit.is_none()
            && !conversation.work.contains(&Work::Leave)
    }

    /// What was said since the keys are new is much, and they are not too new.
    fn has_said_much(&self, id: ConversationId, refresh: Refresh, at: UnixMillis) -> bool {
        let lane = OutLane { conversation: id, class: Class::Message };
        let said = self.outbox.next_lane_no(&lane).saturating_sub(refresh.from);
        said >= MESSAGES && at >= refresh.since.after(period(self.mls.members(id).len()) / MESSAGES_PART)
    }

    fn make_refresh(&mut self, id: ConversationId, now: UnixMillis) {
        // Alone there is nobody to be locked out for.
        let alone = self.mls.members(id).len() < 2;
        match if alone { None } else { self.mls.commit(id, &[], &[]).ok() } {
            Some(commit) => {
                self.offer_commit(id, commit);
                self.ask_commit(id, now);
            }
            None => self.refresh_later(id, DAY),
        }
    }

    /// The first date in a conversation is anywhere in the span, so that groups that came into being at once do not renew
    /// their keys at once.
    fn schedule_first(&mut self, id: ConversationId, at: UnixMillis) {
        let within = period(self.mls.members(id).len());
        let due = at.after(self.drawn(within));
        self.schedule(id, at, due);
    }

    /// This device has new keys in the group: the next date is about a span away.
    pub(super) fn refreshed(&mut self, id: ConversationId) {
        let (at, period) = (self.session.server_time(self.stepped_at), period(self.mls.members(id).len()));
        let due = at.after(period * 3 / 4 + self.drawn(period / 2));
        self.schedule(id, at, due);
    }

    fn schedule(&mut self, id: ConversationId, since: UnixMillis, due: UnixMillis) {
        let from = self.outbox.next_lane_no(&OutLane { conversation: id, class: Class::Message });
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        conversation.refresh = Some(Refresh { due, since, from, heard: conversation.heard() });
        conversation.renews_for = None;
        self.dirty.insert(Row::Conversation(id));
    }

    /// A commit made the epoch. One that removed somebody brings the date nearer, one of this device may have renewed its
    /// keys.
    pub(super) fn note_renewal(&mut self, id: ConversationId, summary: &CommitSummary) {
        let own = self.identity.address();
        if let Some(returned) = summary.by.filter(|_| summary.external) {
            self.brought_back(id, returned);
        }
        if summary.by == Some(own) {
            if summary.renewed {
                self.refreshed(id);
            }
            return;
        }
        // Whoever joins again removes its own old leaf, which nobody else had.
        let mut removed = summary.removed.iter().filter(|device| !(summary.external && summary.by == Some(**device)));
        match removed.next() {
            None => {}
            Some(first) if first.account == own.account || removed.any(|d| d.account == own.account) => {
                self.renew_soon(id);
            }
            Some(_) => {
                let within = self.turn_span(id);
                self.hasten(id, within);
            }
        }
    }

    /// Somebody else was faster, for one that asked. Whatever else a renewal is due for, and whomever else, it still is.
    fn brought_back(&mut self, id: ConversationId, device: DeviceAddress) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        let Some((waiting, before)) = &mut conversation.renews_for else { return };
        if waiting.remove(&device) && waiting.is_empty() {
            conversation.refresh = *before;
            conversation.renews_for = None;
            self.dirty.insert(Row::Conversation(id));
        }
    }

    /// A member that cannot follow the group any more trusts this device to bring it back, by the group info of its next
    /// commit.
    pub(super) fn asked_to_renew(&mut self, id: ConversationId, by: DeviceAddress) {
        let at = self.session.server_time(self.stepped_at);
        let is_member = self.mls.members(id).iter().any(|(device, _)| *device == by);
        let may = |c: &&mut Conversation| is_member && !c.rejoining && c.phase == Phase::Active;
        let Some(conversation) = self.conversations.get_mut(&id).filter(may) else { return };
        if conversation.renewal_asked.is_some_and(|asked| asked <= at && at.since(asked) < ASKED_EVERY) {
            // One that is due already is for this one, too, whoever else is back before.
            if let Some((waiting, _)) = &mut conversation.renews_for {
                waiting.insert(by);
            }
            return;
        }
        conversation.renewal_asked = Some(at);
        let now = conversation.refresh;
        let (mut waiting, before) = conversation.renews_for.take().unwrap_or_else(|| (BTreeSet::new(), now));
        waiting.insert(by);
        self.renew_within(id, ASKED_FOR);
        if let Some(conversation) = self.conversations.get_mut(&id) {
            conversation.renews_for = Some((waiting, before));
        }
    }

    /// Within some minutes, whether or not anything is said.
    pub(super) fn renew_soon(&mut self, id: ConversationId) {
        self.renew_within(id, OWN_REMOVED);
    }

    fn renew_within(&mut self, id: ConversationId, within: Duration) {
        let at = self.session.server_time(self.stepped_at);
        if self.conversations.get(&id).is_some_and(|c| c.refresh.is_none_or(|refresh| refresh.due == ASLEEP)) {
            self.schedule_first(id, at);
        }
        self.hasten(id, within);
        if let Some(refresh) = self.conversations.get_mut(&id).and_then(|c| c.refresh.as_mut()) {
            refresh.from = NOT_QUIET;
        }
        self.dirty.insert(Row::Conversation(id));
    }

    /// A date that lies within the span stays: of many that were drawn after each other the earliest would count, and all
    /// devices would have it soon.
    fn hasten(&mut self, id: ConversationId, within: Duration) {
        let at = self.session.server_time(self.stepped_at);
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        // It is due for itself now, too.
        conversation.renews_for = None;
        let Some(refresh) = conversation.refresh else { return };
        if refresh.due > at.after(within) {
            let due = at.after(self.drawn(within));
            self.set_due(id, due);
        }
    }

    /// Another commit came before the one by which this device renews its keys: many may be due at once. Where somebody
    /// waits for it, they are few.
    pub(super) fn refresh_overtaken(&mut self, id: ConversationId) {
        let is_asked_for = self.conversations.get(&id).is_some_and(|c| c.renews_for.is_some());
        let within = if is_asked_for { ASKED_FOR } else { self.turn_span(id) / 4 };
        let delay = AGAIN + self.drawn(within);
        self.refresh_later(id, delay);
    }

    /// The server does not take the commit by which this device renews its keys: nobody asked for it, so nobody is told.
    pub(super) fn refresh_refused(&mut self, id: ConversationId) {
        self.refresh_later(id, REFUSED);
    }

    fn refresh_later(&mut self, id: ConversationId, delay: Duration) {
        let at = self.session.server_time(self.stepped_at);
        let Some(refresh) = self.conversations.get_mut(&id).and_then(|c| c.refresh.as_mut()) else { return };
        // What was said counts again from here on, as it would be due at once.
        (refresh.due, refresh.since) = (at.after(delay), at);
        self.dirty.insert(Row::Conversation(id));
    }

    /// Local time of the next date, on a session that is caught up; what is due already waits for something else.
    pub(super) fn refresh_at(&self) -> Option<UnixMillis> {
        if !self.session.is_online() {
            return None;
        }
        let active = |c: &&Conversation| c.phase == Phase::Active && c.commit.is_none();
        let dates = self.conversations.values().filter(active).filter_map(|c| c.refresh.map(|refresh| refresh.due));
        dates.map(|due| self.session.local_time(due)).filter(|at| *at > self.stepped_at).min()
    }

    fn drawn(&mut self, within: Duration) -> Duration {
        let within = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.rng.next_u64() % within.max(1))
    }
}
