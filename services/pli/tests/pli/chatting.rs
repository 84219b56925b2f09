// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two people and a server.

use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::process::{Running, Server, failure, pli, run, run_with_input, text};

/// A message of `from` that says `text`.
fn says<'a>(from: &'a str, text: &'a str) -> impl Fn(&Value) -> bool + 'a {
    move |event| event["event"] == "message" && event["from"] == from && event["text"] == text
}

fn event<'a>(name: &'a str) -> impl Fn(&Value) -> bool + 'a {
    move |event| event["event"] == name
}

fn is_online(event: &Value) -> bool {
    event["event"] == "connection" && event["state"] == "online"
}

/// `pli recv` or `pipe` in JSON, connected.
fn following(home: &Path, arguments: &[&str]) -> Running {
    let mut process = Running::start(pli(home, arguments));
    process.json(is_online);
    process
}

fn register(home: &Path, handle: &str) {
    text(&run(home, &["recv", handle, "--data", "data"]));
}

#[test]
fn a_message_from_the_command_line_arrives_and_is_reported_as_far_as_asked() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    let mut bob = following(home.path(), &["recv", "bob", "--data", "data", "--json", "--follow"]);
    let said = text(&run(home.path(), &["send", "alice", "bob", "hello", "--data", "data", "--wait", "delivered"]));
    assert!(said.starts_with("1 message delivered"), "{said}");
    let message = bob.json(says("alice", "hello"));
    assert_eq!(message["late"], false);
    bob.signal(Signal::INT);
    assert_eq!(bob.wait(), Some(0));
}

#[test]
fn standard_input_is_sent_and_what_waited_is_printed_once() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    register(home.path(), "bob");
    text(&run_with_input(home.path(), &["send", "alice", "bob", "--data", "data", "--wait", "stored"], b"one\ntwo\n"));
    text(&run(home.path(), &["send", "alice", "bob", "many", "--count", "5", "--data", "data"]));
    let said = text(&run(home.path(), &["recv", "bob", "--json", "--data", "data"]));
    let events: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let texts: Vec<_> = events.iter().filter(|e| event("message")(e)).filter_map(|e| e["text"].as_str()).collect();
    assert_eq!(texts, ["one\ntwo", "many 1", "many 2", "many 3", "many 4", "many 5"]);
    let again = text(&run(home.path(), &["recv", "bob", "--json", "--data", "data"]));
    assert!(!again.contains("\"message\""), "{again}");
}

#[test]
fn a_message_that_another_command_took_is_printed_by_the_next_recv() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    register(home.path(), "bob");
    text(&run(home.path(), &["send", "alice", "bob", "m", "--count", "5", "--data", "data"]));
    text(&run(home.path(), &["send", "bob", "alice", "reply", "--data", "data", "--wait", "accepted"]));
    let printed = |arguments: &[&str]| {
        let said = text(&run(home.path(), &[&["recv", "bob", "--json", "--data", "data"], arguments].concat()));
        let events: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let messages = events.iter().filter(|e| event("message")(e));
        messages.filter_map(|e| e["text"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(printed(&["--count", "2"]), ["m 1", "m 2"]);
    assert_eq!(printed(&[]), ["m 3", "m 4", "m 5"]);
    assert_eq!(printed(&[]), Vec::<String>::new());
}

#[test]
fn what_is_told_once_is_printed_once_whatever_command_met_it() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let _server = Server::start(home);
    for (who, shape) in [("bob", &["--json"][..]), ("carol", &[])] {
        register(home, who);
        let team = format!("team-{who}");
        text(&run(home, &["group", "create", "alice", &team, who, "--data", "data"]));
        text(&run(home, &["send", "alice", &format!("#{team}"), "hello", "--data", "data"]));
        // A command that prints nothing takes all of it.
        text(&run(home, &["group", "remove", who, &team, "alice", "--data", "data"]));
        let printed = || text(&run(home, &[&["recv", who, "--data", "data"], shape].concat()));
        let (first, again) = (printed(), printed());
        let words = match shape {
            [] => ["first contact with @alice", &format!("added you to #{team}"), &format!("@alice #{team}: hello")],
            _ => ["\"new_key\"", "\"added_by_stranger\"", "\"message\""],
        };
        for word in words {
            assert_eq!(first.matches(word).count(), 1, "{word}: {first}");
            assert!(!again.contains(word), "{word}: {again}");
        }
        let orders: Vec<u64> =
            first.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()?["order"].as_u64()).collect();
        assert!(orders.windows(2).all(|pair| pair[0] < pair[1]), "in order: {first}");
        assert_eq!(orders.len(), if shape.is_empty() { 0 } else { 3 }, "{first}");
    }
}

