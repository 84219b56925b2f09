// SPDX-License-Identifier: MIT OR Apache-2.0
//! The screen below everything that was said: the prompt and the line, painted as they are now. Prompt and target are
//! one state, and whatever changes it paints, so a prompt on the screen is never behind.

use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::termios::tcgetwinsize;
use unicode_width::UnicodeWidthChar;

use super::line::Line;
use super::prompt::Shared;

/// Columns where the terminal does not say.
const COLUMNS_DEFAULT: usize = 80;

/// A terminal, or plain standard output.
#[derive(Debug)]
struct State {
    shared: Shared,
    colours: bool,
    line: Line,
    terminal: bool,
    /// The prompt stands on the screen, with the cursor in this row of it.
    painted: Option<usize>,
    /// A line is typed at the moment; else what is said needs no prompt below it.
    open: bool,
}

/// What is printed and typed; shared by the editor and whoever prints.
#[derive(Debug, Clone)]
pub struct Paper(Arc<Mutex<State>>);

impl Paper {
    /// Of standard output; `terminal` paints a prompt below it.
    pub fn new(shared: Shared, terminal: bool) -> Self {
        let colours = super::screen::colours();
        let state = State { shared, colours, line: Line::default(), terminal, painted: None, open: false };
        Self(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prints above the line that is typed.
    pub fn print(&self, text: &str) {
        let mut state = self.state();
        let mut out = state.erased();
        out.push_str(text);
        out.push('\n');
        state.paint(&mut out);
        state.put(&out);
    }

    /// Paints the prompt and the line again.
    pub fn repaint(&self) {
        let mut state = self.state();
        let mut out = state.erased();
        state.paint(&mut out);
        state.put(&out);
    }

    /// Changes the line that is typed, and paints it.
    pub fn edit<T>(&self, change: impl FnOnce(&mut Line) -> T) -> T {
        let changed = change(&mut self.state().line);
        self.repaint();
        changed
    }

    /// Nothing is typed at the moment.
    pub fn is_empty(&self) -> bool {
        self.state().line.text().is_empty()
    }

    /// Takes the line: it stays on the screen as it is, and no prompt stands below it until [`Paper::open`].
    pub fn take(&self) -> String {
        let mut state = self.state();
        state.line.press(super::keys::Key::End);
        let mut out = state.erased();
        state.paint(&mut out);
        out.push('\n');
        state.put(&out);
        (state.painted, state.open) = (None, false);
        state.line.take()
    }

    /// Paints a prompt for the next line.
    pub fn open(&self) {
        let mut state = self.state();
        state.open = state.terminal;
        drop(state);
        self.repaint();
    }

    /// Empties the screen.
    pub fn clear(&self) {
        let mut state = self.state();
        let mut out = "\x1b[H\x1b[2J".to_string();
        state.painted = None;
        state.paint(&mut out);
        state.put(&out);
    }

    /// Leaves the line for good; the cursor stands below it.
    pub fn close(&self) {
        let mut state = self.state();
        if state.painted.take().is_some() {
            state.put("\n");
        }
        state.open = false;
    }
}

impl State {
    /// What takes the prompt from the screen.
    fn erased(&mut self) -> String {
        match self.painted.take() {
            Some(0) => "\r\x1b[J".into(),
            Some(row) => format!("\r\x1b[{row}A\x1b[J"),
            None => String::new(),
        }
    }

    fn paint(&mut self, out: &mut String) {
        if !self.open {
            return;
        }
        let columns = tcgetwinsize(std::io::stdout()).map_or(0, |size| size.ws_col.into());
        let columns = if columns == 0 { COLUMNS_DEFAULT } else { columns };
        let plain = self.shared.plain();
        out.push_str(&self.shared.painted(self.colours));
        out.push_str(self.line.text());
        let (end, column) = place(&format!("{plain}{}", self.line.text()), columns);
        if column == 0 && end > 0 {
            // A full row: the terminal still waits at its end.
            out.push('\n');
        }
        let (row, column) = place(&format!("{plain}{}", self.line.before()), columns);
        if end > row {
            out.push_str(&format!("\x1b[{}A", end - row));
        }
        out.push('\r');
        if column > 0 {
            out.push_str(&format!("\x1b[{column}C"));
        }
        self.painted = Some(row);
    }

    fn put(&self, text: &str) {
        let done = if self.terminal {
            let mut out = std::io::stdout().lock();
            out.write_all(text.as_bytes()).and_then(|()| out.flush())
        } else {
            let mut out = anstream::stdout().lock();
            out.write_all(text.as_bytes()).and_then(|()| out.flush())
        };
        // Nobody reads any more; the end of the input ends the chat.
        drop(done);
    }
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
    use super::*;

    #[test]
    fn long_lines_go_on_in_the_next_row() {
        assert_eq!(place("abc", 4), (0, 3));
        assert_eq!(place("abcd", 4), (1, 0));
        assert_eq!(place("abcde", 4), (1, 1));
        assert_eq!(place("abc漢", 4), (1, 2));
    }
}
