// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ticks for what came in: how far this device has come with the messages of others.
//!
//! A tick goes to everybody in the group, and everybody sends one: in a group of n devices a message would cost n² deliveries
//! at once. So in large groups a device waits a random time that grows with the group before it tells, and then tells of
//! everything: however much is written, the group's devices together send about twenty ticks a second. The time is stored, so
//! that a device that is awake for seconds only tells when it wakes after it.

use std::time::Duration;

use pli_domain::limits::{ENVELOPE_BODY_BYTES_MAX, GROUP_DEVICES_MAX};
use pli_domain::{Class, ConversationId, DeviceId, UnixMillis};
use rand_chacha::rand_core::RngCore as _;

use super::conversation::{Conversation, Phase};
use super::mark::Mark;
use super::{Core, Row};
use crate::content::{LOST_RANGES_MAX, Tick, Ticks};
use crate::outbox::OutLane;

/// In groups of more devices ticks wait.
const AT_ONCE_DEVICES_MAX: usize = 32;
/// The bound of the random wait, for each device of the group: 100 s where it has 1,000.
const WAIT_MS_EACH: u64 = 100;
/// No wait is longer, with room for groups that are larger than they may be.
const WAIT_MAX: Duration = Duration::from_millis(2 * WAIT_MS_EACH * GROUP_DEVICES_MAX as u64);

/// Most bytes of the marks of one tick, with room in an envelope for what is around them: some 500 marks without losses.
const TICK_BYTES_MAX: usize = ENVELOPE_BODY_BYTES_MAX / 8 * 5;
/// Of one mark: twice its device, three numbers, and what frames them.
const MARK_BYTES_MAX: usize = 80;
/// Of a range of lost messages: two numbers.
const RANGE_BYTES_MAX: usize = 18;

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
            let news = untold(conversation);
            let ticks = Ticks(news.iter().flat_map(|(sender, mark)| ticks_of(*sender, mark)).collect());
            let lane = OutLane { conversation: id, class: Class::Tick };
            if self.push(lane, 0, &ticks.content(salt), now).is_ok()
                && let Some(conversation) = self.conversations.get_mut(&id)
            {
                conversation.ticked = news.last().map(|(device, _)| *device);
                conversation.told.retain(|device, _| conversation.ours.contains_key(device));
                conversation.told.extend(news);
                conversation.forget_stays();
                self.dirty.insert(Row::Conversation(id));
            }
        }
    }

    /// Says that the conversation is a chat of two, as every frame does, in a tick of nothing: a device that is brought
    /// into a silent one would begin another with the same person.
    pub(super) fn tell_kind(&mut self, id: ConversationId, now: UnixMillis) {
        let content = Ticks(Vec::new()).content(self.random_id());
        // A full outbox leaves newcomers to the next message.
        let _ = self.push(OutLane { conversation: id, class: Class::Tick }, 0, &content, now);
    }

    /// Whether it is too early to tell; draws the time of the next tick where there is none.
    fn tick_waits(&mut self, id: ConversationId, now: UnixMillis) -> bool {
        match self.conversations.get(&id).and_then(|c| c.ticks_at) {
            Some(at) if at <= now => {
                self.set_tick(id, None);
                false
            }
            // One that lies further ahead was drawn under a clock that was wrong.
            Some(at) if at <= now.after(WAIT_MAX) => true,
            // Counted once for each wait, not at every step of it.
            _ => {
                let devices = self.mls.size(id);
                if devices > AT_ONCE_DEVICES_MAX {
                    let wait = self.rng.next_u64() % (WAIT_MS_EACH * devices as u64);
                    self.set_tick(id, Some(now.after(Duration::from_millis(wait))));
                    return true;
                }
                false
            }
        }
    }

    fn set_tick(&mut self, id: ConversationId, at: Option<UnixMillis>) {
        if let Some(conversation) = self.conversations.get_mut(&id) {
            conversation.ticks_at = at;
            self.dirty.insert(Row::Conversation(id));
        }
    }

    /// When the next tick is due that waits.
    pub(super) fn next_tick_at(&self) -> Option<UnixMillis> {
        self.conversations.values().filter_map(|c| c.ticks_at).filter(|at| *at > self.stepped_at).min()
    }
}

/// Marks that were not told, as many as fit one tick: those behind the last one that was told before the others, so that
/// each has its turn however fast they change.
fn untold(conversation: &Conversation) -> Vec<(DeviceId, Mark)> {
    let news = conversation.ours.iter().filter(|(device, mark)| conversation.told.get(device) != Some(mark));
    let (behind, before): (Vec<_>, Vec<_>) = news.partition(|(device, _)| Some(**device) > conversation.ticked);
    let mut bytes = 0;
    let fitting = behind.into_iter().chain(before).take_while(|(_, mark)| {
        bytes += MARK_BYTES_MAX * (1 + mark.stays.len()) + RANGE_BYTES_MAX * mark.lost.len().min(LOST_RANGES_MAX);
        bytes <= TICK_BYTES_MAX
    });
    fitting.map(|(device, mark)| (*device, mark.clone())).collect()
}

