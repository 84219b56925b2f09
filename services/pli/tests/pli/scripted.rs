// SPDX-License-Identifier: MIT OR Apache-2.0
//! What scripts rely on: exit codes, names, and that what is said is so.

use std::path::Path;
use std::process::Stdio;

use crate::process::{Running, Server, failure, pli, run, run_with_input, text};

fn with_data<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [arguments, &["--data", "data"]].concat()
}

fn register(home: &Path, handles: &[&str]) {
    for handle in handles {
        text(&run(home, &with_data(&["recv", handle])));
    }
}

/// Runs a chat with this input; its exit code, standard output and standard error.
fn chat(home: &Path, handle: &str, input: &str) -> (Option<i32>, String, String) {
    let output = run_with_input(home, &with_data(&["chat", handle]), input.as_bytes());
    let (code, said) = failure(&output);
    (code, String::from_utf8_lossy(&output.stdout).into_owned(), said)
}

#[test]
fn a_bad_word_of_the_command_line_ends_every_command_with_the_same_code() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    register(home.path(), &["alice", "bob"]);
    let long = "x".repeat(40_000);
    let name = "n".repeat(129);
    for (arguments, words) in [
        (&["send", "alice", "bob", ""][..], "the text is empty"),
        (&["send", "alice", "bob", &long], "the text has 40000 bytes"),
        (&["send", "alice", "bob", &long[..32 * 1024], "--count", "2"], "at most 32768 fit"),
        (&["send", "alice", "alice", "hi"], "your own handle"),
        (&["send", "alice", "b", "hi"], "'b'"),
        (&["send", "a", "bob", "hi"], "'a'"),
        (&["send", "alice", "bob", "hi", "--timeout", "0"], "--timeout"),
        (&["pipe", "alice", "alice"], "your own handle"),
        (&["pipe", "alice", ""], "''"),
        (&["recv", "b!"], "'b!'"),
        (&["chat", "b!"], "'b!'"),
        (&["group", "create", "alice", "", "bob"], "name is empty"),
        (&["group", "create", "alice", "a~b", "bob"], "`~`"),
        (&["group", "create", "alice", &name, "bob"], "129 bytes"),
        (&["group", "create", "alice", "te\u{202e}am", "bob"], "U+202E"),
        (&["group", "create", "alice", "team", "alice"], "your own handle"),
        (&["group", "create", "alice", "team", "b!"], "'b!'"),
        (&["explain", "0f3a"], "32 hexadecimal digits"),
        (&["restore", "--from", "x", "--log-epoch-above", "9000"], "8191"),
    ] {
        let data: &[&str] = if arguments[0] == "explain" { &["--data", "none"] } else { &["--data", "data"] };
        let (code, said) = failure(&run(home.path(), &[arguments, data].concat()));
        let shown: Vec<String> = arguments.iter().map(|word| word.chars().take(20).collect()).collect();
        assert_eq!(code, Some(2), "{shown:?}: {said}");
        assert!(said.contains(words), "{shown:?}: {said}");
    }
}

#[test]
fn help_that_cannot_be_written_is_an_error() {
    let home = tempfile::tempdir().expect("a folder");
    for arguments in [&["--help"][..], &["send", "--help"], &["help"], &["--version"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("there");
        let (code, said) = failure(&pli(home.path(), arguments).stdout(full).output().expect("ran"));
        assert_eq!(code, Some(12), "{arguments:?}: {said}");
        assert!(said.contains("standard output cannot be written"), "{said}");
        assert!(!text(&run(home.path(), arguments)).is_empty());
    }
}

#[test]
fn explain_asks_the_server_of_the_folder_that_is_named_and_no_other() {
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start(home.path());
    let id = "0f3a5c7e9b1d2f4a6c8e0b1d3f5a7c9e";
    let (code, said) = failure(&run(home.path(), &["explain", id, "--data", "data"]));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("no process that answered knows anything"), "{said}");
    // Another one listens where it would be looked for.
    let admin = server.about["admin"].as_str().expect("an address").rsplit_once(':').expect("a port").1;
    let explain = |folder: &str| {
        let mut command = pli(home.path(), &["explain", id, "--data", folder]);
        failure(&command.env("PLI_SERVER__ADMIN_PORT", admin).output().expect("ran"))
    };
    let (code, said) = explain("nowhere");
    assert_eq!(code, Some(7), "{said}");
    assert!(said.contains("no server runs on nowhere") && said.contains("--admin"), "{said}");
    // A server that has ended leaves its file behind.
    let mut ended = Running::start(pli(
        home.path(),
        &["dev", "--data", "other", "--port", "0", "--admin-port", "0", "--ready-json"],
    ));
    ended.json(|value| value.get("url").is_some());
    ended.kill();
    let (code, said) = explain("other");
    assert_eq!(code, Some(7), "{said}");
    assert!(said.contains("no server runs on other"), "{said}");
}

