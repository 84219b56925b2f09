// SPDX-License-Identifier: MIT OR Apache-2.0
//! The task that carries out what the core decides: commit in one transaction, then send, then show.
//!
//! Sending is not waited for: while frames leave over a slow link others come in, and commands are taken.
//!
//! Nothing that the core decided leaves the process, as a frame or as an event, before it is durable. When a commit
//! fails the driver ends: the core's memory is ahead of what is stored, and only a new start from the store is safe.

mod link;
mod load;
mod passing;
mod step;
#[cfg(test)]
mod tests;
mod trace;
mod wire;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pli_api::common::ErrorCode;
use pli_api::edge::{Binding, ServerFrame, server_frame};
use pli_client_core::{ConnectionState, Core, Effects, Event, SessionAdvice};
use pli_domain::UnixMillis;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::client::{CallError, Request, Status};
use crate::error::End;
use crate::history::Rows;
use crate::profile::Profile;
use crate::{Connection, TransportError};
pub(crate) use link::Link;
pub(crate) use load::{load, rows as rows_of};
use passing::Passing;
use step::Step;

/// Requests and frames whose effects share one transaction.
const STEP_INPUTS_MAX: usize = 64;
/// Events that wait for their reader beyond the channel; above it nothing is read from the server.
const EVENTS_WAITING_MAX: usize = 4_096;
/// Where the core does not say when to connect again.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(1);
/// How long an end waits for answers that are on their way.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);
/// Keys that are used up are gone from the disk so long after the transaction that deleted them, at the latest: the log of
/// the database is emptied, once for everything that was committed meanwhile.
const SCRUBBED_WITHIN: Duration = Duration::from_secs(1);
/// Another program reads the database, so that its log cannot be emptied: it is tried again after so long.
const SCRUBBED_AGAIN: Duration = Duration::from_secs(5);
/// Saying goodbye may take this long.
const GOODBYE_WITHIN: Duration = Duration::from_secs(2);

/// Where requests come from and events go.
pub(crate) struct Channels {
    pub requests: mpsc::Receiver<Request>,
    pub events: mpsc::Sender<Event>,
    pub stop: CancellationToken,
}

/// What the task holds.
pub(crate) struct Driver {
    core: Core,
    rows: Rows,
    profile: Profile,
    link: Link,
    passing: Passing,
    channels: Channels,
    waiting: VecDeque<Event>,
    status: watch::Sender<Status>,
    end: watch::Sender<Option<End>>,
    /// It is told to end, and does so by then.
    leaving: Option<Instant>,
    /// Something was committed, and the database is rid of what it replaced by then.
    scrub_at: Option<Instant>,
}

/// What the loop waits for.
enum Input {
    Stop,
    Late,
    Request(Option<Request>),
    Frame(Result<ServerFrame, TransportError>),
    Connected(Result<Connection, TransportError>),
    Connect,
    Timer,
    Scrub,
    Emitted,
    /// The link has taken what was too much.
    Room,
}

impl Driver {
    /// A driver that has not begun, with what it tells of itself.
    pub fn new(
        core: Core,
        rows: Rows,
        profile: Profile,
        link: Link,
        channels: Channels,
    ) -> (Self, watch::Receiver<Status>, watch::Receiver<Option<End>>) {
        let (status, status_seen) = watch::channel(Status { registered: core.is_registered(), ..Status::default() });
        let (end, end_seen) = watch::channel(None);
        let (passing, waiting) = (Passing::default(), VecDeque::new());
        // The store's opening has scrubbed, unless another program read it then.
        let (leaving, scrub_at) = (None, Some(Instant::now() + SCRUBBED_WITHIN));
        let driver = Self { core, rows, profile, link, passing, channels, waiting, status, end, leaving, scrub_at };
        (driver, status_seen, end_seen)
    }

    /// Runs until it is stopped, every handle is dropped, or it cannot go on.
    pub async fn run(mut self) {
        let end = self.work().await.err().unwrap_or(End::Closed);
        let _ = tokio::time::timeout(GOODBYE_WITHIN, self.link.close()).await;
        // What is committed is acknowledged and comes only once: it is shown although the client ends.
        let _ = tokio::time::timeout(GOODBYE_WITHIN, emit(&mut self.waiting, &self.channels.events)).await;
        tracing::debug!(%end, "the client ended");
        self.status.send_modify(|status| {
            status.ended = true;
            status.carrier = None;
            status.state = ConnectionState::Offline;
        });
        self.passing.lose();
        if self.scrub_at.is_some() {
            // What cannot be scrubbed now is at the next opening.
            let _ = self.rows.scrub().await;
        }
        self.rows.close().await;
        let Self { profile, core, end: told, .. } = self;
        // The profile must be free when the end is told: the next opener may wait for it.
        drop((profile, core));
        told.send_replace(Some(end));
    }

