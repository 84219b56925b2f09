// SPDX-License-Identifier: MIT OR Apache-2.0
//! Answers to calls.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use pli_api::{ErrorCode, common, conversations as api, directory, edge, refusal};
use pli_domain::limits::{FRAME_BYTES_MAX, KEY_PACKAGES_MAX};
use pli_domain::{AccountId, ConversationId, DeviceAddress, Handle, UnixMillis};
use prost::Message as _;

use super::calls::Ask;
use super::conversation::{Conversation, LostThread, Phase, Work};
use super::devices::Met;
use super::session::registration_may_succeed;
use super::work::cannot_add;
use super::{Core, Event, Row};
use crate::identity::DeviceListError;
use crate::mls::MlsError;

/// Key packages that were refused are made anew at most so often.
const PACKAGES_REMADE: Duration = Duration::from_secs(3_600);
/// A publication that lies further ahead was told by a clock that was wrong.
const CLOCKS_APART: Duration = Duration::from_secs(24 * 3600);
/// Key packages are made anew so long after the last publication, a third of their life: whoever is online once in eight
/// weeks can always be reached by somebody new.
const PACKAGES_RENEWED: Duration = Duration::from_secs(28 * 24 * 3600);

/// A publication has to fit a frame, with the call around it.
const PUBLICATION_BYTES_MAX: usize = FRAME_BYTES_MAX - 4 * 1024;
/// What protobuf adds to each package.
const PACKAGE_FRAMING_BYTES: usize = 8;

impl Core {
    pub(super) fn reply(&mut self, reply: edge::Reply, now: UnixMillis) {
        let Some(ask) = self.calls.close(reply.id) else { return };
        match reply.result {
            Some(edge::reply::Result::Body(body)) if is_no_answer(&ask, &body) => {
                // A commit may have been taken: the same one is offered again, which the service knows.
                self.failed(ask, refusal(ErrorCode::Temporary, "the server's answer makes no sense"), now);
            }
            Some(edge::reply::Result::Body(body)) => {
                self.calls.done(&ask);
                self.answered(ask, body, now);
            }
            Some(edge::reply::Result::Error(why)) => self.failed(ask, why, now),
            None => self.failed(ask, refusal(ErrorCode::Temporary, "an empty reply"), now),
        }
    }

    fn answered(&mut self, ask: Ask, body: Bytes, now: UnixMillis) {
        match ask {
            Ask::Info => self.informed(&decoded(body)),
            Ask::Register => self.registered(),
            Ask::Publish => {
                self.packages = None;
                self.published = Some(self.session.server_time(now));
                self.dirty.extend([Row::Packages, Row::Published]);
            }
            Ask::Lookup(handle) => match directory::LookupResponse::decode(body) {
                Ok(found) => self.looked_up(&handle, &found),
                Err(_) => self.not_found(&handle, &refusal(ErrorCode::Internal, "the answer does not decode")),
            },
            Ask::Lists => self.listed(&decoded(body)),
            Ask::PutList => self.own_list_put(),
            Ask::Claim(id) => self.claimed(id, &decoded(body), now),
            Ask::List => self.resynced(&decoded(body)),
            Ask::Compare => self.compared(&decoded(body), now),
            Ask::Create(id) => {
                if let Some(conversation) = self.conversations.get_mut(&id) {
                    conversation.created = true;
                    self.dirty.insert(Row::Conversation(id));
                }
            }
            Ask::Commit(id) => {
                if let Some(outcome) = decoded::<api::CommitResponse>(body).outcome {
                    self.commit_verdict(id, outcome, now);
                }
            }
            Ask::Propose(id) => {
                if let Some(proposal) = self.conversations.get_mut(&id).and_then(|c| c.proposal.as_mut()) {
                    proposal.taken = true;
                    self.dirty.insert(Row::Conversation(id));
                }
                if self.is_surplus(id) {
                    self.left(id);
                }
            }
            Ask::Commits(id) => {
                let answer: api::GetCommitsResponse = decoded(body);
                if answer.gone {
                    self.lost_thread(id, &LostThread::Gone);
                } else {
                    self.queue_commits(id, answer.commits, answer.current_epoch, now);
                }
            }
            Ask::Report(id) => self.reported(id),
            Ask::GroupInfo(id) => self.group_info_came(id, decoded(body), now),
            Ask::Fetch(id) => self.fetched(id, Some(&decoded(body))),
            Ask::Put(id) => self.put(id, true),
        }
    }

