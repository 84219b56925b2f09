// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether the database of a folder that no process has open is whole.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::{DATABASE_FILE, OpenError, Stamp};

/// Runs SQLite's quick check, read only. False when there is no database yet, an error when one is gone. Blocks for as long as it takes to read the
/// file; what the check finds is in the error.
pub fn check_database(dir: &Path) -> Result<bool, OpenError> {
    let path = dir.join(DATABASE_FILE);
    // A stamp that cannot be read is told by whoever looks at the version.
    if Stamp::read(dir).ok().flatten().is_some_and(|stamp| stamp.lacks_database(dir)) {
        return Err(OpenError::DatabaseGone { dir: dir.to_owned() });
    }
    if std::fs::metadata(&path).map_or(true, |found| found.len() == 0) {
        return Ok(false);
    }
    let check = || -> rusqlite::Result<String> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Connection::open_with_flags(&path, flags)?.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
    };
    match check() {
        Ok(verdict) if verdict == "ok" => Ok(true),
        Ok(verdict) => Err(OpenError::Io { path, source: std::io::Error::other(verdict) }),
        Err(source) => Err(OpenError::Database { dir: dir.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_database_a_damaged_one_and_none_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!check_database(dir.path()).unwrap());
        let path = dir.path().join(DATABASE_FILE);
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1);").unwrap();
        assert!(check_database(dir.path()).unwrap());
        std::fs::write(&path, "not a database, although long enough to be read as one".repeat(40)).unwrap();
        assert!(check_database(dir.path()).is_err());
    }
}
