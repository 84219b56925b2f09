// SPDX-License-Identifier: MIT OR Apache-2.0
//! Judges what happened from event logs alone. Shares no code, no type and no rule with the services: ids are text,
//! positions are numbers.
//!
//! # Format
//!
//! An event log is JSON lines: one [`Event`] a line, an object whose field `event` names it. Empty lines are skipped.
//! Logs of several writers are judged together; the lines of one device must stand in one log, in the order in which
//! they happened. Field order is free, unknown fields are ignored (a time stamp, say), unknown events are an error.
//!
//! ```json
//! {"event":"intended","sender":"a1","send_id":"01","lane":"a1/team/message","lane_no":1,"recipients":["b1","c1"]}
//! {"event":"sent","sender":"a1","send_id":"01"}
//! {"event":"accepted","sender":"a1","send_id":"01"}
//! {"event":"stored","sender":"a1","send_id":"01"}
//! {"event":"shown","device":"b1","sender":"a1","send_id":"01","lane":"a1/team/message","lane_no":1,"late":false}
//! {"event":"hole","device":"b1","lane":"a1/team/message","from":2,"to":2}
//! {"event":"gap","device":"b1","session":"s1","from":17,"to":99}
//! {"event":"acked","device":"b1","position":42}
//! ```
//!
//! A lane names everything one sender orders: sender device, conversation and class, in whatever spelling the writer
//! keeps to. `intended` is written before the first try of a send; without it a message cannot be missed.
//!
//! # Rules
//!
//! - **expected** on a device: every accepted message that names it as recipient, unless it expired, was refused
//!   before it was accepted, or the device was removed.
//! - **lost**: expected, not shown, and none of its positions lies in a gap that the device was told.
//! - **twice**: a (sender, send id) shown more than once on one device.
//! - **reordered**: shown with a lane number below one shown before in its lane, without the late mark.
//! - **unmarked**: a lane number jumped over and not marked as a hole before the jump. The first number a device
//!   shows of a lane begins it there.
//! - **foreign**: shown though never intended, not for this device, or with another lane or number than intended.
//! - **session rules**, where events carry positions: Q4 (positions of a session strictly increase; what a session
//!   passes over is acknowledged, expired, dropped or inside a gap told before) and Q5 (acks and stored cursors never
//!   go back and never pass what the device committed).
//!
//! Late ones, marked holes, gaps and expired ones are counted apart: they are not faults.

mod event;
mod ledger;
mod report;
mod sessions;

pub use event::{Event, EventLogError, read_log};
pub use report::{DeviceReport, MessageName, Report};

use ledger::Ledger;
use sessions::Sessions;

/// Takes events in and judges them at the end.
///
/// Memory grows with the history; a demo's or a simulation's is what bounds it.
#[derive(Debug, Default)]
pub struct History {
    ledger: Ledger,
    sessions: Sessions,
}

impl History {
    /// Nothing happened yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next event of its writer.
    pub fn record(&mut self, event: &Event) {
        self.ledger.record(event);
        self.sessions.record(event);
    }

    /// Takes a whole event log.
    pub fn read(&mut self, log: impl std::io::BufRead) -> Result<(), EventLogError> {
        for event in read_log(log) {
            self.record(&event?);
        }
        Ok(())
    }

    /// What became of everything so far.
    pub fn report(&self) -> Report {
        let mut report = self.ledger.report();
        report.broken = self.sessions.broken().to_vec();
        report
    }
}

/// Judges several event logs together.
pub fn judge<'a>(events: impl IntoIterator<Item = &'a Event>) -> Report {
    let mut history = History::new();
    for event in events {
        history.record(event);
    }
    history.report()
}
