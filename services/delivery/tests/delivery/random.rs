// SPDX-License-Identifier: MIT OR Apache-2.0
//! Seeded schedules: owners crash, release, pause behind faulty stores and come back; then everything that was
//! appended must have been read by its device, acknowledged or waiting.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use pli_api::delivery::Doorbell;
use pli_delivery::CounterValues;
use pli_domain::EntryId;
use pli_testkit::memory::{FaultPlan, WorldOptions};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::time::sleep;

use crate::harness::{Edge, Running, SHARD, SPILLS, Shard, body, device};

const DEVICES: u8 = 3;

/// A device with one session at a time, which keeps one integer and one flag.
struct Reader {
    of: u8,
    /// Up to here the session is complete and committed.
    sent: u64,
    /// Something may wait that no doorbell brought.
    dirty: bool,
    shown: BTreeSet<Bytes>,
}

impl Reader {
    fn show(&mut self, position: u64, envelope: Bytes) {
        assert!(position > self.sent, "positions of a session strictly rise");
        self.sent = position;
        self.shown.insert(envelope);
    }

    async fn register(&mut self, edge: &Edge, first: bool) {
        let registered = edge.announce(self.of, self.of, self.sent, first).await;
        assert!(registered.from >= self.sent, "a hello below the log's head is never ignored");
        self.sent = registered.from;
        self.dirty = true;
    }

    fn rung(&mut self, bell: Doorbell) {
        if bell.device.as_ref() != device(self.of).as_bytes() || bell.position <= self.sent {
            return;
        }
        let follows = bell.prev.is_some_and(|prev| prev <= self.sent);
        if follows && !self.dirty && !bell.envelope.is_empty() {
            self.show(bell.position, bell.envelope);
        } else {
            self.dirty = true;
        }
    }

    /// One page; complete up to its `next`.
    async fn read(&mut self, edge: &Edge) {
        let page = edge.page(self.of, self.sent).await;
        assert!(page.gaps.is_empty(), "nothing was bounded away");
        for delivery in page.deliveries {
            self.show(delivery.position, delivery.envelope);
        }
        self.sent = self.sent.max(page.next);
        self.dirty = !page.at_head;
    }

    async fn step(&mut self, edge: &Edge, rng: &mut ChaCha8Rng) {
        if rng.random_bool(0.15) {
            self.register(edge, rng.random_bool(0.5)).await;
        }
        if self.dirty && rng.random_bool(0.8) {
            self.read(edge).await;
        }
        if rng.random_bool(0.6) {
            edge.ack(self.of, self.sent).await;
        }
    }
}

async fn disturb(shard: &Shard, owners: &mut [Option<Running>; 2], rng: &mut ChaCha8Rng) {
    let which = rng.random_range(0..2);
    match (owners[which].take(), rng.random_range(0..4)) {
        (None, _) => owners[which] = Some(shard.owner()),
        (Some(owner), 0) => owner.crash().await,
        (Some(owner), 1) => owner.release().await,
        (Some(owner), _) => owners[which] = Some(owner),
    }
}

/// The log loses its end; what it lost may be lost, or not.
fn cut(shard: &Shard, rng: &mut ChaCha8Rng, lost: &mut BTreeSet<EntryId>) {
    let before = shard.world.log_entries(SHARD);
    shard.world.cut_log_end(SHARD, rng.random_range(1..4));
    let left: BTreeSet<EntryId> = shard.world.log_entries(SHARD).into_iter().map(|(_, id)| id).collect();
    lost.extend(before.into_iter().map(|(_, id)| id).filter(|id| !left.contains(id)));
}

fn configured(seed: u64, options: WorldOptions, spill: u64) -> Shard {
    let mut shard = Shard::with(spill, options);
    shard.config.release_grace_ms = 500;
    shard.config.trim_acks = 3;
    shard.config.page_rows_max = 3;
    shard.config.ring_body_bytes_max = if seed % 4 == 1 { 11 } else { 100 };
    shard.config.tail_bytes_max = if seed % 3 == 1 { 600 } else { 1 << 20 };
    shard.config.receipts_kept_ms = if seed % 5 == 1 { 3_000 } else { 3_600_000 };
    shard
}

