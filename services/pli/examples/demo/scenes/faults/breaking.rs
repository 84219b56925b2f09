// SPDX-License-Identifier: MIT OR Apache-2.0
//! One fault: what is done to the cluster, and how long clients notice it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context;
use pli_testkit::cluster::{Cluster, Role};
use pli_testkit::engines::nats::Down;
use rand::Rng;
use tokio::time::{sleep, timeout};

use super::{Device, Fault, Stage};

/// How often it is looked whether everybody hears and sees again.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What is lost from the logs was written in this time.
const LOST: Duration = Duration::from_secs(3);
/// How long a slow replica stays slow; rows are written several times meanwhile.
const SLOW: Duration = Duration::from_secs(10);

/// What was done, and after how long the last client had heard `accepted` for, and been shown, something meant after it.
pub type Recoveries = BTreeMap<String, Duration>;

/// Breaks and mends; fails where not everybody hears and sees something new in time.
pub async fn play(stage: &mut Stage, present: &[Device], fault: Fault) -> anyhow::Result<Recoveries> {
    let recovery = match fault {
        Fault::Zombie => return zombie(stage, present).await,
        Fault::Rolling => return rolling(stage, present).await,
        _ => play_one(stage, present, fault).await?,
    };
    Ok(Recoveries::from([(fault.row().to_owned(), recovery)]))
}

/// A fault after which there is one thing to wait for.
async fn play_one(stage: &mut Stage, present: &[Device], fault: Fault) -> anyhow::Result<Duration> {
    match fault {
        Fault::KillEdge => {
            let name = one_of(stage, Role::Edge)?;
            kill(stage, present, &name).await
        }
        Fault::KillWorker => {
            let name = stage.server.apart()?.busiest_worker().await?;
            kill(stage, present, &name).await
        }
        Fault::KillNats => {
            let server = pick(stage, |cluster| cluster.nats().names().len())?;
            struck(stage)?.nats().down(server, Down::Killed);
            let recovery = again(stage, present, &format!("SIGKILL of NATS server {}", server + 1)).await?;
            stage.server.apart()?.cluster.nats().up(server).await?;
            Ok(recovery)
        }
        Fault::KillCql => {
            let node = pick(stage, |cluster| cluster.cql().contact_points().len())?;
            struck(stage)?.cql().kill(node);
            let recovery = again(stage, present, &format!("SIGKILL of CQL node {}", node + 1)).await?;
            stage.server.apart()?.cluster.cql().resume(node).await?;
            Ok(recovery)
        }
        Fault::SlowCql => slow_cql(stage, present).await,
        Fault::AllNats => {
            let cluster = struck(stage)?;
            cluster.nats().all_down(Down::Killed);
            let begun = Instant::now();
            cluster.nats().start_all().await?;
            let back = begun.elapsed().as_secs_f64();
            again(stage, present, &format!("SIGKILL of all NATS servers, ready again after {back:.1} s")).await
        }
        Fault::AllCql => {
            let cluster = struck(stage)?;
            cluster.cql().kill_all();
            let begun = Instant::now();
            cluster.cql().resume_all().await?;
            let back = begun.elapsed().as_secs_f64();
            again(stage, present, &format!("SIGKILL of all CQL nodes, ready again after {back:.1} s")).await
        }
        Fault::LoseEnd => lose_end(stage, present).await,
        Fault::Zombie | Fault::Rolling => anyhow::bail!("{fault:?} is more than one thing to wait for"),
    }
}

/// The cluster; what is meant from now on is watched.
fn struck(stage: &mut Stage) -> anyhow::Result<&mut Cluster> {
    stage.ledger.begin_pulse();
    Ok(&mut stage.server.apart()?.cluster)
}

fn pick(stage: &mut Stage, count: impl Fn(&mut Cluster) -> usize) -> anyhow::Result<usize> {
    let count = count(&mut stage.server.apart()?.cluster);
    Ok(stage.dice.random_range(0..count))
}

