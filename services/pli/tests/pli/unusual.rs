// SPDX-License-Identifier: MIT OR Apache-2.0
//! What people do with the commands that is not meant, or not thought of.

use std::io::Write;
use std::process::Stdio;
use std::time::Instant;

use serde_json::Value;

use crate::process::{PATIENCE, Running, Server, failure, pli, run, run_with_input, text};

fn events(said: &str) -> Vec<Value> {
    said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn named<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == name).collect()
}

/// The texts of the messages that wait for a handle.
fn received(home: &std::path::Path, handle: &str) -> Vec<String> {
    let said = text(&run(home, &["recv", handle, "--json", "--data", "data"]));
    let messages = events(&said);
    named(&messages, "message").iter().filter_map(|event| Some(event["text"].as_str()?.to_string())).collect()
}

#[test]
fn a_pipe_sends_every_line_that_can_be_sent_and_tells_of_the_others() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    text(&run(home.path(), &["recv", "bob", "--data", "data"]));
    let long = "x".repeat(3 << 20);
    let input = [b"one\nbad \xff\n", long.as_bytes(), b"\ntwo\n", long.as_bytes()].concat();
    let output = run_with_input(home.path(), &["pipe", "alice", "bob", "--json", "--data", "data"], &input);
    let (code, said) = failure(&output);
    assert_eq!(code, Some(13), "{said}");
    assert!(said.contains("line 2 is not sent: it is not UTF-8"), "{said}");
    assert!(said.contains("line 3 is not sent: it has 3145728 bytes") && said.contains("line 5 "), "{said}");
    let events = events(&String::from_utf8_lossy(&output.stdout));
    let refused: Vec<_> = named(&events, "not_sent").iter().map(|e| (e["line"].clone(), e["code"].clone())).collect();
    let wanted = [(2, "not_utf8"), (3, "too_long"), (5, "too_long")].map(|(n, code)| (n.into(), code.into()));
    assert_eq!(refused, wanted);
    let (sent, accepted) = (named(&events, "sent"), named(&events, "accepted"));
    let ids = |events: &[&Value]| events.iter().map(|event| event["send_id"].to_string()).collect::<Vec<_>>();
    assert_eq!(ids(&sent).len(), 2);
    assert_eq!(ids(&sent), ids(&accepted));
    assert_eq!(received(home.path(), "bob"), ["one", "two"]);
}

#[test]
fn many_messages_are_given_no_longer_than_the_time_that_was_allowed() {
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start(home.path());
    text(&run(home.path(), &["recv", "alice", "--data", "data"]));
    server.process.kill();
    let send = ["send", "alice", "bob", "x", "--count", "9000", "--timeout", "0.1", "--data", "data"];
    let (code, said) = failure(&run(home.path(), &send));
    assert!(code == Some(7) && said.contains(" were not begun"), "{code:?} {said}");
}

/// The most memory that a process has had, in KiB.
fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("running");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn a_line_of_a_hundred_megabytes_is_not_kept_in_memory() {
    const MEBIBYTES: usize = 100;
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    text(&run(home.path(), &["recv", "bob", "--data", "data"]));
    let mut command = pli(home.path(), &["pipe", "alice", "bob", "--json", "--data", "data"]);
    command.stderr(Stdio::null());
    let mut pipe = Running::start(command);
    pipe.say("before");
    pipe.json(|event| event["event"] == "sent");
    let before = peak_kib(pipe.pid());
    let part = "x".repeat(1 << 20);
    for _ in 0..MEBIBYTES {
        pipe.write(&part);
    }
    pipe.say("");
    pipe.json(|event| event["event"] == "not_sent");
    let more = peak_kib(pipe.pid()) - before;
    assert!(more < 32 * 1024, "{more} KiB more for a line of {MEBIBYTES} MiB");
    pipe.end_input();
    assert_eq!(pipe.wait(), Some(13));
}

#[test]
fn a_text_without_an_end_is_refused() {
    let home = tempfile::tempdir().expect("a folder");
    let mut command = pli(home.path(), &["send", "alice", "bob"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut stdin = child.stdin.take().expect("piped");
    // It ends although the input does not: the write fails.
    let part = vec![b'x'; 1 << 20];
    let deadline = Instant::now() + PATIENCE;
    while stdin.write_all(&part).is_ok() {
        assert!(Instant::now() < deadline, "it reads for ever");
    }
    let (code, said) = failure(&child.wait_with_output().expect("an end"));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("more than 16") && said.contains("fit in a message"), "{said}");
}

#[test]
fn a_slow_rate_does_not_outlast_the_timeout() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    text(&run(home.path(), &["recv", "bob", "--data", "data"]));
    let slow = ["--count", "3", "--rate", "0.001", "--timeout", "3", "--data", "data"];
    let output = run(home.path(), &[&["send", "alice", "bob", "hi"][..], &slow].concat());
    let (code, said) = failure(&output);
    assert_eq!(code, Some(10), "{said}");
    assert!(said.contains("of 3 messages 1 are accepted") && said.contains("2 were not begun"), "{said}");
    assert_eq!(received(home.path(), "bob"), ["hi 1"]);
}

