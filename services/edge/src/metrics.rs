// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the edge counts and notes. Labels are words from closed lists, never an id.

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter, UpDownCounter};
use pli_api::ErrorCode;
use pli_api::common::Error;

use crate::admission::Reason;
use crate::carrier::CarrierName;
use crate::notes::Notes;

/// Instruments of one edge.
pub(crate) struct Metrics {
    /// Hops and spans; beside the instruments, because whoever counts a step also notes it.
    pub(crate) notes: Notes,
    sessions: UpDownCounter<i64>,
    connections: UpDownCounter<i64>,
    handshakes_refused: Counter<u64>,
    pub(crate) quic_retries: Counter<u64>,
    pub(crate) quic_streams_refused: Counter<u64>,
    pub(crate) sends: Counter<u64>,
    sends_refused: Counter<u64>,
    pub(crate) deliveries: Counter<u64>,
    pub(crate) doorbells_read: Counter<u64>,
    pub(crate) doorbells_dropped: Counter<u64>,
    pub(crate) gaps: Counter<u64>,
    pub(crate) acks_above_sent: Counter<u64>,
    pub(crate) acks_below: Counter<u64>,
    pub(crate) positions_ignored: Counter<u64>,
    pub(crate) calls: Counter<u64>,
    pub(crate) owner_retries: Counter<u64>,
    pub(crate) append_retries: Counter<u64>,
    calls_refused: Counter<u64>,
    pub(crate) append_queue_envelopes: Histogram<u64>,
    pub(crate) entry_envelopes: Histogram<u64>,
    pub(crate) append_seconds: Histogram<f64>,
    pub(crate) appended_bytes: Counter<u64>,
    pub(crate) receipts_stored: Counter<u64>,
    pub(crate) receipts_resend: Counter<u64>,
    pub(crate) receipts_bad: Counter<u64>,
    pub(crate) notices_missed: Counter<u64>,
    pub(crate) signals_malformed: Counter<u64>,
    pub(crate) fan_outs: Counter<u64>,
    pub(crate) fan_outs_again: Counter<u64>,
    pub(crate) fan_out_retries: Counter<u64>,
    pub(crate) fan_out_payload_bytes: Counter<u64>,
    pub(crate) fan_out_unreadable: Counter<u64>,
    pub(crate) fan_out_expired: Counter<u64>,
    pub(crate) fan_out_open: UpDownCounter<i64>,
    closes: Counter<u64>,
}

impl Metrics {
    pub(crate) fn new(meter: &Meter, notes: Notes) -> Self {
        let count = |name: &'static str, about: &'static str| meter.u64_counter(name).with_description(about).build();
        let level =
            |name: &'static str, about: &'static str| meter.i64_up_down_counter(name).with_description(about).build();
        Self {
            notes,
            sessions: level("pli_edge_sessions", "open sessions, by carrier"),
            connections: level("pli_edge_connections", "open connections, handshakes included, by carrier"),
            handshakes_refused: count(
                "pli_edge_handshakes_refused",
                "connections that ended before a session could begin, by carrier and reason",
            ),
            quic_retries: count("pli_edge_quic_retries", "QUIC clients that were asked to prove their address"),
            quic_streams_refused: count("pli_edge_quic_streams_refused", "QUIC streams beside the session's, refused"),
            sends: count("pli_edge_sends", "sends that were accepted"),
            sends_refused: count(
                "pli_edge_sends_refused",
                "sends that were refused, by code and, where one was reached, limit",
            ),
            deliveries: count("pli_edge_deliveries", "envelopes sent to devices"),
            doorbells_read: count("pli_edge_doorbells_read", "doorbells that made the session read"),
            doorbells_dropped: count("pli_edge_doorbells_dropped", "doorbells for what was sent already"),
            gaps: count("pli_edge_gaps", "gaps told to devices"),
            acks_above_sent: count("pli_edge_acks_above_sent", "acks above what was sent, ignored"),
            acks_below: count("pli_edge_acks_below", "acks at or below the last one, ignored"),
            positions_ignored: count("pli_edge_positions_ignored", "hello positions that owners ignored"),
            calls: count("pli_edge_calls", "calls passed on to services"),
            owner_retries: count("pli_edge_owner_retries", "requests to owners that must be repeated"),
            append_retries: count("pli_edge_append_retries", "appends that were repeated"),
            calls_refused: count("pli_edge_calls_refused", "calls that the edge itself refused, by code and limit"),
            append_queue_envelopes: append_queue_envelopes(meter),
            entry_envelopes: entry_envelopes(meter),
            append_seconds: append_seconds(meter),
            appended_bytes: count("pli_edge_appended_bytes", "bytes of the log entries that were appended"),
            receipts_stored: count("pli_edge_receipts_stored", "receipts that were settled"),
            receipts_resend: count("pli_edge_receipts_resend", "receipts whose message must be sent again"),
            receipts_bad: count("pli_edge_receipts_bad", "receipts that are none of ours"),
            notices_missed: count("pli_edge_notices_missed", "notices of owners that were missed"),
            signals_malformed: count("pli_edge_signals_malformed", "bus messages that cannot be decoded"),
            fan_outs: count("pli_edge_fan_outs", "messages to many shards that were appended to each of them"),
            fan_outs_again: count("pli_edge_fan_outs_again", "of those, appended again because a log lost them"),
            fan_out_retries: count("pli_edge_fan_out_retries", "tries to append a message to many shards that failed"),
            fan_out_payload_bytes: count(
                "pli_edge_fan_out_payload_bytes",
                "bytes of bodies stored apart for messages to many shards, once for each message",
            ),
            fan_out_unreadable: count(
                "pli_edge_fan_out_unreadable",
                "messages to many shards that cannot be read, or whose roster was gone for an hour",
            ),
            fan_out_expired: count(
                "pli_edge_fan_out_expired",
                "messages to many shards that expired before they were in each",
            ),
            fan_out_open: meter
                .i64_up_down_counter("pli_edge_fan_out_open")
                .with_description("messages to many shards that workers have read and that are not settled in each")
                .build(),
            closes: count("pli_edge_closes", "sessions ended by the edge, by code"),
        }
    }

