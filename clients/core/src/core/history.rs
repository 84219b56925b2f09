// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rows of the history and what is shown.

use bytes::Bytes;
use pli_domain::{AccountId, ConversationId, UnixMillis};
use prost::Message as _;

use super::tables::{MessageRow, RowKind, RowStatus, Table};
use super::{Core, Event, IncomingMessage, Row};
use crate::content::{Content, GroupInfo, Kind, LifeSpan, group_name};
use crate::inbox::{InLane, Shown};
use crate::outbox::OutMessage;

/// What the inbox puts in order. Stored while it is held; numbers are never reused.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Ordered {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) account: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) content: Bytes,
    #[prost(uint64, tag = "3")]
    pub(super) sent_at_ms: u64,
    #[prost(uint64, tag = "4")]
    pub(super) accepted_at_ms: u64,
    /// As in [`crate::content::Frame`].
    #[prost(message, repeated, tag = "5")]
    pub(super) lives: Vec<LifeSpan>,
    /// As in [`crate::content::Frame`].
    #[prost(uint64, tag = "6")]
    pub(super) place: u64,
    #[prost(fixed64, tag = "7")]
    pub(super) written_in: u64,
    #[prost(fixed64, repeated, tag = "8")]
    pub(super) line: Vec<u64>,
}

/// What the outbox keeps. Stored; numbers are never reused.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Draft {
    /// Place in the history; 0 for what has none (ticks, names).
    #[prost(uint64, tag = "1")]
    pub(super) order: u64,
    #[prost(uint64, tag = "2")]
    pub(super) sent_at_ms: u64,
    /// Empty for what only takes a number.
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) content: Bytes,
    /// Which of this device's messages in the chat it is, from 1 (`places.rs`); 0 where `order` is.
    #[prost(uint64, tag = "4")]
    pub(super) place: u64,
    /// The life in which it was written.
    #[prost(fixed64, tag = "5")]
    pub(super) written_in: u64,
}

impl Core {
    /// The next place in the history, from 1.
    pub(super) fn next_order(&mut self) -> u64 {
        self.order += 1;
        self.dirty.insert(Row::Order);
        self.order
    }

    /// The last place in the history that was given; 0 where there is none. What is stored and told up to here is all
    /// there will ever be of these places.
    pub fn last_order(&self) -> u64 {
        self.order
    }

    pub(super) fn write_row(&mut self, id: ConversationId, order: u64, row: &MessageRow) {
        let key = [id.as_bytes().as_slice(), &order.to_be_bytes()].concat();
        self.out.changes.put(Table::Messages, key, row.encode_to_vec());
    }

    /// Shows what the inbox put in order.
    pub(super) fn show(&mut self, shown: Vec<Shown>) {
        for one in shown {
            match one {
                Shown::Hole { lane, from, to } => self.show_hole(lane, from, to),
                Shown::Message { lane, lane_no, send_id, body, late } => {
                    let ordered = Ordered::decode(body).unwrap_or_default();
                    self.mark_delivered(lane, lane_no, &ordered.lives);
                    if ordered.content.is_empty() {
                        // Shown before, under another number or in the conversation that it was moved from.
                        continue;
                    }
                    let Ok(account) = AccountId::try_from(ordered.account.as_ref()) else { continue };
                    let Ok(content) = Content::decode(&ordered.content) else { continue };
                    if let Some(info) = GroupInfo::of(&content) {
                        self.learn_name(lane.conversation, info.ok(), account);
                        continue;
                    }
                    let late = self.is_overtaken(lane, &ordered) || late;
                    let text = content.as_text().unwrap_or("[a kind of message that this version cannot show]");
                    let message = IncomingMessage {
                        conversation: lane.conversation,
                        from: self.member(account),
                        device: lane.sender,
                        send_id,
                        lane_no,
                        text: text.into(),
                        sent_at: UnixMillis(ordered.sent_at_ms),
                        accepted_at: UnixMillis(ordered.accepted_at_ms),
                        late,
                        order: self.next_order(),
                    };
                    let own = account == self.identity.address().account;
                    let row = MessageRow { kind: kind_of(own).into(), ..row_of(&message) };
                    self.write_row(lane.conversation, message.order, &row);
                    self.out.events.push(if own { Event::OwnMessage(message) } else { Event::Message(message) });
                }
            }
        }
    }

    fn show_hole(&mut self, lane: InLane, from: u64, to: u64) {
        self.mark_lost(lane, from, to);
        let mut known = self.contacts.iter();
        let account = known.find(|(_, c)| c.devices.devices.iter().any(|(d, _)| *d == lane.sender)).map(|(a, _)| *a);
        // Its account may have removed it since.
        let inside = || self.mls.members(lane.conversation).into_iter().find(|(d, _)| d.device == lane.sender);
        let account =
            account.or_else(|| inside().map(|(d, _)| d.account)).or_else(|| self.account_parted_with(lane.sender));
        let account = account.unwrap_or(AccountId::from_bytes([0; 16]));
        let (order, member) = (self.next_order(), self.member(account));
        let row = MessageRow {
            kind: RowKind::Hole.into(),
            account: Bytes::copy_from_slice(account.as_bytes()),
            device: Bytes::copy_from_slice(lane.sender.as_bytes()),
            lane_no: from,
            hole_to: to,
            handle: member.handle.as_ref().map(ToString::to_string).unwrap_or_default(),
            ..MessageRow::default()
        };
        self.write_row(lane.conversation, order, &row);
        let (conversation, device) = (lane.conversation, lane.sender);
        self.out.events.push(Event::Hole { conversation, from: member, device, lane_nos: (from, to), order });
    }

