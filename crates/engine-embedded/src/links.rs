// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rendezvous and their blobs.

use async_trait::async_trait;
use bytes::Bytes;
use pli_domain::limits::RENDEZVOUS_BLOB_BYTES_MAX;
use pli_domain::{
    AccountId, DeviceAddress, DeviceId, NotAdmitted, Place, Rendezvous, RendezvousId, SecretHash, Side, UnixMillis,
};
use pli_ports::{
    Access, GetBlobError, JoinRendezvousError, Links, NewRendezvous, OpenRendezvousError, PutBlobError, StoreError,
};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::database::{damaged, millis, number};
use crate::store::{Ask, Store};

/// A row of `rendezvous_blob` goes with its rendezvous. `side` is 0 for the opener, 1 for the approver.
pub(crate) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS rendezvous (
    id BLOB PRIMARY KEY, opener BLOB NOT NULL, approver BLOB NOT NULL, expires INTEGER NOT NULL,
    account BLOB, device BLOB, opener_blobs INTEGER NOT NULL, approver_blobs INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS rendezvous_expiry ON rendezvous (expires);
CREATE TABLE IF NOT EXISTS rendezvous_blob (
    rendezvous BLOB NOT NULL, side INTEGER NOT NULL, number INTEGER NOT NULL, bytes BLOB NOT NULL,
    PRIMARY KEY (rendezvous, side, number)
) STRICT;";

const FIND: &str = "SELECT opener, approver, expires, account, device, opener_blobs, approver_blobs
    FROM rendezvous WHERE id = ?1";
const OPEN: &str = "INSERT INTO rendezvous (id, opener, approver, expires, opener_blobs, approver_blobs)
    VALUES (?1, ?2, ?3, ?4, 0, 0)";
const JOIN: &str = "UPDATE rendezvous SET account = ?2, device = ?3 WHERE id = ?1";
const COUNT: &str = "UPDATE rendezvous SET opener_blobs = ?2, approver_blobs = ?3 WHERE id = ?1";
const PUT: &str = "INSERT INTO rendezvous_blob (rendezvous, side, number, bytes) VALUES (?1, ?2, ?3, ?4)";
const BLOB: &str = "SELECT bytes FROM rendezvous_blob WHERE rendezvous = ?1 AND side = ?2 AND number = ?3";
const EXPIRED: &str = "SELECT id FROM rendezvous WHERE expires <= ?1 ORDER BY expires LIMIT ?2";
const DELETE: &str = "DELETE FROM rendezvous WHERE id = ?1";
const DELETE_BLOBS: &str = "DELETE FROM rendezvous_blob WHERE rendezvous = ?1";

/// What one call carries besides a blob, roughly.
const HEAD_BYTES: usize = 256;

const fn side_number(side: Side) -> i64 {
    match side {
        Side::Opener => 0,
        Side::Approver => 1,
    }
}

fn find(conn: &Connection, id: RendezvousId) -> rusqlite::Result<Option<Rendezvous>> {
    conn.prepare_cached(FIND)?.query_row([id.as_bytes()], rendezvous_of).optional()
}

fn rendezvous_of(row: &Row<'_>) -> rusqlite::Result<Rendezvous> {
    let joined = match (row.get::<_, Option<[u8; 16]>>(3)?, row.get::<_, Option<[u8; 16]>>(4)?) {
        (Some(account), Some(device)) => {
            Some(DeviceAddress { account: AccountId::from_bytes(account), device: DeviceId::from_bytes(device) })
        }
        _ => None,
    };
    let count = |column| u8::try_from(row.get::<_, i64>(column)?).map_err(damaged);
    Ok(Rendezvous {
        opener: SecretHash::from_bytes(row.get(0)?),
        approver: SecretHash::from_bytes(row.get(1)?),
        expires_at: UnixMillis(number(row.get(2)?)?),
        joined,
        opener_blobs: count(5)?,
        approver_blobs: count(6)?,
    })
}

/// What the database decided; a refusal changes nothing.
type Decided<T, E> = rusqlite::Result<Result<T, E>>;

fn open(conn: &Connection, new: &NewRendezvous, now: UnixMillis) -> Decided<UnixMillis, OpenRendezvousError> {
    let Some(found) = find(conn, new.id)? else {
        let (opener, approver) = (new.opener.as_bytes(), new.approver.as_bytes());
        let row = params![new.id.as_bytes(), opener, approver, millis(new.expires_at)];
        conn.prepare_cached(OPEN)?.execute(row)?;
        return Ok(Ok(new.expires_at));
    };
    Ok(match (found.opener, found.approver) == (new.opener, new.approver) {
        false => Err(OpenRendezvousError::IdTaken),
        true if now >= found.expires_at => Err(NotAdmitted::Gone.into()),
        true => Ok(found.expires_at),
    })
}

fn join(
    conn: &Connection,
    id: RendezvousId,
    (secret, device): (SecretHash, DeviceAddress),
    now: UnixMillis,
) -> Decided<UnixMillis, NotAdmitted> {
    let Some(found) = find(conn, id)? else { return Ok(Err(NotAdmitted::Gone)) };
    if let Err(refused) = found.may_join(secret, device, now) {
        return Ok(Err(refused));
    }
    if found.joined.is_none() {
        let row = params![id.as_bytes(), device.account.as_bytes(), device.device.as_bytes()];
        conn.prepare_cached(JOIN)?.execute(row)?;
    }
    Ok(Ok(found.expires_at))
}

fn put(conn: &Connection, access: &Access, number: u8, blob: &[u8]) -> Decided<(), PutBlobError> {
    let Some(found) = find(conn, access.id)? else { return Ok(Err(NotAdmitted::Gone.into())) };
    let side = match found.admit(&access.party, access.now) {
        Ok(side) => side,
        Err(refused) => return Ok(Err(refused.into())),
    };
    match found.place(side, number) {
        Err(refused) => return Ok(Err(refused.into())),
        Ok(Place::Before) => {
            let same = read(conn, access.id, side, number)?.is_some_and(|stored| stored == blob);
            return Ok(if same { Ok(()) } else { Err(PutBlobError::Conflict) });
        }
        Ok(Place::Next) => {}
    }
    let after = found.with_blob(side);
    conn.prepare_cached(PUT)?.execute(params![access.id.as_bytes(), side_number(side), number, blob])?;
    conn.prepare_cached(COUNT)?.execute(params![access.id.as_bytes(), after.opener_blobs, after.approver_blobs])?;
    Ok(Ok(()))
}

fn read(conn: &Connection, id: RendezvousId, side: Side, number: u8) -> rusqlite::Result<Option<Vec<u8>>> {
    let key = params![id.as_bytes(), side_number(side), number];
    conn.prepare_cached(BLOB)?.query_row(key, |row| row.get(0)).optional()
}

fn blob(conn: &Connection, access: &Access, number: u8) -> Decided<Option<Bytes>, NotAdmitted> {
    let Some(found) = find(conn, access.id)? else { return Ok(Err(NotAdmitted::Gone)) };
    let side = match found.admit(&access.party, access.now) {
        Ok(side) => side.other(),
        Err(refused) => return Ok(Err(refused)),
    };
    if !(1..=found.blobs(side)).contains(&number) {
        return Ok(Ok(None));
    }
    Ok(Ok(read(conn, access.id, side, number)?.map(Bytes::from)))
}

fn expire(conn: &Connection, now: UnixMillis, limit: u32) -> rusqlite::Result<u32> {
    let mut statement = conn.prepare_cached(EXPIRED)?;
    let ids = statement.query_map(params![millis(now), limit], |row| row.get(0))?;
    let expired = ids.collect::<Result<Vec<[u8; 16]>, _>>()?;
    for id in &expired {
        conn.prepare_cached(DELETE_BLOBS)?.execute([id])?;
        conn.prepare_cached(DELETE)?.execute([id])?;
    }
    Ok(u32::try_from(expired.len()).unwrap_or(limit))
}

/// [`Links`] on SQLite.
pub(crate) struct EmbeddedLinks {
    pub(crate) store: Store,
}

#[async_trait]
impl Links for EmbeddedLinks {
    async fn open_rendezvous(
        &self,
        rendezvous: NewRendezvous,
        now: UnixMillis,
    ) -> Result<UnixMillis, OpenRendezvousError> {
        let ask = Ask::growth("open a rendezvous", HEAD_BYTES);
        self.store.write(ask, move |conn| open(conn, &rendezvous, now)).await?
    }

    async fn join_rendezvous(
        &self,
        id: RendezvousId,
        who: (SecretHash, DeviceAddress),
        now: UnixMillis,
    ) -> Result<UnixMillis, JoinRendezvousError> {
        let ask = Ask::growth("join a rendezvous", HEAD_BYTES);
        Ok(self.store.write(ask, move |conn| join(conn, id, who, now)).await??)
    }

    async fn put_blob(&self, access: Access, number: u8, blob: Bytes) -> Result<(), PutBlobError> {
        const WHAT: &str = "put a blob of a rendezvous";
        if !(1..=RENDEZVOUS_BLOB_BYTES_MAX).contains(&blob.len()) {
            let text = format!("a blob has {} bytes; put 1 to {RENDEZVOUS_BLOB_BYTES_MAX}", blob.len());
            return Err(StoreError::never(WHAT, text).into());
        }
        let ask = Ask::growth(WHAT, HEAD_BYTES + blob.len());
        self.store.write(ask, move |conn| put(conn, &access, number, &blob)).await?
    }

    async fn blob(&self, access: Access, number: u8) -> Result<Option<Bytes>, GetBlobError> {
        let read = self.store.read("read a blob of a rendezvous", move |conn| blob(conn, &access, number));
        Ok(read.await??)
    }

    async fn expire_rendezvous(&self, now: UnixMillis, limit: u32) -> Result<u32, StoreError> {
        self.store.write(Ask::freeing("expire rendezvous", 0), move |conn| expire(conn, now, limit)).await
    }
}
