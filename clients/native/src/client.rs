// SPDX-License-Identifier: MIT OR Apache-2.0
//! The handle of one open profile.

mod builder;
mod conversations;
mod messages;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pli_client_core::mls::Suite;
use pli_client_core::{Command, Core, Event, Outcome};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::driver::{self, Driver, Link};
use crate::error::{End, OpenError, RequestError};
use crate::handover::Turns;
use crate::history::Rows;
use crate::profile::{self, Profile, ProfileError, ProfileName};
use crate::{Carrier, Connector, Fingerprint, ServerAddress, Transport};

pub use builder::{ClientBuilder, ConnectError};
pub use messages::{Message, Messages};

/// Requests that may wait for the driver; above it the caller waits.
const REQUESTS_MAX: usize = 256;
/// How long [`Client::online`] waits for key packages, and how often it looks.
const PUBLISHED_WITHIN: Duration = Duration::from_secs(5);
const PUBLISHED_LOOK: Duration = Duration::from_millis(20);
/// Events that may wait for their reader; above it no more is read from the server.
const EVENTS_MAX: usize = 1_024;

/// Which profile to open.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// The server; names the profile.
    pub server: ServerAddress,
    /// More addresses of the same server, with the same certificate: whenever a connection is lost or cannot be had, the
    /// next one is tried, in turn.
    pub others: Vec<ServerAddress>,
    /// What to connect over.
    pub transport: Transport,
    /// UDP port of the server for QUIC; none where it is the number of the TCP port.
    pub quic_port: Option<u16>,
    /// The server's certificate; none trusts the one that was pinned, or the first one seen.
    pub fingerprint: Option<Fingerprint>,
    /// Where profiles live; see [`profile::home`].
    pub home: PathBuf,
    /// Whose profile; registered at first use, where it is no companion device's.
    pub name: ProfileName,
    /// The suite of a handle that is not registered yet; one that is keeps its own, and a companion takes its account's.
    pub suite: Suite,
    /// Connects to nobody: what is stored can be read, and what is sent waits for the next time.
    pub offline: bool,
}

/// How the connection stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// As the core sees it.
    pub state: pli_client_core::ConnectionState,
    /// What the connection goes over, where there is one.
    pub carrier: Option<Carrier>,
    /// Why there is none, where that is known.
    pub why: Option<String>,
    /// The server knows the handle.
    pub registered: bool,
    /// The client has ended; [`Client::ended`] says why.
    pub ended: bool,
}

/// For people.
impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use pli_client_core::ConnectionState::{CatchingUp, Online};
        match (self.state, &self.why) {
            _ if self.ended => f.write_str("ended"),
            (CatchingUp | Online, _) => f.write_str("connected"),
            (_, Some(why)) => write!(f, "waiting for the server: {why}"),
            (_, None) => f.write_str("connecting"),
        }
    }
}

/// What waits for the driver.
pub(crate) enum Request {
    /// A command; answered when what it changed is durable.
    Command(Box<Command>, oneshot::Sender<Result<Outcome, RequestError>>),
    /// A message of the history was handled, by this command where there is one; answered as a command.
    Handled(u64, Option<Box<Command>>, oneshot::Sender<Result<Outcome, RequestError>>),
    /// A look into the core.
    Query(Box<dyn FnOnce(&Core) + Send>),
    /// A call of a method with this body, on the session of the moment.
    Call(&'static str, Vec<u8>, oneshot::Sender<Result<Bytes, CallError>>),
}

/// Why a call has no answer.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The server refused.
    Refused(Box<pli_api::common::Error>),
    /// There is no session, or it was lost: call again.
    Lost,
    /// There is no connection.
    Transport(crate::TransportError),
    /// The certificate cannot be pinned.
    Profile(Box<OpenError>),
    /// The client has ended.
    Ended,
}

impl From<ProfileError> for Box<OpenError> {
    fn from(error: ProfileError) -> Self {
        Self::new(error.into())
    }
}

/// An open profile. Cheap to clone; the profile is let go when [`Client::close`] returns or the last clone is dropped.
#[derive(Clone)]
pub struct Client {
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<Status>,
    end: watch::Receiver<Option<End>>,
    rows: Rows,
    folder: Arc<Path>,
    hosts: Arc<[String]>,
    stop: CancellationToken,
    histories: Turns,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.folder.display())
    }
}

/// What happens, in order. Everything in it is durable before it is seen here.
///
/// Read them or drop them: when 5,120 wait to be read, nothing more is read from the server, so nothing is acknowledged and
/// what is sent waits in the outbox too, until that is full. Where they are dropped the client goes on without them.
#[derive(Debug)]
pub struct Events(mpsc::Receiver<Event>);

impl Events {
    /// The next event; none when the client has ended. Cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }

