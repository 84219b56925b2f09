// SPDX-License-Identifier: MIT OR Apache-2.0
//! The connection, or the wait for the next one.

use std::time::Duration;

use pli_api::edge::{ClientFrame, ServerFrame};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::wire::Wire;
use crate::{Connection, Connector, Fingerprint, ServerAddress, TransportError};

/// A user who acts again and again makes at most one attempt in this time.
const HURRIED_EVERY: Duration = Duration::from_secs(1);

/// How long a server that was connected to may have another certificate: somebody may have the address for a while.
const WRONG_FOR: Duration = Duration::from_secs(60);

/// How the connection stands.
enum State {
    /// The next attempt is due then, and may be had from the second time on.
    Waiting(Instant, Instant),
    Opening(AbortOnDropHandle<Result<Connection, TransportError>>),
    Open(Wire),
}

/// What the link waited for.
pub(crate) enum LinkEvent {
    Frame(Result<ServerFrame, TransportError>),
    Opened(Result<Connection, TransportError>),
    Due,
    /// [`Link::has_room`] again.
    Room,
}

/// One server at one or several addresses, one connection at a time.
pub(crate) struct Link {
    /// At least one.
    servers: Vec<ServerAddress>,
    /// Which of them is tried or connected to.
    at: usize,
    connector: Connector,
    state: State,
    /// When the last attempt began.
    attempted: Option<Instant>,
    exporter: [u8; 32],
    /// It never connects.
    offline: bool,
    /// There was a connection.
    was_open: bool,
    /// Attempts one after another that met another certificate, and when the first was.
    wrong: (usize, Instant),
}

impl Link {
    pub fn new(servers: Vec<ServerAddress>, connector: Connector) -> Self {
        let now = Instant::now();
        let state = State::Waiting(now, now);
        let (attempted, exporter, wrong) = (None, [0; 32], (0, now));
        Self { servers, at: 0, connector, state, attempted, exporter, offline: false, was_open: false, wrong }
    }

    /// With a connection that is open, and the only one.
    #[cfg(test)]
    pub fn over(halves: (crate::FrameSink, crate::FrameStream)) -> Self {
        let servers = vec!["127.0.0.1:9".parse().expect("an address")];
        let link = Self::new(servers, Connector::new(None, crate::Transport::WebSocket)).offline(true);
        Self { state: State::Open(Wire::new(halves)), ..link }
    }

    /// The same, which never connects where it is to be `offline`.
    pub fn offline(self, offline: bool) -> Self {
        Self { offline, ..self }
    }

    pub const fn pin(&self) -> Option<Fingerprint> {
        self.connector.pin()
    }

    /// The address that is tried or connected to.
    pub fn server(&self) -> &ServerAddress {
        &self.servers[self.at]
    }

    /// Says which other addresses are tried in turn; nothing where there is one alone.
    pub fn others(&self) -> String {
        let others = self.servers.iter().enumerate().filter(|(at, _)| *at != self.at);
        let others: Vec<String> = others.map(|(_, server)| server.to_string()).collect();
        if others.is_empty() { String::new() } else { format!("; tried in turn with {}", others.join(", ")) }
    }

    /// The next attempt goes to the next address.
    pub fn next_server(&mut self) {
        self.at = (self.at + 1) % self.servers.len();
    }

    /// Notes an attempt that failed, or a connection that was lost; answers whether trying on is of no use: every address has
    /// another certificate, and has had it for [`WRONG_FOR`] where there was a connection before.
    pub fn is_given_up(&mut self, is_wrong: bool) -> bool {
        let now = Instant::now();
        self.wrong = match self.wrong {
            _ if !is_wrong => (0, now),
            (0, _) => (1, now),
            (before, since) => (before + 1, since),
        };
        let (times, since) = self.wrong;
        times >= self.servers.len() && (!self.was_open || now >= since + WRONG_FOR)
    }

    /// Notes a connection with the right certificate.
    fn note_right(&mut self) {
        self.was_open = true;
        self.wrong.0 = 0;
    }

    /// What an authentication on the open connection is bound to.
    pub const fn exporter(&self) -> [u8; 32] {
        self.exporter
    }

    pub const fn is_open(&self) -> bool {
        matches!(self.state, State::Open(..))
    }

    /// Begins an attempt.
    pub fn connect(&mut self) {
        self.attempted = Some(Instant::now());
        let (server, connector) = (self.server().clone(), self.connector.clone());
        let attempt = tokio::spawn(async move { connector.open(&server).await });
        self.state = State::Opening(AbortOnDropHandle::new(attempt));
    }

    /// The attempt succeeded.
    pub fn opened(&mut self, connection: Connection) {
        if self.pin().is_none() {
            self.connector = self.connector.pinned(connection.fingerprint);
        }
        self.exporter = connection.exporter;
        self.note_right();
        self.state = State::Open(Wire::new(connection.split()));
    }

    /// The next attempt is due after this time, of which the server asked for `at_least`.
    pub fn retry_after(&mut self, after: Duration, at_least: Duration) {
        let now = Instant::now();
        self.state = State::Waiting(now + after, now + at_least);
    }

    /// The user acts: what is waited for is tried at once, [`HURRIED_EVERY`] after the last attempt at the earliest and
    /// never before the time that the server asked for.
    pub fn hurry(&mut self) {
        if let State::Waiting(due, from) = &mut self.state {
            let soonest = self.attempted.map_or(*from, |last| (last + HURRIED_EVERY).max(*from));
            *due = (*due).min(soonest);
        }
    }

