// SPDX-License-Identifier: MIT OR Apache-2.0
//! Gathers envelopes into log entries, one worker per shard.
//!
//! An entry goes out at once while none of its shard is in flight, so an idle server adds no wait; under load it
//! gathers for at most a millisecond, 64 KiB or 1,024 envelopes. Several entries of a shard are in flight, but only one
//! of a lane, so that a repeated append cannot overtake within a lane. A failed append is repeated with the same entry
//! id, a bounded number of times.

mod batch;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use pli_api::common::Error;
use pli_api::log::{Entry, Item};
use pli_api::{ErrorCode, refusal};
use pli_domain::{Class, ConversationId, DeviceId, EdgeId, EntryId, EntryRef, ShardId, ShardMap};
use pli_ports::{AppendError, LogFate, NewEntry, Retry, ShardLog};
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::config::{AppendConfig, ms};
use crate::metrics::Metrics;
use crate::receipts::Receipts;
use crate::retry::{Backoff, Dice};
use crate::ticket::Ticket;
use batch::Gathering;

/// The order domain of a message; see the words in docs/architecture.md.
pub(crate) type Lane = (DeviceId, ConversationId, Class);

/// One envelope for one shard.
pub(crate) struct Job {
    pub(crate) lane: Lane,
    pub(crate) item: Item,
    pub(crate) ticket: Arc<Ticket>,
    /// Of a lane whose jobs are handed over one after the other, however long that takes.
    pub(crate) round: Option<Arc<Round>>,
}

/// One try of what a lane has. A shard that has failed one of its jobs fails all that are handed over after it: they
/// would overtake it.
#[derive(Default)]
pub(crate) struct Round(Mutex<BTreeSet<ShardId>>);

impl Round {
    fn fail(&self, shard: ShardId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(shard);
    }

    fn has_failed(&self, shard: ShardId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&shard)
    }
}

/// What the workers share.
pub(crate) struct AppendPorts {
    pub(crate) log: Arc<dyn ShardLog>,
    pub(crate) receipts: Arc<Receipts>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) dice: Arc<Dice>,
    pub(crate) edge: EdgeId,
    pub(crate) config: AppendConfig,
}

/// Appends envelopes to shard logs. A shard's worker starts with its first envelope and ends with the appender.
pub(crate) struct Appender {
    workers: Vec<OnceLock<mpsc::Sender<Job>>>,
    ports: Arc<AppendPorts>,
}

impl Appender {
    pub(crate) fn new(shards: &ShardMap, ports: AppendPorts) -> Self {
        Self { workers: shards.shards().map(|_| OnceLock::new()).collect(), ports: Arc::new(ports) }
    }

    /// Takes one envelope. Its ticket hears the end of the append; a full queue fails it at once.
    pub(crate) fn push(&self, shard: ShardId, job: Job) {
        let worker = self.workers[usize::from(shard.get())].get_or_init(|| {
            let (jobs, receiver) = mpsc::channel(self.ports.config.queue_max.max(1));
            tokio::spawn(Worker::new(shard, self.ports.clone()).run(receiver));
            jobs
        });
        if let Err(mpsc::error::TrySendError::Full(job) | mpsc::error::TrySendError::Closed(job)) = worker.try_send(job)
        {
            if let Some(round) = &job.round {
                round.fail(shard);
            }
            job.ticket.failed(temporary("the shard's append queue is full", 500), &self.ports.metrics);
        }
    }
}

fn temporary(message: &str, after_ms: u32) -> Error {
    refusal(ErrorCode::Temporary, message).retry_after(after_ms)
}

/// An entry whose append has ended.
struct Ended {
    lanes: BTreeSet<Lane>,
    rounds: Vec<Arc<Round>>,
    failed: Option<Error>,
}

struct Worker {
    shard: ShardId,
    ports: Arc<AppendPorts>,
    gathering: Gathering,
    in_flight: FuturesUnordered<BoxFuture<'static, Ended>>,
}

impl Worker {
    fn new(shard: ShardId, ports: Arc<AppendPorts>) -> Self {
        Self { shard, ports, gathering: Gathering::default(), in_flight: FuturesUnordered::new() }
    }

