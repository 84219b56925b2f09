// SPDX-License-Identifier: MIT OR Apache-2.0
//! Groups that follow device lists: every conversation is brought in line with the lists of its members by a commit, of
//! whoever changed a list or, if it did not come or was overtaken by another one, of the other members later.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use pli_api::common;
use pli_api::directory::{self, SignedDeviceList};
use pli_domain::{AccountId, ConversationId, DeviceAddress, UnixMillis};
use rand_chacha::rand_core::RngCore as _;

use super::calls::Ask;
use super::conversation::{Conversation, LostThread, Phase, WORK_MAX, Work};
use super::{Core, Event, Row};
use crate::identity::{DeviceListError, list_hash, list_version};
use crate::mls::CommitSummary;

/// Members of other accounts bring a group in line so long after they learn of a list, if its own devices did not.
const ALIGN_AFTER: Duration = Duration::from_secs(5);
/// And each with a higher rank so much later, so that few race.
const ALIGN_STEP: Duration = Duration::from_millis(1_500);
/// So many have a time of their own …
const TURNS: u32 = 20;
/// … and the others any time within so long after those.
const ALIGN_SPREAD: Duration = Duration::from_secs(120);
/// Upper end of the delay between two tries; it doubles. A device may have published no key packages yet.
const AGAIN_MAX: Duration = Duration::from_secs(60);
/// The same for devices of other accounts, whose own devices look more often.
const AGAIN_FOR_OTHERS_MAX: Duration = Duration::from_secs(3_600);
/// After so many tries, an hour, a device of this account that publishes nothing is one that is hardly used …
const OWN_TRIES: u32 = 60;
/// … and looked for so often.
const AGAIN_FOR_UNUSED_MAX: Duration = Duration::from_secs(600);

/// What became of the directory's answer about an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Met {
    /// Its newest list is known.
    Newest,
    /// There is more to be asked for.
    InPart,
    /// It was not taken; what was known stands, and does not count as answered.
    Refused,
}

impl Core {
    /// What the directory says of one account to who had the version `asked` when it was asked.
    pub(super) fn met(&mut self, account: AccountId, answer: &directory::AccountDevices, asked: u64) -> Met {
        if answer.devices.is_none() && asked > 1 {
            return self.doubt(account);
        }
        self.lists_doubted.remove(&account);
        let handle = answer.handle.parse().ok();
        let copied = |signed: &SignedDeviceList| SignedDeviceList {
            list: Bytes::copy_from_slice(&signed.list),
            signature: Bytes::copy_from_slice(&signed.signature),
        };
        let between: Vec<_> = answer.between.iter().map(copied).collect();
        // Nothing newer: what is known stands, under the handle that the directory names.
        let newest = answer.devices.as_ref().map(copied).or_else(|| self.list_of(account).cloned());
        let Some(newest) = newest else { return Met::Refused };
        let whole: Vec<_> = between.iter().cloned().chain([newest.clone()]).collect();
        let whole = self.take_earlier(account, whole);
        let error = match self.meet(account, handle, &whole) {
            Ok(()) => return Met::Newest,
            Err(DeviceListError::Version) => match self.overtaken(account, &newest, asked) {
                Ok(met) => return met,
                Err(error) => error,
            },
            Err(error) => error,
        };
        let between = whole.split_last().map_or(&[][..], |(_, between)| between);
        if error == DeviceListError::Unlinked && self.met_in_part(account, between, asked) {
            return Met::InPart;
        }
        self.note_list_behind(account, &newest, error);
        self.refuse_list(account, error);
        Met::Refused
    }

    /// The directory was asked from the version before the known one on, and has nothing newer: it lost that one, or hides
    /// it. The list that it has tells which.
    fn doubt(&mut self, account: AccountId) -> Met {
        if self.lists_doubted.insert(account) {
            return Met::InPart;
        }
        // Nor has it anything for who knows nothing.
        self.lists_doubted.remove(&account);
        self.refuse_list(account, DeviceListError::Version);
        Met::Refused
    }

