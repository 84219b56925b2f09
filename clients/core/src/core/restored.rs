// SPDX-License-Identifier: MIT OR Apache-2.0
//! When the server begins another history: its data was restored from a backup.
//!
//! What this device knows of the server may then be ahead of it, and numbers of the two histories (positions, MLS
//! epochs) must not be compared. So nothing is: positions are not believed by the edge, whatever has an open receipt is
//! sent again, and a conversation that the server no longer has is never used again. It goes on in another one, its heir,
//! whose id all members derive alike ([`successor`]), so that whoever is first makes it and the others are let in. A
//! restored server has no conversations, so that is every one of them.
//!
//! Members whom the first one cannot have yet, because the server does not know them again before they have connected,
//! are brought in later ([`Work::Gather`]).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use pli_api::{ErrorCode, common, conversations as api, refusal};
use pli_domain::{AccountId, ConversationId, DeviceAddress, UnixMillis};
use prost::Message as _;
use sha2::{Digest, Sha256};

use super::calls::Ask;
use super::conversation::{Conversation, Phase, Work};
use super::{Core, Event, Row};
use crate::content::Kind;
use crate::outbox::OutboxEvent;

/// Conversations that went on for one after the other and are followed; each stands for a restored backup.
pub(super) const LINE_MAX: usize = 64;
/// How long after it was let in a device looks whether everybody it knows of is there; it grows with its rank among the
/// members, so that few do it at once.
const GATHER_AFTER: Duration = Duration::from_secs(5);
const GATHER_STEP: Duration = Duration::from_millis(1_500);
/// Tries to have somebody after which it is told that nothing can be said before.
const GATHERS_IN_SILENCE: u32 = 4;
/// Most people of whom it is told by name.
const NAMED_MAX: usize = 5;
/// Upper end of the delay between two tries to have somebody; it doubles with each.
const GATHER_MAX: Duration = Duration::from_secs(60);

/// The conversations that the server has not named yet, and where its list goes on.
#[derive(Debug)]
pub(super) struct Comparing {
    open: BTreeSet<ConversationId>,
    after: Bytes,
}

/// The conversation that goes on for those that began as `root`, in this history: the first 16 bytes of
/// SHA-256("pli-successor-1", root, history).
pub(super) fn successor(root: ConversationId, history: &[u8]) -> ConversationId {
    let digest = Sha256::new().chain_update(b"pli-successor-1").chain_update(root.as_bytes()).chain_update(history);
    let mut id = [0; 16];
    id.copy_from_slice(&digest.finalize()[..16]);
    ConversationId::from_bytes(id)
}

/// When to try again to have somebody.
pub(super) fn gather_again(tries: &mut u32, now: UnixMillis) -> UnixMillis {
    let delay = Duration::from_millis(500 << (*tries).min(10));
    *tries = tries.saturating_add(1);
    now.after(delay.min(GATHER_MAX))
}

/// When this piece of work is due, if it is to bring somebody in.
pub(super) fn gather_at(work: &Work) -> Option<UnixMillis> {
    match work {
        Work::Gather(_, at) => Some(*at),
        _ => None,
    }
}

/// Whether no server has ever had the conversation.
fn unmade(conversation: &Conversation) -> bool {
    conversation.phase == Phase::Founding && !conversation.created && conversation.root.is_none()
}

impl Core {
    /// `Ready` named another history than the one that is known.
    pub(super) fn begin_history(&mut self, history: Bytes) {
        let before = std::mem::replace(&mut self.history, history);
        self.dirty.insert(Row::History);
        self.remember_history(before);
        // Also where there is no conversation yet: what waits may be the welcome of one that the server had then.
        self.compare = true;
        self.dirty.insert(Row::Compare);
        if self.conversations.is_empty() {
            return;
        }
        // Who meets the server for the first time has begun conversations at most, and lost nothing.
        if self.conversations.values().any(|conversation| !unmade(conversation)) {
            self.out.events.push(Event::ServerRestored);
        }
        // The server has handed out its own, or forgotten those that came later.
        self.packages = None;
        self.make_packages(0);
        let again: Vec<OutboxEvent> = self.outbox.send_all_again();
        again.into_iter().for_each(|event| self.outbox_event(event));
    }

