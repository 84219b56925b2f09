// SPDX-License-Identifier: MIT OR Apache-2.0
//! The folder that is made, prepared beside its place and put there last; a crash at any moment leaves the old one, none,
//! or the new one, whole.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use pli_engine_embedded::{DATABASE_FILE, FolderLock, LOCK_FILE, OpenError};

use crate::commands::backup::manifest::dated;
use crate::commands::backup::{parent, sync, unwritable};
use crate::exit::{Exit, Failure};

/// In a folder that only a restore wrote to: such a one may be removed.
const MARK: &str = "RESTORE-UNFINISHED";

/// Where a data folder is to be.
pub struct Place {
    data: PathBuf,
    draft: PathBuf,
    /// Folders of servers that were here, the newest first.
    servers: Vec<PathBuf>,
    holds_data: bool,
    /// Held to the end: no server starts on the old folder, nor on the new one before it is whole.
    locks: Vec<FolderLock>,
}

impl Place {
    /// Looks at the place and locks it: refuses one in use, and one that holds data unless it is to be replaced.
    pub fn look(data: &Path, replace: bool) -> Result<Self, Failure> {
        let data = std::path::absolute(data)?;
        let Some(name) = data.file_name().map(|name| name.to_string_lossy().into_owned()) else {
            return Err(Failure::say(Exit::Folder, format_args!("{} cannot be a data folder", data.display())));
        };
        let folder = parent(&data);
        if !folder.is_dir() {
            let sentence =
                format_args!("there is no folder {}; make it, or choose another with --data", folder.display());
            return Err(Failure::say(Exit::Folder, sentence));
        }
        let mut locks = Vec::new();
        let holds_data = holds_data(&data)?;
        if holds_data && (replace || data.join(LOCK_FILE).exists()) {
            locks.push(lock(&data)?);
        }
        if holds_data && !replace {
            let sentence = format_args!(
                "{} holds data; --replace moves it aside (nothing is deleted), or choose another with --data",
                data.display()
            );
            return Err(Failure::say(Exit::Folder, sentence));
        }
        let mut servers = aside(&folder, &name).map_err(|error| unreadable(&folder, &error))?;
        if data.join(DATABASE_FILE).exists() {
            servers.insert(0, data.clone());
        }
        let draft = folder.join(format!(".{name}.restore-part"));
        Ok(Self { data, draft, servers, holds_data, locks })
    }

    /// Folders of servers that were here before, the newest first.
    pub fn servers(&self) -> &[PathBuf] {
        &self.servers
    }

    /// An empty folder beside the place; what an interrupted restore left is removed.
    pub fn draft(&mut self) -> Result<PathBuf, Failure> {
        let draft = &self.draft;
        if draft.exists() {
            let _lock = lock(draft)?;
            if !draft.join(MARK).exists() {
                let sentence = format_args!("{} is in the way, and no restore made it; move it away", draft.display());
                return Err(Failure::say(Exit::Folder, sentence));
            }
            fs::remove_dir_all(draft).map_err(|error| unwritable(draft, error))?;
        }
        DirBuilder::new().mode(0o700).create(draft).map_err(|error| unwritable(draft, error))?;
        let marked = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(draft.join(MARK));
        marked.map_err(|error| unwritable(draft, error))?;
        let held = lock(draft)?;
        self.locks.push(held);
        Ok(self.draft.clone())
    }

    /// Puts the folder in its place; answers where the old one stands now.
    pub fn settle(self) -> Result<Option<PathBuf>, Failure> {
        let folder = parent(&self.data);
        let unmovable = |path: &Path, error: io::Error| match error.kind() {
            ErrorKind::ResourceBusy | ErrorKind::CrossesDevices => Failure::say(
                Exit::Folder,
                format_args!(
                    "{} is a mount point and cannot be exchanged; restore into a folder inside it",
                    path.display()
                ),
            ),
            _ => unwritable(path, error),
        };
        sync(&self.draft).map_err(|error| unwritable(&self.draft, error))?;
        let mut moved = None;
        if self.holds_data {
            let to = free_name(&self.data);
            fs::rename(&self.data, &to).map_err(|error| unmovable(&self.data, error))?;
            moved = Some(to);
        }
        if let Err(error) = fs::rename(&self.draft, &self.data) {
            // As it was.
            if let Some(old) = &moved {
                let _ = fs::rename(old, &self.data);
            }
            return Err(unmovable(&self.data, error));
        }
        let _ = fs::remove_file(self.data.join(MARK));
        sync(&folder).map_err(|error| unwritable(&folder, error))?;
        Ok(moved)
    }
}

fn lock(folder: &Path) -> Result<FolderLock, Failure> {
    FolderLock::take(folder).map_err(|error| {
        let exit = if matches!(error, OpenError::InUse { .. }) { Exit::InUse } else { Exit::Folder };
        Failure::new(exit, error)
    })
}

fn unreadable(folder: &Path, error: &io::Error) -> Failure {
    Failure::say(Exit::Folder, format_args!("cannot read {}: {error}", folder.display()))
}

/// Whether there is anything in the folder; an error where it is none.
fn holds_data(data: &Path) -> Result<bool, Failure> {
    match fs::read_dir(data) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            let sentence = format_args!("{} is not a folder; choose another with --data", data.display());
            Err(Failure::say(Exit::Folder, sentence))
        }
        Err(error) => Err(unreadable(data, &error)),
    }
}

/// What earlier restores moved aside, the newest first: their names are dated.
fn aside(folder: &Path, name: &str) -> io::Result<Vec<PathBuf>> {
    let prefix = format!("{name}.replaced-");
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_ours = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix));
        if is_ours && path.join(DATABASE_FILE).exists() {
            found.push(path);
        }
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found)
}

/// A name beside the folder that nothing has.
fn free_name(data: &Path) -> PathBuf {
    let base =
        format!("{}.replaced-{}", data.file_name().unwrap_or_default().to_string_lossy(), dated(Timestamp::now()));
    let names = std::iter::once(base.clone()).chain((2u32..).map(|n| format!("{base}-{n}")));
    // Ends: a folder holds finitely many names.
    names.map(|name| parent(data).join(name)).find(|path| !path.exists()).unwrap_or_else(|| parent(data).join(base))
}
