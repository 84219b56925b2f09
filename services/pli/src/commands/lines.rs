// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lines of an input that may be anything: each is bounded, and one that cannot be sent takes nothing with it.

use std::io;

use pli_client::core::TEXT_BYTES_MAX;
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// What one line holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// Something to send.
    Text(String),
    /// Nothing that can be sent: its number, from 1, and why not.
    Unfit(u64, Unfit),
}

/// Why a line cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Too long; its rest was skipped, however long that was.
    #[error("it has {0} bytes; at most {TEXT_BYTES_MAX} fit in a message")]
    TooLong(u64),
    /// Not text.
    #[error("it is not UTF-8 text")]
    NotText,
    /// The client does not take it, and says why.
    #[error("{0}")]
    NotTaken(String),
}

impl Unfit {
    /// The stable word of the JSON event.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLong(_) => "too_long",
            Self::NotText => "not_utf8",
            Self::NotTaken(_) => "not_taken",
        }
    }
}

/// Reads lines; keeps at most [`TEXT_BYTES_MAX`] and one byte of each.
#[derive(Debug)]
pub struct BoundedLines<R> {
    input: R,
    /// Of the line that is being read: its first bytes, and how many it has.
    bytes: Vec<u8>,
    length: u64,
    number: u64,
}

impl<R: AsyncBufRead + Unpin> BoundedLines<R> {
    /// Of this input.
    pub const fn new(input: R) -> Self {
        Self { input, bytes: Vec::new(), length: 0, number: 0 }
    }

    /// The number of the last line, from 1.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// The next line that is not empty; none at the end. Cancel safe: what was read of a line stays here.
    pub async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let read = self.input.fill_buf().await?;
            if read.is_empty() {
                return Ok(if self.length == 0 { None } else { self.whole() });
            }
            let end = read.iter().position(|byte| *byte == b'\n');
            let part = &read[..end.unwrap_or(read.len())];
            // A carriage return before the end may be one more; so may the byte that tells of too many.
            let room = (TEXT_BYTES_MAX + 2).saturating_sub(self.bytes.len());
            self.bytes.extend_from_slice(&part[..part.len().min(room)]);
            self.length += part.len() as u64;
            let taken = part.len() + usize::from(end.is_some());
            self.input.consume(taken);
            if end.is_some()
                && let Some(line) = self.whole()
            {
                return Ok(Some(line));
            }
        }
    }

    /// The line that was read, if there is something in it.
    fn whole(&mut self) -> Option<Line> {
        self.number += 1;
        let (mut bytes, mut length) = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.length));
        if length == bytes.len() as u64 && bytes.last() == Some(&b'\r') {
            bytes.pop();
            length -= 1;
        }
        if length == 0 {
            return None;
        }
        if length > TEXT_BYTES_MAX as u64 {
            return Some(Line::Unfit(self.number, Unfit::TooLong(length)));
        }
        let text = String::from_utf8(bytes).map(Line::Text);
        Some(text.unwrap_or(Line::Unfit(self.number, Unfit::NotText)))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::BufReader;

    use super::*;

    async fn lines(input: impl tokio::io::AsyncRead + Unpin) -> Vec<Line> {
        let mut lines = BoundedLines::new(BufReader::new(input));
        let mut all = Vec::new();
        while let Some(line) = lines.next().await.expect("read") {
            assert!(lines.bytes.capacity() <= 2 * (TEXT_BYTES_MAX + 2), "more is kept than fits");
            all.push(line);
        }
        all
    }

    fn text(text: &str) -> Line {
        Line::Text(text.into())
    }

    #[tokio::test]
    async fn lines_come_without_their_ends_and_empty_ones_do_not() {
        let all = lines(&b"one\r\n\n\r\ntwo\n\nthree"[..]).await;
        assert_eq!(all, [text("one"), text("two"), text("three")]);
    }

    #[tokio::test]
    async fn what_cannot_be_sent_is_told_with_its_number_and_takes_nothing_with_it() {
        let fits = "x".repeat(TEXT_BYTES_MAX);
        let input = format!("one\n{fits}y\n{fits}\r\n");
        let all = lines(&[input.as_bytes(), b"\xff\xfe\nlast"].concat()[..]).await;
        let too_long = Unfit::TooLong(TEXT_BYTES_MAX as u64 + 1);
        let wanted = [text("one"), Line::Unfit(2, too_long), text(&fits), Line::Unfit(4, Unfit::NotText), text("last")];
        assert_eq!(all, wanted);
    }

    #[tokio::test]
    async fn a_line_of_many_megabytes_is_skipped_without_being_kept() {
        use tokio::io::AsyncReadExt;
        let endless = tokio::io::repeat(b'x').take(64 << 20);
        let all = lines(endless.chain(&b"\nnext\n"[..])).await;
        assert_eq!(all, [Line::Unfit(1, Unfit::TooLong(64 << 20)), text("next")]);
    }

    #[tokio::test]
    async fn a_line_that_is_given_up_in_the_middle_goes_on_where_it_was() {
        use tokio::io::AsyncWriteExt;
        let (mut user, input) = tokio::io::duplex(64);
        let mut lines = BoundedLines::new(BufReader::new(input));
        user.write_all(b"half").await.expect("written");
        let given_up = tokio::select! {
            biased;
            _ = lines.next() => false,
            () = std::future::ready(()) => true,
        };
        assert!(given_up && lines.length == 4, "half a line was read");
        user.write_all(b" done\n").await.expect("written");
        assert_eq!(lines.next().await.expect("read"), Some(text("half done")));
    }
}
