// SPDX-License-Identifier: MIT OR Apache-2.0
//! A conversation as this device knows it, and what is to be done in it.
//!
//! What a user began is kept as [`Work`], in order, in the conversation's own row: a step is looked up from what is
//! still missing, never remembered, so that a restart at any point goes on where it stood.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use pli_api::conversations::{EpochCommit, GetGroupInfoResponse};
use pli_domain::{AccountId, ConversationId, DeviceAddress, DeviceId, Handle, SendId, UnixMillis};

use super::lives::Kept;
use super::mark::Mark;
use crate::content::{Kind, LifeSpan};
use crate::mls::{Commit, MlsError};

mod record;

/// Most things to be done in one conversation.
pub(super) const WORK_MAX: usize = 16;

/// How a conversation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Phase {
    /// Its creator is making it.
    Founding = 0,
    /// This device is in it.
    Active = 1,
    /// This account left or was removed.
    Left = 2,
    /// It could not be made.
    Failed = 3,
}

/// Something to be done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Work {
    /// Add people; the first one makes the conversation.
    Add(Vec<Handle>),
    /// Remove people.
    Remove(Vec<AccountId>),
    /// Remove devices that asked to leave, not before this time.
    Dismiss(Vec<DeviceAddress>, UnixMillis),
    /// Leave.
    Leave,
    /// Bring everybody into the conversation that goes on for one of another history, not before this time. Whoever
    /// cannot be had now is asked for again later.
    Gather(Vec<AccountId>, UnixMillis),
    /// Bring the group in line with its members' device lists, not before this time.
    Align(UnixMillis),
    /// Take out who was removed from what this goes on for.
    KeepOut,
}

