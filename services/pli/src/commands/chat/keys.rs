// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bytes of a terminal to keys (ECMA-48 control sequences, as xterm and its relatives send them).

/// Longest control sequence that is understood; a longer one is read to its end and means nothing.
const SEQUENCE_BYTES_MAX: usize = 16;
/// What stands for bytes that are not UTF-8.
const REPLACEMENT: char = '\u{fffd}';

/// What was pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A character that is shown.
    Char(char),
    /// The line is complete.
    Enter,
    /// Delete before the cursor.
    Backspace,
    /// Delete below the cursor; at the end of an empty line (Ctrl-D) the end of the input.
    DeleteOrEnd,
    /// Delete below the cursor.
    Delete,
    /// One to the left.
    Left,
    /// One to the right.
    Right,
    /// A word to the left.
    WordLeft,
    /// A word to the right.
    WordRight,
    /// The beginning of the line.
    Home,
    /// The end of the line.
    End,
    /// The line before.
    Up,
    /// The line after.
    Down,
    /// Complete the word.
    Tab,
    /// Delete to the end of the line.
    KillToEnd,
    /// Delete to the beginning of the line.
    KillToStart,
    /// Delete the word before the cursor.
    KillWord,
    /// Empty the screen.
    Clear,
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-Z.
    Suspend,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Ground,
    Escape,
    /// After `ESC [`: the parameters so far.
    Sequence(Vec<u8>),
    /// After `ESC O`.
    Single,
    /// The beginning of a character of several bytes.
    Utf8(Vec<u8>),
}

/// Keeps what a sequence that is not complete yet began with.
#[derive(Debug, Default)]
pub struct Decoder(State);

impl Decoder {
    /// The key that this byte completes.
    pub fn push(&mut self, byte: u8) -> Option<Key> {
        match std::mem::take(&mut self.0) {
            State::Ground => self.ground(byte),
            State::Escape => self.escape(byte),
            State::Single => named(byte),
            State::Sequence(so_far) => self.sequence(so_far, byte),
            State::Utf8(mut so_far) if byte & 0xc0 == 0x80 => {
                so_far.push(byte);
                self.utf8(so_far)
            }
            State::Utf8(_) => self.ground(byte).or(Some(Key::Char(REPLACEMENT))),
        }
    }

    fn ground(&mut self, byte: u8) -> Option<Key> {
        match byte {
            0x1b => self.0 = State::Escape,
            0x80.. => return self.utf8(vec![byte]),
            b' '..=b'~' => return Some(Key::Char(byte.into())),
            _ => return control(byte),
        }
        None
    }

    fn escape(&mut self, byte: u8) -> Option<Key> {
        match byte {
            b'[' => self.0 = State::Sequence(Vec::new()),
            b'O' => self.0 = State::Single,
            b'b' | b'B' => return Some(Key::WordLeft),
            b'f' | b'F' => return Some(Key::WordRight),
            0x7f | 0x08 => return Some(Key::KillWord),
            0x1b => self.0 = State::Escape,
            // A key after a lone Escape is that key.
            b'\r' | b'\n' => return Some(Key::Enter),
            _ => {}
        }
        None
    }

    fn sequence(&mut self, mut so_far: Vec<u8>, byte: u8) -> Option<Key> {
        if !(0x40..=0x7e).contains(&byte) {
            if so_far.len() < SEQUENCE_BYTES_MAX {
                so_far.push(byte);
            }
            self.0 = State::Sequence(so_far);
            return None;
        }
        let by_word = so_far.ends_with(b";5") || so_far.ends_with(b";3");
        match (byte, so_far.as_slice()) {
            (b'C', _) if by_word => Some(Key::WordRight),
            (b'D', _) if by_word => Some(Key::WordLeft),
            (b'~', b"1" | b"7") => Some(Key::Home),
            (b'~', b"4" | b"8") => Some(Key::End),
            (b'~', b"3") => Some(Key::Delete),
            (b'~', _) => None,
            _ => named(byte),
        }
    }

    fn utf8(&mut self, bytes: Vec<u8>) -> Option<Key> {
        match std::str::from_utf8(&bytes) {
            Ok(text) => text.chars().next().filter(|c| !c.is_control()).map(Key::Char),
            Err(error) if error.error_len().is_none() => {
                self.0 = State::Utf8(bytes);
                None
            }
            Err(_) => Some(Key::Char(REPLACEMENT)),
        }
    }
}

const fn named(byte: u8) -> Option<Key> {
    match byte {
        b'A' => Some(Key::Up),
        b'B' => Some(Key::Down),
        b'C' => Some(Key::Right),
        b'D' => Some(Key::Left),
        b'H' => Some(Key::Home),
        b'F' => Some(Key::End),
        b'M' => Some(Key::Enter),
        _ => None,
    }
}

const fn control(byte: u8) -> Option<Key> {
    match byte {
        0x01 => Some(Key::Home),
        0x02 => Some(Key::Left),
        0x03 => Some(Key::Interrupt),
        0x04 => Some(Key::DeleteOrEnd),
        0x05 => Some(Key::End),
        0x06 => Some(Key::Right),
        0x08 | 0x7f => Some(Key::Backspace),
        b'\t' => Some(Key::Tab),
        b'\n' | b'\r' => Some(Key::Enter),
        0x0b => Some(Key::KillToEnd),
        0x0c => Some(Key::Clear),
        0x0e => Some(Key::Down),
        0x10 => Some(Key::Up),
        0x15 => Some(Key::KillToStart),
        0x17 => Some(Key::KillWord),
        0x1a => Some(Key::Suspend),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        let mut decoder = Decoder::default();
        bytes.iter().filter_map(|byte| decoder.push(*byte)).collect()
    }

    #[test]
    fn characters_of_several_bytes_and_sequences_are_one_key_each() {
        assert_eq!(keys("aé✓\r".as_bytes()), [Key::Char('a'), Key::Char('é'), Key::Char('✓'), Key::Enter]);
        assert_eq!(
            keys(b"\x1b[A\x1b[3~\x1b[1;5C\x1bOH\x1bb"),
            [Key::Up, Key::Delete, Key::WordRight, Key::Home, Key::WordLeft]
        );
        assert_eq!(keys(b"\xc3(x"), [Key::Char('('), Key::Char('x')]);
        assert_eq!(keys(&[b"\x1b[".as_slice(), &[b'1'; 99], b"~y"].concat()), [Key::Char('y')]);
    }
}
