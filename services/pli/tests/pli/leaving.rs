// SPDX-License-Identifier: MIT OR Apache-2.0
//! Groups that somebody has asked to leave, where nobody was online to carry it out.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::handing_over::link;
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
    // What is over is told at once, also to a script, and not after the whole time.
    drop((alice, bob));
    for (to, command) in [("#team", "send"), ("team", "pipe")] {
        let to = if command == "pipe" { format!("group:{to}") } else { to.to_owned() };
        let text = if command == "send" { vec!["hello"] } else { vec![] };
        let begun = Instant::now();
        let line = [&[command, "carol", to.as_str()], text.as_slice(), &["--timeout", "50"]].concat();
        let (code, why) = failure(&run(home, &with_data(&line)));
        assert!(begun.elapsed() < Duration::from_secs(40), "it waited");
        assert!(code == Some(8) && why.contains("you are no longer in the group `team`"), "{code:?} {why}");
        assert!(why.contains("group list carol --all"), "{why}");
    }
    for change in ["add", "remove"] {
        let (code, why) = failure(&run(home, &with_data(&["group", change, "carol", "team", "bob"])));
        assert!(code == Some(8) && why.contains("you are no longer in the group `team`"), "{code:?} {why}");
    }
    let again = said(home, &["group", "leave", "carol", "team"]);
    assert!(again.contains("team was left already"), "{again}");
    let ended: Value = serde_json::from_str(&said(home, &["group", "list", "carol", "--all", "--json"])).expect("JSON");
    assert!(ended["group"] == "team" && ended["ended"] == true && ended["into"].is_null(), "{ended}");
    let there: Value = serde_json::from_str(&said(home, &["group", "list", "alice", "--json"])).expect("JSON");
    assert!(there["ended"] == false && there["leaving"] == false, "{there}");
    assert_eq!(there["members"].as_array().map(Vec::len), Some(2), "{there}");
    // Added again, its name is that of the group that is there.
    said(home, &["group", "add", "alice", "team", "carol"]);
    said(home, &["send", "carol", "#team", "back"]);
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

#[test]
fn the_last_account_of_a_group_leaves_it_on_all_its_devices() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let _server = Server::start(home);
    said(home, &["recv", "bob"]);
    said(home, &["group", "create", "alice", "team", "bob"]);
    link(home, "alice/laptop");
    let mut alice = Running::start(pli(home, &with_data(&["recv", "alice", "--follow", "--json"])));
    said(home, &["group", "leave", "bob", "team"]);
    alice.json(|event| event["event"] == "member_removed" && event["member"] == "bob");
    let leaves = run(home, &with_data(&["group", "leave", "alice/laptop", "team"]));
    assert!(text(&leaves).contains("left team"), "{leaves:?}");
    let (_, told) = failure(&leaves);
    assert!(told.contains("nobody else is in it") && !told.contains("waiting"), "{told}");
    alice.json(|event| event["event"] == "left");
    drop(alice);
    for name in ["alice", "alice/laptop"] {
        assert_eq!(said(home, &["group", "list", name]), "", "{name}");
    }
    // Both are the account's as before.
    said(home, &["group", "create", "alice/laptop", "club", "bob"]);
    assert!(said(home, &["group", "list", "alice"]).contains("club"));
}

#[test]
fn a_pipe_into_a_group_that_one_is_put_out_of_tells_the_line_that_was_not_sent() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let _server = group_of_three(home);
    let mut carol = Running::start(pli(home, &with_data(&["pipe", "carol", "#team", "--json"])));
    carol.say("one");
    carol.json(|event| event["event"] == "accepted");
    said(home, &["group", "remove", "alice", "team", "carol"]);
    carol.json(|event| event["event"] == "left");
    carol.say("two");
    let line = carol.json(|event| event["event"] == "not_sent");
    assert!(line["line"] == 2 && line["code"] == "not_taken", "{line}");
    assert_eq!(carol.wait(), Some(8));
}

#[test]
fn a_message_before_the_removal_is_printed_and_the_removal_too() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let _server = group_of_three(home);
    said(home, &["send", "alice", "#team", "the last for carol"]);
    said(home, &["group", "remove", "alice", "team", "carol"]);
    let printed = said(home, &["recv", "carol"]);
    let places = [printed.find("the last for carol"), printed.find("you are no longer in #team: @alice removed you")];
    assert!(matches!(places, [Some(message), Some(removal)] if message < removal), "{printed}");
}
