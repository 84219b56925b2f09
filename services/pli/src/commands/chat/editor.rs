// SPDX-License-Identifier: MIT OR Apache-2.0
//! The line editor; plain lines where standard input is no terminal.
//!
//! Everything is done by the chat's own task, between two events: a line is taken with the target that its prompt shows,
//! and what was pasted is worked through to its end. Why no library does it: ADR 5.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::process::{Signal, kill_current_process_group};
use terminput::{ALT, CTRL, KeyCode, KeyEvent};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};

use super::complete::{complete, shared_beginning};
use super::keyboard::{Keyboard, Raw};
use super::keys::{Decoder, Stroke};
use super::line::LINE_BYTES_MAX;
use super::paper::Paper;
use super::prompt::Prompt;
use crate::exit::Failure;

/// All threads of a process that is told to stop stand still by then.
const STOPPED_WITHIN: Duration = Duration::from_millis(20);

/// A line that was ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entered {
    /// What it says.
    pub text: String,
    /// Its end was pasted: nobody pressed Enter for it.
    pub pasted: bool,
    /// Something in it is no UTF-8, and is not in `text` as it was.
    pub broken: bool,
}

/// A running editor.
pub struct Editor {
    keyboard: Keyboard,
    resized: Signals,
    decoder: Decoder,
    /// Keys, or bytes of plain lines, that wait for the line before them: no more are read while some wait.
    keys: VecDeque<Stroke>,
    /// The next key is of a paste.
    pasting: bool,
    /// Something of the line that is typed is no text.
    broken: bool,
    bytes: Vec<u8>,
    /// A plain line was too long: its rest is not a line.
    skipping: bool,
    paper: Paper,
    raw: Option<Raw>,
}

impl Editor {
    /// Begins to read.
    pub fn start(prompt: Prompt) -> Result<Self, Failure> {
        let stdin = std::io::stdin();
        let terminal = stdin.is_terminal() && std::io::stdout().is_terminal();
        Self::on(stdin.as_fd().try_clone_to_owned()?, terminal, prompt)
    }

    fn on(input: OwnedFd, terminal: bool, prompt: Prompt) -> Result<Self, Failure> {
        let raw = if terminal { Some(Raw::new(input.try_clone()?)?) } else { None };
        let (keyboard, resized) = (Keyboard::new(input)?, signal(SignalKind::window_change())?);
        let paper = Paper::new(prompt, raw.is_some());
        let (decoder, keys, bytes) = (Decoder::default(), VecDeque::new(), Vec::new());
        let (pasting, broken, skipping) = (false, false, false);
        Ok(Self { keyboard, resized, decoder, keys, pasting, broken, bytes, skipping, paper, raw })
    }

    /// The prompt, the line, and what is printed above them.
    pub fn paper(&self) -> Paper {
        self.paper.clone()
    }

    /// Whether lines come from a file or another program.
    pub const fn is_piped(&self) -> bool {
        self.raw.is_none()
    }

    /// Whether the prompt may name another target: there is one, and nothing was typed below it, read or not.
    pub fn may_turn(&mut self) -> bool {
        if self.raw.is_none() {
            return false;
        }
        if self.keys.is_empty() {
            let typed = self.keyboard.at_once();
            self.take_in(typed);
        }
        self.keys.is_empty() && self.paper.is_empty()
    }

    /// The next line; none at the end of the input. Cancel safe: what was typed stays here.
    pub async fn line(&mut self) -> Option<Entered> {
        loop {
            match if self.raw.is_some() { self.typed() } else { self.plain() } {
                Typed::Line(line) => return Some(line),
                Typed::End => return None,
                Typed::More if self.keyboard.ended() && self.bytes.is_empty() => return None,
                Typed::More if self.keyboard.ended() => return Some(plain(std::mem::take(&mut self.bytes))),
                Typed::More => {}
            }
            tokio::select! {
                bytes = self.keyboard.next() => self.take_in(bytes),
                _ = self.resized.recv() => self.paper.repaint(),
            }
        }
    }

