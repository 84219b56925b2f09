// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the writer does between groups: checkpoints of the write-ahead log, shrinking the file, sweeping what has
//! expired, and the reserve.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pli_ports::Clock;
use rusqlite::Connection;

use crate::database::{BUSY_WAIT, WAL_BYTES_KEPT};
use crate::error::{EngineFailure, Failure};
use crate::space::Reserve;
use crate::stats::Counters;
use crate::{conversations, device_queues};

/// SQLite's page size, which is its default.
const PAGE_BYTES: u64 = 4_096;
/// The WAL is copied into the database when it is so many pages ahead of it (8 MiB).
const COPY_PAGES: i64 = (WAL_BYTES_KEPT / PAGE_BYTES) as i64;
/// After about so many written bytes the WAL and the free pages are looked at.
const LOOK_BYTES: u64 = 1 << 20;
/// They are looked at too when nothing was written for so long.
const LOOK_AFTER: Duration = Duration::from_secs(1);
/// A WAL of so many pages has outgrown its checkpoints: then readers are waited for, so that it can begin anew.
const WAL_PAGES_MAX: i64 = 8 * 1_024;
/// How long the writer waits for them: one that holds on, as a backup does, is left alone.
const RESTART_WAIT: Duration = Duration::from_millis(50);
/// Free pages left in the file for the next entries (16 MiB of 4 KiB pages); more go back to the file system.
const FREE_PAGES_KEPT: i64 = 4_096;
/// Pages given back in one step.
const SHRINK_PAGES: i64 = 1_024;
/// On a full disk a step is made smaller, down to this: what it writes must fit into the room that is left.
const SHRINK_PAGES_MIN: i64 = 4;
/// Deleted rows after which the table of rows is looked at for sparse pages.
const DELETED_MIN: u64 = 4_096;
/// Rows moved out of sparse pages in one step.
const COMPACT_ROWS: u32 = 2_048;
/// What a write costs in the WAL besides its bytes: the pages it shares with others.
const WRITE_OVERHEAD: u64 = 4_096;
/// How often expired rows and old commits are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Rows swept in one step.
const SWEEP_ROWS: u32 = 1_000;
/// On a full disk queue rows leave so much free: pages that are shared, and what frees space.
const ROWS_MARGIN: u64 = 512 << 10;
/// How often a full disk is looked at again.
const ROOM_EVERY: Duration = Duration::from_millis(200);

pub(crate) struct Upkeep {
    reserve: Reserve,
    clock: Arc<dyn Clock>,
    syncing: bool,
    /// Written since the last look, roughly.
    unseen: u64,
    /// The WAL is begun anew above so many pages.
    restart_above: i64,
    shrinking: bool,
    compacting: bool,
    sweep_at: Instant,
    room_at: Instant,
}

/// What `PRAGMA wal_checkpoint` answers, in pages.
struct Wal {
    busy: bool,
    written: i64,
    copied: i64,
}

impl Upkeep {
    pub(crate) fn new(reserve: Reserve, clock: Arc<dyn Clock>, syncing: bool) -> Self {
        let now = Instant::now();
        // The WAL of a killed process may be long: looked at after the first group.
        let unseen = LOOK_BYTES;
        Self {
            reserve,
            clock,
            syncing,
            unseen,
            restart_above: WAL_PAGES_MAX,
            shrinking: false,
            compacting: true,
            sweep_at: now + SWEEP_EVERY,
            room_at: now,
        }
    }

    /// False while the disk is full.
    pub(crate) fn has_room(&self) -> bool {
        self.reserve.held()
    }

    /// How long the writer may sleep.
    pub(crate) fn idle(&self) -> Duration {
        match (self.has_room(), self.shrinking || self.compacting, self.unseen) {
            (false, ..) => ROOM_EVERY,
            (true, true, _) => Duration::ZERO,
            (true, false, 0) => SWEEP_EVERY,
            (true, false, _) => LOOK_AFTER,
        }
    }

    /// A group was committed. Rows on a full disk are copied out of the WAL at once, before others take that room.
    pub(crate) fn wrote(&mut self, bytes: u64, jobs: u64, rows: u64) {
        if rows > 0 && !self.has_room() {
            self.room_at = Instant::now();
        }
        self.unseen += bytes + jobs.saturating_mul(256) + WRITE_OVERHEAD;
    }

