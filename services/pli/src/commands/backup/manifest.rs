// SPDX-License-Identifier: MIT OR Apache-2.0
//! `manifest.json`: what a backup is, and a checksum of each of its files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use pli_domain::UnixMillis;
use pli_engine_embedded::{CopiedDatabase, DATA_VERSION, DATABASE_FILE, VERSION_FILE};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::CERTIFICATE_FILE;

/// The only format that there is.
const FORMAT: u32 = 1;
/// Longest manifest that is read, in bytes.
const BYTES_MAX: u64 = 64 << 10;
/// What a backup may hold besides its manifest.
const FILES: [&str; 3] = [DATABASE_FILE, VERSION_FILE, CERTIFICATE_FILE];

/// See the module. Fields that a newer release adds are passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// How to read the rest.
    pub format: u32,
    /// The layout of the data.
    pub data_version: u32,
    /// The moment that the backup goes back to, for people.
    pub taken_at: String,
    /// The same in milliseconds since 1970.
    pub taken_at_ms: u64,
    /// What made it.
    pub program: String,
    /// The mark of the database, as VERSION names it.
    pub database: String,
    /// The highest log epoch that the server had.
    pub log_epoch: u64,
    /// What is in it.
    pub files: Vec<Entry>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name, without a folder.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256 in hexadecimal.
    pub sha256: String,
}

/// Why a folder is no backup that can be restored.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// There is no such folder.
    #[error("there is no folder {}; name one that `pli backup` made", .0.display())]
    NoFolder(PathBuf),
    /// No manifest.
    #[error("{} is no backup: it has no manifest.json; name a folder that `pli backup` made", .0.display())]
    Missing(PathBuf),
    /// Not readable.
    #[error("cannot read {}", path.display())]
    Read {
        /// The manifest.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Not a manifest.
    #[error("{} is damaged: it is no manifest of a backup; take another backup", path.display())]
    Damaged {
        /// The manifest.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// Made by a newer release.
    #[error("the backup was made by a newer release ({program}): {what}; run that release, or newer")]
    Newer {
        /// What made it.
        program: String,
        /// What this release does not know.
        what: String,
    },
    /// It names files that no backup has, or lacks one that every backup has.
    #[error("{} is damaged: it names other files than a backup has; take another backup", .0.display())]
    Files(PathBuf),
}

impl Manifest {
    /// Where it stands in a backup.
    pub fn path(backup: &Path) -> PathBuf {
        backup.join("manifest.json")
    }

    /// What the files in `folder` are.
    pub fn of(folder: &Path, copied: &CopiedDatabase) -> io::Result<Self> {
        let mut files = Vec::new();
        for name in FILES.iter().filter(|name| folder.join(name).exists()) {
            files.push(Entry::of(&folder.join(name), name)?);
        }
        Ok(Self {
            format: FORMAT,
            data_version: copied.data_version,
            taken_at: moment(copied.taken_at),
            taken_at_ms: copied.taken_at.0,
            program: format!("pli {}", env!("CARGO_PKG_VERSION")),
            database: copied.mark.clone(),
            log_epoch: copied.log_epoch.get(),
            files,
        })
    }

    /// Writes it durably.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(Self::path(folder))?;
        writeln!(file, "{}", serde_json::to_string_pretty(self)?)?;
        file.sync_all()
    }

    /// Reads the manifest of a backup and checks that this release can restore it; the files are not looked at.
    pub fn read(backup: &Path) -> Result<Self, ManifestError> {
        if !backup.is_dir() {
            return Err(ManifestError::NoFolder(backup.to_owned()));
        }
        let path = Self::path(backup);
        let text = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ManifestError::Missing(backup.to_owned()));
            }
            opened => opened.and_then(|file| io::read_to_string(file.take(BYTES_MAX))),
        };
        let text = text.map_err(|source| ManifestError::Read { path: path.clone(), source })?;
        let read: Self =
            serde_json::from_str(&text).map_err(|source| ManifestError::Damaged { path: path.clone(), source })?;
        let newer = |what| Err(ManifestError::Newer { program: read.program.clone(), what });
        if read.format > FORMAT {
            return newer(format!("its format is {}, this one reads up to {FORMAT}", read.format));
        }
        if read.data_version > DATA_VERSION {
            return newer(format!("its data version is {}, this one reads up to {DATA_VERSION}", read.data_version));
        }
        // Names become paths.
        let known = read.files.iter().all(|file| FILES.contains(&file.name.as_str()));
        let has = |name| read.files.iter().filter(|file| file.name == name).count() == 1;
        if !known || !has(DATABASE_FILE) || !has(VERSION_FILE) || read.files.len() > FILES.len() {
            return Err(ManifestError::Files(path));
        }
        Ok(read)
    }

    /// The size of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

