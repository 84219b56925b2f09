// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pli device`: the devices of an account.

pub mod approve;
pub mod history;

use std::future::Future;
use std::time::Duration;

use clap::{Args, Subcommand};
use pli_api::common;
use pli_client::ProfileName;
use pli_client::core::linking::{InvalidCode, LinkCode};
use pli_client::core::{Command, Core, Event, OwnDevice};
use pli_domain::DeviceId;
use serde_json::json;
use tokio::time::{Instant, interval};

use super::link::{How, LinkArgs};
use super::number::seconds;
use super::session::{self, Deadline, FirstUse, LOOK_EVERY, Session, refused};
use super::target::profile;
use super::to_copy::line_here;
use crate::cli::ClientArgs;
use crate::exit::{Exit, Failure};
use crate::terminal::{one_line, say};

/// How long is waited for a device to come into, or go out of, every conversation; the rest follows by itself.
const EVERYWHERE_WITHIN: Duration = Duration::from_secs(20);

/// Add, list, rename and remove the devices of an account, and hand a history over.
///
/// An account has up to 10 devices. The one that registered it is the first device: it alone holds the account's identity
/// key, so it alone adds, renames and removes the others. `pli chat HANDLE/NAME` or `pli device link HANDLE/NAME` on a new
/// device prints a code; `pli device approve HANDLE CODE` on the first one reads it, within a minute. Both show a number of
/// six digits, which must be the same, and ask. What was written before a device came stays on the others until
/// `pli device history HANDLE --to NAME` on the first one and `pli device history HANDLE/NAME` on the new one hand it over.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pli device link alice/laptop --qr\n  pli device approve alice pli1…\n  pli device list alice\n  pli device rename alice laptop \"work laptop\"\n  pli device remove alice laptop\n  pli device history alice --to laptop\n  pli device history alice/laptop"
)]
pub struct DeviceArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show a code on a new device and join the account of the device that reads it.
    ///
    /// The other device is waited for as long as --timeout says and the code lives, a minute; then the server is waited for,
    /// once more as long as --timeout says. Whoever says no ends it on both devices at once.
    Link(Link),
    /// Read the code of a new device and add it to the account.
    ///
    /// Without a terminal nobody can be asked: say --yes. The new device is waited for as long as --timeout says and the code
    /// lives. Whoever says no ends it on both devices at once; an eleventh device is refused before anybody is asked.
    Approve(Approve),
    /// List the account's devices.
    ///
    /// A line is the device's id and what it is called; this one is marked.
    List(List),
    /// Call a device otherwise; everybody who has a conversation with the account can see the name. The account's other
    /// devices show it from their next connection on.
    Rename(Rename),
    /// Remove a device: its session ends, what waits for it is deleted, and it is removed from every conversation.
    Remove(Remove),
    /// Hand the history over to another device, or take it in there.
    ///
    /// The messages are sealed for that one device with a key that the two share since they were linked, and wait on the
    /// server for up to 7 days. Stopped at any moment, the same command goes on. The device that takes them in shows them
    /// before everything that it has shown itself; what it has already is not added again. It waits for a history that is
    /// not there yet, as long as --timeout says.
    History(history::History),
}

#[derive(Debug, Args)]
struct Link {
    /// The new device's profile, HANDLE/NAME.
    #[arg(value_parser = profile)]
    name: ProfileName,
    #[command(flatten)]
    link: LinkArgs,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Args)]
struct Approve {
    /// The account's profile on its first device.
    #[arg(value_parser = profile)]
    handle: ProfileName,
    /// What the new device shows.
    #[arg(value_parser = code)]
    code: LinkCode,
    /// Add the device without asking.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Args)]
struct List {
    /// Whose profile.
    #[arg(value_parser = profile)]
    handle: ProfileName,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Args)]
struct Rename {
    #[command(flatten)]
    of: Named,
    /// Its new name: 1 to 64 bytes.
    name: String,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Args)]
