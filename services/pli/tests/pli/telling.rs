// SPDX-License-Identifier: MIT OR Apache-2.0
//! What commands say of what they did, did not do, and would not do.

use std::path::Path;

use serde_json::Value;

use crate::linking::{at_a_terminal, said};
use crate::process::{Running, Server, failure, pli, run, run_with_input, text};

fn with_data<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [arguments, &["--data", "data"]].concat()
}

/// The folder of a handle's profile, where there is one.
fn has_profile(home: &Path, handle: &str) -> bool {
    let servers = std::fs::read_dir(home.join("share/pli")).expect("profiles");
    servers.map(|server| server.expect("an entry").path().join(handle)).any(|folder| folder.exists())
}

#[test]
fn a_handle_that_nobody_has_is_named_however_many_lines_wait_for_it() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    let lines: String = (0..200).map(|number| format!("line {number}\n")).collect();
    let piped = run_with_input(home.path(), &with_data(&["pipe", "alice", "nobody.here"]), lines.as_bytes());
    let sent = run(home.path(), &with_data(&["send", "alice", "nobody.there", "hi", "--count", "200"]));
    for (output, handle) in [(piped, "nobody.here"), (sent, "nobody.there")] {
        let (code, said) = failure(&output);
        assert_eq!(code, Some(8), "{said}");
        assert!(said.contains(handle) && said.contains("check how the handle is spelled"), "{said}");
    }
}

#[test]
fn a_command_that_only_looks_makes_no_account_of_a_slip() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    let (code, said) = failure(&run(home.path(), &with_data(&["recv", "alice"])));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("@alice is new and registered now"), "{said}");
    assert_eq!(failure(&run(home.path(), &with_data(&["recv", "alice"]))).1, "", "it is not new any more");
    for looks in [&["list", "alicee"][..], &["add", "alicee", "team", "bob"], &["leave", "alicee", "team"]] {
        let (code, said) = failure(&run(home.path(), &with_data(&[&["group"], looks].concat())));
        assert_eq!(code, Some(6), "{said}");
        assert!(
            said.contains("@alicee has no profile here") && said.contains("pli recv alicee --data data`"),
            "{said}"
        );
    }
    assert!(has_profile(home.path(), "alice") && !has_profile(home.path(), "alicee"));
    let (code, said) = failure(&run(home.path(), &with_data(&["send", "alice", "alicee", "hi"])));
    assert_eq!(code, Some(8), "{said}");
}

#[test]
fn a_line_of_a_chat_that_is_no_text_is_told_and_the_others_are_sent() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    text(&run(home.path(), &with_data(&["recv", "bob"])));
    let input = b"@bob one\n@bob bad \xff\xfe\n@bob two\n";
    let output = run_with_input(home.path(), &with_data(&["chat", "alice"]), input);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(13), "{output:?}");
    assert_eq!(said.matches("not sent: the line is not UTF-8 text").count(), 1, "{said}");
    let said = text(&run(home.path(), &with_data(&["recv", "bob"])));
    assert!(said.contains("one") && said.contains("two") && !said.contains("bad"), "{said}");
}

#[test]
fn a_chat_in_a_pipe_that_is_offline_shows_what_is_stored_and_keeps_what_it_reads() {
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start(home.path());
    let port = server.port();
    text(&run(home.path(), &with_data(&["recv", "bob"])));
    text(&run(home.path(), &with_data(&["send", "alice", "bob", "stored"])));
    let offline = with_data(&["chat", "alice", "--offline"]);
    // With a server, and without one.
    let said = text(&run_with_input(home.path(), &offline, b"@bob one\n"));
    assert!(said.contains("stored") && !said.contains("connected"), "{said}");
    assert!(said.contains("1 message waits to be sent; the next command of this profile without --offline"), "{said}");
    server.process.kill();
    let said = text(&run_with_input(home.path(), &offline, b"@bob two\n/group later bob\n"));
    assert!(said.contains("one") && said.contains("2 messages wait to be sent"), "{said}");
    let said = text(&run_with_input(home.path(), &offline, b""));
    assert!(said.contains("two"), "{said}");
    // What cannot be done at all is still told.
    let (code, _) = failure(&run_with_input(home.path(), &offline, b"to nobody\n"));
    assert_eq!(code, Some(13));

    let _server = Server::start_on(home.path(), port);
    text(&run_with_input(home.path(), &with_data(&["chat", "alice"]), b"@bob three\n"));
    let said = text(&run(home.path(), &with_data(&["recv", "bob"])));
    for words in [": stored", ": one", ": two", ": three"] {
        assert_eq!(said.matches(words).count(), 1, "{words}: {said}");
    }
}

