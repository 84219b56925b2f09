// SPDX-License-Identifier: MIT OR Apache-2.0
//! The client's own data: one SQLite file of sealed values. One change set is one durable transaction.
//!
//! What is deleted or replaced is to be gone, keys above all: SQLite overwrites it in the file (`secure_delete`), and
//! [`Store::scrub`] empties the log beside the file, which holds pages as they were after each transaction. What a file
//! system or a disk keeps of overwritten blocks is beyond its reach.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};

use crate::seal::{SealError, Sealer};

/// The layout of the file; a file with a higher one was written by a newer version.
const VERSION: u32 = 1;
/// A transaction waits so long for another connection; what rusqlite sets.
const BUSY_AWAITED: Duration = Duration::from_secs(5);
/// Most rows that one scan gives back.
pub const SCAN_ROWS_MAX: usize = 10_000;

/// Why the store cannot do what was asked. Every one of them ends the client: its state in memory may be ahead of
/// what is durable.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// SQLite failed.
    #[error("the profile's database {path} failed: {}{source}", no_room(source))]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: rusqlite::Error,
    },
    /// Written by a newer version.
    #[error("{path} has layout {found}, this version reads up to {VERSION}; use a newer pli")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: u32,
    },
    /// The runtime is going down.
    #[error("the process is ending")]
    Stopped,
    /// A value cannot be sealed or opened.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// What to do where the disk is full, which SQLite says in words of its own, or as a number where it is about the memory
/// that its connections share.
fn no_room(error: &rusqlite::Error) -> &'static str {
    let full = error.sqlite_error().is_some_and(|error| {
        error.code == ErrorCode::DiskFull || error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE
    });
    if full { "no space is left on the disk; free some and begin again, nothing is lost: " } else { "" }
}

/// A key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// An open database.
#[derive(Debug)]
pub struct Store {
    database: Connection,
    sealer: Sealer,
    path: PathBuf,
}

impl Store {
    /// Opens or makes the file.
    pub fn open(path: &Path, sealer: Sealer) -> Result<Self, StorageError> {
        let failed = |source| StorageError::Sqlite { path: path.to_path_buf(), source };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let database = Connection::open_with_flags(path, flags).map_err(failed)?;
        let found: u32 = database.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
        if found > VERSION {
            return Err(StorageError::Newer { path: path.to_path_buf(), found });
        }
        // FULL: an acknowledged envelope must survive a power cut, and SQLite's WAL is only synced per commit so.
        let setup = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;
             CREATE TABLE IF NOT EXISTS sealed (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;";
        database.execute_batch(setup).map_err(failed)?;
        database.pragma_update(None, "user_version", VERSION).map_err(failed)?;
        let store = Self { database, sealer, path: path.to_path_buf() };
        // A process that was killed has left its log.
        let _another_reads = !store.scrub()?;
        Ok(store)
    }

    /// Applies the changes in one transaction that is durable on return; all of them or none.
    pub fn apply<'a>(
        &mut self,
        changes: impl IntoIterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) -> Result<(), StorageError> {
        let mut sealed = Vec::new();
        for (key, value) in changes {
            sealed.push((key, value.map(|value| self.sealer.seal(key, value)).transpose()?));
        }
        self.write(&sealed).map_err(|source| self.failed(source))
    }

