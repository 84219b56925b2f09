// SPDX-License-Identifier: MIT OR Apache-2.0
//! One connection: questions to the JetStream API, and what happened to the connection.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::client::Statistics;
use async_nats::jetstream::context::ContextBuilder;
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, HeaderMap, Request, RequestErrorKind};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::NatsOptions;
use crate::error::{ApiError, ConnectError};
use crate::names::FENCE;
use crate::permissions::inbox;
use crate::wire::{Probe, Stored};

/// How often the library's own count of connections is compared with the events that arrived: it drops events when
/// more than 128 wait.
const EVENTS_CHECKED_EVERY: Duration = Duration::from_secs(1);
/// Messages that the library holds for one subscription before it drops them, and tells so. Subscriptions are emptied
/// into bounded buffers of their own at once; this only has to bear a busy scheduler.
const LIBRARY_BUFFER: usize = 16_384;
/// Longest wait between two tries to connect again.
const RECONNECT_MS_MAX: u64 = 1_000;

/// What happened to the connection, in counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Happened {
    /// Whether it is up.
    pub up: bool,
    /// Grows when it goes down, comes back, or the library drops messages: readers end.
    pub interruptions: u64,
    /// Grows when it is back or the library dropped messages: what was missed until then was missed.
    pub losses: u64,
}

/// A connection that keeps itself up.
pub(crate) struct Link {
    pub client: Client,
    /// For publishes whose acknowledgements are waited for later.
    pub publisher: async_nats::jetstream::Context,
    pub answer_timeout: Duration,
    happened: watch::Receiver<Happened>,
    refused: watch::Receiver<String>,
    checking: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.checking.abort();
    }
}

/// The writing ends of what the connection tells.
#[derive(Clone)]
struct Told {
    happened: Arc<watch::Sender<Happened>>,
    refused: Arc<watch::Sender<String>>,
    connects: Arc<AtomicU64>,
}

impl Told {
    fn new() -> Self {
        let happened = Happened { up: true, ..Happened::default() };
        Self {
            happened: Arc::new(watch::Sender::new(happened)),
            refused: Arc::new(watch::Sender::new(String::new())),
            connects: Arc::default(),
        }
    }

    fn take(&self, event: Event) {
        match event {
            // The first one is no loss: nothing was subscribed before it.
            Event::Connected if self.connects.fetch_add(1, Ordering::SeqCst) == 0 => {}
            Event::Connected => self.lost(true),
            Event::SlowConsumer(_) => self.lost(false),
            Event::Disconnected | Event::Closed => self.happened.send_modify(|h| {
                h.up = false;
                h.interruptions += 1;
            }),
            Event::ServerError(error) => {
                tracing::warn!(%error, "NATS refused something");
                self.refused.send_replace(error.to_string());
            }
            Event::ClientError(error) => tracing::debug!(%error, "NATS client"),
            Event::LameDuckMode | Event::Draining => tracing::info!("a NATS server is about to leave"),
        }
    }

    fn lost(&self, up: bool) {
        self.happened.send_modify(|h| {
            h.up |= up;
            h.interruptions += 1;
            h.losses += 1;
        });
    }

    /// Makes up for events that the library dropped.
    async fn check(self, statistics: Arc<Statistics>) {
        let mut behind = 0;
        loop {
            tokio::time::sleep(EVENTS_CHECKED_EVERY).await;
            let connects = statistics.connects.load(Ordering::Relaxed);
            let missed = connects.saturating_sub(self.connects.load(Ordering::SeqCst));
            // An event may still be on its way; one that is behind twice is gone.
            if missed > 0 && behind > 0 {
                self.connects.store(connects, Ordering::SeqCst);
                self.lost(true);
                behind = 0;
            } else {
                behind = missed;
            }
        }
    }
}

