// SPDX-License-Identifier: MIT OR Apache-2.0
//! Uploads: who has begun which, which parts are there, and how much of an account's room they take. The bytes of the
//! parts lie in an object store; an engine keeps their hashes.

use async_trait::async_trait;
use pli_domain::{NoSuchPart, NoUpload, PartHash, UnixMillis, Upload, UploadKey};

use crate::StoreError;

/// Why an upload was not begun.
#[derive(Debug, thiserror::Error)]
pub enum BeginUploadError {
    /// The account has an upload of this id with another length.
    #[error("the account has an upload of this id with another length; draw a new random id")]
    IdTaken,
    /// It was begun like this, and is over or deleted.
    #[error(transparent)]
    NoUpload(#[from] NoUpload),
    /// It would take more room than the account has.
    #[error("the account's uploads take {used} bytes of {quota}; delete one, or wait until one expires")]
    Quota {
        /// What they take now.
        used: u64,
        /// What they may take.
        quota: u64,
    },
    /// The account has begun [`pli_domain::limits::MEDIA_UPLOADS_MAX`] that have not expired, deleted ones counted.
    #[error("the account has begun as many uploads as it may in 7 days; wait until one expires")]
    TooMany,
    /// The engine could not tell.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a part was not noted.
#[derive(Debug, thiserror::Error)]
pub enum PutPartError {
    /// Nothing takes parts.
    #[error(transparent)]
    NoUpload(#[from] NoUpload),
    /// Not one of its parts.
    #[error(transparent)]
    NoSuchPart(#[from] NoSuchPart),
    /// Other bytes were put under this number.
    #[error("other bytes were put under this number; a part is never replaced: begin a new upload")]
    Conflict,
    /// The engine could not tell.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an upload is not whole.
#[derive(Debug, thiserror::Error)]
pub enum FinishUploadError {
    /// There is nothing to finish.
    #[error(transparent)]
    NoUpload(#[from] NoUpload),
    /// A part is missing.
    #[error("part {number} is missing; put it, then finish again")]
    Missing {
        /// The first one that is.
        number: u32,
    },
    /// The engine could not tell.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Uploads and the hashes of their parts.
///
/// All writes are durable on `Ok`, and every read that begins after that sees them, on whatever replica of a service it
/// is made. All methods are idempotent: the answer to [`crate::Retry::Later`] is the same call again. Dropping a future
/// leaves the call done or not done. The rules of a life are those of [`pli_domain::Upload`]; rivals are decided one after
/// the other, so that a quota is never exceeded. What has expired at `now` answers as what never was, and so does what
/// was deleted. Bounds: [`pli_domain::limits::MEDIA_UPLOADS_MAX`] uploads of an account at a time, of
/// [`pli_domain::limits::MEDIA_UPLOAD_BYTES_MAX`] bytes each.
#[async_trait]
pub trait Media: Send + Sync + 'static {
    /// Begins an upload and answers it. The same id and length again is answered as the first time, whatever
    /// `upload.expires_at` and `quota` say then. An id is for one upload of its account while the store knows it.
    async fn begin_upload(
        &self,
        key: UploadKey,
        upload: Upload,
        quota: u64,
        now: UnixMillis,
    ) -> Result<Upload, BeginUploadError>;

    /// The upload, while it lives.
    async fn upload(&self, key: UploadKey, now: UnixMillis) -> Result<Option<Upload>, StoreError>;

    /// Notes that part `number` is there with this hash. The same again is `Ok`, after the end too. Of rivals with other
    /// hashes one wins.
    async fn put_part(&self, key: UploadKey, number: u32, hash: PartHash, now: UnixMillis) -> Result<(), PutPartError>;

    /// The hash of part `number`; none while it was not put, and where there is no upload.
    async fn part(&self, key: UploadKey, number: u32, now: UnixMillis) -> Result<Option<PartHash>, StoreError>;

    /// Every part that is there, with its hash, by number; empty where there is no upload.
    async fn parts(&self, key: UploadKey, now: UnixMillis) -> Result<Vec<(u32, PartHash)>, StoreError>;

    /// Marks the upload whole once every part is there. Again is `Ok`.
    async fn finish_upload(&self, key: UploadKey, now: UnixMillis) -> Result<(), FinishUploadError>;

    /// Deletes the upload and answers what it was, so that its objects can be found; again answers the same. None where
    /// nothing is known of it. Its id stays taken until it expires.
    async fn delete_upload(&self, key: UploadKey, now: UnixMillis) -> Result<Option<Upload>, StoreError>;

    /// Forgets uploads that expired at or before `now`, at most `limit` of them; answers how many. A store that forgets
    /// by itself, some time after they expire, answers 0.
    async fn expire_uploads(&self, now: UnixMillis, limit: u32) -> Result<u32, StoreError>;
}
