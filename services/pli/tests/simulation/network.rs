// SPDX-License-Identifier: MIT OR Apache-2.0
//! The edges and the way to them.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use opentelemetry::metrics::MeterProvider;
use opentelemetry::metrics::noop::NoopMeterProvider;
use pli_api::Channel;
use pli_domain::{DeviceAddress, Position};
use pli_edge::carrier::memory;
use pli_edge::{Config, Edge, EdgePorts};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::simulation::plan::Plan;
use crate::simulation::ports::{PortLog, PortSignals, Seat};
use crate::simulation::process::Process;
use crate::simulation::stores::Place;
use crate::simulation::world::{World, lock, trail};

/// Frames on their way in one direction.
const FRAMES_MAX: usize = 64;

/// A device's end of a connection.
pub struct Line {
    pub to: mpsc::Sender<Bytes>,
    pub from: mpsc::Receiver<Bytes>,
}

/// One running edge. Dropping it is a crash.
struct Running {
    process: Arc<Process>,
    edge: Edge,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

struct State {
    rng: ChaCha8Rng,
    edges: Vec<Option<Running>>,
    started: u32,
}

/// See the module.
pub struct Network {
    world: Arc<World>,
    plan: Arc<Plan>,
    rosters: Channel,
    state: Mutex<State>,
}

impl Network {
    /// A network without edges.
    pub fn new(world: Arc<World>, plan: Arc<Plan>, rosters: Channel) -> Self {
        let edges = (0..plan.edges).map(|_| None).collect();
        let state = State { rng: plan.rng(1), edges, started: 0 };
        Self { world, plan, rosters, state: Mutex::new(state) }
    }

    /// Starts the edge in this place unless it runs.
    pub fn start(&self, place: usize) {
        let mut state = lock(&self.state);
        if state.edges[place].is_some() {
            return;
        }
        state.started += 1;
        let process = Arc::new(Process::new(format!("edge-{}", state.started)));
        self.world.say(format_args!("{} starts", process.name()));
        let seat = Seat { world: self.world.clone(), process: process.clone() };
        let stores = self.world.stores.ports(Place::Edge(place), self.world.clock);
        let ports = EdgePorts {
            registration: "open",
            history: None,
            log: Arc::new(PortLog { seat: seat.clone(), inner: stores.log }),
            signals: Arc::new(PortSignals { seat, inner: stores.signals }),
            clock: stores.clock,
            directory: self.rosters.clone(),
            conversations: self.rosters.clone(),
            links: self.rosters.clone(),
            media: self.rosters.clone(),
            trail: trail(),
        };
        let meter = NoopMeterProvider::new().meter("simulation");
        let edge = Edge::new(ports, self.world.shards, self.config(&mut state.rng), &meter, state.rng.random());
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let (running, token) = (edge.clone(), stop.clone());
        // A bus that was closed for good ends the edge; its place is taken by a new one with the store's restart.
        tasks.spawn(async move { drop(running.run(token).await) });
        state.edges[place] = Some(Running { process, edge, stop, tasks });
    }

    fn config(&self, rng: &mut ChaCha8Rng) -> Config {
        let mut config = Config::default();
        config.session.delivery_window = [2, 8, 256][rng.random_range(0..3)];
        config.session.page_rows = [2, 256][rng.random_range(0..2)];
        if rng.random_bool(0.7) {
            (config.session.recheck_min_ms, config.session.recheck_max_ms) = (10_000, 30_000);
        }
        if let Some(most) = self.plan.recheck {
            let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
            (config.session.recheck_min_ms, config.session.recheck_max_ms) = (most / 2, most);
        } else {
            // Models answer at once or not at all.
            config.owner_request_ms = 500;
        }
        config.append.try_ms = 1_000;
        config.session.ready_wait_ms = 1_000;
        config.drain_ms = 500;
        config.drain_session_ms = 500;
        config
    }

    /// Kills the edge in this place; its connections break.
    pub fn crash(&self, place: usize) {
        let mut state = lock(&self.state);
        if let Some(running) = state.edges[place].take() {
            self.world.say(format_args!("{} crashes", running.process.name()));
            running.process.kill();
        }
    }

    /// Asks the edge in this place to go down.
    pub fn drain(&self, place: usize) {
        let state = lock(&self.state);
        if let Some(running) = &state.edges[place] {
            self.world.say(format_args!("{} drains", running.process.name()));
            running.stop.cancel();
        }
    }

    /// Stops the edge in this place for a while, or lets it go on.
    pub fn pause(&self, place: usize, paused: bool) {
        let state = lock(&self.state);
        if let Some(running) = &state.edges[place] {
            self.world.say(format_args!("{} is paused: {paused}", running.process.name()));
            if paused { running.process.pause() } else { running.process.resume() }
        }
    }

    /// Connects to one of the edges; none when it is down.
    pub fn connect(&self, device: DeviceAddress, committed: Position, choice: usize) -> Option<Line> {
        let mut state = lock(&self.state);
        let places = state.edges.len();
        let running = state.edges[choice % places].as_mut()?;
        let (carrier, peer) = memory(FRAMES_MAX);
        let edge = running.edge.clone();
        running.tasks.spawn(async move { edge.serve_authenticated(Box::new(carrier), device, committed).await });
        let (to, from) = peer.split();
        Some(Line { to, from })
    }
}
