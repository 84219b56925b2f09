// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the writer does between groups: checkpoints of the write-ahead log, shrinking the file, sweeping what has
//! expired, and the reserve.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pli_ports::Clock;
use rusqlite::Connection;

use crate::database::WAL_BYTES_KEPT;
use crate::error::{EngineFailure, Failure};
use crate::space::Reserve;
use crate::stats::Counters;
use crate::{conversations, device_queues};

/// The WAL is copied into the database when about so many bytes were written to it.
const CHECKPOINT_BYTES: u64 = WAL_BYTES_KEPT;
/// A WAL of so many pages has outgrown its checkpoints: then readers are waited for, so that it can begin anew.
const WAL_PAGES_MAX: i64 = 8 * 1_024;
/// Free pages left in the file for the next entries (16 MiB of 4 KiB pages); more go back to the file system.
const FREE_PAGES_KEPT: i64 = 4_096;
/// Pages given back in one step.
const SHRINK_PAGES: i64 = 1_024;
/// What a write costs in the WAL besides its bytes: the pages it shares with others.
const WRITE_OVERHEAD: u64 = 4_096;
/// How often expired rows and old commits are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Rows swept in one step.
const SWEEP_ROWS: u32 = 1_000;
/// How often a full disk is looked at again.
const ROOM_EVERY: Duration = Duration::from_millis(200);

pub(crate) struct Upkeep {
    reserve: Reserve,
    clock: Arc<dyn Clock>,
    syncing: bool,
    wal_bytes: u64,
    shrinking: bool,
    sweep_at: Instant,
    room_at: Instant,
}

/// What `PRAGMA wal_checkpoint` answers.
struct Copied {
    pages: i64,
}

impl Upkeep {
    pub(crate) fn new(reserve: Reserve, clock: Arc<dyn Clock>, syncing: bool) -> Self {
        let now = Instant::now();
        // The WAL of a killed process may be long: copied after the first group.
        let wal_bytes = CHECKPOINT_BYTES;
        Self { reserve, clock, syncing, wal_bytes, shrinking: false, sweep_at: now + SWEEP_EVERY, room_at: now }
    }

    /// False while the disk is full.
    pub(crate) fn has_room(&self) -> bool {
        self.reserve.held()
    }

    /// How long the writer may sleep.
    pub(crate) fn idle(&self) -> Duration {
        if self.shrinking && self.has_room() {
            return Duration::ZERO;
        }
        if self.has_room() { SWEEP_EVERY } else { ROOM_EVERY }
    }

    /// A group was committed.
    pub(crate) fn wrote(&mut self, bytes: u64, jobs: u64) {
        self.wal_bytes += bytes + jobs.saturating_mul(256) + WRITE_OVERHEAD;
    }

    /// What is due now.
    pub(crate) fn keep_up(&mut self, conn: &Connection, counters: &Counters) -> Result<(), Failure> {
        let now = Instant::now();
        if !self.has_room() && now >= self.room_at {
            self.room_at = now + ROOM_EVERY;
            self.look_for_room(conn, counters)?;
        }
        if self.wal_bytes >= CHECKPOINT_BYTES {
            self.copy(conn, counters)?;
        }
        if self.shrinking && self.has_room() {
            self.shrink(conn)?;
        }
        if now >= self.sweep_at && self.has_room() {
            self.sweep_at = now + SWEEP_EVERY;
            self.sweep(conn)?;
        }
        Ok(())
    }

    /// Gives up the reserve, and makes what room there is in the WAL.
    pub(crate) fn make_room(&mut self, conn: &Connection, counters: &Counters) -> Result<(), Failure> {
        self.reserve.release().map_err(stopped)?;
        self.room_at = Instant::now() + ROOM_EVERY;
        self.tolerate_full(conn, counters)
    }

