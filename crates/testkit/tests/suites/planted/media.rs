// SPDX-License-Identifier: MIT OR Apache-2.0
//! Broken stores of uploads.

use std::sync::Arc;

use async_trait::async_trait;
use pli_domain::{AccountId, PartHash, UnixMillis, Upload, UploadKey};
use pli_ports::{BeginUploadError, FinishUploadError, Media, PutPartError, StoreError};
use pli_testkit::conformance;
use pli_testkit::memory::{MemoryMedia, MemoryWorld};

use super::caught;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    QuotaIgnored,
    QuotaCountedForAll,
    CountIgnored,
    LengthIgnored,
    LifeStartsAgain,
    NeverOver,
    PartReplaced,
    NumbersUnchecked,
    HolesFinished,
    PartsUnordered,
    AccountIgnored,
    DeletedBegunAgain,
    DeletedAnsweredOnce,
    LimitIgnored,
}

struct BrokenMedia {
    media: MemoryMedia,
    fault: Fault,
}

impl BrokenMedia {
    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn key(&self, key: UploadKey) -> UploadKey {
        let account = AccountId::from_bytes([0; 16]);
        if self.is(Fault::AccountIgnored) { UploadKey { account, ..key } } else { key }
    }

    fn now(&self, now: UnixMillis) -> UnixMillis {
        if self.is(Fault::NeverOver) { UnixMillis(0) } else { now }
    }
}

#[async_trait]
impl Media for BrokenMedia {
    async fn begin_upload(
        &self,
        key: UploadKey,
        upload: Upload,
        quota: u64,
        now: UnixMillis,
    ) -> Result<Upload, BeginUploadError> {
        let quota = if self.is(Fault::QuotaIgnored) { u64::MAX } else { quota };
        let quota = if self.is(Fault::QuotaCountedForAll) { quota / 2 } else { quota };
        match self.media.begin_upload(self.key(key), upload, quota, self.now(now)).await {
            Ok(_) if self.is(Fault::LifeStartsAgain) => Ok(upload),
            Err(BeginUploadError::TooMany) if self.is(Fault::CountIgnored) => Ok(upload),
            Err(BeginUploadError::IdTaken) if self.is(Fault::LengthIgnored) => Ok(upload),
            Err(BeginUploadError::NoUpload(_)) if self.is(Fault::DeletedBegunAgain) => Ok(upload),
            answer => answer,
        }
    }

    async fn upload(&self, key: UploadKey, now: UnixMillis) -> Result<Option<Upload>, StoreError> {
        self.media.upload(self.key(key), self.now(now)).await
    }

    async fn put_part(&self, key: UploadKey, number: u32, hash: PartHash, now: UnixMillis) -> Result<(), PutPartError> {
        match self.media.put_part(self.key(key), number, hash, self.now(now)).await {
            Err(PutPartError::Conflict) if self.is(Fault::PartReplaced) => Ok(()),
            Err(PutPartError::NoSuchPart(_)) if self.is(Fault::NumbersUnchecked) => Ok(()),
            answer => answer,
        }
    }

    async fn part(&self, key: UploadKey, number: u32, now: UnixMillis) -> Result<Option<PartHash>, StoreError> {
        self.media.part(self.key(key), number, self.now(now)).await
    }

    async fn parts(&self, key: UploadKey, now: UnixMillis) -> Result<Vec<(u32, PartHash)>, StoreError> {
        let mut parts = self.media.parts(self.key(key), self.now(now)).await?;
        if self.is(Fault::PartsUnordered) {
            parts.reverse();
        }
        Ok(parts)
    }

    async fn finish_upload(&self, key: UploadKey, now: UnixMillis) -> Result<(), FinishUploadError> {
        match self.media.finish_upload(self.key(key), self.now(now)).await {
            Err(FinishUploadError::Missing { .. }) if self.is(Fault::HolesFinished) => Ok(()),
            answer => answer,
        }
    }

    async fn delete_upload(&self, key: UploadKey, now: UnixMillis) -> Result<Option<Upload>, StoreError> {
        let before = self.media.upload(self.key(key), now).await?;
        let deleted = self.media.delete_upload(self.key(key), self.now(now)).await?;
        Ok(if self.is(Fault::DeletedAnsweredOnce) { before.and(deleted) } else { deleted })
    }

    async fn expire_uploads(&self, now: UnixMillis, limit: u32) -> Result<u32, StoreError> {
        let limit = if self.is(Fault::LimitIgnored) { u32::MAX } else { limit };
        self.media.expire_uploads(now, limit).await
    }
}

#[tokio::test(start_paused = true)]
async fn broken_media_are_caught() {
    for (fault, expected) in [
        (Fault::QuotaIgnored, "the_quota_counts_what_lives"),
        (Fault::QuotaIgnored, "racing_uploads_keep_the_quota"),
        (Fault::QuotaCountedForAll, "racing_uploads_keep_the_quota"),
        (Fault::CountIgnored, "so_many_uploads_are_begun_at_most"),
        (Fault::LengthIgnored, "an_id_with_another_length_is_refused"),
        (Fault::LifeStartsAgain, "beginning_again_is_answered_as_the_first_time"),
        (Fault::NeverOver, "everything_is_over_at_its_end"),
        (Fault::PartReplaced, "other_bytes_under_a_number_are_refused"),
        (Fault::PartReplaced, "racing_parts_of_one_number_are_noted_once"),
        (Fault::PartReplaced, "a_finished_upload_stays_as_it_is"),
        (Fault::NumbersUnchecked, "a_number_that_is_no_part_is_refused"),
        (Fault::HolesFinished, "an_upload_is_finished_when_it_is_whole"),
        (Fault::PartsUnordered, "an_upload_takes_its_parts_in_any_order"),
        (Fault::AccountIgnored, "accounts_are_apart"),
        (Fault::DeletedBegunAgain, "a_deleted_upload_is_gone_and_its_id_taken"),
        (Fault::DeletedAnsweredOnce, "a_deleted_upload_is_gone_and_its_id_taken"),
        (Fault::LimitIgnored, "expired_uploads_are_forgotten_within_a_limit"),
    ] {
        let open = move |world: &MemoryWorld| Arc::new(BrokenMedia { media: world.media(), fault }) as Arc<dyn Media>;
        caught(conformance::media::CASES, expected, open).await;
    }
}
