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
    assert!(said.contains("0x004f alone"), "{said}");
}

#[test]
fn a_server_that_is_not_set_to_says_which_suites_it_takes() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    text(&run(home.path(), &["recv", "bob", "--data", "data"]));
    let arguments = ["send", "alice", "bob", "hello", "--suite", "0x004f", "--timeout", "30", "--data", "data"];
    let (code, said) = failure(&run(home.path(), &arguments));
    assert!(code.is_some_and(|code| code != 0), "{said}");
    assert!(said.contains("suite"), "{said}");
    let (code, said) = failure(&run(home.path(), &["recv", "dave", "--suite", "0x0002", "--data", "data"]));
    assert_eq!(code, Some(2));
    assert!(said.contains("use 0x0001, 0x0003 or 0x004f"), "{said}");
}
