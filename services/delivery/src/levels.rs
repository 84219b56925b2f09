// SPDX-License-Identifier: MIT OR Apache-2.0
//! How far the shards of one worker lag behind, how much their owners hold in memory, and how long queues are.
//!
//! Each owned shard has two series of its own, about 160 bytes of a scrape: 330 KB where one worker owns 2,048. What is
//! asked most often, the worst shard and the sum, has one series each.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Histogram, Meter};
use pli_domain::ShardId;
use tokio::time::Instant;

/// One owned shard.
#[derive(Debug, Default)]
pub(crate) struct ShardLevels {
    entries: AtomicU64,
    oldest: Mutex<Option<Instant>>,
    tail_bytes: AtomicU64,
    tail_slots: AtomicU64,
}

impl ShardLevels {
    /// Entries above the checkpoint, when the oldest of them was read, and bytes and pairs of the tail.
    pub(crate) fn set(&self, entries: usize, oldest: Option<Instant>, bytes: usize, slots: usize) {
        self.entries.store(entries as u64, Ordering::Relaxed);
        self.tail_bytes.store(bytes as u64, Ordering::Relaxed);
        self.tail_slots.store(slots as u64, Ordering::Relaxed);
        *lock(&self.oldest) = oldest;
    }

    fn seconds(&self) -> f64 {
        lock(&self.oldest).map_or(0.0, |oldest| oldest.elapsed().as_secs_f64())
    }
}

/// Bounds of the histogram of replays in seconds: a hundredth to ten minutes.
const REPLAY_SECONDS: [f64; 10] = [0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0];

#[derive(Debug)]
struct Instruments {
    read_seconds: Histogram<f64>,
    replay_seconds: Histogram<f64>,
    queue_rows: Histogram<u64>,
}

type Shards = BTreeMap<ShardId, Arc<ShardLevels>>;

