// SPDX-License-Identifier: MIT OR Apache-2.0
//! The writer thread: everything that waits becomes one transaction and one fsync.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use pli_domain::mutant::{Mutant, broken};
use pli_domain::{EntryRef, Seq, ShardId};
use pli_ports::LogEntry;
use rusqlite::Connection;

use crate::block;
use crate::error::{EngineFailure, Failure, Stop};
use crate::jobs::{Append, AppendFailure, GROUP_MEMBERS_MAX, Job, JobQueue, Need, Taken};
use crate::logs::Logs;
use crate::shard_log::insert_block;
use crate::stats::Counters;
use crate::upkeep::Upkeep;

/// Groups of at least so many members are worth waiting for; below it a wait costs more than the fsync it spares.
const EXPECTED_MIN: usize = 8;

/// No group waits for more than so many members: one fsync is spread thin enough, and while these are written the next
/// ones arrive.
const TARGET_MAX: usize = 512;

/// Entries of one shard in the group that is being written.
#[derive(Default)]
struct Pending {
    head: u64,
    bytes: Vec<u8>,
    entries: Vec<LogEntry>,
}

pub(crate) struct Writer {
    pub(crate) conn: Connection,
    pub(crate) queue: Arc<JobQueue>,
    pub(crate) logs: Arc<Logs>,
    pub(crate) stop: Arc<Stop>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) upkeep: Upkeep,
    pub(crate) group_wait: Duration,
    pub(crate) syncing: bool,
}

/// Leaves nobody waiting when the writer thread ends, even by a panic.
struct Last {
    queue: Arc<JobQueue>,
    logs: Arc<Logs>,
    stop: Arc<Stop>,
}

impl Drop for Last {
    fn drop(&mut self) {
        if thread::panicking() {
            self.stop.note(Failure::Stopped(EngineFailure { source: Arc::from(Box::from("the writer panicked")) }));
        }
        self.queue.abandon();
        self.logs.wake_all();
    }
}

/// What survives from one group to the next.
struct Groups {
    writer: Writer,
    pending: Vec<Pending>,
    /// How large groups were lately: rises at once, falls by an eighth of the difference.
    expected: usize,
}

impl Writer {
    /// Works until the queue is closed and empty, or the engine stops.
    pub(crate) fn run(self) {
        let _last = Last { queue: Arc::clone(&self.queue), logs: Arc::clone(&self.logs), stop: Arc::clone(&self.stop) };
        let pending = self.logs.heads().into_iter().map(|head| Pending { head, ..Pending::default() }).collect();
        Groups { writer: self, pending, expected: 1 }.run();
    }
}

impl Groups {
    fn run(&mut self) {
        loop {
            let want = if self.expected >= EXPECTED_MIN { self.expected.min(TARGET_MAX) } else { 1 };
            let idle = self.writer.upkeep.idle();
            match self.writer.queue.take(want, self.writer.group_wait, idle) {
                Taken::Group(group) => {
                    self.take_up(group);
                    self.keep_up(false);
                }
                Taken::Idle => self.keep_up(true),
                Taken::Closed => break,
            }
        }
        if self.writer.stop.reason().is_none() {
            let finished = self.writer.upkeep.finish(&self.writer.conn);
            self.note(finished);
        }
        self.writer.logs.wake_all();
    }

    fn take_up(&mut self, group: Vec<Job>) {
        let members = group.iter().map(Job::members).sum::<usize>().min(GROUP_MEMBERS_MAX);
        self.expected = members.max(self.expected - self.expected.saturating_sub(members).div_ceil(8));
        if let Some(reason) = self.writer.stop.reason() {
            return refuse(group, &Failure::Stopped(reason));
        }
        let group = if self.writer.upkeep.has_room() { group } else { self.refuse_growth(group) };
        self.write(group);
    }

    fn keep_up(&mut self, idle: bool) {
        if self.writer.stop.reason().is_none() {
            let kept = self.writer.upkeep.keep_up(&self.writer.conn, &self.writer.counters, idle);
            self.note(kept);
        }
    }

    fn note(&self, result: Result<(), Failure>) {
        if let Err(failure) = result
            && let Failure::Stopped(_) = self.writer.stop.note(failure)
        {
            self.end();
        }
    }

    /// Everybody who waits for entries learns of the end.
    fn end(&self) {
        self.writer.queue.close();
        self.writer.logs.wake_all();
    }

    /// Making room failed for a reason that more room does not mend.
    fn refuse_at_end(&self, group: Vec<Job>, failure: Failure) {
        let failure = self.writer.stop.note(failure);
        self.end();
        refuse(group, &failure);
    }

    /// Writes a group in one transaction. If that fails for a reason that lies in one job, each is tried alone.
    fn write(&mut self, mut group: Vec<Job>) {
        if group.is_empty() {
            return;
        }
        let failure = match self.transact(&mut group) {
            Ok(()) => return self.accept(group),
            Err(error) => self.writer.stop.note(Failure::of(error)),
        };
        self.roll_back();
        match failure {
            Failure::Stopped(_) => {
                self.end();
                refuse(group, &failure);
            }
            Failure::NoSpace => self.write_in_reserve(group),
            failure if group.len() == 1 => refuse(group, &failure),
            _ => group.into_iter().for_each(|job| self.write(vec![job])),
        }
    }

