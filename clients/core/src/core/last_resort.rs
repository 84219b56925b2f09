// SPDX-License-Identifier: MIT OR Apache-2.0
//! After a welcome that used this device's key package of last resort: the directory gets another one, the keys of the
//! group are renewed within minutes, and the private key is deleted when the welcomes that are under way have come
//! (RFC 9420 section 16.8). A welcome that comes later still is not lost: the device joins by itself.

use std::time::Duration;

use pli_domain::{ConversationId, UnixMillis};

use super::calls::Ask;
use super::{Core, Row};

/// The private key is kept for so long after the first use by a device that has worked its queue through, …
const SPENT_KEPT: Duration = Duration::from_secs(3600);
/// … and by one that does not come to that for so long. The welcomes of a device that was away long may all use it.
const SPENT_KEPT_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

impl Core {
    /// This device has come into a group by a welcome.
    pub(super) fn note_last_resort(&mut self, id: ConversationId) {
        let at = self.session.server_time(self.stepped_at);
        let Some(used) = self.mls.note_last_resort(id, at) else { return };
        self.renew_soon(id);
        if !used.is_replaced {
            // What waits to be published may be the one that was used: the directory took it, and its answer was lost.
            self.packages = None;
            self.calls.abandon(&Ask::Publish);
            self.dirty.insert(Row::Packages);
            self.make_packages(0);
        }
    }

    /// Deletes the private keys of packages of last resort that no welcome should need any more.
    pub(super) fn forget_spent(&mut self, now: UnixMillis) {
        if self.mls.spent_since().is_some() {
            let at = self.session.server_time(now);
            self.mls.forget_spent(at.before(self.spent_kept()), at.after(SPENT_KEPT_MAX));
        }
    }

    fn spent_kept(&self) -> Duration {
        let worked_through = self.session.is_online() && self.inbound.is_empty();
        if worked_through { SPENT_KEPT } else { SPENT_KEPT_MAX }
    }

    /// Local time at which that is due.
    pub(super) fn spent_until(&self) -> Option<UnixMillis> {
        let since = self.mls.spent_since()?;
        Some(self.session.local_time(since.after(self.spent_kept())))
    }
}