/// When this device renews its keys in a group, in server time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refresh {
    /// Then at the latest; 0 where that went by while nothing was said.
    pub(super) due: UnixMillis,
    /// When that was drawn: the keys are as new, or this device came in.
    pub(super) since: UnixMillis,
    /// The first number of its messages since then.
    pub(super) from: u64,
    /// What others had said until then: the sum of their numbers.
    pub(super) heard: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    pub(super) kind: Option<Kind>,
    pub(super) name: Option<String>,
    pub(super) phase: Phase,
    /// Its creation was answered.
    pub(super) created: bool,
    /// [`super::Event::ConversationReady`] was shown.
    pub(super) announced: bool,
    /// Whom a conversation of two is with; none in groups and where it is not certain yet.
    pub(super) peer: Option<AccountId>,
    /// Rises with each conversation that this device came to know; 0 before it is numbered.
    pub(super) known: u64,
    /// From this lane number on the newest member is addressed.
    pub(super) lane_base: u64,
    /// The conversation that goes on for this one, where another history of the server began.
    pub(super) heir: Option<ConversationId>,
    /// The first of those that this one goes on for; none where it goes on for none.
    pub(super) root: Option<ConversationId>,
    /// Another member has made it; this device waits to be let in.
    pub(super) awaits_welcome: bool,
    /// This device lost the thread and joins again.
    pub(super) rejoining: bool,
    pub(super) work: VecDeque<Work>,
    /// Key packages claimed for the first work.
    pub(super) packages: Vec<(DeviceAddress, Bytes)>,
    /// A commit that waits for the server's verdict.
    pub(super) commit: Option<Commit>,
    /// A proposal to leave: its epoch, bytes and send id, and whether it was taken.
    pub(super) proposal: Option<Proposal>,
    /// What this device received of others.
    pub(super) ours: BTreeMap<DeviceId, Mark>,
    /// What of that it told.
    pub(super) told: BTreeMap<DeviceId, Mark>,
    /// What others received of this device.
    pub(super) theirs: BTreeMap<DeviceId, Mark>,
    /// What those received who are not in it any more; for display alone.
    pub(super) gone: BTreeMap<DeviceAddress, Vec<Mark>>,
    /// Who let this device in, until it is said where they are strangers.
    pub(super) added_by: Option<AccountId>,
    /// Which numbers of this device were given in which life, rising.
    pub(super) lives: Vec<LifeSpan>,
    /// Up to this number others have messages that this profile knows nothing of; it has joined again for them.
    pub(super) disowned: u64,
    /// Messages that are stored and that not everybody is known to have, to be sent again if they cannot be opened.
    pub(super) kept: Vec<Kept>,
    /// The highest place ([`Frame::place`](crate::content::Frame::place)) that was given to a message here.
    pub(super) said: u64,
    /// The user left it where nobody could commit that, of which the server does not know.
    pub(super) abandoned: bool,
    /// The queue has not come to this epoch yet, in which the server is, and maybe this device by its own commit.
    pub(super) awaits: Option<u64>,
    /// It may never come to it: there was a gap.
    pub(super) awaits_in_vain: bool,
    /// How often in a row there was no room for devices that the group lacks, …
    pub(super) crowded: u32,
    /// … and when that is looked at again: before then nothing is claimed for them.
    pub(super) room_at: Option<UnixMillis>,
    /// When this device renews its keys; none before it was caught up with the conversation once.
    pub(super) refresh: Option<Refresh>,
    /// When it was last asked to.
    pub(super) renewal_asked: Option<UnixMillis>,
    /// Whom this device saw removed and who was not added since, the latest last; at most
    /// [`super::outcasts::OUTCASTS_MAX`].
    pub(super) outcasts: Vec<AccountId>,
    /// Of whom somebody said that they were removed, and who said so, the latest last; as many at most.
    pub(super) said_out: Vec<(AccountId, AccountId)>,
    /// The server was asked whether this device is in it although its welcome did not come.
    pub(super) looked_for: bool,
    /// What it goes on for may be the successor of one that is not known here: nothing is made before somebody says so.
    pub(super) rootless: bool,
    /// Another device of this account has asked to leave.
    pub(super) asked_elsewhere: bool,
    /// Numbers of this device whose messages were refused, so that nobody waits for them; at most
    /// [`super::lives::UNSENT_MAX`] ranges, rising and apart; the lowest are forgotten.
    pub(super) unsent: Vec<(u64, u64)>,

    // Not stored: found out again after a restart.
    /// How often something was sent again because this member said so.
    pub(super) believed: BTreeMap<DeviceId, u8>,
    /// How often a member that came in again by itself was told how far this device has numbered.
    pub(super) answered: BTreeMap<DeviceId, u8>,
    /// Numbers of this device that stand for no message, or not any more: nobody lacks anything by them. At most
    /// [`super::lives::VOID_MAX`] ranges; the oldest are forgotten.
    pub(super) void: Vec<(u64, u64)>,
    /// Devices of which messages came that cannot be opened, and none since that can.
    pub(super) unreadable: BTreeSet<DeviceId>,
    /// Which messages have which numbers, the last ones.
    pub(super) numbered: BTreeMap<u64, SendId>,
    /// Until when the queue is waited for to come to [`Conversation::awaits`]; none before the wait began in this session.
    pub(super) awaits_until: Option<UnixMillis>,
    /// The commits up to this epoch are asked for, or are the backlog, as they are not in the queue.
    pub(super) behind: Option<u64>,
    pub(super) reported: bool,
    /// How the group stands, by which this device joins again; it may name objects that are still to be fetched.
    pub(super) comes_back: Option<GetGroupInfoResponse>,
    /// Others went on since that was asked for: where it does not bring this device back, it is asked for again at once.
    pub(super) outpaced: bool,
    /// How often that failed since it lost the thread.
    pub(super) rejoins: u32,
    /// Whom the next report asks to renew their keys.
    pub(super) vouchers: Vec<DeviceAddress>,
    /// When some were asked.
    pub(super) vouchers_asked: Option<UnixMillis>,
    /// The user was told that this takes longer.
    pub(super) waits_told: bool,
    /// Nobody whom this device knew in it is there any more, but devices of its own account that say nothing.
    pub(super) forsaken: bool,
    /// For whom this device renews its keys sooner, who wait for that to come back, and when it would without them.
    pub(super) renews_for: Option<(BTreeSet<DeviceAddress>, Option<Refresh>)>,
    /// Why the thread was lost, as it is reported.
    pub(super) lost_for: Option<&'static str>,
    pub(super) backlog: VecDeque<EpochCommit>,
    /// Commits refused because the device lists had changed.
    pub(super) aligned: u32,
    /// The last device whose mark was told: where not all fit one tick, the next one goes on behind it.
    pub(super) ticked: Option<DeviceId>,
    /// What is to be told in ticks waits until then; stored.
    pub(super) ticks_at: Option<UnixMillis>,
    /// Commits of this device in a row that others came before.
    pub(super) races_lost: u32,
    /// The next commit is not made before this time.
    pub(super) commits_at: Option<UnixMillis>,
    /// How often the group could not be brought in line.
    pub(super) aligns: u32,
    /// Devices that are to come in and have published nothing: the first work goes on without them.
    pub(super) bare: BTreeSet<DeviceAddress>,
    /// Those of them that the user was told of.
    pub(super) awaited: BTreeSet<DeviceAddress>,
    /// The first work brings in nobody but whom it is for, as there is no room.
    pub(super) lean: bool,
    /// Every leaf is vouched for by its account's device list.
    pub(super) vouched: bool,
    pub(super) warned: bool,
    /// It was joined again because this profile is older than what was sent from it.
    pub(super) renewed: bool,
    /// Somebody said, while the server was asked what it has, that it goes on for this root.
    pub(super) claims: Option<(ConversationId, AccountId)>,
    /// Whom the first work could not have yet.
    pub(super) absent: BTreeSet<AccountId>,
    /// How often it was tried.
    pub(super) gathered: u32,
}

