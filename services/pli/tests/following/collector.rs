// SPDX-License-Identifier: MIT OR Apache-2.0
//! A collector of spans: what an operator runs, as far as a test needs it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{span::SpanKind, status::StatusCode};
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// A span that came.
#[derive(Debug, Clone)]
pub struct Span {
    /// The process that exported it.
    pub instance: String,
    pub name: String,
    pub trace: Vec<u8>,
    pub kind: SpanKind,
    /// It ended with an error.
    pub failed: bool,
    /// Everything that was said of it and of its process.
    pub said: BTreeMap<String, String>,
}

/// A running collector; ends with the runtime.
#[derive(Clone, Default)]
pub struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    /// Listens; answers where, as an endpoint.
    pub async fn start() -> (Self, String) {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let this = Self::default();
        let service = TraceServiceServer::new(this.clone());
        let serving = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(serving.serve_with_incoming(TcpIncoming::from(listener)));
        (this, format!("http://{address}"))
    }

    /// Everything that came.
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().expect("whole").clone()
    }
}

fn text(value: &KeyValue) -> (String, String) {
    let text = match value.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        other => format!("{other:?}"),
    };
    (value.key.clone(), text)
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of_process in request.into_inner().resource_spans {
            let about: BTreeMap<_, _> = of_process.resource.iter().flat_map(|r| &r.attributes).map(text).collect();
            let instance = about.get("service.instance.id").cloned().unwrap_or_default();
            for span in of_process.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                let said = about.clone().into_iter().chain(span.attributes.iter().map(text)).collect();
                let kind = span.kind();
                let failed = span.status.is_some_and(|status| status.code() == StatusCode::Error);
                let span =
                    Span { instance: instance.clone(), name: span.name, trace: span.trace_id, kind, failed, said };
                self.spans.lock().expect("whole").push(span);
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}
