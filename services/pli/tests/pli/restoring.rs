// SPDX-License-Identifier: MIT OR Apache-2.0
//! A backup of a running server, and going back to it.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::process::{Running, Server, failure, pli, run, text};

fn says<'a>(from: &'a str, text: &'a str) -> impl Fn(&Value) -> bool + 'a {
    move |event| event["event"] == "message" && event["from"] == from && event["text"] == text
}

fn with_data(home: &Path, arguments: &[&str]) -> String {
    text(&run(home, &[arguments, &["--data", "data"]].concat()))
}

fn pipe(home: &Path, from: &str, to: &str) -> Running {
    let arguments = ["pipe", from, to, "--json", "--follow", "--data", "data"];
    let mut process = Running::start(pli(home, &arguments));
    process.json(|event| event["event"] == "connection" && event["state"] == "online");
    process
}

/// Every message that a process printed, with how often.
fn printed(process: &Running) -> BTreeMap<(String, String), usize> {
    let mut counts = BTreeMap::new();
    for line in process.seen() {
        let event: Value = serde_json::from_str(line).expect("JSON");
        if event["event"] == "message" {
            let word = |field: &str| event[field].as_str().expect("text").to_owned();
            *counts.entry((word("from"), word("text"))).or_default() += 1;
        }
    }
    counts
}

fn back_up(home: &Path) -> String {
    let said = with_data(home, &["backup", "--to", "backup"]);
    assert!(said.contains("pli restore --from"), "{said}");
    said
}

/// The server is killed and goes back to the backup.
fn go_back(home: &Path, server: Server) -> Server {
    let port = server.port();
    server.process.kill();
    with_data(home, &["restore", "--from", "backup", "--replace"]);
    Server::start_on(home, port)
}

/// The server goes back to the backup, and bob reads what alice says in the team then.
fn go_back_and_talk(home: &Path, server: Server, said: &str) -> Server {
    let server = go_back(home, server);
    let mut bob = Running::start(pli(home, &["recv", "bob", "--json", "--follow", "--data", "data"]));
    with_data(home, &["send", "alice", "#team", said, "--wait", "delivered"]);
    bob.json(says("alice", said));
    bob.signal(Signal::INT);
    assert_eq!(bob.wait(), Some(0));
    server
}

#[test]
fn a_server_that_went_back_to_a_backup_goes_on_with_its_clients() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let server = Server::start(home);
    let port = server.port();
    for handle in ["bob", "carol"] {
        with_data(home, &["recv", handle]);
    }
    with_data(home, &["group", "create", "alice", "team", "bob"]);
    let mut alice = pipe(home, "alice", "#team");
    let mut bob = pipe(home, "bob", "alice");
    // The backup is taken while these are on their way.
    for number in 0..200 {
        alice.say(&format!("before {number}"));
        bob.say(&format!("back {number}"));
    }
    back_up(home);
    bob.json(says("alice", "before 199"));
    alice.json(says("bob", "back 199"));
    alice.signal(Signal::INT);
    assert_eq!(alice.wait(), Some(0));
    // What the backup does not know: a member, messages that are settled, an account and its conversation.
    with_data(home, &["group", "add", "alice", "team", "carol"]);
    with_data(home, &["send", "alice", "#team", "gone from the server", "--wait", "stored"]);
    with_data(home, &["send", "dave", "alice", "i am new here"]);
    let mut alice = pipe(home, "alice", "#team");
    for number in 0..50 {
        alice.say(&format!("unsettled {number}"));
        bob.say(&format!("open {number}"));
    }
    alice.json(|event| event["event"] == "accepted");
    server.process.kill();

    let said = with_data(home, &["restore", "--from", "backup", "--replace"]);
    for word in ["it goes back to 20", "is gone", "log epoch 2 begins", "data.replaced-"] {
        assert!(said.contains(word), "`{word}` is not in {said}");
    }
    let server = Server::start_on(home, port);
    alice.say("after the restore");
    bob.say("from bob after it");
    bob.json(says("alice", "after the restore"));
    alice.json(says("bob", "from bob after it"));
    // Carol was added after the backup, dave did not exist then.
    let mut carol = Running::start(pli(home, &["recv", "carol", "--json", "--follow", "--data", "data"]));
    carol.json(says("alice", "after the restore"));
    carol.signal(Signal::INT);
    assert_eq!(carol.wait(), Some(0));
    with_data(home, &["send", "carol", "#team", "carol is here"]);
    alice.json(says("carol", "carol is here"));
    bob.json(says("carol", "carol is here"));
    with_data(home, &["send", "dave", "alice", "still here", "--wait", "delivered"]);
    alice.json(says("dave", "still here"));
    alice.say("the last one");
    bob.json(says("alice", "the last one"));

    let (to_alice, to_bob) = (printed(&alice), printed(&bob));
    for (who, counts) in [("alice", &to_alice), ("bob", &to_bob)] {
        let twice: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "shown twice to {who}: {twice:?}");
    }
    // Nothing that was not settled is lost: it arrived before the server died, or was sent again.
    for number in 0..50 {
        assert!(to_bob.contains_key(&("alice".into(), format!("unsettled {number}"))), "{number}: {to_bob:?}");
        assert!(to_alice.contains_key(&("bob".into(), format!("open {number}"))), "{number}: {to_alice:?}");
    }
    assert!(to_alice.contains_key(&("dave".into(), "i am new here".into())), "{to_alice:?}");
    drop(server);
}

