// SPDX-License-Identifier: MIT OR Apache-2.0
//! Payloads, in pieces so that a page reads no more than it needs. The head is written last: a payload is there whole
//! or not at all. The database forgets them by itself (TTL).

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use pli_domain::limits::{PAGE_BYTES_MAX, PAYLOAD_BYTES_MAX};
use pli_domain::{PayloadId, UnixMillis};
use pli_ports::{PayloadPage, Payloads, StoreError};

use crate::codec::{Damaged, millis, time};
use crate::statements::Statement;
use crate::store::{Op, Store};

/// Bytes of one piece. Stored payloads are cut by it: it may not change without a new schema version.
const PIECE_BYTES: usize = PAGE_BYTES_MAX;
/// Pieces of one payload on their way at once: they share a partition.
const PIECES_IN_FLIGHT: usize = 8;

/// [`Payloads`] on CQL.
pub(crate) struct CqlPayloads {
    pub(crate) store: Arc<Store>,
}

/// piece, size, expires_at, bytes
type PieceRow = (i32, Option<i64>, Option<i64>, Option<Bytes>);

#[async_trait]
impl Payloads for CqlPayloads {
    async fn put(&self, id: PayloadId, bytes: Bytes, expires_at: UnixMillis) -> Result<(), StoreError> {
        const OP: Op = Op("store a payload");
        if bytes.len() > PAYLOAD_BYTES_MAX {
            let text = format!("a payload has {} bytes; store at most {PAYLOAD_BYTES_MAX}", bytes.len());
            return Err(StoreError::never(OP.0, text));
        }
        // The later expiry is the later write: whatever the order, it holds.
        let (key, stamp, ttl) = (&id.as_bytes()[..], millis(expires_at), self.store.ttl(expires_at));
        let pieces = (0..bytes.len()).step_by(PIECE_BYTES).zip(0i32..);
        let writes = pieces.map(|(from, piece)| {
            let part = bytes.slice(from..(from + PIECE_BYTES).min(bytes.len()));
            self.store.write(OP, Statement::PutPiece, (key, piece, part, stamp, ttl))
        });
        // Collected, because a future that holds a lazy iterator over borrowed data is not Send for every lifetime.
        let writes: Vec<_> = writes.collect();
        futures::stream::iter(writes).buffer_unordered(PIECES_IN_FLIGHT).try_collect::<()>().await?;
        let size = bytes.len() as i64;
        self.store.write(OP, Statement::PutPayload, (key, size, stamp, stamp, ttl)).await
    }

    async fn page(&self, id: PayloadId, offset: u64, now: UnixMillis) -> Result<Option<PayloadPage>, StoreError> {
        const OP: Op = Op("read a payload");
        let offset = usize::try_from(offset).unwrap_or(PAYLOAD_BYTES_MAX).min(PAYLOAD_BYTES_MAX);
        // At most 87.
        let first = (offset / PIECE_BYTES) as i32;
        let key = (&id.as_bytes()[..], first, first + 1);
        let rows: Vec<PieceRow> = self.store.rows(OP, Statement::ReadPieces, key).await?;
        let Some(&(-1, Some(size), Some(expires_at), _)) = rows.first() else { return Ok(None) };
        if time(expires_at) <= now {
            return Ok(None);
        }
        let pieces: Vec<Bytes> = rows.into_iter().skip(1).filter_map(|(.., bytes)| bytes).collect();
        let bytes: Bytes = pieces.concat().into();
        let size = u64::try_from(size).unwrap_or(0);
        let from = (offset % PIECE_BYTES).min(bytes.len());
        let to = (from + PAGE_BYTES_MAX).min(bytes.len());
        let expected = (size.saturating_sub(offset as u64)).min(PAGE_BYTES_MAX as u64);
        if (to - from) as u64 != expected {
            return Err(StoreError::never(OP.0, Damaged { what: "payload" }));
        }
        Ok(Some(PayloadPage { bytes: bytes.slice(from..to), size }))
    }

    /// Nothing to do: they expire by themselves.
    async fn expire(&self, _now: UnixMillis, _limit: u32) -> Result<u32, StoreError> {
        Ok(0)
    }
}
