// SPDX-License-Identifier: MIT OR Apache-2.0
//! Joining again by an external commit (RFC 9420 section 12.4.3.2), where a device cannot follow a group any more.

use std::collections::BTreeSet;
use std::time::Duration;

use pli_api::{ErrorCode, common, conversations as api, refusal};
use pli_domain::{ConversationId, UnixMillis};
use prost::Message as _;
use rand_chacha::rand_core::RngCore as _;

use super::calls::Ask;
use super::conversation::{Conversation, LostThread, Phase, Work};
use super::reconcile::id_bytes;
use super::{Core, Event, Row};
use crate::mls::Leaf;

/// The reason that is reported for a thread that was lost before a restart: it is not stored.
const LOST_BEFORE: &str = "commit";
const UNTRUSTED: &str = "the group info is signed by nobody who was in the group when this device could follow it";
/// Most members that are asked at a time to renew their keys: if one of them is online, that is enough.
const VOUCHERS_MAX: usize = 8;
/// And others so much later.
const VOUCHERS_EVERY: Duration = Duration::from_secs(3_600);
/// Tries at the usual pace, about a minute, while those who are asked answer; …
const TRIES_SOON: u32 = 7;
/// … after them the group info, a large one in a large group, is looked at so seldom, and at each commit that comes.
const TRIES_APART_MS: u32 = 10 * 60 * 1000;

