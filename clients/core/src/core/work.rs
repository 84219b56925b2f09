// SPDX-License-Identifier: MIT OR Apache-2.0
//! The work of a conversation, one piece after the other: who is added and removed, and the commit of each.

use std::collections::BTreeSet;

use bytes::Bytes;
use pli_api::{ErrorCode, common, conversations as api, directory, refusal};
use pli_domain::limits::{CLAIM_DEVICES_MAX, GROUP_DEVICES_MAX};
use pli_domain::{AccountId, ConversationId, DeviceAddress, Handle, SendId, UnixMillis};
use prost::Message as _;

use super::calls::Ask;
use super::conversation::{Phase, Proposal, Work};
use super::devices::align_at;
use super::reconcile::id_bytes;
use super::restored::{gather_again, gather_at};
use super::{Core, Row};
use crate::content::Kind;
use crate::mls::{Addition, MlsError};

fn too_large(devices: usize) -> common::Error {
    let why = format!(
        "the group would have {devices} devices; at most {GROUP_DEVICES_MAX} are allowed: remove people, or devices that \
         nobody uses any more"
    );
    refusal(ErrorCode::GroupTooLarge, why)
}

impl Core {
    /// One step in one conversation; true when a piece of work is finished and the next may begin.
    pub(super) fn advance(&mut self, id: ConversationId, now: UnixMillis) -> bool {
        let Some(conversation) = self.conversations.get(&id) else { return false };
        if matches!(conversation.phase, Phase::Left | Phase::Failed) {
            return false;
        }
        if conversation.rejoining {
            self.advance_rejoin(id, now);
            return false;
        }
        if !conversation.backlog.is_empty() {
            self.work_backlog(id, now);
            return false;
        }
        if self.is_awaiting(id, now) {
            return false;
        }
        self.put_due_first(id, now);
        let Some(conversation) = self.conversations.get(&id) else { return false };
        if conversation.behind.is_some() {
            let from = self.mls.epoch(id).unwrap_or(0);
            let request = api::GetCommitsRequest { conversation: id_bytes(id), from };
            self.ask(Ask::Commits(id), |_| Some(request.encode_to_vec()), now);
            return false;
        }
        if conversation.commit.is_some() {
            self.ask_commit(id, now);
            return false;
        }
        match conversation.work.front().cloned() {
            None => self.advance_idle(id, now),
            Some(Work::Add(handles)) => self.advance_add(id, &handles, now),
            Some(Work::Remove(accounts)) => self.advance_remove(id, |d| accounts.contains(&d.account), now),
            Some(Work::Dismiss(_, at)) if at > now => false,
            Some(Work::Dismiss(devices, _)) => {
                // With one device its account leaves.
                self.advance_remove(id, |d| devices.iter().any(|gone| gone.account == d.account), now)
            }
            Some(Work::Leave) => self.advance_leave(id, now),
            Some(Work::Gather(_, at)) if at > now => self.advance_idle(id, now),
            Some(Work::Gather(accounts, _)) => self.advance_gather(id, &accounts, now),
            Some(Work::Align(at)) if at > now => self.advance_idle(id, now),
            Some(Work::KeepOut) => self.advance_keep_out(id, now),
            Some(Work::Align(_)) => self.advance_change(id, BTreeSet::new(), BTreeSet::new(), now),
        }
    }

    /// Nothing is to be done at the moment.
    fn advance_idle(&mut self, id: ConversationId, now: UnixMillis) -> bool {
        self.advance_refresh(id, now);
        false
    }

    pub(super) fn next_work_at(&self) -> Option<UnixMillis> {
        let each = self.conversations.values().filter_map(|c| match c.work.front() {
            Some(Work::Dismiss(_, at)) => Some(*at),
            Some(Work::Gather(..)) => c.work.iter().filter_map(gather_at).min(),
            _ => None,
        });
        let each = each.chain(self.conversations.values().filter_map(align_at));
        let awaited = self.conversations.values().filter_map(|c| c.awaits_until);
        let raced = self.conversations.values().filter_map(|c| c.commits_at);
        // One that is due already must not hide the next one.
        each.chain(awaited).chain(raced).filter(|at| *at > self.stepped_at).min()
    }

    fn advance_add(&mut self, id: ConversationId, handles: &[Handle], now: UnixMillis) -> bool {
        let unknown: Vec<Handle> = handles.iter().filter(|h| self.account_of(h).is_none()).cloned().collect();
        for handle in &unknown {
            let request = directory::LookupRequest { handle: handle.to_string() };
            self.ask(Ask::Lookup(handle.clone()), |_| Some(request.encode_to_vec()), now);
        }
        if !unknown.is_empty() {
            return false;
        }
        let accounts: BTreeSet<AccountId> = handles.iter().filter_map(|h| self.account_of(h)).collect();
        if let (Some(Kind::Direct), Some(peer)) = (self.conversations.get(&id).and_then(|c| c.kind), accounts.first()) {
            self.set_peer(id, *peer);
        }
        if self.put_wishes_first(id, &accounts) {
            return true;
        }
        let is_made = self.conversations.get(&id).is_some_and(|c| c.phase == Phase::Active);
        if is_made && !self.session.is_online() && self.missing_devices(id, &accounts).is_empty() {
            // Whether they are in, and stay, is known when everything is here.
            return false;
        }
        accounts.iter().for_each(|account| self.take_back(id, *account));
        self.advance_change(id, accounts, BTreeSet::new(), now)
    }

