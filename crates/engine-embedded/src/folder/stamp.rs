// SPDX-License-Identifier: MIT OR Apache-2.0
//! `VERSION`: the layout of the folder in its first line, and from the end of the first start on the mark of its
//! database in its second.
//!
//! The version is written before anything else and the mark after the database is durable, so a first start that was
//! cut short leaves a folder without a mark, which is simply started again. A folder with a mark has had a database;
//! when that is gone or another one, starting would silently make an empty server.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::modes::FILE_MODE;
use super::{DATABASE_FILE, VERSION_FILE};

/// Before the new stamp takes the place of the old one.
pub(super) const DRAFT_FILE: &str = "VERSION.new";
/// Digits of a mark: 128 bits.
const MARK_DIGITS: usize = 32;

/// What a VERSION file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// The layout of the folder, at least 1.
    pub version: u32,
    /// The mark of the database that belongs here, in hexadecimal; none before the first start has ended.
    pub database: Option<String>,
}

impl Stamp {
    /// Reads the text of a VERSION file; none when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.trim().lines();
        let version = lines.next()?.trim().parse().ok().filter(|version| *version > 0)?;
        let database = lines.next().map(|line| line.trim().to_string());
        let whole = |mark: &String| mark.len() == MARK_DIGITS && mark.bytes().all(|digit| digit.is_ascii_hexdigit());
        (database.iter().all(whole) && lines.next().is_none()).then_some(Self { version, database })
    }

    /// Reads the stamp of `dir`: `Ok(None)` without a file, an error of kind `InvalidData` when it is no stamp.
    pub fn read(dir: &Path) -> io::Result<Option<Self>> {
        match fs::read_to_string(dir.join(VERSION_FILE)) {
            Ok(text) => Self::parse(&text).map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the folder has had a database that is missing or empty now.
    pub fn lacks_database(&self, dir: &Path) -> bool {
        self.database.is_some() && fs::metadata(dir.join(DATABASE_FILE)).map_or(true, |found| found.len() == 0)
    }

    /// Writes it durably, whole or not at all; the caller syncs the folder.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        let draft = dir.join(DRAFT_FILE);
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(FILE_MODE).open(&draft)?;
        writeln!(file, "{}", self.version)?;
        self.database.iter().try_for_each(|mark| writeln!(file, "{mark}"))?;
        file.sync_all()?;
        fs::rename(&draft, dir.join(VERSION_FILE))
    }
}

/// The mark of the database with this cluster key; does not tell the key.
pub(crate) fn mark_of(key: &[u8; 16]) -> String {
    let digest = Sha256::new().chain_update(b"pli-database-mark-1").chain_update(key).finalize();
    digest.iter().take(MARK_DIGITS / 2).fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_no_stamp_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Stamp::read(dir.path()).unwrap(), None);
        for database in [None, Some(mark_of(&[3; 16]))] {
            let stamp = Stamp { version: 1, database };
            stamp.write(dir.path()).unwrap();
            assert_eq!(Stamp::read(dir.path()).unwrap(), Some(stamp));
        }
        for bad in
            ["", "one", "0", "-1", "\u{202e}1", "1\nabc\n", "1\n\n\n2", &format!("1\n{0}\n{0}", mark_of(&[1; 16]))]
        {
            assert_eq!(Stamp::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn marks_are_pinned_and_differ_with_the_key() {
        assert_ne!(mark_of(&[1; 16]), mark_of(&[2; 16]));
        assert_eq!(mark_of(&[0; 16]), "180fb4f23566bd8dbabde44d62983b0b");
    }
}
