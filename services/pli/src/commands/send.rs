// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pli send`: one message, or many.

use std::time::Duration;

use clap::Args;
use pli_client::ProfileName;
use pli_client::RequestError;
use pli_client::core::{Command, CommandError, Event, TEXT_BYTES_MAX};
use pli_domain::limits::OUTBOX_MESSAGES_MAX;
use pli_domain::{AccountId, ConversationId};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::json;
use super::number::{count, rate, seconds};
use super::output::warning;
use super::printed::Printed;
use super::progress::{Progress, Wait};
use super::session::{self, Deadline, Session};
use super::target::{Target, profile};
use crate::cli::ClientArgs;
use crate::exit::{Exit, ExitContext, Failure};
use crate::terminal::say;

/// Messages that may be waited for at a time; above it sending pauses. As many as the outbox takes: `stored` takes seconds
/// where the recipient is away, so a lower bound would be what sets the pace.
const OPEN_MAX: usize = OUTBOX_MESSAGES_MAX;
/// Bytes of a text that is too long that are counted, to tell its size; what comes then is not read.
const COUNTED_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Send a message.
///
/// The text comes from the command line or from standard input. The first use of FROM registers it. Returns when the
/// message has come as far as --wait says; when that takes too long the message stays in the outbox, and the next
/// command on this profile sends it.
///
/// `stored` takes the server about ten seconds while the recipient is away, for each message, and at most 10,000 messages
/// of a profile wait for it at a time: then no more are taken until some are stored. `accepted` is durable already and
/// waits for none of this.
///
/// With --json, what each line means stands in docs/events.md. Where standard output cannot be written the messages are
/// sent all the same, and the exit code is 12.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pli send alice bob 'hello'\n  date | pli send alice bob --wait delivered\n  pli send alice '#team' hi --count 100 --rate 20\n  pli send alice bob hello --json"
)]
pub struct SendArgs {
    /// Whose profile.
    #[arg(value_parser = profile)]
    from: ProfileName,
    /// A handle, or a group as '#NAME', '#NAME~SHORTID', group:NAME or its id.
    to: Target,
    /// What to say; read from standard input when left out.
    text: Option<String>,
    /// How far the message must have come.
    #[arg(long, value_enum, default_value = "accepted")]
    wait: Wait,
    /// Send it so many times; each is followed by its number.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count)]
    count: u64,
    /// At most so many a second; left out: as fast as they are taken.
    #[arg(long, value_name = "R", value_parser = rate)]
    rate: Option<f64>,
    /// Wait at most so many seconds in all, the pauses of --rate included.
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    timeout: f64,
    /// One JSON object a line: `sent` with the send id of each message, then what becomes of it (docs/events.md).
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs `pli send`.
pub async fn run(args: SendArgs) -> Result<(), Failure> {
    let text = match &args.text {
        Some(text) => text.clone(),
        None => read_text().await?,
    };
    if text.is_empty() {
        return Err(Failure::say(Exit::Usage, "there is nothing to send: the text is empty"));
    }
    if text.len() > TEXT_BYTES_MAX {
        return Err(Failure::new(Exit::Usage, CommandError::TextTooLong(text.len())));
    }
    let mut session = session::open(&args.client, &args.from).await?;
    let begun = Instant::now();
    let sent = send(&args, &mut session, &text).await;
    session.close().await;
    let printed = sent?;
    let word = format!("{:?}", args.wait).to_lowercase();
    let messages = if args.count == 1 { "1 message".to_string() } else { format!("{} messages", args.count) };
    let printed = match args.json {
        true => printed,
        false => say!("{messages} {word} in {:.2} s", begun.elapsed().as_secs_f64()),
    };
    printed.map_err(|failure| unprinted(failure, &format!("{messages} {word}")))
}

/// Everything was sent, and what was to be said about it is not.
fn unprinted(failure: Failure, done: &str) -> Failure {
    let Failure { exit, error } = failure;
    Failure { exit, error: error.context(format!("{done}, but not everything about it is printed")) }
}

/// Lines of `--json`. From the first one that cannot be written on they are left out: the messages go out all the same.
struct Lines {
    wanted: bool,
    written: Result<(), Failure>,
}

impl Lines {
    fn put(&mut self, line: Option<Value>) {
        if let (true, Ok(()), Some(line)) = (self.wanted, &self.written, line) {
            self.written = say!("{line}");
        }
    }
}

/// Sends it; whether everything was printed that was to be.
async fn send(args: &SendArgs, session: &mut Session, text: &str) -> Result<Result<(), Failure>, Failure> {
    let deadline = Deadline::after(Some(args.timeout));
    let conversation = args.to.conversation(session, deadline, async |_| {}).await?;
    let me = session.client.query(|core| core.address().account).await.map_err(|error| session.request(error))?;
    let mut progress = Progress::new(conversation, args.wait);
    progress.expect(others(session, conversation, me).await?);
    session.warn();
    warn_of_swapped_keys(session, conversation).await?;
    let lines = Lines { wanted: args.json, written: Ok(()) };
    let mut giving = Giving { session, progress: &mut progress, me, deadline, lines };
    let sent = giving.all(args, (conversation, text)).await;
    let written = giving.lines.written;
    match sent {
        Ok(()) => Ok(written),
        Err(failure) => Err(with_counts(failure, args.count, progress.counts())),
    }
}

/// Says again whose identity key is another one, until a command that prints has told it.
async fn warn_of_swapped_keys(session: &Session, conversation: ConversationId) -> Result<(), Failure> {
    let printed = Printed::open(session.client.folder()).exit(Exit::Folder)?;
    let view = session.client.conversation(conversation).await;
    let members = view.map_err(|error| session.request(error))?.map(|view| view.members).unwrap_or_default();
    for notice in printed.unprinted_notices(session).await? {
        let is_here = matches!(&notice, Event::NewKey { member, .. } if members.contains(member));
        if let Some(warning) = warning(&notice).filter(|_| is_here) {
            crate::terminal::tell!("{warning}");
        }
    }
    Ok(())
}

/// How many came how far, where many were to be sent and the time was too short.
fn with_counts(failure: Failure, count: u64, (given, waiting): (u64, usize)) -> Failure {
    if count == 1 || !matches!(failure.exit, Exit::TimedOut | Exit::Unreachable) {
        return failure;
    }
    let accepted = given.saturating_sub(waiting as u64);
    let rest = match count - given {
        0 => String::new(),
        rest => format!(", {rest} were not begun"),
    };
    let said =
        format!("{}; of {count} messages {accepted} are accepted, {waiting} wait in the outbox{rest}", failure.error);
    Failure::say(failure.exit, said)
}

/// Messages on their way.
struct Giving<'a> {
    session: &'a mut Session,
    progress: &'a mut Progress,
    me: AccountId,
    deadline: Deadline,
    lines: Lines,
}