    async fn work(&mut self) -> Result<(), End> {
        while !self.may_leave() {
            match self.next_input().await {
                Input::Stop | Input::Request(None) => self.leaving = Some(Instant::now() + ANSWERS_WITHIN),
                Input::Late => {
                    self.link.give_up();
                    return Ok(());
                }
                Input::Emitted | Input::Room => {}
                Input::Request(Some(request)) => self.requested(request).await?,
                Input::Frame(Ok(frame)) => self.received(frame).await?,
                Input::Frame(Err(error)) => self.disconnected(&error).await?,
                Input::Connect => self.link.connect(),
                Input::Connected(Ok(connection)) => self.connected(connection)?,
                Input::Connected(Err(error)) => self.disconnected(&error).await?,
                Input::Scrub => self.scrub().await?,
                Input::Timer => {
                    let effects = self.core.tick(now());
                    self.carry_out(Step::of(effects)).await?;
                }
            }
        }
        Ok(())
    }

    /// It is told to end, and no answer is waited for that could still come.
    fn may_leave(&self) -> bool {
        self.leaving.is_some() && (self.core.is_idle() || !self.link.is_open())
    }

    async fn next_input(&mut self) -> Input {
        let timer = self.core.next_deadline().map(instant_of);
        // What is committed waits for its readers, the user and the server; while too much does, nothing is taken in.
        let sends = self.link.has_room();
        let reads = sends && self.waiting.len() < EVENTS_WAITING_MAX;
        let (leaving, scrub) = (self.leaving, self.scrub_at);
        let Channels { requests, events, stop } = &mut self.channels;
        tokio::select! {
            biased;
            () = stop.cancelled(), if leaving.is_none() => Input::Stop,
            () = sleep_until(leaving.unwrap_or_else(Instant::now)), if leaving.is_some() => Input::Late,
            permit = events.reserve(), if !self.waiting.is_empty() => {
                match (permit, self.waiting.pop_front()) {
                    (Ok(permit), Some(event)) => permit.send(event),
                    // Nobody reads events any more; commands may still come.
                    _ => self.waiting.clear(),
                }
                Input::Emitted
            }
            () = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() && sends => Input::Timer,
            () = sleep_until(scrub.unwrap_or_else(Instant::now)), if scrub.is_some() => Input::Scrub,
            request = requests.recv(), if leaving.is_none() && sends => Input::Request(request),
            event = self.link.next(reads) => match event {
                link::LinkEvent::Frame(frame) => Input::Frame(frame),
                link::LinkEvent::Opened(opened) => Input::Connected(opened),
                link::LinkEvent::Due => Input::Connect,
                link::LinkEvent::Room => Input::Room,
            },
        }
    }

    async fn requested(&mut self, first: Request) -> Result<(), End> {
        let mut step = Step::default();
        let (mut next, mut taken) = (Some(first), 0);
        while let Some(request) = next.take() {
            taken += 1;
            match request {
                Request::Command(command, answer) => {
                    // Who acts wants to know now whether the server is back.
                    self.link.hurry();
                    step.command(&mut self.core, *command, answer);
                }
                Request::Handled(order, command, answer) => {
                    step.handled(&mut self.core, (order, command), answer);
                }
                Request::Query(look) => look(&self.core),
                Request::Call(method, body, answer) if self.is_ready() => {
                    step.frames.extend(self.passing.call(method, body, answer));
                }
                Request::Call(.., answer) => drop(answer.send(Err(CallError::Lost))),
            }
            if taken < STEP_INPUTS_MAX && !step.is_final() {
                next = self.channels.requests.try_recv().ok();
            }
        }
        self.carry_out(step).await
    }

    async fn received(&mut self, first: ServerFrame) -> Result<(), End> {
        let mut step = Step::default();
        let mut next = Some(first);
        // What the session must do comes before what the server said next.
        while let Some(frame) = next.take().filter(|_| !step.is_final()) {
            step.add(self.frame(frame)?);
            if step.inputs() < STEP_INPUTS_MAX && !step.is_final() {
                next = self.link.try_next();
            }
        }
        self.carry_out(step).await
    }

    /// There is a session of this device.
    fn is_ready(&self) -> bool {
        matches!(self.core.connection(), ConnectionState::CatchingUp | ConnectionState::Online)
    }

    fn frame(&mut self, frame: ServerFrame) -> Result<Effects, End> {
        trace::received(&frame);
        let frame = match frame.frame {
            Some(server_frame::Frame::Reply(answer)) if Passing::is_for(&answer) => {
                self.passing.answered(answer);
                return Ok(Effects::default());
            }
            frame => ServerFrame { frame },
        };
        let Some(server_frame::Frame::Hello(hello)) = &frame.frame else { return Ok(self.core.frame(frame, now())) };
        let (host, exporter) = (self.link.server().to_string(), self.link.exporter());
        let answer = self.core.handshake(hello, &host, (Binding::TlsExporter, &exporter), now());
        match answer {
            Ok(answer) => Ok(Effects { frames: vec![answer], ..Effects::default() }),
            Err(error) => Err(End::Stopped(error.to_string(), ErrorCode::UnsupportedVersion)),
        }
    }

