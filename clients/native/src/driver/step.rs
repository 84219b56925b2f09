// SPDX-License-Identifier: MIT OR Apache-2.0
//! The effects of one or several inputs that share a transaction.

use pli_api::edge::ClientFrame;
use pli_client_core::{ChangeSet, Command, Core, Effects, Event, Outcome, SessionAdvice};
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
        self.changes.0.extend(effects.changes.0);
        self.frames.extend(effects.frames);
        self.events.extend(effects.events);
        if effects.session != SessionAdvice::Keep {
            self.session = effects.session;
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
