// SPDX-License-Identifier: MIT OR Apache-2.0
//! The delivery workers.

use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use opentelemetry::metrics::MeterProvider;
use opentelemetry::metrics::noop::NoopMeterProvider;
use pli_api::Channel;
use pli_delivery::{Beside, CounterValues, Counters, Delivery, DeliveryPorts};
use pli_domain::ShardId;
use pli_edge::{Edge, EdgePorts};
use pli_ports::{Clock, Payloads, ShardLog, Signals};
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
    rosters: Channel,
    state: Mutex<State>,
}

/// The fan-out workers of one process.
struct FanOut {
    edge: Edge,
    payloads: Arc<dyn Payloads>,
}

impl Beside for FanOut {
    fn run(&self, shard: ShardId, stop: CancellationToken) -> BoxFuture<'static, ()> {
        let (edge, payloads) = (self.edge.clone(), self.payloads.clone());
        Box::pin(async move { edge.fan_out(shard, payloads, stop).await })
    }
}

impl Owners {
    /// No worker runs yet.
    pub fn new(world: Arc<World>, plan: Arc<Plan>, rosters: Channel) -> Self {
        let workers = (0..plan.owners).map(|_| None).collect();
        let state = State { rng: plan.rng(2), workers, counters: Vec::new() };
        Self { world, plan, rosters, state: Mutex::new(state) }
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
        let log: Arc<dyn ShardLog> = Arc::new(PortLog { seat: seat.clone(), inner: stores.log });
        let signals: Arc<dyn Signals> = Arc::new(PortSignals { seat: seat.clone(), inner: stores.signals });
        let edge = self.edge((log.clone(), signals.clone(), stores.clock.clone()), state.rng.random());
        let fan_out = FanOut { edge: edge.clone(), payloads: stores.payloads };
        let ports = DeliveryPorts {
            log,
            signals,
            leases: Arc::new(PortLeases::new(seat.clone(), stores.leases)),
            queues: Arc::new(PortQueues { seat, inner: stores.queues }),
            clock: stores.clock,
            trail: trail(),
            beside: Some(Arc::new(fan_out)),
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
        let (edge_stop, hearing) = (stop.clone(), edge.clone());
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            let hearing = AbortOnDropHandle::new(tokio::spawn(async move { hearing.run(edge_stop).await }));
            if let Err(error) = worker.run(token).await {
                world.judge(Err(format!("a delivery worker ended: {error}")));
            }
            drop(hearing);
        }));
        state.workers[place] = Some(Running { process, stop, task });
    }

    /// What the fan-out workers are sessions of.
    fn edge(&self, (log, signals, clock): (Arc<dyn ShardLog>, Arc<dyn Signals>, Arc<dyn Clock>), seed: u64) -> Edge {
        let ports = EdgePorts {
            registration: "open",
            history: None,
            log,
            signals,
            clock,
            directory: self.rosters.clone(),
            conversations: self.rosters.clone(),
            links: self.rosters.clone(),
            media: self.rosters.clone(),
            trail: trail(),
        };
        let meter = NoopMeterProvider::new().meter("simulation");
        let mut config =
            pli_edge::Config { owner_request_ms: 500, drain_ms: 500, drain_session_ms: 500, ..Default::default() };
        config.append.try_ms = 1_000;
        (config.session.recheck_min_ms, config.session.recheck_max_ms) = (5_000, 15_000);
        config.fan_out.window = self.plan.fan_out_window;
        Edge::new(ports, self.world.shards, config, &meter, seed)
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
