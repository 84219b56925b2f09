// SPDX-License-Identifier: MIT OR Apache-2.0
//! Settings of the edge. Every bound that the edge alone enforces is a field here.

mod check;

use std::time::Duration;

use pli_domain::limits::KEY_PACKAGES_LOW;
use serde::{Deserialize, Serialize};

pub use check::InvalidConfig;

/// Settings of the edge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Name of the server, for people.
    pub name: String,
    /// Hosts that a hello may name, each as a client writes it: name or address, with the port where it is not 443. One
    /// without a port stands for every port. Empty: loopback names only.
    pub hosts: Vec<String>,
    /// Web origins that may bind an authentication (browsers cannot see the TLS exporter).
    pub origins: Vec<String>,
    /// Oldest client that is not refused, as `name/version`'s version part.
    pub client_version_min: String,
    /// Time limits of a session.
    pub session: SessionConfig,
    /// Appending to shard logs.
    pub append: AppendConfig,
    /// Messages to many shards.
    pub fan_out: FanOutConfig,
    /// Named rate limits.
    pub limits: LimitsConfig,
    /// Bytes of rosters kept; the least recently used ones go first.
    pub roster_cache_bytes: u64,
    /// Bytes of bodies kept of messages to many shards; the least recently used ones go first.
    pub bodies_cache_bytes: u64,
    /// How long the number of a conversation's newest epoch is believed, in milliseconds.
    pub roster_current_ms: u64,
    /// How long a device's key is believed, in milliseconds.
    pub device_key_ms: u64,
    /// Device keys kept at a time, and as many marks of devices that were removed.
    pub device_keys_max: u64,
    /// Parts of receipts whose end is not known yet, one for each shard that a message went to, over all sessions; above it
    /// sends are refused with `NO_SPACE`, and above half of it receipts that clients present.
    pub open_receipts_max: usize,
    /// Deadline of one request to a shard owner, in milliseconds.
    pub owner_request_ms: u64,
    /// Deadline of one call to a service, in milliseconds.
    pub call_ms: u64,
    /// Below this many key packages a device is told to publish more.
    pub key_packages_low: u32,
    /// Time in which a drain tells its sessions to go, in waves, in milliseconds.
    pub drain_ms: u64,
    /// Time that a session gets after `GoAway` to finish what is open, in milliseconds.
    pub drain_session_ms: u64,
    /// Server info names suite 0x004F; `directory.post_quantum` says so for all roles.
    #[serde(skip)]
    pub post_quantum: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "pli".into(),
            hosts: Vec::new(),
            origins: Vec::new(),
            client_version_min: "0.1.0".into(),
            session: SessionConfig::default(),
            append: AppendConfig::default(),
            fan_out: FanOutConfig::default(),
            limits: LimitsConfig::default(),
            roster_cache_bytes: 64 * 1024 * 1024,
            bodies_cache_bytes: 64 * 1024 * 1024,
            roster_current_ms: 2_000,
            device_key_ms: 5_000,
            device_keys_max: 100_000,
            open_receipts_max: 1_000_000,
            owner_request_ms: 2_000,
            call_ms: 10_000,
            key_packages_low: u32::try_from(KEY_PACKAGES_LOW).unwrap_or(20),
            drain_ms: 2_000,
            drain_session_ms: 2_000,
            post_quantum: false,
        }
    }
}

