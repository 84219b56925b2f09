// SPDX-License-Identifier: MIT OR Apache-2.0
//! An in-memory model of every port, all views of one [`MemoryWorld`].
//!
//! A model does what its port promises and nothing better. What a call has sent and what is synced are kept apart:
//! a write changes nothing durable before its call has waited its time, and [`MemoryWorld::power_cut`] drops what is
//! on its way. With [`FaultPlan::default`] nothing goes wrong and nothing takes time; other plans draw faults and
//! delays from the seed. On a current-thread runtime with paused time, one seed gives one history.

mod accounts;
mod conversations;
mod faults;
mod leases;
mod links;
mod log;
mod media;
mod payloads;
mod queues;
mod replica;
mod signals;
mod tables;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pli_domain::{DeviceId, Seq, ShardId};
use pli_ports::{LogFate, StoreError};

pub use accounts::MemoryAccounts;
pub use conversations::MemoryConversations;
pub use faults::{FaultPlan, LeaseFaults, LogFaults, PerMille, QueueFaults, SignalFaults, TableFaults};
pub use leases::MemoryLeases;
pub use links::MemoryLinks;
pub use log::MemoryLog;
pub use media::MemoryMedia;
pub use payloads::MemoryPayloads;
pub use queues::MemoryQueues;
pub use signals::MemorySignals;

/// What a world is like for its whole life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorldOptions {
    /// Every draw follows from it.
    pub seed: u64,
    /// Whether the log can lose its end while the tables stay.
    pub fate: LogFate,
    /// All shards share one stream, so that the sequences of a shard have holes.
    pub shards_share_stream: bool,
    /// Bytes of entries that the log holds before it is full.
    pub log_bytes_max: u64,
}

impl Default for WorldOptions {
    fn default() -> Self {
        Self { seed: 0, fate: LogFate::OwnSystem, shards_share_stream: false, log_bytes_max: u64::MAX }
    }
}

/// Counts of what happened, for tests that must have met it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorldCounts {
    /// Entries appended.
    pub appended: u64,
    /// Entries that the log lost with its end.
    pub cut: u64,
    /// Readers that were interrupted.
    pub readers_interrupted: u64,
    /// Rows written to queues, rewrites included.
    pub rows_written: u64,
    /// Calls to queues that stopped half-way.
    pub writes_timed_out: u64,
    /// Writes that reached a replica late.
    pub writes_late: u64,
    /// Messages lost, by chance or because a subscriber was too slow.
    pub signals_lost: u64,
    /// Leases given to a second holder.
    pub leases_stolen: u64,
}

/// One world of stores and a bus, with the means to break it. Clones share it.
#[derive(Clone)]
pub struct MemoryWorld {
    inner: Arc<Inner>,
}