    fn take_in(&mut self, bytes: Vec<u8>) {
        if self.raw.is_some() {
            for byte in bytes {
                let stroke = self.decoder.push(byte);
                self.keys.extend(self.decoder.take_broken());
                self.keys.extend(stroke);
            }
        } else {
            self.bytes.extend(bytes);
        }
    }

    /// The line was dealt with: a prompt for the next one.
    pub fn taken(&self) {
        self.paper.open();
    }

    /// Gives the terminal back as it was.
    pub fn end(self) {
        self.paper.close();
    }

    fn plain(&mut self) -> Typed {
        let end = self.bytes.iter().position(|byte| *byte == b'\n');
        let Some(end) = end else {
            if self.skipping {
                self.bytes.clear();
            }
            if self.bytes.len() < LINE_BYTES_MAX {
                return Typed::More;
            }
            self.skipping = true;
            // Cut off anywhere, and too long for a message in any case.
            let cut = plain(std::mem::take(&mut self.bytes));
            return Typed::Line(Entered { broken: false, ..cut });
        };
        let rest = self.bytes.split_off(end + 1);
        let line = std::mem::replace(&mut self.bytes, rest);
        if std::mem::take(&mut self.skipping) { self.plain() } else { Typed::Line(plain(line)) }
    }

    fn typed(&mut self) -> Typed {
        while let Some(stroke) = self.keys.pop_front() {
            let key = match stroke {
                Stroke::Key(key) => key,
                Stroke::Broken => {
                    self.broken = true;
                    continue;
                }
                mark => {
                    self.pasting = mark == Stroke::PasteBegins;
                    continue;
                }
            };
            match (key.code, key.modifiers.contains(CTRL)) {
                (KeyCode::Enter, _) => {
                    let broken = std::mem::take(&mut self.broken);
                    return Typed::Line(Entered { text: self.paper.take(), pasted: self.pasting, broken });
                }
                (KeyCode::Tab, _) if self.pasting => self.edit(KeyCode::Char(' ').into()),
                // Of a paste only its text counts: other keys were not pressed by anybody.
                _ if self.pasting && !is_text(&key) => {}
                (KeyCode::Char('c'), true) if !self.paper.is_empty() || self.broken => {
                    self.broken = false;
                    self.paper.change(|line, _| line.clear());
                }
                (KeyCode::Char('c'), true) => return Typed::End,
                (KeyCode::Char('d'), true) if self.paper.is_empty() => return Typed::End,
                (KeyCode::Tab, _) => self.complete(),
                (KeyCode::Char('l'), true) => self.paper.clear(),
                (KeyCode::Char('z'), true) => self.suspend(),
                _ => self.edit(key),
            }
        }
        Typed::More
    }

    /// Pasted text is painted once.
    fn edit(&mut self, first: KeyEvent) {
        let text = |stroke: &Stroke| match stroke {
            Stroke::Key(key) if is_text(key) => Some(*key),
            _ => None,
        };
        let end = self.keys.iter().position(|stroke| text(stroke).is_none()).unwrap_or(self.keys.len());
        let more: Vec<_> =
            self.keys.drain(..if is_text(&first) { end } else { 0 }).filter_map(|key| text(&key)).collect();
        self.paper.change(|line, _| std::iter::once(first).chain(more).for_each(|key| line.press(key)));
    }

    fn complete(&self) {
        let (word, found) = self.paper.change(|line, prompt| {
            let (start, found) = complete(prompt, line.before());
            let word = line.before()[start..].to_string();
            let beginning = shared_beginning(&found);
            if beginning.len() > word.len() {
                line.replace(start, beginning);
            }
            (word, found)
        });
        if found.len() > 1 && shared_beginning(&found).len() <= word.len() {
            self.paper.print(&found.concat());
        }
    }

    /// Ctrl-Z, as the shell's user knows it: the whole job stops, as a terminal that is not raw does it. Returns when the
    /// shell goes on with it.
    fn suspend(&self) {
        let Some(raw) = &self.raw else { return };
        self.paper.close();
        raw.leave();
        let _ = kill_current_process_group(Signal::TSTP);
        // Another thread may take the signal: this one must not touch the terminal before all of them stand still.
        std::thread::sleep(STOPPED_WITHIN);
        // If the terminal went meanwhile, the next read says so.
        let _ = raw.enter();
        self.paper.open();
    }
}

