// SPDX-License-Identifier: MIT OR Apache-2.0
//! The driver over a connection whose other end the test holds, in virtual time.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use pli_api::directory::RegisterResponse;
use pli_api::edge::{
    CaughtUp, ClientFrame, Deliver, GoAway, Limits, Ping, Ready, Reply, ServerHello, client_frame, reply,
    server_frame::Frame,
};
use pli_client_core::Command;
use pli_client_core::mls::Suite;
use prost::Message as _;
use tempfile::TempDir;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::*;

/// Nothing that is tested here takes so long.
const DAY: Duration = Duration::from_secs(24 * 3_600);
/// What is on its way and not read, far less than a client has to say when it comes: its key packages.
const ROOM: usize = 4 * 1024;

#[tokio::test]
async fn what_waits_at_the_end_is_still_read_in_order() {
    let (events, mut reader) = mpsc::channel(4);
    let states = [ConnectionState::Online, ConnectionState::Offline, ConnectionState::CatchingUp];
    let mut waiting: VecDeque<Event> = states.into_iter().map(Event::Connection).collect();
    emit(&mut waiting, &events).await;
    drop(events);
    for state in states {
        assert!(matches!(reader.recv().await, Some(Event::Connection(read)) if read == state));
    }
    assert!(reader.recv().await.is_none());
}

fn hello() -> ServerHello {
    ServerHello { nonce: vec![7; 32].into(), versions: vec![1], now_ms: now().0 }
}

fn ready() -> Ready {
    let limits = Limits { send_window: 64, call_window: 16, idle_timeout_ms: 120_000, ..Limits::default() };
    Ready { limits: Some(limits), now_ms: now().0, ..Ready::default() }
}

/// An account that a server knows.
fn registered() -> Core {
    let mut core = Core::create_with("alice".parse().expect("a handle"), Suite::default(), [7; 32], now()).0;
    core.handshake(&hello(), "localhost", (Binding::TlsExporter, &[0; 32]), now()).expect("a hello");
    let asked = core.frame(ServerFrame { frame: Some(Frame::Ready(ready())) }, now());
    let Some(client_frame::Frame::Call(call)) = asked.frames[0].frame.clone() else { panic!("no call: {asked:?}") };
    let body = RegisterResponse { handle: "alice".into() }.encode_to_vec();
    let reply = Reply { id: call.id, result: Some(reply::Result::Body(body.into())) };
    let _ = core.frame(ServerFrame { frame: Some(Frame::Reply(reply)) }, now());
    assert!(core.is_registered());
    core
}

/// A running client, and the server that it talks to.
struct Talk {
    requests: mpsc::Sender<Request>,
    events: mpsc::Receiver<Event>,
    status: watch::Receiver<Status>,
    end: watch::Receiver<Option<End>>,
    stop: CancellationToken,
    server: WebSocketStream<DuplexStream>,
    _home: TempDir,
}

impl Talk {
    /// The client has a session, and much to say that the server does not read.
    async fn begin() -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let profile = Profile::lock(home.path()).expect("free");
        let rows = Rows::new(profile.store().expect("a store"));
        let (near, far) = duplex(ROOM);
        let link = Link::over(crate::transport::over(near).await);
        let ((requests, inbox), (told, events)) = (mpsc::channel(16), mpsc::channel(16));
        let stop = CancellationToken::new();
        let channels = Channels { requests: inbox, events: told, stop: stop.clone() };
        let (driver, status, end) = Driver::new(registered(), rows, profile, link, channels);
        tokio::spawn(driver.run());
        let server = WebSocketStream::from_raw_socket(far, Role::Server, None).await;
        let mut talk = Self { requests, events, status, end, stop, server, _home: home };
        talk.say(Frame::Hello(hello())).await;
        let Some(client_frame::Frame::Hello(_)) = talk.hear().await else { panic!("no hello") };
        talk.say(Frame::Ready(ready())).await;
        talk.sees(ConnectionState::CatchingUp).await;
        talk
    }

    async fn say(&mut self, frame: Frame) {
        let bytes = ServerFrame { frame: Some(frame) }.encode_to_vec();
        self.server.send(Message::Binary(bytes.into())).await.expect("sent");
    }

    /// The next frame of the client; none where it has gone.
    async fn hear(&mut self) -> Option<client_frame::Frame> {
        match timeout(DAY, self.server.next()).await.expect("a frame, or the end") {
            Some(Ok(Message::Binary(bytes))) => ClientFrame::decode(bytes).expect("a frame").frame,
            _ => None,
        }
    }

    /// Waits for an event.
    async fn sees(&mut self, state: ConnectionState) {
        let wait = async { while self.events.recv().await.expect("an event") != Event::Connection(state) {} };
        timeout(DAY, wait).await.expect("the event");
    }

    /// Gives a command; its outcome is durable.
    async fn command(&self, handle: &str) {
        let (answer, answered) = oneshot::channel();
        let command = Command::StartConversation { handle: handle.parse().expect("a handle") };
        assert!(self.requests.send(Request::Command(Box::new(command), answer)).await.is_ok());
        timeout(DAY, answered).await.expect("in time").expect("an answer").expect("taken");
    }
}

