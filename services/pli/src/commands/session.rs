// SPDX-License-Identifier: MIT OR Apache-2.0
//! An open profile on the command line: which server, which folder, and how failures end the process.

use std::time::Duration;

use pli_api::common;
use pli_client::core::{CommandError, ConnectionState, ConversationView, Core, Event};
use pli_client::{Client, ClientOptions, End, Events, OpenError, ProfileError, ProfileName, RequestError};
use pli_domain::Handle;
use pli_runtime::{LogsConfig, init_logs};
use tokio::time::{Instant, Interval, interval, timeout_at};

use super::advice::advice;
use super::link::{self, How};
use super::options::{self, options};
use super::output::warning;
use super::to_copy::{Invocation, line_here, quoted};
use crate::cli::ClientArgs;
use crate::exit::{Exit, ExitContext, Failure};

/// A profile that is open.
pub struct Session {
    /// Commands go here.
    pub client: Client,
    /// What happens comes from here.
    pub events: Events,
    /// For lines to copy.
    pub invocation: Invocation,
    /// Whose profile.
    pub name: ProfileName,
    /// What the server refuses for now, where something waits for that.
    refusal: Option<common::Error>,
    /// The profile's database was gone.
    keys_gone: bool,
    /// Says on standard error that a handle is new; the chat says it on its screen.
    tells_new: bool,
    /// The profile was made by this command.
    is_new: bool,
    /// It is a companion device's, which came to its account by this command.
    linked_now: bool,
    /// Says on standard error what a person must know, for a command that prints no events.
    warns: bool,
}

/// What a command does with a handle that has no profile here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstUse {
    /// Makes its keys and registers it; a companion device must be linked already.
    Registers,
    /// The same, and links a companion device.
    Links(How),
    /// Fails: a command that only looks, or changes what is there, makes no account of a slip of the keyboard.
    Fails,
}

/// How long a command waits for the server before it says so.
const WAIT_TOLD_AFTER: Duration = Duration::from_secs(5);

/// Opens the profile; the first use makes it. Says on standard error when the server is waited for.
pub async fn open(args: &ClientArgs, name: &ProfileName) -> Result<Session, Failure> {
    let session = open_as(args, name, FirstUse::Registers).await?;
    session.say_waiting();
    Ok(session)
}

/// Opens the profile; `first` says what happens where there is none.
pub async fn open_as(args: &ClientArgs, name: &ProfileName, first: FirstUse) -> Result<Session, Failure> {
    open_with(args, name, first, false).await
}

/// Opens a profile that is there, to look at what it holds: nobody is connected to.
pub async fn open_offline(args: &ClientArgs, name: &ProfileName) -> Result<Session, Failure> {
    open_with(args, name, FirstUse::Fails, true).await
}

async fn open_with(args: &ClientArgs, name: &ProfileName, first: FirstUse, offline: bool) -> Result<Session, Failure> {
    let logs = LogsConfig { filter: args.log.clone(), ..LogsConfig::default() };
    init_logs(&logs).exit(Exit::Usage)?;
    let options = ClientOptions { offline, ..options(args, name)? };
    let folder = pli_client::profile::folder(&options.home, &options.server, name);
    let is_new = !pli_client::profile::exists(&folder);
    // A name that was right once and cannot be resolved now is retried like any other trouble on the way.
    if !args.server.is_empty() && is_new {
        options::resolve(&args.server).await?;
    }
    args.server.iter().filter(|named| named.without_port).for_each(options::say_port);
    let keys_gone = pli_client::profile::lost(&folder);
    if first == FirstUse::Fails && !keys_gone && is_new {
        return Err(no_profile(args, name, &folder));
    }
    let how = if let FirstUse::Links(how) = first { Some(how) } else { None };
    let linked_now = name.device.is_some() && link::link(args, &options, how).await?;
    let (client, events) = Client::open(options).await.map_err(opening)?;
    // One that could not be registered when it was made is as new.
    let is_new = is_new || !client.status().borrow().registered;
    let (invocation, name) = (Invocation::of(args), name.clone());
    let (refusal, tells_new, warns) = (None, true, false);
    Ok(Session { client, events, invocation, name, refusal, keys_gone, tells_new, is_new, linked_now, warns })
}

