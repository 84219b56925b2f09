// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `pli doctor` can tell of a data folder without changing it.

use std::io::ErrorKind;
use std::path::Path;

use pli_engine_embedded::{DATA_VERSION, DATABASE_FILE, VERSION_FILE};
use rustix::fs::{Access, access};

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
    let stamp = std::fs::read_to_string(folder.join(VERSION_FILE)).ok();
    match stamp.map(|text| text.trim().parse::<u32>()) {
        Some(Ok(found)) if found > DATA_VERSION => FolderState::Newer(found),
        Some(Ok(found)) if found > 0 => FolderState::Version(found),
        Some(_) => FolderState::Unstamped,
        None if folder.join(DATABASE_FILE).exists() => FolderState::Unstamped,
        None => FolderState::Empty,
    }
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
        std::fs::write(path.join(VERSION_FILE), "999\n").expect("written");
        assert_eq!(inspect(path), FolderState::Newer(999));
    }
}
