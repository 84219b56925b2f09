// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every role in a process of its own over real servers, small: one NATS server, one CQL node. The demo plays the same
//! scenes with three of each (`make demo-cluster`).
#![allow(clippy::print_stdout, reason = "a transcript, and a line that says why a test is skipped")]

#[path = "../examples/demo/main.rs"]
#[allow(dead_code, reason = "a test plays some of the demo's scenes")]
mod demo;

#[path = "following/collector.rs"]
mod collector;
#[path = "pli/meeting.rs"]
mod meeting;
#[path = "pli/process.rs"]
#[allow(dead_code, reason = "some of the helpers are used here")]
mod process;
#[path = "pli/removing.rs"]
mod removing;
#[path = "pli/uploading.rs"]
mod uploading;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use pli_api::ErrorCode;
use pli_testkit::cluster::{Cluster, ClusterError, ClusterSettings, Edge, Role, program};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde_json::Value;
use tokio::sync::Mutex;

use collector::{Collector, Span};
use demo::scenes::{self, Fault, Scene, Script};
use demo::server::{Kind, Size};
use demo::stage::Stage;
use meeting::{Code, End, Place, Session, exchange};

/// Start, conversation, faults and end.
const TIME_MAX: Duration = Duration::from_secs(480);
/// A machine has room for one cluster at a time.
static ONE: Mutex<()> = Mutex::const_new(());

/// The cluster, or none and a line that says why.
async fn stage(test: &str, seed: u64) -> Option<Stage> {
    match Stage::set(Kind::Cluster(Size::Small), seed).await {
        Ok(stage) => Some(stage),
        Err(error) if error.downcast_ref().is_some_and(ClusterError::is_unavailable) => {
            println!("skipped: {test}: {error:#}");
            None
        }
        Err(error) => panic!("{error:#}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_twice_or_reordered_while_edges_and_owners_die_and_come_back() {
    let _one = ONE.lock().await;
    let seed = rand::random();
    println!("seed {seed}");
    let name = "nothing_is_lost_twice_or_reordered_while_edges_and_owners_die_and_come_back";
    let Some(mut stage) = stage(name, seed).await else { return };
    let mut faults = vec![Fault::KillEdge, Fault::KillWorker, Fault::Zombie];
    faults.shuffle(&mut StdRng::seed_from_u64(seed));
    // From the older protocol between roles to the newest; what comes before it struck the older one.
    faults.insert(1, Fault::Rolling);
    let script = Script { scenes: vec![Scene::Away, Scene::Faults], queued: 50, kills: 0, faults, races: 0 };
    let played = tokio::time::timeout(TIME_MAX, scenes::play(&mut stage, &script)).await;
    let outcome = played.map_err(|_| anyhow::anyhow!("no end within {TIME_MAX:?}")).and_then(|outcome| outcome);
    let (report, ended) = stage.clear(outcome.is_err()).await;
    let outcome = outcome.unwrap();
    println!("{outcome}\n{report}");
    ended.unwrap();
    assert!(outcome.is_whole(&script), "{outcome}");
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.accepted, report.stored), (report.intended, report.intended), "{report:?}");
    let missing: usize = report.devices.values().map(|device| device.missing.len()).sum();
    assert_eq!(missing, 0, "{report:?}");
}

/// A small cluster of which every process exports every trace to `endpoint`; none, and a line, where it cannot be had.
async fn traced_cluster(folder: &Path, endpoint: &str) -> Option<Cluster> {
    let telemetry = format!("[telemetry]\notlp_endpoint = \"{endpoint}\"\ntrace_ratio = 1.0\n");
    let more = format!("{telemetry}[delivery]\nsettle_every_ms = 500\nannounce_round_ms = 500\n");
    let settings = ClusterSettings { more, ..ClusterSettings::small(program().expect("the binary"), folder.into()) };
    match Cluster::start(settings, &|_| {}).await {
        Ok(cluster) => Some(cluster),
        Err(error) if error.is_unavailable() => {
            println!("skipped: a_message_is_followed_over_every_process_and_has_one_trace: {error:#}");
            None
        }
        Err(error) => panic!("{error:#}"),
    }
}

