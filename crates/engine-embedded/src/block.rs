// SPDX-License-Identifier: MIT OR Apache-2.0
//! The stored form of log entries: all entries of one group and shard in one value.
//!
//! Each entry is its id (16 bytes), the length of its bytes (32 bits, little endian) and the bytes. Sequences are
//! consecutive; the row names the first and the last.

use bytes::Bytes;
use pli_domain::{EntryId, Seq};
use pli_ports::{LogEntry, NewEntry};

const HEADER: usize = 20;

/// A stored block that this engine did not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a log block is damaged")]
pub(crate) struct DamagedBlock;

/// Adds one entry to a block. The caller has checked that the bytes fit 32 bits.
pub(crate) fn encode(entry: &NewEntry, block: &mut Vec<u8>) {
    let len = u32::try_from(entry.bytes.len()).unwrap_or(u32::MAX);
    block.extend_from_slice(entry.id.as_bytes());
    block.extend_from_slice(&len.to_le_bytes());
    block.extend_from_slice(&entry.bytes);
}

/// The entries of a block whose first sequence is `first`, without copying their bytes.
pub(crate) fn decode(first: u64, block: Bytes) -> impl Iterator<Item = Result<LogEntry, DamagedBlock>> {
    let mut rest = block;
    let mut seq = first;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let entry = decode_one(seq, &mut rest);
        if entry.is_err() {
            rest.clear();
        }
        seq += 1;
        Some(entry)
    })
}

fn decode_one(seq: u64, rest: &mut Bytes) -> Result<LogEntry, DamagedBlock> {
    if rest.len() < HEADER {
        return Err(DamagedBlock);
    }
    let header = rest.split_to(HEADER);
    let id = EntryId::try_from(&header[..16]).map_err(|_| DamagedBlock)?;
    let len = <[u8; 4]>::try_from(&header[16..]).map_or(usize::MAX, |len| u32::from_le_bytes(len) as usize);
    if rest.len() < len {
        return Err(DamagedBlock);
    }
    Ok(LogEntry { seq: Seq::new(seq).map_err(|_| DamagedBlock)?, id, bytes: rest.split_to(len) })
}

#[cfg(test)]
mod tests {
    use pli_domain::ShardId;

    use super::*;

    fn entry(id: u8, bytes: &'static [u8]) -> NewEntry {
        NewEntry { shard: ShardId::new(0), id: EntryId::from_bytes([id; 16]), bytes: Bytes::from_static(bytes) }
    }

    #[test]
    fn the_stored_bytes_are_pinned_and_read_back() {
        let mut block = Vec::new();
        encode(&entry(1, b"ab"), &mut block);
        encode(&entry(2, b""), &mut block);
        let mut pinned = vec![1; 16];
        pinned.extend_from_slice(b"\x02\x00\x00\x00ab");
        pinned.extend_from_slice(&[2; 16]);
        pinned.extend_from_slice(b"\x00\x00\x00\x00");
        assert_eq!(block, pinned);
        let read: Vec<_> = decode(7, block.into()).map(|e| e.map(|e| (e.seq.get(), e.bytes))).collect();
        assert_eq!(read, [Ok((7, Bytes::from_static(b"ab"))), Ok((8, Bytes::new()))]);
    }

    #[test]
    fn a_cut_block_is_damaged_and_ends() {
        let mut block = Vec::new();
        encode(&entry(1, b"abc"), &mut block);
        for cut in 1..block.len() {
            let read: Vec<_> = decode(1, Bytes::copy_from_slice(&block[..cut])).collect();
            assert_eq!(read, [Err(DamagedBlock)], "{cut}");
        }
    }
}