fn no_profile(args: &ClientArgs, name: &ProfileName, folder: &std::path::Path) -> Failure {
    let folder = folder.display();
    let handle = &name.handle;
    if name.device.is_some() {
        return Failure::say(
            Exit::Folder,
            format_args!(
                "{name} is not linked here: there is no {folder}; check how it is spelled and --server, --home, or link it \
                 with `{}`",
                line_here(args, &format!("device link {name}"))
            ),
        );
    }
    Failure::say(
        Exit::Folder,
        format_args!(
            "@{handle} has no profile here: there is no {folder}; check how the handle is spelled and --server, --home, or \
             make it with `{}`, which registers it",
            line_here(args, &format!("recv {handle}"))
        ),
    )
}

pub fn opening(error: OpenError) -> Failure {
    let exit = match &error {
        OpenError::Profile(ProfileError::Locked { .. }) => Exit::InUse,
        OpenError::OtherServer { .. } => Exit::Unreachable,
        OpenError::Handle(_) => Exit::Usage,
        OpenError::Profile(_) | OpenError::OtherHandle { .. } | OpenError::Damaged { .. } | OpenError::NotLinked(_) => {
            Exit::Folder
        }
    };
    Failure::new(exit, error)
}

/// Says in a profile's folder that the account has removed the device, for who looks at it offline.
const REMOVED_FILE: &str = "removed";

/// A profile for one more device of the account in place of `name`, which `is_free` does not say is in use; an account has
/// ten devices.
pub fn another(handle: &Handle, name: &str, is_free: impl Fn(&str) -> bool) -> String {
    // A name that is as long as may be, or is none of a profile, is not made longer.
    let numbered = |name: &str| (2..12).map(|n| format!("{name}-{n}")).collect::<Vec<_>>();
    let names = numbered(name).into_iter().chain(["new-device".into()]).chain(numbered("new-device"));
    let fits = |name: &String| format!("{handle}/{name}").parse::<ProfileName>().is_ok() && is_free(name);
    format!("{handle}/{}", names.into_iter().find(fits).unwrap_or_else(|| "new-device".into()))
}

/// How often is looked whether something is done that no event tells of.
pub const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Events that are looked at for the reason of a refusal; more never wait.
const REASONS_MAX: usize = 10_000;

/// Why a client ended, as the process tells it.
fn ended(end: &End) -> Failure {
    let exit = match end {
        End::Closed => Exit::Failed,
        End::Stopped(..) => Exit::Refused,
        End::WrongServer(_) => Exit::Unreachable,
        End::Storage(_) | End::Profile(_) => Exit::Folder,
    };
    match end {
        End::Stopped(_, code) => Failure::say(exit, format_args!("{end}; {}", advice(*code))),
        _ => Failure::say(exit, end),
    }
}

/// A refusal of the server, for people.
pub fn refused(what: &str, why: &common::Error) -> Failure {
    Failure::say(Exit::Refused, format_args!("{what}: {}", sentence(why)))
}

/// What a refusal says, with its code and what the user does about it.
pub fn sentence(why: &common::Error) -> String {
    let code = why.code();
    let name = code.as_str_name().trim_start_matches("ERROR_CODE_");
    let blank = if why.message.is_empty() { "" } else { " " };
    format!("{}{blank}[{name}]; {}", why.message, advice(code))
}

/// How a command ends whose request was not taken: what is wrong with a word of the command line is an error of usage,
/// wherever it is noticed.
const fn exit_of(error: &CommandError) -> Exit {
    match error {
        CommandError::TextTooLong(_)
        | CommandError::TextEmpty
        | CommandError::GroupName(_)
        | CommandError::GroupSize
        | CommandError::DeviceName
        | CommandError::Oneself => Exit::Usage,
        CommandError::NotAMember | CommandError::GroupNameTaken(_) => Exit::Refused,
        CommandError::UnknownConversation
        | CommandError::Leaving
        | CommandError::NotAGroup
        | CommandError::NotThere
        | CommandError::NotTheFirst
        | CommandError::NoListYet
        | CommandError::TooManyDevices
        | CommandError::DeviceListed
        | CommandError::NoSuchDevice
        | CommandError::FirstDevice
        | CommandError::OutboxFull(_)
        | CommandError::Busy(_) => Exit::Failed,
    }
}

/// When to stop waiting.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// So many seconds from now; none never.
    pub fn after(seconds: Option<f64>) -> Self {
        let wait = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Self(wait.map(|wait| Instant::now() + wait))
    }

    /// When; none for never.
    pub const fn at(self) -> Option<Instant> {
        self.0
    }

    /// Whether it has come.
    pub fn is_over(self) -> bool {
        self.0.is_some_and(|at| Instant::now() >= at)
    }
}