    /// The clean end: an empty WAL, so that the next start has nothing to do.
    pub(crate) fn finish(&mut self, conn: &Connection) -> Result<(), Failure> {
        match checkpoint(conn, "TRUNCATE") {
            Ok(_) | Err(Failure::NoSpace | Failure::Busy(_)) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    fn copy(&mut self, conn: &Connection, counters: &Counters) -> Result<(), Failure> {
        self.wal_bytes = 0;
        let copied = match checkpoint(conn, "PASSIVE") {
            Err(Failure::NoSpace) => {
                self.reserve.release().map_err(stopped)?;
                return self.tolerate_full(conn, counters);
            }
            Err(Failure::Busy(_)) => return Ok(()),
            other => other?,
        };
        counters.checkpointed(self.syncing);
        if copied.pages > WAL_PAGES_MAX {
            match checkpoint(conn, "RESTART") {
                Ok(_) | Err(Failure::Busy(_) | Failure::NoSpace) => {}
                Err(failure) => return Err(failure),
            }
        }
        let free: i64 = pragma(conn, "freelist_count")?;
        self.shrinking = free > FREE_PAGES_KEPT;
        Ok(())
    }

    /// Copies and cuts the WAL as far as the disk allows; what stays in it is safe there.
    fn tolerate_full(&self, conn: &Connection, counters: &Counters) -> Result<(), Failure> {
        match checkpoint(conn, "TRUNCATE") {
            Ok(_) => {
                counters.checkpointed(self.syncing);
                Ok(())
            }
            Err(Failure::NoSpace | Failure::Busy(_)) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Shrinks the file as far as it goes and takes the reserve again if there is room.
    fn look_for_room(&mut self, conn: &Connection, counters: &Counters) -> Result<(), Failure> {
        self.tolerate_full(conn, counters)?;
        match give_back(conn, SHRINK_PAGES) {
            Ok(()) => self.tolerate_full(conn, counters)?,
            Err(Failure::NoSpace) => {}
            Err(failure) => return Err(failure),
        }
        if self.reserve.take().map_err(stopped)? {
            tracing::info!("there is space again; appends are accepted");
        }
        Ok(())
    }

    fn shrink(&mut self, conn: &Connection) -> Result<(), Failure> {
        match give_back(conn, SHRINK_PAGES) {
            Ok(()) => {}
            // Moving pages needs room itself.
            Err(Failure::NoSpace) => return self.reserve.release().map_err(stopped),
            Err(failure) => return Err(failure),
        }
        self.wal_bytes += SHRINK_PAGES as u64 * 4_096;
        let free: i64 = pragma(conn, "freelist_count")?;
        self.shrinking = free > FREE_PAGES_KEPT;
        Ok(())
    }

    fn sweep(&mut self, conn: &Connection) -> Result<(), Failure> {
        let now = self.clock.now();
        let rows = device_queues::expire_rows(conn, now, SWEEP_ROWS);
        let swept = rows.and_then(|rows| Ok(rows + conversations::forget_commits(conn, now, SWEEP_ROWS)?));
        match swept.map_err(Failure::of) {
            Ok(swept) => {
                self.wal_bytes += swept as u64 * 4_096;
                if swept >= SWEEP_ROWS as usize {
                    self.sweep_at = Instant::now();
                }
                Ok(())
            }
            Err(Failure::NoSpace) => self.reserve.release().map_err(stopped),
            Err(Failure::Busy(_)) => Ok(()),
            Err(failure) => Err(failure),
        }
    }
}

fn stopped(error: std::io::Error) -> Failure {
    Failure::Stopped(EngineFailure { source: Arc::new(error) })
}

fn pragma(conn: &Connection, name: &str) -> Result<i64, Failure> {
    conn.pragma_query_value(None, name, |row| row.get(0)).map_err(Failure::of)
}

fn checkpoint(conn: &Connection, mode: &str) -> Result<Copied, Failure> {
    conn.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| Ok(Copied { pages: row.get(1)? }))
        .map_err(Failure::of)
}

/// Moves pages from the end of the file into free ones and cuts the file.
fn give_back(conn: &Connection, pages: i64) -> Result<(), Failure> {
    let step = || -> rusqlite::Result<()> {
        let mut statement = conn.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        Ok(())
    };
    step().map_err(Failure::of)
}