    fn learn_name(&mut self, id: ConversationId, info: Option<GroupInfo>, by: AccountId) {
        // Who knows the first conversation knows by itself what goes on for it, and nobody can pass off another one;
        // but for what went on in a history that this device missed.
        let told = info.as_ref().and_then(|info| info.root);
        let root = told.filter(|root| {
            let known = self.conversations.contains_key(root);
            !known || self.is_successor(id, *root) || self.may_have_followed(id, *root)
        });
        let (Some(info), Some(conversation)) = (info, self.conversations.get_mut(&id)) else { return };
        if conversation.kind() == Kind::Direct {
            // A chat of two is called after whom it is with.
            return;
        }
        conversation.kind = Some(Kind::Group);
        conversation.peer = None;
        conversation.root = conversation.root.or(root);
        let outcasts = info.outcasts;
        // Without a name that can be shown it is called by its short id.
        let name = group_name(&info.name).ok().map(str::to_owned);
        if conversation.name != name {
            conversation.name = name;
            conversation.announced = false;
        }
        self.dirty.insert(Row::Conversation(id));
        self.root_heard(told.unwrap_or(id), self.stepped_at);
        if let Some(root) = told {
            self.turn_down(id, root, by);
        }
        self.hear_of_outcasts(id, &outcasts, by);
    }

    /// Writes how far one's own message came, if it has a place in the history.
    pub(super) fn write_own(&mut self, message: &OutMessage, status: RowStatus, accepted_at: UnixMillis) {
        let Ok(draft) = Draft::decode(message.content.clone()) else { return };
        if draft.order == 0 {
            return;
        }
        let text = Content::decode(&draft.content).ok().and_then(|c| c.as_text().map(ToOwned::to_owned));
        let own = self.identity.address();
        let row = MessageRow {
            kind: RowKind::Outgoing.into(),
            account: Bytes::copy_from_slice(own.account.as_bytes()),
            device: Bytes::copy_from_slice(own.device.as_bytes()),
            send_id: Bytes::copy_from_slice(message.send_id.as_bytes()),
            lane_no: message.lane_no,
            text: text.unwrap_or_default(),
            sent_at_ms: draft.sent_at_ms,
            accepted_at_ms: accepted_at.0,
            status: status.into(),
            handle: self.identity.handle().to_string(),
            ..MessageRow::default()
        };
        self.write_row(message.lane.conversation, draft.order, &row);
    }
}

/// What another device of this account wrote is one's own.
const fn kind_of(own: bool) -> RowKind {
    if own { RowKind::Elsewhere } else { RowKind::Incoming }
}

fn row_of(message: &IncomingMessage) -> MessageRow {
    MessageRow {
        kind: RowKind::Incoming.into(),
        account: Bytes::copy_from_slice(message.from.account.as_bytes()),
        device: Bytes::copy_from_slice(message.device.as_bytes()),
        send_id: Bytes::copy_from_slice(message.send_id.as_bytes()),
        lane_no: message.lane_no,
        text: message.text.clone(),
        sent_at_ms: message.sent_at.0,
        accepted_at_ms: message.accepted_at.0,
        late: message.late,
        handle: message.from.handle.as_ref().map(ToString::to_string).unwrap_or_default(),
        ..MessageRow::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDERED: &str = "0a10010101010101010101010101010101011207636f6e74656e7418062007";
    const DRAFT: &str = "080410061a07636f6e74656e74";
    /// With what later versions keep.
    const ORDERED_2: &str = concat!(
        "0a10010101010101010101010101010101011207636f6e74656e74180620072a0b090900000000000000100230033909",
        "00000000000000421008000000000000000900000000000000",
    );
    const DRAFT_2: &str = "080410061a07636f6e74656e742003290900000000000000";

    #[test]
    fn what_inbox_and_outbox_carry_keeps_its_bytes() {
        let (account, content) = (Bytes::from(vec![1; 16]), Bytes::from_static(b"content"));
        let ordered =
            Ordered { account, content: content.clone(), sent_at_ms: 6, accepted_at_ms: 7, ..Ordered::default() };
        assert_eq!(hex::encode(ordered.encode_to_vec()), ORDERED);
        let draft = Draft { order: 4, sent_at_ms: 6, content, ..Draft::default() };
        assert_eq!(hex::encode(draft.encode_to_vec()), DRAFT);
        let ordered =
            Ordered { lives: vec![LifeSpan { id: 9, first: 2 }], place: 3, written_in: 9, line: vec![8, 9], ..ordered };
        assert_eq!(hex::encode(ordered.encode_to_vec()), ORDERED_2);
        let draft = Draft { place: 3, written_in: 9, ..draft };
        assert_eq!(hex::encode(draft.encode_to_vec()), DRAFT_2);
        let stored = |text| hex::decode(text).expect("hexadecimal");
        assert_eq!(Ordered::decode(stored(ORDERED_2).as_slice()).expect("read"), ordered);
        assert_eq!(Draft::decode(stored(DRAFT_2).as_slice()).expect("read"), draft);
    }
}
