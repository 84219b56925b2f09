// SPDX-License-Identifier: MIT OR Apache-2.0
//! What stands before the line, and the names that it completes.

use anstyle::{AnsiColor, Style};
use pli_client::core::ConnectionState;

use crate::commands::names::named;
use crate::terminal::one_line;

/// Handles and groups that are completed; more are left out.
const NAMES_MAX: usize = 1_000;

/// See the module.
#[derive(Debug)]
pub struct Prompt {
    handle: String,
    target: Option<String>,
    connection: ConnectionState,
    names: Vec<String>,
}

impl Prompt {
    /// Of this profile, not connected.
    pub const fn new(handle: String) -> Self {
        Self { handle, target: None, connection: ConnectionState::Offline, names: Vec::new() }
    }

    /// The connection changed; what it was.
    pub const fn set_state(&mut self, connection: ConnectionState) -> ConnectionState {
        std::mem::replace(&mut self.connection, connection)
    }

    /// Where a line without a name goes.
    pub fn set_target(&mut self, target: Option<String>) {
        self.target = target.map(|target| one_line(&target));
    }

    /// What Tab completes: `@bob`, `#team`, `#"my team"`.
    pub fn set_names(&mut self, mut names: Vec<String>) {
        names.retain(|name| one_line(name) == *name);
        names.sort_unstable();
        names.dedup();
        names.truncate(NAMES_MAX);
        self.names = names;
    }

    /// The names that begin so, as they are typed; quotes may be left out of what they begin with.
    pub fn names(&self, prefix: &str) -> Vec<String> {
        let is_meant = |name: &str| match (prefix.strip_prefix('#'), name.strip_prefix('#')) {
            (Some(bare), Some(typed)) => {
                typed.starts_with('"') && named(typed).is_some_and(|(name, _)| name.starts_with(bare))
            }
            _ => false,
        };
        self.names.iter().filter(|name| name.starts_with(prefix) || is_meant(name)).cloned().collect()
    }

    /// The prompt without colours.
    pub fn plain(&self) -> String {
        format!("{}{}", self.symbol(), self.rest())
    }

    /// The same, painted.
    pub fn painted(&self, colours: bool) -> String {
        if !colours {
            return self.plain();
        }
        let colour = if self.connection == ConnectionState::Online { AnsiColor::Green } else { AnsiColor::Yellow };
        let style = Style::new().fg_color(Some(colour.into()));
        format!("{style}{}{style:#}{}", self.symbol(), self.rest())
    }

    fn rest(&self) -> String {
        let target = self.target.as_ref().map_or(String::new(), |target| format!(" → {target}"));
        format!(" {}{target}> ", self.handle)
    }

    const fn symbol(&self) -> char {
        match self.connection {
            ConnectionState::Online => '●',
            ConnectionState::CatchingUp | ConnectionState::Registering => '◌',
            ConnectionState::Offline => '○',
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prompt_says_who_to_whom_and_how_the_connection_stands() {
        let mut prompt = Prompt::new("alice".into());
        assert_eq!(prompt.plain(), "○ alice> ");
        prompt.set_state(ConnectionState::Online);
        assert_eq!(prompt.painted(false), "● alice> ");
        prompt.set_target(Some("@bob".into()));
        assert_eq!(prompt.plain(), "● alice → @bob> ");
    }
}
