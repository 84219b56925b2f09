// SPDX-License-Identifier: MIT OR Apache-2.0
//! One message, followed from the sender's edge to the recipient's: `pli explain` finds every hop over three processes,
//! and all of them export spans of one trace.

#[path = "following/collector.rs"]
mod collector;
#[path = "pli/process.rs"]
#[allow(dead_code, reason = "a few of the helpers are used here")]
mod process;
#[path = "following/world.rs"]
mod world;

/// The rosters of the simulation.
mod simulation {
    pub mod device {
        use pli_domain::{ConversationId, DeviceAddress};

        pub struct Talk {
            pub id: ConversationId,
            pub devices: Vec<DeviceAddress>,
        }
    }
    #[path = "../simulation/rosters.rs"]
    pub mod rosters;
}

use std::collections::BTreeSet;

use bytes::Bytes;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use pli_api::edge::{SendResult, send_result, server_frame::Frame, settled};
use pli_api::log::{Class, Entry, Envelope, Item, envelope::BodyOrRef};
use pli_domain::EntryId;
use pli_ports::{Clock, NewEntry, ShardLog, SystemClock};
use prost::Message;
use serde_json::Value;

use collector::Collector;
use process::{failure, text};
use world::{Client, TALK, World, device};

const SEND: [u8; 16] = [0x5e; 16];

/// What `pli explain` says, as JSON.
async fn explain(send: [u8; 16], admin: &[String]) -> Value {
    serde_json::from_str(&text(&run(send, admin, &["--json"]).await)).expect("JSON")
}

async fn run(send: [u8; 16], admin: &[String], more: &[&str]) -> std::process::Output {
    let (send, admin) = (hex::encode(send), admin.join(","));
    let more: Vec<String> = more.iter().map(ToString::to_string).collect();
    let running = tokio::task::spawn_blocking(move || {
        let home = tempfile::tempdir().expect("a folder");
        let mut arguments = vec!["explain", &send, "--admin", &admin];
        arguments.extend(more.iter().map(String::as_str));
        process::run(home.path(), &arguments)
    });
    running.await.expect("runs")
}

/// (hop, process) of everything at the one place.
fn hops(story: &Value) -> Vec<(String, String)> {
    let places = story["places"].as_array().expect("places");
    assert_eq!(places.len(), 1, "{story}");
    let both = story["sender"].as_array().expect("a list").iter().chain(places[0]["hops"].as_array().expect("hops"));
    let word = |value: &Value| value.as_str().expect("a word").to_owned();
    both.map(|hop| (word(&hop["hop"]), word(&hop["process"]))).collect()
}

