// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the directory counts.

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Meter};
use pli_api::ErrorCode;

/// The directory's instruments; never an id as a label.
pub(crate) struct Metrics {
    /// `pli_directory_registrations`: accounts created (an idempotent repeat counts again).
    pub registrations: Counter<u64>,
    /// `pli_directory_device_lists_replaced`
    pub lists_replaced: Counter<u64>,
    /// `pli_directory_key_packages_published`
    pub published: Counter<u64>,
    claimed: Counter<u64>,
    refusals: Counter<u64>,
}

impl Metrics {
    pub(crate) fn new(meter: &Meter) -> Self {
        let counter = |name: &'static str, what: &'static str| meter.u64_counter(name).with_description(what).build();
        Self {
            registrations: counter("pli_directory_registrations", "accounts registered"),
            lists_replaced: counter("pli_directory_device_lists_replaced", "device lists replaced"),
            published: counter("pli_directory_key_packages_published", "key packages accepted"),
            claimed: counter("pli_directory_key_packages_claimed", "key packages taken from stock, by kind"),
            refusals: counter("pli_directory_refusals", "refused calls, by method and code"),
        }
    }

    /// One package left the stock: `single_use`, `last_resort`, or `expired` and thrown away.
    pub(crate) fn claimed(&self, kind: &'static str) {
        self.claimed.add(1, &[KeyValue::new("kind", kind)]);
    }

    pub(crate) fn refused(&self, method: &'static str, code: ErrorCode) {
        self.refusals.add(1, &[KeyValue::new("method", method), KeyValue::new("code", code.as_str_name())]);
    }
}