fn is_text(key: &KeyEvent) -> bool {
    matches!(key.code, KeyCode::Char(_)) && !key.modifiers.intersects(CTRL | ALT)
}

enum Typed {
    Line(Entered),
    End,
    /// Nothing complete yet.
    More,
}

/// A line of an input that is no terminal: whoever wrote it meant it.
fn plain(bytes: Vec<u8>) -> Entered {
    let (text, broken) = match String::from_utf8(bytes) {
        Ok(text) => (text, false),
        Err(wrong) => (String::from_utf8_lossy(wrong.as_bytes()).into_owned(), true),
    };
    let end = text.trim_end_matches(['\r', '\n']).len();
    Entered { text: text[..end].to_string(), pasted: false, broken }
}

#[cfg(test)]
mod tests {
    use super::super::keyboard::tests::terminal;
    use super::*;

    async fn entered(editor: &mut Editor) -> Option<String> {
        editor.line().await.map(|entered| entered.text)
    }

    #[tokio::test]
    async fn the_prompt_does_not_turn_over_what_was_typed_however_late_it_is_read() {
        let (user, program) = terminal();
        let mut editor = Editor::on(program, true, Prompt::new("erin".into())).expect("an editor");
        assert!(editor.may_turn());
        rustix::io::write(&user, b"oops\rhalf").expect("typed");
        assert!(!editor.may_turn());
        assert_eq!(entered(&mut editor).await.as_deref(), Some("oops"));
        assert!(!editor.may_turn());
        rustix::io::write(&user, b" done\r").expect("typed");
        assert_eq!(entered(&mut editor).await.as_deref(), Some("half done"));
        assert!(editor.may_turn());
    }

    #[tokio::test]
    async fn lines_of_a_file_are_taken_one_by_one_to_its_end() {
        let (program, user) = std::io::pipe().expect("a pipe");
        let mut editor = Editor::on(program.into(), false, Prompt::new("erin".into())).expect("an editor");
        rustix::io::write(&user, b"one\r\n\ntwo").expect("written");
        drop(user);
        for line in [Some("one"), Some(""), Some("two"), None] {
            assert_eq!(entered(&mut editor).await.as_deref(), line);
        }
    }

    #[tokio::test]
    async fn a_line_that_ends_inside_a_paste_says_so_and_only_the_text_of_a_paste_counts() {
        let (user, program) = terminal();
        let mut editor = Editor::on(program, true, Prompt::new("erin".into())).expect("an editor");
        rustix::io::write(&user, b"\x1b[200~one\ttwo\x03\x04\x1b[A\n/leave\nhalf\x1b[201~ typed\r").expect("pasted");
        for (text, pasted) in [("one two", true), ("/leave", true), ("half typed", false)] {
            assert_eq!(editor.line().await, Some(Entered { text: text.into(), pasted, broken: false }));
        }
    }

    #[tokio::test]
    async fn a_line_with_something_that_is_no_text_says_so_and_the_next_one_does_not() {
        let (user, terminal) = terminal();
        let (file, writer) = std::io::pipe().expect("a pipe");
        for (input, program, is_terminal) in [(user, terminal, true), (writer.into(), file.into(), false)] {
            let mut editor = Editor::on(program, is_terminal, Prompt::new("erin".into())).expect("an editor");
            rustix::io::write(&input, b"bad \xff\xfe end\ncut \xc3\nna\xc3\xafve\n").expect("written");
            for broken in [true, true, false] {
                let line = editor.line().await.expect("a line");
                assert_eq!(line.broken, broken, "{line:?}");
            }
        }
    }

    #[tokio::test]
    async fn ctrl_c_throws_a_line_away_and_ends_where_there_is_none() {
        let (user, program) = terminal();
        let mut editor = Editor::on(program, true, Prompt::new("erin".into())).expect("an editor");
        rustix::io::write(&user, b"half\x03whole\r\x03").expect("typed");
        assert_eq!(entered(&mut editor).await.as_deref(), Some("whole"));
        assert_eq!(editor.line().await, None);
    }
}
