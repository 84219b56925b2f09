// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pli device approve`: reads the code of a new device, compares numbers, asks, and adds it.

use std::io::{IsTerminal, stdin};

use pli_api::common;
use pli_client::core::{Event, OwnDevice};
use pli_client::linking::{Approved, LinkFailure};
use serde_json::json;
use tokio::time::{interval, timeout};

use super::{Approve, called_so, everywhere, meanwhile, watching};
use crate::commands::link::{DECLINED_WITHIN, digits, failed, yes};
use crate::commands::session::{Deadline, LOOK_EVERY, Session, another, refused};
use crate::commands::to_copy::{line, line_here, quoted};
use crate::exit::{Exit, Failure};
use crate::terminal::{one_line, say, tell};

/// Before anything is done: a code is used up by who reads it.
pub(super) fn may_ask(args: &Approve) -> Result<(), Failure> {
    if args.yes || stdin().is_terminal() {
        return Ok(());
    }
    Err(Failure::say(
        Exit::Usage,
        "nobody can be asked, because standard input is no terminal; say --yes to add the device without being asked, \
         or run this in a terminal; the code is not used up",
    ))
}

pub(super) async fn approve(args: &Approve, session: &mut Session, deadline: Deadline) -> Result<(), Failure> {
    let client = session.client.clone();
    let met = meanwhile(session, client.meet_new_device(args.code.clone(), deadline.at())).await?;
    let mut met = met.map_err(failed)?;
    let (name, number) = (met.name().to_owned(), met.number());
    if args.at.json {
        say!("{}", json!({ "event": "device_waits", "name": name, "number": number }))?;
    } else {
        say!("a new device that calls itself \"{}\"; the number there must be {}", one_line(&name), digits(&number))?;
    }
    let all = session.client.devices().await.map_err(|error| session.request(error))?;
    if let Some(other) = called_so(&all, &name, None) {
        let why = taken(args, &all, other);
        // Whether or not the other side hears of it.
        let _ = meanwhile(session, timeout(DECLINED_WITHIN, met.decline())).await?;
        return Err(why);
    }
    let question = format!("Add \"{}\" to @{}? [y/N] ", one_line(&name), args.handle.handle);
    if !args.yes && !meanwhile(session, yes(&question, met.is_over())).await?? {
        // Whether or not the other side hears of it.
        let _ = meanwhile(session, timeout(DECLINED_WITHIN, met.decline())).await?;
        return Err(Failure::say(Exit::Failed, "declined: the device was not added"));
    }
    let mut refusal = None;
    let approved = match watching(session, met.approve(), &mut refusal).await? {
        Ok(approved) => approved,
        Err(LinkFailure::NotListed) => return Err(why_not(session, refusal).await),
        Err(error) => return Err(failed(error)),
    };
    added(args, session, &approved).await
}

/// A new device has the name of another one.
fn taken(args: &Approve, all: &[OwnDevice], other: &OwnDevice) -> Failure {
    let (handle, name) = (&args.handle.handle, one_line(&other.name));
    let next = another(handle, &name, |name| called_so(all, name, None).is_none());
    let links = line(&args.at.client, &format!("device link {}", quoted(next)));
    // The first device cannot be removed.
    let frees = match other.is_this {
        true => format!("device rename {handle} {} NAME", quoted(name.clone())),
        false => format!("device remove {handle} {}", quoted(name.clone())),
    };
    let removes = line_here(&args.at.client, &frees);
    Failure::say(
        Exit::Failed,
        format_args!(
            "declined: {} is called \"{name}\" already; link the new device under another name, as with `{links}` there, or, \
             where that one needs the name no more, first `{removes}` here",
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
        tell!("it did not say that it knows; start it again there, and it goes on");
    }
    match outside {
        0 => say!("it is in all conversations ({inside})")?,
        _ => say!("it is in {inside} conversations; it comes into {outside} more while this device or it is online")?,
    }
    let to = quoted(approved.name.clone());
    let gives = line_here(&args.at.client, &format!("device history {} --to {to}", args.handle.handle));
    say!("what was written before stays here; `{gives}` hands it over")
}
