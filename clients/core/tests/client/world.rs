// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices with a store each, a server, and a clock that moves when nothing else does.

use std::collections::{BTreeMap, VecDeque};

use pli_api::edge;
use pli_client_core::mls::Suite;
use pli_client_core::{Command, Core, Effects, Event, MessageRow, Outcome, RowKind, SessionAdvice, Table};
use pli_domain::{ConversationId, DeviceAddress, Handle, UnixMillis};
use prost::Message as _;

use crate::server::{Connection, Server};

pub fn handle(name: &str) -> Handle {
    name.parse().unwrap()
}

/// Where a step of a device is cut off by a kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kill {
    BeforeCommit,
    AfterCommit,
}

/// What a device has stored.
pub type Rows = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

pub struct Device {
    pub name: String,
    pub core: Core,
    pub rows: Rows,
    pub events: Vec<Event>,
    /// The rows as they were after each step, where a fault is planted that keeps what is to be gone.
    pub hoard: Option<Vec<Rows>>,
    connection: Option<Connection>,
    caught_up: bool,
    to_server: VecDeque<edge::ClientFrame>,
    to_client: VecDeque<edge::ServerFrame>,
    connect_at: Option<u64>,
    pub offline: bool,
    /// Why it was told to stop; a test that expects it looks.
    pub stopped: Option<pli_api::ErrorCode>,
    pub may_stop: bool,
    pub steps: usize,
    /// Cut this step off.
    pub kill_at: Option<(usize, Kill)>,
    /// Steps that were cut off.
    pub kills: usize,
    seeds: u8,
}

pub struct World {
    pub server: Server,
    pub devices: Vec<Device>,
    pub now: u64,
    /// When something moved last that is no idle talk.
    stirred_at: u64,
    /// Calls since then that are made again and again.
    idle_calls: usize,
    seed: u8,
    /// Of devices that are new.
    pub suite: Suite,
}

impl World {
    /// A world with these people, registered and online.
    pub fn new(names: &[&str]) -> Self {
        Self::seeded(names, 0)
    }

    /// The same with other ids and keys for every seed.
    pub fn seeded(names: &[&str], seed: u8) -> Self {
        Self::with(names, seed, Suite::default())
    }

    /// The same with another suite.
    pub fn with(names: &[&str], seed: u8, suite: Suite) -> Self {
        let mut world = Self {
            server: Server::default(),
            devices: Vec::new(),
            now: 1_000_000,
            stirred_at: 0,
            idle_calls: 0,
            seed,
            suite,
        };
        world.server.settle = true;
        world.server.suites = Suite::ALL.to_vec();
        for name in names {
            world.join(name);
        }
        world.run();
        world
    }

    pub fn join(&mut self, name: &str) -> usize {
        let n = u8::try_from(self.devices.len()).unwrap();
        let (core, changes) =
            Core::create_with(handle(name), self.suite, [(n + 1).wrapping_add(self.seed); 32], UnixMillis(self.now));
        self.enter(name, core, changes.0, Some(self.now))
    }

    /// Another device of the account of device `n`, which is named in its list and connects when it is. Answers which.
    pub fn link(&mut self, n: usize, name: &str) -> usize {
        let linked = self.prepare(n, name);
        self.name_in_list(n, linked);
        self.run();
        self.bring_online(linked);
        self.run();
        // Whoever brings it in has tried before it published anything, and tries again within a minute.
        self.now += 60_000;
        self.run();
        linked
    }

    /// Another device of the account of device `n`, in no list yet and away.
    pub fn prepare(&mut self, n: usize, name: &str) -> usize {
        let first = &self.devices[n].core;
        let of = (first.address().account, first.handle().clone(), first.identity_key(), first.suite());
        let seed = [(u8::try_from(self.devices.len()).unwrap() + 101).wrapping_add(self.seed); 32];
        let (core, changes) = Core::companion(of, seed, UnixMillis(self.now)).unwrap();
        let linked = self.enter(name, core, changes.0, None);
        self.devices[linked].offline = true;
        linked
    }

    /// Device `n` puts another one into the list of its account.
    pub fn name_in_list(&mut self, n: usize, linked: usize) {
        let other = &self.devices[linked];
        let (device, key, name) = (other.core.address().device, other.core.device_key(), other.name.clone());
        self.command(n, Command::AddDevice { device, key, name });
    }

