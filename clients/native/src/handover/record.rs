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
pub(super) struct Record {
    pub secret: HistorySecret,
    pub next: u32,
}

fn key(device: DeviceId) -> Vec<u8> {
    [PREFIX, device.as_bytes()].concat()
}

fn row(device: DeviceId, secret: &HistorySecret, next: u32) -> (Vec<u8>, Option<Vec<u8>>) {
    let stored = Stored { secret: Bytes::copy_from_slice(secret.as_bytes()), next };
    (key(device), Some(stored.encode_to_vec()))
}

/// The row of a link that is being made: `device` is the new one, on both sides.
pub(crate) fn new(device: DeviceId, secret: &HistorySecret) -> (Vec<u8>, Option<Vec<u8>>) {
    row(device, secret, 1)
}

impl Client {
    pub(super) async fn history_record(&self, device: DeviceId) -> Result<Record, HandoverError> {
        let stored = self.rows().get(key(device)).await?.ok_or(HandoverError::NoSecret)?;
        let stored = Stored::decode(stored.as_slice()).map_err(|_| HandoverError::NoSecret)?;
        let secret: [u8; 32] = stored.secret.as_ref().try_into().map_err(|_| HandoverError::NoSecret)?;
        Ok(Record { secret: HistorySecret::from_bytes(secret), next: stored.next.max(1) })
    }

    pub(super) async fn keep_history_record(&self, device: DeviceId, record: &Record) -> Result<(), HandoverError> {
        let row = row(device, &record.secret, record.next);
        Ok(self.rows().commit_with(ChangeSet::default(), vec![row]).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_keeps_its_bytes() {
        let (key, value) = row(DeviceId::from_bytes([2; 16]), &HistorySecret::from_bytes([3; 32]), 4);
        assert_eq!(hex::encode(key), format!("f0{}{}", hex::encode("history"), "02".repeat(16)));
        assert_eq!(hex::encode(value.expect("a value")), format!("0a20{}1004", "03".repeat(32)));
    }
}
