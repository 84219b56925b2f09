// SPDX-License-Identifier: MIT OR Apache-2.0
//! One connection after the other.

use std::time::Duration;

use bytes::Bytes;
use pli_api::{ErrorCode, common, edge, refusal};
use pli_domain::limits::CIPHER_SUITES;
use pli_domain::{Position, UnixMillis};
use rand_chacha::rand_core::RngCore;

use super::{ConnectionState, Core, Effects, Event, HandshakeError, PROTOCOL_VERSION, Row, SessionAdvice};

/// Upper end of the first full-jitter delay before connecting again; it doubles with each failure.
const RECONNECT_FIRST_MS: u64 = 500;
/// Upper end of every one: after a long outage everybody is back within it, half of them in half of it. A server that
/// needs longer says so ([`edge::GoAway`], `retry_after_ms`).
const RECONNECT_MAX_MS: u64 = 5_000;
/// The same for a device that the server does not know, and that others of its account have to name.
const UNKNOWN_MAX_MS: u64 = 60_000;
/// Sends in flight at most, whatever the server allows: half of what MLS opens out of order.
const SEND_WINDOW_MAX: usize = 64;
/// So long at most messages wait for what the queue holds: a commit in it may have brought devices that get nothing which
/// is sealed in the epoch before. A queue that is long, or stands still, holds nothing up for longer.
const TAKE_IN_FIRST: Duration = Duration::from_secs(3);
/// Without a server's word: how long a silent session lives.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// A server that says less must not make a client do nothing but ping.
const IDLE_TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// The connection as the core sees it.
#[derive(Debug, Default)]
pub(super) struct Session {
    pub(super) state: ConnectionState,
    /// `Ready` came on a session with a device.
    ready: bool,
    /// `Ready` came on a session without one.
    anonymous: bool,
    /// The hello that was sent names no device.
    hello_anonymous: bool,
    call_window: usize,
    /// Server time minus local time, in milliseconds.
    server_offset_ms: i64,
    failures: u32,
    ping_every: Duration,
    ping_at: Option<UnixMillis>,
    /// Until then nothing leaves before the queue was taken in.
    takes_in_until: Option<UnixMillis>,
    pings: u64,
    heard_at: Option<UnixMillis>,
    /// The server says that it takes this device's suite.
    suite_taken: bool,
    /// Registered anew because the server did not know the device; until it does, once.
    registered_again: bool,
    /// The user was told that the server does not know this device; until it does, once.
    unknown_told: bool,
}

impl Session {
    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }
    pub(super) fn is_anonymous(&self) -> bool {
        self.anonymous
    }
    pub(super) fn is_online(&self) -> bool {
        self.state == ConnectionState::Online
    }
    /// Whether the server was heard of lately.
    pub(super) fn is_alive(&self, now: UnixMillis) -> bool {
        self.heard_at.is_some_and(|at| now.since(at) < self.ping_every * 3)
    }
    /// Whether messages wait for what the queue holds.
    pub(super) fn is_taking_in(&self, now: UnixMillis) -> bool {
        !self.is_online() && self.takes_in_until.is_some_and(|until| now < until)
    }
    pub(super) fn call_window(&self, most: usize) -> usize {
        if self.call_window == 0 { most } else { self.call_window.min(most) }
    }
    pub(super) fn server_time(&self, now: UnixMillis) -> UnixMillis {
        UnixMillis(now.0.saturating_add_signed(self.server_offset_ms))
    }
    pub(super) fn local_time(&self, at_server: UnixMillis) -> UnixMillis {
        UnixMillis(at_server.0.saturating_add_signed(self.server_offset_ms.saturating_neg()))
    }
    pub(super) fn next_deadline(&self) -> Option<UnixMillis> {
        self.ping_at
    }
    /// When what waits for the queue waits no longer.
    pub(super) fn takes_in_until(&self) -> Option<UnixMillis> {
        self.takes_in_until.filter(|_| !self.is_online())
    }
}