struct Remove {
    #[command(flatten)]
    of: Named,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Args)]
struct Named {
    /// The account's profile on its first device.
    #[arg(value_parser = profile)]
    handle: ProfileName,
    /// Which device: its name, or its id or the beginning of it.
    device: String,
}

#[derive(Debug, Args)]
struct At {
    /// One JSON object a line (docs/events.md).
    #[arg(long)]
    json: bool,
    /// Wait at most so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    timeout: f64,
    #[command(flatten)]
    client: ClientArgs,
}

fn code(text: &str) -> Result<LinkCode, InvalidCode> {
    text.parse()
}

/// Runs `pli device`.
pub async fn run(args: DeviceArgs) -> Result<(), Failure> {
    let (at, handle) = match &args.action {
        Action::Link(new) => return join(new).await,
        Action::Approve(approve) => {
            approve::may_ask(approve)?;
            (&approve.at, &approve.handle)
        }
        Action::List(list) => (&list.at, &list.handle),
        Action::Rename(rename) => (&rename.at, &rename.of.handle),
        Action::Remove(remove) => (&remove.at, &remove.of.handle),
        Action::History(history) => (&history.at, &history.name),
    };
    let mut session = session::open_as(&at.client, handle, FirstUse::Fails).await?;
    session.warn();
    session.say_waiting();
    let done = act(&args.action, &mut session, Deadline::after(Some(at.timeout))).await;
    session.close().await;
    done
}

async fn act(action: &Action, session: &mut Session, deadline: Deadline) -> Result<(), Failure> {
    session.caught_up(deadline).await?;
    match action {
        Action::Link(_) => Ok(()),
        Action::Approve(args) => approve::approve(args, session, deadline).await,
        Action::List(list) => show(&devices(session, deadline).await?, list.at.json),
        Action::Rename(args) => rename(args, session, deadline).await,
        Action::Remove(args) => remove(args, session, deadline).await,
        Action::History(args) => history::run(args, session, deadline).await,
    }
}

/// Links this device and publishes its key packages, so that it comes into conversations while it is away.
async fn join(args: &Link) -> Result<(), Failure> {
    if args.name.device.is_none() {
        return Err(Failure::say(
            Exit::Usage,
            format_args!(
                "name the new device, as in `{}`",
                line_here(&args.at.client, &format!("device link {}/laptop", args.name))
            ),
        ));
    }
    let by = Deadline::after(Some(args.at.timeout)).at();
    let how = How { json: args.at.json, by, ..How::of(args.link, &args.at.client, &args.name) };
    let mut session = session::open_as(&args.at.client, &args.name, FirstUse::Links(how)).await?;
    session.warn();
    let fresh = session.linked_now();
    let published = published(&mut session, Deadline::after(Some(args.at.timeout))).await;
    let device = session.client.query(|core| core.address().device).await.map_err(|error| session.request(error))?;
    session.close().await;
    published?;
    if args.at.json {
        return say!("{}", json!({ "event": "linked", "device": device.to_string(), "fresh": fresh }));
    }
    if fresh { Ok(()) } else { say!("{} is linked already", args.name) }
}

async fn published(session: &mut Session, deadline: Deadline) -> Result<(), Failure> {
    session.caught_up(deadline).await?;
    let mut look = interval(LOOK_EVERY);
    while !session.client.query(|core| core.has_published()).await.map_err(|error| session.request(error))? {
        session.next_or(deadline, &mut look).await?;
    }
    Ok(())
}

