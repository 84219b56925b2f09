// SPDX-License-Identifier: MIT OR Apache-2.0
//! The client as one state machine.
//!
//! A driver owns a connection, a clock and a store. It gives the core what happened ([`Core::frame`],
//! [`Core::command`], [`Core::tick`], [`Core::disconnected`]) and carries out the [`Effects`] of each step: commit the
//! changes in one transaction, then send the frames, then show the events. A core that is dropped at any moment and
//! loaded from what was committed goes on where it stood.
//!
//! A connection begins with the edge's `ServerHello`, which goes to [`Core::handshake`]; every later frame goes to
//! [`Core::frame`].

mod tables;
mod types;

use pli_api::edge;
use pli_domain::{ConversationId, DeviceAddress, Handle, UnixMillis};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::content::Kind;
use crate::identity::{Identity, IdentityError};
pub use tables::{Change, ChangeSet, MessageRow, RowKind, RowStatus, Table};
pub use types::{
    Command, CommandError, ConnectionState, Effects, Event, IncomingMessage, Member, NewKey, Outcome, OutgoingMessage,
    SessionAdvice,
};

/// Longest text of one message; what is longer is an attachment.
pub const TEXT_BYTES_MAX: usize = 32 * 1024;
/// Most members of a group besides its creator.
pub const GROUP_OTHERS_MAX: usize = pli_domain::limits::MEMBERS_MAX - 1;
/// The session protocol that this client speaks.
pub const PROTOCOL_VERSION: u32 = 1;

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

/// A conversation, for display.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationView {
    /// Its id.
    pub id: ConversationId,
    /// Two people or a group.
    pub kind: Kind,
    /// Of a group, where it is known.
    pub name: Option<String>,
    /// Everybody, oneself included; empty until it is ready.
    pub members: Vec<Member>,
    /// Messages can be sent now.
    pub ready: bool,
    /// The user left it or was removed.
    pub left: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Core {
    identity: Identity,
    state: ConnectionState,
    #[expect(dead_code, reason = "drawn from by every flow")]
    rng: ChaCha20Rng,
}

impl Core {
    /// A new account with its first device; it registers on its first connection. `seed` must come from the system's
    /// random source and be used once.
    pub fn create(handle: Handle, seed: [u8; 32], now: UnixMillis) -> (Self, ChangeSet) {
        let _ = now;
        let mut rng = ChaCha20Rng::from_seed(seed);
        let identity = Identity::create(handle, &mut rng);
        let mut changes = ChangeSet::default();
        changes.put(Table::Identity, Vec::new(), identity.encode());
        (Self { identity, state: ConnectionState::Offline, rng }, changes)
    }

    /// The core that the committed rows describe; [`Table::Messages`] may be left out. `seed` must be fresh.
    pub fn load(
        seed: [u8; 32],
        rows: impl IntoIterator<Item = (Table, Vec<u8>, Vec<u8>)>,
        now: UnixMillis,
    ) -> Result<Self, LoadError> {
        let _ = now;
        let mut identity = None;
        for (table, _, value) in rows {
            if table == Table::Identity {
                identity = Some(Identity::decode(&value)?);
            }
        }
        let identity = identity.ok_or(LoadError::NoIdentity)?;
        Ok(Self { identity, state: ConnectionState::Offline, rng: ChaCha20Rng::from_seed(seed) })
    }

    /// Answers the edge's first frame. `host` is what the user connected to, with the port where it is not 443;
    /// `binding` the channel binding of that kind. An account that is not registered yet answers anonymously.
    pub fn handshake(
        &mut self,
        hello: &edge::ServerHello,
        host: &str,
        binding: (edge::Binding, &[u8]),
        now: UnixMillis,
    ) -> Result<edge::ClientFrame, HandshakeError> {
        let _ = (hello, host, binding, now);
        Err(HandshakeError::Version)
    }

    /// Takes a frame of the edge, other than `ServerHello`.
    pub fn frame(&mut self, frame: edge::ServerFrame, now: UnixMillis) -> Effects {
        let _ = (frame, now);
        Effects::default()
    }

    /// The connection is gone, or could not be made. The advice says when to try again.
    pub fn disconnected(&mut self, now: UnixMillis) -> Effects {
        let _ = now;
        Effects::default()
    }

    /// Takes a command of the user.
    pub fn command(&mut self, command: Command, now: UnixMillis) -> Result<Effects, CommandError> {
        let _ = (command, now);
        Err(CommandError::Busy(0))
    }

    /// Time has passed: call it at [`Core::next_deadline`].
    pub fn tick(&mut self, now: UnixMillis) -> Effects {
        let _ = now;
        Effects::default()
    }

    /// When to call [`Core::tick`] if nothing else happens.
    pub fn next_deadline(&self) -> Option<UnixMillis> {
        None
    }

    /// This device.
    pub fn address(&self) -> DeviceAddress {
        self.identity.address()
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
        self.state
    }
    /// Messages that are not `stored` yet, and of these the ones that no log has yet.
    pub fn waiting(&self) -> (usize, usize) {
        (0, 0)
    }
    /// Every conversation.
    pub fn conversations(&self) -> Vec<ConversationView> {
        Vec::new()
    }
    /// One conversation.
    pub fn conversation(&self, id: ConversationId) -> Option<ConversationView> {
        let _ = id;
        None
    }
    /// The handles that are known, for completion.
    pub fn known_handles(&self) -> Vec<Handle> {
        Vec::new()
    }
    /// 60 digits to compare with the person of this handle; none before the first contact.
    pub fn safety_number(&self, handle: &Handle) -> Option<String> {
        let _ = handle;
        None
    }
}
