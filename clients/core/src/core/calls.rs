// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls to services. What is asked follows from what is missing, so a call that was lost with its connection is asked
//! again by itself; each thing is asked once at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use pli_api::{common, edge};
use pli_domain::{ConversationId, Handle, PayloadId, UnixMillis};
use rand_chacha::rand_core::RngCore;

use super::Core;

/// Calls that wait for their reply at a time, unless the server allows fewer.
const CALLS_MAX: usize = 16;
const BACKOFF_FIRST_MS: u64 = 500;
const BACKOFF_MAX_MS: u64 = 60_000;

/// Something that is asked of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ask {
    /// Which suites the server takes, before one that not every server takes is registered.
    Info,
    Register,
    Publish,
    Lookup(Handle),
    /// Of [`Core::lists_open`].
    Lists,
    PutList,
    List,
    Compare,
    Claim(ConversationId),
    Create(ConversationId),
    Commit(ConversationId),
    Propose(ConversationId),
    Commits(ConversationId),
    Report(ConversationId),
    GroupInfo(ConversationId),
    Fetch(PayloadId),
    Put(PayloadId),
}

impl Ask {
    /// What it is about, if that is one conversation.
    const fn conversation(&self) -> Option<ConversationId> {
        match self {
            Self::Claim(id)
            | Self::Create(id)
            | Self::Commit(id)
            | Self::Propose(id)
            | Self::Commits(id)
            | Self::Report(id)
            | Self::GroupInfo(id) => Some(*id),
            Self::Info
            | Self::Register
            | Self::Publish
            | Self::Lookup(_)
            | Self::Lists
            | Self::PutList
            | Self::List
            | Self::Compare
            | Self::Fetch(_)
            | Self::Put(_) => None,
        }
    }

