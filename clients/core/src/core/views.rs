// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a driver may look at between steps.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use pli_domain::{AccountId, ConversationId, DeviceAddress, Handle};
use prost::Message as _;

use super::calls::Ask;
use super::conversation::{Phase, Work};
use super::history::Draft;
use super::{ConnectionState, Core, Member};
use crate::content::{Kind, SHORT_ID_MARK};
use crate::identity::safety_number;
use crate::mls::Suite;

/// Digits of a short id at least.
pub(super) const SHORT_ID_DIGITS_MIN: usize = 6;

/// A conversation, for display.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationView {
    /// Its id; of a chat that several conversations carry the one that takes what is new.
    pub id: ConversationId,
    /// The conversations that are this chat; most often one.
    pub parts: Vec<ConversationId>,
    /// Two people or a group.
    pub kind: Kind,
    /// Of a group, where it is known.
    pub name: Option<String>,
    /// What a group is addressed by: its name where it was known first of those with that name, else `name~SHORTID` or
    /// `~SHORTID`; empty for two people.
    pub label: String,
    /// The shortest beginning of the id, of 6 digits or more, that no other conversation here has.
    pub short_id: String,
    /// Everybody, oneself included; empty until it is ready.
    pub members: Vec<Member>,
    /// Of a chat of two whom it is with, also before it is ready, where that is known.
    pub peer: Option<Member>,
    /// Who of them has asked to leave and is still in, as no other member was online to carry it out; oneself too.
    pub leaving: Vec<Member>,
    /// Messages can be sent now.
    pub ready: bool,
    /// The user left it or was removed, or it could not be made.
    pub left: bool,
    /// Everybody else has this device's messages up to this lane number on a device: the lowest of all, of whom each counts
    /// with the device that came furthest.
    pub delivered: u64,
    /// Likewise read.
    pub read: u64,
}

/// How far a message of one's own came with somebody, as their devices say; the furthest of them counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reached {
    /// It was never shown.
    Lost,
    /// It is there.
    Delivered,
    /// It was read.
    Read,
}

