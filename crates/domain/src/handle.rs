// SPDX-License-Identifier: MIT OR Apache-2.0
//! The unique name that people type.

use std::fmt;
use std::str::FromStr;

use crate::limits::{HANDLE_LEN_MAX, HANDLE_LEN_MIN};

/// Why a text is not a handle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHandle {
    /// Too short or too long.
    #[error("handle has {0} bytes; use {HANDLE_LEN_MIN} to {HANDLE_LEN_MAX}")]
    Length(usize),
    /// Holds something other than ASCII a–z, 0–9, `.` and `_`.
    #[error("handle has a character that is not allowed at byte {0}; use a-z, 0-9, '.' and '_'")]
    Character(usize),
    /// Begins or ends with `.` or `_`; only where a new one is claimed.
    #[error("handle begins or ends with '.' or '_'; use a letter or digit there")]
    Edge,
    /// Has two of `.` and `_` in a row; only where a new one is claimed.
    #[error("handle has two of '.' and '_' in a row at byte {0}; use a letter or digit between them")]
    Separators(usize),
}

/// 3 to 32 bytes of `a-z 0-9 . _`, lower-cased on input.
///
/// One that is claimed anew follows a narrower rule, [`Handle::check_new`]; accounts from before that rule keep theirs, so
/// it is no rule of reading.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(String);

impl Handle {
    /// The handle as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether somebody may claim it anew: it begins and ends with a letter or digit, and has no two separators in a row,
    /// so that nobody is `bob.` or `b..b` beside `bob` and `b.b`.
    pub fn check_new(&self) -> Result<(), InvalidHandle> {
        let bytes = self.0.as_bytes();
        let is_separator = |b: &u8| !b.is_ascii_alphanumeric();
        if bytes.first().is_none_or(is_separator) || bytes.last().is_none_or(is_separator) {
            return Err(InvalidHandle::Edge);
        }
        match bytes.windows(2).position(|pair| pair.iter().all(is_separator)) {
            Some(at) => Err(InvalidHandle::Separators(at)),
            None => Ok(()),
        }
    }
}

impl FromStr for Handle {
    type Err = InvalidHandle;
    fn from_str(text: &str) -> Result<Self, InvalidHandle> {
        if !(HANDLE_LEN_MIN..=HANDLE_LEN_MAX).contains(&text.len()) {
            return Err(InvalidHandle::Length(text.len()));
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'_';
        if let Some(at) = text.bytes().position(|b| !allowed(b)) {
            return Err(InvalidHandle::Character(at));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}
impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_lower_cased_and_bounded() {
        assert_eq!("Alice.B_9".parse::<Handle>().map(|h| h.to_string()), Ok("alice.b_9".into()));
        assert_eq!("al".parse::<Handle>(), Err(InvalidHandle::Length(2)));
        assert_eq!("a".repeat(1 << 20).parse::<Handle>(), Err(InvalidHandle::Length(1 << 20)));
        assert_eq!("ali ce".parse::<Handle>(), Err(InvalidHandle::Character(3)));
        assert_eq!("\u{202e}alice".parse::<Handle>(), Err(InvalidHandle::Character(0)));
    }

    #[test]
    fn a_new_handle_begins_and_ends_with_a_letter_or_digit_and_old_ones_are_read() {
        let new = |text: &str| text.parse::<Handle>().expect("readable").check_new();
        for handle in ["bob", "b.b", "b_b", "0.o_9", "a.b.c"] {
            assert_eq!(new(handle), Ok(()), "{handle}");
        }
        for handle in ["bob.", ".bob", "_bob", "bob_", "....", "..."] {
            assert_eq!(new(handle), Err(InvalidHandle::Edge), "{handle}");
        }
        for handle in ["b..b", "b._b", "b__b", "b_.b"] {
            assert_eq!(new(handle), Err(InvalidHandle::Separators(1)), "{handle}");
        }
    }
}
