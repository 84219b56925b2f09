// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ticks for what came in: how far this device has come with the messages of others.
//!
//! A tick goes to everybody in the group, and everybody sends one: in a group of n devices a message would cost n² deliveries
//! at once. So in large groups a device waits a random time that grows with the group before it tells, and then tells of
//! everything: however much is written, the group's devices together send about twenty ticks a second.

use std::time::Duration;

use pli_domain::{Class, ConversationId, DeviceId, UnixMillis};
use rand_chacha::rand_core::RngCore as _;

use super::conversation::Phase;
use super::mark::Mark;
use super::{Core, Row};
use crate::content::{Tick, Ticks};
use crate::outbox::OutLane;

/// In groups of more devices ticks wait.
const AT_ONCE_DEVICES_MAX: usize = 32;
/// The bound of the random wait, for each device of the group: 100 s where it has 1,000.
const WAIT_MS_EACH: u64 = 100;

impl Core {
    /// Sends ticks for what was shown or read and not told, one message per conversation at a time.
    pub(super) fn tell_ticks(&mut self, now: UnixMillis) {
        if !self.session.is_online() || !self.inbound.is_empty() {
            return;
        }
        let due: Vec<ConversationId> = self
            .conversations
            .iter()
            .filter(|(_, c)| c.phase == Phase::Active && !c.rejoining && c.ours != c.told)
            .map(|(&id, _)| id)
            .filter(|&id| !self.outbox.lane_busy(&OutLane { conversation: id, class: Class::Tick }))
            .collect();
        for id in due {
            if self.tick_waits(id, now) {
                continue;
            }
            let salt = self.random_id();
            let Some(conversation) = self.conversations.get(&id) else { continue };
            let ours = conversation.ours.clone();
            let news = ours.iter().filter(|(device, mark)| conversation.told.get(device) != Some(mark));
            let ticks = Ticks(news.map(|(&sender, mark)| tick(sender, mark)).collect());
            let lane = OutLane { conversation: id, class: Class::Tick };
            if self.push(lane, 0, &ticks.content(salt), now).is_ok()
                && let Some(conversation) = self.conversations.get_mut(&id)
            {
                conversation.told = ours;
                self.dirty.insert(Row::Conversation(id));
            }
        }
    }

    /// Whether it is too early to tell; draws the time of the next tick where there is none.
    fn tick_waits(&mut self, id: ConversationId, now: UnixMillis) -> bool {
        match self.conversations.get(&id).and_then(|c| c.ticks_at) {
            Some(at) if at > now => return true,
            Some(_) => self.set_tick(id, None),
            // Counted once for each wait, not at every step of it.
            None => {
                let devices = self.mls.size(id);
                if devices > AT_ONCE_DEVICES_MAX {
                    let wait = self.rng.next_u64() % (WAIT_MS_EACH * devices as u64);
                    self.set_tick(id, Some(now.after(Duration::from_millis(wait))));
                    return true;
                }
            }
        }
        false
    }

    fn set_tick(&mut self, id: ConversationId, at: Option<UnixMillis>) {
        if let Some(conversation) = self.conversations.get_mut(&id) {
            conversation.ticks_at = at;
        }
    }

    /// When the next tick is due that waits.
    pub(super) fn next_tick_at(&self) -> Option<UnixMillis> {
        self.conversations.values().filter_map(|c| c.ticks_at).filter(|at| *at > self.stepped_at).min()
    }
}

fn tick(sender: DeviceId, mark: &Mark) -> Tick {
    Tick {
        sender,
        delivered: mark.delivered,
        read: mark.read.min(mark.delivered),
        lost: mark.lost.clone(),
        life: mark.life,
    }
}
