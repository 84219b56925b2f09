// SPDX-License-Identifier: MIT OR Apache-2.0
//! The few pages of the public port, and the way from HTTP to a session.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use ::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE,
    CONNECTION, CONTENT_TYPE, HeaderName, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use ::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioIo, TokioTimer};
use pli_api::edge::ServerInfo;
use serde_json::json;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::Tls;
use super::begun::Begun;
use super::socket::Socket;
use crate::admission::Open;
use crate::carrier::{Carrier, PeerInfo};
use crate::config::ms;
use crate::edge::Edge;

/// Where sessions begin.
pub(crate) const SESSION_PATH: &str = "/v1/session";
/// Where server info stands.
const INFO_PATH: &str = "/.well-known/pli";
/// Most bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Longest origin that is looked at.
const ORIGIN_BYTES_MAX: usize = 255;

type Stream = Begun<Tls>;

/// Answers one request; a session begins as a task of its own. Every connection serves one request.
pub(super) async fn serve(stream: Tls, peer: PeerInfo, open: Open) {
    let edge = open.edge.clone();
    let visit = Arc::new(Mutex::new(Some((peer, open))));
    let service = service_fn(move |request: Request<Incoming>| {
        let response = answer(&edge, request, &visit);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut server = http1::Builder::new();
    server.max_buf_size(HEAD_BYTES_MAX).timer(TokioTimer::new()).header_read_timeout(ms(10_000));
    let connection = server.serve_connection(TokioIo::new(Begun::new(stream)), service).with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection ended before its request");
    }
}

type Visit = Mutex<Option<(PeerInfo, Open)>>;

fn answer(edge: &Edge, request: Request<Incoming>, visit: &Visit) -> Response<String> {
    let get = request.method() == Method::GET;
    // What HTTP leaves away of the answer is its body alone, and hyper does that.
    let read = get || request.method() == Method::HEAD;
    match request.uri().path() {
        SESSION_PATH if get => begin_session(request, visit),
        INFO_PATH if read => shared(page(StatusCode::OK, "application/json", info(&edge.info()))),
        INFO_PATH if request.method() == Method::OPTIONS => preflight(),
        "/healthz" if read && edge.is_draining() => {
            page(StatusCode::SERVICE_UNAVAILABLE, "text/plain", "draining\n".into())
        }
        "/healthz" if read => page(StatusCode::OK, "text/plain", "ok\n".into()),
        _ => page(StatusCode::NOT_FOUND, "text/plain", "not found\n".into()),
    }
}

fn page(status: StatusCode, kind: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    // Set here and not for the whole connection: hyper would close upgrades too.
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// What pages of every origin may read (Fetch standard, CORS protocol): server info is public and the same for everybody,
/// so the origins that may bind a session have no say in it.
fn shared(mut response: Response<String>) -> Response<String> {
    response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

/// A browser asks first where a page adds headers of its own to its request.
fn preflight() -> Response<String> {
    let mut response = shared(page(StatusCode::NO_CONTENT, "text/plain", String::new()));
    let headers = response.headers_mut();
    headers.remove(CONTENT_TYPE);
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD"));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("*"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    response
}

fn info(info: &ServerInfo) -> String {
    let limits = info.limits.unwrap_or_default();
    let text = json!({
        "name": info.name,
        "version": info.version,
        "protocol_versions": info.protocol_versions,
        "client_version_min": info.client_version_min,
        "registration": info.registration,
        "cipher_suites": info.cipher_suites,
        "session": SESSION_PATH,
        "quic_port": (info.quic_port != 0).then_some(info.quic_port),
        "limits": {
            "frame_bytes_max": limits.frame_bytes_max,
            "envelope_bytes_max": limits.envelope_bytes_max,
            "send_window": limits.send_window,
            "delivery_window": limits.delivery_window,
            "call_window": limits.call_window,
            "idle_timeout_ms": limits.idle_timeout_ms,
            "expiry_max_ms": limits.expiry_max_ms,
        },
    });
    format!("{text}\n")
}

fn begin_session(mut request: Request<Incoming>, visit: &Visit) -> Response<String> {
    let Some(accept) = accept_key(request.headers()) else {
        let text = "this is a WebSocket endpoint, version 13\n";
        return page(StatusCode::UPGRADE_REQUIRED, "text/plain", text.into());
    };
    let Some((mut peer, open)) = visit.lock().unwrap_or_else(PoisonError::into_inner).take() else {
        return page(StatusCode::BAD_REQUEST, "text/plain", "one request a connection\n".into());
    };
    let origin = request.headers().get(ORIGIN).and_then(|origin| origin.to_str().ok());
    peer.origin = origin.filter(|origin| origin.len() <= ORIGIN_BYTES_MAX).map(str::to_owned);
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => run_session(upgraded, peer, open).await,
            Err(error) => tracing::debug!(%error, "an upgrade failed"),
        }
    });
    let mut response = Response::new(String::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    response
}

async fn run_session(upgraded: Upgraded, peer: PeerInfo, open: Open) {
    // Boxed, so that the session's task does not keep the room in which the stream is moved about.
    let Some(carrier) = Box::pin(taken_over(upgraded)).await else {
        tracing::error!("an upgraded connection is not the one that was served");
        return;
    };
    open.edge.serve(carrier, peer).await;
}

/// The stream, taken back out of hyper, whose buffers are freed here.
async fn taken_over(upgraded: Upgraded) -> Option<Box<dyn Carrier>> {
    let parts = upgraded.downcast::<TokioIo<Stream>>().ok()?;
    let read = parts.read_buf.to_vec();
    Some(Box::new(Socket::new(parts.io.into_inner(), read).await))
}

/// The answer to a WebSocket handshake (RFC 6455 section 4.2), none when the request is not one.
fn accept_key(headers: &HeaderMap) -> Option<HeaderValue> {
    let names = |name: HeaderName, word: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    let wanted = names(CONNECTION, "upgrade") && names(UPGRADE, "websocket") && names(SEC_WEBSOCKET_VERSION, "13");
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|key| wanted && key.len() == 24)?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()
}
