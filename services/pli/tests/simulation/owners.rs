// SPDX-License-Identifier: MIT OR Apache-2.0
//! The delivery workers.

use std::sync::{Arc, Mutex};

use opentelemetry::metrics::MeterProvider;
use opentelemetry::metrics::noop::NoopMeterProvider;
use pli_delivery::{CounterValues, Counters, Delivery, DeliveryPorts};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::simulation::plan::Plan;
use crate::simulation::ports::{PortLeases, PortLog, PortQueues, PortSignals, Seat};
use crate::simulation::process::Process;
use crate::simulation::stores::Place;
use crate::simulation::world::{World, lock, trail};

/// Seed of workers that have one id.
const ONE_ID: u64 = 1;

/// One running worker. Dropping it is a crash.
struct Running {
    process: Arc<Process>,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

struct State {
    rng: ChaCha8Rng,
    workers: Vec<Option<Running>>,
    counters: Vec<Arc<Counters>>,
}

/// See the module.
pub struct Owners {
    world: Arc<World>,
    plan: Arc<Plan>,
    state: Mutex<State>,
}

impl Owners {
    /// No worker runs yet.
    pub fn new(world: Arc<World>, plan: Arc<Plan>) -> Self {
        let workers = (0..plan.owners).map(|_| None).collect();
        let state = State { rng: plan.rng(2), workers, counters: Vec::new() };
        Self { world, plan, state: Mutex::new(state) }
    }

    /// Starts the worker in this place unless it runs.
    pub fn start(&self, place: usize) {
        let mut state = lock(&self.state);
        if state.workers[place].as_ref().is_some_and(|worker| !worker.task.is_finished()) {
            return;
        }
        let process = Arc::new(Process::new(format!("owner-{}", state.counters.len() + 1)));
        self.world.say(format_args!("{} starts", process.name()));
        let seat = Seat { world: self.world.clone(), process: process.clone() };
        let stores = self.world.stores.ports(Place::Owner(place), self.world.clock);
        let ports = DeliveryPorts {
            log: Arc::new(PortLog { seat: seat.clone(), inner: stores.log }),
            signals: Arc::new(PortSignals { seat: seat.clone(), inner: stores.signals }),
            leases: Arc::new(PortLeases::new(seat.clone(), stores.leases)),
            queues: Arc::new(PortQueues { seat, inner: stores.queues }),
            clock: stores.clock,
            trail: trail(),
        };
        let meter = NoopMeterProvider::new().meter("simulation");
        let config = self.plan.delivery.clone();
        let worker = Delivery::new(
            ports,
            self.world.shards,
            config,
            &meter,
            if self.plan.one_id { ONE_ID } else { state.rng.random() },
        );
        state.counters.push(worker.counters());
        let stop = CancellationToken::new();
        let (world, token) = (self.world.clone(), stop.clone());
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(error) = worker.run(token).await {
                world.judge(Err(format!("a delivery worker ended: {error}")));
            }
        }));
        state.workers[place] = Some(Running { process, stop, task });
    }

    /// Kills the worker in this place.
    pub fn crash(&self, place: usize) {
        if let Some(worker) = lock(&self.state).workers[place].take() {
            self.world.say(format_args!("{} crashes", worker.process.name()));
            worker.process.kill();
        }
    }

    /// Asks the worker in this place to release what it owns.
    pub fn release(&self, place: usize) {
        if let Some(worker) = &lock(&self.state).workers[place] {
            self.world.say(format_args!("{} is asked to stop", worker.process.name()));
            worker.stop.cancel();
        }
    }

    /// Stops the worker in this place for a while, or lets it go on.
    pub fn pause(&self, place: usize, paused: bool) {
        if let Some(worker) = &lock(&self.state).workers[place] {
            self.world.say(format_args!("{} is paused: {paused}", worker.process.name()));
            if paused { worker.process.pause() } else { worker.process.resume() }
        }
    }

    /// Has the worker in this place believe that it keeps its leases, whatever becomes of them; or no more.
    pub fn deceive(&self, place: usize, deceived: bool) {
        if let Some(worker) = &lock(&self.state).workers[place] {
            self.world.say(format_args!("{} believes in its leases: {deceived}", worker.process.name()));
            worker.process.deceive(deceived);
        }
    }

    /// What all workers counted together, those that are gone included.
    pub fn counted(&self, of: impl Fn(&CounterValues) -> u64) -> u64 {
        lock(&self.state).counters.iter().map(|counters| of(&counters.snapshot())).sum()
    }
}
