// SPDX-License-Identifier: MIT OR Apache-2.0
//! How many messages share a log entry: at a slow rate, a middle one, and the highest that is held.

use std::time::Duration;

use anyhow::{Context, Result};
use pli_benches::traffic::Pace;
use pli_benches::{Measured, Row};

use crate::bench::Bench;

/// Tried in turn, as parts of what goes through when every sender keeps some in flight.
const PARTS: [f64; 7] = [0.95, 0.85, 0.75, 0.6, 0.45, 0.3, 0.15];
/// A rate is held if 99 of 100 messages are accepted so soon after they were due, …
const ACCEPTED_WITHIN: Duration = Duration::from_secs(1);
/// … and the last one is delivered so soon after the end.
const DELIVERED_WITHIN: Duration = Duration::from_secs(2);
/// Sends in flight of each sender while it is looked how much goes through.
const WINDOW: usize = 16;

/// Entries per message at three rates, and the highest of them.
pub fn measure(bench: &mut Bench) -> Result<()> {
    for (rate, name) in bench.form.rates.into_iter().zip(["10", "300"]) {
        let pairs = bench.connect(bench.form.pairs)?;
        let before = bench.statements()?;
        let (_, measured) = bench.run(pairs, Pace::PerSecond(rate))?;
        for ((role, before), (_, after)) in before.into_iter().zip(bench.statements()?) {
            let seconds = (bench.form.warm + measured.lasted).as_secs_f64();
            println!("  {role}: {:.1} statements/s", (after - before) / seconds);
        }
        let entries = measured.each(measured.used.entries);
        bench.summary.add(Row::plain(&format!("cluster_log_entries_per_message_{name}"), entries, "entries"));
        if name == "300" {
            let statements = measured.each(measured.used.statements);
            bench.summary.add(Row::plain("cluster_cql_statements_per_message_300", statements, "statements"));
        }
    }
    let measured = highest(bench)?;
    let entries = measured.each(measured.used.entries);
    bench.summary.add(Row::plain("cluster_log_entries_per_message_max", entries, "entries"));
    bench.summary.add(Row::plain("cluster_rate_held_per_s", measured.per_s(), "1/s"));
    Ok(())
}

/// The highest rate of some that is held for the form's time.
fn highest(bench: &mut Bench) -> Result<Measured> {
    let pairs = bench.connect(bench.form.pairs)?;
    let window = Pace::Window(WINDOW);
    let pairs = bench.warm(pairs, window)?;
    let (mut pairs, most) = bench.measure(pairs, window, bench.form.warm)?;
    for part in PARTS {
        let pace = Pace::PerSecond(most.per_s() * part);
        let (open, measured) = bench.measure(pairs, pace, bench.form.held)?;
        pairs = open;
        match why_not_held(&measured, bench.form.held) {
            None => return Ok(measured),
            Some(why) => println!("  not held: {why}"),
        }
    }
    Err(anyhow::anyhow!("not even {:.0} messages/s", most.per_s() * PARTS[PARTS.len() - 1]))
        .context("no rate was held; measure on a quiet machine")
}

fn why_not_held(measured: &Measured, held: Duration) -> Option<String> {
    let exchanged = &measured.exchanged;
    let slow = Duration::from_micros(exchanged.accept_us.value_at_quantile(0.99));
    let late = exchanged.lasted.saturating_sub(held);
    if exchanged.refused > 0 {
        Some(format!("{} messages were refused", exchanged.refused))
    } else if slow > ACCEPTED_WITHIN {
        Some(format!("1 % were accepted only {slow:?} after they were due"))
    } else if late > DELIVERED_WITHIN {
        Some(format!("the last one was delivered {late:?} after the end"))
    } else {
        None
    }
}