    fn failed(&mut self, ask: Ask, why: common::Error, now: UnixMillis) {
        let retry = why.code().is_temporary()
            && !matches!(why.code(), ErrorCode::WrongEpoch | ErrorCode::DevicesMismatch | ErrorCode::DeviceListVersion);
        if retry {
            if matches!(ask, Ask::Info | Ask::Register) && registration_may_succeed(&why) {
                self.out.events.push(Event::RegistrationRefused { why: why.clone() });
            }
            self.ask_later(ask, &why, now);
            return;
        }
        self.calls.done(&ask);
        match ask {
            Ask::Register => {
                self.out.events.push(Event::RegistrationRefused { why: why.clone() });
                self.stop(why);
            }
            Ask::Lookup(handle) => self.not_found(&handle, &why),
            Ask::Claim(id) if self.gathers(id) => self.gather_refused(id, &why, now),
            Ask::Create(id) if self.gathers(id) && why.code() == ErrorCode::ConversationTaken => {
                self.await_welcome(id, now);
            }
            Ask::PutList => self.own_list_refused(&why, now),
            Ask::Claim(id) => self.claim_refused(id, &why),
            Ask::Create(id) => self.fail_work(id, &why),
            Ask::Commit(id) => self.commit_refused(id, &why, now),
            Ask::Propose(id) => self.propose_failed(id, &why),
            Ask::Report(id) => self.reported(id),
            Ask::Commits(id) | Ask::GroupInfo(id) if why.code() == ErrorCode::UnknownConversation => self.left(id),
            // The answer did not fit a frame.
            Ask::Lists if why.code() == ErrorCode::BadRequest && self.lists_at_once > 1 => self.lists_at_once /= 2,
            Ask::Lists => {
                let accounts: Vec<_> = self.lists_open.iter().map(|(account, _)| *account).collect();
                self.asked(&accounts);
            }
            Ask::Fetch(id) => self.fetched(id, None),
            Ask::Put(id) => self.put(id, false),
            Ask::Publish => self.packages_refused(&why, now),
            // Asked again later: nothing else can be done about it.
            Ask::Info | Ask::List | Ask::Compare | Ask::Commits(_) | Ask::GroupInfo(_) => {
                self.ask_later(ask, &why, now)
            }
        }
    }

    fn registered(&mut self) {
        self.identity.registered = true;
        self.dirty.insert(Row::Identity);
        let own = self.identity.address().account;
        if let Some(first) = self.identity.device_list().filter(|_| self.list_of(own).is_none()) {
            // Its own signature verifies.
            let _ = self.meet(own, None, &[first]);
        }
        self.make_packages(0);
        self.out.events.push(Event::Registered { handle: self.identity.handle().clone() });
        self.reconnect_now();
    }

    /// Makes key packages anew before the last ones expire. Whoever has no publication on record has one that is old.
    pub(super) fn renew_packages(&mut self, now: UnixMillis) {
        let now = self.session.server_time(now);
        let is_old = |at: UnixMillis| at > now.after(CLOCKS_APART) || now.since(at) >= PACKAGES_RENEWED;
        if self.published.is_none_or(is_old) {
            self.make_packages(0);
        }
    }

    /// Local time at which that is due, on a session.
    pub(super) fn renewal_at(&self) -> Option<UnixMillis> {
        let at = self.published.filter(|_| self.packages.is_none() && self.session.is_ready())?;
        Some(self.session.local_time(at.after(PACKAGES_RENEWED)))
    }

    /// The directory takes all or none. What it refuses for good (packages that expired while they waited, or that a clock
    /// dated that was wrong, or of a suite that it takes no more) is made anew, and at most once an hour. The private keys of
    /// the refused ones go: however often it refuses, those of published ones are kept.
    fn packages_refused(&mut self, why: &common::Error, now: UnixMillis) {
        let lately = self.remade.is_some_and(|at| at <= now && now.since(at) < PACKAGES_REMADE);
        if !why.code().is_temporary() && !lately {
            self.remade = Some(now);
            self.forget_refused_packages();
            self.make_packages(0);
        }
        self.ask_later(Ask::Publish, why, now);
    }

    fn forget_refused_packages(&mut self) {
        let Some(request) = self.packages.take() else { return };
        if let Ok(request) = directory::PublishKeyPackagesRequest::decode(request.as_slice()) {
            let all = request.key_packages.iter().chain([&request.last_resort]);
            self.mls.forget_refused(&all.map(Bytes::as_ref).collect::<Vec<_>>());
        }
    }

