// SPDX-License-Identifier: MIT OR Apache-2.0
//! A history goes from the first device to a companion, through kills of everybody, and nothing else does.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::process::{Running, Server, failure, pli, run, run_with_input, text};

/// Length of a part.
const PART: usize = 65_536;
/// Calls about uploads come back slowly, so that a kill is in the middle.
const SLOWLY: [(&str, &str); 2] =
    [("PLI_MEDIA__MEDIA_CALLS_PER_ACCOUNT__BURST", "8"), ("PLI_MEDIA__MEDIA_CALLS_PER_ACCOUNT__PER_MINUTE", "300")];
/// The upload that begins an archive.
const GIVE: &[&str] = &["device", "history", "alice", "--to", "laptop", "--json"];
const TAKE: &[&str] = &["device", "history", "alice/laptop", "--json"];
/// Enough for a connection on a machine that has much to do.
const WAITS_LITTLE: &[&str] = &["--timeout", "8"];

fn with_data<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [arguments, &["--data", "data"]].concat()
}

fn said(home: &Path, arguments: &[&str]) -> String {
    text(&run(home, &with_data(arguments)))
}

fn refused(home: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    failure(&run(home, &with_data(arguments)))
}

/// The last line, which says what was done.
fn done(home: &Path, arguments: &[&str]) -> Value {
    let lines = said(home, arguments);
    serde_json::from_str(lines.lines().last().expect("a line")).expect("JSON")
}

/// One more device of Alice's.
pub fn link(home: &Path, name: &str) {
    link_of(home, "alice", name);
}

/// The same of anybody's.
fn link_of(home: &Path, handle: &str, name: &str) {
    let mut new = Running::start(pli(home, &with_data(&["device", "link", name, "--yes", "--json"])));
    let code = new.json(|event| event["event"] == "link_code")["code"].as_str().expect("text").to_owned();
    said(home, &["device", "approve", handle, &code, "--yes"]);
    assert_eq!(new.wait(), Some(0));
}

/// Runs a command and kills it when so many parts are there.
fn killed_at(home: &Path, arguments: &[&str], parts: u64) {
    let mut running = Running::start(pli(home, &with_data(arguments)));
    running.json(|event| event["event"] == "history_part" && event["done"].as_u64() >= Some(parts));
    running.kill();
}

/// A conversation of a dozen parts, with bob, in which everybody says something that is looked for.
fn long_history(home: &Path) {
    said(home, &["recv", "bob"]);
    said(home, &["send", "alice", "bob", "first of all"]);
    said(home, &["recv", "bob"]);
    said(home, &["send", "bob", "alice", "second from bob"]);
    let long: String = (0..30).map(|n| format!("{n} {}\n", "x".repeat(30_000))).collect();
    text(&run_with_input(home, &with_data(&["pipe", "alice", "bob"]), long.as_bytes()));
    said(home, &["send", "alice", "bob", "last before the laptop"]);
}

fn folder(home: &Path, profile: &str) -> PathBuf {
    let profiles = home.join("share/pli");
    let server = fs::read_dir(profiles).expect("profiles").next().expect("a server").expect("read").path();
    server.join(profile)
}

/// The archives in a profile's folder.
fn archives(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("history-"))).collect()
}

fn again(home: &Path, server: Server, settings: &[(&str, &str)]) -> Server {
    let port = server.port();
    server.process.kill();
    Server::start_with(home, port, settings)
}

