// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the media service counts.

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Meter};
use pli_api::ErrorCode;

/// The service's instruments; never an id as a label.
pub(crate) struct Metrics {
    /// `pli_media_uploads_begun`: going on with one counts again.
    pub begun: Counter<u64>,
    /// `pli_media_uploads_finished`: an idempotent repeat counts again.
    pub finished: Counter<u64>,
    /// `pli_media_uploads_deleted`: an idempotent repeat counts again.
    pub deleted: Counter<u64>,
    /// `pli_media_uploads_forgotten`
    pub forgotten: Counter<u64>,
    /// `pli_media_objects_swept`
    pub swept: Counter<u64>,
    /// `pli_media_put_bytes`: a repeat counts again.
    pub bytes_put: Counter<u64>,
    /// `pli_media_read_bytes`
    pub bytes_read: Counter<u64>,
    refusals: Counter<u64>,
}

impl Metrics {
    pub(crate) fn new(meter: &Meter) -> Self {
        let counter = |name: &'static str, what: &'static str| meter.u64_counter(name).with_description(what).build();
        Self {
            begun: counter("pli_media_uploads_begun", "uploads begun or gone on with"),
            finished: counter("pli_media_uploads_finished", "uploads finished"),
            deleted: counter("pli_media_uploads_deleted", "uploads deleted by a device"),
            forgotten: counter(
                "pli_media_uploads_forgotten",
                "expired uploads deleted by the sweep, where the store does not forget by itself",
            ),
            swept: counter("pli_media_objects_swept", "objects of days that are over, deleted by the sweep"),
            bytes_put: counter("pli_media_put_bytes", "bytes of parts put"),
            bytes_read: counter("pli_media_read_bytes", "bytes of parts read"),
            refusals: counter("pli_media_refusals", "refused calls, by method and code"),
        }
    }

    pub(crate) fn refused(&self, method: &'static str, code: ErrorCode) {
        self.refusals.add(1, &[KeyValue::new("method", method), KeyValue::new("code", code.as_str_name())]);
    }
}
