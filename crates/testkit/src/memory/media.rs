// SPDX-License-Identifier: MIT OR Apache-2.0
//! Uploads.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use pli_domain::limits::MEDIA_UPLOADS_MAX;
use pli_domain::{NoUpload, PartHash, UnixMillis, Upload, UploadKey, UploadStage};
use pli_ports::{BeginUploadError, FinishUploadError, Media, PutPartError, StoreError};

use super::{Inner, tables};

/// The model of [`Media`].
#[derive(Clone)]
pub struct MemoryMedia {
    world: Arc<Inner>,
}

struct Begun {
    upload: Upload,
    parts: BTreeMap<u32, PartHash>,
}

#[derive(Default)]
pub(super) struct State {
    uploads: BTreeMap<UploadKey, Begun>,
}

impl State {
    fn begin(
        &mut self,
        key: UploadKey,
        upload: Upload,
        quota: u64,
        now: UnixMillis,
    ) -> Result<Upload, BeginUploadError> {
        if let Some(found) = self.uploads.get(&key) {
            let same = found.upload.bytes == upload.bytes;
            return if same { Ok(found.upload.live(now)?) } else { Err(BeginUploadError::IdTaken) };
        }
        let known =
            self.uploads.iter().filter(|(other, begun)| other.account == key.account && begun.upload.expires_at > now);
        let (count, used) =
            known.fold((0, 0), |(count, used), (_, begun)| (count + 1, used + begun.upload.counted(now)));
        if count >= MEDIA_UPLOADS_MAX {
            return Err(BeginUploadError::TooMany);
        }
        if upload.bytes > quota.saturating_sub(used) {
            return Err(BeginUploadError::Quota { used, quota });
        }
        self.uploads.insert(key, Begun { upload, parts: BTreeMap::new() });
        Ok(upload)
    }

    fn live(&self, key: UploadKey, now: UnixMillis) -> Option<&Begun> {
        self.uploads.get(&key).filter(|begun| begun.upload.live(now).is_ok())
    }

    fn put(&mut self, key: UploadKey, number: u32, hash: PartHash, now: UnixMillis) -> Result<(), PutPartError> {
        let begun = self.uploads.get_mut(&key).ok_or(NoUpload)?;
        begun.upload.live(now)?.part_bytes(number)?;
        let stored = *begun.parts.entry(number).or_insert(hash);
        if stored == hash { Ok(()) } else { Err(PutPartError::Conflict) }
    }

    fn finish(&mut self, key: UploadKey, now: UnixMillis) -> Result<(), FinishUploadError> {
        let begun = self.uploads.get_mut(&key).ok_or(NoUpload)?;
        let mut numbers = 1..=begun.upload.live(now)?.parts();
        if let Some(number) = numbers.find(|number| !begun.parts.contains_key(number)) {
            return Err(FinishUploadError::Missing { number });
        }
        begun.upload.stage = UploadStage::Finished;
        Ok(())
    }

    fn delete(&mut self, key: UploadKey, now: UnixMillis) -> Option<Upload> {
        let begun = self.uploads.get_mut(&key).filter(|begun| begun.upload.expires_at > now)?;
        begun.upload.stage = UploadStage::Deleted;
        begun.parts.clear();
        Some(begun.upload)
    }

    fn expire(&mut self, now: UnixMillis, limit: u32) -> u32 {
        let expired = self.uploads.iter().filter(|(_, begun)| begun.upload.expires_at <= now).map(|(key, _)| *key);
        let expired: Vec<UploadKey> = expired.take(limit as usize).collect();
        expired.iter().for_each(|key| drop(self.uploads.remove(key)));
        u32::try_from(expired.len()).unwrap_or(u32::MAX)
    }
}

impl MemoryMedia {
    pub(super) fn new(world: Arc<Inner>) -> Self {
        Self { world }
    }
}

#[async_trait]
impl Media for MemoryMedia {
    async fn begin_upload(
        &self,
        key: UploadKey,
        upload: Upload,
        quota: u64,
        now: UnixMillis,
    ) -> Result<Upload, BeginUploadError> {
        tables::write(&self.world, "begin an upload", |state| state.media.begin(key, upload, quota, now)).await?
    }

    async fn upload(&self, key: UploadKey, now: UnixMillis) -> Result<Option<Upload>, StoreError> {
        let read = |state: &tables::State| state.media.live(key, now).map(|begun| begun.upload);
        tables::read(&self.world, "read an upload", read).await
    }

    async fn put_part(&self, key: UploadKey, number: u32, hash: PartHash, now: UnixMillis) -> Result<(), PutPartError> {
        tables::write(&self.world, "put a part", |state| state.media.put(key, number, hash, now)).await?
    }

    async fn part(&self, key: UploadKey, number: u32, now: UnixMillis) -> Result<Option<PartHash>, StoreError> {
        let read =
            |state: &tables::State| state.media.live(key, now).and_then(|begun| begun.parts.get(&number).copied());
        tables::read(&self.world, "read a part", read).await
    }

    async fn parts(&self, key: UploadKey, now: UnixMillis) -> Result<Vec<(u32, PartHash)>, StoreError> {
        let read = |state: &tables::State| {
            let live = state.media.live(key, now);
            live.map(|begun| begun.parts.iter().map(|(number, hash)| (*number, *hash)).collect()).unwrap_or_default()
        };
        tables::read(&self.world, "read the parts of an upload", read).await
    }

    async fn finish_upload(&self, key: UploadKey, now: UnixMillis) -> Result<(), FinishUploadError> {
        tables::write(&self.world, "finish an upload", |state| state.media.finish(key, now)).await?
    }

    async fn delete_upload(&self, key: UploadKey, now: UnixMillis) -> Result<Option<Upload>, StoreError> {
        tables::write(&self.world, "delete an upload", |state| state.media.delete(key, now)).await
    }

    async fn expire_uploads(&self, now: UnixMillis, limit: u32) -> Result<u32, StoreError> {
        tables::write(&self.world, "expire uploads", |state| state.media.expire(now, limit)).await
    }
}