#[test]
fn a_chat_begins_with_everything_that_was_not_printed_yet() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let _server = Server::start(home);
    register(home, "bob");
    // Takes what waits and prints nothing.
    let take = || text(&run(home, &["group", "list", "bob", "--data", "data"]));
    let chat = || String::from_utf8(run_with_input(home, &["chat", "bob", "--data", "data"], b"/quit\n").stdout);
    text(&run(home, &["send", "alice", "bob", "m", "--count", "320", "--data", "data"]));
    take();
    let said = chat().expect("text");
    assert_eq!(said.matches("first contact with @alice").count(), 1, "{said}");
    assert!(said.contains("20 more messages came before these"), "{said}");
    for number in 1..=320 {
        let times = said.lines().filter(|line| line.ends_with(&format!("@alice: m {number}"))).count();
        assert_eq!(times, usize::from(number > 20), "{number}: {said}");
    }
    text(&run(home, &["send", "alice", "bob", "later", "--data", "data"]));
    take();
    text(&run(home, &["send", "bob", "alice", "mine", "--data", "data"]));
    let said = chat().expect("text");
    let at = |words: &str| {
        assert_eq!(said.matches(words).count(), 1, "{words}: {said}");
        said.find(words).expect("there")
    };
    assert!(at("@alice: m 320") < at("@alice: later") && at("@alice: later") < at(": mine"), "{said}");
    let said = text(&run(home, &["recv", "bob", "--json", "--data", "data"]));
    assert!(!said.contains("\"order\""), "{said}");
}

/// Runs a line of shell in which `pli` is the binary.
fn shell(home: &Path, command: &str) -> std::process::Output {
    let pli = env!("CARGO_BIN_EXE_pli");
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &command.replace("pli ", &format!("{pli} "))]).current_dir(home).env_clear();
    shell.env("HOME", home).env("XDG_DATA_HOME", home.join("share")).env("PATH", "/usr/bin:/bin");
    shell.output().expect("runs")
}

#[test]
fn a_standard_error_that_takes_nothing_changes_no_exit_code() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    register(home.path(), "bob");
    let ended = shell(home.path(), "pli group list nobody --data data 2>/dev/full");
    assert_eq!(ended.status.code(), Some(6), "{ended:?}");
    let ended = shell(home.path(), "PLI_NOTHING=1 pli send alice bob hello --data data 2>/dev/full");
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(text(&run(home.path(), &["recv", "bob", "--data", "data"])).contains("hello"));
}

#[test]
fn what_a_closed_standard_output_did_not_take_is_printed_next_time() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    register(home.path(), "bob");
    text(&run(home.path(), &["send", "alice", "bob", "a", "--count", "3", "--data", "data"]));
    let ended = shell(home.path(), "pli recv bob --data data >&-");
    assert!(String::from_utf8_lossy(&ended.stderr).contains("standard output is closed"), "{ended:?}");
    let ended = shell(home.path(), "echo hello | pli pipe bob alice --data data --json >&-");
    assert!(ended.status.success(), "{ended:?}");
    // A reader that is gone before anything is written.
    let gone = "mkfifo f && { (: <f) & exec 3>f; wait; pli recv bob --data data >&3; }";
    shell(home.path(), gone);
    let said = text(&run(home.path(), &["recv", "bob", "--json", "--data", "data"]));
    for word in ["a 1", "a 2", "a 3"] {
        assert!(said.contains(&format!("\"{word}\"")), "{word} in {said}");
    }
    let again = text(&run(home.path(), &["recv", "bob", "--json", "--data", "data"]));
    assert!(!again.contains("\"message\""), "{again}");
}

#[test]
fn what_is_held_behind_a_hole_is_printed_before_recv_ends() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    for handle in ["bob", "carol"] {
        register(home.path(), handle);
    }
    let group = |arguments: &[&str]| text(&run(home.path(), &[&["group"], arguments, &["--data", "data"]].concat()));
    let say = |said: &str| text(&run(home.path(), &["send", "alice", "#team", said, "--data", "data"]));
    let read = || text(&run(home.path(), &["recv", "bob", "--data", "data"]));
    group(&["create", "alice", "team", "bob", "carol"]);
    say("with bob");
    assert!(read().contains("with bob"));
    group(&["remove", "alice", "team", "bob"]);
    say("without bob");
    group(&["add", "alice", "team", "bob"]);
    say("with bob again");
    // What was said while he was out is a hole in the lane, which is held for a while.
    let said = read();
    assert!(said.contains("with bob again") && !said.contains("without bob"), "{said}");
}

