// SPDX-License-Identifier: MIT OR Apache-2.0
//! The script.

mod kills;
mod race;

use std::fmt;
use std::time::Instant;

use pli_client::core::Command;
use pli_domain::ConversationId;

use crate::device::Device;
use crate::stage::Stage;

/// Messages that queue while Bob is away.
const QUEUED: usize = 1_000;
/// Kills that must count.
const KILLS: usize = 3;
/// Races for one epoch.
const RACES: usize = 50;

/// What the script did besides sending.
#[derive(Debug, Default)]
pub struct Outcome {
    kills: usize,
    kills_counted: usize,
    races: usize,
}

impl Outcome {
    /// Whether everything was played.
    pub const fn is_whole(&self) -> bool {
        self.kills_counted >= KILLS && self.races >= RACES
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kills, kills_counted, races } = self;
        write!(
            f,
            "{kills} kills, {kills_counted} of them with accepted, unsettled messages; {races} races in which two commits met at one epoch"
        )
    }
}

/// Where a scene speaks: the conversation, its name in the ledger, who is in it.
pub struct Place {
    id: ConversationId,
    name: &'static str,
    people: &'static [&'static str],
}

impl Place {
    /// Everybody but the speaker.
    fn others(&self, speaker: &str) -> Vec<&'static str> {
        self.people.iter().copied().filter(|name| *name != speaker).collect()
    }

    /// Says something there.
    pub async fn say(&self, speaker: &Device, words: &str) -> anyhow::Result<()> {
        speaker.say((self.id, self.name), &self.others(&speaker.name), words).await
    }
}

/// Plays every scene.
pub async fn play(stage: &mut Stage) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut five = Vec::new();
    for name in ["alice", "bob", "carol", "dave", "erin"] {
        let device = stage.enter(name).await?;
        device.online().await?;
        five.push(device);
    }
    println!("\n== alice and bob talk");
    let two = talk(&five[0], &five[1]).await?;
    println!("\n== a group of five");
    let team = group(&five).await?;
    println!("\n== bob is away while {QUEUED} messages queue");
    five = away(stage, five, &two).await?;
    println!("\n== the server is killed while everybody sends");
    kills::play(stage, &five, &team, &mut outcome).await?;
    println!("\n== two members race for every epoch");
    race::play(stage, &five, &mut outcome).await?;
    println!("\n== everything arrives");
    for device in &five {
        device.wait("the last `stored`", |heard| heard.open == 0).await?;
    }
    stage.wait_for_all().await;
    for device in five {
        device.close().await?;
    }
    Ok(outcome)
}

async fn talk(alice: &Device, bob: &Device) -> anyhow::Result<Place> {
    let id = alice.client.conversation_with(bob.handle()?).await?;
    let place = Place { id, name: "two", people: &["alice", "bob"] };
    place.say(alice, "hello bob").await?;
    bob.conversation("the conversation with alice", |view| view.id == id).await?;
    place.say(bob, "hello alice").await?;
    place.say(alice, "shall we tell the others?").await?;
    place.say(bob, "yes, make a group").await?;
    Ok(place)
}

async fn group(five: &[Device]) -> anyhow::Result<Place> {
    let others = five[1..].iter().map(Device::handle).collect::<Result<_, _>>()?;
    let made = five[0].command(Command::CreateGroup { name: "team".into(), handles: others }).await?;
    let id = made.ok_or_else(|| anyhow::anyhow!("no group was made"))?;
    let place = Place { id, name: "team", people: &["alice", "bob", "carol", "dave", "erin"] };
    for device in five {
        device.conversation("the group", |view| view.id == id && view.members.len() == 5).await?;
    }
    for device in five {
        place.say(device, &format!("{} is here", device.name)).await?;
    }
    Ok(place)
}

async fn away(stage: &mut Stage, mut five: Vec<Device>, two: &Place) -> anyhow::Result<Vec<Device>> {
    let bob = five.remove(1);
    bob.wait("bob's last `stored`", |heard| heard.open == 0).await?;
    bob.close().await?;
    println!("  bob is gone");
    let begun = Instant::now();
    let alice = &five[0];
    for number in 1..=QUEUED {
        two.say(alice, &format!("#{number}")).await?;
    }
    alice.wait("all of them accepted", |heard| heard.unsettled == heard.open).await?;
    println!("  alice: {QUEUED} accepted in {:.1} s", begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    let bob = stage.enter("bob").await?;
    bob.online().await?;
    stage.wait_for_all().await;
    println!("  bob is back and has them all after {:.1} s", begun.elapsed().as_secs_f64());
    five.insert(1, bob);
    Ok(five)
}
