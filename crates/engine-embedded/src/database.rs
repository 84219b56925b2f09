// SPDX-License-Identifier: MIT OR Apache-2.0
//! The SQLite database: its connections, settings and tables.

use std::path::Path;
use std::time::Duration;

use pli_domain::{InvalidShardMap, Position, ShardMap, UnixMillis};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use crate::folder::mark_of;
use crate::{EmbeddedOptions, Synchronous, accounts, conversations, device_queues, links, media, payloads, shard_log};

/// SQLite waits so long for a lock; only checkpoints and readers ever meet.
pub(crate) const BUSY_WAIT: Duration = Duration::from_secs(5);
/// The WAL is cut to this size when it begins anew, in bytes.
pub(crate) const WAL_BYTES_KEPT: u64 = 8 << 20;
/// Prepared statements kept per connection; all of them fit.
const STATEMENTS_KEPT: usize = 96;

/// SQLite's number for `auto_vacuum = INCREMENTAL`.
const INCREMENTAL: i64 = 2;

const CLUSTER: &str = "CREATE TABLE IF NOT EXISTS cluster (
    one INTEGER PRIMARY KEY CHECK (one = 1), shards INTEGER NOT NULL, key BLOB NOT NULL,
    opened INTEGER NOT NULL DEFAULT 0
) STRICT;";

/// Present only where a backup was restored: what clients are told so that they know their positions for those of
/// another history.
pub(crate) const HISTORY: &str =
    "CREATE TABLE IF NOT EXISTS history (one INTEGER PRIMARY KEY CHECK (one = 1), id BLOB NOT NULL) STRICT;";

/// Opens the connection of the writer thread and makes the tables.
pub(crate) fn open_writer(path: &Path, synchronous: Synchronous) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(path, flags() | OpenFlags::SQLITE_OPEN_CREATE)?;
    settle_in(&conn, 16 << 10)?;
    // Takes effect only before the first table exists; pages then move to the front in small steps. Setting it writes,
    // which a full disk would refuse.
    if conn.pragma_query_value(None, "auto_vacuum", |row| row.get::<_, i64>(0))? != INCREMENTAL {
        conn.pragma_update(None, "auto_vacuum", INCREMENTAL)?;
    }
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "synchronous", if synchronous == Synchronous::Full { "FULL" } else { "OFF" })?;
    // Checkpoints are the writer's own, so that their errors are seen.
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    conn.pragma_update(None, "journal_size_limit", WAL_BYTES_KEPT as i64)?;
    let schema = [
        "BEGIN IMMEDIATE;",
        CLUSTER,
        HISTORY,
        shard_log::SCHEMA,
        device_queues::SCHEMA,
        payloads::SCHEMA,
        accounts::SCHEMA,
        conversations::SCHEMA,
        links::SCHEMA,
        media::SCHEMA,
        "COMMIT;",
    ];
    conn.execute_batch(&schema.join("\n"))?;
    Ok(conn)
}

/// The id of the history that a restore began here; none where nothing was restored.
pub(crate) fn history(conn: &Connection) -> rusqlite::Result<Option<[u8; 16]>> {
    conn.query_row("SELECT id FROM history", [], |row| row.get(0)).optional()
}

/// Opens a connection that only reads.
pub(crate) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(path, flags())?;
    settle_in(&conn, 4 << 10)?;
    conn.pragma_update(None, "query_only", true)?;
    Ok(conn)
}

fn flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

fn settle_in(conn: &Connection, cache_kib: i64) -> rusqlite::Result<()> {
    conn.busy_timeout(BUSY_WAIT)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    // After a failed fsync nothing may write the WAL back; the clean end does it by itself.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    conn.pragma_update(None, "mmap_size", 0)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.pragma_update(None, "cache_size", -cache_kib)
}

/// Why the cluster is not to be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    #[error(transparent)]
    Invalid(#[from] InvalidShardMap),
    #[error("the database has another mark, or none")]
    Other,
    #[error(transparent)]
    Database(#[from] rusqlite::Error),
}

/// What is fixed when a folder is made.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) shard_map: ShardMap,
    /// Names this database in the folder's stamp.
    pub(crate) mark: String,
}

/// The folder's cluster, which must have the mark `stamped` if there is one; of a new folder, one with the wanted count
/// of shards and a random key.
pub(crate) fn cluster(
    conn: &Connection,
    options: &EmbeddedOptions,
    stamped: Option<&str>,
) -> Result<Cluster, ClusterError> {
    let read = "SELECT shards, key FROM cluster";
    let stored = conn.query_row(read, [], |row| Ok((row.get::<_, u32>(0)?, row.get::<_, [u8; 16]>(1)?))).optional()?;
    if stamped.is_some_and(|mark| stored.is_none_or(|(_, key)| mark_of(&key) != mark)) {
        return Err(ClusterError::Other);
    }
    if let Some((shards, key)) = stored {
        return Ok(Cluster { shard_map: ShardMap::new(shards, key)?, mark: mark_of(&key) });
    }
    let key: [u8; 16] = rand::random();
    let shard_map = ShardMap::new(options.shards, key)?;
    conn.execute("INSERT INTO cluster (one, shards, key) VALUES (1, ?1, ?2)", params![options.shards, key])?;
    Ok(Cluster { shard_map, mark: mark_of(&key) })
}

/// Counts this opening of the folder; on a full disk the count is not kept.
pub(crate) fn count_opening(conn: &Connection) -> rusqlite::Result<u64> {
    let before: i64 = conn.query_row("SELECT opened FROM cluster", [], |row| row.get(0))?;
    match conn.execute("UPDATE cluster SET opened = opened + 1", []) {
        Err(error) if error.sqlite_error_code() != Some(rusqlite::ErrorCode::DiskFull) => return Err(error),
        _ => {}
    }
    Ok(number(before)? + 1)
}

/// A position as it is stored.
pub(crate) fn stored(position: Position) -> i64 {
    // A position has 63 bits.
    i64::try_from(position.get()).unwrap_or(i64::MAX)
}

/// A stored position.
pub(crate) fn position(value: i64) -> rusqlite::Result<Position> {
    let out_of_range = || rusqlite::Error::IntegralValueOutOfRange(0, value);
    Position::from_u64(number(value)?).map_err(|_| out_of_range())
}

/// A stored number that is never negative.
pub(crate) fn number(value: i64) -> rusqlite::Result<u64> {
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(0, value))
}

/// A time as it is stored; what lies beyond 63 bits is as good as never.
pub(crate) fn millis(time: UnixMillis) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}

/// An error for stored bytes that this engine did not write.
pub(crate) fn damaged(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Blob, Box::new(error))
}
