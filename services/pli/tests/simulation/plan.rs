// SPDX-License-Identifier: MIT OR Apache-2.0
//! What one seed decides before anything runs: sizes, times, what may go wrong and how often.

use std::time::Duration;

use pli_ports::LogFate;
use pli_testkit::memory::{FaultPlan, LeaseFaults, LogFaults, QueueFaults, SignalFaults};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Which rare states a schedule leans towards. Every seed takes one; the mutants' runner asks for some by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lean {
    /// A little of everything.
    Even,
    /// The log loses its end often.
    Forks,
    /// Owners are paused and released often.
    Owners,
    /// Devices come and go, with queues that overflow.
    Devices,
    /// Stores and bus are at their worst.
    Stores,
    /// Doorbells are lost, rows are written at once.
    Bells,
}

impl Lean {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Even, Self::Forks, Self::Owners, Self::Devices, Self::Stores, Self::Bells];
}

/// Chances out of 1,000 with which the next fault is of a kind; what is left is none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weights {
    pub crash_owner: u32,
    pub release_owner: u32,
    pub pause_owner: u32,
    pub crash_edge: u32,
    pub cut_log: u32,
    pub interrupt_readers: u32,
    pub interrupt_bus: u32,
    pub expire_lease: u32,
    pub power_cut: u32,
    pub log_full: u32,
    pub forget_tombstones: u32,
    pub deceive_owner: u32,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    /// Tells this run from another one of the seed over the same stores: ids of devices and of log entries are its own.
    pub again: u64,
    pub fate: LogFate,
    pub shared_stream: bool,
    pub shards: u32,
    pub shard_key: [u8; 16],
    pub accounts: u8,
    pub owners: usize,
    pub edges: usize,
    /// How long faults last.
    pub rough: Duration,
    /// Longest time between two faults.
    pub fault_every: Duration,
    /// Longest time between two messages of one device.
    pub send_every: Duration,
    /// Longest time that a device stays connected or away.
    pub stay: Duration,
    pub ack_delay: Duration,
    /// The longest time after which sessions look again by themselves, where the edge's own would last too long.
    pub recheck: Option<Duration>,
    /// Messages to more shards go through the fan-out worker.
    pub above_shards: usize,
    /// Messages that a fan-out worker has open: few of them, so that it waits often.
    pub fan_out_window: usize,
    /// Bytes of most messages.
    pub body_bytes: usize,
    /// Workers take each other for themselves.
    pub one_id: bool,
    /// Life of a message; short ones expire in queues.
    pub life: Duration,
    pub faults: FaultPlan,
    pub weights: Weights,
    pub delivery: pli_delivery::Config,
}

fn pick<T: Copy>(rng: &mut ChaCha8Rng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())]
}

impl Plan {
    /// The plan of a seed, leaning as asked by `PLI_SIM_LEAN` or as the seed decides.
    pub fn of(seed: u64) -> Self {
        let asked = std::env::var("PLI_SIM_LEAN").ok();
        let lean = Lean::ALL.into_iter().find(|lean| asked.as_deref() == Some(&format!("{lean:?}").to_lowercase()));
        Self::leaning(seed, lean.unwrap_or(Lean::ALL[usize::try_from(seed % 6).unwrap_or(0)]))
    }

    /// The plan of a seed that leans as asked.
    pub fn leaning(seed: u64, lean: Lean) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let own = lean == Lean::Forks || (lean != Lean::Stores && rng.random_bool(0.5));
        let fate = if own { LogFate::OwnSystem } else { LogFate::OneTransaction };
        let short = matches!(lean, Lean::Even | Lean::Devices) && rng.random_bool(0.3);
        let delivery = delivery(&mut rng, lean);
        Self {
            seed,
            again: 0,
            fate,
            shared_stream: own && rng.random_bool(0.5),
            shards: pick(&mut rng, &[1, 2, 4]),
            shard_key: rng.random(),
            accounts: rng.random_range(3..=5),
            owners: 2,
            edges: 2,
            rough: Duration::from_secs(rng.random_range(40..=80)),
            fault_every: Duration::from_millis(pick(&mut rng, &[1_000, 3_000])),
            send_every: Duration::from_millis(pick(&mut rng, &[1_500, 4_000])),
            stay: Duration::from_secs(pick(&mut rng, &[5, 20])),
            ack_delay: Duration::from_millis(pick(&mut rng, &[0, 50, 2_000])),
            recheck: None,
            above_shards: above_shards(seed),
            fan_out_window: 8,
            body_bytes: 40,
            one_id: false,
            life: Duration::from_secs(if short { 70 } else { 20 * 24 * 3600 }),
            faults: faults(lean),
            weights: weights(lean, own),
            delivery,
        }
    }

    /// A source of chance of its own for each part, so that a draw in one shifts nothing in another.
    pub fn rng(&self, stream: u64) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(1_000 + stream + (self.again << 32));
        rng
    }
}

