// SPDX-License-Identifier: MIT OR Apache-2.0
//! The admin port: health, metrics, hops of messages and build of the process. For operators, never for the public side.
//!
//! Bounds: [`CONNECTIONS_MAX`] at a time, each with [`HEADER_WITHIN`] for the head of a request, from its beginning or
//! from the end of the answer before it.

mod client;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::trail::{HopQuery, Hops};
use crate::{BuildInfo, Health, Telemetry};

pub use client::{AdminAnswer, AdminAskError, AdminClient};

/// Connections at a time; the next ones wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// The head of a request must have come by then, or the connection is closed: a half-open one holds its place no longer.
const HEADER_WITHIN: Duration = Duration::from_secs(10);
/// Wait after a failed accept: out of descriptors, most likely, and trying at once would spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// What is being answered when the process ends has so long.
const LAST_ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// Why the admin port cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address cannot be bound.
    #[error(
        "cannot listen on the admin address {address}: {source}; choose another with --admin-port (0 for any free one)"
    )]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

#[derive(Clone)]
struct Shown {
    health: Health,
    telemetry: Telemetry,
    hops: Hops,
    build: BuildInfo,
}

/// `/livez`, `/readyz`, `/metrics`, `/hops` and `/build` over HTTP.
#[derive(Debug)]
pub struct AdminServer {
    listener: TcpListener,
    address: SocketAddr,
    router: Router,
}

impl AdminServer {
    /// Binds `address`; port 0 takes any free one.
    pub async fn bind(
        address: SocketAddr,
        health: Health,
        telemetry: Telemetry,
        hops: Hops,
        build: BuildInfo,
    ) -> Result<Self, AdminError> {
        let failed = |source| AdminError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let router = Router::new()
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .route("/hops", get(hops_of))
            .route("/build", get(|State(shown): State<Shown>| async move { Json(shown.build) }))
            .with_state(Shown { health, telemetry, hops, build });
        Ok(Self { listener, address: bound, router })
    }

    /// The bound address.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is cancelled, then finishes what it is answering, within 2 s.
    pub async fn run(self, stop: CancellationToken) -> Result<(), AdminError> {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut serving = JoinSet::new();
        while let Some(stream) = accept(&self.listener, &room, &mut serving, &stop).await {
            let (router, stop) = (self.router.clone(), stop.clone());
            let place = Arc::clone(&room).acquire_owned().await;
            serving.spawn(async move {
                serve(stream, router, stop).await;
                drop(place);
            });
        }
        let last = async { while serving.join_next().await.is_some() {} };
        // Who is still there then is cut off.
        let _ = tokio::time::timeout(LAST_ANSWERS_WITHIN, last).await;
        Ok(())
    }
}

/// The next connection, once there is room for it; none when the process ends.
async fn accept(
    listener: &TcpListener,
    room: &Semaphore,
    serving: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> Option<TcpStream> {
    let next = async {
        // Nobody closes the semaphore. The place is taken for good by the caller, the only one who takes any.
        let _ = room.acquire().await;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return stream,
                Err(error) => {
                    tracing::debug!(%error, "a connection to the admin port was not accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    };
    tokio::pin!(next);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            // Reaped while waiting, so that what has ended does not pile up.
            Some(_) = serving.join_next() => {}
            stream = &mut next => return Some(stream),
        }
    }
}

/// Answers one connection to its end; what goes wrong on it is the peer's business.
async fn serve(stream: TcpStream, router: Router, stop: CancellationToken) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_WITHIN);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the admin port ended");
    }
}

async fn readyz(State(shown): State<Shown>) -> impl IntoResponse {
    let report = shown.health.report();
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report))
}

async fn metrics(State(shown): State<Shown>) -> impl IntoResponse {
    match shown.telemetry.render() {
        Ok(text) => (StatusCode::OK, [(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "text/plain")], format!("{error}\n")),
    }
}

