// SPDX-License-Identifier: MIT OR Apache-2.0
//! What SQLite's answers mean: no room, a refused call, or the end of this process.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pli_ports::StoreError;
use rusqlite::ErrorCode;
use rusqlite::ffi::SQLITE_IOERR_SHMSIZE;
use tokio::sync::watch;

/// Why a data folder was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{} is in use by process {pid}; stop it or choose another data folder", dir.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
        /// Who holds it; 0 when the lock file does not say.
        pid: u32,
    },
    /// The path is a file.
    #[error("{} is not a folder; choose another data folder", dir.display())]
    NotAFolder {
        /// The path.
        dir: PathBuf,
    },
    /// The folder cannot be written.
    #[error("{} cannot be written; give this user write access or choose another data folder", dir.display())]
    ReadOnly {
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The folder was written by a newer release.
    #[error("{} has data version {found}, this release reads up to {known}; run the release that wrote it, or newer", dir.display())]
    NewerVersion {
        /// The folder.
        dir: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version that this release knows.
        known: u32,
    },
    /// The version stamp is missing or no number although there is data.
    #[error("{} has no readable VERSION file; it is no Pli data folder, or restore a backup with `pli restore`", dir.display())]
    NoVersion {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder has had a database, which is missing or empty now.
    #[error(
        "{} has lost its database: pli.db is missing or empty; restore a backup with `pli restore --replace`, or remove VERSION, \
         pli.db-wal and what is left of pli.db to begin anew without any account",
        dir.display()
    )]
    DatabaseGone {
        /// The folder.
        dir: PathBuf,
    },
    /// The database is not the one that the folder was stamped with.
    #[error(
        "pli.db in {} is not the database that VERSION names; restore a backup with `pli restore --replace`, or remove \
         the second line of VERSION to go on with this database",
        dir.display()
    )]
    OtherDatabase {
        /// The folder.
        dir: PathBuf,
    },
    /// The shard count asked for cannot be used.
    #[error(transparent)]
    Shards(#[from] pli_domain::InvalidShardMap),
    /// A file of the folder cannot be used.
    #[error("cannot use {} ({source}); name a folder that this user may write in with --data", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The disk is full and there is no reserve left to give up.
    #[error("no space left for {}; make room on its disk", dir.display())]
    NoSpace {
        /// The folder.
        dir: PathBuf,
    },
    /// SQLite refuses the database.
    #[error("cannot open the database in {}; if it is damaged, restore a backup with `pli restore --replace`", dir.display())]
    Database {
        /// The folder.
        dir: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
}

impl OpenError {
    /// What an answer of SQLite means for a folder that is being opened.
    pub(crate) fn of_database(dir: &Path, source: rusqlite::Error) -> Self {
        let dir = dir.to_owned();
        if is_full(&source) { Self::NoSpace { dir } } else { Self::Database { dir, source } }
    }
}

/// The engine has stopped for good; the process must end and be started again.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the embedded engine stopped; restart the process")]
pub struct EngineFailure {
    /// The I/O error that stopped it.
    #[source]
    pub source: Arc<dyn std::error::Error + Send + Sync>,
}

/// Why a write or read has no result.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Failure {
    #[error("no space left on the disk")]
    NoSpace,
    #[error("the engine is closed")]
    Closed,
    #[error("the database is busy")]
    Busy(#[source] Arc<rusqlite::Error>),
    #[error("refused by the database")]
    Refused(#[source] Arc<rusqlite::Error>),
    #[error(transparent)]
    Stopped(#[from] EngineFailure),
}

impl Failure {
    /// What an answer of SQLite means for the engine.
    pub(crate) fn of(error: rusqlite::Error) -> Self {
        match Verdict::of(&error) {
            Verdict::NoSpace => Self::NoSpace,
            Verdict::Busy => Self::Busy(Arc::new(error)),
            Verdict::Refused => Self::Refused(Arc::new(error)),
            Verdict::Stop => Self::Stopped(EngineFailure { source: Arc::new(error) }),
        }
    }

    /// As the ports say it.
    pub(crate) fn into_store(self, operation: &'static str) -> StoreError {
        match self {
            Self::Refused(_) => StoreError::never(operation, self),
            Self::NoSpace => StoreError::no_room(operation, self),
            Self::Closed | Self::Busy(_) | Self::Stopped(_) => StoreError::later(operation, self),
        }
    }
}

/// Whether SQLite ran out of disk space.
pub(crate) fn is_full(error: &rusqlite::Error) -> bool {
    matches!(Verdict::of(error), Verdict::NoSpace)
}

enum Verdict {
    NoSpace,
    Busy,
    Refused,
    Stop,
}

impl Verdict {
    fn of(error: &rusqlite::Error) -> Self {
        let rusqlite::Error::SqliteFailure(failure, _) = error else {
            return Self::of_binding(error);
        };
        // Growing the WAL index is the one place where SQLite reports a full disk as an I/O error.
        if failure.extended_code == SQLITE_IOERR_SHMSIZE {
            return Self::NoSpace;
        }
        match failure.code {
            ErrorCode::DiskFull => Self::NoSpace,
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Self::Busy,
            ErrorCode::ConstraintViolation
            | ErrorCode::TypeMismatch
            | ErrorCode::ParameterOutOfRange
            | ErrorCode::OperationAborted
            | ErrorCode::OperationInterrupted
            | ErrorCode::TooBig => Self::Refused,
            _ => Self::Stop,
        }
    }

    /// Errors of the binding: a value that this engine never wrote means a damaged file; the rest is a wrong call.
    fn of_binding(error: &rusqlite::Error) -> Self {
        match error {
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..) => Self::Stop,
            _ => Self::Refused,
        }
    }
}

/// Remembers the first failure that ends the engine; everybody who waits learns it.
#[derive(Debug)]
pub(crate) struct Stop(watch::Sender<Option<EngineFailure>>);

impl Stop {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// Notes `failure` if it is of the kind that stops the engine; hands it back for the caller's answer.
    pub(crate) fn note(&self, failure: Failure) -> Failure {
        if let Failure::Stopped(reason) = &failure {
            self.0.send_if_modified(|known| {
                let first = known.is_none();
                if first {
                    tracing::error!(reason = ?reason.source, "the embedded engine stops after an I/O error");
                    *known = Some(reason.clone());
                }
                first
            });
        }
        failure
    }

    pub(crate) fn reason(&self) -> Option<EngineFailure> {
        self.0.borrow().clone()
    }

    pub(crate) async fn wait(&self) -> EngineFailure {
        let mut watched = self.0.subscribe();
        loop {
            if let Some(reason) = watched.borrow_and_update().clone() {
                return reason;
            }
            // `self` owns the sender, so this cannot end before the value changes.
            if watched.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
