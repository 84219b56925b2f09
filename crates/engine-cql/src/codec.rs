// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stored forms. Registers compare as bytes where timestamps tie, so a larger value has larger bytes.

use pli_domain::{AccountId, Checkpoint, DeviceAddress, DeviceId, EntryId, EntryRef, LogEpoch, MlsEpoch};
use pli_domain::{Position, Seq, UnixMillis};
use pli_ports::ReleaseMark;

/// What is stored is not what the engine stores.
#[derive(Debug, thiserror::Error)]
#[error("the stored {what} is damaged; restore it from a backup")]
pub(crate) struct Damaged {
    pub(crate) what: &'static str,
}

pub(crate) type Decoded<T> = Result<T, Damaged>;

fn damaged<E>(what: &'static str) -> impl FnOnce(E) -> Damaged {
    move |_| Damaged { what }
}

/// 63 bits: fits.
pub(crate) fn pos(position: Position) -> i64 {
    position.get() as i64
}

/// The write timestamp of everything that stands at a position: 50 bits of microseconds, before the year 2006, so
/// that whatever a wall clock stamps is later.
pub(crate) fn stamp(position: Position) -> i64 {
    (position.get() >> 13) as i64
}

pub(crate) fn position(stored: i64) -> Decoded<Position> {
    let value = u64::try_from(stored).map_err(damaged("position"))?;
    Position::from_u64(value).map_err(damaged("position"))
}

pub(crate) fn millis(time: UnixMillis) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}

pub(crate) fn time(stored: i64) -> UnixMillis {
    UnixMillis(u64::try_from(stored).unwrap_or(0))
}

pub(crate) fn epoch(epoch: MlsEpoch) -> i64 {
    i64::try_from(epoch.0).unwrap_or(i64::MAX)
}

pub(crate) fn mls_epoch(stored: i64) -> Decoded<MlsEpoch> {
    u64::try_from(stored).map(MlsEpoch).map_err(damaged("epoch"))
}

pub(crate) fn log_epoch(stored: i64) -> Decoded<LogEpoch> {
    let value = u64::try_from(stored).map_err(damaged("log epoch"))?;
    LogEpoch::new(value).map_err(damaged("log epoch"))
}

pub(crate) fn seq(stored: i64) -> Decoded<Seq> {
    let value = u64::try_from(stored).map_err(damaged("sequence"))?;
    Seq::new(value).map_err(damaged("sequence"))
}

pub(crate) fn id<T: for<'a> TryFrom<&'a [u8]>>(what: &'static str, stored: &[u8]) -> Decoded<T> {
    T::try_from(stored).map_err(|_| Damaged { what })
}

/// Position (8 bytes, big-endian), then the entry id if there is one: none is smaller than any.
pub(crate) fn checkpoint_bytes(checkpoint: &Checkpoint) -> Vec<u8> {
    let mut bytes = checkpoint.position.get().to_be_bytes().to_vec();
    bytes.extend(checkpoint.entry.iter().flat_map(|entry| *entry.as_bytes()));
    bytes
}

pub(crate) fn checkpoint(stored: &[u8]) -> Decoded<Checkpoint> {
    let (at, entry) = stored.split_at_checked(8).ok_or(Damaged { what: "checkpoint" })?;
    let at = u64::from_be_bytes(at.try_into().map_err(damaged("checkpoint"))?);
    let position = Position::from_u64(at).map_err(damaged("checkpoint"))?;
    let entry = if entry.is_empty() { None } else { Some(id::<EntryId>("checkpoint", entry)?) };
    Ok(Checkpoint { position, entry })
}

/// A token of its own (16 bytes), so that no two marks are equal; log epoch (8); then sequence (8) and id (16) of the
/// last entry, if there is one.
pub(crate) fn mark_bytes(token: [u8; 16], mark: &ReleaseMark) -> Vec<u8> {
    let mut bytes = token.to_vec();
    bytes.extend(mark.epoch.get().to_be_bytes());
    if let Some(last) = mark.last {
        bytes.extend(last.seq.get().to_be_bytes());
        bytes.extend(last.id.as_bytes());
    }
    bytes
}

