// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rows and statements of the database for a message, where 95 % of the devices acknowledge at once and the others are
//! away.

use std::time::Duration;

use anyhow::{Result, ensure};
use pli_benches::Row;
use pli_benches::traffic::{Pace, exchange};

use crate::bench::Bench;

/// Sends that each sender keeps in flight.
const PACE: Pace = Pace::Window(16);
/// After `spill_after` the rows are written so soon.
const WRITTEN_WITHIN: Duration = Duration::from_secs(60);

/// Everything that the messages cause counts: the rows of those who are away too, which are written later.
pub fn measure(bench: &mut Bench) -> Result<()> {
    let form = bench.form;
    let pairs = bench.connect(form.pairs - form.away)?;
    let pairs = bench.warm(pairs, PACE)?;
    let away = bench.connect_away()?;
    let target = bench.target();
    let measured = bench.runtime.block_on(async {
        let before = target.read().await?;
        let (_, exchanged) = exchange(pairs.into_iter().chain(away).collect(), PACE, form.measured).await?;
        ensure!(exchanged.refused == 0, "{} messages were refused", exchanged.refused);
        let unread = (exchanged.accepted - exchanged.delivered) as f64;
        ensure!(unread > 0.0, "nobody was away");
        let wanted = (before.acked + exchanged.delivered as f64, before.rows + unread);
        let what = format!("{} acknowledgements and {unread} rows", exchanged.delivered);
        let there = |now: &pli_benches::Reading| now.acked >= wanted.0 && now.rows >= wanted.1;
        let after = target.until(&what, form.spill_after + WRITTEN_WITHIN, there).await?;
        anyhow::Ok((exchanged, after.since(&before)))
    })?;
    let (exchanged, used) = measured;
    let accepted = exchanged.accepted as f64;
    let unread = exchanged.accepted - exchanged.delivered;
    println!("  {:.1} % of {accepted} messages were to devices that are away", unread as f64 / accepted * 100.0);
    bench.summary.add(Row::plain("cluster_rows_per_message", used.rows / accepted, "rows"));
    bench.summary.add(Row::plain("cluster_cql_statements_per_message", used.statements / accepted, "statements"));
    Ok(())
}
