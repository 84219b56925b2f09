// SPDX-License-Identifier: MIT OR Apache-2.0
//! Meters whose figures the admin port shows in the Prometheus text format.

use opentelemetry::metrics::{Meter, MeterProvider};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{Instrument, SdkMeterProvider, Stream};
use prometheus::{Registry, TextEncoder};

/// Bounds of latency histograms in seconds: half a millisecond to ten seconds, about two and a half times apart.
pub const LATENCY_SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Why metrics cannot be set up or shown.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The exporter cannot be built.
    #[error("metrics cannot be set up: {0}")]
    Setup(#[from] opentelemetry_sdk::error::OTelSdkError),
    /// The figures cannot be written as text.
    #[error("metrics cannot be shown: {0}")]
    Render(#[from] prometheus::Error),
}

/// The meters of one process. Cheap to clone.
#[derive(Clone)]
pub struct Telemetry {
    registry: Registry,
    provider: SdkMeterProvider,
}

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Telemetry")
    }
}

impl Telemetry {
    /// Meters of a process that names itself `service`.
    pub fn new(service: &'static str) -> Result<Self, TelemetryError> {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            // Names already end in their unit.
            .without_units()
            .build()?;
        let resource = Resource::builder().with_service_name(service).build();
        let provider = SdkMeterProvider::builder()
            .with_reader(exporter)
            .with_resource(resource)
            .with_view(one_series_a_shard)
            .build();
        Ok(Self { registry, provider })
    }

    /// The meter of one service; its instruments are named `pli_<service>_<thing>_<unit>`.
    pub fn meter(&self, service: &'static str) -> Meter {
        self.provider.meter(service)
    }

    /// Every figure, in the Prometheus text format 0.0.4.
    pub fn render(&self) -> Result<String, TelemetryError> {
        Ok(TextEncoder::new().encode_to_string(&self.registry.gather())?)
    }
}

/// Shards that one process may own: 16 bits number them.
const SHARDS_MAX: usize = 1 << 16;

/// The library's bound of 2,000 series an instrument would throw the shards above it together.
fn one_series_a_shard(instrument: &Instrument) -> Option<Stream> {
    let of_shards = instrument.name().starts_with("pli_delivery_shard_");
    of_shards.then(|| Stream::builder().with_cardinality_limit(SHARDS_MAX).build().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_has_a_series_of_its_own() {
        let telemetry = Telemetry::new("pli").expect("metrics");
        let gauge = telemetry.meter("delivery").u64_gauge("pli_delivery_shard_lag_entries").build();
        for shard in 0..2_500 {
            gauge.record(1, &[opentelemetry::KeyValue::new("shard", shard)]);
        }
        let text = telemetry.render().expect("text");
        assert!(!text.contains("overflow"));
        assert_eq!(text.lines().filter(|line| line.starts_with("pli_delivery_shard_lag_entries{")).count(), 2_500);
    }

    #[test]
    fn what_is_counted_is_shown() {
        let telemetry = Telemetry::new("pli").expect("metrics");
        telemetry.meter("edge").u64_counter("pli_edge_sessions").build().add(3, &[]);
        let text = telemetry.render().expect("text");
        assert!(text.contains("pli_edge_sessions_total{") && text.contains("} 3"), "{text}");
    }
}