/// In half of the seeds everything, or what goes to two shards, takes the way through a fan-out worker.
pub fn above_shards(seed: u64) -> usize {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(999);
    pick(&mut rng, &[usize::MAX, usize::MAX, 0, 1])
}

fn delivery(rng: &mut ChaCha8Rng, lean: Lean) -> pli_delivery::Config {
    let small_queue = lean == Lean::Devices || rng.random_bool(0.2);
    let small_tail = rng.random_bool(0.2);
    let spill_after_ms = if lean == Lean::Bells { 0 } else { pick(rng, &[0, 500, 500, 3_000, 60_000]) };
    let defaults = pli_delivery::Config::default();
    pli_delivery::Config {
        lease_ttl_ms: 3_000,
        lease_renew_ms: 800,
        settle_every_ms: pick(rng, &[150, 400, 1_500]),
        spill_after_ms,
        announce_round_ms: pick(rng, &[100, 600]),
        start_backoff_max_ms: 2_000,
        store_backoff_max_ms: 500,
        release_grace_ms: 1_000,
        tail_bytes_max: if small_tail { 2_000 } else { defaults.tail_bytes_max },
        page_rows_max: pick(rng, &[2, 5, 256]),
        ring_body_bytes_max: if rng.random_bool(0.1) { 0 } else { defaults.ring_body_bytes_max },
        queue_rows_max: if small_queue { pick(rng, &[3, 8]) } else { defaults.queue_rows_max },
        trim_acks: 4,
        trim_after_ms: 2_000,
        receipts_kept_ms: if rng.random_bool(0.3) { 60_000 } else { defaults.receipts_kept_ms },
        notice_repeat_ms: 10_000,
        ..defaults
    }
}

fn faults(lean: Lean) -> FaultPlan {
    let rough = FaultPlan::rough();
    let even = FaultPlan {
        log: LogFaults { lost: 10, answer_lost: 20, late: 5, interrupted: 5, ..rough.log },
        queues: QueueFaults { write_timeout: 60, replica_missed: 150, cas_unknown: 50, ..rough.queues },
        signals: SignalFaults { lost: 50, interrupted: 2, ..rough.signals },
        leases: LeaseFaults { stolen: 10, ..rough.leases },
        tables: rough.tables,
    };
    match lean {
        Lean::Stores => rough,
        Lean::Bells => FaultPlan { signals: SignalFaults { lost: 200, ..rough.signals }, ..even },
        Lean::Owners => FaultPlan { leases: LeaseFaults { stolen: 100, ..rough.leases }, ..even },
        Lean::Even | Lean::Forks | Lean::Devices => even,
    }
}

fn weights(lean: Lean, own: bool) -> Weights {
    let even = Weights {
        crash_owner: 120,
        release_owner: 100,
        pause_owner: 150,
        crash_edge: 40,
        cut_log: if own { 30 } else { 0 },
        interrupt_readers: 100,
        interrupt_bus: 30,
        expire_lease: 100,
        power_cut: 20,
        log_full: 20,
        forget_tombstones: 50,
        deceive_owner: 60,
    };
    match lean {
        Lean::Forks => Weights { cut_log: 200, pause_owner: 200, ..even },
        Lean::Owners => Weights { pause_owner: 250, release_owner: 200, expire_lease: 200, ..even },
        Lean::Devices => Weights { crash_edge: 80, crash_owner: 60, ..even },
        Lean::Stores => Weights { power_cut: 60, ..even },
        Lean::Even | Lean::Bells => even,
    }
}
