// SPDX-License-Identifier: MIT OR Apache-2.0
//! The script.

mod commits;
mod kills;
mod race;

use std::fmt;
use std::time::{Duration, Instant};

use pli_client::core::{Command, ConversationView};
use pli_domain::{AccountId, ConversationId};

use crate::device::Device;
use crate::stage::Stage;

/// Messages that queue while Bob is away.
const QUEUED: usize = 1_000;
/// Kills that must count.
const KILLS: usize = 3;
/// Races for one epoch.
const RACES: usize = 50;
/// After a fault was found, what is still on its way gets so long before the ledger is judged.
const AFTER_A_FAULT: Duration = Duration::from_secs(5);

/// A scene that can be left out. Two people talking and a group of five are always played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scene {
    /// Bob is away while messages queue.
    Away,
    /// SIGKILL while everybody sends.
    Kills,
    /// Two members race for every epoch.
    Race,
    /// SIGKILL while a commit is on its way.
    Commits,
}

/// What the script did besides sending.
#[derive(Debug)]
pub struct Outcome {
    scenes: Vec<Scene>,
    kills: usize,
    kills_counted: usize,
    races: usize,
    commits_killed: usize,
    /// Commits that somebody had to finish after the kill.
    commits_cut: usize,
    /// What a scene saw that must not be.
    found: Option<String>,
}

impl Outcome {
    fn of(scenes: &[Scene]) -> Self {
        let scenes = scenes.to_vec();
        Self { scenes, kills: 0, kills_counted: 0, races: 0, commits_killed: 0, commits_cut: 0, found: None }
    }

    fn plays(&self, scene: Scene) -> bool {
        self.scenes.is_empty() || self.scenes.contains(&scene)
    }

    /// Whether everything that was asked for was played, and no scene saw a fault.
    pub fn is_whole(&self) -> bool {
        self.found.is_none()
            && (self.kills_counted >= KILLS || !self.plays(Scene::Kills))
            && (self.races >= RACES || !self.plays(Scene::Race))
    }

    /// What a scene saw that must not be.
    pub fn found(&self) -> Option<&str> {
        self.found.as_deref()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kills, kills_counted, races, commits_killed, commits_cut, .. } = self;
        write!(f, "{kills} kills, {kills_counted} of them with accepted, unsettled messages; ")?;
        write!(f, "{races} races in which two commits met at one epoch; ")?;
        write!(f, "{commits_killed} commits under a kill, {commits_cut} of them decided and not yet brought")
    }
}

/// Where a scene speaks: the conversation, its name in the ledger, who is in it.
pub struct Place {
    id: ConversationId,
    name: String,
    people: &'static [&'static str],
}

impl Place {
    /// Everybody but the speaker.
    fn others(&self, speaker: &str) -> Vec<&'static str> {
        self.people.iter().copied().filter(|name| *name != speaker).collect()
    }

    /// Says something there.
    pub async fn say(&self, speaker: &Device, words: &str) -> anyhow::Result<()> {
        speaker.say((self.id, &self.name), &self.others(&speaker.name), words).await
    }
}

/// Plays these scenes; all of them if none is named.
pub async fn play(stage: &mut Stage, scenes: &[Scene]) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::of(scenes);
    let mut people = Vec::new();
    for name in ["alice", "bob", "carol", "dave", "erin"] {
        let device = stage.enter(name).await?;
        device.online().await?;
        people.push(device);
    }
    println!("\n== alice and bob talk");
    let two = talk(&people[0], &people[1]).await?;
    println!("\n== a group of five");
    let team = group(&people).await?;
    if outcome.plays(Scene::Away) {
        println!("\n== bob is away while {QUEUED} messages queue");
        people = away(stage, people, &two).await?;
    }
    if outcome.plays(Scene::Kills) {
        println!("\n== the server is killed while everybody sends");
        kills::play(stage, &people, &team, &mut outcome).await?;
    }
    if outcome.plays(Scene::Race) {
        println!("\n== two members race for every epoch");
        race::play(stage, &people, &mut outcome).await?;
    }
    if outcome.plays(Scene::Commits) {
        println!("\n== the server is killed while a commit is on its way");
        let heidi = commits::play(stage, &people, &mut outcome).await?;
        people.push(heidi);
    }
    end(stage, people, &outcome).await?;
    Ok(outcome)
}

/// Waits for what is on its way.
async fn end(stage: &Stage, people: Vec<Device>, outcome: &Outcome) -> anyhow::Result<()> {
    println!("\n== everything arrives");
    if outcome.found.is_some() {
        // Waiting in full would change nothing.
        let _ = tokio::time::timeout(AFTER_A_FAULT, stage.wait_for_all()).await;
    } else {
        for device in &people {
            device.wait("the last `stored`", |heard| heard.open == 0).await?;
        }
        stage.wait_for_all().await;
    }
    for device in people {
        device.close().await?;
    }
    Ok(())
}

async fn talk(alice: &Device, bob: &Device) -> anyhow::Result<Place> {
    let id = alice.client.conversation_with(bob.handle()?).await?;
    let place = Place { id, name: "two".into(), people: &["alice", "bob"] };
    place.say(alice, "hello bob").await?;
    bob.conversation("the conversation with alice", |view| view.id == id).await?;
    place.say(bob, "hello alice").await?;
    place.say(alice, "shall we tell the others?").await?;
    place.say(bob, "yes, make a group").await?;
    Ok(place)
}

async fn group(five: &[Device]) -> anyhow::Result<Place> {
    let place = group_of(five, "team", &["alice", "bob", "carol", "dave", "erin"]).await?;
    for device in five {
        place.say(device, &format!("{} is here", device.name)).await?;
    }
    Ok(place)
}

/// The first of the devices makes a group of all of them, whose people are named in the same order.
async fn group_of(devices: &[Device], name: &str, people: &'static [&'static str]) -> anyhow::Result<Place> {
    let others = devices[1..].iter().map(Device::handle).collect::<Result<_, _>>()?;
    let made = devices[0].command(Command::CreateGroup { name: name.into(), handles: others }).await?;
    let id = made.ok_or_else(|| anyhow::anyhow!("no group was made"))?;
    for device in devices {
        device.conversation("the group", |view| view.id == id && view.members.len() == people.len()).await?;
    }
    Ok(Place { id, name: name.into(), people })
}

/// How many members a device sees.
async fn members(device: &Device, place: &Place) -> anyhow::Result<usize> {
    let id = place.id;
    let view: Option<ConversationView> = device.client.query(move |core| core.conversation(id)).await?;
    Ok(view.ok_or_else(|| anyhow::anyhow!("{} does not know {}", device.name, place.name))?.members.len())
}

/// Somebody adds or removes somebody.
async fn change(by: &Device, place: &Place, whom: &Device, adding: bool) -> anyhow::Result<()> {
    let conversation = place.id;
    if adding {
        by.command(Command::AddMembers { conversation, handles: vec![whom.handle()?] }).await?;
        return Ok(());
    }
    let account: AccountId = whom.client.query(|core| core.address().account).await?;
    by.command(Command::RemoveMembers { conversation, accounts: vec![account] }).await?;
    Ok(())
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