#[test]
fn what_recv_says_was_read_is_told_before_it_ends() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    text(&run(home.path(), &["recv", "bob", "--data", "data"]));
    for number in 1..=5 {
        text(&run(home.path(), &["send", "alice", "bob", "hi", "--data", "data"]));
        text(&run(home.path(), &["recv", "bob", "--read", "--count", "1", "--data", "data"]));
        let events = events(&text(&run(home.path(), &["recv", "alice", "--json", "--data", "data"])));
        let read = named(&events, "read").iter().any(|event| event["up_to"] == number);
        assert!(read, "{number}: {events:?}");
    }
}

#[test]
fn the_server_may_be_named_by_several_addresses_of_which_one_answers() {
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start(home.path());
    let servers = format!("127.0.0.1:1,{}", server.address());
    let client = |arguments: &[&str]| {
        let output = pli(home.path(), arguments).env("PLI_SERVER", &servers).args(["--data", "none"]).output();
        text(&output.expect("ran"))
    };
    client(&["recv", "bob"]);
    let twice = ["send", "alice", "bob", "hello", "--server", "127.0.0.1:1", "--server", &server.address()];
    client(&twice);
    assert!(client(&["recv", "bob"]).contains("hello"));
    let (code, said) = failure(&run(home.path(), &["recv", "bob", "--server", "127.0.0.1:1,nonsense:"]));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("`nonsense:`") && said.contains("HOST:PORT"), "{said}");
}

#[test]
fn an_address_without_a_port_says_which_one_is_taken() {
    let home = tempfile::tempdir().expect("a folder");
    let recv = |server: &str| failure(&run(home.path(), &["recv", "bob", "--server", server, "--timeout", "1"]));
    let (code, said) = recv("127.0.0.1");
    assert_eq!(code, Some(7), "{said}");
    assert!(said.contains("--server 127.0.0.1 names no port: 443 is assumed"), "{said}");
    let (_, said) = recv("127.0.0.1:1");
    assert!(!said.contains("names no port"), "{said}");
}

#[test]
fn every_role_has_a_word_of_its_own() {
    let home = tempfile::tempdir().expect("a folder");
    let (code, said) = failure(&run(home.path(), &["serve", "--role", "everything"]));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("all, edge, delivery, conversations, directory, links, media"), "{said}");
    let ports = ["PLI_SERVER__PORT", "PLI_SERVER__ADMIN_PORT"].map(|variable| (variable, "0"));
    let mut command = pli(home.path(), &["serve", "--role", "all", "--ready-json"]);
    let mut server = Running::start({
        command.envs(ports);
        command
    });
    let about = server.json(|value| value.get("url").is_some());
    assert!(about["address"].is_string(), "{about}");
}

#[test]
fn a_group_that_one_is_added_to_is_told_once_with_its_name_and_members() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    text(&run(home.path(), &["recv", "dave", "--data", "data"]));
    let mut erin = Running::start(pli(home.path(), &["chat", "erin", "--data", "data"]));
    erin.until("● connected");
    let group = |arguments: &[&str]| text(&run(home.path(), &[&["group"], arguments, &["--data", "data"]].concat()));
    group(&["create", "alice", "#club", "dave"]);
    group(&["add", "alice", "#club", "erin"]);
    text(&run(home.path(), &["send", "alice", "#club", "hello", "--data", "data"]));
    // With who added her, or without where that was said by itself before.
    let tells = |line: &str| line.contains("* ") && line.contains("#club: @");
    while !erin.seen().iter().any(|line| line.contains("#club: hello")) || !erin.seen().iter().any(|line| tells(line)) {
        erin.line();
    }
    erin.say("/quit");
    let all = [erin.seen().join("\n"), erin.rest()].join("\n");
    let told: Vec<&str> = all.lines().filter(|line| tells(line)).collect();
    assert_eq!(told.len(), 1, "{all}");
    assert!(["#club: ", "@alice", "@dave", "@erin"].iter().all(|part| told[0].contains(part)), "{told:?}");
}
