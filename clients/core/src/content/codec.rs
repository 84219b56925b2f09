// SPDX-License-Identifier: MIT OR Apache-2.0
//! Contents to bytes and back.

use std::convert::Infallible;

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

use super::{
    Content, Disposition, Expiration, Extension, ExtensionKey, External, MessageId, PART_DEPTH_MAX, PARTS_MAX, Part,
    PartBody, Semantics,
};

/// Why bytes are not a content.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// Not CBOR of the expected shape.
    #[error("content does not decode: {0}")]
    Cbor(#[from] minicbor::decode::Error),
    /// A rule of the format is broken.
    #[error("content breaks the format: {0}")]
    Format(&'static str),
    /// Readable, but not the one deterministic encoding; its message id would be ambiguous.
    #[error("content is not deterministically encoded")]
    NotDeterministic,
}

type Encoded = Result<(), minicbor::encode::Error<Infallible>>;
type Enc<'a> = Encoder<&'a mut Vec<u8>>;

impl Content {
    /// The deterministic encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        // Writing to a vector cannot fail.
        let _: Encoded = self.write(&mut Encoder::new(&mut out));
        out
    }

    /// Errors when `bytes` are not one deterministic encoding of a content.
    pub fn decode(bytes: &[u8]) -> Result<Self, ContentError> {
        let mut d = Decoder::new(bytes);
        array(&mut d, 7)?;
        let content = Self {
            salt: d.bytes()?.try_into().map_err(|_| ContentError::Format("a salt has 16 bytes"))?,
            replaces: message_id(&mut d)?,
            topic_id: d.bytes()?.to_vec(),
            expires: expiration(&mut d)?,
            in_reply_to: message_id(&mut d)?,
            extensions: extensions(&mut d, bytes)?,
            part: part(&mut d, 0)?,
        };
        if content.encode() != bytes {
            return Err(ContentError::NotDeterministic);
        }
        Ok(content)
    }

    fn write(&self, e: &mut Enc<'_>) -> Encoded {
        e.array(7)?.bytes(&self.salt)?;
        write_id(e, self.replaces)?;
        e.bytes(&self.topic_id)?;
        match self.expires {
            Some(Expiration { relative, time }) => e.array(2)?.bool(relative)?.u32(time)?,
            None => e.null()?,
        };
        write_id(e, self.in_reply_to)?;
        self.write_extensions(e)?;
        self.part.write(e)
    }

    fn write_extensions(&self, e: &mut Enc<'_>) -> Encoded {
        let mut pairs: Vec<(Vec<u8>, &Extension)> =
            self.extensions.iter().map(|(key, value)| (key.encode(), value)).collect();
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        e.map(pairs.len() as u64)?;
        for (key, value) in pairs {
            e.writer_mut().extend_from_slice(&key);
            match value {
                Extension::Text(text) => drop(e.str(text)?),
                Extension::Encoded(bytes) => e.writer_mut().extend_from_slice(bytes),
            }
        }
        Ok(())
    }
}

impl ExtensionKey {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut e = Encoder::new(&mut out);
        let _ = match self {
            Self::Number(n) => e.i64(*n).map(drop),
            Self::Name(name) => e.str(name).map(drop),
        };
        out
    }
}

impl Part {
    fn write(&self, e: &mut Enc<'_>) -> Encoded {
        let length = match &self.body {
            PartBody::Null => 3,
            PartBody::Single { .. } | PartBody::Multi { .. } => 5,
            PartBody::External(_) => 15,
        };
        e.array(length)?.u8(self.disposition.0)?.str(&self.language)?;
        match &self.body {
            PartBody::Null => e.u8(0)?,
            PartBody::Single { content_type, content } => e.u8(1)?.str(content_type)?.bytes(content)?,
            PartBody::External(x) => {
                e.u8(2)?.str(&x.content_type)?.str(&x.url)?.u32(x.expires)?.u64(x.size)?.u16(x.enc_alg)?;
                e.bytes(&x.key)?.bytes(&x.nonce)?.bytes(&x.aad)?.u8(x.hash_alg)?.bytes(&x.content_hash)?;
                e.str(&x.description)?.str(&x.filename)?
            }
            PartBody::Multi { semantics, parts } => {
                e.u8(3)?.u8(*semantics as u8)?.array(parts.len() as u64)?;
                return parts.iter().try_for_each(|part| part.write(e));
            }
        };
        Ok(())
    }
}

