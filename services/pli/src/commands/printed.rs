// SPDX-License-Identifier: MIT OR Apache-2.0
//! What of a profile was printed. Every client command takes what waits at the server, also those that print nothing:
//! `recv` and `pipe` first print what came in between, so that every message is printed, and what is told once.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use pli_client::core::content::Kind;
use pli_client::core::{Event, IncomingMessage, Member, RowKind};
use pli_client::{Client, HistoryItem, SCAN_ROWS_MAX};
use pli_domain::{AccountId, ConversationId, DeviceId, UnixMillis};

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

    /// Notes that what has this place in the history was printed.
    pub fn note(&mut self, order: u64) {
        self.mark = self.mark.max(order);
        if let Err(error) = self.file.write_all_at(&self.mark.to_be_bytes(), 0) {
            tracing::warn!(%error, "what was printed cannot be noted; it is printed again next time");
        }
    }

    /// Whether the event was printed before; never where it has no place in the history.
    pub fn knows(&self, event: &Event) -> bool {
        event.order().is_some_and(|order| order <= self.mark)
    }

    /// What was told once since, and is in no conversation's history.
    pub async fn missed_notices(&self, session: &Session) -> Result<Vec<Event>, Failure> {
        let after = self.mark;
        session.client.query(move |core| core.notices(after)).await.map_err(|error| session.request(error))
    }

    /// What came since and was not printed, in order; at most the last 10,000 rows of each conversation.
    async fn missed(&self, session: &Session) -> Result<Vec<Event>, Failure> {
        let all = session.client.query(|core| core.conversations()).await.map_err(|error| session.request(error))?;
        let mut missed = self.missed_notices(session).await?;
        for id in all.into_iter().map(|conversation| conversation.id) {
            let mut rows = session.client.history(id, ROWS_FIRST).await.exit(Exit::Folder)?;
            if rows.len() == ROWS_FIRST && rows.first().is_some_and(|row| row.order > self.mark) {
                rows = session.client.history(id, SCAN_ROWS_MAX).await.exit(Exit::Folder)?;
            }
            missed.extend(rows.iter().filter_map(event_of).filter(|event| !self.knows(event)));
        }
        missed.sort_by_key(Event::order);
        Ok(missed)
    }
}

/// What a row tells of somebody else.
fn event_of(item: &HistoryItem) -> Option<Event> {
    let (row, conversation, order) = (&item.row, item.conversation, item.order);
    let account = AccountId::try_from(row.account.as_ref()).ok()?;
    let (from, device) =
        (Member { account, handle: row.handle.parse().ok(), former: None }, row.device.as_ref().try_into().ok()?);
    match row.kind() {
        RowKind::Hole => Some(Event::Hole { conversation, from, device, lane_nos: (row.lane_no, row.hole_to), order }),
        RowKind::Incoming => incoming(item, from, device).map(Event::Message),
        RowKind::Outgoing | RowKind::Unknown => None,
    }
}

fn incoming(item: &HistoryItem, from: Member, device: DeviceId) -> Option<IncomingMessage> {
    let row = &item.row;
    Some(IncomingMessage {
        conversation: item.conversation,
        from,
        device,
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
        Ok((printer, missed))
    }

    /// How a command ends when [`Printer::event`] said false: well where the reader went away.
    pub fn ended(&mut self) -> Result<(), Failure> {
        self.failed.take().map_or(Ok(()), terminal::written)
    }

    /// Prints an event, unless it was printed before; false when nothing can be printed any more.
    pub async fn event(&mut self, event: &Event) -> bool {
        let group = self.group(event).await;
        if self.printed.knows(event) {
            return true;
        }
        self.failed = self.output.event(event, group.as_deref()).err();
        // Noted only after it went out: a message that goes nowhere is printed by the next one.
        if let (true, true, Some(order)) = (self.failed.is_none(), self.output.is_kept(), event.order()) {
            self.printed.note(order);
        }
        self.failed.is_none()
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
        matches!(event, Event::Message(_)) && !self.printed.knows(event)
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
    use pli_client::core::NewKey;

    use super::*;

    fn notice(order: u64) -> Event {
        let member = Member { account: AccountId::from_bytes([2; 16]), handle: None, former: None };
        Event::NewKey { member, what: NewKey::Identity, order }
    }

    #[test]
    fn the_mark_outlives_the_process_and_never_goes_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut printed = Printed::open(folder.path()).expect("made");
        assert!(!printed.knows(&notice(1)));
        printed.note(7);
        printed.note(3);
        let again = Printed::open(folder.path()).expect("there");
        assert!(again.knows(&notice(7)) && !again.knows(&notice(8)));
        assert!(!again.knows(&Event::Gap), "what has no place is always printed");
    }
}