impl Core {
    /// Answers the edge's first frame. `host` is what the user connected to, with the port where it is not 443;
    /// `binding` the channel binding of that kind. An account that is not registered yet answers anonymously.
    pub fn handshake(
        &mut self,
        hello: &edge::ServerHello,
        host: &str,
        binding: (edge::Binding, &[u8]),
        now: UnixMillis,
    ) -> Result<edge::ClientFrame, HandshakeError> {
        if !hello.versions.contains(&PROTOCOL_VERSION) {
            return Err(HandshakeError::Version);
        }
        if hello.nonce.len() != 32 {
            return Err(HandshakeError::Nonce);
        }
        self.session.heard_at = Some(now);
        self.session.hello_anonymous = !self.identity.registered;
        // The form by which an edge tells clients that are too old: docs/protocol.md, client_version_min.
        let user_agent = concat!("pli/", env!("CARGO_PKG_VERSION")).to_owned();
        let mut answer = edge::ClientHello { version: PROTOCOL_VERSION, user_agent, ..Default::default() };
        answer.host = host.into();
        if self.identity.registered {
            let address = self.identity.address();
            answer.account = Bytes::copy_from_slice(address.account.as_bytes());
            answer.device = Bytes::copy_from_slice(address.device.as_bytes());
            answer.binding = binding.0.into();
            answer.signature = Bytes::copy_from_slice(&self.identity.authenticate(host, &hello.nonce, binding.1));
            answer.committed = self.inbox.position().get();
            answer.history = self.history.clone();
        }
        Ok(edge::ClientFrame { frame: Some(edge::client_frame::Frame::Hello(answer)) })
    }

    /// The connection is gone, or could not be made. The advice says when to try again.
    pub fn disconnected(&mut self, now: UnixMillis) -> Effects {
        self.leave_session();
        self.out.frames.clear();
        self.finish(now)
    }

    pub(super) fn ready(&mut self, ready: &edge::Ready, now: UnixMillis) {
        let limits = ready.limits.unwrap_or_default();
        let idle = Duration::from_millis(u64::from(limits.idle_timeout_ms));
        self.session.failures = 0;
        self.session.call_window = usize::try_from(limits.call_window).unwrap_or(usize::MAX);
        self.session.server_offset_ms = ready.now_ms.cast_signed().wrapping_sub(now.0.cast_signed());
        self.session.ping_every = (if idle.is_zero() { IDLE_TIMEOUT } else { idle.max(IDLE_TIMEOUT_MIN) }) / 3;
        self.session.ping_at = Some(now.after(self.session.ping_every));
        if self.session.hello_anonymous {
            self.session.anonymous = true;
            self.set_state(ConnectionState::Registering);
            return;
        }
        self.session.ready = true;
        self.session.registered_again = false;
        self.session.unknown_told = false;
        self.asked_lists.clear();
        self.answered_lists.clear();
        self.lists_doubted.clear();
        // Another device may have come, or this one may be the last to hear that one went.
        self.lists_wanted.insert(self.identity.address().account);
        self.session.takes_in_until = Some(now.after(TAKE_IN_FIRST));
        self.set_state(ConnectionState::CatchingUp);
        self.all_comes = ready.from == 0 && self.inbox.position() == Position::ZERO;
        if ready.position_ignored
            && let Ok(from) = Position::from_u64(ready.from)
        {
            self.inbox.follow(from);
        } else if ready.history == self.history
            && ready.from > self.inbox.position().get()
            && let Ok(from) = Position::from_u64(ready.from)
        {
            self.older_profile(from);
        }
        self.inbox.connected();
        let window = usize::try_from(limits.send_window).unwrap_or(usize::MAX).clamp(1, SEND_WINDOW_MAX);
        self.outbox.connected(now, UnixMillis(ready.now_ms), window);
        if ready.history != self.history {
            self.begin_history(Bytes::copy_from_slice(&ready.history));
        }
    }

    pub(super) fn go_away(&mut self, after_ms: u32) {
        let after = Duration::from_millis(u64::from(after_ms));
        self.lose_session();
        self.out.session = SessionAdvice::Reconnect { after, at_least: after };
    }

    pub(super) fn closed(&mut self, close: edge::Close) {
        let why = close.reason.unwrap_or_default();
        if why.code() == ErrorCode::UnknownDevice && self.register_again() {
            return;
        }
        self.lose_session();
        if why.code() == ErrorCode::UnknownDevice && !self.identity.signs_lists() {
            // A restored server may have lost the list that names it, which the account's first device puts again: so it is
            // tried on, although a server says that it makes no sense.
            if !std::mem::replace(&mut self.session.unknown_told, true) {
                self.out.events.push(Event::DeviceUnknown);
            }
            let after = self.delay_up_to(UNKNOWN_MAX_MS);
            self.out.session = SessionAdvice::Reconnect { after, at_least: after };
            return;
        }
        self.out.session = if close.reconnect {
            let at_least = Duration::from_millis(u64::from(why.retry_after_ms));
            SessionAdvice::Reconnect { after: at_least + self.reconnect_delay(), at_least }
        } else {
            SessionAdvice::Stop { why }
        };
    }

