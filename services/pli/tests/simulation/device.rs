// SPDX-License-Identifier: MIT OR Apache-2.0
//! A device: the client's outbox and inbox with opaque bodies, a disk, and a connection that comes and goes.

mod frames;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use pli_api::edge::{Ack, ClientFrame, Ping, client_frame};
use pli_client_core::inbox::{Inbox, InboxConfig};
use pli_client_core::outbox::{OutLane, Outbox, OutboxConfig, OutboxEvent, Seal, Sealed};
use pli_domain::{Class, ConversationId, DeviceAddress, Position, SendId, UnixMillis};
use pli_ports::LogFate;
use pli_testkit::history::Event;
use prost::Message;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use tokio::time::{Instant, sleep_until, timeout};

use crate::simulation::disk::Disk;
use crate::simulation::network::{Line, Network};
use crate::simulation::plan::Plan;
use crate::simulation::world::{World, lock};

/// A conversation with everybody in it.
#[derive(Debug, Clone)]
pub struct Talk {
    pub id: ConversationId,
    pub devices: Vec<DeviceAddress>,
}

/// What the run sees of a device.
#[derive(Debug, Default)]
pub struct Status {
    /// Faults are over: send nothing new, stay connected.
    pub calm: AtomicBool,
    /// Messages in the outbox and behind holes.
    pub open: std::sync::atomic::AtomicUsize,
}

/// See the module.
pub struct Device {
    pub world: Arc<World>,
    pub network: Arc<Network>,
    pub plan: Arc<Plan>,
    pub status: Arc<Status>,
    address: DeviceAddress,
    talks: Vec<Talk>,
    rng: ChaCha8Rng,
    disk: Disk,
    outbox: Outbox,
    inbox: Inbox,
    line: Option<Line>,
    /// Lines that the device forgot without closing them.
    half_open: Vec<Line>,
    ready: bool,
    /// The hello named a position that the device has committed.
    honest: bool,
    next_send: Instant,
    next_move: Instant,
    next_ping: Instant,
    ack_at: Option<Instant>,
    /// Highest position acknowledged; lower ones follow a restored backup.
    acked: Position,
}

/// What wakes a device.
enum Woken {
    Frame(Option<Bytes>),
    Time,
}

impl Device {
    /// A device that has never been connected.
    pub fn new(
        (world, network, plan): (Arc<World>, Arc<Network>, Arc<Plan>),
        address: DeviceAddress,
        talks: Vec<Talk>,
        rng: ChaCha8Rng,
    ) -> Self {
        let disk = Disk::new();
        let (outbox, inbox) = (disk.outbox(outbox_config(&plan)), disk.inbox(InboxConfig::default()));
        let now = Instant::now();
        Self {
            world,
            network,
            plan,
            status: Arc::default(),
            address,
            talks,
            rng,
            disk,
            outbox,
            inbox,
            line: None,
            half_open: Vec::new(),
            ready: false,
            honest: true,
            next_send: now,
            next_move: now,
            next_ping: now,
            ack_at: None,
            acked: Position::ZERO,
        }
    }

    /// Lives for ever.
    pub async fn run(mut self) {
        loop {
            self.act().await;
            self.status.open.store(self.outbox.len() + self.inbox.held(), Ordering::Relaxed);
            match self.wait().await {
                Woken::Frame(Some(frame)) => self.on_frame(frame),
                Woken::Frame(None) => self.disconnect("the edge closed"),
                Woken::Time => {}
            }
        }
    }

    async fn wait(&mut self) -> Woken {
        let until = self.deadline();
        let line = &mut self.line;
        let frame = async {
            match line {
                Some(line) => line.from.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            frame = frame => Woken::Frame(frame),
            () = sleep_until(until) => Woken::Time,
        }
    }

    fn deadline(&self) -> Instant {
        let now = self.world.now();
        let instant = |at: UnixMillis| Instant::now() + at.since(now);
        let core = [self.outbox.next_deadline(), self.inbox.next_deadline()].into_iter().flatten().map(instant);
        let own = [Some(self.next_move), Some(self.next_ping), self.ack_at, (!self.calm()).then_some(self.next_send)];
        // A deadline that has passed is looked at again a little later rather than at once: no busy loop.
        let soon = Instant::now() + Duration::from_millis(1);
        core.chain(own.into_iter().flatten()).min().map_or(soon, |at| at.max(soon))
    }

    fn calm(&self) -> bool {
        self.status.calm.load(Ordering::Relaxed)
    }

    fn some(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.rng.random_range(0.05..1.0))
    }

