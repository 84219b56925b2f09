// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices that commit at once: one wins, the others make way for each other. Each round somebody wins, so nobody waits for
//! ever; what the waits save is offers, of which n devices would need n²/2.

use std::time::Duration;

use pli_domain::{ConversationId, UnixMillis};
use rand_chacha::rand_core::RngCore as _;

use super::Core;

/// A commit that lost is made again after a random time below this, which doubles with each one in a row up to the next:
/// of many devices that lose together few meet again, so that a commit each costs a few offers each, not one for every
/// other device.
const RACE_WAIT_FIRST_MS: u64 = 250;
/// Nobody waits longer, however often it lost: who has waited tries as often as who has just come.
const RACE_WAIT_MAX_MS: u64 = 8_000;

impl Core {
    /// Another commit came before this device's.
    pub(super) fn lost_race(&mut self, id: ConversationId, now: UnixMillis) {
        let random = self.rng.next_u64();
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        let bound = (RACE_WAIT_FIRST_MS << conversation.races_lost.min(10)).min(RACE_WAIT_MAX_MS);
        conversation.races_lost = conversation.races_lost.saturating_add(1);
        conversation.commits_at = Some(now.after(Duration::from_millis(random % bound)));
    }

    /// Whether the next commit has to wait, since the last one lost.
    pub(super) fn lets_others_commit(&self, id: ConversationId, now: UnixMillis) -> bool {
        self.conversations.get(&id).and_then(|c| c.commits_at).is_some_and(|at| at > now)
    }
}