#[test]
fn a_member_waits_for_an_invitation_that_is_on_its_way() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    for handle in ["bob", "carol", "dave"] {
        register(home.path(), handle);
    }
    let mut dave = following(home.path(), &["pipe", "dave", "#team", "--json", "--data", "data"]);
    dave.say("hello from dave");
    dave.end_input();
    text(&run(home.path(), &["group", "create", "alice", "team", "bob", "dave", "--data", "data"]));
    dave.json(event("accepted"));
    assert_eq!(dave.wait(), Some(0));
    assert!(text(&run(home.path(), &["recv", "bob", "--data", "data"])).contains("hello from dave"));
    let (code, said) = failure(&run(home.path(), &["send", "carol", "#team", "x", "--data", "data", "--timeout", "2"]));
    assert_eq!(code, Some(8), "{said}");
    assert!(said.contains("there is no group `team`"), "{said}");
}

#[test]
fn a_server_whose_name_does_not_resolve_is_told_at_once() {
    let home = tempfile::tempdir().expect("a folder");
    let arguments = ["recv", "bob", "--server", "nowhere.invalid", "--timeout", "600"];
    let (code, said) = failure(&run(home.path(), &arguments));
    assert_eq!(code, Some(7), "{said}");
    assert!(said.contains("--server nowhere.invalid"), "{said}");
    assert!(!home.path().join("share").exists(), "no profile on a server that was never there");
}

#[test]
fn a_pipe_carries_both_directions_and_tells_ticks() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    register(home.path(), "bob");
    register(home.path(), "alice");
    let mut alice = Running::start(pli(home.path(), &["pipe", "alice", "bob", "--json", "--data", "data"]));
    let mut bob = following(home.path(), &["pipe", "bob", "alice", "--json", "--data", "data"]);
    alice.say("hello bob");
    bob.json(says("alice", "hello bob"));
    alice.json(event("accepted"));
    alice.json(event("delivered"));
    bob.say("hello alice");
    alice.json(says("bob", "hello alice"));
    for mut process in [alice, bob] {
        process.end_input();
        assert_eq!(process.wait(), Some(0));
    }
}

#[test]
fn messages_in_flight_when_the_server_dies_are_not_asked_for_again() {
    let home = tempfile::tempdir().expect("a folder");
    let first = Server::start(home.path());
    let port = first.port();
    register(home.path(), "bob");
    text(&run(home.path(), &["send", "alice", "bob", "before", "--data", "data", "--wait", "stored"]));
    first.process.kill();
    // The first receipts of a server that has heard of no owner, and it dies before anything is settled.
    let second = Server::start_on(home.path(), port);
    text(&run(home.path(), &["send", "alice", "bob", "m", "--count", "9", "--data", "data", "--wait", "accepted"]));
    second.process.kill();
    let third = Server::start_on(home.path(), port);
    text(&run(home.path(), &["send", "alice", "bob", "after", "--data", "data", "--wait", "stored"]));
    assert!(third.metric("pli_edge_receipts_stored") > 0.0);
    assert_eq!(third.metric("pli_edge_receipts_resend"), 0.0);
}

#[test]
fn what_is_typed_while_the_server_is_down_is_sent_when_it_is_back() {
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start(home.path());
    let port = server.port();
    let mut bob = following(home.path(), &["recv", "bob", "--data", "data", "--json", "--follow"]);
    text(&run(home.path(), &["send", "alice", "bob", "before", "--data", "data"]));
    bob.json(says("alice", "before"));
    server.process.kill();
    let arguments = ["send", "alice", "bob", "meanwhile", "--data", "data", "--timeout", "1"];
    let (code, said) = failure(&run(home.path(), &arguments));
    assert_eq!(code, Some(7), "{said}");
    assert!(said.contains("stays in the outbox"), "{said}");
    let _server = Server::start_on(home.path(), port);
    text(&run(home.path(), &["send", "alice", "bob", "after", "--data", "data"]));
    bob.json(says("alice", "meanwhile"));
    bob.json(says("alice", "after"));
}