/// Why a device cannot follow a group any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum LostThread {
    #[error("the commits since then are gone")]
    Gone,
    #[error("this profile is older than what was sent from it")]
    Older,
    #[error("the server has this device in a conversation that is not here")]
    NotHere,
    #[error("the bytes of a commit cannot be had, or are not the ones that were announced")]
    Bytes,
    #[error("the commits that the server has do not lead to its epoch")]
    NoWay,
    #[error("a commit of this device cannot be carried out or dropped")]
    Own(#[source] MlsError),
    #[error("a commit cannot be processed")]
    Commit(#[source] MlsError),
    #[error("the invitation cannot be used")]
    Welcome(#[source] MlsError),
}

impl LostThread {
    /// The word that operators see.
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::Gone => "commits-gone",
            Self::Older => "older-profile",
            Self::NotHere => "not-here",
            Self::Bytes => "commit-bytes",
            Self::NoWay => "no-way",
            Self::Own(_) => "own-commit",
            Self::Commit(_) => "commit",
            Self::Welcome(_) => "welcome",
        }
    }

    /// For the user's log: with its cause.
    pub(super) fn sentence(&self) -> String {
        match std::error::Error::source(self) {
            Some(source) => format!("{self}: {source}"),
            None => self.to_string(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proposal {
    pub(super) epoch: u64,
    pub(super) bytes: Bytes,
    pub(super) send_id: SendId,
    pub(super) taken: bool,
}

impl Conversation {
    /// What is kept of what this device was shown, when it was put out: what it has yet to tell.
    pub(super) fn put_out(&mut self) {
        let told = std::mem::take(&mut self.told);
        let read = |device: &DeviceId| told.get(device).map_or(0, |told| told.read);
        let ours = std::mem::take(&mut self.ours).into_iter();
        let kept = ours.map(|(device, mark)| (device, mark.put_out(read(&device))));
        self.ours = kept.filter(|(_, mark)| *mark != Mark::default()).collect();
        let silent = self.ours.iter().filter(|(_, mark)| mark.shown() == 0);
        self.told = silent.map(|(device, mark)| (*device, mark.clone())).collect();
    }
    pub(super) fn kind(&self) -> Kind {
        self.kind.unwrap_or(Kind::Unknown)
    }
    /// Whom it is to be completed with.
    pub(super) fn gathered_accounts(&self) -> BTreeSet<AccountId> {
        let gathered = self.work.iter().filter_map(|work| match work {
            Work::Gather(accounts, _) => Some(accounts.iter().copied()),
            _ => None,
        });
        gathered.flatten().collect()
    }
    /// Whom it is with, unless it is a group: one that was called so before that was known is none of two.
    pub(super) fn of_two_with(&self) -> Option<AccountId> {
        self.peer.filter(|_| self.kind() != Kind::Group)
    }
    /// Whether this number of this device stands for no message, or not any more.
    pub(super) fn is_given_up(&self, lane_no: u64) -> bool {
        self.void.iter().chain(&self.unsent).any(|(first, last)| (*first..=*last).contains(&lane_no))
    }
    /// What others said: the sum of their numbers.
    pub(super) fn heard(&self) -> u64 {
        self.ours.values().fold(0, |sum, mark| sum.saturating_add(mark.delivered))
    }
    /// Whether the commit that waits renews this device's keys and nothing else.
    pub(super) fn renews(&self) -> bool {
        self.commit.as_ref().is_some_and(|commit| commit.changes_nothing)
    }
    pub(super) fn race_no_more(&mut self) {
        (self.races_lost, self.commits_at) = (0, None);
    }
    pub(super) fn wait_no_more(&mut self) {
        (self.awaits, self.awaits_in_vain, self.awaits_until) = (None, false, None);
    }
    /// Where the queue is waited for: it may never come to it. Answers whether that is news.
    pub(super) fn wait_in_vain(&mut self) -> bool {
        let is_news = self.awaits.is_some() && !(self.awaits_in_vain && self.awaits_until.is_none());
        if is_news {
            (self.awaits_in_vain, self.awaits_until) = (true, None);
        }
        is_news
    }
    pub(super) fn lane_base(&self) -> u64 {
        self.lane_base.max(1)
    }
}
