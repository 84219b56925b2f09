// SPDX-License-Identifier: MIT OR Apache-2.0
//! A server process that ends with this one: a small shell stands between, which kills the server once the pipe to
//! this process is closed, and the system closes that whatever happens here.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use super::EngineError;

/// Prints the server's process id, then waits for the server or for the end of the pipe.
const GUARD: &str = r#"exec 3<&0
"$@" >>"$SERVER_LOG" 2>&1 3<&- </dev/null &
server=$!
echo $server
{ cat <&3 >/dev/null; kill -9 $server 2>/dev/null; } &
guard=$!
exec >/dev/null 3<&-
wait $server
kill $guard 2>/dev/null
exit 0"#;

pub(super) struct Guarded {
    shell: Child,
    pipe: Option<ChildStdin>,
    server: Pid,
}

impl Guarded {
    /// Starts `command` with its output in `log`.
    pub(super) fn start(command: &[String], log: &std::path::Path) -> Result<Self, EngineError> {
        const WHAT: &str = "starting a server";
        File::options().create(true).append(true).open(log).map_err(EngineError::io("making a server's log"))?;
        let mut shell = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .args(command)
            .env("SERVER_LOG", log)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(EngineError::io(WHAT))?;
        let pipe = shell.stdin.take();
        let mut line = String::new();
        if let Some(output) = shell.stdout.take() {
            BufReader::new(output).read_line(&mut line).map_err(EngineError::io(WHAT))?;
        }
        let id = line.trim().parse().ok().and_then(Pid::from_raw);
        let server = id.ok_or_else(|| EngineError::Unavailable("sh does not start a server".into()))?;
        Ok(Self { shell, pipe, server })
    }

    /// Whether the server has ended.
    pub(super) fn has_ended(&mut self) -> bool {
        matches!(self.shell.try_wait(), Ok(Some(_)))
    }

    /// Kills the server and waits until it is gone.
    pub(super) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) -> Option<ExitStatus> {
        drop(self.pipe.take());
        self.shell.wait().ok()
    }

    /// Asks the server to end and waits for it; kills it after `patience`.
    pub(super) async fn stop(mut self, patience: Duration) {
        // An error says that it has ended already.
        let _ = kill_process(self.server, Signal::TERM);
        let end = Instant::now() + patience;
        while !self.has_ended() && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.end();
    }
}
