// SPDX-License-Identifier: MIT OR Apache-2.0
//! When things go on after a fault, as clients see it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

/// Since a moment: after how long each device heard `accepted` for, and was shown, a message that was meant after it.
#[derive(Debug, Clone)]
pub struct Pulse {
    begun: Instant,
    accepted: BTreeMap<String, Duration>,
    shown: BTreeMap<String, Duration>,
}

impl Pulse {
    /// From now on.
    pub fn begin() -> Self {
        Self { begun: Instant::now(), accepted: BTreeMap::new(), shown: BTreeMap::new() }
    }

    /// A device heard that its message was accepted.
    pub fn accepted(&mut self, sender: &str, meant: Instant) {
        if meant >= self.begun {
            self.accepted.entry(sender.into()).or_insert_with(|| self.begun.elapsed());
        }
    }

    /// A device was shown a message.
    pub fn shown(&mut self, device: &str, meant: Instant) {
        if meant >= self.begun {
            self.shown.entry(device.into()).or_insert_with(|| self.begun.elapsed());
        }
    }

    /// After how long the last device had heard and been shown its first.
    pub fn slowest(&self) -> Duration {
        self.accepted.values().chain(self.shown.values()).max().copied().unwrap_or_default()
    }

    /// Whether all of these devices have heard and seen something.
    pub fn is_whole(&self, devices: &[&str]) -> bool {
        devices.iter().all(|device| self.accepted.contains_key(*device) && self.shown.contains_key(*device))
    }
}

/// First and last of all devices.
impl fmt::Display for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = "";
        for (what, times) in [("accepted", &self.accepted), ("delivered", &self.shown)] {
            let seconds = |time: Option<&Duration>| time.map_or(f64::NAN, Duration::as_secs_f64);
            let (first, last) = (seconds(times.values().min()), seconds(times.values().max()));
            write!(f, "{before}{what} after {first:.2} s (everybody {last:.2} s)")?;
            before = ", ";
        }
        Ok(())
    }
}
