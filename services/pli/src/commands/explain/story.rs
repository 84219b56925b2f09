// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the processes said, put together.

use std::collections::{BTreeMap, BTreeSet};

use pli_domain::{Position, SendId};
use pli_runtime::trail::{Hop, HopKind, NOWHERE};

use super::ask::{Asked, Silent};
use super::gaps::{self, Gap};

/// One hop and who noted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The admin port.
    pub process: String,
    /// What happened.
    pub hop: Hop,
}

/// Everything about the envelope at one place of one shard's log.
#[derive(Debug, Clone)]
pub struct Place {
    /// The shard.
    pub shard: u16,
    /// Sequence and index.
    pub position: Position,
    /// In order of time.
    pub steps: Vec<Step>,
}

/// A process that answered.
#[derive(Debug, Clone)]
pub struct Teller {
    /// The admin port.
    pub process: String,
    /// Roles that note hops there.
    pub roles: Vec<String>,
    /// Hops that its ring keeps.
    pub size: usize,
    /// Since when it runs; it knows nothing of what was before.
    pub started_ms: u64,
    /// The oldest that it has; none while its ring is not full, so that it knows everything since its start.
    pub since_ms: Option<u64>,
}

/// The way of one message.
#[derive(Debug, Clone)]
pub struct Story {
    /// Which message.
    pub send: SendId,
    /// What happened before it stood in a log, and what the sender was told.
    pub sender: Vec<Step>,
    /// In order of shard and place.
    pub places: Vec<Place>,
    /// Further places that were not asked for.
    pub left_out: usize,
    /// Who answered.
    pub tellers: Vec<Teller>,
    /// Who did not, to any question.
    pub silent: Vec<Silent>,
    /// Ids that edges and workers have drawn, by the first eight bytes.
    names: BTreeMap<u64, String>,
}

impl Story {
    /// From the answers to the first question.
    pub fn new(send: SendId, asked: Asked, left_out: usize) -> Self {
        let mut story = Self {
            send,
            sender: Vec::new(),
            places: Vec::new(),
            left_out,
            tellers: Vec::new(),
            silent: asked.silent.clone(),
            names: BTreeMap::new(),
        };
        for answer in &asked.answers {
            let report = &answer.report;
            for introduced in &report.roles {
                story.names.insert(introduced.id, answer.process.clone());
            }
            let turned = report.noted > report.size as u64;
            story.tellers.push(Teller {
                process: answer.process.clone(),
                roles: report.roles.iter().map(|introduced| introduced.role.clone()).collect(),
                size: report.size,
                started_ms: report.started_ms,
                since_ms: turned.then_some(report.oldest_ms),
            });
        }
        story.sender = steps(asked.hops().filter(|(_, hop)| hop.shard == NOWHERE));
        story
    }

    /// What is known of one place.
    pub fn add(&mut self, shard: u16, place: u64, asked: Asked) {
        let known: BTreeSet<String> = self.silent.iter().map(|silent| silent.process.clone()).collect();
        self.silent.extend(asked.silent.iter().filter(|silent| !known.contains(&silent.process)).cloned());
        let steps = steps(asked.hops());
        // The log epoch is only known to who read it.
        let read = steps.iter().find(|step| step.hop.kind == HopKind::Read);
        let position = Position::from_u64(read.map_or(place, |step| step.hop.place)).unwrap_or(Position::ZERO);
        self.places.push(Place { shard, position, steps });
    }

    /// Whether nobody knows anything.
    pub fn is_empty(&self) -> bool {
        self.sender.is_empty() && self.places.is_empty()
    }

    /// The first moment that is known.
    pub fn begin_ms(&self) -> u64 {
        let all = self.sender.iter().chain(self.places.iter().flat_map(|place| &place.steps));
        all.map(|step| step.hop.at_ms).min().unwrap_or(0)
    }

    /// The process that has drawn this id.
    pub fn process_of(&self, id: u64) -> Option<&str> {
        self.names.get(&id).map(String::as_str)
    }

    /// What is missing, and what may be the reason.
    pub fn gaps(&self) -> Vec<Gap> {
        gaps::of(self)
    }
}

/// In order of time; what has one time, in the order in which a message goes.
fn steps<'a>(hops: impl Iterator<Item = (&'a str, &'a Hop)>) -> Vec<Step> {
    let mut steps: Vec<Step> = hops.map(|(process, hop)| Step { process: process.to_owned(), hop: *hop }).collect();
    steps.sort_by_key(|step| (step.hop.at_ms, step.hop.kind));
    steps
}
