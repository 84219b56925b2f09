// SPDX-License-Identifier: MIT OR Apache-2.0
//! The data folder: one process at a time, one stamp, for its owner alone.

mod modes;
mod stamp;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::OpenError;
pub use stamp::Stamp;
pub(crate) use stamp::mark_of;

/// The newest layout of the data folder that this release reads and the one it writes.
pub const DATA_VERSION: u32 = 1;
/// Holds the data version as a decimal number in its first line and the mark of the database in its second.
pub const VERSION_FILE: &str = "VERSION";
/// Locked while a process has the folder open; holds its process id.
pub const LOCK_FILE: &str = "pli.lock";
/// The SQLite database.
pub const DATABASE_FILE: &str = "pli.db";

/// The open lock file; the lock goes with it.
#[derive(Debug)]
pub(crate) struct FolderLockFile(#[expect(dead_code, reason = "held, never read")] File);

/// A locked data folder; the lock goes with the value (and with the process, however it ends).
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    stamp: Stamp,
    _lock: FolderLockFile,
}

impl Folder {
    /// Creates the folder if it is missing, locks it, checks its version and that its database is still there.
    pub(crate) fn open(dir: &Path) -> Result<Self, OpenError> {
        create(dir)?;
        let lock = lock(dir)?;
        let stamp = check_version(dir)?;
        // Before SQLite opens it: beside an empty database SQLite deletes a write-ahead log that could still help.
        if stamp.lacks_database(dir) {
            return Err(OpenError::DatabaseGone { dir: dir.to_owned() });
        }
        modes::narrow_files(dir).map_err(|source| file_error(dir, dir, source))?;
        Ok(Self { path: dir.to_owned(), stamp, _lock: lock })
    }

    /// The mark of the database that belongs here; none before the first start has ended.
    pub(crate) fn mark(&self) -> Option<&str> {
        self.stamp.database.as_deref()
    }

    /// Notes for good that the folder has this database. It and its name must be durable by now.
    pub(crate) fn note_mark(&mut self, mark: &str) -> Result<(), OpenError> {
        if self.mark() == Some(mark) {
            return Ok(());
        }
        let stamp = Stamp { version: self.stamp.version, database: Some(mark.to_string()) };
        match stamp.write(&self.path) {
            // Only of folders that older releases made; the next start with room notes it.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(()),
            other => other.map_err(|source| file_error(&self.path, &self.path.join(VERSION_FILE), source))?,
        }
        self.stamp = stamp;
        self.sync()
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
    fs::DirBuilder::new()
        .recursive(true)
        .mode(modes::FOLDER_MODE)
        .create(dir)
        .map_err(|source| file_error(dir, dir, source))?;
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync_folder(parent)
}

pub(crate) fn lock(dir: &Path) -> Result<FolderLockFile, OpenError> {
    let path = dir.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    let opened = options.read(true).write(true).create(true).truncate(false).mode(modes::FILE_MODE).open(&path);
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
        _ => Ok(FolderLockFile(file)),
    }
}

fn check_version(dir: &Path) -> Result<Stamp, OpenError> {
    match Stamp::read(dir) {
        Ok(None) => stamp_new(dir),
        Ok(Some(stamp)) if stamp.version > DATA_VERSION => {
            Err(OpenError::NewerVersion { dir: dir.to_owned(), found: stamp.version, known: DATA_VERSION })
        }
        Ok(Some(stamp)) => Ok(stamp),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(OpenError::NoVersion { dir: dir.to_owned() }),
        Err(source) => Err(OpenError::Io { path: dir.join(VERSION_FILE), source }),
    }
}

/// Stamps a new folder before anything else is written there, so that data without a stamp is never ours.
fn stamp_new(dir: &Path) -> Result<Stamp, OpenError> {
    if dir.join(DATABASE_FILE).exists() {
        return Err(OpenError::NoVersion { dir: dir.to_owned() });
    }
    let stamp = Stamp { version: DATA_VERSION, database: None };
    let made = modes::narrow_new_folder(dir).and_then(|()| stamp.write(dir));
    made.map_err(|source| file_error(dir, &dir.join(VERSION_FILE), source))?;
    sync_folder(dir)?;
    Ok(stamp)
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

    fn mode(path: &Path) -> u32 {
        use std::os::unix::fs::PermissionsExt;
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn widen(path: &Path, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_folder_made_beforehand_becomes_private_and_so_do_files_of_an_older_release() {
        let dir = tempfile::tempdir().unwrap();
        widen(dir.path(), 0o755);
        drop(Folder::open(dir.path()).unwrap());
        assert_eq!(mode(dir.path()), 0o700);
        for file in [VERSION_FILE, LOCK_FILE, DATABASE_FILE] {
            let path = dir.path().join(file);
            assert_eq!(mode(&path), 0o600, "{file}");
            widen(&path, 0o644);
        }
        drop(Folder::open(dir.path()).unwrap());
        for file in [VERSION_FILE, LOCK_FILE, DATABASE_FILE] {
            assert_eq!(mode(&dir.path().join(file)), 0o600, "{file}");
        }
    }

    #[test]
    fn a_folder_that_others_use_too_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("theirs"), "x").unwrap();
        widen(dir.path(), 0o1777);
        drop(Folder::open(dir.path()).unwrap());
        assert_eq!(mode(dir.path()), 0o1777);
        assert_eq!(mode(&dir.path().join(DATABASE_FILE)), 0o600);
    }

    #[test]
    fn a_folder_whose_database_is_gone_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let mark = mark_of(&[1; 16]);
        let mut folder = Folder::open(dir.path()).unwrap();
        folder.note_mark(&mark).unwrap();
        drop(folder);
        let database = dir.path().join(DATABASE_FILE);
        for gone in [true, false] {
            if gone {
                fs::remove_file(&database).unwrap()
            } else {
                fs::write(&database, "").unwrap()
            }
            let text = Folder::open(dir.path()).unwrap_err().to_string();
            assert!(text.contains("pli.db") && text.contains("pli restore") && text.contains("VERSION"), "{text}");
            assert_eq!(database.exists(), !gone);
        }
        // What the error names as the way to begin anew.
        fs::remove_file(dir.path().join(VERSION_FILE)).unwrap();
        fs::remove_file(&database).unwrap();
        assert_eq!(Folder::open(dir.path()).unwrap().mark(), None);
    }
}
