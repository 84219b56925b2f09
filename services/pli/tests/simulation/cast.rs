// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who takes part in a run: devices, edges and owners over some stores; whether everything arrived, and the judgement.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pli_domain::{AccountId, ConversationId, DeviceAddress, DeviceId, ShardMap};
use pli_testkit::history::{Event, Report, judge};
use rand::Rng;
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use crate::simulation::device::{Device, Status, Talk};
use crate::simulation::network::Network;
use crate::simulation::owners::Owners;
use crate::simulation::plan::Plan;
use crate::simulation::rare::Rare;
use crate::simulation::rosters;
use crate::simulation::stores::{Place, Stores};
use crate::simulation::trace::Told;
use crate::simulation::world::World;

/// Of what keeps a run from being drained, so much is told.
const OPEN_TOLD_MAX: usize = 20;

/// What became of a seed.
pub struct Outcome {
    pub hash: u64,
    pub events: u64,
    pub rare: Rare,
    pub report: Report,
    pub failure: Option<String>,
}

/// See the module.
pub struct Cast {
    pub world: Arc<World>,
    pub network: Arc<Network>,
    pub owners: Arc<Owners>,
    pub devices: Vec<DeviceAddress>,
    pub status: Vec<Arc<Status>>,
    /// Dropped last: devices end with the run.
    _tasks: Vec<AbortOnDropHandle<()>>,
}

/// Starts everything.
pub fn build(plan: &Arc<Plan>, stores: Arc<dyn Stores>, shards: ShardMap, told: Option<Told>) -> Cast {
    let world = Arc::new(World::new(stores, shards, told));
    let devices = devices(plan);
    let talks = talks(plan, &devices);
    {
        let mut oracle = world.oracle();
        oracle.rows_max = plan.delivery.queue_rows_max;
        for shard in shards.shards() {
            oracle.shard_of.insert(DeviceId::fan_out(shard), shard);
            oracle.device(DeviceId::fan_out(shard));
        }
        for address in &devices {
            oracle.shard_of.insert(address.device, shards.shard_of(address.account));
            oracle.device(address.device);
        }
    }
    let payloads = world.stores.ports(Place::Owner(0), world.clock).payloads;
    let rosters = rosters::channel(talks.clone(), (world.shards, plan.above_shards), Some((payloads, world.clock)));
    let network = Arc::new(Network::new(world.clone(), plan.clone(), rosters.clone()));
    let owners = Arc::new(Owners::new(world.clone(), plan.clone(), rosters));
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

/// Everybody, and two smaller circles; conversations of this run alone.
fn talks(plan: &Plan, devices: &[DeviceAddress]) -> Vec<Talk> {
    let mut rng = plan.rng(5);
    let mut talk =
        |devices: &[DeviceAddress]| Talk { id: ConversationId::from_bytes(rng.random()), devices: devices.to_vec() };
    vec![talk(devices), talk(&devices[..2]), talk(&devices[1..])]
}

/// Waits until nothing is open any more, or a rule was broken; an error when that does not come about in time.
pub async fn drain(cast: &Cast, most: Duration) -> Result<(), Duration> {
    let end = Instant::now() + most;
    while Instant::now() < end && cast.world.failure().is_none() {
        sleep(Duration::from_millis(500)).await;
        if open(cast).is_empty() {
            return Ok(());
        }
    }
    Err(most)
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

/// Judges the run. `drained` is none where it did not drain, and then how long that was waited for.
pub fn finish(cast: &Cast, drained: Result<(), Duration>) -> Outcome {
    let world = &cast.world;
    let now = world.now();
    for (name, expires_at) in &world.oracle().expires_at {
        if *expires_at <= now.after(pli_domain::limits::SPILL_LIFE_MIN) {
            world.record(Event::Expired { sender: name.0.to_string(), send_id: name.1.to_string() });
        }
    }
    world.rare.reader_again.by(cast.owners.counted(|count| count.readers_recreated));
    let report = judge(world.history().iter());
    world.rare.expired.by(report.devices.values().map(|d| d.expired as u64).sum());
    if let Err(waited) = drained {
        let open = open(cast);
        let (count, some) = (open.len(), open.get(..OPEN_TOLD_MAX).unwrap_or(&open));
        world.judge(Err(format!(
            "Q8: not drained {waited:?} after the last fault: {count} are open: {}",
            some.join(", ")
        )));
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