async fn schedule(seed: u64, options: WorldOptions, spill: u64, cuts: bool) -> CounterValues {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let shard = configured(seed, options, spill);
    let mut owners = [Some(shard.owner()), None];
    let mut edge = shard.edge(1).await;
    let mut readers: Vec<Reader> =
        (0..DEVICES).map(|of| Reader { of, sent: 0, dirty: true, shown: BTreeSet::new() }).collect();
    shard.world.set_faults(FaultPlan::rough());
    let mut sent: Vec<(u8, Bytes, EntryId)> = Vec::new();
    let mut lost = BTreeSet::new();
    for n in 0..60u64 {
        let to: Vec<u8> = (0..DEVICES).filter(|_| rng.random_bool(0.6)).collect();
        let entry = shard.append(&[(&to, n)]).await;
        sent.extend(to.into_iter().map(|of| (of, body(n), entry.id)));
        sleep(Duration::from_millis(rng.random_range(0..400))).await;
        if rng.random_bool(0.2) {
            disturb(&shard, &mut owners, &mut rng).await;
        }
        if cuts && rng.random_bool(0.05) {
            cut(&shard, &mut rng, &mut lost);
        }
        if owners.iter().all(Option::is_none) {
            owners[0] = Some(shard.owner());
        }
        for bell in edge.bells_at_hand().await {
            readers.iter_mut().for_each(|reader| reader.rung(bell.clone()));
        }
        let of = rng.random_range(0..usize::from(DEVICES));
        readers[of].step(&edge, &mut rng).await;
    }
    shard.world.set_faults(FaultPlan::default());
    shard.world.deliver_late_writes();
    // One owner that is nobody's zombie has the last word: what a session was told to have, it has.
    for owner in owners.into_iter().flatten() {
        owner.crash().await;
    }
    let _owner = shard.owner();
    shard.append(&[(&[], 1_000)]).await;
    for reader in &mut readers {
        reader.register(&edge, false).await;
        reader.shown.extend(edge.drain(reader.of, reader.sent).await.bodies());
    }
    for (of, body, entry) in sent.into_iter().filter(|(_, _, entry)| !lost.contains(entry)) {
        let shown = readers[usize::from(of)].shown.contains(&body);
        assert!(shown, "seed {seed}, spill {spill}, cuts {cuts}: device {of} lost {body:?} of {entry}");
    }
    shard.counts()
}

const SEEDS: u64 = 30;

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_on_a_log_of_its_own() {
    for seed in 0..SEEDS {
        for spill in SPILLS {
            let options = WorldOptions { seed, shards_share_stream: seed % 2 == 0, ..WorldOptions::default() };
            schedule(seed, options, spill, false).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_that_the_log_kept_is_lost_when_it_loses_its_end() {
    let mut forks = 0;
    for seed in 0..SEEDS {
        for spill in SPILLS {
            let options = WorldOptions { seed, shards_share_stream: seed % 2 == 0, ..WorldOptions::default() };
            let counts = schedule(seed, options, spill, true).await;
            forks += counts.forks_above_checkpoint + counts.forks_below_checkpoint;
        }
    }
    assert!(forks > 0, "no schedule met a fork");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_on_the_embedded_log() {
    for seed in 0..SEEDS {
        for spill in SPILLS {
            let fate = pli_ports::LogFate::OneTransaction;
            schedule(seed, WorldOptions { seed, fate, ..WorldOptions::default() }, spill, false).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_seed_gives_one_history() {
    for seed in [3, 4] {
        let options = WorldOptions { seed, ..WorldOptions::default() };
        let first = schedule(seed, options, 300, true).await;
        assert_eq!(schedule(seed, options, 300, true).await, first);
    }
}
