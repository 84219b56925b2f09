// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls in a version of the protocol between roles that is not understood are refused before they reach a service.

use std::task::{Context, Poll};

use futures::future::{Either, Ready, ready};
use pli_domain::protocol::RoleProtocol;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

/// The layer that refuses them.
#[derive(Debug, Clone, Copy)]
pub struct Understood;

impl<S> Layer<S> for Understood {
    type Service = Checked<S>;
    fn layer(&self, inner: S) -> Checked<S> {
        Checked { inner }
    }
}

/// See [`Understood`].
#[derive(Debug, Clone)]
pub struct Checked<S> {
    inner: S,
}

impl<S> Service<http::Request<Body>> for Checked<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        // What is not text is not a version either.
        let said = request.headers().get(RoleProtocol::HEADER).map(|said| said.to_str().unwrap_or("?"));
        match RoleProtocol::heard(said) {
            Ok(_) => Either::Left(self.inner.call(request)),
            Err(unknown) => Either::Right(ready(Ok(Status::failed_precondition(unknown.to_string()).into_http()))),
        }
    }
}
