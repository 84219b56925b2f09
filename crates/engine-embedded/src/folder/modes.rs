// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who may read the folder: its owner alone, for it holds the metadata of every user's messages.

use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::stamp::DRAFT_FILE;
use super::{DATABASE_FILE, LOCK_FILE, VERSION_FILE};

/// The mode of the folder.
pub(super) const FOLDER_MODE: u32 = 0o700;
/// The mode of every file in it.
pub(super) const FILE_MODE: u32 = 0o600;
/// What others may do.
const OTHERS: u32 = 0o077;

/// What may stand in a folder that was made beforehand and still counts as empty.
const NOT_DATA: [&str; 3] = [LOCK_FILE, DRAFT_FILE, "lost+found"];

/// Makes a folder without data private. One that holds other things is somebody else's too, and stays as it is.
pub(super) fn narrow_new_folder(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if !NOT_DATA.iter().any(|known| name == *known) {
            tracing::warn!(folder = %dir.display(), "the data folder holds other things; its mode stays as it is");
            return Ok(());
        }
    }
    narrow(dir, FOLDER_MODE)
}

/// Makes the files of the engine private, also those that an older release made. SQLite gives `-wal` and `-shm` the
/// mode of the database, so that is made here before SQLite does.
pub(super) fn narrow_files(dir: &Path) -> io::Result<()> {
    let database = dir.join(DATABASE_FILE);
    OpenOptions::new().write(true).create(true).truncate(false).mode(FILE_MODE).open(database)?;
    let beside = ["-wal", "-shm"].map(|end| format!("{DATABASE_FILE}{end}"));
    let files = [DATABASE_FILE, VERSION_FILE, LOCK_FILE, crate::RESERVE_FILE]
        .into_iter()
        .chain(beside.iter().map(String::as_str));
    for file in files {
        narrow(&dir.join(file), FILE_MODE)?;
    }
    Ok(())
}

fn narrow(path: &Path, mode: u32) -> io::Result<()> {
    let found = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?.permissions().mode(),
    };
    if found & OTHERS == 0 {
        return Ok(());
    }
    match fs::set_permissions(path, Permissions::from_mode(mode)) {
        // Somebody else's file in which this user may write: that works, and `pli doctor` tells.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            tracing::warn!(path = %path.display(), "others may read this, and its mode cannot be changed");
            Ok(())
        }
        other => other,
    }
}
