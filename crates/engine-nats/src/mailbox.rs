// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a subscription holds for a reader that is behind.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pli_domain::limits::SUBSCRIPTION_SIGNALS_MAX;
use pli_ports::{Signal, SignalEvent};
use tokio::sync::Notify;

#[derive(Default)]
struct Held {
    /// `None` marks the place where messages were lost; never two marks in a row.
    events: VecDeque<Option<Signal>>,
    signals: usize,
    closed: bool,
}

/// At most [`SUBSCRIPTION_SIGNALS_MAX`] messages and a mark per loss.
#[derive(Default)]
pub(crate) struct Mailbox {
    held: Mutex<Held>,
    arrived: Notify,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a message, or marks its loss when there is no room.
    pub fn put(&self, signal: Signal) {
        let mut held = self.lock();
        if held.signals < SUBSCRIPTION_SIGNALS_MAX {
            held.signals += 1;
            held.events.push_back(Some(signal));
        } else {
            held.mark();
        }
        drop(held);
        self.arrived.notify_one();
    }

    /// Marks that messages may have been lost.
    pub fn lost(&self) {
        self.lock().mark();
        self.arrived.notify_one();
    }

    /// Ends it after what it still holds.
    pub fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_one();
    }

    /// The next event; none after the end. One waiter at a time. Cancellation: loses nothing.
    pub async fn next(&self) -> Option<SignalEvent> {
        loop {
            {
                let mut held = self.lock();
                match held.events.pop_front() {
                    Some(Some(signal)) => {
                        held.signals -= 1;
                        return Some(SignalEvent::Signal(signal));
                    }
                    Some(None) => return Some(SignalEvent::Interrupted),
                    None if held.closed => return None,
                    None => {}
                }
            }
            self.arrived.notified().await;
        }
    }
}

impl Held {
    fn mark(&mut self) {
        if !matches!(self.events.back(), Some(None)) {
            self.events.push_back(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use pli_ports::Subject;

    use super::*;

    fn signal() -> Signal {
        Signal { subject: Subject::edges(), payload: Bytes::new(), respond: None }
    }

    #[tokio::test]
    async fn what_does_not_fit_is_marked_where_it_is_missing() {
        let mailbox = Mailbox::default();
        for _ in 0..SUBSCRIPTION_SIGNALS_MAX + 5 {
            mailbox.put(signal());
        }
        for _ in 0..SUBSCRIPTION_SIGNALS_MAX {
            assert!(matches!(mailbox.next().await, Some(SignalEvent::Signal(_))));
        }
        mailbox.put(signal());
        mailbox.lost();
        mailbox.lost();
        mailbox.close();
        assert!(matches!(mailbox.next().await, Some(SignalEvent::Interrupted)));
        assert!(matches!(mailbox.next().await, Some(SignalEvent::Signal(_))));
        assert!(matches!(mailbox.next().await, Some(SignalEvent::Interrupted)));
        assert!(mailbox.next().await.is_none());
    }
}
