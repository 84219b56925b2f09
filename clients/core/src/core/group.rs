// SPDX-License-Identifier: MIT OR Apache-2.0
//! Epochs: commits won, lost and taken in; falling behind and coming back.

use std::collections::BTreeSet;
use std::time::Duration;

use pli_api::{ErrorCode, common, conversations as api, refusal};
use pli_domain::{AccountId, ConversationId, DeviceAddress, UnixMillis};

use super::calls::Ask;
use super::conversation::{Conversation, LostThread, Phase, Work};
use super::{Core, Event, Member, Row};
use crate::mls::{Commit, CommitSummary, Handshake};

/// Commits of one piece of work that may be refused because device lists changed.
const MISMATCHES_MAX: u32 = 3;
/// How long the queue is waited for to come to an epoch: longer than any take-over of a shard, as what stands in it is
/// lost to a device that goes ahead of it.
const EPOCH_AWAITED: Duration = Duration::from_secs(120);
/// The same after a gap, in which the commits may have been.
const EPOCH_AWAITED_AFTER_GAP: Duration = Duration::from_secs(5);

impl Core {
    /// A handshake of the current epoch was taken in.
    pub(super) fn took_handshake(&mut self, id: ConversationId, handshake: Handshake, now: UnixMillis) {
        match handshake {
            Handshake::Old | Handshake::Future => {}
            Handshake::Leave(device) => self.dismiss(id, device, now),
            Handshake::OwnCommit(summary) => self.commit_won(id, summary, now),
            Handshake::Commit(summary) => {
                // Its epoch is over: another commit won.
                match self.conversations.get_mut(&id).and_then(|conversation| conversation.commit.take()) {
                    Some(own) if own.changes_nothing => self.refresh_overtaken(id),
                    Some(_) => self.lost_race(id, now),
                    None => {}
                }
                self.epoch_began(id, &summary, now);
            }
        }
    }

    /// This device's commit made the epoch.
    pub(super) fn commit_won(&mut self, id: ConversationId, mut summary: CommitSummary, now: UnixMillis) {
        if let Some(conversation) = self.conversations.get_mut(&id) {
            conversation.commit = None;
            conversation.race_no_more();
            summary.completes = matches!(conversation.work.front(), Some(Work::Gather(..)));
        }
        self.epoch_began(id, &summary, now);
    }

    fn epoch_began(&mut self, id: ConversationId, summary: &CommitSummary, now: UnixMillis) {
        let (first, untried) = (self.first_unsent(id), self.first_untried(id));
        if summary.self_removed {
            if let Some(conversation) = self.conversations.get_mut(&id) {
                conversation.forget_gone(summary.removed.iter(), untried);
            }
            if self.left_elsewhere(id, summary) {
                self.abandon(id);
            } else if !self.was_put_out(id, summary) {
                let by = self.put_out_by(id, summary);
                self.left_by(id, by);
            }
            return;
        }
        if self.took_own_along(id, summary) {
            // They are to stay out: nothing is put right for them.
            return self.abandon(id);
        }
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        let returned = summary.by.filter(|by| summary.external && summary.removed.contains(by));
        conversation.forget_gone(summary.removed.iter().filter(|device| Some(**device) != returned), untried);
        if !summary.added.is_empty() || summary.external && returned.is_none() {
            let newcomer = summary.by.filter(|_| summary.external);
            conversation.address_from(first, summary.added.iter().chain(&newcomer));
            for came in summary.added.iter().chain(&newcomer) {
                if let Some(mark) = conversation.ours.get_mut(&came.device) {
                    mark.note_stay();
                    // What was told while they were out did not reach them.
                    conversation.told.remove(&came.device);
                }
            }
        }
        if !summary.added.is_empty() || summary.external {
            // Said again when the newcomers' handles are known.
            conversation.announced = false;
        }
        conversation.vouched = false;
        conversation.warned = false;
        conversation.proposal = None;
        let founding = conversation.phase == Phase::Founding;
        self.dirty.insert(Row::Conversation(id));
        self.note_members(id);
        let newcomer = summary.by.filter(|_| summary.external && returned.is_none());
        for device in summary.added.iter().chain(&newcomer) {
            self.forget_lists_of(device.account);
        }
        self.note_gone(id, summary);
        self.note_room(id, summary);
        self.note_renewal(id, summary);
        if founding {
            return;
        }
        self.tell_members(id, summary);
        self.forget_wishes(id);
        if summary.external && self.greets(id, summary.by) {
            self.greet(id, now);
        }
        if let Some(returned) = returned {
            if let Some(conversation) = self.conversations.get_mut(&id) {
                conversation.theirs.entry(returned.device).or_default().returned = true;
            }
            self.answer_return(id, returned.device, now);
        }
    }

