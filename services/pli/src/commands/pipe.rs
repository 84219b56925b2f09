// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pli pipe`: both directions in one process.

use clap::Args;
use pli_client::RequestError;
use pli_client::core::{Command, CommandError};
use pli_domain::{ConversationId, Handle};
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};
use tokio_util::sync::CancellationToken;

use super::number::seconds;
use super::output::{Output, Shape};
use super::printed::Printer;
use super::progress::{Progress, Wait};
use super::send::others;
use super::session::{self, Deadline, Session};
use super::target::{Target, handle};
use crate::cli::ClientArgs;
use crate::exit::Failure;

/// Messages that may be waited for at a time; above it nothing is read.
const OPEN_MAX: usize = 512;

/// Send every line that is read, print everything that arrives.
///
/// At the end of its input it waits until every message has come as far as --wait says, and ends; with --follow it goes
/// on printing until Ctrl-C.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  pli pipe alice bob --json\n  tail -f log | pli pipe alice '#team' --follow")]
pub struct PipeArgs {
    /// Whose profile.
    #[arg(value_parser = handle)]
    from: Handle,
    /// A handle, or a group as '#NAME', '#NAME~SHORTID', group:NAME or its id.
    to: Target,
    /// One JSON object a line, every event: messages, ticks, members, keys, connection.
    #[arg(long)]
    json: bool,
    /// Go on after the end of the input until Ctrl-C.
    #[arg(long)]
    follow: bool,
    /// How far the messages must have come before it ends.
    #[arg(long, value_enum, default_value = "accepted")]
    wait: Wait,
    /// Wait at most so many seconds for a group that is not here yet, and again after the end of the input.
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    timeout: f64,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs `pli pipe`.
pub async fn run(args: PipeArgs) -> Result<(), Failure> {
    let stop = super::interrupted()?;
    let mut session = session::open(&args.client, &args.from).await?;
    let piped = pipe(&args, &mut session, &stop).await;
    session.close().await;
    piped
}

async fn pipe(args: &PipeArgs, session: &mut Session, stop: &CancellationToken) -> Result<(), Failure> {
    let output = Output::new(if args.json { Shape::Json } else { Shape::Text });
    let (mut printer, missed) = Printer::open(session, output).await?;
    let mut read = missed.iter().all(|event| printer.event(event));
    let patience = Deadline::after(Some(args.timeout));
    let conversation = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        found = args.to.conversation(session, patience, |event| read = read && printer.event(event)) => found?,
    };
    if !read {
        return printer.ended();
    }
    let me = session.client.query(|core| core.address().account).await.map_err(|error| session.request(error))?;
    let mut input = Input { lines: BufReader::new(tokio::io::stdin()).lines(), ended: false, kept: None };
    let mut progress = Progress::new(conversation, args.wait);
    progress.expect(others(session, conversation, me).await?);
    let mut deadline = Deadline::after(None);
    loop {
        if input.ended && progress.open() == 0 && !args.follow {
            return Ok(());
        }
        let room = progress.open() < OPEN_MAX;
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            event = session.next(deadline) => {
                let event = event?;
                progress.see(&event, me)?;
                if !printer.event(&event) {
                    return printer.ended();
                }
                input.retry(session, &mut progress, conversation).await?;
            }
            line = input.next(), if room => {
                match line? {
                    Some(line) => input.kept = Some(line),
                    None if !args.follow => deadline = Deadline::after(Some(args.timeout)),
                    None => {}
                }
                input.retry(session, &mut progress, conversation).await?;
            }
        }
    }
}

struct Input {
    lines: Lines<BufReader<Stdin>>,
    ended: bool,
    /// A line that the outbox had no room for.
    kept: Option<String>,
}

impl Input {
    /// The next line that says something; none at the end, and nothing after it or while a line is kept.
    async fn next(&mut self) -> Result<Option<String>, Failure> {
        if self.ended || self.kept.is_some() {
            std::future::pending::<()>().await;
        }
        loop {
            match self.lines.next_line().await? {
                Some(line) if line.is_empty() => {}
                Some(line) => return Ok(Some(line)),
                None => {
                    self.ended = true;
                    return Ok(None);
                }
            }
        }
    }

    /// Sends the kept line; keeps it when the outbox is full.
    async fn retry(
        &mut self,
        session: &Session,
        progress: &mut Progress,
        conversation: ConversationId,
    ) -> Result<(), Failure> {
        let Some(text) = self.kept.take() else { return Ok(()) };
        match session.client.command(Command::SendText { conversation, text: text.clone() }).await {
            Ok(outcome) => progress.sent(outcome),
            Err(RequestError::Command(CommandError::OutboxFull(_))) => self.kept = Some(text),
            Err(error) => return Err(session.request(error)),
        }
        Ok(())
    }
}
