// SPDX-License-Identifier: MIT OR Apache-2.0
//! A small stand-in for the owners of all shards: follows the logs, keeps queues in memory, rings, answers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use pli_api::delivery::{
    Delivery, DeviceRemoved, Displace, Doorbell, EdgeSignal, GapRange, NotReady, Notice, OwnerReply, OwnerRequest,
    Page, QueryReceipts, ReadPage, ReceiptVerdicts, Registered, RepeatAnnouncements, Verdict, edge_signal, owner_reply,
    owner_request,
};
use pli_api::log::Entry;
use pli_domain::{DeviceId, EdgeId, LogEpoch, Position, Seq, SessionId, ShardId, ShardMap};
use pli_ports::{ShardLog, SignalEvent, Signals, Subject};
use pli_testkit::memory::MemoryWorld;
use prost::Message;

#[derive(Default)]
pub struct Queue {
    pub all: Vec<(Position, Bytes)>,
    pub cursor: Position0,
    pub floor: Position0,
    sessions: BTreeMap<SessionId, EdgeId>,
}

/// A position that defaults to zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Position0(pub Position);
impl Default for Position0 {
    fn default() -> Self {
        Self(Position::ZERO)
    }
}

#[derive(Default)]
pub struct State {
    pub queues: BTreeMap<DeviceId, Queue>,
    /// Per shard: the newest position read, entries with their origin, and the last checkpoint.
    heads: BTreeMap<ShardId, Position>,
    entries: BTreeMap<ShardId, Vec<(Seq, Bytes, Bytes)>>,
    checkpoints: BTreeMap<ShardId, Position>,
    /// What was asked, newest last.
    pub asked: Vec<&'static str>,
    pub acks: Vec<(DeviceId, u64)>,
    pub withdrawn: usize,
    pub registered: usize,
    /// Announcements and questions about receipts are answered with "not ready" while this is above zero.
    pub not_ready: usize,
    /// Doorbells are not sent.
    pub silent: bool,
    /// Pages of more rows are never answered, as by a database that takes too long.
    pub rows_in_time: Option<u32>,
    /// Doorbells carry no predecessor.
    pub unknown_previous: bool,
    /// Notices say that too much waits to be spread.
    pub fan_out_full: bool,
}

impl Queue {
    /// Who receives it.
    pub fn sessions(&self) -> Vec<(SessionId, EdgeId)> {
        self.sessions.iter().map(|(session, edge)| (*session, *edge)).collect()
    }
}

impl State {
    fn page(&mut self, shard: ShardId, read: &ReadPage) -> owner_reply::Reply {
        self.asked.push("read");
        let head = self.heads.get(&shard).copied().unwrap_or(Position::ZERO);
        let queue = self.queues.entry(DeviceId::try_from(read.device.as_ref()).unwrap()).or_default();
        let after = Position::from_u64(read.after).unwrap().max(queue.floor.0);
        let rows = queue.all.iter().filter(|(position, _)| *position > after);
        let rows: Vec<_> = rows.cloned().collect();
        let at_head = rows.len() <= read.rows_max as usize;
        let page = &rows[..rows.len().min(read.rows_max as usize)];
        let next = if at_head { head.max(after) } else { page.last().unwrap().0 };
        let gap = (queue.floor.0.get() > read.after).then(|| GapRange { from: read.after, to: queue.floor.0.get() });
        owner_reply::Reply::Page(Page {
            deliveries: page
                .iter()
                .map(|(position, envelope)| Delivery { position: position.get(), envelope: envelope.clone() })
                .collect(),
            next: next.get(),
            at_head,
            gaps: gap.into_iter().collect(),
        })
    }

    fn verdicts(&mut self, shard: ShardId, query: &QueryReceipts) -> owner_reply::Reply {
        self.asked.push("receipts");
        let checkpoint = self.checkpoints.get(&shard).copied().unwrap_or(Position::ZERO);
        let known = self.entries.entry(shard).or_default();
        let verdict = |part: &pli_api::delivery::ReceiptPart| {
            let found = known.iter().any(|(seq, id, _)| seq.get() == part.seq && *id == part.entry);
            match (found, part.seq <= checkpoint.seq().get()) {
                (false, _) => Verdict::Resend,
                (true, true) => Verdict::Stored,
                (true, false) => Verdict::Wait,
            }
        };
        let verdicts = query.parts.iter().map(|part| verdict(part).into()).collect();
        owner_reply::Reply::Verdicts(ReceiptVerdicts { verdicts, log_epoch: 1 })
    }
}

