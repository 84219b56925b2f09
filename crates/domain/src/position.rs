// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where an envelope stands in its shard log. The position is also its key in the device queue.

use std::fmt;

use crate::EntryId;

const SEQ_BITS: u32 = 40;
const INDEX_BITS: u32 = 10;
const EPOCH_BITS: u32 = 13;

/// A log epoch or sequence that does not fit a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value} does not fit in {bits} bits; begin a new shard log")]
pub struct PositionOverflow {
    what: &'static str,
    value: u64,
    bits: u32,
}

/// Distinguishes incarnations of a shard log. 13 bits; an alarm is due at [`LogEpoch::ALARM`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LogEpoch(u16);

impl LogEpoch {
    /// The epoch of a shard that was never opened; no position lies in it.
    pub const NONE: Self = Self(0);
    /// The highest log epoch.
    pub const MAX: Self = Self((1 << EPOCH_BITS) - 1);
    /// From here on operators are alarmed: a shard log must be replaced before the epochs run out.
    pub const ALARM: Self = Self(8_000);

    /// Errors when `value` needs more than 13 bits.
    pub const fn new(value: u64) -> Result<Self, PositionOverflow> {
        if value > Self::MAX.0 as u64 {
            return Err(PositionOverflow { what: "log epoch", value, bits: EPOCH_BITS });
        }
        Ok(Self(value as u16))
    }
    /// The number itself.
    pub const fn get(self) -> u64 {
        self.0 as u64
    }
    /// The epoch after this one; errors when there is none.
    pub const fn next(self) -> Result<Self, PositionOverflow> {
        Self::new(self.0 as u64 + 1)
    }
}

/// Sequence of an entry in its shard log. Strictly increasing, not dense (streams hold many shards). 40 bits;
/// 0 is before the first entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Seq(u64);

impl Seq {
    /// Before the first entry.
    pub const ZERO: Self = Self(0);
    /// The highest sequence.
    pub const MAX: Self = Self((1 << SEQ_BITS) - 1);
    /// From here on operators are alarmed.
    pub const ALARM: Self = Self(1 << (SEQ_BITS - 1));

    /// Errors when `value` needs more than 40 bits.
    pub const fn new(value: u64) -> Result<Self, PositionOverflow> {
        if value > Self::MAX.0 {
            return Err(PositionOverflow { what: "log sequence", value, bits: SEQ_BITS });
        }
        Ok(Self(value))
    }
    /// The number itself.
    pub const fn get(self) -> u64 {
        self.0
    }
    /// The sequence after this one; saturates at [`Seq::MAX`], which no append reaches.
    pub const fn next(self) -> Self {
        if self.0 < Self::MAX.0 { Self(self.0 + 1) } else { self }
    }
    /// The sequence before this one; [`Seq::ZERO`] has none and stays.
    pub const fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// log epoch (13 bits) · log sequence (40 bits) · index in the entry (10 bits). Never derived from a clock,
/// never used twice. Fits a signed 64-bit integer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u64);

impl Position {
    /// Before everything: what a device that has committed nothing names.
    pub const ZERO: Self = Self(0);
    /// After everything.
    pub const MAX: Self = Self((1 << (EPOCH_BITS + SEQ_BITS + INDEX_BITS)) - 1);
    /// Index at which a checkpoint stands: the end of its entry.
    pub const INDEX_END: u16 = (1 << INDEX_BITS) - 1;

    /// The position of the envelope at `index` of entry `seq`. An index above [`Self::INDEX_END`] counts as it; entries are
    /// smaller ([`crate::limits::ENTRY_ENVELOPES_MAX`]).
    pub const fn new(epoch: LogEpoch, seq: Seq, index: u16) -> Self {
        let index = if index > Self::INDEX_END { Self::INDEX_END } else { index };
        Self((epoch.get() << (SEQ_BITS + INDEX_BITS)) | (seq.get() << INDEX_BITS) | index as u64)
    }
    /// The end of entry `seq`: where a checkpoint may stand.
    pub const fn end_of(epoch: LogEpoch, seq: Seq) -> Self {
        Self::new(epoch, seq, Self::INDEX_END)
    }
    /// From its wire or stored form; errors when the top bit is set.
    pub const fn from_u64(value: u64) -> Result<Self, PositionOverflow> {
        if value > Self::MAX.0 {
            return Err(PositionOverflow { what: "position", value, bits: EPOCH_BITS + SEQ_BITS + INDEX_BITS });
        }
        Ok(Self(value))
    }
    /// Its wire and stored form.
    pub const fn get(self) -> u64 {
        self.0
    }
    /// The log epoch in its high bits.
    pub const fn epoch(self) -> LogEpoch {
        LogEpoch((self.0 >> (SEQ_BITS + INDEX_BITS)) as u16)
    }
    /// The sequence of its entry.
    pub const fn seq(self) -> Seq {
        Seq((self.0 >> INDEX_BITS) & Seq::MAX.0)
    }
    /// Its index within the entry.
    pub const fn index(self) -> u16 {
        (self.0 & Self::INDEX_END as u64) as u16
    }
    /// The next representable position: the exclusive lower bound of a read made inclusive.
    pub const fn next(self) -> Self {
        if self.0 < Self::MAX.0 { Self(self.0 + 1) } else { self }
    }
    /// The position just before; [`Position::ZERO`] stays.
    pub const fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.epoch().get(), self.seq().get(), self.index())
    }
}
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// An entry as the log knows it: sequence and the id its appender gave it. A log that lost its end and grew
/// again has another id at the same sequence.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EntryRef {
    /// Its sequence.
    pub seq: Seq,
    /// Its id.
    pub id: EntryId,
}

/// Up to here nothing depends on the log any more. Position and entry id are one value of a max-register:
/// the larger position wins, the larger id breaks a tie.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Checkpoint {
    /// The end of an entry ([`Position::INDEX_END`]), or [`Position::ZERO`].
    pub position: Position,
    /// The id of that entry; none when it stands before the first retained entry, and then is not checked.
    pub entry: Option<EntryId>,
}

impl Checkpoint {
    /// Of a shard in which nothing was settled yet.
    pub const ZERO: Self = Self { position: Position::ZERO, entry: None };
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bits_are_pinned() {
        let epoch = LogEpoch::new(1).expect("fits");
        let seq = Seq::new(2).expect("fits");
        assert_eq!(Position::new(epoch, seq, 3).get(), (1 << 50) | (2 << 10) | 3);
        assert_eq!(Position::end_of(epoch, seq).get() & 1023, 1023);
        assert!(i64::try_from(Position::MAX.get()).is_ok());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(LogEpoch::new(8_192).is_err());
        assert!(LogEpoch::MAX.next().is_err());
        assert!(Seq::new(1 << 40).is_err());
        assert!(Position::from_u64(1 << 63).is_err());
    }

    proptest! {
        #[test]
        fn order_is_epoch_then_sequence_then_index(a in (0u64..8192, 0u64..1 << 40, 0u16..1024), b in (0u64..8192, 0u64..1 << 40, 0u16..1024)) {
            let make = |(e, s, i): (u64, u64, u16)| Position::new(LogEpoch::new(e).expect("fits"), Seq::new(s).expect("fits"), i);
            prop_assert_eq!(make(a).cmp(&make(b)), a.cmp(&b));
            let p = make(a);
            prop_assert_eq!((p.epoch().get(), p.seq().get(), p.index()), a);
        }
    }
}
