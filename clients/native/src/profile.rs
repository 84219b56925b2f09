// SPDX-License-Identifier: MIT OR Apache-2.0
//! The folder of one handle on one server, held by one process at a time.

mod name;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::seal::{SealError, Sealer};
use crate::store::{StorageError, Store};
use crate::{Fingerprint, ServerAddress};
pub use name::{DeviceLabel, InvalidProfileName, ProfileName};

/// Only its owner may look into the folder.
const FOLDER_MODE: u32 = 0o700;
const LOCK_FILE: &str = "lock";
const KEY_FILE: &str = "key";
const DATABASE_FILE: &str = "profile.db";
const LOST_FILE: &str = "keys-lost";
const PIN_FILE: &str = "server-certificate";
const WAYS_FILE: &str = "quic-shunned";

/// Why a profile cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// There is no place for profiles.
    #[error("neither XDG_DATA_HOME nor HOME is set; name a folder with --home")]
    NoHome,
    /// The folder or a file in it cannot be used.
    #[error(
        "cannot use the profile folder {path} ({source}); let this user write there, or name another place with --home"
    )]
    Folder {
        /// What was asked for.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Another process holds the profile.
    #[error("process {pid} uses the profile {path}; end it first, or use another handle or --home")]
    Locked {
        /// The folder.
        path: PathBuf,
        /// Who holds it, `?` when it cannot be told.
        pid: String,
    },
    /// The pinned certificate is not readable.
    #[error("{0} does not hold a fingerprint; remove it to pin the server's certificate anew")]
    Pin(PathBuf),
    /// The key file.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The database.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Where profiles live: `home`, else `$XDG_DATA_HOME/pli`, else `~/.local/share/pli`.
pub fn home(home: Option<&Path>) -> Result<PathBuf, ProfileError> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    home.map(Path::to_path_buf)
        .or_else(|| absolute("XDG_DATA_HOME").map(|data| data.join("pli")))
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share/pli")))
        .ok_or(ProfileError::NoHome)
}

/// The folder of a profile on `server`, below `home`.
pub fn folder(home: &Path, server: &ServerAddress, name: &ProfileName) -> PathBuf {
    home.join(server.folder_name()).join(name.folder_name())
}

/// Whether the folder holds a profile.
pub fn exists(folder: &Path) -> bool {
    folder.join(DATABASE_FILE).exists()
}

/// Whether the profile in this folder trusts a certificate already.
pub fn is_pinned(folder: &Path) -> bool {
    folder.join(PIN_FILE).exists()
}

/// Whether the folder held a profile once and its database is gone: deleted or emptied, with its keys. Remembered in the
/// folder, because the next start finds a new database there.
pub fn lost(folder: &Path) -> bool {
    let mark = folder.join(LOST_FILE);
    let was_used = folder.join(KEY_FILE).exists() || folder.join(PIN_FILE).exists();
    // SQLite takes a file of one byte for an empty database.
    let lost = was_used && std::fs::metadata(folder.join(DATABASE_FILE)).map_or(true, |file| file.len() <= 1);
    if lost {
        // Without room for the mark the reason is told at least now.
        let _ = File::create(&mark);
    }
    lost || mark.exists()
}

/// A profile that this process holds until it is dropped.
#[derive(Debug)]
pub(crate) struct Profile {
    folder: PathBuf,
    // Holding the file holds the lock; the system lets go of it however the process ends.
    _lock: File,
}

impl Profile {
    /// Takes the folder, which is made when it does not exist.
    pub fn lock(folder: &Path) -> Result<Self, ProfileError> {
        let failed = |source| ProfileError::Folder { path: folder.to_path_buf(), source };
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder).map_err(failed)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut lock = options.open(folder.join(LOCK_FILE)).map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(ProfileError::Locked { path: folder.to_path_buf(), pid: holder(&mut lock) });
            }
            Err(error) => return Err(failed(error.into())),
        }
        lock.set_len(0).and_then(|()| write!(lock, "{}", std::process::id())).map_err(failed)?;
        Ok(Self { folder: folder.to_path_buf(), _lock: lock })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file that says where QUIC does not work.
    pub fn ways(&self) -> PathBuf {
        self.folder.join(WAYS_FILE)
    }

    /// Opens the database, with its key.
    pub(crate) fn store(&self) -> Result<Store, ProfileError> {
        let key = self.folder.join(KEY_FILE);
        let sealed = std::fs::metadata(self.folder.join(DATABASE_FILE)).is_ok_and(|file| file.len() > 0);
        if sealed && !key.exists() {
            return Err(SealError::Gone(key).into());
        }
        let sealer = Sealer::open_or_create(&key)?;
        Ok(Store::open(&self.folder.join(DATABASE_FILE), sealer)?)
    }

    /// The certificate that was pinned at first use.
    pub fn pin(&self) -> Result<Option<Fingerprint>, ProfileError> {
        let path = self.folder.join(PIN_FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => text.parse().map(Some).map_err(|_| ProfileError::Pin(path)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ProfileError::Folder { path, source }),
        }
    }

    /// Pins the certificate of a connection that was made, durably, unless one is pinned.
    pub fn keep_pin(&self, fingerprint: Fingerprint) -> Result<(), ProfileError> {
        match self.pin()? {
            Some(_) => Ok(()),
            None => self.set_pin(fingerprint),
        }
    }

    /// Pins a certificate, durably.
    fn set_pin(&self, fingerprint: Fingerprint) -> Result<(), ProfileError> {
        let path = self.folder.join(PIN_FILE);
        let fresh = self.folder.join(format!("{PIN_FILE}.new"));
        let write = || {
            let mut file = File::create(&fresh)?;
            writeln!(file, "{fingerprint}")?;
            file.sync_all()?;
            std::fs::rename(&fresh, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|source| ProfileError::Folder { path: path.clone(), source })
    }
}

fn holder(lock: &mut File) -> String {
    let mut pid = String::new();
    let read = lock.rewind().and_then(|()| lock.take(20).read_to_string(&mut pid));
    if read.is_ok() && !pid.is_empty() { pid } else { "?".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_the_first_ones_pid() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = Profile::lock(folder.path()).expect("free");
        let error = Profile::lock(folder.path()).expect_err("held").to_string();
        assert!(error.contains(&format!("process {} uses", std::process::id())), "{error}");
        drop(first);
        Profile::lock(folder.path()).expect("free again");
    }

    #[test]
    fn a_pin_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let profile = Profile::lock(folder.path()).expect("free");
        assert_eq!(profile.pin().expect("readable"), None);
        let fingerprint = Fingerprint::of(b"x");
        profile.keep_pin(fingerprint).expect("written");
        profile.keep_pin(Fingerprint::of(b"y")).expect("nothing to do");
        assert_eq!(profile.pin().expect("readable"), Some(fingerprint));
    }

    #[test]
    fn a_profile_is_found_by_server_and_handle() {
        let server = "127.0.0.1:7480".parse().expect("an address");
        let path = folder(Path::new("/h"), &server, &"Alice".parse().expect("a name"));
        assert_eq!(path, Path::new("/h/127.0.0.1_7480/alice"));
        let path = folder(Path::new("/h"), &server, &"alice/Laptop".parse().expect("a name"));
        assert_eq!(path, Path::new("/h/127.0.0.1_7480/alice+laptop"));
    }
}