/// Waits, not too long, until the device is in every conversation and told of what it is, or in none; answers in how many it
/// is, and is not.
async fn everywhere(session: &mut Session, device: DeviceId, wanted: bool) -> Result<(usize, usize), Failure> {
    let (end, mut look) = (Instant::now() + EVERYWHERE_WITHIN, interval(LOOK_EVERY));
    loop {
        let stands = move |core: &Core| (core.conversations_of(device), core.has_greeted(device));
        let (counts, greeted) = session.client.query(stands).await.map_err(|error| session.request(error))?;
        let (inside, outside) = counts;
        if (if wanted { outside == 0 && greeted } else { inside == 0 }) || Instant::now() >= end {
            return Ok(counts);
        }
        session.next_or(Deadline::after(None), &mut look).await?;
    }
}

/// Does something while events are read: where nobody reads them the client waits.
async fn meanwhile<T>(session: &mut Session, work: impl Future<Output = T>) -> Result<T, Failure> {
    watching(session, work, &mut None).await
}

/// The same, keeping the last reason for which a change of the device list was refused.
async fn watching<T>(
    session: &mut Session,
    work: impl Future<Output = T>,
    refusal: &mut Option<common::Error>,
) -> Result<T, Failure> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return Ok(done),
            event = session.next(Deadline::after(None)) => {
                if let Event::DeviceChangeFailed { why, .. } = event? {
                    *refusal = Some(why);
                }
            }
        }
    }
}

/// The account's devices, once its list is known.
async fn devices(session: &mut Session, deadline: Deadline) -> Result<Vec<OwnDevice>, Failure> {
    let mut look = interval(LOOK_EVERY);
    loop {
        let devices = session.client.devices().await.map_err(|error| session.request(error))?;
        if !devices.is_empty() {
            return Ok(devices);
        }
        session.next_or(deadline, &mut look).await?;
    }
}

fn show(devices: &[OwnDevice], as_json: bool) -> Result<(), Failure> {
    for own in devices {
        let OwnDevice { device, name, is_this } = own;
        if as_json {
            say!("{}", json!({ "event": "device", "device": device.to_string(), "name": name, "this": is_this }))?;
        } else {
            say!("{}", shown(own))?;
        }
    }
    Ok(())
}

/// A device as people see it.
pub fn shown(OwnDevice { device, name, is_this }: &OwnDevice) -> String {
    format!("{device} {}{}", one_line(name), if *is_this { " (this one)" } else { "" })
}

/// The device that is called so, or whose id begins so.
fn named(devices: &[OwnDevice], text: &str) -> Result<DeviceId, Failure> {
    let by_name: Vec<&OwnDevice> = devices.iter().filter(|device| device.name == text).collect();
    let begins = |device: &&OwnDevice| !text.is_empty() && device.device.to_string().starts_with(&text.to_lowercase());
    let found = if by_name.is_empty() { devices.iter().filter(begins).collect() } else { by_name };
    let list = |devices: &mut dyn Iterator<Item = &OwnDevice>| {
        devices.map(|device| format!("{} ({})", device.device, one_line(&device.name))).collect::<Vec<_>>().join(", ")
    };
    match found.as_slice() {
        [one] => Ok(one.device),
        [] => {
            let all = list(&mut devices.iter());
            Err(Failure::say(
                Exit::Failed,
                format_args!("the account has no device `{}`; it has {all}", one_line(text)),
            ))
        }
        several => {
            let all = list(&mut several.iter().copied());
            Err(Failure::say(
                Exit::Failed,
                format_args!("`{}` fits several devices: {all}; type the id", one_line(text)),
            ))
        }
    }
}

/// The same, on the first device: it cannot be removed.
pub fn removable(devices: &[OwnDevice], text: &str) -> Result<DeviceId, Failure> {
    let device = named(devices, text)?;
    if devices.iter().any(|own| own.is_this && own.device == device) {
        return Err(Failure::say(Exit::Failed, "the first device of an account cannot be removed; name another one"));
    }
    Ok(device)
}

