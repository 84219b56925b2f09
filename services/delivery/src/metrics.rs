// SPDX-License-Identifier: MIT OR Apache-2.0
//! What delivery counts: everything that Q8 speaks of, and the states that are rare.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use opentelemetry::metrics::Meter;

use crate::levels::Levels;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of one worker, shared by its shards.
        #[derive(Debug, Default)]
        pub struct Counters {
            /// What goes up and down.
            pub(crate) levels: Arc<Levels>,
            $($name: AtomicU64,)*
        }

        /// The counters at one moment.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct CounterValues { $($(#[$doc])* pub $name: u64,)* }

        impl Counters {
            $(pub(crate) fn $name(&self, n: usize) {
                self.$name.fetch_add(n as u64, Ordering::Relaxed);
            })*

            /// What was counted so far.
            pub fn snapshot(&self) -> CounterValues {
                CounterValues { $($name: self.$name.load(Ordering::Relaxed),)* }
            }

            /// Exports every counter as `pli_delivery_<name>`; Prometheus adds `_total`.
            pub fn export(self: &Arc<Self>, meter: &Meter) {
                self.levels.export(meter);
                $({
                    let counters = self.clone();
                    meter
                        .u64_observable_counter(concat!("pli_delivery_", stringify!($name)))
                        .with_callback(move |to| to.observe(counters.$name.load(Ordering::Relaxed), &[]))
                        .build();
                })*
            }
        }
    };
}

counters! {
    /// Log entries read.
    entries,
    /// (device, envelope) pairs read from the log: what Q8 speaks of. A replay counts again.
    addressed,
    /// Pairs that left the tail, or rows that were passed, by an acknowledgement.
    acked,
    /// Pairs that were settled because less than 60 s of their life was left.
    expired,
    /// Pairs and rows that a floor passed.
    gapped,
    /// Pairs in entries that could not be decoded; their devices are told a gap.
    aside_gaps,
    /// Entries that could not be decoded.
    aside,
    /// Pairs and queues dropped because the device was removed.
    removed,
    /// Rows written.
    rows_written,
    /// Bytes of envelopes in the rows written.
    row_bytes_written,
    /// Cursors and floors written.
    registers_written,
    /// Rows spilled for a device that had a session.
    spills_met_live,
    /// Bodies dropped from the tail because the database was down and the budget full.
    bodies_dropped,
    /// Times that the log was read again for dropped bodies.
    bodies_read_again,
    /// Checkpoints moved on.
    settles,
    /// Plans of a settle, or of the deleting after it, that were given up because the store had no room for them.
    settles_without_room,
    /// Prefix deletes of rows.
    row_trims,
    /// Trims of the log.
    log_trims,
    /// Of these, before receipts were old enough, because the log was over 70 % full.
    log_trims_early,
    /// Doorbells sent.
    doorbells,
    /// Doorbells sent without knowing the position before.
    unknown_prev_sent,
    /// Pages answered from rows.
    row_pages,
    /// Pages answered from the tail.
    tail_pages,
    /// Registers read from the database.
    register_reads,
    /// Sessions announced for the first time to this owner.
    sessions,
    /// Sessions told to close for a newer one.
    displaced,
    /// Sessions forgotten because nothing was heard of them.
    sessions_forgotten,
    /// Acknowledgements above what can have been sent.
    acks_ignored,
    /// Committed positions in a hello that cannot be.
    positions_ignored,
    /// Messages to the owner that were not understood.
    malformed,
    /// Requests told to come back.
    not_ready,
    /// Floors raised.
    floors_raised,
    /// Notices sent.
    notices,
    /// Leases taken: shards that moved here.
    leases_taken,
    /// Leases lost although this worker was running: it was too slow to renew, or could not reach the lease store.
    leases_lost,
    /// Leases handed over in order to a worker with fewer shards.
    leases_handed_over,
    /// Leases given back in order because the worker stops, or because an owner failed.
    leases_given_back,
    /// Starts of an owner.
    starts,
    /// Log epochs begun.
    epochs_begun,
    /// Starts that kept the log epoch on a release mark.
    clean_starts,
    /// Clean starts of which the tail was not empty.
    handovers_with_tail,
    /// Release marks written.
    marks_written,
    /// Checkpoints written by an owner that found a higher log epoch when it read back.
    zombie_settles,
    /// Starts because a higher log epoch was seen elsewhere.
    fenced,
    /// Forks of the log above an intact checkpoint.
    forks_above_checkpoint,
    /// Forks of the log that took the checkpoint's own entry.
    forks_below_checkpoint,
    /// Log readers created again.
    readers_recreated,
    /// Times that the log began above what was wanted.
    log_began_above,
    /// Times that following stopped at a bound.
    follow_stopped,
    /// Store calls tried again.
    store_retries,
}

impl CounterValues {
    /// Pairs read that are neither acknowledged, expired, gapped nor removed yet; includes what stands in rows.
    pub fn open(&self) -> u64 {
        self.addressed.saturating_sub(self.acked + self.expired + self.gapped + self.removed)
    }
}
