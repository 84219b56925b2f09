// SPDX-License-Identifier: MIT OR Apache-2.0
//! The devices of one's account, from within a chat that has its profile: `/devices`, `/unlink DEVICE`, and
//! `/approve CODE` with `/yes` or `/no`. Letting a device in goes on beside everything else.

use std::time::Duration;

use pli_client::Client;
use pli_client::core::Command;
use pli_client::core::linking::{LinkCode, Refusal};
use pli_client::linking::Approved;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Chat;
use crate::commands::device::approve::{Place, under_a_free_name};
use crate::commands::device::history::comes_by;
use crate::commands::device::{no_change, removable, shown};
use crate::commands::link::{DECLINED_WITHIN, UNCONFIRMED, digits, failed, let_in};
use crate::commands::session::Deadline;
use crate::exit::{Exit, Failure};
use crate::terminal::one_line;

/// How long the end of a chat waits for a device that may come in.
const APPROVED_WITHIN: Duration = Duration::from_secs(10);

/// A new device that is being let in.
#[derive(Debug, Default)]
pub(super) struct Letting {
    task: JoinSet<Result<Option<Approved>, Failure>>,
    steps: Option<mpsc::Receiver<Step>>,
    answer: Option<oneshot::Sender<Answer>>,
}

/// What is said of a newcomer: that it comes in, or why not.
type Answer = Result<(), Refusal>;

/// How far it came.
#[derive(Debug)]
pub(super) enum Step {
    /// A person is asked.
    Met(Newcomer),
    /// It takes long, and this says what is waited for.
    Slow(String),
    /// It is in, was declined, or failed.
    Ended(Result<Option<Approved>, Failure>),
}

/// What it calls itself, and the number that it shows.
#[derive(Debug)]
pub(super) struct Newcomer {
    name: String,
    number: String,
}

impl Letting {
    fn begin(&mut self, client: Client, at: Place, code: LinkCode) {
        let ((tell, steps), (answer, answered)) = (mpsc::channel(2), oneshot::channel());
        (self.steps, self.answer) = (Some(steps), Some(answer));
        self.task.spawn(meet(client, at, code, tell, answered));
    }

    /// The next step; waits for ever where nothing goes on. Cancel safe.
    pub(super) async fn next(&mut self) -> Step {
        if let Some(steps) = &mut self.steps
            && let Some(step) = steps.recv().await
        {
            return step;
        }
        self.steps = None;
        match self.task.join_next().await {
            Some(ended) => {
                self.answer = None;
                Step::Ended(ended.unwrap_or_else(|error| Err(Failure::new(Exit::Failed, error))))
            }
            None => std::future::pending().await,
        }
    }

    /// The chat is over. Where nobody has answered yet the new device hears that nobody will, and where that was
    /// allowed it comes in, unless it takes too long; answers how it ended, where it did.
    pub(super) async fn end(&mut self) -> Option<Step> {
        let within = match self.answer.take() {
            Some(answer) => {
                let _ = answer.send(Err(Refusal::Ended));
                DECLINED_WITHIN
            }
            None => APPROVED_WITHIN,
        };
        let ended = timeout(within, self.task.join_next()).await.unwrap_or_else(|_| {
            let why = "the new device has not come in; link it again, where `/devices` does not name it";
            Some(Ok(Err(Failure::say(Exit::TimedOut, why))))
        });
        ended.map(|ended| Step::Ended(ended.unwrap_or_else(|error| Err(Failure::new(Exit::Failed, error)))))
    }
}

/// Meets the new device, has somebody asked, and lets it in; nothing where that was declined.
async fn meet(
    client: Client,
    at: Place,
    code: LinkCode,
    tell: mpsc::Sender<Step>,
    answer: oneshot::Receiver<Answer>,
) -> Result<Option<Approved>, Failure> {
    let met = client.meet_new_device(code, None).await.map_err(failed)?;
    let all = client.devices().await.map_err(|error| Failure::new(Exit::Failed, error))?;
    let mut met = under_a_free_name(met, &all, &at).await?;
    let _ = tell.send(Step::Met(Newcomer { name: met.name().to_owned(), number: met.number() })).await;
    let answer = tokio::select! {
        biased;
        answer = answer => answer.unwrap_or(Err(Refusal::Ended)),
        why = met.is_over() => return Err(failed(why)),
    };
    match answer {
        // A chat that is over looks at no steps.
        Ok(()) => let_in(met, |slow| drop(tell.try_send(Step::Slow(slow)))).await.map(Some).map_err(failed),
        Err(why) => {
            // Whether or not the other side hears of it.
            let _ = timeout(DECLINED_WITHIN, met.decline(why)).await;
            Ok(None)
        }
    }
}

