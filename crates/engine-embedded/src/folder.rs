// SPDX-License-Identifier: MIT OR Apache-2.0
//! The data folder: one process at a time, one version stamp.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::OpenError;

/// The newest layout of the data folder that this release reads and the one it writes.
pub const DATA_VERSION: u32 = 1;
/// Holds the data version as a decimal number and a newline.
pub const VERSION_FILE: &str = "VERSION";
/// Locked while a process has the folder open; holds its process id.
pub const LOCK_FILE: &str = "pli.lock";
/// The SQLite database.
pub const DATABASE_FILE: &str = "pli.db";

/// A locked data folder; the lock goes with the value (and with the process, however it ends).
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Creates the folder if it is missing, locks it and checks its version.
    pub(crate) fn open(dir: &Path) -> Result<Self, OpenError> {
        create(dir)?;
        let lock = lock(dir)?;
        check_version(dir)?;
        Ok(Self { path: dir.to_owned(), _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.path.join(DATABASE_FILE)
    }

    /// Makes the names of the files in the folder durable.
    pub(crate) fn sync(&self) -> Result<(), OpenError> {
        sync_folder(&self.path)
    }
}

fn create(dir: &Path) -> Result<(), OpenError> {
    match fs::metadata(dir) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => return Err(OpenError::NotAFolder { dir: dir.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(OpenError::NotAFolder { dir: dir.to_owned() });
        }
        Err(_) => {}
    }
    // Metadata of every user's messages: for the owner alone.
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|source| file_error(dir, dir, source))?;
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync_folder(parent)
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join(LOCK_FILE);
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = opened.map_err(|source| file_error(dir, &path, source))?;
    if let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if error != rustix::io::Errno::WOULDBLOCK {
            return Err(OpenError::Io { path, source: error.into() });
        }
        let mut text = String::new();
        // Whoever holds the lock may not have written its id yet; the refusal stands without it.
        let _ = file.read_to_string(&mut text);
        return Err(OpenError::InUse { dir: dir.to_owned(), pid: text.trim().parse().unwrap_or(0) });
    }
    // The id only serves the refusal above: on a full disk the lock holds without it.
    let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    match written {
        Err(source) if source.kind() != io::ErrorKind::StorageFull => Err(OpenError::Io { path, source }),
        _ => Ok(file),
    }
}

fn check_version(dir: &Path) -> Result<(), OpenError> {
    let path = dir.join(VERSION_FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return stamp(dir, &path),
        Err(source) if source.kind() == io::ErrorKind::InvalidData => {
            return Err(OpenError::NoVersion { dir: dir.to_owned() });
        }
        Err(source) => return Err(OpenError::Io { path, source }),
    };
    match text.trim().parse::<u32>() {
        Ok(found) if found > DATA_VERSION => {
            Err(OpenError::NewerVersion { dir: dir.to_owned(), found, known: DATA_VERSION })
        }
        Ok(found) if found > 0 => Ok(()),
        _ => Err(OpenError::NoVersion { dir: dir.to_owned() }),
    }
}

/// Stamps a new folder before anything else is written there, so that data without a stamp is never ours.
fn stamp(dir: &Path, path: &Path) -> Result<(), OpenError> {
    if dir.join(DATABASE_FILE).exists() {
        return Err(OpenError::NoVersion { dir: dir.to_owned() });
    }
    let draft = dir.join("VERSION.new");
    let write = || -> io::Result<()> {
        let mut file = File::create(&draft)?;
        writeln!(file, "{DATA_VERSION}")?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    write().map_err(|source| file_error(dir, path, source))?;
    sync_folder(dir)
}

fn sync_folder(dir: &Path) -> Result<(), OpenError> {
    File::open(dir)
        .and_then(|opened| opened.sync_all())
        .map_err(|source| OpenError::Io { path: dir.to_owned(), source })
}

fn file_error(dir: &Path, path: &Path, source: io::Error) -> OpenError {
    match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            OpenError::ReadOnly { dir: dir.to_owned(), source }
        }
        _ => OpenError::Io { path: path.to_owned(), source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_opener_is_refused_with_the_process_id() {
        let dir = tempfile::tempdir().unwrap();
        let first = Folder::open(dir.path()).unwrap();
        match Folder::open(dir.path()) {
            Err(OpenError::InUse { pid, .. }) => assert_eq!(pid, std::process::id()),
            other => panic!("{other:?}"),
        }
        drop(first);
        Folder::open(dir.path()).unwrap();
    }

    #[test]
    fn a_newer_version_is_refused_with_both_numbers() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(VERSION_FILE), "7\n").unwrap();
        let text = Folder::open(dir.path()).unwrap_err().to_string();
        assert!(text.contains("version 7") && text.contains("up to 1") && text.contains("run the release"), "{text}");
    }

    #[test]
    fn a_stamp_that_is_no_number_or_missing_beside_data_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for bad in ["", "one", "0", "-1", "\u{202e}1"] {
            fs::write(dir.path().join(VERSION_FILE), bad).unwrap();
            assert!(matches!(Folder::open(dir.path()), Err(OpenError::NoVersion { .. })), "{bad:?}");
        }
        fs::remove_file(dir.path().join(VERSION_FILE)).unwrap();
        fs::write(dir.path().join(DATABASE_FILE), "x").unwrap();
        assert!(matches!(Folder::open(dir.path()), Err(OpenError::NoVersion { .. })));
    }

    #[test]
    fn a_file_is_no_data_folder() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(Folder::open(file.path()), Err(OpenError::NotAFolder { .. })));
        assert!(matches!(Folder::open(&file.path().join("below")), Err(OpenError::NotAFolder { .. })));
    }

    #[test]
    fn missing_parents_are_made_and_the_folder_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        Folder::open(&deep).unwrap();
        assert_eq!(fs::metadata(&deep).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_to_string(deep.join(VERSION_FILE)).unwrap(), "1\n");
    }
}
