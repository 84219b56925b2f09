// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading and counting rows, in parts that bound what is in memory.

use bytes::Bytes;
use pli_domain::{DeviceId, Position, UnixMillis};
use pli_ports::{Page, PageQuery, QueueRow, StoreError, Usage, UsageBound};
use scylla::response::PagingState;

use super::CqlDeviceQueues;
use crate::codec::{millis, pos, position};
use crate::statements::Statement;
use crate::store::{Op, Part};

/// Rows of the first part: 4 MiB of the largest envelopes. Later parts follow from what these weighed.
const FIRST_ROWS: usize = 64;
/// Most rows of one part.
const PART_ROWS_MAX: usize = 2_048;
/// Bytes that a part is meant to have at most.
const PART_BYTES: usize = 4 << 20;

/// removed, pos, expires_at, envelope; a queue without rows has none but `removed`.
type StoredRow = (Option<bool>, Option<i64>, Option<i64>, Option<Bytes>);
/// removed, pos, expires_at, size
type StoredSize = (Option<bool>, Option<i64>, Option<i64>, Option<i32>);

/// How many rows to ask for next.
fn part_rows(seen: usize, bytes: usize, wanted: usize) -> usize {
    let fits = bytes.checked_div(seen).map_or(FIRST_ROWS, |mean| PART_BYTES / mean.max(1));
    fits.clamp(FIRST_ROWS, PART_ROWS_MAX).min(wanted.max(1))
}

impl CqlDeviceQueues {
    /// The bound is the queue's own (20,000 rows): only expired rows are crossed without being answered.
    pub(super) async fn page(&self, query: PageQuery) -> Result<Page, StoreError> {
        const OP: Op = Op("read a page");
        let mut page = Page { rows: Vec::new(), next: query.through };
        let key = (&query.device.as_bytes()[..], pos(query.after), pos(query.through));
        let (mut seen, mut bytes, mut from) = (0, 0, PagingState::start());
        loop {
            // One more than is wanted, so that a page that ends the queue knows it.
            let wanted = query.rows_max.max(1).saturating_sub(page.rows.len()).saturating_add(1);
            let ask = (part_rows(seen, bytes, wanted), from);
            let part: Part<StoredRow> = self.store.part(OP, Statement::ReadRows, key, ask).await?;
            for (removed, at, expires_at, envelope) in part.rows {
                let (Some(at), Some(expires_at), Some(envelope)) = (at, expires_at, envelope) else { continue };
                if removed == Some(true) {
                    return Ok(Page { rows: Vec::new(), next: query.through });
                }
                seen += 1;
                if expires_at <= millis(query.now) {
                    continue;
                }
                let position = position(at).map_err(OP.damaged())?;
                bytes += envelope.len();
                let expires_at = crate::codec::time(expires_at);
                page.rows.push(QueueRow { device: query.device, position, expires_at, envelope });
                if page.rows.len() >= query.rows_max.max(1) || bytes >= query.bytes_max {
                    page.next = position;
                    return Ok(page);
                }
            }
            match part.rest {
                Some(rest) => from = rest,
                None => return Ok(page),
            }
        }
    }

    /// Newest first, up to the bound.
    pub(super) async fn count(
        &self,
        device: DeviceId,
        above: Position,
        bound: UsageBound,
        now: UnixMillis,
    ) -> Result<Usage, StoreError> {
        const OP: Op = Op("count a device's rows");
        let mut usage = Usage { rows: 0, bytes: 0, excess: None };
        let key = (&device.as_bytes()[..], pos(above));
        let mut from = PagingState::start();
        loop {
            let part: Part<StoredSize> = self.store.part(OP, Statement::ReadSizes, key, (PART_ROWS_MAX, from)).await?;
            for (removed, at, expires_at, size) in part.rows {
                let (Some(at), Some(expires_at), Some(size)) = (at, expires_at, size) else { continue };
                if removed == Some(true) {
                    return Ok(Usage { rows: 0, bytes: 0, excess: None });
                }
                if expires_at <= millis(now) {
                    continue;
                }
                usage.rows += 1;
                usage.bytes += usize::try_from(size).unwrap_or(0);
                if usage.rows > bound.rows_max || usage.bytes > bound.bytes_max {
                    usage.excess = Some(position(at).map_err(OP.damaged())?);
                    return Ok(usage);
                }
            }
            match part.rest {
                Some(rest) => from = rest,
                None => return Ok(usage),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_as_large_as_its_rows_let_it_be() {
        assert_eq!(part_rows(0, 0, 10_000), FIRST_ROWS);
        assert_eq!(part_rows(0, 0, 3), 3);
        assert_eq!(part_rows(64, 64 * 100, 10_000), PART_ROWS_MAX);
        assert_eq!(part_rows(64, 64 * 8_192, 10_000), 512);
        assert_eq!(part_rows(64, 64 * 65_536, 10_000), 64);
    }
}
