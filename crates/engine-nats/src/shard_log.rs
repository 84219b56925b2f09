// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shard logs: one subject each, in streams that they share.

use std::sync::Arc;

use async_nats::jetstream::context::PublishAckFuture;
use async_nats::jetstream::message::PublishMessage;
use async_trait::async_trait;
use futures::future::join_all;
use pli_domain::limits::LOG_ENTRY_BYTES_MAX;
use pli_domain::{EntryId, EntryRef, Seq, ShardId};
use pli_ports::{AppendError, LogBounds, LogFate, LogReader, NewEntry, ShardLog, StoreError};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::NatsOptions;
use crate::error::{ApiError, append_error};
use crate::link::Link;
use crate::migrate::stream_info;
use crate::names::{entry_id, log_subject, message_id};
use crate::reader::NatsLogReader;
use crate::wire::{Done, Found, Head, MESSAGE_NOT_FOUND};

/// Most entries of a call that share one turn at the window.
const TURN_MAX: u32 = 256;
/// Where JetStream notes the id of a message.
const MESSAGE_ID: &str = "Nats-Msg-Id";

pub(crate) struct NatsShardLog {
    link: Arc<Link>,
    options: Arc<NatsOptions>,
    /// One permit per append without an acknowledgement.
    window: Semaphore,
}

impl NatsShardLog {
    pub(crate) fn new(link: Arc<Link>, options: Arc<NatsOptions>) -> Self {
        let window = Semaphore::new(usize::try_from(options.in_flight_max).unwrap_or(usize::MAX / 4));
        Self { link, options, window }
    }

    /// Sends everything, then waits for the acknowledgements together. All permits are taken before the first send:
    /// callers that each held some and waited for more would wait for each other.
    async fn append_turn(&self, mut entries: Vec<NewEntry>) -> Vec<Result<EntryRef, AppendError>> {
        let permits = u32::try_from(entries.len()).unwrap_or(TURN_MAX);
        let Ok(mut turn) = self.window.acquire_many(permits).await else {
            return entries.iter().map(|_| Err(StoreError::later("append", "the log is closed").into())).collect();
        };
        if entries.len() == 1
            && let Some(entry) = entries.pop()
        {
            return vec![self.append_one(entry).await];
        }
        let mut sent = Vec::with_capacity(entries.len());
        let mut stuck = false;
        for entry in entries {
            let id = entry.id;
            // Where one cannot be sent in time the others of the turn do not each wait as long.
            let one = if stuck { Err(not_sent("the connection to NATS is stuck")) } else { self.send(entry).await };
            stuck |= matches!(&one, Err(error) if is_later(error));
            sent.push((id, one));
        }
        join_all(sent.into_iter().map(|(id, one)| {
            let permit = turn.split(1);
            async move {
                let answer = match one {
                    Ok(acknowledgement) => self.acknowledged(acknowledgement, id).await,
                    Err(error) => Err(error),
                };
                drop(permit);
                answer
            }
        }))
        .await
    }

    async fn append_one(&self, entry: NewEntry) -> Result<EntryRef, AppendError> {
        let id = entry.id;
        let sent = self.send(entry).await?;
        self.acknowledged(sent, id).await
    }

    async fn send(&self, entry: NewEntry) -> Result<PublishAckFuture, AppendError> {
        if entry.bytes.len() > LOG_ENTRY_BYTES_MAX {
            let text = format!("an entry has {} bytes; append at most {LOG_ENTRY_BYTES_MAX}", entry.bytes.len());
            return Err(StoreError::never("append", text).into());
        }
        self.link.is_up().await.map_err(|error| error.of("append"))?;
        let message = PublishMessage::build().payload(entry.bytes).message_id(message_id(entry.shard, entry.id));
        let sent = self.link.publisher.send_publish(log_subject(entry.shard), message).await;
        sent.map_err(|error| append_error(error, self.options.full_retry_after_ms))
    }

    async fn acknowledged(&self, sent: PublishAckFuture, id: EntryId) -> Result<EntryRef, AppendError> {
        let stored = sent.await.map_err(|error| append_error(error, self.options.full_retry_after_ms))?;
        Ok(EntryRef { seq: sequence(stored.sequence, "append")?, id })
    }

    async fn look_up(&self, shard: ShardId, which: serde_json::Value) -> Result<Option<Head>, ApiError> {
        message(&self.link, &self.options.layout.stream_of(shard), which).await
    }

    async fn newest(&self, shard: ShardId) -> Result<Option<Head>, ApiError> {
        self.look_up(shard, json!({ "last_by_subj": log_subject(shard) })).await
    }
}