#[test]
fn a_backup_is_whole_private_and_restores_twice_above_what_was_used() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let server = Server::start(home);
    with_data(home, &["recv", "bob"]);
    with_data(home, &["send", "alice", "bob", "hello"]);
    let fingerprint = server.about["fingerprint"].clone();
    back_up(home);
    std::fs::create_dir(home.join("all")).expect("made");
    let dated = with_data(home, &["backup", "--to", "all"]);
    assert!(dated.contains("all/pli-20"), "{dated}");
    let backup = home.join("backup");
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&backup), 0o700);
    let mut names: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(&backup).expect("there") {
        let entry = entry.expect("an entry");
        assert_eq!(mode(&entry.path()), 0o600, "{entry:?}");
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    assert_eq!(names, ["VERSION", "certificate.pem", "manifest.json", "pli.db"]);
    assert!(
        !std::fs::read_dir(home).expect("there").any(|e| e
            .expect("one")
            .file_name()
            .to_string_lossy()
            .contains("part"))
    );
    server.process.kill();
    // A new place: nobody tells which epochs were used, so it jumps, and --log-epoch-above is kept to.
    let restore = |more: &[&str]| text(&run(home, &[&["restore", "--from", "backup"], more].concat()));
    assert!(restore(&["--data", "second", "--log-epoch-above", "700"]).contains("log epoch 701 begins"));
    assert!(restore(&["--data", "second", "--replace"]).contains("log epoch 702 begins"));
    // What an interrupted restore left is no obstacle, and the folder that it had moved aside still counts.
    std::fs::rename(home.join("second"), home.join("second.replaced-9")).expect("moved");
    std::fs::create_dir(home.join(".second.restore-part")).expect("made");
    std::fs::write(home.join(".second.restore-part/RESTORE-UNFINISHED"), "").expect("written");
    assert!(restore(&["--data", "second"]).contains("log epoch 703 begins"));
    let mut process =
        Running::start(pli(home, &["dev", "--data", "second", "--port", "0", "--admin-port", "0", "--ready-json"]));
    let about = process.json(|value| value.get("url").is_some());
    assert_eq!(about["fingerprint"], fingerprint);
}

#[test]
fn a_group_is_listed_once_however_often_the_server_was_restored() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let mut server = Server::start(home);
    with_data(home, &["recv", "bob"]);
    let made = with_data(home, &["group", "create", "alice", "team", "bob"]);
    with_data(home, &["send", "alice", "#team", "before"]);
    assert!(with_data(home, &["recv", "bob"]).contains("before"));
    back_up(home);
    for number in 1..=2 {
        server = go_back_and_talk(home, server, &format!("after {number}"));
    }
    let first = made.split(' ').next().expect("an id");
    for handle in ["alice", "bob"] {
        let live = with_data(home, &["group", "list", handle]);
        assert!(live.lines().count() == 1 && !live.contains(first) && !live.contains("ended"), "{live}");
        let id = live.split(' ').next().expect("an id");
        let all = with_data(home, &["group", "list", handle, "--all"]);
        assert_eq!(all.lines().count(), 3, "{all}");
        assert!(all.starts_with(&live), "{all}");
        assert!(all.contains(&format!("{first} team (ended, goes on in {id})")), "{all}");
    }
    // Each of its ids means the group that goes on.
    with_data(home, &["send", "alice", &format!("~{first}"), "by the old id", "--wait", "accepted"]);
    assert!(with_data(home, &["recv", "bob"]).contains("by the old id"));
}

