// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients of the first version with the server of today: what they said then is said to it again, and what they hear must
//! be what they heard. Where a test fails here, an old client is answered otherwise than it was: mend the server. The
//! recording stays as it is; with `PLI_WRITE_VECTORS=1` it is made where the file is not there, and only then.

use std::path::PathBuf;
use std::sync::OnceLock;

use bytes::Bytes;
use pli_api::ErrorCode;
use pli_api::common::Error;
use pli_api::edge::server_frame::Frame;
use pli_api::edge::{Close, Ping, Ready, Reply, Resend, ServerFrame, ServerHello, ServerInfo, Settled, reply, settled};
use pli_api::log::Envelope;
use pli_client_core::{MessageRow, Table};
use pli_fuzzing::{Happening, NONCE, Session, What, load, replay};
use pli_testkit::time::START;
use prost::Message;
use prost_reflect::DescriptorPool;
use prost_reflect::prost_types::FileDescriptorProto;

use crate::reading::Reader;
use crate::{alone, panics};

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../proto/vectors/session_v1.json")
}

fn recorded() -> &'static Session {
    static RECORDED: OnceLock<Session> = OnceLock::new();
    RECORDED.get_or_init(|| {
        if std::env::var_os("PLI_WRITE_VECTORS").is_some() && !path().exists() {
            std::fs::write(path(), Session::record(contracts()).write()).unwrap();
        }
        Session::read(&std::fs::read_to_string(path()).expect("the recording is in the tree"))
    })
}

/// The contracts of today that clients know, without their comments.
fn contracts() -> Vec<(String, Bytes)> {
    let pool = DescriptorPool::decode(pli_api::DESCRIPTORS).unwrap();
    let files = pool.file_descriptor_protos().filter(|file| !file.name().contains("/sealed/"));
    let bare = |file: &FileDescriptorProto| {
        let mut file = file.clone();
        file.source_code_info = None;
        (file.name().to_owned(), Bytes::from(file.encode_to_vec()))
    };
    files.map(bare).collect()
}

fn reader() -> Reader {
    Reader::new(&recorded().contracts)
}

fn replayed(nonce: [u8; 32]) -> Vec<Happening> {
    let reader = reader();
    let now = replay(recorded(), nonce, |frame| reader.names(frame));
    assert_eq!(panics(), Vec::<String>::new());
    now
}

#[test]
fn a_recorded_session_of_the_first_version_hears_what_it_heard_then() {
    let _alone = alone();
    let now = replayed(NONCE);
    let found = reader().differences(&recorded().happenings, &now);
    assert!(found.is_empty(), "{} differences, the first of them: {:#?}", found.len(), &found[..found.len().min(20)]);
}

#[test]
fn another_nonce_is_noticed() {
    let _alone = alone();
    let found = reader().differences(&recorded().happenings, &replayed([0x92; 32]));
    for fault in ["connection 0: hello.nonce: is", "ready: missing", "close: was not said then"] {
        assert!(found.iter().any(|found| found.contains(fault)), "{fault}: {found:#?}");
    }
}

/// What became of a message instead.
const RESEND: Option<settled::Outcome> = Some(settled::Outcome::Resend(Resend {}));

/// Changes a frame, where it is one that can be changed so.
type Change = fn(&mut Frame) -> Option<()>;

/// What is found where the first frame that `change` takes was changed by it.
fn found(change: Change) -> Vec<String> {
    let mut now = recorded().happenings.clone();
    let changed = now.iter_mut().any(|one| {
        let What::Heard(bytes) = &mut one.what else { return false };
        let mut frame = ServerFrame::decode(bytes.clone()).unwrap().frame.unwrap();
        let changed = change(&mut frame).is_some();
        *bytes = ServerFrame { frame: Some(frame) }.encode_to_vec().into();
        changed
    });
    assert!(changed, "there is a frame to change");
    reader().differences(&recorded().happenings, &now)
}

fn hello(frame: &mut Frame) -> Option<&mut ServerHello> {
    if let Frame::Hello(hello) = frame { Some(hello) } else { None }
}

fn ready(frame: &mut Frame) -> Option<&mut Ready> {
    if let Frame::Ready(ready) = frame { Some(ready) } else { None }
}

fn close(frame: &mut Frame) -> Option<&mut Close> {
    if let Frame::Close(close) = frame { Some(close) } else { None }
}

fn settled(frame: &mut Frame) -> Option<&mut Settled> {
    if let Frame::Settled(batch) = frame { batch.settled.first_mut() } else { None }
}

/// Of a call that was refused.
fn refused(frame: &mut Frame) -> Option<&mut Error> {
    match frame {
        Frame::Reply(Reply { result: Some(reply::Result::Error(error)), .. }) => Some(error),
        _ => None,
    }
}

/// Changes what the edge says about itself.
fn info(frame: &mut Frame, change: fn(&mut ServerInfo)) -> Option<()> {
    let Frame::Reply(Reply { result: Some(reply::Result::Body(body)), .. }) = frame else { return None };
    let mut info = ServerInfo::decode(body.clone()).ok().filter(|info| info.registration == "open")?;
    change(&mut info);
    *body = info.encode_to_vec().into();
    Some(())
}

/// Changes what was delivered.
fn envelope(frame: &mut Frame, change: fn(&mut Envelope)) -> Option<()> {
    let Frame::Deliver(deliver) = frame else { return None };
    let mut envelope = Envelope::decode(deliver.envelope.clone()).unwrap();
    change(&mut envelope);
    deliver.envelope = envelope.encode_to_vec().into();
    Some(())
}

