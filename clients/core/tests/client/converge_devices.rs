// SPDX-License-Identifier: MIT OR Apache-2.0
//! A group of people with several devices each, which come, go, are cut off and killed at random, ends with one epoch, one
//! secret and exactly the devices of its members' lists; what is said then is heard on every one of them.

use pli_client_core::{Command, Event};
use pli_domain::ConversationId;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::world::{Kill, World, handle};

const PEOPLE: [&str; 4] = ["alice", "bob", "carol", "dave"];
/// Devices of one person at a time.
const EACH_MAX: usize = 3;

#[derive(Debug, Default)]
struct Reached {
    linked: usize,
    unlinked: usize,
    mismatches: usize,
    kills: usize,
    members: usize,
    delays: usize,
}

struct Play {
    world: World,
    rng: ChaCha20Rng,
    group: ConversationId,
    /// Whose device it is, and whether it was removed.
    owners: Vec<(usize, bool)>,
    said: usize,
    reached: Reached,
}

impl Play {
    fn new(seed: u64) -> Self {
        let mut world = World::seeded(&PEOPLE, u8::try_from(seed % 100).unwrap());
        let handles = PEOPLE[1..3].iter().map(|name| handle(name)).collect();
        let group = world.command(0, Command::CreateGroup { name: "team".into(), handles }).conversation.unwrap();
        world.run();
        let owners = (0..PEOPLE.len()).map(|n| (n, false)).collect();
        Self { world, rng: ChaCha20Rng::seed_from_u64(seed), group, owners, said: 0, reached: Reached::default() }
    }

    fn below(&mut self, n: usize) -> usize {
        self.rng.next_u32() as usize % n
    }

    /// Devices that are in their account's list, or on their way into it.
    fn devices(&self) -> Vec<usize> {
        (0..self.owners.len()).filter(|n| !self.owners[*n].1).collect()
    }

    fn of(&self, person: usize) -> Vec<usize> {
        self.devices().into_iter().filter(|n| self.owners[*n].0 == person).collect()
    }

    fn is_listed(&self, n: usize) -> bool {
        self.world.server.listed(self.world.address(n).account).contains_key(&self.world.address(n))
    }

    fn is_in(&self, n: usize) -> bool {
        self.world.devices[n].core.conversation(self.group).is_some_and(|view| view.ready && !view.left)
    }

    fn step(&mut self) {
        let devices = self.devices();
        let n = devices[self.below(devices.len())];
        let now = self.world.now;
        match self.below(17) {
            0 if !self.world.devices[n].offline => self.world.take_offline(n),
            0 | 1 if self.world.devices[n].offline && self.is_listed(n) => self.world.bring_online(n),
            0 | 1 if self.world.devices[n].offline => {}
            1 => self.world.devices[n].restart(now),
            2 => {
                let kill = if self.below(2) == 0 { Kill::BeforeCommit } else { Kill::AfterCommit };
                let at = self.world.devices[n].steps + 1 + self.below(6);
                self.world.devices[n].kill_at = Some((at, kill));
            }
            3 => self.world.run(),
            4..=6 => {
                let times = self.below(6);
                self.world.run_a_little(times);
            }
            7 | 8 => self.link(),
            9 => self.unlink(),
            10 => self.change_members(n),
            11 => {
                // What is queued for a device stands still, or comes on.
                let address = self.world.address(n);
                if !self.world.server.hold.remove(&address) {
                    self.world.server.hold.insert(address);
                    self.reached.delays += 1;
                }
            }
            _ if self.is_in(n) => {
                self.said += 1;
                let text = format!("{} {}", self.world.devices[n].name, self.said);
                self.world.attempt(n, Command::SendText { conversation: self.group, text });
            }
            _ => {}
        }
    }

    fn link(&mut self) {
        let person = self.below(PEOPLE.len());
        if self.of(person).len() >= EACH_MAX || self.owners.len() >= 12 {
            return;
        }
        let name = format!("{} {}", PEOPLE[person], self.owners.len());
        let linked = self.world.prepare(person, &name);
        // It connects when it is named: a real one is told by the first device.
        self.owners.push((person, false));
        let other = &self.world.devices[linked];
        let (device, key) = (other.core.address().device, other.core.device_key());
        let add = Command::AddDevice { device, key, name };
        if !self.world.try_command(person, &add) {
            self.owners[linked].1 = true;
            return;
        }
        self.reached.linked += 1;
    }

    fn unlink(&mut self) {
        let person = self.below(PEOPLE.len());
        let listed = self.world.server.listed(self.world.address(person).account);
        let second =
            self.of(person).into_iter().find(|n| *n >= PEOPLE.len() && listed.contains_key(&self.world.address(*n)));
        let Some(second) = second else { return };
        self.world.devices[second].may_stop = true;
        let device = self.world.address(second).device;
        if !self.world.try_command(person, &Command::RemoveDevice { device }) {
            return;
        }
        self.owners[second].1 = true;
        self.reached.unlinked += 1;
    }