impl Session {
    /// The next event before the deadline. Events that end every command end this one as failures.
    pub async fn next(&mut self, deadline: Deadline) -> Result<Event, Failure> {
        let event = match deadline.0 {
            Some(at) => timeout_at(at, self.events.next()).await.map_err(|_| self.timed_out())?,
            None => self.events.next().await,
        };
        match event {
            Some(Event::RegistrationRefused { why }) if !why.code().is_temporary() => Err(self.not_registered(&why)),
            Some(event) => {
                self.note_refusal(&event);
                Ok(event)
            }
            None => Err(self.ended(&self.client.end().await)),
        }
    }

    /// The next event, or none at the next tick of `look`, whichever is first.
    pub async fn next_or(&mut self, deadline: Deadline, look: &mut Interval) -> Result<Option<Event>, Failure> {
        tokio::select! {
            biased;
            event = self.next(deadline) => event.map(Some),
            _ = look.tick() => Ok(None),
        }
    }

    fn note_refusal(&mut self, event: &Event) {
        match event {
            Event::RegistrationRefused { why } | Event::Waiting { why, .. } => self.refusal = Some(why.clone()),
            Event::Registered { handle } if self.tells_new => {
                let folder = self.client.folder().display();
                if self.is_new {
                    crate::terminal::tell!("@{handle} is new and registered now; its keys are in {folder}");
                } else {
                    crate::terminal::tell!(
                        "@{handle} is registered now; the server did not know it yet, or not any more"
                    );
                }
                self.refusal = None;
            }
            // A server that was set back to before the removal takes the device again.
            Event::Connection(ConnectionState::Online) if self.is_removed() => {
                let _ = std::fs::remove_file(self.client.folder().join(REMOVED_FILE));
            }
            Event::Accepted { .. } | Event::Registered { .. } => self.refusal = None,
            _ if self.warns => {
                if let Some(warning) = warning(event) {
                    crate::terminal::tell!("{warning}");
                }
            }
            _ => {}
        }
    }

    fn not_registered(&self, why: &common::Error) -> Failure {
        if !self.keys_gone || why.code() != common::ErrorCode::HandleTaken {
            return refused("the handle cannot be registered", why);
        }
        let folder = self.client.folder().display();
        Failure::say(
            Exit::Folder,
            format_args!(
                "the keys of this profile are gone: profile.db in {folder} is missing or empty, and the server knows the \
                 handle under its old keys; put profile.db back from a copy of the folder, or move the folder away and \
                 choose another handle"
            ),
        )
    }

    /// Why something that was waited for did not come in time.
    pub fn timed_out(&self) -> Failure {
        if let Some(why) = &self.refusal {
            let why = sentence(why);
            let what = format_args!(
                "not in time: the server refuses for now: {why}; what is not accepted yet stays in the \
                                     outbox and goes out next time"
            );
            return Failure::say(Exit::TimedOut, what);
        }
        let status = self.client.status().borrow().clone();
        let why = match (status.state, status.why) {
            (ConnectionState::Online, _) => "the server is connected, but what was waited for did not come".to_string(),
            (_, Some(why)) => why,
            (_, None) => "the server has not answered; look at --server and --transport".to_string(),
        };
        let exit = if status.state == ConnectionState::Offline { Exit::Unreachable } else { Exit::TimedOut };
        if self.is_new && !status.registered {
            let folder = self.client.folder().display();
            let handle = &self.name.handle;
            return Failure::say(
                exit,
                format_args!(
                    "not in time: {why}; @{handle} is not registered yet, its keys and what it was given to send wait in \
                     {folder}: the next command on it registers it and sends that; delete the folder to drop both"
                ),
            );
        }
        Failure::say(
            exit,
            format_args!("not in time: {why}; what is not accepted yet stays in the outbox and goes out next time"),
        )
    }

    /// Waits until everything that waited at the server has arrived; other events go to `seen`.
    pub async fn online(&mut self, deadline: Deadline, mut seen: impl FnMut(&Event)) -> Result<(), Failure> {
        loop {
            let event = self.next(deadline).await?;
            seen(&event);
            if event == Event::Connection(ConnectionState::Online) {
                return Ok(());
            }
        }
    }

