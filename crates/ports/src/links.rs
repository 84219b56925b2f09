// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rendezvous: where two devices that do not know each other exchange a few sealed blobs.

use async_trait::async_trait;
use bytes::Bytes;
use pli_domain::{DeviceAddress, NoPlace, NotAdmitted, Party, RendezvousId, SecretHash, UnixMillis};

use crate::StoreError;

/// A rendezvous to open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewRendezvous {
    /// Random, drawn by the opener.
    pub id: RendezvousId,
    /// Of the opener's secret.
    pub opener: SecretHash,
    /// Of the secret in the opener's code; another one than the opener's.
    pub approver: SecretHash,
    /// From here on everything about it answers [`NotAdmitted::Gone`].
    pub expires_at: UnixMillis,
}

/// Who asks about which rendezvous, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Which.
    pub id: RendezvousId,
    /// Who.
    pub party: Party,
    /// When: what has expired at this time is gone.
    pub now: UnixMillis,
}

/// Why a rendezvous was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenRendezvousError {
    /// The id exists with other secrets.
    #[error("the rendezvous id exists; draw a new random one")]
    IdTaken,
    /// It was opened like this, and its life is over.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
    /// The engine could not tell.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a device did not become the approver.
#[derive(Debug, thiserror::Error)]
pub enum JoinRendezvousError {
    /// [`NotAdmitted::Gone`] or [`NotAdmitted::Taken`].
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
    /// The engine could not tell.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a blob was not put.
#[derive(Debug, thiserror::Error)]
pub enum PutBlobError {
    /// Not this one's rendezvous.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
    /// It does not follow, or there is no room.
    #[error(transparent)]
    NoPlace(#[from] NoPlace),
    /// Other bytes were put under this number.
    #[error("other bytes were put under this number; a blob is never replaced")]
    Conflict,
    /// The engine could not tell.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why there is no answer about a blob.
#[derive(Debug, thiserror::Error)]
pub enum GetBlobError {
    /// Not this one's rendezvous.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
    /// The engine could not tell.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Rendezvous and their blobs.
///
/// All writes are durable on `Ok`, and every read that begins after that sees them, on whatever replica of a service it
/// is made. All methods are idempotent: the answer to [`crate::Retry::Later`] is the same call again. Dropping a future
/// leaves the call done or not done. The rules of who may what are those of [`pli_domain::Rendezvous`]; rivals are
/// decided one after the other. Bound: [`pli_domain::limits::RENDEZVOUS_BLOBS_MAX`] blobs of
/// [`pli_domain::limits::RENDEZVOUS_BLOB_BYTES_MAX`] each; how many are open at a time is bounded by who opens.
#[async_trait]
pub trait Links: Send + Sync + 'static {
    /// Opens a rendezvous and answers when it ends. The same id and secrets again is answered with the end of the first
    /// time. An id is for one opening: while the store still knows it, another one is refused.
    async fn open_rendezvous(
        &self,
        rendezvous: NewRendezvous,
        now: UnixMillis,
    ) -> Result<UnixMillis, OpenRendezvousError>;

    /// Makes `device` the approver if nobody is, and answers when the rendezvous ends. Of rivals one wins; the same
    /// device again is `Ok`.
    async fn join_rendezvous(
        &self,
        id: RendezvousId,
        (secret, device): (SecretHash, DeviceAddress),
        now: UnixMillis,
    ) -> Result<UnixMillis, JoinRendezvousError>;

    /// Puts blob `number` (from 1, without holes) of the caller's side, 1 to `RENDEZVOUS_BLOB_BYTES_MAX` bytes; other
    /// lengths are an error that does not pass. The same bytes under the same number again is `Ok`.
    async fn put_blob(&self, access: Access, number: u8, blob: Bytes) -> Result<(), PutBlobError>;

    /// Blob `number` of the other side; none while it was not put. Does not take it away.
    async fn blob(&self, access: Access, number: u8) -> Result<Option<Bytes>, GetBlobError>;

    /// Forgets rendezvous that expired at or before `now`, with their blobs, at most `limit` of them; answers how many.
    /// A store that forgets by itself, some time after they expire, answers 0.
    async fn expire_rendezvous(&self, now: UnixMillis, limit: u32) -> Result<u32, StoreError>;
}
