// SPDX-License-Identifier: MIT OR Apache-2.0
//! Receipts whose end is not known yet, and how it becomes known: by notices of owners, or by asking them.
//!
//! An entry is entered here before it is appended, so that a notice which overtakes the acknowledgement of the append
//! finds it. A notice names the settled entries of this edge. Whatever a notice should have named and did not (it is
//! in the range but missing, or a notice was lost, or a new log epoch began) is asked of the owner, whose verdict is
//! the rule of `pli.delivery.v1`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use pli_api::delivery::{Notice, QueryReceipts, ReceiptPart, Verdict};
use pli_domain::{EntryId, EntryRef, Position, Seq, ShardId, ShardMap};
use prost::Message;
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::owner::Owners;
use crate::retry::{Backoff, Dice};
use crate::ticket::Ticket;

/// Parts asked of an owner in one request.
const PARTS_MAX: usize = 256;
/// An entry about which nothing was heard for so long is asked for: longer than owners repeat notices (60 s).
const SILENCE: Duration = Duration::from_secs(90);
/// First and longest wait between two questions about one entry.
const ASK_FIRST: Duration = Duration::from_millis(500);
const ASK_LATEST: Duration = Duration::from_secs(30);
/// A fan-out worker that is behind gets nothing more for so long, then a little, whose notice tells.
const FAN_OUT_FULL: Duration = Duration::from_secs(5);
/// An accepted send waits at most so long for the log epoch that its receipt names: an owner starts well within it.
const LEARN_MAX: Duration = Duration::from_secs(5);

/// One append that open receipts name.
struct Open {
    /// None while the append is in flight.
    seq: Option<Seq>,
    log_epoch: u64,
    /// Appended by this edge, in whose life a log that is judged by log epochs keeps its epoch.
    ours: bool,
    tickets: Vec<Arc<Ticket>>,
    ask_at: Instant,
    asked: u32,
}

impl Open {
    /// The log epoch to judge it by; `newest` is the newest that the edge heard of.
    fn log_epoch(&self, newest: u64) -> u64 {
        if self.ours && self.log_epoch == 0 { newest } else { self.log_epoch }
    }
}

#[derive(Default)]
struct Shard {
    /// The checkpoint of the last notice.
    at: Option<Position>,
    /// The newest log epoch seen in any position of the shard.
    log_epoch: u64,
    open: BTreeMap<EntryId, Open>,
    asking: bool,
    /// Until then nothing more is sent to its fan-out worker.
    fan_out_full_until: Option<Instant>,
}

/// The open receipts of one edge. Bounded by `open_receipts_max` parts of theirs.
pub(crate) struct Receipts {
    shards: Vec<Mutex<Shard>>,
    /// Held by whoever asks the owner of a shard for its log epoch.
    learning: Vec<tokio::sync::Mutex<()>>,
    count: Arc<AtomicUsize>,
    max: usize,
    owners: Owners,
    metrics: Arc<Metrics>,
    dice: Arc<Dice>,
}

impl Receipts {
    pub(crate) fn new(map: &ShardMap, max: usize, owners: Owners, metrics: Arc<Metrics>, dice: Arc<Dice>) -> Self {
        let shards = map.shards().map(|_| Mutex::default()).collect();
        let learning = map.shards().map(|_| tokio::sync::Mutex::default()).collect();
        Self { shards, learning, count: Arc::default(), max, owners, metrics, dice }
    }

    /// Whether one more receipt may be opened.
    pub(crate) fn has_room(&self) -> bool {
        self.count.load(Ordering::Relaxed) < self.max
    }
    /// Whether one more that a client presents may be opened. They get half of the room, so that clients who present what
    /// they were never given cannot stop anybody's sending.
    pub(crate) fn has_room_to_present(&self) -> bool {
        self.count.load(Ordering::Relaxed) < self.max.div_ceil(2)
    }
    /// How many are open, for those who open and end one.
    pub(crate) fn count(&self) -> &Arc<AtomicUsize> {
        &self.count
    }

    /// An entry is about to be appended for these tickets.
    pub(crate) fn expect(&self, shard: ShardId, id: EntryId, tickets: Vec<Arc<Ticket>>) {
        let mut state = self.lock(shard);
        let log_epoch = state.log_epoch;
        let ask_at = Instant::now() + SILENCE;
        let open = Open { seq: None, log_epoch, ours: true, tickets, ask_at, asked: 0 };
        state.open.insert(id, open);
    }

    /// It is durable; answers the part of a receipt that names it. The log epoch is the one known before the append: a
    /// newer one might not be the one that it was written in.
    pub(crate) fn appended(&self, shard: ShardId, entry: EntryRef) -> ReceiptPart {
        let mut state = self.lock(shard);
        let mut log_epoch = state.log_epoch;
        if let Some(open) = state.open.get_mut(&entry.id) {
            open.seq = Some(entry.seq);
            open.ask_at = Instant::now() + SILENCE;
            log_epoch = open.log_epoch(log_epoch);
        }
        let id = Bytes::copy_from_slice(entry.id.as_bytes());
        ReceiptPart { shard: shard.get().into(), seq: entry.seq.get(), entry: id, log_epoch }
    }

