// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a driver says to the core and hears from it.

use std::time::Duration;

use pli_api::{common, edge};
use pli_domain::{AccountId, ConversationId, DeviceId, Handle, SendId};

use super::events::Event;
use super::tables::ChangeSet;

/// What a user wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Talk to one person. Answers the conversation at once: the one that exists (of several the one that both sides
    /// choose), or a new one that becomes ready
    /// ([`Event::ConversationReady`]) or fails ([`Event::ConversationFailed`]). Messages may be sent into it at once.
    StartConversation {
        /// Who.
        handle: Handle,
    },
    /// Make a group. Answers its conversation at once, as above.
    CreateGroup {
        /// 1 to 128 visible bytes ([`crate::content::group_name`]), unlike that of every group here.
        name: String,
        /// Who, besides oneself.
        handles: Vec<Handle>,
    },
    /// Say something. Answers the message and the conversation that carries it: another one of the same chat where
    /// that goes on; it waits in the outbox until the conversation is ready and the server there.
    SendText {
        /// Where.
        conversation: ConversationId,
        /// What; at most [`super::TEXT_BYTES_MAX`] bytes.
        text: String,
    },
    /// Add people to a group.
    AddMembers {
        /// Where.
        conversation: ConversationId,
        /// Who.
        handles: Vec<Handle>,
    },
    /// Remove people from a group.
    RemoveMembers {
        /// Where.
        conversation: ConversationId,
        /// Who.
        accounts: Vec<AccountId>,
    },
    /// Leave a group. Somebody who stays completes it ([`Event::Left`]).
    Leave {
        /// Where.
        conversation: ConversationId,
    },
    /// Name another device of this account in its device list, and bring it into every conversation. Only the device with
    /// the identity key can.
    AddDevice {
        /// Drawn at random by it ([`super::Core::address`]).
        device: DeviceId,
        /// Its public key ([`super::Core::device_key`]).
        key: [u8; 32],
        /// What its owner calls it: at most [`pli_domain::limits::DEVICE_NAME_BYTES_MAX`] bytes without control characters.
        name: String,
    },
    /// Leave another device of this account out of its device list, and remove it from every conversation. Only the device
    /// with the identity key can.
    RemoveDevice {
        /// Which.
        device: DeviceId,
    },
    /// Call a device of this account otherwise. Only the device with the identity key can.
    RenameDevice {
        /// Which.
        device: DeviceId,
        /// As in [`Command::AddDevice`], and not empty.
        name: String,
    },
    /// Everything shown in the conversation so far was read. Where it is over nobody is told.
    MarkRead {
        /// Where.
        conversation: ConversationId,
    },
}

/// Why a command was not taken. Nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// No such conversation here.
    #[error("there is no such conversation")]
    UnknownConversation,
    /// The user left it or was removed.
    #[error("you are no longer in this conversation")]
    NotAMember,
    /// The user has asked to leave it, and changes nothing there any more.
    #[error(
        "you have asked to leave this group, and are out as soon as another member is online; somebody else has to change it"
    )]
    Leaving,
    /// Members are added to and removed from groups only.
    #[error("a conversation of two cannot change its members; make a group")]
    NotAGroup,
    /// The text is too long for one message.
    #[error("the text has {0} bytes; at most {max} fit in a message", max = super::TEXT_BYTES_MAX)]
    TextTooLong(usize),
    /// Nothing to say.
    #[error("the text is empty")]
    TextEmpty,
    /// The group's name cannot be used.
    #[error(transparent)]
    GroupName(#[from] crate::content::InvalidGroupName),
    /// Another group here has the name.
    #[error("there is a group `{0}` already; choose another name, or write to that one with #{0}")]
    GroupNameTaken(String),
    /// Too many or too few people.
    #[error("a group has 1 to {max} other members", max = super::GROUP_OTHERS_MAX)]
    GroupSize,
    /// Talking to oneself.
    #[error("that is your own handle")]
    Oneself,
    /// The account is not in the conversation.
    #[error("that account is not in the conversation")]
    NotThere,
    /// Another device of the account has the identity key.
    #[error("only the account's first device adds and removes devices; do it there")]
    NotTheFirst,
    /// The account's own list is not known yet.
    #[error("the account's device list is not known yet; try again when the server was reached")]
    NoListYet,
    /// The list is full.
    #[error("an account has at most {max} devices; remove one first", max = pli_domain::limits::DEVICES_PER_ACCOUNT_MAX)]
    TooManyDevices,
    /// Its id or key is listed already.
    #[error("that device is in the list already; a new device draws a new id and new keys")]
    DeviceListed,
    /// No such device.
    #[error("the account has no such device")]
    NoSuchDevice,
    /// The one with the identity key.
    #[error("the device that signs the list cannot be left out of it")]
    FirstDevice,
    /// The name cannot be signed.
    #[error("a device name has at most {max} bytes, at least one, and no control characters or others that are not seen", max = pli_domain::limits::DEVICE_NAME_BYTES_MAX)]
    DeviceName,
    /// The outbox is full; this says why it waits.
    #[error(transparent)]
    OutboxFull(#[from] crate::outbox::OutboxFull),
    /// Too many things under way.
    #[error("{0} changes wait for the server already; try again when they are done")]
    Busy(usize),
}

/// What one step asks the driver to do, in this order: commit `changes` in one durable transaction, then send `frames`,
/// then follow `session`, then show `events`. Ciphertext and acknowledgements must not leave before the commit.
#[derive(Debug, Default)]
#[must_use = "a step that is not carried out loses messages"]
pub struct Effects {
    /// One transaction.
    pub changes: ChangeSet,
    /// To be sent on the current connection, in order; dropped when there is none.
    pub frames: Vec<edge::ClientFrame>,
    /// What to do with the connection.
    pub session: SessionAdvice,
    /// What to show.
    pub events: Vec<Event>,
    /// What a command made.
    pub outcome: Outcome,
}

/// What a command made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The conversation that was found or begun.
    pub conversation: Option<ConversationId>,
    /// The message that went into the outbox.
    pub message: Option<OutgoingMessage>,
}

/// A message of one's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutgoingMessage {
    /// Its name.
    pub send_id: SendId,
    /// Its number among this device's messages in the conversation; ticks are watermarks over it.
    pub lane_no: u64,
    /// Its place in the history: the row `conversation ‖ order`.
    pub order: u64,
}

/// What to do with the connection.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum SessionAdvice {
    /// Go on.
    #[default]
    Keep,
    /// Close it, if it is open, and open a new one after this time (full jitter is in it).
    Reconnect {
        /// How long to wait.
        after: Duration,
        /// What of that the server asked for; the rest may be cut short when the user acts.
        at_least: Duration,
    },
    /// Close it and do not connect until the user acts.
    Stop {
        /// Why.
        why: common::Error,
    },
}

/// How the connection stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ConnectionState {
    /// No session.
    #[default]
    Offline,
    /// Registering on an anonymous session.
    Registering,
    /// A session that has not delivered everything that waited.
    CatchingUp,
    /// A session, and nothing waits.
    Online,
}
