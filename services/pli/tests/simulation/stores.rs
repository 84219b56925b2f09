// SPDX-License-Identifier: MIT OR Apache-2.0
//! What processes stand on: the in-memory models here, real engines in the faults' suite.

use std::sync::Arc;

use pli_domain::{EntryRef, Seq, ShardId};
use pli_ports::{Clock, DeviceQueues, Leases, Payloads, ShardLog, Signals};
use pli_testkit::memory::MemoryWorld;
use pli_testkit::time::RuntimeClock;

use crate::simulation::oracle::Log;

/// Where a process stands; a restarted one stands in the place of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Edge(usize),
    Owner(usize),
}

/// The ports of one place.
#[derive(Clone)]
pub struct Ports {
    pub log: Arc<dyn ShardLog>,
    pub signals: Arc<dyn Signals>,
    pub leases: Arc<dyn Leases>,
    pub queues: Arc<dyn DeviceQueues>,
    pub payloads: Arc<dyn Payloads>,
    pub clock: Arc<dyn Clock>,
}

/// See the module.
pub trait Stores: Send + Sync {
    /// The ports of the process that starts in this place now.
    fn ports(&self, place: Place, clock: RuntimeClock) -> Ports;
    /// What the log of a shard holds, oldest first, as far as anybody can know.
    fn entries(&self, shard: ShardId) -> Log;
    /// An entry was acknowledged or read.
    fn found(&self, _shard: ShardId, _entry: EntryRef) {}
    /// A trim of the log begins.
    fn trimming(&self, _shard: ShardId, _through: Seq) {}
}

impl Stores for MemoryWorld {
    fn ports(&self, _: Place, clock: RuntimeClock) -> Ports {
        Ports {
            log: Arc::new(self.log()),
            signals: Arc::new(self.signals()),
            leases: Arc::new(self.leases()),
            queues: Arc::new(self.queues()),
            payloads: Arc::new(self.payloads()),
            clock: Arc::new(clock),
        }
    }
    fn entries(&self, shard: ShardId) -> Log {
        self.log_entries(shard)
    }
}