    /// Pings a silent server, and gives up one that does not answer.
    pub(super) fn keep_alive(&mut self, now: UnixMillis) {
        let Some(at) = self.session.ping_at.filter(|at| *at <= now) else { return };
        let every = self.session.ping_every;
        if self.session.heard_at.is_some_and(|heard| at.since(heard) > every * 2) {
            return self.leave_session();
        }
        self.session.pings += 1;
        self.session.ping_at = Some(now.after(every));
        self.send(edge::client_frame::Frame::Ping(edge::Ping { id: self.session.pings }));
    }

    pub(super) fn heard(&mut self, now: UnixMillis) {
        self.session.heard_at = Some(now);
    }

    pub(super) fn set_state(&mut self, state: ConnectionState) {
        if self.session.state != state {
            self.session.state = state;
            self.out.events.push(Event::Connection(state));
        }
    }

    /// The session is no good; another one may be.
    pub(super) fn leave_session(&mut self) {
        self.lose_session();
        let after = self.reconnect_delay();
        self.out.session = SessionAdvice::Reconnect { after, at_least: Duration::ZERO };
    }

    /// Registered: the next session names the device.
    pub(super) fn reconnect_now(&mut self) {
        self.lose_session();
        self.out.session = SessionAdvice::Reconnect { after: Duration::ZERO, at_least: Duration::ZERO };
    }

    pub(super) fn stop(&mut self, why: common::Error) {
        self.lose_session();
        self.out.session = SessionAdvice::Stop { why };
    }

    /// A server that was restored from a backup may not know an account that registered since: it registers again, as
    /// it was. A device that was removed gains nothing by it, and stops the second time.
    fn register_again(&mut self) -> bool {
        if self.session.registered_again || !self.identity.registered || !self.identity.signs_lists() {
            return false;
        }
        self.session.registered_again = true;
        self.identity.registered = false;
        self.dirty.insert(Row::Identity);
        self.reconnect_now();
        true
    }

    /// Whether an account of this suite may register here: one that no key packages can be published of could not be
    /// written to by anybody.
    pub(super) fn suite_is_taken(&self) -> bool {
        self.session.suite_taken || CIPHER_SUITES.contains(&self.identity.suite().number())
    }

    /// What the server says of itself, before this device registers.
    pub(super) fn informed(&mut self, info: &edge::ServerInfo) {
        let own = self.identity.suite();
        self.session.suite_taken = info.cipher_suites.contains(&own.number().into());
        if self.session.suite_taken {
            return;
        }
        let taken: Vec<String> = info.cipher_suites.iter().map(|suite| format!("0x{suite:04x}")).collect();
        let why = format!("this server takes {}, and not suite {own}: nothing is registered", taken.join(" and "));
        let why = refusal(ErrorCode::SuiteNotTaken, why);
        self.out.events.push(Event::RegistrationRefused { why: why.clone() });
        self.stop(why);
    }

    fn lose_session(&mut self) {
        self.session.ready = false;
        self.session.anonymous = false;
        self.session.suite_taken = false;
        self.session.ping_at = None;
        self.session.takes_in_until = None;
        self.calls.clear();
        self.inbound.clear();
        self.caught_up_for = None;
        self.comparing = None;
        self.outbox.disconnected();
        for conversation in self.conversations.values_mut() {
            conversation.backlog.clear();
            conversation.awaits_until = None;
            // What was answered is of before, and what it names may be gone.
            (conversation.comes_back, conversation.outpaced) = (None, false);
        }
        self.set_state(ConnectionState::Offline);
    }

    fn reconnect_delay(&mut self) -> Duration {
        self.delay_up_to(RECONNECT_MAX_MS)
    }

    fn delay_up_to(&mut self, max_ms: u64) -> Duration {
        let bound = (RECONNECT_FIRST_MS << self.session.failures.min(10)).min(max_ms);
        self.session.failures = self.session.failures.saturating_add(1);
        Duration::from_millis(self.rng.next_u64() % (bound + 1))
    }
}

/// Whether a refusal of registration may end differently later.
pub(super) fn registration_may_succeed(why: &common::Error) -> bool {
    why.code().is_temporary() && why.code() != ErrorCode::Unspecified
}
