// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a line of an event log may say.

use std::io::BufRead;

use serde::{Deserialize, Serialize};

/// One thing that happened. Ids are text in one spelling per log; positions are the numbers of the session protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The sender is about to send; written before the first try.
    Intended {
        /// Sending device.
        sender: String,
        /// Its name for the content.
        send_id: String,
        /// Order domain.
        lane: String,
        /// Consecutive number in the lane.
        lane_no: u64,
        /// Devices that must show it.
        recipients: Vec<String>,
    },
    /// A try left the sender. Repeated for a resend.
    Sent {
        /// Sending device.
        sender: String,
        /// Which message.
        send_id: String,
    },
    /// The server said `accepted`.
    Accepted {
        /// Sending device.
        sender: String,
        /// Which message.
        send_id: String,
    },
    /// The server said `stored`.
    Stored {
        /// Sending device.
        sender: String,
        /// Which message.
        send_id: String,
    },
    /// The sender gave the message up without it being accepted.
    Refused {
        /// Sending device.
        sender: String,
        /// Which message.
        send_id: String,
    },
    /// The message's life ended; from here on it need not be shown.
    Expired {
        /// Sending device.
        sender: String,
        /// Which message.
        send_id: String,
    },
    /// A copy of the message stands at this position of the device's queue. Only who sees the log can write this;
    /// without it a message inside a gap counts as lost.
    Placed {
        /// Whose queue.
        device: String,
        /// Sending device.
        sender: String,
        /// Which message.
        send_id: String,
        /// Where.
        position: u64,
    },
    /// What stood at this position vanished with the end of its log; a session may pass it.
    Dropped {
        /// Whose queue.
        device: String,
        /// Where.
        position: u64,
    },
    /// A session is open and reads above `from`.
    Session {
        /// Whose session.
        device: String,
        /// Its name.
        session: String,
        /// It reads above this.
        from: u64,
    },
    /// A delivery left for the session.
    Delivered {
        /// Whose session.
        device: String,
        /// Which session.
        session: String,
        /// Position of the delivery.
        position: u64,
    },
    /// The user saw the message.
    Shown {
        /// On which device.
        device: String,
        /// Sending device.
        sender: String,
        /// Which message.
        send_id: String,
        /// Order domain as the content says.
        lane: String,
        /// Number as the content says.
        lane_no: u64,
        /// It was shown as late.
        #[serde(default)]
        late: bool,
    },
    /// The device stopped waiting for these lane numbers and said so.
    Hole {
        /// On which device.
        device: String,
        /// Order domain.
        lane: String,
        /// First missing number.
        from: u64,
        /// Last missing number.
        to: u64,
    },
    /// The device was told that what lies above `from`, up to and including `to`, is gone.
    Gap {
        /// Which device.
        device: String,
        /// In which session; empty where the writer does not know.
        #[serde(default)]
        session: String,
        /// Everything above this.
        from: u64,
        /// Up to and including this.
        to: u64,
    },
    /// The device made everything up to here durable.
    Committed {
        /// Which device.
        device: String,
        /// Up to here.
        position: u64,
    },
    /// The device acknowledged everything up to here.
    Acked {
        /// Which device.
        device: String,
        /// Up to here.
        position: u64,
    },
    /// The server stored this cursor.
    Cursor {
        /// Whose.
        device: String,
        /// The cursor.
        position: u64,
    },
    /// The device was removed from its account; nothing more is expected of it.
    Removed {
        /// Which device.
        device: String,
    },
}

/// An event log that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum EventLogError {
    /// The file could not be read.
    #[error("line {line} of the event log could not be read")]
    Io {
        /// Counted from 1.
        line: usize,
        /// What the file system said.
        #[source]
        source: std::io::Error,
    },
    /// A line is not an event.
    #[error("line {line} of the event log is not an event")]
    Parse {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// The events of a log in JSON lines.
pub fn read_log(log: impl BufRead) -> impl Iterator<Item = Result<Event, EventLogError>> {
    log.lines().enumerate().filter_map(|(index, text)| {
        let line = index + 1;
        match text {
            Err(source) => Some(Err(EventLogError::Io { line, source })),
            Ok(text) if text.trim().is_empty() => None,
            Ok(text) => Some(serde_json::from_str(&text).map_err(|source| EventLogError::Parse { line, source })),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_pinned() {
        let text = r#"{"event":"shown","device":"b","sender":"a","send_id":"1","lane":"l","lane_no":3,"late":true}"#;
        let event: Event = serde_json::from_str(text).expect("an event");
        assert_eq!(serde_json::to_string(&event).expect("serializes"), text);
    }

    #[test]
    fn unknown_fields_are_ignored_and_unknown_events_are_refused_with_their_line() {
        let log = "\n{\"event\":\"removed\",\"device\":\"b\",\"at_ms\":12}\n{\"event\":\"vanished\"}\n";
        let read: Vec<_> = read_log(log.as_bytes()).collect();
        assert!(matches!(&read[0], Ok(Event::Removed { device }) if device == "b"));
        assert!(matches!(&read[1], Err(EventLogError::Parse { line: 3, .. })));
    }
}