fn one_of(stage: &mut Stage, role: Role) -> anyhow::Result<String> {
    let chosen = pick(stage, |cluster| cluster.names(Some(role)).len())?;
    Ok(stage.server.apart()?.cluster.names(Some(role)).swap_remove(chosen))
}

/// Waits until everybody hears and sees something that was meant after the fault; says and answers how long it took.
async fn again(stage: &Stage, present: &[Device], what: &str) -> anyhow::Result<Duration> {
    let names: Vec<&str> = present.iter().map(|device| device.name.as_str()).collect();
    let whole = async {
        while !stage.ledger.pulse().is_whole(&names) {
            sleep(LOOK_EVERY).await;
        }
    };
    let in_time = timeout(stage.patience, whole).await.is_ok();
    let pulse = stage.ledger.pulse();
    anyhow::ensure!(in_time, "{what}: not everybody hears and sees again after {:?}: {pulse:?}", stage.patience);
    println!("  {what}: {pulse}");
    Ok(pulse.slowest())
}

/// The others go on without it; then it comes back.
async fn kill(stage: &mut Stage, present: &[Device], name: &str) -> anyhow::Result<Duration> {
    struck(stage)?.kill(name)?;
    let recovery = again(stage, present, &format!("SIGKILL of {name}")).await?;
    stage.server.apart()?.cluster.restart(name).await?;
    Ok(recovery)
}

/// A replica answers late for a while; the slower of two looks meanwhile counts.
async fn slow_cql(stage: &mut Stage, present: &[Device]) -> anyhow::Result<Duration> {
    let node = pick(stage, |cluster| cluster.cql().contact_points().len())?;
    let slowed = struck(stage)?.cql().slow(node).context("the node is down")?;
    let over = sleep(SLOW);
    let begun = again(stage, present, &format!("CQL node {} stands still nine tenths of the time", node + 1)).await?;
    over.await;
    struck(stage)?;
    let later = again(stage, present, &format!("it has been slow for {} s", SLOW.as_secs())).await?;
    drop(slowed);
    Ok(begun.max(later))
}

/// Every process is ended in order and started again; for each role the slowest counts.
async fn rolling(stage: &mut Stage, present: &[Device]) -> anyhow::Result<Recoveries> {
    let mut recoveries = Recoveries::new();
    for role in Role::ALL {
        for name in stage.server.apart()?.cluster.names(Some(role)) {
            let cluster = struck(stage)?;
            cluster.end(&name).await?;
            cluster.speak_newest(&name)?;
            cluster.restart(&name).await?;
            let what = format!("SIGTERM of {name} and a new start, in the newest protocol");
            let recovery = again(stage, present, &what).await?;
            let slowest = recoveries.entry(format!("{}_{role}", Fault::Rolling.row())).or_default();
            *slowest = recovery.max(*slowest);
        }
    }
    Ok(recoveries)
}

async fn zombie(stage: &mut Stage, present: &[Device]) -> anyhow::Result<Recoveries> {
    let name = stage.server.apart()?.busiest_worker().await?;
    struck(stage)?.pause(&name)?;
    let over = sleep(stage.server.apart()?.lease_over());
    let stopped = again(stage, present, &format!("SIGSTOP of {name}")).await?;
    over.await;
    struck(stage)?.go_on(&name)?;
    let goes_on = again(stage, present, &format!("SIGCONT of {name}, whose leases others have")).await?;
    Ok(Recoveries::from([(Fault::Zombie.row().into(), stopped), ("owner_goes_on".into(), goes_on)]))
}

async fn lose_end(stage: &mut Stage, present: &[Device]) -> anyhow::Result<Duration> {
    struck(stage)?.keep_logs().await?;
    again(stage, present, "SIGKILL of all NATS servers, whose files are copied").await?;
    sleep(LOST).await;
    let unsettled: usize = present.iter().map(|device| device.heard().unsettled).sum();
    let cluster = struck(stage)?;
    cluster.lose_end_of_logs().await?;
    let what = format!("SIGKILL of everything but the database, every log without its end ({unsettled} unsettled)");
    again(stage, present, &what).await
}
