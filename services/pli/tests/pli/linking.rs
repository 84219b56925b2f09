// SPDX-License-Identifier: MIT OR Apache-2.0
//! Companion devices: linked, renamed, removed, and everything that can go wrong on the way.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::process::{Running, Server, failure, pli, run, run_with_input, text};
use crate::terminal::Terminal;

pub fn with_data<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [arguments, &["--data", "data"]].concat()
}

pub fn said(home: &Path, arguments: &[&str]) -> String {
    text(&run(home, &with_data(arguments)))
}

pub fn refused(home: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    failure(&run(home, &with_data(arguments)))
}

pub fn is<'a>(name: &'a str) -> impl Fn(&Value) -> bool + 'a {
    move |event| event["event"] == name
}

/// A new device that shows its code.
pub fn shows_code(home: &Path, name: &str) -> (Running, String) {
    let mut new = Running::start(pli(home, &with_data(&["device", "link", name, "--yes", "--json"])));
    let code = new.json(is("link_code"))["code"].as_str().expect("text").to_owned();
    (new, code)
}

/// Links a companion device of alice's; what the approval said, as JSON lines.
pub fn link(home: &Path, name: &str) -> Vec<Value> {
    link_of(home, "alice", name)
}

/// The same of anybody's.
fn link_of(home: &Path, handle: &str, name: &str) -> Vec<Value> {
    let (mut new, code) = shows_code(home, name);
    let approved = said(home, &["device", "approve", handle, &code, "--yes", "--json"]);
    let approved: Vec<Value> = approved.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let offered = new.json(is("link_offer"));
    assert_eq!(offered["handle"], handle);
    assert_eq!(offered["number"], approved[0]["number"], "both show the same number");
    assert_eq!(new.json(is("linked"))["fresh"], true);
    assert_eq!(new.wait(), Some(0));
    assert!(is("device_waits")(&approved[0]) && is("device_approved")(&approved[1]), "{approved:?}");
    assert_eq!(approved[1]["confirmed"], true);
    approved
}

/// What a profile prints of messages: `from: text`.
fn messages(home: &Path, profile: &str) -> Vec<String> {
    let lines = said(home, &["recv", profile, "--json"]);
    let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let told = events.filter(|event| is("message")(event) || is("own_message")(event));
    told.map(|event| {
        let from = if is("own_message")(&event) { "me" } else { event["from"].as_str().expect("a name") };
        format!("{from}: {}", event["text"].as_str().expect("text"))
    })
    .collect()
}

#[test]
fn a_linked_device_writes_into_the_chat_that_was_silent_since() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let _server = Server::start(home);
    said(home, &["recv", "bob"]);
    said(home, &["send", "alice", "bob", "before"]);
    assert_eq!(messages(home, "bob"), ["alice: before"]);
    link(home, "alice/laptop");
    said(home, &["recv", "alice/laptop"]);
    said(home, &["send", "alice/laptop", "bob", "from the laptop"]);
    let told = said(home, &["recv", "bob", "--json"]);
    assert!(told.contains("from the laptop") && !told.contains("same_chat"), "{told}");
}

