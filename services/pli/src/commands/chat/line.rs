// SPDX-License-Identifier: MIT OR Apache-2.0
//! The line that is being typed, and those that were.

use std::collections::VecDeque;

use unicode_width::UnicodeWidthChar;

use super::keys::Key;

/// Lines of one's own that can be recalled. In memory only: what was typed is sealed at rest, or nowhere.
const RECALL_MAX: usize = 500;
/// Bytes of one line; what is typed beyond is not taken. Far more than a message holds, so that its size can be told.
const LINE_BYTES_MAX: usize = 1024 * 1024;

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

    /// Does what a key of editing says; others do nothing.
    pub fn press(&mut self, key: Key) {
        match key {
            Key::Char(c) => self.insert(c),
            Key::Left => self.cursor = self.left(),
            Key::Right => self.cursor = self.right(),
            Key::WordLeft => self.cursor = self.word_left(),
            Key::WordRight => self.cursor = self.word_right(),
            Key::Home => self.cursor = 0,
            Key::End => self.cursor = self.text.len(),
            Key::Backspace => self.cut(self.left(), self.cursor),
            Key::Delete | Key::DeleteOrEnd => self.cut(self.cursor, self.right()),
            Key::KillToEnd => self.cut(self.cursor, self.text.len()),
            Key::KillToStart => self.cut(0, self.cursor),
            Key::KillWord => self.cut(self.word_left(), self.cursor),
            Key::Up => self.older(),
            Key::Down => self.newer(),
            _ => {}
        }
    }

    /// Puts `text` in the place of what stands from `start` to the cursor.
    pub fn replace(&mut self, start: usize, text: &str) {
        self.cut(start, self.cursor);
        text.chars().for_each(|c| self.insert(c));
    }

    fn insert(&mut self, c: char) {
        if self.text.len() + c.len_utf8() <= LINE_BYTES_MAX {
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
        text.chars().for_each(|c| line.press(Key::Char(c)));
    }

    #[test]
    fn a_line_is_edited_in_the_middle() {
        let mut line = Line::default();
        typed(&mut line, "hello wrld");
        (0..3).for_each(|_| line.press(Key::Left));
        typed(&mut line, "o");
        assert_eq!(line.text(), "hello world");
        line.press(Key::KillWord);
        assert_eq!(line.text(), "hello rld");
        line.press(Key::Home);
        line.press(Key::Delete);
        line.press(Key::WordRight);
        line.press(Key::KillToEnd);
        assert_eq!(line.text(), "ello");
        typed(&mut line, "e\u{301}");
        line.press(Key::Backspace);
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
        for (key, shown) in
            [(Key::Up, "two"), (Key::Up, "one"), (Key::Up, "one"), (Key::Down, "two"), (Key::Down, "draft")]
        {
            line.press(key);
            assert_eq!(line.text(), shown);
        }
    }
}
