// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pli device approve`: reads the code of a new device, compares numbers, asks, and adds it.

use std::io::{IsTerminal, stdin};

use pli_api::common;
use pli_client::core::linking::Refusal;
use pli_client::core::{Event, OwnDevice};
use pli_client::linking::{Approval, Approved, LinkFailure};
use pli_domain::Handle;
use serde_json::json;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;

use super::history::comes_by;
use super::{Approve, called_so, everywhere, meanwhile, watching};
use crate::commands::interrupted_or_hung_up;
use crate::commands::link::{DECLINED_WITHIN, UNCONFIRMED, digits, failed, let_in, yes};
use crate::commands::options::options;
use crate::commands::session::{Deadline, LOOK_EVERY, Session, another, refused};
use crate::commands::to_copy::{Invocation, quoted};
use crate::exit::{Exit, Failure};
use crate::terminal::{one_line, say, tell};

/// Before anything is done: a code is used up by who reads it. Where nobody can be asked, what is wrong with the code comes
/// first.
pub(super) fn may_ask(args: &Approve) -> Result<(), Failure> {
    if args.yes || stdin().is_terminal() {
        return Ok(());
    }
    let options = options(&args.at.client, &args.handle)?;
    let hosts: Vec<String> = std::iter::once(&options.server).chain(&options.others).map(ToString::to_string).collect();
    args.code.for_one_of(&hosts).map_err(|error| failed(error.into()))?;
    Err(Failure::say(
        Exit::Usage,
        "nobody can be asked, because standard input is no terminal; say --yes to add the device without being asked, \
         or run this in a terminal; the code is not used up",
    ))
}

pub(super) async fn approve(args: &Approve, session: &mut Session, deadline: Deadline) -> Result<(), Failure> {
    let client = session.client.clone();
    let met = meanwhile(session, client.meet_new_device(args.code.clone(), deadline.at())).await?;
    let met = met.map_err(failed)?;
    let (name, number) = (met.name().to_owned(), met.number());
    if args.at.json {
        say!("{}", json!({ "event": "device_waits", "name": name, "number": number }))?;
    } else {
        say!("a new device that calls itself \"{}\"; the number there must be {}", one_line(&name), digits(&number))?;
    }
    let all = session.client.devices().await.map_err(|error| session.request(error))?;
    let at = Place { handle: args.handle.handle.clone(), invocation: session.invocation.clone(), in_chat: false };
    let met = meanwhile(session, under_a_free_name(met, &all, &at)).await??;
    if args.yes {
        // Who asks nobody needs to say nothing either, and ends as ever.
        return finish(args, session, met).await;
    }
    let stop = interrupted_or_hung_up()?;
    let met = allowed(args, session, met, &stop).await?;
    let ends = async {
        stop.cancelled().await;
        let why = "ended while the device was let in; `pli device list` tells whether it is in";
        Err(Failure::say(Exit::Failed, why))
    };
    tokio::select! {
        biased;
        ended = ends => ended,
        done = finish(args, session, met) => done,
    }
}

/// Asks whether the device may come in; where it may not, or nobody answers any more, it hears so.
async fn allowed(
    args: &Approve,
    session: &mut Session,
    mut met: Approval,
    stop: &CancellationToken,
) -> Result<Approval, Failure> {
    let question = format!("Add \"{}\" to @{}? [y/N] ", one_line(met.name()), args.handle.handle);
    let answer = stop.run_until_cancelled(meanwhile(session, yes(&question, met.is_over()))).await;
    let (why, failure) = match answer.transpose()? {
        Some(Ok(true)) => return Ok(met),
        Some(Ok(false)) => (Refusal::Declined, Failure::say(Exit::Failed, "declined: the device was not added")),
        Some(Err(over)) => (Refusal::Ended, over),
        None => {
            // Behind the question, where there still is a terminal.
            let _ = crate::terminal::put("\n");
            (Refusal::Ended, Failure::say(Exit::Failed, "ended before anybody answered: the device was not added"))
        }
    };
    // Whether or not the other side hears of it.
    let _ = meanwhile(session, timeout(DECLINED_WITHIN, met.decline(why))).await?;
    Err(failure)
}

async fn finish(args: &Approve, session: &mut Session, met: Approval) -> Result<(), Failure> {
    let mut refusal = None;
    let approved = match watching(session, let_in(met, |slow| tell!("{slow}")), &mut refusal).await? {
        Ok(approved) => approved,
        Err(LinkFailure::NotListed) => return Err(why_not(session, refusal).await),
        Err(error) => return Err(failed(error)),
    };
    added(args, session, &approved).await
}

