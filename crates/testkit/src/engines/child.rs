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
code=$?
kill $guard 2>/dev/null
exit $code"#;

/// Takes the settings of Pli out of the environment (`PLI_SERVER__PORT`): a server is started with its file alone.
pub(crate) fn without_settings(command: &mut Command) -> &mut Command {
    let ours = std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with("PLI_"));
    ours.fold(command, |command, name| command.env_remove(name))
}

/// A server and its guard. Dropping it kills the server and waits until it is gone.
#[derive(Debug)]
pub(crate) struct Guarded {
    shell: Child,
    pipe: Option<ChildStdin>,
    server: Pid,
}

impl Guarded {
    /// Starts `command` with its output in `log`.
    pub(crate) fn start(command: &[String], log: &std::path::Path) -> Result<Self, EngineError> {
        const WHAT: &str = "starting a server";
        File::options().create(true).append(true).open(log).map_err(EngineError::io("making a server's log"))?;
        let mut shell = without_settings(&mut Command::new("sh"))
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

    /// The server's process id.
    pub(crate) fn id(&self) -> u32 {
        self.server.as_raw_nonzero().get().unsigned_abs()
    }

    /// The same, for signals.
    pub(crate) const fn pid(&self) -> Pid {
        self.server
    }

    /// Whether the server has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        matches!(self.shell.try_wait(), Ok(Some(_)))
    }

    /// Kills the server and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) -> Option<ExitStatus> {
        drop(self.pipe.take());
        self.shell.wait().ok()
    }

    /// Sends the server a signal, where it has not ended.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if !self.has_ended() {
            // It may end at this moment.
            let _ = kill_process(self.server, signal);
        }
    }

    /// Asks the server to end and waits for it; kills it after `patience`. Its exit status, none if it was killed.
    pub(crate) async fn stop(mut self, patience: Duration) -> Option<ExitStatus> {
        self.signal(Signal::TERM);
        let end = Instant::now() + patience;
        while !self.has_ended() && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.shell.try_wait().ok().flatten()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.end();
    }
}