impl Link {
    pub async fn connect(options: &NatsOptions) -> Result<Arc<Self>, ConnectError> {
        let told = Told::new();
        let (happened, refused) = (told.happened.subscribe(), told.refused.subscribe());
        let servers = options.servers.join(", ");
        let connect = library_options(options, told.clone())?;
        let client = connect.connect(addresses(options)?).await.map_err(|source| match source.kind() {
            ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                ConnectError::Refused { servers, source }
            }
            ConnectErrorKind::Tls => ConnectError::Tls { servers, source },
            _ if is_tls(&source) => ConnectError::Tls { servers, source },
            _ => ConnectError::Unreachable { servers, source },
        })?;
        // The appender bounds what is in flight before the library would.
        let window = usize::try_from(options.in_flight_max).unwrap_or(usize::MAX / 4) * 2;
        let publisher =
            ContextBuilder::new().timeout(options.answer_timeout).max_ack_inflight(window).build(client.clone());
        let checking = tokio::spawn(told.check(client.statistics()));
        let answer_timeout = options.answer_timeout;
        Ok(Arc::new(Self { client, publisher, answer_timeout, happened, refused, checking }))
    }

    /// What happened so far, and a place to wait for more.
    pub fn happened(&self) -> watch::Receiver<Happened> {
        self.happened.clone()
    }

    /// Waits until the connection is up, at most as long as for an answer.
    pub async fn is_up(&self) -> Result<(), ApiError> {
        // The usual case, at every append: no timer.
        if self.happened.borrow().up {
            return Ok(());
        }
        let mut happened = self.happened();
        let up = tokio::time::timeout(self.answer_timeout, happened.wait_for(|h| h.up)).await;
        match up {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(ApiError::Disconnected(error.into())),
            Err(elapsed) => Err(ApiError::Disconnected(elapsed.into())),
        }
    }

    /// Asks the JetStream API. Outcome unknown on a timeout.
    pub async fn api<V: DeserializeOwned>(&self, subject: &str, body: &impl Serialize) -> Result<V, ApiError> {
        let body = serde_json::to_vec(body).map_err(ApiError::Malformed)?;
        let answer = self.ask(&format!("$JS.API.{subject}"), None, body.into(), self.answer_timeout).await?;
        parse(&answer.payload)
    }

    /// Writes a message to a stream and waits until it is durable; answers its sequence.
    pub async fn store(&self, subject: &str, headers: HeaderMap, payload: Bytes) -> Result<u64, ApiError> {
        let answer = self.ask(subject, Some(headers), payload, self.answer_timeout).await?;
        parse::<Stored>(&answer.payload).map(|stored| stored.seq)
    }

    /// One question, one answer. A refusal of the server is noticed at once: it answers nothing to what it refuses.
    pub async fn ask(
        &self,
        subject: &str,
        headers: Option<HeaderMap>,
        payload: Bytes,
        patience: Duration,
    ) -> Result<async_nats::Message, ApiError> {
        let mut request = Request::new().payload(payload).timeout(Some(patience));
        if let Some(headers) = headers {
            request = request.headers(headers);
        }
        let mut refused = self.refused.clone();
        refused.mark_unchanged();
        let asking = tokio::time::timeout(patience, self.client.send_request(subject.to_owned(), request));
        tokio::pin!(asking);
        loop {
            tokio::select! {
                answer = &mut asking => {
                    let Ok(answer) = answer else { return Err(ApiError::Timeout(subject.to_owned())) };
                    return answer.map_err(|error| match error.kind() {
                        RequestErrorKind::NoResponders => ApiError::NoResponder(subject.to_owned()),
                        RequestErrorKind::TimedOut => ApiError::Timeout(subject.to_owned()),
                        _ => ApiError::Disconnected(error.into()),
                    });
                }
                Ok(()) = refused.changed() => {
                    let text = refused.borrow_and_update().clone();
                    if names(&text, subject) {
                        return Err(ApiError::Refused(text));
                    }
                }
            }
        }
    }

    /// Returns when the server has processed everything that was sent before on this connection.
    pub async fn fence(&self) -> Result<(), ApiError> {
        match self.ask(FENCE, None, Bytes::new(), self.answer_timeout).await {
            Ok(_) | Err(ApiError::NoResponder(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Whether a refusal is about this subject, which the server puts in quotes. Whole, so that one subject's refusal is
/// not taken for that of a longer one.
fn names(refusal: &str, subject: &str) -> bool {
    refusal.contains(&format!("\"{subject}\""))
}

pub(crate) fn parse<V: DeserializeOwned>(payload: &[u8]) -> Result<V, ApiError> {
    let probe: Probe = serde_json::from_slice(payload).map_err(ApiError::Malformed)?;
    if let Some(error) = probe.error {
        return Err(ApiError::Server { code: error.err_code, description: error.description });
    }
    serde_json::from_slice(payload).map_err(ApiError::Malformed)
}

/// Whether TLS failed although the library calls it an I/O error.
fn is_tls(error: &async_nats::ConnectError) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        let text = error.to_string().to_lowercase();
        if text.contains("certificate") || text.contains("tls") {
            return true;
        }
        source = error.source();
    }
    false
}

fn addresses(options: &NatsOptions) -> Result<Vec<async_nats::ServerAddr>, ConnectError> {
    let parse = |text: &String| {
        let wrong = |error: std::io::Error| ConnectError::Options(format!("servers has {text:?}: {error}"));
        text.parse::<async_nats::ServerAddr>().map_err(wrong)
    };
    if options.servers.is_empty() {
        return Err(ConnectError::Options("servers is empty; name at least one address".into()));
    }
    options.servers.iter().map(parse).collect()
}

fn library_options(options: &NatsOptions, told: Told) -> Result<ConnectOptions, ConnectError> {
    // Room for the window, so that an append waits for acknowledgements and not for the library.
    let commands = usize::try_from(options.in_flight_max).unwrap_or(usize::MAX / 4) + 2_048;
    let mut connect = ConnectOptions::new()
        .name("pli")
        .custom_inbox_prefix(inbox(&options.roles))
        .connection_timeout(options.answer_timeout)
        .request_timeout(Some(options.answer_timeout))
        .subscription_capacity(LIBRARY_BUFFER)
        .client_capacity(commands)
        .max_reconnects(None)
        .reconnect_delay_callback(|tries| {
            let doubled = 10u64.saturating_mul(1 << tries.min(10));
            Duration::from_millis(rand::random_range(doubled.min(RECONNECT_MS_MAX) / 2..=doubled.min(RECONNECT_MS_MAX)))
        })
        .event_callback(move |event| {
            told.take(event);
            std::future::ready(())
        });
    if let Some(file) = &options.credentials.nkey_seed_file {
        connect = connect.nkey(seed(file)?);
    }
    if let Some(tls) = &options.credentials.tls {
        connect = connect.require_tls(true);
        if let Some(ca) = &tls.ca_file {
            connect = connect.add_root_certificates(ca.clone());
        }
        if let Some((certificate, key)) = &tls.client {
            connect = connect.add_client_certificate(certificate.clone(), key.clone());
        }
    }
    Ok(connect)
}

fn seed(file: &Path) -> Result<String, ConnectError> {
    let text = std::fs::read_to_string(file).map_err(|source| ConnectError::SeedFile { file: file.into(), source })?;
    let seed = text.trim();
    let pair = nkeys::KeyPair::from_seed(seed).ok().filter(|pair| pair.key_pair_type() == nkeys::KeyPairType::User);
    // What the library said may hold the seed.
    pair.map(|_| seed.to_owned()).ok_or_else(|| ConnectError::Seed { file: file.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reconnect_whose_event_was_dropped_is_noticed() {
        let told = Told::new();
        let happened = told.happened.subscribe();
        told.take(Event::Connected);
        assert_eq!(happened.borrow().losses, 0, "the first connection is no loss");
        let statistics = Arc::new(Statistics::default());
        statistics.connects.store(1, Ordering::Relaxed);
        let checking = tokio::spawn(told.clone().check(Arc::clone(&statistics)));
        tokio::time::sleep(EVENTS_CHECKED_EVERY * 5).await;
        assert_eq!(happened.borrow().losses, 0);
        statistics.connects.store(2, Ordering::Relaxed);
        tokio::time::sleep(EVENTS_CHECKED_EVERY * 5).await;
        assert_eq!(happened.borrow().losses, 1);
        checking.abort();
    }

    #[test]
    fn a_refusal_names_its_whole_subject() {
        let refusal = "Permissions Violation for Publish to \"pli.log.31\"";
        assert!(names(refusal, "pli.log.31"));
        assert!(!names(refusal, "pli.log.3"));
    }
}
