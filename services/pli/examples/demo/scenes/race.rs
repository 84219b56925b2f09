// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two members commit to the same epoch at once, again and again: one wins, the other follows.

use super::{Device, Outcome, Stage, change, group_of, members};

/// So many races for each one that must collide; more are a failure.
const TRIES_EACH: usize = 3;

/// Alice and Bob each add or remove somebody at the same time; Carol watches. Frank and Grace come and go, so what they
/// see is not counted.
pub async fn play(stage: &Stage, five: &[Device], (races, outcome): (usize, &mut Outcome)) -> anyhow::Result<()> {
    let (frank, grace) = (stage.enter_uncounted("frank").await?, stage.enter_uncounted("grace").await?);
    frank.online().await?;
    grace.online().await?;
    let place = group_of(&five[..3], "circle", &["alice", "bob", "carol"]).await?;
    let (alice, bob) = (&five[0], &five[1]);
    let mut tries = 0;
    let most = races * TRIES_EACH;
    while outcome.races < races {
        tries += 1;
        anyhow::ensure!(tries <= most, "only {} of {most} races collided", outcome.races);
        let adding = tries % 2 == 1;
        let before = counted(stage).await?;
        let begins = members(alice, &place).await?;
        tokio::try_join!(change(alice, &place, &frank, adding), change(bob, &place, &grace, adding))?;
        let wanted = if adding { begins + 2 } else { begins - 2 };
        for device in &five[..3] {
            device.conversation("both changes", |view| view.id == place.id && view.members.len() == wanted).await?;
        }
        let collided = collided(before, counted(stage).await?)?;
        outcome.races += usize::from(collided);
        place.say(if adding { alice } else { bob }, &format!("# after race {tries}")).await?;
    }
    println!("  {tries} races, {} of them for the same epoch; both changes in place after each", outcome.races);
    frank.close().await?;
    grace.close().await
}

/// Commits that won and that lost, as the server counts them.
async fn counted(stage: &Stage) -> anyhow::Result<(u64, u64)> {
    Ok((stage.server.commits("won").await?, stage.server.commits("lost").await?))
}

/// Whether both offered the same epoch: nobody else commits here, and a commit is lost only to one of its own epoch that
/// came first. Either way both changes win once each.
fn collided(before: (u64, u64), after: (u64, u64)) -> anyhow::Result<bool> {
    let (won, lost) = (after.0 - before.0, after.1 - before.1);
    anyhow::ensure!(won == 2, "{won} commits won a race of two changes, {lost} lost");
    Ok(lost > 0)
}
