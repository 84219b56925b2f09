// SPDX-License-Identifier: MIT OR Apache-2.0
//! The line that is being typed, and those that were.

use std::collections::VecDeque;

use terminput::{ALT, CTRL, KeyCode, KeyEvent};
use unicode_width::UnicodeWidthChar;

/// Lines of one's own that can be recalled. In memory only: what was typed is sealed at rest, or nowhere.
const RECALL_MAX: usize = 500;
/// Bytes of one line; what is typed beyond is not taken. Far more than a message holds, so that its size can be told.
pub const LINE_BYTES_MAX: usize = 1024 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub struct Line {
    text: String,
    /// A byte place in `text`, between characters.
    cursor: usize,
    recall: VecDeque<String>,
    /// Which of `recall` is shown, counted from the newest, and what was typed before.
    recalled: Option<(usize, String)>,
}

impl Line {
    /// What is typed so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What stands before the cursor.
    pub fn before(&self) -> &str {
        &self.text[..self.cursor]
    }

    /// Throws the line away.
    pub fn clear(&mut self) {
        self.text.clear();
        (self.cursor, self.recalled) = (0, None);
    }

    /// Takes the whole line; it can be recalled.
    pub fn take(&mut self) -> String {
        let text = std::mem::take(&mut self.text);
        (self.cursor, self.recalled) = (0, None);
        if !text.trim().is_empty() && self.recall.back() != Some(&text) {
            self.recall.push_back(text.clone());
            if self.recall.len() > RECALL_MAX {
                self.recall.pop_front();
            }
        }
        text
    }

    /// Does what a key of editing says, as Emacs and the shells have them; others do nothing.
    pub fn press(&mut self, key: KeyEvent) {
        use KeyCode::{Backspace, Char, Delete, Down, End, Home, Left, Right, Up};
        let (ctrl, alt) = (key.modifiers.contains(CTRL), key.modifiers.contains(ALT));
        match (key.code, ctrl, alt) {
            (Char(c), false, false) => self.insert(c),
            (Left, true, _) | (Left | Char('b' | 'B'), _, true) => self.cursor = self.word_left(),
            (Right, true, _) | (Right | Char('f' | 'F'), _, true) => self.cursor = self.word_right(),
            (Left, ..) | (Char('b'), true, _) => self.cursor = self.left(),
            (Right, ..) | (Char('f'), true, _) => self.cursor = self.right(),
            (Home, ..) | (Char('a'), true, _) => self.cursor = 0,
            (End, ..) | (Char('e'), true, _) => self.cursor = self.text.len(),
            (Char('w'), true, _) | (Backspace, _, true) => self.cut(self.word_left(), self.cursor),
            (Backspace, ..) | (Char('h'), true, _) => self.cut(self.left(), self.cursor),
            (Delete, ..) | (Char('d'), true, _) => self.cut(self.cursor, self.right()),
            (Char('k'), true, _) => self.cut(self.cursor, self.text.len()),
            (Char('u'), true, _) => self.cut(0, self.cursor),
            (Up, ..) | (Char('p'), true, _) => self.older(),
            (Down, ..) | (Char('n'), true, _) => self.newer(),
            _ => {}
        }
    }

    /// Puts `text` in the place of what stands from `start` to the cursor.
    pub fn replace(&mut self, start: usize, text: &str) {
        self.cut(start, self.cursor);
        text.chars().for_each(|c| self.insert(c));
    }

    fn insert(&mut self, c: char) {
        // Control characters of the second kind come as characters; they would steer the terminal.
        if !c.is_control() && self.text.len() + c.len_utf8() <= LINE_BYTES_MAX {
            self.text.insert(self.cursor, c);
            self.cursor += c.len_utf8();
        }
    }

    fn cut(&mut self, from: usize, to: usize) {
        self.text.replace_range(from..to, "");
        self.cursor = from;
    }

    /// The place of the character before, with what is combined with it.
    fn left(&self) -> usize {
        let mut places = self.before().char_indices().rev();
        places.find(|(_, c)| c.width() != Some(0)).map_or(0, |(at, _)| at)
    }

    fn right(&self) -> usize {
        let mut places = self.text[self.cursor..].char_indices().skip(1);
        places.find(|(_, c)| c.width() != Some(0)).map_or(self.text.len(), |(at, _)| self.cursor + at)
    }

    fn word_left(&self) -> usize {
        let before = self.before().trim_end();
        before.rfind(char::is_whitespace).map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8))
    }

    fn word_right(&self) -> usize {
        let after = &self.text[self.cursor..];
        let word = after.len() - after.trim_start().len();
        after[word..].find(char::is_whitespace).map_or(self.text.len(), |at| self.cursor + word + at)
    }

    fn older(&mut self) {
        let next = self.recalled.as_ref().map_or(0, |(at, _)| at + 1);
        let Some(text) = self.recall.iter().rev().nth(next).cloned() else { return };
        let typed = self.recalled.take().map_or_else(|| self.text.clone(), |(_, typed)| typed);
        self.recalled = Some((next, typed));
        self.show(text);
    }

    fn newer(&mut self) {
        let Some((at, typed)) = self.recalled.take() else { return };
        let text = at.checked_sub(1).and_then(|at| self.recall.iter().rev().nth(at).cloned());
        match text {
            Some(text) => {
                self.recalled = Some((at - 1, typed));
                self.show(text);
            }
            None => self.show(typed),
        }
    }

    fn show(&mut self, text: String) {
        self.text = text;
        self.cursor = self.text.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(line: &mut Line, text: &str) {
        text.chars().for_each(|c| line.press(KeyCode::Char(c).into()));
    }

    fn ctrl(c: char) -> KeyEvent {
        KeyEvent::new(KeyCode::Char(c)).modifiers(CTRL)
    }

    #[test]
    fn a_line_is_edited_in_the_middle() {
        let mut line = Line::default();
        typed(&mut line, "hello wrld");
        (0..3).for_each(|_| line.press(KeyCode::Left.into()));
        typed(&mut line, "o");
        assert_eq!(line.text(), "hello world");
        line.press(ctrl('w'));
        assert_eq!(line.text(), "hello rld");
        line.press(ctrl('a'));
        line.press(ctrl('d'));
        line.press(KeyEvent::new(KeyCode::Right).modifiers(CTRL));
        line.press(ctrl('k'));
        assert_eq!(line.text(), "ello");
        typed(&mut line, "e\u{301}\u{9b}");
        line.press(KeyCode::Backspace.into());
        assert_eq!(line.text(), "ello");
    }

    #[test]
    fn what_was_typed_is_recalled_and_the_draft_comes_back() {
        let mut line = Line::default();
        for text in ["one", "two", "two"] {
            typed(&mut line, text);
            assert_eq!(line.take(), text);
        }
        typed(&mut line, "draft");
        use KeyCode::{Down, Up};
        for (key, shown) in [(Up, "two"), (Up, "one"), (Up, "one"), (Down, "two"), (Down, "draft")] {
            line.press(key.into());
            assert_eq!(line.text(), shown);
        }
    }
}
