// SPDX-License-Identifier: MIT OR Apache-2.0
//! A consistent copy of the database of a folder, also while a server writes to it.
//!
//! SQLite's online backup is taken inside one read transaction, so the copy is the state of one moment however long it
//! takes and however much is written meanwhile; the writer never waits for it. It goes in small steps, each followed by
//! a rest as long as the step, and what was copied is synced now and then, so that the server's own syncs do not meet a
//! disk with a long queue.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pli_domain::{LogEpoch, UnixMillis};
use pli_ports::Clock;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use crate::error::is_full;
use crate::folder::mark_of;
use crate::{DATA_VERSION, DATABASE_FILE, OpenError, Stamp, database};

/// Pages copied in one step (1 MiB of 4 KiB pages).
const STEP_PAGES: i32 = 256;
/// Steps after which the copy is synced.
const STEPS_PER_SYNC: u32 = 8;
/// Longest rest after a step.
const REST_MAX: Duration = Duration::from_millis(20);
/// How often a step that finds the database locked is tried again.
const LOCKED_MAX: u32 = 500;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is no such folder.
    #[error("there is no folder {}; name the data folder of the server", dir.display())]
    NoFolder {
        /// The folder.
        dir: PathBuf,
    },
    /// No server has finished its first start there.
    #[error("{} is no data folder of Pli, or one without data; name the data folder of the server", dir.display())]
    NoData {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] OpenError),
    /// The copy does not fit.
    #[error("no space left for {}; make room on its disk or choose another place", to.display())]
    NoSpace {
        /// The copy.
        to: PathBuf,
    },
    /// The copy cannot be written.
    #[error("cannot write {}", to.display())]
    Write {
        /// The copy.
        to: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// SQLite refuses the copy.
    #[error("cannot copy the database to {}", to.display())]
    Copy {
        /// The copy.
        to: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// The database is damaged: a copy of it would not help.
    #[error("the database in {} is damaged: {verdict}; restore an older backup with `pli restore`", dir.display())]
    Damaged {
        /// The folder.
        dir: PathBuf,
        /// The first thing that the check found.
        verdict: String,
    },
}

/// How far a copy has come, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyProgress {
    /// Copied.
    pub done: u64,
    /// Of so many.
    pub total: u64,
}

/// What was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopiedDatabase {
    /// The moment whose state the copy holds, in server time.
    pub taken_at: UnixMillis,
    /// The data version of the folder.
    pub data_version: u32,
    /// The mark of the database, as VERSION names it.
    pub mark: String,
    /// The highest log epoch of its shards.
    pub log_epoch: LogEpoch,
}

