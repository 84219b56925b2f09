// SPDX-License-Identifier: MIT OR Apache-2.0
//! Device queues, registers and shard states.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use pli_domain::limits::SETTLE_ROWS_MAX;
use pli_domain::mutant::{Mutant, broken};
use pli_domain::{Checkpoint, DeviceId, EntryId, EntryRef, LogEpoch, Position, Seq, ShardId, UnixMillis};
use pli_ports::{
    DeviceQueues, DeviceRegister, DeviceState, LogEpochStart, Page, PageQuery, QueueRow, ReleaseMark, Settle,
    ShardState, StoreError, Usage, UsageBound,
};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::database::{damaged, millis, number, position, stored};
use crate::stats::Counters;
use crate::store::{Ask, Store};

/// Rows stand in the order they were written, which packs pages; the index gives each queue its order. What is deleted
/// leaves holes in the numbers, by which sparse pages are found ([`sparse`]) and emptied ([`compact`]). A removed
/// device keeps its row in `device`, with `trimmed` at the highest position, so that nothing of it comes back.
pub(crate) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS queue (
    number INTEGER PRIMARY KEY, device BLOB NOT NULL, position INTEGER NOT NULL, expires INTEGER NOT NULL, envelope BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS queue_order ON queue (device, position);
CREATE INDEX IF NOT EXISTS queue_expiry ON queue (expires);
CREATE TABLE IF NOT EXISTS device (
    id BLOB PRIMARY KEY, cursor INTEGER NOT NULL, floor INTEGER NOT NULL, trimmed INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS shard_state (
    shard INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL DEFAULT 0, epoch_first INTEGER NOT NULL DEFAULT 0,
    mark_epoch INTEGER, mark_seq INTEGER, mark_entry BLOB,
    checkpoint INTEGER NOT NULL DEFAULT 0, checkpoint_entry BLOB
) STRICT;
CREATE TABLE IF NOT EXISTS aside (
    shard INTEGER NOT NULL, seq INTEGER NOT NULL, entry BLOB NOT NULL, bytes BLOB NOT NULL,
    PRIMARY KEY (shard, seq, entry)
) STRICT;";

const REMOVED: i64 = i64::MAX;

const PUT_ASIDE: &str = "INSERT OR IGNORE INTO aside (shard, seq, entry, bytes) VALUES (?1, ?2, ?3, ?4)";
const PUT_ROW: &str = "INSERT OR IGNORE INTO queue (device, position, expires, envelope) VALUES (?1, ?2, ?3, ?4)";
const TRIMMED: &str = "SELECT trimmed FROM device WHERE id = ?1";
const RAISE_REGISTER: &str = "INSERT INTO device (id, cursor, floor, trimmed) VALUES (?1, ?2, ?3, 0)
    ON CONFLICT (id) DO UPDATE SET cursor = max(cursor, excluded.cursor), floor = max(floor, excluded.floor)
    WHERE trimmed < 9223372036854775807";
const CHECKPOINT: &str = "SELECT checkpoint, checkpoint_entry FROM shard_state WHERE shard = ?1";
const PUT_CHECKPOINT: &str = "INSERT INTO shard_state (shard, checkpoint, checkpoint_entry) VALUES (?1, ?2, ?3)
    ON CONFLICT (shard) DO UPDATE SET checkpoint = excluded.checkpoint, checkpoint_entry = excluded.checkpoint_entry";
const READ_PAGE: &str = "SELECT position, expires, envelope FROM queue
    WHERE device = ?1 AND position > ?2 AND position <= ?3 AND expires > ?4 ORDER BY position LIMIT ?5";
const STATE: &str = "SELECT epoch, epoch_first, mark_epoch, mark_seq, mark_entry, checkpoint, checkpoint_entry
    FROM shard_state WHERE shard = ?1";
const ASIDE_COUNT: &str = "SELECT count(*) FROM aside WHERE shard = ?1";
const CLEAR_MARK: &str =
    "UPDATE shard_state SET mark_epoch = NULL, mark_seq = NULL, mark_entry = NULL WHERE shard = ?1";
const PUT_MARK: &str = "UPDATE shard_state SET mark_epoch = ?2, mark_seq = ?3, mark_entry = ?4 WHERE shard = ?1";
const PUT_EPOCH: &str = "INSERT INTO shard_state (shard, epoch, epoch_first) VALUES (?1, ?2, ?3)
    ON CONFLICT (shard) DO UPDATE SET epoch = excluded.epoch, epoch_first = excluded.epoch_first,
    mark_epoch = NULL, mark_seq = NULL, mark_entry = NULL";
const REGISTER: &str = "SELECT cursor, floor FROM device WHERE id = ?1";
const TRIM_ROWS: &str = "DELETE FROM queue WHERE device = ?1 AND position <= ?2";
const RAISE_TRIMMED: &str = "UPDATE device SET trimmed = max(trimmed, ?2) WHERE id = ?1";
const USAGE: &str = "SELECT position, length(envelope) FROM queue
    WHERE device = ?1 AND position > ?2 AND expires > ?3 ORDER BY position DESC";
const REMOVE_ROWS: &str = "DELETE FROM queue WHERE device = ?1";
const REMOVE_DEVICE: &str = "INSERT INTO device (id, cursor, floor, trimmed) VALUES (?1, 0, 0, 9223372036854775807)
    ON CONFLICT (id) DO UPDATE SET cursor = 0, floor = 0, trimmed = excluded.trimmed";
const EXPIRE_ROWS: &str =
    "DELETE FROM queue WHERE number IN (SELECT number FROM queue WHERE expires <= ?1 ORDER BY expires LIMIT ?2)";
const SPAN: &str = "SELECT count(*), coalesce(min(number), 0), coalesce(max(number), -1) FROM queue";
const OLDEST: &str = "SELECT number FROM queue ORDER BY number LIMIT ?1";
const RENUMBER: &str = "UPDATE queue SET number = (SELECT max(number) FROM queue) + 1 WHERE number = ?1";

fn settle(conn: &Connection, shard: ShardId, settle: &Settle) -> rusqlite::Result<()> {
    for aside in &settle.aside {
        let seq = aside.entry.seq.get() as i64;
        conn.prepare_cached(PUT_ASIDE)?.execute(params![
            shard.get(),
            seq,
            aside.entry.id.as_bytes(),
            &aside.bytes[..]
        ])?;
    }
    put_rows(conn, &settle.rows)?;
    for register in &settle.registers {
        raise(conn, register)?;
    }
    settle.checkpoint.map_or(Ok(()), |checkpoint| raise_checkpoint(conn, shard, checkpoint))
}

fn put_rows(conn: &Connection, rows: &[QueueRow]) -> rusqlite::Result<()> {
    let mut put = conn.prepare_cached(PUT_ROW)?;
    let mut known: Option<(DeviceId, i64)> = None;
    for row in rows {
        let trimmed = match known {
            Some((device, trimmed)) if device == row.device => trimmed,
            _ => trimmed(conn, row.device)?,
        };
        known = Some((row.device, trimmed));
        if stored(row.position) > trimmed {
            let (device, expires) = (row.device.as_bytes(), millis(row.expires_at));
            put.execute(params![device, stored(row.position), expires, &row.envelope[..]])?;
        }
    }
    Ok(())
}

/// Rows of the device at or below this stay deleted; -1 for a device without a register, so that even position 0 is
/// written.
fn trimmed(conn: &Connection, device: DeviceId) -> rusqlite::Result<i64> {
    let found = conn.prepare_cached(TRIMMED)?.query_row([device.as_bytes()], |row| row.get(0)).optional()?;
    Ok(found.unwrap_or(-1))
}

fn raise(conn: &Connection, register: &DeviceRegister) -> rusqlite::Result<()> {
    let cursor = stored(register.cursor.unwrap_or(Position::ZERO));
    let floor = stored(register.floor.unwrap_or(Position::ZERO));
    conn.prepare_cached(RAISE_REGISTER)?.execute(params![register.device.as_bytes(), cursor, floor])?;
    Ok(())
}

fn raise_checkpoint(conn: &Connection, shard: ShardId, checkpoint: Checkpoint) -> rusqlite::Result<()> {
    let read = |row: &Row<'_>| checkpoint_of(row, 0);
    let before = conn.prepare_cached(CHECKPOINT)?.query_row([shard.get()], read).optional()?;
    if checkpoint > before.unwrap_or(Checkpoint::ZERO) {
        let entry = checkpoint.entry.map(|id| *id.as_bytes());
        conn.prepare_cached(PUT_CHECKPOINT)?.execute(params![shard.get(), stored(checkpoint.position), entry])?;
    }
    Ok(())
}

fn checkpoint_of(row: &Row<'_>, at: usize) -> rusqlite::Result<Checkpoint> {
    let entry = row.get::<_, Option<[u8; 16]>>(at + 1)?.map(EntryId::from_bytes);
    Ok(Checkpoint { position: position(row.get(at)?)?, entry })
}

pub(crate) fn shard_state(conn: &Connection, shard: ShardId) -> rusqlite::Result<ShardState> {
    let found = conn.prepare_cached(STATE)?.query_row([shard.get()], state_of).optional()?;
    let fresh = LogEpochStart { epoch: LogEpoch::NONE, first: Seq::ZERO };
    let (log_epoch, mark, checkpoint) = found.unwrap_or((fresh, None, Checkpoint::ZERO));
    let aside = conn.prepare_cached(ASIDE_COUNT)?.query_row([shard.get()], |row| row.get(0))?;
    Ok(ShardState { log_epoch, mark, checkpoint, aside })
}

fn state_of(row: &Row<'_>) -> rusqlite::Result<(LogEpochStart, Option<ReleaseMark>, Checkpoint)> {
    let log_epoch = LogEpochStart { epoch: epoch(row.get(0)?)?, first: seq(row.get(1)?)? };
    let mark = match row.get::<_, Option<i64>>(2)? {
        None => None,
        Some(marked) => Some(ReleaseMark { epoch: epoch(marked)?, last: mark_entry(row)? }),
    };
    Ok((log_epoch, mark, checkpoint_of(row, 5)?))
}

fn mark_entry(row: &Row<'_>) -> rusqlite::Result<Option<EntryRef>> {
    let id = row.get::<_, Option<[u8; 16]>>(4)?.map(EntryId::from_bytes);
    id.map(|id| Ok(EntryRef { seq: seq(row.get(3)?)?, id })).transpose()
}

fn epoch(value: i64) -> rusqlite::Result<LogEpoch> {
    LogEpoch::new(number(value)?).map_err(damaged)
}

fn seq(value: i64) -> rusqlite::Result<Seq> {
    Seq::new(number(value)?).map_err(damaged)
}

fn take_mark(conn: &Connection, shard: ShardId) -> rusqlite::Result<ShardState> {
    let state = shard_state(conn, shard)?;
    if state.mark.is_some() && !broken(Mutant::MarkNotCleared) {
        conn.prepare_cached(CLEAR_MARK)?.execute([shard.get()])?;
    }
    Ok(state)
}

fn put_mark(conn: &Connection, shard: ShardId, mark: ReleaseMark) -> rusqlite::Result<bool> {
    if shard_state(conn, shard)?.log_epoch.epoch != mark.epoch {
        return Ok(false);
    }
    let (seq, id) = (mark.last.map(|last| last.seq.get() as i64), mark.last.map(|last| *last.id.as_bytes()));
    conn.prepare_cached(PUT_MARK)?.execute(params![shard.get(), mark.epoch.get() as i64, seq, id])?;
    Ok(true)
}

pub(crate) fn begin_log_epoch(
    conn: &Connection,
    shard: ShardId,
    from: LogEpoch,
    to: LogEpochStart,
) -> rusqlite::Result<bool> {
    let current = shard_state(conn, shard)?.log_epoch;
    if current.epoch != from {
        return Ok(current == to);
    }
    let (epoch, first) = (to.epoch.get() as i64, to.first.get() as i64);
    conn.prepare_cached(PUT_EPOCH)?.execute(params![shard.get(), epoch, first])?;
    Ok(true)
}

fn read_page(conn: &Connection, query: &PageQuery) -> rusqlite::Result<Page> {
    let rows_max = query.rows_max.max(1);
    let limit = i64::try_from(rows_max).map_or(i64::MAX, |rows| rows.saturating_add(1));
    let mut statement = conn.prepare_cached(READ_PAGE)?;
    let (after, through) = (stored(query.after), stored(query.through));
    let mut found = statement.query(params![query.device.as_bytes(), after, through, millis(query.now), limit])?;
    let (mut rows, mut bytes) = (Vec::<QueueRow>::new(), 0usize);
    while let Some(row) = found.next()? {
        if let Some(last) = rows.last()
            && (rows.len() == rows_max || bytes > query.bytes_max)
        {
            let next = last.position;
            return Ok(Page { rows, next });
        }
        let envelope = Bytes::from(row.get::<_, Vec<u8>>(2)?);
        bytes = bytes.saturating_add(envelope.len());
        let expires_at = UnixMillis(number(row.get(1)?)?);
        rows.push(QueueRow { device: query.device, position: position(row.get(0)?)?, expires_at, envelope });
    }
    Ok(Page { rows, next: query.through })
}

fn device_state(conn: &Connection, device: DeviceId) -> rusqlite::Result<DeviceState> {
    let read = |row: &Row<'_>| Ok(DeviceState { cursor: position(row.get(0)?)?, floor: position(row.get(1)?)? });
    let found = conn.prepare_cached(REGISTER)?.query_row([device.as_bytes()], read).optional()?;
    Ok(found.unwrap_or(DeviceState { cursor: Position::ZERO, floor: Position::ZERO }))
}

/// How many rows were deleted; none at all when a trim lies above what its device has acknowledged (Q5).
fn trim(conn: &Connection, trims: &BTreeMap<DeviceId, Position>) -> rusqlite::Result<Option<usize>> {
    for (&device, &through) in trims {
        let state = device_state(conn, device)?;
        let removed = trimmed(conn, device)? == REMOVED;
        if through > state.cursor.max(state.floor) && !removed {
            return Ok(None);
        }
    }
    let mut deleted = 0;
    for (device, &through) in trims {
        deleted += conn.prepare_cached(TRIM_ROWS)?.execute(params![device.as_bytes(), stored(through)])?;
        conn.prepare_cached(RAISE_TRIMMED)?.execute(params![device.as_bytes(), stored(through)])?;
    }
    Ok(Some(deleted))
}

fn usage(
    conn: &Connection,
    device: DeviceId,
    above: Position,
    bound: UsageBound,
    now: UnixMillis,
) -> rusqlite::Result<Usage> {
    let mut statement = conn.prepare_cached(USAGE)?;
    let mut found = statement.query(params![device.as_bytes(), stored(above), millis(now)])?;
    let mut usage = Usage { rows: 0, bytes: 0, excess: None };
    while let Some(row) = found.next()? {
        usage.rows += 1;
        usage.bytes = usage.bytes.saturating_add(row.get::<_, u32>(1)? as usize);
        if usage.rows > bound.rows_max || usage.bytes > bound.bytes_max {
            usage.excess = Some(position(row.get(0)?)?);
            break;
        }
    }
    Ok(usage)
}

fn remove_device(conn: &Connection, device: DeviceId) -> rusqlite::Result<()> {
    conn.prepare_cached(REMOVE_ROWS)?.execute([device.as_bytes()])?;
    conn.prepare_cached(REMOVE_DEVICE)?.execute([device.as_bytes()])?;
    Ok(())
}

/// Deletes rows that expired at or before `now`, at most `limit`; answers how many.
pub(crate) fn expire_rows(conn: &Connection, now: UnixMillis, limit: u32) -> rusqlite::Result<usize> {
    conn.prepare_cached(EXPIRE_ROWS)?.execute(params![millis(now), limit])
}

/// Holes among the numbers of the rows that are not worth closing.
const HOLES_KEPT: i64 = 8_192;

/// Whether so many rows were deleted among others that the pages of the table are sparse: more than a quarter of the
/// numbers in use are holes.
pub(crate) fn sparse(conn: &Connection) -> rusqlite::Result<bool> {
    let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
    let (rows, first, last) = conn.prepare_cached(SPAN)?.query_row([], read)?;
    let holes = last - first + 1 - rows;
    Ok(holes > HOLES_KEPT && holes > rows / 3)
}

/// Moves the `limit` first rows of the table to its end, where pages are full.
pub(crate) fn compact(conn: &Connection, limit: u32) -> rusqlite::Result<()> {
    let mut oldest = conn.prepare_cached(OLDEST)?;
    let numbers = oldest.query_map([limit], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
    let mut renumber = conn.prepare_cached(RENUMBER)?;
    for number in numbers {
        renumber.execute([number])?;
    }
    Ok(())
}

/// [`DeviceQueues`] on SQLite. Each call is one transaction.
pub(crate) struct EmbeddedDeviceQueues {
    pub(crate) store: Store,
    pub(crate) counters: Arc<Counters>,
}

#[async_trait]
impl DeviceQueues for EmbeddedDeviceQueues {
    async fn settle(&self, shard: ShardId, step: Settle) -> Result<(), StoreError> {
        if step.rows.len() > SETTLE_ROWS_MAX {
            let text = format!("{} rows; settle at most {SETTLE_ROWS_MAX} at a time", step.rows.len());
            return Err(StoreError::never("settle", text));
        }
        let bodies: usize = step.rows.iter().map(|row| row.envelope.len() + 64).sum();
        let asides: usize = step.aside.iter().map(|aside| aside.bytes.len()).sum();
        let bytes = bodies + asides + step.registers.len() * 64;
        let ask = if bodies + asides > 0 { Ask::relief } else { Ask::release }("settle", bytes);
        self.store.write(ask, move |conn| settle(conn, shard, &step)).await
    }

    async fn read_page(&self, query: PageQuery) -> Result<Page, StoreError> {
        self.store.read("read a page", move |conn| read_page(conn, &query)).await
    }

    async fn shard_state(&self, shard: ShardId) -> Result<ShardState, StoreError> {
        let read = move |conn: &Connection| {
            let snapshot = conn.unchecked_transaction()?;
            let state = shard_state(&snapshot, shard)?;
            snapshot.finish().map(|()| state)
        };
        self.store.read("read a shard's state", read).await
    }

    async fn take_mark(&self, shard: ShardId) -> Result<ShardState, StoreError> {
        self.store.write(Ask::release("take a release mark", 0), move |conn| take_mark(conn, shard)).await
    }

    async fn put_mark(&self, shard: ShardId, mark: ReleaseMark) -> Result<bool, StoreError> {
        self.store.write(Ask::release("leave a release mark", 0), move |conn| put_mark(conn, shard, mark)).await
    }

    async fn begin_log_epoch(&self, shard: ShardId, from: LogEpoch, to: LogEpochStart) -> Result<bool, StoreError> {
        let ask = Ask::release("begin a log epoch", 0);
        self.store.write(ask, move |conn| begin_log_epoch(conn, shard, from, to)).await
    }

    async fn device_states(&self, devices: &[DeviceId]) -> Result<Vec<DeviceState>, StoreError> {
        let devices = devices.to_vec();
        let read = move |conn: &Connection| devices.iter().map(|&device| device_state(conn, device)).collect();
        self.store.read("read device states", read).await
    }

    async fn trim(&self, trims: Vec<(DeviceId, Position)>) -> Result<(), StoreError> {
        let mut highest = BTreeMap::new();
        for (device, through) in trims {
            let known = highest.entry(device).or_insert(through);
            *known = through.max(*known);
        }
        let ask = Ask::release("trim queues", highest.len() * 64);
        let counters = Arc::clone(&self.counters);
        let count = move |deleted: &Option<usize>| counters.deleted_rows(deleted.unwrap_or(0) as u64);
        if self.store.write_then(ask, move |conn| trim(conn, &highest), count).await?.is_some() {
            return Ok(());
        }
        Err(StoreError::never("trim queues", "a trim lies above the device's stored cursor and floor"))
    }

    async fn usage(
        &self,
        device: DeviceId,
        above: Position,
        bound: UsageBound,
        now: UnixMillis,
    ) -> Result<Usage, StoreError> {
        self.store.read("count a queue", move |conn| usage(conn, device, above, bound, now)).await
    }

    async fn remove_device(&self, device: DeviceId) -> Result<(), StoreError> {
        self.store.write(Ask::release("remove a device", 0), move |conn| remove_device(conn, device)).await
    }
}
