// SPDX-License-Identifier: MIT OR Apache-2.0
//! What of a profile was printed. Every client command takes what waits at the server, also those that print nothing:
//! `recv` and `pipe` first print what came in between, so that every message is printed, and what is told once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use pli_client::core::archive::ORDERS_END;
use pli_client::core::content::Kind;
use pli_client::core::{Core, Event, IncomingMessage, Member, RowKind};
use pli_client::{Client, HistoryItem, SCAN_ROWS_MAX};
use pli_domain::{AccountId, ConversationId, DeviceId, UnixMillis};

use super::about::{About, Merged};
use super::names::other_of;
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
    /// The mark when it was opened: what was printed before.
    before: u64,
    /// The last place of which [`Printed::missed`] knew. What has a later one comes as an event, once.
    until: u64,
    /// Places up to `until` that were printed since: what came as an event meanwhile is not printed again, and none is
    /// taken for printed because a later one was.
    since: BTreeSet<u64>,
}

impl Printed {
    /// Of the profile in `folder`; nothing was printed where there is no mark.
    pub fn open(folder: &Path) -> std::io::Result<Self> {
        let path = folder.join(FILE);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(|error| std::io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        let mut mark = [0; 8];
        let mark = if file.read_exact_at(&mut mark, 0).is_ok() { u64::from_be_bytes(mark) } else { 0 };
        Ok(Self { file, mark, before: mark, until: 0, since: BTreeSet::new() })
    }

    /// Notes that what has this place in the history was printed.
    pub fn note(&mut self, order: u64) {
        if order <= self.until {
            self.since.insert(order);
        }
        self.mark = self.mark.max(order);
        if let Err(error) = self.file.write_all_at(&self.mark.to_be_bytes(), 0) {
            tracing::warn!(%error, "what was printed cannot be noted; it is printed again next time");
        }
    }

    /// Whether the event was printed before; never where it has no place in the history.
    pub fn knows(&self, event: &Event) -> bool {
        event.order().is_some_and(|order| order <= self.before || self.since.contains(&order))
    }

    /// What came since and was not printed, in order; at most the last 10,000 rows of each conversation.
    pub async fn missed(&mut self, session: &Session) -> Result<Vec<Event>, Failure> {
        let before = self.before;
        // In one look: the client goes on receiving meanwhile, and what comes later is left to its event.
        let look = move |core: &Core| {
            let conversations: Vec<ConversationId> = core.conversations().into_iter().map(|view| view.id).collect();
            let last = core.last_order();
            // What another device has handed over is older than this one, and was printed there.
            let after = if last >= ORDERS_END { before.max(ORDERS_END) } else { before };
            (last, after, core.notices(after), conversations)
        };
        let (last, after, mut missed, all) =
            session.client.query(look).await.map_err(|error| session.request(error))?;
        self.before = after;
        self.until = last;
        let mut found = Vec::new();
        for id in all {
            let mut rows = session.client.history(id, ROWS_FIRST).await.exit(Exit::Folder)?;
            if rows.len() == ROWS_FIRST && rows.first().is_some_and(|row| row.order > after) {
                rows = session.client.history(id, SCAN_ROWS_MAX).await.exit(Exit::Folder)?;
            }
            found.extend(rows.into_iter().filter(|row| self.is_missed(row.order)));
        }
        let people = people(session, &found).await?;
        missed.extend(found.iter().filter_map(|row| event_of(row, &people)));
        missed.sort_by_key(Event::order);
        Ok(missed)
    }

    /// What was told once and not printed yet, of which a command that prints nothing may warn.
    pub async fn unprinted_notices(&self, session: &Session) -> Result<Vec<Event>, Failure> {
        let after = self.mark;
        session.client.query(move |core| core.notices(after)).await.map_err(|error| session.request(error))
    }

    const fn is_missed(&self, order: u64) -> bool {
        order > self.before && order <= self.until
    }

    /// Whether the row was there when [`Printed::missed`] looked; what came later, while others are read or shown, comes
    /// as an event.
    pub const fn was_there(&self, order: u64) -> bool {
        order <= self.until
    }

    /// Whether a row may be shown as one of before: no event of it is printed any more. A row of one's own has none.
    pub fn is_past(&self, order: u64, kind: RowKind) -> bool {
        self.was_there(order) && (order <= self.before || kind == RowKind::Outgoing)
    }
}

/// Who wrote some rows, as far as they are known: a handle may be somebody else's since.
#[derive(Debug, Default)]
pub struct People(BTreeMap<AccountId, Member>);

/// Asks for everybody who wrote these rows.
pub async fn people(session: &Session, rows: &[HistoryItem]) -> Result<People, Failure> {
    let accounts = rows.iter().filter_map(|item| AccountId::try_from(item.row.account.as_ref()).ok());
    let accounts: BTreeSet<AccountId> = accounts.collect();
    let look = move |core: &Core| accounts.into_iter().filter_map(|account| core.person(account)).collect();
    let known: Vec<Member> = session.client.query(look).await.map_err(|error| session.request(error))?;
    Ok(People(known.into_iter().map(|member| (member.account, member)).collect()))
}

impl People {
    /// Who wrote the row; by the handle that they had then, where nothing else is known of the account.
    pub fn of(&self, item: &HistoryItem) -> Option<Member> {
        let account = AccountId::try_from(item.row.account.as_ref()).ok()?;
        let known = self.0.get(&account).filter(|member| member.handle.is_some() || member.former.is_some());
        let then = || Member { account, handle: item.row.handle.parse().ok(), former: None };
        Some(known.cloned().unwrap_or_else(then))
    }
}

/// What a row tells of somebody else.
fn event_of(item: &HistoryItem, people: &People) -> Option<Event> {
    let (row, conversation, order) = (&item.row, item.conversation, item.order);
    let (from, device) = (people.of(item)?, row.device.as_ref().try_into().ok()?);
    match row.kind() {
        RowKind::Hole => Some(Event::Hole { conversation, from, device, lane_nos: (row.lane_no, row.hole_to), order }),
        RowKind::Incoming => incoming(item, from, device).map(Event::Message),
        RowKind::Elsewhere => incoming(item, from, device).map(Event::OwnMessage),
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
    labels: Labels,
    merged: Merged,
    /// Why nothing can be printed any more.
    failed: Option<std::io::Error>,
}

impl Printer {
    /// Of an open profile, with the messages that are to be printed first.
    pub async fn open(session: &Session, output: Output) -> Result<(Self, Vec<Event>), Failure> {
        if !output.is_kept() {
            crate::terminal::tell!(
                "standard output is closed: what arrives is not printed, and waits for the next time"
            );
        }
        let mut printed = Printed::open(session.client.folder())?;
        let missed = printed.missed(session).await?;
        let merged = if output.merges() { Merged::of(&missed, session.invocation.clone()) } else { Merged::default() };
        let client = session.client.clone();
        let printer = Self { output, printed, client, labels: Labels::default(), merged, failed: None };
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
        let told = self.merged.has_told(event) || self.output.merges() && self.merged.has_told_awaited(event);
        let shown = match told {
            true => Ok(true),
            false => {
                let to = if group.is_none() { self.recipient(event).await } else { None };
                let about = About { group, to, ..self.merged.about(&self.client, event).await };
                self.output.event(event, &about)
            }
        };
        match shown {
            // Noted only after it went out: a message that goes nowhere is printed by the next one.
            Ok(true) if self.output.is_kept() => event.order().into_iter().for_each(|order| self.printed.note(order)),
            Ok(_) => {}
            Err(error) => self.failed = Some(error),
        }
        self.failed.is_none()
    }

    /// What the group of the event's conversation is called; none for two people. The core says it, whose names change with
    /// what becomes of every other group.
    async fn group(&mut self, event: &Event) -> Option<String> {
        self.labels.see(event);
        let id = conversation_of(event)?;
        if !self.labels.0.contains_key(&id) {
            // A client that has ended tells no names; what it had to show is printed all the same.
            let (kind, label) = self.client.query(move |core| core.label_of(id)).await.ok()?;
            if kind == Kind::Unknown {
                return None;
            }
            self.labels.0.insert(id, label);
        }
        self.labels.0.get(&id).filter(|label| !label.is_empty()).cloned()
    }

    /// To whom a message went that another device of one's own wrote in a chat of two.
    async fn recipient(&self, event: &Event) -> Option<String> {
        let Event::OwnMessage(message) = event else { return None };
        let view = self.client.conversation(message.conversation).await.ok()??;
        other_of(&view, message.from.account).map(Member::name)
    }

    /// Whether this event is a message that [`Printer::event`] has yet to print.
    pub fn is_new(&self, event: &Event) -> bool {
        matches!(event, Event::Message(_)) && !self.printed.knows(event)
    }
}

/// What the groups of conversations are called, as the core said; empty for two people. One for each conversation at
/// most.
#[derive(Debug, Default)]
struct Labels(BTreeMap<ConversationId, String>);

impl Labels {
    /// Forgets what may be called otherwise since.
    fn see(&mut self, event: &Event) {
        match event {
            // A group came, got its name, went, or goes on in another conversation: others of its name are called after it.
            Event::ConversationReady { .. }
            | Event::ConversationFailed { .. }
            | Event::SameChat { .. }
            | Event::Left { .. } => self.0.clear(),
            // Somebody third makes a group of a chat of two; what is a group keeps its name.
            Event::MemberAdded { conversation, .. } if self.0.get(conversation).is_some_and(String::is_empty) => {
                self.0.remove(conversation);
            }
            _ => {}
        }
    }
}

/// Where an event happened. Without a wildcard: whoever adds an event says it here.
pub const fn conversation_of(event: &Event) -> Option<ConversationId> {
    match event {
        Event::Message(message) | Event::OwnMessage(message) => Some(message.conversation),
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
        | Event::Left { conversation, .. }
        | Event::Unreadable { conversation, .. }
        | Event::DeviceAwaited { conversation, .. }
        | Event::Rejoining { conversation, .. } => Some(*conversation),
        Event::Registered { .. }
        | Event::RegistrationRefused { .. }
        | Event::Connection(_)
        | Event::NewKey { .. }
        | Event::ListRefused { .. }
        | Event::DeviceAdded { .. }
        | Event::DeviceRemoved { .. }
        | Event::DeviceRenamed { .. }
        | Event::DeviceChangeFailed { .. }
        | Event::DeviceUnknown
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
        assert!(!printed.knows(&notice(8)));
        assert!(again.knows(&notice(7)) && !again.knows(&notice(8)));
        assert!(!again.knows(&Event::Gap), "what has no place is always printed");
    }

    #[test]
    fn what_comes_as_an_event_while_others_are_looked_up_is_printed_once_and_not_dropped() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut printed = Printed::open(folder.path()).expect("made");
        printed.note(3);
        let mut printed = Printed::open(folder.path()).expect("there");
        // What was looked up ends at 6: 4 and 6 are of it, and the event of 5 waits to be read, as that of 6 does.
        printed.until = 6;
        assert!(printed.is_missed(4) && printed.is_missed(6) && !printed.is_missed(3) && !printed.is_missed(7));
        for order in [4, 6] {
            assert!(!printed.knows(&notice(order)));
            printed.note(order);
        }
        assert!(printed.knows(&notice(6)) && printed.knows(&notice(3)));
        for order in [5, 7] {
            assert!(!printed.knows(&notice(order)), "{order} is still to be printed");
            printed.note(order);
        }
        assert_eq!(printed.since, [4, 5, 6].into(), "what comes later comes once, and is not remembered");
    }

    /// A start reads the history after the look, and slowly where its reader is slow.
    #[test]
    fn what_is_shown_as_history_comes_as_no_event() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut printed = Printed::open(folder.path()).expect("made");
        printed.note(3);
        let mut printed = Printed::open(folder.path()).expect("there");
        printed.until = 6;
        for order in 1..=8 {
            let shown = printed.is_past(order, RowKind::Incoming);
            assert_eq!(shown, printed.knows(&notice(order)), "{order} is shown at one place");
            assert_eq!(printed.is_past(order, RowKind::Outgoing), order <= 6, "{order} is one's own");
            assert_eq!(printed.was_there(order), order <= 6);
        }
        printed.note(5);
        assert!(!printed.is_past(5, RowKind::Incoming), "it is on the screen already");
    }

    #[test]
    fn a_newcomer_renames_no_group() {
        let (team, two) = (ConversationId::from_bytes([1; 16]), ConversationId::from_bytes([2; 16]));
        let member = Member { account: AccountId::from_bytes([2; 16]), handle: None, former: None };
        let added = |conversation| Event::MemberAdded { conversation, member: member.clone(), by: member.clone() };
        let mut labels = Labels([(team, "team".into()), (two, String::new())].into());
        labels.see(&added(team));
        assert_eq!(labels.0.len(), 2);
        labels.see(&added(two));
        assert_eq!(labels.0.keys().collect::<Vec<_>>(), [&team], "it is a group now");
        labels.see(&Event::Left { conversation: two, by: None });
        assert!(labels.0.is_empty());
    }
}
