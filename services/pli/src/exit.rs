// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a command ends: the exit codes, their table for `--help`, and errors that carry one.

use std::error::Error;
use std::fmt;

/// The exit codes of every command. Numbers are stable; scripts rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Anything that has no code of its own.
    Failed = 1,
    /// The command line cannot be understood (clap's own code).
    Usage = 2,
    /// The configuration is wrong.
    Config = 3,
    /// An address cannot be listened on.
    Address = 4,
    /// Another process uses the data folder or profile.
    InUse = 5,
    /// A folder cannot be used: missing, read-only, full, damaged, or of a newer version.
    Folder = 6,
    /// The server cannot be reached, or is not the one that was pinned.
    Unreachable = 7,
    /// The server refused for good, or it is known here that it would.
    Refused = 8,
    /// `pli doctor` has findings.
    Findings = 9,
    /// What was waited for did not come in time.
    TimedOut = 10,
    /// A message did not reach somebody and never will.
    Lost = 11,
    /// Standard output cannot be written.
    Output = 12,
    /// Some of what was read cannot be sent; the rest was.
    Input = 13,
}

/// The table that stands under every `--help`.
pub const TABLE: &str = "\
Exit codes:
   0  done
   1  failed for a reason that has no code of its own
   2  the command line cannot be understood
   3  the configuration is wrong
   4  an address cannot be listened on
   5  another process uses the data folder or the profile
   6  a folder cannot be used: missing, read-only, full, damaged, or of a newer version
   7  the server cannot be reached, or is not the one that was pinned
   8  refused for good: by the server, or here by what it has said before
   9  `pli doctor` has findings
  10  what was waited for did not come in time
  11  a message was lost on its way: somebody will never be shown it
  12  standard output cannot be written (a closed pipe ends a command with 0)
  13  some lines of standard input cannot be sent; the others were";

/// The error and everything under it, in one line.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    anyhow::Chain::new(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// An error with the code that the process ends with.
#[derive(Debug)]
pub struct Failure {
    /// The code.
    pub exit: Exit,
    /// What went wrong, with its fix.
    pub error: anyhow::Error,
}

impl Failure {
    /// An error of this code.
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { exit, error: error.into() }
    }
    /// A sentence of this code.
    pub fn say(exit: Exit, sentence: impl fmt::Display) -> Self {
        Self { exit, error: anyhow::anyhow!("{sentence}") }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { exit: Exit::Failed, error }
    }
}
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self { exit: Exit::Failed, error: error.into() }
    }
}

/// Gives an error its exit code.
pub trait ExitContext<T> {
    /// The same result; its error ends the process with `exit`.
    fn exit(self, exit: Exit) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> ExitContext<T> for Result<T, E> {
    fn exit(self, exit: Exit) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(exit, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_stands_in_the_table_under_its_number() {
        let all = [
            Exit::Ok,
            Exit::Failed,
            Exit::Usage,
            Exit::Config,
            Exit::Address,
            Exit::InUse,
            Exit::Folder,
            Exit::Unreachable,
            Exit::Refused,
            Exit::Findings,
            Exit::TimedOut,
            Exit::Lost,
            Exit::Output,
            Exit::Input,
        ];
        let numbers: Vec<u8> =
            TABLE.lines().skip(1).filter_map(|l| l.split_whitespace().next()?.parse().ok()).collect();
        assert_eq!(numbers, all.map(|exit| exit as u8));
    }
}
