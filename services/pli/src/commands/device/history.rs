// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pli device history`: a history goes from one device of an account to another.

use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

use clap::Args;
use pli_client::core::Core;
use pli_client::handover::{HandedOver, HandoverError, Progress, TakenIn};
use pli_client::{ProfileName, RequestError};
use pli_domain::{DeviceId, Handle, UnixMillis};
use serde_json::json;
use tokio::time::sleep;

use super::{At, devices, meanwhile, named};
use crate::commands::session::{Deadline, Session, refused};
use crate::commands::target::profile;
use crate::commands::to_copy::{self, Invocation, line_here, quoted};
use crate::exit::{Exit, Failure};
use crate::terminal::{clock, one_line, say, tell};

/// Between two looks for a history that is not there yet.
const LOOK_EVERY: Duration = Duration::from_secs(4);
/// Characters of the bar.
const BAR: u32 = 30;

#[derive(Debug, Args)]
pub(super) struct History {
    /// With --to the account's profile on its first device, which hands its history over; without it the profile of the
    /// device that takes it in, HANDLE/NAME.
    #[arg(value_parser = profile)]
    pub(super) name: ProfileName,
    /// Hand the history over to this device: its name, or its id or the beginning of it.
    #[arg(long, value_name = "DEVICE")]
    to: Option<String>,
    #[command(flatten)]
    pub(super) at: At,
}

/// Hands over, or takes in.
pub(super) async fn run(args: &History, session: &mut Session, deadline: Deadline) -> Result<(), Failure> {
    let first = session.client.query(|core| core.signs_lists()).await.map_err(|error| session.request(error))?;
    match (&args.to, first) {
        (Some(device), true) => give(args, device, session, deadline).await,
        (None, false) => take(args, session, deadline).await,
        (Some(_), false) => {
            let text =
                "only the account's first device hands its history over: leave out --to, and this device takes it in";
            Err(Failure::say(Exit::Usage, text))
        }
        (None, true) => Err(Failure::say(
            Exit::Usage,
            format_args!(
                "name the device that gets the history, as in `{}`",
                line_here(&args.at.client, &format!("device history {} --to laptop", args.name))
            ),
        )),
    }
}

async fn give(args: &History, device: &str, session: &mut Session, deadline: Deadline) -> Result<(), Failure> {
    let all = devices(session, deadline).await?;
    let device = named(&all, device)?;
    let own = all.iter().find(|own| own.device == device);
    if own.is_some_and(|own| own.is_this) {
        return Err(Failure::say(Exit::Usage, "this device has its history; name another one"));
    }
    let name = own.map_or_else(String::new, |own| one_line(&own.name));
    let (client, mut bar) = (session.client.clone(), Bar::new(args.at.json));
    let given = meanwhile(session, client.hand_history_over(device, |progress| bar.show(progress))).await?;
    drop(bar);
    match given {
        Ok(given) => given_over(args, device, &name, given),
        Err(error) => Err(failed("the history is not handed over", error, (args, session)).await),
    }
}

fn given_over(args: &History, device: DeviceId, name: &str, given: HandedOver) -> Result<(), Failure> {
    let HandedOver { messages, cut, resumed, parts } = given;
    if args.at.json {
        let device = device.to_string();
        return say!(
            "{}",
            json!({
                "event": "history_handed_over", "device": device, "messages": messages, "cut": cut, "parts": parts,
                "resumed": resumed,
            })
        );
    }
    if cut {
        tell!("older messages were left out: all of them would not fit");
    }
    let (what, handle) = (counted(messages, "message"), &args.name.handle);
    let there = to_copy::line(&args.at.client, &format!("device history {handle}/NAME"));
    say!(
        "{what} for {name}, sealed, on the server for up to 7 days; `{there}` there takes them in: NAME is what it was linked \
         as{}",
        linked_as(handle, name)
    )
}

/// How the history comes to a device that was let in just now, for a person at the first device: `gives` hands it over,
/// and what takes it in there is a line where the name that the device has is one of a profile.
pub fn comes_by(invocation: &Invocation, handle: &Handle, name: &str) -> String {
    let gives = invocation.line_here(&format!("device history {handle} --to {}", quoted(one_line(name))));
    let profile = format!("{handle}/{name}").parse::<ProfileName>();
    let there = profile.map_or_else(|_| format!("{handle}/NAME"), |profile| quoted(profile.to_string()));
    let takes = invocation.line(&format!("device history {there}"));
    format!("what was written before stays here; `{gives}` hands it over, and `{takes}` there takes it in")
}

/// What a device's profile is called on it, as far as its name in the list tells: another name there changes no profile.
fn linked_as(handle: &Handle, name: &str) -> String {
    let named = format!("{handle}/{name}").parse::<ProfileName>().ok().and_then(|profile| profile.device);
    named.map_or_else(String::new, |device| format!(" ({device}, unless it was renamed since)"))
}