    /// The disk is full: makes room in the WAL; if there is none, gives up the reserve, refuses what grows and writes
    /// the rest one by one.
    fn write_in_reserve(&mut self, group: Vec<Job>) {
        let Writer { conn, counters, upkeep, .. } = &mut self.writer;
        let had_room = upkeep.has_room();
        let made = match upkeep.cut_wal(conn, counters) {
            Ok(false) => upkeep.make_room(conn, counters).map(|()| false),
            other => other,
        };
        let cut = match made {
            Ok(cut) => cut,
            Err(failure) => return self.refuse_at_end(group, failure),
        };
        let rest = if cut { group } else { self.refuse_growth(group) };
        match rest.len() {
            1 if !cut && !had_room => self.write_in_last_room(rest),
            _ => rest.into_iter().for_each(|job| self.write(vec![job])),
        }
    }

    /// The reserve is given up and one job still does not fit: what frees space gets the last part.
    fn write_in_last_room(&mut self, job: Vec<Job>) {
        let Writer { conn, counters, upkeep, .. } = &mut self.writer;
        let frees = job.iter().all(|job| job.need() == Need::Freeing);
        match if frees { upkeep.make_last_room(conn, counters) } else { Ok(false) } {
            Ok(true) => self.write(job),
            Ok(false) => refuse(job, &Failure::NoSpace),
            Err(failure) => self.refuse_at_end(job, failure),
        }
    }

    fn refuse_growth(&mut self, group: Vec<Job>) -> Vec<Job> {
        let mut room = match self.writer.upkeep.room_for_rows(&self.writer.conn) {
            Ok(room) => room,
            Err(failure) => {
                self.note(Err(failure));
                0
            }
        };
        let fits = |job: &Job| {
            let left = room.checked_sub(job.row_bytes());
            room = left.unwrap_or(room);
            job.need() != Need::Growth && left.is_some()
        };
        let (rest, refused): (Vec<_>, Vec<_>) = group.into_iter().partition(fits);
        for job in refused {
            if let Job::Append(append) = &job {
                self.writer.counters.refused(append.entries.len() as u64);
            }
            job.refuse(Failure::NoSpace);
        }
        rest
    }

    fn transact(&mut self, group: &mut [Job]) -> rusqlite::Result<()> {
        self.begin(group)?;
        if broken(Mutant::AcceptBeforeDurable) {
            group.iter_mut().for_each(answer_append);
        }
        let conn = &self.writer.conn;
        conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        for job in group.iter_mut() {
            if let Job::Write(write) = job {
                write.run(conn)?;
            }
        }
        for (shard, pending) in (0u16..).zip(&self.pending) {
            if let (Some(first), Some(last)) = (pending.entries.first(), pending.entries.last()) {
                let range = (first.seq.get(), last.seq.get());
                insert_block(conn, ShardId::new(shard), range, &pending.bytes)?;
            }
        }
        conn.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }

    /// Gives each entry of the group its sequence.
    fn begin(&mut self, group: &mut [Job]) -> rusqlite::Result<()> {
        for pending in &mut self.pending {
            pending.bytes.clear();
            pending.entries.clear();
        }
        for job in group {
            let Job::Append(append) = job else { continue };
            append.refs.clear();
            for entry in &append.entries {
                // The port has checked the shard.
                let Some(pending) = self.pending.get_mut(usize::from(entry.shard.get())) else { continue };
                let next = pending.head + pending.entries.len() as u64 + 1;
                let seq = Seq::new(next).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
                block::encode(entry, &mut pending.bytes);
                pending.entries.push(LogEntry { seq, id: entry.id, bytes: entry.bytes.clone() });
                append.refs.push(EntryRef { seq, id: entry.id });
            }
        }
        Ok(())
    }

    fn roll_back(&mut self) {
        if !self.writer.conn.is_autocommit()
            && let Err(error) = self.writer.conn.execute_batch("ROLLBACK")
        {
            // An open transaction that cannot be left would make every later answer a lie.
            let failure = Failure::Stopped(EngineFailure { source: Arc::new(error) });
            self.note(Err(failure));
        }
    }

    /// The group is durable: shows its entries, then answers.
    fn accept(&mut self, group: Vec<Job>) {
        let (mut appended, mut bytes) = (0, 0);
        for (shard, pending) in self.pending.iter_mut().enumerate() {
            if pending.entries.is_empty() {
                continue;
            }
            appended += pending.entries.len() as u64;
            bytes += pending.bytes.len() as u64;
            pending.head += pending.entries.len() as u64;
            self.writer.logs.publish(shard, pending.entries.drain(..));
        }
        self.writer.counters.committed(appended, self.writer.syncing);
        let rows = group.iter().map(Job::row_bytes).sum();
        self.writer.upkeep.wrote(bytes, group.len() as u64, rows);
        for job in group {
            match job {
                Job::Append(mut append) => answer_with_refs(&mut append),
                Job::Write(write) => write.done(Ok(())),
            }
        }
    }
}

fn answer_append(job: &mut Job) {
    if let Job::Append(append) = job {
        answer_with_refs(append);
    }
}

fn answer_with_refs(append: &mut Append) {
    let refs = std::mem::take(&mut append.refs);
    append.answer(Ok(refs));
}

fn refuse(group: Vec<Job>, failure: &Failure) {
    for job in group {
        match job {
            Job::Append(mut append) => append.answer(Err(AppendFailure(failure.clone()))),
            Job::Write(write) => write.done(Err(failure.clone())),
        }
    }
}