#[test]
fn a_chat_without_a_terminal_waits_for_what_it_read_and_says_what_was_not_done() {
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start(home.path());
    let home = home.path();
    register(home, &["bob"]);
    let (code, out, said) = chat(home, "alice", "@bob one\n@bob two\n/list\n");
    assert_eq!(code, Some(0), "{out}{said}");
    assert_eq!(out.matches("✓ accepted").count(), 2, "{out}");
    for (line, words) in [
        ("to nobody", "to whom?"),
        ("@nobody hi", "NOT_FOUND"),
        ("#nogroup hi", "there is no group"),
        ("#", "usage: #NAME"),
        ("@bob \n/leave", "only a group can be left"),
        ("/nonsense", "is no command"),
        ("/group team nobody", "NOT_FOUND"),
        ("/group te~am bob", "`~`"),
    ] {
        let (code, out, said) = chat(home, "alice", &format!("{line}\n@bob still sent\n"));
        assert_eq!(code, Some(13), "{line}: {out}{said}");
        assert!(out.contains(words) && out.contains("✓ accepted   “still sent”"), "{line}: {out}{said}");
        assert!(said.contains("not everything that was read is sent or done"), "{line}: {said}");
    }
    let port = server.port();
    server.process.kill();
    let (code, out, said) = chat(home, "alice", "@bob later\n");
    assert_eq!(code, Some(7), "{out}{said}");
    assert!(out.contains("1 message waits to be sent") && said.contains("stays in the outbox"), "{out}{said}");
    let _server = Server::start_on(home, port);
    let (code, out, said) = chat(home, "alice", "/list\n");
    assert_eq!(code, Some(0), "{out}{said}");
    let said = text(&run(home, &with_data(&["recv", "bob"])));
    assert!(said.contains("later") && said.matches("still sent").count() == 8, "{said}");
}

#[test]
fn a_chat_whose_output_cannot_be_written_sends_its_lines_says_so_and_takes_no_message_for_printed() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    let home = home.path();
    register(home, &["bob"]);
    text(&run_with_input(home, &with_data(&["chat", "alice"]), b"@bob hello\n"));
    let onto = |handle: &str, input: &'static str, stdout: Stdio| {
        let mut chat = pli(home, &with_data(&["chat", handle]));
        let mut child = chat.stdin(Stdio::piped()).stdout(stdout).stderr(Stdio::piped()).spawn().expect("starts");
        use std::io::Write;
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("written");
        failure(&child.wait_with_output().expect("an end"))
    };
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("there");
    let (code, said) = onto("bob", "@alice an answer\n", full.into());
    assert_eq!(code, Some(12), "{said}");
    assert!(said.contains("standard output cannot be written"), "{said}");
    // Nobody reads it: no failure, and nothing is printed either.
    let (reader, gone) = std::io::pipe().expect("a pipe");
    drop(reader);
    assert_eq!(onto("bob", "/who\n", gone.into()).0, Some(13));
    let said = text(&run(home, &with_data(&["recv", "alice"])));
    assert!(said.contains("an answer"), "{said}");
    let said = text(&run(home, &with_data(&["recv", "bob"])));
    assert!(said.contains("@alice: hello"), "what was not printed waits: {said}");
}

