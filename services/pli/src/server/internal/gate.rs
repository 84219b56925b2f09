// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls that are refused before they reach a service.

use std::task::{Context, Poll};

use futures::future::{Either, Ready, ready};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

/// Answers why a call is refused, if it is. It runs for every call and must not block.
pub type Check = fn(&http::Request<Body>) -> Result<(), Status>;

/// The layer that refuses what its check refuses.
#[derive(Debug, Clone, Copy)]
pub struct Gate(pub Check);

impl<S> Layer<S> for Gate {
    type Service = Checked<S>;
    fn layer(&self, inner: S) -> Checked<S> {
        Checked { inner, check: self.0 }
    }
}

/// See [`Gate`].
#[derive(Debug, Clone)]
pub struct Checked<S> {
    inner: S,
    check: Check,
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
        match (self.check)(&request) {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(refusal) => Either::Right(ready(Ok(refusal.into_http()))),
        }
    }
}
