// SPDX-License-Identifier: MIT OR Apache-2.0
//! What of a profile was printed. Every client command takes what waits at the server, also those that print nothing:
//! `recv` and `pipe` first print what came in between, so that every message is printed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use pli_client::core::content::{Kind, SHORT_ID_MARK};
use pli_client::core::{Event, IncomingMessage, Member, RowKind};
use pli_client::{HistoryItem, SCAN_ROWS_MAX};
use pli_domain::{AccountId, ConversationId, UnixMillis};

use super::names::called;
use super::output::Output;
use super::session::Session;
use crate::exit::{Exit, ExitContext, Failure};
use crate::terminal;

const FILE: &str = "printed";
/// Digits of the short id that tells a group from another one of its name.
const SHORT_DIGITS: usize = 6;
/// Rows of a conversation that are looked at first; only where all of them are unprinted are more read.
const ROWS_FIRST: usize = 64;

/// The place in the history up to which messages were printed. Held with the profile's lock.
///
/// It is written after each message, not synced: a process that is killed loses none of it and prints no message twice
/// but the one that it was printing; a power cut may print the last ones again.
#[derive(Debug)]
pub struct Printed {
    file: File,
    mark: u64,
}

impl Printed {
    /// Of the profile in `folder`; nothing was printed where there is no mark.
    pub fn open(folder: &Path) -> std::io::Result<Self> {
        let path = folder.join(FILE);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let mut mark = [0; 8];
        let mark = if file.read_exact_at(&mut mark, 0).is_ok() { u64::from_be_bytes(mark) } else { 0 };
        Ok(Self { file, mark })
    }

    /// Notes that the message was printed.
    pub fn note(&mut self, message: &IncomingMessage) {
        self.mark = self.mark.max(message.order);
        if let Err(error) = self.file.write_all_at(&self.mark.to_be_bytes(), 0) {
            tracing::warn!(%error, "what was printed cannot be noted; it is printed again next time");
        }
    }

    fn knows(&self, message: &IncomingMessage) -> bool {
        message.order <= self.mark
    }

    /// What came since and was not printed, in order; at most the last 10,000 rows of each conversation.
    async fn missed(&self, session: &Session) -> Result<Vec<IncomingMessage>, Failure> {
        let all = session.client.query(|core| core.conversations()).await.map_err(|error| session.request(error))?;
        let mut missed = Vec::new();
        for id in all.into_iter().map(|conversation| conversation.id) {
            let mut rows = session.client.history(id, ROWS_FIRST).await.exit(Exit::Folder)?;
            if rows.len() == ROWS_FIRST && rows.first().is_some_and(|row| row.order > self.mark) {
                rows = session.client.history(id, SCAN_ROWS_MAX).await.exit(Exit::Folder)?;
            }
            missed.extend(rows.iter().filter_map(|item| incoming(id, item)).filter(|message| !self.knows(message)));
        }
        missed.sort_by_key(|message| message.order);
        Ok(missed)
    }
}

/// The message of a row, if it is somebody else's.
fn incoming(conversation: ConversationId, item: &HistoryItem) -> Option<IncomingMessage> {
    let row = &item.row;
    (row.kind() == RowKind::Incoming).then_some(())?;
    let from = Member { account: AccountId::try_from(row.account.as_ref()).ok()?, handle: row.handle.parse().ok() };
    Some(IncomingMessage {
        conversation,
        from,
        device: row.device.as_ref().try_into().ok()?,
        send_id: row.send_id.as_ref().try_into().ok()?,
        lane_no: row.lane_no,
        text: row.text.clone(),
        sent_at: UnixMillis(row.sent_at_ms),
        accepted_at: UnixMillis(row.accepted_at_ms),
        late: row.late,
        order: item.order,
    })
}

/// Prints events, each message once.
#[derive(Debug)]
pub struct Printer {
    output: Output,
    printed: Printed,
    /// What groups are called, by each conversation.
    groups: BTreeMap<ConversationId, String>,
    /// Conversations whose name was asked for.
    asked: BTreeSet<ConversationId>,
    /// Why nothing can be printed any more.
    failed: Option<std::io::Error>,
}

impl Printer {
    /// Of an open profile, with the messages that are to be printed first.
    pub async fn open(session: &Session, output: Output) -> Result<(Self, Vec<Event>), Failure> {
        if !output.is_kept() {
            anstream::eprintln!("standard output is closed: what arrives is not printed, and waits for the next time");
        }
        let printed = Printed::open(session.client.folder())?;
        let missed = printed.missed(session).await?;
        let groups = groups(session).await?;
        let printer = Self { output, printed, groups, asked: BTreeSet::new(), failed: None };
        Ok((printer, missed.into_iter().map(Event::Message).collect()))
    }

