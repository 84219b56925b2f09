// SPDX-License-Identifier: MIT OR Apache-2.0
//! What waits for the writer thread.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pli_domain::EntryRef;
use pli_ports::{AppendError, NewEntry};
use rusqlite::Connection;
use tokio::sync::{Semaphore, oneshot};

use crate::error::Failure;

/// Most that waits for the writer, in kibibytes; whoever adds more waits for room.
const QUEUE_KIB_MAX: u32 = 64 * 1024;
/// Most log entries and other writes in one group.
pub(crate) const GROUP_MEMBERS_MAX: usize = 1_024;
/// A group takes no further job above so many kibibytes.
const GROUP_KIB_MAX: u32 = 4 * 1024;
/// While a group waits for more, this long without an arrival ends the wait.
const GROUP_GAP: Duration = Duration::from_micros(100);

/// What a write does to the size of the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// It grows: refused while the disk is full.
    Growth,
    /// What frees space needs it first, but it grows itself: queue rows, without which the log is not trimmed.
    Relief,
    /// It frees space, or is a few bytes without which nothing is freed; it may take the last part of the reserve.
    Release,
}

/// One write other than an append. `run` may be called again after its transaction was rolled back.
pub(crate) trait Write: Send {
    fn need(&self) -> Need;
    /// What it carries, roughly.
    fn bytes(&self) -> usize;
    fn run(&mut self, conn: &Connection) -> rusqlite::Result<()>;
    fn done(self: Box<Self>, outcome: Result<(), Failure>);
}

/// Answers of one append, in the order of its entries.
pub(crate) type AppendReply = Result<Vec<EntryRef>, AppendFailure>;

/// Why an append has no answer.
#[derive(Debug, Clone)]
pub(crate) struct AppendFailure(pub(crate) Failure);

/// Milliseconds after which an append that found the disk full may be tried again.
const RETRY_FULL_MS: u32 = 1_000;

impl AppendFailure {
    pub(crate) fn into_error(self) -> AppendError {
        match self.0 {
            Failure::NoSpace => AppendError::Full { retry_after_ms: RETRY_FULL_MS },
            other => AppendError::Store(other.into_store("append")),
        }
    }
}

/// Entries of one call. All go into one transaction.
pub(crate) struct Append {
    pub(crate) entries: Vec<NewEntry>,
    pub(crate) refs: Vec<EntryRef>,
    pub(crate) reply: Option<oneshot::Sender<AppendReply>>,
}

impl Append {
    pub(crate) fn answer(&mut self, reply: AppendReply) {
        if let Some(waiting) = self.reply.take() {
            // Nobody listens after a dropped future; the entries stand all the same.
            let _ = waiting.send(reply);
        }
    }
}

pub(crate) enum Job {
    Append(Append),
    Write(Box<dyn Write>),
}

impl Job {
    pub(crate) fn members(&self) -> usize {
        match self {
            Self::Append(append) => append.entries.len(),
            Self::Write(_) => 1,
        }
    }

    pub(crate) fn need(&self) -> Need {
        match self {
            Self::Append(_) => Need::Growth,
            Self::Write(write) => write.need(),
        }
    }

    /// Bytes of queue rows, roughly; nothing for other jobs.
    pub(crate) fn row_bytes(&self) -> u64 {
        match self {
            Self::Write(write) if write.need() == Need::Relief => write.bytes() as u64,
            _ => 0,
        }
    }

    pub(crate) fn refuse(self, failure: Failure) {
        match self {
            Self::Append(mut append) => append.answer(Err(AppendFailure(failure))),
            Self::Write(write) => write.done(Err(failure)),
        }
    }
}

struct Waiting {
    job: Job,
    kib: u32,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    members: usize,
    /// The writer sleeps until so many members wait.
    wake_at: Option<usize>,
    closed: bool,
}

/// The bounded queue before the writer thread.
pub(crate) struct JobQueue {
    state: Mutex<State>,
    arrived: Condvar,
    room: Semaphore,
}

/// What [`JobQueue::take`] found.
pub(crate) enum Taken {
    Group(Vec<Job>),
    Idle,
    Closed,
}

