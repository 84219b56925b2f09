// SPDX-License-Identifier: MIT OR Apache-2.0
//! Long lines, broken at blanks: a terminal breaks them inside words.

use unicode_width::UnicodeWidthChar;

/// Where a message goes on in its next row, as where its text has several lines.
const INDENT: usize = 6;
/// A second column that begins further right is no place to go on at.
const COLUMN_MAX: usize = 30;

/// The text with each of its lines broken at blanks so that no row is wider than `columns`; a word that is wider stays
/// whole. Escape sequences for colours have no width.
pub fn wrapped(text: &str, columns: usize) -> String {
    text.split('\n').map(|line| wrapped_line(line, columns)).collect::<Vec<_>>().join("\n")
}

fn wrapped_line(line: &str, columns: usize) -> String {
    if width(line) <= columns {
        return line.to_owned();
    }
    let indent = Some(indent(line)).filter(|indent| indent * 2 <= columns).unwrap_or(0);
    let (mut out, mut column) = (String::new(), 0);
    for piece in line.split_inclusive(' ') {
        let word = width(piece.trim_end_matches(' '));
        // At the beginning of a row nothing is won by another one.
        if column + word > columns && column > indent {
            out.truncate(out.trim_end_matches(' ').len());
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        }
        out.push_str(piece);
        column += width(piece);
    }
    out
}

/// How far what goes on stands from the left: below a second column, below the text behind `* `, else as a message.
fn indent(line: &str) -> usize {
    let plain = plain(line);
    let begins = plain.len() - plain.trim_start_matches(' ').len();
    let rest = &plain[begins..];
    if rest.starts_with("* ") {
        return begins + 2;
    }
    let second = rest.find("  ").map(|gap| {
        let behind = rest[gap..].trim_start_matches(' ');
        width(&plain[..plain.len() - behind.len()])
    });
    second.filter(|column| *column <= COLUMN_MAX).unwrap_or(begins.max(INDENT))
}

fn width(text: &str) -> usize {
    plain(text).chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// The text without escape sequences: `ESC [ … letter`, which is all that is printed here.
fn plain(text: &str) -> String {
    let mut pieces = text.split("\x1b[");
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let end = piece.find(|c: char| c.is_ascii_alphabetic()).map_or(piece.len(), |end| end + 1);
        plain.push_str(&piece[end..]);
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_at_blanks_and_go_on_below_their_text() {
        assert_eq!(wrapped("short", 10), "short");
        assert_eq!(wrapped("* one two three four", 12), "* one two\n  three four");
        assert_eq!(
            wrapped("14:03 @bob: one two three\n      more", 18),
            "14:03 @bob: one\n      two three\n      more"
        );
        assert_eq!(wrapped("  /help    says all of it", 23), "  /help    says all of\n           it");
        assert_eq!(wrapped("漢漢漢 漢漢漢 a", 10), "漢漢漢\n漢漢漢 a", "too narrow to stand in");
    }

    #[test]
    fn colours_have_no_width_and_long_words_stay_whole() {
        let (bold, off) = ("\x1b[1m\x1b[33m", "\x1b[0m");
        assert_eq!(wrapped(&format!("{bold}* one two{off}"), 9), format!("{bold}* one two{off}"));
        assert_eq!(wrapped(&format!("{bold}* one two{off} three"), 12), format!("{bold}* one two{off}\n  three"));
        let code = "x".repeat(30);
        assert_eq!(wrapped(&format!("* see {code} there"), 12), format!("* see\n  {code}\n  there"));
    }
}
