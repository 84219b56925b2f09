// SPDX-License-Identifier: MIT OR Apache-2.0
//! The example of `clients/native`, as somebody starts it beside `make run`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::{PATIENCE, Running, Server, failure, run, run_with_input, text};

const ROUNDS: usize = 8;
const ROUND_MESSAGES: usize = 10;

/// Cargo builds the examples of the workspace with its tests, unless one suite alone is asked for.
fn program() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_pli")).with_file_name("examples").join("bot");
    assert!(program.exists(), "{} is not built: cargo build --workspace --examples", program.display());
    program
}

fn command(home: &Path, server: &Server) -> Command {
    let mut command = Command::new(program());
    command.env_clear().env("HOME", home).env("XDG_DATA_HOME", home.join("bots")).env("PLI_SERVER", server.address());
    command
}

fn bot(home: &Path, server: &Server) -> Running {
    let mut bot = Running::start(command(home, server));
    bot.until("write to @bot");
    bot
}

/// What arrived for Alice and was not printed before, of the bot.
fn answers(home: &Path, arguments: &[&str]) -> Vec<String> {
    let arguments = [&["recv", "alice", "--data", "data", "--json"], arguments].concat();
    let said = text(&run(home, &arguments));
    let events = said.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let messages = events.filter(|event| event["event"] == "message" && event["from"] == "bot");
    messages.map(|event| event["text"].as_str().expect("a text").to_owned()).collect()
}

fn send(home: &Path, words: &str) {
    text(&run(home, &["send", "alice", "bot", words, "--data", "data", "--wait", "stored"]));
}

#[test]
fn a_bot_of_forty_lines_answers_whoever_writes_to_it() {
    let lines = include_str!("../../../../clients/native/examples/bot.rs").lines().count();
    assert!(lines <= 40, "{lines} lines");
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start(home.path());
    let _bot = bot(home.path(), &server);
    for (words, answer) in [("reverse stressed", "desserts"), ("hello", "alice said: hello")] {
        send(home.path(), words);
        assert_eq!(answers(home.path(), &["--count", "1"]), [answer]);
    }
    send(home.path(), "dice");
    let thrown = answers(home.path(), &["--count", "1"]);
    assert!(thrown[0].parse().is_ok_and(|eyes: u8| (1..=6).contains(&eyes)), "{thrown:?}");
}

#[test]
fn a_bot_that_is_called_wrongly_says_how_it_is_called() {
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start(home.path());
    let (code, said) = failure(&command(home.path(), &server).arg("--help").output().expect("ran"));
    assert!(code == Some(1) && said.contains("PLI_SERVER=HOST:PORT and PLI_BOT=HANDLE"), "{said}");
    let (code, said) = failure(&command(home.path(), &server).env("PLI_BOT", "Not A Handle").output().expect("ran"));
    assert!(code == Some(1) && said.contains("handle") && !said.contains("Handle("), "{said}");
}

#[test]
fn a_bot_without_a_server_says_that_it_waits_and_goes_on_when_there_is_one() {
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start(home.path());
    let port = server.port();
    let mut command = command(home.path(), &server);
    server.process.kill();
    command.stderr(std::process::Stdio::null());
    let mut bot = Running::start(command);
    bot.until("waiting for the server: ");
    let _server = Server::start_on(home.path(), port);
    bot.until("connected");
    // Said by two tasks, in any order.
    if !bot.seen().iter().any(|line| line.contains("write to @bot")) {
        bot.until("write to @bot");
    }
}

#[test]
fn a_bot_that_is_killed_again_and_again_answers_each_message_once() {
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start(home.path());
    bot(home.path(), &server).kill();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for round in 0..ROUNDS {
        let lines: String = (0..ROUND_MESSAGES).map(|n| format!("reverse {round}-{n}\n")).collect();
        let piped = run_with_input(home.path(), &["pipe", "alice", "bot", "--data", "data"], lines.as_bytes());
        assert!(piped.status.success(), "{piped:?}");
        // Killed at another moment each time, most often in the middle of its answers.
        let killed = bot(home.path(), &server);
        std::thread::sleep(Duration::from_millis(u64::try_from(round).expect("few") * 25));
        killed.kill();
        for answer in answers(home.path(), &[]) {
            *seen.entry(answer).or_default() += 1;
        }
    }
    let _bot = bot(home.path(), &server);
    let deadline = Instant::now() + PATIENCE;
    while seen.len() < ROUNDS * ROUND_MESSAGES && Instant::now() < deadline {
        for answer in answers(home.path(), &[]) {
            *seen.entry(answer).or_default() += 1;
        }
    }
    let wanted = (0..ROUNDS).flat_map(|round| (0..ROUND_MESSAGES).map(move |n| (round, n)));
    let wanted: BTreeMap<String, usize> =
        wanted.map(|(round, n)| (format!("{round}-{n}").chars().rev().collect(), 1)).collect();
    // One more answer comes behind all of them: what was answered twice would have come by then.
    send(home.path(), "reverse end");
    while !seen.contains_key("dne") && Instant::now() < deadline {
        for answer in answers(home.path(), &[]) {
            *seen.entry(answer).or_default() += 1;
        }
    }
    assert_eq!(seen.remove("dne"), Some(1));
    assert_eq!(seen, wanted);
}