#[test]
fn a_linked_device_is_in_every_conversation_until_it_is_removed_and_comes_back_as_a_new_one() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let _server = Server::start(home);
    said(home, &["recv", "bob"]);
    said(home, &["send", "alice", "bob", "before"]);
    said(home, &["group", "create", "alice", "team", "bob"]);
    assert!(messages(home, "bob").contains(&"alice: before".to_owned()));

    let approved = link(home, "alice/laptop");
    assert_eq!((&approved[1]["name"], &approved[1]["waiting"]), (&"laptop".into(), &0.into()), "{approved:?}");
    assert_eq!(approved[1]["conversations"], 2);
    let device = approved[1]["device"].as_str().expect("an id").to_owned();
    // Bob was away: what he writes leaves when he has heard of the new device.
    said(home, &["send", "bob", "alice", "to both"]);
    said(home, &["send", "bob", "#team", "to the team"]);
    assert_eq!(messages(home, "alice/laptop"), ["bob: to both", "bob: to the team"]);
    said(home, &["send", "alice", "bob", "from the first"]);
    assert_eq!(messages(home, "alice/laptop"), ["me: from the first"]);
    said(home, &["send", "alice/laptop", "bob", "from the laptop"]);
    text(&run_with_input(home, &with_data(&["pipe", "alice/laptop", "#team"]), b"piped\n"));
    assert_eq!(messages(home, "alice"), ["bob: to both", "bob: to the team", "me: from the laptop", "me: piped"]);
    let bob = messages(home, "bob");
    assert_eq!(bob, ["alice: from the first", "alice: from the laptop", "alice: piped"]);

    // Everybody who has a conversation with the account sees the new device, its own other devices too.
    link(home, "alice/tablet");
    let told = said(home, &["recv", "alice/laptop", "--json"]);
    assert!(told.contains("\"new_key\"") && told.contains("\"alice\""), "{told}");
    assert!(told.contains("\"device_name\":\"tablet\""), "{told}");
    assert!(said(home, &["recv", "bob", "--json"]).contains("\"new_key\""));

    let listed = said(home, &["device", "list", "alice/laptop"]);
    assert!(listed.contains(&format!("{device} laptop (this one)")), "{listed}");
    let (code, why) = refused(home, &["device", "rename", "alice", "laptop", "tablet"]);
    assert!(code == Some(1) && why.contains("is called \"tablet\" already"), "{code:?} {why}");
    let (code, why) = refused(home, &["device", "rename", "alice/laptop", "tablet", "laptop"]);
    assert!(code == Some(1) && why.contains("only the account's first device"), "{code:?} {why}");
    let renamed = said(home, &["device", "rename", "alice", "laptop", "work laptop"]);
    assert_eq!(renamed.trim(), format!("{device} work laptop"));
    assert!(said(home, &["device", "list", "alice/tablet"]).contains("work laptop"));

    let mut following = Running::start(pli(home, &with_data(&["recv", "alice/laptop", "--follow", "--json"])));
    following.json(|event| event["state"] == "online");
    said(home, &["device", "remove", "alice", "work laptop"]);
    // By the removal alone: nothing else happens meanwhile.
    assert_eq!(following.wait(), Some(8));
    said(home, &["send", "bob", "alice", "after"]);
    let (code, why) = refused(home, &["recv", "alice/laptop"]);
    assert!(
        code == Some(8) && why.contains("DEVICE_REMOVED") && why.contains("chat alice/laptop --offline --data data`"),
        "{code:?} {why}"
    );
    assert_eq!(why.matches("the account removed this device").count(), 1, "{why}");
    assert!(why.contains("device link alice/laptop-2 --data data`") && why.contains("another --home"), "{why}");
    // What it holds is still read.
    let offline = with_data(&["chat", "alice/laptop", "--offline"]);
    let read = text(&run_with_input(home, &offline, b"@bob\n/history 10\n"));
    assert!(read.contains("offline: ") && read.contains("to both") && read.contains("from the laptop"), "{read}");
    assert!(!read.contains("connected"), "{read}");
    let read = text(&run_with_input(home, &offline, b"@bob in vain\n"));
    assert!(read.contains("not sent any more") && !read.contains("next command"), "{read}");
    assert_eq!(messages(home, "alice"), ["bob: after"]);
    assert_eq!(messages(home, "alice/tablet"), ["bob: after"]);

    // The same name again, in a folder of its own: another device.
    let profiles = home.join("share/pli");
    let server = std::fs::read_dir(&profiles).expect("profiles").next().expect("a server").expect("read").path();
    std::fs::rename(server.join("alice+laptop"), server.join("moved away")).expect("moved");
    let again = link(home, "alice/laptop");
    assert_ne!(again[1]["device"], device.as_str());
    assert_eq!(again[1]["waiting"], 0, "{again:?}");
    let mut following = Running::start(pli(home, &with_data(&["recv", "alice/laptop", "--follow", "--json"])));
    following.json(|event| event["state"] == "online");
    said(home, &["send", "bob", "alice", "welcome back"]);
    following.json(|event| is("message")(event) && event["text"] == "welcome back");
    for other in ["alice", "alice/tablet"] {
        assert_eq!(messages(home, other), ["bob: welcome back"], "{other}");
    }
}

