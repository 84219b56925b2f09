// SPDX-License-Identifier: MIT OR Apache-2.0
//! Valid until mutated: changes of encoded protobuf messages that keep most of them valid. A change that names a field
//! counts through all fields, nested ones too, as far as the bytes read as messages; one that hits nothing changes nothing.

use arbitrary::Arbitrary;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};

/// Most bytes that one change adds: above the largest frame, so that every bound can be crossed.
const GROWN_MAX: usize = 96 * 1024;
/// Most bytes after a change; one that would make more changes nothing. Repeated, what was grown would be of any length, and
/// nothing above [`pli_domain::limits::FRAME_BYTES_MAX`] reaches a decoder of frames.
const MUTATED_BYTES_MAX: usize = 128 * 1024;
/// Most memory that changes take meanwhile: a field of two bytes is one of 48 while it is looked at, next to copies for the
/// nesting.
pub const MEMORY_MAX: usize = 32 * MUTATED_BYTES_MAX;
/// Deepest nesting that is looked into.
const DEPTH_MAX: usize = 8;

/// What is done to bytes that were valid.
#[derive(Debug, Clone, PartialEq, Eq, Arbitrary)]
pub enum Change {
    /// A byte is another one.
    Flip(u16, u8),
    /// The end is missing.
    Cut(u16),
    /// Something follows.
    Append(Vec<u8>),
    /// A field is missing.
    Drop(u8),
    /// A field is there so many times more.
    Repeat(u8, u8),
    /// A number is another one.
    Number(u8, u64),
    /// A number is one more or less.
    Step(u8, bool),
    /// A field holds other bytes.
    Bytes(u8, Vec<u8>),
    /// A field holds so many of one byte.
    Grow(u8, u32, u8),
    /// A byte within a field is another one.
    FlipIn(u8, u16, u8),
    /// Two fields hold each other's value.
    Swap(u8, u8),
}

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Number(u64),
    Fixed(Vec<u8>),
    Bytes(Vec<u8>),
    Message(Vec<Field>),
}

#[derive(Debug, Clone, PartialEq)]
struct Field {
    tag: u32,
    value: Value,
}

/// The bytes after these changes, one after the other.
pub fn mutated(bytes: &[u8], changes: &[Change]) -> Vec<u8> {
    changes.iter().fold(bytes.to_vec(), apply)
}

fn apply(mut bytes: Vec<u8>, change: &Change) -> Vec<u8> {
    let room = MUTATED_BYTES_MAX.saturating_sub(bytes.len());
    match change {
        Change::Flip(at, with) => flip(&mut bytes, *at, *with),
        Change::Cut(to) => bytes.truncate(usize::from(*to) % (bytes.len() + 1)),
        Change::Append(more) => bytes.extend_from_slice(&more[..more.len().min(room)]),
        _ => {
            if let Some(mut fields) = parse(&bytes, 0) {
                in_fields(&mut fields, change, room);
                let mut changed = Vec::new();
                encode(&fields, &mut changed);
                if changed.len() <= MUTATED_BYTES_MAX.max(bytes.len()) {
                    bytes = changed;
                }
            }
        }
    }
    bytes
}

fn flip(bytes: &mut [u8], at: u16, with: u8) {
    let length = bytes.len();
    if let Some(byte) = bytes.get_mut(usize::from(at) % length.max(1)) {
        *byte ^= with;
    }
}

fn in_fields(fields: &mut Vec<Field>, change: &Change, room: usize) {
    match change {
        Change::Drop(n) => with_nth(fields, *n, |fields, at| drop(fields.remove(at))),
        Change::Repeat(n, times) => with_nth(fields, *n, |fields, at| {
            let mut one = Vec::new();
            encode(&fields[at..=at], &mut one);
            let again = vec![fields[at].clone(); usize::from(*times).min(room / one.len().max(1))];
            fields.splice(at..at, again);
        }),
        Change::Number(n, value) => with_value(fields, *n, |field| *field = Value::Number(*value)),
        Change::Step(n, up) => with_value(fields, *n, |field| {
            if let Value::Number(number) = field {
                *number = if *up { number.wrapping_add(1) } else { number.wrapping_sub(1) };
            }
        }),
        Change::Bytes(n, bytes) => with_value(fields, *n, |field| *field = Value::Bytes(bytes.clone())),
        Change::Grow(n, to, byte) => with_value(fields, *n, |field| {
            *field = Value::Bytes(vec![*byte; *to as usize % GROWN_MAX]);
        }),
        Change::FlipIn(n, at, with) => with_value(fields, *n, |field| {
            if let Value::Bytes(bytes) | Value::Fixed(bytes) = field {
                flip(bytes, *at, *with);
            }
        }),
        Change::Swap(one, other) => {
            let (mut first, mut second) = (None, None);
            with_value(fields, *one, |field| first = Some(field.clone()));
            with_value(fields, *other, |field| second = Some(field.clone()));
            let (Some(first), Some(second)) = (first, second) else { return };
            with_value(fields, *other, |field| *field = first);
            with_value(fields, *one, |field| *field = second);
        }
        Change::Flip(..) | Change::Cut(_) | Change::Append(_) => {}
    }
}

fn with_value(fields: &mut Vec<Field>, n: u8, change: impl FnOnce(&mut Value)) {
    with_nth(fields, n, |fields, at| change(&mut fields[at].value));
}