async fn take(args: &History, session: &mut Session, deadline: Deadline) -> Result<(), Failure> {
    let mut is_told = false;
    loop {
        let (client, mut bar) = (session.client.clone(), Bar::new(args.at.json));
        let taken = meanwhile(session, client.take_history_in(|progress| bar.show(progress))).await?;
        drop(bar);
        match taken {
            Ok(taken) => return taken_in(args, taken),
            // The other side may be about to begin.
            Err(error @ (HandoverError::Nothing | HandoverError::Unfinished(_))) if !deadline.is_over() => {
                if !std::mem::replace(&mut is_told, true)
                    && let Some(line) = line_for(&error, args, session).await
                {
                    tell!("waiting: {error}: `{line}`");
                }
                meanwhile(session, sleep(LOOK_EVERY)).await?;
            }
            Err(error) => return Err(failed("the history is not taken in", error, (args, session)).await),
        }
    }
}

fn taken_in(args: &History, taken: TakenIn) -> Result<(), Failure> {
    let TakenIn { messages, new, cut, made_at_ms } = taken;
    if args.at.json {
        return say!(
            "{}",
            json!({
                "event": "history_taken_in", "messages": messages, "new": new, "cut": cut, "made_at_ms": made_at_ms
            })
        );
    }
    if cut {
        tell!("older messages were left out: all of them would not fit");
    }
    let at = clock(UnixMillis(made_at_ms));
    say!("{} taken in, of {messages} in the history as of {at}", counted(new, "older message"))
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

async fn failed(what: &str, error: HandoverError, (args, session): (&History, &Session)) -> Failure {
    let exit = match &error {
        HandoverError::Refused(why) => return refused(what, why),
        HandoverError::Ended => return session.request(RequestError::Ended),
        HandoverError::Unreachable => Exit::Unreachable,
        HandoverError::Storage(_) | HandoverError::File { .. } => Exit::Folder,
        HandoverError::Nothing | HandoverError::Unfinished(_) => Exit::TimedOut,
        HandoverError::NotListed | HandoverError::NoSecret | HandoverError::Archive(_) => Exit::Failed,
    };
    match line_for(&error, args, session).await {
        Some(line) => Failure::say(exit, format_args!("{error}: `{line}`")),
        None => Failure::new(exit, error),
    }
}

/// The line that goes on from there.
async fn line_for(error: &HandoverError, args: &History, session: &Session) -> Option<String> {
    let (client, handle) = (&args.at.client, &args.name.handle);
    match error {
        HandoverError::NotListed => Some(line_here(client, &format!("device list {handle}"))),
        HandoverError::Nothing | HandoverError::Unfinished(_) => {
            let called = |core: &Core| core.devices().into_iter().find(|own| own.is_this).map(|own| own.name);
            let called = session.client.query(called).await.ok().flatten();
            let device = called.map_or_else(|| "DEVICE".into(), |name| quoted(one_line(&name)));
            Some(to_copy::line(client, &format!("device history {handle} --to {device}")))
        }
        _ => None,
    }
}

/// How far it is: a bar where somebody looks, else a line for each part with `--json`, else a line for each tenth of a long
/// one.
struct Bar {
    json: bool,
    drawn: bool,
    tenths: u32,
}

impl Bar {
    const fn new(json: bool) -> Self {
        Self { json, drawn: false, tenths: 0 }
    }

    fn show(&mut self, Progress { done, parts }: Progress) {
        if self.json {
            // A closed pipe changes nothing of what the command does.
            let _ = say!("{}", json!({ "event": "history_part", "done": done, "parts": parts }));
        } else if stderr().is_terminal() {
            self.drawn = true;
            let _ = write!(stderr().lock(), "\r{}", line(done, parts));
        } else if parts > 10 && done * 10 / parts > self.tenths {
            self.tenths = done * 10 / parts;
            tell!("{done} of {parts} parts");
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.drawn {
            let _ = writeln!(stderr().lock());
        }
    }
}

fn line(done: u32, parts: u32) -> String {
    let full = (done.min(parts) * BAR).checked_div(parts).unwrap_or(0);
    let (full, empty) = ("#".repeat(full as usize), ".".repeat((BAR - full) as usize));
    format!("history [{full}{empty}] {done} of {parts} parts")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fills_from_the_left() {
        assert_eq!(line(0, 4), format!("history [{}] 0 of 4 parts", ".".repeat(30)));
        assert_eq!(line(1, 2), format!("history [{}{}] 1 of 2 parts", "#".repeat(15), ".".repeat(15)));
        assert_eq!(line(4, 4), format!("history [{}] 4 of 4 parts", "#".repeat(30)));
    }
}
