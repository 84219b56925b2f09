// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which contents were delivered before.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pli_domain::{DeviceId, SendId, UnixMillis};

use super::InboxChange;

/// Entries forgotten in one step, so that a step stays short.
const EXPIRED_PER_STEP_MAX: usize = 256;

#[derive(Debug)]
pub(super) struct Dedupe {
    kept: Duration,
    max: usize,
    seen: BTreeMap<(DeviceId, SendId), UnixMillis>,
    by_age: BTreeSet<(UnixMillis, DeviceId, SendId)>,
}

impl Dedupe {
    pub(super) fn new(kept: Duration, max: usize) -> Self {
        Self { kept, max, seen: BTreeMap::new(), by_age: BTreeSet::new() }
    }

    pub(super) fn contains(&self, sender: DeviceId, send_id: SendId) -> bool {
        self.seen.contains_key(&(sender, send_id))
    }

    pub(super) fn restore(&mut self, sender: DeviceId, send_id: SendId, at: UnixMillis) {
        if self.seen.insert((sender, send_id), at).is_none() {
            self.by_age.insert((at, sender, send_id));
        }
    }

    pub(super) fn insert(&mut self, sender: DeviceId, send_id: SendId, now: UnixMillis, out: &mut Vec<InboxChange>) {
        if self.contains(sender, send_id) {
            return;
        }
        self.restore(sender, send_id, now);
        out.push(InboxChange::Seen(sender, send_id, Some(now)));
        while self.seen.len() > self.max {
            if !self.forget_oldest(out) {
                break;
            }
        }
    }

    pub(super) fn expire(&mut self, now: UnixMillis, out: &mut Vec<InboxChange>) {
        for _ in 0..EXPIRED_PER_STEP_MAX {
            match self.by_age.first() {
                Some((at, _, _)) if at.after(self.kept) < now => self.forget_oldest(out),
                _ => break,
            };
        }
    }

    fn forget_oldest(&mut self, out: &mut Vec<InboxChange>) -> bool {
        let Some((_, sender, send_id)) = self.by_age.pop_first() else { return false };
        self.seen.remove(&(sender, send_id));
        out.push(InboxChange::Seen(sender, send_id, None));
        true
    }
}
