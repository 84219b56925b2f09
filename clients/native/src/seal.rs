// SPDX-License-Identifier: MIT OR Apache-2.0
//! Values sealed at rest: XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03) under a key that stands in a file of its own.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
/// Only its owner may read the key file.
const KEY_MODE: u32 = 0o600;

/// Why the key cannot be used, or a value cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key file cannot be read or made.
    #[error("cannot use the key file {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Others may read the key.
    #[error("others may read the key file {path} (mode {mode:o}); run: chmod 600 {path}")]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The key file is damaged.
    #[error("the key file {0} does not hold 32 bytes; restore it, or move the profile folder away to begin anew")]
    Damaged(PathBuf),
    /// There is a database, and the key that it was sealed with is gone.
    #[error(
        "the key file {0} is gone, and nothing of this profile opens without it; put it back, or move the profile folder away to begin anew"
    )]
    Gone(PathBuf),
    /// A value does not open under this key.
    #[error(
        "a stored value cannot be opened: the key file does not belong to this profile, or the value was changed; put \
         back the files `key` and `profile.db` of one time, or move the profile folder away to begin anew"
    )]
    Open,
    /// A value cannot be sealed.
    #[error("a value is too large to be sealed")]
    Seal,
}

/// Seals and opens values.
pub struct Sealer(XChaCha20Poly1305);

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    /// The key in `path`, which is made when it does not exist; its bytes are durable on return.
    pub fn open_or_create(path: &Path) -> Result<Self, SealError> {
        let failed = |source| SealError::File { path: path.to_path_buf(), source };
        match OpenOptions::new().write(true).create_new(true).mode(KEY_MODE).open(path) {
            Ok(mut file) => {
                let key: [u8; KEY_BYTES] = rand::random();
                file.write_all(&key).and_then(|()| file.sync_all()).map_err(failed)?;
                Ok(Self::with_key(key))
            }
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Self::open(path),
            Err(e) => Err(failed(e)),
        }
    }

    fn open(path: &Path) -> Result<Self, SealError> {
        let failed = |source| SealError::File { path: path.to_path_buf(), source };
        let mut file = File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(SealError::Mode { path: path.to_path_buf(), mode });
        }
        let mut bytes = Vec::with_capacity(KEY_BYTES + 1);
        Read::by_ref(&mut file).take(KEY_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        let key = bytes.try_into().map_err(|_| SealError::Damaged(path.to_path_buf()))?;
        Ok(Self::with_key(key))
    }

    fn with_key(key: [u8; KEY_BYTES]) -> Self {
        Self(XChaCha20Poly1305::new(Key::from_slice(&key)))
    }

    /// Nonce and ciphertext; `key` is authenticated with it, so that values cannot be swapped.
    pub fn seal(&self, key: &[u8], value: &[u8]) -> Result<Vec<u8>, SealError> {
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let payload = Payload { msg: value, aad: key };
        let sealed = self.0.encrypt(XNonce::from_slice(&nonce), payload).map_err(|_| SealError::Seal)?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// The value that was sealed with the same `key`.
    pub fn unseal(&self, key: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_BYTES).ok_or(SealError::Open)?;
        self.0.decrypt(XNonce::from_slice(nonce), Payload { msg: sealed, aad: key }).map_err(|_| SealError::Open)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn values_open_under_their_own_key_and_name_only() {
        let (one, other) = (Sealer::with_key([1; 32]), Sealer::with_key([2; 32]));
        let sealed = one.seal(b"name", b"secret").expect("sealed");
        assert_eq!(one.unseal(b"name", &sealed).expect("opens"), b"secret");
        assert!(one.unseal(b"eman", &sealed).is_err());
        assert!(other.unseal(b"name", &sealed).is_err());
        assert!(one.unseal(b"name", &sealed[..10]).is_err());
    }

    #[test]
    fn the_key_file_is_made_private_and_refused_when_it_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        let sealed = Sealer::open_or_create(&path).expect("made").seal(b"k", b"v").expect("sealed");
        assert_eq!(std::fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
        let again = Sealer::open_or_create(&path).expect("read");
        assert_eq!(again.unseal(b"k", &sealed).expect("opens"), b"v");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("changed");
        let error = Sealer::open_or_create(&path).expect_err("open to others").to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }
}
