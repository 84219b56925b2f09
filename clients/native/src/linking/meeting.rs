// SPDX-License-Identifier: MIT OR Apache-2.0
//! One side of a rendezvous, and the sessions that its calls go over.

use std::time::Duration;

use bytes::Bytes;
use pli_api::edge::{Call, ClientFrame, ClientHello, Pong, client_frame, reply, server_frame};
use pli_api::links::{
    OpenRendezvousRequest, OpenRendezvousResponse, PutBlobRequest, Side, WaitBlobRequest, WaitBlobResponse,
};
use pli_api::{ErrorCode, common, links};
use pli_client_core::PROTOCOL_VERSION;
use pli_client_core::linking::{NewDevice, Rendezvous};
use pli_domain::UnixMillis;
use prost::Message;
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::LinkFailure;
use crate::client::{CallError, ClientOptions};
use crate::profile::Profile;
use crate::{Client, Connection, Connector, FrameSink, FrameStream, ServerAddress, TransportError};

const OPEN: &str = "/pli.links.v1.Links/OpenRendezvous";
const JOIN: &str = "/pli.links.v1.Links/JoinRendezvous";
const PUT: &str = "/pli.links.v1.Links/PutBlob";
const WAIT: &str = "/pli.links.v1.Links/WaitBlob";
/// More than the server waits by itself.
const WAIT_MS: u32 = 20_000;
/// Between two tries of a call that was lost.
pub(super) const AGAIN_AFTER: Duration = Duration::from_millis(300);
/// How long opening and joining are tried; the server says how long the rest may take.
pub(super) const REACHED_WITHIN: Duration = Duration::from_secs(20);
/// No rendezvous lives longer, whatever a server says.
const LIFE_MS_MAX: u32 = 600_000;

/// Something that calls methods of the server.
pub(super) trait Caller {
    /// Once; what is lost with a connection is called again by [`Meeting`].
    async fn call(&mut self, method: &'static str, body: Vec<u8>) -> Result<Bytes, CallError>;
}

impl Caller for Client {
    async fn call(&mut self, method: &'static str, body: Vec<u8>) -> Result<Bytes, CallError> {
        Client::call(self, method, body).await
    }
}

/// Anonymous sessions with a server, one after the other.
pub(super) struct Stranger {
    servers: Servers,
    profile: Profile,
    session: Option<(FrameSink, FrameStream)>,
    calls: u64,
    /// The server's time, and when it was told.
    told: Option<(UnixMillis, Instant)>,
}

/// The addresses of one server, and how they are reached.
pub(super) struct Servers {
    pub addresses: Vec<ServerAddress>,
    pub connector: Connector,
    /// The one that is tried next.
    at: usize,
}

impl Servers {
    pub fn new(options: &ClientOptions, connector: Connector) -> Self {
        let addresses = std::iter::once(&options.server).chain(&options.others).cloned().collect();
        Self { addresses, connector, at: 0 }
    }

    /// A connection, and the host that was connected to; the next address is tried the next time where there is none, and at
    /// once where another certificate is there.
    pub async fn open(&mut self) -> Result<(Connection, String), TransportError> {
        let mut left = self.addresses.len();
        loop {
            let server = self.addresses[self.at % self.addresses.len()].clone();
            left -= 1;
            match self.connector.open(&server).await {
                Ok(connection) => return Ok((connection, server.to_string())),
                Err(error) => {
                    self.at += 1;
                    if left == 0 || !matches!(error, TransportError::WrongCertificate { .. }) {
                        return Err(error);
                    }
                }
            }
        }
    }
}

impl Stranger {
    /// Of a device that has no account yet; its profile pins the certificate.
    pub fn new(servers: Servers, profile: Profile) -> Self {
        Self { servers, profile, session: None, calls: 0, told: None }
    }

    /// The server's addresses; it is a stranger no more. The profile is held on.
    pub fn into_parts(self) -> (Servers, Profile) {
        (self.servers, self.profile)
    }

    /// What time it is at the server: it does not step where somebody sets this device's clock.
    pub async fn server_time(&mut self) -> Result<UnixMillis, CallError> {
        if self.told.is_none() {
            self.connect().await?;
        }
        let (told, at) = self.told.ok_or(CallError::Lost)?;
        Ok(told.after(at.elapsed()))
    }

