// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the service counts.

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter};
use pli_api::ErrorCode;

use crate::finish::By;

/// The service's instruments; never an id as a label.
pub(crate) struct Metrics {
    /// `pli_conversations_created`
    pub created: Counter<u64>,
    /// `pli_conversations_failures_reported`: devices that could not process a commit.
    pub failures: Counter<u64>,
    /// `pli_conversations_commit_seconds`: from request to answer of commits that won.
    pub commit_seconds: Histogram<f64>,
    commits: Counter<u64>,
    finished: Counter<u64>,
    unfinished: Counter<u64>,
    refusals: Counter<u64>,
}

impl Metrics {
    pub(crate) fn new(meter: &Meter) -> Self {
        let counter = |name: &'static str, what: &'static str| meter.u64_counter(name).with_description(what).build();
        let commit_seconds = meter
            .f64_histogram("pli_conversations_commit_seconds")
            .with_description("commits that won, from request to answer")
            .with_boundaries(pli_runtime::LATENCY_SECONDS.to_vec());
        Self {
            created: counter("pli_conversations_created", "conversations created"),
            failures: counter("pli_conversations_failures_reported", "commits that a device could not process"),
            commit_seconds: commit_seconds.build(),
            commits: counter("pli_conversations_commits", "commits offered, by outcome: won, again, lost"),
            finished: counter("pli_conversations_commits_finished", "epochs opened, by who finished the commit"),
            unfinished: counter("pli_conversations_finish_failures", "fan-outs that failed, by who tried"),
            refusals: counter("pli_conversations_refusals", "refused calls, by method and code"),
        }
    }

    pub(crate) fn commit(&self, outcome: &'static str) {
        self.commits.add(1, &[KeyValue::new("outcome", outcome)]);
    }

    pub(crate) fn finish(&self, by: By, done: bool) {
        let counter = if done { &self.finished } else { &self.unfinished };
        counter.add(1, &[KeyValue::new("by", by.name())]);
    }

    pub(crate) fn refused(&self, method: &'static str, code: ErrorCode) {
        self.refusals.add(1, &[KeyValue::new("method", method), KeyValue::new("code", code.as_str_name())]);
    }
}
