// SPDX-License-Identifier: MIT OR Apache-2.0
//! The client as one state machine.
//!
//! A driver owns a connection, a clock and a store. It gives the core what happened ([`Core::frame`],
//! [`Core::command`], [`Core::tick`], [`Core::disconnected`]) and carries out the [`Effects`] of each step: commit the
//! changes in one transaction, then send the frames, then show the events. A core that is dropped at any moment and
//! loaded from what was committed goes on where it stood.
//!
//! A connection begins with the edge's `ServerHello`, which goes to [`Core::handshake`]; every later frame goes to
//! [`Core::frame`]. An account that is not registered yet registers on an anonymous connection, after which the advice
//! is to connect again at once.
//!
//! Inside, state says what is missing and [`Core::reconcile`] asks for it; nothing remembers where in a flow it was, so
//! there is nothing to resume. Envelopes are worked through strictly in order; one that needs an answer first holds up
//! the rest, un-acknowledged.

mod awaited;
mod calls;
mod chats;
mod commands;
mod conversation;
mod devices;
mod events;
mod gone;
mod group;
mod history;
mod inbound;
mod last_resort;
mod leaving;
mod linked;
mod lives;
mod mark;
mod notices;
mod objects;
mod older;
mod outbound;
mod outcasts;
mod own_list;
mod parting;
mod people;
mod places;
mod race;
mod reconcile;
mod refresh;
mod rejoin;
mod replies;
mod restored;
mod room;
mod rows;
mod session;
mod tables;
mod ticks;
mod types;
#[cfg(test)]
mod vectors;
mod views;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use pli_api::edge::{self, client_frame, server_frame};
use pli_domain::{AccountId, ConversationId, Position, UnixMillis};
use rand_chacha::ChaCha20Rng;

use crate::identity::{Identity, IdentityError};
use crate::inbox::Inbox;
use crate::mls::Mls;
use crate::outbox::Outbox;
use calls::Calls;
use conversation::Conversation;
pub use events::{Event, IncomingMessage, Member, NewKey, RefusedList};
use inbound::Inbound;
pub(crate) use linked::LinkAccount;
use notices::Notices;
use objects::{Fetch, Put};
pub use own_list::OwnDevice;
use own_list::OwnList;
use parting::Parting;
use people::Contact;
use restored::Comparing;
use rows::Row;
use session::Session;
pub use tables::{Change, ChangeSet, MessageRow, RowKind, RowStatus, Table};
pub use types::{Command, CommandError, ConnectionState, Effects, Outcome, OutgoingMessage, SessionAdvice};
pub use views::{ConversationView, Reached};

/// Longest text of one message; what is longer is an attachment.
pub const TEXT_BYTES_MAX: usize = 32 * 1024;
/// Most members of a group besides its creator.
pub const GROUP_OTHERS_MAX: usize = pli_domain::limits::MEMBERS_MAX - 1;
/// The session protocol that this client speaks.
pub const PROTOCOL_VERSION: u32 = 1;

/// Accounts of one question for device lists: as many lists of ten devices fit a frame.
const LISTS_AT_ONCE: usize = 32;

/// How long after a publication an edge that calls key packages low is not believed: longer than it believes a number,
/// and short beside the time in which others may claim all.
const PUBLISHED_BELIEVED: Duration = Duration::from_secs(10);

/// Why stored rows are not a core.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no identity row: the profile is new or not of this program.
    #[error("the profile has no identity")]
    NoIdentity,
    /// The identity is damaged.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// An outbox row is damaged.
    #[error(transparent)]
    Outbox(#[from] crate::outbox::RecordError),
    /// An inbox row is damaged.
    #[error(transparent)]
    Inbox(#[from] crate::inbox::InboxRecordError),
    /// Another row is damaged.
    #[error("a row of {0:?} is damaged")]
    Row(Table),
}

/// Why a `ServerHello` cannot be answered; close the connection.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The edge speaks other versions only.
    #[error("the server speaks none of this client's protocol versions; update the client")]
    Version,
    /// The nonce is not 32 bytes.
    #[error("the server's nonce is malformed")]
    Nonce,
}

