// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a chat ends that nobody sits in front of: its input or output is a file or another program.

use std::io::ErrorKind;
use std::time::Duration;

use pli_client::core::{Core, Event};
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;

use super::Chat;
use crate::commands::output::{Output, Shape};
use crate::commands::session::{Deadline, LOOK_EVERY};
use crate::exit::{Exit, Failure};
use crate::terminal;

/// How long what was read may take to be accepted and done.
const SETTLED_WITHIN: Duration = Duration::from_secs(10);

impl Chat {
    /// Notes that something that was read is not done, and says why.
    pub(super) fn refuse(&self, why: &str) {
        self.undone.set(true);
        self.screen.note(why);
    }

    pub(super) fn note_refusal(&self, event: &Event) {
        let is_one =
            matches!(event, Event::Refused { .. } | Event::ConversationFailed { .. } | Event::ChangeFailed { .. });
        self.undone.set(self.undone.get() || is_one);
    }

    /// A standard output that was closed when the process began takes everything and shows nothing.
    pub(super) fn look_at_output(&self) {
        if self.editor.is_piped() && !Output::new(Shape::Text).is_kept() {
            self.paper.fail(ErrorKind::BrokenPipe.into());
        }
    }

    /// Waits until what was read is accepted or refused, and every change of a group made or refused; with a terminal the
    /// user sees what waits. A server that is away may be back before the time is over. `talked` is false where the chat
    /// has failed. Offline nothing is waited for: what was read is kept for the next time, as it was asked for.
    pub(super) async fn settle(&mut self, ending: &CancellationToken, talked: bool) -> Result<(), Failure> {
        let end = Instant::now() + SETTLED_WITHIN;
        let mut look = interval(LOOK_EVERY);
        while talked && !self.offline && self.editor.is_piped() && !ending.is_cancelled() {
            let counts = |core: &Core| (core.waiting().1, core.unsent_texts(), core.open_changes());
            let waits = self.session.client.query(counts).await;
            let (waiting, texts, changes) = waits.map_err(|error| self.session.request(error))?;
            if self.session.events.is_empty() && waiting + changes == 0 {
                break;
            }
            if self.lost_at.is_some_and(|at| at <= Instant::now()) {
                self.say_lost();
            }
            if Instant::now() >= end {
                return if texts + changes == 0 { Ok(()) } else { Err(self.session.timed_out()) };
            }
            tokio::select! {
                biased;
                () = ending.cancelled() => break,
                event = self.session.next_or(Deadline::after(None), &mut look) => {
                    if let Some(event) = event? {
                        self.see(event).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// What the exit code says of a chat without a terminal; one with a terminal has said everything on it.
    pub(super) fn outcome(&self, settled: Result<(), Failure>) -> Result<(), Failure> {
        if !self.editor.is_piped() {
            return Ok(());
        }
        self.paper.failure().map_or(Ok(()), terminal::written)?;
        settled?;
        if self.undone.get() {
            return Err(Failure::say(Exit::Input, "not everything that was read is sent or done; see above"));
        }
        Ok(())
    }
}