/// Time limits and windows of one session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionConfig {
    /// From the first byte of the connection to a whole hello, in milliseconds.
    pub hello_ms: u64,
    /// Life of a nonce, in milliseconds.
    pub nonce_ms: u64,
    /// Longest pause within a frame that a client has begun, in milliseconds.
    pub frame_ms: u64,
    /// Bytes a second at which a begun frame comes at least: it is whole `frame_ms` and a second for so many bytes after
    /// its beginning.
    pub frame_bytes_per_s: u32,
    /// A session that is silent for longer is closed, in milliseconds. It is pinged at half of it without a whole frame.
    pub idle_ms: u64,
    /// A session whose client reads nothing for so long while something waits for it is closed, in milliseconds.
    pub write_stall_ms: u64,
    /// Sends that may wait for their results.
    pub send_window: u32,
    /// Deliveries that may wait for their ack.
    pub delivery_window: u32,
    /// Calls that may wait for their reply.
    pub call_window: u32,
    /// Receipts of one session whose end is not known yet.
    pub open_receipts_max: usize,
    /// `Ready` waits so long for the shard's owner, then goes out without its answer, in milliseconds.
    pub ready_wait_ms: u64,
    /// Acks are forwarded at most this often, in milliseconds.
    pub ack_forward_ms: u64,
    /// Rows of one page asked of an owner; the delivery window bounds it too.
    pub page_rows: u32,
    /// Bytes of one page asked of an owner.
    pub page_bytes: u32,
    /// A session looks for missed mail after a random time from this, in milliseconds …
    pub recheck_min_ms: u64,
    /// … to this.
    pub recheck_max_ms: u64,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            hello_ms: 10_000,
            nonce_ms: 30_000,
            frame_ms: 5_000,
            frame_bytes_per_s: 1_024,
            idle_ms: 120_000,
            write_stall_ms: 30_000,
            send_window: 256,
            delivery_window: 256,
            call_window: 16,
            open_receipts_max: 20_000,
            ready_wait_ms: 3_000,
            ack_forward_ms: 20,
            page_rows: 256,
            page_bytes: 128 * 1024,
            recheck_min_ms: 60_000,
            recheck_max_ms: 300_000,
        }
    }
}

/// How envelopes are gathered into log entries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AppendConfig {
    /// Longest wait for more envelopes while another entry of the shard is in flight, in microseconds.
    pub linger_us: u64,
    /// Entries in flight per shard.
    pub entries_in_flight: usize,
    /// Envelopes that wait per shard; above it sends are refused with `TEMPORARY`.
    pub queue_max: usize,
    /// Tries of one entry, the first included.
    pub tries_max: u32,
    /// Deadline of one try, in milliseconds.
    pub try_ms: u64,
}

impl Default for AppendConfig {
    fn default() -> Self {
        Self { linger_us: 1_000, entries_in_flight: 8, queue_max: 16_384, tries_max: 4, try_ms: 5_000 }
    }
}

/// How a message to many shards is spread.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FanOutConfig {
    /// Messages that one worker has spread and whose settling it awaits; above it, it waits.
    pub window: usize,
    /// Bytes of bodies that all workers of a process hold until they are stored as payloads; above it, they read no more.
    pub body_bytes: usize,
}

impl Default for FanOutConfig {
    fn default() -> Self {
        Self { window: 16_384, body_bytes: 64 * 1024 * 1024 }
    }
}

/// A named limit: so many a second, with a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Sustained, per second; at least 1.
    pub per_second: u32,
    /// At once; at least 1.
    pub burst: u32,
}

/// Named rate limits; a refusal with `RATE_LIMITED` carries the field's name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Sends of one session.
    pub session_sends: Rate,
    /// Bytes of bodies sent by one session.
    pub session_send_bytes: Rate,
    /// Deliveries that sends of one session cause: a message to a group of n devices is n.
    pub session_deliveries: Rate,
    /// Calls of one session.
    pub session_calls: Rate,
    /// New connections of one address (one IPv6 /64).
    pub address_connections: Rate,
    /// Hellos of one address (one IPv6 /64).
    pub address_hellos: Rate,
    /// Sessions and connections of this edge at a time, over all addresses and carriers.
    pub edge_connections_max: usize,
    /// Handshakes over QUIC under way with addresses that may be somebody else's; above it a client first has to show that
    /// it receives what is sent to its address (a Retry packet, RFC 9000 section 8.1.2), which costs it a round trip.
    pub quic_unproven_max: usize,
    /// Whether limits by address hold for loopback addresses too.
    pub loopback: bool,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            session_sends: Rate { per_second: 2_000, burst: 10_000 },
            session_send_bytes: Rate { per_second: 8 * 1024 * 1024, burst: 32 * 1024 * 1024 },
            session_deliveries: Rate { per_second: 20_000, burst: 200_000 },
            session_calls: Rate { per_second: 100, burst: 500 },
            address_connections: Rate { per_second: 50, burst: 1_000 },
            address_hellos: Rate { per_second: 50, burst: 1_000 },
            edge_connections_max: 100_000,
            quic_unproven_max: 256,
            loopback: false,
        }
    }
}

/// Milliseconds as a duration.
pub(crate) const fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}
