// SPDX-License-Identifier: MIT OR Apache-2.0
//! Uploads and the hashes of their parts.

use async_trait::async_trait;
use pli_domain::limits::MEDIA_UPLOADS_MAX;
use pli_domain::{NoUpload, PartHash, UnixMillis, Upload, UploadKey, UploadStage};
use pli_ports::{BeginUploadError, FinishUploadError, Media, PutPartError, StoreError};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::database::{damaged, millis, number};
use crate::store::{Ask, Store};

/// `stage` is 0 for open, 1 for finished, 2 for deleted. A row of `media_part` goes with its upload, or before it.
pub(crate) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS media_upload (
    account BLOB NOT NULL, id BLOB NOT NULL, bytes INTEGER NOT NULL, expires INTEGER NOT NULL, stage INTEGER NOT NULL,
    PRIMARY KEY (account, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS media_upload_expiry ON media_upload (expires);
CREATE TABLE IF NOT EXISTS media_part (
    account BLOB NOT NULL, upload BLOB NOT NULL, number INTEGER NOT NULL, sha256 BLOB NOT NULL,
    PRIMARY KEY (account, upload, number)
) STRICT, WITHOUT ROWID;";

const FIND: &str = "SELECT bytes, expires, stage FROM media_upload WHERE account = ?1 AND id = ?2";
const USED: &str = "SELECT count(*), coalesce(sum(CASE WHEN stage < 2 THEN bytes ELSE 0 END), 0)
    FROM media_upload WHERE account = ?1 AND expires > ?2";
const BEGIN: &str = "INSERT INTO media_upload (account, id, bytes, expires, stage) VALUES (?1, ?2, ?3, ?4, 0)";
const STAGE: &str = "UPDATE media_upload SET stage = ?3 WHERE account = ?1 AND id = ?2";
const PUT: &str = "INSERT INTO media_part (account, upload, number, sha256) VALUES (?1, ?2, ?3, ?4)";
const PART: &str = "SELECT sha256 FROM media_part WHERE account = ?1 AND upload = ?2 AND number = ?3";
const PARTS: &str = "SELECT number, sha256 FROM media_part WHERE account = ?1 AND upload = ?2 ORDER BY number";
const DELETE_PARTS: &str = "DELETE FROM media_part WHERE account = ?1 AND upload = ?2";
const EXPIRED: &str = "SELECT account, id FROM media_upload WHERE expires <= ?1 ORDER BY expires LIMIT ?2";
const DELETE: &str = "DELETE FROM media_upload WHERE account = ?1 AND id = ?2";

/// What one call carries, roughly.
const ROW_BYTES: usize = 128;

const fn stage_number(stage: UploadStage) -> i64 {
    match stage {
        UploadStage::Open => 0,
        UploadStage::Finished => 1,
        UploadStage::Deleted => 2,
    }
}

fn upload_of(row: &Row<'_>) -> rusqlite::Result<Upload> {
    let stage = match row.get::<_, i64>(2)? {
        0 => UploadStage::Open,
        1 => UploadStage::Finished,
        _ => UploadStage::Deleted,
    };
    Ok(Upload { bytes: number(row.get(0)?)?, expires_at: UnixMillis(number(row.get(1)?)?), stage })
}

fn find(conn: &Connection, key: UploadKey) -> rusqlite::Result<Option<Upload>> {
    let key = params![key.account.as_bytes(), key.id.as_bytes()];
    conn.prepare_cached(FIND)?.query_row(key, upload_of).optional()
}

fn live(conn: &Connection, key: UploadKey, now: UnixMillis) -> rusqlite::Result<Option<Upload>> {
    Ok(find(conn, key)?.and_then(|found| found.live(now).ok()))
}

fn set_stage(conn: &Connection, key: UploadKey, stage: UploadStage) -> rusqlite::Result<()> {
    let row = params![key.account.as_bytes(), key.id.as_bytes(), stage_number(stage)];
    conn.prepare_cached(STAGE)?.execute(row).map(drop)
}

/// What the database decided; a refusal changes nothing.
type Decided<T, E> = rusqlite::Result<Result<T, E>>;

fn begin(
    conn: &Connection,
    key: UploadKey,
    upload: Upload,
    quota: u64,
    now: UnixMillis,
) -> Decided<Upload, BeginUploadError> {
    if let Some(found) = find(conn, key)? {
        let same = found.bytes == upload.bytes;
        return Ok(if same { found.live(now).map_err(Into::into) } else { Err(BeginUploadError::IdTaken) });
    }
    let account = key.account.as_bytes();
    let used = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, number(row.get(1)?)?));
    let (count, used) = conn.prepare_cached(USED)?.query_row(params![account, millis(now)], used)?;
    if usize::try_from(count).map_err(damaged)? >= MEDIA_UPLOADS_MAX {
        return Ok(Err(BeginUploadError::TooMany));
    }
    if upload.bytes > quota.saturating_sub(used) {
        return Ok(Err(BeginUploadError::Quota { used, quota }));
    }
    let bytes = i64::try_from(upload.bytes).map_err(damaged)?;
    conn.prepare_cached(BEGIN)?.execute(params![account, key.id.as_bytes(), bytes, millis(upload.expires_at)])?;
    Ok(Ok(upload))
}

fn part(conn: &Connection, key: UploadKey, number: u32) -> rusqlite::Result<Option<PartHash>> {
    let key = params![key.account.as_bytes(), key.id.as_bytes(), number];
    conn.prepare_cached(PART)?.query_row(key, |row| row.get(0).map(PartHash::from_bytes)).optional()
}

