// SPDX-License-Identifier: MIT OR Apache-2.0
//! One process that never outlives the one that started it.

use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Starts the server ($1) with a configuration ($2) and a log ($3), prints its process id, and kills it when the
/// standard input ends: that happens when the process that holds the other end dies, however it dies.
const GUARD: &str = r#"exec 3<&0
"$1" --config "$2" >>"$3" 2>&1 3<&- &
server=$!
(read -r _ <&3; kill -9 $server) >/dev/null 2>&1 &
guard=$!
echo $server
wait $server
kill $guard"#;

/// An orderly end takes no longer.
const STOPPED_WITHIN: Duration = Duration::from_secs(30);

/// A running server and its guard.
#[derive(Debug)]
pub(super) struct Process {
    shell: Child,
    server: Pid,
}

impl Process {
    pub fn start(binary: &Path, configuration: &Path, log: &Path) -> io::Result<Self> {
        let mut shell = Command::new("sh");
        shell.args(["-c", GUARD, "guard"]).args([binary, configuration, log]);
        let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut line = String::new();
        let output = shell.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        BufReader::new(output).read_line(&mut line)?;
        let server = line.trim().parse().ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { shell, server })
    }

    /// Asks it to end, or kills it.
    pub fn signal(&self, orderly: bool) {
        let signal = if orderly { Signal::TERM } else { Signal::KILL };
        // It may have ended by itself.
        kill_process(self.server, signal).ok();
    }

    /// Ends it and waits until it has ended; an orderly end that takes too long is cut short.
    pub fn end(mut self, orderly: bool) {
        self.signal(orderly);
        let end = Instant::now() + STOPPED_WITHIN;
        while orderly && Instant::now() < end && !self.has_ended() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.shell.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.has_ended() {
            self.signal(false);
        }
        // The guard's end, in case that the kill did not reach the server.
        drop(self.shell.stdin.take());
        self.shell.wait().ok();
    }
}