    /// What is due now, after a group or (`idle`) after a while without one.
    pub(crate) fn keep_up(&mut self, conn: &Connection, counters: &Counters, idle: bool) -> Result<(), Failure> {
        let now = Instant::now();
        if !self.has_room() && now >= self.room_at {
            self.room_at = now + ROOM_EVERY;
            self.look_for_room(conn, counters)?;
        }
        if self.unseen >= LOOK_BYTES || (idle && self.unseen > 0) {
            self.look(conn, counters)?;
        }
        if self.compacting && self.has_room() {
            self.compact(conn)?;
        } else if self.shrinking && self.has_room() {
            self.shrink(conn, counters)?;
        }
        if now >= self.sweep_at && self.has_room() {
            self.sweep_at = now + SWEEP_EVERY;
            self.sweep(conn)?;
        }
        Ok(())
    }

    /// Makes what room there is in the WAL; false when there was none to be made.
    pub(crate) fn cut_wal(&self, conn: &Connection, counters: &Counters) -> Result<bool, Failure> {
        let before = wal(conn, "NOOP")?;
        self.tolerate_full(conn, counters)?;
        Ok(before.written > 0 && wal(conn, "NOOP")?.written == 0)
    }

    /// Gives up the reserve.
    pub(crate) fn make_room(&mut self, conn: &Connection, counters: &Counters) -> Result<(), Failure> {
        self.reserve.release().map_err(stopped)?;
        self.room_at = Instant::now() + ROOM_EVERY;
        self.tolerate_full(conn, counters)
    }

    /// Gives up the last part of the reserve; false when there was none.
    pub(crate) fn make_last_room(&mut self, conn: &Connection, counters: &Counters) -> Result<bool, Failure> {
        let given = self.reserve.release_last().map_err(stopped)?;
        self.tolerate_full(conn, counters).map(|()| given)
    }

