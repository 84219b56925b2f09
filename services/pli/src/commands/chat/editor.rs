// SPDX-License-Identifier: MIT OR Apache-2.0
//! The line editor, on a thread of its own; plain lines where standard input is no terminal.

use std::borrow::Cow;
use std::io::{BufRead, IsTerminal, Write};
use std::sync::mpsc as std_mpsc;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{CompletionType, Config, Context, ExternalPrinter, Helper};
use tokio::sync::mpsc;

use super::input::COMMANDS;
use super::prompt::Shared;
use crate::exit::{Exit, ExitContext, Failure};

/// Lines that were read and not taken yet. The editor waits for each.
const LINES_MAX: usize = 1;
/// Lines of one's own that can be recalled. In memory only: what was typed is sealed at rest, or nowhere.
const RECALL_MAX: usize = 500;

/// Prints above the line that is being edited.
pub type Printer = Arc<Mutex<dyn FnMut(String) + Send>>;

/// A running editor.
pub struct Editor {
    lines: mpsc::Receiver<String>,
    taken: std_mpsc::Sender<()>,
    printer: Printer,
    terminal: Option<Termios>,
}

impl Editor {
    /// Begins to read.
    pub fn start(shared: Shared) -> Result<Self, Failure> {
        let (send, lines) = mpsc::channel(LINES_MAX);
        let (taken, waits) = std_mpsc::channel();
        if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
            std::thread::spawn(move || plain(&send, &waits));
            return Ok(Self { lines, taken, printer: Arc::new(Mutex::new(print_plain)), terminal: None });
        }
        let terminal = tcgetattr(std::io::stdin()).ok();
        let config = Config::builder().completion_type(CompletionType::List).max_history_size(RECALL_MAX);
        let config = config.exit(Exit::Failed)?.build();
        let mut editor: rustyline::Editor<Words, DefaultHistory> =
            rustyline::Editor::with_config(config).exit(Exit::Failed)?;
        let mut above = editor.create_external_printer().exit(Exit::Failed)?;
        editor.set_helper(Some(Words { shared: shared.clone(), colours: super::screen::colours() }));
        std::thread::spawn(move || edit(editor, &shared, &send, &waits));
        let printer = Arc::new(Mutex::new(move |text: String| {
            // The terminal is gone: nobody is there to read it.
            let _ = above.print(text + "\n");
        }));
        Ok(Self { lines, taken, printer, terminal })
    }

    /// Prints above the line.
    pub fn printer(&self) -> Printer {
        self.printer.clone()
    }

    /// The next line; none at the end of the input. Cancel safe.
    pub async fn line(&mut self) -> Option<String> {
        self.lines.recv().await
    }

    /// The line was dealt with: read the next one.
    pub fn taken(&self) {
        // At the end of the input nobody waits.
        let _ = self.taken.send(());
    }

    /// Gives the terminal back as it was.
    pub fn end(self) {
        if let Some(terminal) = self.terminal {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &terminal);
        }
    }
}

fn edit(
    mut editor: rustyline::Editor<Words, DefaultHistory>,
    shared: &Shared,
    send: &mpsc::Sender<String>,
    taken: &std_mpsc::Receiver<()>,
) {
    loop {
        match editor.readline(&shared.plain()) {
            Ok(line) => {
                // Recall is a comfort; without room the line is still sent.
                let _ = editor.add_history_entry(&line);
                if send.blocking_send(line).is_err() || taken.recv().is_err() {
                    return;
                }
            }
            Err(ReadlineError::Eof | ReadlineError::Interrupted) => return,
            Err(error) => {
                tracing::warn!(%error, "the line editor ended");
                return;
            }
        }
    }
}

fn plain(send: &mpsc::Sender<String>, taken: &std_mpsc::Receiver<()>) {
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        if send.blocking_send(line).is_err() || taken.recv().is_err() {
            return;
        }
    }
}

fn print_plain(text: String) {
    let mut out = anstream::stdout().lock();
    // Nobody reads any more; the end of the input ends the chat.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Completes words and keeps the prompt fresh.
struct Words {
    shared: Shared,
    colours: bool,
}

impl Helper for Words {}
impl Validator for Words {}
impl Hinter for Words {
    type Hint = String;
}
impl Highlighter for Words {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        Cow::Owned(self.shared.refreshed(prompt, self.colours))
    }
}
impl Completer for Words {
    type Candidate = Pair;
    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        Ok(complete(&self.shared, line, at))
    }
}

/// The word before the cursor, completed: a command at the beginning of the line, a handle or group anywhere.
fn complete(shared: &Shared, line: &str, at: usize) -> (usize, Vec<Pair>) {
    let before = line.get(..at).unwrap_or_default();
    let start = before.rfind(' ').map_or(0, |space| space + 1);
    let word = &before[start..];
    let pair = |text: String| Pair { display: text.clone(), replacement: text + " " };
    if start == 0 && word.starts_with('/') {
        let commands = COMMANDS.iter().map(|(name, _, _)| (*name).to_string());
        return (start, commands.filter(|name| name.starts_with(word)).map(pair).collect());
    }
    if word.starts_with(['@', '#']) {
        return (start, shared.names(word).into_iter().map(pair).collect());
    }
    // Commands take bare handles.
    let bare = |name: String| pair(name.trim_start_matches('@').to_string());
    let names = if before.starts_with('/') { shared.names(&format!("@{word}")) } else { Vec::new() };
    (start, names.into_iter().map(bare).collect())
}

/// Prints through the printer.
pub fn print(printer: &Printer, text: String) {
    (printer.lock().unwrap_or_else(PoisonError::into_inner))(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(line: &str) -> Vec<String> {
        let shared = Shared::new(&"alice".parse().expect("a handle"));
        shared.set_names(vec!["@bob".into(), "@boris".into(), "#team".into(), "#team~ab12cd".into()]);
        complete(&shared, line, line.len()).1.into_iter().map(|pair| pair.replacement).collect()
    }

    #[test]
    fn handles_groups_and_commands_are_completed() {
        assert_eq!(completed("@bo"), ["@bob ", "@boris "]);
        assert_eq!(completed("#t"), ["#team ", "#team~ab12cd "]);
        assert_eq!(completed("#team~"), ["#team~ab12cd "]);
        assert_eq!(completed("/sa"), ["/safety "]);
        assert_eq!(completed("/safety bor"), ["boris "]);
        assert!(completed("hello bo").is_empty());
    }
}
