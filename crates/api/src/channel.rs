// SPDX-License-Identifier: MIT OR Apache-2.0
//! How services reach each other: one type, whether the server is a value in this process or behind a socket.

use std::convert::Infallible;

use tonic::Status;
use tonic::body::Body;
use tower::{Service, ServiceExt, util::BoxCloneSyncService};

/// What a tonic client is built over. Its error is a type without lifetimes: with a boxed one the compiler cannot see
/// that a future which awaits a generated client is `Send`.
pub type Channel = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Status>;

/// A channel straight over a server value: no socket, the same code path.
pub fn in_process<S>(server: S) -> Channel
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    BoxCloneSyncService::new(server.map_err(|never: Infallible| -> Status { match never {} }))
}