    /// Makes key packages up to what the directory keeps. Their private keys are committed before they leave.
    pub(super) fn make_packages(&mut self, left: u32) {
        if self.packages.is_some() {
            return;
        }
        let count = KEY_PACKAGES_MAX.saturating_sub(usize::try_from(left).unwrap_or(usize::MAX));
        self.mls.make_room_for_packages();
        let Ok(last_resort) = self.mls.last_resort() else { return };
        // Packages of suite 0x004F are ten times as large; the directory asks again when they run low.
        let count = count.min(PUBLICATION_BYTES_MAX / (last_resort.len() + PACKAGE_FRAMING_BYTES) - 1);
        let Ok(packages) = self.mls.key_packages(count) else { return };
        let key_packages = packages.into_iter().map(Bytes::from).collect();
        let request = directory::PublishKeyPackagesRequest { key_packages, last_resort: last_resort.into() };
        self.packages = Some(request.encode_to_vec());
        self.dirty.insert(Row::Packages);
    }

    fn looked_up(&mut self, handle: &Handle, found: &directory::LookupResponse) {
        let account = AccountId::try_from(found.account.as_ref());
        let met = match (account, &found.devices) {
            (Ok(account), Some(devices)) => self.looked_up_list(account, handle, devices).map_err(|e| e.to_string()),
            _ => Err("the directory's answer is malformed".into()),
        };
        if let Err(error) = met {
            self.not_found(handle, &refusal(ErrorCode::DeviceListInvalid, error));
        }
    }

    /// A look-up has the newest list alone; what lies before it is asked for, and the known one stands until then.
    fn looked_up_list(
        &mut self,
        account: AccountId,
        handle: &Handle,
        newest: &directory::SignedDeviceList,
    ) -> Result<(), DeviceListError> {
        let error = match self.meet(account, Some(handle.clone()), std::slice::from_ref(newest)) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let asked_again = matches!(error, DeviceListError::Unlinked | DeviceListError::Version);
        if let (true, Some(known)) = (asked_again, self.list_of(account).cloned()) {
            self.forget_lists_of(account);
            self.ask_lists([account]);
            return self.meet(account, Some(handle.clone()), &[known]);
        }
        self.refuse_list(account, error);
        Err(error)
    }

    fn not_found(&mut self, handle: &Handle, why: &common::Error) {
        let waits = |c: &Conversation| matches!(c.work.front(), Some(Work::Add(handles)) if handles.contains(handle));
        let ids: Vec<ConversationId> = self.conversations.iter().filter(|(_, c)| waits(c)).map(|(id, _)| *id).collect();
        let mut why = why.clone();
        why.message = format!("@{handle}: {}", why.message);
        ids.into_iter().for_each(|id| self.fail_work(id, &why));
    }

    fn listed(&mut self, answer: &directory::GetDeviceListsResponse) {
        let asked = std::mem::take(&mut self.lists_open);
        let mut whole: Vec<AccountId> = asked.iter().map(|(account, _)| *account).collect();
        for account in &answer.accounts {
            let Ok(id) = AccountId::try_from(account.account.as_ref()) else { continue };
            let Some((_, known)) = asked.iter().find(|(asked, _)| *asked == id) else { continue };
            match self.met(id, account, *known) {
                Met::Newest => drop(self.answered_lists.insert(id)),
                Met::InPart => whole.retain(|account| *account != id),
                Met::Refused => {}
            }
        }
        self.asked(&whole);
    }

    fn asked(&mut self, accounts: &[AccountId]) {
        for account in accounts {
            self.lists_wanted.remove(account);
            self.asked_lists.insert(*account);
        }
    }

    fn claimed(&mut self, id: ConversationId, answer: &directory::ClaimKeyPackagesResponse, now: UnixMillis) {
        let packages = answer.key_packages.iter().filter_map(|p| {
            let device = DeviceAddress::try_from(p.device.as_ref()?).ok()?;
            Some((device, Bytes::copy_from_slice(&p.key_package)))
        });
        let packages: Vec<_> = packages.collect();
        if packages.is_empty() {
            let why = refusal(ErrorCode::KeyPackagesExhausted, "no key package was given");
            if self.gathers(id) {
                return self.gather_refused(id, &why, now);
            }
            return self.claim_refused(id, &why);
        }
        let refused = self.refused_packages(&packages);
        if let Some(conversation) = self.conversations.get_mut(&id) {
            conversation.packages.extend(packages.into_iter().filter(|(d, _)| !refused.iter().any(|(r, _)| r == d)));
            self.dirty.insert(Row::Conversation(id));
        }
        let Some((_, error)) = refused.first() else { return };
        // As if those devices had none.
        let mut why = cannot_add(error);
        why.missing = refused.iter().map(|(device, _)| (*device).into()).collect();
        match self.gathers(id) {
            true => self.gather_refused(id, &why, now),
            false => self.claim_refused(id, &why),
        }
    }

