// SPDX-License-Identifier: MIT OR Apache-2.0
//! Spans of what is traced, exported by OTLP. Without an endpoint nothing is built, asked or allocated.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
    Tracer as _, TracerProvider,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter as OtlpExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use pli_domain::UnixMillis;

use super::{TelemetryConfig, TraceContext, system_time};

/// What is not exported yet when the process ends has so long.
const LAST_EXPORT_WITHIN: Duration = Duration::from_secs(2);

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The endpoint cannot be used.
    #[error("telemetry.otlp_endpoint cannot be used; name a collector as http://host:port")]
    Exporter(#[from] ExporterBuildError),
}

struct Exporting {
    tracer: SdkTracer,
    provider: SdkTracerProvider,
    ratio: f64,
}

/// Begins spans. Clones are the same one; the default traces nothing.
///
/// Bound: 2,048 ended spans wait to be exported, in batches of 512; above it they are dropped.
#[derive(Clone, Default)]
pub struct Tracer(Option<Arc<Exporting>>);

impl std::fmt::Debug for Tracer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tracer({})", if self.is_on() { "on" } else { "off" })
    }
}

impl Tracer {
    /// As configured; `roles` and a random instance id name the process in every span. Must be called inside a runtime,
    /// on which the connection to the collector then lives.
    pub fn new(config: &TelemetryConfig, roles: &str) -> Result<Self, TraceError> {
        if config.otlp_endpoint.is_empty() {
            return Ok(Self::default());
        }
        let exporter = OtlpExporter::builder().with_tonic().with_endpoint(&config.otlp_endpoint).build()?;
        let instance = format!("{:032x}", rand::random::<u128>());
        let about = [KeyValue::new("service.instance.id", instance), KeyValue::new("pli.roles", roles.to_owned())];
        let resource = Resource::builder().with_service_name("pli").with_attributes(about).build();
        let provider = SdkTracerProvider::builder()
            // Decided before a span is begun.
            .with_sampler(Sampler::AlwaysOn)
            .with_resource(resource)
            .with_batch_exporter(exporter)
            .build();
        Ok(Self(Some(Arc::new(Exporting { tracer: provider.tracer("pli"), provider, ratio: config.trace_ratio }))))
    }

    /// Whether spans are exported.
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Begins a trace, for the configured part of what is asked for.
    pub fn root(&self, name: &'static str, kind: SpanKind, at: UnixMillis) -> Option<Span> {
        let exporting = self.0.as_ref().filter(|exporting| rand::random::<f64>() < exporting.ratio)?;
        exporting.begin((name.into(), kind), at, &Context::new())
    }

    /// Begins a span under `parent`; none where that is not traced.
    pub fn child(
        &self,
        parent: Option<TraceContext>,
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
        at: UnixMillis,
    ) -> Option<Span> {
        let (exporting, parent) = (self.0.as_ref()?, parent?);
        let remote = SpanContext::new(
            TraceId::from_bytes(*parent.trace()),
            SpanId::from_bytes(*parent.span()),
            TraceFlags::SAMPLED,
            true,
            TraceState::default(),
        );
        let under = Context::new().with_remote_span_context(remote);
        exporting.begin((name.into(), kind), at, &under)
    }

    /// Exports what waits, within 2 s.
    pub async fn close(&self) {
        let Some(exporting) = self.0.clone() else { return };
        // It waits for a thread that waits for this runtime.
        let closing = tokio::task::spawn_blocking(move || exporting.provider.shutdown_with_timeout(LAST_EXPORT_WITHIN));
        if let Ok(Err(error)) = closing.await {
            tracing::info!(%error, "the last spans were not exported");
        }
    }
}

impl Exporting {
    fn begin(&self, (name, kind): (Cow<'static, str>, SpanKind), at: UnixMillis, parent: &Context) -> Option<Span> {
        let builder = SpanBuilder::from_name(name).with_kind(kind).with_start_time(system_time(at));
        let span = self.tracer.build_with_context(builder, parent);
        let ids = span.span_context();
        let context = TraceContext::new(ids.trace_id().to_bytes(), ids.span_id().to_bytes())?;
        Some(Span { context, inner: Box::new(span) })
    }
}

/// A span that was begun. Dropped before its end, it ends at that moment, as abandoned.
#[derive(Debug)]
pub struct Span {
    context: TraceContext,
    inner: Box<opentelemetry_sdk::trace::Span>,
}

impl Span {
    /// For what follows from it.
    pub const fn context(&self) -> TraceContext {
        self.context
    }