impl JobQueue {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), arrived: Condvar::new(), room: Semaphore::new(QUEUE_KIB_MAX as usize) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a job that carries `bytes`, waiting while the queue is full. Cancellation: the job is queued or not.
    pub(crate) async fn push(&self, job: Job, bytes: usize) -> Result<(), Failure> {
        let kib = u32::try_from(bytes / 1024).unwrap_or(u32::MAX).saturating_add(1).min(QUEUE_KIB_MAX);
        let permit = self.room.acquire_many(kib).await.map_err(|_| Failure::Closed)?;
        permit.forget();
        let mut state = self.lock();
        if state.closed {
            return Err(Failure::Closed);
        }
        state.members += job.members();
        state.waiting.push_back(Waiting { job, kib });
        if state.wake_at.is_some_and(|at| state.members >= at) {
            state.wake_at = None;
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Refuses new jobs; those that wait are still taken.
    pub(crate) fn close(&self) {
        self.room.close();
        self.lock().closed = true;
        self.arrived.notify_one();
    }

    /// Closes the queue and drops what waits; its owners learn that the engine is closed.
    pub(crate) fn abandon(&self) {
        self.close();
        let dropped = std::mem::take(&mut self.lock().waiting);
        drop(dropped);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// The next group: whatever waits, and where `want` more than one are expected, what arrives within `wait` for
    /// as long as something keeps arriving. [`Taken::Idle`] after `idle` without a job.
    pub(crate) fn take(&self, want: usize, wait: Duration, idle: Duration) -> Taken {
        let mut state = self.lock();
        let until = Instant::now() + idle;
        while state.waiting.is_empty() {
            if state.closed {
                return Taken::Closed;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Taken::Idle;
            }
            state = self.sleep(state, 1, left);
        }
        let until = Instant::now() + wait;
        while state.members < want && !state.closed {
            let before = state.members;
            let left = until.saturating_duration_since(Instant::now());
            state = self.sleep(state, want, left.min(GROUP_GAP));
            if state.members == before || left.is_zero() {
                break;
            }
        }
        Taken::Group(self.drain(&mut state))
    }

    fn sleep<'a>(&self, mut state: MutexGuard<'a, State>, wake_at: usize, most: Duration) -> MutexGuard<'a, State> {
        state.wake_at = Some(wake_at);
        let (mut state, _) = self.arrived.wait_timeout(state, most).unwrap_or_else(PoisonError::into_inner);
        state.wake_at = None;
        state
    }

    fn drain(&self, state: &mut State) -> Vec<Job> {
        let mut group = Vec::with_capacity(state.waiting.len().min(GROUP_MEMBERS_MAX));
        let (mut members, mut kib) = (0, 0);
        while let Some(next) = state.waiting.front() {
            let more = next.job.members();
            if !group.is_empty() && (members + more > GROUP_MEMBERS_MAX || kib + next.kib > GROUP_KIB_MAX) {
                break;
            }
            members += more;
            kib += next.kib;
            group.extend(state.waiting.pop_front().map(|waiting| waiting.job));
        }
        state.members -= members;
        self.room.add_permits(kib as usize);
        group
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use pli_domain::{EntryId, ShardId};

    fn append(n: usize) -> Job {
        let entry = NewEntry { shard: ShardId::new(0), id: EntryId::from_bytes([0; 16]), bytes: Bytes::new() };
        Job::Append(Append { entries: vec![entry; n], refs: Vec::new(), reply: None })
    }

    fn taken(queue: &JobQueue, want: usize) -> usize {
        match queue.take(want, Duration::from_millis(2), Duration::ZERO) {
            Taken::Group(group) => group.iter().map(Job::members).sum(),
            Taken::Idle | Taken::Closed => 0,
        }
    }

    #[tokio::test]
    async fn a_group_is_bounded_by_members_and_bytes() {
        let queue = JobQueue::new();
        for _ in 0..3 {
            queue.push(append(600), 1).await.unwrap();
        }
        assert_eq!(taken(&queue, 1), 600);
        assert_eq!(taken(&queue, 1), 600);
        assert_eq!(taken(&queue, 1), 600);
        queue.push(append(1), 3 << 20).await.unwrap();
        queue.push(append(1), 3 << 20).await.unwrap();
        assert_eq!(taken(&queue, 1), 1);
        assert_eq!(taken(&queue, 1), 1);
        assert_eq!(taken(&queue, 1), 0);
    }

    #[tokio::test]
    async fn one_oversized_job_passes_alone_and_a_full_queue_holds_back() {
        let queue = JobQueue::new();
        queue.push(append(1), usize::MAX).await.unwrap();
        {
            let second = queue.push(append(1), 1);
            tokio::pin!(second);
            let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(second.as_mut().poll(cx).is_pending()));
            assert!(polled.await);
            assert_eq!(taken(&queue, 1), 1);
            second.await.unwrap();
        }
        assert_eq!(taken(&queue, 1), 1);
    }

    #[tokio::test]
    async fn a_closed_queue_hands_out_what_waits_and_takes_nothing_more() {
        let queue = JobQueue::new();
        queue.push(append(1), 1).await.unwrap();
        queue.close();
        assert!(queue.push(append(1), 1).await.is_err());
        assert_eq!(taken(&queue, 1_000), 1);
        assert!(matches!(queue.take(1, Duration::ZERO, Duration::MAX / 4), Taken::Closed));
    }
}