    /// Everything that is due.
    async fn act(&mut self) {
        let now = Instant::now();
        if self.next_send <= now && !self.calm() {
            self.next_send = now + self.some(self.plan.send_every);
            self.push();
        }
        if self.next_move <= now {
            self.next_move = now + self.some(self.plan.stay);
            self.move_on();
        }
        let shown = self.inbox.tick(self.world.now());
        self.show(shown);
        self.poll().await;
        if self.ack_at.is_some_and(|at| at <= now) {
            self.ack_at = None;
            self.ack().await;
        }
        if self.next_ping <= now {
            self.next_ping = now + Duration::from_secs(20);
            self.send(client_frame::Frame::Ping(Ping { id: 1 })).await;
        }
    }

    /// Types a message.
    fn push(&mut self) {
        let talk = self.talks[self.rng.random_range(0..self.talks.len())].clone();
        let class = if self.rng.random_bool(0.8) { Class::Message } else { Class::Tick };
        let lane = OutLane { conversation: talk.id, class };
        let send_id = SendId::from_bytes(self.rng.random());
        let pad = if self.rng.random_bool(0.05) { 3_000 } else { self.plan.body_bytes };
        let Ok(lane_no) = self.outbox.push(send_id, lane, vec![7; pad].into()) else { return };
        self.commit();
        let recipients = talk.devices.iter().filter(|d| **d != self.address).map(|d| d.device.to_string()).collect();
        let (sender, send_id) = (self.name(), send_id.to_string());
        let lane = self.lane_text(lane);
        self.world.say(format_args!("{sender} types {send_id} as {lane_no} of {lane}"));
        self.world.record(Event::Intended { sender, send_id, lane, lane_no, recipients });
    }

    /// Connects, or goes away in one of several ways.
    fn move_on(&mut self) {
        if self.calm() {
            self.next_move = Instant::now() + Duration::from_secs(2);
            self.half_open.clear();
        }
        if self.line.is_none() {
            self.connect();
        } else if !self.calm() {
            match self.rng.random_range(0..10) {
                0..=2 => self.disconnect("it leaves"),
                3..=4 => self.fade(),
                5 => self.crash(),
                6 => {
                    self.fade();
                    self.connect();
                }
                _ => {}
            }
        }
    }

    fn connect(&mut self) {
        if !self.calm() && self.rng.random_bool(0.05) {
            // As after a backup was restored.
            let back = self.rng.random_range(0..3_000);
            let position = self.inbox.position().get().saturating_sub(back);
            self.inbox.follow(Position::from_u64(position).expect("lower"));
            self.commit();
        }
        let mut committed = self.inbox.position();
        if !self.calm() && self.rng.random_bool(0.02) {
            committed = self.lie();
        }
        self.honest = committed <= self.inbox.position();
        self.world.oracle().device(self.address.device).lie = (!self.honest).then_some(committed);
        let choice = self.rng.random_range(0..64);
        self.line = self.network.connect(self.address, committed, choice);
        self.ready = false;
        self.world.say(format_args!("{} connects, committed {committed}: {}", self.name(), self.line.is_some()));
    }

    /// A position that cannot be: above the head, or, where log epochs come and go, in one that never was.
    fn lie(&mut self) -> Position {
        let shard = self.world.shards.shard_of(self.address.account);
        let newest = self.world.oracle().shard(shard).epochs.iter().map(|e| e.epoch.get()).max().unwrap_or(0);
        let epochs = if self.plan.fate == LogFate::OneTransaction { newest.max(1) } else { newest + 2_000 };
        Position::from_u64((epochs << 50) + (1 << 40)).expect("fits")
    }

    fn disconnect(&mut self, why: &str) {
        self.world.say(format_args!("{} is disconnected: {why}", self.name()));
        self.line = None;
        self.gone();
    }