fn parts(conn: &Connection, key: UploadKey) -> rusqlite::Result<Vec<(u32, PartHash)>> {
    let mut statement = conn.prepare_cached(PARTS)?;
    let row = |row: &Row<'_>| Ok((row.get(0)?, PartHash::from_bytes(row.get(1)?)));
    statement.query_map(params![key.account.as_bytes(), key.id.as_bytes()], row)?.collect()
}

fn put(conn: &Connection, key: UploadKey, number: u32, hash: PartHash, now: UnixMillis) -> Decided<(), PutPartError> {
    let Some(found) = live(conn, key, now)? else { return Ok(Err(NoUpload.into())) };
    if let Err(refused) = found.part_bytes(number) {
        return Ok(Err(refused.into()));
    }
    match part(conn, key, number)? {
        Some(stored) if stored == hash => Ok(Ok(())),
        Some(_) => Ok(Err(PutPartError::Conflict)),
        None => {
            let row = params![key.account.as_bytes(), key.id.as_bytes(), number, hash.as_bytes()];
            conn.prepare_cached(PUT)?.execute(row)?;
            Ok(Ok(()))
        }
    }
}

fn finish(conn: &Connection, key: UploadKey, now: UnixMillis) -> Decided<(), FinishUploadError> {
    let Some(found) = live(conn, key, now)? else { return Ok(Err(NoUpload.into())) };
    let there = parts(conn, key)?;
    let missing = (1..=found.parts()).find(|number| there.binary_search_by_key(number, |part| part.0).is_err());
    if let Some(number) = missing {
        return Ok(Err(FinishUploadError::Missing { number }));
    }
    set_stage(conn, key, UploadStage::Finished)?;
    Ok(Ok(()))
}

fn delete(conn: &Connection, key: UploadKey, now: UnixMillis) -> rusqlite::Result<Option<Upload>> {
    let Some(found) = find(conn, key)?.filter(|found| found.expires_at > now) else { return Ok(None) };
    conn.prepare_cached(DELETE_PARTS)?.execute(params![key.account.as_bytes(), key.id.as_bytes()])?;
    set_stage(conn, key, UploadStage::Deleted)?;
    Ok(Some(Upload { stage: UploadStage::Deleted, ..found }))
}

fn expire(conn: &Connection, now: UnixMillis, limit: u32) -> rusqlite::Result<u32> {
    let mut statement = conn.prepare_cached(EXPIRED)?;
    let keys = statement.query_map(params![millis(now), limit], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let expired = keys.collect::<Result<Vec<([u8; 16], [u8; 16])>, _>>()?;
    for (account, id) in &expired {
        conn.prepare_cached(DELETE_PARTS)?.execute([account, id])?;
        conn.prepare_cached(DELETE)?.execute([account, id])?;
    }
    Ok(u32::try_from(expired.len()).unwrap_or(limit))
}

/// [`Media`] on SQLite.
pub(crate) struct EmbeddedMedia {
    pub(crate) store: Store,
}

#[async_trait]
impl Media for EmbeddedMedia {
    async fn begin_upload(
        &self,
        key: UploadKey,
        upload: Upload,
        quota: u64,
        now: UnixMillis,
    ) -> Result<Upload, BeginUploadError> {
        let ask = Ask::growth("begin an upload", ROW_BYTES);
        self.store.write(ask, move |conn| begin(conn, key, upload, quota, now)).await?
    }

    async fn upload(&self, key: UploadKey, now: UnixMillis) -> Result<Option<Upload>, StoreError> {
        self.store.read("read an upload", move |conn| live(conn, key, now)).await
    }

    async fn put_part(&self, key: UploadKey, number: u32, hash: PartHash, now: UnixMillis) -> Result<(), PutPartError> {
        let ask = Ask::growth("put a part", ROW_BYTES);
        self.store.write(ask, move |conn| put(conn, key, number, hash, now)).await?
    }

    async fn part(&self, key: UploadKey, number: u32, now: UnixMillis) -> Result<Option<PartHash>, StoreError> {
        let read = move |conn: &Connection| match live(conn, key, now)? {
            Some(_) => part(conn, key, number),
            None => Ok(None),
        };
        self.store.read("read a part", read).await
    }

    async fn parts(&self, key: UploadKey, now: UnixMillis) -> Result<Vec<(u32, PartHash)>, StoreError> {
        let read = move |conn: &Connection| match live(conn, key, now)? {
            Some(_) => parts(conn, key),
            None => Ok(Vec::new()),
        };
        self.store.read("read the parts of an upload", read).await
    }

    async fn finish_upload(&self, key: UploadKey, now: UnixMillis) -> Result<(), FinishUploadError> {
        let ask = Ask::growth("finish an upload", ROW_BYTES);
        self.store.write(ask, move |conn| finish(conn, key, now)).await?
    }

    async fn delete_upload(&self, key: UploadKey, now: UnixMillis) -> Result<Option<Upload>, StoreError> {
        self.store.write(Ask::freeing("delete an upload", 0), move |conn| delete(conn, key, now)).await
    }

    async fn expire_uploads(&self, now: UnixMillis, limit: u32) -> Result<u32, StoreError> {
        self.store.write(Ask::freeing("expire uploads", 0), move |conn| expire(conn, now, limit)).await
    }
}