    pub(super) fn advance_remove(
        &mut self,
        id: ConversationId,
        goes: impl Fn(&DeviceAddress) -> bool,
        now: UnixMillis,
    ) -> bool {
        let own = self.identity.address();
        let members = self.mls.members(id).into_iter().map(|(d, _)| d);
        let leaves = members.filter(|d| *d != own && goes(d)).collect();
        self.advance_change(id, BTreeSet::new(), leaves, now)
    }

    /// One commit that adds the devices of `accounts` and removes `leaves`; after the service said that the group and
    /// the device lists differ, it also puts that right.
    pub(super) fn advance_change(
        &mut self,
        id: ConversationId,
        asked: BTreeSet<AccountId>,
        mut leaves: BTreeSet<DeviceAddress>,
        now: UnixMillis,
    ) -> bool {
        // This account's other devices are in whatever it is in.
        let mut accounts = asked.clone();
        accounts.insert(self.identity.address().account);
        if self.aligns(id) || self.conversations.get(&id).is_some_and(|c| c.aligned > 0) {
            let Some(foreign) = self.foreign_leaves(id, &leaves) else { return false };
            let members = self.mls.members(id).into_iter().map(|(device, _)| device);
            accounts.extend(members.filter(|device| !leaves.contains(device)).map(|device| device.account));
            leaves.extend(foreign);
        }
        let mut wanted = self.wanted_devices(id, &asked, &accounts);
        // One that is not made yet has this device.
        let rest = self.mls.size(id).max(1).saturating_sub(leaves.len());
        if rest + wanted.len() > GROUP_DEVICES_MAX {
            // Whoever goes makes room: the group is brought in line when there is enough.
            wanted = self.missing_devices(id, &asked);
        }
        if rest + wanted.len() > GROUP_DEVICES_MAX && !wanted.is_empty() {
            // Before anything is claimed for it.
            self.fail_work(id, &too_large(rest + wanted.len()));
            return true;
        }
        let made = self.mls.has(id) && self.conversations.get(&id).is_some_and(|c| c.created);
        if wanted.is_empty() && leaves.is_empty() && made {
            self.finish_work(id, now);
            return true;
        }
        let Some(additions) = self.additions(id, &wanted, now) else { return false };
        if self.create_group(id, now) {
            let leaves: Vec<DeviceAddress> = leaves.into_iter().collect();
            self.make_commit(id, &additions, &leaves, now);
        }
        false
    }

    /// Devices of these accounts that the group lacks, with their keys.
    pub(super) fn missing_devices(
        &self,
        id: ConversationId,
        accounts: &BTreeSet<AccountId>,
    ) -> Vec<(DeviceAddress, [u8; 32])> {
        let inside: BTreeSet<DeviceAddress> = self.mls.members(id).into_iter().map(|(d, _)| d).collect();
        let own = self.identity.address();
        let listed = accounts.iter().filter_map(|a| Some((*a, self.contacts.get(a)?)));
        let all = listed.flat_map(|(account, contact)| {
            contact.devices.devices.iter().map(move |(device, key)| (DeviceAddress { account, device: *device }, *key))
        });
        let bare = self.conversations.get(&id).map(|conversation| &conversation.bare);
        let is_bare = |device: &DeviceAddress| bare.is_some_and(|bare| bare.contains(device));
        let wanted = |device: &DeviceAddress| {
            *device != own && !inside.contains(device) && !self.stays_out(*device) && !is_bare(device)
        };
        all.filter(|(device, _)| wanted(device)).collect()
    }

    /// The devices with their key packages; nothing while some are still to be claimed.
    fn additions(
        &mut self,
        id: ConversationId,
        wanted: &[(DeviceAddress, [u8; 32])],
        now: UnixMillis,
    ) -> Option<Vec<Addition>> {
        let packages = &self.conversations.get(&id)?.packages;
        let package = |device: &DeviceAddress| packages.iter().find(|(d, _)| d == device).map(|(_, p)| p.to_vec());
        let found: Vec<Addition> =
            wanted.iter().filter_map(|(device, key)| Some((*device, key.to_vec(), package(device)?))).collect();
        if found.len() == wanted.len() {
            return Some(found);
        }
        let lacking = wanted.iter().filter(|(device, _)| package(device).is_none()).take(CLAIM_DEVICES_MAX);
        let devices = lacking.map(|(device, _)| (*device).into()).collect();
        let request = directory::ClaimKeyPackagesRequest { devices };
        self.ask(Ask::Claim(id), |_| Some(request.encode_to_vec()), now);
        None
    }

