// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the core shows of itself, and of whom it speaks.

use std::fmt;

use pli_api::common;
use pli_domain::{AccountId, ConversationId, DeviceId, Handle, SendId, UnixMillis};

use super::types::{ConnectionState, OutgoingMessage};
use super::views::SHORT_ID_DIGITS_MIN;
use crate::content::{Kind, SHORT_ID_MARK};

/// One person, by one device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// The account.
    pub account: AccountId,
    /// Its handle, where it is known.
    pub handle: Option<Handle>,
    /// The handle that it had until the directory gave it to another account, which is told with [`NewKey::Identity`].
    pub former: Option<Handle>,
}

impl Member {
    /// What it is called here: its handle, `FORMER~SHORTID` where another account has that now, or its id.
    pub fn name(&self) -> String {
        let id = self.account.to_string();
        match (&self.handle, &self.former) {
            (Some(handle), _) => handle.to_string(),
            (None, Some(former)) => format!("{former}{SHORT_ID_MARK}{}", &id[..SHORT_ID_DIGITS_MIN]),
            (None, None) => id,
        }
    }
}

/// [`Member::name`].
impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// Something to show. What an event says is committed before it is shown.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The server knows the handle now; the driver connects again.
    Registered {
        /// As stored.
        handle: Handle,
    },
    /// The server refuses the handle; connecting again with this profile makes no sense unless it is temporary.
    RegistrationRefused {
        /// Why.
        why: common::Error,
    },
    /// The connection changed.
    Connection(ConnectionState),
    /// Messages can be sent and received; again when members or name are known better.
    ConversationReady {
        /// Which.
        conversation: ConversationId,
        /// Two people or a group.
        kind: Kind,
        /// Of a group, where it is known.
        name: Option<String>,
        /// Everybody, oneself included.
        members: Vec<Member>,
        /// Who let this account into it, where that is somebody else and news.
        added_by: Option<Member>,
    },
    /// It could not be made; its messages are refused.
    ConversationFailed {
        /// Which.
        conversation: ConversationId,
        /// Why.
        why: common::Error,
    },
    /// A change of members could not be made.
    ChangeFailed {
        /// Where.
        conversation: ConversationId,
        /// Why.
        why: common::Error,
    },
    /// Somebody wrote.
    Message(IncomingMessage),
    /// Another device of this account wrote.
    OwnMessage(IncomingMessage),
    /// The account's device list was changed by this device.
    DeviceAdded {
        /// Which is in it now.
        device: DeviceId,
    },
    /// The account's device list was changed by this device.
    DeviceRemoved {
        /// Which is not in it any more.
        device: DeviceId,
    },
    /// The account's device list was changed by this device.
    DeviceRenamed {
        /// Which is called otherwise now.
        device: DeviceId,
    },
    /// A change of the account's devices was refused.
    DeviceChangeFailed {
        /// Which was to be added or removed.
        device: DeviceId,
        /// Why.
        why: common::Error,
    },
    /// The server does not know this companion device: it lost the list that names it, which the account's first device puts
    /// again, or the device was never listed. It is tried on; told once until it is known.
    DeviceUnknown,
    /// The server gave a device list that is not taken: what was known before stays. Told once for each account and reason.
    ListRefused {
        /// Whose.
        member: Member,
        /// What is wrong with it.
        why: RefusedList,
        /// Its place in the history.
        order: u64,
    },
    /// Messages that did not arrive in time; what arrives later is shown as late.
    Hole {
        /// Where.
        conversation: ConversationId,
        /// Whose.
        from: Member,
        /// Of which device.
        device: DeviceId,
        /// First and last missing number of its lane.
        lane_nos: (u64, u64),
        /// Its place in the history.
        order: u64,
    },
    /// A durable log has the message (one tick).
    Accepted {
        /// Where.
        conversation: ConversationId,
        /// Which.
        message: SendId,
        /// Server time.
        at: UnixMillis,
    },
    /// The servers can no longer lose it; shown to nobody, but `--wait stored` waits for it.
    Stored {
        /// Where.
        conversation: ConversationId,
        /// Which.
        message: SendId,
    },
    /// `accepted` no longer holds, or somebody cannot have it as it was sent; it is sent again.
    Resending {
        /// Where.
        conversation: ConversationId,
        /// Which.
        message: SendId,
    },
    /// A device has shown this device's messages from the first to the last of these lane numbers, but for those that
    /// [`Event::Lost`] named.
    Delivered {
        /// Where.
        conversation: ConversationId,
        /// Who.
        by: Member,
        /// On which device.
        device: DeviceId,
        /// The lowest lane number that was for that device: those below were sent while it was out.
        from: u64,
        /// Lane number; not below `from`.
        up_to: u64,
    },
    /// Messages of this device will not be shown to somebody: they did not arrive, what follows them was shown, and they are
    /// not kept any more. The watermarks pass them. What is kept is sent again instead ([`Event::Resending`]).
    Lost {
        /// Where.
        conversation: ConversationId,
        /// To whom.
        by: Member,
        /// On which device.
        device: DeviceId,
        /// First and last.
        lane_nos: (u64, u64),
        /// Those of them whose names are still known: of the last 1,024 since the program started, and what was kept.
        messages: Vec<SendId>,
        /// Its place in the history.
        order: u64,
    },
    /// Somebody read this device's messages from the first to the last of these lane numbers.
    Read {
        /// Where.
        conversation: ConversationId,
        /// Who.
        by: Member,
        /// On which device.
        device: DeviceId,
        /// The lowest lane number that was for that device: those below were sent while it was out.
        from: u64,
        /// Lane number; not below `from`.
        up_to: u64,
    },
    /// A conversation is part of a chat that others carry too: two people wrote first at once, or one of several is
    /// over. Every part is still read; naming any of them means the chat.
    SameChat {
        /// The part.
        conversation: ConversationId,
        /// Where new messages go now.
        into: ConversationId,
    },
    /// A message of a conversation that is over waits in another one of the same chat, or one is sent again under another
    /// number.
    Moved {
        /// Where it was.
        conversation: ConversationId,
        /// Where it is.
        into: ConversationId,
        /// It, with its new number.
        message: OutgoingMessage,
    },
    /// A message will never be sent.
    Refused {
        /// Where.
        conversation: ConversationId,
        /// Which.
        message: SendId,
        /// Why.
        why: common::Error,
    },
    /// A device is in its account's list and has published no key packages: the conversation goes on without it until it
    /// has. For the log.
    DeviceAwaited {
        /// Where.
        conversation: ConversationId,
        /// Whose.
        member: Member,
        /// Which.
        device: DeviceId,
    },
    /// Sending waits, and why.
    Waiting {
        /// Where.
        conversation: ConversationId,
        /// Why.
        why: common::Error,
    },
    /// Somebody came.
    MemberAdded {
        /// Where.
        conversation: ConversationId,
        /// Who.
        member: Member,
        /// By whom.
        by: Member,
    },
    /// Somebody was removed or left.
    MemberRemoved {
        /// Where.
        conversation: ConversationId,
        /// Who.
        member: Member,
        /// By whom; none where somebody left.
        by: Option<Member>,
    },
    /// Somebody with whom this account has no chat added it to a group; [`Command::Leave`] goes.
    AddedByStranger {
        /// Which.
        conversation: ConversationId,
        /// What it is called, where that is known.
        name: Option<String>,
        /// By whom.
        by: Member,
        /// Its place in the history.
        order: u64,
    },
    /// This account is no longer in the conversation.
    Left {
        /// Which.
        conversation: ConversationId,
        /// Who removed it, where that is known and it had not asked to leave.
        by: Option<Member>,
    },
    /// A key to look at: of an identity, compare safety numbers; they stay as they are where a device is new.
    NewKey {
        /// Whose.
        member: Member,
        /// What is new.
        what: NewKey,
        /// Its place in the history.
        order: u64,
    },
    /// Messages came that cannot be opened, told once until one of that device can be: they are damaged, their keys are gone,
    /// or were used before by another copy of the sender's device. Nothing of them is shown. What of it is not sent again
    /// is told as a hole when the sender is heard next.
    Unreadable {
        /// Where.
        conversation: ConversationId,
        /// Whose, as the server says.
        from: Member,
        /// On which device.
        device: DeviceId,
    },
    /// This profile is older than what was sent or acknowledged from it: it was restored, or copied and used in two places.
    /// It joins its conversations again, and what came meanwhile is not here.
    OlderProfile,
    /// The server's data was restored from a backup: what it stored after that is gone. What it did not is sent again, and
    /// conversations go on.
    ServerRestored,
    /// Messages that waited for this device are gone. It catches up with its conversations, or joins them again, which the
    /// others answer: what is missing of each is then told as a hole ([`Event::Hole`]), and what they kept comes again.
    Gap,
    /// This device lost the thread of a conversation and joins again; what was sent meanwhile may be missing.
    Rejoining {
        /// Which.
        conversation: ConversationId,
        /// Why, for a log.
        why: String,
    },
}

