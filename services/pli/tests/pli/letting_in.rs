// SPDX-License-Identifier: MIT OR Apache-2.0
//! What both devices are told where a new one is not let in, or not at once.

use std::time::Duration;

use rustix::process::Signal;

use crate::linking::{
    LONG_CODE, alice_is_registered, asks_its_person, asks_its_person_with, at_a_terminal, is, link, refused, said,
    shows_code, with_data,
};
use crate::process::{Running, Server, pli};
use crate::terminal::Terminal;

#[test]
fn a_new_device_whose_name_is_taken_hears_so_and_not_that_somebody_said_no() {
    let (home, _server) = alice_is_registered();
    let home = home.path();
    link(home, "alice/laptop");
    let elsewhere = home.join("elsewhere").display().to_string();
    let links = ["device", "link", "alice/laptop", "--home", &elsewhere];
    let (mut new, code) = asks_its_person_with(home, &links);
    let (exit, why) = refused(home, &["device", "approve", "alice", &code, "--yes"]);
    assert!(exit == Some(1) && why.contains("is called \"laptop\" already"), "{exit:?} {why}");
    let heard = new.until("begin again under another name");
    assert!(heard.contains("refused: another device of the account is called like this one"), "{heard}");
    assert_eq!(new.ended().code(), Some(1));
    // From within a chat.
    let mut alice = at_a_terminal(home, &["chat", "alice"]);
    alice.until("connected over");
    let (mut new, code) = asks_its_person_with(home, &links);
    alice.keys(&format!("/approve {code}\r"));
    let why = alice.until("/unlink laptop");
    assert!(why.contains("is called \"laptop\" already"), "{why}");
    new.until("another device of the account is called like this one");
}

#[test]
fn a_qr_code_is_drawn_where_the_terminal_has_room_for_it_and_else_the_text_alone() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let _server = Server::start(home);
    said(home, &["recv", "alice"]);
    for (size, drawn) in [((0, 0), true), ((80, 0), true), ((80, 24), true), ((30, 24), false), ((80, 20), false)] {
        let links = with_data(&["device", "link", "alice/laptop", "--qr"]);
        let mut new = Terminal::start_in(pli(home, &links), size);
        new.until(" pli1");
        let says = format!("and this terminal has {} and {}; copy the text above", size.0, size.1);
        let shown = new.until(if drawn { "█" } else { "begin again" });
        assert_eq!(shown.contains(&says), !drawn, "{size:?}: {shown}");
    }
}

#[test]
fn a_chat_says_that_it_waits_for_a_new_device_that_has_died() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let _server = Server::start_with(home, 0, &LONG_CODE);
    let mut alice = at_a_terminal(home, &["chat", "alice"]);
    alice.until("connected over");
    let (mut new, code) = asks_its_person(home, "alice/laptop");
    alice.keys(&format!("/approve {code}\r"));
    alice.until("/no does not");
    new.until("[y/N]");
    drop(new);
    alice.keys("/yes\r");
    alice.until("waiting for the new device \"laptop\" to join; its code lives");
}

#[test]
fn a_device_that_is_linked_and_did_not_hear_so_is_said_to_be_linked() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let _server = Server::start_with(home, 0, &[("PLI_LINKS__RENDEZVOUS_MS", "12000")]);
    said(home, &["recv", "alice"]);
    let (mut new, code) = shows_code(home, "alice/laptop");
    let mut first = at_a_terminal(home, &["device", "approve", "alice", &code]);
    first.until("[y/N] ");
    new.json(is("link_offer"));
    // It says yes by itself, and is gone before anybody answers it.
    std::thread::sleep(Duration::from_secs(2));
    new.signal(Signal::KILL);
    new.wait();
    first.keys("y\r");
    let told = first.until("hands it over");
    assert!(told.contains("waiting for the new device \"laptop\" to join"), "{told}");
    assert!(told.contains("it is linked, and has not said that it knows"), "{told}");
    assert_eq!(first.ended().code(), Some(0));
    // As it says: the new device goes on where it was.
    let mut again = Running::start(pli(home, &with_data(&["device", "link", "alice/laptop", "--json"])));
    assert_eq!(again.json(is("linked"))["fresh"], true);
    assert_eq!(again.wait(), Some(0));
}

#[test]
fn a_new_device_that_is_ended_at_its_question_tells_the_first() {
    let (home, _server) = alice_is_registered();
    let home = home.path();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let (mut new, code) = asks_its_person(home, "alice/laptop");
        let mut first = at_a_terminal(home, &["device", "approve", "alice", &code, "--yes"]);
        new.until("[y/N] ");
        new.signal(signal);
        first.until("the new device declined: its user said no, or its program was ended");
        assert_eq!((first.ended().code(), new.ended().code()), (Some(1), Some(1)), "{signal:?}");
    }
    link(home, "alice/laptop");
}

#[test]
fn whoever_reads_the_code_of_a_new_device_that_was_ended_is_told_so_and_asked_nothing() {
    let (home, _server) = alice_is_registered();
    let home = home.path();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let (mut new, code) = asks_its_person(home, "alice/laptop");
        new.signal(signal);
        assert_eq!(new.ended().code(), Some(1), "{signal:?}");
        let (exit, why) = refused(home, &["device", "approve", "alice", &code, "--yes"]);
        assert!(exit == Some(1) && why.contains("the new device ended before its code was read"), "{exit:?} {why}");
    }
    link(home, "alice/laptop");
    let (exit, why) = refused(home, &["device", "link", "alice/phone", "--yes", "--timeout", "1"]);
    assert!(exit == Some(10) && why.contains("nobody has read the code"), "{exit:?} {why}");
}

#[test]
fn what_was_typed_before_a_new_device_asks_is_no_answer() {
    let (home, _server) = alice_is_registered();
    let home = home.path();
    let (mut new, code) = asks_its_person(home, "alice/laptop");
    new.keys("y\r");
    let mut first = at_a_terminal(home, &["device", "approve", "alice", &code]);
    first.keys("y\r");
    first.until("[y/N] ");
    new.until("[y/N] ");
    first.keys("y\r");
    // It would have joined by now.
    first.until("waiting for the new device");
    new.keys("n\r");
    new.until("declined: this device joined no account");
    assert_eq!((first.ended().code(), new.ended().code()), (Some(1), Some(1)));
}

#[test]
fn an_approval_that_is_ended_at_its_question_tells_the_new_device() {
    let (home, _server) = alice_is_registered();
    let home = home.path();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let (mut new, code) = asks_its_person(home, "alice/laptop");
        let mut first = at_a_terminal(home, &["device", "approve", "alice", &code]);
        first.until("[y/N] ");
        first.signal(signal);
        new.until("its program ended before anybody there answered");
        assert_eq!(first.ended().code(), Some(1), "{signal:?}");
        assert_eq!(new.ended().code(), Some(1), "{signal:?}");
    }
    let (mut new, code) = asks_its_person(home, "alice/laptop");
    let mut first = at_a_terminal(home, &["device", "approve", "alice", &code, "--timeout", "15"]);
    first.until("[y/N] ");
    new.until("its program ended before anybody there answered");
    assert_eq!((first.ended().code(), new.ended().code()), (Some(10), Some(1)), "nobody answered in time");
}
