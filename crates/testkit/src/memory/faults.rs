// SPDX-License-Identifier: MIT OR Apache-2.0
//! What may go wrong, and the seeded dice that decide when.

use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A chance out of 1,000.
pub type PerMille = u32;

/// What may go wrong from now on. The default is nothing, with no delays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultPlan {
    /// Of the log.
    pub log: LogFaults,
    /// Of queues, registers and shard states.
    pub queues: QueueFaults,
    /// Of the bus.
    pub signals: SignalFaults,
    /// Of leases.
    pub leases: LeaseFaults,
    /// Of accounts, conversations, rendezvous, uploads and payloads.
    pub tables: TableFaults,
}

/// What may happen to the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogFaults {
    /// An entry is not appended; the appender learns nothing.
    pub lost: PerMille,
    /// An entry is appended; the appender learns nothing.
    pub answer_lost: PerMille,
    /// The appender learns nothing at once, and the entry is appended up to 5 s later.
    pub late: PerMille,
    /// A retry within the window of deduplication is appended again.
    pub duplicated: PerMille,
    /// A reader is interrupted instead of yielding what is there.
    pub interrupted: PerMille,
    /// Most milliseconds that an append takes.
    pub append_ms_max: u64,
    /// Most milliseconds by which a reader lags behind.
    pub read_ms_max: u64,
}

/// What may happen to the three replicas of queues, registers and shard states.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueFaults {
    /// A call stops at one of its writes: that one reaches any number of replicas, those after it none.
    pub write_timeout: PerMille,
    /// A settle with more bytes of rows is refused for lack of room, with nothing written.
    pub row_bytes_max: Option<usize>,
    /// A write that a quorum has misses the third replica.
    pub replica_missed: PerMille,
    /// What a replica missed arrives there later (up to 60 s); otherwise never, save by read repair.
    pub late: PerMille,
    /// A read fails.
    pub read_timeout: PerMille,
    /// A compare-and-set answers nothing, applied or not.
    pub cas_unknown: PerMille,
    /// At a read, one replica forgets the tombstones of that device: rows below its trim are there again.
    pub tombstone_gone: PerMille,
    /// Reads do not repair the replicas they read.
    pub no_read_repair: bool,
    /// Most milliseconds that a step of a call takes.
    pub step_ms_max: u64,
}

/// What may happen to messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SignalFaults {
    /// A message, request or answer is lost on the way to one subscriber.
    pub lost: PerMille,
    /// A message arrives twice.
    pub duplicated: PerMille,
    /// A subscriber is told of an interruption, and the message is lost.
    pub interrupted: PerMille,
    /// Most milliseconds on the way.
    pub delay_ms_max: u64,
    /// Messages on one subject overtake each other where their delays differ.
    pub reordered: bool,
}

/// What may happen to leases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeaseFaults {
    /// A call answers nothing, done or not.
    pub unknown: PerMille,
    /// Somebody who asks for a held lease gets it: two owners at once.
    pub stolen: PerMille,
    /// Most milliseconds that a call takes.
    pub step_ms_max: u64,
}

/// What may happen to accounts, conversations, rendezvous, uploads and payloads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableFaults {
    /// A write is not done and answers nothing.
    pub lost: PerMille,
    /// A write is done and answers nothing.
    pub answer_lost: PerMille,
    /// A read fails.
    pub read_timeout: PerMille,
    /// Most milliseconds that a call takes.
    pub step_ms_max: u64,
}

impl FaultPlan {
    /// No faults, but every call takes a seeded time, so that tasks meet in many orders.
    pub fn slow() -> Self {
        Self {
            log: LogFaults { append_ms_max: 20, read_ms_max: 10, ..LogFaults::default() },
            queues: QueueFaults { step_ms_max: 20, ..QueueFaults::default() },
            signals: SignalFaults { delay_ms_max: 20, ..SignalFaults::default() },
            leases: LeaseFaults { step_ms_max: 10, ..LeaseFaults::default() },
            tables: TableFaults { step_ms_max: 10, ..TableFaults::default() },
        }
    }

    /// Everything that may go wrong, often.
    pub fn rough() -> Self {
        let slow = Self::slow();
        Self {
            log: LogFaults { lost: 30, answer_lost: 50, late: 20, duplicated: 500, interrupted: 10, ..slow.log },
            queues: QueueFaults {
                write_timeout: 150,
                replica_missed: 250,
                late: 700,
                read_timeout: 30,
                cas_unknown: 100,
                tombstone_gone: 30,
                ..slow.queues
            },
            signals: SignalFaults { lost: 80, duplicated: 30, interrupted: 5, reordered: true, ..slow.signals },
            leases: LeaseFaults { unknown: 30, stolen: 20, ..slow.leases },
            tables: TableFaults { lost: 30, answer_lost: 50, read_timeout: 30, ..slow.tables },
        }
    }
}

/// A seeded source of chance; each model has its own, so that a draw in one shifts nothing in another.
pub(super) struct Dice(ChaCha8Rng);

impl Dice {
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self(rng)
    }
    /// Whether something with this chance happens. A chance of 0 draws nothing.
    pub fn happens(&mut self, chance: PerMille) -> bool {
        chance > 0 && self.0.random_range(0..1_000) < chance
    }
    /// A number below `end`, which is at least 1.
    pub fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end.max(1))
    }
    /// Between nothing and `max` milliseconds.
    pub fn up_to_ms(&mut self, max: u64) -> Duration {
        if max == 0 { Duration::ZERO } else { Duration::from_millis(self.0.random_range(0..=max)) }
    }
}