    fn change_members(&mut self, n: usize) {
        let Some(view) = self.world.devices[n].core.conversation(self.group).filter(|view| view.ready && !view.left)
        else {
            return;
        };
        let dave = self.world.address(3).account;
        let conversation = self.group;
        if self.owners[n].0 == 3 {
            return;
        }
        let command = match view.members.iter().any(|member| member.account == dave) {
            true => Command::RemoveMembers { conversation, accounts: vec![dave] },
            false => Command::AddMembers { conversation, handles: vec![handle("dave")] },
        };
        self.reached.members += 1;
        self.world.attempt(n, command);
    }

    fn settle(&mut self) {
        self.world.server.hold.clear();
        for n in 0..self.owners.len() {
            self.world.devices[n].kill_at = None;
            if self.world.devices[n].offline && self.is_listed(n) {
                self.world.bring_online(n);
            }
        }
        for _ in 0..6 {
            self.world.run();
            self.world.now += 60_000;
            // Those whose naming was still under way are named now.
            for n in PEOPLE.len()..self.owners.len() {
                if self.world.devices[n].offline && self.is_listed(n) && !self.owners[n].1 {
                    self.world.bring_online(n);
                }
            }
        }
        self.world.run();
    }

    fn judge(&mut self, label: &str) {
        let roster = self.world.server.roster(self.group);
        let inside: Vec<usize> = (0..self.owners.len()).filter(|n| roster.contains(&self.world.address(*n))).collect();
        for n in 0..self.owners.len() {
            let (owner, removed) = self.owners[n];
            let name = &self.world.devices[n].name;
            if removed {
                assert!(!inside.contains(&n), "{label}: {name} was removed and is in the group");
            } else {
                let person_in = inside.contains(&owner);
                assert_eq!(inside.contains(&n), person_in, "{label}: {name} is not where its account is");
            }
        }
        let secret = |play: &Self, n: usize| {
            let core = &play.world.devices[n].core;
            (core.epoch_authenticator(play.group), core.tree_hash(play.group))
        };
        let wanted = secret(self, inside[0]);
        let (epoch, tree) = self.world.server.epoch_and_tree(self.group);
        let there = (wanted.0.as_ref().map(|(epoch, _)| *epoch), wanted.1.clone());
        assert_eq!(there, (Some(epoch), Some(tree)), "{label}: the server is elsewhere");
        for n in &inside {
            assert_eq!(secret(self, *n), wanted, "{label}: {}", self.world.devices[*n].name);
        }
        for n in &inside {
            let text = format!("{} in the end", self.world.devices[*n].name);
            self.world.say(*n, self.group, &text);
        }
        self.world.run();
        for n in &inside {
            let history = self.world.history(*n, self.group);
            for other in inside.iter().filter(|other| *other != n) {
                let text = format!(": {} in the end", self.world.devices[*other].name);
                let heard = history.iter().filter(|line| line.contains(&text)).count();
                let name = &self.world.devices[*n].name;
                assert_eq!(heard, 1, "{label}: {text} on {name}: {history:#?}");
                let own = self.owners[*n].0 == self.owners[*other].0;
                let says = history.iter().any(|line| line.starts_with("me: ") && line.contains(&text));
                assert_eq!(own, says, "{label}: {text} on {name} is one's own or is not");
            }
        }
        for n in (0..self.owners.len()).filter(|n| self.owners[*n].1) {
            let history = self.world.history(n, self.group);
            assert!(history.iter().all(|line| !line.contains("in the end")), "{label}: a removed device reads on");
        }
        for device in &self.world.devices {
            let refused: Vec<_> = device.events.iter().filter(|e| matches!(e, Event::ListRefused { .. })).collect();
            assert!(
                refused.is_empty(),
                "{label}: an honest server's list is not taken by {}: {refused:?}",
                device.name
            );
        }
    }
}

/// 40, or the one that `PLI_CONVERGE_SEED` names, or as many as `PLI_CONVERGE_SEEDS` says.
fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let one = number("PLI_CONVERGE_SEED").map(|seed: u64| seed..seed + 1);
    one.unwrap_or(0..number("PLI_CONVERGE_SEEDS").unwrap_or(40))
}

#[test]
fn a_group_of_people_with_devices_that_come_and_go_ends_alike_for_everybody() {
    let mut reached = Reached::default();
    for seed in seeds() {
        eprintln!("seed {seed}");
        let mut play = Play::new(seed);
        for _ in 0..60 {
            play.step();
        }
        play.settle();
        play.judge(&format!("seed {seed}"));
        reached.linked += play.reached.linked;
        reached.unlinked += play.reached.unlinked;
        reached.members += play.reached.members;
        reached.delays += play.reached.delays;
        reached.mismatches += play.world.server.mismatches;
        reached.kills += play.world.devices.iter().map(|device| device.kills).sum::<usize>();
    }
    if seeds().count() < 40 {
        return;
    }
    let enough = reached.linked > 60
        && reached.unlinked > 15
        && reached.kills > 30
        && reached.members > 30
        && reached.delays > 40;
    assert!(enough && reached.mismatches > 5, "the seeds test nothing: {reached:?}");
}