/// `send=HEX` or `shard=N&place=N`, for `pli explain`.
async fn hops_of(State(shown): State<Shown>, RawQuery(query): RawQuery) -> axum::response::Response {
    let Some(query) = query.as_deref().and_then(HopQuery::parse) else {
        let say = "ask for ?send= and 16 hexadecimal digits, or for ?shard=N&place=N\n";
        return (StatusCode::BAD_REQUEST, say).into_response();
    };
    // The whole ring is read.
    match tokio::task::spawn_blocking(move || shown.hops.report(query)).await {
        Ok(report) => Json(report).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    /// Longer than any half-open connection may stand.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// Status and body.
    async fn get_path(address: SocketAddr, path: &str) -> (u16, String) {
        let client = AdminClient::new(address.to_string()).patience(PATIENCE);
        let answer = client.get(path).await.expect("an answer");
        (answer.status, answer.text())
    }

    #[tokio::test]
    async fn the_admin_port_tells_health_metrics_and_build() {
        let (health, telemetry) = (Health::default(), Telemetry::new("pli").expect("metrics"));
        telemetry.meter("edge").u64_counter("pli_edge_sessions").build().add(1, &[]);
        let log = health.dependency("log");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = AdminServer::bind(any, health, telemetry, Hops::new(8), BuildInfo::new("pli", "1.2.3"))
            .await
            .expect("a free port");
        let (address, stop) = (server.local_addr(), CancellationToken::new());
        let running = tokio::spawn(server.run(stop.clone()));
        assert_eq!(get_path(address, "/livez").await.0, 200);
        let unready = get_path(address, "/readyz").await;
        assert!(unready.0 == 503 && unready.1.contains("starting"), "{unready:?}");
        log.ready();
        assert_eq!(get_path(address, "/readyz").await.0, 200);
        assert!(get_path(address, "/metrics").await.1.contains("pli_edge_sessions_total{"));
        assert!(get_path(address, "/build").await.1.contains("\"1.2.3\""));
        assert!(get_path(address, "/hops?send=00000000000000ff").await.1.contains("\"size\":8"));
        assert_eq!(get_path(address, "/hops?send=x").await.0, 400);
        stop.cancel();
        running.await.expect("joins").expect("ends well");
    }

    async fn serving() -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<Result<(), AdminError>>) {
        let telemetry = Telemetry::new("pli").expect("metrics");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let build = BuildInfo::new("pli", "1");
        let server =
            AdminServer::bind(any, Health::default(), telemetry, Hops::default(), build).await.expect("a free port");
        let (address, stop) = (server.local_addr(), CancellationToken::new());
        (address, stop.clone(), tokio::spawn(server.run(stop)))
    }

    /// Everything that the server still says on a connection, to its end.
    async fn rest(stream: &mut TcpStream) -> usize {
        let mut said = Vec::new();
        // A cut connection may end with a reset.
        let _ = stream.read_to_end(&mut said).await;
        said.len()
    }

    #[tokio::test(start_paused = true)]
    async fn half_open_connections_make_room_after_a_while_and_never_take_more_than_their_share() {
        let (address, stop, running) = serving().await;
        let mut half = Vec::new();
        for _ in 0..CONNECTIONS_MAX + 8 {
            let mut stream = TcpStream::connect(address).await.expect("listening");
            stream.write_all(b"GET /livez HTTP/1.1\r\nho").await.expect("written");
            half.push(stream);
        }
        // All places are taken by requests that never come; this one is answered when their time is over.
        assert_eq!(get_path(address, "/livez").await.0, 200);
        for mut stream in half {
            rest(&mut stream).await;
        }
        stop.cancel();
        running.await.expect("joins").expect("ends well");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_does_not_keep_the_process_from_ending() {
        let (address, stop, running) = serving().await;
        let mut idle = TcpStream::connect(address).await.expect("listening");
        idle.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("written");
        let mut first = [0; 12];
        idle.read_exact(&mut first).await.expect("an answer");
        assert_eq!(&first, b"HTTP/1.1 200");
        stop.cancel();
        running.await.expect("joins").expect("ends well");
        rest(&mut idle).await;
    }

    #[tokio::test]
    async fn a_taken_port_is_named_with_its_fix() {
        let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = taken.local_addr().expect("bound");
        let telemetry = Telemetry::new("pli").expect("metrics");
        let error =
            AdminServer::bind(address, Health::default(), telemetry, Hops::default(), BuildInfo::new("pli", "1"))
                .await
                .expect_err("taken")
                .to_string();
        assert!(error.contains(&address.to_string()) && error.contains("--admin-port"), "{error}");
    }
}
