// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every port on one SQLite file, for one process.
//!
//! [`EmbeddedEngine`] opens a data folder and hands out the ports. What it holds to:
//!
//! - One writer thread owns the write connection. Whatever waits (appends, settles, trims, everything else) becomes
//!   one group: one transaction, one fsync of the write-ahead log (WAL, `synchronous = FULL`). Nobody is answered
//!   before that commit has returned.
//! - The log and the tables share each transaction, so the end of the log cannot vanish while the tables stay
//!   ([`pli_ports::LogFate::OneTransaction`]).
//! - The entries of one group and shard are one row. The newest of each shard stay in memory, so that followers do
//!   not read the database.
//! - When the disk is full, appends and other growth are refused while a reserve file makes room for acks, settles
//!   and trims. After any other I/O error the engine is stopped for good and [`EmbeddedEngine::failed`] resolves; an
//!   fsync is never retried, because a failed one may have dropped what it was to write.
//! - Signals and leases live in memory: they may be lost with the process.
//!
//! The folder holds `pli.db` (with `-wal` and `-shm`), `VERSION`, `pli.lock` and `reserve`, all for
//! its owner alone. [`copy_database`] copies the database beside a running server, and [`begin_history`] makes such a
//! copy one that clients may go on with. From the end of the first start on `VERSION` names the database, and without just that one the
//! folder is not opened.

mod accounts;
mod backup;
mod block;
mod check;
mod conversations;
mod database;
mod device_queues;
mod engine;
mod error;
mod folder;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod jobs;
mod leases;
mod links;
mod logs;
mod media;
mod options;
mod payloads;
mod readers;
mod restored;
mod shard_log;
mod signals;
mod space;
mod stats;
mod store;
mod upkeep;
mod writer;

pub use backup::{BackupError, CopiedDatabase, CopyProgress, copy_database, data_of};
pub use check::check_database;
pub use engine::EmbeddedEngine;
pub use error::{EngineFailure, OpenError};
pub use folder::{DATA_VERSION, DATABASE_FILE, LOCK_FILE, Stamp, VERSION_FILE};
pub use options::{EmbeddedOptions, Synchronous};
pub use restored::{FolderLock, HistoryError, begin_history, highest_log_epoch, log_epoch_above};
pub use space::RESERVE_FILE;
pub use stats::EngineStats;
