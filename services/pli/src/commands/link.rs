// SPDX-License-Identifier: MIT OR Apache-2.0
//! The first use of a companion device: it shows a code and joins the account of whoever reads it.

use std::future::Future;
use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use pli_client::core::CommandError;
use pli_client::core::linking::{LinkCode, LinkError};
use pli_client::linking::{Approval, Approved, LinkFailure, NewLink, Offer, Resumed, Standing, resume, standing};
use pli_client::{ClientOptions, ProfileName};
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::interrupted_or_hung_up;
use super::session::{opening, sentence};
use super::to_copy::{line, line_here, quoted};
use crate::cli::ClientArgs;
use crate::exit::{Exit, Failure};
use crate::terminal::{self, one_line, say, tell};

/// How long the other side is told of a no.
pub const DECLINED_WITHIN: Duration = Duration::from_secs(5);
/// What a device that is let in may take without a word.
const SLOW_AFTER: Duration = Duration::from_secs(3);
/// Said of a device that is in the account's list, and did not answer that it has heard so.
pub const UNCONFIRMED: &str = "it is linked, and has not said that it knows: it was stopped or lost its connection before it \
                               heard so; start it again there, and it goes on";
/// Between two questions whether this device was listed after all.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// How a companion device is linked at its first use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Args)]
pub struct LinkArgs {
    /// Also draw the code of a companion device as a QR code, where the terminal has room for it.
    #[arg(long)]
    pub qr: bool,
    /// Join the account that answers without asking, where its handle is the one that was named, and the server's directory has
    /// that account under it. Nobody compares the number then.
    #[arg(long)]
    pub yes: bool,
}

/// How to link, and how to say what happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct How {
    /// What was asked for.
    pub args: LinkArgs,
    /// One JSON object a line.
    pub json: bool,
    /// When the other device is waited for no longer, if that is before the code ends.
    pub by: Option<Instant>,
    /// What the first device runs, without the code at its end.
    pub approve: String,
    /// What brings the history here: on the first device, then on this one.
    pub history: (String, String),
}

impl How {
    /// With the flags of a command of this profile.
    pub fn of(args: LinkArgs, client: &ClientArgs, name: &ProfileName) -> Self {
        let approve = line(client, &format!("device approve {}", name.handle));
        let to = name.device.as_ref().map(|device| quoted(device.to_string())).unwrap_or_default();
        let gives = line(client, &format!("device history {} --to {to}", name.handle));
        let takes = line_here(client, &format!("device history {}", quoted(name.to_string())));
        Self { args, json: false, by: None, approve, history: (gives, takes) }
    }
}

/// Makes a companion device's profile ready to be opened; links it where `how` says that it may. Answers whether it did.
pub async fn link(client: &ClientArgs, options: &ClientOptions, how: Option<How>) -> Result<bool, Failure> {
    loop {
        match standing(options).map_err(|error| opening(error.into()))? {
            Standing::Linked => return Ok(false),
            Standing::Begun => {
                if begun(options, how.as_ref().and_then(|how| how.by)).await? {
                    return Ok(true);
                }
            }
            Standing::Fresh => {
                let Some(how) = how else {
                    return Err(not_linked(client, &options.name));
                };
                // Large, and seldom gone through.
                return Box::pin(join(options, how)).await.map(|()| true);
            }
        }
    }
}

fn not_linked(client: &ClientArgs, name: &ProfileName) -> Failure {
    let links = line_here(client, &format!("device link {}", quoted(name.to_string())));
    Failure::say(
        Exit::Folder,
        format_args!("{name} is not linked yet; link it with `{links}`, and approve it on the account's first device"),
    )
}

/// It was stopped before it heard whether it is listed. Answers whether it is.
async fn begun(options: &ClientOptions, by: Option<Instant>) -> Result<bool, Failure> {
    let name = &options.name;
    let mut told = false;
    loop {
        match Box::pin(resume(options)).await.map_err(failed)? {
            Resumed::Listed => {
                tell!("{name} was linked already");
                return Ok(true);
            }
            Resumed::Never => return Ok(false),
            Resumed::Removed => return Ok(true),
            Resumed::Undecided => {
                if !told {
                    told = true;
                    tell!(
                        "{name} was stopped while it was linked, and the account has not added it yet; waiting for that, a \
                         minute at most; then it begins again"
                    );
                }
                let again = Instant::now() + ASK_EVERY;
                if by.is_some_and(|by| by < again) {
                    return Err(failed(LinkFailure::NotWaited));
                }
                sleep_until(again).await;
            }
        }
    }
}

