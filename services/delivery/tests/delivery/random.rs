// SPDX-License-Identifier: MIT OR Apache-2.0
//! Seeded schedules: owners crash, release, pause behind faulty stores and come back; then everything that was
//! appended must have been read by its device, acknowledged or waiting.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use pli_testkit::memory::{FaultPlan, WorldOptions};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::time::sleep;

use crate::harness::{Edge, Running, SPILLS, Shard, body};

const DEVICES: u8 = 3;

struct Reader {
    of: u8,
    committed: u64,
    shown: BTreeSet<Bytes>,
}

impl Reader {
    /// One page through a fresh registration, committed and acknowledged or not.
    async fn step(&mut self, edge: &Edge, rng: &mut ChaCha8Rng) {
        let registered = edge.announce(self.of, self.of, self.committed, rng.random_bool(0.2)).await;
        assert!(registered.from >= self.committed, "a hello below the log's head is never ignored");
        let page = edge.page(self.of, registered.from).await;
        assert!(page.gaps.is_empty(), "nothing was bounded away");
        let mut last = registered.from;
        for delivery in page.deliveries {
            assert!(delivery.position > last);
            last = delivery.position;
            self.shown.insert(delivery.envelope);
            self.committed = delivery.position;
        }
        if rng.random_bool(0.7) {
            edge.ack(self.of, self.committed).await;
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

async fn schedule(seed: u64, options: WorldOptions, spill: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut shard = Shard::with(spill, options);
    shard.config.release_grace_ms = 500;
    shard.config.trim_acks = 3;
    shard.config.ring_body_bytes_max = 12;
    shard.config.tail_bytes_max = if rng.random_bool(0.3) { 600 } else { 1 << 20 };
    let mut owners = [Some(shard.owner()), None];
    let edge = shard.edge(1).await;
    let mut readers: Vec<Reader> = (0..DEVICES).map(|of| Reader { of, committed: 0, shown: BTreeSet::new() }).collect();
    shard.world.set_faults(FaultPlan::rough());
    let mut sent: Vec<(u8, Bytes)> = Vec::new();
    for n in 0..60u64 {
        let to: Vec<u8> = (0..DEVICES).filter(|_| rng.random_bool(0.6)).collect();
        shard.append(&[(&to, n)]).await;
        sent.extend(to.into_iter().map(|of| (of, body(n))));
        sleep(Duration::from_millis(rng.random_range(0..400))).await;
        if rng.random_bool(0.2) {
            disturb(&shard, &mut owners, &mut rng).await;
        }
        if owners.iter().all(Option::is_none) {
            owners[0] = Some(shard.owner());
        }
        if rng.random_bool(0.4) {
            let of = rng.random_range(0..usize::from(DEVICES));
            readers[of].step(&edge, &mut rng).await;
        }
    }
    shard.world.set_faults(FaultPlan::default());
    shard.world.deliver_late_writes();
    for reader in &mut readers {
        let registered = edge.announce(reader.of, reader.of, reader.committed, false).await;
        reader.shown.extend(edge.drain(reader.of, registered.from).await.bodies());
    }
    for (of, body) in sent {
        let reader = &readers[usize::from(of)];
        assert!(reader.shown.contains(&body), "seed {seed}, spill {spill}: device {of} lost {body:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_on_a_log_of_its_own() {
    for seed in 0..40 {
        for spill in SPILLS {
            let options = WorldOptions { seed, shards_share_stream: seed % 2 == 0, ..WorldOptions::default() };
            schedule(seed, options, spill).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_on_the_embedded_log() {
    for seed in 0..40 {
        for spill in SPILLS {
            let fate = pli_ports::LogFate::OneTransaction;
            schedule(seed, WorldOptions { seed, fate, ..WorldOptions::default() }, spill).await;
        }
    }
}
