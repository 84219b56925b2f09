// SPDX-License-Identifier: MIT OR Apache-2.0
//! Uploads, changed by compare-and-set alone. The database forgets them by itself (TTL).

use std::sync::Arc;

use async_trait::async_trait;
use pli_domain::limits::MEDIA_UPLOADS_MAX;
use pli_domain::{NoUpload, PartHash, UnixMillis, Upload, UploadId, UploadKey, UploadStage};
use pli_ports::{BeginUploadError, FinishUploadError, Media, PutPartError, StoreError};

use crate::codec::{Damaged, Decoded, id, millis, time};
use crate::locks::Turn;
use crate::statements::Statement;
use crate::store::{Op, Store};

/// An account whose uploads change so often under one call is answered with "try later".
const ROUNDS_MAX: u32 = 16;

/// [`Media`] on CQL.
pub(crate) struct CqlMedia {
    pub(crate) store: Arc<Store>,
}

/// bytes, expires_at, stage
type Row = (Option<i64>, Option<i64>, Option<i32>);

/// version, upload_id, bytes, expires_at, stage
type AccountRow = (Option<i64>, Option<Vec<u8>>, Option<i64>, Option<i64>, Option<i32>);

const OPEN: i32 = 0;
const FINISHED: i32 = 1;
const DELETED: i32 = 2;

const fn stage_number(stage: UploadStage) -> i32 {
    match stage {
        UploadStage::Open => OPEN,
        UploadStage::Finished => FINISHED,
        UploadStage::Deleted => DELETED,
    }
}

/// None for what is not there any more, or only in parts that have not gone yet.
fn upload((bytes, expires_at, stage): Row) -> Decoded<Option<Upload>> {
    let (Some(bytes), Some(expires_at), Some(stage)) = (bytes, expires_at, stage) else { return Ok(None) };
    let stage = match stage {
        OPEN => UploadStage::Open,
        FINISHED => UploadStage::Finished,
        DELETED => UploadStage::Deleted,
        _ => return Err(Damaged { what: "upload" }),
    };
    let bytes = u64::try_from(bytes).map_err(|_| Damaged { what: "upload" })?;
    Ok(Some(Upload { bytes, expires_at: time(expires_at), stage }))
}

fn hash(stored: &[u8]) -> Decoded<PartHash> {
    stored.try_into().map(PartHash::from_bytes).map_err(|_| Damaged { what: "part" })
}

/// What is known of an account when an upload is begun.
struct Account {
    version: Option<i64>,
    uploads: Vec<(UploadId, Upload)>,
}

fn too_often(op: Op) -> StoreError {
    StoreError::later(op.0, "the account's uploads change faster than they can be changed")
}

impl CqlMedia {
    async fn read(&self, op: Op, statement: Statement, key: UploadKey) -> Result<Option<Upload>, StoreError> {
        let row: Option<Row> =
            self.store.first(op, statement, (&key.account.as_bytes()[..], &key.id.as_bytes()[..])).await?;
        Ok(row.map(upload).transpose().map_err(op.damaged())?.flatten())
    }

    /// What was decided of it so far, while it lives.
    async fn live(&self, op: Op, key: UploadKey, now: UnixMillis) -> Result<Option<Upload>, StoreError> {
        Ok(self.read(op, Statement::ReadUploadDecided, key).await?.and_then(|found| found.live(now).ok()))
    }

    async fn account(&self, op: Op, key: UploadKey) -> Result<Account, StoreError> {
        let rows: Vec<AccountRow> =
            self.store.rows(op, Statement::ReadUploadsDecided, (&key.account.as_bytes()[..],)).await?;
        let version = rows.first().and_then(|row| row.0);
        let mut uploads = Vec::new();
        for (_, name, bytes, expires_at, stage) in rows {
            let Some(name) = name else { continue };
            if let Some(found) = upload((bytes, expires_at, stage)).map_err(op.damaged())? {
                uploads.push((id("upload", &name).map_err(op.damaged())?, found));
            }
        }
        Ok(Account { version, uploads })
    }