    /// Asks which conversations the server has, once everything that waited was read: what comes later is of this
    /// history.
    pub(super) fn compare_conversations(&mut self, now: UnixMillis) {
        if !self.session.is_online() || !self.inbound.is_empty() {
            return;
        }
        let goes_on = |c: &Conversation| matches!(c.phase, Phase::Founding | Phase::Active);
        let ids = self.conversations.iter().filter(|(_, c)| goes_on(c)).map(|(id, _)| *id);
        let after = match &self.comparing {
            Some(comparing) => comparing.after.clone(),
            None => {
                self.comparing = Some(Comparing { open: ids.collect(), after: Bytes::new() });
                Bytes::new()
            }
        };
        self.ask(Ask::Compare, |_| Some(api::ListRequest { after }.encode_to_vec()), now);
    }

    /// A page of what the server has.
    pub(super) fn compared(&mut self, page: &api::ListResponse, now: UnixMillis) {
        let Some(mut comparing) = self.comparing.take() else { return };
        for one in &page.conversations {
            comparing.after = Bytes::copy_from_slice(&one.conversation);
            if let Ok(id) = ConversationId::try_from(one.conversation.as_ref()) {
                comparing.open.remove(&id);
            }
        }
        if page.more && !page.conversations.is_empty() {
            self.comparing = Some(comparing);
            return;
        }
        let open = self.with_heirs(comparing.open);
        self.compare = false;
        self.dirty.insert(Row::Compare);
        // From the highest down: of several conversations of one pair the lowest goes on.
        open.into_iter().rev().for_each(|id| self.succeed(id, now));
        self.turn_down_claims();
        if !self.all_comes {
            // What the server has and is not here: a copy of this profile was in it.
            self.resync_all();
        }
    }

    /// Those of the conversations that have to be succeeded. Whoever missed a history has both its beginning and what
    /// went on for it in that history; the latter alone is succeeded, if nobody is in it who was not there before.
    fn with_heirs(&mut self, mut open: BTreeSet<ConversationId>) -> BTreeSet<ConversationId> {
        let mut pairs: BTreeMap<ConversationId, ConversationId> = BTreeMap::new();
        let size = |id: ConversationId| (self.accounts_in(id).len(), Reverse(id));
        for later in &open {
            let root = self.conversations.get(later).and_then(|c| c.root).map(|root| self.last_of(root));
            let root = root.filter(|root| root != later && open.contains(root));
            let Some(root) = root.filter(|root| self.may_have_followed(*later, *root)) else { continue };
            let known = pairs.entry(root).or_insert(*later);
            if size(*later) > size(*known) {
                *known = *later;
            }
        }
        for (id, heir) in pairs {
            open.remove(&id);
            if let Some(conversation) = self.conversations.get_mut(&id) {
                conversation.heir = Some(heir);
            }
            self.end_for_heir(id);
        }
        open
    }

    /// Whether one conversation may have gone on for the other while this device was away: the server has gone back and
    /// was not asked for either yet, and nobody is in the later one who was not in the earlier.
    pub(super) fn may_have_followed(&self, later: ConversationId, earlier: ConversationId) -> bool {
        let active = |id| self.conversations.get(&id).is_some_and(|c| c.phase == Phase::Active);
        let earlier = self.last_of(earlier);
        self.compare
            && active(later)
            && active(earlier)
            && self.accounts_in(later).is_subset(&self.accounts_in(earlier))
    }

    pub(super) fn accounts_in(&self, id: ConversationId) -> BTreeSet<AccountId> {
        self.mls.members(id).into_iter().map(|(device, _)| device.account).collect()
    }