impl Core {
    /// This device.
    pub fn address(&self) -> DeviceAddress {
        self.identity.address()
    }
    /// The suite of this device's key packages and conversations.
    pub fn suite(&self) -> Suite {
        self.identity.suite()
    }
    /// This account's handle.
    pub fn handle(&self) -> &Handle {
        self.identity.handle()
    }
    /// Whether the directory has the account.
    pub fn is_registered(&self) -> bool {
        self.identity.registered
    }
    /// How the connection stands.
    pub fn connection(&self) -> ConnectionState {
        self.session.state
    }
    /// Messages that are not `stored` yet, ticks and names included, and of these the ones that no log has yet.
    pub fn waiting(&self) -> (usize, usize) {
        (self.outbox.len(), self.outbox.unsent())
    }
    /// Messages that a user wrote and no log has yet.
    pub fn unsent_texts(&self) -> usize {
        let texts = self.outbox.each_unsent().filter_map(|message| Draft::decode(message.content.clone()).ok());
        texts.filter(|draft| draft.order != 0).count()
    }
    /// Messages that arrived and are held, at most 10 s, for one before them in their lane.
    pub fn held(&self) -> usize {
        self.inbox.held()
    }
    /// Nothing that was asked of the server waits for its answer; a driver that is told to end waits for this a while,
    /// so that a first start leaves key packages behind. What the server has put off is not waited for.
    pub fn is_idle(&self) -> bool {
        (self.packages.is_none() || self.calls.is_put_off(&Ask::Publish)) && self.calls.is_empty()
    }
    /// Every conversation; those that are one chat once.
    pub fn conversations(&self) -> Vec<ConversationView> {
        let named = self.named_first();
        self.chats().into_iter().filter_map(|parts| self.view(parts, &named)).collect()
    }
    /// One conversation, or the chat that it is part of.
    pub fn conversation(&self, id: ConversationId) -> Option<ConversationView> {
        self.view(self.chat(id), &self.named_first())
    }
    /// The MLS epoch of exactly this conversation and its authenticator, which every member of the epoch has alike and
    /// nobody else (RFC 9420 section 8.7); none where this device is not in it.
    pub fn epoch_authenticator(&self, id: ConversationId) -> Option<(u64, Vec<u8>)> {
        self.mls.epoch_authenticator(id)
    }
    /// The hash of its ratchet tree (RFC 9420 section 7.8), which says who is in it with which keys.
    pub fn tree_hash(&self, id: ConversationId) -> Option<Vec<u8>> {
        self.mls.tree_hash(id)
    }
    /// What the chat of a conversation is called: [`ConversationView::label`], and what kind it is.
    pub fn label_of(&self, id: ConversationId) -> (Kind, String) {
        let id = self.goes_on_in(id);
        let kind = self.conversations.get(&id).map_or(Kind::Unknown, super::conversation::Conversation::kind);
        (kind, self.label(id, &self.named_first()))
    }
    /// Everything that waited at the server is here and was worked through: nothing is held, and no list is asked for any
    /// more. A conversation may still be joining again.
    pub fn has_caught_up(&self) -> bool {
        let asks = self.compare || self.resync || !self.lists_wanted.is_empty();
        self.session.is_online() && self.inbound.is_empty() && !asks && self.held() == 0
    }
    /// What others said of the message of this device with this number in exactly this conversation, also those who are
    /// not in it any more: in order of member, who has not lost it and has come so far.
    pub fn reached(&self, id: ConversationId, lane_no: u64) -> Vec<(Member, Reached)> {
        let known = self.conversations.get(&id).filter(|conversation| !conversation.is_given_up(lane_no));
        let Some(conversation) = known else { return Vec::new() };
        let own = self.identity.address().account;
        let members = self.mls.members(id);
        let told = |address: &DeviceAddress| Some((address.account, conversation.theirs.get(&address.device)?));
        let here = members.iter().filter_map(|(address, _)| told(address));
        let stays = conversation.gone.iter();
        let gone = stays.flat_map(|(address, stays)| stays.iter().map(|mark| (address.account, mark)));
        let mut all: BTreeMap<Member, Reached> = BTreeMap::new();
        for (account, mark) in here.chain(gone).filter(|(account, _)| *account != own) {
            // It was not for them, or they said nothing of it.
            let Some(reached) = Some(mark).filter(|mark| mark.base <= lane_no).and_then(|mark| mark.reached(lane_no))
            else {
                continue;
            };
            let known = all.entry(self.member(account)).or_insert(reached);
            *known = (*known).max(reached);
        }
        all.into_iter().collect()
    }
    /// How far the message of this device with this number has come with everybody who is in exactly this conversation and
    /// for whom it was: the least of them, lost where somebody lost it. None while somebody has said nothing of it.
    pub fn reached_by_all(&self, id: ConversationId, lane_no: u64) -> Option<Reached> {
        let conversation = self.conversations.get(&id).filter(|conversation| !conversation.is_given_up(lane_no))?;
        let own = self.identity.address().account;
        let mut all: BTreeMap<AccountId, Option<Reached>> = BTreeMap::new();
        for (address, _) in self.mls.members(id).iter().filter(|(address, _)| address.account != own) {
            let Some(mark) = conversation.theirs.get(&address.device).filter(|mark| mark.base <= lane_no) else {
                continue;
            };
            let known = all.entry(address.account).or_default();
            *known = (*known).max(mark.reached(lane_no));
        }
        all.into_values().min().flatten()
    }
    /// The handles that are known, for completion.
    pub fn known_handles(&self) -> Vec<Handle> {
        self.contacts.values().filter_map(|c| c.handle.clone()).collect()
    }
    /// 60 digits to compare with the person of this handle; none before the first contact.
    pub fn safety_number(&self, handle: &Handle) -> Option<String> {
        self.safety_number_with(self.account_of(handle)?)
    }
    /// The person of this account, if it was met.
    pub fn person(&self, account: AccountId) -> Option<Member> {
        let known = account == self.identity.address().account || self.contacts.contains_key(&account);
        known.then(|| self.member(account))
    }
    /// Who is called so here, as [`Member::name`] says; none before the first contact.
    pub fn person_named(&self, name: &str) -> Option<Member> {
        self.contacts.keys().map(|account| self.member(*account)).find(|member| member.name() == name)
    }
    /// 60 digits to compare with the person of this account; none before the first contact.
    pub fn safety_number_with(&self, account: AccountId) -> Option<String> {
        let contact = self.contacts.get(&account)?;
        let own = (self.identity.address().account, self.identity.identity_key());
        Some(safety_number(own, (account, contact.devices.identity_key)))
    }

