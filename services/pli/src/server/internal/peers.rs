// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls to roles in other processes.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use pli_domain::protocol::RoleProtocol;
use tonic::body::Body;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{ConnectError, Status};
use tower::ServiceExt;

use crate::config::{InternalConfig, TlsMaterial};
use crate::exit::{Exit, Failure, with_causes};
use crate::server::role::Role;

/// A process that does not accept a connection within this is passed over.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// A connection that stays silent for so long while calls are open is asked whether it lives.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(3);
/// How long its answer may take.
const KEEPALIVE_WITHIN: Duration = Duration::from_secs(3);
/// Most calls that wait for one connection.
const WAITING_MAX: usize = 1_024;

/// Methods that change nothing: they may be asked twice.
const READS: &[&str] = &[
    "/pli.directory.v1.Directory/Lookup",
    "/pli.directory.v1.Directory/GetDeviceLists",
    "/pli.directory.v1.Directory/GetDeviceKey",
    "/pli.conversations.v1.Conversations/GetCommits",
    "/pli.conversations.v1.Conversations/GetGroupInfo",
    "/pli.conversations.v1.Conversations/GetRoster",
    "/pli.conversations.v1.Conversations/List",
    "/pli.conversations.v1.Conversations/FetchPayload",
    "/pli.links.v1.Links/WaitBlob",
    "/pli.media.v1.Media/GetUpload",
    "/pli.media.v1.Media/GetPart",
];

/// The processes that have one role. A call goes to them in turn. One that cannot be connected to is passed over; a read
/// that broke off is asked of the next one, once; everything else is the caller's to repeat, with its own ids.
#[derive(Clone)]
pub struct Peers {
    channels: Arc<[Channel]>,
    next: Arc<AtomicUsize>,
    /// What calls say about their version.
    version: Option<http::HeaderValue>,
}

impl Peers {
    /// Connects when the first call is made. Errors when no address is given or one cannot be read.
    pub fn new(role: Role, config: &InternalConfig, material: &TlsMaterial) -> Result<Self, Failure> {
        let addresses: &[String] = match role {
            Role::Directory => &config.directory,
            Role::Conversations => &config.conversations,
            Role::Links => &config.links,
            Role::Media => &config.media,
            // Nobody calls these.
            Role::Edge | Role::Delivery => &[],
        };
        if addresses.is_empty() {
            let text = format!("internal.{role} is empty and the role {role} is not in this process; name host:port");
            return Err(Failure::say(Exit::Config, text));
        }
        let tls = ClientTlsConfig::new()
            .domain_name(role.dns_name())
            .ca_certificate(Certificate::from_pem(&material.ca))
            .identity(Identity::from_pem(&material.certificate, &material.key));
        let channel = |address: &String| {
            let failed = |error: tonic::transport::Error| {
                let cause = error.source().map(ToString::to_string).unwrap_or_default();
                Failure::say(Exit::Config, format_args!("internal.{role}: {address}: {error} {cause}"))
            };
            let endpoint = Endpoint::from_shared(format!("https://{address}")).map_err(failed)?;
            let endpoint = endpoint
                .connect_timeout(CONNECT_WITHIN)
                .http2_keep_alive_interval(KEEPALIVE_EVERY)
                .keep_alive_timeout(KEEPALIVE_WITHIN)
                .buffer_size(WAITING_MAX);
            Ok(endpoint.tls_config(tls.clone()).map_err(failed)?.connect_lazy())
        };
        let channels = addresses.iter().map(channel).collect::<Result<Arc<[_]>, Failure>>()?;
        let version = config.protocol().said().and_then(|said| said.parse().ok());
        Ok(Self { channels, next: Arc::default(), version })
    }

    /// As services take it.
    pub fn channel(self) -> pli_api::Channel {
        let call = move |request| {
            let peers = self.clone();
            async move { peers.call(request).await }
        };
        pli_api::Channel::new(tower::service_fn(call))
    }

    async fn call(&self, request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
        let (mut head, body) = request.into_parts();
        if let Some(version) = &self.version {
            head.headers.insert(RoleProtocol::HEADER, version.clone());
        }
        // A request is one message of bounded size, made in this process.
        let body = body.collect().await?.to_bytes();
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let is_read = READS.contains(&head.uri.path());
        let mut broken = 0;
        let mut last = Status::unavailable("no process with this role can be reached");
        // One more than there are, so that a single process whose connection had just ended is tried again.
        for turn in 0..=self.channels.len() {
            let channel = self.channels[first.wrapping_add(turn) % self.channels.len()].clone();
            let request = http::Request::from_parts(head.clone(), Body::new(Full::new(body.clone())));
            let error = match channel.oneshot(request).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            broken += usize::from(!is_unsent(&error));
            last = status(&error);
            if broken > usize::from(is_read) {
                break;
            }
        }
        Err(last)
    }
}

/// Whether the request never left: there was no connection.
fn is_unsent(error: &tonic::transport::Error) -> bool {
    anyhow::Chain::new(error).any(|cause| cause.is::<ConnectError>())
}

fn status(error: &tonic::transport::Error) -> Status {
    Status::unavailable(with_causes(error))
}