    /// The same, and what arrived was worked through: which conversations there are, what they are called, who is in them.
    pub async fn caught_up(&mut self, deadline: Deadline) -> Result<(), Failure> {
        self.online(deadline, |_| {}).await?;
        let mut look = interval(LOOK_EVERY);
        loop {
            if self.next_or(deadline, &mut look).await?.is_none() && self.has_caught_up().await? {
                return Ok(());
            }
        }
    }

    /// Whether nothing is left to show of what has arrived: it was worked through, and no event waits.
    pub async fn has_shown_all(&self) -> Result<bool, Failure> {
        // In this order: what is released in between is an event that waits.
        Ok(self.has_caught_up().await? && self.events.is_empty())
    }

    async fn has_caught_up(&self) -> Result<bool, Failure> {
        self.client.query(Core::has_caught_up).await.map_err(|error| self.request(error))
    }

    /// Every conversation that the user is in.
    pub async fn conversations(&self) -> Result<Vec<ConversationView>, Failure> {
        let all = self.client.conversations().await.map_err(|error| self.request(error))?;
        Ok(all.into_iter().filter(|conversation| !conversation.left).collect())
    }

    /// Why the client ended; where the account has removed the device, with the line that shows what is here.
    fn ended(&self, end: &End) -> Failure {
        if !matches!(end, End::Stopped(_, common::ErrorCode::DeviceRemoved)) {
            return ended(end);
        }
        // Without the mark, the next offline chat only promises too much.
        let _ = std::fs::write(self.client.folder().join(REMOVED_FILE), []);
        let shows = self.invocation.line_here(&format!("chat {} --offline", quoted(self.name.to_string())));
        let label = self.name.device.as_ref().map(ToString::to_string).unwrap_or_default();
        let next = another(&self.name.handle, &label, |_| true);
        let links = self.invocation.line_here(&format!("device link {}", quoted(next)));
        Failure::say(
            Exit::Refused,
            format_args!(
                "{end}; `{shows}` shows what is stored here; this machine comes back as a new device under another name, as \
                 with `{links}`, or under the same one with another --home"
            ),
        )
    }

    /// Whether it is known here that the account has removed this device.
    pub fn is_removed(&self) -> bool {
        self.client.folder().join(REMOVED_FILE).exists()
    }

    /// What a request's failure means.
    pub fn request(&self, error: RequestError) -> Failure {
        match (error, self.client.ended()) {
            (RequestError::Ended, Some(end)) => self.ended(&end),
            (RequestError::Command(error), _) => Failure::new(exit_of(&error), error),
            (error, _) => Failure::new(Exit::Failed, error),
        }
    }

    /// What a command's refusal means, once everything has been looked at that happened before it: `see` fails at the
    /// event that says why, and that failure counts.
    pub async fn reason(
        &mut self,
        error: RequestError,
        see: impl AsyncFnMut(&Event) -> Result<(), Failure>,
    ) -> Failure {
        match self.look_at_rest(see).await {
            Ok(()) => self.request(error),
            Err(why) => why,
        }
    }

    /// Looks at everything that has happened and was not looked at.
    pub async fn look_at_rest(
        &mut self,
        mut see: impl AsyncFnMut(&Event) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        for _ in 0..REASONS_MAX {
            // The driver hands out every event that waits before it takes a request.
            if self.events.is_empty() && (self.client.query(|_| ()).await.is_err() || self.events.is_empty()) {
                break;
            }
            let event = self.next(Deadline::after(None)).await?;
            see(&event).await?;
        }
        Ok(())
    }

    /// Says on standard error what a person must know: the command prints no events.
    pub const fn warn(&mut self) {
        self.warns = true;
    }

    /// Says on standard error what is waited for where the server is not there after a while.
    pub fn say_waiting(&self) {
        let status = self.client.status();
        tokio::spawn(async move {
            tokio::time::sleep(WAIT_TOLD_AFTER).await;
            let status = status.borrow().clone();
            if status.state == ConnectionState::Offline && !status.ended {
                crate::terminal::tell!("{status}");
            }
        });
    }

    /// Leaves it to the caller to say that a handle is new.
    pub const fn keep_quiet(&mut self) {
        self.tells_new = false;
    }

    /// Whether this is a companion device that came to its account by this command.
    pub const fn linked_now(&self) -> bool {
        self.linked_now
    }

    /// Closes the profile.
    pub async fn close(self) {
        self.client.close().await;
    }
}