    /// Who keeps a name: of the groups that the user is in, the one that was known first. One that goes on for others is
    /// as old as the first of them.
    pub(super) fn named_first(&self) -> BTreeMap<&str, ConversationId> {
        let mut since: BTreeMap<ConversationId, u64> = BTreeMap::new();
        for (id, group) in self.conversations.iter().filter(|(_, c)| c.kind() == Kind::Group) {
            let known = since.entry(self.goes_on_in(*id)).or_insert(group.known);
            *known = group.known.min(*known);
        }
        let name = |id| self.conversations.get(id)?.name.as_deref();
        let groups = since.iter().filter(|(id, _)| !self.is_over(**id));
        let mut named: Vec<_> = groups.filter_map(|(id, known)| Some((name(id)?, *known, *id))).collect();
        named.sort_unstable_by(|a, b| b.cmp(a));
        // The last of each name wins: the lowest number.
        named.into_iter().map(|(name, _, id)| (name, id)).collect()
    }

    fn short_id(&self, id: ConversationId) -> String {
        let digits = id.to_string();
        let before = self.conversations.range(..id).next_back();
        let after = self.conversations.range((Bound::Excluded(id), Bound::Unbounded)).next();
        let shared = before.into_iter().chain(after).map(|(other, _)| {
            let other = other.to_string();
            digits.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count()
        });
        let length = shared.max().unwrap_or(0) + 1;
        digits.chars().take(length.max(SHORT_ID_DIGITS_MIN)).collect()
    }

    fn label(&self, id: ConversationId, named: &BTreeMap<&str, ConversationId>) -> String {
        let Some(group) = self.conversations.get(&id).filter(|c| c.kind() == Kind::Group) else { return String::new() };
        match group.name.as_deref() {
            Some(name) if named.get(name).is_none_or(|first| *first == id) => name.to_owned(),
            name => format!("{}{SHORT_ID_MARK}{}", name.unwrap_or_default(), self.short_id(id)),
        }
    }

    fn view(&self, parts: Vec<ConversationId>, named: &BTreeMap<&str, ConversationId>) -> Option<ConversationView> {
        let id = *parts.first()?;
        let c = self.conversations.get(&id)?;
        let own = self.identity.address().account;
        let members = self.mls.members(id);
        let mut others: BTreeMap<AccountId, (u64, u64)> = BTreeMap::new();
        for (device, _) in members.iter().filter(|(device, _)| device.account != own) {
            let far = c.theirs.get(&device.device).map_or((0, 0), |mark| (mark.delivered, mark.read));
            let known = others.entry(device.account).or_default();
            *known = (known.0.max(far.0), known.1.max(far.1));
        }
        Some(ConversationView {
            id,
            kind: c.kind(),
            name: c.name.clone(),
            label: self.label(id, named),
            short_id: self.short_id(id),
            peer: c.peer.map(|peer| self.member(peer)),
            members: if c.phase == Phase::Active { self.members(id) } else { Vec::new() },
            leaving: self.leaving(id),
            ready: c.phase == Phase::Active && c.vouched && !c.rejoining,
            left: parts.iter().all(|part| self.is_over(*part)),
            parts,
            delivered: others.values().map(|far| far.0).min().unwrap_or(0),
            read: others.values().map(|far| far.1).min().unwrap_or(0),
        })
    }

    fn leaving(&self, id: ConversationId) -> Vec<Member> {
        let Some(conversation) = self.conversations.get(&id).filter(|c| c.phase == Phase::Active) else {
            return Vec::new();
        };
        let own = self.identity.address().account;
        let wishes = conversation.work.iter().flat_map(|work| match work {
            Work::Dismiss(devices, _) => devices.iter().map(|device| device.account).collect(),
            Work::Leave => vec![own],
            _ => Vec::new(),
        });
        let wishes: BTreeSet<AccountId> = wishes.collect();
        self.members(id).into_iter().filter(|member| wishes.contains(&member.account)).collect()
    }

    pub(super) fn is_over(&self, id: ConversationId) -> bool {
        self.conversations.get(&id).is_none_or(|c| matches!(c.phase, Phase::Left | Phase::Failed))
    }
}
