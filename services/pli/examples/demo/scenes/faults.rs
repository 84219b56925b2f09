// SPDX-License-Identifier: MIT OR Apache-2.0
//! A cluster is broken, one fault after the other, while everybody sends, members come and go, and one device is away
//! every other time.

pub mod breaking;

use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Device, Outcome, Place, Stage, change, group_of, speak};

/// One message of one person after so long.
const PACE: Duration = Duration::from_millis(150);
/// Between two changes of members.
const CHANGE_EVERY: Duration = Duration::from_secs(2);
/// Between two faults, in which things are as they should be.
const CALM: Duration = Duration::from_secs(2);
/// People who are never away.
const PRESENT: usize = 4;

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL of an edge.
    KillEdge,
    /// SIGKILL of a delivery worker.
    KillWorker,
    /// SIGKILL of one NATS server of three.
    KillNats,
    /// SIGKILL of one CQL node of three.
    KillCql,
    /// One CQL node of three stands still nine tenths of the time.
    SlowCql,
    /// SIGSTOP of a delivery worker for longer than its leases live, then SIGCONT.
    Zombie,
    /// SIGKILL of all NATS servers at once.
    AllNats,
    /// SIGKILL of all CQL nodes at once.
    AllCql,
    /// Everything but the database is killed, and the logs lose their end on every replica.
    LoseEnd,
    /// SIGTERM and start of every process, one after the other, from the older protocol between roles to the newest.
    Rolling,
}

impl FromStr for Fault {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|fault| format!("{fault:?}") == name);
        found.ok_or_else(|| format!("no fault is called `{name}`; there are {:?}", Self::ALL))
    }
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::KillEdge,
        Self::KillWorker,
        Self::KillNats,
        Self::KillCql,
        Self::SlowCql,
        Self::Zombie,
        Self::AllNats,
        Self::AllCql,
        Self::LoseEnd,
        Self::Rolling,
    ];

    /// What its figure is called, after `recovery_s_`.
    const fn row(self) -> &'static str {
        match self {
            Self::KillEdge => "edge_killed",
            Self::KillWorker => "owner_killed",
            Self::KillNats => "one_nats_server",
            Self::KillCql => "one_cql_node",
            Self::SlowCql => "slow_cql_node",
            Self::Zombie => "owner_stopped",
            Self::AllNats => "all_nats",
            Self::AllCql => "all_cql",
            Self::LoseEnd => "logs_cut",
            Self::Rolling => "rolling",
        }
    }
}

/// Breaks the cluster in every way of `faults`, in turn.
pub async fn play(
    stage: &mut Stage,
    mut five: Vec<Device>,
    team: &Place,
    (faults, outcome): (&[Fault], &mut Outcome),
) -> anyhow::Result<Vec<Device>> {
    let erin = five.pop().context("nobody is there")?;
    let frank = stage.enter_uncounted("frank").await?;
    frank.online().await?;
    let club = group_of(&five[..3], "club", &["alice", "bob", "carol"]).await?;
    let over = CancellationToken::new();
    let speakers = futures::future::try_join_all(five.iter().map(|device| speak(device, team, PACE, &over)));
    let changes = come_and_go(&five, &frank, &club, &over);
    let breaking = async {
        let broken = break_all(stage, (&five, erin), team, (faults, outcome)).await;
        over.cancel();
        broken
    };
    let (said, changes, erin) = tokio::try_join!(speakers, changes, breaking)?;
    println!("  {} messages and {changes} changes of members meanwhile", said.iter().sum::<usize>());
    outcome.changes = changes;
    frank.close().await?;
    five.push(erin);
    Ok(five)
}

/// Frank is added to the club and removed, again and again; Bob says something after each change.
async fn come_and_go(five: &[Device], frank: &Device, club: &Place, over: &CancellationToken) -> anyhow::Result<usize> {
    let (alice, bob) = (&five[0], &five[1]);
    let mut changes = 0;
    // Frank is out again at the end.
    while !over.is_cancelled() || changes % 2 == 1 {
        let adding = changes % 2 == 0;
        change(alice, club, frank, adding).await?;
        let members = if adding { 4 } else { 3 };
        for device in &five[..3] {
            let what = format!("the club's change {}", changes + 1);
            device.conversation(&what, |view| view.id == club.id && view.members.len() == members).await?;
        }
        changes += 1;
        club.say(bob, &format!("# after change {changes}")).await?;
        sleep(CHANGE_EVERY).await;
    }
    Ok(changes)
}

async fn break_all(
    stage: &mut Stage,
    (present, mut erin): (&[Device], Device),
    team: &Place,
    (faults, outcome): (&[Fault], &mut Outcome),
) -> anyhow::Result<Device> {
    anyhow::ensure!(present.len() == PRESENT, "somebody is missing");
    for (number, &fault) in faults.iter().enumerate() {
        sleep(CALM).await;
        let before: usize = present.iter().map(|device| device.heard().resent).sum();
        let away = number % 2 == 0;
        let here = if away { leave(erin).await.map(|()| None)? } else { Some(erin) };
        let recoveries = breaking::play(stage, present, fault).await.with_context(|| format!("{fault:?}"))?;
        outcome.recoveries.extend(recoveries);
        erin = match here {
            Some(erin) => erin,
            None => come_back(stage, team).await?,
        };
        let after: usize = present.iter().map(|device| device.heard().resent).sum();
        if fault == Fault::LoseEnd {
            outcome.resent += after - before;
        }
        outcome.faults.push(fault);
    }
    Ok(erin)
}

async fn leave(erin: Device) -> anyhow::Result<()> {
    erin.all_stored().await?;
    erin.close().await
}

async fn come_back(stage: &Stage, team: &Place) -> anyhow::Result<Device> {
    let erin = stage.enter("erin").await?;
    erin.online().await?;
    team.say(&erin, "# back").await?;
    Ok(erin)
}