async fn join(options: &ClientOptions, how: How) -> Result<(), Failure> {
    if !how.args.yes && !std::io::stdin().is_terminal() {
        return Err(Failure::say(
            Exit::Usage,
            format_args!(
                "{} is not linked yet, and nobody can be asked, because standard input is no terminal; say --yes to join \
                 the account of @{} without being asked",
                options.name, options.name.handle
            ),
        ));
    }
    let name = options.name.device.as_ref().map(ToString::to_string).unwrap_or_default();
    let mut link = NewLink::open(options, &name, how.by).await.map_err(failed)?;
    // Who asks nobody needs to say nothing either, and ends as ever.
    let stop = if how.args.yes { CancellationToken::new() } else { interrupted_or_hung_up()? };
    show(options, &link, &how)?;
    let Some(read) = stop.run_until_cancelled(Box::pin(link.is_read())).await else {
        // Whether or not the other side hears of it.
        let _ = timeout(DECLINED_WITHIN, link.withdraw()).await;
        return Err(Failure::say(Exit::Failed, "ended before anybody read the code"));
    };
    read.map_err(failed)?;
    let mut offer = link.offered().await.map_err(failed)?;
    let asked = stop.run_until_cancelled(ask(&mut offer, &how)).await.unwrap_or_else(|| {
        // Behind the question, where there still is a terminal.
        let _ = terminal::put("\n");
        Err(Failure::say(Exit::Failed, "ended before anybody answered: this device joined no account"))
    });
    if !matches!(asked, Ok(true)) {
        // Whether or not the other side hears of it.
        let _ = timeout(DECLINED_WITHIN, offer.decline()).await;
        asked?;
        return Err(Failure::say(Exit::Failed, "declined: this device joined no account"));
    }
    // Large, and seldom gone through.
    let joining = Box::pin(stop.run_until_cancelled(offer.accept()));
    let done = slowly(joining, || {
        tell!("waiting until the first device of @{} says yes too, as long as its code lives", options.name.handle);
    })
    .await;
    match done {
        Some(joined) => joined.map_err(failed)?,
        None => {
            let why = "ended while it was linked; started again it says whether it is a device of the account";
            return Err(Failure::say(Exit::Failed, why));
        }
    }
    if how.json {
        return Ok(());
    }
    let (gives, takes) = &how.history;
    say!("linked: this is a device of @{} now", options.name.handle)?;
    say!(
        "what was written before is on the first device: `{gives}` there hands it over, and `{takes}` here takes it in, \
         each while no chat of it is open"
    )
}

/// The code, as text and, if wanted, as a picture.
fn show(options: &ClientOptions, link: &NewLink, how: &How) -> Result<(), Failure> {
    let (code, handle) = (link.code(), &options.name.handle);
    let seconds = link.deadline().saturating_duration_since(Instant::now()).as_millis().div_ceil(1_000);
    if how.json {
        return say!("{}", json!({ "event": "link_code", "code": code.to_string(), "expires_in_s": seconds }));
    }
    say!(
        "on the first device of @{handle}, within {seconds} s, or in its open chat `/approve` and the code:\n\n  {} {code}\n",
        how.approve
    )?;
    // Below the text, which would push its first rows out of sight.
    if how.args.qr { say!("{}", fitting(picture(code)?, terminal::size())) } else { Ok(()) }
}

/// The picture, where the terminal has room for it: wrapped, or with its first rows gone, no scanner reads it.
fn fitting(picture: String, size: Option<(usize, usize)>) -> String {
    let wide = picture.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    // The cursor stands below it.
    let high = picture.lines().count() + 1;
    match size {
        Some((columns, rows)) if columns < wide || rows < high => format!(
            "no QR code: it needs {wide} columns and {high} rows, and this terminal has {columns} and {rows}; copy the text \
             above, or make the terminal larger and begin again"
        ),
        _ => picture,
    }
}

/// Capitals: they and digits are what a QR code holds in the least room (ISO/IEC 18004, alphanumeric mode).
fn picture(code: &LinkCode) -> Result<String, Failure> {
    let drawn = QrCode::with_error_correction_level(code.to_string().to_uppercase(), EcLevel::L);
    let drawn = drawn.map_err(|error| Failure::new(Exit::Failed, error))?;
    // Dark on light whatever the terminal's colours are: most scanners read no inverted code.
    Ok(drawn.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build())
}