/// `pli` with a standard output that takes nothing.
fn onto_a_full_disk(home: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("there");
    let output = pli(home, &with_data(arguments)).stdout(full).output().expect("ran");
    failure(&output)
}

#[test]
fn what_was_sent_although_nothing_could_be_printed_is_counted() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    text(&run(home.path(), &with_data(&["recv", "bob"])));
    let send = |more: &[&str]| onto_a_full_disk(home.path(), &[&["send", "alice", "bob", "hi"], more].concat());
    for (more, done) in [
        (&["--json"][..], "1 message accepted, but"),
        (&[], "1 message accepted, but"),
        (&["--json", "--count", "30", "--wait", "stored"], "30 messages stored, but"),
    ] {
        let (code, said) = send(more);
        assert_eq!(code, Some(12), "{said}");
        assert!(said.contains(done) && said.contains("standard output cannot be written"), "{said}");
    }
    let said = text(&run(home.path(), &with_data(&["recv", "bob"])));
    assert_eq!(said.lines().count(), 32 + 1, "32 messages and who they are from: {said}");
}

#[test]
fn what_is_waited_for_while_somebody_is_away_does_not_hold_up_what_follows() {
    const MESSAGES: usize = 1_000;
    /// What an earlier version waited for at a time.
    const BOUND_BEFORE: usize = 512;
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    text(&run(home.path(), &with_data(&["recv", "bob"])));
    let count = MESSAGES.to_string();
    let send = ["send", "alice", "bob", "hi", "--count", &count, "--wait", "stored", "--json"];
    let mut send = Running::start(pli(home.path(), &with_data(&send)));
    send.json(|event| event["event"] == "stored");
    let sent = send.seen().iter().filter(|line| line.contains("\"sent\"")).count();
    assert!(sent > BOUND_BEFORE, "only {sent} were sent before one was stored");
    let said = send.rest();
    let stored = |line: &str| serde_json::from_str::<Value>(line).is_ok_and(|event| event["event"] == "stored");
    assert_eq!(said.lines().filter(|line| stored(line)).count() + 1, MESSAGES);
}

#[test]
fn a_group_is_told_in_one_line_that_everybody_has_it_and_a_typing_error_leaves_the_prompt_where_it_was() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let _server = Server::start(home);
    for name in ["bob", "carol"] {
        said(home, &["recv", name]);
    }
    // They know each other: she is no stranger who adds him.
    said(home, &["send", "alice", "bob", "before"]);
    said(home, &["recv", "bob"]);
    let mut alice = at_a_terminal(home, &["chat", "alice"]);
    alice.until("connected over");
    alice.keys("/group team bob carol\r");
    alice.until("#team: ");
    alice.until("alice → #team> ");
    alice.keys("hello\r");
    alice.until("✓ accepted");
    let met = said(home, &["recv", "bob", "--json"]);
    assert!(met.contains("\"added_by\":\"alice\""), "{met}");
    // What one of them has is in the history.
    alice.keys("/history\r");
    let told = alice.until("delivered to @bob:");
    assert!(!told.contains("everybody"), "{told}");
    said(home, &["recv", "carol", "--count", "1"]);
    let told = alice.until("✓✓ delivered to everybody “hello”");
    assert!(!told.contains("@carol"), "{told}");
    alice.keys("@nobodyhere hello\r");
    alice.until("alice → @nobodyhere> ");
    alice.until("NOT_FOUND");
    alice.until("alice → #team> ");
}
