// SPDX-License-Identifier: MIT OR Apache-2.0
//! One seed from beginning to end: build, break, mend, drain, judge.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pli_domain::ShardMap;
use pli_testkit::memory::{MemoryWorld, WorldOptions};

use crate::simulation::cast::{self, Outcome};
use crate::simulation::faults::Faults;
use crate::simulation::plan::Plan;
use crate::simulation::trace::Told;

/// Simulated time in which everything must have drained once faults are over: sessions look again every 300 s.
const DRAIN_MAX: Duration = Duration::from_secs(1_200);

/// Runs a plan on a runtime of its own.
pub fn run(plan: Plan, printed: bool) -> Outcome {
    run_told(plan, printed.then(print))
}

/// The same; each event is told as it comes about.
pub fn run_told(plan: Plan, told: Option<Told>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O");
    runtime.block_on(Box::pin(story(plan, told)))
}

fn print() -> Told {
    Box::new(|at, text| println!("{:>7}.{:03} {text}", at / 1000, at % 1000))
}

async fn story(plan: Plan, told: Option<Told>) -> Outcome {
    let plan = Arc::new(plan);
    let options = WorldOptions {
        seed: plan.seed,
        fate: plan.fate,
        shards_share_stream: plan.shared_stream,
        ..WorldOptions::default()
    };
    let memory = MemoryWorld::new(options);
    let shards = ShardMap::new(plan.shards, plan.shard_key).expect("a power of two");
    let cast = cast::build(&plan, Arc::new(memory.clone()), shards, told);
    let (world, network, owners) = (cast.world.clone(), cast.network.clone(), cast.owners.clone());
    let ids = cast.devices.iter().map(|d| d.device).collect();
    let mut faults = Faults::new((world, memory.clone(), plan.clone()), network, owners, ids);
    memory.set_faults(plan.faults);
    faults.rage().await;
    cast.status.iter().for_each(|status| status.calm.store(true, Ordering::Relaxed));
    let drained = cast::drain(&cast, DRAIN_MAX).await;
    cast::finish(&cast, drained)
}