impl Giving<'_> {
    async fn all(&mut self, args: &SendArgs, (conversation, text): (ConversationId, &str)) -> Result<(), Failure> {
        let mut pace = args.rate.map(|rate| interval(Duration::from_secs_f64(1.0 / rate)));
        if let Some(pace) = &mut pace {
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        for number in 1..=args.count {
            while let Some(pace) = &mut pace {
                // What happens meanwhile is told when it happens, and the time may be over before it is the next one's
                // turn.
                tokio::select! {
                    biased;
                    _ = pace.tick() => break,
                    seen = self.next() => seen?,
                }
            }
            if self.deadline.is_over() {
                return Err(self.session.timed_out());
            }
            let text = if args.count == 1 { text.to_string() } else { format!("{text} {number}") };
            self.say(conversation, text).await?;
            while self.progress.open() >= OPEN_MAX {
                self.next().await?;
            }
        }
        while self.progress.open() > 0 {
            self.next().await?;
        }
        Ok(())
    }

    /// Looks at the next event, which is printed where it tells what becomes of a message. Cancel safe.
    async fn next(&mut self) -> Result<(), Failure> {
        let event = self.session.next(self.deadline).await?;
        self.lines.put(json::of_tick(&event));
        self.progress.see(&event, self.me)
    }

    /// Gives one message to the outbox; waits while it is full.
    async fn say(&mut self, conversation: ConversationId, text: String) -> Result<(), Failure> {
        loop {
            let command = Command::SendText { conversation, text: text.clone() };
            match self.session.client.command(command).await {
                Ok(outcome) => {
                    self.lines.put(json::sent(&outcome));
                    self.progress.sent(outcome);
                    return Ok(());
                }
                Err(RequestError::Command(CommandError::OutboxFull(_))) => self.next().await?,
                Err(error) => {
                    let (progress, me) = (&mut *self.progress, self.me);
                    return Err(self.session.reason(error, async |event| progress.see(event, me)).await);
                }
            }
        }
    }
}

/// Everybody else in the chat, where they are known already.
pub(super) async fn others(
    session: &Session,
    conversation: ConversationId,
    me: AccountId,
) -> Result<Vec<AccountId>, Failure> {
    let view = session.client.conversation(conversation).await;
    let members = view.map_err(|error| session.request(error))?.map(|view| view.members).unwrap_or_default();
    Ok(members.iter().map(|member| member.account).filter(|account| *account != me).collect())
}

async fn read_text() -> Result<String, Failure> {
    let mut text = Vec::new();
    let mut input = tokio::io::stdin();
    // One byte more than fits, and a newline, tell that it does not; of the rest only the size is wanted, and the input
    // may have no end.
    (&mut input).take(TEXT_BYTES_MAX as u64 + 2).read_to_end(&mut text).await?;
    let rest = tokio::io::copy(&mut input.take(COUNTED_BYTES_MAX), &mut tokio::io::sink()).await?;
    if rest > 0 {
        let (whole, max) = (text.len() as u64 + rest, TEXT_BYTES_MAX);
        let more = if rest < COUNTED_BYTES_MAX { "" } else { "more than " };
        return Err(Failure::say(
            Exit::Usage,
            format_args!("the text has {more}{whole} bytes; at most {max} fit in a message"),
        ));
    }
    let text = String::from_utf8(text).map_err(|_| Failure::say(Exit::Usage, "standard input is not UTF-8 text"))?;
    Ok(text.strip_suffix('\n').unwrap_or(&text).to_string())
}