    /// The clean end: an empty WAL, so that the next start has nothing to do.
    pub(crate) fn finish(&mut self, conn: &Connection) -> Result<(), Failure> {
        match wal(conn, "TRUNCATE") {
            Ok(_) | Err(Failure::NoSpace | Failure::Busy(_)) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    fn look(&mut self, conn: &Connection, counters: &Counters) -> Result<(), Failure> {
        self.unseen = 0;
        let state = wal(conn, "NOOP")?;
        if state.written - state.copied >= COPY_PAGES {
            self.copy(conn, counters)?;
        }
        let free: i64 = pragma(conn, "freelist_count")?;
        self.shrinking = free > FREE_PAGES_KEPT;
        self.compacting |= counters.take_deleted_rows(DELETED_MIN);
        Ok(())
    }

    fn copy(&mut self, conn: &Connection, counters: &Counters) -> Result<(), Failure> {
        let state = match wal(conn, "PASSIVE") {
            Err(Failure::NoSpace) => {
                self.reserve.release().map_err(stopped)?;
                return self.tolerate_full(conn, counters);
            }
            Err(Failure::Busy(_)) => return Ok(()),
            other => other?,
        };
        counters.checkpointed(self.syncing);
        if state.written <= WAL_PAGES_MAX {
            self.restart_above = WAL_PAGES_MAX;
        } else if state.written > self.restart_above {
            self.begin_anew(conn, state.written)?;
        }
        Ok(())
    }

    /// Waits a moment for readers, so that the WAL can begin anew; after one that holds on, next time at twice the size.
    fn begin_anew(&mut self, conn: &Connection, written: i64) -> Result<(), Failure> {
        conn.busy_timeout(RESTART_WAIT).map_err(Failure::of)?;
        let restarted = wal(conn, "RESTART");
        conn.busy_timeout(BUSY_WAIT).map_err(Failure::of)?;
        match restarted {
            // It says so in its first column too, without an error.
            Ok(state) if state.busy => self.restart_above = written.saturating_mul(2),
            Ok(_) => self.restart_above = WAL_PAGES_MAX,
            Err(Failure::Busy(_) | Failure::NoSpace) => self.restart_above = written.saturating_mul(2),
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    /// Copies and cuts the WAL if the disk allows; what stays in it is safe there.
    fn tolerate_full(&self, conn: &Connection, counters: &Counters) -> Result<(), Failure> {
        if !self.copy_fits(conn)? {
            return Ok(());
        }
        match wal(conn, "TRUNCATE") {
            Ok(_) => {
                counters.checkpointed(self.syncing);
                Ok(())
            }
            Err(Failure::NoSpace | Failure::Busy(_)) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Bytes of queue rows that have room on a full disk: in the WAL and again where it is copied to. Rows in a WAL that
    /// cannot be copied would take the room of what frees space, for good.
    pub(crate) fn room_for_rows(&self, conn: &Connection) -> Result<u64, Failure> {
        let free = self.reserve.free().map_err(stopped)?;
        Ok(free.saturating_sub(growth(conn)? + ROWS_MARGIN) / 2)
    }

    /// Whether the WAL can be copied as a whole. A copy that ends half way would free nothing.
    fn copy_fits(&self, conn: &Connection) -> Result<bool, Failure> {
        let growth = growth(conn)?;
        Ok(growth == 0 || growth <= self.reserve.free().map_err(stopped)?)
    }

    /// Shrinks the file as far as it goes and takes the reserve again if there is room.
    fn look_for_room(&mut self, conn: &Connection, counters: &Counters) -> Result<(), Failure> {
        self.tolerate_full(conn, counters)?;
        if !self.give_back_what_fits(conn)? && pragma(conn, "freelist_count")? > 0 {
            self.reserve.release_last().map_err(stopped)?;
        }
        self.tolerate_full(conn, counters)?;
        if self.reserve.take().map_err(stopped)? {
            tracing::info!("there is space again; appends are accepted");
        }
        Ok(())
    }

    /// Whether a step of any size had room.
    fn give_back_what_fits(&self, conn: &Connection) -> Result<bool, Failure> {
        let mut pages = SHRINK_PAGES;
        while pages >= SHRINK_PAGES_MIN {
            match give_back(conn, pages) {
                Ok(()) => return Ok(true),
                Err(Failure::NoSpace) => pages /= 4,
                Err(failure) => return Err(failure),
            }
        }
        Ok(false)
    }

    /// One step; the free pages that it leaves are seen at the next look.
    fn compact(&mut self, conn: &Connection) -> Result<(), Failure> {
        let step = || -> rusqlite::Result<bool> {
            let sparse = device_queues::sparse(conn)?;
            if sparse {
                let moved = conn.unchecked_transaction()?;
                device_queues::compact(&moved, COMPACT_ROWS)?;
                moved.commit()?;
            }
            Ok(sparse)
        };
        match step().map_err(Failure::of) {
            Ok(more) => {
                self.compacting = more;
                self.unseen += if more { LOOK_BYTES } else { 0 };
                Ok(())
            }
            Err(Failure::NoSpace) => {
                self.compacting = false;
                self.reserve.release().map_err(stopped)
            }
            Err(failure) => Err(failure),
        }
    }

    fn shrink(&mut self, conn: &Connection, counters: &Counters) -> Result<(), Failure> {
        match give_back(conn, SHRINK_PAGES) {
            Ok(()) => {}
            // Moving pages needs room itself.
            Err(Failure::NoSpace) => return self.reserve.release().map_err(stopped),
            Err(failure) => return Err(failure),
        }
        let free: i64 = pragma(conn, "freelist_count")?;
        self.shrinking = free > FREE_PAGES_KEPT;
        // The file is cut when the WAL is copied.
        let state = wal(conn, "NOOP")?;
        if !self.shrinking || state.written - state.copied >= COPY_PAGES {
            self.copy(conn, counters)?;
        }
        Ok(())
    }

    fn sweep(&mut self, conn: &Connection) -> Result<(), Failure> {
        let now = self.clock.now();
        let rows = device_queues::expire_rows(conn, now, SWEEP_ROWS);
        let swept = rows.and_then(|rows| Ok(rows + conversations::forget_commits(conn, now, SWEEP_ROWS)?));
        match swept.map_err(Failure::of) {
            Ok(swept) => {
                self.unseen += swept as u64 * 4_096;
                self.compacting |= swept > 0;
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

/// Bytes that the database file grows by when the WAL is copied.
fn growth(conn: &Connection) -> Result<u64, Failure> {
    let pages = u64::try_from(pragma(conn, "page_count")?).unwrap_or(0);
    let file = conn.path().map_or(Ok(0), |path| fs::metadata(path).map(|file| file.len())).map_err(stopped)?;
    Ok((pages * PAGE_BYTES).saturating_sub(file))
}

fn wal(conn: &Connection, mode: &str) -> Result<Wal, Failure> {
    let mut checkpoint = conn.prepare_cached(&format!("PRAGMA wal_checkpoint({mode})")).map_err(Failure::of)?;
    let state = checkpoint
        .query_row([], |row| Ok(Wal { busy: row.get::<_, i64>(0)? != 0, written: row.get(1)?, copied: row.get(2)? }));
    state.map_err(Failure::of)
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