/// See the module.
#[derive(Debug)]
pub struct Core {
    identity: Identity,
    rng: ChaCha20Rng,
    mls: Mls,
    outbox: Outbox,
    inbox: Inbox,
    conversations: BTreeMap<ConversationId, Conversation>,
    contacts: BTreeMap<AccountId, Contact>,
    notices: Notices,
    session: Session,
    calls: Calls,
    inbound: VecDeque<Inbound>,
    parting: Parting,
    fetches: Vec<Fetch>,
    puts: Vec<Put>,
    lists_wanted: BTreeSet<AccountId>,
    /// Whose lists are asked for and not answered yet, with the version that was known then: what is older goes back.
    lists_open: Vec<(AccountId, u64)>,
    /// Accounts of which the directory says that it has nothing newer than the list before the one that is known: it is
    /// asked what it has.
    lists_doubted: BTreeSet<AccountId>,
    own_list: OwnList,
    /// Answered on this connection since the account last came into a group.
    asked_lists: BTreeSet<AccountId>,
    /// Those of them that were really answered: what their lists do not name does not belong to them.
    answered_lists: BTreeSet<AccountId>,
    /// Accounts of one question for device lists; fewer once an answer did not fit a frame.
    lists_at_once: usize,
    /// An encoded request with key packages that the directory has not confirmed.
    packages: Option<Vec<u8>>,
    /// Server time when the directory last confirmed key packages; stored, so that the next start knows it.
    published: Option<UnixMillis>,
    /// When packages that were refused were last made anew, in this life of the program.
    remade: Option<UnixMillis>,
    /// A gap was told and the conversations were not compared since.
    resync: bool,
    /// The history of the server that the committed position is of; empty where no backup was restored.
    history: Bytes,
    /// Those before it that this device has been in, the latest last; at most [`restored::LINE_MAX`].
    earlier: Vec<Bytes>,
    /// The server has begun another history, and the conversations were not compared since.
    compare: bool,
    /// The server's queue for this device begins with the first that it was ever sent; not stored.
    all_comes: bool,
    comparing: Option<Comparing>,
    resync_after: Bytes,
    /// What the first envelope waited for; if it still cannot be opened it is skipped.
    caught_up_for: Option<(ConversationId, u64)>,
    /// Names this run of the program; another one for every run.
    life: u64,
    /// The last place given in the history.
    order: u64,
    stepped_at: UnixMillis,
    dirty: BTreeSet<Row>,
    out: Effects,
}

impl Core {
    /// Takes a frame of the edge, other than `ServerHello`.
    pub fn frame(&mut self, frame: edge::ServerFrame, now: UnixMillis) -> Effects {
        use server_frame::Frame;
        self.heard(now);
        match frame.frame {
            Some(Frame::Ready(ready)) => self.ready(&ready, now),
            Some(Frame::SendResults(results)) => self.send_results(&results, now),
            Some(Frame::Settled(batch)) => self.settled(&batch, now),
            Some(Frame::Deliver(deliver)) => self.queue(Inbound::Deliver(deliver)),
            Some(Frame::CaughtUp(_)) => self.queue(Inbound::CaughtUp),
            Some(Frame::Gap(gap)) => {
                if let Ok(to) = Position::from_u64(gap.to) {
                    self.queue(Inbound::Gap(to));
                }
            }
            Some(Frame::Reply(reply)) => self.reply(reply, now),
            Some(Frame::Ping(ping)) => self.send(client_frame::Frame::Pong(edge::Pong { id: ping.id })),
            Some(Frame::GoAway(away)) => self.go_away(away.reconnect_after_ms),
            Some(Frame::Close(close)) => self.closed(close),
            Some(Frame::Notice(notice)) => self.notice(&notice, now),
            // A pong was heard; a second hello, signals and frames of newer versions ask for nothing.
            Some(Frame::Pong(_) | Frame::Hello(_) | Frame::Signal(_)) | None => {}
        }
        self.finish(now)
    }

    /// Time has passed: call it at [`Core::next_deadline`].
    pub fn tick(&mut self, now: UnixMillis) -> Effects {
        self.finish(now)
    }

    /// When to call [`Core::tick`] if nothing else happens.
    pub fn next_deadline(&self) -> Option<UnixMillis> {
        let all = [
            self.inbox.next_deadline(),
            self.outbox.next_deadline(),
            self.calls.next_deadline(self.stepped_at),
            self.session.next_deadline(),
            self.session.takes_in_until(),
            self.next_work_at(),
            self.next_tick_at(),
            self.renewal_at(),
            self.refresh_at(),
            self.spent_until(),
        ];
        // What is due already waits for something else than time.
        all.into_iter().flatten().filter(|at| *at > self.stepped_at && at.0 < u64::MAX).min()
    }

    /// An edge believes a number of key packages for seconds, which may be of before the last publication.
    fn notice(&mut self, notice: &edge::Notice, now: UnixMillis) {
        let now = self.session.server_time(now);
        let fresh = self.published.is_some_and(|at| at <= now && now.since(at) < PUBLISHED_BELIEVED);
        if let (false, Some(edge::notice::Notice::KeyPackagesLow(low))) = (fresh, &notice.notice) {
            self.make_packages(low.left);
        }
    }

    fn send(&mut self, frame: client_frame::Frame) {
        self.out.frames.push(edge::ClientFrame { frame: Some(frame) });
    }

    /// Ends a step: moves everything on, and answers what is to be done.
    fn finish(&mut self, now: UnixMillis) -> Effects {
        self.stepped_at = now;
        self.keep_alive(now);
        let shown = self.inbox.tick(now);
        self.show(shown);
        // A commit taken in may let an envelope through, which may ask for something again.
        self.drain_inbound(now);
        self.reconcile(now);
        self.drain_inbound(now);
        self.forget_parted();
        self.forget_spent(now);
        self.tell_ticks(now);
        self.move_orphans();
        self.poll_outbox(now);
        // A message that waits may have found its conversation behind.
        self.reconcile(now);
        if self.session.is_ready()
            && let Some(position) = self.inbox.take_ack()
        {
            self.send(client_frame::Frame::Ack(edge::Ack { position: position.get() }));
        }
        self.collect_changes();
        std::mem::take(&mut self.out)
    }
}