#[test]
fn no_character_of_a_message_is_missing_in_json() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    let home = home.path();
    register(home, &["bob"]);
    let written = "a\u{7f}b\u{1b}[31mc\u{9b}d\u{202e}e";
    text(&run(home, &with_data(&["send", "alice", "bob", written])));
    let said = text(&run(home, &with_data(&["recv", "bob", "--json"])));
    let lines = said.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let texts: Vec<String> = lines.filter_map(|line| line["text"].as_str().map(str::to_owned)).collect();
    assert_eq!(texts, [written]);
}

#[test]
fn a_group_with_blanks_in_its_name_is_written_to_from_a_chat() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    let home = home.path();
    register(home, &["bob"]);
    let mut alice = Running::start(pli(home, &with_data(&["chat", "alice"])));
    alice.until("● connected");
    alice.say("/group \"my team\" bob");
    alice.until("#\"my team\": ");
    alice.say("#\"my team\" hello");
    alice.until("✓ accepted   “hello”");
    alice.say("/list");
    alice.until("#\"my team\"  ~");
    alice.say("/help");
    alice.until("#\"MY GROUP\" TEXT");
    alice.end_input();
    assert_eq!(alice.wait(), Some(0));
    // The command line takes the same form, and the bare name.
    for to in ["#\"my team\"", "#my team"] {
        text(&run(home, &with_data(&["send", "alice", to, to])));
    }
    let said = text(&run(home, &with_data(&["recv", "bob"])));
    for words in ["@alice #my team: hello", "@alice #my team: #\"my team\"", "@alice #my team: #my team"] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn what_is_read_offline_waits_and_the_next_command_sends_it() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    let home = home.path();
    register(home, &["bob", "alice"]);
    text(&run(home, &with_data(&["send", "alice", "bob", "online"])));
    let offline = run_with_input(home, &with_data(&["chat", "alice", "--offline"]), b"@bob offline\n");
    assert!(text(&offline).contains("1 message waits"), "{offline:?}");
    assert!(!text(&run(home, &with_data(&["recv", "bob"]))).contains("offline"));
    text(&run(home, &with_data(&["send", "alice", "bob", "online again"])));
    let read = text(&run(home, &with_data(&["recv", "bob"])));
    assert!(read.contains("@alice: offline\n") && read.contains("@alice: online again\n"), "{read}");
}

#[test]
fn a_new_group_has_no_ticks_of_earlier_messages_and_one_begun_offline_is_told() {
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start(home.path());
    let port = server.port();
    let home = home.path();
    register(home, &["bob", "carol", "alice"]);
    server.process.kill();
    let mut alice = Running::start(pli(home, &with_data(&["chat", "alice"])));
    alice.until("connecting");
    alice.say("/group one bob carol");
    alice.until("the group #one is made when the server is there");
    let _server = Server::start_on(home, port);
    alice.until("#one: ");
    let mut others = ["bob", "carol"].map(|handle| {
        let mut chat = Running::start(pli(home, &with_data(&["chat", handle])));
        chat.until("#one: ");
        chat
    });
    // The name arrives with both, and is told of as delivered before what is said now.
    for chat in &mut others {
        chat.say("/quit");
    }
    for chat in others {
        chat.wait();
    }
    alice.say("#one hello");
    alice.until("✓ accepted   “hello”");
    let _others = ["bob", "carol"].map(|handle| {
        let mut chat = Running::start(pli(home, &with_data(&["chat", handle])));
        chat.until("hello");
        chat
    });
    alice.until("✓✓ read by everybody “hello”");
    alice.end_input();
    let all = [alice.seen().join("\n"), alice.rest()].join("\n");
    assert!(!all.contains("earlier messages"), "{all}");
}

