// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was meant to be sent, and what each device showed: written as it happens, judged at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use pli_testkit::history::{Event, History, Report};

use super::device::person;
use super::pulse::Pulse;

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
    /// When a message was meant, by sender and name.
    intended: BTreeMap<(String, String), Instant>,
    /// Highest number that a device showed of a lane.
    reached: BTreeMap<(String, String), u64>,
    /// Devices that marked a hole in a lane since they last showed something of it.
    holes: BTreeSet<(String, String)>,
    pulse: Pulse,
}

/// The ledger; clones are the same one.
#[derive(Clone)]
pub struct Ledger(Arc<Mutex<Book>>);

impl Ledger {
    /// A new one in `folder`.
    pub fn create(folder: &Path) -> std::io::Result<Self> {
        let file = File::create_new(folder.join("ledger.jsonl"))?;
        let book = Book {
            file,
            history: History::new(),
            next: BTreeMap::new(),
            intended: BTreeMap::new(),
            reached: BTreeMap::new(),
            holes: BTreeSet::new(),
            pulse: Pulse::begin(),
        };
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
        book.intended.insert((sender.into(), id.clone()), Instant::now());
        Ok(Intended { text: format!("{words} [{lane} {lane_no}]"), id })
    }

    /// The server said `accepted`.
    pub fn accepted(&self, sender: &str, id: &str) {
        let mut book = self.book();
        if let Some(&meant) = book.intended.get(&(sender.into(), id.into())) {
            book.pulse.accepted(sender, meant);
        }
        book.note(&Event::Accepted { sender: sender.into(), send_id: id.into() });
    }

    /// The server said `stored`.
    pub fn stored(&self, sender: &str, id: &str) {
        let mut book = self.book();
        book.note(&Event::Stored { sender: sender.into(), send_id: id.into() });
    }

    /// A device showed this text as a message of `from`.
    pub fn shown(&self, device: &str, from: &str, text: &str, late: bool) {
        let (lane, lane_no) = mark(text).unwrap_or(("?/?", 0));
        let (sender, place) = lane.rsplit_once('/').unwrap_or(("?", "?"));
        // Of several devices of one person the text says which; whose it is the client says.
        let from = if person(sender) == from { sender } else { from };
        let send_id = format!("{place}-{lane_no}");
        let mut book = self.book();
        if let Some(&meant) = book.intended.get(&(from.into(), send_id.clone())) {
            book.pulse.shown(device, meant);
        }
        book.mark_hole(device, lane, (lane_no, late));
        let (device, sender, lane) = (device.into(), from.into(), lane.into());
        book.note(&Event::Shown { device, sender, send_id, lane, lane_no, late });
    }

    /// A device stopped waiting for messages of a lane. Which ones it says in numbers of its own, which count ticks of
    /// the same class too: in the ledger's numbers the hole is what the next message shows to be missing before it.
    pub fn hole(&self, device: &str, from: &str, place: &str) {
        self.book().holes.insert((device.into(), format!("{from}/{place}")));
    }

    /// From now on it is watched who hears and sees something that is meant from now on.
    pub fn begin_pulse(&self) {
        self.book().pulse = Pulse::begin();
    }

    /// Who has, so far.
    pub fn pulse(&self) -> Pulse {
        self.book().pulse.clone()
    }

    /// A device was told that mail is gone.
    pub fn gap(&self, device: &str) {
        self.book().note(&Event::Gap { device: device.into(), session: String::new(), from: 0, to: 0 });
    }

    /// From now on nobody expects of a device what it has not shown.
    pub fn removed(&self, device: &str) {
        self.book().note(&Event::Removed { device: device.into() });
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

    fn mark_hole(&mut self, device: &str, lane: &str, (lane_no, late): (u64, bool)) {
        let key = (device.to_owned(), lane.to_owned());
        let reached = self.reached.get(&key).copied();
        if !late
            && self.holes.remove(&key)
            && let Some(reached) = reached.filter(|reached| lane_no > reached + 1)
        {
            let (device, lane) = key.clone();
            self.note(&Event::Hole { device, lane, from: reached + 1, to: lane_no - 1 });
        }
        self.reached.insert(key, reached.unwrap_or(0).max(lane_no));
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
    let (lane, number) = mark.rsplit_once(' ')?;
    Some((lane, number.parse().ok()?))
}
