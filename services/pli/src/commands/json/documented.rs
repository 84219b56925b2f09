// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether docs/events.md says what is printed, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use pli_api::{ErrorCode, refusal};
use pli_client::core::OutgoingMessage;
use pli_client::core::content::Kind;
use pli_domain::{AccountId, ConversationId, DeviceId, SendId, UnixMillis};

use super::*;
use crate::commands::printed::conversation_of;

const PAGE: &str = include_str!("../../../../../docs/events.md");

/// A field with its type, as the page and the values name it.
type Fields = BTreeMap<String, String>;

/// What each event is called. A new one must be named here, in [`samples`], and on the page.
const fn word(event: &Event) -> &'static str {
    match event {
        Event::Registered { .. } => "registered",
        Event::RegistrationRefused { .. } => "registration_refused",
        Event::Connection(_) => "connection",
        Event::ConversationReady { .. } => "ready",
        Event::ConversationFailed { .. } => "conversation_failed",
        Event::ChangeFailed { .. } => "change_failed",
        Event::Message(_) => "message",
        Event::OwnMessage(_) => "own_message",
        Event::DeviceAdded { .. } => "device_added",
        Event::DeviceRemoved { .. } => "device_removed",
        Event::DeviceRenamed { .. } => "device_renamed",
        Event::DeviceAwaited { .. } => "device_awaited",
        Event::DeviceChangeFailed { .. } => "device_change_failed",
        Event::DeviceUnknown => "device_unknown",
        Event::ListRefused { .. } => "list_refused",
        Event::Hole { .. } => "hole",
        Event::Accepted { .. } => "accepted",
        Event::Stored { .. } => "stored",
        Event::Resending { .. } => "resending",
        Event::Delivered { .. } => "delivered",
        Event::Lost { .. } => "lost",
        Event::Read { .. } => "read",
        Event::SameChat { .. } => "same_chat",
        Event::Moved { .. } => "moved",
        Event::Refused { .. } => "refused",
        Event::Waiting { .. } => "waiting",
        Event::MemberAdded { .. } => "member_added",
        Event::MemberRemoved { .. } => "member_removed",
        Event::AddedByStranger { .. } => "added_by_stranger",
        Event::Left { .. } => "left",
        Event::NewKey { .. } => "new_key",
        Event::Unreadable { .. } => "unreadable",
        Event::OlderProfile => "older_profile",
        Event::ServerRestored => "server_restored",
        Event::Gap => "gap",
        Event::Rejoining { .. } => "rejoining",
    }
}

const HERE: ConversationId = ConversationId::from_bytes([1; 16]);
const DEVICE: DeviceId = DeviceId::from_bytes([2; 16]);
const SEND: SendId = SendId::from_bytes([3; 16]);
const OWN: OutgoingMessage = OutgoingMessage { send_id: SEND, lane_no: 4, order: 5 };

fn somebody() -> Member {
    Member { account: AccountId::from_bytes([6; 16]), handle: Some("bob".parse().expect("a handle")), former: None }
}

fn written() -> IncomingMessage {
    IncomingMessage {
        conversation: HERE,
        from: somebody(),
        device: DEVICE,
        send_id: SEND,
        lane_no: 1,
        text: "hello".into(),
        sent_at: UnixMillis(1),
        accepted_at: UnixMillis(2),
        late: false,
        order: 1,
    }
}

