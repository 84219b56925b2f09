// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long a sender waits for `accepted`, beside bare appends to the same stream with as many in flight.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use async_nats::jetstream::{self, message::PublishMessage};
use bytes::Bytes;
use futures::future::try_join_all;
use hdrhistogram::Histogram;
use pli_api::log::{Class, Entry, Item};
use pli_benches::measure_limit;
use pli_benches::traffic::{BYTES, Pace, histogram, record};
use prost::Message;

use crate::bench::Bench;

/// Messages in flight, one of each sender: so few that entries of one message are what is compared.
const IN_FLIGHT: usize = 8;
/// Bytes of an envelope besides its body, as they are in this measurement: ids, epoch, times.
const ENVELOPE_OVERHEAD: usize = 96;
/// A shard log like any other. What is appended there is for no device, so its owner reads it and settles it.
const SUBJECT: &str = "pli.log.0";

/// Median and 99th percentile.
pub fn measure(bench: &mut Bench) -> Result<()> {
    let pairs = bench.connect(IN_FLIGHT.min(bench.form.pairs))?;
    let (_, measured) = bench.run(pairs, Pace::Window(1))?;
    let append_ms = measured.used.append_s / measured.used.entries * 1_000.0;
    let entries = measured.each(measured.used.entries);
    println!("  {entries:.2} log entries for each message; the edge waited {append_ms:.1} ms for one (mean)");
    for (name, quantile) in [("cluster_accept_p50_ms", 0.5), ("cluster_accept_p99_ms", 0.99)] {
        let ms = |histogram: &Histogram<u64>| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
        let limit = measure_limit(&format!("a bare append to the stream, {IN_FLIGHT} in flight"), || {
            bench.runtime.block_on(appends(bench)).map(|took| ms(&took))
        });
        bench.add_limited((name, "ms"), ms(&measured.exchanged.accept_us), limit)?;
    }
    Ok(())
}

/// How long bare appends of one message's bytes took, for the time of one run of a limit.
async fn appends(bench: &Bench) -> Result<Histogram<u64>> {
    let client = async_nats::connect(bench.cluster.nats_addresses()).await.context("NATS is there")?;
    let (context, end) = (jetstream::new(client), Instant::now() + bench.form.limit);
    let one = |task: usize| {
        let context = context.clone();
        tokio::spawn(async move {
            let (mut took, bytes) = (histogram()?, entry());
            for n in 0_u64.. {
                let begun = Instant::now();
                if begun >= end {
                    break;
                }
                // No two runs may use one: the stream would take the second for a repetition.
                let id =
                    format!("0-{:016x}{task:08x}{n:08x}", SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos());
                let message = PublishMessage::build().payload(bytes.clone()).message_id(id);
                context.send_publish(SUBJECT, message).await?.await?;
                record(&mut took, begun.elapsed());
            }
            anyhow::Ok(took)
        })
    };
    let mut all = histogram()?;
    for took in try_join_all((0..IN_FLIGHT).map(one)).await? {
        all.add(took?)?;
    }
    Ok(all)
}

/// An entry as long as that of one message, for nobody.
fn entry() -> Bytes {
    let envelope = Bytes::from(vec![0xC3; BYTES + ENVELOPE_OVERHEAD]);
    let item = Item { devices: Vec::new(), expires_at_ms: 0, class: Class::Message.into(), envelope };
    Entry { items: vec![item], origin: Bytes::new() }.encode_to_vec().into()
}
