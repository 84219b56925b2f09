// SPDX-License-Identifier: MIT OR Apache-2.0
//! Follows one shard's log.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pli_domain::{EntryRef, Seq, ShardId};
use pli_ports::{LogEntry, LogReader, ReadError, StoreError};
use serde_json::json;
use tokio::time::Instant;

use crate::NatsOptions;
use crate::error::ApiError;
use crate::link::Link;
use crate::names::{entry_id, log_subject};
use crate::pull::{Broken, Delivered, Pull};
use crate::shard_log::entry_at;
use crate::wire::{Found, MESSAGE_NOT_FOUND};

/// Most entries that one call yields.
const READ_MAX: usize = 1_024;

/// A reader ends for good with its first interruption, and with it what it had not yielded yet: that may be of an end
/// that the log has lost.
pub(crate) struct NatsLogReader {
    link: Arc<Link>,
    stream: String,
    subject: String,
    from: Seq,
    pull: Option<Pull>,
    /// Arrived and not yielded; bounded by one pull request.
    ready: VecDeque<LogEntry>,
    last: Option<EntryRef>,
    audited: Instant,
    audit_every: Duration,
}

impl NatsLogReader {
    pub async fn open(
        link: Arc<Link>,
        options: &NatsOptions,
        (stream, shard): (String, ShardId),
        from: Seq,
    ) -> Result<Self, ApiError> {
        let subject = log_subject(shard);
        let pull = Some(Pull::open(Arc::clone(&link), &stream, &subject, from.get(), options.heartbeat).await?);
        let (audited, audit_every) = (Instant::now(), options.audit_every);
        let ready = VecDeque::new();
        Ok(Self { link, stream, subject, from, pull, ready, last: None, audited, audit_every })
    }

    async fn read(&mut self, bytes_max: usize) -> Result<Vec<LogEntry>, Broken> {
        loop {
            self.audit().await?;
            self.gather(bytes_max)?;
            let entries = self.take(bytes_max);
            if !entries.is_empty() {
                return Ok(entries);
            }
            let pull = self.pull.as_mut().ok_or(Broken::Connection)?;
            if let Some(delivered) = pull.next().await? {
                self.keep(delivered)?;
            }
        }
    }

    /// Takes in what has arrived, until there is enough.
    fn gather(&mut self, bytes_max: usize) -> Result<(), Broken> {
        let mut bytes: usize = self.ready.iter().map(|entry| entry.bytes.len()).sum();
        while self.ready.len() < READ_MAX && (self.ready.is_empty() || bytes < bytes_max) {
            let pull = self.pull.as_mut().ok_or(Broken::Connection)?;
            let Some(delivered) = pull.at_hand()? else { break };
            bytes += delivered.message.payload.len();
            self.keep(delivered)?;
        }
        Ok(())
    }

    fn keep(&mut self, delivered: Delivered) -> Result<(), Broken> {
        let Delivered { stream_seq, message } = delivered;
        let seq = Seq::new(stream_seq).map_err(|error| Broken::Asking(error.into()))?;
        // A consumer that is to start above the head may start right behind it.
        if seq < self.from {
            return Ok(());
        }
        let before = self.ready.back().map(|entry| entry.seq).or(self.last.map(|last| last.seq));
        if before.is_some_and(|before| seq <= before) {
            return Err(Broken::Changed);
        }
        let id = message.headers.as_ref().and_then(|headers| headers.get(async_nats::header::NATS_MESSAGE_ID));
        let id = entry_id(id.map(|id| id.as_str()), seq);
        self.ready.push_back(LogEntry { seq, id, bytes: message.payload });
        Ok(())
    }

    fn take(&mut self, bytes_max: usize) -> Vec<LogEntry> {
        let mut bytes = 0;
        let mut taken = Vec::new();
        while let Some(entry) = self.ready.front() {
            bytes += entry.bytes.len();
            if !taken.is_empty() && (bytes > bytes_max || taken.len() == READ_MAX) {
                break;
            }
            taken.extend(self.ready.pop_front());
        }
        if let Some(entry) = taken.last() {
            self.last = Some(EntryRef { seq: entry.seq, id: entry.id });
        }
        taken
    }

    /// Now and then, whether the log still holds the last entry that was yielded: a replica that lost its end and was
    /// filled again could go on delivering to this consumer from where it stood.
    async fn audit(&mut self) -> Result<(), Broken> {
        let Some(last) = self.last else { return Ok(()) };
        if self.audited.elapsed() < self.audit_every {
            return Ok(());
        }
        let asking = |error: ApiError| Broken::Asking(error.into());
        match entry_at(&self.link, &self.stream, &self.subject, last.seq).await.map_err(asking)? {
            Some(id) if id == last.id => {}
            // Trimmed under the reader, which is no loss if the log goes on above it.
            None if self.goes_on_above(last.seq).await.map_err(asking)? => {}
            _ => return Err(Broken::Changed),
        }
        self.audited = Instant::now();
        Ok(())
    }

    async fn goes_on_above(&self, seq: Seq) -> Result<bool, ApiError> {
        let which = json!({ "seq": 1, "next_by_subj": self.subject });
        match self.link.api::<Found>(&format!("STREAM.MSG.GET.{}", self.stream), &which).await {
            Ok(found) => Ok(found.message.seq > seq.get()),
            Err(error) if error.code() == Some(MESSAGE_NOT_FOUND) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl LogReader for NatsLogReader {
    async fn next(&mut self, bytes_max: usize) -> Result<Vec<LogEntry>, ReadError> {
        let read = self.read(bytes_max).await;
        read.map_err(|broken| {
            self.pull = None;
            self.ready.clear();
            tracing::debug!(subject = self.subject, %broken, "a log reader ends");
            ReadError::Interrupted(StoreError::later("read", broken))
        })
    }
}