#[test]
fn older_messages_come_to_a_companion_in_order_and_once_through_kills_of_everybody() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let server = Server::start_with(home, 0, &SLOWLY);
    long_history(home);
    link(home, "alice/laptop");
    said(home, &["recv", "bob"]);
    said(home, &["send", "bob", "alice", "after the link"]);
    assert!(said(home, &["recv", "alice/laptop"]).contains("after the link"));

    killed_at(home, GIVE, 3);
    assert_eq!(archives(&folder(home, "alice")).len(), 1, "what was sealed is kept");
    let (code, why) = refused(home, &[TAKE, WAITS_LITTLE].concat());
    assert!(code == Some(10) && why.contains("not whole") && why.contains("first device"), "{code:?} {why}");
    let server = again(home, server, &SLOWLY);
    let given = done(home, GIVE);
    let resumed = given["resumed"].as_u64().expect("a number");
    let parts = given["parts"].as_u64().expect("a number");
    assert!(given["event"] == "history_handed_over" && (3..parts).contains(&resumed), "{given}");
    assert!(archives(&folder(home, "alice")).is_empty());
    let messages = given["messages"].as_u64().expect("a number");
    assert!(messages >= 33, "{given}");

    killed_at(home, TAKE, 3);
    let kept = archives(&folder(home, "alice+laptop"));
    let [kept] = kept.as_slice() else { panic!("one file: {kept:?}") };
    assert!(fs::metadata(kept).expect("a file").len() >= 3 * PART as u64);
    let server = again(home, server, &SLOWLY);
    let taken = done(home, TAKE);
    assert!(taken["event"] == "history_taken_in" && taken["messages"] == messages, "{taken}");
    assert_eq!(taken["new"], messages - 1, "what came after the link was there: {taken}");
    assert!(archives(&folder(home, "alice+laptop")).is_empty());

    assert!(!said(home, &["recv", "alice/laptop"]).contains("before the laptop"), "history is not news");
    let mut chat = Running::start(pli(home, &with_data(&["chat", "alice/laptop"])));
    chat.until("last before the laptop");
    chat.until("after the link");
    chat.say("@bob");
    chat.say("/history 100");
    chat.until("first of all");
    chat.until("second from bob");
    chat.until("last before the laptop");
    chat.until("after the link");
    chat.end_input();
    chat.wait();

    // Once more: nothing is new, and what was taken in is not there any more.
    let server = again(home, server, &[]);
    let given = done(home, GIVE);
    assert_eq!(given["resumed"], 0, "{given}");
    assert_eq!(done(home, TAKE)["new"], 0);
    let (code, why) = refused(home, &[TAKE, WAITS_LITTLE].concat());
    let line = format!("device history alice --to laptop --server {}`", server.address());
    assert!(code == Some(10) && why.contains(&line), "{code:?} {why}");
    drop(server);
}

/// What becomes of the parts that a killed command left, with those of another account's archive at hand.
type Change = fn(Vec<Vec<u8>>, &[Vec<u8>]) -> Vec<Vec<u8>>;

/// Each with the part that is then refused.
const CHANGES: [(&str, Change, Option<u32>); 4] = [
    (
        "re-ordered",
        |mut parts, _| {
            parts.swap(0, 1);
            parts
        },
        Some(1),
    ),
    (
        "one twice",
        |mut parts, _| {
            parts[2] = parts[1].clone();
            parts
        },
        Some(3),
    ),
    ("of another account", |parts, theirs| theirs.iter().take(parts.len()).cloned().collect(), Some(1)),
    // Half a part is what a kill leaves: it is fetched again.
    (
        "cut",
        |mut parts, _| {
            if let Some(last) = parts.last_mut() {
                last.truncate(99);
            }
            parts
        },
        None,
    ),
];

/// The one archive that a killed command left in a profile's folder.
fn kept(home: &Path, profile: &str) -> PathBuf {
    let mut kept = archives(&folder(home, profile));
    assert_eq!(kept.len(), 1, "{kept:?}");
    kept.remove(0)
}

fn parts_in(file: &Path) -> Vec<Vec<u8>> {
    fs::read(file).expect("read").chunks(PART).map(<[u8]>::to_vec).collect()
}

/// Parts of what bob's first device sealed for another device of his.
fn parts_of_bob(home: &Path) -> Vec<Vec<u8>> {
    said(home, &["recv", "bob"]);
    link_of(home, "bob", "bob/desk");
    done(home, &["device", "history", "bob", "--to", "desk", "--json"]);
    killed_at(home, &["device", "history", "bob/desk", "--json"], 3);
    let parts = parts_in(&kept(home, "bob+desk"));
    assert!(parts.len() >= 3, "{} parts", parts.len());
    parts
}

