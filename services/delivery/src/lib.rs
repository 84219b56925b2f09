// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shard owners: from the shard log to device queues, doorbells, acknowledgement and retention.
//!
//! # What an owner is
//!
//! One task per shard ([`Owner`]), under a lease that spares double work and proves nothing. It follows the shard's
//! log, keeps the end of it in memory (the *tail*), rings devices that are connected, answers their reads, takes
//! their acknowledgements, and writes a queue row only for what is not acknowledged soon. [`Delivery`] takes leases
//! and runs an owner for each shard it gets.
//!
//! # The one statement that carries everything
//!
//! A position P may become a shard's *checkpoint* only when, for every device that an envelope at or below P
//! addresses, its row is durable, or the device has acknowledged it, or it has expired, or it lies at or below the
//! device's floor, or the device is removed. That is a statement about facts: it stays true whoever makes it, so an
//! owner that was paused and wakes up (a zombie) can only repeat it. Checkpoint, cursor and floor are max-registers.
//! Everything at or below the checkpoint is read from rows, everything above it from the tail, never both.
//!
//! # Settling
//!
//! Every `settle_every`, for the oldest entries that are due (nothing of them open, or older than `spill_after`, or
//! above the budget): rows for what is un-acknowledged, then changed cursors of devices that have rows, then the
//! checkpoint, in that order of durability. The checkpoint is read back; a higher log epoch seen there makes the
//! owner start again before it announces or trims anything. Then edges get notices, rows of acknowledged prefixes are
//! deleted (coalesced), and the log is trimmed behind the checkpoint. A settle works on a snapshot beside following,
//! ringing and reading; at most one is under way.
//!
//! # Starting
//!
//! The owner takes the release mark, which clears it, then reads the checkpoint. If the mark names the current log
//! epoch and its entry and the checkpoint's are in the log, the log epoch is kept and the mark checked at every new
//! reader until it is read past. Otherwise the next log epoch begins by compare-and-set, and the checkpoint stands in
//! it before anything is answered. Where log and tables share one transaction the log cannot lose its end and the
//! epoch is kept. Every new reader is held against the last entry read, the mark and the checkpoint's entry; where
//! one of them is gone, the next log epoch begins. Starts back off to one a minute.
//!
//! # Sessions, doorbells, reads
//!
//! Edges announce sessions on `pli.owner.<shard>`; owners keep them in memory and ask for them again after a start,
//! and settle only after one round of them. A first announcement displaces older sessions of the device; until they
//! withdraw all are rung. A doorbell names the position addressed to the device before (`prev`, absent when unknown)
//! and usually carries the envelope. A hello or an acknowledgement above what can have been sent is ignored and
//! counted; one that names a higher log epoch makes the owner look, at most once a second, whether it was fenced.
//!
//! # Bounds
//!
//! The tail has a byte budget: above half of it the oldest part is spilled at once; above all of it, which needs a
//! database that is down, bodies are dropped and read again from the log; above a number of positions the owner stops
//! following. A queue above its bound gets its floor raised: in memory first, so that pages tell the gap, durable
//! before a row goes. An entry that cannot be decoded is kept aside with an alarm and counts as settled; devices that
//! its header still names find a gap in its place (a row with an empty envelope, once it is spilled). What has less
//! than 60 s to live when it would be spilled is expired. Every setting is in [`Config`].
//!
//! # What is deliberately absent
//!
//! No timer and no allocation per message beyond its slot in the tail; no membership look-ups (entries name devices);
//! no ordering by clocks; no state of a device that is idle and has no rows.

#![warn(clippy::iter_over_hash_type)]

mod config;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod levels;
mod metrics;
mod owner;
mod service;
mod share;

pub use config::{Config, InvalidConfig};
pub use error::{DeliveryError, OwnerError};
pub use metrics::{CounterValues, Counters};
pub use owner::Owner;
pub use service::{Beside, Delivery, DeliveryPorts};
