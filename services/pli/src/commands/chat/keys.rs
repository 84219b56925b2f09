// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bytes of a terminal to keys, one at a time, and where a paste begins and ends.

use terminput::{Event, KeyCode, KeyEvent, KeyEventKind};

/// Longest sequence that is understood; a longer one means nothing.
const SEQUENCE_BYTES_MAX: usize = 32;
const ESCAPE: u8 = 0x1b;
/// Stand around what is pasted (xterm's "bracketed paste mode").
const PASTE_BEGINS: &[u8] = b"\x1b[200~";
const PASTE_ENDS: &[u8] = b"\x1b[201~";

/// What the bytes of a terminal say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stroke {
    /// A key, or a character that is pasted.
    Key(KeyEvent),
    /// What follows is pasted.
    PasteBegins,
    /// What follows is typed again.
    PasteEnds,
    /// Here was something that is no UTF-8.
    Broken,
}

/// Keeps what a key that is not complete yet began with.
#[derive(Debug, Default)]
pub struct Decoder {
    begun: Vec<u8>,
    broken: bool,
}

impl Decoder {
    /// The key or mark that this byte completes.
    pub fn push(&mut self, byte: u8) -> Option<Stroke> {
        // A lone Escape does nothing, so it is always the beginning of something.
        if byte == ESCAPE {
            self.broken |= self.begun.first().is_some_and(|first| *first != ESCAPE);
            self.begun = vec![ESCAPE];
            return None;
        }
        self.begun.push(byte);
        if let Some(mark) = mark(&self.begun) {
            self.begun.clear();
            return Some(mark);
        }
        match Event::parse_from(&self.begun) {
            Ok(None) if self.begun.len() < SEQUENCE_BYTES_MAX => None,
            Ok(Some(Event::Key(key))) => {
                self.begun.clear();
                Some(key).filter(|key| key.kind != KeyEventKind::Release).map(spelled).map(Stroke::Key)
            }
            Ok(_) => self.dropped(),
            // A character that was broken off does not take the next one with it.
            Err(_) if self.begun.len() > 1 && self.begun[0] != ESCAPE => {
                self.begun.clear();
                self.broken = true;
                self.push(byte)
            }
            Err(_) => {
                self.broken |= self.begun[0] != ESCAPE;
                self.dropped()
            }
        }
    }

    /// Says once, before the stroke of the last byte, that bytes before it were no UTF-8.
    pub fn take_broken(&mut self) -> Option<Stroke> {
        std::mem::take(&mut self.broken).then_some(Stroke::Broken)
    }

    fn dropped(&mut self) -> Option<Stroke> {
        self.begun.clear();
        None
    }
}

fn mark(bytes: &[u8]) -> Option<Stroke> {
    match bytes {
        PASTE_BEGINS => Some(Stroke::PasteBegins),
        PASTE_ENDS => Some(Stroke::PasteEnds),
        _ => None,
    }
}

/// A line feed is an Enter: it is what programs and pastes send.
fn spelled(key: KeyEvent) -> KeyEvent {
    let line_feed = key.code == KeyCode::Char('j') && key.modifiers.contains(terminput::CTRL);
    if line_feed { KeyCode::Enter.into() } else { key }
}

#[cfg(test)]
mod tests {
    use KeyCode::{Char, Delete, Down, Enter, Home, Left, Right, Up};
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{RngCore, SeedableRng};
    use terminput::{ALT, CTRL};

    use super::*;

    fn strokes(bytes: &[u8]) -> Vec<Stroke> {
        let mut decoder = Decoder::default();
        bytes.iter().filter_map(|byte| decoder.push(*byte)).collect()
    }

    fn keys(bytes: &[u8]) -> Vec<KeyEvent> {
        let key = |stroke| match stroke {
            Stroke::Key(key) => key,
            mark => panic!("{mark:?} is no key"),
        };
        strokes(bytes).into_iter().map(key).collect()
    }

    fn codes(bytes: &[u8]) -> Vec<KeyCode> {
        keys(bytes).iter().map(|key| key.code).collect()
    }

    #[test]
    fn characters_of_several_bytes_and_sequences_are_one_key_each() {
        assert_eq!(codes("aé✓\r\n".as_bytes()), [Char('a'), Char('é'), Char('✓'), Enter, Enter]);
        assert_eq!(codes(b"\x1b[A\x1bOB\x1b[3~\x1b[1~\x1bOH"), [Up, Down, Delete, Home, Home]);
        let with = |code: KeyCode, modifiers| KeyEvent::new(code).modifiers(modifiers);
        assert_eq!(keys(b"\x1b[1;5C\x1bb\x01"), [with(Right, CTRL), with(Char('b'), ALT), with(Char('a'), CTRL)]);
    }

    #[test]
    fn a_paste_is_told_from_what_is_typed() {
        let key = |code: KeyCode| Stroke::Key(code.into());
        let wanted =
            [key(Char('a')), Stroke::PasteBegins, key(Char('b')), key(Enter), Stroke::PasteEnds, key(Char('c'))];
        assert_eq!(strokes(b"a\x1b[200~b\n\x1b[201~c"), wanted);
        assert_eq!(strokes(b"\x1b[202~d"), [key(Char('d'))]);
    }

    #[test]
    fn what_is_not_understood_takes_nothing_with_it() {
        assert_eq!(codes(b"\xc3(x"), [Char('('), Char('x')]);
        assert_eq!(codes(b"\x1b\x1b[D"), [Left]);
        assert_eq!(codes(b"\x1b]y"), [Char(']'), Char('y')]);
        assert_eq!(codes(&[b"\x1b[".as_slice(), &[b'1'; 9], b"~y"].concat()), [Char('y')]);
    }

    #[test]
    fn no_bytes_can_end_the_chat_or_be_kept_for_ever() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut decoder = Decoder::default();
        let usual = b"\x1b[]O;:0123456789~uMm<?ABCRZ\x80\xc3\xff";
        for _ in 0..300_000 {
            let any = random.next_u32();
            let byte = if any & 3 == 0 { (any >> 8) as u8 } else { usual[(any >> 8) as usize % usual.len()] };
            decoder.push(byte);
            assert!(decoder.begun.len() < SEQUENCE_BYTES_MAX);
        }
    }
}