    /// Makes the group here and on the server; true when both are there.
    fn create_group(&mut self, id: ConversationId, now: UnixMillis) -> bool {
        if self.conversations.get(&id).is_some_and(|c| c.created) {
            return true;
        }
        if !self.mls.has(id) && self.mls.create(id).is_err() {
            self.fail_work(id, &refusal(ErrorCode::Internal, "the group could not be made"));
            return false;
        }
        let Ok(info) = self.mls.group_info(id) else { return false };
        let request = |core: &mut Self| {
            let group_info = core.offer(id, &[&info], now)?.pop();
            Some(api::CreateRequest { group_info }.encode_to_vec())
        };
        self.ask(Ask::Create(id), request, now);
        false
    }

    pub(super) fn make_commit(
        &mut self,
        id: ConversationId,
        add: &[Addition],
        remove: &[DeviceAddress],
        now: UnixMillis,
    ) {
        if self.lets_others_commit(id, now) {
            return;
        }
        let first = self.conversations.get(&id).and_then(|conversation| conversation.work.front());
        let made = match first {
            Some(Work::Gather(..)) => self.mls.commit_that_completes(id, add, remove),
            _ => self.mls.commit(id, add, remove),
        };
        match made {
            Ok(commit) => {
                self.offer_commit(id, commit);
                self.ask_commit(id, now);
            }
            Err(error) => self.fail_work(id, &cannot_add(&error)),
        }
    }

    pub(super) fn ask_commit(&mut self, id: ConversationId, now: UnixMillis) {
        self.ask(Ask::Commit(id), |core| core.commit_request(id, now), now);
    }

    fn commit_request(&mut self, id: ConversationId, now: UnixMillis) -> Option<Vec<u8>> {
        let commit = self.conversations.get(&id)?.commit.clone()?;
        let all = [&commit.commit[..], &commit.group_info, &commit.welcome];
        // Without a welcome where there is none.
        let count = if commit.welcome.is_empty() { 2 } else { 3 };
        let mut objects = self.offer(id, &all[..count], now)?.into_iter();
        let (first, group_info, welcome) = (objects.next(), objects.next(), objects.next());
        let conversation = id_bytes(id);
        let request = api::CommitRequest { conversation, epoch: commit.epoch, commit: first, welcome, group_info };
        Some(request.encode_to_vec())
    }

    fn advance_leave(&mut self, id: ConversationId, now: UnixMillis) -> bool {
        if self.leave_last(id, now) {
            return false;
        }
        let epoch = self.mls.epoch(id).unwrap_or(0);
        let stands = self.conversations.get(&id).and_then(|c| c.proposal.as_ref()).is_some_and(|p| p.epoch == epoch);
        if !stands {
            let Ok(bytes) = self.mls.propose_leave(id) else { return false };
            let send_id = SendId::from_bytes(self.random_id());
            let Some(conversation) = self.conversations.get_mut(&id) else { return false };
            conversation.proposal = Some(Proposal { epoch, bytes: bytes.into(), send_id, taken: false });
            // An answer that is still under way is about the one of another epoch.
            self.calls.abandon(&Ask::Propose(id));
            self.dirty.insert(Row::Conversation(id));
        }
        let proposal = self.conversations.get(&id).and_then(|c| c.proposal.clone());
        if let Some(Proposal { epoch, bytes, send_id, taken: false }) = proposal {
            let send_id = Bytes::copy_from_slice(send_id.as_bytes());
            let request = api::ProposeRequest { conversation: id_bytes(id), epoch, proposal: bytes, send_id };
            self.ask(Ask::Propose(id), |_| Some(request.encode_to_vec()), now);
        }
        false
    }

    /// The first work is done.
    pub(super) fn finish_work(&mut self, id: ConversationId, now: UnixMillis) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        let work = conversation.work.pop_front();
        let brought = !conversation.packages.is_empty();
        conversation.packages.clear();
        conversation.aligned = 0;
        conversation.race_no_more();
        let lean = std::mem::take(&mut conversation.lean);
        let bare = std::mem::take(&mut conversation.bare);
        self.calls.abandon(&Ask::Claim(id));
        let founding = conversation.phase == Phase::Founding;
        if founding {
            conversation.phase = Phase::Active;
            conversation.announced = false;
        }
        if !conversation.absent.is_empty() {
            let absent = conversation.absent.iter().copied().collect();
            conversation.work.push_back(Work::Gather(absent, gather_again(&mut conversation.gathered, now)));
            conversation.absent.clear();
        }
        let brought = brought || matches!(work, Some(Work::Add(_) | Work::Gather(..)));
        let newcomers = brought && !founding;
        self.dirty.insert(Row::Conversation(id));
        self.await_bare(id, bare);
        self.note_lack(id, lean, matches!(work, Some(Work::Align(_))));
        if newcomers {
            self.greet(id, now);
        }
    }
}

/// Why a device cannot be added, as far as only this device knows it.
pub(super) fn cannot_add(error: &MlsError) -> common::Error {
    let code = match error {
        MlsError::Suite { .. } => ErrorCode::SuiteNotTaken,
        _ => ErrorCode::CommitInvalid,
    };
    refusal(code, error.to_string())
}
