// SPDX-License-Identifier: MIT OR Apache-2.0
//! The edge as a whole: a cheap handle that serves sessions, routes what owners say to them, and drains.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use opentelemetry::metrics::Meter;
use pli_api::edge::{Limits, ServerInfo};
use pli_api::{Channel, ErrorCode, refusal};
use pli_domain::limits::{
    CIPHER_SUITE_POST_QUANTUM, CIPHER_SUITES, ENVELOPE_BODY_BYTES_MAX, EXPIRY_MAX, FRAME_BYTES_MAX,
};
use pli_domain::{DeviceAddress, EdgeId, Position, SessionId, ShardMap};
use pli_ports::{Clock, ShardLog, SignalEvent, Signals, StoreError, Subject};
use pli_runtime::Trail;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::append::{AppendPorts, Appender};
use crate::bodies::Bodies;
use crate::carrier::{Carrier, PeerInfo};
use crate::config::{Config, ms};
use crate::fan_out;
use crate::limits::AddressLimits;
use crate::metrics::Metrics;
use crate::notes::Notes;
use crate::owner::Owners;
use crate::receipts::Receipts;
use crate::registry::Registry;
use crate::retry::{Backoff, Dice};
use crate::roster::Rosters;
use crate::session::hello::{self, DeviceKeys, Who};
use crate::session::inbox::End;
use crate::session::{Session, wire::Wire};

/// Doorbells that wait for their bodies at a time; above it the sessions read.
const BODY_FETCHES_MAX: usize = 1_024;
/// Protocol versions that this edge speaks, ascending.
pub(crate) const VERSIONS: [u32; 1] = [1];

/// What an edge needs of the world.
#[derive(Clone)]
pub struct EdgePorts {
    /// Where messages are appended.
    pub log: Arc<dyn ShardLog>,
    /// The bus to shard owners.
    pub signals: Arc<dyn Signals>,
    /// Server time.
    pub clock: Arc<dyn Clock>,
    /// `pli.directory.v1`.
    pub directory: Channel,
    /// `pli.conversations.v1`.
    pub conversations: Channel,
    /// `pli.links.v1`.
    pub links: Channel,
    /// `pli.media.v1`.
    pub media: Channel,
    /// Who may register, as the directory decides it and server info says it: `open`, `invite` or `oidc`.
    pub registration: &'static str,
    /// The id of the history that began when a backup was restored; none where nothing was restored. A position that a
    /// client names of another one is not believed.
    pub history: Option<[u8; 16]>,
    /// Where hops and spans of messages go.
    pub trail: Trail,
}

impl EdgePorts {
    /// The history as it goes over the wire.
    pub(crate) fn history(&self) -> &[u8] {
        self.history.as_ref().map_or(&[], <[u8; 16]>::as_slice)
    }
}

/// What the sessions of one edge share.
pub(crate) struct Shared {
    pub(crate) id: EdgeId,
    pub(crate) ports: EdgePorts,
    pub(crate) shards: ShardMap,
    pub(crate) config: Config,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) dice: Arc<Dice>,
    pub(crate) owners: Owners,
    pub(crate) registry: Registry,
    pub(crate) receipts: Arc<Receipts>,
    pub(crate) appender: Appender,
    pub(crate) rosters: Rosters,
    pub(crate) bodies: Bodies,
    pub(crate) fan_out_room: fan_out::Room,
    /// Doorbells that may wait for their body.
    pub(crate) body_fetches: Arc<Semaphore>,
    pub(crate) keys: DeviceKeys,
    pub(crate) limits: AddressLimits,
    /// Connections that may still be opened, over all carriers.
    pub(crate) room: Arc<Semaphore>,
    /// UDP port of sessions over QUIC; 0 where there is none.
    pub(crate) quic_port: AtomicU16,
    /// The nonce of every handshake, where a test gave one; none in a release, where each is drawn.
    pub(crate) nonce: Option<[u8; 32]>,
}

/// A handle to one edge; clones are the same edge. A restarted edge is a new one.
#[derive(Clone)]
pub struct Edge {
    shared: Arc<Shared>,
}