    /// The server does not have this conversation any more.
    fn succeed(&mut self, id: ConversationId, now: UnixMillis) {
        let Some(conversation) = self.conversations.get(&id) else { return };
        let derived = successor(conversation.root.unwrap_or(id), &self.history);
        // Two lines never become one, whatever somebody has said of their roots.
        let taken = self.conversations.iter().any(|(other, c)| *other != id && c.heir == Some(derived));
        let next = if taken { successor(id, &self.history) } else { derived };
        // Nobody was told of one that was never made.
        if id == derived || unmade(conversation) {
            return;
        }
        let own = self.identity.address().account;
        let inside = self.accounts_in(id).into_iter();
        let waiting = conversation.gathered_accounts().into_iter();
        // One that nobody has said yet what it is ends for a chat of the two, if there is one: it carried nothing.
        let direct = conversation.peer.filter(|_| conversation.kind() != Kind::Group);
        let all = inside.chain(waiting).chain(direct);
        let outcasts = self.outcasts(id);
        let accounts: BTreeSet<AccountId> =
            all.filter(|account| *account != own && !outcasts.contains(account)).collect();
        let adds = conversation.work.iter().any(|work| matches!(work, Work::Add(_)));
        // What goes on may be here already, made by somebody who was quicker; a group of one may get more.
        let nobody = accounts.is_empty() && !adds && conversation.kind() != Kind::Group;
        let alone = nobody && !self.conversations.contains_key(&next);
        if conversation.work.contains(&Work::Leave) || alone {
            return self.left(id);
        }
        if direct.is_some() && self.heir(id).is_some() {
            return self.end_for_heir(id);
        }
        let rootless = self.is_rootless(id);
        self.pass_on(id, next, accounts, now);
        if rootless {
            self.await_root(next, now);
        }
    }

    /// Lets the conversation `next` go on for `id`, with these accounts in it.
    pub(super) fn pass_on(
        &mut self,
        id: ConversationId,
        next: ConversationId,
        accounts: BTreeSet<AccountId>,
        now: UnixMillis,
    ) {
        let Some(old) = self.conversations.get_mut(&id) else { return };
        let (kind, name, peer, root) = (old.kind, old.name.clone(), old.peer, old.root.unwrap_or(id));
        old.heir = Some(next);
        let rest =
            std::mem::take(&mut old.work).into_iter().filter(|work| matches!(work, Work::Add(_) | Work::Remove(_)));
        let work = [Work::Gather(accounts.into_iter().collect(), now)].into_iter().chain(rest);
        match self.conversations.get_mut(&next) {
            Some(there) => {
                there.root = there.root.or(Some(root));
                there.kind = there.kind.or(kind);
                there.peer = there.peer.or(peer).filter(|_| there.kind() != Kind::Group);
                there.name = there.name.take().or(name);
                there.work.extend(work);
                let is_group = there.kind() == Kind::Group;
                self.gather_soon(next, now);
                self.keep_out(next);
                if is_group && !self.outcasts(next).is_empty() {
                    // Whoever completes it has to know whom not to bring in.
                    self.announce_name(next, now);
                }
            }
            None => {
                let (work, root) = (work.collect(), Some(root));
                let made = Conversation { kind, name, peer, root, work, lane_base: 1, ..Conversation::default() };
                self.conversations.insert(next, made);
                self.number(next);
                if kind == Some(Kind::Group) {
                    self.announce_name(next, now);
                }
            }
        }
        self.dirty.insert(Row::Conversation(next));
        self.end_for_heir(id);
    }

    fn end_for_heir(&mut self, id: ConversationId) {
        let why = refusal(ErrorCode::UnknownConversation, "the server no longer has the conversation");
        self.end(id, Phase::Left, &why, Event::Left { conversation: id, by: None });
    }