    /// A session has begun (1) or ended (-1).
    pub(crate) fn session(&self, carrier: CarrierName, change: i64) {
        self.sessions.add(change, &[by(carrier)]);
    }

    /// A connection has begun (1) or ended (-1).
    pub(crate) fn connection(&self, carrier: CarrierName, change: i64) {
        self.connections.add(change, &[by(carrier)]);
    }

    /// A connection came to nothing.
    pub(crate) fn handshake_refused(&self, carrier: CarrierName, reason: Reason) {
        self.handshakes_refused.add(1, &[by(carrier), KeyValue::new("reason", reason.word())]);
    }

    /// A send was refused.
    pub(crate) fn send_refused(&self, send_id: &[u8], error: &Error) {
        self.sends_refused.add(1, &refused_by(error));
        self.notes.refused(send_id, error);
    }

    /// A call was refused before it was passed on.
    pub(crate) fn call_refused(&self, error: &Error) {
        self.calls_refused.add(1, &refused_by(error));
    }

    /// A session was ended with this code.
    pub(crate) fn closed(&self, code: ErrorCode) {
        self.closes.add(1, &[KeyValue::new("code", code.as_str_name())]);
    }
}

fn by(carrier: CarrierName) -> KeyValue {
    KeyValue::new("carrier", carrier.word())
}

/// Names of limits are a closed list too.
fn refused_by(error: &Error) -> [KeyValue; 2] {
    [KeyValue::new("code", error.code().as_str_name()), KeyValue::new("limit", error.limit_word())]
}

fn append_queue_envelopes(meter: &Meter) -> Histogram<u64> {
    let boundaries = std::iter::once(0.0).chain((0..=14).step_by(2).map(|n| f64::from(1 << n)));
    meter
        .u64_histogram("pli_edge_append_queue_envelopes")
        .with_description("envelopes of a shard that still wait when one of its entries goes out")
        .with_boundaries(boundaries.collect())
        .build()
}

fn entry_envelopes(meter: &Meter) -> Histogram<u64> {
    meter
        .u64_histogram("pli_edge_entry_envelopes")
        .with_description("envelopes of one log entry")
        .with_boundaries((0..=10).map(|n| f64::from(1 << n)).collect())
        .build()
}

fn append_seconds(meter: &Meter) -> Histogram<f64> {
    meter
        .f64_histogram("pli_edge_append_seconds")
        .with_description("one append, tries included")
        .with_boundaries(pli_runtime::LATENCY_SECONDS.to_vec())
        .build()
}