/// One of each, and those more than once whose fields have more than one type.
fn samples() -> Vec<Event> {
    let why = || refusal(ErrorCode::NotFound, "nobody has the handle");
    let (conversation, by, member, from) = (HERE, somebody(), somebody(), somebody());
    let ready = |kind, name, added_by| Event::ConversationReady {
        conversation,
        kind,
        name,
        members: vec![somebody()],
        added_by,
    };
    let stranger = |name| Event::AddedByStranger { conversation, name, by: somebody(), order: 1 };
    let lost =
        |messages| Event::Lost { conversation, by: somebody(), device: DEVICE, lane_nos: (1, 2), messages, order: 1 };
    let removed = |by| Event::MemberRemoved { conversation, member: somebody(), by };
    vec![
        Event::Registered { handle: "bob".parse().expect("a handle") },
        Event::RegistrationRefused { why: why() },
        Event::Connection(ConnectionState::Online),
        ready(Kind::Group, Some("team".into()), Some(somebody())),
        ready(Kind::Direct, None, None),
        Event::ConversationFailed { conversation, why: why() },
        Event::ChangeFailed { conversation, why: why() },
        Event::Message(written()),
        Event::OwnMessage(written()),
        Event::DeviceAdded { device: DEVICE },
        Event::DeviceRemoved { device: DEVICE },
        Event::DeviceRenamed { device: DEVICE },
        Event::DeviceAwaited { conversation, member: member.clone(), device: DEVICE },
        Event::DeviceChangeFailed { device: DEVICE, why: why() },
        Event::DeviceUnknown,
        Event::ListRefused { member: member.clone(), why: RefusedList::Older, order: 1 },
        Event::Hole { conversation, from: from.clone(), device: DEVICE, lane_nos: (1, 2), order: 1 },
        Event::Accepted { conversation, message: SEND, at: UnixMillis(1) },
        Event::Stored { conversation, message: SEND },
        Event::Resending { conversation, message: SEND },
        Event::Delivered { conversation, by: by.clone(), device: DEVICE, from: 1, up_to: 1 },
        lost(vec![SEND]),
        Event::Read { conversation, by: by.clone(), device: DEVICE, from: 1, up_to: 1 },
        Event::SameChat { conversation, into: HERE },
        Event::Moved { conversation, into: HERE, message: OWN },
        Event::Refused { conversation, message: SEND, why: why() },
        Event::Waiting { conversation, why: why() },
        Event::MemberAdded { conversation, member: member.clone(), by },
        removed(Some(somebody())),
        removed(None),
        stranger(Some("team".into())),
        stranger(None),
        Event::Left { conversation, by: Some(somebody()) },
        Event::Left { conversation, by: None },
        Event::NewKey { member: member.clone(), what: NewKey::FirstContact, order: 1 },
        Event::NewKey { member, what: NewKey::Device(DEVICE), order: 1 },
        Event::Unreadable { conversation, from, device: DEVICE },
        Event::OlderProfile,
        Event::ServerRestored,
        Event::Gap,
        Event::Rejoining { conversation, why: "a commit is missing".into() },
    ]
}

const fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array of strings",
        Value::Object(_) => "object",
    }
}

/// What the values of a line are, joined with what other lines of the event showed.
fn note(events: &mut BTreeMap<String, Fields>, line: &Value) {
    let fields = events.entry(line["event"].as_str().expect("a word").to_owned()).or_default();
    for (name, value) in line.as_object().expect("an object").iter().filter(|(name, _)| *name != "event") {
        let of = type_of(value);
        let known = fields.entry(name.clone()).or_insert_with(|| of.into());
        match (known.as_str(), of) {
            (known, of) if known == of => {}
            ("string or null", "string" | "null") => {}
            ("string", "null") | ("null", "string") => *known = "string or null".into(),
            (known, of) => panic!("{name} is {known} and {of}"),
        }
    }
}

fn printed() -> BTreeMap<String, Fields> {
    let mut events = BTreeMap::new();
    samples().iter().for_each(|event| note(&mut events, &of(event)));
    let outcome = Outcome { conversation: Some(HERE), message: Some(OWN) };
    note(&mut events, &sent(&outcome).expect("a message"));
    note(&mut events, &not_sent(1, &Unfit::NotText));
    events
}

/// The sections of the page: each event's name with what stands below it.
fn sections(page: &str) -> Vec<(&str, &str)> {
    page.split("\n### `").skip(1).map(|section| section.split_once('`').expect("a name")).collect()
}

fn described(page: &str) -> BTreeMap<String, Fields> {
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        Some((cells.next()?.trim_end_matches('`').to_owned(), cells.next()?.to_owned()))
    };
    let section = |(name, text): (&str, &str)| (name.to_owned(), text.lines().filter_map(row).collect());
    sections(page).into_iter().map(section).collect()
}