#[test]
fn a_chat_shows_its_history_after_a_restart() {
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start(home.path());
    let port = server.port();
    register(home.path(), "bob");
    let mut alice = Running::start(pli(home.path(), &["chat", "alice", "--data", "data"]));
    alice.say("@bob hello from the chat");
    alice.until("✓ accepted");
    alice.say("/safety bob");
    alice.until("safety number with @bob");
    alice.say("/leave");
    alice.until("only a group can be left");
    alice.say("/quit");
    assert_eq!(alice.wait(), Some(13));
    server.process.kill();
    let _server = Server::start_on(home.path(), port);
    let mut alice = Running::start(pli(home.path(), &["chat", "alice", "--data", "data"]));
    alice.until("hello from the chat");
    let mut bob = Running::start(pli(home.path(), &["chat", "bob", "--data", "data"]));
    bob.until("first contact with @alice");
    bob.until("@alice: hello from the chat");
    alice.until("✓✓");
}

#[test]
fn a_group_is_made_changed_and_left() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    for handle in ["bob", "carol", "dave"] {
        register(home.path(), handle);
    }
    let group = |arguments: &[&str]| text(&run(home.path(), &[&["group"], arguments, &["--data", "data"]].concat()));
    group(&["create", "alice", "team", "bob", "carol"]);
    let mut bob = following(home.path(), &["recv", "bob", "--data", "data", "--json", "--follow"]);
    text(&run(home.path(), &["send", "alice", "#team", "hello team", "--data", "data"]));
    bob.json(says("alice", "hello team"));
    let said = group(&["add", "alice", "team", "dave"]);
    assert!(said.contains("dave"), "{said}");
    let has = |line: &Value, name: &str| line["members"].as_array().is_some_and(|all| all.iter().any(|m| m == name));
    bob.json(|line| line["event"] == "ready" && has(line, "dave"));
    let said = group(&["remove", "alice", "team", "dave"]);
    assert!(!said.contains("dave"), "{said}");
    let said = group(&["leave", "carol", "team"]);
    assert!(said.contains("left team"), "{said}");
    // What is not here is told at once, with what is, long before the time is up.
    for command in
        [&["leave", "dave", "guild"][..], &["add", "alice", "guild", "dave"], &["remove", "alice", "guild", "dave"]]
    {
        let all = [&["group"], command, &["--timeout", "600", "--data", "data"]].concat();
        let (code, said) = failure(&run(home.path(), &all));
        assert_eq!(code, Some(8), "{said}");
        assert!(said.contains("there is no group `guild`"), "{said}");
        assert_eq!(said.contains("#team"), command[1] == "alice", "{said}");
    }
    bob.json(|line| line["event"] == "member_removed" && line["member"] == "carol");
    bob.signal(Signal::INT);
    bob.wait();
}

#[test]
fn what_goes_to_many_shards_arrives_over_kills_of_the_server() {
    let home = tempfile::tempdir().expect("a folder");
    // Every message takes the way of those to many shards.
    let settings = [("PLI_CONVERSATIONS__FAN_OUT_ABOVE_SHARDS", "0")];
    let mut server = Server::start_with(home.path(), 0, &settings);
    let port = server.port();
    for handle in ["bob", "carol"] {
        register(home.path(), handle);
    }
    text(&run(home.path(), &["group", "create", "alice", "team", "bob", "carol", "--data", "data"]));
    let mut bob = following(home.path(), &["recv", "bob", "--data", "data", "--json", "--follow"]);
    for round in ["a", "b", "c"] {
        let send = ["send", "alice", "#team", round, "--count", "20", "--data", "data", "--wait", "accepted"];
        text(&run(home.path(), &send));
        server.process.kill();
        server = Server::start_with(home.path(), port, &settings);
    }
    text(&run(home.path(), &["send", "alice", "#team", "last", "--data", "data", "--wait", "stored"]));
    bob.json(says("alice", "last"));
    let texts = |said: &str| -> Vec<String> {
        let events = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter(|event| event["event"] == "message").map(|event| event["text"].to_string()).collect()
    };
    let of_bob = texts(&bob.seen().join("\n"));
    let of_carol = texts(&text(&run(home.path(), &["recv", "carol", "--data", "data", "--json"])));
    assert_eq!((of_bob.len(), of_carol.len()), (61, 61), "everything, once");
    assert_eq!(of_bob, of_carol);
    assert!(server.metric("pli_edge_fan_outs") > 0.0);
}