#[test]
fn a_new_device_is_told_although_the_command_before_ended_between_two() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let _server = Server::start(home);
    said(home, &["recv", "bob"]);
    said(home, &["send", "alice", "bob", "before"]);
    assert_eq!(messages(home, "bob"), ["alice: before"]);
    link(home, "alice/laptop");
    // What he writes leaves when he has heard of the new device; nothing is printed by that.
    said(home, &["send", "bob", "alice", "heard"]);
    said(home, &["send", "alice", "bob", "between"]);
    said(home, &["group", "list", "bob"]);
    link(home, "alice/tablet");
    said(home, &["send", "bob", "alice", "heard too"]);
    let first = said(home, &["recv", "bob", "--count", "1"]);
    assert!(first.contains("a new device, laptop") && first.contains("between"), "{first}");
    assert!(!first.contains("tablet"), "{first}");
    let next = said(home, &["recv", "bob"]);
    assert!(next.contains("a new device, tablet") && !next.contains("laptop"), "{next}");

    // Killed as soon as it has told of one of two people's.
    said(home, &["send", "carol", "bob", "hello"]);
    said(home, &["recv", "bob"]);
    link(home, "alice/phone");
    link_of(home, "carol", "carol/desk");
    link(home, "alice/watch");
    for other in ["alice", "carol"] {
        said(home, &["send", "bob", other, "heard"]);
    }
    let mut following = Running::start(pli(home, &with_data(&["recv", "bob", "--follow"])));
    following.until("new device");
    following.signal(Signal::KILL);
    // What it printed before it was killed is read here, whole or not at all.
    let told = following.seen().join("\n");
    let told = [told, following.rest()].join("\n");
    let told = told + &said(home, &["recv", "bob"]);
    for device in ["phone", "desk", "watch"] {
        assert!(told.contains(device), "{device} is lost: {told}");
    }
    assert_eq!(said(home, &["recv", "bob"]), "", "and no more");
}

#[test]
fn a_removed_device_that_chats_says_why_it_ends_and_nothing_before() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let _server = Server::start(home);
    said(home, &["recv", "alice"]);
    link(home, "alice/laptop");
    let mut command = pli(home, &with_data(&["chat", "alice/laptop"]));
    command.stderr(std::fs::File::create(home.join("stderr")).expect("made"));
    let mut chat = Running::start(command);
    chat.until("● connected");
    said(home, &["device", "remove", "alice", "laptop"]);
    let said = chat.rest();
    assert!(!said.contains("not connected"), "{said}");
    let why = std::fs::read_to_string(home.join("stderr")).expect("there");
    assert!(why.contains("the account removed this device"), "{why}");
}

#[test]
fn a_removed_device_sends_nothing_and_is_told_how_it_comes_back() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let _server = Server::start(home);
    said(home, &["recv", "bob"]);
    said(home, &["recv", "alice"]);
    link(home, "alice/laptop");
    said(home, &["recv", "alice/laptop"]);
    said(home, &["device", "remove", "alice", "laptop"]);
    let (code, why) = refused(home, &["send", "alice/laptop", "bob", "in vain"]);
    assert!(code == Some(8) && why.contains("DEVICE_REMOVED"), "{code:?} {why}");
    assert!(why.contains("comes back as a new device under another name"), "{why}");
    assert_eq!(messages(home, "bob"), Vec::<String>::new());
}

