// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clocks that are an hour off.

use std::time::Duration;

use super::{assert_whole, plan};
use crate::faults::connections::Skew;
use crate::faults::run::Run;
use crate::faults::servers::servers;
use crate::simulation::plan::Plan;
use crate::simulation::stores::Place;

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn clocks_that_are_two_hours_apart_lose_nothing() {
    let Some(servers) = servers("clocks_that_are_two_hours_apart_lose_nothing").await else { return };
    // Long enough for the clock that is ahead, short enough to be looked at.
    let plan = Plan { owners: 2, life: 5 * HOUR, ..plan() };
    let skews = [
        (Place::Owner(0), Skew::Ahead(HOUR)),
        (Place::Owner(1), Skew::Behind(HOUR)),
        (Place::Edge(0), Skew::Ahead(HOUR)),
        (Place::Edge(1), Skew::Behind(HOUR)),
    ];
    let run = Run::begin(&servers, "clocks", plan, &skews).await;
    run.shown(30).await;
    // Each takes over from the other.
    for place in 0..2 {
        run.cast.owners.crash(place);
        run.shown(20).await;
        run.cast.owners.start(place);
        run.shown(20).await;
    }
    let outcome = run.end().await;
    assert_whole(&outcome);
    assert_eq!(outcome.rare.expired.get(), 0, "a clock ended a message's life early");
}
