// SPDX-License-Identifier: MIT OR Apache-2.0
//! Joining again by an external commit (RFC 9420 section 12.4.3.2), where a device cannot follow a group any more.

use pli_api::{ErrorCode, common, conversations as api, refusal};
use pli_domain::{ConversationId, DeviceAddress, UnixMillis};
use prost::Message as _;

use super::calls::Ask;
use super::conversation::{LostThread, Phase};
use super::reconcile::id_bytes;
use super::{Core, Event, Row};

/// The reason that is reported for a thread that was lost before a restart: it is not stored.
const LOST_BEFORE: &str = "commit";
const UNTRUSTED: &str = "the group info is signed by nobody who was in the group when this device could follow it";

impl Core {
    /// This device cannot follow the group: report it and join again.
    pub(super) fn lost_thread(&mut self, id: ConversationId, why: &LostThread) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        if conversation.rejoining || matches!(conversation.phase, Phase::Left | Phase::Failed) {
            return;
        }
        conversation.rejoining = true;
        conversation.reported = false;
        (conversation.comes_back, conversation.rejoins) = (None, 0);
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
            Ok((commit, (by, key))) if self.may_bring_back(&known, by, &key) => return self.offer_commit(id, commit),
            Ok(_) => UNTRUSTED.into(),
            Err(why) => why,
        };
        self.mls.drop_rejoin(id);
        self.come_back_later(id, &refusal(ErrorCode::CommitInvalid, why), now);
    }

    /// Whether a leaf may bring this device back: one of whom it knew in the group, with the key that it had there or that its
    /// list names. A group info of others is as good as any that a server makes together with a stranger under the group's
    /// id; soon somebody who was there before renews keys, and signs the next one. Of a group that this device never followed
    /// it knows nobody.
    fn may_bring_back(&mut self, known: &[(DeviceAddress, Vec<u8>)], by: DeviceAddress, key: &[u8]) -> bool {
        let followed = known.iter().any(|(device, known)| *device == by && known == key);
        let is_known = known.iter().any(|(device, _)| device.account == by.account);
        if known.is_empty() || followed || (is_known && self.is_listed(by, key)) {
            return true;
        }
        if is_known {
            // It may be a device that is new since.
            self.lists_wanted.insert(by.account);
        }
        false
    }

    /// It failed: later each time until it succeeds, as a group info that is answered says nothing of that.
    pub(super) fn come_back_later(&mut self, id: ConversationId, why: &common::Error, now: UnixMillis) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        conversation.rejoins = conversation.rejoins.saturating_add(1);
        let tries = conversation.rejoins;
        self.ask_after(Ask::GroupInfo(id), tries, why, now);
    }

    pub(super) fn rejoined(&mut self, id: ConversationId, now: UnixMillis) {
        if let Err(error) = self.mls.finish_rejoin(id) {
            self.void_commit(id);
            return self.come_back_later(id, &refusal(ErrorCode::Internal, error.to_string()), now);
        }
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        conversation.commit = None;
        conversation.race_no_more();
        conversation.rejoining = false;
        (conversation.reported, conversation.rejoins) = (false, 0);
        conversation.phase = Phase::Active;
        conversation.created = true;
        conversation.vouched = false;
        conversation.announced = false;
        conversation.proposal = None;
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
        if conversation.commit.is_some() && self.mls.has_rejoin(id) {
            self.ask_commit(id, now);
        } else if !conversation.reported {
            let epoch = self.mls.epoch(id).unwrap_or(0);
            let reason = conversation.lost_for.unwrap_or(LOST_BEFORE).to_owned();
            let request = api::ReportFailureRequest { conversation: id_bytes(id), epoch, reason };
            self.ask(Ask::Report(id), |_| Some(request.encode_to_vec()), now);
        } else if self.lets_others_commit(id, now) {
            // Its turn comes.
        } else if conversation.comes_back.is_some() {
            self.come_back(id, now);
        } else {
            let request = api::GetGroupInfoRequest { conversation: id_bytes(id) };
            self.ask(Ask::GroupInfo(id), |_| Some(request.encode_to_vec()), now);
        }
    }
}