    /// It could not be appended; nobody waits for it.
    pub(crate) fn forget(&self, shard: ShardId, id: EntryId) {
        self.lock(shard).open.remove(&id);
    }

    /// A receipt that a client presents; its parts were checked.
    pub(crate) fn present(&self, part: &Part, ticket: &Arc<Ticket>) {
        let mut state = self.lock(part.shard);
        let now = Instant::now();
        let fresh = || Open {
            seq: Some(part.seq),
            log_epoch: part.log_epoch,
            ours: false,
            tickets: Vec::new(),
            ask_at: now,
            asked: 0,
        };
        let open = state.open.entry(part.id).or_insert_with(fresh);
        open.tickets.push(ticket.clone());
        open.ask_at = open.ask_at.min(now);
    }

    /// How much longer the shard's fan-out worker is to be left alone.
    pub(crate) fn fan_out_full(&self, shard: ShardId) -> Option<Duration> {
        let until = self.lock(shard).fan_out_full_until?;
        Some(until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }

    /// A position of this shard was seen; receipts name the log epoch in its high bits.
    pub(crate) fn saw(&self, shard: ShardId, position: Position) {
        self.saw_log_epoch(shard, position.epoch().get());
    }

    /// The owner named its log epoch.
    pub(crate) fn saw_log_epoch(&self, shard: ShardId, log_epoch: u64) {
        let mut state = self.lock(shard);
        state.log_epoch = state.log_epoch.max(log_epoch);
    }

    /// Asks the owner for the log epoch if none was heard of: a receipt that names none is judged too old to tell, and
    /// its message would come twice. Gives up after [`LEARN_MAX`], which costs no more than that.
    pub(crate) async fn learn_log_epoch(&self, shard: ShardId) {
        if self.lock(shard).log_epoch > 0 {
            return;
        }
        let learn = async {
            let _asking = self.learning[usize::from(shard.get())].lock().await;
            let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
            while self.lock(shard).log_epoch == 0 {
                match self.owners.verdicts(shard, Vec::new()).await {
                    Ok(answer) if answer.log_epoch == 0 => return,
                    Ok(answer) => self.saw_log_epoch(shard, answer.log_epoch),
                    Err(not_now) => tokio::time::sleep(backoff.next(&self.dice, not_now.after)).await,
                }
            }
        };
        if tokio::time::timeout(LEARN_MAX, learn).await.is_err() {
            tracing::warn!(%shard, "no owner named the log epoch in time; the message may come twice");
        }
    }

    /// The checkpoint of a shard moved.
    pub(crate) fn notice(self: &Arc<Self>, shard: ShardId, notice: &Notice) {
        let (Ok(previous), Ok(now_at)) = (Position::from_u64(notice.previous), Position::from_u64(notice.checkpoint))
        else {
            self.metrics.signals_malformed.add(1, &[]);
            return;
        };
        let mut settled = Vec::new();
        {
            let mut state = self.lock(shard);
            let before = state.at.replace(now_at);
            let missed = before.is_some_and(|before| before != previous && before != now_at);
            if missed {
                self.metrics.notices_missed.add(1, &[]);
            }
            state.fan_out_full_until = notice.fan_out_full.then(|| Instant::now() + FAN_OUT_FULL);
            let forked = before.is_some_and(|before| before.epoch() != now_at.epoch());
            state.log_epoch = state.log_epoch.max(now_at.epoch().get());
            for id in notice.settled.iter().filter_map(|id| EntryId::try_from(id.as_ref()).ok()) {
                settled.extend(state.open.remove(&id).into_iter().flat_map(|open| open.tickets));
            }
            let now = Instant::now();
            for open in state.open.values_mut() {
                if open.seq.is_some_and(|seq| forked || seq <= now_at.seq()) {
                    open.ask_at = open.ask_at.min(now);
                }
            }
        }
        for ticket in settled {
            ticket.settled(&self.metrics);
        }
        self.ask(shard);
    }

    /// Asks owners about everything that is due; called once a second.
    pub(crate) fn tick(self: &Arc<Self>) {
        for shard in 0..self.shards.len() {
            self.ask(ShardId::new(u16::try_from(shard).unwrap_or(u16::MAX)));
        }
    }

    /// Asks the owner of `shard` about what is due, one request at a time.
    pub(crate) fn ask(self: &Arc<Self>, shard: ShardId) {
        let Some(parts) = self.due(shard) else { return };
        let this = self.clone();
        tokio::spawn(async move {
            let ids: Vec<EntryId> = parts.iter().filter_map(|p| EntryId::try_from(p.entry.as_ref()).ok()).collect();
            let answer = this.owners.verdicts(shard, parts).await;
            if let Ok(answer) = &answer {
                this.saw_log_epoch(shard, answer.log_epoch);
            }
            let verdicts: Vec<Verdict> = match answer {
                Ok(answer) if answer.verdicts.len() == ids.len() => answer.verdicts().collect(),
                _ => {
                    this.metrics.owner_retries.add(1, &[]);
                    vec![Verdict::Wait; ids.len()]
                }
            };
            this.judged(shard, ids.into_iter().zip(verdicts));
        });
    }

    fn due(&self, shard: ShardId) -> Option<Vec<ReceiptPart>> {
        let mut state = self.lock(shard);
        if state.asking || state.open.is_empty() {
            return None;
        }
        let now = Instant::now();
        state.open.retain(|_, open| !open.tickets.iter().all(|ticket| ticket.is_abandoned()) || open.seq.is_none());
        let newest = state.log_epoch;
        let due = state.open.iter().filter(|(_, open)| open.ask_at <= now);
        let parts: Vec<ReceiptPart> = due
            .filter_map(|(id, open)| {
                let entry = Bytes::copy_from_slice(id.as_bytes());
                let seq = open.seq?.get();
                Some(ReceiptPart { shard: shard.get().into(), seq, entry, log_epoch: open.log_epoch(newest) })
            })
            .take(PARTS_MAX)
            .collect();
        state.asking = !parts.is_empty();
        state.asking.then_some(parts)
    }

    fn judged(&self, shard: ShardId, verdicts: impl Iterator<Item = (EntryId, Verdict)>) {
        let mut ended: Vec<(Open, Verdict)> = Vec::new();
        {
            let mut state = self.lock(shard);
            state.asking = false;
            let now = Instant::now();
            for (id, verdict) in verdicts {
                if matches!(verdict, Verdict::Stored | Verdict::Resend) {
                    ended.extend(state.open.remove(&id).map(|open| (open, verdict)));
                } else if let Some(open) = state.open.get_mut(&id) {
                    let ceiling = ASK_FIRST.saturating_mul(1 << open.asked.min(8)).min(ASK_LATEST);
                    open.asked += 1;
                    open.ask_at = now + self.dice.between(ceiling / 2, ceiling);
                }
            }
        }
        for (open, verdict) in ended {
            for ticket in open.tickets {
                match verdict {
                    Verdict::Stored => ticket.settled(&self.metrics),
                    _ => ticket.lost(&self.metrics),
                }
            }
        }
    }

    fn lock(&self, shard: ShardId) -> MutexGuard<'_, Shard> {
        // Every shard number that comes here was made by, or checked against, the shard map.
        self.shards[usize::from(shard.get())].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part of a receipt, checked.
pub(crate) struct Part {
    pub(crate) shard: ShardId,
    pub(crate) id: EntryId,
    pub(crate) seq: Seq,
    pub(crate) log_epoch: u64,
}

/// The parts of a receipt that this server may have made; none when it cannot be one of ours.
pub(crate) fn parse(receipt: &Bytes, shards: &ShardMap) -> Option<Vec<Part>> {
    let parsed = QueryReceipts::decode(receipt.clone()).ok()?;
    if parsed.encoded_len() != receipt.len() || parsed.parts.len() > usize::from(shards.count()) {
        return None;
    }
    // As they were made: one part of each shard, in order.
    let in_order = parsed.parts.windows(2).all(|pair| pair[0].shard < pair[1].shard);
    parsed.parts.into_iter().map(|raw| part(raw, shards)).collect::<Option<_>>().filter(|_| in_order)
}

fn part(raw: ReceiptPart, shards: &ShardMap) -> Option<Part> {
    let number = u16::try_from(raw.shard).ok().filter(|n| *n < shards.count())?;
    let id = EntryId::try_from(raw.entry.as_ref()).ok()?;
    let seq = Seq::new(raw.seq).ok().filter(|seq| *seq > Seq::ZERO)?;
    Some(Part { shard: ShardId::new(number), id, seq, log_epoch: raw.log_epoch })
}

/// The receipt that names the parts of both, of which none are of one shard.
pub(crate) fn joined(receipt: &Bytes, earlier: Vec<ReceiptPart>) -> Bytes {
    let mut parts = QueryReceipts::decode(receipt.clone()).map(|receipt| receipt.parts).unwrap_or_default();
    parts.extend(earlier);
    parts.sort_by_key(|part| part.shard);
    self::receipt(parts)
}

/// The receipt that names these parts.
pub(crate) fn receipt(parts: Vec<ReceiptPart>) -> Bytes {
    QueryReceipts { parts }.encode_to_vec().into()
}
