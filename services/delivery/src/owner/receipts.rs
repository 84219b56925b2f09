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
        let log_epoch = self.epoch.epoch.get();
        if self.context.ports.log.fate() == LogFate::OneTransaction {
            let verdict = |part| i32::from(by_epoch(part, self.epoch, self.checkpoint));
            let verdicts = query.parts.iter().map(verdict).collect();
            let reply = owner_reply::Reply::Verdicts(ReceiptVerdicts { verdicts, log_epoch });
            return self.context.answer(respond, reply).await;
        }
        if self.asked >= self.context.config.jobs_max {
            return self.context.answer(respond, Self::not_ready()).await;
        }
        self.asked += 1;
        let (context, checkpoint) = (self.context.clone(), self.checkpoint);
        self.spawn(async move {
            let reply = match by_entries(&context, &query.parts, checkpoint).await {
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

/// This log is never cut, but a backup may have been restored: then the log epoch is higher than the backup's.
fn by_epoch(part: &ReceiptPart, current: LogEpochStart, checkpoint: Checkpoint) -> Verdict {
    let (Ok(epoch), Ok(seq)) = (LogEpoch::new(part.log_epoch), Seq::new(part.seq)) else { return Verdict::Resend };
    if epoch == LogEpoch::NONE || seq == Seq::ZERO {
        return Verdict::Resend;
    }
    if epoch == current.epoch {
        return if seq <= checkpoint.position.seq() { Verdict::Stored } else { Verdict::Wait };
    }
    if epoch < current.epoch && seq < current.first { Verdict::Stored } else { Verdict::Resend }
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
