// SPDX-License-Identifier: MIT OR Apache-2.0
//! One shard, owners that can be killed, and an edge that speaks `pli.delivery.v1`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use opentelemetry::metrics::MeterProvider;
use opentelemetry::metrics::noop::NoopMeterProvider;
use pli_api::delivery::{
    Ack, Announce, EdgeSignal, Notice, OwnerReply, OwnerRequest, Page, QueryReceipts, ReadPage, ReceiptPart,
    Registered, edge_signal, owner_reply, owner_request,
};
use pli_api::log::{Entry, Item};
use pli_delivery::{Config, CounterValues, Counters, DeliveryPorts, Owner, OwnerError};
use pli_domain::{DeviceId, EdgeId, EntryId, EntryRef, Position, SessionId, ShardId, UnixMillis};
use pli_ports::{Clock, LogFate, NewEntry, ShardLog, SignalEvent, Signals, Subject, Subscription};
use pli_runtime::Trail;
use pli_testkit::memory::{MemoryWorld, WorldOptions};
use pli_testkit::time::{RuntimeClock, START};
use prost::Message;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

pub const SHARD: ShardId = ShardId::new(3);
pub const DAY: Duration = Duration::from_secs(24 * 3600);
const DEADLINE: Duration = Duration::from_secs(60);

/// The values of `spill_after` under which behaviour must not differ.
pub const SPILLS: [u64; 3] = [0, 300, 10_000];

pub struct Shard {
    pub world: MemoryWorld,
    pub config: Config,
    pub counters: Arc<Counters>,
    pub clock: Arc<RuntimeClock>,
    ids: AtomicU64,
    origin: Option<EdgeId>,
}

pub struct Running {
    stop: CancellationToken,
    task: JoinHandle<Result<(), OwnerError>>,
}

impl Running {
    pub async fn release(self) {
        self.stop.cancel();
        self.task.await.expect("no panic").expect("a clean end");
    }
    pub async fn crash(self) {
        self.task.abort();
        let _ = self.task.await;
    }
    pub fn ended(&self) -> bool {
        self.task.is_finished()
    }
}

/// The shard's fan-out worker, as if it were a device.
pub const WORKER: u8 = 255;

pub fn device(n: u8) -> DeviceId {
    if n == WORKER { DeviceId::fan_out(SHARD) } else { DeviceId::from_bytes([n; 16]) }
}
pub fn body(n: u64) -> Bytes {
    Bytes::from(format!("envelope {n}"))
}

