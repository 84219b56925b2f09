// SPDX-License-Identifier: MIT OR Apache-2.0
//! One line of `pli doctor`.

use anstyle::{AnsiColor, Style};

use crate::exit::Failure;
use crate::terminal::say;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Nothing to do.
    Fine,
    /// It works, but not for long or not well.
    Warning,
    /// A server would not start or not work.
    Fault,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The check.
    pub name: &'static str,
    /// How bad.
    pub level: Level,
    /// What was seen.
    pub seen: String,
    /// What to do about it.
    pub fix: Option<String>,
}

impl Finding {
    /// Nothing to do.
    pub fn fine(name: &'static str, seen: impl Into<String>) -> Self {
        Self { name, level: Level::Fine, seen: seen.into(), fix: None }
    }
    /// Something to do soon.
    pub fn warning(name: &'static str, seen: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, level: Level::Warning, seen: seen.into(), fix: Some(fix.into()) }
    }
    /// Something to do first.
    pub fn fault(name: &'static str, seen: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, level: Level::Fault, seen: seen.into(), fix: Some(fix.into()) }
    }

    /// Prints it, with its fix below.
    pub fn print(&self) -> Result<(), Failure> {
        let (word, colour) = match self.level {
            Level::Fine => ("ok", AnsiColor::Green),
            Level::Warning => ("warning", AnsiColor::Yellow),
            Level::Fault => ("fault", AnsiColor::Red),
        };
        let style = Style::new().fg_color(Some(colour.into()));
        say!("{style}{word:<8}{style:#}{:<12} {}", self.name, self.seen)?;
        if let Some(fix) = &self.fix {
            say!("{:<20} fix: {fix}", "")?;
        }
        Ok(())
    }
}