pub(crate) fn mark(stored: &[u8]) -> Decoded<ReleaseMark> {
    let number = |from: usize| {
        let bytes = stored.get(from..from + 8).ok_or(Damaged { what: "mark" })?;
        bytes.try_into().map(u64::from_be_bytes).map_err(damaged("mark"))
    };
    let epoch = LogEpoch::new(number(16)?).map_err(damaged("mark"))?;
    if stored.len() == 24 {
        return Ok(ReleaseMark { epoch, last: None });
    }
    let seq = Seq::new(number(24)?).map_err(damaged("mark"))?;
    let id = id::<EntryId>("mark", stored.get(32..).unwrap_or_default())?;
    Ok(ReleaseMark { epoch, last: Some(EntryRef { seq, id }) })
}

pub(crate) fn devices_bytes(devices: &[DeviceId]) -> Vec<u8> {
    devices.iter().flat_map(|device| *device.as_bytes()).collect()
}

pub(crate) fn devices(stored: &[u8]) -> Decoded<Vec<DeviceId>> {
    stored.chunks(16).map(|chunk| id("device list", chunk)).collect()
}

pub(crate) fn address_bytes(address: &DeviceAddress) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(address.account.as_bytes());
    bytes[16..].copy_from_slice(address.device.as_bytes());
    bytes
}

pub(crate) fn address(stored: &[u8]) -> Decoded<DeviceAddress> {
    let (account, device) = stored.split_at(stored.len().min(16));
    Ok(DeviceAddress { account: id::<AccountId>("roster", account)?, device: id::<DeviceId>("roster", device)? })
}

/// Sorted by account, then device; 32 bytes each.
pub(crate) fn roster_bytes(roster: &[DeviceAddress]) -> Vec<u8> {
    let sorted: std::collections::BTreeSet<_> = roster.iter().collect();
    sorted.into_iter().flat_map(address_bytes).collect()
}

pub(crate) fn roster(stored: &[u8]) -> Decoded<Vec<DeviceAddress>> {
    stored.chunks(32).map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(byte: u8) -> EntryId {
        EntryId::from_bytes([byte; 16])
    }

    #[test]
    fn checkpoints_compare_as_their_bytes() {
        let at = |position: u64, entry| Checkpoint { position: Position::from_u64(position).unwrap(), entry };
        let sorted = [at(0, None), at(7, None), at(7, Some(entry(0))), at(7, Some(entry(255))), at(1 << 62, None)];
        for pair in sorted.windows(2) {
            assert!(pair[0] < pair[1] && checkpoint_bytes(&pair[0]) < checkpoint_bytes(&pair[1]));
        }
        for checkpoint in sorted {
            assert_eq!(super::checkpoint(&checkpoint_bytes(&checkpoint)).unwrap(), checkpoint);
        }
    }

    #[test]
    fn stored_bytes_are_pinned() {
        let epoch = LogEpoch::new(3).unwrap();
        let last = EntryRef { seq: Seq::new(5).unwrap(), id: entry(9) };
        let bytes = mark_bytes([1; 16], &ReleaseMark { epoch, last: Some(last) });
        assert_eq!(bytes, [&[1; 16][..], &[0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 5], &[9; 16]].concat());
        assert_eq!(mark(&bytes).unwrap(), ReleaseMark { epoch, last: Some(last) });
        let none = ReleaseMark { epoch, last: None };
        assert_eq!(mark(&mark_bytes([1; 16], &none)).unwrap(), none);
        let at = Position::end_of(epoch, Seq::new(5).unwrap());
        let bytes = checkpoint_bytes(&Checkpoint { position: at, entry: Some(entry(9)) });
        assert_eq!(bytes, [&[0, 12, 0, 0, 0, 0, 0x17, 0xFF][..], &[9; 16]].concat());
        assert!(checkpoint(&bytes[..7]).is_err() && checkpoint(&bytes[..20]).is_err() && mark(&bytes).is_err());
    }

    #[test]
    fn a_wall_clock_is_later_than_every_position() {
        assert!(stamp(Position::MAX) < crate::stamps::WALL_MIN);
    }
}