    /// Learns what the event's conversation is called, where that is not known: its messages may come before the event
    /// that names it.
    pub async fn learn(&mut self, session: &Session, event: &Event) -> Result<(), Failure> {
        if let Some(id) = conversation_of(event)
            && self.asked.insert(id)
            && !self.groups.contains_key(&id)
        {
            self.groups = groups(session).await?;
        }
        Ok(())
    }

    /// How a command ends when [`Printer::event`] said false: well where the reader went away.
    pub fn ended(self) -> Result<(), Failure> {
        self.failed.map_or(Ok(()), terminal::written)
    }

    /// Prints an event, unless it is a message that was printed before; false when nothing can be printed any more.
    pub fn event(&mut self, event: &Event) -> bool {
        self.learn_name(event);
        let group = conversation_of(event).and_then(|id| self.groups.get(&id)).map(String::as_str);
        match event {
            Event::Message(message) if self.printed.knows(message) => true,
            Event::Message(message) => {
                let printed = self.output.event(event, group);
                let read = printed.is_ok();
                self.failed = printed.err();
                // Noted only after it went out: a message that goes nowhere is printed by the next one.
                if read && self.output.is_kept() {
                    self.printed.note(message);
                }
                read
            }
            _ => {
                self.failed = self.output.event(event, group).err();
                self.failed.is_none()
            }
        }
    }

    fn learn_name(&mut self, event: &Event) {
        let Event::ConversationReady { conversation, kind: Kind::Group, name, .. } = event else { return };
        let taken = |name: &String| self.groups.iter().any(|(id, known)| id != conversation && known == name);
        let digits = conversation.to_string();
        let short = format!("{}{SHORT_ID_MARK}{}", name.as_deref().unwrap_or_default(), &digits[..SHORT_DIGITS]);
        let called = name.clone().filter(|name| !taken(name)).unwrap_or(short);
        self.groups.insert(*conversation, called);
    }

    /// Whether this event is a message that [`Printer::event`] has yet to print.
    pub fn is_new(&self, event: &Event) -> bool {
        matches!(event, Event::Message(message) if !self.printed.knows(message))
    }
}

/// What every group is called, those that were left too.
async fn groups(session: &Session) -> Result<BTreeMap<ConversationId, String>, Failure> {
    let all = session.client.query(|core| core.conversations()).await.map_err(|error| session.request(error))?;
    let groups = all.into_iter().filter(|view| view.kind == Kind::Group);
    Ok(groups.flat_map(|view| view.parts.clone().into_iter().map(move |id| (id, called(&view)))).collect())
}

/// Where an event that is printed with a name happened.
const fn conversation_of(event: &Event) -> Option<ConversationId> {
    match event {
        Event::Message(message) => Some(message.conversation),
        Event::Hole { conversation, .. }
        | Event::Unreadable { conversation, .. }
        | Event::ConversationReady { conversation, .. }
        | Event::MemberAdded { conversation, .. }
        | Event::MemberRemoved { conversation, .. }
        | Event::AddedByStranger { conversation, .. }
        | Event::Left { conversation }
        | Event::Rejoining { conversation, .. }
        | Event::Accepted { conversation, .. }
        | Event::Stored { conversation, .. }
        | Event::Delivered { conversation, .. }
        | Event::Lost { conversation, .. }
        | Event::Read { conversation, .. }
        | Event::Refused { conversation, .. }
        | Event::Waiting { conversation, .. } => Some(*conversation),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(order: u64) -> IncomingMessage {
        IncomingMessage {
            conversation: ConversationId::from_bytes([1; 16]),
            from: Member { account: AccountId::from_bytes([2; 16]), handle: None },
            device: pli_domain::DeviceId::from_bytes([3; 16]),
            send_id: pli_domain::SendId::from_bytes([4; 16]),
            lane_no: order,
            text: String::new(),
            sent_at: UnixMillis(0),
            accepted_at: UnixMillis(0),
            late: false,
            order,
        }
    }

    #[test]
    fn the_mark_outlives_the_process_and_never_goes_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut printed = Printed::open(folder.path()).expect("made");
        assert!(!printed.knows(&message(1)));
        printed.note(&message(7));
        printed.note(&message(3));
        let again = Printed::open(folder.path()).expect("there");
        assert!(again.knows(&message(7)) && !again.knows(&message(8)));
    }
}
