// SPDX-License-Identifier: MIT OR Apache-2.0
//! The objects: one for each part, under the day on which it expires.

use std::collections::HashMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path as Name;
use object_store::{Error, ObjectStore, ObjectStoreExt};
use pli_domain::{PartHash, UnixMillis, UploadKey};

/// Milliseconds of a day.
const DAY_MS: u64 = 86_400_000;
/// Objects deleted at a time by one call.
const DELETES_AT_ONCE: usize = 8;

/// Why the folder of parts cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenBlobsError {
    /// It cannot be made or written.
    #[error("media.folder {folder} cannot be used: {source}; give a folder that this process may write")]
    Folder {
        /// Which.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The object store does not take it.
    #[error("media.folder {folder} cannot be used: {source}")]
    Store {
        /// Which.
        folder: PathBuf,
        /// Why.
        source: Error,
    },
}

/// Where the parts lie.
#[derive(Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    /// Where the store is a folder: what a kill leaves half-written there is no object of it.
    folder: Option<PathBuf>,
}

/// Names one object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) key: UploadKey,
    pub(crate) expires_at: UnixMillis,
    pub(crate) number: u32,
    pub(crate) hash: PartHash,
}

impl Place {
    /// Its last component.
    pub(crate) fn name(&self) -> String {
        let hash: String = self.hash.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{hash}", self.number)
    }

    fn path(&self) -> Name {
        folder(self.key, self.expires_at).join(self.name())
    }
}

/// The folder of an upload.
fn folder(key: UploadKey, expires_at: UnixMillis) -> Name {
    let day = (expires_at.0 / DAY_MS).to_string();
    Name::from_iter([day, key.account.to_string(), key.id.to_string()])
}

impl Blobs {
    /// Parts in a folder of this machine, or one that all processes with the role share; made when it does not exist.
    /// What is put is synced before it is answered.
    pub fn local(path: &Path) -> Result<Self, OpenBlobsError> {
        let folder = path.to_path_buf();
        // One that is made is its owner's alone.
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|source| OpenBlobsError::Folder { folder: folder.clone(), source })?;
        let store = LocalFileSystem::new_with_prefix(path);
        let store = store.map_err(|source| OpenBlobsError::Store { folder: folder.clone(), source })?;
        Ok(Self { store: Arc::new(store.with_fsync(true).with_automatic_cleanup(true)), folder: Some(folder) })
    }

    /// Parts in memory, gone with the process: for tests.
    pub fn memory() -> Self {
        Self { store: Arc::new(InMemory::new()), folder: None }
    }

    /// Writes an object whole, or nothing of it.
    pub(crate) async fn put(&self, place: &Place, part: Bytes) -> Result<(), Error> {
        self.store.put(&place.path(), part.into()).await.map(drop)
    }

    /// The object, if it is there.
    pub(crate) async fn get(&self, place: &Place) -> Result<Option<Bytes>, Error> {
        match self.store.get(&place.path()).await {
            Ok(found) => found.bytes().await.map(Some),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deletes one object.
    pub(crate) async fn delete(&self, place: &Place) -> Result<(), Error> {
        missing_is_fine(self.store.delete(&place.path()).await)
    }

    /// Names and lengths of an upload's objects; at most one a part and put.
    pub(crate) async fn list(&self, key: UploadKey, expires_at: UnixMillis) -> Result<HashMap<String, u64>, Error> {
        let objects = self.store.list(Some(&folder(key, expires_at)));
        let named = objects.map_ok(|object| {
            let name = object.location.filename().unwrap_or_default().to_owned();
            (name, object.size)
        });
        named.try_collect().await
    }

    /// Deletes every object of an upload; answers how many there were.
    pub(crate) async fn delete_upload(&self, key: UploadKey, expires_at: UnixMillis) -> Result<u64, Error> {
        self.delete_below(&folder(key, expires_at), usize::MAX).await
    }

    /// Deletes objects of days that are over at `now`, at most `limit`, and all else that lies there. What cannot be
    /// deleted keeps nothing else.
    pub(crate) async fn sweep(&self, now: UnixMillis, limit: usize) -> Result<Swept, Error> {
        let (today, mut swept) = (now.0 / DAY_MS, Swept::default());
        let days = self.store.list_with_delimiter(None).await?.common_prefixes;
        let over = |day: &&Name| day.filename().and_then(|day| day.parse::<u64>().ok()).is_some_and(|day| day < today);
        for day in days.iter().filter(over) {
            let left = limit.saturating_sub(usize::try_from(swept.deleted).unwrap_or(usize::MAX));
            if left == 0 {
                break;
            }
            match self.delete_below(day, left).await {
                Ok(deleted) => {
                    swept.deleted += deleted;
                    // Fewer than asked for: no object is left, and what is none goes too.
                    if deleted < left as u64
                        && let Err(error) = self.remove_folder(day).await
                    {
                        swept.failed = Some(Box::new(error));
                    }
                }
                Err(error) => swept.failed = Some(Box::new(error)),
            }
        }
        Ok(swept)
    }

    async fn remove_folder(&self, day: &Name) -> std::io::Result<()> {
        let Some(folder) = self.folder.as_ref().map(|folder| folder.join(day.as_ref())) else { return Ok(()) };
        let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(folder)).await;
        match removed.map_err(std::io::Error::other)? {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    async fn delete_below(&self, folder: &Name, limit: usize) -> Result<u64, Error> {
        let objects = self.store.list(Some(folder)).take(limit);
        let deletes = objects.map(|object| async {
            let object = object?;
            missing_is_fine(self.store.delete(&object.location).await)
        });
        deletes.buffer_unordered(DELETES_AT_ONCE).try_fold(0, |count, ()| async move { Ok(count + 1) }).await
    }
}

impl std::fmt::Debug for Blobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Blobs({})", self.store)
    }
}

/// What one round of the sweep did.
#[derive(Debug, Default)]
pub(crate) struct Swept {
    pub(crate) deleted: u64,
    /// Why something is still there.
    pub(crate) failed: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What is gone already need not be deleted.
fn missing_is_fine(deleted: Result<(), Error>) -> Result<(), Error> {
    match deleted {
        Err(Error::NotFound { .. }) => Ok(()),
        other => other,
    }
}