impl Core {
    /// This device cannot follow the group: report it and join again.
    pub(super) fn lost_thread(&mut self, id: ConversationId, why: &LostThread) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        if conversation.rejoining || matches!(conversation.phase, Phase::Left | Phase::Failed) {
            return;
        }
        conversation.rejoining = true;
        conversation.reported = false;
        (conversation.comes_back, conversation.outpaced, conversation.rejoins) = (None, false, 0);
        (conversation.vouchers_asked, conversation.waits_told, conversation.forsaken) = (None, false, false);
        conversation.vouchers.clear();
        conversation.lost_for = Some(why.word());
        conversation.behind = None;
        conversation.wait_no_more();
        conversation.backlog.clear();
        conversation.commit = None;
        self.dirty.insert(Row::Conversation(id));
        self.out.events.push(Event::Rejoining { conversation: id, why: why.sentence() });
    }

    /// What is needed to come back was answered, and is kept until it is fetched.
    pub(super) fn group_info_came(&mut self, id: ConversationId, answer: api::GetGroupInfoResponse, now: UnixMillis) {
        if let Some(conversation) = self.conversations.get_mut(&id).filter(|c| c.rejoining && c.commit.is_none()) {
            conversation.comes_back = Some(answer);
            self.come_back(id, now);
        }
    }

    /// Joins again by what was answered, when all of it is here.
    pub(super) fn come_back(&mut self, id: ConversationId, now: UnixMillis) {
        let Some(answer) = self.conversations.get(&id).and_then(|c| c.comes_back.clone()) else { return };
        let objects: Vec<&api::Object> = answer.group_info.iter().chain(&answer.ratchet_tree).collect();
        let Some(objects) = self.objects(id, &objects, now) else { return };
        if let Some(conversation) = self.conversations.get_mut(&id) {
            conversation.comes_back = None;
        }
        let known = if self.mls.has_followed(id) { self.mls.members(id) } else { Vec::new() };
        let made = match (&answer.group_info, objects.as_deref()) {
            (Some(_), Ok([info, tree @ ..])) => {
                self.mls.rejoin(id, info, tree.first().map(|tree| &tree[..])).map_err(|why| why.to_string())
            }
            _ => Err("the group info is not there".into()),
        };
        let why = match made {
            Ok((commit, signer)) if self.may_bring_back(&known, &signer) => return self.offer_commit(id, commit),
            Ok(_) => {
                self.ask_to_vouch(id, &known, now);
                UNTRUSTED.into()
            }
            Err(why) => why,
        };
        self.mls.drop_rejoin(id);
        self.come_back_later(id, &refusal(ErrorCode::CommitInvalid, why), now);
    }

    /// Asks some of those whom this device knew in the group, and who are still there, to renew their keys: the group info
    /// is then theirs. Says once that it waits for that.
    fn ask_to_vouch(&mut self, id: ConversationId, known: &[Leaf], now: UnixMillis) {
        let own = self.identity.address();
        let mut there = self.mls.members_to_rejoin(id);
        there.retain(|leaf| leaf.0 != own && self.is_known(known, leaf));
        let accounts: BTreeSet<_> = there.iter().map(|(device, _)| device.account).collect();
        there.sort_by_cached_key(|_| self.rng.next_u64());
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        let lately = conversation.vouchers_asked.is_some_and(|at| at <= now && now.since(at) < VOUCHERS_EVERY);
        if !lately && !there.is_empty() {
            conversation.vouchers = there.into_iter().map(|(device, _)| device).take(VOUCHERS_MAX).collect();
            (conversation.vouchers_asked, conversation.reported) = (Some(now), false);
        }
        let no_others = accounts.iter().all(|account| *account == own.account);
        let forsaken = accounts.is_empty() || no_others && conversation.rejoins >= TRIES_SOON;
        let was_forsaken = std::mem::replace(&mut conversation.forsaken, forsaken);
        let was_told = match forsaken {
            true => was_forsaken,
            false => conversation.rejoins < TRIES_SOON || std::mem::replace(&mut conversation.waits_told, true),
        };
        if !was_told {
            let why = refusal(ErrorCode::CommitInvalid, awaited(accounts.len(), forsaken));
            self.out.events.push(Event::Waiting { conversation: id, why });
        }
    }

    /// A commit came to a group that waits for one of somebody whom this device knows. What is under way may be the group
    /// info of before; that ends first, so that of many commits each does not begin it anew.
    pub(super) fn others_went_on(&mut self, id: ConversationId) {
        let waits = |c: &&mut Conversation| c.vouchers_asked.is_some() || c.forsaken;
        let Some(conversation) = self.conversations.get_mut(&id).filter(waits) else { return };
        let ask = Ask::GroupInfo(id);
        conversation.outpaced = conversation.comes_back.is_some() || self.calls.is_open(&ask);
        self.calls.done(&ask);
    }

    /// Whether a leaf may bring this device back: one of whom it knew in the group, with the key that it had there or that its
    /// list names. A group info of others is as good as any that a server makes together with a stranger under the group's
    /// id; soon somebody who was there before renews keys, and signs the next one. Of a group that this device never followed
    /// it knows nobody.
    fn may_bring_back(&mut self, known: &[Leaf], signer: &Leaf) -> bool {
        if known.is_empty() || self.is_known(known, signer) {
            return true;
        }
        if known.iter().any(|(device, _)| device.account == signer.0.account) {
            // It may be a device that is new since.
            self.lists_wanted.insert(signer.0.account);
        }
        false
    }

    fn is_known(&self, known: &[Leaf], leaf: &Leaf) -> bool {
        let (device, key) = leaf;
        known.contains(leaf)
            || known.iter().any(|(known, _)| known.account == device.account) && self.is_listed(*device, key)
    }

    /// It failed: later each time until it succeeds, as a group info that is answered says nothing of that.
    pub(super) fn come_back_later(&mut self, id: ConversationId, why: &common::Error, now: UnixMillis) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        conversation.rejoins = conversation.rejoins.saturating_add(1);
        if std::mem::take(&mut conversation.outpaced) {
            self.calls.done(&Ask::GroupInfo(id));
            return self.ask_group_info(id, now);
        }
        let tries = conversation.rejoins;
        let waits = conversation.vouchers_asked.is_some() || conversation.forsaken;
        let pause = if waits && tries > TRIES_SOON { TRIES_APART_MS } else { why.retry_after_ms };
        let why = why.clone().retry_after(pause);
        self.ask_after(Ask::GroupInfo(id), tries, &why, now);
    }

    pub(super) fn rejoined(&mut self, id: ConversationId, now: UnixMillis) {
        let followed = self.mls.has_followed(id);
        if let Err(error) = self.mls.finish_rejoin(id) {
            self.void_commit(id);
            return self.come_back_later(id, &refusal(ErrorCode::Internal, error.to_string()), now);
        }
        let first = self.first_unsent(id);
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        if conversation.lane_base == 0 {
            // It was out: whoever has come in meanwhile lacks nothing that was numbered before.
            conversation.lane_base = first;
        }
        conversation.commit = None;
        conversation.race_no_more();
        conversation.rejoining = false;
        (conversation.reported, conversation.rejoins) = (false, 0);
        conversation.phase = Phase::Active;
        conversation.created = true;
        conversation.vouched = false;
        conversation.announced = false;
        conversation.asked_elsewhere = false;
        conversation.proposal = None;
        // They are of an epoch that is over: whoever still wants to leave proposes it again.
        conversation.work.retain(|work| !matches!(work, Work::Dismiss(..)));
        if followed {
            self.take_back_present(id);
        } else {
            self.keep_out(id);
        }
        self.doubt_unvouched(id);
        self.note_bases(id);
        self.note_members(id);
        self.refreshed(id);
        self.outbox.epoch_ready(id);
    }

    /// Reports that the thread was lost, and joins again when it is this device's turn.
    pub(super) fn advance_rejoin(&mut self, id: ConversationId, now: UnixMillis) {
        let Some(conversation) = self.conversations.get(&id) else { return };
        if self.own_list.is_keeping(self.identity.address().device) {
            // The others would not believe this device yet.
            return;
        }
        if conversation.forsaken && conversation.work.contains(&Work::Leave) {
            return self.abandon(id);
        }
        if conversation.commit.is_some() && self.mls.has_rejoin(id) {
            self.ask_commit(id, now);
        } else if !conversation.reported {
            let epoch = self.mls.epoch(id).unwrap_or(0);
            let reason = conversation.lost_for.unwrap_or(LOST_BEFORE).to_owned();
            let renew = conversation.vouchers.iter().map(|device| (*device).into()).collect();
            let request = api::ReportFailureRequest { conversation: id_bytes(id), epoch, reason, renew };
            self.ask(Ask::Report(id), |_| Some(request.encode_to_vec()), now);
        } else if self.lets_others_commit(id, now) {
            // Its turn comes.
        } else if conversation.comes_back.is_some() {
            self.come_back(id, now);
        } else {
            self.ask_group_info(id, now);
        }
    }

    fn ask_group_info(&mut self, id: ConversationId, now: UnixMillis) {
        let request = api::GetGroupInfoRequest { conversation: id_bytes(id) };
        self.ask(Ask::GroupInfo(id), |_| Some(request.encode_to_vec()), now);
    }
}

/// What somebody whose device does not come back by itself has to know; of so many accounts that it knew somebody is there.
fn awaited(accounts: usize, forsaken: bool) -> String {
    match accounts {
        0 => "nobody whom this device knew in it is in it any more, so nobody can say that it is still the same \
              conversation: leave it, and have a member remove you and add you again"
            .into(),
        _ if forsaken => "nobody whom this device knew in it is in it any more but your own devices, and none of them says \
                          that it is still the same conversation: leave it on each of them, and have a member remove you \
                          and add you again"
            .into(),
        count => {
            let whom = if count == 1 { "a member".into() } else { format!("one of {count} members") };
            format!(
                "this device comes back as soon as {whom} whom it knew there renews the keys of the group; they are asked to, \
                 and they do so when they are online and can follow it; where none can, leave it, and have a member remove you \
                 and add you again"
            )
        }
    }
}
