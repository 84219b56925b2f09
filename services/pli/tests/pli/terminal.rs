// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pli chat` on a terminal: what the prompt shows, and where a line goes.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::process::{PATIENCE, Server, pli, run, text};

/// `pli chat` with a keyboard and a screen.
pub struct Terminal {
    child: Child,
    keyboard: File,
    screen: Receiver<String>,
    seen: String,
}

impl Terminal {
    fn start(home: &Path, handle: &str) -> Self {
        Self::start_as(pli(home, &["chat", handle, "--data", "data"]))
    }

    /// Starts a command on a terminal, where its errors are seen too.
    pub fn start_whole(command: Command) -> Self {
        Self::start_on(command, true)
    }

    /// Starts a command on a terminal.
    fn start_as(command: Command) -> Self {
        Self::start_on(command, false)
    }

    /// Starts a command on a terminal that is so wide.
    pub fn start_in(command: Command, size: (u16, u16)) -> Self {
        Self::start_sized(command, true, size)
    }

    fn start_on(command: Command, errors: bool) -> Self {
        Self::start_sized(command, errors, (0, 0))
    }

    /// With 0 columns, or rows, it does not say how many it has.
    fn start_sized(mut command: Command, errors: bool, (columns, rows): (u16, u16)) -> Self {
        let keyboard: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&keyboard).and_then(|()| unlockpt(&keyboard)).expect("ours");
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&keyboard, size).expect("sized");
        let name = ptsname(&keyboard, Vec::new()).expect("a name");
        let open = || rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("opens");
        if errors {
            command.stderr(open());
        }
        let child = command.stdin(open()).stdout(open()).spawn().expect("starts");
        drop(command);
        let keyboard = File::from(keyboard);
        let mut reader = keyboard.try_clone().expect("a handle");
        let (send, screen) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = reader.read(&mut buffer) {
                if send.send(String::from_utf8_lossy(&buffer[..read]).into_owned()).is_err() {
                    return;
                }
            }
        });
        Self { child, keyboard, screen, seen: String::new() }
    }

    /// Reads the rest of the line that is painted.
    pub fn until_line(&mut self, rest: &mut String) {
        while !self.seen.contains('\n') {
            let painted = self.screen.recv_timeout(PATIENCE).expect("a line");
            self.seen.push_str(&painted);
        }
        let end = self.seen.find('\n').expect("looked for");
        rest.extend(self.seen.drain(..=end));
    }

    /// Presses keys, all at once, as a paste does.
    pub fn keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("written");
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        wait_for("it runs on", || self.child.try_wait().expect("a child"))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("signalled");
    }

    fn echoes(&self) -> bool {
        tcgetattr(&self.keyboard).expect("a terminal").local_modes.contains(LocalModes::ECHO | LocalModes::ICANON)
    }

    /// Reads until this was painted, and forgets everything up to it: that is the answer.
    pub fn until(&mut self, wanted: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.seen.find(wanted) {
                return self.seen.drain(..at + wanted.len()).collect();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(painted) => self.seen.push_str(&painted),
                Err(error) => panic!("`{wanted}` is not painted ({error}): {:?}", self.seen),
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks until there is an answer; `otherwise` says what is wrong if none comes in time.
fn wait_for<T>(otherwise: &str, mut answer: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = answer() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{otherwise}");
        std::thread::yield_now();
    }
}

fn register(home: &Path, handle: &str) {
    text(&run(home, &["recv", handle, "--data", "data"]));
}

fn send(home: &Path, from: &str, to: &str, said: &str) {
    text(&run(home, &["send", from, to, said, "--data", "data"]));
}

fn received(home: &Path, handle: &str) -> String {
    text(&run(home, &["recv", handle, "--data", "data"]))
}

#[test]
fn everything_that_is_pasted_is_done_at_once() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    register(home.path(), "bob");
    let mut alice = Terminal::start(home.path(), "alice");
    alice.until("● alice> ");
    alice.keys("/list\r");
    alice.until("no conversation yet");
    alice.keys("@bob one\ntwo\nthree\r/who\r");
    for text in ["accepted   “one”", "accepted   “two”", "accepted   “three”"] {
        alice.until(text);
    }
    let said = received(home.path(), "bob");
    assert!(said.contains("one") && said.contains("two") && said.contains("three"), "{said}");
}

#[test]
fn a_line_without_a_target_never_goes_to_a_stranger_that_wrote_meanwhile() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    let mut erin = Terminal::start(home.path(), "erin");
    erin.until("● erin> ");
    erin.keys("oops");
    erin.until("oops");
    send(home.path(), "mallory", "erin", "hello");
    erin.until("hello");
    erin.until("● erin> oops");
    erin.keys("\r");
    erin.until("to whom?");
    // The text is still there, and the next message, with nothing typed, names its sender in the prompt.
    erin.keys("\x1b[A");
    erin.until("● erin> oops");
    erin.keys("\x15");
    send(home.path(), "mallory", "erin", "again");
    erin.until("again");
    erin.until("● erin → @mallory> ");
    erin.keys("hello mallory\r");
    erin.until("✓ accepted");
    let said = received(home.path(), "mallory");
    assert!(said.contains("hello mallory") && !said.contains("oops"), "{said}");
}

