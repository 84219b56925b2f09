// SPDX-License-Identifier: MIT OR Apache-2.0
//! The admin port: health, metrics and build of the process. For operators, never for the public side.

use std::net::SocketAddr;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{BuildInfo, Health, Telemetry};

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
    /// Serving ended with an error.
    #[error("the admin port failed")]
    Serve(#[source] std::io::Error),
}

#[derive(Clone)]
struct Shown {
    health: Health,
    telemetry: Telemetry,
    build: BuildInfo,
}

/// `/livez`, `/readyz`, `/metrics` and `/build` over HTTP.
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
        build: BuildInfo,
    ) -> Result<Self, AdminError> {
        let failed = |source| AdminError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let router = Router::new()
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .route("/build", get(|State(shown): State<Shown>| async move { Json(shown.build) }))
            .with_state(Shown { health, telemetry, build });
        Ok(Self { listener, address: bound, router })
    }

    /// The bound address.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) -> Result<(), AdminError> {
        axum::serve(self.listener, self.router)
            .with_graceful_shutdown(async move { stop.cancelled().await })
            .await
            .map_err(AdminError::Serve)
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn get_path(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("listening");
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    #[tokio::test]
    async fn the_admin_port_tells_health_metrics_and_build() {
        let (health, telemetry) = (Health::default(), Telemetry::new("pli").expect("metrics"));
        telemetry.meter("edge").u64_counter("pli_edge_sessions").build().add(1, &[]);
        let log = health.dependency("log");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let server =
            AdminServer::bind(any, health, telemetry, BuildInfo::new("pli", "1.2.3")).await.expect("a free port");
        let (address, stop) = (server.local_addr(), CancellationToken::new());
        let running = tokio::spawn(server.run(stop.clone()));
        assert!(get_path(address, "/livez").await.starts_with("HTTP/1.1 200"));
        let unready = get_path(address, "/readyz").await;
        assert!(unready.starts_with("HTTP/1.1 503") && unready.contains("starting"), "{unready}");
        log.ready();
        assert!(get_path(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(get_path(address, "/metrics").await.contains("pli_edge_sessions_total{"));
        assert!(get_path(address, "/build").await.contains("\"1.2.3\""));
        stop.cancel();
        running.await.expect("joins").expect("ends well");
    }

    #[tokio::test]
    async fn a_taken_port_is_named_with_its_fix() {
        let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = taken.local_addr().expect("bound");
        let telemetry = Telemetry::new("pli").expect("metrics");
        let error = AdminServer::bind(address, Health::default(), telemetry, BuildInfo::new("pli", "1"))
            .await
            .expect_err("taken")
            .to_string();
        assert!(error.contains(&address.to_string()) && error.contains("--admin-port"), "{error}");
    }
}