impl Event {
    /// Its place in the history, if it has one: what has is told once, and can be read again
    /// ([`super::Table::Messages`], [`super::Core::notices`]).
    pub const fn order(&self) -> Option<u64> {
        match self {
            Self::Message(message) | Self::OwnMessage(message) => Some(message.order),
            Self::Hole { order, .. }
            | Self::Lost { order, .. }
            | Self::AddedByStranger { order, .. }
            | Self::ListRefused { order, .. }
            | Self::NewKey { order, .. } => Some(*order),
            _ => None,
        }
    }
}

/// What is new about somebody's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewKey {
    /// The first contact with this person.
    FirstContact,
    /// Another device than before.
    Device(DeviceId),
    /// The identity key is another one than before, of the account or, where another account has the handle now, of the
    /// handle: the account was made anew or somebody stands in between.
    Identity,
}

/// Why a device list was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedList {
    /// It is older than one that was seen before: the server was restored, or hides a removal.
    Older,
    /// It was made from another list than the one that was seen before: two people are shown two lists.
    Forked,
    /// The server does not give what lies between it and the one that was seen before.
    Unlinked,
    /// It is not signed by the account's identity key, or contradicts itself.
    Invalid,
}

/// A message of somebody else, or of another device of this account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncomingMessage {
    /// Where.
    pub conversation: ConversationId,
    /// Who.
    pub from: Member,
    /// On which device.
    pub device: DeviceId,
    /// Its name: (device, send id).
    pub send_id: SendId,
    /// Its number in the device's lane.
    pub lane_no: u64,
    /// What.
    pub text: String,
    /// When it was written, as the sender says.
    pub sent_at: UnixMillis,
    /// When the server took it.
    pub accepted_at: UnixMillis,
    /// It arrived after what follows it was shown.
    pub late: bool,
    /// Its place in the history.
    pub order: u64,
}
