// SPDX-License-Identifier: MIT OR Apache-2.0
//! The verdict.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// (sender device, send id): names a content for ever.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct MessageName {
    /// Sending device.
    pub sender: String,
    /// Its name for the content.
    pub send_id: String,
}

impl fmt::Display for MessageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.sender, self.send_id)
    }
}

/// What became of one device's messages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DeviceReport {
    /// Messages it had to show.
    pub expected: usize,
    /// Different messages it showed, expected or not.
    pub shown: usize,
    /// Expected and not shown, for whatever reason but expiry and removal.
    pub missing: Vec<MessageName>,
    /// Missing and inside a gap that it was told.
    pub in_gap: Vec<MessageName>,
    /// Missing without excuse.
    pub lost: Vec<MessageName>,
    /// Shown more than once; one entry for each time too many.
    pub twice: Vec<MessageName>,
    /// Shown out of lane order without the late mark.
    pub reordered: Vec<MessageName>,
    /// Shown over a hole that was not marked.
    pub unmarked: Vec<MessageName>,
    /// Shown though not meant for it, or not as it was sent.
    pub foreign: Vec<MessageName>,
    /// Shown with the late mark.
    pub late: usize,
    /// Lane numbers marked as missing.
    pub holes: u64,
    /// Gaps it was told.
    pub gaps: usize,
    /// Not shown because their life ended.
    pub expired: usize,
}

/// What became of everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// By device.
    pub devices: BTreeMap<String, DeviceReport>,
    /// Messages intended.
    pub intended: usize,
    /// Of these accepted.
    pub accepted: usize,
    /// Of these stored.
    pub stored: usize,
    /// Stored though never accepted.
    pub stored_unaccepted: Vec<MessageName>,
    /// Broken session rules (Q4, Q5), each with its device and positions.
    pub broken: Vec<String>,
}

impl Report {
    /// Messages lost over all devices.
    pub fn lost(&self) -> usize {
        self.devices.values().map(|d| d.lost.len()).sum()
    }
    /// Messages shown twice over all devices.
    pub fn twice(&self) -> usize {
        self.devices.values().map(|d| d.twice.len()).sum()
    }
    /// Messages shown out of order over all devices.
    pub fn reordered(&self) -> usize {
        self.devices.values().map(|d| d.reordered.len()).sum()
    }
    /// Messages shown as late over all devices.
    pub fn late(&self) -> usize {
        self.devices.values().map(|d| d.late).sum()
    }
    /// Lane numbers marked as holes over all devices.
    pub fn holes(&self) -> u64 {
        self.devices.values().map(|d| d.holes).sum()
    }
    /// Whether no rule at all was broken.
    pub fn is_clean(&self) -> bool {
        let device = |d: &DeviceReport| {
            d.lost.is_empty()
                && d.twice.is_empty()
                && d.reordered.is_empty()
                && d.unmarked.is_empty()
                && d.foreign.is_empty()
        };
        self.broken.is_empty() && self.stored_unaccepted.is_empty() && self.devices.values().all(device)
    }
}

/// One line per device, one for what is no fault, and the verdict last: `lost 0, twice 0, reordered 0`.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, device) in &self.devices {
            write!(f, "{name}: expected {}, shown {}, missing ", device.expected, device.shown)?;
            match device.missing.len() {
                0 => writeln!(f, "none")?,
                count => {
                    let ids: Vec<String> = device.missing.iter().take(20).map(ToString::to_string).collect();
                    let more = if count > 20 { format!(" and {} more", count - 20) } else { String::new() };
                    writeln!(f, "{}{more}", ids.join(" "))?;
                }
            }
        }
        let gaps: usize = self.devices.values().map(|d| d.gaps).sum();
        let expired: usize = self.devices.values().map(|d| d.expired).sum();
        writeln!(f, "late {}, holes {}, gaps {gaps}, expired {expired}", self.late(), self.holes())?;
        for rule in &self.broken {
            writeln!(f, "{rule}")?;
        }
        write!(f, "lost {}, twice {}, reordered {}", self.lost(), self.twice(), self.reordered())
    }
}
