// SPDX-License-Identifier: MIT OR Apache-2.0
//! What accounts, conversations, rendezvous, uploads and payloads share: state in which every write happens at one instant, if it happens.

use pli_ports::StoreError;

use super::faults::Dice;
use super::{Inner, accounts, conversations, links, lock, media, pause, payloads};

pub(super) struct State {
    dice: Dice,
    pub accounts: accounts::State,
    pub conversations: conversations::State,
    pub links: links::State,
    pub media: media::State,
    pub payloads: payloads::State,
}

impl State {
    pub fn new(seed: u64) -> Self {
        Self {
            dice: Dice::new(seed, 5),
            accounts: accounts::State::default(),
            conversations: conversations::State::default(),
            links: links::State::default(),
            media: media::State::default(),
            payloads: payloads::State::default(),
        }
    }
}

async fn wait(world: &Inner) {
    let max = world.plan().tables.step_ms_max / 2;
    let time = lock(&world.tables).dice.up_to_ms(max);
    pause(time).await;
}

/// Writes between two waits; before the instant of the write nothing of it is there, after it all of it is durable.
pub(super) async fn write<T>(
    world: &Inner,
    operation: &'static str,
    write: impl FnOnce(&mut State) -> T + Send,
) -> Result<T, StoreError> {
    let plan = world.plan().tables;
    let life = world.life();
    wait(world).await;
    world.alive(life, operation)?;
    let (written, answer_lost) = {
        let mut state = lock(&world.tables);
        if state.dice.happens(plan.lost) {
            return Err(StoreError::later(operation, "the write was lost"));
        }
        (write(&mut state), state.dice.happens(plan.answer_lost))
    };
    wait(world).await;
    world.alive(life, operation)?;
    if answer_lost { Err(StoreError::later(operation, "the answer was lost")) } else { Ok(written) }
}

/// Reads what is durable.
pub(super) async fn read<T>(
    world: &Inner,
    operation: &'static str,
    read: impl FnOnce(&State) -> T + Send,
) -> Result<T, StoreError> {
    let plan = world.plan().tables;
    wait(world).await;
    let mut state = lock(&world.tables);
    if state.dice.happens(plan.read_timeout) {
        return Err(StoreError::later(operation, "no answer in time"));
    }
    Ok(read(&state))
}