/// Calls `change` with the list that holds the field of this number, counted round, and its place there.
fn with_nth(fields: &mut Vec<Field>, n: u8, change: impl FnOnce(&mut Vec<Field>, usize)) {
    let count = count(fields);
    if count > 0 {
        let mut left = usize::from(n) % count;
        let mut change = Some(change);
        walk(fields, &mut left, &mut change);
    }
}

fn walk<F: FnOnce(&mut Vec<Field>, usize)>(fields: &mut Vec<Field>, left: &mut usize, change: &mut Option<F>) {
    for at in 0..fields.len() {
        if *left == 0 {
            if let Some(change) = change.take() {
                change(fields, at);
            }
            return;
        }
        *left -= 1;
        if let Value::Message(inner) = &mut fields[at].value {
            walk(inner, left, change);
            if change.is_none() {
                return;
            }
        }
    }
}

fn count(fields: &[Field]) -> usize {
    let inner = |field: &Field| if let Value::Message(inner) = &field.value { count(inner) } else { 0 };
    fields.iter().map(|field| 1 + inner(field)).sum()
}

/// None where the bytes are no message.
fn parse(bytes: &[u8], depth: usize) -> Option<Vec<Field>> {
    let (mut rest, mut fields) = (bytes, Vec::new());
    while !rest.is_empty() {
        let (tag, wire) = decode_key(&mut rest).ok()?;
        let value = match wire {
            WireType::Varint => Value::Number(decode_varint(&mut rest).ok()?),
            WireType::SixtyFourBit => Value::Fixed(taken(&mut rest, 8)?),
            WireType::ThirtyTwoBit => Value::Fixed(taken(&mut rest, 4)?),
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
                let inner = taken(&mut rest, length)?;
                let message = (depth < DEPTH_MAX && !inner.is_empty()).then(|| parse(&inner, depth + 1)).flatten();
                message.map_or(Value::Bytes(inner), Value::Message)
            }
            WireType::StartGroup | WireType::EndGroup => return None,
        };
        fields.push(Field { tag, value });
    }
    Some(fields)
}

fn taken(rest: &mut &[u8], length: usize) -> Option<Vec<u8>> {
    let (taken, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(taken.to_vec())
}

fn encode(fields: &[Field], out: &mut Vec<u8>) {
    for Field { tag, value } in fields {
        match value {
            Value::Number(number) => {
                encode_key(*tag, WireType::Varint, out);
                encode_varint(*number, out);
            }
            Value::Fixed(bytes) => {
                let wire = if bytes.len() == 8 { WireType::SixtyFourBit } else { WireType::ThirtyTwoBit };
                encode_key(*tag, wire, out);
                out.extend_from_slice(bytes);
            }
            Value::Bytes(bytes) => delimited(*tag, bytes, out),
            Value::Message(fields) => {
                let mut inner = Vec::new();
                encode(fields, &mut inner);
                delimited(*tag, &inner, out);
            }
        }
    }
}

fn delimited(tag: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use pli_api::edge::{Send, SendBatch};
    use prost::Message;

    use super::*;

    fn batch() -> SendBatch {
        let send = Send { send_id: vec![0xFF; 16].into(), epoch: 7, body: vec![0xFE; 40].into(), ..Send::default() };
        SendBatch { sends: vec![send.clone(), send] }
    }

    fn after(change: Change) -> SendBatch {
        SendBatch::decode(mutated(&batch().encode_to_vec(), &[change]).as_slice()).expect("still one")
    }

    #[test]
    fn a_change_hits_the_field_that_it_counts() {
        // 0 is the first send, 1 its id, 2 its epoch, 3 its body, 4 the second send.
        assert_eq!(after(Change::Drop(0)).sends.len(), 1);
        assert_eq!(after(Change::Repeat(4, 3)).sends.len(), 5);
        assert_eq!(after(Change::Number(2, 9)).sends[0].epoch, 9);
        assert_eq!(after(Change::Step(6, true)).sends[1].epoch, 8);
        assert_eq!(after(Change::Grow(3, 70_000, 1)).sends[0].body, vec![1; 70_000]);
        assert_eq!(after(Change::FlipIn(1, 0, 1)).sends[0].send_id[0], 0xFE);
        assert_eq!(after(Change::Swap(1, 3)).sends[0].body.len(), 16);
        assert_eq!(after(Change::Bytes(9, vec![5])).sends[0].send_id.as_ref(), [5], "counted round");
    }

    /// A fuzzer found a frame of 24 MB in a hundred bytes.
    #[test]
    fn no_changes_make_more_than_is_ever_read() {
        let mut bytes = batch().encode_to_vec();
        for n in 0..40 {
            let changes =
                [Change::Grow(n, 95_000, 8), Change::Repeat(0, 255), Change::Repeat(n, 255), Change::Swap(0, n)];
            bytes = mutated(&bytes, &changes);
            assert!(bytes.len() <= MUTATED_BYTES_MAX, "{} bytes", bytes.len());
        }
        assert!(bytes.len() > 80 * 1024, "{} bytes: every bound of frames can be crossed", bytes.len());
        let more = vec![1; 2 * MUTATED_BYTES_MAX];
        assert_eq!(mutated(&bytes, &[Change::Append(more)]).len(), MUTATED_BYTES_MAX);
    }

    #[test]
    fn nothing_changed_is_the_same_bytes() {
        let bytes = batch().encode_to_vec();
        assert_eq!(mutated(&bytes, &[]), bytes);
        assert_eq!(mutated(&bytes, &[Change::Repeat(0, 0)]), bytes);
        assert_eq!(mutated(&[], &[Change::Drop(0), Change::Flip(3, 4), Change::Cut(9)]), Vec::<u8>::new());
    }
}
