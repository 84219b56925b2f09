// SPDX-License-Identifier: MIT OR Apache-2.0
//! Events on standard output.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use pli_client::core::{Event, Member, NewKey, RefusedList};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};

use super::about::About;
use super::json;
use super::session::sentence;
use super::to_copy::quoted;
use crate::terminal::{clock, one_line};

/// The server does not know a companion device.
pub const DEVICE_UNKNOWN: &str = "* the server does not know this device; start the account's first device, which tells it, or link \
     this one anew; trying on";
/// The server was set back.
pub const RESTORED: &str = "* the server was restored from a backup: conversations go on by themselves, what waits here is sent again; what others \
     sent after the backup and was not received before may be missing";

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
pub struct Output {
    shape: Shape,
    kept: bool,
}

impl Output {
    /// In this shape.
    pub fn new(shape: Shape) -> Self {
        Self { shape, kept: is_writable(std::io::stdout()) }
    }

    /// Whether many events may be told in one line.
    pub fn merges(self) -> bool {
        self.shape == Shape::Text
    }

    /// Whether what is printed goes anywhere. A standard output that was closed when the process began does not.
    pub const fn is_kept(self) -> bool {
        self.kept
    }

    /// Prints one event, flushed; false where it is none that this shape shows.
    ///
    /// `about` says what its group and its devices are called.
    pub fn event(self, event: &Event, about: &About) -> io::Result<bool> {
        let line = match self.shape {
            Shape::Json => Some(json::with_about(event, about).to_string()),
            Shape::Text => text(event, about),
        };
        let Some(line) = line else { return Ok(false) };
        match self.shape {
            // What strips colours for a pipe would take a character out of a message.
            Shape::Json => write_line(std::io::stdout().lock(), &line),
            Shape::Text => write_line(anstream::stdout().lock(), &line),
        }
        .map(|()| true)
    }
}

fn write_line(mut out: impl Write, line: &str) -> io::Result<()> {
    writeln!(out, "{line}").and_then(|()| out.flush())
}

/// Whether writes to standard output arrive. The runtime of the language puts `/dev/null`, open for reading and writing,
/// in the place of a descriptor that is closed at the start, and takes a write to one that is open for reading only as
/// done; `> /dev/null` is open for writing only, and wanted.
fn is_writable(out: impl AsFd) -> bool {
    let (Ok(flags), Ok(status)) = (fcntl_getfl(&out), fstat(&out)) else { return false };
    let null = std::fs::metadata("/dev/null").is_ok_and(|null| null.rdev() == status.st_rdev);
    match flags & OFlags::RWMODE {
        OFlags::WRONLY => true,
        OFlags::RDWR => !(null && FileType::from_raw_mode(status.st_mode) == FileType::CharacterDevice),
        _ => false,
    }
}

/// The event for people; none for what they need not see here.
fn text(event: &Event, about: &About) -> Option<String> {
    let group = about.group.as_deref();
    match event {
        Event::Message(message) => {
            let late = if message.late { " (late)" } else { "" };
            let (at, from) = (clock(message.sent_at), json::name(&message.from));
            let group = group.map_or(String::new(), |group| format!(" #{}", one_line(group)));
            Some(format!("{at} @{from}{group}{late}: {}", one_line(&message.text)))
        }
        Event::OwnMessage(message) => {
            let late = if message.late { " (late)" } else { "" };
            let to = about.to.as_deref().map_or(String::new(), |to| format!(" to @{}", one_line(to)));
            let group = group.map_or(to, |group| format!(" #{}", one_line(group)));
            Some(format!("{} you{group}{late}: {}", clock(message.sent_at), one_line(&message.text)))
        }
        Event::ListRefused { member, why, .. } => Some(list_refused(&json::name(member), *why)),
        Event::DeviceUnknown => Some(DEVICE_UNKNOWN.into()),
        Event::DeviceChangeFailed { why, .. } => Some(format!("* device {}: {}", about.devices(), sentence(why))),
        Event::Hole { from, lane_nos: (first, last), .. } => {
            Some(format!("* messages {first} to {last} of @{} have not arrived", json::name(from)))
        }
        Event::Unreadable { from, .. } => Some(unreadable(&json::name(from))),
        Event::OlderProfile => Some(OLDER_PROFILE.into()),
        Event::Gap => Some("* messages that waited too long are gone".into()),
        Event::ServerRestored => Some(RESTORED.into()),
        Event::NewKey { member, what, .. } => Some(new_key(&json::name(member), *what, about, Reader::Shell)),
        Event::Left { by, .. } => {
            let place = group.map_or(" a conversation".into(), |group| format!(" #{}", one_line(group)));
            Some(format!("* {}", no_longer_in(&place, by.as_ref())))
        }
        Event::AddedByStranger { by, .. } => {
            let place = group.map_or(String::new(), |group| format!(" #{}", one_line(group)));
            Some(added_by_stranger(&json::name(by), &place, Reader::Shell))
        }
        Event::Lost { by, lane_nos: (first, last), .. } => {
            let place = group.map_or(String::new(), |group| format!(" in #{}", one_line(group)));
            let which = match first == last {
                true => format!("message {first} of yours{place}"),
                false => format!("messages {first} to {last} of yours{place}"),
            };
            Some(format!("* {}", lost(by, &which, about)))
        }
        event => device(event, about).map(|told| format!("* {told}")),
    }
}

