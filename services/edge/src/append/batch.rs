// SPDX-License-Identifier: MIT OR Apache-2.0
//! The envelopes of one shard that wait for their entry.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use pli_api::log::Item;
use pli_domain::limits::{ENTRY_BYTES_MAX, ENTRY_ENVELOPES_MAX};
use tokio::time::Instant;

use super::{Job, Lane, Round};
use crate::ticket::Ticket;

/// Bytes that an item adds to an entry besides its envelope and devices (tags, lengths, expiry, class); generous.
const ITEM_OVERHEAD: usize = 32;

/// One entry's worth.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) items: Vec<Item>,
    pub(super) tickets: Vec<Arc<Ticket>>,
    pub(super) lanes: BTreeSet<Lane>,
    pub(super) rounds: Vec<Arc<Round>>,
}

/// Jobs in the order they came, those of a lane that is in flight held back behind it.
#[derive(Default)]
pub(super) struct Gathering {
    ready: VecDeque<Job>,
    ready_bytes: usize,
    since: Option<Instant>,
    /// Lanes in flight with what waits behind them.
    busy: BTreeMap<Lane, VecDeque<Job>>,
    held: usize,
}

fn size(item: &Item) -> usize {
    item.envelope.len() + item.devices.len() * 18 + ITEM_OVERHEAD
}

impl Gathering {
    pub(super) fn push(&mut self, job: Job) {
        if let Some(behind) = self.busy.get_mut(&job.lane) {
            behind.push_back(job);
            self.held += 1;
            return;
        }
        self.ready_bytes += size(&job.item);
        self.ready.push_back(job);
        self.since.get_or_insert_with(Instant::now);
    }

    /// The entry that held these lanes is durable: what waited behind them is ready, in order.
    pub(super) fn ended(&mut self, lanes: &BTreeSet<Lane>) {
        for job in self.behind(lanes) {
            self.push(job);
        }
    }

    /// The entry that held these lanes has ended: what waited behind them, in order.
    pub(super) fn behind(&mut self, lanes: &BTreeSet<Lane>) -> Vec<Job> {
        let jobs: Vec<Job> = lanes.iter().flat_map(|lane| self.busy.remove(lane).unwrap_or_default()).collect();
        self.held -= jobs.len();
        jobs
    }

    /// Takes the next entry's worth: at least one job, at most [`ENTRY_ENVELOPES_MAX`] and [`ENTRY_BYTES_MAX`] (a larger
    /// one stands alone). Its lanes are in flight from here on.
    pub(super) fn take(&mut self) -> Batch {
        let mut batch = Batch::default();
        let mut bytes = 0;
        while let Some(job) = self.ready.front() {
            bytes += size(&job.item);
            let full = batch.items.len() == ENTRY_ENVELOPES_MAX || bytes > ENTRY_BYTES_MAX;
            if full && !batch.items.is_empty() {
                break;
            }
            let Some(job) = self.ready.pop_front() else { break };
            self.ready_bytes -= size(&job.item);
            batch.lanes.insert(job.lane);
            batch.items.push(job.item);
            batch.tickets.push(job.ticket);
            batch.rounds.extend(job.round);
        }
        for lane in &batch.lanes {
            self.busy.insert(*lane, VecDeque::new());
        }
        self.hold_rest();
        self.since = (!self.ready.is_empty()).then(Instant::now);
        batch
    }

    /// What is left of the lanes just taken waits behind them.
    fn hold_rest(&mut self) {
        if self.ready.is_empty() {
            return;
        }
        let rest = std::mem::take(&mut self.ready);
        self.ready_bytes = 0;
        for job in rest {
            self.push(job);
        }
    }

    /// When the oldest ready job came.
    pub(super) fn since(&self) -> Option<Instant> {
        self.since
    }
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }
    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.held == 0
    }
    /// Whether one entry's worth is ready.
    pub(super) fn is_full(&self) -> bool {
        self.ready.len() >= ENTRY_ENVELOPES_MAX || self.ready_bytes >= ENTRY_BYTES_MAX
    }
    /// Jobs that wait, ready or behind their lane.
    pub(super) fn waiting(&self) -> usize {
        self.ready.len() + self.held
    }
}
