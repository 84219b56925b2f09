// SPDX-License-Identifier: MIT OR Apache-2.0
//! What became of an append: judged by retained entry ids, or by the log epoch where log and tables are one.

use pli_api::delivery::{QueryReceipts, ReceiptPart, ReceiptVerdicts, Verdict, owner_reply};
use pli_domain::mutant::{Mutant, broken};
use pli_domain::{Checkpoint, EntryId, LogEpoch, Seq};
use pli_ports::{LogEpochStart, LogFate, StoreError};
use std::error::Error;

use super::Context;
use super::live::{Done, Live};
use super::sessions::Responder;

/// Parts in one query.
const PARTS_MAX: usize = 4_096;

impl Live {
    pub async fn query_receipts(&mut self, query: QueryReceipts, respond: Responder) {
        if query.parts.len() > PARTS_MAX {
            self.context.counters.malformed(1);
            return;
        }
        if self.asked >= self.context.config.jobs_max {
            return self.context.answer(respond, Self::not_ready()).await;
        }
        self.asked += 1;
        let (context, current, checkpoint) = (self.context.clone(), self.epoch, self.checkpoint);
        self.spawn(async move {
            let judged = match context.ports.log.fate() {
                LogFate::OneTransaction => by_epoch(&context, &query.parts, current, checkpoint).await,
                LogFate::OwnSystem => by_entries(&context, &query.parts, checkpoint).await,
            };
            let log_epoch = current.epoch.get();
            let reply = match judged {
                Ok(verdicts) => owner_reply::Reply::Verdicts(ReceiptVerdicts { verdicts, log_epoch }),
                Err(error) => {
                    tracing::info!(
                        shard = %context.shard,
                        error = &error as &dyn Error,
                        "a receipt could not be judged"
                    );
                    Live::not_ready()
                }
            };
            context.answer(respond, reply).await;
            Done::Answered
        });
    }
}

/// This log is never cut, but a backup may have been restored: then the log epoch is higher than the backup's. The head is
/// read after the question came: every receipt that was given before lies at or below it.
async fn by_epoch(
    context: &Context,
    parts: &[ReceiptPart],
    current: LogEpochStart,
    checkpoint: Checkpoint,
) -> Result<Vec<i32>, StoreError> {
    let head = context.ports.log.bounds(context.shard).await?.head;
    let settled = checkpoint.position.seq();
    let judge = |part: &ReceiptPart| {
        let (Ok(epoch), Ok(seq)) = (LogEpoch::new(part.log_epoch), Seq::new(part.seq)) else { return Verdict::Resend };
        if epoch == LogEpoch::NONE || seq == Seq::ZERO || seq > head {
            return Verdict::Resend;
        }
        if epoch == current.epoch {
            return if seq <= settled { Verdict::Stored } else { Verdict::Wait };
        }
        if epoch < current.epoch && seq < current.first { Verdict::Stored } else { Verdict::Resend }
    };
    Ok(parts.iter().map(|part| i32::from(judge(part))).collect())
}

/// `checkpoint` was taken before the log is read: if its own entry still stands after a receipt's was seen, the log
/// had not lost its end below it when it was settled.
async fn by_entries(context: &Context, parts: &[ReceiptPart], checkpoint: Checkpoint) -> Result<Vec<i32>, StoreError> {
    let log = &context.ports.log;
    let mut verdicts = Vec::with_capacity(parts.len());
    for part in parts {
        let parsed = (Seq::new(part.seq), EntryId::try_from(part.entry.as_ref()));
        let verdict = match parsed {
            (Ok(seq), Ok(id)) if log.entry_at(context.shard, seq).await? == Some(id) => {
                if seq <= checkpoint.position.seq() { Verdict::Stored } else { Verdict::Wait }
            }
            // The log ends below it, has another id there, or no longer keeps it.
            _ => Verdict::Resend,
        };
        verdicts.push(verdict);
    }
    let stands = match checkpoint.entry {
        Some(id) => log.entry_at(context.shard, checkpoint.position.seq()).await? == Some(id),
        None => false,
    };
    if !stands && !broken(Mutant::StoredWithoutEntry) {
        for verdict in verdicts.iter_mut().filter(|verdict| **verdict == Verdict::Stored) {
            *verdict = Verdict::Wait;
        }
    }
    Ok(verdicts.into_iter().map(i32::from).collect())
}
