// SPDX-License-Identifier: MIT OR Apache-2.0
//! What all parts of one run share.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pli_domain::{ShardId, ShardMap, UnixMillis};
use pli_ports::Clock;
use pli_runtime::Trail;
use pli_runtime::trail::Hops;
use pli_testkit::history::Event;
use pli_testkit::time::{RuntimeClock, START};

use crate::simulation::oracle::{Log, Oracle, Verdict};
use crate::simulation::rare::Rare;
use crate::simulation::stores::Stores;
use crate::simulation::trace::{Told, Trace};

/// One run's stores, truth and record.
pub struct World {
    pub stores: Arc<dyn Stores>,
    pub shards: ShardMap,
    pub trace: Trace,
    pub rare: Rare,
    pub clock: RuntimeClock,
    oracle: Mutex<Oracle>,
    history: Mutex<Vec<Event>>,
    failure: Mutex<Option<String>>,
    /// Sessions whose registration was confirmed.
    pub registered: Mutex<BTreeSet<Vec<u8>>>,
    /// How often senders were told to come back later, by error code.
    pub waits: Mutex<BTreeMap<String, u64>>,
}

/// A lock that is never held over an await.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The trail of one process: its hops are noted, as in a real one; nothing reads them.
pub fn trail() -> Trail {
    Trail { hops: Hops::new(256), ..Trail::default() }
}

impl World {
    /// Must be called on the run's runtime.
    pub fn new(stores: Arc<dyn Stores>, shards: ShardMap, told: Option<Told>) -> Self {
        Self {
            stores,
            shards,
            trace: Trace::new(told),
            rare: Rare::default(),
            clock: RuntimeClock::new(START),
            oracle: Mutex::default(),
            history: Mutex::default(),
            failure: Mutex::default(),
            registered: Mutex::default(),
            waits: Mutex::default(),
        }
    }
    /// The truth.
    pub fn oracle(&self) -> MutexGuard<'_, Oracle> {
        lock(&self.oracle)
    }
    /// Server time.
    pub fn now(&self) -> UnixMillis {
        self.clock.now()
    }
    /// What the log of a shard holds.
    pub fn log(&self, shard: ShardId) -> Log {
        self.stores.entries(shard)
    }
    /// Remembers the first broken invariant.
    pub fn judge(&self, verdict: Verdict) {
        if let Err(broken) = verdict {
            self.trace.line(format_args!("!! {broken}"));
            lock(&self.failure).get_or_insert(broken);
        }
    }
    /// The first broken invariant.
    pub fn failure(&self) -> Option<String> {
        lock(&self.failure).clone()
    }
    /// Adds to the history that the checker judges.
    pub fn record(&self, event: Event) {
        lock(&self.history).push(event);
    }
    /// The history.
    pub fn history(&self) -> MutexGuard<'_, Vec<Event>> {
        lock(&self.history)
    }
    /// Adds a line to the trace.
    pub fn say(&self, text: fmt::Arguments<'_>) {
        self.trace.line(text);
    }
}
