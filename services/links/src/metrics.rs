// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the links service counts.

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Meter, UpDownCounter};
use pli_api::ErrorCode;

/// The service's instruments; never an id as a label.
pub(crate) struct Metrics {
    /// `pli_links_rendezvous_opened`: an idempotent repeat counts again.
    pub opened: Counter<u64>,
    /// `pli_links_rendezvous_joined`: an idempotent repeat counts again.
    pub joined: Counter<u64>,
    /// `pli_links_rendezvous_forgotten`
    pub forgotten: Counter<u64>,
    /// `pli_links_blob_bytes`: bytes of blobs put; a repeat counts again.
    pub blob_bytes: Counter<u64>,
    /// `pli_links_store_looks`: how often the store was asked for a blob.
    pub looks: Counter<u64>,
    waits: Counter<u64>,
    waiting: UpDownCounter<i64>,
    refusals: Counter<u64>,
}

impl Metrics {
    pub(crate) fn new(meter: &Meter) -> Self {
        let counter = |name: &'static str, what: &'static str| meter.u64_counter(name).with_description(what).build();
        let gauge =
            |name: &'static str, what: &'static str| meter.i64_up_down_counter(name).with_description(what).build();
        Self {
            opened: counter("pli_links_rendezvous_opened", "rendezvous opened"),
            joined: counter("pli_links_rendezvous_joined", "rendezvous that an approver joined"),
            forgotten: counter(
                "pli_links_rendezvous_forgotten",
                "rendezvous deleted by the sweep, where the store does not forget by itself",
            ),
            blob_bytes: counter("pli_links_blob_bytes", "bytes of blobs put"),
            looks: counter("pli_links_store_looks", "questions to the store by those who wait for a blob"),
            waits: counter("pli_links_waits", "ended waits for a blob, by what came: blob or nothing"),
            waiting: gauge("pli_links_waiting", "calls that wait for a blob now"),
            refusals: counter("pli_links_refusals", "refused calls, by method and code"),
        }
    }

    /// One more that waits, until the answer is dropped.
    pub(crate) fn waiting(&self) -> Waiting<'_> {
        self.waiting.add(1, &[]);
        Waiting(self)
    }

    /// A wait ended with a blob, or without one.
    pub(crate) fn waited(&self, with_blob: bool) {
        self.waits.add(1, &[KeyValue::new("came", if with_blob { "blob" } else { "nothing" })]);
    }

    pub(crate) fn refused(&self, method: &'static str, code: ErrorCode) {
        self.refusals.add(1, &[KeyValue::new("method", method), KeyValue::new("code", code.as_str_name())]);
    }
}

/// See [`Metrics::waiting`].
pub(crate) struct Waiting<'a>(&'a Metrics);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.add(-1, &[]);
    }
}
