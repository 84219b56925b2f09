// SPDX-License-Identifier: MIT OR Apache-2.0
//! From a new connection to a known device: nonce, hello, signature.

use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use ed25519_dalek::{Signature, VerifyingKey};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use pli_api::common::Error;
use pli_api::directory::{GetDeviceKeyRequest, directory_client::DirectoryClient};
use pli_api::edge::{Binding, ClientFrame, ClientHello, ServerHello, client_frame, server_frame};
use pli_api::{Channel, ErrorCode, error_of_status, refusal};
use pli_domain::{AccountId, DeviceAddress, DeviceId, Position, transcript};
use prost::Message;
use rand::RngCore;
use tokio::time::Instant;

use crate::carrier::{CarrierError, PeerInfo};
use crate::config::{Config, SessionConfig, ms};
use crate::edge::{Shared, VERSIONS};
use crate::session::wire::Wire;

/// Longest host or user agent that is looked at.
const TEXT_MAX: usize = 255;

/// Whom a session belongs to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Who {
    /// None for an anonymous session.
    pub(crate) device: Option<DeviceAddress>,
    pub(crate) address: Option<IpAddr>,
    pub(crate) committed: Position,
    /// The hello's position is of another history, so that `committed` is none.
    pub(crate) other_history: bool,
}

/// A finished handshake.
#[derive(Debug)]
pub(crate) struct Greeted {
    pub(crate) who: Who,
    /// Single-use key packages in stock, where the directory said.
    pub(crate) key_packages: Option<u32>,
}

/// A failed one.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) error: Error,
    pub(crate) reconnect: bool,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        let reconnect = error.code().is_temporary();
        Self { error, reconnect }
    }
}

fn no(code: ErrorCode, message: &str) -> Refused {
    refusal(code, message).into()
}

/// Says hello with a nonce and judges the answer. The nonce lives in this call alone, so nothing can use it twice.
pub(crate) async fn greet(shared: &Arc<Shared>, wire: &mut Wire, peer: &PeerInfo) -> Result<Greeted, Refused> {
    if shared.registry.is_draining() {
        return Err(refusal(ErrorCode::Draining, "the server is going down").retry_after(1_000).into());
    }
    shared.limits.hello(peer.address)?;
    let nonce = shared.nonce.unwrap_or_else(drawn_nonce);
    let made = Instant::now();
    let now_ms = shared.ports.clock.now().0;
    wire.push(server_frame::Frame::Hello(ServerHello {
        nonce: nonce.to_vec().into(),
        versions: VERSIONS.to_vec(),
        now_ms,
    }));
    let limit = ms(shared.config.session.hello_ms);
    let hello = tokio::time::timeout(limit, first_frame(wire, &shared.config.session)).await;
    let hello = hello.unwrap_or_else(|_| Err(no(ErrorCode::HelloTimeout, "no hello came in time")))?;
    let greeted = judge(shared, &hello, &nonce, peer).await?;
    if greeted.who.device.is_some() && made.elapsed() >= ms(shared.config.session.nonce_ms) {
        return Err(no(ErrorCode::BadNonce, "the nonce is too old"));
    }
    Ok(greeted)
}

/// Not of the seeded source: nobody may foresee a nonce.
fn drawn_nonce() -> [u8; 32] {
    let mut nonce = [0; 32];
    rand::rng().fill_bytes(&mut nonce);
    nonce
}

/// The hello, unless the first frame is another, breaks, or is begun and not finished in time.
async fn first_frame(wire: &mut Wire, config: &SessionConfig) -> Result<ClientHello, Refused> {
    let timer = tokio::time::sleep(ms(config.frame_ms));
    tokio::pin!(timer);
    let next = poll_fn(|cx| {
        if let Poll::Ready(Err(error)) = wire.poll_send(cx) {
            return Poll::Ready(Err(refusal_of(&error)));
        }
        if let Poll::Ready(frame) = wire.poll_recv(cx) {
            return Poll::Ready(frame.map_err(|error| refusal_of(&error)));
        }
        let Some(partial) = wire.partial() else { return Poll::Pending };
        let due = partial.due(partial.since, config);
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        timer.as_mut().poll(cx).map(|()| Err(refusal(ErrorCode::FrameTimeout, "the frame came too slowly")))
    });
    match decoded(next.await?)? {
        client_frame::Frame::Hello(hello) => Ok(hello),
        _ => Err(no(ErrorCode::UnexpectedFrame, "the first frame must be a ClientHello")),
    }
}

/// The frame in these bytes, or the refusal.
pub(crate) fn decoded(bytes: bytes::Bytes) -> Result<client_frame::Frame, Error> {
    let empty = bytes.is_empty();
    match ClientFrame::decode(bytes) {
        Ok(ClientFrame { frame: Some(frame) }) => Ok(frame),
        Ok(_) if !empty => Err(refusal(ErrorCode::UnknownFrame, "this server does not know that frame")),
        Ok(_) => Err(refusal(ErrorCode::MalformedFrame, "the frame is empty")),
        Err(error) => Err(refusal(ErrorCode::MalformedFrame, format!("not a ClientFrame: {error}"))),
    }
}

