// SPDX-License-Identifier: MIT OR Apache-2.0
//! The screen below everything that was said: the prompt and the line, painted as they are now. Prompt and line are one
//! state, and whatever changes it paints, so a prompt on the screen is never behind.

use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use unicode_width::UnicodeWidthChar;

use super::line::Line;
use super::prompt::Prompt;
use super::wrap::wrapped;
use crate::terminal;

/// Columns where the terminal does not say.
const COLUMNS_DEFAULT: usize = 80;

/// A terminal, or plain standard output.
#[derive(Debug)]
struct State {
    prompt: Prompt,
    colours: bool,
    line: Line,
    terminal: bool,
    /// A line is typed at the moment; else what is said needs no prompt below it.
    open: bool,
    /// What stands on the screen from the prompt's first column to the cursor.
    painted: Option<String>,
    /// Why something could not be written where there is no terminal; the first reason.
    failed: Option<std::io::Error>,
}

/// What is printed and typed; shared by the editor and whoever prints.
#[derive(Debug, Clone)]
pub struct Paper(Arc<Mutex<State>>);

impl Paper {
    /// Of standard output; `terminal` paints a prompt below it.
    pub fn new(prompt: Prompt, terminal: bool) -> Self {
        let colours = super::screen::colours();
        let state =
            State { prompt, colours, line: Line::default(), terminal, open: false, painted: None, failed: None };
        Self(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the line and the prompt, and paints them.
    pub fn change<T>(&self, change: impl FnOnce(&mut Line, &mut Prompt) -> T) -> T {
        let mut state = self.state();
        let State { line, prompt, .. } = &mut *state;
        let changed = change(line, prompt);
        state.print("");
        changed
    }

    /// Prints a line above the one that is typed; on a terminal broken at blanks.
    pub fn print(&self, text: &str) {
        let mut state = self.state();
        let text = if state.terminal { wrapped(text, columns()) } else { text.to_owned() };
        state.print(&format!("{text}\n"));
    }

    /// Paints the prompt and the line again.
    pub fn repaint(&self) {
        self.state().print("");
    }

    /// Nothing is typed at the moment.
    pub fn is_empty(&self) -> bool {
        self.state().line.text().is_empty()
    }

    /// Takes the line: it stays on the screen as it is, and no prompt stands below it until [`Paper::open`].
    pub fn take(&self) -> String {
        let mut state = self.state();
        state.line.press(terminput::KeyCode::End.into());
        state.print("");
        state.close();
        state.line.take()
    }

    /// Paints a prompt for the next line.
    pub fn open(&self) {
        let mut state = self.state();
        state.open = state.terminal;
        state.print("");
    }

    /// Empties the screen.
    pub fn clear(&self) {
        let mut state = self.state();
        state.painted = None;
        state.print("\x1b[H\x1b[2J");
    }

    /// Whether something could not be written. On a terminal it does not count: the end of the input ends the chat.
    pub fn has_failed(&self) -> bool {
        self.state().failed.is_some()
    }

    /// Why something could not be written; told once.
    pub fn failure(&self) -> Option<std::io::Error> {
        self.state().failed.take()
    }

    /// Nobody reads what is written.
    pub fn fail(&self, why: std::io::Error) {
        self.state().failed = Some(why);
    }

    /// Leaves the line; the cursor stands below it.
    pub fn close(&self) {
        let mut state = self.state();
        state.close();
    }
}

impl State {
    /// Takes the prompt away, prints, and paints it below.
    fn print(&mut self, text: &str) {
        let columns = columns();
        let mut out = self.erased(columns);
        out.push_str(text);
        if self.open {
            self.paint(&mut out, columns);
        }
        self.put(&out);
    }

    fn put(&mut self, text: &str) {
        let done =
            if self.terminal { all(std::io::stdout().lock(), text) } else { all(anstream::stdout().lock(), text) };
        if let (Err(error), false, None) = (done, self.terminal, &self.failed) {
            self.failed = Some(error);
        }
    }

    fn close(&mut self) {
        if self.painted.take().is_some() {
            self.put("\n");
        }
        self.open = false;
    }

    /// What takes the prompt from the screen. Terminals break lines anew when they are resized, so its rows are counted
    /// with the columns of now.
    fn erased(&mut self, columns: usize) -> String {
        match self.painted.take().map(|text| place(&text, columns).0) {
            None => String::new(),
            Some(0) => "\r\x1b[J".into(),
            Some(row) => format!("\r\x1b[{row}A\x1b[J"),
        }
    }

    fn paint(&mut self, out: &mut String, columns: usize) {
        let plain = self.prompt.plain();
        out.push_str(&self.prompt.painted(self.colours));
        out.push_str(self.line.text());
        let (end, column) = place(&format!("{plain}{}", self.line.text()), columns);
        if column == 0 && end > 0 {
            // A full row: the terminal still waits at its end.
            out.push('\n');
        }
        let before = plain + self.line.before();
        let (row, column) = place(&before, columns);
        if end > row {
            out.push_str(&format!("\x1b[{}A", end - row));
        }
        out.push('\r');
        if column > 0 {
            out.push_str(&format!("\x1b[{column}C"));
        }
        self.painted = Some(before);
    }
}

/// Of the terminal, as it is now.
fn columns() -> usize {
    terminal::size().map_or(COLUMNS_DEFAULT, |(columns, _)| columns)
}

fn all(mut out: impl Write, text: &str) -> std::io::Result<()> {
    out.write_all(text.as_bytes()).and_then(|()| out.flush())
}

/// Row and column after `text`, from (0, 0).
fn place(text: &str, columns: usize) -> (usize, usize) {
    let (mut row, mut column) = (0, 0);
    for width in text.chars().map(|c| c.width().unwrap_or(0)) {
        if column + width > columns {
            (row, column) = (row + 1, 0);
        }
        column += width;
    }
    if column >= columns { (row + 1, 0) } else { (row, column) }
}

#[cfg(test)]
mod tests {
    use terminput::{KeyCode, KeyEvent};

    use super::*;

    #[test]
    fn long_lines_go_on_in_the_next_row() {
        assert_eq!(place("abc", 4), (0, 3));
        assert_eq!(place("abcd", 4), (1, 0));
        assert_eq!(place("abcde", 4), (1, 1));
        assert_eq!(place("abc漢", 4), (1, 2));
    }

    /// How a line in a window of 60 columns, below a prompt of 17, is taken away when the window has `then` columns.
    fn erased(text: &str, last: Option<KeyCode>, then: usize) -> String {
        let mut prompt = Prompt::new("alice".into());
        prompt.set_target(Some("@bob".into()));
        let mut state = State {
            prompt,
            colours: true,
            line: Line::default(),
            terminal: true,
            open: true,
            painted: None,
            failed: None,
        };
        let keys = text.chars().map(KeyCode::Char).chain(last);
        keys.for_each(|key| state.line.press(KeyEvent::new(key)));
        state.paint(&mut String::new(), 60);
        state.erased(then)
    }

    #[test]
    fn what_is_printed_above_the_line_takes_its_rows_and_no_others() {
        let wide = "漢".repeat(20);
        assert_eq!(erased("", None, 60), "\r\x1b[J");
        assert_eq!(erased(&wide, None, 60), "\r\x1b[J");
        assert_eq!(erased(&"a".repeat(50), None, 60), "\r\x1b[1A\x1b[J");
        assert_eq!(erased(&"a".repeat(50), Some(KeyCode::Home), 60), "\r\x1b[J");
        assert_eq!(erased(&wide, None, 30), "\r\x1b[1A\x1b[J");
        assert_eq!(erased(&wide, Some(KeyCode::Home), 30), "\r\x1b[J");
    }
}