/// What a folder says of its database before it is copied: its stamp with the mark, and the size in bytes.
pub fn data_of(dir: &Path) -> Result<(Stamp, u64), BackupError> {
    if !dir.is_dir() {
        return Err(BackupError::NoFolder { dir: dir.to_owned() });
    }
    let stamp = match Stamp::read(dir) {
        Ok(Some(stamp)) => stamp,
        Ok(None) => return Err(BackupError::NoData { dir: dir.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(OpenError::NoVersion { dir: dir.to_owned() }.into());
        }
        Err(source) => return Err(OpenError::Io { path: dir.join(crate::VERSION_FILE), source }.into()),
    };
    if stamp.version > DATA_VERSION {
        let (found, known) = (stamp.version, DATA_VERSION);
        return Err(OpenError::NewerVersion { dir: dir.to_owned(), found, known }.into());
    }
    if stamp.lacks_database(dir) {
        return Err(OpenError::DatabaseGone { dir: dir.to_owned() }.into());
    }
    if stamp.database.is_none() {
        return Err(BackupError::NoData { dir: dir.to_owned() });
    }
    let bytes = |end: &str| std::fs::metadata(dir.join(format!("{DATABASE_FILE}{end}"))).map_or(0, |found| found.len());
    Ok((stamp, bytes("") + bytes("-wal")))
}

/// Copies the database of `dir` to the new file `to`, checks the copy and makes it durable, though not its name. Blocks;
/// a server may go on writing to `dir`. Whatever fails leaves `dir` as it was; what there is of `to` is for the caller
/// to remove.
pub fn copy_database(
    dir: &Path,
    to: &Path,
    clock: &dyn Clock,
    progress: impl FnMut(CopyProgress),
) -> Result<CopiedDatabase, BackupError> {
    let (stamp, _) = data_of(dir)?;
    let opening = |source| BackupError::Folder(OpenError::Database { dir: dir.to_owned(), source });
    let copying = |source: rusqlite::Error| match is_full(&source) {
        true => BackupError::NoSpace { to: to.to_owned() },
        false => BackupError::Copy { to: to.to_owned(), source },
    };
    let writing = |source: io::Error| match source.kind() {
        io::ErrorKind::StorageFull => BackupError::NoSpace { to: to.to_owned() },
        _ => BackupError::Write { to: to.to_owned(), source },
    };
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(to).map_err(writing)?;
    let source = database::open_reader(&dir.join(DATABASE_FILE)).map_err(opening)?;
    let (mark, log_epoch) = begin_reading(&source).map_err(opening)?;
    if stamp.database.as_deref() != Some(mark.as_str()) {
        return Err(OpenError::OtherDatabase { dir: dir.to_owned() }.into());
    }
    let taken_at = clock.now();
    let mut copy = open_copy(to).map_err(copying)?;
    copy_pages(&source, &mut copy, &file, progress).map_err(copying)?;
    drop(source);
    // One file, and no other beside it.
    copy.pragma_update(None, "journal_mode", "DELETE").map_err(copying)?;
    let verdict: String = copy.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(copying)?;
    if verdict != "ok" {
        return Err(BackupError::Damaged { dir: dir.to_owned(), verdict });
    }
    copy.close().map_err(|(_, source)| copying(source))?;
    file.sync_all().map_err(writing)?;
    Ok(CopiedDatabase { taken_at, data_version: stamp.version, mark, log_epoch })
}

/// Begins the read transaction by its first look.
fn begin_reading(source: &Connection) -> rusqlite::Result<(String, LogEpoch)> {
    source.execute_batch("BEGIN")?;
    let key: [u8; 16] = source.query_row("SELECT key FROM cluster", [], |row| row.get(0))?;
    Ok((mark_of(&key), crate::restored::highest(source)?))
}

fn open_copy(to: &Path) -> rusqlite::Result<Connection> {
    let copy = Connection::open_with_flags(to, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    // Nobody relies on the copy before it is whole and synced.
    copy.pragma_update(None, "journal_mode", "OFF")?;
    copy.pragma_update(None, "synchronous", "OFF")?;
    Ok(copy)
}

fn copy_pages(
    source: &Connection,
    copy: &mut Connection,
    file: &File,
    mut progress: impl FnMut(CopyProgress),
) -> rusqlite::Result<()> {
    let page: i64 = source.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let bytes = |pages: i32| u64::try_from(i64::from(pages) * page).unwrap_or(0);
    let backup = Backup::new(source, copy)?;
    let (mut steps, mut locked) = (0u32, 0u32);
    loop {
        let begun = Instant::now();
        match backup.step(STEP_PAGES)? {
            StepResult::Done => return Ok(()),
            StepResult::More => steps += 1,
            // Only another process that looks at the half-made copy could do this.
            _ if locked >= LOCKED_MAX => return Err(rusqlite::Error::InvalidQuery),
            _ => locked += 1,
        }
        if steps.is_multiple_of(STEPS_PER_SYNC) {
            // Spreads the writing; what fails here fails at the end too.
            let _ = file.sync_data();
        }
        let so_far = backup.progress();
        progress(CopyProgress { done: bytes(so_far.pagecount - so_far.remaining), total: bytes(so_far.pagecount) });
        std::thread::sleep(begun.elapsed().clamp(Duration::from_millis(1), REST_MAX));
    }
}