#[test]
fn a_group_keeps_its_name_over_a_restore_for_who_follows_it_and_for_who_catches_up() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let server = Server::start(home);
    with_data(home, &["recv", "bob"]);
    with_data(home, &["recv", "dave"]);
    with_data(home, &["group", "create", "alice", "team", "bob", "dave"]);
    let mut bob = Running::start(pli(home, &["recv", "bob", "--json", "--follow", "--data", "data"]));
    with_data(home, &["send", "alice", "#team", "before"]);
    bob.json(says("alice", "before"));
    // Another command takes what dave has not printed, before the restore and after it.
    with_data(home, &["group", "list", "dave"]);
    back_up(home);
    let _server = go_back(home, server);
    with_data(home, &["send", "alice", "#team", "after"]);
    bob.json(says("alice", "after"));
    let listed = with_data(home, &["group", "list", "dave"]);
    with_data(home, &["send", "dave", "#team", "dave answers"]);
    let answer = bob.json(says("dave", "dave answers"));
    assert!(listed.starts_with(answer["conversation"].as_str().expect("an id")), "{listed}");
    assert_eq!(listed.lines().count(), 1, "{listed}");
    let events = |lines: &[String]| -> Vec<Value> {
        lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    // One that is let in learns the name a moment after; from then on it stays.
    let seen = events(bob.seen());
    let named: Vec<&Value> =
        seen.iter().filter_map(|event| event.get("group")).skip_while(|group| group.is_null()).collect();
    assert!(named.len() > 4 && named.iter().all(|group| *group == "team"), "{seen:?}");
    let lines: Vec<String> = with_data(home, &["recv", "dave", "--json"]).lines().map(str::to_owned).collect();
    let messages: Vec<Value> = events(&lines).into_iter().filter(|event| event["event"] == "message").collect();
    let told: Vec<_> = messages.iter().map(|m| (m["text"].as_str().expect("a text"), m["group"].clone())).collect();
    assert_eq!(told, [("before", "team".into()), ("after", "team".into())]);
    assert_ne!(messages[0]["conversation"], messages[1]["conversation"]);
    assert_eq!(messages[1]["conversation"], answer["conversation"]);
}

#[test]
fn a_new_account_on_a_restored_server_is_not_told_that_it_was_and_a_forgotten_one_is_not_called_new() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let server = Server::start(home);
    let port = server.port();
    with_data(home, &["recv", "bob"]);
    with_data(home, &["send", "alice", "bob", "hello"]);
    back_up(home);
    // Known here, and not to the server that the backup brings back.
    with_data(home, &["recv", "carol"]);
    drop(server);
    with_data(home, &["restore", "--from", "backup", "--replace"]);
    // The conversation is begun before the server is met for the first time.
    let mut newbie =
        Running::start(pli(home, &["chat", "newbie", "--data", "data", "--server", &format!("127.0.0.1:{port}")]));
    newbie.say("@bob hello");
    newbie.say("/list");
    newbie.until("members)");
    let _server = Server::start_on(home, port);
    newbie.until("✓ accepted");
    newbie.end_input();
    let said = [newbie.seen().join("\n"), newbie.rest()].concat();
    assert!(!said.contains("restored") && !said.contains("backup"), "{said}");
    let said = with_data(home, &["recv", "alice"]);
    assert!(said.contains("* the server was restored from a backup: conversations go on by themselves"), "{said}");
    let carol = run(home, &["recv", "carol", "--data", "data"]);
    let said = String::from_utf8_lossy(&carol.stderr);
    assert!(said.contains("@carol is registered now; the server did not know it"), "{said}");
}

