// SPDX-License-Identifier: MIT OR Apache-2.0
//! Leases: one key per shard in a JetStream key-value bucket (NATS ADR-8), written by compare-and-set.
//!
//! The generation of a lease is the revision of the write that began it, so it grows with every change of holder, also
//! when the key has vanished in between. The server deletes a key when its time has passed (per-message TTL, ADR-43).
//! No clock is compared with another one: should the server not delete it (its clock jumped, or a leader's is behind),
//! whoever wants the lease takes it over when it has not changed for a whole term on that process's own clock.
//! Workers that are there have a key each, `worker.<id>`, that lives and is judged in the same way.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_TTL};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use pli_domain::{OwnerId, ShardId};
use pli_ports::{Lease, Leases, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;

use crate::error::ApiError;
use crate::link::Link;
use crate::names::{LEASE_STREAM, WORKERS, lease_subject, worker_subject};
use crate::wire::{FoundWhole, MESSAGE_NOT_FOUND, WRONG_LAST_SEQUENCE};

/// What marks a deleted key.
const OPERATION: &str = "KV-Operation";
/// Tries of a compare-and-set whose key keeps changing.
const TRIES: usize = 8;
/// What a key may live longer than its term before somebody takes it over: the server looks once a second.
const TAKE_OVER_AFTER: Duration = Duration::from_secs(3);
/// Keys of one look-up; the server answers at most 1,024.
const KEYS_MAX: usize = 512;

/// What stands in the bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    owner: String,
    /// Revision of the write that began this holder's lease; absent in that write itself, which cannot know it.
    generation: Option<u64>,
    ttl_ms: u64,
}

/// A key as it stands.
#[derive(Debug, Clone)]
struct Key {
    revision: u64,
    /// None when it was given back.
    record: Option<Record>,
}

impl Key {
    fn generation(&self) -> u64 {
        self.record.as_ref().and_then(|record| record.generation).unwrap_or(self.revision)
    }

    fn lease(&self, shard: ShardId) -> Option<Lease> {
        let owner = self.record.as_ref()?.owner.parse().ok()?;
        Some(Lease { shard, owner, generation: self.generation() })
    }
}

/// When a revision of somebody else was seen first, by key.
#[derive(Debug)]
struct Sightings<K>(BTreeMap<K, (u64, Instant)>);

impl<K> Default for Sightings<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord> Sightings<K> {
    /// Whether a key of this term has not changed for longer than that.
    fn is_overdue(&mut self, key: K, revision: u64, ttl_ms: u64) -> bool {
        let now = Instant::now();
        let seen = self.0.entry(key).or_insert((revision, now));
        if seen.0 != revision {
            *seen = (revision, now);
        }
        now - seen.1 >= Duration::from_millis(ttl_ms).saturating_add(TAKE_OVER_AFTER)
    }

    fn forget(&mut self, key: &K) {
        self.0.remove(key);
    }
}

pub(crate) struct NatsLeases {
    link: Arc<Link>,
    shards: u32,
    sightings: Mutex<Sightings<ShardId>>,
    workers: Mutex<Sightings<OwnerId>>,
}

impl NatsLeases {
    pub(crate) fn new(link: Arc<Link>, shards: u32) -> Self {
        Self { link, shards, sightings: Mutex::default(), workers: Mutex::default() }
    }

    async fn key(&self, shard: ShardId) -> Result<Option<Key>, ApiError> {
        let which = json!({ "last_by_subj": lease_subject(shard) });
        let found = self.link.api::<FoundWhole>(&format!("STREAM.MSG.GET.{LEASE_STREAM}"), &which).await;
        let message = match found {
            Ok(found) => found.message,
            Err(error) if error.code() == Some(MESSAGE_NOT_FOUND) => return Ok(None),
            Err(error) => return Err(error),
        };
        // A record that cannot be read is nobody's.
        let deleted = message.head.header(OPERATION).is_some();
        let record = if deleted { None } else { serde_json::from_slice(&message.bytes()).ok() };
        Ok(Some(Key { revision: message.head.seq, record }))
    }

