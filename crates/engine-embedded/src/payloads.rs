// SPDX-License-Identifier: MIT OR Apache-2.0
//! Payloads, kept in pieces so that a page reads no more than it needs.

use async_trait::async_trait;
use bytes::Bytes;
use pli_domain::limits::{PAGE_BYTES_MAX, PAYLOAD_BYTES_MAX};
use pli_domain::{PayloadId, UnixMillis};
use pli_ports::{PayloadPage, Payloads, StoreError};
use rusqlite::{Connection, OptionalExtension, params};

use crate::database::{millis, number};
use crate::store::{Ask, Store};

pub(crate) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS payload (
    number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, size INTEGER NOT NULL, expires INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS payload_expiry ON payload (expires);
CREATE TABLE IF NOT EXISTS payload_piece (key INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT;";

const PUT: &str = "INSERT INTO payload (id, size, expires) VALUES (?1, ?2, ?3)
    ON CONFLICT (id) DO UPDATE SET expires = max(expires, excluded.expires) RETURNING number";
const PUT_PIECE: &str = "INSERT OR IGNORE INTO payload_piece (key, bytes) VALUES (?1, ?2)";
const FIND: &str = "SELECT number, size FROM payload WHERE id = ?1 AND expires > ?2";
const PIECES: &str = "SELECT bytes FROM payload_piece WHERE key BETWEEN ?1 AND ?2 ORDER BY key";
const EXPIRED: &str = "SELECT number FROM payload WHERE expires <= ?1 ORDER BY expires LIMIT ?2";
const DELETE: &str = "DELETE FROM payload WHERE number = ?1";
const DELETE_PIECES: &str = "DELETE FROM payload_piece WHERE key BETWEEN ?1 AND ?2";

/// Bytes of one piece. Stored payloads are cut by it: it may not change without a new data version.
const PIECE_BYTES: usize = PAGE_BYTES_MAX;
/// Room for the pieces of one payload in the key of a piece.
const PIECES_MAX: i64 = 1 << 7;
const _: () = assert!(PAYLOAD_BYTES_MAX <= PIECES_MAX as usize * PIECE_BYTES, "the pieces of a payload fit its keys");

fn put(conn: &Connection, id: PayloadId, bytes: &[u8], expires_at: UnixMillis) -> rusqlite::Result<()> {
    // At most `PAYLOAD_BYTES_MAX`.
    let size = bytes.len() as i64;
    let row = params![id.as_bytes(), size, millis(expires_at)];
    let number: i64 = conn.prepare_cached(PUT)?.query_row(row, |row| row.get(0))?;
    for (piece, key) in bytes.chunks(PIECE_BYTES).zip(number * PIECES_MAX..) {
        conn.prepare_cached(PUT_PIECE)?.execute(params![key, piece])?;
    }
    Ok(())
}

fn page(conn: &Connection, id: PayloadId, offset: u64, now: UnixMillis) -> rusqlite::Result<Option<PayloadPage>> {
    let found = conn
        .prepare_cached(FIND)?
        .query_row(params![id.as_bytes(), millis(now)], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))
        .optional()?;
    let Some((payload, size)) = found else {
        return Ok(None);
    };
    let size = number(size)?;
    let offset = usize::try_from(offset.min(size)).unwrap_or(PAYLOAD_BYTES_MAX);
    let first = payload * PIECES_MAX + (offset / PIECE_BYTES) as i64;
    let last = (first + 1).min((payload + 1) * PIECES_MAX - 1);
    let mut statement = conn.prepare_cached(PIECES)?;
    let pieces = statement.query_map([first, last], |row| row.get::<_, Vec<u8>>(0))?.collect::<Result<Vec<_>, _>>()?;
    let bytes: Bytes = pieces.concat().into();
    let from = (offset % PIECE_BYTES).min(bytes.len());
    let to = (from + PAGE_BYTES_MAX).min(bytes.len());
    Ok(Some(PayloadPage { bytes: bytes.slice(from..to), size }))
}

fn expire(conn: &Connection, now: UnixMillis, limit: u32) -> rusqlite::Result<u32> {
    let mut statement = conn.prepare_cached(EXPIRED)?;
    let expired =
        statement.query_map(params![millis(now), limit], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
    for number in &expired {
        let pieces = [number * PIECES_MAX, (number + 1) * PIECES_MAX - 1];
        conn.prepare_cached(DELETE_PIECES)?.execute(pieces)?;
        conn.prepare_cached(DELETE)?.execute([number])?;
    }
    Ok(u32::try_from(expired.len()).unwrap_or(limit))
}

/// [`Payloads`] on SQLite.
pub(crate) struct EmbeddedPayloads {
    pub(crate) store: Store,
}

#[async_trait]
impl Payloads for EmbeddedPayloads {
    async fn put(&self, id: PayloadId, bytes: Bytes, expires_at: UnixMillis) -> Result<(), StoreError> {
        if bytes.len() > PAYLOAD_BYTES_MAX {
            let text = format!("a payload has {} bytes; store at most {PAYLOAD_BYTES_MAX}", bytes.len());
            return Err(StoreError::never("store a payload", text));
        }
        let ask = Ask::growth("store a payload", bytes.len());
        self.store.write(ask, move |conn| put(conn, id, &bytes, expires_at)).await
    }

    async fn page(&self, id: PayloadId, offset: u64, now: UnixMillis) -> Result<Option<PayloadPage>, StoreError> {
        self.store.read("read a payload", move |conn| page(conn, id, offset, now)).await
    }

    async fn expire(&self, now: UnixMillis, limit: u32) -> Result<u32, StoreError> {
        self.store.write(Ask::release("expire payloads", 0), move |conn| expire(conn, now, limit)).await
    }
}
