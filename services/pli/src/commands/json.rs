// SPDX-License-Identifier: MIT OR Apache-2.0
//! Events as lines of JSON, for scripts. Names and fields are stable, and described in docs/events.md.

use pli_api::common;
use pli_client::core::content::SHORT_ID_MARK;
use pli_client::core::{
    ConnectionState, ConversationView, Event, IncomingMessage, Member, NewKey, Outcome, RefusedList,
};
use pli_domain::{AccountId, ConversationId};
use serde_json::{Value, json};

use super::about::About;
use super::advice::advice;
use super::lines::Unfit;

/// The event as in [`of`], with what the group is called as `group` beside the conversation's id; null for two people, and
/// as long as the group's name is not known: a short id alone is none.
pub fn with_group(event: &Event, group: Option<&str>) -> Value {
    let mut line = of(event);
    let group = group.filter(|group| !group.starts_with(SHORT_ID_MARK));
    if line.get("conversation").is_some_and(Value::is_string) {
        line["group"] = group.into();
    }
    line
}

/// The same with the name of the device that it is about as `device_name` beside the device's id, where it is known.
pub fn with_about(event: &Event, about: &About) -> Value {
    let mut line = with_group(event, about.group.as_deref());
    match (about.devices.as_slice(), line.get("device")) {
        ([name], Some(Value::String(_))) => line["device_name"] = name.clone().into(),
        (_, Some(Value::Null)) => line["device_name"] = Value::Null,
        _ => {}
    }
    line
}

/// The event as one object whose `event` says what it is.
pub fn of(event: &Event) -> Value {
    match event {
        Event::Message(message) => written("message", message),
        Event::OwnMessage(message) => written("own_message", message),
        Event::Hole { conversation, from, lane_nos: (first, last), order, .. } => json!({
            "event": "hole", "conversation": conversation.to_string(), "from": name(from), "first": first, "last": last,
            "order": order,
        }),
        Event::Unreadable { conversation, from, .. } => {
            json!({ "event": "unreadable", "conversation": conversation.to_string(), "from": name(from) })
        }
        Event::OlderProfile => json!({ "event": "older_profile" }),
        Event::Gap => json!({ "event": "gap" }),
        Event::ServerRestored => json!({ "event": "server_restored" }),
        Event::Connection(state) => json!({ "event": "connection", "state": state_word(*state) }),
        Event::Registered { handle } => json!({ "event": "registered", "handle": handle.to_string() }),
        Event::RegistrationRefused { why } => failed("registration_refused", None, why),
        Event::Waiting { conversation, why } => failed("waiting", Some(conversation), why),
        Event::ConversationFailed { conversation, why } => failed("conversation_failed", Some(conversation), why),
        Event::ChangeFailed { conversation, why } => failed("change_failed", Some(conversation), why),
        tick => of_tick(tick).unwrap_or_else(|| of_group(tick)),
    }
}

/// A message was given to the outbox.
pub fn sent(outcome: &Outcome) -> Option<Value> {
    let (conversation, message) = (outcome.conversation?, outcome.message?);
    Some(json!({
        "event": "sent", "conversation": conversation.to_string(), "send_id": message.send_id.to_string(),
        "lane_no": message.lane_no,
    }))
}

/// A group, as `pli group list` tells it to `me`.
pub fn group(view: &ConversationView, me: AccountId) -> Value {
    let members: Vec<String> = view.members.iter().filter(|_| !view.left).map(name).collect();
    json!({
        "event": "group", "conversation": view.id.to_string(), "group": called(view), "members": members,
        "leaving": !view.left && view.leaving.iter().any(|member| member.account == me), "ended": view.left,
        "into": Value::Null,
    })
}

/// An older conversation of a group, which goes on in another one.
pub fn former_part(view: &ConversationView, part: ConversationId) -> Value {
    json!({
        "event": "group", "conversation": part.to_string(), "group": called(view), "members": [], "leaving": false,
        "ended": true, "into": view.id.to_string(),
    })
}

/// What a group is called; none where its name is not known.
fn called(view: &ConversationView) -> Option<&str> {
    Some(view.label.as_str()).filter(|label| !label.is_empty() && !label.starts_with(SHORT_ID_MARK))
}

/// A line of the input is not sent.
pub fn not_sent(number: u64, unfit: &Unfit) -> Value {
    json!({ "event": "not_sent", "line": number, "code": unfit.code(), "message": unfit.to_string() })
}

