// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the processes of a server used and counted while messages were exchanged.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::server::{Process, Ready, TICK_US, cpu_us, metrics_page, sum_of};
use crate::traffic::{Exchanged, Pace, Pair, exchange};

/// What a session has acknowledged is counted by the owner by then.
const COUNTED_WITHIN: Duration = Duration::from_secs(30);
/// Above so much of all processors, in percent, there was hardly anything left of them.
const BUSY_PERCENT: f64 = 85.0;
/// A pace of which so much went through was kept.
const PACE_KEPT: f64 = 0.9;
/// How often the owners are asked.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The processes that are measured together.
#[derive(Debug, Clone, Default)]
pub struct Target {
    /// Process ids of the server: one, or every role.
    pub roles: Vec<u32>,
    /// Process ids of the database and the log under it; none where they are in the process.
    pub engines: Vec<u32>,
    /// Where the roles tell metrics.
    pub admins: Vec<String>,
}

/// What was used and counted so far, or between two moments.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reading {
    /// CPU of the roles, in microseconds.
    pub roles_cpu_us: f64,
    /// CPU of the engines' processes, in microseconds.
    pub engines_cpu_us: f64,
    /// CPU of this process, which holds the clients, in microseconds.
    pub clients_cpu_us: f64,
    /// CPU of everything on this machine, in microseconds.
    pub machine_cpu_us: f64,
    /// Rows written.
    pub rows: f64,
    /// Bytes of envelopes in them.
    pub row_bytes: f64,
    /// Bytes of the entries that edges appended.
    pub entry_bytes: f64,
    /// Bytes of bodies that lie apart, stored by fan-out workers.
    pub payload_bytes: f64,
    /// Statements sent to the database, repetitions included.
    pub statements: f64,
    /// Entries that edges appended.
    pub entries: f64,
    /// How long edges waited for their appends in all, in seconds.
    pub append_s: f64,
    /// Pairs of device and envelope that an acknowledgement took from the tail or the rows.
    pub acked: f64,
}

impl Target {
    /// One process with everything in it.
    pub fn single(server: &Process, ready: &Ready) -> Self {
        Self { roles: vec![server.id()], engines: Vec::new(), admins: vec![ready.admin.clone()] }
    }

    /// Reads CPU first: what the questions for metrics cost comes after it.
    pub async fn read(&self) -> Result<Reading> {
        let sum = |pids: &[u32]| pids.iter().map(|pid| cpu_us(*pid)).sum::<Result<f64>>();
        let mut reading = Reading {
            roles_cpu_us: sum(&self.roles)?,
            engines_cpu_us: sum(&self.engines)?,
            clients_cpu_us: cpu_us(std::process::id())?,
            machine_cpu_us: machine_cpu_us()?,
            ..Reading::default()
        };
        for admin in &self.admins {
            let page = metrics_page(admin).await?;
            reading.rows += sum_of(&page, "pli_delivery_rows_written_total");
            reading.row_bytes += sum_of(&page, "pli_delivery_row_bytes_written_total");
            reading.entry_bytes += sum_of(&page, "pli_edge_appended_bytes_total");
            reading.payload_bytes += sum_of(&page, "pli_edge_fan_out_payload_bytes_total");
            reading.statements += sum_of(&page, "pli_cql_statements_total");
            reading.entries += sum_of(&page, "pli_edge_entry_envelopes_count");
            reading.append_s += sum_of(&page, "pli_edge_append_seconds_sum");
            reading.acked += sum_of(&page, "pli_delivery_acked_total");
        }
        Ok(reading)
    }