    /// Writes the row if no upload of the account was begun since `version` was read.
    async fn insert(&self, op: Op, key: UploadKey, upload: &Upload, version: Option<i64>) -> Result<bool, StoreError> {
        let (account, ttl) = (&key.account.as_bytes()[..], self.store.ttl(upload.expires_at));
        let drawn: i64 = rand::random();
        let bytes = i64::try_from(upload.bytes).map_err(|error| StoreError::never(op.0, error))?;
        let row = (account, &key.id.as_bytes()[..], bytes, millis(upload.expires_at), ttl);
        match version {
            None => {
                let values = (ttl, drawn, account, row.0, row.1, row.2, row.3, row.4);
                self.store.decide(op, Statement::BeginFirstUpload, values).await
            }
            Some(version) => {
                let values = (ttl, drawn, account, version, row.0, row.1, row.2, row.3, row.4);
                self.store.decide(op, Statement::BeginUpload, values).await
            }
        }
    }

    async fn set_stage(&self, op: Op, key: UploadKey, found: &Upload, stage: UploadStage) -> Result<bool, StoreError> {
        let ttl = self.store.ttl(found.expires_at);
        let (account, id) = (&key.account.as_bytes()[..], &key.id.as_bytes()[..]);
        let values = (ttl, stage_number(stage), account, id, stage_number(found.stage));
        self.store.decide(op, Statement::SetUploadStage, values).await
    }

    async fn stored_parts(
        &self,
        op: Op,
        statement: Statement,
        key: UploadKey,
    ) -> Result<Vec<(u32, PartHash)>, StoreError> {
        let key = (&key.account.as_bytes()[..], &key.id.as_bytes()[..]);
        let rows: Vec<(i32, Option<Vec<u8>>)> = self.store.rows(op, statement, key).await?;
        let part = |(number, stored): (i32, Option<Vec<u8>>)| {
            let number = u32::try_from(number).map_err(|_| Damaged { what: "part" })?;
            Ok(stored.map(|stored| hash(&stored)).transpose()?.map(|hash| (number, hash)))
        };
        let parts: Decoded<Vec<_>> = rows.into_iter().filter_map(|row| part(row).transpose()).collect();
        parts.map_err(op.damaged())
    }

    async fn stored_part(
        &self,
        op: Op,
        statement: Statement,
        (key, number): (UploadKey, u32),
    ) -> Result<Option<PartHash>, StoreError> {
        let number = i32::try_from(number).unwrap_or(i32::MAX);
        let key = (&key.account.as_bytes()[..], &key.id.as_bytes()[..], number);
        let row: Option<(Option<Vec<u8>>,)> = self.store.first(op, statement, key).await?;
        row.and_then(|(stored,)| stored).map(|stored| hash(&stored)).transpose().map_err(op.damaged())
    }
}

/// Whether the account has room for one more, and the first refusal that applies.
fn room(account: &Account, upload: &Upload, quota: u64, now: UnixMillis) -> Result<(), BeginUploadError> {
    let known = account.uploads.iter().filter(|(_, found)| found.expires_at > now);
    let (count, used) = known.fold((0, 0), |(count, used), (_, found)| (count + 1, used + found.counted(now)));
    if count >= MEDIA_UPLOADS_MAX {
        return Err(BeginUploadError::TooMany);
    }
    if upload.bytes > quota.saturating_sub(used) {
        return Err(BeginUploadError::Quota { used, quota });
    }
    Ok(())
}

#[async_trait]
impl Media for CqlMedia {
    async fn begin_upload(
        &self,
        key: UploadKey,
        upload: Upload,
        quota: u64,
        now: UnixMillis,
    ) -> Result<Upload, BeginUploadError> {
        const OP: Op = Op("begin an upload");
        let _turn = self.store.locks.turn(Turn::Uploads, &key.account.as_bytes()[..]).await;
        for _ in 0..ROUNDS_MAX {
            let account = self.account(OP, key).await?;
            // Also the win of an earlier round whose answer was lost.
            if let Some((_, found)) = account.uploads.iter().find(|(id, _)| *id == key.id) {
                let same = found.bytes == upload.bytes;
                return if same { Ok(found.live(now)?) } else { Err(BeginUploadError::IdTaken) };
            }
            room(&account, &upload, quota, now)?;
            if self.insert(OP, key, &upload, account.version).await? {
                return Ok(upload);
            }
        }
        Err(too_often(OP).into())
    }

