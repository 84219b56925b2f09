// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can be said afterwards of one message's way: the last hops of this process ([`Hops`]), and spans of the few
//! messages that are traced ([`Tracer`]). Neither ever holds content, an account, a device or a handle.

mod context;
mod hops;
mod spans;

use pli_domain::UnixMillis;
use serde::{Deserialize, Serialize};

pub use context::{TraceContext, current, within};
pub use hops::{Hop, HopKind, HopQuery, Hops, HopsReport, Introduced, NOWHERE, PLACE_MASK, tag};
pub use opentelemetry::trace::SpanKind;
pub use spans::{Span, TraceError, Tracer};

/// Most hops that a process may keep: 48 MiB.
const HOPS_MAX: usize = 1 << 20;

/// Following one message over processes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// Where spans go by OTLP over gRPC, `http://host:port`: a collector beside the process. Empty: nothing is traced.
    pub otlp_endpoint: String,
    /// The part of sends and calls that an edge traces, 0 to 1; every other process follows what the edge has decided.
    pub trace_ratio: f64,
    /// Hops of messages that the process remembers for `pli explain`, 48 bytes each, at most 1,048,576; 0 remembers none.
    pub hops: usize,
    /// Admin ports of all processes of the installation, `host:port` each, which `pli explain` asks; empty: this one's.
    pub processes: Vec<String>,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { otlp_endpoint: String::new(), trace_ratio: 0.001, hops: 65_536, processes: Vec::new() }
    }
}

/// A setting of [`TelemetryConfig`] that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct InvalidTelemetry {
    /// Section and field.
    pub field: &'static str,
    /// What is wrong and what would do.
    pub problem: &'static str,
}

impl TelemetryConfig {
    /// Checks what a type cannot say.
    pub fn check(&self) -> Result<(), InvalidTelemetry> {
        let invalid = |field, problem| Err(InvalidTelemetry { field, problem });
        if !(0.0..=1.0).contains(&self.trace_ratio) {
            return invalid("telemetry.trace_ratio", "must be from 0 (nothing) to 1 (everything)");
        }
        if self.hops > HOPS_MAX {
            return invalid("telemetry.hops", "must be at most 1048576");
        }
        let endpoint = self.otlp_endpoint.as_str();
        if !(endpoint.is_empty() || endpoint.strip_prefix("http://").is_some_and(|host| host.contains(':'))) {
            return invalid(
                "telemetry.otlp_endpoint",
                "must be http://host:port; for TLS let a collector beside this process pass the spans on",
            );
        }
        if self.processes.iter().any(|process| !process.contains(':')) {
            return invalid("telemetry.processes", "must name host:port of admin ports");
        }
        Ok(())
    }
}

/// The hops and the tracer of one process. Cheap to clone; the default keeps and exports nothing.
#[derive(Debug, Clone, Default)]
pub struct Trail {
    /// The last hops.
    pub hops: Hops,
    /// Spans.
    pub tracer: Tracer,
}

impl Trail {
    /// As configured, for a process with these roles. Must be called inside a runtime where spans are exported.
    pub fn new(config: &TelemetryConfig, roles: &str) -> Result<Self, TraceError> {
        Ok(Self { hops: Hops::new(config.hops), tracer: Tracer::new(config, roles)? })
    }

    /// Whether anybody wants to know which message an envelope is.
    pub fn is_on(&self) -> bool {
        self.hops.is_on() || self.tracer.is_on()
    }
}

/// A moment of the clock port as OpenTelemetry takes it.
fn system_time(at: UnixMillis) -> std::time::SystemTime {
    std::time::UNIX_EPOCH + std::time::Duration::from_millis(at.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_work_are_refused_by_name() {
        let fine = TelemetryConfig::default();
        assert_eq!(fine.check(), Ok(()));
        let bad = [
            (TelemetryConfig { trace_ratio: 1.5, ..fine.clone() }, "telemetry.trace_ratio"),
            (TelemetryConfig { trace_ratio: f64::NAN, ..fine.clone() }, "telemetry.trace_ratio"),
            (TelemetryConfig { hops: HOPS_MAX + 1, ..fine.clone() }, "telemetry.hops"),
            (TelemetryConfig { otlp_endpoint: "https://c:4317".into(), ..fine.clone() }, "telemetry.otlp_endpoint"),
            (TelemetryConfig { otlp_endpoint: "http://c".into(), ..fine.clone() }, "telemetry.otlp_endpoint"),
            (TelemetryConfig { processes: vec!["host".into()], ..fine.clone() }, "telemetry.processes"),
        ];
        for (config, field) in bad {
            assert_eq!(config.check().map_err(|error| error.field), Err(field));
        }
        let endpoint = TelemetryConfig { otlp_endpoint: "http://127.0.0.1:4317".into(), ..fine };
        assert_eq!(endpoint.check(), Ok(()));
    }
}