    /// Whether none waits at the moment.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Client {
    /// A client of `name` on `server`: `HOST` or `HOST:PORT`, and a handle of 3 to 32 characters, which is registered at
    /// first use, or `HANDLE/DEVICE` for a companion device that is linked already.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let (client, mut events) = pli_client::Client::builder("127.0.0.1:7480", "alice").connect().await?;
    /// client.online().await?;
    /// while let Some(event) = events.next().await {
    ///     println!("{event:?}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder(server: impl Into<String>, name: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new(server.into(), name.into())
    }

    /// Opens the profile with every option that there is; see [`Client::builder`]. Must be called within a tokio runtime.
    /// Returns before there is a connection; see [`Client::status`].
    pub async fn open(options: ClientOptions) -> Result<(Self, Events), OpenError> {
        let folder = profile::folder(&options.home, &options.server, &options.name);
        let opened = tokio::task::spawn_blocking({
            let folder = folder.clone();
            move || -> Result<_, OpenError> {
                if !profile::exists(&folder) {
                    options.name.handle.check_new()?;
                }
                let profile = Profile::lock(&folder)?;
                let pin = pin(&profile, options.fingerprint)?;
                let core = driver::load(&profile, &options)?;
                Ok((profile, pin, core, options))
            }
        });
        // The closure does not panic and is not cancelled, so joining cannot fail.
        let (profile, pin, (core, store), options) = opened.await.map_err(|e| damaged(&folder, e))??;
        let (requests, inbox) = mpsc::channel(REQUESTS_MAX);
        let (events, reader) = mpsc::channel(EVENTS_MAX);
        let stop = CancellationToken::new();
        let rows = Rows::new(store);
        let channels = driver::Channels { requests: inbox, events, stop: stop.clone() };
        let servers: Vec<ServerAddress> = std::iter::once(options.server).chain(options.others).collect();
        let hosts = servers.iter().map(ToString::to_string).collect();
        let connector = Connector::new(pin, options.transport).quic_port(options.quic_port);
        let connector = connector.remembering(&profile.ways());
        let link = Link::new(servers, connector).offline(options.offline);
        let (driver, status, end) = Driver::new(core, rows.clone(), profile, link, channels);
        tokio::spawn(driver.run());
        let histories = Turns::default();
        Ok((Self { requests, status, end, rows, folder: folder.into(), hosts, stop, histories }, Events(reader)))
    }

    /// What the profile's database holds.
    pub(crate) const fn rows(&self) -> &Rows {
        &self.rows
    }

    /// Whose turn it is to hand a history over or to take one in.
    pub(crate) const fn histories(&self) -> &Turns {
        &self.histories
    }

    /// The profile's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The addresses of the server, as sessions with it are signed.
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// Calls a method on the session of the moment.
    pub(crate) async fn call(&self, method: &'static str, body: Vec<u8>) -> Result<Bytes, CallError> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request::Call(method, body, answer)).await.map_err(|_| CallError::Ended)?;
        answered.await.map_err(|_| CallError::Ended)?
    }

    /// How the connection stands, now and from now on.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Tells how the connection stands, now and whenever that changes, until the client ends: `connecting`, `connected`, or
    /// what is waited for and why. Must be called within a tokio runtime.
    pub fn tell_status(&self, tell: impl Fn(&Status) + Send + 'static) {
        let mut status = self.status();
        tokio::spawn(async move {
            let mut told = String::new();
            loop {
                let now = status.borrow_and_update().clone();
                if now.ended {
                    return;
                }
                if now.to_string() != told {
                    tell(&now);
                    told = now.to_string();
                }
                if status.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    /// Waits until the server knows the handle and everything that waited has arrived, and then for 5 s at most until its
    /// key packages are published: before, nobody can begin a conversation with it.
    ///
    /// # Errors
    /// [`RequestError::Ended`] where the client ended before that, for example because the handle is taken;
    /// [`Client::end`] says why.
    pub async fn online(&self) -> Result<(), RequestError> {
        let online = |status: &Status| status.ended || status.state == pli_client_core::ConnectionState::Online;
        match self.status.clone().wait_for(online).await {
            Ok(status) if !status.ended => {}
            _ => return Err(RequestError::Ended),
        }
        let end = Instant::now() + PUBLISHED_WITHIN;
        while Instant::now() < end && !self.query(Core::has_published).await? {
            tokio::time::sleep(PUBLISHED_LOOK).await;
        }
        Ok(())
    }

    /// Gives the core a command, of those that have no method of their own too; what it changed is durable on return.
    /// Dropping the future does not take it back.
    ///
    /// # Errors
    /// [`RequestError::Command`] where the core does not take it: nothing changed.
    pub async fn command(&self, command: Command) -> Result<Outcome, RequestError> {
        let (answer, answered) = oneshot::channel();
        let request = Request::Command(Box::new(command), answer);
        self.requests.send(request).await.map_err(|_| RequestError::Ended)?;
        answered.await.map_err(|_| RequestError::Ended)?
    }

    /// Looks into the core, between two of its steps.
    ///
    /// # Errors
    /// [`RequestError::Ended`] alone.
    pub async fn query<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Core) -> T + Send + 'static,
    ) -> Result<T, RequestError> {
        let (answer, answered) = oneshot::channel();
        // Nobody may wait for the answer any more.
        let look = Box::new(move |core: &Core| drop(answer.send(look(core))));
        self.requests.send(Request::Query(look)).await.map_err(|_| RequestError::Ended)?;
        answered.await.map_err(|_| RequestError::Ended)
    }

    /// Why the client ended; none while it runs.
    pub fn ended(&self) -> Option<End> {
        self.end.borrow().clone()
    }

    /// Waits until the client has ended, and says why.
    pub async fn end(&self) -> End {
        match self.end.clone().wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or(End::Closed),
            Err(_) => End::Closed,
        }
    }

    /// Says goodbye to the server, lets go of the profile, and returns when both are done.
    pub async fn close(&self) {
        self.stop.cancel();
        self.end().await;
    }
}

/// The certificate to insist on, from what the profile and the caller know.
pub(crate) fn pin(profile: &Profile, given: Option<Fingerprint>) -> Result<Option<Fingerprint>, OpenError> {
    match (profile.pin()?, given) {
        (Some(pinned), Some(given)) if pinned != given => {
            Err(OpenError::OtherServer { folder: profile.folder().display().to_string(), pinned, given })
        }
        (Some(pinned), _) => Ok(Some(pinned)),
        // Pinned when the server has shown it: a slip of the keyboard is not kept.
        (None, given) => Ok(given),
    }
}

/// The stored state cannot be read back.
pub(crate) fn damaged(folder: &Path, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> OpenError {
    OpenError::Damaged { folder: folder.display().to_string(), source: source.into() }
}
