// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lines on the screen.

use anstyle::{AnsiColor, Color, Style};
use pli_api::ErrorCode;
use pli_client::HistoryItem;
use pli_client::core::{Event, IncomingMessage, RowKind, RowStatus};
use pli_domain::UnixMillis;

use super::paper::Paper;
use crate::commands::about::About;
use crate::commands::json::name;
use crate::commands::output::{
    DEVICE_UNKNOWN, OLDER_PROFILE, RESTORED, Reader, added_by_stranger, device, list_refused, new_key, unreadable,
};
use crate::commands::session::sentence;
use crate::terminal::{clean, clock, one_line};

/// Colours of names; a name always has the same one.
const NAME_COLOURS: [AnsiColor; 6] = [
    AnsiColor::Cyan,
    AnsiColor::Magenta,
    AnsiColor::Blue,
    AnsiColor::Green,
    AnsiColor::BrightCyan,
    AnsiColor::BrightMagenta,
];

/// Whether standard output takes colours; honours NO_COLOR and CLICOLOR.
pub fn colours() -> bool {
    anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never
}

/// Prints lines for people.
pub struct Screen {
    paper: Paper,
    colours: bool,
}

impl Screen {
    /// On this paper.
    pub fn new(paper: Paper) -> Self {
        Self { paper, colours: colours() }
    }

    /// A line. Others choose names of groups, so nothing in it may steer the terminal.
    pub fn line(&self, text: &str) {
        self.put(one_line(text));
    }

    fn put(&self, text: String) {
        self.paper.print(&text);
    }

    /// Something to know.
    pub fn note(&self, text: &str) {
        self.styled(Style::new().dimmed(), &format!("* {text}"));
    }

    /// Something to look at.
    pub fn warning(&self, text: &str) {
        self.styled(Style::new().bold().fg_color(Some(AnsiColor::Yellow.into())), text);
    }

    /// What became of a message of one's own.
    pub fn tick(&self, text: &str) {
        self.styled(Style::new().dimmed(), &format!("      {text}"));
    }

    fn styled(&self, style: Style, text: &str) {
        self.put(self.paint(style, &one_line(text)));
    }

    fn paint(&self, style: Style, text: &str) -> String {
        if self.colours { format!("{style}{text}{style:#}") } else { text.to_string() }
    }

    /// A message of somebody else; `place` names the group.
    pub fn message(&self, message: &IncomingMessage, place: &str) {
        let late = if message.late { " (late)" } else { "" };
        self.said(message.sent_at, &name(&message.from), &format!("{place}{late}"), &message.text);
    }

    fn said(&self, at: UnixMillis, who: &str, place: &str, text: &str) {
        let pick = who.bytes().fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let colour: Color = NAME_COLOURS[pick % NAME_COLOURS.len()].into();
        let who = self.paint(Style::new().bold().fg_color(Some(colour)), &format!("@{who}"));
        let at = self.paint(Style::new().dimmed(), &clock(at));
        let place = one_line(place);
        self.put(format!("{at} {who}{place}: {}", clean(text).replace('\n', "\n      ")));
    }

    /// A row of the history; `tick` says how far a message of one's own came.
    pub fn history(&self, item: &HistoryItem, who: &str, (place, tick): (&str, &str)) {
        let row = &item.row;
        let late = if row.late { " (late)" } else { "" };
        match row.kind() {
            RowKind::Outgoing => {
                let tick = match row.status() {
                    RowStatus::Waiting => " …",
                    RowStatus::Accepted | RowStatus::Stored => tick,
                    RowStatus::Refused => " ✗",
                };
                self.said(UnixMillis(row.sent_at_ms), who, &format!("{place}{tick}"), &row.text);
            }
            RowKind::Elsewhere => self.said(UnixMillis(row.sent_at_ms), who, &format!("{place}{late}"), &row.text),
            RowKind::Incoming => self.said(UnixMillis(row.sent_at_ms), who, &format!("{place}{late}"), &row.text),
            RowKind::Hole => {
                self.note(&format!("messages {} to {} of @{who} have not arrived", row.lane_no, row.hole_to))
            }
            RowKind::Unknown => {}
        }
    }

    /// Who came and went, and where: ` #team`, or nothing in a chat of two.
    pub fn members(&self, event: &Event, place: &str) {
        let preposition = |word: &str| if place.is_empty() { String::new() } else { format!(" {word}{place}") };
        match event {
            // A newcomer whose handle is not known yet is shown when it is, with everybody.
            Event::MemberAdded { member, by, .. } if member.handle.is_some() => {
                self.note(&format!("@{} added @{}{}", name(by), name(member), preposition("to")));
            }
            Event::MemberRemoved { member, by: Some(by), .. } => {
                self.note(&format!("@{} removed @{}{}", name(by), name(member), preposition("from")));
            }
            Event::MemberRemoved { member, by: None, .. } => self.note(&format!("@{} left{place}", name(member))),
            Event::AddedByStranger { by, .. } => {
                self.warning(&added_by_stranger(&name(by), place, Reader::Chat));
            }
            _ => {}
        }
    }

    /// Everything else that a person should see.
    pub fn event(&self, event: &Event, about: &About) {
        match event {
            Event::NewKey { member, what, .. } => self.warning(&new_key(&name(member), *what, about, Reader::Chat)),
            Event::ListRefused { member, why, .. } => self.warning(&list_refused(&name(member), *why)),
            Event::DeviceChangeFailed { why, .. } => {
                self.warning(&format!("* device {}: {}", about.devices(), sentence(why)));
            }
            Event::Registered { handle } => self.note(&format!("registered as @{handle}")),
            Event::RegistrationRefused { why } => self.warning(&format!("* not registered yet: {}", sentence(why))),
            Event::ConversationFailed { why, .. } => self.warning(&format!("* cannot be started: {}", sentence(why))),
            Event::ChangeFailed { why, .. } => self.warning(&format!("* not changed: {}", sentence(why))),
            // What the server says of it names what no user of a chat has heard of, and it passes in a moment.
            Event::Waiting { why, .. } if why.code() == ErrorCode::EpochNotOpen => {
                self.note("waiting until everybody knows who is in the conversation now; it goes on by itself");
            }
            Event::Waiting { why, .. } => self.note(&format!("waiting: {}", sentence(why))),
            Event::Hole { from, lane_nos: (first, last), .. } => {
                self.warning(&format!("* messages {first} to {last} of @{} have not arrived", name(from)));
            }
            Event::Unreadable { from, .. } => self.warning(&unreadable(&name(from))),
            Event::OlderProfile => self.warning(OLDER_PROFILE),
            Event::DeviceUnknown => self.warning(DEVICE_UNKNOWN),
            Event::Gap => self.warning("* messages that waited too long for this device are gone"),
            Event::ServerRestored => self.warning(RESTORED),
            Event::Rejoining { .. } => self.note("joining the conversation again"),
            event => device(event, about).iter().for_each(|told| self.note(told)),
        }
    }
}