    async fn upload(&self, key: UploadKey, now: UnixMillis) -> Result<Option<Upload>, StoreError> {
        const OP: Op = Op("read an upload");
        Ok(self.read(OP, Statement::ReadUpload, key).await?.and_then(|found| found.live(now).ok()))
    }

    async fn put_part(&self, key: UploadKey, number: u32, hash: PartHash, now: UnixMillis) -> Result<(), PutPartError> {
        const OP: Op = Op("put a part");
        let found = self.live(OP, key, now).await?.ok_or(NoUpload)?;
        found.part_bytes(number)?;
        let names = (&key.account.as_bytes()[..], &key.id.as_bytes()[..]);
        let row = i32::try_from(number).map_err(|error| StoreError::never(OP.0, error))?;
        for _ in 0..ROUNDS_MAX {
            let values = (names.0, names.1, row, &hash.as_bytes()[..], self.store.ttl(found.expires_at));
            if self.store.decide(OP, Statement::PutPart, values).await? {
                return Ok(());
            }
            match self.stored_part(OP, Statement::ReadPartDecided, (key, number)).await? {
                Some(stored) if stored == hash => return Ok(()),
                Some(_) => return Err(PutPartError::Conflict),
                // It has gone by itself meanwhile.
                None => {}
            }
        }
        Err(too_often(OP).into())
    }

    async fn part(&self, key: UploadKey, number: u32, now: UnixMillis) -> Result<Option<PartHash>, StoreError> {
        const OP: Op = Op("read a part");
        match self.upload(key, now).await? {
            Some(_) => self.stored_part(OP, Statement::ReadPart, (key, number)).await,
            None => Ok(None),
        }
    }

    async fn parts(&self, key: UploadKey, now: UnixMillis) -> Result<Vec<(u32, PartHash)>, StoreError> {
        const OP: Op = Op("read the parts of an upload");
        match self.upload(key, now).await? {
            Some(_) => self.stored_parts(OP, Statement::ReadParts, key).await,
            None => Ok(Vec::new()),
        }
    }

    async fn finish_upload(&self, key: UploadKey, now: UnixMillis) -> Result<(), FinishUploadError> {
        const OP: Op = Op("finish an upload");
        for _ in 0..ROUNDS_MAX {
            let found = self.live(OP, key, now).await?.ok_or(NoUpload)?;
            if found.stage == UploadStage::Finished {
                return Ok(());
            }
            let there = self.stored_parts(OP, Statement::ReadPartsDecided, key).await?;
            let lacks = |number: &u32| there.binary_search_by_key(number, |part| part.0).is_err();
            if let Some(number) = (1..=found.parts()).find(lacks) {
                return Err(FinishUploadError::Missing { number });
            }
            if self.set_stage(OP, key, &found, UploadStage::Finished).await? {
                return Ok(());
            }
        }
        Err(too_often(OP).into())
    }

    async fn delete_upload(&self, key: UploadKey, now: UnixMillis) -> Result<Option<Upload>, StoreError> {
        const OP: Op = Op("delete an upload");
        for _ in 0..ROUNDS_MAX {
            let found = self.read(OP, Statement::ReadUploadDecided, key).await?;
            let Some(found) = found.filter(|found| found.expires_at > now) else { return Ok(None) };
            let deleted = found.stage == UploadStage::Deleted;
            if deleted || self.set_stage(OP, key, &found, UploadStage::Deleted).await? {
                return Ok(Some(Upload { stage: UploadStage::Deleted, ..found }));
            }
        }
        Err(too_often(OP))
    }

    /// Nothing to do: they expire by themselves.
    async fn expire_uploads(&self, _now: UnixMillis, _limit: u32) -> Result<u32, StoreError> {
        Ok(0)
    }
}