/// What becomes of one's own messages.
pub fn of_tick(event: &Event) -> Option<Value> {
    let line = match event {
        Event::Accepted { conversation, message, at } => json!({
            "event": "accepted", "conversation": conversation.to_string(), "send_id": message.to_string(), "at_ms": at.0,
        }),
        Event::Stored { conversation, message } => {
            json!({ "event": "stored", "conversation": conversation.to_string(), "send_id": message.to_string() })
        }
        Event::Resending { conversation, message } => {
            json!({ "event": "resending", "conversation": conversation.to_string(), "send_id": message.to_string() })
        }
        Event::Delivered { conversation, by, from, up_to, .. } => json!({
            "event": "delivered", "conversation": conversation.to_string(), "by": name(by), "from": from, "up_to": up_to,
        }),
        Event::Lost { conversation, by, lane_nos: (first, last), messages, order, .. } => json!({
            "event": "lost", "conversation": conversation.to_string(), "by": name(by), "first": first, "last": last,
            "order": order,
            "send_ids": messages.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }),
        Event::Read { conversation, by, from, up_to, .. } => json!({
            "event": "read", "conversation": conversation.to_string(), "by": name(by), "from": from, "up_to": up_to,
        }),
        Event::Moved { conversation, into, message } => json!({
            "event": "moved", "conversation": conversation.to_string(), "into": into.to_string(),
            "send_id": message.send_id.to_string(), "lane_no": message.lane_no,
        }),
        Event::Refused { conversation, message, why } => {
            let mut line = failed("refused", Some(conversation), why);
            line["send_id"] = message.to_string().into();
            line
        }
        _ => return None,
    };
    Some(line)
}

/// Who is in a conversation, and their keys.
fn of_group(event: &Event) -> Value {
    match event {
        Event::ConversationReady { conversation, name: called, members, added_by, .. } => {
            let members: Vec<_> = members.iter().map(name).collect();
            json!({
                "event": "ready", "conversation": conversation.to_string(), "name": called, "members": members,
                "added_by": added_by.as_ref().map(name),
            })
        }
        Event::MemberAdded { conversation, member, by } => json!({
            "event": "member_added", "conversation": conversation.to_string(), "member": name(member), "by": name(by),
        }),
        Event::MemberRemoved { conversation, member, by } => json!({
            "event": "member_removed", "conversation": conversation.to_string(), "member": name(member),
            "by": by.as_ref().map(name),
        }),
        Event::AddedByStranger { conversation, name: called, by, order } => json!({
            "event": "added_by_stranger", "conversation": conversation.to_string(), "name": called, "by": name(by),
            "order": order,
        }),
        Event::Left { conversation, by } => json!({
            "event": "left", "conversation": conversation.to_string(), "by": by.as_ref().map(name),
        }),
        Event::SameChat { conversation, into } => json!({
            "event": "same_chat", "conversation": conversation.to_string(), "into": into.to_string(),
        }),
        Event::Rejoining { conversation, why } => json!({
            "event": "rejoining", "conversation": conversation.to_string(), "why": why,
        }),
        Event::NewKey { member, what, order } => {
            let device = if let NewKey::Device(device) = what { Some(device.to_string()) } else { None };
            json!({
                "event": "new_key", "member": name(member), "what": key_word(*what), "device": device, "order": order
            })
        }
        Event::ListRefused { member, why, order } => {
            json!({ "event": "list_refused", "member": name(member), "why": list_word(*why), "order": order })
        }
        Event::DeviceAdded { device } => json!({ "event": "device_added", "device": device.to_string() }),
        Event::DeviceRenamed { device } => json!({ "event": "device_renamed", "device": device.to_string() }),
        Event::DeviceRemoved { device } => json!({ "event": "device_removed", "device": device.to_string() }),
        Event::DeviceAwaited { conversation, member, device } => json!({
            "event": "device_awaited", "conversation": conversation.to_string(), "member": name(member),
            "device": device.to_string(),
        }),
        Event::DeviceChangeFailed { device, why } => json!({
            "event": "device_change_failed", "device": device.to_string(), "code": why.code().as_str_name(),
            "message": why.message, "advice": advice(why.code()),
        }),
        Event::DeviceUnknown => json!({ "event": "device_unknown" }),
        _ => json!({ "event": "unknown" }),
    }
}

/// What somebody wrote, or one's own other device.
fn written(event: &str, message: &IncomingMessage) -> Value {
    json!({
        "event": event, "conversation": message.conversation.to_string(), "from": name(&message.from),
        "device": message.device.to_string(), "send_id": message.send_id.to_string(), "lane_no": message.lane_no,
        "text": message.text, "sent_at_ms": message.sent_at.0, "accepted_at_ms": message.accepted_at.0,
        "late": message.late, "order": message.order,
    })
}

const fn list_word(why: RefusedList) -> &'static str {
    match why {
        RefusedList::Older => "older",
        RefusedList::Forked => "forked",
        RefusedList::Unlinked => "unlinked",
        RefusedList::Invalid => "invalid",
    }
}

fn failed(event: &str, conversation: Option<&pli_domain::ConversationId>, why: &common::Error) -> Value {
    json!({
        "event": event, "conversation": conversation.map(ToString::to_string), "code": why.code().as_str_name(),
        "message": why.message, "advice": advice(why.code()),
    })
}

/// What somebody is called.
pub fn name(member: &Member) -> String {
    member.name()
}

const fn state_word(state: ConnectionState) -> &'static str {
    match state {
        ConnectionState::Offline => "offline",
        ConnectionState::Registering => "registering",
        ConnectionState::CatchingUp => "catching_up",
        ConnectionState::Online => "online",
    }
}

const fn key_word(what: NewKey) -> &'static str {
    match what {
        NewKey::FirstContact => "first_contact",
        NewKey::Device(_) => "device",
        NewKey::Identity => "identity",
    }
}

#[cfg(test)]
mod documented;