    /// Whether this device is one of those that greet a device that came back: the lowest of the others, and the lowest of
    /// its account's.
    fn greets(&self, id: ConversationId, who: Option<DeviceAddress>) -> bool {
        let (members, own) = (self.mls.members(id), self.identity.address());
        let others = || members.iter().map(|(device, _)| *device).filter(|device| Some(*device) != who);
        let is_kin = who.is_some_and(|who| who.account == own.account);
        let kin = others().filter(|device| device.account == own.account).min();
        others().min() == Some(own) || is_kin && kin == Some(own)
    }

    fn tell_members(&mut self, id: ConversationId, summary: &CommitSummary) {
        let inside: BTreeSet<AccountId> = self.mls.members(id).into_iter().map(|(d, _)| d.account).collect();
        let accounts = |devices: &[DeviceAddress]| devices.iter().map(|d| d.account).collect::<BTreeSet<_>>();
        let (added, removed) = (accounts(&summary.added), accounts(&summary.removed));
        let by = summary.by.map(|d| self.member(d.account));
        // Who is in `removed` and inside came back by itself.
        let newcomer = |account: &AccountId| {
            let members = self.mls.members(id);
            let here = members.iter().filter(|(d, _)| d.account == *account).map(|(d, _)| d);
            // An account that was in with another device got one more.
            here.into_iter().all(|d| summary.added.contains(d))
        };
        let came: Vec<AccountId> = added.iter().filter(|a| !removed.contains(a) && newcomer(a)).copied().collect();
        self.cast_out(id, removed.difference(&inside).copied());
        self.judge_additions(id, summary, &came);
        for account in &came {
            let member = self.member(*account);
            let by = by.clone().unwrap_or_else(|| member.clone());
            self.out.events.push(Event::MemberAdded { conversation: id, member, by });
        }
        for account in removed.iter().filter(|a| !inside.contains(a)) {
            let leaving = self.conversations.get(&id).is_some_and(|c| {
                c.work.iter().any(|w| matches!(w, Work::Dismiss(d, _) if d.iter().any(|d| d.account == *account)))
            });
            let (member, by) = (self.member(*account), by.clone().filter(|_| !leaving));
            self.out.events.push(Event::MemberRemoved { conversation: id, member, by });
        }
    }

    /// The server's verdict on the commit that waits.
    pub(super) fn commit_verdict(
        &mut self,
        id: ConversationId,
        outcome: api::commit_response::Outcome,
        now: UnixMillis,
    ) {
        let Some(conversation) = self.conversations.get_mut(&id).filter(|c| c.commit.is_some()) else { return };
        let (rejoining, renews) = (conversation.rejoining, conversation.renews());
        match outcome {
            api::commit_response::Outcome::Won(_) if rejoining => self.rejoined(id, now),
            api::commit_response::Outcome::Won(_) => match self.mls.merge_commit(id) {
                Ok(summary) => {
                    self.commit_won(id, summary, now);
                    self.await_queue(id, self.mls.epoch(id).unwrap_or(0));
                }
                Err(error) => self.lost_thread(id, &LostThread::Own(error)),
            },
            api::commit_response::Outcome::Lost(lost) => {
                self.void_commit(id);
                if renews {
                    self.refresh_overtaken(id);
                } else {
                    self.lost_race(id, now);
                }
                if !rejoining {
                    self.await_epoch(id, lost.current_epoch);
                }
            }
        }
    }

