// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pli group`: groups from scripts.

use std::time::Duration;

use clap::{Args, Subcommand};
use pli_client::ProfileName;
use pli_client::RequestError;
use pli_client::core::content::{Kind, group_name};
use pli_client::core::{CommandError, ConversationView, Core, Event};
use pli_domain::{AccountId, ConversationId, Handle};
use tokio::time::{Instant, interval};

use super::json;
use super::names::{called, ended, group_here, group_or_over, leaves_first};
use super::number::seconds;
use super::session::{self, Deadline, FirstUse, LOOK_EVERY, Session, refused};
use super::target::{group, handle, profile};
use crate::cli::ClientArgs;
use crate::exit::{Exit, ExitContext, Failure};
use crate::terminal::{one_line, say};

/// How long a change that is made is waited for to bring its name to the newcomers.
const SETTLED_WITHIN: Duration = Duration::from_secs(5);

/// Make groups, change who is in them, list them.
///
/// Send to a group with `pli send HANDLE '#NAME' TEXT`. Only `create` registers a handle that is new; the others fail where
/// HANDLE has no profile here, and change nothing.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pli group create alice team bob carol\n  pli group add alice team dave\n  pli group list alice\n  pli group list alice --all\n  pli group list alice --json"
)]
pub struct GroupArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a group.
    Create(Change),
    /// Add people to a group.
    ///
    /// Somebody who has asked to leave it, and is still in, is taken out first and then added.
    Add(Change),
    /// Remove people from a group.
    Remove(Change),
    /// Leave a group.
    ///
    /// Another member has to be online to carry it out. Where none is in time, the exit code is 10; the server keeps the
    /// wish, and `list` marks the group `(leaving)` until it is done.
    Leave(Named),
    /// List the groups of a profile with their members, each once.
    ///
    /// A line is the id of the conversation that takes new messages, what the group is called, and who is in it; behind that
    /// `(leaving)` where one has asked to leave and is still in. With --json it is one object (docs/events.md).
    List(List),
}

#[derive(Debug, Args)]
struct Change {
    #[command(flatten)]
    group: Named,
    /// Who.
    #[arg(value_parser = handle, required = true)]
    members: Vec<Handle>,
}

#[derive(Debug, Args)]
struct Named {
    /// Whose profile.
    #[arg(value_parser = profile)]
    handle: ProfileName,
    /// The group as '#NAME' or NAME, NAME~SHORTID where several have it, or its id.
    #[arg(value_parser = group)]
    name: String,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Args)]
