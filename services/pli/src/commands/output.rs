// SPDX-License-Identifier: MIT OR Apache-2.0
//! Events on standard output.

use std::io::Write;

use pli_client::core::{Event, NewKey};

use super::json;
use crate::terminal::{clock, one_line};

/// The server was set back.
pub const RESTORED: &str =
    "* the server went back to a backup: what others sent after it may be missing; what waits here is sent again";

/// How events look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One JSON object a line, every event.
    Json,
    /// Messages and what a person must know.
    Text,
}

/// Prints events.
#[derive(Debug, Clone, Copy)]
pub struct Output(Shape);

impl Output {
    /// In this shape.
    pub const fn new(shape: Shape) -> Self {
        Self(shape)
    }

    /// Prints one event, flushed; false when nobody reads any more.
    pub fn event(self, event: &Event) -> bool {
        let line = match self.0 {
            Shape::Json => Some(json::of(event).to_string()),
            Shape::Text => text(event),
        };
        let Some(line) = line else { return true };
        let mut out = anstream::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush()).is_ok()
    }
}

/// The event for people; none for what they need not see here.
fn text(event: &Event) -> Option<String> {
    match event {
        Event::Message(message) => {
            let late = if message.late { " (late)" } else { "" };
            let (at, from) = (clock(message.sent_at), json::name(&message.from));
            Some(format!("{at} @{from}{late}: {}", one_line(&message.text)))
        }
        Event::Hole { from, lane_nos: (first, last), .. } => {
            Some(format!("* messages {first} to {last} of @{} have not arrived", json::name(from)))
        }
        Event::Gap => Some("* messages that waited too long are gone".into()),
        Event::ServerRestored => Some(RESTORED.into()),
        Event::NewKey { member, what } => Some(new_key(&json::name(member), *what)),
        _ => None,
    }
}

/// The notice that a key is new.
pub fn new_key(name: &str, what: NewKey) -> String {
    match what {
        NewKey::FirstContact => format!("* first contact with @{name}: compare safety numbers (/safety {name})"),
        NewKey::Device(_) => format!("* @{name} uses a new device: compare safety numbers (/safety {name})"),
        NewKey::Identity => format!(
            "* @{name} has a NEW identity key: the account was made anew, or somebody stands in between; compare \
             safety numbers (/safety {name}) before you go on"
        ),
    }
}
