// SPDX-License-Identifier: MIT OR Apache-2.0
//! Members who commit the same epoch at the same time.

use pli_testkit::memory::{FaultPlan, MemoryWorld, WorldOptions};

use crate::device::bytes_of;
use crate::fixture::{Fixture, by, outcome};
use pli_conversations::Config;

#[tokio::test(start_paused = true)]
async fn of_two_commits_for_an_epoch_one_wins_fifty_times_and_both_members_go_on() {
    let seed = 50;
    println!("seed {seed}");
    let world = MemoryWorld::new(WorldOptions { seed, ..WorldOptions::default() });
    let mut f = Fixture::over(world, Config::default());
    let (mut alice, mut bob) = (f.device(1, 1), f.device(2, 2));
    f.conversation(7, &mut [&mut alice, &mut bob]).await;
    f.world.set_faults(FaultPlan::slow());
    let mut wins = [0, 0];
    for epoch in 1..=50 {
        let (a, b) = (alice.commit(&[], &[]), bob.commit(&[], &[]));
        let (mut one, mut two) = (f.client.clone(), f.client.clone());
        let (a, b) = tokio::join!(one.commit(by(alice.address, a)), two.commit(by(bob.address, b)));
        let outcomes = [outcome(a.expect("an outcome")), outcome(b.expect("an outcome"))];
        let (winner, loser, lost) = match outcomes {
            [Ok(to), Err(lost)] if to == epoch + 1 => (&mut alice, &mut bob, lost),
            [Err(lost), Ok(to)] if to == epoch + 1 => (&mut bob, &mut alice, lost),
            other => panic!("epoch {epoch}: {other:?}"),
        };
        wins[usize::from(winner.address != loser.address && winner.address.account.as_bytes()[0] == 2)] += 1;
        winner.won();
        loser.lost();
        assert_eq!((lost.current_epoch, lost.missed.len()), (epoch + 1, 1));
        loser.receive(&bytes_of(&lost.missed[0].commit));
        assert_eq!(alice.secret(), bob.secret());
    }
    assert!(wins.iter().all(|&n| n > 0), "a race that one side always wins is none: {wins:?}");
    // 51 commits to Alice, 50 to Bob, and his welcome.
    assert_eq!(f.told(alice.address).await.len() + f.told(bob.address).await.len(), 102);
}

#[tokio::test(start_paused = true)]
async fn of_fifty_members_who_commit_one_epoch_one_wins() {
    let mut f = Fixture::new();
    let mut devices: Vec<_> = (1..=50).map(|n| f.device(n, n)).collect();
    f.conversation(7, &mut devices.iter_mut().collect::<Vec<_>>()).await;
    f.world.set_faults(FaultPlan::slow());
    let mut tasks = tokio::task::JoinSet::new();
    for device in &mut devices {
        let (mut client, request) = (f.client.clone(), by(device.address, device.commit(&[], &[])));
        tasks.spawn(async move { outcome(client.commit(request).await.expect("an outcome")) });
    }
    let outcomes = tasks.join_all().await;
    assert_eq!(outcomes.iter().filter(|o| **o == Ok(2)).count(), 1);
    assert!(outcomes.iter().flat_map(|o| o.as_ref().err()).all(|lost| lost.current_epoch == 2));
}
