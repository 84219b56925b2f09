// SPDX-License-Identifier: MIT OR Apache-2.0
//! The line editor; plain lines where standard input is no terminal.
//!
//! A thread reads bytes; everything else is done by the chat's own task, between two events: a line is taken with the
//! target that its prompt shows, and what was pasted is worked through to its end. (Editors that read on a thread of
//! their own keep the prompt with which they began a line, and leave pasted bytes in a buffer that nothing wakes.)

use std::collections::VecDeque;
use std::io::{IsTerminal, Read};

use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::sync::mpsc;

use super::complete::{complete, shared_beginning};
use super::keys::{Decoder, Key};
use super::paper::Paper;
use super::prompt::Shared;
use crate::exit::{Exit, ExitContext, Failure};

/// Bytes that are read at a time.
const READ_BYTES: usize = 4_096;
/// Reads that may wait; above it the keyboard waits.
const READS_MAX: usize = 16;

/// A running editor.
pub struct Editor {
    reads: mpsc::Receiver<Vec<u8>>,
    resized: Signals,
    decoder: Decoder,
    /// Keys, or bytes of plain lines, that wait for the line before them.
    keys: VecDeque<Key>,
    bytes: Vec<u8>,
    shared: Shared,
    paper: Paper,
    terminal: Option<Termios>,
}

impl Editor {
    /// Begins to read.
    pub fn start(shared: Shared) -> Result<Self, Failure> {
        let terminal = if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
            Some(tcgetattr(std::io::stdin()).exit(Exit::Failed)?)
        } else {
            None
        };
        if let Some(terminal) = &terminal {
            raw(terminal)?;
        }
        let (send, reads) = mpsc::channel(READS_MAX);
        std::thread::spawn(move || read(&send));
        let resized = signal(SignalKind::window_change())?;
        let paper = Paper::new(shared.clone(), terminal.is_some());
        let (decoder, keys, bytes) = (Decoder::default(), VecDeque::new(), Vec::new());
        Ok(Self { reads, resized, decoder, keys, bytes, shared, paper, terminal })
    }

    /// What is printed above the line.
    pub fn paper(&self) -> Paper {
        self.paper.clone()
    }

    /// Whether the prompt may name another target: there is one, and nothing was typed below it.
    pub fn may_turn(&self) -> bool {
        self.terminal.is_some() && self.paper.is_empty() && self.keys.is_empty()
    }

    /// The next line; none at the end of the input. Cancel safe: what was typed stays here.
    pub async fn line(&mut self) -> Option<String> {
        loop {
            let line = if self.terminal.is_some() { self.typed() } else { self.plain() };
            match line {
                Typed::Line(line) => return Some(line),
                Typed::End => return None,
                Typed::More => {}
            }
            tokio::select! {
                read = self.reads.recv() => match (read, self.terminal.is_some()) {
                    (Some(bytes), true) => self.keys.extend(bytes.iter().filter_map(|byte| self.decoder.push(*byte))),
                    (Some(bytes), false) => self.bytes.extend(bytes),
                    (None, _) if self.bytes.is_empty() => return None,
                    (None, _) => return Some(text(std::mem::take(&mut self.bytes))),
                },
                _ = self.resized.recv() => self.paper.repaint(),
            }
        }
    }

    /// The line was dealt with: a prompt for the next one.
    pub fn taken(&self) {
        self.paper.open();
    }

    /// Gives the terminal back as it was.
    pub fn end(self) {
        self.paper.close();
        self.restore();
    }

    fn restore(&self) {
        if let Some(terminal) = &self.terminal {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, terminal);
        }
    }

    fn plain(&mut self) -> Typed {
        let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') else { return Typed::More };
        let rest = self.bytes.split_off(end + 1);
        let mut line = std::mem::replace(&mut self.bytes, rest);
        line.pop();
        Typed::Line(text(line))
    }

    fn typed(&mut self) -> Typed {
        while let Some(key) = self.keys.pop_front() {
            match key {
                Key::Enter => return Typed::Line(self.paper.take()),
                Key::Interrupt => return Typed::End,
                Key::DeleteOrEnd if self.paper.is_empty() => return Typed::End,
                Key::Tab => self.complete(),
                Key::Clear => self.paper.clear(),
                Key::Suspend => self.suspend(),
                // Pasted text is painted once.
                Key::Char(first) => {
                    let mut all = vec![first];
                    while let Some(Key::Char(c)) = self.keys.front() {
                        all.push(*c);
                        self.keys.pop_front();
                    }
                    self.paper.edit(|line| all.into_iter().for_each(|c| line.press(Key::Char(c))));
                }
                key => self.paper.edit(|line| line.press(key)),
            }
        }
        Typed::More
    }

    fn complete(&self) {
        let shared = &self.shared;
        let (word, found) = self.paper.edit(|line| {
            let (start, found) = complete(shared, line.before());
            let word = line.before()[start..].to_string();
            let beginning = shared_beginning(&found);
            if beginning.len() > word.len() {
                line.replace(start, beginning);
            }
            (word, found)
        });
        if found.len() > 1 && shared_beginning(&found).len() <= word.len() {
            self.paper.print(&found.concat());
        }
    }

    /// Ctrl-Z, as the shell's user knows it; returns when the shell goes on with it.
    fn suspend(&self) {
        self.paper.close();
        self.restore();
        let _ = kill_process(getpid(), Signal::TSTP);
        if let Some(terminal) = &self.terminal {
            let _ = raw(terminal);
        }
        self.paper.open();
    }
}

enum Typed {
    Line(String),
    End,
    /// Nothing complete yet.
    More,
}

fn text(bytes: Vec<u8>) -> String {
    let text = String::from_utf8(bytes).unwrap_or_else(|wrong| String::from_utf8_lossy(wrong.as_bytes()).into_owned());
    text.strip_suffix('\r').map(ToOwned::to_owned).unwrap_or(text)
}

/// Keys come one by one and are not echoed; what is printed still begins a new line where it ends one.
fn raw(terminal: &Termios) -> Result<(), Failure> {
    let mut raw = terminal.clone();
    raw.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG | LocalModes::IEXTEN;
    raw.input_modes -= InputModes::ICRNL | InputModes::INLCR | InputModes::IGNCR | InputModes::IXON;
    raw.special_codes[SpecialCodeIndex::VMIN] = 1;
    raw.special_codes[SpecialCodeIndex::VTIME] = 0;
    tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).exit(Exit::Failed)
}

fn read(send: &mpsc::Sender<Vec<u8>>) {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match std::io::stdin().lock().read(&mut buffer) {
            Ok(read) if read > 0 => {
                if send.blocking_send(buffer[..read].to_vec()).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}