#[test]
fn two_who_write_first_at_once_have_one_chat_with_everything() {
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start(home.path());
    let port = server.port();
    register(home.path(), "alice");
    register(home.path(), "bob");
    server.process.kill();
    let send = |from: &str, to: &str, text: &str, more: &[&str]| {
        run(home.path(), &[&["send", from, to, text, "--data", "data"], more].concat())
    };
    for (from, to) in [("alice", "bob"), ("bob", "alice")] {
        let (code, said) = failure(&send(from, to, &format!("{from} says"), &["--count", "3", "--timeout", "1"]));
        assert_eq!(code, Some(7), "{said}");
    }
    let _server = Server::start_on(home.path(), port);
    let follow = |who| Running::start(pli(home.path(), &["recv", who, "--data", "data", "--json", "--follow"]));
    let mut both = [follow("alice"), follow("bob")];
    for (process, other) in both.iter_mut().zip(["bob", "alice"]) {
        for number in 1..=3 {
            process.json(says(other, &format!("{other} says {number}")));
        }
    }
    for process in &both {
        process.signal(Signal::INT);
    }
    assert_eq!(both.map(Running::wait), [Some(0), Some(0)]);
    text(&send("alice", "bob", "again alice", &["--wait", "stored"]));
    text(&send("bob", "alice", "again bob", &["--wait", "accepted"]));
    let mut alice = following(home.path(), &["pipe", "alice", "bob", "--json", "--data", "data"]);
    let mut bob = following(home.path(), &["pipe", "bob", "alice", "--json", "--data", "data", "--wait", "delivered"]);
    bob.say("piped");
    alice.json(says("bob", "piped"));
    for mut process in [alice, bob] {
        process.end_input();
        assert_eq!(process.wait(), Some(0));
    }
    for (who, other, last) in [("alice", "bob", "piped"), ("bob", "alice", "again alice")] {
        let mut chat = Running::start(pli(home.path(), &["chat", who, "--data", "data"]));
        chat.until("/help lists the commands");
        chat.say("/list");
        chat.say(&format!("@{other}"));
        chat.say("/history 50");
        chat.say("/quit");
        let said = chat.rest();
        let (listed, history) = said.split_once("the last").expect("a history");
        assert_eq!(listed.matches(" members)").count(), 1, "{listed}");
        assert!(history.starts_with(" 9 messages"), "{history}");
        for number in 1..=3 {
            for from in ["alice", "bob"] {
                assert_eq!(history.matches(&format!("{from} says {number}")).count(), 1, "{history}");
            }
        }
        assert_eq!(history.matches(last).count(), 1, "{history}");
    }
}

#[test]
fn two_groups_of_one_name_are_told_apart() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    for handle in ["bob", "stranger"] {
        register(home.path(), handle);
    }
    let group = |arguments: &[&str]| run(home.path(), &[&["group"], arguments, &["--data", "data"]].concat());
    let none = group(&["list", "bob"]);
    assert!(none.status.success() && none.stdout.is_empty(), "{none:?}");
    assert!(String::from_utf8_lossy(&none.stderr).contains("@bob is in no group"), "{none:?}");
    text(&group(&["create", "alice", "team", "bob"]));
    let (code, said) = failure(&group(&["create", "alice", "team", "bob"]));
    assert!(code != Some(0) && said.contains("choose another name"), "{said}");
    text(&group(&["create", "stranger", "team", "alice"]));
    let listed = text(&group(&["list", "alice"]));
    let names: Vec<&str> = listed.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    let theirs = names.iter().find(|name| name.starts_with("team~")).expect("the later one has a short id");
    assert!(names.contains(&"team"), "{listed}");
    let send = |to: &str, said: &str| run(home.path(), &["send", "alice", to, said, "--data", "data"]);
    text(&send("#team", "to the first"));
    text(&send(&format!("#{theirs}"), "to the second"));
    let read = |who: &str| text(&run(home.path(), &["recv", who, "--data", "data"]));
    let (bob, stranger) = (read("bob"), read("stranger"));
    assert!(bob.contains("to the first") && !bob.contains("to the second"), "{bob}");
    assert!(stranger.contains("to the second") && !stranger.contains("to the first"), "{stranger}");
    let (code, said) = failure(&send("#team~zz", "nowhere"));
    assert_eq!(code, Some(8), "{said}");
    assert!(said.contains("#team") && said.contains(theirs), "{said}");
}

