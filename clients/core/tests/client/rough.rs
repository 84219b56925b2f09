// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whatever happens to connections, queues, answers and programs, everybody in a group is shown everything that was
//! written, once and in order.

use std::ops::RangeInclusive;

use pli_client_core::{Command, RowKind};
use pli_domain::ConversationId;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::world::{Kill, World, handle};

/// The last one comes and goes, so that epochs change.
const NAMES: [&str; 5] = ["alice", "bob", "carol", "dave", "guest"];
const MEMBERS: usize = 4;

struct Play {
    world: World,
    rng: ChaCha20Rng,
    group: ConversationId,
    guest_is_in: bool,
    said: usize,
    /// Messages that were refused for a while, or taken late.
    waited: usize,
    kills: usize,
}

impl Play {
    fn new(seed: u64) -> Self {
        let mut world = World::seeded(&NAMES, u8::try_from(seed % 200).unwrap());
        let handles = NAMES[1..MEMBERS].iter().map(|name| handle(name)).collect();
        let group = world.command(0, Command::CreateGroup { name: "team".into(), handles }).conversation.unwrap();
        world.run();
        let rng = ChaCha20Rng::seed_from_u64(seed);
        Self { world, rng, group, guest_is_in: false, said: 0, waited: 0, kills: 0 }
    }

    fn below(&mut self, n: usize) -> usize {
        self.rng.next_u32() as usize % n
    }

    fn step(&mut self) {
        let n = self.below(MEMBERS);
        let (now, device) = (self.world.now, self.world.address(n));
        match self.below(16) {
            0 if self.world.devices[n].offline => self.world.bring_online(n),
            0 => self.world.take_offline(n),
            1 => self.world.devices[n].restart(now),
            2 => {
                let kill = if self.below(2) == 0 { Kill::BeforeCommit } else { Kill::AfterCommit };
                self.world.devices[n].kill_at = Some((self.world.devices[n].steps + 1 + self.below(6), kill));
            }
            3 => self.world.run_on(100),
            4 if !self.world.server.hold.remove(&device) => drop(self.world.server.hold.insert(device)),
            5 if !self.world.server.refuse_messages.remove(&device) => {
                self.world.server.refuse_messages.insert(device);
                self.talk_over(n);
            }
            6 if !self.world.server.hold_messages.contains(&device) => {
                self.world.server.hold_messages.insert(device);
                self.talk_over(n);
            }
            6 | 7 => self.release(),
            8 => {
                // An edge ends, with its connections and what they were to be answered.
                self.world.server.lose_results();
                for n in (0..NAMES.len()).filter(|n| !self.world.devices[*n].offline).collect::<Vec<_>>() {
                    self.world.drop_and_return(n);
                }
            }
            9 => self.change(),
            _ => {
                let count = 1 + self.below(8);
                self.talk(n, count, 1..=4);
            }
        }
    }

    fn release(&mut self) {
        let now = self.world.now;
        self.waited += self.world.server.release_messages(now);
    }

    /// Epochs change only while no message is held, which a server holds for less time than three of them take.
    fn change(&mut self) {
        self.release();
        let (conversation, n) = (self.group, self.below(MEMBERS));
        let command = if self.guest_is_in {
            Command::RemoveMembers { conversation, accounts: vec![self.world.address(MEMBERS).account] }
        } else {
            Command::AddMembers { conversation, handles: vec![handle(NAMES[MEMBERS])] }
        };
        self.guest_is_in = !self.guest_is_in;
        self.world.attempt(n, command);
    }

    /// What one member says waits at the server, now and then while more is said than receivers keep keys of.
    fn talk_over(&mut self, n: usize) {
        self.talk(n, 3, 1..=4);
        let other = self.below(MEMBERS);
        if self.below(3) == 0 && other != n {
            self.talk(other, 200, 8..=8);
        }
    }

    /// So many messages, the others telling how far they are when there is time for it.
    fn talk(&mut self, n: usize, count: usize, moves: RangeInclusive<usize>) {
        for _ in 0..count {
            self.said += 1;
            let text = format!("{:05}", self.said);
            self.world.attempt(n, Command::SendText { conversation: self.group, text });
            let times = moves.start() + self.below(moves.end() - moves.start() + 1);
            self.world.run_a_little(times);
        }
    }

    fn settle(&mut self) {
        self.waited += self.world.server.refused.len();
        self.world.server.refuse_messages.clear();
        self.world.server.hold.clear();
        self.release();
        for n in 0..NAMES.len() {
            self.kills += self.world.devices[n].kills;
            self.world.devices[n].kill_at = None;
            if self.world.devices[n].offline {
                self.world.bring_online(n);
            }
        }
        for _ in 0..4 {
            self.world.now += 60_000;
            self.world.run();
        }
    }

    /// What a device has written, in order.
    fn written(&self, n: usize) -> Vec<String> {
        let rows = self.world.rows(n, self.group).into_values();
        let own = rows.filter(|(_, row)| row.kind() == RowKind::Outgoing).map(|(_, row)| row.text);
        own.collect()
    }

    fn judge(&self, label: &str) {
        for (from, name) in NAMES[..MEMBERS].iter().enumerate() {
            assert_eq!(self.world.devices[from].core.waiting(), (0, 0), "{label}: {name}");
            let written = self.written(from);
            for to in (0..MEMBERS).filter(|to| *to != from) {
                let of = format!("{name}: ");
                let shown = self.world.history(to, self.group).into_iter();
                let shown: Vec<String> = shown.filter_map(|line| Some(line.strip_prefix(&of)?.to_owned())).collect();
                let on_time: Vec<&String> = shown.iter().filter(|text| !text.ends_with("(late)")).collect();
                assert!(on_time.is_sorted(), "{label}: {} is shown {name} out of order", NAMES[to]);
                let mut texts: Vec<String> = shown.iter().map(|text| text.replace(" (late)", "")).collect();
                texts.sort();
                assert_eq!(texts, written, "{label}: {} of {name}", NAMES[to]);
            }
        }
    }
}

/// 6, or the one that `PLI_ROUGH_SEED` names, or as many as `PLI_ROUGH_SEEDS` says.
fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let one = number("PLI_ROUGH_SEED").map(|seed: u64| seed..seed + 1);
    one.unwrap_or(0..number("PLI_ROUGH_SEEDS").unwrap_or(6))
}

#[test]
fn everything_written_is_shown_once_and_in_order_whatever_happens() {
    let (mut said, mut waited, mut kills) = (0, 0, 0);
    for seed in seeds() {
        // Shown when one fails.
        eprintln!("seed {seed}");
        let mut play = Play::new(seed);
        for _ in 0..50 {
            play.step();
        }
        play.settle();
        play.judge(&format!("seed {seed}"));
        (said, waited, kills) = (said + play.said, waited + play.waited, kills + play.kills);
    }
    if seeds().count() >= 6 {
        assert!(said > 600 && waited > 50 && kills > 2, "the seeds test nothing: {said} {waited} {kills}");
    }
}