/// What became of a device.
pub fn device(event: &Event, about: &About) -> Option<String> {
    let name = about.devices();
    match event {
        Event::DeviceAdded { .. } => Some(format!("{name} is one of your devices now")),
        Event::DeviceRenamed { .. } => Some(format!("a device of yours is called {name} now")),
        Event::DeviceRemoved { .. } => Some(format!("device {name} is not one of yours any more")),
        Event::DeviceAwaited { member, .. } => {
            Some(format!("{name}, a device of @{}, comes in when it has connected", json::name(member)))
        }
        _ => None,
    }
}

/// What a person must know whatever they do, of an event that a command does not print.
pub fn warning(event: &Event) -> Option<String> {
    match event {
        Event::ServerRestored
        | Event::OlderProfile
        | Event::ListRefused { .. }
        | Event::NewKey { what: NewKey::Identity, .. } => text(event, &About::default()),
        _ => None,
    }
}

/// Who reads a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// Somebody in a chat, who can type its commands.
    Chat,
    /// Somebody at a shell.
    Shell,
}

impl Reader {
    fn safety(self, name: &str) -> String {
        match self {
            Self::Chat => format!("/safety {name}"),
            Self::Shell => format!("`/safety {name}` in a chat"),
        }
    }
}

/// The notice that somebody with whom one has no chat added one to a group; `place` is ` #NAME`, or empty.
pub fn added_by_stranger(name: &str, place: &str, reader: Reader) -> String {
    let group = if place.is_empty() { " a group" } else { place };
    let leaves = match reader {
        Reader::Chat => "/leave in it to go",
        Reader::Shell => "`pli group leave` goes",
    };
    format!("* @{name}, with whom you have no chat, added you to{group}; {leaves}")
}

/// The notice that messages of one's own are lost. What another device of one's own lacks is not sent again: the history
/// brings it, from the first device.
pub fn lost(by: &Member, which: &str, about: &About) -> String {
    let name = json::name(by);
    if !about.own {
        return format!("lost, never shown to @{name}: {which}; send it again");
    }
    let device = about.devices();
    if about.first {
        return format!("lost, never shown on your {device}: {which}; it is on this one");
    }
    let brings = about.invocation.line(&format!("device history {name} --to {}", quoted(device.clone())));
    format!("lost, never shown on your {device}: {which}; `{brings}` on the first device brings it")
}

/// The notice that this profile went back in time.
pub const OLDER_PROFILE: &str = "* this profile is older than what was already sent or received with it (restored, or \
                                 used in two places): it joins its conversations again; what came meanwhile is not here";

/// The notice that a message cannot be opened.
pub fn unreadable(name: &str) -> String {
    format!(
        "* a message of @{name} cannot be opened; ask for it again (a restored profile causes this until it is noticed)"
    )
}

/// The notice that a key is new.
pub fn new_key(name: &str, what: NewKey, about: &About, reader: Reader) -> String {
    let (devices, safety) = (about.devices(), reader.safety(name));
    let count = match about.devices.len() {
        0 | 1 => "a new device".to_owned(),
        count => format!("{count} new devices"),
    };
    match what {
        NewKey::FirstContact => format!("* first contact with @{name}: compare safety numbers ({safety})"),
        NewKey::Device(_) if about.own => {
            let which = if let [one] = about.devices.as_slice() { quoted(one.clone()) } else { "NAME".into() };
            let removes = about.invocation.line(&format!("device remove {name} {which}"));
            format!("* you have {count}: {devices}; what is not yours, remove on the first device: `{removes}`")
        }
        NewKey::Device(_) => format!(
            "* @{name} uses {count}, {devices}, let in by their first device; the safety number stays as it was: ask \
             @{name} whether it was they"
        ),
        NewKey::Identity => format!(
            "* @{name} has a NEW identity key: the account was made anew, or somebody stands in between; compare \
             safety numbers ({safety}) before you go on"
        ),
    }
}

/// That one is out of ` #team`, and by whom where somebody else has done it.
pub fn no_longer_in(place: &str, by: Option<&Member>) -> String {
    let by = by.map_or(String::new(), |by| format!(": @{} removed you", json::name(by)));
    format!("you are no longer in{place}{by}")
}