    /// Waits until a counter is there; answers the reading.
    ///
    /// Fails after `patience`, with `what` it waited for.
    pub async fn until(&self, what: &str, patience: Duration, there: impl Fn(&Reading) -> bool) -> Result<Reading> {
        let deadline = Instant::now() + patience;
        loop {
            let reading = self.read().await?;
            if there(&reading) {
                return Ok(reading);
            }
            ensure!(Instant::now() < deadline, "{what} is not so within {patience:?}: {reading:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl Reading {
    /// What came since an earlier reading of the same processes.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            roles_cpu_us: self.roles_cpu_us - earlier.roles_cpu_us,
            engines_cpu_us: self.engines_cpu_us - earlier.engines_cpu_us,
            clients_cpu_us: self.clients_cpu_us - earlier.clients_cpu_us,
            machine_cpu_us: self.machine_cpu_us - earlier.machine_cpu_us,
            rows: self.rows - earlier.rows,
            row_bytes: self.row_bytes - earlier.row_bytes,
            entry_bytes: self.entry_bytes - earlier.entry_bytes,
            payload_bytes: self.payload_bytes - earlier.payload_bytes,
            statements: self.statements - earlier.statements,
            entries: self.entries - earlier.entries,
            append_s: self.append_s - earlier.append_s,
            acked: self.acked - earlier.acked,
        }
    }
}

/// An exchange and what it used.
pub struct Measured {
    /// What the clients saw.
    pub exchanged: Exchanged,
    /// What the server used from the first send until its owners had counted the last acknowledgement.
    pub used: Reading,
    /// How long that was.
    pub lasted: Duration,
    /// How it was sent.
    pub pace: Pace,
}

impl Measured {
    /// A sum of the interval, for one message.
    pub fn each(&self, sum: f64) -> f64 {
        sum / self.exchanged.accepted as f64
    }

    /// Messages a second, from the first send to the last delivery.
    pub fn per_s(&self) -> f64 {
        self.exchanged.accepted as f64 / self.exchanged.lasted.as_secs_f64()
    }

    /// Fails where anything was refused.
    pub fn whole(self) -> Result<Self> {
        let Exchanged { refused, accepted, .. } = self.exchanged;
        ensure!(refused == 0, "{refused} messages were refused, {accepted} accepted: the figure would be of fewer");
        Ok(self)
    }

    /// Who had the processors meanwhile, in percent of all of them, and what bounded the rate: the pace, where it was
    /// kept; else the processors, where hardly anything of them was left; else the wait for `accepted`, of which every
    /// window allows so many at once.
    pub fn bound(&self) -> String {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let all = self.lasted.as_secs_f64() * 1e6 * cores as f64 / 100.0;
        let used = [self.used.roles_cpu_us, self.used.engines_cpu_us, self.used.clients_cpu_us].map(|cpu| cpu / all);
        let busy = self.used.machine_cpu_us / all;
        let ms = self.exchanged.accept_us.value_at_quantile(0.5) as f64 / 1_000.0;
        let what = match self.pace {
            Pace::PerSecond(rate) if self.per_s() > rate * PACE_KEPT => "the pace",
            _ if busy > BUSY_PERCENT => "the processors",
            _ => "the wait for `accepted`",
        };
        let ([roles, engines, clients], others) = (used, (busy - used.iter().sum::<f64>()).max(0.0));
        format!(
            "bounded by {what}: of {cores} processors roles {roles:.0} %, engines {engines:.0} %, clients {clients:.0} \
             %, others {others:.0} %; accepted after {ms:.1} ms (median)"
        )
    }
}

/// CPU of all processes, in microseconds; proc(5), `stat`: user, nice, system, and interrupts, without idle and iowait.
fn machine_cpu_us() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<f64> = fields.map(str::parse).collect::<Result<_, _>>()?;
    ensure!(ticks.len() >= 7, "/proc/stat says less of the processors than Linux does");
    Ok((ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6]) * TICK_US)
}

/// Lets the pairs exchange, and reads what it used until every message that was delivered is acknowledged.
///
/// Fails where something accepted is not delivered, or not acknowledged at its owner, and where nothing was sent.
pub async fn measure(
    target: &Target,
    pairs: Vec<Pair>,
    pace: Pace,
    lasting: Duration,
) -> Result<(Vec<Pair>, Measured)> {
    let before = target.read().await?;
    let begun = Instant::now();
    let (pairs, exchanged) = exchange(pairs, pace, lasting).await?;
    ensure!(exchanged.accepted > 0, "nothing was accepted");
    let wanted = before.acked + exchanged.delivered as f64;
    let what = format!("{} acknowledgements counted", exchanged.delivered);
    let after = target.until(&what, COUNTED_WITHIN, |now| now.acked >= wanted).await?;
    Ok((pairs, Measured { exchanged, used: after.since(&before), lasted: begun.elapsed(), pace }))
}