    /// Says more. Never content, an account, a device or a handle.
    pub fn say(&mut self, key: &'static str, value: impl Into<Value>) {
        self.inner.set_attribute(KeyValue::new(key, value.into()));
    }

    /// It failed, by this name from a closed list.
    pub fn fail(&mut self, name: &'static str) {
        self.say("error.type", name);
        self.inner.set_status(Status::error(name));
    }

    /// Ends it.
    pub fn end(mut self, at: UnixMillis) {
        self.inner.end_with_timestamp(system_time(at));
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if self.inner.is_recording() {
            self.fail("abandoned");
            self.inner.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use opentelemetry_sdk::error::OTelSdkResult;
    use opentelemetry_sdk::trace::{SpanData, SpanExporter};

    use super::*;

    #[derive(Debug, Clone, Default)]
    struct Kept(Arc<Mutex<Vec<SpanData>>>);

    impl SpanExporter for Kept {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.0.lock().expect("whole").extend(batch);
            Ok(())
        }
    }

    #[tokio::test]
    async fn without_an_endpoint_nothing_is_traced() {
        let tracer =
            Tracer::new(&TelemetryConfig { trace_ratio: 1.0, ..TelemetryConfig::default() }, "edge").expect("off");
        let parent = TraceContext::new([1; 16], [2; 8]);
        assert!(!tracer.is_on() && tracer.root("send", SpanKind::Producer, UnixMillis(1)).is_none());
        assert!(tracer.child(parent, "read", SpanKind::Consumer, UnixMillis(1)).is_none());
        tracer.close().await;
    }

    #[test]
    fn a_span_tells_its_kind_and_how_it_ended_and_one_that_is_dropped_is_no_success() {
        let exporter = Kept::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        let tracer = Tracer(Some(Arc::new(Exporting {
            tracer: provider.tracer("pli"),
            provider: provider.clone(),
            ratio: 1.0,
        })));
        let begin = |name, kind| tracer.root(name, kind, UnixMillis(1)).expect("all are traced");
        begin("fine", SpanKind::Producer).end(UnixMillis(2));
        let mut failed = begin("failed", SpanKind::Client);
        failed.fail("TEMPORARY");
        failed.end(UnixMillis(2));
        drop(begin("dropped", SpanKind::Consumer));
        let spans = exporter.0.lock().expect("whole");
        let told: Vec<_> =
            spans.iter().map(|span| (&*span.name, span.span_kind.clone(), span.status.clone())).collect();
        assert_eq!(
            told,
            [
                ("fine", SpanKind::Producer, Status::Unset),
                ("failed", SpanKind::Client, Status::error("TEMPORARY")),
                ("dropped", SpanKind::Consumer, Status::error("abandoned")),
            ]
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_ratio_decides_about_beginnings_and_a_child_follows_its_parent() {
        let config = |trace_ratio| TelemetryConfig {
            otlp_endpoint: "http://127.0.0.1:9".into(),
            trace_ratio,
            ..TelemetryConfig::default()
        };
        let none = Tracer::new(&config(0.0), "edge").expect("an exporter");
        assert!((0..1_000).all(|_| none.root("send", SpanKind::Producer, UnixMillis(1)).is_none()));
        let parent = TraceContext::new([1; 16], [2; 8]);
        let child =
            none.child(parent, "read", SpanKind::Consumer, UnixMillis(1)).expect("its parent is traced").context();
        assert_eq!(child.trace(), &[1; 16]);
        assert_ne!(child.span(), &[2; 8]);
        assert!(none.child(None, "read", SpanKind::Consumer, UnixMillis(1)).is_none());
        let all = Tracer::new(&config(1.0), "edge").expect("an exporter");
        let (one, two) =
            (all.root("send", SpanKind::Producer, UnixMillis(1)), all.root("send", SpanKind::Producer, UnixMillis(1)));
        assert_ne!(one.expect("all").context().trace(), two.expect("all").context().trace());
    }
}
