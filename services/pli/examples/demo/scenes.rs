// SPDX-License-Identifier: MIT OR Apache-2.0
//! The script.

mod faults;
mod kills;
mod race;

use std::fmt;
use std::time::{Duration, Instant};

use pli_client::core::Command;
use pli_domain::ConversationId;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::device::{Device, TWO};
use super::stage::Stage;
pub use faults::Fault;

/// How much of each scene is played.
#[derive(Debug, Clone)]
pub struct Script {
    /// Messages that queue while Bob is away.
    pub queued: usize,
    /// Kills of the one process that must count.
    pub kills: usize,
    /// Faults of a cluster, in turn.
    pub faults: Vec<Fault>,
    /// Races for one epoch.
    pub races: usize,
}

/// What the script did besides sending.
#[derive(Debug, Default)]
pub struct Outcome {
    kills: usize,
    kills_counted: usize,
    faults: Vec<Fault>,
    /// Messages that were accepted, lost with the end of the log, and sent again.
    resent: usize,
    /// Changes of members while faults were played.
    changes: usize,
    races: usize,
}

impl Outcome {
    /// Whether everything was played.
    pub fn is_whole(&self, script: &Script) -> bool {
        let resent = self.resent > 0 || !script.faults.contains(&Fault::LoseEnd);
        let changed = self.changes > 0 || script.faults.is_empty();
        let broken = self.faults == script.faults && resent && changed;
        self.kills_counted >= script.kills && self.races >= script.races && broken
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kills, kills_counted, faults, resent, changes, races } = self;
        if *kills > 0 {
            write!(f, "{kills} kills, {kills_counted} of them with accepted, unsettled messages; ")?;
        }
        if !faults.is_empty() {
            let faults = faults.len();
            write!(f, "{faults} faults, {resent} lost and sent again, {changes} changes of members meanwhile; ")?;
        }
        write!(f, "{races} races in which two commits met at one epoch")
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
pub async fn play(stage: &mut Stage, script: &Script) -> anyhow::Result<Outcome> {
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
    println!("\n== bob is away while {} messages queue", script.queued);
    five = away(stage, five, &two, script.queued).await?;
    if script.kills > 0 {
        println!("\n== the server is killed while everybody sends");
        kills::play(stage, &five, &team, (script.kills, &mut outcome)).await?;
    }
    if !script.faults.is_empty() {
        println!("\n== the cluster is broken while everybody sends");
        five = faults::play(stage, five, &team, (&script.faults, &mut outcome)).await?;
    }
    if script.races > 0 {
        println!("\n== two members race for every epoch");
        race::play(stage, &five, (script.races, &mut outcome)).await?;
    }
    println!("\n== everything arrives");
    for device in &five {
        device.all_stored().await?;
    }
    stage.wait_for_all().await;
    for device in five {
        device.close().await?;
    }
    Ok(outcome)
}

async fn talk(alice: &Device, bob: &Device) -> anyhow::Result<Place> {
    let id = alice.client.conversation_with(bob.handle()?).await?;
    let place = Place { id, name: TWO, people: &["alice", "bob"] };
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

async fn away(stage: &Stage, mut five: Vec<Device>, two: &Place, queued: usize) -> anyhow::Result<Vec<Device>> {
    let bob = five.remove(1);
    bob.all_stored().await?;
    bob.close().await?;
    println!("  bob is gone");
    let begun = Instant::now();
    let alice = &five[0];
    for number in 1..=queued {
        two.say(alice, &format!("#{number}")).await?;
    }
    alice.all_accepted().await?;
    println!("  alice: {queued} accepted in {:.1} s", begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    let bob = stage.enter("bob").await?;
    bob.online().await?;
    stage.wait_for_all().await;
    println!("  bob is back and has them all after {:.1} s", begun.elapsed().as_secs_f64());
    five.insert(1, bob);
    Ok(five)
}

/// Speaks without end, a message every `pace`; answers how many.
async fn speak(device: &Device, place: &Place, pace: Duration, enough: &CancellationToken) -> anyhow::Result<usize> {
    let mut said = 0;
    while !enough.is_cancelled() {
        said += 1;
        place.say(device, &format!("#{said}")).await?;
        sleep(pace).await;
    }
    Ok(said)
}
