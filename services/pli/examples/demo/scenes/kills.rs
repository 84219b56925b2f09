// SPDX-License-Identifier: MIT OR Apache-2.0
//! SIGKILL at random moments while everybody sends.

use std::time::{Duration, Instant};

use rand::Rng;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Device, Outcome, Place, Stage, speak};

/// More kills than this without enough that count is a failure.
const TRIES: usize = 12;
/// Kills beyond those that must count.
const EXTRA: usize = 1;
/// A kill comes after this many milliseconds of sending.
const AFTER_MS: std::ops::Range<u64> = 400..2_500;
/// One message of one person after so long.
const PACE: Duration = Duration::from_millis(12);

/// Everybody sends to the group until enough kills have counted.
pub async fn play(
    stage: &mut Stage,
    five: &[Device],
    team: &Place,
    (kills, outcome): (usize, &mut Outcome),
) -> anyhow::Result<()> {
    let enough = CancellationToken::new();
    let speakers = futures::future::try_join_all(five.iter().map(|device| speak(device, team, PACE, &enough)));
    let killer = async {
        let killed = kill(stage, five, (kills, outcome)).await;
        enough.cancel();
        killed
    };
    let (said, ()) = tokio::try_join!(speakers, killer)?;
    println!("  {} messages were sent meanwhile", said.iter().sum::<usize>());
    anyhow::ensure!(outcome.kills_counted >= kills, "only {} kills counted", outcome.kills_counted);
    Ok(())
}

async fn kill(stage: &mut Stage, five: &[Device], (kills, outcome): (usize, &mut Outcome)) -> anyhow::Result<()> {
    let begun = Instant::now();
    while outcome.kills_counted < kills + EXTRA && outcome.kills < TRIES {
        sleep(Duration::from_millis(stage.dice.random_range(AFTER_MS))).await;
        let at = begun.elapsed();
        stage.server.single()?.kill().await?;
        outcome.kills += 1;
        for device in five {
            device.wait("noticing the kill", |heard| !heard.online).await?;
        }
        // What they have heard by now is all that the killed server said.
        let unsettled: usize = five.iter().map(|device| device.heard().unsettled).sum();
        outcome.kills_counted += usize::from(unsettled > 0);
        let single = stage.server.single()?;
        single.restart().await?;
        let (at, took) = (at.as_secs_f64(), single.took.as_millis());
        let counts = if unsettled > 0 { "counts" } else { "does not count" };
        println!(
            "  SIGKILL at {at:.2} s with {unsettled} accepted and unsettled: {counts}; ready again after {took} ms"
        );
        for device in five {
            device.online().await?;
        }
    }
    Ok(())
}
