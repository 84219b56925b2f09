// SPDX-License-Identifier: MIT OR Apache-2.0
//! Media types of our own: ticks and the name of a group.

use minicbor::{Decoder, Encoder};
use pli_domain::{AccountId, ConversationId, DeviceId};

use super::{Content, ContentError, Disposition, GROUP, GROUP_NAME_BYTES_MAX, PartBody, TICKS};

/// Most watermarks in one message.
pub const TICKS_MAX: usize = 1_024;
/// Most people who are named as removed where a group is told what it is called.
pub const GROUP_OUTCASTS_MAX: usize = 64;
/// Most ranges of lost messages of one device in one message; the lowest are left out.
pub const LOST_RANGES_MAX: usize = 64;

/// How far the sender of this tick has come with the messages of one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tick {
    /// The device whose messages are meant.
    pub sender: DeviceId,
    /// Everything up to this lane number was shown there, but for what is lost.
    pub delivered: u64,
    /// Up to this lane number it was read; at most `delivered`.
    pub read: u64,
    /// Lane numbers at or below `delivered` that were never shown there, first and last of each range, rising; at most
    /// [`LOST_RANGES_MAX`]. Empty from clients that do not tell.
    pub lost: Vec<(u64, u64)>,
    /// The life ([`super::LifeSpan::id`]) in which the number `delivered` was given; 0 where it was not told.
    pub life: u64,
}

/// Delivery and read ticks of one conversation as watermarks: they only rise, so that a lost one is repaired by the
/// next. CBOR: an array of [device, delivered, read]; behind it, where something is lost, an array of
/// [device, [first, last, first, last, …]], and behind that, where lives are known, an array of [device, life]; earlier
/// versions do not look at what they do not know.
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
        encode_lost(&mut e, ticks);
        encode_lives(&mut e, ticks);
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
            ticks.push(Tick { sender, delivered: d.u64()?, read: d.u64()?, lost: Vec::new(), life: 0 });
        }
        decode_lost(&mut d, bytes.len(), &mut ticks)?;
        decode_lives(&mut d, bytes.len(), &mut ticks)?;
        Ok(Self(ticks))
    }
}

fn encode_lost(e: &mut Encoder<&mut Vec<u8>>, ticks: &[Tick]) {
    let with: Vec<&Tick> = ticks.iter().filter(|tick| !tick.lost.is_empty()).collect();
    if with.is_empty() && ticks.iter().all(|tick| tick.life == 0) {
        return;
    }
    // Writing to a vector cannot fail.
    let _ = e.array(with.len() as u64);
    for tick in with {
        let lost = &tick.lost[tick.lost.len().saturating_sub(LOST_RANGES_MAX)..];
        let _ = e.array(2).and_then(|e| e.bytes(tick.sender.as_bytes()));
        let _ = e.array(lost.len() as u64 * 2);
        for (first, last) in lost {
            let _ = e.u64(*first).and_then(|e| e.u64(*last));
        }
    }
}

fn decode_lost(d: &mut Decoder<'_>, length: usize, ticks: &mut [Tick]) -> Result<(), ContentError> {
    if d.position() == length {
        return Ok(());
    }
    let count = d.array()?.filter(|&n| n <= TICKS_MAX as u64).ok_or(ContentError::Format("too many losses"))?;
    for _ in 0..count {
        if d.array()? != Some(2) {
            return Err(ContentError::Format("a loss has two fields"));
        }
        let sender = DeviceId::try_from(d.bytes()?).map_err(|_| ContentError::Format("a device has 16 bytes"))?;
        let numbers = d.array()?.filter(|&n| n % 2 == 0 && n <= LOST_RANGES_MAX as u64 * 2);
        let numbers = numbers.ok_or(ContentError::Format("a loss has at most 64 ranges"))?;
        let mut lost: Vec<(u64, u64)> = Vec::new();
        for _ in 0..numbers / 2 {
            let range = (d.u64()?, d.u64()?);
            if range.0 > range.1 || lost.last().is_some_and(|before| before.1 >= range.0) {
                return Err(ContentError::Format("lost ranges rise"));
            }
            lost.push(range);
        }
        if let Some(tick) = ticks.iter_mut().find(|tick| tick.sender == sender) {
            tick.lost = lost;
        }
    }
    Ok(())
}

