// SPDX-License-Identifier: MIT OR Apache-2.0
//! Planted faults. Each breaks one rule of the message path so that the simulation, the power cuts and the demo can
//! prove that they would notice. Without the feature `mutants` the question is answered `false` at compile time and
//! nothing of this is in the binary.

macro_rules! mutants {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A rule that can be broken on purpose.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Mutant { $($(#[$doc])* $variant,)* }

        impl Mutant {
            /// Every mutant.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// Its name on command lines.
            #[cfg(feature = "mutants")]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

mutants! {
    /// An append is acknowledged before it is durable.
    AcceptBeforeDurable = "accept-before-durable",
    /// The embedded engine does not fsync.
    FsyncLeftOut = "fsync-left-out",
    /// A doorbell is sent before a read would return what it rings for (Q2).
    RingBeforeReadable = "ring-before-readable",
    /// A hello below the cursor moves the cursor back (Q5).
    CursorGoesBack = "cursor-goes-back",
    /// A session reads before its registration is confirmed (Q3).
    ReadBeforeRegistration = "read-before-registration",
    /// The checkpoint passes an envelope that is neither acknowledged nor written (Q7).
    CheckpointPassesUnacked = "checkpoint-passes-unacked",
    /// A page takes rows above the reader's checkpoint.
    RowsAboveCheckpointRead = "rows-above-checkpoint-read",
    /// The log is trimmed above the checkpoint (Q7).
    TrimAboveCheckpoint = "trim-above-checkpoint",
    /// An unclean start keeps the log epoch.
    NoEpochAfterUncleanStart = "no-epoch-after-unclean-start",
    /// A written checkpoint is not read back before it is announced.
    NoCheckpointReadBack = "no-checkpoint-read-back",
    /// A new log reader does not check the last entry that was read.
    LastReadUnchecked = "last-read-unchecked",
    /// A doorbell with an unknown predecessor claims that there is none.
    UnknownPrevIsZero = "unknown-prev-is-zero",
    /// The client shows a content again (Q9).
    DedupeMissing = "dedupe-missing",
    /// The client shows a lane as it arrives (Q10).
    LaneOrderBroken = "lane-order-broken",
    /// Nobody finishes a commit whose committer's edge died.
    FanoutForgotten = "fanout-forgotten",
    /// An epoch opens before its commit is in every log.
    EpochOpenEarly = "epoch-open-early",
    /// A taken release mark is not cleared.
    MarkNotCleared = "mark-not-cleared",
    /// A receipt is called stored although the log lacks the checkpoint's own entry.
    StoredWithoutEntry = "stored-without-entry",
    /// The fan-out worker acknowledges a message before what it was spread to is settled.
    FanOutAcknowledgedEarly = "fan-out-acknowledged-early",
}

/// Whether this rule is to be broken now.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn broken(_: Mutant) -> bool {
    false
}

#[cfg(feature = "mutants")]
mod chosen {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::Mutant;

    const NONE: u8 = u8::MAX;
    static CHOSEN: AtomicU8 = AtomicU8::new(NONE);
    static FROM_ENVIRONMENT: OnceLock<()> = OnceLock::new();

    /// Whether this rule is to be broken now: chosen with [`choose`] or by the environment variable `PLI_MUTANT`.
    pub fn broken(mutant: Mutant) -> bool {
        FROM_ENVIRONMENT.get_or_init(|| {
            if let Ok(name) = std::env::var("PLI_MUTANT") {
                let found = Mutant::ALL.iter().copied().find(|m| m.name() == name);
                CHOSEN.store(found.map_or(NONE, |m| m as u8), Ordering::Relaxed);
            }
        });
        CHOSEN.load(Ordering::Relaxed) == mutant as u8
    }

    /// Breaks this rule, or none, from now on in the whole process.
    pub fn choose(mutant: Option<Mutant>) {
        FROM_ENVIRONMENT.get_or_init(|| ());
        CHOSEN.store(mutant.map_or(NONE, |m| m as u8), Ordering::Relaxed);
    }
}
#[cfg(feature = "mutants")]
pub use chosen::{broken, choose};
