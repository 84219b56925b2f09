// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads the headers of a `pli.log.v1.Entry`. Envelopes stay slices of the entry's bytes: nothing is copied and no
//! envelope is decoded.

use bytes::Bytes;
use pli_domain::limits::ENTRY_ENVELOPES_MAX;
use pli_domain::{DeviceId, EdgeId, UnixMillis};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// Life of a gap marker whose item did not say when it expires: the year 2100. A constant, because rows are pure
/// functions of position and entry (Q6).
const GAP_EXPIRES_AT: UnixMillis = UnixMillis(4_102_444_800_000);

/// One device that one item names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub device: DeviceId,
    /// The item's index in the entry.
    pub index: u16,
    pub expires_at: UnixMillis,
    /// Empty in an entry that cannot be decoded: the device is told a gap.
    pub envelope: Bytes,
}

/// What the header of an entry says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub origin: Option<EdgeId>,
    pub targets: Vec<Target>,
    /// The entry is kept aside; the targets are those that could still be made out.
    pub undecodable: bool,
}

struct Malformed;

/// Reads as much of the header as there is.
pub(super) fn header(bytes: &Bytes) -> Header {
    let mut header = Header::default();
    if walk(bytes, &mut header).is_err() {
        header.undecodable = true;
    }
    if header.undecodable {
        for target in &mut header.targets {
            target.envelope = Bytes::new();
        }
    }
    header
}

fn walk(bytes: &Bytes, header: &mut Header) -> Result<(), Malformed> {
    let mut rest: &[u8] = bytes;
    let mut index = 0usize;
    while !rest.is_empty() {
        match decode_key(&mut rest).map_err(|_| Malformed)? {
            (1, WireType::LengthDelimited) => {
                let (field, whole) = field(bytes, &mut rest)?;
                if index >= ENTRY_ENVELOPES_MAX {
                    return Err(Malformed);
                }
                let read = item(&field, index as u16, header);
                index += 1;
                if read.is_err() || !whole {
                    header.undecodable = true;
                }
            }
            (2, WireType::LengthDelimited) => {
                let (field, whole) = field(bytes, &mut rest)?;
                match EdgeId::try_from(field.as_ref()) {
                    _ if field.is_empty() && whole => {}
                    Ok(origin) => header.origin = Some(origin),
                    Err(_) => header.undecodable = true,
                }
            }
            (tag, wire) => skip_field(wire, tag, &mut rest, DecodeContext::default()).map_err(|_| Malformed)?,
        }
    }
    Ok(())
}

/// The length-delimited field that begins at `rest`, as a slice of `bytes`; false when the bytes end inside it.
fn field(bytes: &Bytes, rest: &mut &[u8]) -> Result<(Bytes, bool), Malformed> {
    let length = usize::try_from(decode_varint(rest).map_err(|_| Malformed)?).map_err(|_| Malformed)?;
    let there = length.min(rest.len());
    let (field, after) = rest.split_at(there);
    *rest = after;
    Ok((bytes.slice_ref(field), there == length))
}

fn item(bytes: &Bytes, index: u16, header: &mut Header) -> Result<(), Malformed> {
    let first = header.targets.len();
    let mut expires_at = GAP_EXPIRES_AT;
    let mut envelope = Bytes::new();
    let read = item_fields(bytes, index, (header, &mut expires_at, &mut envelope));
    for target in header.targets.iter_mut().skip(first) {
        target.expires_at = expires_at;
        target.envelope = envelope.clone();
    }
    if envelope.is_empty() { Err(Malformed) } else { read }
}

fn item_fields(
    bytes: &Bytes,
    index: u16,
    (header, expires_at, envelope): (&mut Header, &mut UnixMillis, &mut Bytes),
) -> Result<(), Malformed> {
    let mut rest: &[u8] = bytes;
    while !rest.is_empty() {
        match decode_key(&mut rest).map_err(|_| Malformed)? {
            (1, WireType::LengthDelimited) => {
                let (device, _) = field(bytes, &mut rest)?;
                let device = DeviceId::try_from(device.as_ref()).map_err(|_| Malformed)?;
                let target = Target { device, index, expires_at: GAP_EXPIRES_AT, envelope: Bytes::new() };
                header.targets.push(target);
            }
            (2, WireType::Varint) => *expires_at = UnixMillis(decode_varint(&mut rest).map_err(|_| Malformed)?),
            (4, WireType::LengthDelimited) => {
                let (found, whole) = field(bytes, &mut rest)?;
                if !whole {
                    return Err(Malformed);
                }
                *envelope = found;
            }
            (tag, wire) => skip_field(wire, tag, &mut rest, DecodeContext::default()).map_err(|_| Malformed)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use pli_api::log::{Entry, Item};
    use prost::Message;

    use super::*;

    fn entry() -> Entry {
        let item = |n: u8| Item {
            devices: vec![Bytes::from(vec![n; 16]), Bytes::from(vec![n + 1; 16])],
            expires_at_ms: u64::from(n),
            class: 3,
            envelope: Bytes::from(vec![n; 40]),
        };
        Entry { items: vec![item(1), item(2)], origin: Bytes::from_static(&[9; 16]) }
    }

    #[test]
    fn headers_are_read_and_envelopes_are_slices() {
        let bytes = Bytes::from(entry().encode_to_vec());
        let header = header(&bytes);
        assert!(!header.undecodable);
        assert_eq!(header.origin, Some(EdgeId::from_bytes([9; 16])));
        let seen: Vec<_> = header.targets.iter().map(|t| (t.device.as_bytes()[0], t.index, t.expires_at.0)).collect();
        assert_eq!(seen, [(1, 0, 1), (2, 0, 1), (2, 1, 2), (3, 1, 2)]);
        let inside = bytes.as_ptr_range();
        assert!(header.targets.iter().all(|t| inside.contains(&t.envelope.as_ptr()) && t.envelope.len() == 40));
    }

    #[test]
    fn every_cut_of_an_entry_names_devices_without_envelopes_or_reads_whole() {
        let bytes = Bytes::from(entry().encode_to_vec());
        for end in 0..bytes.len() {
            let header = header(&bytes.slice(..end));
            if header.undecodable {
                assert!(header.targets.iter().all(|t| t.envelope.is_empty()), "cut at {end}");
            }
        }
        assert!(header(&bytes.slice(..30)).targets.len() == 1, "a device whose bytes are there is named");
    }

    #[test]
    fn wrong_ids_and_empty_envelopes_are_kept_aside() {
        for spoil in [
            |e: &mut Entry| e.items[0].devices[1] = Bytes::from_static(b"short"),
            |e: &mut Entry| e.items[1].envelope = Bytes::new(),
            |e: &mut Entry| e.origin = Bytes::from_static(b"x"),
            |e: &mut Entry| e.items = vec![e.items[0].clone(); ENTRY_ENVELOPES_MAX + 1],
        ] {
            let mut bad = entry();
            spoil(&mut bad);
            let header = header(&Bytes::from(bad.encode_to_vec()));
            assert!(header.undecodable);
            assert!(!header.targets.is_empty());
        }
        assert!(header(&Bytes::from_static(b"\xff\xff\xff")).undecodable);
    }
}
