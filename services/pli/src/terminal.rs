// SPDX-License-Identifier: MIT OR Apache-2.0
//! What may be printed, and how times look.

use std::io::{Error, ErrorKind, Write};

use jiff::{Timestamp, tz::TimeZone};
use pli_domain::UnixMillis;
use rustix::termios::{QueueSelector, tcflush, tcgetwinsize};

use crate::exit::{Exit, Failure};

/// A line on standard output; see [`put`].
macro_rules! say {
    ($($text:tt)*) => { $crate::terminal::put(&format!("{}\n", format_args!($($text)*))) };
}
pub(crate) use say;

/// Writes a line to standard error. One that cannot be written is left out: it changes nothing of what the command does,
/// nor how it ends.
macro_rules! tell {
    ($($text:tt)*) => { $crate::terminal::tell_line(format_args!($($text)*)) };
}
pub(crate) use tell;

/// See [`tell`].
pub fn tell_line(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

/// Writes to standard output. A closed pipe is no failure: whoever read there has enough, as `| head` has.
pub fn put(text: &str) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).or_else(written)
}

/// Forgets what was typed at the terminal of standard input and nobody has read; does nothing where that is none.
pub fn forget_typed() {
    let _ = tcflush(std::io::stdin(), QueueSelector::IFlush);
}

/// How many columns and rows the terminal of standard output has, as it is now; none where that is no terminal, or one that
/// does not say.
pub fn size() -> Option<(usize, usize)> {
    let size = tcgetwinsize(std::io::stdout()).ok().filter(|size| size.ws_col > 0)?;
    let rows = if size.ws_row > 0 { size.ws_row.into() } else { usize::MAX };
    Some((size.ws_col.into(), rows))
}

/// What a failed write to standard output means for the command.
pub fn written(error: Error) -> Result<(), Failure> {
    if error.kind() == ErrorKind::BrokenPipe {
        return Ok(());
    }
    let error = anyhow::Error::new(error);
    Err(Failure::new(Exit::Output, error.context("standard output cannot be written; make room, or name another file")))
}

/// Stands for what a terminal must not be told by somebody else.
const REPLACEMENT: char = '\u{fffd}';

/// Somebody else's text with everything replaced that could steer the terminal or turn the direction of what follows:
/// control characters but newline and tab, and the explicit bidirectional controls (Unicode UAX 9).
pub fn clean(text: &str) -> String {
    let steers = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{061c}')
    };
    text.chars().map(|c| if steers(c) { REPLACEMENT } else { c }).collect()
}

/// The same on one line.
pub fn one_line(text: &str) -> String {
    clean(text).replace('\n', " ⏎ ")
}

/// `14:03` today, `Mar 05 14:03` on another day, in the user's time zone.
pub fn clock(at: UnixMillis) -> String {
    let zone = TimeZone::system();
    let millis = i64::try_from(at.0).unwrap_or(i64::MAX);
    let Ok(at) = Timestamp::from_millisecond(millis) else { return "??:??".into() };
    let (at, now) = (at.to_zoned(zone.clone()), Timestamp::now().to_zoned(zone));
    let format = if at.date() == now.date() { "%H:%M" } else { "%b %d %H:%M" };
    at.strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_steer_the_terminal() {
        assert_eq!(clean("a\x1b[2Jb\u{202e}c\nd\te"), "a\u{fffd}[2Jb\u{fffd}c\nd\te");
        assert_eq!(one_line("a\nb"), "a ⏎ b");
    }

    #[test]
    fn times_of_other_days_carry_their_date() {
        assert!(clock(UnixMillis(0)).len() > 5);
        assert_eq!(clock(UnixMillis(u64::MAX)), "??:??");
    }
}
