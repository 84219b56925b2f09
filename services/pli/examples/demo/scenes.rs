// SPDX-License-Identifier: MIT OR Apache-2.0
//! The script.

mod commits;
mod companions;
mod faults;
mod kills;
mod race;

use std::fmt;
use std::time::{Duration, Instant};

use pli_client::core::{Command, ConversationView};
use pli_domain::{AccountId, ConversationId};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::device::{Device, TWO};
use super::stage::Stage;
pub use faults::Fault;

/// After a fault was found, what is still on its way gets so long before the ledger is judged.
const AFTER_A_FAULT: Duration = Duration::from_secs(5);

/// A scene that can be left out. Two people talking and a group of five are always played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scene {
    /// Bob is away while messages queue.
    Away,
    /// SIGKILL of the one process while everybody sends.
    Kills,
    /// Two members race for every epoch.
    Race,
    /// SIGKILL of the one process while a commit is on its way.
    Commits,
    /// A cluster is broken in every way while everybody sends and members come and go.
    Faults,
    /// Alice has three devices, of which one is away and one is removed while everybody sends.
    Companions,
}

/// How much of each scene is played.
#[derive(Debug, Clone)]
pub struct Script {
    /// Which scenes.
    pub scenes: Vec<Scene>,
    /// Messages that queue while Bob is away.
    pub queued: usize,
    /// Kills of the one process that must count.
    pub kills: usize,
    /// Faults of a cluster, in turn.
    pub faults: Vec<Fault>,
    /// Races for one epoch.
    pub races: usize,
}

impl Script {
    fn plays(&self, scene: Scene) -> bool {
        self.scenes.contains(&scene)
    }
}

/// What the script did besides sending.
#[derive(Debug, Default)]
pub struct Outcome {
    kills: usize,
    kills_counted: usize,
    races: usize,
    commits_killed: usize,
    /// Commits that somebody had to finish after the kill.
    commits_cut: usize,
    faults: Vec<Fault>,
    /// Messages that were accepted, lost with the end of the log, and sent again.
    resent: usize,
    /// Changes of members while faults were played.
    changes: usize,
    /// How long each fault was noticed.
    recoveries: faults::breaking::Recoveries,
    /// Alice's devices did what they should.
    companions: bool,
    /// What a scene saw that must not be.
    found: Option<String>,
}

impl Outcome {
    /// Whether everything that was asked for was played, and no scene saw a fault.
    pub fn is_whole(&self, script: &Script) -> bool {
        let resent = self.resent > 0 || !script.faults.contains(&Fault::LoseEnd);
        let broken = self.faults == script.faults && resent && self.changes > 0;
        self.found.is_none()
            && (self.kills_counted >= script.kills || !script.plays(Scene::Kills))
            && (self.races >= script.races || !script.plays(Scene::Race))
            && (broken || !script.plays(Scene::Faults))
            && (self.companions || !script.plays(Scene::Companions))
    }

    /// After how long the slowest client heard and saw something new, by fault.
    pub const fn recoveries(&self) -> &faults::breaking::Recoveries {
        &self.recoveries
    }

    /// What a scene saw that must not be.
    pub fn found(&self) -> Option<&str> {
        self.found.as_deref()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kills, kills_counted, races, commits_killed, commits_cut, faults, resent, changes, .. } = self;
        if *kills > 0 {
            write!(f, "{kills} kills, {kills_counted} of them with accepted, unsettled messages; ")?;
        }
        if *commits_killed > 0 {
            write!(f, "{commits_killed} commits under a kill, {commits_cut} of them decided and not yet brought; ")?;
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
    name: String,
    /// By device.
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

/// Plays the script.
pub async fn play(stage: &mut Stage, script: &Script) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
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
    if script.plays(Scene::Away) {
        println!("\n== bob is away while {} messages queue", script.queued);
        people = away(stage, people, &two, script.queued).await?;
    }
    if script.plays(Scene::Kills) {
        println!("\n== the server is killed while everybody sends");
        kills::play(stage, &people, &team, (script.kills, &mut outcome)).await?;
    }
    if script.plays(Scene::Faults) {
        println!("\n== the cluster is broken while everybody sends");
        people = faults::play(stage, people, &team, (&script.faults, &mut outcome)).await?;
    }
    if script.plays(Scene::Race) {
        println!("\n== two members race for every epoch");
        race::play(stage, &people, (script.races, &mut outcome)).await?;
    }
    if script.plays(Scene::Commits) {
        println!("\n== the server is killed while a commit is on its way");
        let heidi = commits::play(stage, &people, &mut outcome).await?;
        people.push(heidi);
    }
    if script.plays(Scene::Companions) {
        println!("\n== alice has three devices");
        let tablet = companions::play(stage, &people[..5], team).await?;
        people.push(tablet);
        outcome.companions = true;
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
            device.all_stored().await?;
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
    let place = Place { id, name: TWO.into(), people: &["alice", "bob"] };
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
    let view: Option<ConversationView> = device.client.conversation(id).await?;
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
