// SPDX-License-Identifier: MIT OR Apache-2.0
//! One seed from beginning to end: build, break, mend, drain, judge.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pli_domain::{AccountId, ConversationId, DeviceAddress, DeviceId, ShardMap};
use pli_testkit::history::{Event, Report, judge};
use pli_testkit::memory::{MemoryWorld, WorldOptions};
use rand::Rng;
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use crate::simulation::device::{Device, Status, Talk};
use crate::simulation::faults::Faults;
use crate::simulation::network::Network;
use crate::simulation::owners::Owners;
use crate::simulation::plan::Plan;
use crate::simulation::rare::Rare;
use crate::simulation::rosters;
use crate::simulation::world::World;

/// Simulated time in which everything must have drained once faults are over: sessions look again every 300 s.
const DRAIN_MAX: Duration = Duration::from_secs(1_200);

/// What became of a seed.
pub struct Outcome {
    pub hash: u64,
    pub events: u64,
    pub rare: Rare,
    pub report: Report,
    pub failure: Option<String>,
}

/// Runs a plan on a runtime of its own.
pub fn run(plan: Plan, printed: bool) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O");
    runtime.block_on(Box::pin(story(plan, printed)))
}

struct Cast {
    world: Arc<World>,
    network: Arc<Network>,
    owners: Arc<Owners>,
    devices: Vec<DeviceAddress>,
    status: Vec<Arc<Status>>,
    /// Dropped last: devices end with the run.
    _tasks: Vec<AbortOnDropHandle<()>>,
}

async fn story(plan: Plan, printed: bool) -> Outcome {
    let plan = Arc::new(plan);
    let cast = build(&plan, printed);
    let (world, network, owners) = (cast.world.clone(), cast.network.clone(), cast.owners.clone());
    let ids = cast.devices.iter().map(|d| d.device).collect();
    let mut faults = Faults::new((world.clone(), plan.clone()), network, owners, ids);
    world.memory.set_faults(plan.faults);
    faults.rage().await;
    cast.status.iter().for_each(|status| status.calm.store(true, Ordering::Relaxed));
    let drained = drain(&cast).await;
    finish(&cast, drained)
}

fn build(plan: &Arc<Plan>, printed: bool) -> Cast {
    let options = WorldOptions {
        seed: plan.seed,
        fate: plan.fate,
        shards_share_stream: plan.shared_stream,
        ..WorldOptions::default()
    };
    let shards = ShardMap::new(plan.shards, plan.shard_key).expect("a power of two");
    let world = Arc::new(World::new(MemoryWorld::new(options), shards, printed));
    let devices = devices(plan);
    let talks = talks(&devices);
    {
        let mut oracle = world.oracle();
        oracle.rows_max = plan.delivery.queue_rows_max;
        for address in &devices {
            oracle.shard_of.insert(address.device, shards.shard_of(address.account));
            oracle.device(address.device);
        }
    }
    let network = Arc::new(Network::new(world.clone(), plan.clone(), rosters::channel(talks.clone())));
    let owners = Arc::new(Owners::new(world.clone(), plan.clone()));
    (0..plan.edges).for_each(|place| network.start(place));
    (0..plan.owners).for_each(|place| owners.start(place));
    let (mut status, mut tasks) = (Vec::new(), Vec::new());
    for (n, address) in devices.iter().enumerate() {
        let own: Vec<Talk> = talks.iter().filter(|talk| talk.devices.contains(address)).cloned().collect();
        let rng = plan.rng(100 + n as u64);
        let device = Device::new((world.clone(), network.clone(), plan.clone()), *address, own, rng);
        status.push(device.status.clone());
        tasks.push(AbortOnDropHandle::new(tokio::spawn(device.run())));
    }
    Cast { world, network, owners, devices, status, _tasks: tasks }
}

/// Accounts with one device each, the first with two.
fn devices(plan: &Plan) -> Vec<DeviceAddress> {
    let mut rng = plan.rng(4);
    let account = |rng: &mut rand_chacha::ChaCha8Rng| AccountId::from_bytes(rng.random());
    let accounts: Vec<AccountId> = (0..plan.accounts).map(|_| account(&mut rng)).collect();
    let owners = accounts.iter().chain(accounts.first());
    owners.map(|account| DeviceAddress { account: *account, device: DeviceId::from_bytes(rng.random()) }).collect()
}

/// Everybody, and two smaller circles.
fn talks(devices: &[DeviceAddress]) -> Vec<Talk> {
    let talk = |n: u8, devices: Vec<DeviceAddress>| Talk { id: ConversationId::from_bytes([n; 16]), devices };
    vec![talk(1, devices.to_vec()), talk(2, devices[..2].to_vec()), talk(3, devices[1..].to_vec())]
}

/// Waits until nothing is open any more; false when that does not come about.
async fn drain(cast: &Cast) -> bool {
    let end = Instant::now() + DRAIN_MAX;
    while Instant::now() < end && cast.world.failure().is_none() {
        sleep(Duration::from_millis(500)).await;
        if open(cast).is_empty() {
            return true;
        }
    }
    false
}

/// What keeps the run from being drained.
fn open(cast: &Cast) -> Vec<String> {
    let count = |status: &Arc<Status>| status.open.load(Ordering::Relaxed);
    let busy = cast.devices.iter().zip(&cast.status).filter(|(_, status)| count(status) > 0);
    let mut open: Vec<String> = busy.map(|(d, s)| format!("{:?} has {} open", d.device, count(s))).collect();
    let (oracle, now) = (cast.world.oracle(), cast.world.now());
    for (name, recipients) in &oracle.recipients {
        for id in recipients {
            if !oracle.is_done(*id, *name, now) {
                open.push(format!("{id:?} lacks {}", name.1));
            }
        }
    }
    open
}

fn finish(cast: &Cast, drained: bool) -> Outcome {
    let world = &cast.world;
    let now = world.now();
    for (name, expires_at) in &world.oracle().expires_at {
        if *expires_at <= now.after(pli_domain::limits::SPILL_LIFE_MIN) {
            world.record(Event::Expired { sender: name.0.to_string(), send_id: name.1.to_string() });
        }
    }
    world.rare.reader_again.by(cast.owners.readers_again());
    let report = judge(world.history().iter());
    world.rare.expired.by(report.devices.values().map(|d| d.expired as u64).sum());
    if !drained {
        let open = open(cast);
        world.judge(Err(format!("Q8: not drained {DRAIN_MAX:?} after the last fault: {}", open.join(", "))));
    }
    if !report.is_clean() {
        world.judge(Err(format!("the history: {}", faults(&report))));
    }
    let (hash, events) = world.trace.digest();
    let rare = Rare::default();
    rare.add(&world.rare);
    Outcome { hash, events, rare, report, failure: world.failure() }
}

/// What the history checker found, device by device.
fn faults(report: &Report) -> String {
    let mut found = report.broken.clone();
    for (id, device) in &report.devices {
        let kinds = [
            ("lost", &device.lost),
            ("twice", &device.twice),
            ("reordered", &device.reordered),
            ("unmarked", &device.unmarked),
            ("foreign", &device.foreign),
        ];
        for (kind, names) in kinds.into_iter().filter(|(_, names)| !names.is_empty()) {
            let some: Vec<String> = names.iter().take(3).map(ToString::to_string).collect();
            found.push(format!("{kind} {} on {id}: {}", names.len(), some.join(" ")));
        }
    }
    found.join("; ")
}