    async fn connect(&mut self) -> Result<(), CallError> {
        let (connection, _) = self.servers.open().await.map_err(CallError::Transport)?;
        // What cannot be pinned is not trusted further.
        let pinned = self.profile.keep_pin(connection.fingerprint);
        pinned.map_err(|error| CallError::Profile(error.into()))?;
        if self.servers.connector.pin().is_none() {
            self.servers.connector = self.servers.connector.pinned(connection.fingerprint);
        }
        let (mut sink, mut stream) = connection.split();
        let user_agent = concat!("pli/", env!("CARGO_PKG_VERSION")).to_owned();
        let hello = ClientHello { version: PROTOCOL_VERSION, user_agent, ..ClientHello::default() };
        sink.send(&[frame(client_frame::Frame::Hello(hello))]).await.map_err(CallError::Transport)?;
        loop {
            match stream.next().await.map_err(CallError::Transport)?.frame {
                Some(server_frame::Frame::Ready(ready)) => {
                    self.told = Some((UnixMillis(ready.now_ms), Instant::now()));
                    break;
                }
                Some(server_frame::Frame::Close(close)) => return Err(closed(close.reason)),
                _ => {}
            }
        }
        self.session = Some((sink, stream));
        Ok(())
    }

    async fn exchange(
        &mut self,
        (sink, stream): &mut (FrameSink, FrameStream),
        method: &str,
        body: Vec<u8>,
    ) -> Result<Bytes, CallError> {
        self.calls += 1;
        let id = self.calls;
        let call = Call { id, method: method.into(), body: body.into() };
        sink.send(&[frame(client_frame::Frame::Call(call))]).await.map_err(CallError::Transport)?;
        loop {
            match stream.next().await.map_err(CallError::Transport)?.frame {
                Some(server_frame::Frame::Reply(answer)) if answer.id == id => {
                    return match answer.result {
                        Some(reply::Result::Body(body)) => Ok(Bytes::copy_from_slice(&body)),
                        Some(reply::Result::Error(why)) => Err(CallError::Refused(Box::new(why))),
                        None => Err(CallError::Lost),
                    };
                }
                Some(server_frame::Frame::Ping(ping)) => {
                    let pong = frame(client_frame::Frame::Pong(Pong { id: ping.id }));
                    sink.send(&[pong]).await.map_err(CallError::Transport)?;
                }
                Some(server_frame::Frame::Close(close)) => return Err(closed(close.reason)),
                Some(server_frame::Frame::GoAway(_)) => return Err(CallError::Lost),
                _ => {}
            }
        }
    }
}

impl Caller for Stranger {
    async fn call(&mut self, method: &'static str, body: Vec<u8>) -> Result<Bytes, CallError> {
        if self.session.is_none() {
            self.connect().await?;
        }
        // A caller that stops waiting in the middle may leave half a frame: that session is used no more.
        let mut session = self.session.take().ok_or(CallError::Lost)?;
        let answered = self.exchange(&mut session, method, body).await;
        if matches!(answered, Ok(_) | Err(CallError::Refused(_))) {
            self.session = Some(session);
        }
        answered
    }
}

pub(super) fn frame(frame: client_frame::Frame) -> ClientFrame {
    ClientFrame { frame: Some(frame) }
}

/// What a server that closes the session means.
pub(super) fn closed(reason: Option<common::Error>) -> CallError {
    match reason {
        Some(why) if !why.code().is_temporary() => CallError::Refused(Box::new(why)),
        _ => CallError::Lost,
    }
}

/// One side.
pub(super) struct Meeting<C> {
    pub caller: C,
    id: [u8; 16],
    side: Side,
    secret: [u8; 32],
    /// When the rendezvous is over, or is waited for no longer; and whether the second, which is the caller's word, is first.
    end: (Instant, bool),
}

impl<C: Caller> Meeting<C> {
    /// As the new device.
    pub async fn open(mut caller: C, new: &NewDevice, cut: Option<Instant>) -> Result<Self, LinkFailure> {
        let Rendezvous { id, approver_secret } = new.code().rendezvous();
        let request = OpenRendezvousRequest {
            rendezvous: Bytes::copy_from_slice(&id),
            opener_secret_sha256: sha256(new.opener_secret()),
            approver_secret_sha256: sha256(&approver_secret),
        };
        let by = earlier(Instant::now() + REACHED_WITHIN, cut);
        let opened = again(&mut caller, OPEN, &request, by.0).await;
        let opened: OpenRendezvousResponse = opened.map_err(|error| unanswered(error, by.0))?;
        let end = earlier(Instant::now() + left(opened.left_ms), cut);
        Ok(Self { caller, id, side: Side::Opener, secret: *new.opener_secret(), end })
    }

    /// As the device that has read the code.
    pub async fn join(mut caller: C, place: &Rendezvous, cut: Option<Instant>) -> Result<Self, LinkFailure> {
        let (rendezvous, secret) = (Bytes::copy_from_slice(&place.id), Bytes::copy_from_slice(&place.approver_secret));
        let request = links::JoinRendezvousRequest { rendezvous, secret };
        let by = earlier(Instant::now() + REACHED_WITHIN, cut);
        let joined = again(&mut caller, JOIN, &request, by.0).await;
        let joined: links::JoinRendezvousResponse = joined.map_err(|error| unanswered(error, by.0))?;
        let end = earlier(Instant::now() + left(joined.left_ms), cut);
        Ok(Self { caller, id: place.id, side: Side::Approver, secret: place.approver_secret, end })
    }

