// SPDX-License-Identifier: MIT OR Apache-2.0
//! Groups that somebody has asked to leave, where nobody was online to carry it out.

use std::path::Path;

use crate::process::{Running, Server, failure, pli, run, run_with_input, text};

fn with_data<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [arguments, &["--data", "data"]].concat()
}

fn said(home: &Path, arguments: &[&str]) -> String {
    text(&run(home, &with_data(arguments)))
}

/// A server, and a group of three which are away.
fn group_of_three(home: &Path) -> Server {
    let server = Server::start(home);
    for handle in ["bob", "carol"] {
        said(home, &["recv", handle]);
    }
    said(home, &["group", "create", "alice", "team", "bob", "carol"]);
    for handle in ["bob", "carol"] {
        said(home, &["recv", handle]);
    }
    server
}

/// Asks to leave, and nobody hears it.
fn ask_to_leave(home: &Path, handle: &str) {
    let (code, why) = failure(&run(home, &with_data(&["group", "leave", handle, "team", "--timeout", "2"])));
    assert_eq!(code, Some(10), "{why}");
    assert!(why.contains("not left yet") && why.contains("the server keeps the wish"), "{why}");
    assert!(why.contains(&format!("group list {handle}")), "{why}");
}

#[test]
fn a_wish_to_leave_is_kept_and_shown_until_somebody_carries_it_out() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let _server = group_of_three(home);
    ask_to_leave(home, "carol");
    let listed = said(home, &["group", "list", "carol"]);
    assert!(listed.contains("team") && listed.ends_with(" (leaving)\n"), "{listed}");
    let shown = text(&run_with_input(home, &with_data(&["chat", "carol"]), b"/list\n#team\n/who\n"));
    assert!(shown.contains("you have asked to leave #team"), "{shown}");
    assert!(shown.contains("(3 members) (leaving)") && shown.contains("@carol (leaving)"), "{shown}");
    let mut alice = Running::start(pli(home, &with_data(&["recv", "alice", "--json", "--follow"])));
    let mut bob = Running::start(pli(home, &with_data(&["recv", "bob", "--json", "--follow"])));
    for process in [&mut alice, &mut bob] {
        process.json(|event| event["event"] == "member_removed" && event["member"] == "carol");
    }
    assert_eq!(said(home, &["group", "list", "carol"]), "");
}

#[test]
fn who_has_asked_to_leave_and_is_added_again_is_in_for_good() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let _server = group_of_three(home);
    // One of the two has the first turn to carry the wish out, the other one a later one.
    for (adds, other) in [("alice", "bob"), ("bob", "alice")] {
        ask_to_leave(home, "carol");
        let added = said(home, &["group", "add", adds, "team", "carol"]);
        assert!(added.contains("carol"), "{added}");
        said(home, &["recv", other]);
        for handle in ["alice", "bob", "carol"] {
            let listed = said(home, &["group", "list", handle]);
            assert!(listed.contains("carol") && !listed.contains("leaving"), "{handle}: {listed}");
        }
    }
    // The same in a chat, which also says who is in already.
    ask_to_leave(home, "carol");
    let shown = text(&run_with_input(home, &with_data(&["chat", "alice"]), b"#team\n/add bob carol\n"));
    assert!(shown.contains("@bob is in #team already"), "{shown}");
    let listed = said(home, &["group", "list", "carol"]);
    assert!(listed.contains("carol") && !listed.contains("leaving"), "{listed}");
}
