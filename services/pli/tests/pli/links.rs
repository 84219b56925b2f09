// SPDX-License-Identifier: MIT OR Apache-2.0
//! A rendezvous through a real server, over WebSocket.

use std::path::Path;
use std::time::{Duration, Instant};

use pli_api::ErrorCode;
use pli_api::links::Side;

use crate::meeting::{Code, End, Place, Session, exchange};
use crate::process::{Running, Server, pli};

fn place(server: &Server) -> Place {
    let fingerprint = server.about["fingerprint"].as_str().expect("a fingerprint").to_owned();
    Place { address: server.address(), fingerprint }
}

/// With other settings.
fn server(home: &Path, settings: &[(&str, &str)]) -> Server {
    let mut command = pli(home, &["dev", "--data", "data", "--port", "0", "--admin-port", "0", "--ready-json"]);
    command.envs(settings.iter().copied());
    let mut process = Running::start(command);
    let about = process.json(|value| value.get("url").is_some());
    Server { process, about }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_device_and_an_accounts_device_meet_and_nobody_else_comes_in() {
    let home = tempfile::tempdir().expect("a folder");
    let server = tokio::task::block_in_place(|| Server::start(home.path()));
    let (place, code) = (place(&server), Code::draw());
    let (alice, identity) = Session::registered(&place, "alice").await;
    let (mallory, _) = Session::registered(&place, "mallory").await;
    let mut new_one = End::open(Session::anonymous(&place).await, &code).await;

    let (error, nobody) = End::join(Session::anonymous(&place).await, &code).await.err().expect("is refused");
    assert_eq!(error.code(), ErrorCode::Anonymous);
    let other = Code::draw();
    let (error, alice) = End::join(alice, &other).await.err().expect("is refused");
    assert_eq!(error.code(), ErrorCode::RendezvousExpired);
    let wrong = Code { rendezvous: code.rendezvous.clone(), ..other };
    let (same, alice) = End::join(alice, &wrong).await.err().expect("is refused");
    assert_eq!(same, error, "a wrong secret and an id that never was");

    let mut first = End::join(alice, &code).await.map_err(|(error, _)| error).expect("joined");
    let (error, mallory) = End::join(mallory, &code).await.err().expect("is refused");
    assert_eq!(error.code(), ErrorCode::RendezvousTaken);
    exchange(&mut new_one, &mut first).await;
    let mut rival = End::again(mallory, &code, Side::Approver);
    assert_eq!(rival.wait(1, 0).await.expect_err("refused").code(), ErrorCode::RendezvousTaken);
    let mut nobody = End::again(nobody, &code, Side::Approver);
    assert_eq!(nobody.wait(1, 0).await.expect_err("refused").code(), ErrorCode::Anonymous);
    assert_eq!(new_one.put(1, b"other").await.expect_err("refused").code(), ErrorCode::BlobConflict);
    // The same device on a new session goes on.
    let mut first = End::again(Session::of(&place, &identity).await, &code, Side::Approver);
    assert_eq!(first.wait(1, 0).await.expect("there").len(), 16 * 1024);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rendezvous_goes_on_after_the_server_was_killed() {
    let home = tempfile::tempdir().expect("a folder");
    let server = tokio::task::block_in_place(|| Server::start(home.path()));
    let (at, code) = (place(&server), Code::draw());
    let (alice, identity) = Session::registered(&at, "alice").await;
    let mut new_one = End::open(Session::anonymous(&at).await, &code).await;
    new_one.put(1, b"before").await.expect("put");
    let joined = End::join(alice, &code).await;
    joined.map_err(|(error, _)| error).expect("joined").put(1, b"account").await.expect("put");
    let port = server.port();
    let server = tokio::task::block_in_place(|| {
        server.process.kill();
        Server::start_on(home.path(), port)
    });
    let at = place(&server);
    let mut new_one = End::again(Session::anonymous(&at).await, &code, Side::Opener);
    let mut first = End::again(Session::of(&at, &identity).await, &code, Side::Approver);
    assert_eq!(first.wait(1, 0).await.expect("there"), "before");
    assert_eq!(new_one.wait(1, 0).await.expect("there"), "account");
    new_one.put(1, b"before").await.expect("the same bytes");
    new_one.put(2, b"after").await.expect("put");
    assert_eq!(first.wait(2, 8_000).await.expect("there"), "after");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_is_told_and_gone() {
    let home = tempfile::tempdir().expect("a folder");
    let settings = [("PLI_LINKS__RENDEZVOUS_MS", "1500"), ("PLI_LINKS__SWEEP_EVERY_MS", "100")];
    let server = tokio::task::block_in_place(|| server(home.path(), &settings));
    let (at, code) = (place(&server), Code::draw());
    let mut new_one = End::open(Session::anonymous(&at).await, &code).await;
    new_one.put(1, b"sealed").await.expect("put");
    let begun = Instant::now();
    let over = new_one.wait(1, 8_000).await.expect_err("nobody came");
    assert_eq!(over.code(), ErrorCode::RendezvousExpired);
    assert!(over.message.contains("begin again on the new device"), "{over:?}");
    assert!(begun.elapsed() < Duration::from_secs(4), "after {:?}", begun.elapsed());
    let forgotten = || tokio::task::block_in_place(|| server.metric("pli_links_rendezvous_forgotten"));
    while forgotten() < 1.0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "not forgotten");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
