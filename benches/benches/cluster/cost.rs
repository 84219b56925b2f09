// SPDX-License-Identifier: MIT OR Apache-2.0
//! CPU of a message over all processes, beside the same measurement on one process with the embedded engine.

use anyhow::{Context, Result};
use pli_benches::traffic::{Friends, Pace, exchange};
use pli_benches::{Limit, LimitError, Row, Target, measure_limit, start_server};

use crate::bench::Bench;

/// Sends that each sender keeps in flight, as for `ws_message_cpu_us`.
const PACE: Pace = Pace::Window(16);

/// Both ratios and what they are made of.
pub fn measure(bench: &mut Bench) -> Result<()> {
    let embedded = embedded(bench)?;
    let pairs = bench.connect(bench.form.pairs)?;
    let (_, measured) = bench.run(pairs, PACE)?;
    let roles = measured.each(measured.used.roles_cpu_us);
    let all = measured.each(measured.used.roles_cpu_us + measured.used.engines_cpu_us);
    let embedded_us = match &embedded {
        Ok(limit) => limit.value,
        // The median of runs that scatter: good enough to prove that the rows are written.
        Err(LimitError::Scatters { runs, .. }) if bench.form.small => runs[runs.len() / 2],
        Err(_) => return embedded.map(|_| ()).context("the embedded engine's message"),
    };
    bench.add_limited(("cluster_message_cpu_us", "us"), roles, embedded)?;
    bench.add_limited(("cluster_message_cpu_us_all", "us"), all, Ok(limit(embedded_us)))?;
    bench.summary.add(Row::plain("cluster_message_cpu_ratio", roles / embedded_us, "ratio"));
    bench.summary.add(Row::plain("cluster_message_cpu_ratio_all", all / embedded_us, "ratio"));
    Ok(())
}

fn limit(value: f64) -> Limit {
    Limit { name: NAME.into(), value }
}

const NAME: &str = "CPU of a message in one process with the embedded engine";

/// Five runs on a server of its own, with as many pairs and the same pace.
fn embedded(bench: &Bench) -> Result<Result<Limit, LimitError>> {
    let folder = bench.folder.path().join("embedded");
    let (server, ready) = start_server(&folder)?;
    let (target, edges) = (Target::single(&server, &ready), [ready]);
    let pairs = bench.runtime.block_on(async {
        let mut pairs = Vec::new();
        for n in 0..bench.form.pairs {
            pairs.push(Friends::meet(&edges, n).await?.connect(&edges, n, 1).await?);
        }
        anyhow::Ok(exchange(pairs, PACE, bench.form.warm).await?.0)
    })?;
    let mut idle = Some(pairs);
    Ok(measure_limit(NAME, || {
        let pairs = idle.take().context("an earlier run failed")?;
        let measured = bench.runtime.block_on(pli_benches::measure(&target, pairs, PACE, bench.form.limit));
        let (pairs, measured) = measured?;
        idle = Some(pairs);
        let measured = measured.whole()?;
        println!("  in one process: {:.0} messages/s; {}", measured.per_s(), measured.bound());
        anyhow::Ok(measured.each(measured.used.roles_cpu_us))
    }))
}