#[test]
fn a_chat_links_at_its_first_use_and_other_commands_say_how() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let server = Server::start(home);
    said(home, &["recv", "alice"]);
    said(home, &["recv", "bob"]);
    for arguments in
        [&["recv", "alice/laptop"][..], &["send", "alice/laptop", "bob", "x"], &["device", "list", "alice/laptop"]]
    {
        let (code, why) = refused(home, arguments);
        assert!(code == Some(6) && why.contains("alice/laptop --data data`"), "{code:?} {why}");
    }
    let (code, why) = refused(home, &["chat", "alice/laptop"]);
    assert!(code == Some(2) && why.contains("--yes"), "{code:?} {why}");
    let (code, why) = refused(home, &["device", "link", "alice"]);
    assert!(code == Some(2) && why.contains("alice/laptop"), "{code:?} {why}");
    let (code, why) = refused(home, &["chat", "alice/lap top"]);
    assert!(code == Some(2) && why.contains("HANDLE/NAME"), "{code:?} {why}");

    let mut chat = Running::start(pli(home, &with_data(&["chat", "alice/laptop", "--yes", "--qr"])));
    let line = loop {
        let line = chat.line();
        if line.contains(&format!("pli device approve alice --server {} pli1", server.address())) {
            break line;
        }
    };
    chat.until("█");
    // As somebody pastes it, with the program as it was started.
    let mut pasted = Command::new("/bin/sh");
    pasted.args(["-c", &format!("{line} --yes")]).current_dir(home).env_clear();
    pasted.envs(pli(home, &[]).get_envs().filter_map(|(name, value)| Some((name, value?))));
    text(&pasted.output().expect("ran"));
    chat.until("this is a device of @alice now");
    chat.until("what was written before is on the first device");
    let elsewhere = chat.seen().last().cloned().unwrap_or_default();
    let gives = format!("pli device history alice --to laptop --server {}` there", server.address());
    assert!(elsewhere.contains(&gives), "{elsewhere}");
    assert!(elsewhere.contains("pli device history alice/laptop --data data` here"), "{elsewhere}");
    chat.until("connected");
    chat.say("@bob from the chat");
    chat.until("accepted");
    // Chats of two are called after the other person, and are compared with them.
    chat.say("/list");
    chat.until("@bob  ~");
    chat.say("/safety");
    chat.until("safety number with @bob");
    chat.say("/safety alice");
    chat.until("@alice is you");
    assert!(!chat.seen().iter().any(|line| line.contains("with @alice")), "{:?}", chat.seen());
    chat.end_input();
    assert_eq!(chat.wait(), Some(13), "the last one was refused");
    assert_eq!(messages(home, "bob"), ["alice: from the chat"]);
    // Who the other one of a chat is that begins with this message, the first device hears right after it.
    let told = said(home, &["recv", "alice"]);
    assert!(told.contains("you to @") && told.contains(": from the chat"), "{told}");
    said(home, &["send", "alice/laptop", "bob", "again"]);
    let told = said(home, &["recv", "alice"]);
    assert!(told.contains("you to @bob: again"), "{told}");
    said(home, &["send", "alice/laptop", "bob", "once more"]);
    let mut first = Running::start(pli(home, &with_data(&["chat", "alice"])));
    first.until("@alice to @bob: once more");
}