#[test]
fn who_had_a_handle_before_is_told_apart_from_who_has_it_now() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let server = Server::start(home);
    with_data(home, &["recv", "alice"]);
    back_up(home);
    with_data(home, &["send", "bob", "alice", "from the first"]);
    // Takes what waits and prints nothing.
    with_data(home, &["group", "list", "alice"]);
    let _server = go_back(home, server);
    with_data(home, &["send", "bob", "alice", "from the second", "--home", "elsewhere"]);
    with_data(home, &["group", "list", "alice"]);
    let said = with_data(home, &["recv", "alice"]);
    let line = said.lines().find(|line| line.contains("from the first")).expect("told");
    let former = line.split_once('@').and_then(|(_, said)| said.split_once(':')).expect("from somebody").0;
    assert!(former.starts_with("bob~"), "{said}");
    assert!(said.contains("@bob: from the second"), "{said}");
    let mut alice = Running::start(pli(home, &["chat", "alice", "--data", "data"]));
    alice.until(&format!("@{former}: from the first"));
    alice.until("@bob: from the second");
    for person in [former, "bob"] {
        alice.say(&format!("/safety {person}"));
        alice.until(&format!("safety number with @{person};"));
    }
    let numbers: Vec<[String; 3]> = ["elsewhere", "share/pli"]
        .iter()
        .map(|home_of_bob| {
            let mut bob = Running::start(pli(home, &["chat", "bob", "--data", "data", "--home", home_of_bob]));
            bob.say("/safety alice");
            bob.until("safety number with @alice;");
            // Of both halves, in the order of their digits, one is alice's.
            [bob.line(), bob.line(), bob.line()]
        })
        .collect();
    assert_ne!(numbers[0], numbers[1]);
    alice.say(&format!("/safety {former}"));
    alice.until(&format!("safety number with @{former};"));
    assert_eq!([alice.line(), alice.line(), alice.line()], numbers[1]);
}

/// What a command says when it is refused, with its exit code.
fn refused(home: &Path, arguments: &[&str], exit: i32, words: &[&str]) {
    let (code, said) = failure(&run(home, arguments));
    assert_eq!(code, Some(exit), "{arguments:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{arguments:?}: `{word}` is not in {said}");
    }
}

#[test]
fn bad_input_is_refused_with_its_fix_and_changes_nothing() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let server = Server::start(home);
    back_up(home);
    let write = |path: &str, text: &str| {
        let path = home.join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, text).expect("written");
    };
    write("file", "x");
    write("other/thing", "x");
    write("newer/VERSION", &format!("999\n{}\n", "0".repeat(32)));
    write("newer/pli.db", "x");
    for (arguments, words) in [
        (&["backup", "--data", "none", "--to", "new"][..], &["no folder none"][..]),
        (&["backup", "--data", "other", "--to", "new"], &["no data folder"]),
        (&["backup", "--data", "newer", "--to", "new"], &["999", "run the release"]),
        (&["backup", "--data", "data", "--to", "backup"], &["holds a backup already"]),
        (&["backup", "--data", "data", "--to", "file"], &["is a file"]),
        (&["backup", "--data", "data", "--to", "data"], &["is a data folder"]),
        (&["backup", "--data", "data", "--to", "no/such"], &["no folder", "--to"]),
        (&["backup", "--data", "data", "--to", "data/new"], &["--to data/new lies inside the data folder data;"]),
        (&["backup", "--data", "data", "--to", "/sys/pli"], &["/sys", "choose another place"]),
        (&["restore", "--from", "none", "--data", "new"], &["no folder none"]),
        (&["restore", "--from", "other", "--data", "new"], &["is no backup"]),
        (
            &["restore", "--from", "backup", "--data", "backup", "--replace"],
            &["lies in the data folder", "another --data"],
        ),
        (&["restore", "--from", "backup", "--data", "other"], &["holds data", "--replace"]),
        (&["restore", "--from", "backup", "--data", "file"], &["is not a folder"]),
        (&["restore", "--from", "backup", "--data", "no/such"], &["no folder", "--data"]),
    ] {
        refused(home, arguments, 6, words);
    }
    let pid = server.process.pid().to_string();
    refused(home, &["restore", "--from", "backup", "--data", "data", "--replace"], 5, &[&pid]);
    refused(home, &["restore", "--from", "backup", "--log-epoch-above", "9000"], 2, &["--log-epoch-above", "8191"]);
    refused(home, &["restore", "--from", "backup", "--data", "new", "--log-epoch-above", "8191"], 6, &["no log epoch"]);
    damaged_backups(home);
    assert!(!home.join("new").exists() && !home.join("data.replaced").exists());
}