impl Edge {
    /// An edge with ids and jitter drawn from `seed`. Serves sessions at once; [`Edge::run`] must run for them to hear
    /// of new mail.
    pub fn new(ports: EdgePorts, shards: ShardMap, config: Config, meter: &Meter, seed: u64) -> Self {
        let dice = Arc::new(Dice::new(seed));
        let id = EdgeId::from_bytes(dice.id());
        let metrics = Arc::new(Metrics::new(meter, Notes::new(ports.trail.clone(), ports.clock.clone(), id)));
        let owners = Owners::new(ports.signals.clone(), ms(config.owner_request_ms));
        let (max, to_owners) = (config.open_receipts_max, owners.clone());
        let receipts = Arc::new(Receipts::new(&shards, max, to_owners, metrics.clone(), dice.clone()));
        let append = AppendPorts {
            log: ports.log.clone(),
            receipts: receipts.clone(),
            metrics: metrics.clone(),
            dice: dice.clone(),
            edge: id,
            config: config.append.clone(),
        };
        let call = ms(config.call_ms);
        let believed = ms(config.roster_current_ms);
        let shared = Shared {
            id,
            rosters: Rosters::new(ports.conversations.clone(), config.roster_cache_bytes, believed, call),
            bodies: Bodies::new(ports.conversations.clone(), config.bodies_cache_bytes, ms(config.owner_request_ms)),
            fan_out_room: fan_out::Room::new(config.fan_out.body_bytes, max),
            body_fetches: Arc::new(Semaphore::new(BODY_FETCHES_MAX)),
            keys: DeviceKeys::new(ports.directory.clone(), config.device_keys_max, ms(config.device_key_ms), call),
            appender: Appender::new(&shards, append),
            limits: AddressLimits::new(&config.limits),
            room: Arc::new(Semaphore::new(config.limits.edge_connections_max)),
            quic_port: AtomicU16::new(0),
            nonce: None,
            registry: Registry::default(),
            ports,
            shards,
            config,
            metrics,
            dice,
            owners,
            receipts,
        };
        Self { shared: Arc::new(shared) }
    }

    /// The same edge with this nonce in every handshake, so that a recorded one can be replayed. Whoever has heard such a
    /// handshake can repeat it: this is there with the feature `fuzzing` only, which no release is built with.
    ///
    /// # Panics
    /// When the edge has a clone already.
    #[cfg(feature = "fuzzing")]
    #[must_use]
    pub fn with_nonce(mut self, nonce: [u8; 32]) -> Self {
        Arc::get_mut(&mut self.shared).expect("an edge that nobody else holds yet").nonce = Some(nonce);
        self
    }

    /// This edge's id, drawn at its start.
    pub fn id(&self) -> EdgeId {
        self.shared.id
    }

    /// Open sessions.
    pub fn sessions(&self) -> usize {
        self.shared.registry.len()
    }

    /// Whether the edge goes down and takes no new sessions.
    pub fn is_draining(&self) -> bool {
        self.shared.registry.is_draining()
    }

    /// What server info says.
    pub fn info(&self) -> ServerInfo {
        self.shared.info()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Serves one connection until it ends: hello, authentication, session.
    pub async fn serve(&self, carrier: Box<dyn Carrier>, peer: PeerInfo) {
        let mut wire = Wire::new(carrier);
        // Boxed, so that the handshake's state is freed when the session begins.
        let greeted = Box::pin(hello::greet(&self.shared, &mut wire, &peer)).await;
        match greeted {
            Ok(greeted) => self.session(wire, greeted).await,
            Err(hello::Refused { error, reconnect }) => {
                self.shared.metrics.closed(error.code());
                Box::pin(wire.close(error, reconnect)).await;
            }
        }
    }

    /// Serves a session of a device whose authentication is taken for granted: for the simulation and for tests.
    pub async fn serve_authenticated(&self, carrier: Box<dyn Carrier>, device: DeviceAddress, committed: Position) {
        let who = Who { device: Some(device), address: None, committed, other_history: false };
        self.session(Wire::new(carrier), hello::Greeted { who, key_packages: None }).await;
    }

    /// What lives as long as the session is boxed apart from what lives only while it begins or ends.
    async fn session(&self, wire: Wire, greeted: hello::Greeted) {
        let id = SessionId::from_bytes(self.shared.dice.id());
        let session = Box::new(Session::new(self.shared.clone(), id, greeted));
        let (registered, inbox) = (session.registration(), session.inbox().clone());
        if !self.shared.registry.enter(id, registered, &inbox) {
            let error = refusal(ErrorCode::Draining, "the server is going down").retry_after(1_000);
            Box::pin(wire.close(error, true)).await;
            return;
        }
        if registered.is_some_and(|(device, _)| self.shared.keys.is_removed(device)) {
            // Removed between the judgement of its hello and now.
            inbox.leave(|mail| mail.end = Some(End::Removed));
        }
        let carrier = wire.carrier();
        self.shared.metrics.session(carrier, 1);
        Box::pin(session.run(wire)).await;
        self.shared.registry.leave(id);
        self.shared.metrics.session(carrier, -1);
    }

    /// Routes signals to sessions until `stop`, then drains: sessions are told to go in waves, finish what is open and
    /// end. Returns when the last one has ended, at the latest `drain_ms` + `drain_session_ms` + 3 s after `stop`.
    /// Errors when the bus cannot be subscribed to within a few tries.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), StoreError> {
        let mut own = self.subscribe(&Subject::edge(self.shared.id)).await?;
        let mut all = self.subscribe(&Subject::edges()).await?;
        let drained = self.clone().drained(stop);
        tokio::pin!(drained);
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        let mut seconds = 0u64;
        loop {
            tokio::select! {
                biased;
                event = own.next() => self.hear(event)?,
                event = all.next() => self.hear(event)?,
                _ = tick.tick() => {
                    self.shared.receipts.tick();
                    seconds += 1;
                    if seconds.is_multiple_of(60) || self.shared.limits.is_full() {
                        self.shared.limits.trim();
                    }
                }
                () = &mut drained => return Ok(()),
            }
        }
    }