#[test]
fn a_code_is_for_one_use_one_minute_one_server_and_without_slips() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let mut command = pli(home, &["dev", "--data", "data", "--port", "0", "--admin-port", "0", "--ready-json"]);
    command.env("PLI_LINKS__RENDEZVOUS_MS", "9000");
    let mut process = Running::start(command);
    process.json(|value| value.get("url").is_some());
    said(home, &["recv", "alice"]);
    said(home, &["recv", "bob"]);
    let approve = |code: &str| refused(home, &["device", "approve", "alice", code, "--yes"]);

    let (new, code) = shows_code(home, "alice/laptop");
    let slip: String = code
        .chars()
        .rev()
        .enumerate()
        .map(|(n, c)| if n == 9 { if c == 'q' { 'p' } else { 'q' } } else { c })
        .collect();
    let slip: String = slip.chars().rev().collect();
    let (exit, why) = approve(&slip);
    assert!(exit == Some(2) && why.contains("slip"), "{exit:?} {why}");
    let (exit, why) = approve("hello");
    assert!(exit == Some(2) && why.contains("pli1"), "{exit:?} {why}");
    // Bob's device reads a code that was shown for alice: the new device does not join bob, and bob's is told.
    let (exit, why) = refused(home, &["device", "approve", "bob", &code, "--yes"]);
    assert!(exit == Some(1) && why.contains("declined"), "{exit:?} {why}");
    assert_eq!(new.wait(), Some(1));
    assert_eq!(said(home, &["device", "list", "bob"]).lines().count(), 1);
    let (exit, why) = approve(&code);
    assert!(exit == Some(8) && why.contains("RENDEZVOUS_TAKEN"), "{exit:?} {why}");
    assert!(why.contains("begin again on the new device, with a new code"), "{why}");
    assert_eq!(why.matches("begin again").count(), 1, "the advice is given once: {why}");

    // Used by the same device a second time.
    let (new, code) = shows_code(home, "alice/laptop");
    said(home, &["device", "approve", "alice", &code, "--yes"]);
    assert_eq!(new.wait(), Some(0));
    let (exit, why) = approve(&code);
    assert!(exit == Some(1) && why.contains("used already; begin again on the new device"), "{exit:?} {why}");
    assert_eq!(said(home, &["device", "list", "alice"]).lines().count(), 2);
    // Another machine under the same name.
    let elsewhere = home.join("elsewhere").display().to_string();
    let named = with_data(&["device", "link", "alice/laptop", "--yes", "--json", "--home", &elsewhere]);
    let mut new = Running::start(pli(home, &named));
    let code = new.json(is("link_code"))["code"].as_str().expect("text").to_owned();
    let (exit, why) = approve(&code);
    assert!(
        exit == Some(1) && why.contains("is called \"laptop\" already") && why.contains("laptop-2"),
        "{exit:?} {why}"
    );
    assert_eq!(new.wait(), Some(1));
    assert_eq!(said(home, &["device", "list", "alice"]).lines().count(), 2);

    // Too late: the new device says so, and so does who reads the code then.
    let (new, code) = shows_code(home, "alice/tablet");
    assert_eq!(new.wait(), Some(10));
    let (exit, why) = approve(&code);
    assert!(
        exit == Some(10) && why.contains("expired: it lives a minute; begin again on the new device"),
        "{exit:?} {why}"
    );

    // A companion cannot approve, and a new server is another one.
    let (new, code) = shows_code(home, "alice/tablet");
    let (exit, why) = refused(home, &["device", "approve", "alice/laptop", &code, "--yes"]);
    assert!(exit == Some(1) && why.contains("first device"), "{exit:?} {why}");
    let other = tempfile::tempdir().expect("a folder");
    let _other_server = Server::start(other.path());
    said(other.path(), &["recv", "alice"]);
    let (exit, why) = refused(other.path(), &["device", "approve", "alice", &code, "--yes"]);
    assert!(exit == Some(2) && why.contains("the code is for the server"), "{exit:?} {why}");
    assert!(why.contains("name it alike with --server on both devices"), "{why}");
    // Also where nobody can be asked: --yes would not help.
    let (exit, why) = refused(other.path(), &["device", "approve", "alice", &code]);
    assert!(exit == Some(2) && why.contains("the code is for the server") && !why.contains("--yes"), "{exit:?} {why}");
    drop(new);
}

/// A command whose person sits at a terminal.
pub fn at_a_terminal(home: &Path, arguments: &[&str]) -> Terminal {
    Terminal::start_whole(pli(home, &with_data(arguments)))
}

/// A new device at a terminal, and its code.
pub fn asks_its_person(home: &Path, name: &str) -> (Terminal, String) {
    asks_its_person_with(home, &["device", "link", name])
}

/// The same with a command that links one.
pub fn asks_its_person_with(home: &Path, arguments: &[&str]) -> (Terminal, String) {
    let mut new = at_a_terminal(home, arguments);
    new.until(" pli1");
    let mut code = String::from("pli1");
    new.until_line(&mut code);
    (new, code.trim().to_owned())
}

/// A code lives longer than these tests wait for anything: what ends before has ended by what somebody said.
pub const LONG_CODE: [(&str, &str); 1] = [("PLI_LINKS__RENDEZVOUS_MS", "600000")];

/// A server with such codes, on which alice is registered.
pub fn alice_is_registered() -> (tempfile::TempDir, Server) {
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start_with(home.path(), 0, &LONG_CODE);
    said(home.path(), &["recv", "alice"]);
    (home, server)
}