#[test]
fn a_group_is_listed_with_its_name_and_everybody_as_soon_as_the_list_is_asked_for() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    let home = home.path();
    register(home, &["bob", "carol", "dave", "erin"]);
    text(&run(home, &with_data(&["group", "create", "alice", "team", "bob", "carol", "dave", "erin"])));
    let said = text(&run(home, &with_data(&["group", "list", "bob"])));
    let words: Vec<&str> = said.trim_end().split(' ').collect();
    let mut members: Vec<&str> = words.last().expect("members").split(',').collect();
    members.sort_unstable();
    assert_eq!((words[1], members.as_slice()), ("team", &["alice", "bob", "carol", "dave", "erin"][..]), "{said}");
    // Who is added gets the name from whoever added them, whose command has ended by now.
    for newcomer in ["frank", "grace", "heidi"] {
        register(home, &[newcomer]);
        text(&run(home, &with_data(&["group", "add", "alice", "team", newcomer])));
        let said = text(&run(home, &with_data(&["group", "list", newcomer])));
        assert_eq!(said.split(' ').nth(1), Some("team"), "{said}");
    }
}

#[test]
fn a_chat_without_a_terminal_waits_for_changes_of_groups_too() {
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start(home.path());
    let home = home.path();
    register(home, &["bob", "carol"]);
    text(&run(home, &with_data(&["group", "create", "alice", "team", "bob"])));
    let (code, out, said) = chat(home, "alice", "#team\n/add nobody\n");
    assert_eq!(code, Some(13), "{out}{said}");
    assert!(out.contains("not changed") && out.contains("NOT_FOUND"), "{out}");
    let members = || text(&run(home, &with_data(&["group", "list", "alice"])));
    for (line, is_there) in [("/add carol", true), ("/remove carol", false)] {
        let (code, out, said) = chat(home, "alice", &format!("#team\n{line}\n"));
        assert_eq!(code, Some(0), "{line}: {out}{said}");
        assert_eq!(members().contains("carol"), is_there, "{line}");
    }
    let port = server.port();
    server.process.kill();
    let (code, out, said) = chat(home, "alice", "#team\n/add carol\n");
    assert_eq!(code, Some(7), "{out}{said}");
    assert!(out.contains("what was asked for is not done yet"), "{out}");
    let _server = Server::start_on(home, port);
    let (code, out, said) = chat(home, "alice", "/list\n");
    assert_eq!(code, Some(0), "{out}{said}");
    assert!(members().contains("carol"));
    // Another member carries the wish to leave out, also when who has it is away.
    let (code, out, said) = chat(home, "alice", "#team\n/leave\n");
    assert_eq!(code, Some(0), "{out}{said}");
    let mut bob = Running::start(pli(home, &with_data(&["recv", "bob", "--json", "--follow"])));
    bob.json(|event| event["event"] == "member_removed" && event["member"] == "alice");
}

#[test]
fn a_chat_without_a_terminal_waits_for_a_server_that_is_away_for_a_moment() {
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start(home.path());
    let home = home.path();
    register(home, &["bob"]);
    text(&run(home, &with_data(&["send", "alice", "bob", "before"])));
    let port = server.port();
    server.process.kill();
    let mut alice = Running::start(pli(home, &with_data(&["chat", "alice"])));
    alice.say("@bob later");
    alice.end_input();
    alice.until("connecting");
    let _server = Server::start_on(home, port);
    assert_eq!(alice.wait(), Some(0));
}

#[test]
fn a_chat_begins_with_ten_messages_from_before_what_nobody_has_read_yet() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    let home = home.path();
    register(home, &["alice"]);
    text(&run(home, &with_data(&["send", "bob", "alice", "old", "--count", "30"])));
    text(&run(home, &with_data(&["recv", "alice"])));
    text(&run(home, &with_data(&["send", "bob", "alice", "new", "--count", "15"])));
    // Takes them in, and prints none of them.
    text(&run(home, &with_data(&["group", "list", "alice"])));
    let (code, out, said) = chat(home, "alice", "/list\n");
    assert_eq!(code, Some(0), "{out}{said}");
    assert!(out.contains("the last 10 messages"), "{out}");
    let shown = |text: String| out.lines().filter(|line| line.ends_with(&format!(": {text}"))).count();
    for n in 21..=30 {
        assert_eq!(shown(format!("old {n}")), 1, "{n}: {out}");
    }
    assert_eq!(shown("old 20".into()), 0, "{out}");
    for n in 1..=15 {
        assert_eq!(shown(format!("new {n}")), 1, "{n}: {out}");
    }
}
