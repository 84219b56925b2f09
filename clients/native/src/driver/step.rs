// SPDX-License-Identifier: MIT OR Apache-2.0
//! The effects of one or several inputs that share a transaction.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use pli_api::edge::ClientFrame;
use pli_client_core::{Change, ChangeSet, Command, Core, Effects, Event, Outcome, SessionAdvice, Table};
use tokio::sync::oneshot;

use crate::driver::now;
use crate::error::RequestError;

type Answer = (oneshot::Sender<Result<Outcome, RequestError>>, Result<Outcome, RequestError>);

/// What is to be carried out together.
#[derive(Default)]
pub(super) struct Step {
    pub changes: ChangeSet,
    pub frames: Vec<ClientFrame>,
    pub session: SessionAdvice,
    pub events: Vec<Event>,
    /// Given when the changes are durable.
    pub answers: Vec<Answer>,
    /// The place of a message that was handled by one of them.
    pub handled: Option<u64>,
    /// Where in `changes` a row stands.
    rows: HashMap<(Table, Vec<u8>), usize>,
    inputs: usize,
}

impl Step {
    /// The effects of one input.
    pub fn of(effects: Effects) -> Self {
        let mut step = Self::default();
        step.add(effects);
        step
    }

    /// Adds the effects of a later input.
    pub fn add(&mut self, effects: Effects) {
        self.inputs += 1;
        effects.changes.0.into_iter().for_each(|change| self.change(change));
        self.frames.extend(effects.frames);
        self.events.extend(effects.events);
        if effects.session != SessionAdvice::Keep {
            self.session = effects.session;
        }
    }

    /// Of several changes of one row the last one counts, in the place of the first: each message that is opened changes
    /// the state of its group, which may be more than a megabyte, and all are in one transaction.
    fn change(&mut self, change: Change) {
        match self.rows.entry((change.table, change.key.clone())) {
            Entry::Occupied(place) => self.changes.0[*place.get()] = change,
            Entry::Vacant(vacant) => {
                vacant.insert(self.changes.0.len());
                self.changes.0.push(change);
            }
        }
    }

    /// Adds the effects of a command; its answer waits for the commit.
    pub fn command(
        &mut self,
        core: &mut Core,
        command: Command,
        answer: oneshot::Sender<Result<Outcome, RequestError>>,
    ) {
        match core.command(command, now()) {
            Ok(effects) => {
                self.answers.push((answer, Ok(effects.outcome)));
                self.add(effects);
            }
            Err(error) => self.answers.push((answer, Err(error.into()))),
        }
    }

    /// Notes that a message was handled, by a command where there is one: if it is taken, both are in one transaction.
    pub fn handled(
        &mut self,
        core: &mut Core,
        (order, command): (u64, Option<Box<Command>>),
        answer: oneshot::Sender<Result<Outcome, RequestError>>,
    ) {
        let effects = command.map_or_else(|| Ok(Effects::default()), |command| core.command(*command, now()));
        match effects {
            Ok(effects) => {
                self.handled = self.handled.max(Some(order));
                self.answers.push((answer, Ok(effects.outcome)));
                self.add(effects);
            }
            Err(error) => self.answers.push((answer, Err(error.into()))),
        }
    }

    /// How many inputs are in it.
    pub const fn inputs(&self) -> usize {
        self.inputs
    }

    /// Whether the session ends with this step.
    pub fn is_final(&self) -> bool {
        self.session != SessionAdvice::Keep
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effects(changes: &[(Table, &str, Option<&str>)]) -> Effects {
        let change = |(table, key, value): &(Table, &str, Option<&str>)| Change {
            table: *table,
            key: key.as_bytes().to_vec(),
            value: value.map(|value| value.as_bytes().to_vec()),
        };
        Effects { changes: ChangeSet(changes.iter().map(change).collect()), ..Effects::default() }
    }

    #[test]
    fn of_each_row_the_last_change_is_committed_in_the_order_of_the_first_ones() {
        let mut step = Step::of(effects(&[(Table::Mls, "group", Some("1")), (Table::Seen, "a", Some("x"))]));
        step.add(effects(&[(Table::Outbox, "group", Some("another table")), (Table::Mls, "group", Some("2"))]));
        step.add(effects(&[(Table::Seen, "a", None), (Table::Mls, "group", Some("3")), (Table::Seen, "b", Some("y"))]));
        step.add(effects(&[(Table::Seen, "b", None), (Table::Seen, "b", Some("z"))]));
        let last = effects(&[
            (Table::Mls, "group", Some("3")),
            (Table::Seen, "a", None),
            (Table::Outbox, "group", Some("another table")),
            (Table::Seen, "b", Some("z")),
        ]);
        assert_eq!((step.inputs(), step.changes), (4, last.changes));
    }

    #[test]
    fn a_group_that_many_messages_change_is_written_once() {
        let group = "g".repeat(100_000);
        let mut step = Step::default();
        for n in 0..64 {
            step.add(effects(&[(Table::Mls, "group", Some(&group)), (Table::Messages, &n.to_string(), Some("text"))]));
        }
        let bytes: usize = step.changes.0.iter().filter_map(|change| change.value.as_ref()).map(Vec::len).sum();
        assert_eq!(bytes, group.len() + 64 * 4);
    }
}
