// SPDX-License-Identifier: MIT OR Apache-2.0
//! An upload through a real server that is killed, over WebSocket.

use pli_api::ErrorCode;

use crate::meeting::{Place, Session};
use crate::process::Server;
use crate::uploading::{begin, finish, part, put, read};

fn place(server: &Server) -> Place {
    let fingerprint = server.about["fingerprint"].as_str().expect("a fingerprint").to_owned();
    Place { address: server.address(), fingerprint }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_after_the_server_was_killed() {
    let home = tempfile::tempdir().expect("a folder");
    let mut server = tokio::task::block_in_place(|| Server::start(home.path()));
    let (mut alice, identity) = Session::registered(&place(&server), "alice").await;
    assert_eq!(begin(&mut alice, 6).await.expect("begun").there.as_ref(), [0]);
    for number in 1..=6_u32 {
        put(&mut alice, number).await.expect("put");
        let port = server.port();
        server = tokio::task::block_in_place(|| {
            server.process.kill();
            Server::start_on(home.path(), port)
        });
        alice = Session::of(&place(&server), &identity).await;
        let there = begin(&mut alice, 6).await.expect("begun before").there;
        assert_eq!(u32::from(there[0]).count_ones(), number, "what was answered is there");
        if number < 6 {
            assert_eq!(finish(&mut alice).await.expect_err("parts are missing").code(), ErrorCode::UploadIncomplete);
        }
    }
    finish(&mut alice).await.expect("finished");
    let (mut bob, _) = Session::registered(&place(&server), "bob").await;
    assert_eq!(read(&mut bob, 1).await.expect_err("another account's").code(), ErrorCode::UploadUnknown);
    for number in 1..=6 {
        assert_eq!(read(&mut alice, number).await.expect("read"), part(number));
    }
}
