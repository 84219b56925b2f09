// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bodies too large for an envelope: welcomes, group infos, trees, large commits.

use async_trait::async_trait;
use bytes::Bytes;
use pli_domain::{PayloadId, UnixMillis};

use crate::StoreError;

/// Part of a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadPage {
    /// The bytes from the asked offset on, at most [`pli_domain::limits::PAGE_BYTES_MAX`]; empty past the end.
    pub bytes: Bytes,
    /// Size of the whole payload in bytes.
    pub size: u64,
}

/// Immutable blobs that envelopes point at.
#[async_trait]
pub trait Payloads: Send + Sync + 'static {
    /// Stores `bytes` under `id`, durable on `Ok`, at most [`pli_domain::limits::PAYLOAD_BYTES_MAX`]. Idempotent: the
    /// same id always carries the same bytes. Written before anything that points at it.
    async fn put(&self, id: PayloadId, bytes: Bytes, expires_at: UnixMillis) -> Result<(), StoreError>;

    /// One page from `offset`; none when the payload never was or has expired at `now`.
    async fn page(&self, id: PayloadId, offset: u64, now: UnixMillis) -> Result<Option<PayloadPage>, StoreError>;

    /// Forgets payloads that expired at or before `now`, at most `limit` of them; answers how many. A store that
    /// forgets by itself, some time after they expire, answers 0.
    async fn expire(&self, now: UnixMillis, limit: u32) -> Result<u32, StoreError>;
}