fn write_id(e: &mut Enc<'_>, id: Option<MessageId>) -> Encoded {
    match id {
        Some(id) => e.bytes(&id.0)?,
        None => e.null()?,
    };
    Ok(())
}

fn array(d: &mut Decoder<'_>, length: u64) -> Result<(), ContentError> {
    match d.array()? {
        Some(n) if n == length => Ok(()),
        _ => Err(ContentError::Format("an array has another length")),
    }
}

fn null(d: &mut Decoder<'_>) -> Result<bool, ContentError> {
    let is_null = d.datatype()? == Type::Null;
    if is_null {
        d.null()?;
    }
    Ok(is_null)
}

fn message_id(d: &mut Decoder<'_>) -> Result<Option<MessageId>, ContentError> {
    if null(d)? {
        return Ok(None);
    }
    let bytes = d.bytes()?.try_into().map_err(|_| ContentError::Format("a message id has 32 bytes"))?;
    Ok(Some(MessageId(bytes)))
}

fn expiration(d: &mut Decoder<'_>) -> Result<Option<Expiration>, ContentError> {
    if null(d)? {
        return Ok(None);
    }
    array(d, 2)?;
    Ok(Some(Expiration { relative: d.bool()?, time: d.u32()? }))
}

fn extensions(d: &mut Decoder<'_>, bytes: &[u8]) -> Result<Vec<(ExtensionKey, Extension)>, ContentError> {
    let count = d.map()?.ok_or(ContentError::Format("a map has a definite length"))?;
    let mut out = Vec::new();
    for _ in 0..count {
        let key = match d.datatype()? {
            Type::String => ExtensionKey::Name(d.str()?.into()),
            _ => ExtensionKey::Number(d.i64()?),
        };
        if matches!(&key, ExtensionKey::Name(name) if name.is_empty() || name.len() > 255) {
            return Err(ContentError::Format("the name of an extension has 1 to 255 bytes"));
        }
        let from = d.position();
        let value = if d.datatype()? == Type::String {
            Extension::Text(d.str()?.into())
        } else {
            d.skip()?;
            Extension::Encoded(bytes[from..d.position()].to_vec())
        };
        if out.iter().any(|(known, _)| *known == key) {
            return Err(ContentError::Format("an extension stands twice"));
        }
        out.push((key, value));
    }
    Ok(out)
}

fn part(d: &mut Decoder<'_>, depth: usize) -> Result<Part, ContentError> {
    if depth >= PART_DEPTH_MAX {
        return Err(ContentError::Format("parts are nested too deep"));
    }
    let length = d.array()?.ok_or(ContentError::Format("an array has a definite length"))?;
    let (disposition, language) = (Disposition(d.u8()?), d.str()?.to_owned());
    let body = match (d.u8()?, length) {
        (0, 3) => PartBody::Null,
        (1, 5) => PartBody::Single { content_type: d.str()?.into(), content: d.bytes()?.to_vec() },
        (2, 15) => PartBody::External(Box::new(external(d)?)),
        (3, 5) => multi(d, depth)?,
        _ => return Err(ContentError::Format("a part has an unknown form")),
    };
    Ok(Part { disposition, language, body })
}

fn external(d: &mut Decoder<'_>) -> Result<External, ContentError> {
    Ok(External {
        content_type: d.str()?.into(),
        url: d.str()?.into(),
        expires: d.u32()?,
        size: d.u64()?,
        enc_alg: d.u16()?,
        key: d.bytes()?.to_vec(),
        nonce: d.bytes()?.to_vec(),
        aad: d.bytes()?.to_vec(),
        hash_alg: d.u8()?,
        content_hash: d.bytes()?.to_vec(),
        description: d.str()?.into(),
        filename: d.str()?.into(),
    })
}

fn multi(d: &mut Decoder<'_>, depth: usize) -> Result<PartBody, ContentError> {
    let semantics = match d.u8()? {
        0 => Semantics::ChooseOne,
        1 => Semantics::SingleUnit,
        2 => Semantics::ProcessAll,
        _ => return Err(ContentError::Format("a multipart has unknown semantics")),
    };
    let count = d.array()?.ok_or(ContentError::Format("an array has a definite length"))?;
    if !(2..=PARTS_MAX as u64).contains(&count) {
        return Err(ContentError::Format("a multipart has 2 to 64 parts"));
    }
    let parts = (0..count).map(|_| part(d, depth + 1)).collect::<Result<_, _>>()?;
    Ok(PartBody::Multi { semantics, parts })
}
