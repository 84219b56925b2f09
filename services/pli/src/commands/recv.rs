// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pli recv`: print what arrives.

use std::time::Duration;

use clap::Args;
use pli_client::ProfileName;
use pli_client::core::{ConnectionState, Event};
use tokio_util::sync::CancellationToken;

use super::number::{count, seconds};
use super::output::{Output, Shape};
use super::printed::Printer;
use super::session::{self, Deadline, LOOK_EVERY, Session};
use super::target::profile;
use crate::cli::ClientArgs;
use crate::exit::Failure;

/// How long ticks may take at the end.
const TICKS_WITHIN: Duration = Duration::from_secs(5);

/// Print what arrives for a handle.
///
/// When it ends: left to itself, as soon as everything that waited at the server has been printed (at once where nothing
/// did); what follows a message that has not arrived is printed after 10 s at the latest. With --count N after N messages.
/// With --follow only at Ctrl-C. With --timeout, or after 60 s without --follow, what was not ready by then is an error.
/// With --read it stays, at most 5 s more, until the server has the senders' ticks.
///
/// The first use of a handle makes its keys and registers it, and says so on standard error.
///
/// A message is printed once, also one that another command (`send`, `group`) took from the server meanwhile; `chat`
/// counts as printing.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pli recv bob\n  pli recv bob --json --follow\n  pli recv bob --json --count 10 --timeout 30"
)]
pub struct RecvArgs {
    /// Whose profile; the first use registers it.
    #[arg(value_parser = profile)]
    handle: ProfileName,
    /// One JSON object a line, every event: messages, ticks, members, keys, connection (docs/events.md).
    #[arg(long)]
    json: bool,
    /// Go on until Ctrl-C.
    #[arg(long)]
    follow: bool,
    /// End after so many messages.
    #[arg(long, value_name = "N", conflicts_with = "follow", value_parser = count)]
    count: Option<u64>,
    /// Tell the senders that the messages were read.
    #[arg(long)]
    read: bool,
    /// Wait at most so many seconds in all [default: 60, with --follow without end].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<f64>,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs `pli recv`.
pub async fn run(args: RecvArgs) -> Result<(), Failure> {
    let stop = super::interrupted()?;
    let mut session = session::open(&args.client, &args.handle).await?;
    let printed = print(&args, &mut session, &stop).await;
    if args.read {
        let _ = tokio::time::timeout(TICKS_WITHIN, told(&session)).await;
    }
    session.close().await;
    printed
}

/// Returns when the server has every tick; where there is no connection they go out next time.
async fn told(session: &Session) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        look.tick().await;
        let waiting = session.client.query(|core| (core.connection(), core.waiting().1)).await;
        if !matches!(waiting, Ok((ConnectionState::Online, 1..))) {
            return;
        }
    }
}

async fn print(args: &RecvArgs, session: &mut Session, stop: &CancellationToken) -> Result<(), Failure> {
    let default = if args.follow { None } else { Some(60.0) };
    let deadline = Deadline::after(args.timeout.or(default));
    let output = Output::new(if args.json { Shape::Json } else { Shape::Text });
    let (mut printer, missed) = Printer::open(session, output).await?;
    let mut missed = missed.into_iter();
    let (mut messages, mut caught_up) = (0u64, false);
    let ends_by_itself = args.count.is_none() && !args.follow;
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        let event = match missed.next() {
            Some(event) => event,
            None if caught_up && ends_by_itself && session.has_shown_all().await? => {
                return Ok(());
            }
            None => tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                event = session.next(deadline) => event?,
                // No event says that everything was worked through.
                _ = look.tick(), if caught_up && ends_by_itself => continue,
            },
        };
        let new = printer.is_new(&event);
        if !printer.event(&event).await {
            return printer.ended();
        }
        if let (Event::Message(message), true) = (&event, new) {
            messages += 1;
            if args.read {
                let read = session.client.mark_read(message.conversation).await;
                read.map_err(|error| session.request(error))?;
            }
        }
        if args.count.is_some_and(|count| messages >= count) {
            return Ok(());
        }
        if let Event::Connection(state) = event {
            caught_up = state == ConnectionState::Online;
        }
    }
}