    /// Device `n` leaves another one out of the list of its account, which is told to stop.
    pub fn unlink(&mut self, n: usize, other: usize) {
        self.devices[other].may_stop = true;
        let device = self.address(other).device;
        self.command(n, Command::RemoveDevice { device });
    }

    fn enter(&mut self, name: &str, core: Core, changes: Vec<pli_client_core::Change>, at: Option<u64>) -> usize {
        let mut device = Device {
            name: name.into(),
            core,
            rows: BTreeMap::new(),
            events: Vec::new(),
            hoard: None,
            connection: None,
            caught_up: false,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            connect_at: at,
            offline: false,
            stopped: None,
            may_stop: false,
            steps: 0,
            kill_at: None,
            kills: 0,
            seeds: 0,
        };
        device.commit(changes);
        self.devices.push(device);
        self.devices.len() - 1
    }

    pub fn address(&self, n: usize) -> DeviceAddress {
        self.devices[n].core.address()
    }

    /// Gives a command; with a kill planned for the step, the user repeats it if it was not committed.
    pub fn command(&mut self, n: usize, command: Command) -> Outcome {
        loop {
            let device = &mut self.devices[n];
            let effects = device.core.command(command.clone(), UnixMillis(self.now)).unwrap();
            let outcome = effects.outcome;
            if device.apply(effects, self.now) {
                return outcome;
            }
        }
    }

    /// Gives a command as [`World::command`] does; false where it is refused.
    pub fn try_command(&mut self, n: usize, command: &Command) -> bool {
        loop {
            let device = &mut self.devices[n];
            let Ok(effects) = device.core.command(command.clone(), UnixMillis(self.now)) else { return false };
            if device.apply(effects, self.now) {
                return true;
            }
        }
    }

    /// Gives a command once, which may be refused or cut off.
    pub fn attempt(&mut self, n: usize, command: Command) {
        let device = &mut self.devices[n];
        if let Ok(effects) = device.core.command(command, UnixMillis(self.now)) {
            device.apply(effects, self.now);
        }
    }

    pub fn say(&mut self, n: usize, conversation: ConversationId, text: &str) -> Outcome {
        self.command(n, Command::SendText { conversation, text: text.into() })
    }

    pub fn start(&mut self, n: usize, name: &str) -> ConversationId {
        self.command(n, Command::StartConversation { handle: handle(name) }).conversation.unwrap()
    }

    /// Starts a device that is not registered yet again, with another suite.
    pub fn choose_suite(&mut self, n: usize, suite: Suite) {
        let device = &mut self.devices[n];
        let changes = device.core.choose_suite(suite);
        device.commit(changes.0);
        self.bring_online(n);
    }

    /// Cuts a device off, and keeps it so.
    pub fn take_offline(&mut self, n: usize) {
        self.devices[n].offline = true;
        self.devices[n].drop_connection(self.now);
    }

    /// A connection is lost, and there is a new one at once.
    pub fn drop_and_return(&mut self, n: usize) {
        self.devices[n].drop_connection(self.now);
        self.devices[n].come_back(self.now);
    }

    pub fn bring_online(&mut self, n: usize) {
        self.devices[n].offline = false;
        self.devices[n].connect_at = Some(self.now);
    }

    /// The device's connection tells a gap up to `to` before anything else.
    pub fn gap(&mut self, n: usize, to: u64) {
        self.connect(n);
        let gap = edge::Gap { from: 0, to };
        let frame = edge::ServerFrame { frame: Some(edge::server_frame::Frame::Gap(gap)) };
        self.devices[n].to_client.push_back(frame);
    }

    /// The device's connection says that its key packages are low.
    pub fn key_packages_low(&mut self, n: usize) {
        self.connect(n);
        let low = edge::notice::Notice::KeyPackagesLow(edge::KeyPackagesLow { left: 0 });
        let notice = edge::Notice { notice: Some(low) };
        let frame = edge::ServerFrame { frame: Some(edge::server_frame::Frame::Notice(notice)) };
        self.devices[n].to_client.push_back(frame);
    }

