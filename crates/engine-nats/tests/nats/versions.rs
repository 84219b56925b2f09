// SPDX-License-Identifier: MIT OR Apache-2.0
//! Processes of two versions of the protocol between roles on one bus.

use bytes::Bytes;
use pli_domain::ShardId;
use pli_domain::protocol::RoleProtocol;
use pli_engine_nats::NatsOptions;
use pli_ports::{SignalEvent, Subject};
use tokio::time::timeout;

use crate::support::{SOON, engine, one_server, options, raw};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_versions_talk_and_one_that_is_not_understood_is_refused_with_the_fix() {
    let test = "two_versions_talk_and_one_that_is_not_understood_is_refused_with_the_fix";
    let Some(servers) = one_server(test).await else { return };
    let subject = Subject::owner(ShardId::new(1));
    let new = engine(options(&servers)).await;
    let old = engine(NatsOptions { protocol: RoleProtocol::OLDEST, ..options(&servers) }).await;
    for (asks, answers) in [(&old, &new), (&new, &old)] {
        let mut subscription = answers.signals().subscribe(&subject).await.unwrap();
        let answering = tokio::spawn(async move {
            let Some(SignalEvent::Signal(signal)) = subscription.next().await else { panic!("no request") };
            signal.respond.unwrap().respond(signal.payload).await;
        });
        let answer = asks.signals().request(&subject, Bytes::from_static(b"hello"), SOON).await.unwrap();
        assert_eq!(&answer[..], b"hello");
        answering.await.unwrap();
    }
    let mut subscription = new.signals().subscribe(&subject).await.unwrap();
    let mut headers = async_nats::HeaderMap::new();
    headers.insert(RoleProtocol::HEADER, "3");
    let stranger = raw(&servers).await;
    let request = stranger.request_with_headers(subject.as_str().to_owned(), headers, Bytes::from_static(b"?"));
    let refusal = timeout(SOON, request).await.unwrap().unwrap();
    let why = refusal.headers.unwrap().get("pli-refused").unwrap().as_str().to_owned();
    assert!(why.contains("version 3") && why.contains("update all processes"), "{why}");
    // What was refused does not arrive; what is understood does.
    old.signals().publish(&subject, Bytes::from_static(b"next")).await.unwrap();
    let next = timeout(SOON, subscription.next()).await.unwrap();
    assert!(matches!(&next, Some(SignalEvent::Signal(signal)) if &signal.payload[..] == b"next"), "{next:?}");
}
