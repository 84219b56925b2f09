// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices of an account, through a real server.

use crate::meeting::Place;
use crate::process::Server;
use crate::removing::a_removed_device_is_out;

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_removed_is_out_and_stays_out() {
    let home = tempfile::tempdir().expect("a folder");
    let server = tokio::task::block_in_place(|| Server::start(home.path()));
    let fingerprint = server.about["fingerprint"].as_str().expect("a fingerprint").to_owned();
    let place = Place { address: server.address(), fingerprint };
    a_removed_device_is_out(&place, &place, "alice").await;
}
