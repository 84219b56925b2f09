// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which certificate a client trusts, and how it ends where a server shows another one.

use std::path::Path;

use pli_client::core::ConnectionState;
use pli_client::{Client, Status};

use crate::process::{Server, failure, run, text};

/// What a command says that is given this fingerprint.
fn with_fingerprint(server: &Server, home: &Path, command: &[&str], fingerprint: &str) -> (Option<i32>, String) {
    let address = server.address();
    let place = ["--server", &address, "--fingerprint", fingerprint, "--timeout", "5"];
    let output = run(home, &[command, &place].concat());
    let (code, why) = failure(&output);
    (code, why + &String::from_utf8_lossy(&output.stdout))
}

#[test]
fn a_wrong_fingerprint_at_first_use_is_refused_and_not_kept() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let server = Server::start(home);
    let right = server.about["fingerprint"].as_str().expect("a fingerprint");
    let wrong = "ab".repeat(32);
    for transport in ["auto", "ws", "quic"] {
        let command = ["device", "list", "alice", "--transport", transport];
        let first = if transport == "auto" { &["recv", "alice"][..] } else { &command };
        let (code, why) = with_fingerprint(&server, home, first, &wrong);
        assert_eq!(code, Some(7), "{transport}: {why}");
        assert!(why.contains(&wrong) && why.contains("none is pinned yet"), "{transport}: {why}");
        assert!(why.contains("give the right one with the next run, too"), "{transport}: {why}");
    }
    let link = ["device", "link", "alice/laptop", "--yes", "--json"];
    let (code, why) = with_fingerprint(&server, home, &link, &wrong);
    assert!(code == Some(7) && why.contains("that was given is wrong") && !why.contains("link_code"), "{code:?} {why}");

    let (code, said) = with_fingerprint(&server, home, &["device", "list", "alice"], right);
    assert_eq!(code, Some(0), "the right one is taken, and nothing needs to be removed first: {said}");
    let (_, said) = with_fingerprint(&server, home, &link, right);
    assert!(said.contains("link_code"), "{said}");
    for command in [&["device", "list", "alice"][..], &link] {
        let (code, why) = with_fingerprint(&server, home, command, &wrong);
        let told = why.contains(&format!("trusts the certificate {right}, not {wrong}"));
        assert!(code == Some(7) && told, "now it is pinned: {command:?}: {code:?} {why}");
    }
    // Without a fingerprint the first one seen is, as before.
    let address = server.address();
    text(&run(home, &["recv", "bob", "--server", &address, "--data", "none"]));
    let (code, why) = with_fingerprint(&server, home, &["recv", "bob"], &wrong);
    assert!(code == Some(7) && why.contains("trusts the certificate"), "{code:?} {why}");
}

#[test]
fn the_file_of_a_server_that_is_gone_makes_no_profile_useless() {
    let homes = [(), ()].map(|()| tempfile::tempdir().expect("a folder"));
    let [home, elsewhere] = homes.each_ref().map(|home| home.path());
    let gone = Server::start(elsewhere);
    let port = gone.port();
    gone.process.kill();
    let server = Server::start_on(home, port);
    let address = server.address();
    // As a person works who has a data folder of before beside them: its server had the same port.
    let stale = elsewhere.join("data").display().to_string();
    let recv = |name: &str, server: &[&str]| run(home, &[&["recv", name, "--data", &stale], server].concat());
    text(&recv("alice", &["--server", &address]));
    text(&recv("alice", &["--server", &address]));
    text(&recv("alice", &[]));
    let (code, why) = failure(&recv("bob", &[]));
    assert!(code == Some(7) && why.contains("does not run"), "{code:?} {why}");
    assert!(why.contains("stands in the server's data folder") && why.contains("--server"), "{why}");
    text(&recv("bob", &["--server", &address]));
}

#[test]
fn one_address_that_shows_another_certificate_keeps_nobody_from_the_others() {
    let homes = [(), ()].map(|()| tempfile::tempdir().expect("a folder"));
    let [right, wrong] = homes.each_ref().map(|home| Server::start(home.path()));
    let home = homes[0].path();
    for (name, servers) in [("alice", [&right, &wrong]), ("bob", [&wrong, &right])] {
        let addresses = servers.map(Server::address).join(",");
        let fingerprint = right.about["fingerprint"].as_str().expect("a fingerprint");
        let place = ["--server", &addresses, "--data", "none", "--fingerprint", fingerprint];
        for _ in 0..3 {
            text(&run(home, &[&["recv", name][..], &place].concat()));
        }
        let laptop = format!("{name}/laptop");
        let link = [&["device", "link", &laptop, "--yes", "--timeout", "3", "--json"][..], &place].concat();
        let output = run(home, &link);
        assert!(String::from_utf8_lossy(&output.stdout).contains("link_code"), "{output:?}");
    }
    let (code, why) = failure(&run(
        home,
        &["recv", "carol", "--server", &right.address(), "--data", "none", "--fingerprint", &"ab".repeat(32)],
    ));
    assert_eq!(code, Some(7), "one that is the only one ends it: {why}");
}

#[test]
fn a_handle_that_no_server_hears_of_says_what_was_tried_and_where_its_keys_are() {
    let home = tempfile::tempdir().expect("a folder");
    let closed = [(), ()].map(|()| std::net::TcpListener::bind("127.0.0.1:0").expect("a port"));
    let closed = closed.map(|port| port.local_addr().expect("an address").to_string());
    let servers = closed.join(",");
    let send = ["send", "alice", "bob", "hello", "--server", &servers, "--data", "none", "--timeout", "3"];
    let (code, why) = failure(&run(home.path(), &send));
    assert_eq!(code, Some(7), "{why}");
    for tried in &closed {
        assert!(why.contains(tried.as_str()), "{why}");
    }
    assert!(why.contains("@alice is not registered yet, its keys and what it was given to send wait in "), "{why}");
    let folder = why.split_once("to send wait in ").and_then(|(_, rest)| rest.split_once(':')).expect("a folder").0;
    assert!(std::path::Path::new(folder).is_dir(), "{folder}");
}

#[tokio::test]
async fn somebody_who_has_the_address_for_a_while_does_not_end_a_client_that_was_connected() {
    let homes = [(), ()].map(|()| tempfile::tempdir().expect("a folder"));
    let server = Server::start(homes[0].path());
    let (address, port) = (server.address(), server.port());
    let client = Client::builder(&address, "alice").home(homes[0].path().join("home"));
    let (client, _events) = client.connect().await.expect("opened");
    client.online().await.expect("online");
    server.process.kill();

    let impostor = Server::start_on(homes[1].path(), port);
    let mut status = client.status();
    let met = |status: &Status| status.ended || status.why.as_ref().is_some_and(|why| why.contains("certificate"));
    let why = status.wait_for(met).await.expect("a status").why.clone();
    assert_eq!(client.ended().map(|end| end.to_string()), None, "{why:?}");
    impostor.process.kill();

    let _server = Server::start_on(homes[0].path(), port);
    let back = status.wait_for(|status| status.ended || status.state == ConnectionState::Online).await;
    assert!(!back.expect("a status").ended, "{:?}", client.ended());
    client.close().await;
}