    /// Runs until nothing moves any more, time included; where several talk idly in turn, until nothing else has moved for
    /// five minutes.
    pub fn run(&mut self) {
        (self.stirred_at, self.idle_calls) = (self.now, 0);
        for _ in 0..20_000 {
            let most = IDLE_CALLS_MAX * self.devices.len();
            assert!(self.idle_calls < most, "{} idle calls in five minutes", self.idle_calls);
            if !self.move_frames() && !self.move_time() || self.now > self.stirred_at + 300_000 {
                return;
            }
        }
        panic!("the world does not come to rest");
    }

    /// Moves frames so many times, not time.
    pub fn run_a_little(&mut self, times: usize) {
        for _ in 0..times {
            self.move_frames();
        }
    }

    /// Moves so many times: frames, or time where none moves.
    pub fn run_on(&mut self, times: usize) {
        for _ in 0..times {
            let _ = self.move_frames() || self.move_time();
        }
    }

    fn move_frames(&mut self) -> bool {
        let mut moved = false;
        for n in 0..self.devices.len() {
            moved |= self.connect(n);
            while let Some(frame) = self.devices[n].to_server.pop_front() {
                moved = true;
                match is_idle_talk(&frame) {
                    true => self.idle_calls += usize::from(!is_ping(&frame)),
                    false => (self.stirred_at, self.idle_calls) = (self.now, 0),
                }
                let Some(connection) = self.devices[n].connection.as_mut() else { break };
                let answers = self.server.handle(connection, frame, self.now);
                self.devices[n].to_client.extend(answers);
            }
            let device = &mut self.devices[n];
            if let Some(close) = device.connection.as_ref().and_then(|connection| self.server.closing(connection)) {
                let effects = device.core.frame(close, UnixMillis(self.now));
                device.apply(effects, self.now);
                moved = true;
            }
            if let Some(connection) = device.connection.as_mut() {
                device.to_client.extend(self.server.deliveries(connection, &mut device.caught_up));
            }
            if let Some(frame) = self.devices[n].to_client.pop_front() {
                moved = true;
                use edge::server_frame::Frame::{Pong, Reply};
                if !matches!(frame.frame, Some(Pong(_) | Reply(_))) {
                    self.stirred_at = self.now;
                }
                let effects = self.devices[n].core.frame(frame, UnixMillis(self.now));
                self.devices[n].apply(effects, self.now);
            }
        }
        moved
    }

    fn connect(&mut self, n: usize) -> bool {
        let device = &mut self.devices[n];
        if device.offline || device.connect_at.is_none_or(|at| at > self.now) {
            return false;
        }
        device.connect_at = None;
        let binding = (edge::Binding::TlsExporter, [1u8; 32].as_slice());
        let hello = device.core.handshake(&Server::hello(), "localhost", binding, UnixMillis(self.now)).unwrap();
        let Some(edge::client_frame::Frame::Hello(said)) = &hello.frame else { panic!("not a hello: {hello:?}") };
        // An edge tells clients that are too old by it.
        assert!(said.user_agent.starts_with("pli/"), "{}", said.user_agent);
        let mut connection = Connection::default();
        let answers = self.server.handle(&mut connection, hello, self.now);
        device.connection = Some(connection);
        device.caught_up = false;
        device.to_client = answers.into();
        device.to_server.clear();
        true
    }

    /// To the next deadline, pings left aside: they come for ever.
    fn move_time(&mut self) -> bool {
        let limit = self.now + 15_000;
        let connect = self.devices.iter().filter(|d| !d.offline).filter_map(|d| d.connect_at).min();
        let deadline = self.devices.iter().filter_map(|d| d.core.next_deadline()).map(|at| at.0).min();
        let next = connect.into_iter().chain(deadline).min().filter(|at| *at <= limit);
        let Some(next) = next else { return false };
        self.now = next.max(self.now);
        for device in &mut self.devices {
            if device.core.next_deadline().is_some_and(|at| at.0 <= self.now) {
                let effects = device.core.tick(UnixMillis(self.now));
                device.apply(effects, self.now);
            }
        }
        true
    }

    /// The rows of a chat's history by their place, with the conversation of each.
    pub fn rows(&self, n: usize, id: ConversationId) -> BTreeMap<u64, (ConversationId, MessageRow)> {
        let parts = self.devices[n].core.chat(id);
        let rows = self.devices[n].rows.iter().filter(|((table, _), _)| *table == Table::Messages);
        let rows = rows.filter_map(|((_, key), value)| {
            let (part, order) = key.split_at(16);
            let part = ConversationId::try_from(part).unwrap();
            let order = u64::from_be_bytes(order.try_into().unwrap());
            parts.contains(&part).then(|| (order, (part, MessageRow::decode(value.as_slice()).unwrap())))
        });
        rows.collect()
    }