    /// When it is over.
    pub const fn deadline(&self) -> Instant {
        self.end.0
    }

    /// Puts the last blob of this side, also where the caller waits for the other one no longer.
    pub async fn put_last(&mut self, number: u32, blob: &[u8]) -> Result<(), LinkFailure> {
        self.end = (self.end.0.max(Instant::now() + REACHED_WITHIN), false);
        self.put(number, blob).await
    }

    /// Puts a blob of this side.
    pub async fn put(&mut self, number: u32, blob: &[u8]) -> Result<(), LinkFailure> {
        let request = PutBlobRequest {
            rendezvous: Bytes::copy_from_slice(&self.id),
            side: self.side.into(),
            secret: Bytes::copy_from_slice(&self.secret),
            number,
            blob: Bytes::copy_from_slice(blob),
        };
        let put = again::<_, links::PutBlobResponse>(&mut self.caller, PUT, &request, self.end.0).await;
        put.map(drop).map_err(|error| late(error, self.end))
    }

    /// The other side's blob.
    pub async fn wait(&mut self, number: u32) -> Result<Bytes, LinkFailure> {
        let request = WaitBlobRequest {
            rendezvous: Bytes::copy_from_slice(&self.id),
            side: self.side.into(),
            secret: Bytes::copy_from_slice(&self.secret),
            number,
            wait_ms: WAIT_MS,
        };
        loop {
            let asked = Instant::now();
            let answer = again(&mut self.caller, WAIT, &request, self.end.0).await;
            let answer: WaitBlobResponse = answer.map_err(|error| late(error, self.end))?;
            if !answer.blob.is_empty() {
                return Ok(answer.blob);
            }
            // A server that does not wait is asked no more often for it.
            sleep_until(asked + AGAIN_AFTER).await;
        }
    }

    /// Why it is over at [`Meeting::deadline`].
    pub fn over(&self) -> LinkFailure {
        late(LinkFailure::Late, self.end)
    }
}

/// What is late because the caller waits no longer says so.
fn late(error: LinkFailure, (deadline, is_cut): (Instant, bool)) -> LinkFailure {
    match error {
        LinkFailure::Late if is_cut && Instant::now() + AGAIN_AFTER >= deadline => LinkFailure::NotWaited,
        error => error,
    }
}

/// What is late before there is a rendezvous is so because of the server.
fn unanswered(error: LinkFailure, deadline: Instant) -> LinkFailure {
    match error {
        LinkFailure::Late if Instant::now() + AGAIN_AFTER >= deadline => LinkFailure::Unanswered,
        error => error,
    }
}

/// The first of both, and whether that is the second.
fn earlier(end: Instant, cut: Option<Instant>) -> (Instant, bool) {
    cut.filter(|cut| *cut < end).map_or((end, false), |cut| (cut, true))
}

fn left(left_ms: u32) -> Duration {
    Duration::from_millis(left_ms.min(LIFE_MS_MAX).into())
}

fn sha256(secret: &[u8; 32]) -> Bytes {
    Bytes::copy_from_slice(&Sha256::digest(secret))
}

/// Calls until there is an answer, for a connection may be lost and a server busy; at the deadline the last reason counts.
async fn again<C: Caller, A: Message + Default>(
    caller: &mut C,
    method: &'static str,
    request: &impl Message,
    deadline: Instant,
) -> Result<A, LinkFailure> {
    let mut why = LinkFailure::Late;
    loop {
        let Ok(answered) = timeout_at(deadline, caller.call(method, request.encode_to_vec())).await else {
            return Err(why);
        };
        why = match answered {
            Ok(body) => return Ok(A::decode(body).unwrap_or_default()),
            Err(CallError::Refused(error)) if error.code() == ErrorCode::RendezvousExpired => {
                return Err(LinkFailure::Late);
            }
            Err(CallError::Refused(error)) if error.code() == ErrorCode::BlobConflict => return Err(LinkFailure::Used),
            Err(CallError::Refused(error)) if error.code().is_temporary() => LinkFailure::Refused(error),
            Err(CallError::Refused(error)) => return Err(LinkFailure::Refused(error)),
            Err(CallError::Transport(error @ TransportError::WrongCertificate { .. })) => return Err(error.into()),
            Err(CallError::Transport(error)) => LinkFailure::Transport(error),
            Err(CallError::Profile(error)) => return Err(LinkFailure::Open(*error)),
            Err(CallError::Ended) => return Err(LinkFailure::Ended),
            Err(CallError::Lost) => LinkFailure::Late,
        };
        if Instant::now() + AGAIN_AFTER >= deadline {
            return Err(why);
        }
        sleep(AGAIN_AFTER).await;
    }
}
