// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the editor and the chat share: the prompt and the names to complete.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anstyle::{AnsiColor, Style};
use pli_client::core::ConnectionState;
use pli_domain::Handle;

use crate::terminal::one_line;

/// Handles and groups that are completed; more are left out.
const NAMES_MAX: usize = 1_000;

#[derive(Debug)]
struct State {
    handle: String,
    target: Option<String>,
    connection: ConnectionState,
    names: Vec<String>,
}

/// Shared between the chat and the editor.
#[derive(Debug, Clone)]
pub struct Shared(Arc<Mutex<State>>);

impl Shared {
    /// Of this profile, not connected.
    pub fn new(handle: &Handle) -> Self {
        let (handle, connection) = (handle.to_string(), ConnectionState::Offline);
        Self(Arc::new(Mutex::new(State { handle, target: None, connection, names: Vec::new() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose profile.
    pub fn handle(&self) -> String {
        self.state().handle.clone()
    }

    /// The connection changed; what it was.
    pub fn set_state(&self, connection: ConnectionState) -> ConnectionState {
        std::mem::replace(&mut self.state().connection, connection)
    }

    /// Where a line without a name goes.
    pub fn set_target(&self, target: Option<String>) {
        self.state().target = target.map(|target| one_line(&target));
    }

    /// What Tab completes: `@bob`, `#team`.
    pub fn set_names(&self, mut names: Vec<String>) {
        names.retain(|name| one_line(name) == *name);
        names.sort_unstable();
        names.dedup();
        names.truncate(NAMES_MAX);
        self.state().names = names;
    }

    /// The names that begin so.
    pub fn names(&self, prefix: &str) -> Vec<String> {
        self.state().names.iter().filter(|name| name.starts_with(prefix)).cloned().collect()
    }

    /// The prompt without colours.
    pub fn plain(&self) -> String {
        let state = self.state();
        let target = state.target.as_ref().map_or(String::new(), |target| format!(" → {target}"));
        format!("{} {}{target}> ", symbol(state.connection), state.handle)
    }

    /// The same, painted.
    pub fn painted(&self, colours: bool) -> String {
        let plain = self.plain();
        if !colours {
            return plain;
        }
        let connection = self.state().connection;
        let rest: String = plain.chars().skip(1).collect();
        let colour = if connection == ConnectionState::Online { AnsiColor::Green } else { AnsiColor::Yellow };
        let style = Style::new().fg_color(Some(colour.into()));
        format!("{style}{}{style:#}{rest}", symbol(connection))
    }
}

const fn symbol(state: ConnectionState) -> char {
    match state {
        ConnectionState::Online => '●',
        ConnectionState::CatchingUp | ConnectionState::Registering => '◌',
        ConnectionState::Offline => '○',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prompt_says_who_to_whom_and_how_the_connection_stands() {
        let shared = Shared::new(&"alice".parse().expect("a handle"));
        assert_eq!(shared.plain(), "○ alice> ");
        shared.set_state(ConnectionState::Online);
        assert_eq!(shared.painted(false), "● alice> ");
        shared.set_target(Some("@bob".into()));
        assert_eq!(shared.plain(), "● alice → @bob> ");
    }
}
