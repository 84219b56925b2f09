// SPDX-License-Identifier: MIT OR Apache-2.0
//! SIGKILL while a commit is decided and brought to everybody: whoever was in the group still gets it, whoever it adds
//! gets in, and so does everything that is said after it.

use std::time::Duration;

use rand::Rng;
use tokio::time::{sleep, timeout};

use super::{Device, Outcome, Place, Stage, change, group_of, members};

/// Commits under a kill: Heidi is added and removed in turn.
const ROUNDS: usize = 8;
/// The kill comes so many milliseconds after the command; by then the commit is being made, decided or fanned out.
const AFTER_MS: std::ops::Range<u64> = 0..120;
/// A restart, a reconnect and a sweep for what was left behind take less.
const COMMIT_WITHIN: Duration = Duration::from_secs(20);
/// Who is always in.
const FOUNDERS: &[&str] = &["alice", "bob", "carol"];
const WITH_HEIDI: &[&str] = &["alice", "bob", "carol", "heidi"];

/// Alice and Bob in turn add or remove Heidi, and the server dies of it. Returns Heidi, who listens: what she would say
/// could be refused for the next removal, and rightly.
pub async fn play(stage: &mut Stage, five: &[Device], outcome: &mut Outcome) -> anyhow::Result<Device> {
    let heidi = stage.enter("heidi").await?;
    heidi.online().await?;
    let mut place = group_of(&five[..FOUNDERS.len()], "guild", FOUNDERS).await?;
    for round in 0..ROUNDS {
        let (adding, by) = (round % 2 == 0, &five[round / 2 % 2]);
        change(by, &place, &heidi, adding).await?;
        sleep(Duration::from_millis(stage.dice.random_range(AFTER_MS))).await;
        let single = stage.server.single()?;
        single.kill().await?;
        single.restart().await?;
        place.people = if adding { WITH_HEIDI } else { FOUNDERS };
        // A lane of its own for each of Heidi's stays: nobody expects of her what was said while she was away.
        place.name = format!("guild{round}");
        let inside: Vec<&Device> = five[..FOUNDERS.len()].iter().chain(adding.then_some(&heidi)).collect();
        let brought = brought(&inside, &place).await;
        // Said even if the commit is missing somewhere, so that the ledger shows what that costs.
        for device in &five[..FOUNDERS.len()] {
            place.say(device, &format!("# after commit {}", round + 1)).await?;
        }
        if brought.is_ok() {
            // What is accepted is Heidi's to see, even if the next commit removes her.
            for device in &five[..FOUNDERS.len()] {
                device.all_accepted().await?;
            }
        }
        outcome.commits_cut += usize::from(stage.server.left_behind().await? > 0);
        if let Err(error) = brought {
            outcome.found = Some(format!("commit {}: {error:#}", round + 1));
            return Ok(heidi);
        }
        outcome.commits_killed += 1;
    }
    let (all, cut) = (outcome.commits_killed, outcome.commits_cut);
    println!("  {all} commits under SIGKILL, {cut} of them between decision and fan-out; everybody has them all");
    Ok(heidi)
}

/// Waits until everybody who is inside sees everybody.
async fn brought(inside: &[&Device], place: &Place) -> anyhow::Result<()> {
    let wanted = place.people.len();
    for device in inside {
        let seen = device.conversation("the commit", |view| view.id == place.id && view.members.len() == wanted);
        let Ok(seen) = timeout(COMMIT_WITHIN, seen).await else {
            let has = members(device, place).await.unwrap_or(0);
            anyhow::bail!("{} sees {has} members instead of {wanted} after {COMMIT_WITHIN:?}", device.name);
        };
        seen?;
    }
    Ok(())
}