/// The levels of one worker.
#[derive(Debug, Default)]
pub(crate) struct Levels {
    /// Bound: the shards of the cluster.
    shards: Mutex<Shards>,
    instruments: OnceLock<Instruments>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Levels {
    /// The shard has an owner here, until what is returned is dropped.
    pub(crate) fn own(self: &Arc<Self>, shard: ShardId) -> Owned {
        let levels = Arc::new(ShardLevels::default());
        lock(&self.shards).insert(shard, levels.clone());
        Owned { all: self.clone(), shard, levels }
    }

    /// An entry was read so long after an edge accepted its first envelope, by their two clocks. What stood in the log
    /// when its owner started is counted apart: it says how long the shard moved, not how far its owner is behind.
    pub(crate) fn read_after(&self, seconds: f64, replayed: bool) {
        if let Some(instruments) = self.instruments.get() {
            let of = if replayed { &instruments.replay_seconds } else { &instruments.read_seconds };
            of.record(seconds, &[]);
        }
    }

    /// A device's queue was measured.
    pub(crate) fn queue_rows(&self, rows: usize) {
        if let Some(instruments) = self.instruments.get() {
            instruments.queue_rows.record(rows as u64, &[]);
        }
    }

    /// Exports everything; only the first meter counts.
    pub(crate) fn export(self: &Arc<Self>, meter: &Meter) {
        let histogram = || Instruments {
            read_seconds: meter
                .f64_histogram("pli_delivery_read_seconds")
                .with_description(
                    "from an edge accepting an entry's first envelope to its owner reading it, by two clocks",
                )
                .with_boundaries(pli_runtime::LATENCY_SECONDS.to_vec())
                .build(),
            replay_seconds: meter
                .f64_histogram("pli_delivery_replay_seconds")
                .with_description(
                    "as `pli_delivery_read_seconds`, for what stood in the log when the owner of the shard started",
                )
                .with_boundaries(REPLAY_SECONDS.to_vec())
                .build(),
            queue_rows: meter
                .u64_histogram("pli_delivery_queue_rows")
                .with_description("rows of a device's queue, where it is measured because it may be long")
                .with_boundaries([1, 10, 100, 1_000, 5_000, 10_000, 15_000, 20_000, 40_000].map(f64::from).to_vec())
                .build(),
        };
        if self.instruments.set(histogram()).is_ok() {
            self.export_each(meter);
            self.export_all(meter);
        }
    }

    fn export_each(self: &Arc<Self>, meter: &Meter) {
        let name = |shard: &ShardId| [KeyValue::new("shard", i64::from(shard.get()))];
        let all = self.clone();
        let (id, about) = ("pli_delivery_shard_lag_entries", "entries of an owned shard above its checkpoint");
        let entries = meter.u64_observable_gauge(id).with_description(about);
        entries
            .with_callback(move |to| {
                for (shard, levels) in &*lock(&all.shards) {
                    to.observe(levels.entries.load(Ordering::Relaxed), &name(shard));
                }
            })
            .build();
        let all = self.clone();
        let (id, about) =
            ("pli_delivery_shard_lag_seconds", "how long ago the oldest entry above its checkpoint was read");
        let seconds = meter.f64_observable_gauge(id).with_description(about);
        seconds
            .with_callback(move |to| {
                for (shard, levels) in &*lock(&all.shards) {
                    to.observe(levels.seconds(), &name(shard));
                }
            })
            .build();
    }

    fn export_all(self: &Arc<Self>, meter: &Meter) {
        let gauge = |name: &'static str, about: &'static str, of: fn(&Shards) -> f64| {
            let all = self.clone();
            let gauge = meter.f64_observable_gauge(name).with_description(about);
            gauge.with_callback(move |to| to.observe(of(&lock(&all.shards)), &[])).build();
        };
        gauge("pli_delivery_shards", "shards that this worker owns", |shards| count(shards.len() as u64));
        gauge("pli_delivery_lag_entries_max", "entries above the checkpoint of the worst owned shard", |shards| {
            count(most(shards, |levels| &levels.entries))
        });
        gauge(
            "pli_delivery_lag_seconds_max",
            "age of the oldest entry above a checkpoint of all owned shards",
            |all| all.values().map(|levels| levels.seconds()).fold(0.0, f64::max),
        );
        gauge("pli_delivery_tail_bytes", "bytes of envelopes in the tails of all owned shards", |shards| {
            count(shards.values().map(|levels| levels.tail_bytes.load(Ordering::Relaxed)).sum())
        });
        gauge("pli_delivery_fullest_tail_bytes", "bytes of envelopes in the fullest tail", |shards| {
            count(most(shards, |levels| &levels.tail_bytes))
        });
        gauge(
            "pli_delivery_fullest_tail_slots",
            "un-acknowledged (device, envelope) pairs in the fullest tail",
            |shards| count(most(shards, |levels| &levels.tail_slots)),
        );
    }
}

fn most(shards: &Shards, of: fn(&ShardLevels) -> &AtomicU64) -> u64 {
    shards.values().map(|levels| of(levels).load(Ordering::Relaxed)).max().unwrap_or(0)
}

/// Figures of a gauge are below 2^53.
#[allow(clippy::cast_precision_loss, reason = "figures below 2^53 are exact")]
fn count(figure: u64) -> f64 {
    figure as f64
}

/// An owned shard's entry in [`Levels`].
#[derive(Debug)]
pub(crate) struct Owned {
    all: Arc<Levels>,
    shard: ShardId,
    pub(crate) levels: Arc<ShardLevels>,
}

impl Drop for Owned {
    fn drop(&mut self) {
        let mut shards = lock(&self.all.shards);
        // Another owner of the shard may have begun meanwhile.
        if shards.get(&self.shard).is_some_and(|levels| Arc::ptr_eq(levels, &self.levels)) {
            shards.remove(&self.shard);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_owned_shards_are_shown_and_go_with_their_owner() {
        let telemetry = pli_runtime::Telemetry::new("pli").expect("metrics");
        let levels = Arc::new(Levels::default());
        levels.export(&telemetry.meter("delivery"));
        let (one, two) = (levels.own(ShardId::new(1)), levels.own(ShardId::new(2)));
        one.levels.set(3, None, 300, 30);
        two.levels.set(5, None, 100, 10);
        levels.read_after(0.5, false);
        levels.read_after(50.0, true);
        levels.read_after(50.0, true);
        levels.queue_rows(12);
        let shown = telemetry.render().expect("text");
        // Name, a label and the figure.
        let has = |shown: &str, wanted: &str| {
            let wanted: Vec<&str> = wanted.split(' ').collect();
            let name = format!("{}{{", wanted[0]);
            let is = |line: &str| line.starts_with(&name) && wanted[1..].iter().all(|part| line.contains(part));
            shown.lines().any(|line| is(line) && line.ends_with(&format!(" {}", wanted[wanted.len() - 1])))
        };
        assert!(has(&shown, "pli_delivery_shard_lag_entries shard=\"1\" 3"), "{shown}");
        for wanted in [
            "pli_delivery_lag_entries_max 5",
            "pli_delivery_tail_bytes 400",
            "pli_delivery_fullest_tail_bytes 300",
            "pli_delivery_fullest_tail_slots 30",
            "pli_delivery_read_seconds_count 1",
            "pli_delivery_replay_seconds_count 2",
            "pli_delivery_queue_rows_count 1",
        ] {
            assert!(has(&shown, wanted), "{wanted} in {shown}");
        }
        drop(one);
        let again = levels.own(ShardId::new(2));
        drop(two);
        again.levels.set(7, None, 0, 0);
        let shown = telemetry.render().expect("text");
        assert!(!shown.contains("shard=\"1\""), "{shown}");
        assert!(has(&shown, "pli_delivery_shards 1") && has(&shown, "pli_delivery_lag_entries_max 7"), "{shown}");
    }
}