async fn ask(offer: &mut Offer, how: &How) -> Result<bool, Failure> {
    let (handle, number) = (offer.handle().clone(), digits(&offer.number()));
    if how.json {
        let account = offer.account().to_string();
        say!(
            "{}",
            json!({ "event": "link_offer", "handle": handle.to_string(), "account": account, "number": offer.number() })
        )?;
    } else {
        say!("@{handle} has read the code; the number there must be {number}")?;
    }
    if how.args.yes {
        return Ok(true);
    }
    // Connecting anew is large, and seldom gone through.
    yes(&format!("Join @{handle} as a new device? [y/N] "), Box::pin(offer.is_over())).await
}

/// Six digits, easier to compare.
pub fn digits(number: &str) -> String {
    match number.split_at_checked(3) {
        Some((first, last)) => format!("{first} {last}"),
        None => number.into(),
    }
}

/// What a person answers, unless the link is over before.
pub async fn yes(question: &str, over: impl Future<Output = LinkFailure>) -> Result<bool, Failure> {
    // What was typed before it was asked is no answer: nobody had seen the number.
    terminal::forget_typed();
    terminal::put(question)?;
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line)
    });
    let line = tokio::select! {
        biased;
        line = read => line.map_err(|error| Failure::new(Exit::Failed, error))??,
        why = over => {
            say!("")?;
            return Err(failed(why));
        }
    };
    Ok(matches!(line.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// Lets a device in. Where that takes long `slow` says so, once: a device that has died is waited for as long as its code
/// lives.
pub async fn let_in(met: Approval, slow: impl FnOnce(String)) -> Result<Approved, LinkFailure> {
    let (name, end) = (one_line(met.name()), met.deadline());
    slowly(Box::pin(met.approve()), || {
        let seconds = end.saturating_duration_since(Instant::now()).as_secs();
        if seconds > 0 {
            slow(format!("waiting for the new device \"{name}\" to join; its code lives {seconds} s more"));
        }
    })
    .await
}

/// Waits for the other device, and says so where that takes longer than it should.
async fn slowly<T>(mut work: impl Future<Output = T> + Unpin, slow: impl FnOnce()) -> T {
    tokio::select! {
        biased;
        done = &mut work => return done,
        () = sleep(SLOW_AFTER) => slow(),
    }
    work.await
}

/// How a command ends whose link ended.
pub fn failed(failure: LinkFailure) -> Failure {
    let exit = match &failure {
        LinkFailure::Open(_) => Exit::Folder,
        LinkFailure::Storage(_) => Exit::Folder,
        LinkFailure::Name(_) | LinkFailure::Link(LinkError::OtherHost { .. }) => Exit::Usage,
        LinkFailure::Transport(_) => Exit::Unreachable,
        LinkFailure::Late
        | LinkFailure::NotWaited
        | LinkFailure::NotRead
        | LinkFailure::NotAnswered { .. }
        | LinkFailure::Unanswered
        | LinkFailure::Waits => Exit::TimedOut,
        LinkFailure::Refused(_) => Exit::Refused,
        LinkFailure::Command(CommandError::DeviceName) => Exit::Usage,
        LinkFailure::Link(_)
        | LinkFailure::NotListed
        | LinkFailure::Used
        | LinkFailure::OtherAccount { .. }
        | LinkFailure::Command(_)
        | LinkFailure::Ended => Exit::Failed,
    };
    match failure {
        LinkFailure::Open(error) => opening(error),
        LinkFailure::Refused(why) => Failure::say(exit, one_line(&sentence(&why))),
        other => Failure::new(exit, other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_drawn_on_less_than_a_screen() {
        let link = pli_client::core::linking::NewDevice::begin("chat.example", "laptop", [1; 32]).expect("a name");
        let drawn = picture(link.code()).expect("drawn");
        let (lines, columns) = (drawn.lines().count(), drawn.lines().map(|line| line.chars().count()).max());
        assert!((10..=24).contains(&lines), "{lines} lines");
        assert!(columns.is_some_and(|columns| columns <= 50), "{columns:?} columns");
        assert_eq!(digits("012345"), "012 345");
        let (wide, high) = (columns.unwrap_or_default(), lines + 1);
        for shown in [None, Some((wide, high)), Some((200, 100))] {
            assert_eq!(fitting(drawn.clone(), shown), drawn, "{shown:?}");
        }
        for (columns, rows) in [(wide - 1, high), (wide, high - 1)] {
            let said = fitting(drawn.clone(), Some((columns, rows)));
            let needs = format!("it needs {wide} columns and {high} rows, and this terminal has {columns} and {rows}");
            assert!(said.contains(&needs), "{said}");
        }
    }
}
