// SPDX-License-Identifier: MIT OR Apache-2.0
//! What other tasks leave for a session. Costs nothing while empty; every list has a bound.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::task::AtomicWaker;
use pli_api::edge::{Reply, SendResult, Settled};
use pli_domain::Position;

use super::feed::Bell;

/// Doorbells that may wait; above it they are dropped and the session reads instead.
const BELLS_MAX: usize = 64;

/// Why a session ends from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// A newer session of the same device exists.
    Displaced,
    /// The device was removed from its account.
    Removed,
}

/// Everything left since the session looked last.
#[derive(Debug, Default)]
pub(crate) struct Mail {
    /// Bounded by the send window and the sends of one frame: the window is looked at before a frame is read.
    pub(crate) results: Vec<SendResult>,
    /// Bounded by the open receipts of the session.
    pub(crate) settled: Vec<Settled>,
    /// Bounded by the call window.
    pub(crate) replies: Vec<Reply>,
    /// Bounded by [`BELLS_MAX`].
    pub(crate) bells: Vec<Bell<Bytes>>,
    /// A doorbell was dropped: read.
    pub(crate) doubt: bool,
    /// The bus may have lost something: look again soon.
    pub(crate) recheck: bool,
    /// The shard has a new owner: announce again.
    pub(crate) announce: bool,
    /// The device's floor rose.
    pub(crate) floor: Option<Position>,
    /// The edge goes down; the client may connect again after so many milliseconds.
    pub(crate) go_away: Option<u32>,
    /// The session is over.
    pub(crate) end: Option<End>,
}

#[derive(Default)]
struct State {
    mail: Mail,
    full: bool,
    closed: bool,
}

/// The inbox of one session.
#[derive(Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    waker: AtomicWaker,
    open_receipts: AtomicUsize,
}

impl Inbox {
    /// Everything that was left, or pending when nothing was.
    pub(crate) fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Mail> {
        self.waker.register(cx.waker());
        let mut state = self.lock();
        if !state.full {
            return Poll::Pending;
        }
        state.full = false;
        Poll::Ready(std::mem::take(&mut state.mail))
    }

    /// The session has ended; what comes is dropped.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.mail = Mail::default();
    }

    /// Whether the session has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Leaves something and wakes the session.
    pub(crate) fn leave(&self, what: impl FnOnce(&mut Mail)) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        what(&mut state.mail);
        state.full = true;
        drop(state);
        self.waker.wake();
    }

    /// Leaves a doorbell, or the word that one was lost.
    pub(crate) fn ring(&self, bell: Bell<Bytes>) {
        self.leave(|mail| {
            if mail.bells.len() < BELLS_MAX {
                mail.bells.push(bell);
            } else {
                mail.doubt = true;
            }
        });
    }

    /// Receipts of this session whose end is not known.
    pub(crate) fn open_receipts(&self) -> usize {
        self.open_receipts.load(Ordering::Relaxed)
    }
    pub(crate) fn receipt_opened(&self) {
        self.open_receipts.fetch_add(1, Ordering::Relaxed);
    }
    pub(crate) fn receipt_ended(&self) {
        self.open_receipts.fetch_sub(1, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