/// How far this device has come, and behind that how far it had come each time that it, or the sender, was put out. What was
/// lost stands with the first.
fn ticks_of(sender: DeviceId, mark: &Mark) -> impl Iterator<Item = Tick> {
    let now = Some(mark.delivered).filter(|now| *now > 0);
    let before = mark.stays.iter().rev().copied().filter(move |stay| Some(*stay) != now);
    now.into_iter().chain(before).enumerate().map(move |(n, delivered)| Tick {
        sender,
        delivered,
        read: mark.read.min(delivered),
        lost: if n == 0 { mark.lost.clone() } else { Vec::new() },
        life: if Some(delivered) == now { mark.life } else { 0 },
    })
}

impl Conversation {
    /// What was told of earlier stays need not be told again once all of it was read.
    fn forget_stays(&mut self) {
        for (sender, told) in &mut self.told {
            let Some(ours) = self.ours.get_mut(sender).filter(|ours| ours == &told) else { continue };
            told.stays.retain(|stay| told.read < *stay);
            ours.stays.clone_from(&told.stays);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thousand devices, each with losses and a life of its own.
    fn crowd(lost: u64) -> Conversation {
        let mark = |n: u64| {
            let lost = (0..lost).map(|range| (u64::MAX / 2 + 2 * range, u64::MAX / 2 + 2 * range)).collect();
            Mark { delivered: u64::MAX - n, read: u64::MAX - n, lost, life: u64::MAX - n, ..Mark::default() }
        };
        let device = |n: u64| DeviceId::from_bytes((u128::from(n) << 64 | 7).to_be_bytes());
        Conversation { ours: (0..1_000).map(|n| (device(n), mark(n))).collect(), ..Conversation::default() }
    }

    #[test]
    fn however_much_is_to_be_told_each_tick_fits_an_envelope_and_all_of_it_is_told() {
        for (lost, most) in [(0, 2), (1, 3), (64, 32)] {
            let mut conversation = crowd(lost);
            let mut ticks = 0;
            while conversation.told != conversation.ours {
                let news = untold(&conversation);
                let told = Ticks(news.iter().flat_map(|(sender, mark)| ticks_of(*sender, mark)).collect());
                let content = told.content([1; 16]);
                assert!(content.encode().len() < ENVELOPE_BODY_BYTES_MAX - 1_024, "{}", content.encode().len());
                assert_eq!(Ticks::of(&content).expect("ticks").expect("decodes"), told, "nothing is cut off");
                conversation.ticked = news.last().map(|(device, _)| *device);
                conversation.told.extend(news);
                ticks += 1;
            }
            assert!(ticks <= most, "{ticks} ticks, {lost} losses each");
        }
    }

    #[test]
    fn what_was_shown_and_lost_before_this_device_was_put_out_is_told_behind_how_far_it_is_now() {
        let before = Mark { delivered: 5, read: 2, lost: vec![(3, 4)], life: 7, ..Mark::default() };
        let sender = DeviceId::from_bytes([1; 16]);
        let told = |mark: &Mark| {
            let content = Ticks(ticks_of(sender, mark).collect()).content([1; 16]);
            let ticks = Ticks::of(&content).expect("ticks").expect("decodes").0;
            assert_eq!(ticks[0].lost, [(3, 4)]);
            ticks.iter().map(|tick| (tick.delivered, tick.read)).collect::<Vec<_>>()
        };
        let out = before.clone().put_out(2);
        assert_eq!(before.put_out(5), Mark::default(), "all was read, and told so");
        assert_eq!(told(&out), [(5, 2)]);
        let again = Mark { delivered: 9, read: 9, ..out };
        assert_eq!(told(&again), [(9, 9), (5, 5)]);
        let mut conversation = Conversation::default();
        conversation.ours.insert(sender, again.clone());
        conversation.told.insert(sender, Mark { read: 2, ..again.clone() });
        conversation.forget_stays();
        assert_eq!(conversation.ours[&sender].stays, [5], "it was not told yet");
        conversation.told.insert(sender, again);
        conversation.forget_stays();
        assert!(conversation.ours[&sender].stays.is_empty() && conversation.ours == conversation.told);
    }

    #[test]
    fn marks_that_change_all_the_time_keep_no_others_from_being_told() {
        let mut conversation = crowd(1);
        let mut told = std::collections::BTreeSet::new();
        for round in 0..4 {
            let news = untold(&conversation);
            conversation.ticked = news.last().map(|(device, _)| *device);
            told.extend(news.iter().map(|(device, _)| *device));
            conversation.told.extend(news);
            conversation.ours.values_mut().for_each(|mark| mark.delivered -= 1 + round);
        }
        assert_eq!(told.len(), 1_000);
    }
}
