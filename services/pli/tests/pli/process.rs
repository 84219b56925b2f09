// SPDX-License-Identifier: MIT OR Apache-2.0
//! Starting the binary, waiting for what it says, ending it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use pli_runtime::AdminClient;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// No wait in these tests is longer.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Lines that a process said last, printed where a test fails.
const LAST_WORDS: usize = 100;

/// The binary with these arguments, in an environment of its own.
pub fn pli(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pli"));
    command.args(arguments).env_clear().env("HOME", home).env("XDG_DATA_HOME", home.join("share")).env("NO_COLOR", "1");
    command.current_dir(home).stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub fn run(home: &Path, arguments: &[&str]) -> Output {
    ended(&mut pli(home, arguments), &[])
}

/// Runs it to its end with this standard input.
pub fn run_with_input(home: &Path, arguments: &[&str], input: &[u8]) -> Output {
    ended(&mut pli(home, arguments), input)
}

fn ended(command: &mut Command, input: &[u8]) -> Output {
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
    let mut child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input).expect("written");
    }
    let pid = Pid::from_child(&child);
    let (done, waiting) = channel();
    std::thread::spawn(move || done.send(child.wait_with_output()));
    match waiting.recv_timeout(PATIENCE) {
        Ok(output) => output.expect("an end"),
        Err(_) => {
            let _ = kill_process(pid, Signal::KILL);
            let output = waiting.recv_timeout(PATIENCE).expect("killed").expect("an end");
            panic!("did not end within {PATIENCE:?}: {output:?}");
        }
    }
}

/// The exit code and standard error.
pub fn failure(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Standard output as text.
pub fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A process whose standard output is read line by line; killed when dropped.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    stdin: Option<ChildStdin>,
    seen: Vec<String>,
}

impl Running {
    /// Starts it.
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (send, lines) = channel();
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        let stdin = child.stdin.take();
        Self { child, lines, stdin, seen: Vec::new() }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Every line that was read so far.
    pub fn seen(&self) -> &[String] {
        &self.seen
    }

    /// The next line.
    pub fn line(&mut self) -> String {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                self.seen.push(line.clone());
                line
            }
            Err(RecvTimeoutError::Timeout) => panic!("silent for {PATIENCE:?}"),
            Err(RecvTimeoutError::Disconnected) => panic!("ended: {:?}", self.child.wait()),
        }
    }

    /// The next line that satisfies `wanted`, as JSON.
    pub fn json(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let line = self.line();
            match serde_json::from_str(&line) {
                Ok(value) if wanted(&value) => return value,
                Ok(_) => {}
                Err(error) => panic!("`{line}` is not JSON: {error}"),
            }
        }
        panic!("not seen in {PATIENCE:?}");
    }

    /// Reads until a line holds this.
    pub fn until(&mut self, wanted: &str) {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.line().contains(wanted) {
                return;
            }
        }
        panic!("`{wanted}` is not in what it said");
    }

    /// Writes one line to its standard input.
    pub fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("open");
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).expect("written");
    }

    /// Writes a part of a line to its standard input.
    pub fn write(&mut self, part: &str) {
        self.stdin.as_mut().expect("open").write_all(part.as_bytes()).expect("written");
    }

    /// Everything that it still prints, to its end.
    pub fn rest(mut self) -> String {
        let begun = self.seen.len();
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.lines.recv_timeout(Duration::from_millis(100)) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.seen[begun..].join("\n"),
            }
        }
        panic!("did not end within {PATIENCE:?}");
    }

    /// Ends its standard input.
    pub fn end_input(&mut self) {
        self.stdin = None;
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("signalled");
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Option<i32> {
        self.wait_mut()
    }

    fn wait_mut(&mut self) -> Option<i32> {
        // Reading on lets it write on; the channel closes with its standard output.
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Err(RecvTimeoutError::Disconnected) = self.lines.recv_timeout(Duration::from_millis(100)) {
                return self.child.wait().expect("an end").code();
            }
        }
        panic!("did not end within {PATIENCE:?}");
    }

    /// kill -9, and its end.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("an end");
    }
}

impl Drop for Running {
    #[allow(clippy::print_stderr, reason = "a failing test shows what its processes said")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let pid = self.child.id();
            self.seen.extend(self.lines.try_iter());
            let last = self.seen.len().saturating_sub(LAST_WORDS);
            self.seen[last..].iter().for_each(|line| eprintln!("process {pid} said {line}"));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A development server on free ports with its data in `home/data`.
pub struct Server {
    pub process: Running,
    /// What it said when it was ready.
    pub about: Value,
}

impl Server {
    /// Starts it and waits until it is ready.
    pub fn start(home: &Path) -> Self {
        Self::start_on(home, 0)
    }

    /// The same on a port that is already known.
    pub fn start_on(home: &Path, port: u16) -> Self {
        Self::start_with(home, port, &[])
    }

    /// The same with settings in its environment.
    pub fn start_with(home: &Path, port: u16, settings: &[(&str, &str)]) -> Self {
        let port = port.to_string();
        let arguments = ["dev", "--data", "data", "--port", &port, "--admin-port", "0", "--ready-json"];
        let mut command = pli(home, &arguments);
        command.envs(settings.iter().copied());
        let mut process = Running::start(command);
        let about = process.json(|value| value.get("url").is_some());
        Self { process, about }
    }

    /// Host and port of sessions.
    pub fn address(&self) -> String {
        self.about["address"].as_str().expect("an address").to_string()
    }

    /// What the admin port answers to a GET: status and body.
    pub fn admin(&self, path: &str) -> (u16, String) {
        let client = AdminClient::new(self.about["admin"].as_str().expect("an address"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let answer = runtime.block_on(client.get(path)).expect("answered");
        (answer.status, answer.text())
    }

    /// The sum of a counter over its labels, as the admin port tells it; 0 when it was never counted.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, said) = self.admin("/metrics");
        assert!(said.contains("pli_edge_"), "no metrics in {said}");
        let total = format!("{name}_total");
        let lines = said.lines().filter(|line| line.split(['{', ' ']).next() == Some(&total));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// The port of sessions.
    pub fn port(&self) -> u16 {
        self.address().rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port")
    }
}
