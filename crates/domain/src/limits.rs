// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bounds that several parts must agree on. A bound that one part alone enforces stands in that part.

use std::time::Duration;

/// Most bytes of an envelope's sealed body.
pub const ENVELOPE_BODY_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of one session frame, envelope header included.
pub const FRAME_BYTES_MAX: usize = 80 * 1024;
/// Most bytes of envelopes in one log entry (a single larger envelope stands alone).
pub const ENTRY_BYTES_MAX: usize = 64 * 1024;
/// A message to devices of more shards than this goes through the fan-out worker of its conversation, unless a setting
/// says otherwise.
pub const FAN_OUT_ABOVE_SHARDS: usize = 8;
/// Most envelopes in one log entry: the index of a position has 10 bits.
pub const ENTRY_ENVELOPES_MAX: usize = 1_024;
/// Most bytes of one log entry, headers of its items included: what every log must take.
pub const LOG_ENTRY_BYTES_MAX: usize = 256 * 1024;
/// Most rows that one settle writes to the device queues.
pub const SETTLE_ROWS_MAX: usize = 4_096;
/// Most bytes of a payload: a group's public state, a tree, a commit with its welcomes.
pub const PAYLOAD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most bytes of one signal or request on the bus: what NATS takes by default, less the headers.
pub const SIGNAL_BYTES_MAX: usize = 1024 * 1024 - SIGNAL_HEAD_BYTES_MAX;
/// Most bytes of the headers of one signal.
pub const SIGNAL_HEAD_BYTES_MAX: usize = 1024;
/// Messages that a subscription holds for a reader that is behind; one more interrupts it.
pub const SUBSCRIPTION_SIGNALS_MAX: usize = 8_192;
/// An MLS object larger than this travels by reference, in pages of at most this size.
pub const PAGE_BYTES_MAX: usize = 48 * 1024;
/// Longest life of an envelope.
pub const EXPIRY_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// What has less than this to live is expired, never spilled.
pub const SPILL_LIFE_MIN: Duration = Duration::from_secs(60);
/// Most un-acknowledged envelopes of one device; above it the floor rises.
pub const QUEUE_ROWS_MAX: usize = 20_000;
/// Most un-acknowledged bytes of one device; above it the floor rises.
pub const QUEUE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Entries that could not be decoded, kept per shard; above it the owner stops following.
pub const ASIDE_ENTRIES_MAX: usize = 1_000;
/// Most messages in a client's outbox that are not `stored` yet.
pub const OUTBOX_MESSAGES_MAX: usize = 10_000;
/// Most bytes in a client's outbox that are not `stored` yet.
pub const OUTBOX_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long a client keeps the dedupe id of a shown content.
pub const DEDUPE_KEPT: Duration = Duration::from_secs(35 * 24 * 3600);
/// How long a hole in a lane is held before it is marked.
pub const LANE_HOLE_HELD: Duration = Duration::from_secs(10);
/// A message may be at most this many MLS epochs old.
pub const EPOCHS_BEHIND_MAX: u64 = 2;
/// Shortest handle in bytes.
pub const HANDLE_LEN_MIN: usize = 3;
/// Longest handle in bytes.
pub const HANDLE_LEN_MAX: usize = 32;
/// Most devices of one account.
pub const DEVICES_PER_ACCOUNT_MAX: usize = 10;
/// Most bytes of what a device is called.
pub const DEVICE_NAME_BYTES_MAX: usize = 64;
/// Newest lists of an account's chain of device lists that are kept: who is further behind cannot follow it any more.
pub const DEVICE_LISTS_KEPT: u64 = 256;
/// Most lists of one account's chain in one answer.
pub const CHAIN_LISTS_MAX: usize = 32;
/// MLS cipher suites that groups and key packages may use, the default first (RFC 9420 section 17.1): X25519 and
/// Ed25519 with AES-128-GCM, which every provider has, or with ChaCha20-Poly1305.
pub const CIPHER_SUITES: [u16; 2] = [0x0001, 0x0003];
/// The suite for what must stay secret also from who records it now and has a quantum computer one day: ML-KEM-768 with
/// X25519 (X-Wing), AES-128-GCM, Ed25519. Its code point is not assigned yet (draft-ietf-mls-pq-ciphersuites), so a server
/// takes it only where it is set to.
pub const CIPHER_SUITE_POST_QUANTUM: u16 = 0x004F;
/// Most accounts in one conversation.
pub const MEMBERS_MAX: usize = 250;
/// Most devices in one conversation, of all its accounts together.
pub const GROUP_DEVICES_MAX: usize = 1_000;
/// Longest name of a group in bytes; a client's rule, because the server does not see names.
pub const GROUP_NAME_BYTES_MAX: usize = 128;
/// Most accounts of one question for device lists: a whole conversation.
pub const DEVICE_LISTS_MAX: usize = MEMBERS_MAX;
/// Most devices of one claim of key packages.
pub const CLAIM_DEVICES_MAX: usize = 64;
/// Key packages kept per device, the last-resort one not counted.
pub const KEY_PACKAGES_MAX: usize = 100;
/// Most blobs of one rendezvous, both sides together.
pub const RENDEZVOUS_BLOBS_MAX: u8 = 8;
/// Most bytes of one blob of a rendezvous.
pub const RENDEZVOUS_BLOB_BYTES_MAX: usize = 16 * 1024;
/// Length of every part of an upload but the last, in bytes: with its header it fits a frame.
pub const MEDIA_PART_BYTES: u64 = 64 * 1024;
/// Longest upload in bytes: 1,024 parts.
pub const MEDIA_UPLOAD_BYTES_MAX: u64 = 1_024 * MEDIA_PART_BYTES;
/// Most uploads of an account that have not expired, deleted ones counted.
pub const MEDIA_UPLOADS_MAX: usize = 256;
/// Below this many key packages a device is told to publish more.
pub const KEY_PACKAGES_LOW: usize = 20;