    /// Writes if the key still is at `revision` (0: absent). None when it is not.
    async fn write(&self, shard: ShardId, revision: u64, record: Option<&Record>) -> Result<Option<u64>, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, revision.to_string().as_str());
        let payload = match record {
            Some(record) => {
                put_term(&mut headers, record);
                Bytes::from(serde_json::to_vec(record).map_err(ApiError::Malformed)?)
            }
            None => {
                headers.insert(OPERATION, "DEL");
                Bytes::new()
            }
        };
        match self.link.store(&lease_subject(shard), headers, payload).await {
            Ok(revision) => Ok(Some(revision)),
            Err(error) if error.code() == Some(WRONG_LAST_SEQUENCE) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One try: the lease, or that somebody else holds it; nothing when the key changed meanwhile.
    async fn try_acquire(&self, shard: ShardId, owner: OwnerId, ttl: Duration) -> Result<Option<Answer>, ApiError> {
        let key = self.key(shard).await?;
        let own = key.as_ref().and_then(|key| key.lease(shard)).filter(|lease| lease.owner == owner);
        if let (Some(key), None) = (&key, own)
            && let Some(record) = &key.record
            && !self.lock().is_overdue(shard, key.revision, record.ttl_ms)
        {
            return Ok(Some(None));
        }
        let record = record(owner, own.map(|lease| lease.generation), ttl);
        let before = key.map_or(0, |key| key.revision);
        let written = self.write(shard, before, Some(&record)).await?;
        self.lock().forget(&shard);
        let lease = |revision| Lease { shard, owner, generation: record.generation.unwrap_or(revision) };
        Ok(written.map(|revision| Some(lease(revision))))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Sightings<ShardId>> {
        self.sightings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The workers in answers to a direct get whose keys change as often as they said.
    fn present(&self, newest: &[async_nats::Message]) -> Vec<OwnerId> {
        let keys: Vec<(OwnerId, u64, u64)> = newest.iter().filter_map(worker).collect();
        let mut sightings = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        sightings.0.retain(|owner, _| keys.iter().any(|key| key.0 == *owner));
        let present = keys.into_iter().filter(|(owner, revision, ttl)| !sightings.is_overdue(*owner, *revision, *ttl));
        present.map(|key| key.0).collect()
    }

    /// The key's revision while this very lease stands in it.
    async fn held_at(&self, lease: &Lease) -> Result<Option<u64>, ApiError> {
        let key = self.key(lease.shard).await?;
        Ok(key.filter(|key| key.lease(lease.shard).as_ref() == Some(lease)).map(|key| key.revision))
    }

    /// The newest values of some keys, wildcards allowed, from any replica (ADR-31, `multi_last`).
    async fn newest(&self, subjects: &[String]) -> Result<Vec<async_nats::Message>, ApiError> {
        let disconnected = |error: Box<dyn std::error::Error + Send + Sync>| ApiError::Disconnected(error);
        let inbox = self.link.client.new_inbox();
        let mut arriving =
            self.link.client.subscribe(inbox.clone()).await.map_err(|error| disconnected(error.into()))?;
        let subject = format!("$JS.API.DIRECT.GET.{LEASE_STREAM}");
        let body = Bytes::from(json!({ "multi_last": subjects }).to_string());
        let sent = self.link.client.publish_with_reply(subject.clone(), inbox, body).await;
        sent.map_err(|error| disconnected(error.into()))?;
        let mut newest = Vec::new();
        loop {
            let next = tokio::time::timeout(self.link.answer_timeout, arriving.next()).await;
            let Ok(Some(message)) = next else { return Err(ApiError::Timeout(subject)) };
            match message.status.map(|status| status.as_u16()) {
                None => newest.push(message),
                // The end of the batch; nothing there.
                Some(204 | 404) => return Ok(newest),
                Some(503) => return Err(ApiError::NoResponder(subject)),
                Some(code) => {
                    let description = message.description.unwrap_or_default();
                    return Err(ApiError::Server { code: code.into(), description });
                }
            }
        }
    }
}

/// What a try to acquire found: the lease, or that it is somebody else's.
type Answer = Option<Lease>;

fn record(owner: OwnerId, generation: Option<u64>, ttl: Duration) -> Record {
    Record { owner: owner.to_string(), generation, ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX) }
}

/// Has the server delete the key after its term: whole seconds, at least one (ADR-43).
fn put_term(headers: &mut HeaderMap, record: &Record) {
    headers.insert(NATS_MESSAGE_TTL, format!("{}s", record.ttl_ms.div_ceil(1_000).max(1)).as_str());
}

/// A worker in an answer to a direct get: who, its key's revision, its term in milliseconds.
fn worker(message: &async_nats::Message) -> Option<(OwnerId, u64, u64)> {
    let revision = message.headers.as_ref()?.get("Nats-Sequence")?.as_str().parse().ok()?;
    let record: Record = serde_json::from_slice(&message.payload).ok()?;
    Some((record.owner.parse().ok()?, revision, record.ttl_ms))
}

/// Reads a value of the bucket as a holder's; what reads is written and read again as the same.
#[cfg(feature = "fuzzing")]
pub(crate) fn read_again(payload: &[u8]) {
    let Ok(record) = serde_json::from_slice::<Record>(payload) else { return };
    put_term(&mut HeaderMap::new(), &record);
    let again = serde_json::to_vec(&record).ok().and_then(|written| serde_json::from_slice(&written).ok());
    assert_eq!(again.as_ref(), Some(&record), "what was read is written again as the same");
    let key = Key { revision: 7, record: Some(record) };
    let _ = key.lease(ShardId::new(0)).map(|lease| lease.generation);
}

/// A lease in an answer to a direct get, which carries subject and sequence as headers.
fn direct(message: &async_nats::Message) -> Option<Lease> {
    let headers = message.headers.as_ref()?;
    if headers.get(OPERATION).is_some() {
        return None;
    }
    let shard = headers.get("Nats-Subject")?.as_str().rsplit_once('.')?.1.parse().ok()?;
    let revision = headers.get("Nats-Sequence")?.as_str().parse().ok()?;
    let record = serde_json::from_slice(&message.payload).ok();
    Key { revision, record }.lease(ShardId::new(shard))
}

#[async_trait]
impl Leases for NatsLeases {
    async fn acquire(&self, shard: ShardId, owner: OwnerId, ttl: Duration) -> Result<Option<Lease>, StoreError> {
        for _ in 0..TRIES {
            let tried = self.try_acquire(shard, owner, ttl).await;
            if let Some(answer) = tried.map_err(|error| error.of("acquire"))? {
                return Ok(answer);
            }
        }
        Err(StoreError::later("acquire", "the lease keeps changing hands"))
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        for _ in 0..TRIES {
            let at = self.held_at(lease).await.map_err(|error| error.of("renew"))?;
            let Some(revision) = at else { return Ok(false) };
            let record = record(lease.owner, Some(lease.generation), ttl);
            let written = self.write(lease.shard, revision, Some(&record)).await;
            if written.map_err(|error| error.of("renew"))?.is_some() {
                return Ok(true);
            }
        }
        Err(StoreError::later("renew", "the lease keeps changing"))
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            let at = self.held_at(lease).await.map_err(|error| error.of("release"))?;
            let Some(revision) = at else { return Ok(()) };
            if self.write(lease.shard, revision, None).await.map_err(|error| error.of("release"))?.is_some() {
                return Ok(());
            }
        }
        Err(StoreError::later("release", "the lease keeps changing"))
    }

    async fn held(&self) -> Result<Vec<Lease>, StoreError> {
        let shards: Vec<ShardId> =
            (0..self.shards).filter_map(|shard| u16::try_from(shard).ok()).map(ShardId::new).collect();
        let mut held = Vec::new();
        for some in shards.chunks(KEYS_MAX) {
            let subjects: Vec<String> = some.iter().map(|shard| lease_subject(*shard)).collect();
            let newest = self.newest(&subjects).await.map_err(|error| error.of("held"))?;
            held.extend(newest.iter().filter_map(direct));
        }
        held.sort_by_key(|lease| lease.shard);
        Ok(held)
    }

    async fn join(&self, owner: OwnerId, ttl: Duration) -> Result<Vec<OwnerId>, StoreError> {
        let failed = |error: ApiError| error.of("join");
        let said = record(owner, None, ttl);
        let payload = serde_json::to_vec(&said).map_err(ApiError::Malformed).map_err(failed)?;
        let mut headers = HeaderMap::new();
        put_term(&mut headers, &said);
        self.link.store(&worker_subject(owner), headers, payload.into()).await.map_err(failed)?;
        let newest = self.newest(&[WORKERS.into()]).await.map_err(failed)?;
        let mut workers = self.present(&newest);
        // A replica may not have heard of this one yet.
        workers.push(owner);
        workers.sort_unstable();
        workers.dedup();
        Ok(workers)
    }

    async fn leave(&self, owner: OwnerId) -> Result<(), StoreError> {
        let mut headers = HeaderMap::new();
        headers.insert(OPERATION, "DEL");
        let left = self.link.store(&worker_subject(owner), headers, Bytes::new()).await;
        left.map(|_| ()).map_err(|error| error.of("leave"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId::new(3);
    const TTL: Duration = Duration::from_secs(10);

    fn key(revision: u64) -> Key {
        Key { revision, record: Some(record(OwnerId::from_bytes([1; 16]), None, TTL)) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_the_server_never_deletes_is_taken_over_after_its_term() {
        let mut sightings = Sightings::default();
        let mut is_overdue = |revision| sightings.is_overdue(SHARD, revision, 10_000);
        assert!(!is_overdue(1));
        tokio::time::advance(TTL).await;
        assert!(!is_overdue(1), "the server may be a little late");
        tokio::time::advance(TAKE_OVER_AFTER).await;
        assert!(is_overdue(1));
        assert!(!is_overdue(2), "it was renewed");
        tokio::time::advance(TTL + TAKE_OVER_AFTER).await;
        sightings.forget(&SHARD);
        assert!(!sightings.is_overdue(SHARD, 2, 10_000), "seen for the first time again");
    }

    #[test]
    fn the_first_write_of_a_holder_is_its_generation() {
        let owner = OwnerId::from_bytes([1; 16]);
        assert_eq!(key(7).lease(SHARD), Some(Lease { shard: SHARD, owner, generation: 7 }));
        let renewed = Key { revision: 9, record: Some(record(owner, Some(7), TTL)) };
        assert_eq!(renewed.lease(SHARD), key(7).lease(SHARD));
        assert_eq!(Key { revision: 10, record: None }.lease(SHARD), None);
    }
}