    /// Whether an answer that is older than what is known is so because a later one came meanwhile.
    fn overtaken(&self, account: AccountId, newest: &SignedDeviceList, asked: u64) -> Result<Met, DeviceListError> {
        let theirs = list_version(newest);
        let known = self.contacts.get(&account).map(|contact| &contact.devices);
        let before = known.filter(|known| known.version == theirs + 1).and_then(|known| known.previous);
        match before {
            _ if theirs < asked => Err(DeviceListError::Version),
            Some(before) if before != list_hash(newest) => Err(DeviceListError::Fork),
            _ if theirs <= self.list_version(account) => Ok(Met::Newest),
            // Asking again from where this one stands would give the same answer.
            _ if self.list_version(account) == asked => Err(DeviceListError::Unlinked),
            _ => Ok(Met::InPart),
        }
    }

    /// Whether there is more to be asked for: the answer ends before the newest list, or begins where another answer has
    /// gone on from.
    fn met_in_part(&mut self, account: AccountId, between: &[SignedDeviceList], asked: u64) -> bool {
        let before = self.list_version(account);
        asked != before || self.meet(account, None, between).is_ok() && self.list_version(account) > before
    }

    /// The list of an account changed: conversations that it is in follow.
    pub(super) fn align_all_of(&mut self, account: AccountId) {
        let active = self.conversations.iter().filter(|(_, c)| c.phase == Phase::Active);
        let ids: Vec<ConversationId> = active.map(|(id, _)| *id).collect();
        for id in ids {
            if self.differing(id).contains(&account) {
                if let Some(conversation) = self.conversations.get_mut(&id) {
                    conversation.aligns = 0;
                }
                self.align(id, account);
            }
        }
    }

    /// The group is new, or in a new epoch: brings it in line with those lists of its members that `counts` takes, if
    /// that does not wait already.
    pub(super) fn repair(&mut self, id: ConversationId, counts: impl Fn(&Self, AccountId) -> bool) {
        let conversation = self.conversations.get(&id);
        if conversation.is_none_or(|c| c.phase != Phase::Active || c.lean || align_at(c).is_some()) {
            return;
        }
        for account in self.differing(id) {
            if counts(self, account) {
                self.align(id, account);
            }
        }
    }

    /// Accounts of which the group has other devices than their newest lists.
    fn differing(&self, id: ConversationId) -> BTreeSet<AccountId> {
        let members: BTreeMap<DeviceAddress, Vec<u8>> = self.mls.members(id).into_iter().collect();
        let accounts: BTreeSet<AccountId> = members.keys().map(|device| device.account).collect();
        let lacks = |account: &AccountId| {
            let listed = self.contacts.get(account).map_or(&[][..], |contact| &contact.devices.devices);
            let mut listed = listed.iter().map(|(device, _)| DeviceAddress { account: *account, device: *device });
            listed.any(|d| d != self.identity.address() && !members.contains_key(&d) && !self.stays_out(d))
        };
        let foreign = members.iter().filter(|(device, key)| !self.vouched(**device, key));
        let foreign = foreign.map(|(device, _)| device.account).filter(|account| self.contacts.contains_key(account));
        foreign.chain(accounts.iter().copied().filter(lacks)).collect()
    }

    /// Brings the group in line with the lists of its members, soon: the device that changed the list at once, the other
    /// devices of its account and then the other members if it did not.
    fn align(&mut self, id: ConversationId, account: AccountId) {
        let own = self.identity.address();
        let delay = match (account == own.account, self.identity.signs_lists()) {
            (true, true) => Duration::ZERO,
            (true, false) => self.turn(id),
            (false, _) => ALIGN_AFTER + self.turn(id),
        };
        self.plan_align(id, self.stepped_at.after(delay));
    }