    /// Whether the conversation is being made, or completed, for one of another history.
    pub(super) fn gathers(&self, id: ConversationId) -> bool {
        let Some(conversation) = self.conversations.get(&id) else { return false };
        matches!(conversation.work.front(), Some(Work::Gather(..)))
            || (conversation.phase == Phase::Founding && conversation.root.is_some())
    }

    /// Brings in those of these accounts that can be had.
    pub(super) fn advance_gather(&mut self, id: ConversationId, accounts: &[AccountId], now: UnixMillis) -> bool {
        if self.leave_out(id, accounts) {
            return true;
        }
        let Some(conversation) = self.conversations.get(&id) else { return false };
        if conversation.awaits_welcome && (!self.session.is_online() || !self.inbound.is_empty()) {
            // It may be in the queue.
            return false;
        }
        if conversation.awaits_welcome {
            self.advance_awaited(id, accounts, now);
            return false;
        }
        let absent = &conversation.absent;
        let wanted: BTreeSet<AccountId> = accounts.iter().filter(|a| !absent.contains(a)).copied().collect();
        let unmet: BTreeSet<AccountId> = wanted.iter().filter(|a| !self.contacts.contains_key(a)).copied().collect();
        if self.ask_lists(unmet.iter().copied()) {
            return false;
        }
        if wanted.len() == unmet.len() && !accounts.is_empty() {
            self.gather_later(id, now);
            return false;
        }
        if let Some(conversation) = self.conversations.get_mut(&id) {
            conversation.absent.extend(&unmet);
        }
        self.advance_change(id, &wanted - &unmet, BTreeSet::new(), now)
    }

