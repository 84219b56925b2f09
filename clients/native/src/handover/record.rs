// SPDX-License-Identifier: MIT OR Apache-2.0
//! What two devices keep of each other for archives: a row of the profile that is not the core's.

use bytes::Bytes;
use pli_client_core::ChangeSet;
use pli_client_core::archive::HistorySecret;
use pli_domain::DeviceId;
use prost::Message as _;

use super::HandoverError;
use crate::Client;

/// What a key begins with; the id of the device that takes archives in follows. No table has this number.
const PREFIX: &[u8] = b"\xf0history";

/// As it is stored. Numbers are never reused.
#[derive(Clone, PartialEq, prost::Message)]
struct Stored {
    #[prost(bytes = "bytes", tag = "1")]
    secret: Bytes,
    /// The archive that is made, or looked for, next.
    #[prost(uint32, tag = "2")]
    next: u32,
}

/// What is known of archives for one device.
#[derive(Clone)]
pub(super) struct Record {
    pub secret: HistorySecret,
    pub next: u32,
}

impl Record {
    /// As it was stored; none where that is no record.
    fn read(stored: &[u8]) -> Option<Self> {
        let stored = Stored::decode(stored).ok()?;
        let secret: [u8; 32] = stored.secret.as_ref().try_into().ok()?;
        Some(Self { secret: HistorySecret::from_bytes(secret), next: stored.next.max(1) })
    }

    fn bytes(&self) -> Vec<u8> {
        let secret = Bytes::copy_from_slice(self.secret.as_bytes());
        Stored { secret, next: self.next }.encode_to_vec()
    }
}

/// Reads a stored record; whether it is one, and is written and read again as the same.
#[cfg(feature = "fuzzing")]
pub(crate) fn read_again(stored: &[u8]) -> Option<bool> {
    let read = Record::read(stored)?;
    let again = Record::read(&read.bytes())?;
    Some(again.next == read.next && again.secret.as_bytes() == read.secret.as_bytes())
}

fn key(device: DeviceId) -> Vec<u8> {
    [PREFIX, device.as_bytes()].concat()
}

fn row(device: DeviceId, record: &Record) -> (Vec<u8>, Option<Vec<u8>>) {
    (key(device), Some(record.bytes()))
}

/// The row of a link that is being made: `device` is the new one, on both sides.
pub(crate) fn new(device: DeviceId, secret: &HistorySecret) -> (Vec<u8>, Option<Vec<u8>>) {
    row(device, &Record { secret: secret.clone(), next: 1 })
}

impl Client {
    pub(super) async fn history_record(&self, device: DeviceId) -> Result<Record, HandoverError> {
        let stored = self.rows().get(key(device)).await?.ok_or(HandoverError::NoSecret)?;
        Record::read(&stored).ok_or(HandoverError::NoSecret)
    }

    pub(super) async fn keep_history_record(&self, device: DeviceId, record: &Record) -> Result<(), HandoverError> {
        let row = row(device, record);
        Ok(self.rows().commit_with(ChangeSet::default(), vec![row]).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_keeps_its_bytes() {
        let record = Record { secret: HistorySecret::from_bytes([3; 32]), next: 4 };
        let (key, value) = row(DeviceId::from_bytes([2; 16]), &record);
        assert_eq!(hex::encode(key), format!("f0{}{}", hex::encode("history"), "02".repeat(16)));
        assert_eq!(hex::encode(value.expect("a value")), format!("0a20{}1004", "03".repeat(32)));
    }
}
