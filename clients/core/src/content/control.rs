// SPDX-License-Identifier: MIT OR Apache-2.0
//! Media types of our own: ticks and the name of a group.

use minicbor::{Decoder, Encoder};
use pli_domain::{ConversationId, DeviceId};

use super::{Content, ContentError, Disposition, GROUP, GROUP_NAME_BYTES_MAX, PartBody, TICKS};

/// Most watermarks in one message.
pub const TICKS_MAX: usize = 1_024;

/// How far the sender of this tick has come with the messages of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    /// The device whose messages are meant.
    pub sender: DeviceId,
    /// Everything that reached this device up to this lane number is committed there.
    pub delivered: u64,
    /// Up to this lane number it was read; at most `delivered`.
    pub read: u64,
}

/// Delivery and read ticks of one conversation as watermarks: they only rise, so that a lost one is repaired by the
/// next. CBOR: an array of [device, delivered, read].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ticks(pub Vec<Tick>);

impl Ticks {
    /// As a content.
    pub fn content(&self, salt: [u8; 16]) -> Content {
        let mut out = Vec::new();
        let mut e = Encoder::new(&mut out);
        let ticks = &self.0[..self.0.len().min(TICKS_MAX)];
        // Writing to a vector cannot fail.
        let _ = e.array(ticks.len() as u64);
        for tick in ticks {
            let _ = e
                .array(3)
                .and_then(|e| e.bytes(tick.sender.as_bytes()))
                .and_then(|e| e.u64(tick.delivered))
                .and_then(|e| e.u64(tick.read));
        }
        Content::single(salt, Disposition::UNSPECIFIED, TICKS, out)
    }

    /// The ticks in a content; none if it is something else.
    pub fn of(content: &Content) -> Option<Result<Self, ContentError>> {
        body_of(content, TICKS).map(Self::decode)
    }

    fn decode(bytes: &[u8]) -> Result<Self, ContentError> {
        let mut d = Decoder::new(bytes);
        let count = d.array()?.filter(|&n| n <= TICKS_MAX as u64).ok_or(ContentError::Format("too many ticks"))?;
        let mut ticks = Vec::new();
        for _ in 0..count {
            if d.array()? != Some(3) {
                return Err(ContentError::Format("a tick has three fields"));
            }
            let sender = DeviceId::try_from(d.bytes()?).map_err(|_| ContentError::Format("a device has 16 bytes"))?;
            ticks.push(Tick { sender, delivered: d.u64()?, read: d.u64()? });
        }
        Ok(Self(ticks))
    }
}

/// What a group is called. Sent by its creator first of all and again, by whoever adds members, to everybody. CBOR: an
/// array of [name], or [name, root].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupInfo {
    /// At most 128 bytes.
    pub name: String,
    /// The first of the conversations that this one goes on for, where it does since a server was restored from a backup.
    pub root: Option<ConversationId>,
}

impl GroupInfo {
    /// As a content.
    pub fn content(&self, salt: [u8; 16]) -> Content {
        let mut out = Vec::new();
        let mut e = Encoder::new(&mut out);
        // Writing to a vector cannot fail.
        let _ = e.array(1 + u64::from(self.root.is_some())).and_then(|e| e.str(&self.name));
        if let Some(root) = &self.root {
            let _ = e.bytes(root.as_bytes());
        }
        Content::single(salt, Disposition::UNSPECIFIED, GROUP, out)
    }

    /// The group info in a content; none if it is something else.
    pub fn of(content: &Content) -> Option<Result<Self, ContentError>> {
        body_of(content, GROUP).map(Self::decode)
    }

    fn decode(bytes: &[u8]) -> Result<Self, ContentError> {
        let mut d = Decoder::new(bytes);
        let fields = d.array()?.filter(|fields| (1..=2).contains(fields));
        let fields = fields.ok_or(ContentError::Format("group info has one field or two"))?;
        let name = d.str()?;
        if name.len() > GROUP_NAME_BYTES_MAX {
            return Err(ContentError::Format("a group name is longer than GROUP_NAME_BYTES_MAX"));
        }
        let root = (fields == 2).then(|| d.bytes()).transpose()?;
        let root = root.map(ConversationId::try_from).transpose();
        let root = root.map_err(|_| ContentError::Format("a conversation has 16 bytes"))?;
        Ok(Self { name: name.into(), root })
    }
}

fn body_of<'a>(content: &'a Content, media_type: &str) -> Option<&'a [u8]> {
    match &content.part.body {
        PartBody::Single { content_type, content } if content_type == media_type => Some(content),
        _ => None,
    }
}