impl Shard {
    pub fn new(spill_after_ms: u64) -> Self {
        Self::with(spill_after_ms, WorldOptions::default())
    }
    pub fn embedded(spill_after_ms: u64) -> Self {
        Self::with(spill_after_ms, WorldOptions { fate: LogFate::OneTransaction, ..WorldOptions::default() })
    }
    pub fn with(spill_after_ms: u64, options: WorldOptions) -> Self {
        let config = Config {
            spill_after_ms,
            settle_every_ms: 200,
            announce_round_ms: 100,
            store_backoff_max_ms: 500,
            start_backoff_max_ms: 2_000,
            trim_after_ms: 1_000,
            ..Config::default()
        };
        Self {
            world: MemoryWorld::new(options),
            config,
            counters: Arc::default(),
            clock: Arc::new(RuntimeClock::new(START)),
            ids: AtomicU64::new(1),
            origin: Some(EdgeId::from_bytes([0xE; 16])),
        }
    }
    pub fn ports(&self) -> DeliveryPorts {
        DeliveryPorts {
            log: Arc::new(self.world.log()),
            signals: Arc::new(self.world.signals()),
            leases: Arc::new(self.world.leases()),
            queues: Arc::new(self.world.queues()),
            clock: self.clock.clone(),
            trail: Trail::default(),
            beside: None,
        }
    }
    pub fn owner(&self) -> Running {
        self.owner_with(self.ports())
    }
    pub fn owner_with(&self, ports: DeliveryPorts) -> Running {
        let stop = CancellationToken::new();
        let seed = self.ids.load(Ordering::Relaxed);
        let owner = Owner::new(SHARD, ports, Arc::new(self.config.clone()), self.counters.clone(), seed);
        Running { task: tokio::spawn(owner.run(stop.clone())), stop }
    }
    pub fn counts(&self) -> CounterValues {
        self.counters.snapshot()
    }
    pub fn clock_now_after(&self, time: Duration) -> UnixMillis {
        self.clock.now().after(time)
    }
    pub fn in_a_day(&self) -> UnixMillis {
        self.clock.now().after(DAY)
    }
    /// Appends one entry with an item per (devices, body number).
    pub async fn append(&self, items: &[(&[u8], u64)]) -> EntryRef {
        self.append_until(items, self.in_a_day()).await
    }
    pub async fn append_until(&self, items: &[(&[u8], u64)], expires_at: UnixMillis) -> EntryRef {
        let item = |(devices, number): &(&[u8], u64)| Item {
            devices: devices.iter().map(|n| Bytes::copy_from_slice(device(*n).as_bytes())).collect(),
            expires_at_ms: expires_at.0,
            class: 3,
            envelope: body(*number),
        };
        let origin = self.origin.map(|edge| Bytes::copy_from_slice(edge.as_bytes())).unwrap_or_default();
        let entry = Entry { items: items.iter().map(item).collect(), origin };
        self.append_bytes(entry.encode_to_vec().into()).await
    }
    pub async fn append_bytes(&self, bytes: Bytes) -> EntryRef {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.ids.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        let id = EntryId::from_bytes(id);
        loop {
            let entry = NewEntry { shard: SHARD, id, bytes: bytes.clone() };
            if let Some(Ok(appended)) = self.world.log().append(vec![entry]).await.pop() {
                return appended;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
    pub async fn until(&self, what: &str, mut holds: impl FnMut(CounterValues) -> bool) {
        let end = Instant::now() + DEADLINE;
        while !holds(self.counts()) {
            assert!(Instant::now() < end, "never: {what}; {:#?}", self.counts());
            sleep(Duration::from_millis(5)).await;
        }
    }
    pub async fn edge(&self, n: u8) -> Edge {
        let id = EdgeId::from_bytes([n; 16]);
        let signals = Arc::new(self.world.signals());
        let subscription = signals.subscribe(&Subject::edge(id)).await.expect("subscribes");
        Edge { id, signals, subscription }
    }
}

/// An edge; its questions wait until an owner answers.
pub struct Edge {
    pub id: EdgeId,
    signals: Arc<dyn Signals>,
    subscription: Box<dyn Subscription>,
}

/// What a device was given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drained {
    pub shown: Vec<(Position, Bytes)>,
    pub gaps: Vec<(u64, u64)>,
    pub to: u64,
}

impl Drained {
    pub fn bodies(&self) -> Vec<Bytes> {
        self.shown.iter().map(|(_, body)| body.clone()).collect()
    }
}

fn request(request: owner_request::Request) -> Bytes {
    OwnerRequest { shard: u32::from(SHARD.get()), request: Some(request) }.encode_to_vec().into()
}
pub fn session(n: u8) -> SessionId {
    SessionId::from_bytes([n; 16])
}
fn id_bytes(id: &[u8; 16]) -> Bytes {
    Bytes::copy_from_slice(id)
}

impl Edge {
    /// Asks until there is an answer other than "not ready".
    pub async fn ask(&self, asked: owner_request::Request) -> owner_reply::Reply {
        let end = Instant::now() + DEADLINE;
        loop {
            let payload = request(asked.clone());
            let answer = self.signals.request(&Subject::owner(SHARD), payload, Duration::from_secs(2)).await;
            let reply = answer.ok().and_then(|bytes| OwnerReply::decode(bytes).ok()).and_then(|reply| reply.reply);
            match reply {
                Some(owner_reply::Reply::NotReady(_)) | None => {}
                Some(reply) => return reply,
            }
            assert!(Instant::now() < end, "no answer to {asked:?}");
            sleep(Duration::from_millis(100)).await;
        }
    }
    pub async fn announce(&self, of: u8, session_of: u8, committed: u64, first: bool) -> Registered {
        let announce = Announce {
            session: id_bytes(session(session_of).as_bytes()),
            edge: id_bytes(self.id.as_bytes()),
            device: id_bytes(device(of).as_bytes()),
            committed,
            first,
        };
        match self.ask(owner_request::Request::Announce(announce)).await {
            owner_reply::Reply::Registered(registered) => registered,
            other => panic!("not registered: {other:?}"),
        }
    }
    pub async fn page(&self, of: u8, after: u64) -> Page {
        let read = ReadPage {
            device: id_bytes(device(of).as_bytes()),
            after,
            rows_max: 7,
            bytes_max: 0,
            session: id_bytes(session(of).as_bytes()),
        };
        match self.ask(owner_request::Request::ReadPage(read)).await {
            owner_reply::Reply::Page(page) => page,
            other => panic!("no page: {other:?}"),
        }
    }
    /// Reads pages until one ends at the head.
    pub async fn drain(&self, of: u8, from: u64) -> Drained {
        let mut drained = Drained { to: from, ..Drained::default() };
        loop {
            let page = self.page(of, drained.to).await;
            for gap in &page.gaps {
                assert!(gap.to > drained.to, "a gap lies above what was sent: {gap:?} after {}", drained.to);
                drained.gaps.push((gap.from, gap.to));
                drained.to = gap.to;
            }
            for delivery in page.deliveries {
                assert!(delivery.position > drained.to, "positions rise");
                drained.to = delivery.position;
                let position = Position::from_u64(delivery.position).expect("a position");
                drained.shown.push((position, delivery.envelope));
            }
            assert!(page.next >= drained.to, "a page is complete up to at least what it carries");
            drained.to = page.next;
            if page.at_head {
                return drained;
            }
        }
    }
    pub async fn ack(&self, of: u8, position: u64) {
        let ack = Ack { session: id_bytes(session(of).as_bytes()), device: id_bytes(device(of).as_bytes()), position };
        let payload = request(owner_request::Request::Ack(ack));
        self.signals.publish(&Subject::owner(SHARD), payload).await.expect("published");
    }
    pub async fn send(&self, asked: owner_request::Request) {
        self.signals.publish(&Subject::owner(SHARD), request(asked)).await.expect("published");
    }
    pub async fn verdicts(&self, parts: &[(EntryRef, u64)]) -> Vec<i32> {
        let part = |(entry, log_epoch): &(EntryRef, u64)| ReceiptPart {
            shard: u32::from(SHARD.get()),
            seq: entry.seq.get(),
            entry: id_bytes(entry.id.as_bytes()),
            log_epoch: *log_epoch,
        };
        let query = QueryReceipts { parts: parts.iter().map(part).collect() };
        match self.ask(owner_request::Request::QueryReceipts(query)).await {
            owner_reply::Reply::Verdicts(verdicts) => verdicts.verdicts,
            other => panic!("no verdicts: {other:?}"),
        }
    }
    /// The next signal that `pick` takes; others are passed over.
    pub async fn signal<T>(&mut self, pick: impl Fn(edge_signal::Signal) -> Option<T>) -> T {
        let wait = async {
            loop {
                let Some(SignalEvent::Signal(signal)) = self.subscription.next().await else { continue };
                let signal = EdgeSignal::decode(signal.payload).expect("an edge signal").signal.expect("not empty");
                if let Some(picked) = pick(signal) {
                    return picked;
                }
            }
        };
        timeout(DEADLINE, wait).await.expect("the signal comes")
    }
    pub async fn bell(&mut self) -> pli_api::delivery::Doorbell {
        self.signal(|signal| match signal {
            edge_signal::Signal::Doorbells(batch) => batch.doorbells.into_iter().next_back(),
            edge_signal::Signal::Doorbell(bell) => Some(bell),
            _ => None,
        })
        .await
    }
    /// Every doorbell that has arrived.
    pub async fn bells_at_hand(&mut self) -> Vec<pli_api::delivery::Doorbell> {
        let mut bells = Vec::new();
        while let Ok(Some(event)) = timeout(Duration::from_millis(1), self.subscription.next()).await {
            let SignalEvent::Signal(signal) = event else { continue };
            if let Ok(EdgeSignal { signal: Some(edge_signal::Signal::Doorbells(batch)), .. }) =
                EdgeSignal::decode(signal.payload)
            {
                bells.extend(batch.doorbells);
            }
        }
        bells
    }
    pub async fn notice(&mut self) -> Notice {
        self.signal(|signal| match signal {
            edge_signal::Signal::Notice(notice) if !notice.settled.is_empty() => Some(notice),
            _ => None,
        })
        .await
    }
}

pub fn meter() -> opentelemetry::metrics::Meter {
    NoopMeterProvider::new().meter("test")
}