/// A message without its bytes, from the stream's leader: a replica may be behind.
async fn message(link: &Link, stream: &str, which: serde_json::Value) -> Result<Option<Head>, ApiError> {
    match link.api::<Found>(&format!("STREAM.MSG.GET.{stream}"), &which).await {
        Ok(found) => Ok(Some(found.message)),
        Err(error) if error.code() == Some(MESSAGE_NOT_FOUND) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The id of the retained entry of `subject` at `seq`.
pub(crate) async fn entry_at(link: &Link, stream: &str, subject: &str, seq: Seq) -> Result<Option<EntryId>, ApiError> {
    if seq == Seq::ZERO {
        return Ok(None);
    }
    let found = message(link, stream, json!({ "seq": seq.get() })).await?;
    let own = found.filter(|head| head.subject == subject);
    Ok(own.map(|head| entry_id(head.header(MESSAGE_ID).as_deref(), seq)))
}

/// The sequence as ours; an operator is needed when they have run out.
pub(crate) fn sequence(of: u64, operation: &'static str) -> Result<Seq, StoreError> {
    Seq::new(of).map_err(|error| StoreError::never(operation, error))
}

fn not_sent(why: &'static str) -> AppendError {
    StoreError::later("append", why).into()
}

fn is_later(error: &AppendError) -> bool {
    matches!(error, AppendError::Store(error) if error.retry == pli_ports::Retry::Later)
}

#[async_trait]
impl ShardLog for NatsShardLog {
    async fn append(&self, mut entries: Vec<NewEntry>) -> Vec<Result<EntryRef, AppendError>> {
        let turn = usize::try_from(self.options.in_flight_max.min(TURN_MAX)).unwrap_or(1);
        let mut answers = Vec::with_capacity(entries.len());
        while !entries.is_empty() {
            let rest = entries.split_off(turn.min(entries.len()));
            answers.extend(self.append_turn(entries).await);
            entries = rest;
        }
        answers
    }

    async fn reader(&self, shard: ShardId, from: Seq) -> Result<Box<dyn LogReader>, StoreError> {
        let stream = self.options.layout.stream_of(shard);
        let reader = NatsLogReader::open(Arc::clone(&self.link), &self.options, (stream, shard), from).await;
        reader.map(|reader| Box::new(reader) as Box<dyn LogReader>).map_err(|error| error.of("reader"))
    }

    /// The head of a shard that never had an entry is zero, whatever its stream holds of others.
    async fn bounds(&self, shard: ShardId) -> Result<LogBounds, StoreError> {
        let first = self.look_up(shard, json!({ "seq": 1, "next_by_subj": log_subject(shard) }));
        let (first, newest) = futures::join!(first, self.newest(shard));
        let (first, newest) = (first.map_err(|e| e.of("bounds"))?, newest.map_err(|e| e.of("bounds"))?);
        let first = first.map(|head| sequence(head.seq, "bounds")).transpose()?;
        let newest = newest.map(|head| sequence(head.seq, "bounds")).transpose()?;
        // Asked at the same time: an append in between may show in one of the two.
        let head = newest.or(first).unwrap_or(Seq::ZERO).max(first.unwrap_or(Seq::ZERO));
        Ok(LogBounds { first: first.or(newest).unwrap_or(head.next()), head })
    }

    async fn entry_at(&self, shard: ShardId, seq: Seq) -> Result<Option<EntryId>, StoreError> {
        let stream = self.options.layout.stream_of(shard);
        entry_at(&self.link, &stream, &log_subject(shard), seq).await.map_err(|error| error.of("entry_at"))
    }

    /// Keeps the newest entry: a stream that many shards share remembers a shard's head by nothing else.
    async fn trim(&self, shard: ShardId, through: Seq) -> Result<(), StoreError> {
        if through == Seq::ZERO {
            return Ok(());
        }
        let Some(newest) = self.newest(shard).await.map_err(|error| error.of("trim"))? else { return Ok(()) };
        // Exclusive; 0 would mean everything.
        let below = newest.seq.min(through.get() + 1).max(1);
        let purge = format!("STREAM.PURGE.{}", self.options.layout.stream_of(shard));
        let body = json!({ "filter": log_subject(shard), "seq": below });
        self.link.api::<Done>(&purge, &body).await.map_err(|error| error.of("trim"))?;
        Ok(())
    }

    /// Bytes of the shard's stream against its max bytes.
    async fn fullness(&self, shard: ShardId) -> Result<u16, StoreError> {
        let stream = self.options.layout.stream_of(shard);
        let info = stream_info(&self.link, &stream).await.map_err(|error| error.of("fullness"))?;
        let Some(info) = info else { return Ok(0) };
        let most = info.config.get("max_bytes").and_then(serde_json::Value::as_u64).filter(|most| *most > 0);
        let part = most.map_or(0, |most| u128::from(info.state.bytes) * 1_000 / u128::from(most));
        Ok(u16::try_from(part.min(1_000)).unwrap_or(1_000))
    }

    fn fate(&self) -> LogFate {
        LogFate::OwnSystem
    }
}