#[test]
fn a_second_process_on_a_profile_names_the_first() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    let bob = following(home.path(), &["recv", "bob", "--data", "data", "--json", "--follow"]);
    let (code, said) = failure(&run(home.path(), &["recv", "bob", "--data", "data"]));
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains(&format!("process {} uses", bob.pid())), "{said}");
}

#[test]
fn nobody_under_a_handle_is_refused_with_its_code() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    let (code, said) = failure(&run(home.path(), &["send", "alice", "nobody", "hello", "--data", "data"]));
    assert_eq!(code, Some(8), "{said}");
    assert!(said.contains("NOT_FOUND"), "{said}");
}

#[test]
fn a_handle_that_nobody_may_claim_leaves_no_profile() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    for handle in ["bob.", ".bob", "....", "b__b"] {
        let (code, said) = failure(&run(home.path(), &["recv", handle, "--data", "data", "--home", "fresh"]));
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("use a letter or digit"), "{said}");
    }
    assert!(!home.path().join("fresh").exists());
}

#[test]
fn a_taken_handle_is_refused_in_another_home() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    register(home.path(), "bob");
    let (code, said) = failure(&run(home.path(), &["recv", "bob", "--data", "data", "--home", "elsewhere"]));
    assert_eq!(code, Some(8), "{said}");
    assert!(said.contains("HANDLE_TAKEN"), "{said}");
}

#[test]
fn a_server_with_another_certificate_is_not_trusted() {
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start(home.path());
    let (address, port) = (server.address(), server.port());
    register(home.path(), "bob");
    server.process.kill();
    std::fs::remove_dir_all(home.path().join("data")).expect("removed");
    let _server = Server::start_on(home.path(), port);
    for arguments in [&["--data", "data"][..], &["--data", "none", "--server", &address]] {
        let (code, said) = failure(&run(home.path(), &[&["recv", "bob"], arguments].concat()));
        assert_eq!(code, Some(7), "{said}");
        assert!(said.contains("move the profile folder"), "{said}");
    }
}

#[test]
fn without_a_server_the_fix_is_named() {
    let home = tempfile::tempdir().expect("a folder");
    let (code, said) = failure(&run(home.path(), &["recv", "bob"]));
    assert_eq!(code, Some(7), "{said}");
    assert!(said.contains("pli dev") && said.contains("--server"), "{said}");
}

#[test]
fn a_group_is_named_as_it_is_written_to_and_where_it_is_read() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    for handle in ["bob", "dave"] {
        register(home.path(), handle);
    }
    let group = |arguments: &[&str]| text(&run(home.path(), &[&["group"], arguments, &["--data", "data"]].concat()));
    group(&["create", "alice", "#team", "bob"]);
    group(&["add", "alice", "#team", "dave"]);
    text(&run(home.path(), &["send", "alice", "#team", "hello", "--data", "data"]));
    let said = text(&run(home.path(), &["recv", "bob", "--data", "data"]));
    assert!(said.contains("@alice #team: hello"), "{said}");
    let said = text(&run(home.path(), &["recv", "dave", "--json", "--data", "data"]));
    let events: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let message = events.iter().find(|event| says("alice", "hello")(event)).expect("a message");
    assert_eq!(message["group"], "team");
}

#[test]
fn a_standard_output_that_takes_nothing_is_an_error_and_a_closed_pipe_is_none() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    register(home.path(), "bob");
    for command in ["pli config print", "pli send alice bob hello --data data", "pli doctor --data data"] {
        let ended = shell(home.path(), &format!("{command} >/dev/full"));
        assert_eq!(ended.status.code(), Some(12), "{ended:?}");
        assert!(String::from_utf8_lossy(&ended.stderr).contains("standard output cannot be written"), "{ended:?}");
    }
    for command in ["pli recv bob --data data", "echo hi | pli pipe bob alice --json --data data"] {
        let ended = shell(home.path(), &format!("{command} >/dev/full"));
        assert_eq!(ended.status.code(), Some(12), "{ended:?}");
    }
    let said = text(&run(home.path(), &["recv", "bob", "--data", "data"]));
    assert!(said.contains("@alice: hello"), "what was not printed waits: {said}");
    // A reader that is gone before anything is written.
    let ended = shell(home.path(), "mkfifo g && { (: <g) & exec 3>g; wait; pli config print >&3; }");
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
}

