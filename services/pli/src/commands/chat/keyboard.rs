// SPDX-License-Identifier: MIT OR Apache-2.0
//! Standard input: who reads it is the chat's own task, so it can ask what was typed until now. A thread only waits.

use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use tokio::sync::mpsc;

/// Bytes that are read at a time.
const READ_BYTES: usize = 4_096;
/// Bytes that are taken in at once; above it the keyboard waits.
const TAKEN_BYTES_MAX: usize = 64 * 1024;
/// Asks a terminal to mark where a paste begins and ends, and no longer to (xterm's DECSET 2004).
const PASTE_MARKED: &[u8] = b"\x1b[?2004h";
const PASTE_UNMARKED: &[u8] = b"\x1b[?2004l";
const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// See the module.
pub struct Keyboard {
    input: OwnedFd,
    readable: mpsc::Receiver<()>,
    wait: SyncSender<()>,
    ended: bool,
}

impl Keyboard {
    /// Of this input: a terminal, a pipe or a file.
    pub fn new(input: OwnedFd) -> std::io::Result<Self> {
        let (send, readable) = mpsc::channel(1);
        let (wait, again) = sync_channel(1);
        let waiting = input.try_clone()?;
        std::thread::spawn(move || watch(&waiting, &send, &again));
        Ok(Self { input, readable, wait, ended: false })
    }

    /// Whether nothing more comes: the end of the file, or the terminal is gone.
    pub const fn ended(&self) -> bool {
        self.ended
    }

    /// Waits for input; perhaps it was taken already. Cancel safe.
    pub async fn next(&mut self) -> Vec<u8> {
        self.ended |= self.readable.recv().await.is_none();
        let bytes = if self.readable() { self.read() } else { Vec::new() };
        // The thread waits for this, and ends with the channel.
        let _ = self.wait.try_send(());
        bytes
    }

    /// What was typed until now and not read yet, up to [`TAKEN_BYTES_MAX`]; does not wait.
    pub fn at_once(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < TAKEN_BYTES_MAX && self.readable() {
            bytes.extend(self.read());
        }
        bytes
    }

    fn readable(&self) -> bool {
        !self.ended && poll(&mut [PollFd::new(&self.input, PollFlags::IN)], Some(&AT_ONCE)).is_ok_and(|ready| ready > 0)
    }

    fn read(&mut self) -> Vec<u8> {
        let mut buffer = vec![0; READ_BYTES];
        match rustix::io::read(&self.input, &mut buffer) {
            Ok(read) => {
                buffer.truncate(read);
                self.ended = read == 0;
            }
            Err(error) => {
                buffer.clear();
                self.ended = !matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock);
            }
        }
        buffer
    }
}

/// Says when there is something to read, once for each time that it was asked.
fn watch(input: &OwnedFd, send: &mpsc::Sender<()>, again: &Receiver<()>) {
    loop {
        match poll(&mut [PollFd::new(input, PollFlags::IN)], None) {
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
            Ok(_) => {
                if send.blocking_send(()).is_err() || again.recv().is_err() {
                    return;
                }
            }
        }
    }
}

/// A terminal whose keys come one by one and are not echoed, until this is dropped: on every way out, a panic too. What is
/// printed still begins a new line where it ends one.
pub struct Raw {
    input: OwnedFd,
    before: Termios,
}

impl Raw {
    /// Of this terminal.
    pub fn new(input: OwnedFd) -> std::io::Result<Self> {
        let raw = Self { before: tcgetattr(&input)?, input };
        raw.enter()?;
        Ok(raw)
    }

    /// As long as the program has the terminal.
    pub fn enter(&self) -> std::io::Result<()> {
        let mut raw = self.before.clone();
        raw.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG | LocalModes::IEXTEN;
        raw.input_modes -= InputModes::ICRNL | InputModes::INLCR | InputModes::IGNCR | InputModes::IXON;
        raw.special_codes[SpecialCodeIndex::VMIN] = 1;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(self.input.as_fd(), OptionalActions::Now, &raw)?;
        self.ask(PASTE_MARKED);
        Ok(())
    }

    /// Tells the terminal; one that cannot be written, or does not know it, pastes as if it were typed.
    fn ask(&self, what: &[u8]) {
        let _ = rustix::io::write(&self.input, what);
    }

    /// Gives the terminal back as it was.
    pub fn leave(&self) {
        self.ask(PASTE_UNMARKED);
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(self.input.as_fd(), OptionalActions::Now, &self.before);
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
pub mod tests {
    use rustix::fs::{Mode, OFlags};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    /// The user's side of a terminal, and the program's.
    pub fn terminal() -> (OwnedFd, OwnedFd) {
        let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&user).and_then(|()| unlockpt(&user)).expect("ours");
        let name = ptsname(&user, Vec::new()).expect("a name");
        let program = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("opens");
        (user, program)
    }

    fn clone(fd: &OwnedFd) -> OwnedFd {
        fd.try_clone().expect("a handle")
    }

    #[tokio::test]
    async fn what_was_typed_until_now_is_read_at_once_and_the_rest_when_it_comes() {
        let (user, program) = terminal();
        let _raw = Raw::new(clone(&program)).expect("raw");
        let mut keyboard = Keyboard::new(program).expect("a keyboard");
        assert!(keyboard.at_once().is_empty());
        rustix::io::write(&user, b"secret\r").expect("typed");
        assert_eq!(keyboard.at_once(), b"secret\r");
        rustix::io::write(&user, b"more").expect("typed");
        let mut read = Vec::new();
        while read.is_empty() {
            read = keyboard.next().await;
        }
        assert_eq!(read, b"more");
        assert!(!keyboard.ended());
    }

    #[tokio::test]
    async fn a_terminal_that_is_gone_is_the_end() {
        let (user, program) = terminal();
        let mut keyboard = Keyboard::new(program).expect("a keyboard");
        drop(user);
        while !keyboard.ended() {
            assert!(keyboard.next().await.is_empty());
        }
        assert!(keyboard.at_once().is_empty());
    }

    #[test]
    fn a_terminal_is_given_back_after_a_panic() {
        let (_user, program) = terminal();
        let modes = || tcgetattr(&program).expect("modes").local_modes;
        let before = modes();
        let ended = std::panic::catch_unwind(|| {
            let _raw = Raw::new(clone(&program)).expect("raw");
            assert_eq!(modes(), before, "raw");
        });
        assert!(ended.is_err(), "the modes were never changed");
        assert_eq!(modes(), before);
    }

    #[test]
    fn pastes_are_marked_as_long_as_the_program_has_the_terminal() {
        let (user, program) = terminal();
        let mut shown = [0; 64];
        let mut read = || rustix::io::read(&user, &mut shown).map(|read| shown[..read].to_vec()).expect("shown");
        let raw = Raw::new(program).expect("raw");
        assert_eq!(read(), PASTE_MARKED);
        drop(raw);
        assert_eq!(read(), PASTE_UNMARKED);
    }
}
