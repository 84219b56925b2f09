// SPDX-License-Identifier: MIT OR Apache-2.0
//! What makes a copy of a database one that clients may go on with.
//!
//! A copy is older than what clients have seen. Put back as it is, it would give positions again that clients have
//! committed, hand out key packages whose private keys are gone, and count the epochs of conversations over numbers that
//! their members have used for other keys. So it begins a history of its own: a new id that edges tell clients, a higher
//! log epoch in every shard, no conversations (clients make them again), no rendezvous (a blob of one is written once), no uploads (their parts are not in a backup) and
//! no single-use key packages (clients make new ones; last-resort packages stay good).

use std::path::Path;

use pli_domain::{LogEpoch, PositionOverflow, ShardId};
use pli_ports::LogEpochStart;
use rusqlite::{Connection, OpenFlags, params};

use crate::database::{self, damaged, number};
use crate::folder::{FolderLockFile, lock};
use crate::{DATABASE_FILE, OpenError, device_queues, links, media};

/// Holds a data folder against servers and other commands until it is dropped, or the process ends.
#[derive(Debug)]
pub struct FolderLock {
    _file: FolderLockFile,
}

impl FolderLock {
    /// Takes the lock of an existing folder; refuses while a process has the folder open.
    pub fn take(dir: &Path) -> Result<Self, OpenError> {
        Ok(Self { _file: lock(dir)? })
    }
}

/// Why a history was not begun.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// There is no log epoch above those that are known.
    #[error("no log epoch is left above {}; begin a new server and let people register there", above.get())]
    NoEpochLeft {
        /// The highest one that is known.
        above: LogEpoch,
        /// What does not fit.
        #[source]
        source: PositionOverflow,
    },
    /// SQLite refuses.
    #[error("cannot change {}", path.display())]
    Database {
        /// The database.
        path: std::path::PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
}

/// The part of the log epochs that are left, up to the alarm, within which a jump lies.
const JUMP_PART: u64 = 16;

/// The log epoch that a restored server begins above `above`, the highest that is known: the next one, or where the
/// server that clients saw last is not at hand (`unseen`) and may itself have been restored, a random one within the next
/// sixteenth of what is left up to [`LogEpoch::ALARM`].
pub fn log_epoch_above(above: LogEpoch, unseen: bool) -> Result<LogEpoch, HistoryError> {
    let room = LogEpoch::ALARM.get().saturating_sub(above.get() + 1) / JUMP_PART;
    let jump = if unseen { rand::random_range(0..=room) } else { 0 };
    LogEpoch::new(above.get() + 1 + jump).map_err(|source| HistoryError::NoEpochLeft { above, source })
}

/// The highest log epoch of a folder's shards. Errors when its database cannot be read.
pub fn highest_log_epoch(dir: &Path) -> Result<LogEpoch, OpenError> {
    let read = || highest(&database::open_reader(&dir.join(DATABASE_FILE))?);
    read().map_err(|source| OpenError::Database { dir: dir.to_owned(), source })
}

pub(crate) fn highest(conn: &Connection) -> rusqlite::Result<LogEpoch> {
    let highest = conn.query_row("SELECT coalesce(max(epoch), 0) FROM shard_state", [], |row| row.get(0))?;
    LogEpoch::new(number(highest)?).map_err(damaged)
}

/// Begins a history in the database of `dir`, which nobody has open, in one transaction: `id` names it, and every shard
/// begins log epoch `log_epoch` behind its checkpoint, where an owner would, so that what is not settled gets new
/// positions and receipts of it are answered `resend`.
pub fn begin_history(dir: &Path, id: [u8; 16], log_epoch: LogEpoch) -> Result<(), HistoryError> {
    let path = dir.join(DATABASE_FILE);
    let begin = || -> rusqlite::Result<()> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut conn = Connection::open_with_flags(&path, flags)?;
        conn.pragma_update(None, "synchronous", "FULL")?;
        let changes = conn.transaction()?;
        // A copy that an older release made may lack them.
        changes.execute_batch(database::HISTORY)?;
        changes.execute_batch(links::SCHEMA)?;
        changes.execute_batch(media::SCHEMA)?;
        let shards: u32 = changes.query_row("SELECT shards FROM cluster", [], |row| row.get(0))?;
        for shard in (0..shards).filter_map(|shard| u16::try_from(shard).ok()).map(ShardId::new) {
            begin_log_epoch(&changes, shard, log_epoch)?;
        }
        changes.execute_batch(
            "DELETE FROM conversation; DELETE FROM roster; DELETE FROM member; DELETE FROM intent;
             DELETE FROM rendezvous_blob; DELETE FROM rendezvous;
             DELETE FROM media_part; DELETE FROM media_upload;
             UPDATE key_package SET bytes = NULL;",
        )?;
        changes.execute("INSERT OR REPLACE INTO history (one, id) VALUES (1, ?1)", params![id])?;
        changes.commit()?;
        conn.close().map_err(|(_, error)| error)
    };
    begin().map_err(|source| HistoryError::Database { path: path.clone(), source })
}

fn begin_log_epoch(conn: &Connection, shard: ShardId, epoch: LogEpoch) -> rusqlite::Result<()> {
    let state = device_queues::shard_state(conn, shard)?;
    let to = LogEpochStart { epoch, first: state.checkpoint.position.seq().next() };
    device_queues::begin_log_epoch(conn, shard, state.log_epoch.epoch, to).map(|_| ())
}