    /// The connection is gone, but the edge is not told.
    fn fade(&mut self) {
        self.world.say(format_args!("{} fades", self.name()));
        self.half_open.extend(self.line.take());
        self.gone();
    }

    fn gone(&mut self) {
        self.ready = false;
        self.ack_at = None;
        self.outbox.disconnected();
        self.world.oracle().device(self.address.device).session = None;
        self.next_move = Instant::now() + self.some(Duration::from_secs(2));
    }

    /// What is not on the disk is forgotten.
    fn crash(&mut self) {
        self.disconnect("it crashes");
        self.outbox = self.disk.outbox(outbox_config(&self.plan));
        self.inbox = self.disk.inbox(InboxConfig::default());
    }

    /// One transaction over everything that changed.
    fn commit(&mut self) {
        self.disk.commit(self.outbox.take_changes(), self.inbox.take_changes());
    }

    async fn poll(&mut self) {
        if !self.ready {
            return;
        }
        let out = self.outbox.poll(self.world.now(), |message| {
            let mut body = message.lane_no.to_be_bytes().to_vec();
            body.extend_from_slice(&message.content);
            Seal::Sealed(Sealed { epoch: 1, body: body.into() })
        });
        self.commit();
        for event in out.events {
            self.on_outbox(event);
        }
        for frame in out.frames {
            self.send_frame(frame).await;
        }
    }

    async fn ack(&mut self) {
        let Some(position) = self.inbox.take_ack() else { return };
        self.world.say(format_args!("{} acks {position}", self.name()));
        if position > self.acked {
            self.acked = position;
            self.world.record(Event::Acked { device: self.name(), position: position.get() });
        }
        self.send(client_frame::Frame::Ack(Ack { position: position.get() })).await;
    }

    async fn send(&mut self, frame: client_frame::Frame) {
        if self.ready {
            self.send_frame(ClientFrame { frame: Some(frame) }).await;
        }
    }

    async fn send_frame(&mut self, frame: ClientFrame) {
        let Some(line) = &self.line else { return };
        let sent = timeout(Duration::from_secs(5), line.to.send(frame.encode_to_vec().into())).await;
        if !matches!(sent, Ok(Ok(()))) {
            self.disconnect("the edge does not read");
        }
    }

    fn name(&self) -> String {
        self.address.device.to_string()
    }

    fn lane_text(&self, lane: OutLane) -> String {
        format!("{}/{}/{:?}", self.address.device, lane.conversation, lane.class)
    }

    /// What became of a message of its own.
    fn on_outbox(&mut self, event: OutboxEvent) {
        let sender = self.name();
        let own = self.address.device;
        match event {
            OutboxEvent::Accepted { send_id, .. } => {
                self.world.record(Event::Accepted { sender, send_id: send_id.to_string() });
            }
            OutboxEvent::Stored { send_id, .. } => {
                self.world.say(format_args!("{sender} hears that {send_id} is stored"));
                let verdict = self.world.oracle().stored((own, send_id), self.world.now());
                self.world.judge(verdict);
                self.world.record(Event::Stored { sender, send_id: send_id.to_string() });
            }
            OutboxEvent::Refused { send_id, why, .. } => {
                self.world.say(format_args!("{sender} gives {send_id} up: {why:?}"));
                self.world.record(Event::Refused { sender, send_id: send_id.to_string() });
            }
            OutboxEvent::Resending { send_id, .. } => {
                self.world.say(format_args!("{sender} sends {send_id} again"));
                self.world.rare.resend.one();
            }
            OutboxEvent::Waiting { send_id, why, .. } => {
                self.world.say(format_args!("{sender} waits with {send_id}: {}", why.message));
                *lock(&self.world.waits).entry(format!("{:?}", why.code())).or_default() += 1;
            }
            OutboxEvent::WrongEpoch { lane, .. } => self.outbox.epoch_ready(lane.conversation),
        }
    }
}

fn outbox_config(plan: &Plan) -> OutboxConfig {
    OutboxConfig {
        life: plan.life,
        backoff_max: Duration::from_secs(2),
        receipt_repeat: Duration::from_secs(5),
        ..OutboxConfig::default()
    }
}
