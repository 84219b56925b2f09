// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can be read on the outside of an encoded envelope without decoding it.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// What stands there; empty or 0 what is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outside<'a> {
    /// See [`crate::log::Envelope`].
    pub send_id: &'a [u8],
    /// See [`crate::log::Envelope`].
    pub accepted_at_ms: u64,
    /// See [`crate::log::Envelope`]; whatever stands there.
    pub traceparent: &'a [u8],
}

/// Reads the fields of an encoded [`crate::log::Envelope`] that following it takes, copying nothing and stepping over the
/// rest. Of what cannot be decoded, what stands before the fault.
pub fn outside(envelope: &[u8]) -> Outside<'_> {
    let mut found = Outside::default();
    // What was read before the fault stands.
    let _ = walk(envelope, &mut found);
    found
}

fn walk<'a>(envelope: &'a [u8], found: &mut Outside<'a>) -> Result<(), prost::DecodeError> {
    let mut rest = envelope;
    while !rest.is_empty() {
        match decode_key(&mut rest)? {
            (2, WireType::LengthDelimited) => found.send_id = field(&mut rest)?,
            (7, WireType::Varint) => found.accepted_at_ms = decode_varint(&mut rest)?,
            (12, WireType::LengthDelimited) => found.traceparent = field(&mut rest)?,
            (tag, wire) => skip_field(wire, tag, &mut rest, DecodeContext::default())?,
        }
    }
    Ok(())
}

fn field<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], prost::DecodeError> {
    let length = usize::try_from(decode_varint(rest)?).unwrap_or(usize::MAX);
    // Cut short: nothing of it counts.
    let (field, after) = rest.split_at_checked(length).unwrap_or((&[], &[]));
    *rest = after;
    Ok(field)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message;

    use super::*;
    use crate::log::{Envelope, envelope::BodyOrRef};

    fn envelope(traceparent: &'static [u8]) -> Bytes {
        let envelope = Envelope {
            send_id: Bytes::from_static(&[7; 16]),
            accepted_at_ms: 5,
            body_or_ref: Some(BodyOrRef::Body(Bytes::from_static(&[0xff; 300]))),
            traceparent: Bytes::from_static(traceparent),
            ..Envelope::default()
        };
        envelope.encode_to_vec().into()
    }

    #[test]
    fn the_outside_is_what_decoding_says() {
        let bytes = envelope(b"00-x");
        assert_eq!(outside(&bytes), Outside { send_id: &[7; 16], accepted_at_ms: 5, traceparent: b"00-x" });
        assert_eq!(outside(&envelope(b"")).traceparent, b"");
        assert_eq!(outside(b""), Outside::default());
    }

    #[test]
    fn no_cut_and_no_garbage_is_more_than_nothing() {
        let bytes = envelope(b"garbage");
        for end in 0..bytes.len() {
            let found = outside(&bytes[..end]);
            assert!([0, 16].contains(&found.send_id.len()) && found.traceparent.is_empty(), "cut at {end}");
        }
        for n in 0..=255u8 {
            outside(&[n; 64]);
        }
    }

    #[test]
    fn garbage_in_the_trace_context_keeps_the_envelope_readable() {
        let bytes = envelope(&[0xff, 0xfe]);
        assert_eq!(Envelope::decode(bytes).expect("decodes").traceparent.as_ref(), [0xff, 0xfe]);
    }
}