    fn method(&self) -> &'static str {
        match self {
            Self::Info => "/pli.edge.v1.Edge/Info",
            Self::Register => "/pli.directory.v1.Directory/Register",
            Self::Publish => "/pli.directory.v1.Directory/PublishKeyPackages",
            Self::Lookup(_) => "/pli.directory.v1.Directory/Lookup",
            Self::Lists => "/pli.directory.v1.Directory/GetDeviceLists",
            Self::PutList => "/pli.directory.v1.Directory/PutDeviceList",
            Self::Claim(_) => "/pli.directory.v1.Directory/ClaimKeyPackages",
            Self::List | Self::Compare => "/pli.conversations.v1.Conversations/List",
            Self::Create(_) => "/pli.conversations.v1.Conversations/Create",
            Self::Commit(_) => "/pli.conversations.v1.Conversations/Commit",
            Self::Propose(_) => "/pli.conversations.v1.Conversations/Propose",
            Self::Commits(_) => "/pli.conversations.v1.Conversations/GetCommits",
            Self::Report(_) => "/pli.conversations.v1.Conversations/ReportFailure",
            Self::GroupInfo(_) => "/pli.conversations.v1.Conversations/GetGroupInfo",
            Self::Fetch(_) => "/pli.conversations.v1.Conversations/FetchPayload",
            Self::Put(_) => "/pli.conversations.v1.Conversations/PutPayload",
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Calls {
    next_id: u64,
    open: BTreeMap<u64, Ask>,
    /// Not before this time, and how many tries failed.
    retry: BTreeMap<Ask, (UnixMillis, u32)>,
}

impl Calls {
    pub(super) fn is_open(&self, ask: &Ask) -> bool {
        self.open.values().any(|open| open == ask)
    }
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
    /// Whether it was refused and is asked again later.
    pub(super) fn is_put_off(&self, ask: &Ask) -> bool {
        self.retry.contains_key(ask) && !self.is_open(ask)
    }
    /// The connection is gone: nothing will be answered, and what was open may be asked again at once.
    pub(super) fn clear(&mut self) {
        self.open.clear();
    }
    pub(super) fn close(&mut self, id: u64) -> Option<Ask> {
        self.open.remove(&id)
    }
    /// What it was asked about is no more: its answer says nothing, and it may be asked anew.
    pub(super) fn abandon(&mut self, ask: &Ask) {
        if self.is_open(ask) {
            self.open.retain(|_, open| open != ask);
            self.retry.remove(ask);
        }
    }
    /// Nobody wants it any more: its answer says nothing, and whoever wants it later asks at once.
    pub(super) fn forget(&mut self, ask: &Ask) {
        self.open.retain(|_, open| open != ask);
        self.retry.remove(ask);
    }
    /// The same for everything that was asked about a conversation.
    pub(super) fn abandon_all_of(&mut self, id: ConversationId) {
        self.open.retain(|_, open| open.conversation() != Some(id));
        self.retry.retain(|ask, _| ask.conversation() != Some(id));
    }
    /// It was answered, or what it waited for came: who asks again asks at once.
    pub(super) fn done(&mut self, ask: &Ask) {
        self.retry.remove(ask);
    }
    /// When something is to be asked again, after `now`: what is due already is asked for or waits for an answer.
    pub(super) fn next_deadline(&self, now: UnixMillis) -> Option<UnixMillis> {
        self.retry.values().map(|(at, _)| *at).filter(|at| *at > now).min()
    }
    /// Whether it may be asked now.
    fn due(&self, ask: &Ask, now: UnixMillis) -> bool {
        self.retry.get(ask).is_none_or(|(at, _)| *at <= now)
    }
}

impl Core {
    /// Asks, unless it is asked already, has to wait, or there is no session that may.
    pub(super) fn ask(&mut self, ask: Ask, body: impl FnOnce(&mut Self) -> Option<Vec<u8>>, now: UnixMillis) {
        let allowed = match &ask {
            Ask::Info | Ask::Register => self.session.is_anonymous(),
            _ => self.session.is_ready(),
        };
        let window = self.session.call_window(CALLS_MAX);
        if !allowed || self.calls.open.len() >= window || self.calls.is_open(&ask) || !self.calls.due(&ask, now) {
            return;
        }
        let Some(body) = body(self) else { return };
        let id = self.calls.next_id;
        self.calls.next_id += 1;
        let call = edge::Call { id, method: ask.method().into(), body: Bytes::from(body) };
        self.calls.open.insert(id, ask);
        self.send(edge::client_frame::Frame::Call(call));
    }

    /// Asks again later, with full jitter.
    pub(super) fn ask_later(&mut self, ask: Ask, why: &common::Error, now: UnixMillis) {
        let attempts = self.calls.retry.get(&ask).map_or(0, |(_, n)| *n).saturating_add(1);
        self.ask_after(ask, attempts, why, now);
    }

    /// The same for what failed so many times, whatever was answered in between.
    pub(super) fn ask_after(&mut self, ask: Ask, attempts: u32, why: &common::Error, now: UnixMillis) {
        let bound = (BACKOFF_FIRST_MS << attempts.min(10)).min(BACKOFF_MAX_MS);
        let jitter = self.rng.next_u64() % (bound + 1);
        let at = now.after(Duration::from_millis(u64::from(why.retry_after_ms) + jitter));
        self.calls.retry.insert(ask, (at, attempts));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_again_is_asked_once_more_after_the_connection_is_lost() {
        let (ask, other) = (Ask::Publish, Ask::List);
        let retry = [(ask.clone(), (UnixMillis(10), 1)), (other, (UnixMillis(30), 1))].into();
        let mut calls = Calls { retry, ..Calls::default() };
        assert!(!calls.due(&ask, UnixMillis(9)) && calls.due(&ask, UnixMillis(10)));
        calls.open.insert(1, ask.clone());
        assert_eq!(calls.next_deadline(UnixMillis(10)), Some(UnixMillis(30)), "what is open hides no deadline");
        calls.clear();
        assert!(calls.due(&ask, UnixMillis(11)));
    }
}