    /// The next thing that happens. With `read` false nothing is read from the server. Cancel safe.
    pub async fn next(&mut self, read: bool) -> LinkEvent {
        match &mut self.state {
            State::Waiting(..) if self.offline => std::future::pending().await,
            State::Waiting(at, _) => {
                sleep_until(*at).await;
                LinkEvent::Due
            }
            State::Opening(attempt) => LinkEvent::Opened(attempt.await.unwrap_or(Err(TransportError::Closed))),
            State::Open(wire) => wire.next(read).await.map_or(LinkEvent::Room, LinkEvent::Frame),
        }
    }

    /// A frame that has arrived already.
    pub fn try_next(&mut self) -> Option<ServerFrame> {
        match &mut self.state {
            State::Open(wire) => wire.try_next(),
            _ => None,
        }
    }

    /// Sends frames where there is a connection, beside what comes ([`Self::next`]); drops them where there is none.
    pub fn send(&mut self, frames: Vec<ClientFrame>) {
        if let State::Open(wire) = &mut self.state {
            wire.send(frames);
        }
    }

    /// Whether the core may be given what it could answer with more frames.
    pub const fn has_room(&self) -> bool {
        match &self.state {
            State::Open(wire) => wire.has_room(),
            _ => true,
        }
    }

    /// Says goodbye when everything has left. Dropping the future ends the connection without it.
    pub async fn close(&mut self) {
        if let State::Open(wire) = self.end() {
            wire.close().await;
        }
    }

    /// Ends the connection where something has not left, behind which a goodbye would wait.
    pub fn give_up(&mut self) {
        if matches!(&self.state, State::Open(wire) if !wire.is_clear()) {
            drop(self.end());
        }
    }

    /// Takes the connection out, where there is one.
    fn end(&mut self) -> State {
        let now = Instant::now();
        std::mem::replace(&mut self.state, State::Waiting(now, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Transport;

    fn due_in(link: &Link) -> Duration {
        match link.state {
            State::Waiting(at, _) => at.saturating_duration_since(Instant::now()),
            _ => Duration::ZERO,
        }
    }

    fn nothing_pinned() -> Connector {
        Connector::new(None, Transport::Auto)
    }

    fn waiting(after: u64, at_least: u64) -> Link {
        let mut link = Link::new(vec!["127.0.0.1:9".parse().expect("an address")], nothing_pinned());
        link.attempted = Some(Instant::now());
        link.retry_after(Duration::from_secs(after), Duration::from_secs(at_least));
        link
    }

    #[tokio::test]
    async fn addresses_are_tried_in_turn() {
        let servers = ["127.0.0.1:9", "127.0.0.1:8"].map(|address| address.parse().expect("an address")).to_vec();
        let mut link = Link::new(servers, nothing_pinned());
        let mut tried = Vec::new();
        for _ in 0..3 {
            tried.push(link.server().port());
            link.next_server();
        }
        assert_eq!(tried, [9, 8, 9]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wrong_certificate_ends_it_where_all_addresses_have_one_and_after_a_minute_where_it_was_right() {
        let servers = ["127.0.0.1:9", "127.0.0.1:8"].map(|address| address.parse().expect("an address")).to_vec();
        let fresh = || Link::new(servers.clone(), nothing_pinned());
        let mut link = fresh();
        let given_up = [true, false, true, true].map(|is_wrong| link.is_given_up(is_wrong));
        assert_eq!(given_up, [false, false, false, true], "one that is away may be the right one");
        let mut link = Link { was_open: true, ..fresh() };
        for _ in 0..60 {
            assert!(!link.is_given_up(true));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!(link.is_given_up(true), "it was set up anew");
        assert!(!link.is_given_up(false) && !link.is_given_up(true), "somebody had the address for a while");
        link.note_right();
        for _ in 0..2 {
            tokio::time::advance(2 * WRONG_FOR).await;
            assert!(!link.is_given_up(true), "each time anew");
            link.note_right();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_acts_while_waiting_is_tried_at_once_but_not_more_than_once_a_second() {
        let mut link = waiting(5, 0);
        link.hurry();
        link.hurry();
        assert_eq!(due_in(&link), HURRIED_EVERY, "an attempt has just been made");
        let mut link = waiting(5, 0);
        tokio::time::advance(Duration::from_secs(2)).await;
        link.hurry();
        assert_eq!(due_in(&link), Duration::ZERO);
        let mut attempts = 0;
        for _ in 0..1_000 {
            link.hurry();
            if due_in(&link).is_zero() {
                attempts += 1;
                link.attempted = Some(Instant::now());
                link.retry_after(Duration::from_secs(5), Duration::ZERO);
            }
            tokio::time::advance(Duration::from_millis(10)).await;
        }
        assert!((2..=11).contains(&attempts), "{attempts} attempts in ten seconds of typing");
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_server_asked_for_is_waited_for_whoever_acts() {
        let mut link = waiting(9, 4);
        tokio::time::advance(Duration::from_secs(2)).await;
        link.hurry();
        assert_eq!(due_in(&link), Duration::from_secs(2));
        let mut soon = waiting(1, 0);
        tokio::time::advance(Duration::from_millis(500)).await;
        soon.hurry();
        assert_eq!(due_in(&soon), Duration::from_millis(500), "acting never makes it later");
    }
}
