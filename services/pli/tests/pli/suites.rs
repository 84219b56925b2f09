// SPDX-License-Identifier: MIT OR Apache-2.0
//! Suites that a user chooses, and what a server takes of them.

use crate::process::{Server, failure, run, text};

const DATA: [&str; 2] = ["--data", "data"];

#[test]
fn conversations_against_quantum_computers_are_had_where_the_server_is_set_to_take_them() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start_with(home.path(), 0, &[("PLI_DIRECTORY__POST_QUANTUM", "true")]);
    let with = |arguments: &[&'static str]| [arguments, &DATA].concat();
    for handle in ["alice", "bob"] {
        text(&run(home.path(), &with(&["recv", handle, "--suite", "0x004f"])));
    }
    text(&run(home.path(), &with(&["send", "alice", "bob", "hello", "--wait", "stored"])));
    assert!(text(&run(home.path(), &with(&["recv", "bob"]))).contains("hello"));
    // Whoever has another suite is told so.
    text(&run(home.path(), &with(&["recv", "carol"])));
    let (code, said) = failure(&run(home.path(), &with(&["send", "carol", "alice", "hello", "--timeout", "30"])));
    assert_eq!(code, Some(8), "{said}");
    assert!(said.contains("0x004f alone") && said.contains("SUITE_NOT_TAKEN"), "{said}");
    assert!(said.contains("devices of different suites cannot write to each other"), "{said}");
}

#[test]
fn a_suite_that_the_server_does_not_take_registers_nobody_and_is_told_with_what_to_do() {
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start(home.path());
    let with = |arguments: &[&'static str]| [arguments, &DATA].concat();
    text(&run(home.path(), &with(&["recv", "bob"])));
    for arguments in [&["send", "alice", "bob", "hello", "--timeout", "30"][..], &["recv", "alice"], &["chat", "alice"]]
    {
        let (code, said) = failure(&run(home.path(), &with(&[arguments, &["--suite", "0x004f"]].concat())));
        assert_eq!(code, Some(8), "{said}");
        for words in ["0x0001 and 0x0003", "0x004f", "nothing is registered", "--suite", "directory.post_quantum"] {
            assert!(said.contains(words), "{words}: {said}");
        }
    }
    let (code, said) = failure(&run(home.path(), &with(&["send", "bob", "alice", "hello"])));
    assert!(code == Some(8) && said.contains("NOT_FOUND"), "nobody is called so: {code:?} {said}");
    let (code, _) = failure(&run(home.path(), &["recv", "dave", "--suite", "0x0002", "--data", "data"]));
    assert_eq!(code, Some(2));
    // The same profile without the flag.
    text(&run(home.path(), &with(&["recv", "alice"])));
    text(&run(home.path(), &with(&["send", "bob", "alice", "hello"])));
    assert!(text(&run(home.path(), &with(&["recv", "alice"]))).contains("hello"));
    drop(server);
}