/// The notice that a device list was not taken.
pub fn list_refused(name: &str, why: RefusedList) -> String {
    let what = match why {
        RefusedList::Older => "is older than one that was seen before: the server was restored, or hides a removal",
        RefusedList::Forked => "was made from another one than was seen before: the server shows two of them",
        RefusedList::Unlinked => "is given without the ones before it",
        RefusedList::Invalid => "is not signed by the account, or contradicts itself",
    };
    let then = if why == RefusedList::Older {
        ", and the newest one is put again when their first device connects"
    } else {
        ""
    };
    format!("* the server's list of @{name}'s devices is not taken: it {what}; what was known before stays{then}")
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use pli_client::core::{IncomingMessage, Member};
    use pli_domain::{AccountId, ConversationId, DeviceId, SendId, UnixMillis};

    use super::*;

    #[test]
    fn whatever_has_a_place_in_the_history_is_a_line_for_people_too() {
        let (conversation, device) = (ConversationId::from_bytes([1; 16]), DeviceId::from_bytes([4; 16]));
        let bob = Member {
            account: AccountId::from_bytes([3; 16]),
            handle: Some("bob".parse().expect("a handle")),
            former: None,
        };
        let message = IncomingMessage {
            conversation,
            from: bob.clone(),
            device,
            send_id: SendId::from_bytes([5; 16]),
            lane_no: 1,
            text: "hello".into(),
            sent_at: UnixMillis(0),
            accepted_at: UnixMillis(0),
            late: false,
            order: 1,
        };
        let lost =
            Event::Lost { conversation, by: bob.clone(), device, lane_nos: (2, 3), messages: Vec::new(), order: 3 };
        let stranger = Event::AddedByStranger { conversation, name: None, by: bob.clone(), order: 4 };
        for (group, words) in [(Some("team".to_owned()), "#team"), (None, "a conversation")] {
            let said = text(&Event::Left { conversation, by: None }, &About { group, ..About::default() });
            assert_eq!(said, Some(format!("* you are no longer in {words}")));
        }
        let own = Event::OwnMessage(message.clone());
        for (to, words) in [(Some("bob".to_owned()), " you to @bob: hello"), (None, " you: hello")] {
            let said = text(&own, &About { to, ..About::default() }).unwrap_or_default();
            assert!(said.ends_with(words), "{said}");
        }
        for (event, words) in [
            (own, " you #team: hello"),
            (Event::Message(message), "@bob #team: hello"),
            (Event::Hole { conversation, from: bob.clone(), device, lane_nos: (1, 2), order: 2 }, "of @bob"),
            (lost, "* lost, never shown to @bob: messages 2 to 3 of yours in #team; send it again"),
            (stranger, "* @bob, with whom you have no chat, added you to #team; `pli group leave` goes"),
            (
                Event::NewKey { member: bob, what: NewKey::Identity, order: 5 },
                "(`/safety bob` in a chat) before you go on",
            ),
        ] {
            assert!(event.order().is_some());
            let about = About { group: Some("team".into()), ..About::default() };
            let said = text(&event, &about).unwrap_or_default();
            assert!(said.contains(words), "{event:?}: {said}");
        }
    }

    #[test]
    fn what_is_lost_on_a_device_of_ones_own_is_not_sent_again_but_handed_over() {
        let alice = Member {
            account: AccountId::from_bytes([3; 16]),
            handle: Some("alice".parse().expect("a handle")),
            former: None,
        };
        let about = |name: &str, own, first| About { devices: vec![name.into()], own, first, ..About::default() };
        let said = lost(&alice, "message 2", &about("work laptop", true, false));
        assert!(said.contains("`pli device history alice --to 'work laptop'`") && !said.contains("send it"), "{said}");
        assert!(!lost(&alice, "message 2", &about("first device", true, true)).contains("pli device history"));
        assert!(lost(&alice, "message 2", &about("laptop", false, false)).contains("@alice: message 2; send it again"));
        let two = About { devices: vec!["laptop".into(), "tablet".into()], ..About::default() };
        let said = new_key("alice", NewKey::Device(DeviceId::from_bytes([1; 16])), &two, Reader::Chat);
        assert!(said.contains("@alice uses 2 new devices, laptop and tablet, let in by their first device"), "{said}");
        let said = new_key("alice", NewKey::FirstContact, &About::default(), Reader::Chat);
        assert!(said.ends_with("(/safety alice)"), "{said}");
    }

    #[test]
    fn a_closed_standard_output_is_told_from_one_that_is_thrown_away() {
        let null =
            |read: bool, write: bool| OpenOptions::new().read(read).write(write).open("/dev/null").expect("there");
        assert!(is_writable(null(false, true)), "> /dev/null");
        assert!(!is_writable(null(true, true)), "what stands in for a closed one");
        assert!(!is_writable(null(true, false)), "open for reading only");
        let file = tempfile::tempfile().expect("a file");
        assert!(is_writable(file), "a file or terminal that can be read too");
    }
}
