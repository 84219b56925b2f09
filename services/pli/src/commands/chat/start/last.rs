// SPDX-License-Identifier: MIT OR Apache-2.0
//! The last rows of the conversations in which something was said last. A profile may have thousands of conversations,
//! and a chat shows five of them: of the others no more is read than says when that was.

use pli_client::HistoryItem;
use pli_domain::ConversationId;

/// Rows of each conversation that are shown.
pub(super) const ROWS_SHOWN: usize = 10;
/// Conversations that are shown.
const CONVERSATIONS_SHOWN: usize = 5;
/// Rows of a conversation that are looked through for those at most, and how many times as many with each look: where much
/// was missed they stand far up.
const LOOKED_AT: usize = 10_000;
const LOOKED_AT_TIMES: usize = 8;

/// Where a row belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Before what was missed.
    Old,
    /// Among it.
    New,
    /// It is shown as the event that it is.
    Elsewhere,
}

/// What is shown of a conversation.
#[derive(Debug)]
pub(super) struct Last {
    pub conversation: ConversationId,
    pub old: Vec<HistoryItem>,
    pub new: Vec<HistoryItem>,
}

impl Last {
    /// The place of the newest row.
    fn newest(&self) -> Option<u64> {
        self.new.last().or(self.old.last()).map(|row| row.order)
    }
}

/// The last rows of the last conversations, that of the newest row last; `read` reads as many of a conversation.
pub(super) async fn last_of<E>(
    conversations: impl Iterator<Item = ConversationId>,
    place: impl Fn(&HistoryItem) -> Place,
    read: impl AsyncFn(ConversationId, usize) -> Result<Vec<HistoryItem>, E>,
) -> Result<Vec<Last>, E> {
    let mut all = Vec::new();
    for conversation in conversations {
        // Nothing but what is shown elsewhere may stand at the end.
        let is_found = |last: &Last| last.newest().is_some();
        let last = look(conversation, &place, &read, is_found).await?;
        all.extend(last.newest().map(|newest| (newest, last)));
    }
    all.sort_unstable_by_key(|(newest, _)| *newest);
    all.drain(..all.len().saturating_sub(CONVERSATIONS_SHOWN));
    let mut shown = Vec::with_capacity(all.len());
    let is_enough = |last: &Last| last.old.len() >= ROWS_SHOWN;
    for (_, last) in all {
        let more = !is_enough(&last);
        shown.push(if more { look(last.conversation, &place, &read, is_enough).await? } else { last });
    }
    Ok(shown)
}

/// Looks through more and more rows until it is enough.
async fn look<E>(
    conversation: ConversationId,
    place: impl Fn(&HistoryItem) -> Place,
    read: impl AsyncFn(ConversationId, usize) -> Result<Vec<HistoryItem>, E>,
    is_enough: impl Fn(&Last) -> bool,
) -> Result<Last, E> {
    let mut wanted = ROWS_SHOWN;
    loop {
        let rows = read(conversation, wanted).await?;
        let is_all = rows.len() < wanted || wanted == LOOKED_AT;
        let mut last = Last { conversation, old: Vec::new(), new: Vec::new() };
        for row in rows {
            match place(&row) {
                Place::Old => last.old.push(row),
                Place::New => last.new.push(row),
                Place::Elsewhere => {}
            }
        }
        if is_all || is_enough(&last) {
            keep_last(&mut last.old);
            keep_last(&mut last.new);
            return Ok(last);
        }
        wanted = (wanted * LOOKED_AT_TIMES).min(LOOKED_AT);
    }
}

fn keep_last(rows: &mut Vec<HistoryItem>) {
    rows.drain(..rows.len().saturating_sub(ROWS_SHOWN));
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use pli_client::core::MessageRow;

    use super::*;

    const BEFORE: u64 = 50_000;

    fn id(n: u8) -> ConversationId {
        ConversationId::from_bytes([n; 16])
    }

    fn rows(conversation: u8, orders: impl Iterator<Item = u64>) -> (ConversationId, Vec<HistoryItem>) {
        let row = |order| HistoryItem { order, conversation: id(conversation), row: MessageRow::default() };
        (id(conversation), orders.map(row).collect())
    }

    /// Everything from `elsewhere` on came meanwhile.
    async fn look_at(
        stored: BTreeMap<ConversationId, Vec<HistoryItem>>,
        elsewhere: u64,
    ) -> (Vec<Last>, BTreeMap<ConversationId, usize>) {
        let most = RefCell::new(BTreeMap::new());
        let read = async |conversation, wanted: usize| {
            most.borrow_mut().insert(conversation, wanted);
            let rows: &Vec<HistoryItem> = &stored[&conversation];
            Ok::<_, Infallible>(rows[rows.len().saturating_sub(wanted)..].to_vec())
        };
        let place = |row: &HistoryItem| match row.order {
            old if old < BEFORE => Place::Old,
            new if new < elsewhere => Place::New,
            _ => Place::Elsewhere,
        };
        let Ok(last) = last_of(stored.keys().copied(), place, read).await;
        (last, most.into_inner())
    }

    #[tokio::test]
    async fn of_conversations_that_are_not_shown_no_more_is_read_than_when_something_was_said() {
        // Much was missed in each; in the last ones it is the newest.
        let missed = |n: u8| rows(n, (0..20).chain((0..1_000).map(move |i| BEFORE + u64::from(n) + 100 * i)));
        let (last, most) = look_at((1..=40).map(missed).collect(), u64::MAX).await;
        assert_eq!(
            last.iter().map(|last| last.conversation).collect::<Vec<_>>(),
            (36..=40).map(id).collect::<Vec<_>>()
        );
        for Last { conversation, old, new } in &last {
            assert_eq!((old.len(), new.len()), (ROWS_SHOWN, ROWS_SHOWN), "{conversation}");
            assert_eq!(old.last().map(|row| row.order), Some(19), "{conversation}");
        }
        for n in 1..=35 {
            assert_eq!(most[&id(n)], ROWS_SHOWN, "{n}");
        }
    }

    #[tokio::test]
    async fn a_conversation_at_whose_end_stands_what_came_meanwhile_is_found() {
        let stored = [rows(1, 0..3), rows(2, (4..6).chain(60_000..60_500)), rows(3, 60_500..60_900), rows(4, 0..0)];
        let (last, _) = look_at(stored.into(), 60_000).await;
        let found: Vec<_> = last.iter().map(|last| (last.conversation, last.old.len(), last.new.len())).collect();
        assert_eq!(found, [(id(1), 3, 0), (id(2), 2, 0)]);
    }
}
