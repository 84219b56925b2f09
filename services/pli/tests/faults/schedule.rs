// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a seed decides: sizes and times of the run, and which fault strikes where, when and for how long.

use std::fmt;
use std::time::Duration;

use pli_ports::LogFate;
use pli_testkit::memory::FaultPlan;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::faults::servers::SHARDS;
use crate::simulation::plan::{Plan, Weights, above_shards};

/// How long a lease lives; the server ends it within a second after that.
const LEASE_TTL_MS: u64 = 2_000;
/// Longest time between two faults.
const STRIKE_EVERY_MS: u64 = 2_000;
/// Accounts of a run.
const ACCOUNTS: u8 = 6;

/// What goes wrong. Those that last end by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A worker stands still for longer than its leases live, and comes back as it was.
    Pause,
    /// A worker believes that it keeps its leases while others take them.
    Deceive,
    /// A lease is taken away.
    Steal,
    /// The lease store forgets everything.
    Forget,
    /// A worker is killed and started again.
    Crash,
    /// A worker is stopped in order and started again.
    Release,
    /// An edge is killed and started again.
    CrashEdge,
    /// A worker cannot reach the database.
    CqlRefused,
    /// The database does not answer a worker.
    CqlSilent,
    /// Every answer of the database takes long.
    CqlSlow,
    /// Writes fail, made or not.
    CqlFails,
    /// A place loses its connection to NATS once.
    NatsCut,
    /// A place cannot reach NATS.
    NatsRefused,
    /// NATS does not answer a place.
    NatsSilent,
    /// Every log reader is ended on the server.
    Readers,
}

impl Fault {
    /// All.
    pub const ALL: [Self; 15] = [
        Self::Pause,
        Self::Deceive,
        Self::Steal,
        Self::Forget,
        Self::Crash,
        Self::Release,
        Self::CrashEdge,
        Self::CqlRefused,
        Self::CqlSilent,
        Self::CqlSlow,
        Self::CqlFails,
        Self::NatsCut,
        Self::NatsRefused,
        Self::NatsSilent,
        Self::Readers,
    ];

    /// How long it lasts, in milliseconds.
    const fn lasts(self) -> std::ops::Range<u64> {
        match self {
            // The lease must end first.
            Self::Pause | Self::Deceive => 2 * LEASE_TTL_MS..4 * LEASE_TTL_MS,
            Self::Crash | Self::Release | Self::CrashEdge => 200..2_500,
            Self::CqlRefused | Self::CqlSilent | Self::CqlSlow | Self::CqlFails => 1_000..5_000,
            Self::NatsRefused | Self::NatsSilent => 500..4_000,
            Self::Steal | Self::Forget | Self::NatsCut | Self::Readers => 0..1,
        }
    }
}

/// One fault of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blow {
    pub at: Duration,
    pub fault: Fault,
    /// Which worker, edge or shard, modulo how many there are.
    pub place: usize,
    pub lasts: Duration,
}

impl fmt::Display for Blow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, fault, place, lasts } = self;
        write!(f, "{:>6.2} s {fault:?} {place} for {:.2} s", at.as_secs_f32(), lasts.as_secs_f32())
    }
}

/// Every fault of a seed, in order: each kind once or more, those that let two owners overlap more often.
pub fn schedule(seed: u64) -> Vec<Blow> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let often = [Fault::Deceive, Fault::Deceive, Fault::Pause, Fault::Crash, Fault::NatsCut, Fault::CqlFails];
    let mut deck: Vec<Fault> = Fault::ALL.into_iter().chain(often).collect();
    deck.shuffle(&mut rng);
    let mut at = Duration::from_secs(1);
    let mut blow = |fault: Fault| {
        at += Duration::from_millis(rng.random_range(STRIKE_EVERY_MS / 4..STRIKE_EVERY_MS));
        let lasts = Duration::from_millis(rng.random_range(fault.lasts()));
        Blow { at, fault, place: rng.random_range(0..12), lasts }
    };
    deck.into_iter().map(&mut blow).collect()
}

/// The run of a seed.
pub fn plan(seed: u64) -> Plan {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(1);
    let mut pick = |from: &[u64]| *from.choose(&mut rng).unwrap_or(&0);
    let delivery = pli_delivery::Config {
        lease_ttl_ms: LEASE_TTL_MS,
        lease_renew_ms: LEASE_TTL_MS / 4,
        settle_every_ms: pick(&[150, 400]),
        spill_after_ms: pick(&[0, 500, 2_000]),
        announce_round_ms: 300,
        start_backoff_max_ms: 1_000,
        store_backoff_max_ms: 500,
        release_grace_ms: 1_000,
        trim_acks: 4,
        trim_after_ms: 2_000,
        receipts_kept_ms: 60_000,
        notice_repeat_ms: 3_000,
        ..pli_delivery::Config::default()
    };
    Plan {
        seed,
        again: 0,
        fate: LogFate::OwnSystem,
        shared_stream: true,
        shards: SHARDS,
        shard_key: [0; 16],
        accounts: ACCOUNTS,
        owners: 3,
        edges: 2,
        rough: Duration::from_secs(30),
        fault_every: Duration::from_millis(STRIKE_EVERY_MS),
        send_every: Duration::from_millis(pick(&[500, 1_000])),
        stay: Duration::from_secs(pick(&[5, 15])),
        ack_delay: Duration::from_millis(pick(&[0, 50, 200])),
        above_shards: above_shards(seed),
        // Each waits for real disks and networks, and for slow ones.
        fan_out_window: 256,
        body_bytes: 40,
        one_id: false,
        recheck: Some(Duration::from_secs(4)),
        life: Duration::from_secs(20 * 24 * 3600),
        faults: FaultPlan::default(),
        weights: Weights::default(),
        delivery,
    }
}