#[test]
fn a_person_who_says_no_on_either_side_ends_it_on_both_at_once() {
    let (home, _server) = alice_is_registered();
    let home = home.path();
    // On the first device, while the other person still thinks, and while that one has said yes.
    for thinks in [true, false] {
        let (new, code) = if thinks {
            let (new, code) = asks_its_person(home, "alice/laptop");
            (Ok(new), code)
        } else {
            let (new, code) = shows_code(home, "alice/laptop");
            (Err(new), code)
        };
        let mut first = at_a_terminal(home, &["device", "approve", "alice", &code]);
        first.until("[y/N] ");
        first.keys("n\r");
        first.until("declined: the device was not added");
        assert_eq!(first.ended().code(), Some(1));
        match new {
            Ok(mut new) => {
                new.until("Join @alice as a new device? [y/N] ");
                new.until("the other device refused: its user said no");
                assert_eq!(new.ended().code(), Some(1));
            }
            Err(new) => assert_eq!(new.wait(), Some(1)),
        }
    }
    // On the new device.
    let (mut new, code) = asks_its_person(home, "alice/laptop");
    let mut first = at_a_terminal(home, &["device", "approve", "alice", &code]);
    first.until("[y/N] ");
    new.until("[y/N] ");
    new.keys("n\r");
    new.until("declined: this device joined no account");
    assert_eq!(new.ended().code(), Some(1));
    first.until("the new device declined");
    assert_eq!(first.ended().code(), Some(1));
    assert_eq!(said(home, &["device", "list", "alice"]).lines().count(), 1);
    // The profile is as new, and the next time works, with two people who say yes.
    let (mut new, code) = asks_its_person(home, "alice/laptop");
    let mut first = at_a_terminal(home, &["device", "approve", "alice", &code]);
    new.until("[y/N] ");
    new.keys("y\r");
    first.until("[y/N] ");
    first.keys("y\r");
    assert_eq!((first.ended().code(), new.ended().code()), (Some(0), Some(0)));
    assert_eq!(said(home, &["device", "list", "alice"]).lines().count(), 2);
}

#[test]
fn who_cannot_be_asked_and_who_does_not_answer_is_told_in_time() {
    let (home, _server) = alice_is_registered();
    let home = home.path();
    // Without a terminal: the code is not used up by that.
    let (new, code) = shows_code(home, "alice/laptop");
    for input in [&b""[..], b"y\n"] {
        let (exit, why) = failure(&run_with_input(home, &with_data(&["device", "approve", "alice", &code]), input));
        assert!(exit == Some(2) && why.contains("--yes"), "{exit:?} {why}");
    }
    said(home, &["device", "approve", "alice", &code, "--yes"]);
    assert_eq!(new.wait(), Some(0));
    // Nobody reads the code; the other side's user does not answer the question. It is --timeout that ends it: the code lives on.
    let (exit, why) = refused(home, &["device", "link", "alice/tablet", "--yes", "--timeout", "2"]);
    assert!(exit == Some(10) && why.contains("not in time"), "{exit:?} {why}");
    let (_new, code) = asks_its_person(home, "alice/tablet");
    let (exit, why) = refused(home, &["device", "approve", "alice", &code, "--yes", "--timeout", "2"]);
    assert!(exit == Some(10) && why.contains("not in time"), "{exit:?} {why}");
}

/// So long both sides wait for answers that do not come; enough for the question to be asked.
const PATIENCE_S: &str = "10";

/// What a command says at its end whose person was asked and did not answer.
fn unanswered(asked: &mut Terminal) -> String {
    asked.until("[y/N] ");
    let said = asked.until("begin again");
    assert_eq!(asked.ended().code(), Some(10));
    said
}

#[test]
fn whose_answer_did_not_come_in_time_is_said() {
    let (home, _server) = alice_is_registered();
    let home = home.path();
    let approve = |code: &str| at_a_terminal(home, &["device", "approve", "alice", code, "--timeout", PATIENCE_S]);
    let here = "nobody answered the question on this device;";
    // The new device has said yes; and neither has.
    let (_new, code) = shows_code(home, "alice/laptop");
    let told = unanswered(&mut approve(&code));
    assert!(told.contains(here), "{told}");
    let (_new, code) = asks_its_person(home, "alice/tablet");
    let told = unanswered(&mut approve(&code));
    assert!(told.contains("nobody answered the question, neither on this device nor on the new one;"), "{told}");
    // On the new device.
    let mut new = at_a_terminal(home, &["device", "link", "alice/phone", "--timeout", PATIENCE_S]);
    new.until(" pli1");
    let mut code = String::from("pli1");
    new.until_line(&mut code);
    let _first = Running::start(pli(home, &with_data(&["device", "approve", "alice", code.trim(), "--yes"])));
    let told = unanswered(&mut new);
    assert!(told.contains(here), "{told}");
}