fn encode_lives(e: &mut Encoder<&mut Vec<u8>>, ticks: &[Tick]) {
    let with: Vec<&Tick> = ticks.iter().filter(|tick| tick.life != 0).collect();
    if with.is_empty() {
        return;
    }
    // Writing to a vector cannot fail.
    let _ = e.array(with.len() as u64);
    for tick in with {
        let _ = e.array(2).and_then(|e| e.bytes(tick.sender.as_bytes())).and_then(|e| e.u64(tick.life));
    }
}

fn decode_lives(d: &mut Decoder<'_>, length: usize, ticks: &mut [Tick]) -> Result<(), ContentError> {
    if d.position() == length {
        return Ok(());
    }
    let count = d.array()?.filter(|&n| n <= TICKS_MAX as u64).ok_or(ContentError::Format("too many lives"))?;
    for _ in 0..count {
        if d.array()? != Some(2) {
            return Err(ContentError::Format("a life has two fields"));
        }
        let sender = DeviceId::try_from(d.bytes()?).map_err(|_| ContentError::Format("a device has 16 bytes"))?;
        let life = d.u64()?;
        if let Some(tick) = ticks.iter_mut().find(|tick| tick.sender == sender) {
            tick.life = life;
        }
    }
    Ok(())
}

/// What a group is called. Sent by its creator first of all and again, by whoever adds members, to everybody. CBOR: an
/// array of [name], [name, root] or [name, root, accounts that were removed].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupInfo {
    /// At most 128 bytes.
    pub name: String,
    /// The first of the conversations that this one goes on for, where it does since a server was restored from a backup.
    pub root: Option<ConversationId>,
    /// Who was removed and is not to be brought into it, where there is a root; at most [`GROUP_OUTCASTS_MAX`].
    pub outcasts: Vec<AccountId>,
}

impl GroupInfo {
    /// As a content.
    pub fn content(&self, salt: [u8; 16]) -> Content {
        let mut out = Vec::new();
        let mut e = Encoder::new(&mut out);
        // Writing to a vector cannot fail.
        let outcasts = if self.root.is_some() { self.outcasts.as_slice() } else { &[] };
        let fields = 1 + u64::from(self.root.is_some()) + u64::from(!outcasts.is_empty());
        let _ = e.array(fields).and_then(|e| e.str(&self.name));
        if let Some(root) = &self.root {
            let _ = e.bytes(root.as_bytes());
        }
        if !outcasts.is_empty() {
            let _ = e.array(u64::try_from(outcasts.len()).unwrap_or(0));
            for account in outcasts {
                let _ = e.bytes(account.as_bytes());
            }
        }
        Content::single(salt, Disposition::UNSPECIFIED, GROUP, out)
    }

    /// The group info in a content; none if it is something else.
    pub fn of(content: &Content) -> Option<Result<Self, ContentError>> {
        body_of(content, GROUP).map(Self::decode)
    }

    fn decode(bytes: &[u8]) -> Result<Self, ContentError> {
        let mut d = Decoder::new(bytes);
        // What later versions put behind is not read.
        let fields = d.array()?.filter(|fields| *fields > 0);
        let fields = fields.ok_or(ContentError::Format("group info has a name"))?;
        let name = d.str()?;
        if name.len() > GROUP_NAME_BYTES_MAX {
            return Err(ContentError::Format("a group name is longer than GROUP_NAME_BYTES_MAX"));
        }
        let root = (fields > 1).then(|| d.bytes()).transpose()?;
        let root = root.map(ConversationId::try_from).transpose();
        let root = root.map_err(|_| ContentError::Format("a conversation has 16 bytes"))?;
        let mut outcasts = Vec::new();
        if fields > 2 {
            let count = d.array()?.filter(|count| (1..=GROUP_OUTCASTS_MAX as u64).contains(count));
            for _ in 0..count.ok_or(ContentError::Format("too many are named who were removed, or none"))? {
                let account = AccountId::try_from(d.bytes()?);
                outcasts.push(account.map_err(|_| ContentError::Format("an account has 16 bytes"))?);
            }
        }
        Ok(Self { name: name.into(), root, outcasts })
    }
}

fn body_of<'a>(content: &'a Content, media_type: &str) -> Option<&'a [u8]> {
    match &content.part.body {
        PartBody::Single { content_type, content } if content_type == media_type => Some(content),
        _ => None,
    }
}