    /// The same at this time, or earlier where that is planned.
    pub(super) fn plan_align(&mut self, id: ConversationId, at: UnixMillis) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        let waiting = conversation.work.iter().position(|work| matches!(work, Work::Align(_)));
        match waiting {
            Some(place) => conversation.work[place] = Work::Align(at.min(align_at_of(&conversation.work[place]))),
            // Where there is no room, whatever is committed later brings it in line too.
            None if conversation.work.len() >= WORK_MAX => return,
            None => conversation.work.push_back(Work::Align(at)),
        }
        self.dirty.insert(Row::Conversation(id));
    }

    /// When it is this device's turn: in the order of addresses, and from some rank on at any time after those, so that
    /// the last of a thousand does not wait for all of them where the first are away.
    pub(super) fn turn(&mut self, id: ConversationId) -> Duration {
        let own = self.identity.address();
        let lower = self.mls.members(id).into_iter().filter(|(device, _)| *device < own).count();
        match u32::try_from(lower + 1) {
            Ok(place) if place <= TURNS => ALIGN_STEP * place,
            _ => {
                let spread = u64::try_from(ALIGN_SPREAD.as_millis()).unwrap_or(u64::MAX);
                ALIGN_STEP * TURNS + Duration::from_millis(self.rng.next_u64() % spread)
            }
        }
    }

    /// The group cannot be brought in line now.
    pub(super) fn align_later(&mut self, id: ConversationId) {
        let at = self.stepped_at.after(self.next_delay(id, AGAIN_MAX));
        if self.conversations.get(&id).is_some_and(|c| c.lean) {
            // The next try claims nothing that there is no room for.
            self.crowd(id);
        }
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        conversation.packages.clear();
        conversation.bare.clear();
        (conversation.aligned, conversation.lean) = (0, false);
        if let Some(Work::Align(waits)) = conversation.work.front_mut() {
            *waits = at;
        }
        self.calls.abandon(&Ask::Claim(id));
        self.dirty.insert(Row::Conversation(id));
    }

    /// How long until it is tried again; it doubles.
    fn next_delay(&mut self, id: ConversationId, max: Duration) -> Duration {
        let Some(conversation) = self.conversations.get_mut(&id) else { return max };
        let delay = Duration::from_millis(500 << conversation.aligns.min(13)).min(max);
        conversation.aligns = conversation.aligns.saturating_add(1);
        delay
    }

    /// The first work was done without these devices: they are brought in when they have published something. The user is
    /// told of each of them once while they are waited for.
    pub(super) fn await_bare(&mut self, id: ConversationId, bare: BTreeSet<DeviceAddress>) {
        let own = self.identity.address().account;
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        let max = match bare.iter().any(|device| device.account == own) {
            true if conversation.aligns < OWN_TRIES => AGAIN_MAX,
            true => AGAIN_FOR_UNUSED_MAX,
            false => AGAIN_FOR_OTHERS_MAX,
        };
        if bare.is_empty() {
            if align_at(conversation).is_none() {
                (conversation.aligns, conversation.awaited) = (0, bare);
            }
            return;
        }
        let news: Vec<DeviceAddress> = bare.difference(&conversation.awaited).copied().collect();
        conversation.awaited = bare;
        if align_at(conversation).is_none() {
            let at = self.stepped_at.after(self.next_delay(id, max));
            let Some(conversation) = self.conversations.get_mut(&id) else { return };
            conversation.work.push_back(Work::Align(at));
        }
        for device in news {
            let member = self.member(device.account);
            self.out.events.push(Event::DeviceAwaited { conversation: id, member, device: device.device });
        }
    }

    /// Whether the first work is to bring the group in line.
    pub(super) fn aligns(&self, id: ConversationId) -> bool {
        self.conversations.get(&id).is_some_and(|c| matches!(c.work.front(), Some(Work::Align(_))))
    }

    /// A change of members that lacks key packages. The device may have been removed since, so its account's list is asked
    /// for. The change goes on without it, except that somebody is added with one device at least.
    pub(super) fn claim_refused(&mut self, id: ConversationId, why: &common::Error) {
        let named: BTreeSet<DeviceAddress> =
            why.missing.iter().filter_map(|device| DeviceAddress::try_from(device).ok()).collect();
        for device in &named {
            self.forget_lists_of(device.account);
            self.lists_wanted.insert(device.account);
        }
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        let before = conversation.bare.len();
        conversation.bare.extend(&named);
        let is_news = conversation.bare.len() > before;
        if !is_news || named.iter().any(|device| self.is_absent(id, device.account)) {
            self.fail_work(id, why);
        }
    }

    /// Whether nothing can be had of an account that the group does not have yet.
    pub(super) fn is_absent(&self, id: ConversationId, account: AccountId) -> bool {
        let own = self.identity.address().account;
        if account == own || self.mls.members(id).iter().any(|(device, _)| device.account == account) {
            return false;
        }
        self.missing_devices(id, &BTreeSet::from([account])).is_empty()
    }

    /// What was answered of this account may not be so any more.
    pub(super) fn forget_lists_of(&mut self, account: AccountId) {
        self.asked_lists.remove(&account);
        self.answered_lists.remove(&account);
        // An answer that is under way may be of before.
        self.lists_open.retain(|(open, _)| *open != account);
    }

    /// Wants the lists of the devices that a refusal names, which are not what they were thought to be.
    pub(super) fn ask_lists_of(&mut self, why: &common::Error) {
        let named = why.missing.iter().chain(&why.extra).chain(&why.stale);
        let accounts: BTreeSet<AccountId> =
            named.filter_map(|d| AccountId::try_from(d.account.as_ref()).ok()).collect();
        for account in &accounts {
            self.forget_lists_of(*account);
        }
        self.ask_lists(accounts);
    }

    /// This device is new in a group: lists may be older than devices that it has.
    pub(super) fn doubt_unvouched(&mut self, id: ConversationId) {
        for account in self.unvouched(id) {
            self.forget_lists_of(account);
        }
    }

    /// A commit removed devices of accounts that stay. Those that another device of their own account removed are not
    /// brought in again by the list that is known now, whatever the server says. Their lists are asked for. Who signs this
    /// account's lists needs nobody's word.
    pub(super) fn note_gone(&mut self, id: ConversationId, summary: &CommitSummary) {
        let own = self.identity.address();
        let members = self.mls.members(id);
        let stays = |account: AccountId| members.iter().any(|(device, _)| device.account == account);
        let is_in = |device: &DeviceAddress| members.iter().any(|(member, _)| member == device);
        for device in summary.removed.iter().filter(|device| stays(device.account) && !is_in(device)) {
            self.forget_lists_of(device.account);
            self.lists_wanted.insert(device.account);
            match summary.by.filter(|by| by.account == device.account) {
                Some(by) if by.account == own.account && self.identity.signs_lists() => self.keep_device(device.device),
                Some(_) => self.forget_device(*device),
                None => {}
            }
        }
    }

    /// A commit removed this device. Where it signs the account's lists, which name it always, and others of the account
    /// are still in the group, it says so in another version of the list and comes back; answers whether.
    pub(super) fn was_put_out(&mut self, id: ConversationId, summary: &CommitSummary) -> bool {
        let own = self.identity.address();
        let stays = |device: &DeviceAddress| device.account == own.account && !summary.removed.contains(device);
        if !self.identity.signs_lists() || !self.mls.members(id).iter().any(|(device, _)| stays(device)) {
            return false;
        }
        self.keep_device(own.device);
        self.lost_thread(id, &LostThread::NotHere);
        true
    }

    /// Leaves that no list of their account vouches for, besides `leaves`; none while such a list is still to be asked for.
    /// Where it cannot be had nobody is taken for foreign.
    pub(super) fn foreign_leaves(
        &mut self,
        id: ConversationId,
        leaves: &BTreeSet<DeviceAddress>,
    ) -> Option<BTreeSet<DeviceAddress>> {
        let members = self.mls.members(id).into_iter().filter(|(device, _)| !leaves.contains(device));
        let unvouched = members.filter(|(device, key)| !self.vouched(*device, key)).map(|(device, _)| device);
        let unvouched: BTreeSet<DeviceAddress> = unvouched.collect();
        let accounts: BTreeSet<AccountId> = unvouched.iter().map(|device| device.account).collect();
        let waits = accounts.iter().any(|account| self.lists_wanted.contains(account));
        if self.ask_lists(accounts) || waits {
            return None;
        }
        Some(unvouched.into_iter().filter(|device| self.answered_lists.contains(&device.account)).collect())
    }
}

/// Whether nobody but devices of this account is in it.
pub(super) fn is_own_alone(members: &[(DeviceAddress, Vec<u8>)], account: AccountId) -> bool {
    members.iter().all(|(device, _)| device.account == account)
}

/// Whether a conversation waits for a device that is to come in.
pub(super) fn align_at(conversation: &Conversation) -> Option<UnixMillis> {
    conversation.work.iter().find(|work| matches!(work, Work::Align(_))).map(align_at_of)
}

fn align_at_of(work: &Work) -> UnixMillis {
    match work {
        Work::Align(at) => *at,
        _ => UnixMillis(u64::MAX),
    }
}