fn no_result(frame: &mut Frame) -> Option<()> {
    if let Frame::SendResults(results) = frame { results.results.pop().map(drop) } else { None }
}

#[test]
fn what_old_clients_would_hear_otherwise_is_found() {
    let faults: [(&str, Change); 11] = [
        ("ready.limits.send_window: is", |frame| ready(frame)?.limits.as_mut().map(|limits| limits.send_window -= 1)),
        ("ready.limits: is there: false, and was: true", |frame| ready(frame)?.limits.take().map(drop)),
        ("ready.position_ignored: is", |frame| ready(frame).map(|ready| ready.position_ignored = true)),
        (".error.code: is", |frame| refused(frame).map(|error| error.code = ErrorCode::Internal.into())),
        (".error.retry_after_ms: is", |frame| refused(frame).map(|error| error.retry_after_ms = 7)),
        ("close.reconnect: is", |frame| close(frame).map(|close| close.reconnect = true)),
        (".body.cipher_suites: is", |frame| info(frame, |info| info.cipher_suites.truncate(1))),
        (".body.registration: is", |frame| info(frame, |info| info.registration = "oidc".into())),
        ("deliver.envelope.class: is", |frame| envelope(frame, |envelope| envelope.class = 0)),
        (".stored: is there: false, and was: true", |frame| settled(frame).map(|one| one.outcome = RESEND)),
        ("missing", no_result),
    ];
    for (fault, change) in faults {
        let found = found(change);
        assert!(found.iter().any(|found| found.contains(fault)), "{fault}: {found:#?}");
    }
}

/// What is found where the happenings were changed.
fn found_in(change: impl Fn(&mut Vec<Happening>)) -> Vec<String> {
    let mut now = recorded().happenings.clone();
    change(&mut now);
    reader().differences(&recorded().happenings, &now)
}

/// Whether it is a frame of the server of this kind.
fn is(one: &Happening, kind: &str) -> bool {
    matches!(&one.what, What::Heard(frame) if reader().names(frame).iter().any(|name| name.starts_with(kind)))
}

#[test]
fn frames_that_are_lost_doubled_or_exchanged_are_found() {
    let place = |kind: &str, nth: usize| {
        let all = recorded().happenings.iter().enumerate().filter(|(_, one)| is(one, kind));
        all.map(|(n, _)| n).nth(nth).unwrap()
    };
    for kind in ["hello", "ready", "reply", "pong", "deliver", "caught_up", "close"] {
        let found = found_in(|now| drop(now.remove(place(kind, 0))));
        assert!(found.iter().any(|found| found.contains("missing")), "{kind}: {found:#?}");
    }
    let doubled = found_in(|now| now.insert(place("deliver", 0), now[place("deliver", 0)].clone()));
    assert!(doubled.iter().any(|found| found.contains("was not said then")), "{doubled:#?}");
    let first = place("deliver", 0);
    let second = (first + 1..).find(|n| is_next(first, *n)).unwrap();
    assert!(!found_in(|now| now.swap(first, second)).is_empty());
    let stays = found_in(|now| now.retain(|one| one.what != What::HungUp));
    assert!(stays.iter().any(|found| found.contains("hangs up: false, and did: true")), "{stays:#?}");
}

/// Whether another one was delivered there on the connection of this delivery.
fn is_next(first: usize, other: usize) -> bool {
    let (first, other) = (&recorded().happenings[first], &recorded().happenings[other]);
    other.connection == first.connection && is(other, "deliver")
}

#[test]
fn what_old_clients_pass_over_may_change() {
    let passed_over: [Change; 3] = [
        |frame| refused(frame).map(|error| error.message = "another".into()),
        |frame| hello(frame).map(|hello| hello.versions.push(2)),
        |frame| info(frame, |info| info.cipher_suites.push(9)),
    ];
    for change in passed_over {
        assert_eq!(found(change), Vec::<String>::new());
    }
    let added = found_in(|now| {
        for one in now {
            let What::Heard(frame) = &mut one.what else { continue };
            // Field 100 with a varint, behind what is known.
            *frame = [frame.as_ref(), &[0xA0, 0x06, 0x01]].concat().into();
        }
    });
    assert_eq!(added, Vec::<String>::new());
    let pinged = found_in(|now| {
        let ping = ServerFrame { frame: Some(Frame::Ping(Ping { id: 3 })) };
        let what = What::Heard(ping.encode_to_vec().into());
        now.insert(3, Happening { what, ..now[2].clone() });
    });
    assert_eq!(pinged, Vec::<String>::new());
}

#[test]
fn what_the_first_version_stored_is_loaded() {
    let _alone = alone();
    let rows = &recorded().rows;
    let core = load(rows, [77; 32], START);
    assert!(core.is_registered());
    let people: Vec<usize> = core.conversations().iter().map(|one| one.members.len()).collect();
    assert_eq!(core.conversations().len(), 2, "the chat and the group: {people:?}");
    let all = core.conversations();
    let chat = all.iter().find(|one| one.name.is_none() && !one.left).expect("the chat goes on");
    assert!(core.epoch_authenticator(chat.id).is_some(), "with its keys");
    assert!(all.iter().any(|one| one.name.as_deref() == Some("team") && one.left));
    let history = rows.iter().filter(|((table, _), _)| *table == Table::Messages);
    let texts = history.map(|(_, row)| MessageRow::decode(row.as_slice()).unwrap().text).collect::<Vec<_>>();
    for text in ["hello bob", "hello alice", "here comes a tunnel", "welcome", "where is bob", "away", "back again"] {
        assert_eq!(texts.iter().filter(|one| *one == text).count(), 1, "{text}: {texts:?}");
    }
}