/// Alice at one edge writes to Bob at the other; what `pli explain` says when it is stored.
fn sent_and_explained(home: &Path, edges: &[Edge], admin: &str) -> Value {
    let at = |edge: &Edge| ["--server".into(), edge.address.clone(), "--fingerprint".into(), edge.fingerprint.clone()];
    let with = |arguments: &[&str], more: &[String]| {
        let all: Vec<String> = arguments.iter().map(ToString::to_string).chain(more.iter().cloned()).collect();
        process::pli(home, &all.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let mut bob = process::Running::start(with(&["recv", "bob", "--json", "--follow"], &at(&edges[1])));
    bob.json(|event| event["event"] == "connection" && event["state"] == "online");
    let send = ["send", "alice", "bob", "hello", "--json", "--wait", "stored"];
    let said = process::Running::start(with(&send, &at(&edges[0]))).rest();
    let mut sent = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let sent = sent.rfind(|line| line["event"] == "sent").unwrap_or_else(|| panic!("nothing sent: {said}"));
    let received = bob.json(|event| event["event"] == "message");
    assert_eq!(received["send_id"], sent["send_id"]);
    let send_id = sent["send_id"].as_str().expect("text");
    serde_json::from_str(&process::text(&process::run(home, &["explain", send_id, "--admin", admin, "--json"])))
        .expect("JSON")
}

/// Every hop of the message was noted by a process that has the role for it.
fn every_hop_is_there(story: &Value, of_role: impl Fn(Role) -> Vec<String>, edges: &[Edge]) {
    let places = story["places"].as_array().expect("a list");
    assert_eq!((places.len(), &story["missing"]), (1, &serde_json::json!([])), "{story:#}");
    let lists = [&story["sender"], &places[0]["hops"]];
    let all: Vec<&Value> = lists.into_iter().flat_map(|list| list.as_array().expect("a list")).collect();
    let by = |word: &str| {
        let found = all.iter().find(|hop| hop["hop"] == word).unwrap_or_else(|| panic!("no {word} in {story:#}"));
        found["process"].as_str().expect("text").to_owned()
    };
    for (word, edge) in [("admitted", 0), ("accepted", 0), ("stored", 0), ("told", 1), ("acked", 1)] {
        assert_eq!(by(word), edges[edge].admin, "{word} in {story:#}");
    }
    for word in ["read", "passed", "settled"] {
        assert!(of_role(Role::Delivery).contains(&by(word)), "{word} in {story:#}");
    }
}

/// One trace has a span of both edges and of an owner; and one goes on in conversations.
fn one_trace_is_everywhere(spans: &[Span]) {
    let trace_of = |name: &'static str| spans.iter().filter(move |span| span.name == name);
    let whole = trace_of("send").find(|send| {
        let of_trace = spans.iter().filter(|span| span.trace == send.trace);
        let instances: BTreeSet<_> = of_trace.clone().map(|span| &span.instance).collect();
        let names: BTreeSet<&str> = of_trace.map(|span| span.name.as_str()).collect();
        instances.len() >= 3 && ["append", "read", "deliver"].iter().all(|name| names.contains(name))
    });
    let whole = whole.unwrap_or_else(|| panic!("no trace is in three processes: {spans:#?}"));
    assert!(whole.kind == SpanKind::Producer && !whole.failed, "{whole:#?}");
    let edges = spans.iter().filter(|span| span.trace == whole.trace && span.said["pli.roles"] == "edge");
    assert_eq!(edges.map(|span| &span.instance).collect::<BTreeSet<_>>().len(), 2, "{spans:#?}");
    let begun: BTreeSet<_> = trace_of("send").chain(trace_of("call")).map(|span| &span.trace).collect();
    for name in ["pli.conversations.v1.Conversations/GetRoster", "pli.directory.v1.Directory/Lookup"] {
        assert!(trace_of(name).any(|span| begun.contains(&span.trace)), "no {name} in {spans:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_followed_over_every_process_and_has_one_trace() {
    let _one = ONE.lock().await;
    let (collector, endpoint) = Collector::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let Some(cluster) = traced_cluster(&folder.path().join("cluster"), &endpoint).await else { return };
    let of_role = |role| {
        let names = cluster.names(Some(role));
        names.iter().filter_map(|name| cluster.admin(name)).collect::<Vec<String>>()
    };
    let (edges, home) = (cluster.edges(), folder.path().to_owned());
    let admin = Role::ALL.map(|role| of_role(role).join(",")).join(",");
    let talk = move |edges: Vec<Edge>| sent_and_explained(&home, &edges, &admin);
    let talking = tokio::task::spawn_blocking({
        let edges = edges.clone();
        move || talk(edges)
    });
    let story = tokio::time::timeout(TIME_MAX, talking).await.expect("in time").expect("no panic");
    every_hop_is_there(&story, of_role, &edges);
    assert_eq!(story["answered"].as_array().expect("a list").len(), cluster.names(None).len(), "{story:#}");
    cluster.close(&|_| {}).await.expect("ended in order");
    one_trace_is_everywhere(&collector.spans());
}

/// Two edges, one service between them that is killed half-way: nothing but the store knows of the rendezvous.
#[tokio::test(flavor = "multi_thread")]
async fn two_devices_meet_over_two_edges_and_a_service_that_dies() {
    let _one = ONE.lock().await;
    let name = "two_devices_meet_over_two_edges_and_a_service_that_dies";
    let folder = tempfile::tempdir().expect("a folder");
    let settings = ClusterSettings::small(program().expect("the binary"), folder.path().join("cluster"));
    let mut cluster = match Cluster::start(settings, &|_| {}).await {
        Ok(cluster) => cluster,
        Err(error) if error.is_unavailable() => return println!("skipped: {name}: {error:#}"),
        Err(error) => panic!("{error:#}"),
    };
    let at = |edge: &Edge| Place { address: edge.address.clone(), fingerprint: edge.fingerprint.clone() };
    let [one, other] = [0, 1].map(|edge| at(&cluster.edges()[edge]));
    let code = Code::draw();
    let (alice, _) = Session::registered(&one, "alice").await;
    let (mallory, _) = Session::registered(&one, "mallory").await;
    let mut new_one = End::open(Session::anonymous(&other).await, &code).await;
    let mut first = End::join(alice, &code).await.map_err(|(error, _)| error).expect("joined");
    let (error, _) = End::join(mallory, &code).await.err().expect("is refused");
    assert_eq!(error.code(), ErrorCode::RendezvousTaken);
    exchange(&mut new_one, &mut first).await;
    for links in cluster.names(Some(Role::Links)) {
        cluster.kill(&links).expect("killed");
        let away = first.wait(1, 0).await.expect_err("nobody is there");
        assert!(away.code().is_temporary(), "{away:?}");
        cluster.restart(&links).await.expect("started again");
    }
    first.put(3, b"after").await.expect("put");
    assert_eq!(new_one.wait(3, 8_000).await.expect("there"), "after");
    assert_eq!(first.wait(1, 0).await.expect("still there").len(), 16 * 1024);
    cluster.close(&|_| {}).await.expect("ended in order");
}

/// The parts go in at one edge and come out at the other; the service between them is killed half-way.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_in_at_one_edge_and_comes_out_at_the_other() {
    let _one = ONE.lock().await;
    let name = "an_upload_goes_in_at_one_edge_and_comes_out_at_the_other";
    let folder = tempfile::tempdir().expect("a folder");
    let settings = ClusterSettings::small(program().expect("the binary"), folder.path().join("cluster"));
    let mut cluster = match Cluster::start(settings, &|_| {}).await {
        Ok(cluster) => cluster,
        Err(error) if error.is_unavailable() => return println!("skipped: {name}: {error:#}"),
        Err(error) => panic!("{error:#}"),
    };
    let at = |edge: &Edge| Place { address: edge.address.clone(), fingerprint: edge.fingerprint.clone() };
    let [one, other] = [0, 1].map(|edge| at(&cluster.edges()[edge]));
    let (mut alice, identity) = Session::registered(&one, "alice").await;
    uploading::begin(&mut alice, 3).await.expect("begun");
    uploading::put(&mut alice, 2).await.expect("put");
    for media in cluster.names(Some(Role::Media)) {
        cluster.kill(&media).expect("killed");
        let away = uploading::put(&mut alice, 1).await.expect_err("nobody is there");
        assert!(away.code().is_temporary(), "{away:?}");
        cluster.restart(&media).await.expect("started again");
    }
    let mut again = Session::of(&other, &identity).await;
    assert_eq!(uploading::begin(&mut again, 3).await.expect("begun before").there.as_ref(), [0b010]);
    for number in [1, 3] {
        uploading::put(&mut again, number).await.expect("put");
    }
    uploading::finish(&mut again).await.expect("finished");
    let mut alice = Session::of(&one, &identity).await;
    for number in 1..=3 {
        assert_eq!(uploading::read(&mut alice, number).await.expect("read"), uploading::part(number));
    }
    cluster.close(&|_| {}).await.expect("ended in order");
}

/// The device is at another edge than the one that removes it; what tells is NATS, what keeps is CQL.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_removed_at_one_edge_is_out_at_the_other() {
    let _one = ONE.lock().await;
    let name = "a_device_that_is_removed_at_one_edge_is_out_at_the_other";
    let folder = tempfile::tempdir().expect("a folder");
    let settings = ClusterSettings::small(program().expect("the binary"), folder.path().join("cluster"));
    let cluster = match Cluster::start(settings, &|_| {}).await {
        Ok(cluster) => cluster,
        Err(error) if error.is_unavailable() => return println!("skipped: {name}: {error:#}"),
        Err(error) => panic!("{error:#}"),
    };
    let at = |edge: &Edge| Place { address: edge.address.clone(), fingerprint: edge.fingerprint.clone() };
    let [one, other] = [0, 1].map(|edge| at(&cluster.edges()[edge]));
    removing::a_removed_device_is_out(&one, &other, "alice").await;
    cluster.close(&|_| {}).await.expect("ended in order");
}
