// SPDX-License-Identifier: MIT OR Apache-2.0
//! What things are called on the server, and how an entry's id is written into a message.

use pli_domain::{EntryId, OwnerId, Seq, ShardId};

/// Key-value bucket of the leases; its keys are shard numbers, and `worker.<id>`.
pub const LEASE_BUCKET: &str = "PLI_LEASES";
/// The stream under that bucket (NATS ADR-8: `KV_` and the bucket's name).
pub const LEASE_STREAM: &str = "KV_PLI_LEASES";
/// Nobody subscribes to it: a request is answered "no responders" at once, after everything that was sent before it
/// on the same connection was processed.
pub(crate) const FENCE: &str = "pli.fence";

/// Name of the stream with this number.
pub fn log_stream(number: u16) -> String {
    format!("PLI_LOG_{number}")
}

/// Subject of a shard's entries.
pub fn log_subject(shard: ShardId) -> String {
    format!("pli.log.{shard}")
}

/// Subjects of the workers that are there.
pub(crate) const WORKERS: &str = "$KV.PLI_LEASES.worker.*";

/// Subject of a worker that is there.
pub(crate) fn worker_subject(owner: OwnerId) -> String {
    format!("$KV.{LEASE_BUCKET}.worker.{owner}")
}

/// Subject of a shard's lease.
pub(crate) fn lease_subject(shard: ShardId) -> String {
    format!("$KV.{LEASE_BUCKET}.{shard}")
}

/// The message id of an entry. JetStream remembers message ids per stream, which shards share: the shard is part of it,
/// else an entry for a second shard would be taken for a repetition of the first.
pub(crate) fn message_id(shard: ShardId, id: EntryId) -> String {
    format!("{shard}-{id}")
}

/// The entry id in a message id. A message that somebody else wrote to the subject has none; it gets one that is a
/// function of its sequence, so that an owner can keep it aside and still hold later readers against it.
pub(crate) fn entry_id(message_id: Option<&str>, seq: Seq) -> EntryId {
    let id = message_id.and_then(|text| text.split_once('-')).and_then(|(_, id)| id.parse().ok());
    id.unwrap_or_else(|| {
        let mut bytes = *b"foreign\0\0\0\0\0\0\0\0\0";
        bytes[8..].copy_from_slice(&seq.get().to_be_bytes());
        EntryId::from_bytes(bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_id_survives_its_message_id() {
        let id = EntryId::from_bytes([7; 16]);
        let seq = Seq::new(9).unwrap();
        assert_eq!(entry_id(Some(&message_id(ShardId::new(512), id)), seq), id);
        let foreign = entry_id(None, seq);
        assert_eq!(entry_id(Some("no id of ours"), seq), foreign);
        assert_ne!(entry_id(None, seq.next()), foreign);
    }

    #[test]
    fn one_entry_id_in_two_shards_makes_two_message_ids() {
        let id = EntryId::from_bytes([7; 16]);
        assert_ne!(message_id(ShardId::new(1), id), message_id(ShardId::new(2), id));
    }
}