/// Why this device may not change the list, if so. Said first: whatever else is wrong with the words is of no use then.
pub async fn no_change(session: &Session) -> Result<Option<Failure>, Failure> {
    let signs = session.client.query(|core| core.signs_lists()).await.map_err(|error| session.request(error))?;
    let why = "only the account's first device adds, renames and removes devices; do it there";
    Ok((!signs).then(|| Failure::say(Exit::Failed, why)))
}

async fn may_change(session: &Session) -> Result<(), Failure> {
    no_change(session).await?.map_or(Ok(()), Err)
}

/// Whether another one than `device` is called so: then nobody could tell the two apart.
pub fn called_so<'a>(devices: &'a [OwnDevice], name: &str, device: Option<DeviceId>) -> Option<&'a OwnDevice> {
    devices.iter().find(|other| other.name == name && Some(other.device) != device)
}

async fn rename(args: &Rename, session: &mut Session, deadline: Deadline) -> Result<(), Failure> {
    let all = devices(session, deadline).await?;
    may_change(session).await?;
    let device = named(&all, &args.of.device)?;
    if let Some(other) = called_so(&all, &args.name, Some(device)) {
        return Err(Failure::say(
            Exit::Failed,
            format_args!(
                "{} is called \"{}\" already; choose another name, or rename that one first",
                other.device,
                one_line(&other.name)
            ),
        ));
    }
    let name = args.name.clone();
    change(session, Command::RenameDevice { device, name }, device, deadline).await?;
    let devices = devices(session, deadline).await?;
    show(&devices.into_iter().filter(|own| own.device == device).collect::<Vec<_>>(), args.at.json)
}

async fn remove(args: &Remove, session: &mut Session, deadline: Deadline) -> Result<(), Failure> {
    let all = devices(session, deadline).await?;
    may_change(session).await?;
    let device = removable(&all, &args.of.device)?;
    change(session, Command::RemoveDevice { device }, device, deadline).await?;
    let (left, _) = everywhere(session, device, false).await?;
    if args.at.json {
        return say!("{}", json!({ "event": "device_gone", "device": device.to_string(), "waiting": left }));
    }
    say!("{device} removed")?;
    match left {
        0 => Ok(()),
        _ => say!("it is still named in {left} conversations; it leaves them with the next message"),
    }
}

/// Changes the list and waits until the server has it.
async fn change(session: &mut Session, command: Command, device: DeviceId, deadline: Deadline) -> Result<(), Failure> {
    session.client.command(command).await.map_err(|error| session.request(error))?;
    loop {
        match session.next(deadline).await? {
            Event::DeviceRemoved { device: done } | Event::DeviceRenamed { device: done } if done == device => {
                return Ok(());
            }
            Event::DeviceChangeFailed { device: of, why } if of == device => {
                return Err(refused("the device list cannot be changed", &why));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn device(n: u8, name: &str, is_this: bool) -> OwnDevice {
        OwnDevice { device: DeviceId::from_bytes([n; 16]), name: name.into(), is_this }
    }

    #[test]
    fn no_two_devices_are_called_the_same() {
        let all = [device(1, "first device", true), device(2, "laptop", false), device(3, "phone", false)];
        assert_eq!(called_so(&all, "laptop", Some(all[2].device)), Some(&all[1]));
        assert_eq!(called_so(&all, "laptop", Some(all[1].device)), None, "its own name");
        assert_eq!(called_so(&all, "laptop", None), Some(&all[1]), "a new one");
        assert_eq!(called_so(&all, "tablet", None), None);
    }
    #[test]
    fn another_name_is_free_and_fits() {
        let handle = "alice".parse().expect("a handle");
        assert_eq!(session::another(&handle, "laptop", |_| true), "alice/laptop-2");
        assert_eq!(session::another(&handle, "laptop", |name| name != "laptop-2"), "alice/laptop-3");
        let long = "l".repeat(200);
        assert_eq!(session::another(&handle, &long, |_| true), "alice/new-device");
        assert_eq!(session::another(&handle, &long, |name| name != "new-device"), "alice/new-device-2");
    }
}