impl Chat {
    pub(super) async fn devices(&self) -> Result<(), Failure> {
        let all = self.session.client.devices().await.map_err(|error| self.session.request(error))?;
        if all.is_empty() {
            return self.hint("the account's devices are not known yet; ask again when the prompt shows ●");
        }
        all.iter().for_each(|device| self.screen.line(&format!("  {}", shown(device))));
        Ok(())
    }

    pub(super) async fn unlink(&mut self, text: &str) -> Result<(), Failure> {
        if !self.may_change_devices().await? {
            return Ok(());
        }
        let all = self.session.client.devices().await.map_err(|error| self.session.request(error))?;
        match removable(&all, text) {
            Err(failure) => self.tell(&failure),
            Ok(device) => {
                let name = all.into_iter().find(|own| own.device == device).map(|own| own.name);
                name.into_iter().for_each(|name| self.merged.removes(device, name));
                self.command(Command::RemoveDevice { device }).await.map(|_| ())
            }
        }
    }

    pub(super) async fn approve(&mut self, code: LinkCode) -> Result<(), Failure> {
        if !self.may_change_devices().await? {
            return Ok(());
        }
        if !self.letting.task.is_empty() {
            return self.hint(match self.asks {
                true => "another device is being let in; answer that one first, with /yes or /no",
                false => "another device is being let in; wait for that one, a minute at the most",
            });
        }
        let (handle, invocation) = (self.session.name.handle.clone(), self.session.invocation.clone());
        self.letting.begin(self.session.client.clone(), Place { handle, invocation, in_chat: true }, code);
        Ok(())
    }

    /// `/yes` or `/no`.
    pub(super) fn answer(&mut self, yes: bool) -> Result<(), Failure> {
        match self.letting.answer.take_if(|_| self.asks) {
            Some(answer) => {
                self.asks = false;
                // Where nobody hears it any more, the end of the link says why.
                let _ = answer.send(if yes { Ok(()) } else { Err(Refusal::Declined) });
                Ok(())
            }
            None => self.hint("there is no question to answer"),
        }
    }

    /// Only the first device changes the list, and nothing is known of the newcomer without a server.
    async fn may_change_devices(&self) -> Result<bool, Failure> {
        match no_change(&self.session).await? {
            Some(failure) => self.tell(&failure)?,
            None if self.offline => self.hint("not while offline: start the chat without --offline")?,
            None => return Ok(true),
        }
        Ok(false)
    }

    /// Ends what goes on, while events are read: where nobody reads them the client waits.
    pub(super) async fn end_letting(&mut self) {
        let mut letting = std::mem::take(&mut self.letting);
        if letting.task.is_empty() {
            return;
        }
        let mut ending = std::pin::pin!(letting.end());
        let step = loop {
            tokio::select! {
                biased;
                step = &mut ending => break step,
                event = self.session.next(Deadline::after(None)) => match event {
                    Ok(event) => {
                        let _ = self.see(event).await;
                    }
                    // It has ended, and says why by itself.
                    Err(_) => break None,
                },
            }
        };
        if let Some(step) = step {
            self.show_step(step);
        }
    }

    /// What is said of a device that is being let in.
    pub(super) fn show_step(&mut self, step: Step) {
        self.asks = matches!(step, Step::Met(_));
        match step {
            Step::Met(Newcomer { name, number }) => {
                let (name, number) = (one_line(&name), digits(&number));
                self.screen.warning(&format!(
                    "* a new device that calls itself \"{name}\"; the number there must be {number}: /yes adds it, /no does not"
                ));
            }
            Step::Ended(Ok(None)) => self.screen.note("the device was not added"),
            Step::Slow(slow) => self.screen.note(&slow),
            Step::Ended(Ok(Some(approved))) => self.show_approved(&approved),
            Step::Ended(Err(failure)) => self.refuse(&failure.error.to_string()),
        }
    }

    /// That it is one of the account's devices now an event says.
    fn show_approved(&self, approved: &Approved) {
        if !approved.confirmed {
            self.screen.note(UNCONFIRMED);
        }
        let comes = comes_by(&self.session.invocation, &self.session.name.handle, &approved.name);
        self.screen.note(&format!("{comes}, each while no chat of it is open"));
    }
}