    /// What a device's history holds of others' messages in a chat, in the order shown.
    pub fn history(&self, n: usize, id: ConversationId) -> Vec<String> {
        let rows = self.rows(n, id).into_values().map(|(_, row)| row);
        let shown = rows.filter(|r| r.kind() != RowKind::Outgoing).map(|r| match r.kind() {
            RowKind::Hole => format!("[{}-{} missing]", r.lane_no, r.hole_to),
            RowKind::Elsewhere => format!("me: {}", r.text),
            _ if r.late => format!("{}: {} (late)", r.handle, r.text),
            _ => format!("{}: {}", r.handle, r.text),
        });
        shown.collect()
    }
}

/// Looks each minute in some conversations are no more than so many for each device; a loop is.
const IDLE_CALLS_MAX: usize = 100;

fn is_ping(frame: &edge::ClientFrame) -> bool {
    matches!(frame.frame, Some(edge::client_frame::Frame::Ping(_)))
}

/// What comes again for ever: pings, and the looks each minute for a device that is in a list and has published nothing.
fn is_idle_talk(frame: &edge::ClientFrame) -> bool {
    use edge::client_frame::Frame::Call;
    match &frame.frame {
        _ if is_ping(frame) => true,
        Some(Call(call)) => ["ClaimKeyPackages", "GetDeviceLists"].iter().any(|method| call.method.ends_with(method)),
        _ => false,
    }
}

impl Device {
    fn commit(&mut self, changes: Vec<pli_client_core::Change>) {
        for change in changes {
            match change.value {
                Some(value) => drop(self.rows.insert((change.table, change.key), value)),
                None => drop(self.rows.remove(&(change.table, change.key))),
            }
        }
        if let Some(hoard) = &mut self.hoard {
            hoard.push(self.rows.clone());
        }
    }

    /// Carries out a step as a driver does. False when the step was cut off before its commit.
    fn apply(&mut self, effects: Effects, now: u64) -> bool {
        self.steps += 1;
        let kill = self.kill_at.filter(|(at, _)| *at == self.steps).map(|(_, kill)| kill);
        self.kills += usize::from(kill.is_some());
        if kill == Some(Kill::BeforeCommit) {
            self.restart(now);
            return false;
        }
        self.commit(effects.changes.0);
        if kill == Some(Kill::AfterCommit) {
            self.restart(now);
            return true;
        }
        if self.connection.is_some() {
            self.to_server.extend(effects.frames);
        }
        self.events.extend(effects.events);
        match effects.session {
            SessionAdvice::Keep => {}
            SessionAdvice::Reconnect { after, .. } => {
                self.connection = None;
                self.to_server.clear();
                self.to_client.clear();
                self.connect_at = Some(now + u64::try_from(after.as_millis()).unwrap());
            }
            SessionAdvice::Stop { why } if self.may_stop => {
                (self.connection, self.connect_at) = (None, None);
                self.to_server.clear();
                self.to_client.clear();
                self.stopped = Some(why.code());
            }
            SessionAdvice::Stop { why } => panic!("{} stops: {why:?}", self.name),
        }
        true
    }

    pub fn drop_connection(&mut self, now: u64) {
        self.connection = None;
        self.to_server.clear();
        self.to_client.clear();
        let effects = self.core.disconnected(UnixMillis(now));
        self.apply(effects, now);
    }

    /// Connects at once.
    pub fn come_back(&mut self, now: u64) {
        self.connect_at = Some(now);
    }

    /// Drops the core and loads it from what was committed.
    pub fn restart(&mut self, now: u64) {
        self.seeds += 1;
        // No two devices draw the same keys.
        let mut seed = [self.seeds; 32];
        seed[..16].copy_from_slice(self.core.address().device.as_bytes());
        let rows = self.rows.iter().map(|((table, key), value)| (*table, key.clone(), value.clone()));
        self.core = Core::load(seed, rows, UnixMillis(now)).unwrap();
        self.connection = None;
        self.to_server.clear();
        self.to_client.clear();
        self.connect_at = Some(now);
    }
}