#[derive(Clone)]
pub struct Owners {
    pub state: Arc<Mutex<State>>,
    signals: Arc<dyn Signals>,
    shards: ShardMap,
}

fn epoch() -> LogEpoch {
    LogEpoch::new(1).unwrap()
}

impl Owners {
    pub async fn start(world: &MemoryWorld, shards: ShardMap) -> Self {
        let this = Self { state: Arc::default(), signals: Arc::new(world.signals()), shards };
        for shard in shards.shards() {
            let mut requests = this.signals.subscribe(&Subject::owner(shard)).await.unwrap();
            let owner = this.clone();
            tokio::spawn(async move {
                while let Some(event) = requests.next().await {
                    if let SignalEvent::Signal(signal) = event {
                        let reply = owner.answer(shard, signal.payload).await;
                        if let (Some(respond), Some(reply)) = (signal.respond, reply) {
                            respond.respond(OwnerReply { reply: Some(reply) }.encode_to_vec().into()).await;
                        }
                    }
                }
            });
            let mut reader = world.log().reader(shard, Seq::ZERO.next()).await.unwrap();
            let owner = this.clone();
            tokio::spawn(async move {
                while let Ok(entries) = reader.next(1 << 20).await {
                    for entry in entries {
                        let id = Bytes::copy_from_slice(entry.id.as_bytes());
                        owner.follow(shard, entry.seq, id, entry.bytes).await;
                    }
                }
            });
        }
        this
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn follow(&self, shard: ShardId, seq: Seq, id: Bytes, bytes: Bytes) {
        let entry = Entry::decode(bytes).unwrap();
        let mut bells: Vec<(EdgeId, Doorbell)> = Vec::new();
        {
            let mut state = self.lock();
            state.entries.entry(shard).or_default().push((seq, id, entry.origin));
            state.heads.insert(shard, Position::end_of(epoch(), seq));
            let (silent, unknown) = (state.silent, state.unknown_previous);
            for (index, item) in entry.items.into_iter().enumerate() {
                let position = Position::new(epoch(), seq, index as u16);
                for device in &item.devices {
                    let device = DeviceId::try_from(device.as_ref()).unwrap();
                    let queue = state.queues.entry(device).or_default();
                    let previous = queue.all.last().map_or(Position::ZERO, |last| last.0);
                    queue.all.push((position, item.envelope.clone()));
                    for (session, edge) in queue.sessions.iter().filter(|_| !silent) {
                        let prev = (!unknown).then_some(previous.get());
                        bells.push((*edge, bell(*session, device, prev, position, &item.envelope)));
                    }
                }
            }
        }
        for (edge, bell) in bells {
            self.tell(edge, shard, edge_signal::Signal::Doorbell(bell)).await;
        }
    }

    async fn tell(&self, edge: EdgeId, shard: ShardId, signal: edge_signal::Signal) {
        let bytes = EdgeSignal { shard: shard.get().into(), signal: Some(signal) }.encode_to_vec();
        self.signals.publish(&Subject::edge(edge), bytes.into()).await.unwrap();
    }

    /// Settles everything read so far and tells the edges that appended it.
    pub async fn settle(&self) {
        for shard in self.shards.shards() {
            let mut notices: BTreeMap<EdgeId, Notice> = BTreeMap::new();
            {
                let mut state = self.lock();
                let Some(head) = state.heads.get(&shard).copied() else { continue };
                let previous = state.checkpoints.insert(shard, head).unwrap_or(Position::ZERO);
                let state = &*state;
                for (seq, id, origin) in state.entries.get(&shard).into_iter().flatten() {
                    let Ok(edge) = EdgeId::try_from(origin.as_ref()) else { continue };
                    let notice = notices.entry(edge).or_insert_with(|| Notice {
                        previous: previous.get(),
                        checkpoint: head.get(),
                        epoch_first: 1,
                        settled: Vec::new(),
                        fan_out_full: state.fan_out_full,
                    });
                    if Position::end_of(epoch(), *seq) > previous {
                        notice.settled.push(id.clone());
                    }
                }
            }
            for (edge, notice) in notices {
                self.tell(edge, shard, edge_signal::Signal::Notice(notice)).await;
            }
        }
    }

    /// Settles without telling anybody.
    pub fn settle_quietly(&self) {
        let mut state = self.lock();
        let heads = state.heads.clone();
        state.checkpoints.extend(heads);
    }

    pub async fn displace(&self, edge: EdgeId, session: SessionId, removed: bool) {
        let session = Bytes::copy_from_slice(session.as_bytes());
        self.tell(edge, ShardId::new(0), edge_signal::Signal::Displace(Displace { session, removed })).await;
    }

    /// Tells every edge, as the directory does.
    pub async fn removed(&self, device: DeviceId) {
        let signal = edge_signal::Signal::DeviceRemoved(DeviceRemoved { device: device.as_bytes().to_vec().into() });
        let bytes = EdgeSignal { shard: 0, signal: Some(signal) }.encode_to_vec();
        self.signals.publish(&Subject::edges(), bytes.into()).await.unwrap();
    }

    /// Forgets every session, as a new owner does, and asks for announcements.
    pub async fn take_over(&self) {
        self.lock().queues.values_mut().for_each(|queue| queue.sessions.clear());
        for shard in self.shards.shards() {
            let signal = Some(edge_signal::Signal::RepeatAnnouncements(RepeatAnnouncements {}));
            let bytes = EdgeSignal { shard: shard.get().into(), signal }.encode_to_vec();
            self.signals.publish(&Subject::edges(), bytes.into()).await.unwrap();
        }
    }

    async fn answer(&self, shard: ShardId, payload: Bytes) -> Option<owner_reply::Reply> {
        let request = OwnerRequest::decode(payload).unwrap().request.unwrap();
        let mut state = self.lock();
        match request {
            owner_request::Request::Announce(announce) => {
                state.asked.push("announce");
                if state.not_ready > 0 {
                    state.not_ready -= 1;
                    return Some(owner_reply::Reply::NotReady(NotReady { retry_after_ms: 20 }));
                }
                state.registered += 1;
                let head = state.heads.get(&shard).copied().unwrap_or(Position::ZERO);
                let queue = state.queues.entry(DeviceId::try_from(announce.device.as_ref()).unwrap()).or_default();
                let session = SessionId::try_from(announce.session.as_ref()).unwrap();
                queue.sessions.insert(session, EdgeId::try_from(announce.edge.as_ref()).unwrap());
                let ignored = announce.committed > head.get();
                if !ignored {
                    queue.cursor.0 = queue.cursor.0.max(Position::from_u64(announce.committed).unwrap());
                }
                let from = queue.cursor.0;
                Some(owner_reply::Reply::Registered(Registered {
                    from: from.get(),
                    floor: if queue.floor.0 > from { queue.floor.0.get() } else { 0 },
                    mail_waiting: queue.all.iter().any(|(position, _)| *position > from),
                    position_ignored: ignored,
                    log_epoch: 1,
                }))
            }
            owner_request::Request::ReadPage(read) if state.rows_in_time.is_some_and(|most| read.rows_max > most) => {
                None
            }
            owner_request::Request::ReadPage(read) => Some(state.page(shard, &read)),
            owner_request::Request::QueryReceipts(_) if state.not_ready > 0 => {
                state.not_ready -= 1;
                Some(owner_reply::Reply::NotReady(NotReady { retry_after_ms: 20 }))
            }
            owner_request::Request::QueryReceipts(query) => Some(state.verdicts(shard, &query)),
            owner_request::Request::Ack(ack) => {
                let device = DeviceId::try_from(ack.device.as_ref()).unwrap();
                state.acks.push((device, ack.position));
                let queue = state.queues.entry(device).or_default();
                queue.cursor.0 = queue.cursor.0.max(Position::from_u64(ack.position).unwrap());
                None
            }
            owner_request::Request::Withdraw(withdraw) => {
                state.withdrawn += 1;
                let device = DeviceId::try_from(withdraw.device.as_ref()).unwrap();
                let session = SessionId::try_from(withdraw.session.as_ref()).unwrap();
                state.queues.entry(device).or_default().sessions.remove(&session);
                None
            }
            owner_request::Request::RemoveDevice(_) => None,
        }
    }
}

fn bell(session: SessionId, device: DeviceId, prev: Option<u64>, position: Position, envelope: &Bytes) -> Doorbell {
    Doorbell {
        session: Bytes::copy_from_slice(session.as_bytes()),
        device: Bytes::copy_from_slice(device.as_bytes()),
        prev,
        position: position.get(),
        envelope: envelope.clone(),
    }
}