    /// Ends when the appender is gone and everything taken has ended. Bound: `queue_max` jobs wait in the channel, as
    /// many again in lanes that are in flight, and `entries_in_flight` entries.
    async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let linger = Duration::from_micros(self.ports.config.linger_us);
        let most = self.ports.config.entries_in_flight.max(1);
        let mut open = true;
        while open || !self.in_flight.is_empty() || !self.gathering.is_empty() {
            let due = self.gathering.since().map(|since| since + linger);
            let idle = self.in_flight.is_empty();
            let ripe = idle || self.gathering.is_full() || due.is_some_and(|due| due <= Instant::now());
            if ripe && self.in_flight.len() < most && self.gathering.has_ready() {
                // What arrived meanwhile rides along.
                while !self.gathering.is_full()
                    && let Ok(job) = jobs.try_recv()
                {
                    self.take(job);
                }
                self.send();
                continue;
            }
            let room = open && self.gathering.waiting() < self.ports.config.queue_max;
            tokio::select! {
                biased;
                Some(ended) = self.in_flight.next(), if !idle => self.ended(ended),
                job = jobs.recv(), if room => match job {
                    Some(job) => self.take(job),
                    None => open = false,
                },
                () = sleep_until(due), if due.is_some() && self.in_flight.len() < most && self.gathering.has_ready() => {}
            }
        }
    }

    fn take(&mut self, job: Job) {
        if job.round.as_ref().is_some_and(|round| round.has_failed(self.shard)) {
            return job.ticket.failed(temporary("what stands before it was not appended", 0), &self.ports.metrics);
        }
        self.gathering.push(job);
    }

    /// What waited behind a failed entry fails with it: accepted now, it would overtake within its lane.
    fn ended(&mut self, ended: Ended) {
        match ended.failed {
            None => self.gathering.ended(&ended.lanes),
            Some(error) => {
                for round in &ended.rounds {
                    round.fail(self.shard);
                }
                for job in self.gathering.behind(&ended.lanes) {
                    job.ticket.failed(error.clone(), &self.ports.metrics);
                }
            }
        }
    }

    fn send(&mut self) {
        let batch = self.gathering.take();
        self.ports.metrics.append_queue_envelopes.record(self.gathering.waiting() as u64, &[]);
        let id = EntryId::from_bytes(self.ports.dice.id());
        let origin = Bytes::copy_from_slice(self.ports.edge.as_bytes());
        let bytes = Entry { items: batch.items, origin }.encode_to_vec().into();
        let entry = NewEntry { shard: self.shard, id, bytes };
        self.ports.metrics.entry_envelopes.record(batch.tickets.len() as u64, &[]);
        self.ports.receipts.expect(self.shard, id, batch.tickets.clone());
        let (ports, lanes, rounds, tickets) = (self.ports.clone(), batch.lanes, batch.rounds, batch.tickets);
        self.in_flight.push(Box::pin(async move {
            let failed = ports.append_one(entry, tickets).await.err();
            Ended { lanes, rounds, failed }
        }));
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

impl AppendPorts {
    /// Appends one entry and tells its tickets.
    async fn append_one(&self, entry: NewEntry, tickets: Vec<Arc<Ticket>>) -> Result<(), Error> {
        let (shard, id, bytes) = (entry.shard, entry.id, entry.bytes.len() as u64);
        let (began, noted) = (Instant::now(), self.metrics.notes.appending());
        let outcome = self.append(entry).await;
        self.metrics.append_seconds.record(began.elapsed().as_secs_f64(), &[]);
        match outcome {
            Ok(at) => {
                self.metrics.appended_bytes.add(bytes, &[]);
                if self.log.fate() == LogFate::OneTransaction {
                    self.receipts.learn_log_epoch(shard).await;
                }
                let at = EntryRef { seq: at.seq, id };
                self.metrics.notes.appended(shard, at, &tickets, noted);
                let part = self.receipts.appended(shard, at);
                for ticket in tickets {
                    ticket.appended(part.clone(), &self.metrics);
                }
                Ok(())
            }
            Err(error) => {
                self.receipts.forget(shard, id);
                self.metrics.notes.append_failed(shard, &tickets, noted, &error);
                for ticket in tickets {
                    ticket.failed(error.clone(), &self.metrics);
                }
                Err(error)
            }
        }
    }

    /// At most `tries_max` tries, all with the same entry id, so that a repeat of one that worked does no harm.
    async fn append(&self, entry: NewEntry) -> Result<EntryRef, Error> {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        loop {
            let appended = tokio::time::timeout(ms(self.config.try_ms), self.log.append(vec![entry.clone()])).await;
            let error = match appended.map(|mut results| results.pop()) {
                Ok(Some(Ok(at))) => return Ok(at),
                Ok(Some(Err(AppendError::Full { retry_after_ms }))) => {
                    return Err(refusal(ErrorCode::NoSpace, "the shard log is full").retry_after(retry_after_ms));
                }
                Ok(Some(Err(AppendError::Store(error)))) if error.retry == Retry::Never => {
                    let cause = &error as &dyn std::error::Error;
                    tracing::error!(shard = %entry.shard, error = cause, "the shard log refuses appends");
                    return Err(temporary("the shard log refuses appends", 5_000));
                }
                Ok(Some(Err(AppendError::Store(error)))) => format!("{error}: {}", error.source),
                Ok(None) => "the shard log gave no result".to_owned(),
                Err(_) => "the append took too long".to_owned(),
            };
            let wait = backoff.next(&self.dice, None);
            tracing::debug!(shard = %entry.shard, error, "append failed");
            if backoff.tries() >= self.config.tries_max {
                return Err(temporary("the shard log did not take the message", 1_000));
            }
            self.metrics.append_retries.add(1, &[]);
            tokio::time::sleep(wait).await;
        }
    }
}