#[test]
fn two_new_devices_at_once_both_come_in_and_an_eleventh_does_not() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let _server = Server::start(home);
    said(home, &["recv", "bob"]);
    said(home, &["send", "alice", "bob", "before"]);
    assert_eq!(messages(home, "bob"), ["alice: before"]);
    let (one, other) = (shows_code(home, "alice/d1"), shows_code(home, "alice/d2"));
    for (new, code) in [other, one] {
        let told = said(home, &["device", "approve", "alice", &code, "--yes"]);
        assert!(told.contains("hands it over, and"), "what is missing there, and how it comes: {told}");
        assert_eq!(new.wait(), Some(0));
    }
    for n in 3..=9 {
        link(home, &format!("alice/d{n}"));
    }
    assert_eq!(said(home, &["device", "list", "alice"]).lines().count(), 10);
    let (new, code) = shows_code(home, "alice/d10");
    let mut first = at_a_terminal(home, &["device", "approve", "alice", &code]);
    assert_eq!(first.ended().code(), Some(1));
    assert!(!first.until("at most 10 devices").contains("[y/N]"), "nobody is asked");
    assert_eq!(new.wait(), Some(1));
    assert_eq!(said(home, &["device", "list", "alice/d9"]).lines().count(), 10);
    said(home, &["send", "bob", "alice", "to all ten"]);
    // Bob was away while nine came: one line names them.
    let told = said(home, &["recv", "bob"]);
    assert_eq!(told.matches("new devices").count(), 1, "{told}");
    assert!(told.contains("@alice uses 9 new devices, ") && (1..=9).all(|n| told.contains(&format!("d{n}"))), "{told}");
    for profile in ["alice", "alice/d1", "alice/d5", "alice/d9"] {
        assert_eq!(messages(home, profile), ["bob: to all ten"], "{profile}");
    }
    let signs = "the first device of an account cannot be removed; name another one";
    for (device, says) in [("first device", signs), ("nonsense", "no device")] {
        let (exit, why) = refused(home, &["device", "remove", "alice", device]);
        assert!(exit == Some(1) && why.contains(says), "{device}: {exit:?} {why}");
    }
    let (exit, why) = refused(home, &["device", "remove", "alice/d1", "d2"]);
    assert!(exit == Some(1) && why.contains("first device"), "{exit:?} {why}");
    // Room for another one.
    said(home, &["device", "remove", "alice", "d9"]);
    link(home, "alice/d11");
}

#[test]
fn a_new_device_that_is_killed_anywhere_works_or_begins_again() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let mut command = pli(home, &["dev", "--data", "data", "--port", "0", "--admin-port", "0", "--ready-json"]);
    command.env("PLI_LINKS__RENDEZVOUS_MS", "4000");
    let mut process = Running::start(command);
    process.json(|value| value.get("url").is_some());
    said(home, &["recv", "bob"]);
    said(home, &["send", "alice", "bob", "before"]);
    let mut listed = 1;
    for (n, after) in [0, 20, 100].into_iter().enumerate() {
        let name = format!("alice/d{n}");
        let (mut new, code) = shows_code(home, &name);
        let approving = Running::start(pli(home, &with_data(&["device", "approve", "alice", &code, "--yes"])));
        new.json(is("link_offer"));
        std::thread::sleep(Duration::from_millis(after));
        new.signal(Signal::KILL);
        new.wait();
        let approved = approving.wait() == Some(0);
        listed += usize::from(approved);
        assert_eq!(said(home, &["device", "list", "alice"]).lines().count(), listed, "{name}");
        if approved {
            // It comes up by what it has stored, and asks nobody.
            said(home, &["device", "link", &name, "--yes"]);
        } else {
            link(home, &name);
            listed += 1;
        }
        assert_eq!(said(home, &["device", "list", &name]).lines().count(), listed, "{name}");
        // Whoever is online brings it into the conversation.
        let mut first = Running::start(pli(home, &with_data(&["recv", "alice", "--follow", "--json"])));
        first.json(|event| event["state"] == "online");
        let mut new = Running::start(pli(home, &with_data(&["recv", &name, "--follow", "--json"])));
        let seen = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !seen.load(Ordering::Relaxed) {
                    said(home, &["send", "bob", "alice", &format!("hello {n}")]);
                    std::thread::sleep(Duration::from_millis(500));
                }
            });
            new.json(|event| is("message")(event) && event["text"] == format!("hello {n}").as_str());
            seen.store(true, Ordering::Relaxed);
        });
    }
}