/// Each file of a backup, changed, cut, or gone.
fn damaged_backups(home: &Path) {
    let restore = ["restore", "--from", "bad", "--data", "new"];
    let fresh = || {
        let _ = std::fs::remove_dir_all(home.join("bad"));
        std::fs::create_dir(home.join("bad")).expect("made");
        for entry in std::fs::read_dir(home.join("backup")).expect("there") {
            let entry = entry.expect("an entry");
            std::fs::copy(entry.path(), home.join("bad").join(entry.file_name())).expect("copied");
        }
    };
    for name in ["pli.db", "VERSION", "certificate.pem"] {
        fresh();
        let path = home.join("bad").join(name);
        let mut bytes = std::fs::read(&path).expect("read");
        *bytes.last_mut().expect("not empty") ^= 1;
        std::fs::write(&path, bytes).expect("written");
        refused(home, &restore, 6, &[name, "checksum", "take another backup"]);
        std::fs::remove_file(&path).expect("removed");
        refused(home, &restore, 6, &[name, "is missing"]);
    }
    let edit = |from: &str, to: &str| {
        fresh();
        let path = home.join("bad/manifest.json");
        let text = std::fs::read_to_string(&path).expect("read");
        assert!(text.contains(from), "{text}");
        std::fs::write(path, text.replacen(from, to, 1)).expect("written");
    };
    edit("\"data_version\": 1", "\"data_version\": 9");
    refused(home, &restore, 6, &["newer release", "data version is 9"]);
    edit("\"format\": 1", "\"format\": 2");
    refused(home, &restore, 6, &["newer release", "format is 2"]);
    edit("\"VERSION\"", "\"../VERSION\"");
    refused(home, &restore, 6, &["names other files"]);
    edit("{", "");
    refused(home, &restore, 6, &["is no manifest"]);
}

#[test]
fn a_group_that_somebody_had_not_joined_when_the_backup_was_taken_goes_on_as_one() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let mut server = Server::start(home);
    with_data(home, &["recv", "bob"]);
    // The invitation waits for bob in the backup, and again after each restore.
    with_data(home, &["group", "create", "alice", "team", "bob"]);
    back_up(home);
    for number in 1..=3 {
        server = go_back_and_talk(home, server, &format!("after {number}"));
    }
    for handle in ["alice", "bob"] {
        let live = with_data(home, &["group", "list", handle]);
        assert_eq!(live.lines().count(), 1, "{live}");
    }
}

#[test]
fn whoever_sends_after_a_restore_hears_of_it_and_of_a_handle_that_somebody_else_has() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let server = Server::start(home);
    with_data(home, &["recv", "alice"]);
    back_up(home);
    // Registered and talked to after the backup.
    with_data(home, &["recv", "bob"]);
    with_data(home, &["send", "alice", "bob", "to the first"]);
    let _server = go_back(home, server);
    let elsewhere = ["--home", "elsewhere"];
    with_data(home, &[&["send", "bob", "alice", "I am bob too"], elsewhere.as_slice()].concat());
    let said = |arguments: &[&str]| {
        let output = run(home, &[arguments, &["--data", "data"]].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let listed = said(&["group", "list", "alice"]);
    assert!(listed.contains("the server was restored from a backup"), "{listed}");
    assert!(listed.contains("@bob has a NEW identity key"), "{listed}");
    let sent = said(&["send", "alice", "bob", "who are you?"]);
    assert!(sent.contains("@bob has a NEW identity key") && !sent.contains("restored"), "{sent}");
    let printed = with_data(home, &["recv", "alice"]);
    assert!(printed.contains("@bob has a NEW identity key") && printed.contains("I am bob too"), "{printed}");
    assert_eq!(said(&["send", "alice", "bob", "hello then"]), "");
}

#[test]
fn a_recv_after_a_restore_tells_which_conversation_goes_on() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let server = Server::start(home);
    for handle in ["bob", "carol"] {
        with_data(home, &["recv", handle]);
    }
    with_data(home, &["group", "create", "alice", "team", "bob", "carol"]);
    with_data(home, &["send", "alice", "#team", "before"]);
    for handle in ["bob", "carol"] {
        with_data(home, &["recv", handle]);
    }
    back_up(home);
    let _server = go_back(home, server);
    // Known to the server again, so that bob can let carol in.
    let first = with_data(home, &["recv", "carol", "--json"]);
    with_data(home, &["send", "bob", "#team", "after"]);
    let all = [first, with_data(home, &["recv", "carol", "--json"])].concat();
    let events: Vec<Value> = all.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of = |word: &str| events.iter().find(|event| event["event"] == word);
    let message = of("message").unwrap_or_else(|| panic!("{events:?}"));
    let told = of("same_chat").map(|event| &event["into"]).or(of("ready").map(|event| &event["conversation"]));
    assert_eq!(told, Some(&message["conversation"]), "{events:?}");
}
