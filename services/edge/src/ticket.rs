// SPDX-License-Identifier: MIT OR Apache-2.0
//! One send, or one receipt presented again, from its appends to its end.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use pli_api::common::Error;
use pli_api::delivery::ReceiptPart;
use pli_api::edge::{Accepted, Resend, SendResult, Settled, Stored, send_result, settled};
use pli_domain::UnixMillis;
use pli_runtime::trail::{HopKind, Span, TraceContext};

use crate::metrics::Metrics;
use crate::receipts;
use crate::session::inbox::Inbox;

#[derive(Default)]
struct State {
    appends_left: usize,
    settles_left: usize,
    parts: Vec<ReceiptPart>,
    refused: Option<Error>,
    receipt: Option<Bytes>,
    over: bool,
    /// Of what was appended something is lost.
    lost: bool,
    /// Of a send that is traced, until its verdict.
    span: Option<Span>,
}

/// Counts the appends and the settling of one send. Tells its session the verdict when the last append has ended,
/// and the outcome when the last part is settled or one is lost.
pub(crate) struct Ticket {
    send_id: Bytes,
    accepted_at: UnixMillis,
    inbox: Arc<Inbox>,
    open: Arc<AtomicUsize>,
    /// Parts that it names, which is what the edge keeps of it; at least one.
    parts: usize,
    state: Mutex<State>,
}

/// A send that was admitted.
pub(crate) struct Sent {
    /// By which it is told.
    pub(crate) send_id: Bytes,
    /// When the edge took it.
    pub(crate) accepted_at: UnixMillis,
    /// Shards that it goes to, with one append each.
    pub(crate) shards: usize,
    /// Where it is traced.
    pub(crate) span: Option<Span>,
}

impl Ticket {
    /// Of a send. Its session hears of it through `inbox`; `open` counts parts of the whole edge.
    pub(crate) fn new(sent: Sent, inbox: &Arc<Inbox>, open: &Arc<AtomicUsize>) -> Arc<Self> {
        let (appends_left, settles_left) = (sent.shards, sent.shards);
        let state = State { appends_left, settles_left, span: sent.span, ..State::default() };
        Self::make(sent.send_id, sent.accepted_at, state, inbox, open)
    }

    /// Of a receipt with so many parts that a client presents.
    pub(crate) fn presented(receipt: Bytes, parts: usize, inbox: &Arc<Inbox>, open: &Arc<AtomicUsize>) -> Arc<Self> {
        let state = State { settles_left: parts, receipt: Some(receipt), ..State::default() };
        Self::make(Bytes::new(), UnixMillis(0), state, inbox, open)
    }

    fn make(
        send_id: Bytes,
        accepted_at: UnixMillis,
        state: State,
        inbox: &Arc<Inbox>,
        open: &Arc<AtomicUsize>,
    ) -> Arc<Self> {
        inbox.receipt_opened();
        let parts = state.settles_left.max(1);
        open.fetch_add(parts, Ordering::Relaxed);
        let (inbox, open) = (inbox.clone(), open.clone());
        Arc::new(Self { send_id, accepted_at, inbox, open, parts, state: Mutex::new(state) })
    }

    /// Of the send.
    pub(crate) fn send_id(&self) -> &[u8] {
        &self.send_id
    }

    /// Under which the send is traced.
    pub(crate) fn context(&self) -> Option<TraceContext> {
        self.lock().span.as_ref().map(Span::context)
    }

    /// One append is durable.
    pub(crate) fn appended(&self, part: ReceiptPart, metrics: &Metrics) {
        let mut state = self.lock();
        state.parts.push(part);
        self.append_ended(state, metrics);
    }

    /// There is nobody to send it to: accepted and settled at once.
    pub(crate) fn nobody(&self, metrics: &Metrics) {
        self.append_ended(self.lock(), metrics);
    }

    /// One append failed for good.
    pub(crate) fn failed(&self, error: Error, metrics: &Metrics) {
        let mut state = self.lock();
        state.refused = Some(error);
        self.append_ended(state, metrics);
    }

    fn append_ended(&self, mut state: MutexGuard<'_, State>, metrics: &Metrics) {
        state.appends_left = state.appends_left.saturating_sub(1);
        if state.appends_left > 0 {
            return;
        }
        let result = if let Some(error) = state.refused.clone() {
            state.over = true;
            metrics.send_refused(&self.send_id, &error);
            metrics.notes.end(state.span.take(), Some(&error));
            send_result::Result::Refused(error)
        } else {
            metrics.sends.add(1, &[]);
            metrics.notes.end(state.span.take(), None);
            let mut parts = std::mem::take(&mut state.parts);
            parts.sort_by_key(|part| part.shard);
            let receipt = receipts::receipt(parts);
            state.receipt = Some(receipt.clone());
            send_result::Result::Accepted(Accepted { receipt, accepted_at_ms: self.accepted_at.0 })
        };
        let result = SendResult { send_id: self.send_id.clone(), result: Some(result) };
        self.inbox.leave(|mail| mail.results.push(result));
        self.end_if_settled(state, metrics);
    }

    /// One part is settled.
    pub(crate) fn settled(&self, metrics: &Metrics) {
        let mut state = self.lock();
        state.settles_left = state.settles_left.saturating_sub(1);
        self.end_if_settled(state, metrics);
    }

    /// One part is lost or too old to tell.
    pub(crate) fn lost(&self, metrics: &Metrics) {
        let mut state = self.lock();
        if state.over {
            return;
        }
        let Some(receipt) = state.receipt.clone() else {
            // A verdict about one shard while the append to another is still in flight: the send has failed.
            let error = pli_api::refusal(pli_api::ErrorCode::Temporary, "a shard log lost the message; send it again");
            state.lost = true;
            state.refused.get_or_insert(error);
            return;
        };
        state.over = true;
        metrics.receipts_resend.add(1, &[]);
        self.note(HopKind::Resend, metrics);
        self.tell(receipt, settled::Outcome::Resend(Resend {}));
    }

    /// What was appended of a send that was refused, for who tries again; nothing where some of it is lost.
    pub(crate) fn take_parts(&self) -> Vec<ReceiptPart> {
        let mut state = self.lock();
        let parts = std::mem::take(&mut state.parts);
        if state.lost { Vec::new() } else { parts }
    }

    /// Whether nobody waits for it any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.lock().over || self.inbox.is_closed()
    }

    fn end_if_settled(&self, mut state: MutexGuard<'_, State>, metrics: &Metrics) {
        if state.over || state.settles_left > 0 || state.appends_left > 0 {
            return;
        }
        if let Some(receipt) = state.receipt.clone() {
            state.over = true;
            metrics.receipts_stored.add(1, &[]);
            self.note(HopKind::Stored, metrics);
            self.tell(receipt, settled::Outcome::Stored(Stored {}));
        }
    }

    /// A receipt that was presented does not say which send it is of.
    fn note(&self, kind: HopKind, metrics: &Metrics) {
        if !self.send_id.is_empty() {
            metrics.notes.of_send(kind, &self.send_id);
        }
    }

    fn tell(&self, receipt: Bytes, outcome: settled::Outcome) {
        self.inbox.leave(|mail| mail.settled.push(Settled { receipt, outcome: Some(outcome) }));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.inbox.receipt_ended();
        self.open.fetch_sub(self.parts, Ordering::Relaxed);
    }
}
