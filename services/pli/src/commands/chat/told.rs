// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is told of messages: how far they came, who can read them, and those of the history.

use pli_client::HistoryItem;
use pli_client::core::content::Kind;
use pli_client::core::{ConversationView, Core, Event, Member, Reached, RowKind};
use pli_domain::ConversationId;

use super::Chat;
use super::act::place_of;
use crate::commands::json::name;
use crate::commands::names::{called, typed};
use crate::commands::printed::people;
use crate::exit::{Exit, ExitContext, Failure};

/// Rows that are looked at for the messages of a tick; where there are more there was one, most likely.
const LOOKED_AT: usize = 256;
/// People that a tick in the history names.
const NAMED_MAX: usize = 3;

impl Chat {
    /// How an earlier message is told of in a line about its conversation: `in #team`, `to @bob`.
    pub(super) async fn whereabouts(&self, event: &Event) -> Result<String, Failure> {
        let Some(conversation) = ticked(event) else { return Ok(String::new()) };
        let Some(view) = self.view(conversation).await? else { return Ok(String::new()) };
        let word = if view.kind == Kind::Group { "in" } else { "to" };
        Ok(format!(" {word} {}", self.called(&view)))
    }

    /// Whether what an event tells is of a message: a group's name, and what was given up, have numbers too.
    pub(super) async fn is_of_messages(&mut self, event: &Event) -> Result<bool, Failure> {
        if matches!(event, Event::Lost { messages, .. } if !messages.is_empty()) {
            return Ok(true);
        }
        let Some((conversation, numbers)) = self.ticks.unknown(event) else { return Ok(true) };
        if let Some(known) = self.own.has(conversation, &numbers) {
            return Ok(known);
        }
        let rows = self.session.client.history(conversation, LOOKED_AT).await.exit(Exit::Folder)?;
        let is_own = |item: &&HistoryItem| item.conversation == conversation && item.row.kind() == RowKind::Outgoing;
        let own = || rows.iter().filter(is_own).map(|item| item.row.lane_no).collect();
        self.own.learn(conversation, (rows.len() < LOOKED_AT).then(own));
        Ok(self.own.has(conversation, &numbers).unwrap_or(true))
    }

    /// What a watermark of a group of three or more people makes known: a line when all have come so far, as one for each of
    /// them would push everything else off the screen. None for anything else, and for messages of earlier times.
    pub(super) async fn with_all(&mut self, event: &Event) -> Result<Option<Vec<String>>, Failure> {
        let (Some(conversation), Some(numbers)) = (ticked(event), self.ticks.open(event)) else { return Ok(None) };
        let Some(group) = self.view(conversation).await?.filter(|view| view.kind == Kind::Group) else {
            return Ok(None);
        };
        let look = move |core: &Core| {
            let reached = |lane_no| Some((lane_no, core.reached_by_all(conversation, lane_no)?));
            numbers.into_iter().filter_map(reached).collect()
        };
        let reached = self.session.client.query(look).await.map_err(|error| self.session.request(error))?;
        let lines = self.ticks.with_all(conversation, &reached);
        // Of two the other one is named. Whoever comes in later never was to have what went before.
        Ok((group.members.len() > 2).then_some(lines))
    }

    /// Says once who is in a group that became ready: when its name and everybody's handle are known, which are told
    /// one after the other.
    pub(super) async fn announce(&mut self, conversation: ConversationId, by: Option<&Member>) -> Result<(), Failure> {
        let Some(view) = self.view(conversation).await?.filter(|view| view.kind == Kind::Group) else { return Ok(()) };
        if view.name.is_none() || view.members.iter().any(|member| member.handle.is_none()) {
            return Ok(());
        }
        let members: Vec<_> = view.members.iter().map(|member| format!("@{}", name(member))).collect();
        let said = format!("#{}: {}", typed(&called(&view)), members.join(" "));
        if self.announced.get(&conversation) != Some(&said) {
            match by {
                Some(by) => self.screen.note(&format!("@{} added you to {said}", name(by))),
                None => self.screen.note(&said),
            }
            self.announced.insert(conversation, said);
        }
        Ok(())
    }

    /// How far each of one's own messages came, as far as it is known.
    async fn reached(&self, items: &[HistoryItem]) -> Result<Vec<String>, Failure> {
        let asked: Vec<_> = items.iter().map(|item| (item.conversation, item.row.lane_no)).collect();
        let look = move |core: &Core| asked.into_iter().map(|(id, lane_no)| core.reached(id, lane_no)).collect();
        let reached: Vec<Vec<(Member, Reached)>> =
            self.session.client.query(look).await.map_err(|error| self.session.request(error))?;
        Ok(reached.iter().map(|reached| tick_of(reached)).collect())
    }

    pub(super) async fn show_rows(&self, conversation: ConversationId, rows: usize) -> Result<(), Failure> {
        let Some(view) = self.view(conversation).await? else { return Ok(()) };
        let items = self.session.client.history(conversation, rows).await.exit(Exit::Folder)?;
        self.show_items(&view, &items).await
    }

    pub(super) async fn show_items(&self, view: &ConversationView, items: &[HistoryItem]) -> Result<(), Failure> {
        let plural = if items.len() == 1 { "" } else { "s" };
        self.screen.note(&format!("{}: the last {} message{plural}", self.called(view), items.len()));
        self.show_placed(view, items, "").await
    }

    /// Rows, each with the group and this behind who wrote it.
    pub(super) async fn show_placed(
        &self,
        view: &ConversationView,
        items: &[HistoryItem],
        behind: &str,
    ) -> Result<(), Failure> {
        let place = format!("{}{behind}", place_of(view));
        let (ticks, people) = (self.reached(items).await?, people(&self.session, items).await?);
        for (item, tick) in items.iter().zip(&ticks) {
            let known = people.of(item).filter(|member| member.handle.is_some() || member.former.is_some());
            let who = known.map_or_else(|| "?".into(), |member| name(&member));
            self.screen.history(item, &who, (&place, tick));
        }
        Ok(())
    }
}

/// Where a message of one's own is, of which this tells.
const fn ticked(event: &Event) -> Option<ConversationId> {
    match event {
        Event::Accepted { conversation, .. }
        | Event::Delivered { conversation, .. }
        | Event::Read { conversation, .. }
        | Event::Lost { conversation, .. }
        | Event::Refused { conversation, .. }
        | Event::Resending { conversation, .. } => Some(*conversation),
        _ => None,
    }
}

/// How far a message came, behind the name of who wrote it.
fn tick_of(reached: &[(Member, Reached)]) -> String {
    let who = |wanted| {
        let all: Vec<_> = reached.iter().filter(|(_, r)| *r == wanted).map(|(m, _)| format!("@{}", name(m))).collect();
        let more = all.len().saturating_sub(NAMED_MAX);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        (!all.is_empty()).then(|| format!("{}{more}", all[..all.len().min(NAMED_MAX)].join(" ")))
    };
    let lost = who(Reached::Lost).map_or(String::new(), |lost| format!(" ✗ lost for {lost}"));
    match (who(Reached::Read), who(Reached::Delivered)) {
        (Some(read), _) => format!(" ✓✓ read by {read}{lost}"),
        (None, Some(delivered)) => format!(" ✓✓ delivered to {delivered}{lost}"),
        (None, None) => format!(" ✓{lost}"),
    }
}
