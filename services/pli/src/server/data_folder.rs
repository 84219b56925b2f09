// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `pli doctor` can tell of a data folder without changing it.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pli_engine_embedded::{DATA_VERSION, DATABASE_FILE, LOCK_FILE, RESERVE_FILE, Stamp, VERSION_FILE};
use rustix::fs::{Access, access};

use super::{certificate, server_file};

/// What is known of a data folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FolderState {
    /// It does not exist; a start makes it.
    Absent,
    /// It exists and holds no data yet.
    Empty,
    /// It is a file or something else.
    NotAFolder,
    /// This user may not write in it.
    ReadOnly,
    /// It holds data of this version.
    Version(u32),
    /// It holds data of a version that this program does not know.
    Newer(u32),
    /// It has had a database, which is missing or empty now.
    DatabaseGone,
    /// It holds data but no stamp, or one that cannot be read.
    Unstamped,
}

/// Looks at `folder`; changes nothing.
pub fn inspect(folder: &Path) -> FolderState {
    match std::fs::metadata(folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => return FolderState::Absent,
        Ok(found) if !found.is_dir() => return FolderState::NotAFolder,
        _ => {}
    }
    if access(folder, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        return FolderState::ReadOnly;
    }
    match Stamp::read(folder) {
        Ok(Some(stamp)) if stamp.version > DATA_VERSION => FolderState::Newer(stamp.version),
        Ok(Some(stamp)) if stamp.lacks_database(folder) => FolderState::DatabaseGone,
        Ok(Some(stamp)) => FolderState::Version(stamp.version),
        Ok(None) if !folder.join(DATABASE_FILE).exists() => FolderState::Empty,
        _ => FolderState::Unstamped,
    }
}

/// The folder and those of a server's files in it that others than their owner may read or write. A folder without any
/// of them may be somebody else's, named by mistake: it is not looked at.
pub fn open_to_others(folder: &Path) -> Vec<PathBuf> {
    let beside = ["-wal", "-shm"].map(|end| folder.join(format!("{DATABASE_FILE}{end}")));
    let files = [DATABASE_FILE, VERSION_FILE, LOCK_FILE, RESERVE_FILE, server_file::FILE, certificate::FILE];
    let held: Vec<PathBuf> =
        files.map(|file| folder.join(file)).into_iter().chain(beside).filter(|p| p.exists()).collect();
    let itself = (!held.is_empty()).then(|| folder.to_path_buf());
    let open = |path: &PathBuf| std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o077 != 0);
    itself.into_iter().chain(held).filter(open).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_told_by_its_stamp() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        assert_eq!(inspect(&path.join("none")), FolderState::Absent);
        assert_eq!(inspect(path), FolderState::Empty);
        std::fs::write(path.join(DATABASE_FILE), "x").expect("written");
        assert_eq!(inspect(path), FolderState::Unstamped);
        assert_eq!(inspect(&path.join(DATABASE_FILE)), FolderState::NotAFolder);
        std::fs::write(path.join(VERSION_FILE), format!("{DATA_VERSION}\n")).expect("written");
        assert_eq!(inspect(path), FolderState::Version(DATA_VERSION));
        std::fs::write(path.join(VERSION_FILE), format!("{DATA_VERSION}\n{}\n", "a".repeat(32))).expect("written");
        assert_eq!(inspect(path), FolderState::Version(DATA_VERSION));
        std::fs::write(path.join(DATABASE_FILE), "").expect("written");
        assert_eq!(inspect(path), FolderState::DatabaseGone);
        std::fs::write(path.join(VERSION_FILE), "999\n").expect("written");
        assert_eq!(inspect(path), FolderState::Newer(999));
    }
}