#[test]
fn what_waits_at_the_end_is_told_and_counted() {
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start(home.path());
    register(home.path(), "bob");
    text(&run(home.path(), &["send", "alice", "bob", "before", "--data", "data"]));
    server.process.kill();
    let mut alice = Running::start(pli(home.path(), &["chat", "alice", "--data", "data"]));
    alice.say("@bob one");
    alice.say("@bob two");
    alice.say("/quit");
    alice.until("2 messages wait to be sent");
    assert_eq!(alice.wait(), Some(7));
    let arguments = ["send", "alice", "bob", "m", "--count", "5", "--timeout", "1", "--data", "data"];
    let (code, said) = failure(&run(home.path(), &arguments));
    assert_eq!(code, Some(7), "{said}");
    assert!(said.contains("of 5 messages 0 are accepted, 5 wait in the outbox"), "{said}");
}

#[test]
fn the_size_of_a_text_that_is_too_long_is_the_true_one() {
    let home = tempfile::tempdir().expect("a folder");
    let (code, said) = failure(&run_with_input(home.path(), &["send", "alice", "bob"], &[b'x'; 50_000]));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("50000 bytes"), "{said}");
}

#[test]
fn a_profile_without_its_key_or_in_the_folder_of_another_handle_is_refused_with_the_fix() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    register(home.path(), "bob");
    text(&run(home.path(), &["send", "alice", "bob", "hello", "--data", "data"]));
    let profiles = home.path().join("share/pli");
    let of_server =
        std::fs::read_dir(&profiles).expect("profiles").next().expect("one server").expect("readable").path();
    std::fs::rename(of_server.join("alice"), of_server.join("mallory")).expect("renamed");
    let (code, said) = failure(&run(home.path(), &["send", "mallory", "bob", "hello", "--data", "data"]));
    assert_eq!(code, Some(6), "{said}");
    assert!(said.contains("is that of @alice, not of @mallory"), "{said}");
    std::fs::rename(of_server.join("mallory"), of_server.join("alice")).expect("renamed");
    let key = std::fs::read(of_server.join("alice/key")).expect("the key");
    std::fs::remove_file(of_server.join("alice/key")).expect("removed");
    let (code, said) = failure(&run(home.path(), &["send", "alice", "bob", "hello", "--data", "data"]));
    assert_eq!(code, Some(6), "{said}");
    assert!(said.contains("key is gone, ") && said.contains("put it back"), "{said}");
    assert!(!of_server.join("alice/key").exists(), "no new one is made");
    std::fs::write(of_server.join("alice/key"), key).expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(of_server.join("alice/key"), mode).expect("set");
    text(&run(home.path(), &["send", "alice", "bob", "again", "--data", "data"]));
}

#[test]
fn an_argument_that_is_refused_does_not_steer_the_terminal() {
    let home = tempfile::tempdir().expect("a folder");
    for handle in ["\u{1b}[31mred", "b\u{202e}ob"] {
        let (code, said) = failure(&run(home.path(), &["send", "alice", handle, "hello"]));
        assert_eq!(code, Some(2), "{said}");
        assert!(!said.contains(['\u{1b}', '\u{202e}']), "{said:?}");
    }
}

#[test]
fn a_profile_whose_database_is_gone_says_that_its_keys_are() {
    let home = tempfile::tempdir().expect("a folder");
    let _server = Server::start(home.path());
    register(home.path(), "bob");
    let profiles = std::fs::read_dir(home.path().join("share/pli")).expect("profiles");
    let folder = profiles.flatten().next().expect("of one server").path().join("bob");
    for emptied in [&b""[..], b"x", b""] {
        for name in ["profile.db-wal", "profile.db-shm"] {
            let _ = std::fs::remove_file(folder.join(name));
        }
        std::fs::write(folder.join("profile.db"), emptied).expect("emptied");
        let (code, said) = failure(&run(home.path(), &["recv", "bob", "--data", "data"]));
        assert_eq!(code, Some(6), "{said}");
        assert_eq!(said.matches("keys of this profile are gone").count(), 1, "{said}");
    }
}

#[test]
fn doctor_looks_at_the_ports_of_the_folders_server() {
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start(home.path());
    let said = String::from_utf8_lossy(&run(home.path(), &["doctor", "--data", "data"]).stdout).into_owned();
    assert!(said.contains(&format!("{} is served by this folder's server", server.address())), "{said}");
}