struct List {
    /// Whose profile.
    #[arg(value_parser = profile)]
    handle: ProfileName,
    /// Also what has ended, marked so: groups that one is no longer in, and the older conversations of a group that went
    /// on in another one after the server was restored.
    #[arg(long)]
    all: bool,
    /// One JSON object a line (docs/events.md).
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Args)]
struct At {
    /// Wait at most so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    timeout: f64,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs `pli group`.
pub async fn run(args: GroupArgs) -> Result<(), Failure> {
    let (at, handle) = match &args.action {
        Action::Create(change) | Action::Add(change) | Action::Remove(change) => {
            (&change.group.at, &change.group.handle)
        }
        Action::Leave(named) => (&named.at, &named.handle),
        Action::List(list) => (&list.at, &list.handle),
    };
    let first = match &args.action {
        Action::Create(change) => {
            group_name(&change.group.name).exit(Exit::Usage)?;
            FirstUse::Registers
        }
        _ => FirstUse::Fails,
    };
    let mut session = session::open_as(&at.client, handle, first).await?;
    session.warn();
    session.say_waiting();
    let done = act(&args.action, &mut session, Deadline::after(Some(at.timeout))).await;
    session.close().await;
    done
}

async fn act(action: &Action, session: &mut Session, deadline: Deadline) -> Result<(), Failure> {
    session.caught_up(deadline).await?;
    match action {
        Action::Create(change) => create(change, session, deadline).await,
        Action::Add(change) => {
            let conversation = group_here(session, &change.group.name).await?;
            let answer = session.client.add_members(conversation, change.members.clone()).await;
            taken(session, &change.group.name, answer)?;
            say_leaving(session, conversation, &change.members).await?;
            wait(session, &change.group.name, conversation, deadline, |members| {
                change.members.iter().all(|m| members.contains(m))
            })
            .await
        }
        Action::Remove(change) => remove(change, session, deadline).await,
        Action::Leave(named) => leave(named, session, deadline).await,
        Action::List(args) => list(session, args).await,
    }
}

async fn create(change: &Change, session: &mut Session, deadline: Deadline) -> Result<(), Failure> {
    let (name, handles) = (change.group.name.clone(), change.members.clone());
    let answer = session.client.create_group(name, handles).await;
    let conversation = taken(session, &change.group.name, answer)?;
    wait(session, &change.group.name, conversation, deadline, |members| {
        change.members.iter().all(|m| members.contains(m))
    })
    .await
}

/// Says of whom the group has to let go before they are added.
async fn say_leaving(session: &Session, group: ConversationId, members: &[Handle]) -> Result<(), Failure> {
    let view = session.client.conversation(group).await.map_err(|error| session.request(error))?;
    for said in view.iter().flat_map(|view| members.iter().filter_map(|handle| leaves_first(view, handle))) {
        crate::terminal::tell!("{said}");
    }
    Ok(())
}

/// Asks to leave, which is done when another member has committed it: nobody can take themselves out of an MLS group
/// (RFC 9420, section 12.1.3). Where nobody else is in it, it is done when the server has taken out the account's other
/// devices.
async fn leave(named: &Named, session: &mut Session, deadline: Deadline) -> Result<(), Failure> {
    let Some(group) = group_or_over(session, &named.name).await? else { return left_before(named) };
    let alone = session.conversations().await?.iter().any(|view| view.id == group && view.members.len() == 1);
    match session.client.leave(group).await {
        Err(RequestError::Command(CommandError::NotAMember)) => return left_before(named),
        answer => taken(session, &named.name, answer)?,
    };
    match alone {
        true => crate::terminal::tell!("leaving {}: nobody else is in it", named.name),
        false => crate::terminal::tell!(
            "asked to leave {}; waiting for another member, who has to be online for it",
            named.name
        ),
    }
    loop {
        match session.next(deadline).await {
            Ok(Event::Left { conversation, .. }) if conversation == group => return say!("left {}", named.name),
            Ok(Event::ChangeFailed { conversation, why }) if conversation == group => {
                return Err(refused("the group cannot be left", &why));
            }
            Ok(_) => {}
            Err(late) if late.exit == Exit::TimedOut => return Err(unanswered(session, named, late).await),
            Err(failure) => return Err(failure),
        }
    }
}

/// Another device of the account was first, or this is asked for again.
fn left_before(named: &Named) -> Result<(), Failure> {
    say!("{} was left already: you are not in it", named.name)
}

/// Nobody has carried out the wish to leave in time; what was `late` says more where the server does not have it yet.
async fn unanswered(session: &Session, named: &Named, late: Failure) -> Failure {
    match session.client.query(|core| core.open_changes()).await {
        Ok(0) => Failure::say(
            Exit::TimedOut,
            format_args!(
                "not left yet: no other member of {} has carried it out in time; the server keeps the wish, and one who is \
                 online for some seconds does. Until then you are in the group, and `{}` marks it (leaving)",
                named.name,
                session.invocation.line_here(&format!("group list {}", named.handle))
            ),
        ),
        _ => late,
    }
}

async fn remove(change: &Change, session: &mut Session, deadline: Deadline) -> Result<(), Failure> {
    let conversation = group_here(session, &change.group.name).await?;
    let members =
        session.conversations().await?.into_iter().find(|view| view.id == conversation).map(|view| view.members);
    let mut accounts = Vec::new();
    for handle in &change.members {
        let member = members.iter().flatten().find(|member| member.handle.as_ref() == Some(handle));
        let member =
            member.ok_or_else(|| Failure::say(Exit::Refused, format_args!("@{handle} is not in the group")))?;
        accounts.push(member.account);
    }
    taken(session, &change.group.name, session.client.remove_members(conversation, accounts).await)?;
    wait(session, &change.group.name, conversation, deadline, |members| {
        !change.members.iter().any(|m| members.contains(m))
    })
    .await
}

/// What a client answers to a request on a group, as a failure of this command.
fn taken<T>(session: &Session, name: &str, answer: Result<T, RequestError>) -> Result<T, Failure> {
    answer.map_err(|error| match error {
        // Since it was looked up.
        RequestError::Command(CommandError::NotAMember) => ended(session, name),
        error => session.request(error),
    })
}

/// Waits until the group's members are as wanted, and prints the group; a group that ends meanwhile is waited for no longer.
async fn wait(
    session: &mut Session,
    name: &str,
    group: ConversationId,
    deadline: Deadline,
    wanted: impl Fn(&[Handle]) -> bool,
) -> Result<(), Failure> {
    let mut look = interval(LOOK_EVERY);
    loop {
        // Who is in may be about to be taken out, and who is out to come in.
        let look_at = move |core: &Core| (core.conversation(group), core.is_changing(group));
        let (view, is_changing) = session.client.query(look_at).await.map_err(|error| session.request(error))?;
        let is_over = view.as_ref().is_some_and(|view| view.left);
        if let Some(view) = view.filter(|view| view.ready && !view.left && !is_changing) {
            let members: Vec<Handle> = view.members.iter().filter_map(|member| member.handle.clone()).collect();
            if wanted(&members) {
                settle(session, group).await?;
                say!("{group} {} {}", one_line(&called(&view)), names(&members))?;
                return Ok(());
            }
        }
        match session.next_or(deadline, &mut look).await? {
            Some(Event::ConversationFailed { conversation, why }) if conversation == group => {
                return Err(refused("the group cannot be made", &why));
            }
            Some(Event::ChangeFailed { conversation, why }) if conversation == group => {
                return Err(refused("the group cannot be changed", &why));
            }
            // What says why comes first.
            None if is_over => return Err(ended(session, name)),
            _ => {}
        }
    }
}

/// Waits until what the change brings with it, the name for the newcomers, is on its way. What is not by then goes with the
/// next command of this profile.
async fn settle(session: &mut Session, group: ConversationId) -> Result<(), Failure> {
    let end = Instant::now() + SETTLED_WITHIN;
    let mut look = interval(LOOK_EVERY);
    while Instant::now() < end {
        let settled = session.client.query(move |core| core.is_settled(group)).await;
        if settled.map_err(|error| session.request(error))? {
            break;
        }
        session.next_or(Deadline::after(None), &mut look).await?;
    }
    Ok(())
}

async fn list(session: &Session, args: &List) -> Result<(), Failure> {
    let look = |core: &Core| (core.address().account, core.conversations());
    let (me, views) = session.client.query(look).await.map_err(|error| session.request(error))?;
    let groups: Vec<_> = views.into_iter().filter(|view| view.kind == Kind::Group).collect();
    if !args.json && !groups.iter().any(|view| !view.left || args.all) {
        let all = session.invocation.line_here(&format!("group list {} --all", args.handle));
        let over = if groups.is_empty() { String::new() } else { format!("; `{all}` shows those that have ended") };
        crate::terminal::tell!("@{} is in no group{over}", args.handle);
    }
    for view in groups {
        if !view.left || args.all {
            let line = if args.json { json::group(&view, me).to_string() } else { listed(&view, me) };
            say!("{line}")?;
        }
        for part in view.parts.iter().skip(1).filter(|_| args.all) {
            match args.json {
                true => say!("{}", json::former_part(&view, *part))?,
                false => say!("{part} {} (ended, goes on in {})", one_line(&called(&view)), view.id)?,
            }
        }
    }
    Ok(())
}

/// A group as people read it.
fn listed(view: &ConversationView, me: AccountId) -> String {
    let (id, name) = (view.id, one_line(&called(view)));
    if view.left {
        return format!("{id} {name} (ended)");
    }
    let members: Vec<_> = view.members.iter().map(json::name).collect();
    let leaving = if view.leaving.iter().any(|member| member.account == me) { " (leaving)" } else { "" };
    format!("{id} {name} {}{leaving}", members.join(","))
}

fn names(members: &[Handle]) -> String {
    members.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