    /// Puts first what can be done now: whoever cannot be had yet keeps nothing else waiting.
    pub(super) fn put_due_first(&mut self, id: ConversationId, now: UnixMillis) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        if conversation.phase != Phase::Active
            || !matches!(conversation.work.front(), Some(Work::Gather(_, at) | Work::Align(at)) if *at > now)
        {
            return;
        }
        let due = |work: &Work| !matches!(work, Work::Gather(_, at) | Work::Align(at) if *at > now);
        if let Some(first) = conversation.work.iter().position(due) {
            conversation.work.rotate_left(first);
            self.dirty.insert(Row::Conversation(id));
        }
    }

    /// Key packages of somebody are not to be had: the others come first.
    pub(super) fn gather_refused(&mut self, id: ConversationId, why: &common::Error, now: UnixMillis) {
        let named = why.missing.iter().chain(&why.extra).chain(&why.stale);
        let named: Vec<DeviceAddress> = named.filter_map(|d| DeviceAddress::try_from(d).ok()).collect();
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        let before = conversation.absent.len() + conversation.bare.len();
        conversation.bare.extend(&named);
        let accounts = named.into_iter().map(|device| device.account);
        let absent: Vec<AccountId> = accounts.filter(|account| self.is_absent(id, *account)).collect();
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        conversation.absent.extend(absent);
        if conversation.absent.len() + conversation.bare.len() == before {
            self.gather_later(id, now);
        }
    }

    fn gather_later(&mut self, id: ConversationId, now: UnixMillis) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        conversation.absent.clear();
        conversation.bare.clear();
        let again = gather_again(&mut conversation.gathered, now);
        if let Some(Work::Gather(_, at)) = conversation.work.front_mut() {
            *at = again;
        }
        // Nothing can be said there before; whoever writes should know why.
        if conversation.phase == Phase::Founding && conversation.gathered == GATHERS_IN_SILENCE {
            let who = self.gathered_in(id);
            let why = format!("the restored server does not know {who} yet; it goes on when they connect again");
            self.out.events.push(Event::Waiting { conversation: id, why: refusal(ErrorCode::Temporary, why) });
        }
        self.dirty.insert(Row::Conversation(id));
    }

    /// Who is brought into the conversation, for people; not more than fit into a line.
    fn gathered_in(&self, id: ConversationId) -> String {
        let first = self.conversations.get(&id).and_then(|c| c.work.front());
        let Some(Work::Gather(accounts, _)) = first else { return "the other side".into() };
        let handle = |account: &AccountId| self.member(*account).handle.map(|handle| format!("@{handle}"));
        let mut named: Vec<String> = accounts.iter().filter_map(handle).take(NAMED_MAX).collect();
        match (named.len(), accounts.len() - named.len()) {
            (0, 0..=1) => return "the other side".into(),
            (0, several) => return format!("{several} of its members"),
            (_, 0) => {}
            (_, more) => named.push(format!("{more} more")),
        }
        named.join(", ")
    }

    /// Whoever made the conversation may not know of everybody: looks after them in a while.
    pub(super) fn gather_soon(&mut self, id: ConversationId, now: UnixMillis) {
        let own = self.identity.address();
        let members: BTreeSet<_> = self.mls.members(id).into_iter().map(|(device, _)| device).collect();
        let rank = members.iter().position(|d| *d == own).and_then(|r| u32::try_from(r).ok()).unwrap_or(0);
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        for work in &mut conversation.work {
            if let Work::Gather(_, at) = work {
                *at = now.after(GATHER_AFTER + GATHER_STEP * rank);
            }
        }
    }

    /// Whether it goes on, in this history, for one that this device was in before.
    pub(super) fn goes_on_for_known(&self, id: ConversationId) -> bool {
        let leads_to = |(first, c): (&ConversationId, &Conversation)| {
            // Whoever was out and is brought in again was let in by somebody.
            let was_in = || *first != id && !matches!(c.phase, Phase::Left | Phase::Failed);
            c.heir == Some(id) || was_in() && self.is_successor(id, c.root.unwrap_or(*first))
        };
        self.conversations.iter().any(leads_to)
    }

    /// Whether it is what goes on, in this history, for those that began as `root`.
    pub(super) fn is_successor(&self, id: ConversationId, root: ConversationId) -> bool {
        // A server that was never restored has no history, and then nothing goes on.
        !self.history.is_empty() && successor(root, &self.history) == id
    }

    /// The conversation that goes on for one that is over, or ends in this step.
    pub(super) fn next_of(&self, id: ConversationId) -> Option<ConversationId> {
        self.conversations.get(&id)?.heir.filter(|heir| self.conversations.contains_key(heir))
    }

    /// The conversation that goes on for this one; itself where none does.
    pub(super) fn last_of(&self, id: ConversationId) -> ConversationId {
        self.onward_from(id).last().unwrap_or(id)
    }

    /// This conversation, the one that goes on for it, and so on.
    pub(super) fn onward_from(&self, id: ConversationId) -> impl Iterator<Item = ConversationId> {
        std::iter::successors(Some(id), |id| self.next_of(*id)).take(LINE_MAX)
    }

    /// The same, also before the server was asked what it still has: what others say there may be read earlier.
    pub(super) fn goes_on_in(&self, id: ConversationId) -> ConversationId {
        let last = self.last_of(id);
        let Some(conversation) = self.conversations.get(&last).filter(|_| self.compare) else { return last };
        let derived = successor(conversation.root.unwrap_or(last), &self.history);
        if self.conversations.contains_key(&derived) { derived } else { last }
    }

    /// The conversations that went on for each other, the last one first, then the newest.
    pub(super) fn line_of(&self, id: ConversationId) -> Vec<ConversationId> {
        let last = self.last_of(id);
        let before = self.conversations.iter().filter(|(id, c)| c.heir.is_some() && **id != last);
        let mut line: Vec<_> = before.filter(|(id, _)| self.last_of(**id) == last).collect();
        line.sort_unstable_by_key(|(id, c)| (Reverse(c.known), **id));
        std::iter::once(last).chain(line.into_iter().map(|(id, _)| *id)).take(LINE_MAX).collect()
    }
}