#[tokio::test(start_paused = true)]
async fn while_much_is_being_sent_frames_are_taken_in_and_commands_too() {
    let mut talk = Talk::begin().await;
    let begun = Instant::now();
    talk.command("bob").await;
    talk.say(Frame::CaughtUp(CaughtUp { position: 0 })).await;
    talk.sees(ConnectionState::Online).await;
    // Nobody can read it, so that it is acknowledged and no more.
    let position = (1 << 20) + 1;
    talk.say(Frame::Deliver(Deliver { position, envelope: Bytes::from_static(b"\xff"), previous: 0 })).await;
    talk.command("carol").await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    // The server reads now: each call once and in order, and then that it was delivered.
    let mut calls = Vec::new();
    let acknowledged = loop {
        match talk.hear().await.expect("a frame") {
            client_frame::Frame::Call(call) => calls.push(call.id),
            client_frame::Frame::Ack(ack) => break ack.position,
            _ => {}
        }
    };
    assert_eq!(acknowledged, position);
    assert!(calls.len() > 2 && calls.is_sorted_by(|a, b| a < b), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_goes_away_is_heard_while_much_is_being_sent() {
    let mut talk = Talk::begin().await;
    let begun = Instant::now();
    talk.say(Frame::GoAway(GoAway { reconnect_after_ms: 1_000 })).await;
    talk.sees(ConnectionState::Offline).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    while talk.hear().await.is_some() {}
    assert!(talk.end.borrow().is_none(), "it comes again");
}

#[tokio::test(start_paused = true)]
async fn who_quits_while_much_is_being_sent_is_gone_in_seconds() {
    let mut talk = Talk::begin().await;
    let begun = Instant::now();
    talk.stop.cancel();
    timeout(DAY, talk.end.wait_for(Option::is_some)).await.expect("an end").expect("told");
    assert!(begun.elapsed() <= ANSWERS_WITHIN, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_quits_sends_what_the_server_takes_in_time() {
    let mut talk = Talk::begin().await;
    talk.stop.cancel();
    let mut calls = 0;
    while let Some(frame) = talk.hear().await {
        calls += usize::from(matches!(frame, client_frame::Frame::Call(_)));
    }
    assert!(calls > 0, "what it had to say");
    timeout(DAY, talk.end.wait_for(Option::is_some)).await.expect("an end").expect("told");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_and_does_not_read_the_answers_is_read_no_more() {
    let mut talk = Talk::begin().await;
    let mut asked = 0;
    while timeout(Duration::from_secs(5), talk.say(Frame::Ping(Ping { id: 1 }))).await.is_ok() {
        asked += 1;
        assert!(asked < 50_000, "everything is kept that it does not read");
    }
    let begun = Instant::now();
    talk.stop.cancel();
    timeout(DAY, talk.end.wait_for(Option::is_some)).await.expect("an end").expect("told");
    assert!(begun.elapsed() <= ANSWERS_WITHIN, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_had_too_much_to_send_goes_on_when_it_was_taken() {
    let mut talk = Talk::begin().await;
    while timeout(Duration::from_secs(5), talk.say(Frame::Ping(Ping { id: 1 }))).await.is_ok() {}
    // All of it is read now.
    while timeout(Duration::from_secs(5), talk.server.next()).await.is_ok() {}
    talk.command("bob").await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_nothing_is_given_up() {
    let mut talk = Talk::begin().await;
    let begun = Instant::now();
    let stalled = |status: &Status| status.why.as_ref().is_some_and(|why| *why == TransportError::Stalled.to_string());
    timeout(DAY, talk.status.wait_for(stalled)).await.expect("it is noticed").expect("told");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    talk.sees(ConnectionState::Offline).await;
    talk.command("bob").await;
}
