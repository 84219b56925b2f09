// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a group may be called. Others choose names, so a name must not look like another one or steer a terminal.

pub use pli_domain::limits::GROUP_NAME_BYTES_MAX;

/// Stands between a name and a short id where several groups have the name; in no name and no handle.
pub const SHORT_ID_MARK: char = '~';

/// Why a text cannot be the name of a group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidGroupName {
    /// Nothing, or blanks only.
    #[error("a group's name is empty; use 1 to {GROUP_NAME_BYTES_MAX} bytes")]
    Empty,
    /// Too long.
    #[error("a group's name has {0} bytes; use 1 to {GROUP_NAME_BYTES_MAX}")]
    TooLong(usize),
    /// A character that is not seen, or that changes how others are shown.
    #[error("a group's name holds the invisible character U+{:04X}; leave it out", u32::from(*.0))]
    Invisible(char),
    /// The mark of short ids.
    #[error("a group's name holds `{SHORT_ID_MARK}`, which stands before a short id; leave it out")]
    Mark,
}

/// The name without blanks around it.
pub fn group_name(text: &str) -> Result<&str, InvalidGroupName> {
    let name = text.trim_matches(' ');
    if name.is_empty() {
        return Err(InvalidGroupName::Empty);
    }
    if name.len() > GROUP_NAME_BYTES_MAX {
        return Err(InvalidGroupName::TooLong(name.len()));
    }
    match name.chars().find(|c| is_invisible(*c) || *c == SHORT_ID_MARK) {
        Some(SHORT_ID_MARK) => Err(InvalidGroupName::Mark),
        Some(c) => Err(InvalidGroupName::Invisible(c)),
        None => Ok(name),
    }
}

/// Control characters, every blank but the space, and what Unicode calls default ignorable
/// (DerivedCoreProperties: bidirectional controls, joiners, fillers, variation selectors, tags).
fn is_invisible(c: char) -> bool {
    c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_trimmed_and_bounded() {
        assert_eq!(group_name("  team eins  "), Ok("team eins"));
        assert_eq!(group_name("Gärten 🌻"), Ok("Gärten 🌻"));
        assert_eq!(group_name("   "), Err(InvalidGroupName::Empty));
        assert_eq!(group_name(&"x".repeat(128)).map(str::len), Ok(128));
        assert_eq!(group_name(&"x".repeat(129)), Err(InvalidGroupName::TooLong(129)));
    }

    #[test]
    fn what_is_not_seen_is_refused_by_its_number() {
        for c in ['\n', '\x1b', '\u{202e}', '\u{200b}', '\u{a0}', '\u{fe0f}', '\u{2028}', '\u{e0041}', '\u{85}'] {
            assert_eq!(group_name(&format!("te{c}am")), Err(InvalidGroupName::Invisible(c)));
        }
        let said = group_name("te\u{202e}am").expect_err("refused").to_string();
        assert!(said.contains("U+202E") && said.contains("leave it out"), "{said}");
        assert_eq!(group_name("team~12"), Err(InvalidGroupName::Mark));
    }
}