/// The laptop shows the whole of [`long_history`], as it was written.
fn all_is_shown_in_order(home: &Path) {
    assert!(!said(home, &["recv", "alice/laptop"]).contains("before the laptop"), "history is not news");
    let mut chat = Running::start(pli(home, &with_data(&["chat", "alice/laptop"])));
    chat.until("connected");
    chat.say("@bob");
    chat.say("/history 100");
    chat.until("first of all");
    (0..30).for_each(|n| chat.until(&format!("{n} xxx")));
    chat.until("last before the laptop");
    // It came while alice wrote, wherever that was.
    assert!(chat.seen().iter().any(|line| line.contains("second from bob")));
    chat.end_input();
    chat.wait();
}

#[test]
fn an_archive_that_is_not_what_was_sealed_is_refused_in_words() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let _server = Server::start_with(home, 0, &SLOWLY);
    long_history(home);
    link(home, "alice/laptop");
    let given = done(home, GIVE);
    assert!(given["parts"].as_u64() > Some(3), "{given}");
    let theirs = parts_of_bob(home);
    for (what, change, refused_at) in CHANGES {
        killed_at(home, TAKE, 3);
        let kept = kept(home, "alice+laptop");
        fs::write(&kept, change(parts_in(&kept), &theirs).concat()).expect("written");
        let Some(part) = refused_at else { continue };
        let (code, why) = refused(home, TAKE);
        let named = why.contains(&format!("part {part} of the archive does not open"));
        let told = named && why.contains("of another account") && why.contains("hand the history over again");
        assert!(code == Some(1) && told, "{what}: {code:?} {why}");
        assert!(archives(&folder(home, "alice+laptop")).is_empty(), "what does not open is not kept");
    }
    let taken = done(home, TAKE);
    assert!(given["messages"].as_u64() >= Some(33), "{given}");
    assert_eq!((&taken["messages"], &taken["new"]), (&given["messages"], &given["messages"]), "{taken}");
    all_is_shown_in_order(home);
}

#[test]
fn who_may_not_hand_over_or_take_in_is_told_what_to_do() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let server = Server::start(home);
    said(home, &["recv", "bob"]);
    said(home, &["send", "alice", "bob", "hello"]);
    link(home, "alice/laptop");
    for (arguments, exit, words) in [
        (&["device", "history", "alice"][..], 2, "--to laptop"),
        (&["device", "history", "alice", "--to", "tablet"], 1, "no device `tablet`"),
        (&["device", "history", "alice/laptop", "--to", "laptop"], 2, "leave out --to"),
        (&["device", "history", "carol", "--to", "laptop"], 6, "carol"),
        (&["device", "history", "alice/tablet"], 6, "alice/tablet"),
    ] {
        let (code, why) = refused(home, arguments);
        assert!(code == Some(exit) && why.contains(words), "{arguments:?}: {code:?} {why}");
    }
    let given = said(home, &["device", "history", "alice", "--to", "laptop"]);
    // The other device may be another computer: no folder of this one is named, nor what its profile is surely not called.
    let there = format!("pli device history alice/NAME --server {}` there takes them in", server.address());
    assert!(given.contains("1 message for laptop") && given.contains(&there), "{given}");
    assert!(given.contains("as (laptop, unless it was renamed since)") && !given.contains("--data"), "{given}");
    said(home, &["device", "rename", "alice", "laptop", "work laptop"]);
    let given = said(home, &["device", "history", "alice", "--to", "work laptop"]);
    assert!(given.contains("1 message for work laptop") && given.contains(&there), "{given}");
    assert!(given.trim_end().ends_with("NAME is what it was linked as") && !given.contains("alice/work"), "{given}");
    said(home, TAKE);
    let (code, why) = refused(home, &[TAKE, WAITS_LITTLE].concat());
    let line = format!("device history alice --to 'work laptop' --server {}`", server.address());
    assert!(code == Some(10) && why.contains(&line), "by the name that it has in the list: {code:?} {why}");
    said(home, &["device", "remove", "alice", "work laptop"]);
    let (code, why) = refused(home, &["device", "history", "alice", "--to", "laptop"]);
    assert!(code == Some(1) && why.contains("no device `laptop`"), "{code:?} {why}");
    let (code, why) = refused(home, TAKE);
    assert!(code == Some(8) && why.contains("DEVICE_REMOVED"), "{code:?} {why}");
}