async fn until_stored(client: &mut Client) {
    let settled = |frame| if let Frame::Settled(batch) = frame { batch.settled.into_iter().next() } else { None };
    let outcome = client.until(settled).await.outcome;
    assert!(matches!(outcome, Some(settled::Outcome::Stored(_))), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_hop_of_a_message_is_found_over_three_processes_and_all_belong_to_one_trace() {
    let (collector, endpoint) = Collector::start().await;
    let world = World::new(10_000, &endpoint).await;
    let (mut alice, mut bob) = (world.join(0, 1).await, world.join(1, 2).await);
    alice.send(SEND).await;
    let envelope = bob.receive().await;
    until_stored(&mut alice).await;
    let [here, there, worker] = &world.admin();
    let story = explain(SEND, &world.admin()).await;
    let found = hops(&story);
    let expected = [
        ("admitted", here),
        ("accepted", here),
        ("read", worker),
        ("told", there),
        ("acked", there),
        ("passed", worker),
        ("settled", worker),
        ("stored", here),
    ];
    for (hop, process) in expected {
        assert!(found.contains(&(hop.into(), process.clone())), "{hop} at {process} is not in {story:#}");
    }
    let rung = found.iter().any(|(hop, process)| ["rung", "paged_tail"].contains(&&**hop) && process == worker);
    assert!(rung, "{story:#}");
    assert_eq!(story["missing"], serde_json::json!([]), "{story:#}");
    world.export().await;
    one_trace(&collector, &envelope);
}

/// Sender's edge, owner and recipient's edge each exported a span of the envelope's trace, and nothing that names anybody.
fn one_trace(collector: &Collector, envelope: &Envelope) {
    let spans = collector.spans();
    let named = |name: &'static str| spans.iter().filter(move |span| span.name == name);
    let trace = hex::encode(&named("send").next().unwrap_or_else(|| panic!("no send in {spans:?}")).trace);
    assert!(envelope.traceparent.starts_with(format!("00-{trace}-").as_bytes()), "{envelope:?}");
    let mut instances = BTreeSet::new();
    for (name, kind) in [
        ("send", SpanKind::Producer),
        ("append", SpanKind::Client),
        ("read", SpanKind::Consumer),
        ("deliver", SpanKind::Client),
    ] {
        let of_trace: Vec<_> = named(name).filter(|span| hex::encode(&span.trace) == trace).collect();
        assert!(!of_trace.is_empty(), "no {name} in {spans:?}");
        assert!(of_trace.iter().all(|span| span.kind == kind && !span.failed), "{of_trace:?}");
        instances.extend(of_trace.into_iter().map(|span| &span.instance));
    }
    assert_eq!(instances.len(), 3, "two edges and a worker: {spans:?}");
    let known = ["service.", "telemetry.sdk.", "pli.roles", "pli.shard", "pli.seq", "pli.position"];
    let people = [device(1), device(2)].map(|d| [hex::encode(d.account.as_bytes()), hex::encode(d.device.as_bytes())]);
    for (key, value) in spans.iter().flat_map(|span| &span.said) {
        assert!(known.iter().any(|known| key.starts_with(known)), "{key} = {value}");
        assert!(
            people.as_flattened().iter().all(|id| !value.contains(id)) && !value.contains("sealed"),
            "{key} = {value}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_ends_its_spans_with_an_error() {
    let (collector, endpoint) = Collector::start().await;
    let world = World::new(10_000, &endpoint).await;
    let (mut alice, mut bob) = (world.join(0, 1).await, world.join(1, 2).await);
    alice.send(SEND).await;
    bob.delivery().await;
    // Bob's connection ends before he has acknowledged; then no log takes anything.
    bob.leave().await;
    world.memory.set_log_full(true);
    alice.send([1; 16]).await;
    let refused = |frame| if let Frame::SendResults(batch) = frame { batch.results.into_iter().next() } else { None };
    let is_refusal = |result: SendResult| matches!(result.result, Some(send_result::Result::Refused(_)));
    alice.until(|frame| refused(frame).filter(|result| is_refusal(result.clone()))).await;
    world.export().await;
    let spans = collector.spans();
    let failed = |name: &str| {
        let of_name: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
        of_name.into_iter().filter(|span| span.failed).map(|span| span.said["error.type"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(failed("deliver"), ["session_ended"], "{spans:?}");
    assert_eq!((failed("append").len(), failed("send").len(), failed("read").len()), (1, 1, 0), "{spans:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_as_a_row_for_a_device_that_is_away_is_told_and_then_how_it_was_fetched() {
    let world = World::new(0, "").await;
    let mut alice = world.join(0, 1).await;
    alice.send(SEND).await;
    until_stored(&mut alice).await;
    let story = explain(SEND, &world.admin()).await;
    let found: Vec<_> = hops(&story).into_iter().map(|(hop, _)| hop).collect();
    assert!(found.contains(&"spilled".into()) && !found.contains(&"told".into()), "{story:#}");
    let missing = story["missing"].as_array().expect("a list");
    assert!(missing.iter().any(|gap| gap["reasons"][0] == "no recipient has had a session since"), "{story:#}");
    let mut bob = world.join(1, 2).await;
    assert!(bob.receive().await.traceparent.is_empty(), "nothing is traced without an endpoint");
    let story = explain(SEND, &world.admin()).await;
    let found: Vec<_> = hops(&story).into_iter().map(|(hop, _)| hop).collect();
    assert!(found.contains(&"paged_rows".into()) && found.contains(&"told".into()), "{story:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_answer_is_named_and_so_is_what_only_they_may_know() {
    let world = World::new(10_000, "").await;
    let (mut alice, mut bob) = (world.join(0, 1).await, world.join(1, 2).await);
    alice.send(SEND).await;
    bob.receive().await;
    until_stored(&mut alice).await;
    let [here, there, _] = world.admin();
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound");
    let story = explain(SEND, &[here.clone(), there, closed.to_string()]).await;
    assert_eq!(story["no_answer"][0]["process"], closed.to_string(), "{story:#}");
    let owner = |gap: &&Value| gap["missing"] == "an owner that read it";
    let gap = story["missing"].as_array().expect("a list").iter().find(owner).expect("nobody was asked");
    let reasons = gap["reasons"].to_string();
    assert!(reasons.contains(&format!("{closed} did not answer")) && reasons.contains("role delivery"), "{reasons}");
    let said = text(&run(SEND, std::slice::from_ref(&here), &[]).await);
    assert!(said.contains("edge: accepted; durable in the log") && said.contains("missing"), "{said}");
    let (code, said) = failure(&run([1; 16], &[here], &[]).await);
    assert!(code == Some(1) && said.contains("knows anything of this message"), "{said}");
    let (code, said) = failure(&run(SEND, &[closed.to_string()], &[]).await);
    assert!(code == Some(7) && said.contains("no process answered") && said.contains("--admin"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envelope_with_garbage_for_a_trace_context_is_delivered_like_any_other() {
    let (_collector, endpoint) = Collector::start().await;
    let world = World::new(10_000, &endpoint).await;
    let mut bob = world.join(1, 2).await;
    for (n, garbage) in
        (1u8..).zip([&b"garbage"[..], &[0xff; 55], b"00-00000000000000000000000000000000-0000000000000000-01"])
    {
        let envelope = Envelope {
            sender: Some(device(1).into()),
            send_id: Bytes::copy_from_slice(&[n; 16]),
            conversation: Bytes::copy_from_slice(TALK.as_bytes()),
            expires_at_ms: SystemClock.now().0 + 86_400_000,
            body_or_ref: Some(BodyOrRef::Body(Bytes::from_static(b"sealed"))),
            traceparent: Bytes::copy_from_slice(garbage),
            ..Envelope::default()
        };
        let item = Item {
            devices: vec![pli_api::device_bytes(device(2).device)],
            expires_at_ms: envelope.expires_at_ms,
            class: Class::Message.into(),
            envelope: envelope.encode_to_vec().into(),
        };
        let bytes = Entry { items: vec![item], origin: Bytes::new() }.encode_to_vec().into();
        let shard = world.shards.shard_of(device(2).account);
        let entry = NewEntry { shard, id: EntryId::from_bytes([n; 16]), bytes };
        world.memory.log().append(vec![entry]).await.remove(0).expect("appended");
        assert_eq!(bob.receive().await, envelope);
    }
}
