// SPDX-License-Identifier: MIT OR Apache-2.0
//! What of a profile was printed. Every client command takes what waits at the server, also those that print nothing:
//! `recv` and `pipe` first print what came in between, so that every message is printed.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use pli_client::core::content::Kind;
use pli_client::core::{Event, IncomingMessage, Member, RowKind};
use pli_client::{Client, HistoryItem, SCAN_ROWS_MAX};
use pli_domain::{AccountId, ConversationId, UnixMillis};

use super::output::Output;
use super::session::Session;
use crate::exit::{Exit, ExitContext, Failure};
use crate::terminal;

const FILE: &str = "printed";
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
            missed.extend(rows.iter().filter_map(incoming).filter(|message| !self.knows(message)));
        }
        missed.sort_by_key(|message| message.order);
        Ok(missed)
    }
}

/// The message of a row, if it is somebody else's.
fn incoming(item: &HistoryItem) -> Option<IncomingMessage> {
    let row = &item.row;
    (row.kind() == RowKind::Incoming).then_some(())?;
    let from = Member { account: AccountId::try_from(row.account.as_ref()).ok()?, handle: row.handle.parse().ok() };
    Some(IncomingMessage {
        conversation: item.conversation,
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
    client: Client,
    /// What the groups of conversations are called, as the core said; empty for two people. One for each conversation at
    /// most.
    labels: BTreeMap<ConversationId, String>,
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
        let client = session.client.clone();
        let printer = Self { output, printed, client, labels: BTreeMap::new(), failed: None };
        Ok((printer, missed.into_iter().map(Event::Message).collect()))
    }

    /// How a command ends when [`Printer::event`] said false: well where the reader went away.
    pub fn ended(&mut self) -> Result<(), Failure> {
        self.failed.take().map_or(Ok(()), terminal::written)
    }

    /// Prints an event, unless it is a message that was printed before; false when nothing can be printed any more.
    pub async fn event(&mut self, event: &Event) -> bool {
        let group = self.group(event).await;
        let group = group.as_deref();
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

    /// What the group of the event's conversation is called; none for two people. The core says it, whose names change with
    /// what becomes of every other group.
    async fn group(&mut self, event: &Event) -> Option<String> {
        if renames(event) {
            self.labels.clear();
        }
        let id = conversation_of(event)?;
        if !self.labels.contains_key(&id) {
            // A client that has ended tells no names; what it had to show is printed all the same.
            let (kind, label) = self.client.query(move |core| core.label_of(id)).await.ok()?;
            if kind == Kind::Unknown {
                return None;
            }
            self.labels.insert(id, label);
        }
        self.labels.get(&id).filter(|label| !label.is_empty()).cloned()
    }

    /// Whether this event is a message that [`Printer::event`] has yet to print.
    pub fn is_new(&self, event: &Event) -> bool {
        matches!(event, Event::Message(message) if !self.printed.knows(message))
    }
}

/// Whether groups may be called otherwise since: one came, got its name or its members, went, or goes on in another
/// conversation.
const fn renames(event: &Event) -> bool {
    matches!(
        event,
        Event::ConversationReady { .. }
            | Event::ConversationFailed { .. }
            | Event::SameChat { .. }
            | Event::Left { .. }
            | Event::MemberAdded { .. }
    )
}

/// Where an event happened. Without a wildcard: whoever adds an event says it here.
pub const fn conversation_of(event: &Event) -> Option<ConversationId> {
    match event {
        Event::Message(message) => Some(message.conversation),
        Event::ConversationReady { conversation, .. }
        | Event::ConversationFailed { conversation, .. }
        | Event::ChangeFailed { conversation, .. }
        | Event::Hole { conversation, .. }
        | Event::Accepted { conversation, .. }
        | Event::Stored { conversation, .. }
        | Event::Resending { conversation, .. }
        | Event::Delivered { conversation, .. }
        | Event::Lost { conversation, .. }
        | Event::Read { conversation, .. }
        | Event::SameChat { conversation, .. }
        | Event::Moved { conversation, .. }
        | Event::Refused { conversation, .. }
        | Event::Waiting { conversation, .. }
        | Event::MemberAdded { conversation, .. }
        | Event::MemberRemoved { conversation, .. }
        | Event::AddedByStranger { conversation, .. }
        | Event::Left { conversation }
        | Event::Unreadable { conversation, .. }
        | Event::Rejoining { conversation, .. } => Some(*conversation),
        Event::Registered { .. }
        | Event::RegistrationRefused { .. }
        | Event::Connection(_)
        | Event::NewKey { .. }
        | Event::OlderProfile
        | Event::ServerRestored
        | Event::Gap => None,
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
