// SPDX-License-Identifier: MIT OR Apache-2.0
//! The trace context in gRPC metadata, on both sides of every call between services, in one process or two.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::{BoxFuture, Either};
use http::{HeaderValue, Request, Response};
use pli_api::Channel;
use pli_ports::{Clock, SystemClock};
use pli_runtime::trail::{Span, SpanKind, TraceContext, Tracer, current, within};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

/// A channel whose calls carry the context of the task that makes them; the same channel where nothing is traced.
pub fn carrying(channel: Channel, tracer: &Tracer) -> Channel {
    if tracer.is_on() { Channel::new(Carrying(channel)) } else { channel }
}

#[derive(Clone)]
struct Carrying(Channel);

impl Service<Request<Body>> for Carrying {
    type Response = Response<Body>;
    type Error = Status;
    type Future = <Channel as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let value = current().and_then(|context| HeaderValue::try_from(context.to_string()).ok());
        if let Some(value) = value {
            request.headers_mut().insert(TraceContext::HEADER, value);
        }
        self.0.call(request)
    }
}

/// The layer by which a server goes on with its caller's trace. A header that is none is ignored.
#[derive(Debug, Clone)]
pub struct Following(pub Tracer);

impl<S> Layer<S> for Following {
    type Service = Followed<S>;
    fn layer(&self, inner: S) -> Followed<S> {
        Followed { inner, tracer: self.0.clone() }
    }
}

/// See [`Following`].
#[derive(Debug, Clone)]
pub struct Followed<S> {
    inner: S,
    tracer: Tracer,
}

/// The layer around a service that knows its own name.
impl<S: tonic::server::NamedService> tonic::server::NamedService for Followed<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, E> Service<Request<Body>> for Followed<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = E>,
    S::Future: Send + 'static,
    E: Send + 'static,
{
    type Response = S::Response;
    type Error = E;
    type Future = Either<S::Future, BoxFuture<'static, Result<S::Response, E>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Some(span) = begin(&self.tracer, &request) else { return Either::Left(self.inner.call(request)) };
        let context = span.context();
        let answer = self.inner.call(request);
        let answer = within(Some(context), answer).map(|answer| {
            end(span, &answer);
            answer
        });
        Either::Right(answer.boxed())
    }
}

fn begin(tracer: &Tracer, request: &Request<Body>) -> Option<Span> {
    if !tracer.is_on() {
        return None;
    }
    let parent = TraceContext::parse(request.headers().get(TraceContext::HEADER)?.as_bytes());
    let path = request.uri().path();
    // A path that is no method of these services is not worth a name.
    let name = if path.starts_with("/pli.") { path[1..].to_owned() } else { "call".to_owned() };
    tracer.child(parent, name, SpanKind::Server, SystemClock.now())
}

/// The span of a call ends with its status. One that is the caller's own doing is none of the server's failures
/// (<https://opentelemetry.io/docs/specs/semconv/rpc/grpc/#grpc-status>).
fn end<E>(mut span: Span, answer: &Result<Response<Body>, E>) {
    match answer {
        Err(_) => span.fail("unanswered"),
        // What has no status in its head was answered; the status then follows the body.
        Ok(answer) => {
            let code = Status::from_header_map(answer.headers()).map_or(Code::Ok, |status| status.code());
            span.say("rpc.grpc.status_code", i64::from(i32::from(code)));
            if let Some(failed) = failed(code) {
                span.fail(failed);
            }
        }
    }
    span.end(SystemClock.now());
}

const fn failed(code: Code) -> Option<&'static str> {
    match code {
        Code::Unknown => Some("UNKNOWN"),
        Code::DeadlineExceeded => Some("DEADLINE_EXCEEDED"),
        Code::Unimplemented => Some("UNIMPLEMENTED"),
        Code::Internal => Some("INTERNAL"),
        Code::Unavailable => Some("UNAVAILABLE"),
        Code::DataLoss => Some("DATA_LOSS"),
        _ => None,
    }
}

/// A channel straight over a server value of this process, traced as one behind a socket is.
pub fn in_process<S>(server: S, tracer: &Tracer) -> Channel
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    if !tracer.is_on() {
        return pli_api::in_process(server);
    }
    carrying(pli_api::in_process(Following(tracer.clone()).layer(server)), tracer)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use pli_runtime::TelemetryConfig;
    use tower::ServiceExt;

    use super::*;

    type Seen = Arc<Mutex<Vec<Option<TraceContext>>>>;

    /// Answers everything, and remembers in which context.
    fn server(
        seen: &Seen,
    ) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static {
        let seen = seen.clone();
        tower::service_fn(move |_: Request<Body>| {
            let seen = seen.clone();
            async move {
                seen.lock().expect("whole").push(current());
                Ok::<_, Infallible>(Response::new(Body::empty()))
            }
        })
    }

    fn tracer() -> Tracer {
        let config = TelemetryConfig { otlp_endpoint: "http://127.0.0.1:9".into(), ..TelemetryConfig::default() };
        Tracer::new(&config, "edge").expect("an exporter")
    }

    fn request(header: Option<&[u8]>) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = "/pli.directory.v1.Directory/Lookup".parse().expect("a path");
        let value = header.map(|value| HeaderValue::from_bytes(value).expect("visible"));
        request.headers_mut().extend(value.map(|value| (http::HeaderName::from_static(TraceContext::HEADER), value)));
        request
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_call_goes_on_with_its_callers_trace() {
        let (seen, tracer) = (Seen::default(), tracer());
        let channel = in_process(server(&seen), &tracer);
        let context = TraceContext::new([1; 16], [2; 8]).expect("a context");
        within(Some(context), channel.clone().oneshot(request(None))).await.expect("answered");
        channel.oneshot(request(None)).await.expect("answered");
        let seen = seen.lock().expect("whole").clone();
        let under = seen[0].expect("traced");
        assert_eq!((under.trace(), seen[1]), (context.trace(), None));
        assert_ne!(under.span(), context.span(), "the server has a span of its own");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_garbage_header_is_ignored_and_the_call_is_served() {
        let (seen, tracer) = (Seen::default(), tracer());
        for header in [&b"garbage"[..], &[0xff; 55], b"00-0-0-01"] {
            let served = Following(tracer.clone()).layer(server(&seen)).oneshot(request(Some(header))).await;
            served.expect("answered");
        }
        assert_eq!(*seen.lock().expect("whole"), [None; 3]);
    }
}