/// What a carrier's error is on the wire.
pub(crate) fn refusal_of(error: &CarrierError) -> Error {
    match error {
        CarrierError::TooLarge => refusal(ErrorCode::FrameTooLarge, error.to_string()),
        CarrierError::NotAFrame(_) => refusal(ErrorCode::MalformedFrame, error.to_string()),
        CarrierError::Closed | CarrierError::Io(_) => refusal(ErrorCode::Temporary, error.to_string()),
    }
}

async fn judge(shared: &Shared, hello: &ClientHello, nonce: &[u8], peer: &PeerInfo) -> Result<Greeted, Refused> {
    if !VERSIONS.contains(&hello.version) {
        return Err(no(ErrorCode::UnsupportedVersion, "no protocol version in common"));
    }
    if hello.user_agent.len() > TEXT_MAX || hello.host.len() > TEXT_MAX {
        return Err(no(ErrorCode::MalformedFrame, "host and user_agent have at most 255 bytes"));
    }
    check_client_version(&hello.user_agent, &shared.config.client_version_min)?;
    let address = Some(peer.address);
    let is_anonymous = hello.account.is_empty() && hello.device.is_empty();
    // Who registers over a host that is none would have a handle and no session.
    let names_none = is_anonymous && hello.host.is_empty();
    if !names_none && !host_allowed(&hello.host, &shared.config) {
        return Err(no(ErrorCode::WrongHost, "this server does not answer under that host"));
    }
    if is_anonymous {
        let who = Who { device: None, address, committed: Position::ZERO, other_history: false };
        return Ok(Greeted { who, key_packages: None });
    }
    let device = device_of(hello)?;
    let binding = binding_bytes(hello.binding(), peer, &shared.config)?;
    let known = shared.keys.get(device).await?;
    let signed = transcript::authentication(&hello.host, device.account, device.device, nonce, binding);
    let signature = Signature::from_slice(&hello.signature).map_err(|_| bad_signature())?;
    known.key.verify_strict(&signed, &signature).map_err(|_| bad_signature())?;
    // A position that is none at all is treated like one that owners ignore: from the cursor.
    let committed = Position::from_u64(hello.committed).unwrap_or(Position::MAX);
    // Numbers of another history say nothing in this one, however they compare.
    let other_history = hello.history != shared.ports.history();
    let committed = if other_history { Position::ZERO } else { committed };
    let who = Who { device: Some(device), address, committed, other_history };
    Ok(Greeted { who, key_packages: Some(known.key_packages) })
}

fn bad_signature() -> Refused {
    no(ErrorCode::BadSignature, "the signature does not verify under the device's key")
}

fn device_of(hello: &ClientHello) -> Result<DeviceAddress, Refused> {
    let account = AccountId::try_from(hello.account.as_ref());
    let device = DeviceId::try_from(hello.device.as_ref());
    match (account, device) {
        (Ok(account), Ok(device)) => Ok(DeviceAddress { account, device }),
        _ => Err(no(ErrorCode::MalformedFrame, "account and device must have 16 bytes")),
    }
}

/// What the signature must be tied to on this connection.
fn binding_bytes<'a>(binding: Binding, peer: &'a PeerInfo, config: &Config) -> Result<&'a [u8], Refused> {
    let bound = match binding {
        Binding::TlsExporter => peer.exporter.as_ref().map(<[u8; 32]>::as_slice),
        Binding::ServerCertificate => Some(peer.server_certificate_sha256.as_slice()),
        Binding::Origin => peer.origin.as_ref().filter(|o| config.origins.contains(o)).map(String::as_bytes),
        Binding::Unspecified => None,
    };
    bound.ok_or_else(|| no(ErrorCode::BadBinding, "that channel binding is not allowed on this connection"))
}

/// Whether a hello may name this host. Without configured hosts only loopback names are this server.
fn host_allowed(host: &str, config: &Config) -> bool {
    let name = name_of(host);
    if config.hosts.is_empty() {
        return name.eq_ignore_ascii_case("localhost")
            || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    }
    config.hosts.iter().any(|allowed| {
        allowed.eq_ignore_ascii_case(host) || (name_of(allowed) == allowed && allowed.eq_ignore_ascii_case(name))
    })
}

/// The host without its port.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() && (!name.contains(':') || name.ends_with(']')) => name,
        _ => host,
    }
}

/// The first three numbers of a version.
pub(crate) fn version_numbers(text: &str) -> Option<[u32; 3]> {
    let mut parts = text.split('.').map(|part| part.parse().ok());
    Some([parts.next()??, parts.next()??, parts.next()??])
}