#[test]
fn a_first_device_that_is_killed_while_it_adds_another_leaves_a_whole_device_or_none() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let mut command = pli(home, &["dev", "--data", "data", "--port", "0", "--admin-port", "0", "--ready-json"]);
    command.env("PLI_LINKS__RENDEZVOUS_MS", "4000");
    let mut process = Running::start(command);
    process.json(|value| value.get("url").is_some());
    said(home, &["recv", "alice"]);
    for (n, after) in [0, 15, 60].into_iter().enumerate() {
        let name = format!("alice/d{n}");
        let (new, code) = shows_code(home, &name);
        let mut approving =
            Running::start(pli(home, &with_data(&["device", "approve", "alice", &code, "--yes", "--json"])));
        approving.json(is("device_waits"));
        // Wherever it is by then, from before the new device's consent to after the answer.
        std::thread::sleep(Duration::from_millis(after));
        approving.signal(Signal::KILL);
        approving.wait();
        new.wait();
        // The first device is started again, and then the new one.
        let listed = said(home, &["device", "list", "alice"]).lines().count();
        if listed == n + 2 {
            said(home, &["device", "link", &name, "--yes"]);
        } else {
            assert_eq!(listed, n + 1, "{name}");
            link(home, &name);
        }
        for profile in ["alice", name.as_str()] {
            assert_eq!(said(home, &["device", "list", profile]).lines().count(), n + 2, "nobody's device is listed");
        }
    }
}

#[test]
fn an_open_chat_lets_devices_in_and_removes_them() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let _server = Server::start_with(home, 0, &LONG_CODE);
    let mut alice = at_a_terminal(home, &["chat", "alice"]);
    alice.until("connected over");
    for (line, said) in
        [("/approve", "usage"), ("/approve x", "not a code"), ("/yes", "there is no question to answer")]
    {
        alice.keys(&format!("{line}\r"));
        alice.until(said);
    }

    let (mut laptop, code) = asks_its_person(home, "alice/laptop");
    alice.keys(&format!("/approve {code}\r"));
    let asked = alice.until("/no does not");
    laptop.until("[y/N]");
    assert!(asked.contains("laptop"), "{asked}");
    alice.keys("/yes\r");
    laptop.keys("y\n");
    laptop.until("linked:");
    assert!(laptop.ended().success());
    let joined = alice.until("what was written before stays here");
    assert!(joined.contains("laptop is one of your devices now"), "{joined}");
    alice.until("alice --to laptop");
    alice.until("device history alice/laptop");
    alice.keys("/devices\r");
    alice.until("(this one)");
    alice.until("laptop");
    // A companion may not.
    let mut companion = at_a_terminal(home, &["chat", "alice/laptop"]);
    companion.until("connected over");
    companion.keys("/unlink first\r");
    companion.until("only the account's first device");

    // Two at once, and no.
    let (mut tablet, code) = asks_its_person(home, "alice/tablet");
    alice.keys(&format!("/approve {code}\r"));
    alice.until("/no does not");
    alice.keys(&format!("/approve {code}\r"));
    alice.until("another device is being let in");
    // As the other device is answered.
    alice.keys("No\r");
    alice.until("the device was not added");
    tablet.until("said no");
    assert!(!tablet.ended().success());
    alice.keys(&format!("/approve {code}\r"));
    alice.until("the code was used already");

    alice.keys("/unlink nobody\r");
    alice.until("has no device `nobody`");
    alice.keys("/unlink laptop\r");
    alice.until("device laptop is not one of yours any more");
    assert!(!companion.ended().success());

    // Whoever has said yes and ends the chat waits for it.
    let (mut pad, code) = asks_its_person(home, "alice/pad");
    alice.keys(&format!("/approve {code}\r"));
    alice.until("/no does not");
    pad.until("[y/N]");
    pad.keys("y\n");
    alice.keys("/yes\r");
    alice.until("/yes");
    alice.keys("\x04");
    pad.until("linked:");
    assert!(pad.ended().success() && alice.ended().success());
    let mut alice = at_a_terminal(home, &["chat", "alice"]);
    alice.until("connected over");

    // Whoever ends it before says no.
    let (mut watch, code) = asks_its_person(home, "alice/watch");
    alice.keys(&format!("/approve {code}\r"));
    alice.until("/no does not");
    alice.keys("/quit\r");
    assert!(alice.ended().success());
    watch.until("its program ended before anybody there answered");
}