struct Inner {
    options: WorldOptions,
    plan: Mutex<FaultPlan>,
    counts: Mutex<WorldCounts>,
    /// Grows with every crash and power cut: a call that began before it has no answer.
    life: AtomicU64,
    writers: AtomicU64,
    log: Mutex<log::State>,
    queues: Mutex<queues::State>,
    leases: Mutex<leases::State>,
    signals: Mutex<signals::State>,
    tables: Mutex<tables::State>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while a lock was held has failed its test already.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

impl Inner {
    fn plan(&self) -> FaultPlan {
        *lock(&self.plan)
    }
    fn life(&self) -> u64 {
        self.life.load(Ordering::Relaxed)
    }
    fn alive(&self, life: u64, operation: &'static str) -> Result<(), StoreError> {
        if self.life() == life { Ok(()) } else { Err(StoreError::later(operation, "the store went down")) }
    }
    fn count(&self, add: impl FnOnce(&mut WorldCounts)) {
        add(&mut lock(&self.counts));
    }
}

impl MemoryWorld {
    /// An empty world in which nothing goes wrong until [`MemoryWorld::set_faults`].
    pub fn new(options: WorldOptions) -> Self {
        let inner = Inner {
            options,
            plan: Mutex::default(),
            counts: Mutex::default(),
            life: AtomicU64::new(0),
            writers: AtomicU64::new(0),
            log: Mutex::new(log::State::new(&options)),
            queues: Mutex::new(queues::State::new(options.seed)),
            leases: Mutex::new(leases::State::new(options.seed)),
            signals: Mutex::new(signals::State::new(options.seed)),
            tables: Mutex::new(tables::State::new(options.seed)),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The log of every shard.
    pub fn log(&self) -> MemoryLog {
        MemoryLog::new(self.inner.clone())
    }
    /// Queues as one process sees them. Every call makes another process: a retry of a compare-and-set knows its own
    /// win only through the same handle or its clones.
    pub fn queues(&self) -> MemoryQueues {
        let writer = self.inner.writers.fetch_add(1, Ordering::Relaxed);
        MemoryQueues::new(self.inner.clone(), writer)
    }
    /// Leases.
    pub fn leases(&self) -> MemoryLeases {
        MemoryLeases::new(self.inner.clone())
    }
    /// The bus.
    pub fn signals(&self) -> MemorySignals {
        MemorySignals::new(self.inner.clone())
    }
    /// Accounts.
    pub fn accounts(&self) -> MemoryAccounts {
        MemoryAccounts::new(self.inner.clone())
    }
    /// Conversations.
    pub fn conversations(&self) -> MemoryConversations {
        MemoryConversations::new(self.inner.clone())
    }
    /// Payloads.
    pub fn payloads(&self) -> MemoryPayloads {
        MemoryPayloads::new(self.inner.clone())
    }

    /// Rendezvous.
    pub fn links(&self) -> MemoryLinks {
        MemoryLinks::new(self.inner.clone())
    }

    /// Uploads.
    pub fn media(&self) -> MemoryMedia {
        MemoryMedia::new(self.inner.clone())
    }

    /// What may go wrong from now on.
    pub fn set_faults(&self, plan: FaultPlan) {
        *lock(&self.inner.plan) = plan;
    }
    /// What may go wrong now.
    pub fn faults(&self) -> FaultPlan {
        self.inner.plan()
    }
    /// What happened so far.
    pub fn counts(&self) -> WorldCounts {
        *lock(&self.inner.counts)
    }

    /// Every store and the bus are killed and come back: calls under way have no answer, readers are interrupted,
    /// subscriptions end. Entries that were written stay, synced or not, as an operating system keeps them.
    pub fn crash(&self) {
        self.go_down(true);
    }
    /// As [`MemoryWorld::crash`], but what was not synced is gone.
    pub fn power_cut(&self) {
        self.go_down(false);
    }
    fn go_down(&self, keeps_written: bool) {
        self.inner.life.fetch_add(1, Ordering::Relaxed);
        log::go_down(&self.inner, keeps_written);
        lock(&self.inner.queues).go_down(keeps_written);
        lock(&self.inner.signals).close();
    }

    /// The log loses the last `entries` entries of `shard`, and in a shared stream every entry after the first of
    /// them. Their sequences are given out again. Readers are interrupted.
    ///
    /// # Panics
    /// When the log shares one transaction with the tables: such a log cannot lose its end.
    pub fn cut_log_end(&self, shard: ShardId, entries: usize) {
        assert_eq!(self.inner.options.fate, LogFate::OwnSystem, "this log cannot lose its end");
        log::cut_end(&self.inner, shard, entries);
    }
    /// Interrupts every reader of `shard`.
    pub fn interrupt_readers(&self, shard: ShardId) {
        log::interrupt(&self.inner, shard);
    }
    /// Refuses appends as a full log does, or accepts them again.
    pub fn set_log_full(&self, full: bool) {
        lock(&self.inner.log).set_full(full);
    }

    /// The same of one shard.
    pub fn set_shard_full(&self, shard: ShardId, full: bool) {
        lock(&self.inner.log).set_shard_full(shard, full);
    }
    /// The entries of `shard` that are durable, oldest first, for checks.
    pub fn log_entries(&self, shard: ShardId) -> Vec<(Seq, pli_domain::EntryId)> {
        lock(&self.inner.log).entries_of(shard)
    }

    /// Everything that replicas missed and is on its way arrives now.
    pub fn deliver_late_writes(&self) {
        queues::deliver_late(&self.inner);
    }
    /// One replica (0 to 2) forgets the tombstones of `device`: rows below its trim are there again.
    pub fn forget_tombstones(&self, replica: usize, device: DeviceId) {
        lock(&self.inner.queues).forget_tombstones(replica, device);
    }

    /// The lease of `shard` is free at once, though its holder does not know.
    pub fn expire_lease(&self, shard: ShardId) {
        lock(&self.inner.leases).expire(shard);
    }
    /// Every subscriber is told of an interruption, as after a reconnect of the bus.
    pub fn interrupt_signals(&self) {
        lock(&self.inner.signals).interrupt();
    }
}