impl Entry {
    fn of(path: &Path, name: &str) -> io::Result<Self> {
        let mut digest = Sha256::new();
        let bytes = io::copy(&mut File::open(path)?, &mut digest)?;
        Ok(Self { name: name.to_owned(), bytes, sha256: hex::encode(digest.finalize()) })
    }

    /// Copies the file durably from one folder to another, for its owner alone; false when it is not what it was.
    pub fn copy(&self, from: &Path, to: &Path) -> io::Result<bool> {
        let mut options = OpenOptions::new();
        let target = options.write(true).create_new(true).mode(0o600).open(to.join(&self.name))?;
        let mut both = Hashed { file: &target, digest: Sha256::new() };
        let bytes = io::copy(&mut File::open(from.join(&self.name))?, &mut both)?;
        let sha256 = hex::encode(both.digest.finalize());
        target.sync_all()?;
        Ok(bytes == self.bytes && sha256 == self.sha256)
    }

    /// Whether it is there at all.
    pub fn is_there(&self, backup: &Path) -> bool {
        fs::metadata(backup.join(&self.name)).is_ok_and(|found| found.is_file())
    }
}

struct Hashed<'a> {
    file: &'a File,
    digest: Sha256,
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.digest.update(&bytes[..written]);
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A moment for people: RFC 3339, UTC, whole seconds.
pub fn moment(at: UnixMillis) -> String {
    let seconds = i64::try_from(at.0 / 1_000).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).map_or_else(|_| format!("{} ms after 1970", at.0), |at| at.to_string())
}

/// A moment in the name of a folder.
pub fn dated(at: Timestamp) -> String {
    at.strftime("%Y%m%dT%H%M%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let file = |name: &str| Entry { name: name.into(), bytes: 1, sha256: "ab".repeat(32) };
        Manifest {
            format: 1,
            data_version: 1,
            taken_at: moment(UnixMillis(1_000)),
            taken_at_ms: 1_000,
            program: "pli 0".into(),
            database: "cd".repeat(16),
            log_epoch: 3,
            files: vec![file(DATABASE_FILE), file(VERSION_FILE)],
        }
    }

    #[test]
    fn what_is_written_is_read_and_what_is_newer_or_damaged_is_refused() {
        let written = |manifest: &Manifest| {
            let folder = tempfile::tempdir().expect("a folder");
            manifest.write(folder.path()).expect("written");
            Manifest::read(folder.path())
        };
        assert_eq!(written(&manifest()).expect("read"), manifest());
        assert!(manifest().taken_at.starts_with("1970-01-01T00:00:01"));
        for newer in [Manifest { format: 2, ..manifest() }, Manifest { data_version: 99, ..manifest() }] {
            assert!(matches!(written(&newer), Err(ManifestError::Newer { .. })), "{newer:?}");
        }
        let mut escaping = manifest();
        escaping.files[1].name = "../VERSION".into();
        let mut lacking = manifest();
        lacking.files.pop();
        for bad in [escaping, lacking] {
            assert!(matches!(written(&bad), Err(ManifestError::Files(_))), "{bad:?}");
        }
    }
}