    async fn subscribe(&self, subject: &Subject) -> Result<Box<dyn pli_ports::Subscription>, StoreError> {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        loop {
            match self.shared.ports.signals.subscribe(subject).await {
                Ok(subscription) => return Ok(subscription),
                Err(error) => {
                    let wait = backoff.next(&self.shared.dice, None);
                    if backoff.tries() >= 10 {
                        return Err(error);
                    }
                    tracing::warn!(%subject, error = &error as &dyn std::error::Error, "cannot subscribe yet");
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    fn hear(&self, event: Option<SignalEvent>) -> Result<(), StoreError> {
        match event {
            Some(SignalEvent::Signal(signal)) => self.shared.route(signal.payload),
            Some(SignalEvent::Interrupted) => self.shared.interrupted(),
            None => return Err(StoreError::never("subscribe", "the bus was closed")),
        }
        Ok(())
    }

    /// Ends when `stop` came and every session has ended, or the time for it is over.
    async fn drained(self, stop: CancellationToken) {
        stop.cancelled().await;
        let registry = &self.shared.registry;
        registry.drain();
        let config = &self.shared.config;
        let sessions = registry.all(None);
        // At most 1,000 clients a second come back to the other edges.
        let spread = ms(u64::try_from(sessions.len()).unwrap_or(u64::MAX)).max(Duration::from_millis(100));
        let waves = sessions.len().div_ceil(100).clamp(1, 20);
        let pause = ms(config.drain_ms) / u32::try_from(waves).unwrap_or(1);
        for (n, wave) in sessions.chunks(sessions.len().div_ceil(waves).max(1)).enumerate() {
            if n > 0 {
                tokio::time::sleep(pause).await;
            }
            for inbox in wave {
                let after = self.shared.dice.between(Duration::ZERO, spread);
                let after = u32::try_from(after.as_millis()).unwrap_or(u32::MAX);
                inbox.leave(|mail| mail.go_away = Some(after));
            }
        }
        let last = ms(config.drain_session_ms) + Duration::from_secs(3);
        let emptied = tokio::time::timeout(last, registry.empty()).await;
        tracing::info!(left = registry.len(), in_time = emptied.is_ok(), "edge drained");
    }
}

impl Shared {
    pub(crate) fn session_limits(&self) -> Limits {
        let session = &self.config.session;
        let fits = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Limits {
            frame_bytes_max: fits(FRAME_BYTES_MAX),
            envelope_bytes_max: fits(ENVELOPE_BODY_BYTES_MAX),
            send_window: session.send_window,
            delivery_window: session.delivery_window,
            idle_timeout_ms: u32::try_from(session.idle_ms).unwrap_or(u32::MAX),
            expiry_max_ms: u64::try_from(EXPIRY_MAX.as_millis()).unwrap_or(u64::MAX),
            call_window: session.call_window,
        }
    }

    fn cipher_suites(&self) -> Vec<u32> {
        let post_quantum = self.config.post_quantum.then_some(CIPHER_SUITE_POST_QUANTUM);
        CIPHER_SUITES.into_iter().chain(post_quantum).map(u32::from).collect()
    }

    pub(crate) fn info(&self) -> ServerInfo {
        ServerInfo {
            name: self.config.name.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            protocol_versions: VERSIONS.to_vec(),
            client_version_min: self.config.client_version_min.clone(),
            limits: Some(self.session_limits()),
            registration: self.ports.registration.into(),
            cipher_suites: self.cipher_suites(),
            quic_port: self.quic_port.load(Ordering::Relaxed).into(),
        }
    }
}
