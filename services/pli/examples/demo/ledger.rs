// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was meant to be sent, and what each device showed: written as it happens, judged at the end.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pli_testkit::history::{Event, History, Report};

/// A message that is intended: its mark stands in the text, so that whoever shows it can be held to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intended {
    /// The sender's name for it: lane and number.
    pub id: String,
    /// What is sent.
    pub text: String,
}

struct Book {
    file: File,
    history: History,
    next: BTreeMap<String, u64>,
    accepted: usize,
    stored: usize,
    shown: usize,
}

/// The ledger; clones are the same one.
#[derive(Clone)]
pub struct Ledger(Arc<Mutex<Book>>);

impl Ledger {
    /// A new one in `folder`.
    pub fn create(folder: &Path) -> std::io::Result<Self> {
        let file = File::create_new(folder.join("ledger.jsonl"))?;
        let book = Book { file, history: History::new(), next: BTreeMap::new(), accepted: 0, stored: 0, shown: 0 };
        Ok(Self(Arc::new(Mutex::new(book))))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes that `sender` is about to send `words` in `place` to `recipients`; returns what to send.
    pub fn intend(&self, sender: &str, place: &str, recipients: &[&str], words: &str) -> std::io::Result<Intended> {
        let mut book = self.book();
        let lane = format!("{sender}/{place}");
        let next = book.next.entry(lane.clone()).or_insert(1);
        let lane_no = *next;
        *next += 1;
        let id = format!("{place}-{lane_no}");
        let recipients = recipients.iter().map(ToString::to_string).collect();
        book.write(&Event::Intended {
            sender: sender.into(),
            send_id: id.clone(),
            lane: lane.clone(),
            lane_no,
            recipients,
        })?;
        Ok(Intended { text: format!("{words} [{lane} {lane_no}]"), id })
    }

    /// The server said `accepted`; true the first time.
    pub fn accepted(&self, sender: &str, id: &str) {
        let mut book = self.book();
        book.accepted += 1;
        book.note(&Event::Accepted { sender: sender.into(), send_id: id.into() });
    }

    /// The server said `stored`.
    pub fn stored(&self, sender: &str, id: &str) {
        let mut book = self.book();
        book.stored += 1;
        book.note(&Event::Stored { sender: sender.into(), send_id: id.into() });
    }

    /// A device showed this text as a message of `from`.
    pub fn shown(&self, device: &str, from: &str, text: &str, late: bool) {
        let (lane, lane_no) = mark(text).unwrap_or(("?/?", 0));
        let place = lane.split_once('/').map_or("?", |(_, place)| place);
        let shown = Event::Shown {
            device: device.into(),
            sender: from.into(),
            send_id: format!("{place}-{lane_no}"),
            lane: lane.into(),
            lane_no,
            late,
        };
        let mut book = self.book();
        book.shown += 1;
        book.note(&shown);
    }

    /// A device stopped waiting for these messages of a lane. The numbers are the client's own, which count ticks of
    /// the same class too, so they are noted and not held against the ledger's numbers.
    pub fn hole(&self, device: &str, from: &str, place: &str, numbers: (u64, u64)) {
        let lane = format!("{from}/{place}");
        self.book().note(&Event::Hole { device: device.into(), lane, from: numbers.0, to: numbers.1 });
    }

    /// A device was told that mail is gone.
    pub fn gap(&self, device: &str) {
        self.book().note(&Event::Gap { device: device.into(), session: String::new(), from: 0, to: 0 });
    }

    /// The verdict so far.
    pub fn report(&self) -> Report {
        self.book().history.report()
    }

    /// Messages that every device has still to show, by device.
    pub fn missing(&self) -> usize {
        self.report().devices.values().map(|device| device.missing.len()).sum()
    }
}

impl Book {
    /// Writes a line; it is in the file when this returns.
    fn write(&mut self, event: &Event) -> std::io::Result<()> {
        let line = serde_json::to_string(event)?;
        writeln!(self.file, "{line}")?;
        self.history.record(event);
        Ok(())
    }

    /// The same for what has happened already: it counts even if the disk is full.
    fn note(&mut self, event: &Event) {
        if let Err(error) = self.write(event) {
            println!("the ledger cannot be written: {error}");
            self.history.record(event);
        }
    }
}

/// Lane and number at the end of a text.
fn mark(text: &str) -> Option<(&str, u64)> {
    let (_, mark) = text.strip_suffix(']')?.rsplit_once('[')?;
    let (lane, number) = mark.split_once(' ')?;
    Some((lane, number.parse().ok()?))
}
