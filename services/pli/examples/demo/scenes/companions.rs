// SPDX-License-Identifier: MIT OR Apache-2.0
//! Alice links two more devices: one over QUIC, one over WebSocket, one that is away while the others talk. One is removed
//! while everybody sends.

use std::time::{Duration, Instant};

use anyhow::Context;
use pli_client::linking::NewLink;
use pli_domain::DeviceAddress;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Command, Device, Place, Stage, speak};

const LAPTOP: &str = "alice/laptop";
const TABLET: &str = "alice/tablet";
const EVERYBODY: &[&str] = &["alice", LAPTOP, TABLET, "bob", "carol", "dave", "erin"];
const WITHOUT_THE_LAPTOP: &[&str] = &["alice", TABLET, "bob", "carol", "dave", "erin"];

/// One message of one person after so long.
const PACE: Duration = Duration::from_millis(25);
/// Everybody has begun to send by then, and sends on for as long after the removal.
const IN_THE_MIDDLE: Duration = Duration::from_millis(500);

/// Links, talks, removes. Returns the tablet, which stays; the laptop is gone.
pub async fn play(stage: &Stage, five: &[Device], team: Place) -> anyhow::Result<Device> {
    let alice = &five[0];
    let laptop = Box::pin(link(stage, alice, LAPTOP)).await?;
    let tablet = Box::pin(link(stage, alice, TABLET)).await?;
    let (is_laptop, is_tablet) = (laptop.address().await?, tablet.address().await?);
    let all = || five.iter().chain([&laptop, &tablet]);
    for device in all() {
        device.conversation("the team", |view| view.id == team.id).await?;
        device.sends_to((is_laptop, true), team.id).await?;
        device.sends_to((is_tablet, true), team.id).await?;
    }
    for (device, named) in [(alice, "WebSocket"), (&laptop, "WebSocket"), (&tablet, "QUIC")] {
        let carrier = device.client.status().borrow().carrier.context("no connection")?.to_string();
        println!("  {} over {carrier}", device.name);
        anyhow::ensure!(carrier == named, "{} is to be over {named}, and is over {carrier}", device.name);
    }
    // Lanes of their own: nobody expects of a new device what was said before it came.
    let team = Place { name: "team of three".into(), people: EVERYBODY, ..team };
    for (device, words) in [(alice, "from here"), (&laptop, "from the laptop"), (&tablet, "from the tablet")] {
        team.say(device, words).await?;
    }
    team.say(&five[1], "hello to all three").await?;
    for device in all() {
        device.all_stored().await?;
    }
    stage.wait_for_all().await;
    tablet.close().await?;
    println!("  {TABLET} is away");
    let team = remove_while_all_send(stage, five, (laptop, is_laptop), team).await?;
    team.say(&five[1], "without the laptop").await?;
    let tablet = stage.enter(TABLET).await?;
    tablet.online().await?;
    stage.wait_for_all().await;
    println!("  {TABLET} is back and has them all");
    Ok(tablet)
}

/// The new device shows a code, Alice's first device reads it, both people say yes.
async fn link(stage: &Stage, alice: &Device, name: &str) -> anyhow::Result<Device> {
    let begun = Instant::now();
    let called = name.rsplit('/').next().unwrap_or(name);
    let new = NewLink::open(&stage.options(name)?, called, None).await?;
    let code = new.code().clone();
    let (offer, approval) = tokio::try_join!(new.offered(), alice.client.meet_new_device(code, None))?;
    anyhow::ensure!(offer.number() == approval.number(), "the two devices show different numbers");
    println!("  {name} and alice show {}", offer.number());
    let ((), approved) = tokio::try_join!(offer.accept(), approval.approve())?;
    anyhow::ensure!(approved.confirmed, "{name} did not say that it knows");
    let device = stage.enter(name).await?;
    device.online().await?;
    println!("  {name} is linked and online after {:.1} s", begun.elapsed().as_secs_f64());
    Ok(device)
}

/// Ends with everybody's messages stored, and with the place as it is without the laptop.
async fn remove_while_all_send(
    stage: &Stage,
    five: &[Device],
    (laptop, address): (Device, DeviceAddress),
    team: Place,
) -> anyhow::Result<Place> {
    let enough = CancellationToken::new();
    let speakers = futures::future::try_join_all(five.iter().map(|device| speak(device, &team, PACE, &enough)));
    let remover = async {
        sleep(IN_THE_MIDDLE).await;
        let removed = remove(stage, five, (&laptop, address), &team).await;
        sleep(IN_THE_MIDDLE).await;
        enough.cancel();
        removed
    };
    let (said, ()) = tokio::try_join!(speakers, remover)?;
    println!("  {} messages were sent meanwhile", said.iter().sum::<usize>());
    for device in five {
        device.all_stored().await?;
    }
    laptop.close().await?;
    Ok(Place { people: WITHOUT_THE_LAPTOP, ..team })
}

/// What the laptop has not shown by now nobody expects of it; what is said after this has returned it must not show.
async fn remove(
    stage: &Stage,
    five: &[Device],
    (laptop, address): (&Device, DeviceAddress),
    team: &Place,
) -> anyhow::Result<()> {
    stage.ledger.removed(LAPTOP);
    let begun = Instant::now();
    five[0].command(Command::RemoveDevice { device: address.device }).await?;
    let end = timeout(stage.patience, laptop.client.end()).await.context("the removed device's session goes on")?;
    println!("  {LAPTOP} is removed; its session ended after {:.1} s: {end:?}", begun.elapsed().as_secs_f64());
    for device in five {
        device.sends_to((address, false), team.id).await?;
    }
    println!("  nobody sends to it any more after {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}