#[test]
fn a_chat_that_is_told_to_end_says_what_waits_and_gives_the_terminal_back() {
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start(home.path());
    register(home.path(), "bob");
    let mut alice = Terminal::start(home.path(), "alice");
    alice.until("● alice> ");
    assert!(!alice.echoes());
    drop(server);
    alice.until("○ alice> ");
    alice.keys("@bob hello\r");
    alice.until("○ alice → @bob> ");
    alice.keys("half a line");
    alice.until("half a line");
    alice.signal(Signal::TERM);
    alice.until("1 message waits to be sent");
    assert!(alice.ended().success());
    assert!(alice.echoes());
}

#[test]
fn a_line_for_a_group_that_one_was_removed_from_is_refused_with_the_reason() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    for handle in ["dave", "erin"] {
        register(home.path(), handle);
    }
    let group = |arguments: &[&str]| text(&run(home.path(), &[&["group"], arguments, &["--data", "data"]].concat()));
    group(&["create", "alice", "#club", "dave", "erin"]);
    let mut erin = Terminal::start(home.path(), "erin");
    erin.until("● erin");
    erin.until("#club: ");
    erin.keys("#club\r");
    erin.until("● erin → #club> ");
    erin.keys("a secret");
    erin.until("a secret");
    group(&["remove", "alice", "#club", "erin"]);
    erin.until("you are no longer in #club: @");
    erin.until("● erin> a secret");
    send(home.path(), "dave", "erin", "hi");
    erin.until("@dave");
    erin.keys("\r");
    erin.until("not sent: you are no longer in #club");
    erin.keys("\x1b[A");
    erin.until("a secret");
    assert!(!received(home.path(), "dave").contains("a secret"));
}

#[test]
fn a_pasted_command_waits_for_an_enter_and_pasted_lines_are_sent() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    register(home.path(), "bob");
    let mut alice = Terminal::start(home.path(), "alice");
    alice.until("● alice> ");
    alice.keys("/group team bob\r");
    alice.until("● alice → #team> ");
    alice.keys("\x1b[200~one\n/leave\ntwo\n\x1b[201~");
    alice.until("not done, because it was pasted");
    alice.until("accepted   “two”");
    let said = received(home.path(), "bob");
    assert!(said.contains(": one") && said.contains(": two") && !said.contains(": /leave"), "{said}");
    alice.keys("/who\r");
    alice.until("  #team: @");
    alice.keys("\x1b[A\x1b[A\x1b[A");
    alice.until("> /leave");
    alice.keys("\r");
    alice.until("● alice> ");
}

#[test]
fn ctrl_c_clears_the_line_and_ends_the_chat_where_there_is_none() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    register(home.path(), "bob");
    let mut alice = Terminal::start(home.path(), "alice");
    alice.until("● alice> ");
    alice.keys("@bob hello\r");
    alice.until("✓ accepted");
    alice.keys("never to be sent\x03");
    alice.until("never to be sent");
    alice.keys("but this\r");
    alice.until("accepted   “but this”");
    alice.keys("\x03");
    assert!(alice.ended().success());
    let said = received(home.path(), "bob");
    assert!(said.contains("but this") && !said.contains("never"), "{said}");
}

/// The state of a process: `T` when it is stopped.
fn state(pid: Pid) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

#[test]
fn ctrl_z_stops_the_whole_job() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    // A job of two processes, as a shell makes it of a script; the second command keeps it from becoming the first.
    let chat = pli(home.path(), &[]);
    let mut job = Command::new("/bin/sh");
    job.arg("-c").arg("\"$0\" chat alice --data data; exit $?").arg(chat.get_program()).env_clear().process_group(0);
    job.envs(chat.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir(home.path());
    let mut alice = Terminal::start_as(job);
    let shell = Pid::from_child(&alice.child);
    alice.until("● alice> ");
    assert_ne!(state(shell), Some('T'));
    alice.keys("half\x1a");
    wait_for("the shell runs on", || (state(shell) == Some('T')).then_some(()));
    assert!(alice.echoes(), "the shell finds the terminal as it was");
    kill_process_group(shell, Signal::CONT).expect("signalled");
    // What it painted before it stopped may still be on its way here, and keys would be lost before it listens.
    wait_for("it goes on without its terminal", || (!alice.echoes()).then_some(()));
    alice.until("● alice> half");
    alice.keys("\x03\x03");
    assert!(alice.ended().success());
}

#[test]
fn after_a_restart_nothing_goes_to_whoever_wrote_last() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    for handle in ["bob", "mallory"] {
        register(home.path(), handle);
    }
    let mut alice = Terminal::start(home.path(), "alice");
    alice.until("● alice> ");
    alice.keys("@bob hello\r");
    alice.until("✓ accepted");
    alice.until("● alice → @bob> ");
    alice.keys("\x04");
    assert!(alice.ended().success());
    send(home.path(), "mallory", "alice", "the last word");
    text(&run(home.path(), &["recv", "alice", "--data", "data"]));
    let mut alice = Terminal::start(home.path(), "alice");
    alice.until("the last word");
    alice.until("says who gets what you type");
    alice.until("● alice> ");
    alice.keys("my pin is 1234\r");
    alice.until("to whom?");
    // Nor does it to whoever writes next.
    send(home.path(), "mallory", "alice", "one more");
    alice.until("one more");
    alice.keys("for bob alone\r");
    alice.until("to whom?");
    alice.keys("@bob\r");
    alice.until("● alice → @bob> ");
    alice.keys("\x1b[A\x1b[A\r");
    alice.until("accepted   “for bob alone”");
    assert!(received(home.path(), "bob").contains("for bob alone"));
    let said = received(home.path(), "mallory");
    assert!(!said.contains("1234") && !said.contains("for bob"), "{said}");
}
