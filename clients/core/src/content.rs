// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is said, as the IETF MIMI content format (draft-ietf-mimi-content-08): deterministic CBOR (RFC 8949 section
//! 4.2.1), so that equal contents have equal bytes and one message id.
//!
//! Inside Pli two media types of our own travel in it: ticks ([`Ticks`]) and what a group is called ([`GroupInfo`]). The
//! name of a group is a message because everything in the MLS group context is visible to the server.

mod codec;
mod control;
mod frame;
mod id;
mod name;

pub use codec::ContentError;
pub use control::{GROUP_OUTCASTS_MAX, GroupInfo, LOST_RANGES_MAX, Tick, Ticks};
pub use frame::{ADDRESSED_MAX, Addressed, Frame, FrameError, Kind, LIVES_TOLD_MAX, LifeSpan};
pub use id::{MessageId, message_id};
pub use name::{GROUP_NAME_BYTES_MAX, InvalidGroupName, SHORT_ID_MARK, group_name};

/// Media type of a text that a person typed.
pub const TEXT: &str = "text/plain;charset=utf-8";
/// Media type of [`Ticks`].
pub const TICKS: &str = "application/vnd.pli.ticks+cbor";
/// Media type of [`GroupInfo`].
pub const GROUP: &str = "application/vnd.pli.group+cbor";

/// Deepest nesting of parts that is read.
pub const PART_DEPTH_MAX: usize = 8;
/// Most parts of one multipart that are read.
pub const PARTS_MAX: usize = 64;

/// One message (`mimiContent` of the draft's CDDL).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Random; makes the message id unguessable.
    pub salt: [u8; 16],
    /// The message that this one edits, deletes or un-reacts.
    pub replaces: Option<MessageId>,
    /// A thread; empty for none.
    pub topic_id: Vec<u8>,
    /// When it disappears.
    pub expires: Option<Expiration>,
    /// The message that it answers or reacts to.
    pub in_reply_to: Option<MessageId>,
    /// By key, in deterministic order.
    pub extensions: Vec<(ExtensionKey, Extension)>,
    /// The body.
    pub part: Part,
}

/// Life of a disappearing message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiration {
    /// Whether `time` counts from reading it; else it is a time.
    pub relative: bool,
    /// Seconds, or seconds since 1970.
    pub time: u32,
}

/// Key of an extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExtensionKey {
    /// A registered number: 1 sender URI, 2 room URI.
    Number(i64),
    /// A name of 1 to 255 bytes.
    Name(String),
}

/// Value of an extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extension {
    /// Text, as the known ones are.
    Text(String),
    /// Anything else, as encoded CBOR.
    Encoded(Vec<u8>),
}

/// What a part is for. Values above 8 are kept and shown as [`Disposition::RENDER`] would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disposition(pub u8);

impl Disposition {
    /// Not said.
    pub const UNSPECIFIED: Self = Self(0);
    /// To be shown.
    pub const RENDER: Self = Self(1);
    /// A reaction to another message.
    pub const REACTION: Self = Self(2);
    /// A profile.
    pub const PROFILE: Self = Self(3);
    /// Shown where another part names it.
    pub const INLINE: Self = Self(4);
    /// An icon.
    pub const ICON: Self = Self(5);
    /// A file.
    pub const ATTACHMENT: Self = Self(6);
    /// An invitation to a call.
    pub const SESSION: Self = Self(7);
    /// A preview.
    pub const PREVIEW: Self = Self(8);
}

/// One part (`NestedPart`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// What it is for.
    pub disposition: Disposition,
    /// Language tag; empty for none.
    pub language: String,
    /// What it holds.
    pub body: PartBody,
}

/// What a part holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartBody {
    /// Nothing: a deletion.
    Null,
    /// Bytes of a media type.
    Single {
        /// Media type.
        content_type: String,
        /// The bytes.
        content: Vec<u8>,
    },
    /// Something kept elsewhere.
    External(Box<External>),
    /// Several parts.
    Multi {
        /// How they belong together.
        semantics: Semantics,
        /// Two or more.
        parts: Vec<Part>,
    },
}

/// Something kept elsewhere (`ExternalPart`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct External {
    /// Media type.
    pub content_type: String,
    /// Where it is.
    pub url: String,
    /// Seconds since 1970; 0 for never.
    pub expires: u32,
    /// Bytes.
    pub size: u64,
    /// AEAD (RFC 5116 registry); 0 for none.
    pub enc_alg: u16,
    /// AEAD key.
    pub key: Vec<u8>,
    /// AEAD nonce.
    pub nonce: Vec<u8>,
    /// AEAD associated data.
    pub aad: Vec<u8>,
    /// Hash (named information registry); 0 for none.
    pub hash_alg: u8,
    /// Hash of the content.
    pub content_hash: Vec<u8>,
    /// For people.
    pub description: String,
    /// Suggested file name.
    pub filename: String,
}

/// How the parts of a multipart belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Semantics {
    /// Show the best that can be shown.
    ChooseOne,
    /// Show all as one.
    SingleUnit,
    /// Work through all.
    ProcessAll,
}

impl Content {
    /// A message with one part.
    pub fn single(salt: [u8; 16], disposition: Disposition, content_type: &str, content: Vec<u8>) -> Self {
        let body = PartBody::Single { content_type: content_type.into(), content };
        Self {
            salt,
            replaces: None,
            topic_id: Vec::new(),
            expires: None,
            in_reply_to: None,
            extensions: Vec::new(),
            part: Part { disposition, language: String::new(), body },
        }
    }

    /// A text that a person typed.
    pub fn text(salt: [u8; 16], text: &str) -> Self {
        Self::single(salt, Disposition::RENDER, TEXT, text.as_bytes().to_vec())
    }

    /// The text to show, if this is a text (plain or Markdown).
    pub fn as_text(&self) -> Option<&str> {
        match &self.part.body {
            PartBody::Single { content_type, content } if content_type.starts_with("text/") => {
                std::str::from_utf8(content).ok()
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
