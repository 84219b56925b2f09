// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a chat shows before anything happens: the last rows of its history, then what no command has printed yet.

mod last;

use std::collections::{BTreeMap, BTreeSet};

use pli_client::HistoryItem;
use pli_client::core::{ConversationView, Event, RowKind};
use pli_domain::ConversationId;

use self::last::{Place, last_of};
use super::Chat;
use crate::commands::about::Merged;
use crate::commands::printed::conversation_of;
use crate::exit::{Exit, ExitContext, Failure};

/// Messages and holes that were not printed yet and are shown at the start, the last ones; of those before is said how
/// many they are.
const MISSED_AT_START: usize = 300;

/// A row of one's own that stands among what was missed, and where it is.
type Own = (ConversationView, HistoryItem);

impl Chat {
    /// Nothing that is typed goes to anybody of whom something is shown here before the user names one: whoever wrote
    /// last need not be whom they mean.
    pub(super) async fn show_start(&mut self) -> Result<(), Failure> {
        let missed = self.printed.missed(&self.session).await?;
        self.merged = Merged::of(&missed, self.session.invocation.clone());
        self.unused &= !missed.iter().any(is_row);
        let begins = missed.first().and_then(Event::order).unwrap_or(u64::MAX);
        let own = self.show_last(begins).await?;
        self.show_missed(missed, own).await?;
        for view in self.session.conversations().await?.iter().filter(|view| self.is_leaving(view)) {
            self.say_leaving(view);
        }
        if !self.unused {
            self.screen.note("@HANDLE or #GROUP says who gets what you type; until then nobody does");
        }
        self.show_target().await
    }

    /// The history's last rows before this place, oldest conversation first, so that the newest stands right above the
    /// prompt. Answers the rows of one's own behind it. What arrives meanwhile is in the history too, and left to its event.
    async fn show_last(&mut self, before: u64) -> Result<Vec<Own>, Failure> {
        let mut views: BTreeMap<_, _> =
            self.session.conversations().await?.into_iter().map(|view| (view.id, view)).collect();
        let read = async |id, rows| self.session.client.history(id, rows).await.exit(Exit::Folder);
        let all = last_of(views.keys().copied(), |row| self.place_at_start(row, before), read).await?;
        let mut own = Vec::new();
        for last in all {
            let Some(view) = views.remove(&last.conversation) else { continue };
            self.unused = false;
            if !last.old.is_empty() {
                self.show_items(&view, &last.old).await?;
            }
            let new = last.new.into_iter().filter(|row| row.row.kind() == RowKind::Outgoing);
            own.extend(new.map(|row| (view.clone(), row)));
        }
        own.sort_unstable_by_key(|(_, row)| row.order);
        Ok(own)
    }

    /// Where a row belongs, if it was there when the chat looked.
    fn place_at_start(&self, row: &HistoryItem, before: u64) -> Place {
        match row.order < before {
            true if self.printed.is_past(row.order, row.row.kind()) => Place::Old,
            false if self.printed.was_there(row.order) => Place::New,
            _ => Place::Elsewhere,
        }
    }

    /// What is shown here is printed, as far as `recv` is concerned, also what is only counted.
    async fn show_missed(&mut self, missed: Vec<Event>, own: Vec<Own>) -> Result<(), Failure> {
        let mut skipped = missed.iter().filter(|event| is_row(event)).count().saturating_sub(MISSED_AT_START);
        if skipped > 0 {
            self.screen.note(&format!(
                "{skipped} more messages came before these; /history N in their conversation shows them"
            ));
        }
        let mut own = own.into_iter().peekable();
        let (mut whole, mut cut) = (BTreeSet::new(), BTreeSet::new());
        for event in missed {
            let order = event.order().unwrap_or(0);
            while let Some((view, row)) = own.next_if(|(_, row)| row.order < order) {
                self.show_own(&view, row).await?;
            }
            if is_row(&event) && skipped > 0 {
                skipped -= 1;
                cut.extend(conversation_of(&event));
            } else if !self.merged.has_told(&event) {
                self.show_one(&event).await?;
                whole.extend(conversation_of(&event).filter(|_| matches!(event, Event::Message(_))));
            }
            if !self.paper.has_failed() {
                self.printed.note(order);
            }
        }
        for (view, row) in own {
            self.show_own(&view, row).await?;
        }
        self.mark_read(whole.difference(&cut)).await;
        Ok(())
    }

    async fn show_one(&mut self, event: &Event) -> Result<(), Failure> {
        match event {
            Event::Message(message) => {
                let place = self.place(message.conversation).await?;
                self.screen.message(message, &place);
                Ok(())
            }
            event => self.show(event).await,
        }
    }

    /// Among what others wrote, with its place as theirs have.
    async fn show_own(&self, view: &ConversationView, row: HistoryItem) -> Result<(), Failure> {
        self.show_placed(view, &[row], &self.behind_own(view)).await
    }

    /// The lines are on the screen, so they count as read; a full change queue only delays the ticks.
    async fn mark_read(&self, all: impl Iterator<Item = &ConversationId>) {
        if self.paper.has_failed() {
            return;
        }
        for conversation in all {
            let _ = self.session.client.mark_read(*conversation).await;
        }
    }
}

/// Whether `/history` shows it.
const fn is_row(event: &Event) -> bool {
    matches!(event, Event::Message(_) | Event::Hole { .. })
}