    fn connected(&mut self, connection: Connection) -> Result<(), End> {
        self.profile.keep_pin(connection.fingerprint).map_err(|error| End::Profile(Arc::new(error)))?;
        let carrier = connection.carrier();
        self.link.opened(connection);
        self.status.send_modify(|status| {
            status.why = None;
            status.carrier = Some(carrier);
        });
        Ok(())
    }

    fn wrong_server(&self, why: &TransportError) -> String {
        let folder = self.profile.folder().display();
        match self.profile.pin() {
            Ok(None) => format!(
                "{why}; check the fingerprint, which was given or stands in the server's data folder; none is pinned yet: give the \
                 right one with the next run, too, which otherwise trusts whatever server it finds"
            ),
            _ => format!("{why}; if it was set up anew, move the profile folder {folder} away"),
        }
    }

    /// There is no connection any more, or there was none; the core says when to try again.
    async fn disconnected(&mut self, why: &TransportError) -> Result<(), End> {
        tracing::debug!(%why, "no connection");
        self.passing.lose();
        let is_wrong = matches!(why, TransportError::WrongCertificate { .. });
        if self.link.is_given_up(is_wrong) {
            return Err(End::WrongServer(self.wrong_server(why)));
        }
        let others = self.link.others();
        self.status.send_modify(|status| {
            status.why = Some(format!("{why}{others}"));
            status.carrier = None;
        });
        self.link.retry_after(RETRY_AFTER_DEFAULT, Duration::ZERO);
        self.link.next_server();
        let effects = self.core.disconnected(now());
        Box::pin(self.carry_out(Step::of(effects))).await
    }

    async fn carry_out(&mut self, step: Step) -> Result<(), End> {
        let Step { changes, frames, session, events, answers, handled, .. } = step;
        if !changes.is_empty() || handled.is_some() {
            self.rows.commit(changes, handled).await.map_err(|error| End::Storage(Arc::new(error)))?;
            self.scrub_at = self.scrub_at.or_else(|| Some(Instant::now() + SCRUBBED_WITHIN));
        }
        // What is durable is answered, however slow the connection is.
        for (answer, outcome) in answers {
            // The caller may have gone.
            let _ = answer.send(outcome);
        }
        for event in events {
            self.note(&event);
            self.waiting.push_back(event);
        }
        trace::sent(&frames);
        // A frame that does not leave is no loss: the core sends again what is not answered.
        self.link.send(frames);
        match session {
            SessionAdvice::Keep => Ok(()),
            SessionAdvice::Reconnect { after, at_least } => Box::pin(self.reconnect(after, at_least)).await,
            SessionAdvice::Stop { why } => {
                Err(End::Stopped(sentence(&why), ErrorCode::try_from(why.code).unwrap_or_default()))
            }
        }
    }

    async fn scrub(&mut self) -> Result<(), End> {
        let emptied = self.rows.scrub().await.map_err(|error| End::Storage(Arc::new(error)))?;
        self.scrub_at = (!emptied).then(|| Instant::now() + SCRUBBED_AGAIN);
        Ok(())
    }

    async fn reconnect(&mut self, after: Duration, at_least: Duration) -> Result<(), End> {
        let was_open = self.link.is_open();
        self.passing.lose();
        // What has not left is sent again.
        self.link.give_up();
        let _ = tokio::time::timeout(GOODBYE_WITHIN, self.link.close()).await;
        self.link.retry_after(after, at_least);
        if !was_open {
            return Ok(());
        }
        self.link.next_server();
        let mut step = Step::of(self.core.disconnected(now()));
        // The core has said already when to come back.
        step.session = SessionAdvice::Keep;
        self.carry_out(step).await
    }

    fn note(&self, event: &Event) {
        match event {
            Event::Connection(state) => {
                self.status.send_modify(|status| status.state = *state);
            }
            Event::Registered { .. } => self.status.send_modify(|status| status.registered = true),
            _ => {}
        }
    }
}

/// Gives all events to their reader, if there still is one.
async fn emit(waiting: &mut VecDeque<Event>, events: &mpsc::Sender<Event>) {
    while let Some(event) = waiting.pop_front() {
        if events.send(event).await.is_err() {
            waiting.clear();
        }
    }
}

fn sentence(why: &pli_api::common::Error) -> String {
    format!("{} [{}]", why.message, why.code().as_str_name().trim_start_matches("ERROR_CODE_"))
}

/// Local time.
pub(crate) fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// When a local time comes, as the runtime counts.
fn instant_of(at: UnixMillis) -> Instant {
    Instant::now() + at.since(now())
}