    /// Devices whose package no commit of this device can use, as it is of another suite or not theirs.
    fn refused_packages(&self, packages: &[(DeviceAddress, Bytes)]) -> Vec<(DeviceAddress, MlsError)> {
        let key = |device: &DeviceAddress| {
            let listed = &self.contacts.get(&device.account)?.devices.devices;
            listed.iter().find(|(listed, _)| *listed == device.device).map(|(_, key)| *key)
        };
        let each = packages.iter().filter_map(|(device, package)| {
            let error = self.mls.check_package(*device, &key(device)?, package).err()?;
            Some((*device, error))
        });
        each.collect()
    }

    fn propose_failed(&mut self, id: ConversationId, why: &common::Error) {
        match why.code() {
            ErrorCode::UnknownConversation => self.left(id),
            ErrorCode::WrongEpoch => {
                if let Some(conversation) = self.conversations.get_mut(&id) {
                    conversation.proposal = None;
                    self.dirty.insert(Row::Conversation(id));
                }
                self.await_newer(id, why);
            }
            _ => self.fail_work(id, why),
        }
    }

    fn reported(&mut self, id: ConversationId) {
        if let Some(conversation) = self.conversations.get_mut(&id) {
            conversation.reported = true;
            conversation.vouchers.clear();
        }
    }

    /// Asks about conversations that would stand in this page, which begins behind the last one: the gap may have taken the
    /// commit by which this device was put out.
    fn look_for_unlisted(&mut self, page: &api::ListResponse) {
        let all: BTreeSet<&[u8]> = page.conversations.iter().map(|one| one.conversation.as_ref()).collect();
        let last = all.last().filter(|_| page.more).copied();
        let begins_behind = self.resync_after.clone();
        let is_unlisted = |id: &ConversationId| {
            let id = id.as_bytes().as_slice();
            id > begins_behind.as_ref() && last.is_none_or(|last| id < last) && !all.contains(id)
        };
        let unlisted: Vec<ConversationId> = self.conversations.keys().copied().filter(is_unlisted).collect();
        for id in unlisted {
            if let Some(epoch) = self.mls.epoch(id).filter(|_| self.mls.is_active(id)) {
                self.await_after_gap(id, epoch.saturating_add(1));
            }
        }
    }

    /// A page of the account's conversations, after a gap: those that moved on are caught up with, those that are not
    /// here are joined again.
    fn resynced(&mut self, page: &api::ListResponse) {
        self.look_for_unlisted(page);
        for one in &page.conversations {
            let Ok(id) = ConversationId::try_from(one.conversation.as_ref()) else { continue };
            self.resync_after = Bytes::copy_from_slice(&one.conversation);
            if self.mls.is_active(id) {
                self.await_after_gap(id, one.epoch);
                continue;
            }
            let awaited = |c: &Conversation| c.phase == Phase::Founding && !(c.awaits_welcome && c.looked_for);
            if !self.conversations.get(&id).is_some_and(|c| awaited(c) || c.abandoned) {
                if self.conversations.get(&id).is_some_and(|c| c.phase == Phase::Left) {
                    // What was said while this device was out was not for it.
                    let held = self.inbox.begin_again(id, self.stepped_at);
                    self.show(held);
                }
                let conversation = self.conversations.entry(id).or_default();
                conversation.phase = Phase::Active;
                (conversation.created, conversation.awaits_welcome) = (true, false);
                self.number(id);
                self.lost_thread(id, &LostThread::NotHere);
            }
        }
        if !page.more || page.conversations.is_empty() {
            self.resync = false;
            self.resync_after = Bytes::new();
            self.dirty.insert(Row::Resync);
        }
    }
}

/// Whether something was answered that is no verdict on a commit, or says nothing of the server: every server takes some
/// suite.
fn is_no_answer(ask: &Ask, body: &Bytes) -> bool {
    match ask {
        Ask::Commit(_) => decoded::<api::CommitResponse>(body.clone()).outcome.is_none(),
        Ask::Info => decoded::<edge::ServerInfo>(body.clone()).cipher_suites.is_empty(),
        _ => false,
    }
}

/// A body that does not decode is taken as an empty answer, which asks for nothing.
fn decoded<M: prost::Message + Default>(body: Bytes) -> M {
    M::decode(body).unwrap_or_default()
}