fn check_client_version(user_agent: &str, least: &str) -> Result<(), Refused> {
    // A client that does not name a version of this form is not ours to judge.
    let client = user_agent.strip_prefix("pli/").and_then(version_numbers);
    match (client, version_numbers(least)) {
        (Some(client), Some(least)) if client < least => {
            Err(no(ErrorCode::UnsupportedVersion, "the client is older than server info allows"))
        }
        _ => Ok(()),
    }
}

/// What authenticating a device needs.
#[derive(Clone)]
pub(crate) struct DeviceKey {
    key: Arc<VerifyingKey>,
    key_packages: u32,
    /// When it was asked for. The cache's own expiry counts another clock than everything else here.
    at: Instant,
}

/// Keys of devices, from the directory, believed for seconds.
pub(crate) struct DeviceKeys {
    directory: Channel,
    cache: Cache<DeviceAddress, DeviceKey>,
    /// Devices that were removed, those of the longest ago go first: no device comes back.
    removed: Cache<DeviceId, ()>,
    believed: Duration,
    deadline: Duration,
}

impl DeviceKeys {
    pub(crate) fn new(directory: Channel, max: u64, believed: Duration, deadline: Duration) -> Self {
        let cache = Cache::builder().max_capacity(max).eviction_policy(EvictionPolicy::lru()).build();
        let removed = Cache::builder().max_capacity(max).eviction_policy(EvictionPolicy::lru()).build();
        Self { directory, cache, removed, believed, deadline }
    }

    async fn get(&self, device: DeviceAddress) -> Result<DeviceKey, Error> {
        if self.is_removed(device.device) {
            return Err(removed());
        }
        if let Some(known) = self.cache.get(&device).filter(|known| known.at.elapsed() < self.believed) {
            return Ok(known);
        }
        let fetched = self.fetch(device).await?;
        self.cache.insert(device, fetched.clone());
        Ok(fetched)
    }

    /// A removed device must not come back by a key that is still believed.
    pub(crate) fn mark_removed(&self, device: DeviceId) {
        self.removed.insert(device, ());
    }
    /// Whether the device was removed, as far as that is remembered.
    pub(crate) fn is_removed(&self, device: DeviceId) -> bool {
        self.removed.contains_key(&device)
    }

    async fn fetch(&self, device: DeviceAddress) -> Result<DeviceKey, Error> {
        let mut client = DirectoryClient::new(self.directory.clone());
        let request = GetDeviceKeyRequest { device: Some(device.into()) };
        let at = Instant::now();
        let answer = tokio::time::timeout(self.deadline, client.get_device_key(request)).await;
        let late = |_| refusal(ErrorCode::Temporary, "the directory took too long").retry_after(500);
        let answer = answer.map_err(late)?.map_err(|status| {
            let error = error_of_status(&status);
            match error.code() {
                ErrorCode::NotFound => refusal(ErrorCode::UnknownDevice, "no such device"),
                _ => error,
            }
        })?;
        let answer = answer.into_inner();
        let key = <[u8; 32]>::try_from(answer.key.as_ref()).ok().and_then(|key| VerifyingKey::from_bytes(&key).ok());
        let key = key.ok_or_else(|| refusal(ErrorCode::Internal, "the directory's key is no Ed25519 key"))?;
        Ok(DeviceKey { key: Arc::new(key), key_packages: answer.key_packages, at })
    }
}

/// What a removed device is told, whatever it asks.
pub(crate) fn removed() -> Error {
    refusal(ErrorCode::DeviceRemoved, "the account removed this device; link it again as a new one")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(hosts: &[&str]) -> Config {
        Config { hosts: hosts.iter().map(ToString::to_string).collect(), ..Config::default() }
    }

    #[test]
    fn without_configured_hosts_only_loopback_names_are_this_server() {
        for host in ["localhost", "LOCALHOST:8443", "127.0.0.1:1", "[::1]:8443", "::1"] {
            assert!(host_allowed(host, &hosts(&[])), "{host}");
        }
        for host in ["", "example.org", "127.0.0.1.example.org", "10.0.0.1:1"] {
            assert!(!host_allowed(host, &hosts(&[])), "{host}");
        }
    }

    #[test]
    fn a_configured_host_without_a_port_stands_for_every_port() {
        let config = hosts(&["pli.example", "other.example:8443"]);
        for host in ["pli.example", "Pli.Example:9", "other.example:8443"] {
            assert!(host_allowed(host, &config), "{host}");
        }
        for host in ["other.example", "other.example:1", "localhost", "x.pli.example"] {
            assert!(!host_allowed(host, &config), "{host}");
        }
    }

    #[test]
    fn an_old_client_is_told_to_update() {
        assert!(check_client_version("pli/0.0.9", "0.1.0").is_err());
        for agent in ["pli/0.1.0", "pli/1.0.0", "other/0.0.1", "", "pli/x"] {
            assert!(check_client_version(agent, "0.1.0").is_ok(), "{agent}");
        }
    }
}
