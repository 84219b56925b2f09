// SPDX-License-Identifier: MIT OR Apache-2.0
//! Notices: which of an edge's entries are settled, as ranges of the checkpoint. Each edge gets a chain of its own: a
//! notice begins where the last one sent to it ended, so one that arrives out of chain tells of a lost one.

use std::collections::BTreeMap;

use bytes::Bytes;
use pli_api::delivery::{Notice, edge_signal};
use pli_domain::{EdgeId, EntryId, Position};
use tokio::time::Instant;

use super::live::Live;

#[derive(Debug)]
struct Chain {
    /// The range of the last notice sent.
    previous: Position,
    sent: Position,
    /// Its ids, for repeating it.
    ids: Vec<EntryId>,
    sent_at: Option<Instant>,
    /// Settled and not told yet. Bound: the entries of one settle.
    pending: Vec<EntryId>,
    seen: Instant,
}

/// The chains of all edges that appended something or have sessions here.
#[derive(Debug)]
pub(super) struct Notices {
    /// The checkpoint: where a new chain begins.
    checkpoint: Position,
    /// Bound: `edges_max`.
    edges: BTreeMap<EdgeId, Chain>,
}

impl Notices {
    pub fn new(checkpoint: Position) -> Self {
        Self { checkpoint, edges: BTreeMap::new() }
    }

    /// The edge exists. Above the bound the one that was silent longest is forgotten.
    pub fn seen(&mut self, edge: EdgeId, now: Instant, edges_max: usize) {
        if let Some(chain) = self.edges.get_mut(&edge) {
            chain.seen = now;
            return;
        }
        if self.edges.len() >= edges_max {
            let oldest = self.edges.iter().min_by_key(|(_, chain)| chain.seen).map(|(edge, _)| *edge);
            if let Some(oldest) = oldest {
                self.edges.remove(&oldest);
            }
        }
        let (previous, sent) = (self.checkpoint, self.checkpoint);
        let chain = Chain { previous, sent, ids: Vec::new(), sent_at: None, pending: Vec::new(), seen: now };
        self.edges.insert(edge, chain);
    }

    /// An entry of this edge is settled.
    pub fn settled(&mut self, edge: EdgeId, id: EntryId) {
        if let Some(chain) = self.edges.get_mut(&edge) {
            chain.pending.push(id);
        }
    }

    /// New notices for edges with settled entries, up to `checkpoint`.
    fn fresh(&mut self, checkpoint: Position, now: Instant) -> Vec<(EdgeId, Notice)> {
        self.checkpoint = checkpoint;
        let mut notices = Vec::new();
        for (edge, chain) in &mut self.edges {
            if !chain.pending.is_empty() {
                notices.push((*edge, chain.advance(checkpoint, now)));
            }
        }
        notices
    }

    /// What is due again: a new empty range where the checkpoint moved on without entries of the edge, else the last
    /// notice. Edges that were silent for an hour are forgotten.
    fn repeated(&mut self, checkpoint: Position, now: Instant, every: std::time::Duration) -> Vec<(EdgeId, Notice)> {
        self.edges.retain(|_, chain| now - chain.seen < std::time::Duration::from_secs(3600));
        let mut notices = Vec::new();
        for (edge, chain) in &mut self.edges {
            if chain.sent_at.is_none_or(|at| now - at >= every) {
                let notice = if checkpoint > chain.sent { chain.advance(checkpoint, now) } else { chain.again(now) };
                notices.push((*edge, notice));
            }
        }
        notices
    }
}

impl Chain {
    fn advance(&mut self, checkpoint: Position, now: Instant) -> Notice {
        debug_assert!(checkpoint >= self.sent, "checkpoints never go back");
        self.previous = self.sent;
        self.sent = checkpoint;
        self.ids = std::mem::take(&mut self.pending);
        self.again(now)
    }
    fn again(&mut self, now: Instant) -> Notice {
        self.sent_at = Some(now);
        Notice {
            previous: self.previous.get(),
            checkpoint: self.sent.get(),
            epoch_first: 0,
            settled: self.ids.iter().map(|id| Bytes::copy_from_slice(id.as_bytes())).collect(),
            fan_out_full: false,
        }
    }
}

impl Live {
    /// Tells edges what was settled just now.
    pub async fn notify(&mut self) {
        let notices = self.notices.fresh(self.checkpoint.position, Instant::now());
        self.send_notices(notices).await;
    }

    /// Tells edges again, so that a lost notice costs a delay only.
    pub async fn repeat_notices(&mut self) {
        let every = self.context.config.notice_repeat();
        let notices = self.notices.repeated(self.checkpoint.position, Instant::now(), every);
        self.send_notices(notices).await;
    }

    async fn send_notices(&mut self, notices: Vec<(EdgeId, Notice)>) {
        self.context.counters.notices(notices.len());
        let fan_out_full = self.fan_out_is_full();
        for (edge, mut notice) in notices {
            notice.epoch_first = self.epoch.first.get();
            notice.fan_out_full = fan_out_full;
            self.context.tell(edge, edge_signal::Signal::Notice(notice)).await;
        }
    }
}
