// SPDX-License-Identifier: MIT OR Apache-2.0
//! From a server's address and a name to an open client.

use std::path::PathBuf;

use pli_client_core::mls::Suite;

use crate::address::InvalidServerAddress;
use crate::profile::{self, InvalidProfileName, ProfileError};
use crate::{Client, ClientOptions, Events, Fingerprint, OpenError, Transport};

/// Why a client could not be made. Nothing is connected and nothing is held.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address of the server.
    #[error(transparent)]
    Server(#[from] InvalidServerAddress),
    /// The name.
    #[error(transparent)]
    Name(#[from] InvalidProfileName),
    /// There is no folder for profiles.
    #[error(transparent)]
    Home(#[from] ProfileError),
    /// The profile cannot be opened; among other things because another process holds it.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// What to open; see [`Client::builder`].
#[derive(Debug, Clone)]
#[must_use = "nothing happens before `connect`"]
pub struct ClientBuilder {
    server: String,
    name: String,
    home: Option<PathBuf>,
    fingerprint: Option<Fingerprint>,
    transport: Transport,
    suite: Suite,
}

impl ClientBuilder {
    pub(super) fn new(server: String, name: String) -> Self {
        Self { server, name, home: None, fingerprint: None, transport: Transport::default(), suite: Suite::default() }
    }

    /// The folder below which profiles live, made where it is not there. Without it: `$XDG_DATA_HOME/pli`, else
    /// `~/.local/share/pli`, as for `pli chat`.
    pub fn home(mut self, folder: impl Into<PathBuf>) -> Self {
        self.home = Some(folder.into());
        self
    }

    /// The SHA-256 of the server's certificate, which `make run` prints. Without it the first certificate that is seen
    /// is trusted, and from then on no other.
    pub fn fingerprint(mut self, fingerprint: Fingerprint) -> Self {
        self.fingerprint = Some(fingerprint);
        self
    }

    /// What to connect over. Without it QUIC, and WebSocket where UDP is blocked.
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// The suite of the conversations of a handle that is not registered yet; one that is keeps its own. Without it 0x0001.
    /// [`Suite::PostQuantum`] needs a server that is set to take it, which is asked before the handle is registered, and
    /// reaches devices of that suite alone.
    pub fn suite(mut self, suite: Suite) -> Self {
        self.suite = suite;
        self
    }

    /// Opens the profile, which is made at first use and registers its handle, and begins to connect. Returns before there
    /// is a connection: what is sent meanwhile waits, durably, and [`Client::online`] waits for it. Must be called within a
    /// tokio runtime.
    ///
    /// # Errors
    /// [`ConnectError`]: an address or a name that is none, a profile that another process holds or that cannot be read.
    /// A server that is away is no error: the client tries on, and [`Client::status`] says why there is no connection.
    pub async fn connect(self) -> Result<(Client, Events), ConnectError> {
        let home = profile::home(self.home.as_deref())?;
        let options = ClientOptions {
            server: self.server.parse()?,
            others: Vec::new(),
            transport: self.transport,
            quic_port: None,
            fingerprint: self.fingerprint,
            home,
            name: self.name.parse()?,
            suite: self.suite,
            offline: false,
        };
        Ok(Client::open(options).await?)
    }
}