#[test]
fn every_event_has_its_own_word() {
    for event in samples() {
        assert_eq!(of(&event)["event"], word(&event), "{event:?}");
    }
}

#[test]
fn the_page_describes_every_event_with_every_field_and_nothing_else() {
    assert_eq!(described(PAGE), printed());
    // The comparison sees a field that is missing on either side.
    assert_ne!(described(&PAGE.replace("| `up_to` | integer", "| `upto` | integer")), printed());
}

#[test]
fn the_page_describes_the_groups_that_are_listed() {
    let view = |name: &str, left| ConversationView {
        id: HERE,
        parts: vec![HERE],
        kind: Kind::Group,
        name: None,
        label: name.into(),
        short_id: "010101".into(),
        members: vec![somebody()],
        peer: None,
        leaving: vec![somebody()],
        ready: true,
        left,
        delivered: 0,
        read: 0,
    };
    let (me, bob) = (AccountId::from_bytes([9; 16]), somebody().account);
    let mut printed = BTreeMap::new();
    for line in [group(&view("team", false), me), group(&view("", true), bob), former_part(&view("team", false), HERE)]
    {
        note(&mut printed, &line);
    }
    let table = PAGE.split("prints one `group` for each group:").nth(1).and_then(|rest| rest.split("\n## ").next());
    assert_eq!(described(&format!("\n### `group`{}", table.expect("it is described"))), printed);
    let leaving =
        [(false, bob), (false, me), (true, bob)].map(|(left, me)| group(&view("team", left), me)["leaving"] == true);
    assert_eq!(leaving, [true, false, false]);
}

#[test]
fn the_page_says_which_command_prints_what() {
    let ticks: BTreeSet<&str> = samples().iter().filter(|event| of_tick(event).is_some()).map(word).collect();
    for (name, text) in sections(PAGE) {
        let text = text.replace('\n', " ");
        let by = match name {
            "sent" => "Printed by send and pipe.",
            "not_sent" => "Printed by pipe.",
            name if ticks.contains(name) => "Printed by send, recv and pipe.",
            _ => "Printed by recv and pipe.",
        };
        assert!(text.contains(by), "{name}: {by}");
    }
}

#[test]
fn the_page_names_every_word_that_a_field_may_hold() {
    use ConnectionState::{CatchingUp, Offline, Online, Registering};
    let states = [Offline, Registering, CatchingUp, Online].map(state_word);
    let keys = [NewKey::FirstContact, NewKey::Device(DEVICE), NewKey::Identity].map(key_word);
    let unfit = [Unfit::TooLong(1), Unfit::NotText, Unfit::NotTaken(String::new())].map(|unfit| unfit.code());
    let lists = [RefusedList::Older, RefusedList::Forked, RefusedList::Unlinked, RefusedList::Invalid].map(list_word);
    for word in states.into_iter().chain(keys).chain(unfit).chain(lists) {
        assert!(PAGE.contains(&format!("`{word}`")), "{word}");
    }
}

#[test]
fn a_group_is_named_beside_its_conversation_and_nowhere_else() {
    for event in samples() {
        let line = with_group(&event, Some("team"));
        let is_somewhere = line.get("conversation").is_some_and(Value::is_string);
        assert_eq!(line.get("group").is_some(), is_somewhere, "{line}");
        // The printer asks what the group is called wherever the line has room for it.
        let asked = conversation_of(&event).map(|id| id.to_string());
        assert_eq!(line.get("conversation").and_then(Value::as_str), asked.as_deref(), "{line}");
    }
}

#[test]
fn a_group_whose_name_is_not_known_is_null_and_one_that_shares_its_name_is_told_apart() {
    let left = Event::Left { conversation: HERE, by: None };
    for (label, group) in [("~010101", Value::Null), ("team~010101", "team~010101".into()), ("team", "team".into())] {
        assert_eq!(with_group(&left, Some(label))["group"], group);
    }
}