    /// A new commit waits for its verdict. An answer that is still under way is about an earlier one.
    pub(super) fn offer_commit(&mut self, id: ConversationId, commit: Commit) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        conversation.commit = Some(commit);
        self.calls.abandon(&Ask::Commit(id));
        self.dirty.insert(Row::Conversation(id));
    }

    /// The commit that waits is void; the work it was for is looked at anew.
    pub(super) fn void_commit(&mut self, id: ConversationId) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        conversation.commit = None;
        self.dirty.insert(Row::Conversation(id));
        if conversation.rejoining {
            self.mls.drop_rejoin(id);
        } else if let Err(error) = self.mls.drop_commit(id) {
            self.lost_thread(id, &LostThread::Own(error));
        }
    }

    /// The service refuses the commit for good.
    pub(super) fn commit_refused(&mut self, id: ConversationId, why: &common::Error, now: UnixMillis) {
        let Some(conversation) = self.conversations.get_mut(&id).filter(|c| c.commit.is_some()) else { return };
        let (rejoining, renews) = (conversation.rejoining, conversation.renews());
        let added = conversation.commit.as_ref().is_some_and(|commit| !commit.welcome.is_empty());
        conversation.aligned += u32::from(why.code() == ErrorCode::DevicesMismatch && !renews);
        let tries = conversation.aligned;
        self.void_commit(id);
        match why.code() {
            ErrorCode::UnknownConversation => self.left(id),
            _ if rejoining => self.come_back_later(id, why, now),
            ErrorCode::WrongEpoch => {
                if renews {
                    self.refresh_overtaken(id);
                }
                self.await_newer(id, why);
            }
            _ if renews => {
                self.ask_lists_of(why);
                self.refresh_refused(id);
            }
            ErrorCode::DevicesMismatch if tries <= MISMATCHES_MAX => {
                self.ask_lists_of(why);
                self.ask_later(Ask::Commit(id), why, now);
            }
            ErrorCode::GroupTooLarge => self.group_refused(id, added, why),
            _ => self.fail_work(id, why),
        }
    }

    /// Takes in commits in the order of epochs, as far as their bytes are here.
    pub(super) fn queue_commits(
        &mut self,
        id: ConversationId,
        commits: Vec<api::EpochCommit>,
        current_epoch: u64,
        now: UnixMillis,
    ) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        let target = conversation.behind.unwrap_or(current_epoch).min(current_epoch);
        // There is no later one to wait for.
        conversation.awaits = conversation.awaits.map(|awaited| awaited.min(current_epoch));
        conversation.backlog = commits.into_iter().filter(|commit| commit.epoch < target).collect();
        conversation.behind = Some(target);
        self.work_backlog(id, now);
    }

    pub(super) fn work_backlog(&mut self, id: ConversationId, now: UnixMillis) {
        let before = self.mls.epoch(id);
        while let Some(next) = self.conversations.get_mut(&id).and_then(|c| c.backlog.pop_front()) {
            let bytes = match next.commit.as_ref().map_or(Some(Err(())), |commit| self.objects(id, &[commit], now)) {
                Some(Ok(bytes)) => bytes.concat(),
                Some(Err(())) => return self.lost_thread(id, &LostThread::Bytes),
                None => {
                    if let Some(conversation) = self.conversations.get_mut(&id) {
                        conversation.backlog.push_front(next);
                    }
                    return;
                }
            };
            let more = self.conversations.get(&id).is_some_and(|c| !c.backlog.is_empty());
            match self.mls.handshake(id, &bytes) {
                Ok(handshake) => self.took_handshake(id, handshake, now),
                Err(error) => return self.lost_thread(id, &LostThread::Commit(error)),
            }
            if self.conversations.get(&id).is_none_or(|c| c.phase == Phase::Left) {
                if more {
                    // It may have been let in again since, and what let it in may be gone.
                    self.resync = true;
                    self.dirty.insert(Row::Resync);
                }
                return;
            }
        }
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        let epoch = self.mls.epoch(id);
        if epoch >= conversation.behind {
            conversation.behind = None;
            self.queue_reached(id, epoch.unwrap_or(0));
            self.outbox.epoch_ready(id);
        } else if epoch == before {
            self.lost_thread(id, &LostThread::NoWay);
        }
    }

    /// The server is in a newer epoch than this device. The commits stand in its queue, each before what was sealed
    /// after it; going ahead of them would make what waits in between too old to be opened. So they are asked for only
    /// if the queue does not come to them.
    pub(super) fn await_epoch(&mut self, id: ConversationId, epoch: u64) {
        let ours = self.mls.epoch(id).unwrap_or(0);
        let Some(conversation) = self.conversations.get(&id) else { return };
        if conversation.rejoining || conversation.behind.is_some() {
            return;
        }
        // What is over reaches no epoch: what waits in it is refused, or goes on elsewhere.
        if ours >= epoch || matches!(conversation.phase, Phase::Left | Phase::Failed) {
            return self.outbox.epoch_ready(id);
        }
        self.await_queue(id, epoch);
    }

    /// The service refused something for its epoch; one that it did not name is the next.
    pub(super) fn await_newer(&mut self, id: ConversationId, why: &common::Error) {
        let next = self.mls.epoch(id).map_or(0, |epoch| epoch + 1);
        self.await_epoch(id, why.current_epoch.max(next));
    }

    /// Nothing is committed before the queue has come to this epoch. A device that makes epochs goes ahead of its queue,
    /// in which the commit comes back to it: by one epoch, which [`crate::mls`] keeps the keys for, and not by more.
    fn await_queue(&mut self, id: ConversationId, epoch: u64) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        if matches!(conversation.phase, Phase::Left | Phase::Failed) {
            return;
        }
        conversation.awaits = conversation.awaits.max(Some(epoch));
        self.dirty.insert(Row::Conversation(id));
    }

    /// Something of this epoch came in the queue: the commits before it did.
    pub(super) fn queue_reached(&mut self, id: ConversationId, epoch: u64) {
        if self.conversations.get(&id).and_then(|c| c.awaits).is_some_and(|awaited| epoch >= awaited) {
            self.end_wait(id);
        }
    }

    fn end_wait(&mut self, id: ConversationId) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        conversation.wait_no_more();
        self.dirty.insert(Row::Conversation(id));
        self.outbox.epoch_ready(id);
    }

    /// What is waited for may have been in the gap.
    pub(super) fn hurry_epochs(&mut self) {
        let hurried = self.conversations.iter_mut().filter_map(|(id, c)| c.wait_in_vain().then_some(*id));
        self.dirty.extend(hurried.map(Row::Conversation));
    }

    /// After a gap the server is found to be in this epoch.
    pub(super) fn await_after_gap(&mut self, id: ConversationId, epoch: u64) {
        self.await_epoch(id, epoch);
        if self.conversations.get_mut(&id).is_some_and(Conversation::wait_in_vain) {
            self.dirty.insert(Row::Conversation(id));
        }
    }

    /// Whether the conversation has to wait for its queue; asks for the commits when they have not come by themselves.
    pub(super) fn is_awaiting(&mut self, id: ConversationId, now: UnixMillis) -> bool {
        let (online, ours) = (self.session.is_online(), self.mls.epoch(id));
        let drained = online && self.inbound.is_empty();
        let Some(conversation) = self.conversations.get_mut(&id) else { return false };
        let Some(awaited) = conversation.awaits.filter(|_| conversation.behind.is_none()) else { return false };
        if conversation.awaits_until.is_none() && online {
            let wait = if conversation.awaits_in_vain { EPOCH_AWAITED_AFTER_GAP } else { EPOCH_AWAITED };
            conversation.awaits_until = Some(now.after(wait));
        }
        if conversation.awaits_until.is_none_or(|until| until > now) {
            return true;
        }
        if !drained {
            conversation.awaits_until = Some(now.after(EPOCH_AWAITED_AFTER_GAP));
            return true;
        }
        if ours >= Some(awaited) {
            self.end_wait(id);
        } else {
            conversation.behind = Some(u64::MAX);
        }
        false
    }

    /// This account is no longer in the conversation.
    pub(super) fn left(&mut self, id: ConversationId) {
        self.left_by(id, None);
    }

    /// Who removed this account; none where it had asked to leave, or did so on another device.
    fn put_out_by(&self, id: ConversationId, summary: &CommitSummary) -> Option<Member> {
        let conversation = self.conversations.get(&id)?;
        let own = self.identity.address().account;
        let leaves = conversation.proposal.is_some() || conversation.work.contains(&Work::Leave);
        let asked = leaves || conversation.asked_elsewhere;
        let by = summary.by.filter(|by| !asked && by.account != own)?;
        Some(self.member(by.account))
    }

    fn left_by(&mut self, id: ConversationId, by: Option<Member>) {
        if self.conversations.get(&id).is_some_and(|c| matches!(c.phase, Phase::Left | Phase::Failed)) {
            return;
        }
        let why = refusal(ErrorCode::UnknownConversation, "you are no longer in the conversation");
        self.end(id, Phase::Left, &why, Event::Left { conversation: id, by });
    }

    /// The first work cannot be done.
    pub(super) fn fail_work(&mut self, id: ConversationId, why: &common::Error) {
        if self.aligns(id) {
            // Nobody asked for it, so nobody would ask again.
            return self.align_later(id);
        }
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        if conversation.phase == Phase::Founding {
            let event = Event::ConversationFailed { conversation: id, why: why.clone() };
            return self.end(id, Phase::Failed, why, event);
        }
        conversation.work.pop_front();
        conversation.packages.clear();
        conversation.bare.clear();
        (conversation.aligned, conversation.lean) = (0, false);
        self.calls.abandon(&Ask::Claim(id));
        self.dirty.insert(Row::Conversation(id));
        self.out.events.push(Event::ChangeFailed { conversation: id, why: why.clone() });
    }

    /// The conversation is over, which `event` says, unless the chat goes on in another one.
    pub(super) fn end(&mut self, id: ConversationId, phase: Phase, why: &common::Error, event: Event) {
        let heir = self.heir(id);
        let members = self.mls.members(id);
        let untried = self.first_untried(id);
        let Some(old) = self.conversations.get_mut(&id) else { return };
        let (kind, name, peer, known) = (old.kind, old.name.take(), old.peer, old.known);
        let (root, goes_on) = (old.root, old.heir);
        let outcasts = std::mem::take(&mut old.outcasts);
        let over =
            Conversation { kind, name, peer, known, phase, root, heir: goes_on, outcasts, ..Conversation::default() };
        // What comes in another conversation of the chat is compared with what was shown here.
        old.put_out();
        let ours = std::mem::take(&mut old.ours);
        // And what is written in another one, with what was written here.
        let (said, lives, void) = (old.said, std::mem::take(&mut old.lives), std::mem::take(&mut old.void));
        let unsent = std::mem::take(&mut old.unsent);
        // What others told of this device's messages is shown on.
        let gone = std::mem::take(old).gone_with(members.iter().map(|(device, _)| device), untried);
        *old = Conversation { created: true, announced: true, ours, said, lives, void, unsent, gone, ..over };
        self.dirty.insert(Row::Conversation(id));
        self.mls.forget(id);
        self.calls.abandon_all_of(id);
        if let Some(into) = heir {
            // What waits is moved when nothing is in flight any more.
            return self.out.events.push(Event::SameChat { conversation: id, into });
        }
        for message in self.outbox.drop_conversation(id) {
            // What a log has is on its way to the others, whoever leaves; what is on the wire is what the server says.
            if message.accepted_at().is_none() {
                self.refuse(&message, why);
            }
        }
        self.out.events.push(event);
    }
}