    /// Leaves nothing of what was deleted or replaced: moves everything into the file and empties the log beside it.
    /// Costs two fsyncs, and nothing where nothing was written since. Answers whether the log is empty: while another
    /// connection (a backup, a shell) reads it, it cannot be emptied, and is to be scrubbed again later. That is not waited
    /// for here.
    pub fn scrub(&self) -> Result<bool, StorageError> {
        let waits = |span| self.database.busy_timeout(span).map_err(|source| self.failed(source));
        waits(Duration::ZERO)?;
        // Busy, frames in the log, frames moved into the file (https://sqlite.org/pragma.html#pragma_wal_checkpoint).
        let busy = self.database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0));
        waits(BUSY_AWAITED)?;
        match busy {
            Ok(busy) => Ok(!busy),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Ok(false),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn write(&mut self, changes: &[(&[u8], Option<Vec<u8>>)]) -> rusqlite::Result<()> {
        let transaction = self.database.transaction()?;
        for (key, sealed) in changes {
            match sealed {
                Some(sealed) => transaction
                    .prepare_cached("INSERT OR REPLACE INTO sealed (key, value) VALUES (?1, ?2)")?
                    .execute(params![key, sealed])?,
                None => transaction.prepare_cached("DELETE FROM sealed WHERE key = ?1")?.execute([key])?,
            };
        }
        transaction.commit()
    }

    /// The value under `key`.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        let sealed: Option<Vec<u8>> = self
            .database
            .prepare_cached("SELECT value FROM sealed WHERE key = ?1")
            .and_then(|mut get| get.query_row([key], |row| row.get(0)).optional())
            .map_err(|source| self.failed(source))?;
        sealed.map(|sealed| self.sealer.unseal(key, &sealed)).transpose().map_err(StorageError::from)
    }

    /// The rows whose keys begin with `prefix`, in order of key, at most [`SCAN_ROWS_MAX`]; those after `after` where
    /// it is given.
    pub fn scan(&self, prefix: &[u8], after: Option<&[u8]>) -> Result<Vec<Row>, StorageError> {
        // The least key above `after` is `after` with a zero byte.
        let from = after.map_or_else(|| prefix.to_vec(), |after| [after, &[0]].concat());
        let sql = "SELECT key, value FROM sealed WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT ?3";
        self.rows(sql, &from, &above(prefix), SCAN_ROWS_MAX)
    }

    /// The first row whose key begins with `prefix` and lies above `after`.
    pub fn next(&self, prefix: &[u8], after: Option<&[u8]>) -> Result<Option<Row>, StorageError> {
        let from = after.map_or_else(|| prefix.to_vec(), |after| [after, &[0]].concat());
        let sql = "SELECT key, value FROM sealed WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT ?3";
        Ok(self.rows(sql, &from, &above(prefix), 1)?.pop())
    }

    /// The last rows whose keys begin with `prefix`, in order of key, at most `rows_max` and [`SCAN_ROWS_MAX`].
    pub fn scan_last(&self, prefix: &[u8], rows_max: usize) -> Result<Vec<Row>, StorageError> {
        let sql = "SELECT key, value FROM sealed WHERE key >= ?1 AND key < ?2 ORDER BY key DESC LIMIT ?3";
        let mut rows = self.rows(sql, prefix, &above(prefix), rows_max.min(SCAN_ROWS_MAX))?;
        rows.reverse();
        Ok(rows)
    }

    fn rows(&self, sql: &str, from: &[u8], to: &[u8], rows_max: usize) -> Result<Vec<Row>, StorageError> {
        let rows_max = i64::try_from(rows_max).unwrap_or(i64::MAX);
        let read = || -> rusqlite::Result<Vec<Row>> {
            let mut statement = self.database.prepare_cached(sql)?;
            let rows = statement.query_map(params![from, to, rows_max], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        };
        let sealed = read().map_err(|source| self.failed(source))?;
        let open = |(key, sealed): Row| Ok(self.sealer.unseal(&key, &sealed).map(|value| (key, value))?);
        sealed.into_iter().map(open).collect()
    }

    fn failed(&self, source: rusqlite::Error) -> StorageError {
        StorageError::Sqlite { path: self.path.clone(), source }
    }
}

/// The least byte string above every one that begins with `prefix`. Keys begin with the number of a table, which is below
/// 0xff, so there is one.
fn above(prefix: &[u8]) -> Vec<u8> {
    let mut above = prefix.to_vec();
    while let Some(last) = above.last_mut() {
        if let Some(next) = last.checked_add(1) {
            *last = next;
            return above;
        }
        above.pop();
    }
    // Every key: longer than any prefix of 0xff that a caller uses.
    vec![u8::MAX; 64]
}

#[cfg(test)]
mod seized;

#[cfg(test)]
mod tests {
    use super::*;

    fn store(folder: &Path) -> Store {
        let sealer = Sealer::open_or_create(&folder.join("key")).expect("a key");
        Store::open(&folder.join("profile.db"), sealer).expect("opens")
    }

    fn put<'a>(key: &'a str, value: &'a str) -> (&'a [u8], Option<&'a [u8]>) {
        (key.as_bytes(), Some(value.as_bytes()))
    }

    fn keys(rows: Vec<Row>) -> Vec<String> {
        rows.into_iter().map(|(key, _)| String::from_utf8_lossy(&key).into_owned()).collect()
    }

    #[test]
    fn what_was_applied_is_there_after_opening_again_and_sealed() {
        let folder = tempfile::tempdir().expect("a folder");
        store(folder.path()).apply([put("m/1", "plaintext-one"), put("m/2", "two")]).expect("applied");
        let mut again = store(folder.path());
        assert_eq!(again.get(b"m/1").expect("read"), Some(b"plaintext-one".to_vec()));
        again.apply([(b"m/2".as_slice(), None)]).expect("applied");
        assert_eq!(again.get(b"m/2").expect("read"), None);
        drop(again);
        for file in std::fs::read_dir(folder.path()).expect("a folder").flatten() {
            let bytes = std::fs::read(file.path()).expect("a file");
            assert!(!bytes.windows(13).any(|w| w == b"plaintext-one"), "{:?} holds plaintext", file.path());
        }
    }

    #[test]
    fn scans_stay_within_their_prefix_and_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut store = store(folder.path());
        store.apply([put("m/1", ""), put("m/3", ""), put("m/2", ""), put("n/1", ""), put("l", "")]).expect("applied");
        assert_eq!(keys(store.scan(b"m/", None).expect("rows")), ["m/1", "m/2", "m/3"]);
        assert_eq!(keys(store.scan(b"m/", Some(b"m/1")).expect("rows")), ["m/2", "m/3"]);
        assert_eq!(keys(store.scan_last(b"m/", 2).expect("rows")), ["m/2", "m/3"]);
        assert_eq!(store.scan(b"", None).expect("rows").len(), 5);
    }

    #[test]
    fn a_newer_layout_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        store(folder.path()).database.pragma_update(None, "user_version", VERSION + 1).expect("changed");
        let sealer = Sealer::open_or_create(&folder.path().join("key")).expect("a key");
        let error = Store::open(&folder.path().join("profile.db"), sealer).expect_err("newer").to_string();
        assert!(error.contains("use a newer pli"), "{error}");
    }
}