/// Where a new device is met, for lines that a person copies.
#[derive(Debug)]
pub struct Place {
    /// Of the account.
    pub handle: Handle,
    /// How this program was started.
    pub invocation: Invocation,
    /// Whether a chat has the profile, which no other command can use then.
    pub in_chat: bool,
}

/// A new device that has the name of another one is declined, and hears so; the error says what to do.
pub async fn under_a_free_name(met: Approval, all: &[OwnDevice], at: &Place) -> Result<Approval, Failure> {
    let Some(other) = called_so(all, met.name(), None) else { return Ok(met) };
    let why = taken(all, other, at);
    // Whether or not the other side hears of it.
    let _ = timeout(DECLINED_WITHIN, met.decline(Refusal::NameTaken)).await;
    Err(why)
}

fn taken(all: &[OwnDevice], other: &OwnDevice, Place { handle, invocation, in_chat }: &Place) -> Failure {
    let name = one_line(&other.name);
    let next = another(handle, &name, |name| called_so(all, name, None).is_none());
    let links = invocation.line(&format!("device link {}", quoted(next)));
    let here = |command: &str| format!("`{}` here", invocation.line_here(command));
    // The first device cannot be removed.
    let frees = match (other.is_this, in_chat) {
        (false, false) => here(&format!("device remove {handle} {}", quoted(name.clone()))),
        (false, true) => format!("`/unlink {name}` here"),
        (true, _) => here(&format!("device rename {handle} {} NAME", quoted(name.clone()))),
    };
    let when = if other.is_this && *in_chat { ", when this chat has ended" } else { "" };
    Failure::say(
        Exit::Failed,
        format_args!(
            "declined: {} is called \"{name}\" already; link the new device under another name, as with `{links}` there, or, \
             where that one needs the name no more, first {frees}{when}",
            other.device
        ),
    )
}

/// The reason that the server gave for not taking the list; it may have been told before the link ended.
async fn why_not(session: &mut Session, told: Option<common::Error>) -> Failure {
    if let Some(why) = told {
        return refused("the device is not added", &why);
    }
    let mut look = interval(LOOK_EVERY);
    let soon = Deadline::after(Some(1.0));
    loop {
        match session.next_or(soon, &mut look).await {
            Ok(Some(Event::DeviceChangeFailed { why, .. })) => return refused("the device is not added", &why),
            Ok(_) => {}
            Err(_) => return failed(LinkFailure::NotListed),
        }
    }
}

async fn added(args: &Approve, session: &mut Session, approved: &Approved) -> Result<(), Failure> {
    let (inside, outside) = everywhere(session, approved.device, true).await?;
    if args.at.json {
        return say!(
            "{}",
            json!({
                "event": "device_approved", "device": approved.device.to_string(), "name": approved.name,
                "confirmed": approved.confirmed, "conversations": inside, "waiting": outside,
            })
        );
    }
    say!("{} {} added", approved.device, one_line(&approved.name))?;
    if !approved.confirmed {
        tell!("{UNCONFIRMED}");
    }
    match outside {
        0 => say!("it is in all conversations ({inside})")?,
        _ => say!("it is in {inside} conversations; it comes into {outside} more while this device or it is online")?,
    }
    say!("{}", comes_by(&session.invocation, &args.handle.handle, &approved.name))
}

#[cfg(test)]
mod tests {
    use super::super::tests::device;
    use super::*;

    #[test]
    fn a_name_that_is_taken_is_freed_by_what_works_where_one_is() {
        let all = [device(1, "first device", true), device(2, "laptop", false)];
        let said = |other: &OwnDevice, in_chat| {
            let handle = "alice".parse().expect("a handle");
            let at = Place { handle, invocation: Invocation::default(), in_chat };
            taken(&all, other, &at).error.to_string()
        };
        assert!(
            said(&all[1], false).ends_with("first `pli device remove alice laptop` here"),
            "{}",
            said(&all[1], false)
        );
        let renames = "first `pli device rename alice 'first device' NAME` here";
        assert!(said(&all[0], false).ends_with(renames), "{}", said(&all[0], false));
        // The profile is in use.
        let unlinks = said(&all[1], true);
        assert!(unlinks.ends_with("first `/unlink laptop` here"), "{unlinks}");
        assert!(unlinks.contains("`pli device link alice/laptop-2` there"), "{unlinks}");
        let renames = said(&all[0], true);
        assert!(renames.ends_with("NAME` here, when this chat has ended"), "{renames}");
    }
}
