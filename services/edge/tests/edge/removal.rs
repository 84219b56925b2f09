// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices that were removed from their account.

use std::sync::Arc;
use std::time::Duration;

use pli_api::ErrorCode;
use pli_api::edge::{Binding, Close, client_frame::Frame};
use pli_domain::Position;
use pli_edge::Config;
use pli_ports::Clock;

use crate::client::Client;
use crate::rig::{Door, Rig, device};

/// How long a removed device may still be served.
const WITHIN: Duration = Duration::from_secs(5);

fn assert_removed(close: Option<Close>) {
    let close = close.expect("a last frame");
    assert_eq!((close.reason.expect("a reason").code(), close.reconnect), (ErrorCode::DeviceRemoved, false));
}

#[tokio::test(start_paused = true)]
async fn the_session_of_a_removed_device_ends_and_no_other_begins() {
    let rig = Rig::new(Config::default()).await;
    let (mut tablet, mut other) = (rig.join(2).await, rig.join(3).await);
    rig.owners.removed(device(2).device).await;
    assert_removed(tokio::time::timeout(WITHIN, tablet.closed()).await.expect("in time"));
    // One whose hello was judged before the word came finds it when it enters.
    let mut late = rig.connect(2, Position::ZERO, 64);
    assert_removed(tokio::time::timeout(WITHIN, late.closed()).await.expect("in time"));
    let sent = other.message(1, b"hello");
    assert!(other.send_one(sent).await.is_ok(), "another device goes on");
    assert_eq!(rig.edge.sessions(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_a_service_ends_the_session_where_the_word_was_lost() {
    let rig = Rig::new(Config::default()).await;
    let mut tablet = rig.join(2).await;
    *rig.conversations.code.lock().unwrap() = Some(ErrorCode::DeviceRemoved);
    let answer = tablet.call(1, "/pli.conversations.v1.Conversations/Commit", Vec::new()).await;
    assert_eq!(answer.unwrap_err(), ErrorCode::DeviceRemoved);
    assert_removed(tablet.closed().await);
}

async fn hello(rig: &Rig, door: &Door) -> Client {
    let clock = rig.clock.clone() as Arc<dyn Clock>;
    let mut client = Client::over_ws_from(door, 2, clock, None).await;
    let hello = client.hello(&door.trust, Binding::TlsExporter, 0).await;
    client.say(Frame::Hello(hello)).await;
    client
}

#[tokio::test]
async fn a_removed_device_is_not_authenticated_although_its_key_is_still_believed() {
    let rig = Rig::new(Config::default()).await;
    let door = rig.listen().await;
    let mut tablet = hello(&rig, &door).await;
    tablet.ready().await;
    rig.owners.removed(device(2).device).await;
    assert_removed(tablet.closed().await);
    // The key is believed for seconds more, and the directory would still give it.
    assert_removed(hello(&rig, &door).await.closed().await);
}

#[tokio::test]
async fn a_device_that_the_directory_knows_as_removed_is_told_so() {
    let rig = Rig::new(Config::default()).await;
    let door = rig.listen().await;
    rig.directory.keys.lock().unwrap().remove(&device(2));
    *rig.directory.code.lock().unwrap() = Some(ErrorCode::DeviceRemoved);
    assert_removed(hello(&rig, &door).await.closed().await);
}
