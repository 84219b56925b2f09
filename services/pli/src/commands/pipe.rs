// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pli pipe`: both directions in one process.

use clap::Args;
use pli_client::ProfileName;
use pli_client::RequestError;
use pli_client::core::{Command, CommandError, Event};
use pli_domain::{AccountId, ConversationId};
use tokio::io::{BufReader, Stdin};
use tokio_util::sync::CancellationToken;

use super::json;
use super::lines::{BoundedLines, Line, Unfit};
use super::number::seconds;
use super::output::{Output, Shape};
use super::printed::Printer;
use super::progress::{Progress, Wait};
use super::send::others;
use super::session::{self, Deadline, Session};
use super::target::{Target, profile};
use crate::cli::ClientArgs;
use crate::exit::{Exit, Failure};
use crate::terminal::say;

/// Messages that may be waited for at a time; above it nothing is read.
const OPEN_MAX: usize = 512;

/// Send every line that is read, print everything that arrives.
///
/// At the end of its input it waits until every message has come as far as --wait says, and ends; with --follow it goes
/// on printing until Ctrl-C. The first use of FROM registers it. While 512 messages have not come that far, nothing more is
/// read. Empty lines are passed over. A line that cannot be sent (longer than a message, no UTF-8) is told with its number, on
/// standard error and with --json as `not_sent`; the others are sent, and the exit code is 13. Where the conversation ends
/// meanwhile, so does the command: the line that was not sent is told, and none behind it was read.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  pli pipe alice bob --json\n  tail -f log | pli pipe alice '#team' --follow")]
pub struct PipeArgs {
    /// Whose profile.
    #[arg(value_parser = profile)]
    from: ProfileName,
    /// A handle, or a group as '#NAME', '#NAME~SHORTID', group:NAME or its id.
    to: Target,
    /// One JSON object a line, every event: what was sent, messages, ticks, members, keys, connection (docs/events.md).
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
    let mut read = true;
    for event in &missed {
        read = read && printer.event(event).await;
    }
    let patience = Deadline::after(Some(args.timeout));
    let conversation = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        found = args.to.conversation(session, patience, async |event| read = read && printer.event(event).await) => found?,
    };
    if !read {
        return printer.ended();
    }
    let me = session.client.query(|core| core.address().account).await.map_err(|error| session.request(error))?;
    let mut progress = Progress::new(conversation, args.wait);
    progress.expect(others(session, conversation, me).await?);
    let input = Input::new(conversation, args.json);
    Piping { args, session, printer, input, progress, me }.run(stop).await
}

/// Both directions of one conversation.
struct Piping<'a> {
    args: &'a PipeArgs,
    session: &'a mut Session,
    printer: Printer,
    input: Input,
    progress: Progress,
    me: AccountId,
}

impl Piping<'_> {
    async fn run(&mut self, stop: &CancellationToken) -> Result<(), Failure> {
        let mut deadline = Deadline::after(None);
        while self.args.follow || !self.input.ended || self.progress.open() > 0 {
            let room = self.progress.open() < OPEN_MAX;
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                event = self.session.next(deadline) => {
                    let event = event?;
                    if !self.printer.event(&event).await {
                        return self.printer.ended();
                    }
                    if let Err(why) = self.progress.see(&event, self.me) {
                        self.print_rest().await;
                        return Err(why);
                    }
                }
                line = self.input.next(), if room => {
                    match line? {
                        Some(Line::Text(text)) => self.input.kept = Some(text),
                        Some(Line::Unfit(number, unfit)) => self.input.not_sent(number, &unfit)?,
                        None if !self.args.follow => deadline = Deadline::after(Some(self.args.timeout)),
                        None => {}
                    }
                }
            }
            self.send().await?;
        }
        self.input.end()
    }

    /// Sends what was read. Where the conversation takes no more the failure says why.
    async fn send(&mut self) -> Result<(), Failure> {
        let Some(error) = self.input.retry(self.session, &mut self.progress).await? else { return Ok(()) };
        let (printer, progress, me) = (&mut self.printer, &mut self.progress, self.me);
        let see = async |event: &Event| {
            printer.event(event).await;
            progress.see(event, me)
        };
        let why = self.session.reason(error, see).await;
        self.print_rest().await;
        Err(why)
    }

    /// What became of the other lines has mostly happened too when one of them is refused.
    async fn print_rest(&mut self) {
        let printer = &mut self.printer;
        let see = async |event: &Event| {
            printer.event(event).await;
            Ok(())
        };
        // It ends for another reason.
        let _ = self.session.look_at_rest(see).await;
    }
}

struct Input {
    lines: BoundedLines<BufReader<Stdin>>,
    ended: bool,
    /// A line that the outbox had no room for.
    kept: Option<String>,
    /// Where the lines go.
    conversation: ConversationId,
    json: bool,
    /// Lines that cannot be sent.
    unfit: u64,
}

impl Input {
    fn new(conversation: ConversationId, json: bool) -> Self {
        let lines = BoundedLines::new(BufReader::new(tokio::io::stdin()));
        Self { lines, ended: false, kept: None, conversation, json, unfit: 0 }
    }

    /// The next line that says something; none at the end, and nothing after it or while a line is kept.
    async fn next(&mut self) -> Result<Option<Line>, Failure> {
        if self.ended || self.kept.is_some() {
            std::future::pending::<()>().await;
        }
        let line = self.lines.next().await?;
        self.ended = line.is_none();
        Ok(line)
    }

    /// Sends the kept line; keeps it when the outbox is full. Answers why the conversation takes no more.
    async fn retry(&mut self, session: &Session, progress: &mut Progress) -> Result<Option<RequestError>, Failure> {
        let Some(text) = self.kept.take() else { return Ok(None) };
        let command = Command::SendText { conversation: self.conversation, text: text.clone() };
        match session.client.command(command).await {
            Ok(outcome) => {
                if let Some(line) = json::sent(&outcome).filter(|_| self.json) {
                    say!("{line}")?;
                }
                progress.sent(outcome);
            }
            Err(RequestError::Command(CommandError::OutboxFull(_))) => self.kept = Some(text),
            // Of the line, not of the conversation: the next one may be taken.
            Err(RequestError::Command(error @ (CommandError::TextTooLong(_) | CommandError::TextEmpty))) => {
                self.not_sent(self.lines.number(), &Unfit::NotTaken(error.to_string()))?;
            }
            Err(error) => {
                self.not_sent(self.lines.number(), &Unfit::NotTaken(error.to_string()))?;
                return Ok(Some(error));
            }
        }
        Ok(None)
    }

    /// Tells that a line cannot be sent.
    fn not_sent(&mut self, number: u64, unfit: &Unfit) -> Result<(), Failure> {
        self.unfit += 1;
        crate::terminal::tell!("line {number} is not sent: {unfit}");
        if self.json { say!("{}", json::not_sent(number, unfit)) } else { Ok(()) }
    }

    /// How the command ends.
    fn end(&self) -> Result<(), Failure> {
        match self.unfit {
            0 => Ok(()),
            1 => Err(Failure::say(Exit::Input, "1 line of standard input was not sent; see above")),
            lines => {
                Err(Failure::say(Exit::Input, format_args!("{lines} lines of standard input were not sent; see above")))
            }
        }
    }
}
