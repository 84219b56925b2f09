// SPDX-License-Identifier: MIT OR Apache-2.0
//! Acknowledgements: max-registers in memory.

use pli_api::delivery;
use pli_domain::mutant::{Mutant, broken};
use pli_domain::{DeviceId, Position, SessionId};
use pli_runtime::trail::{HopKind, tag};
use tokio::time::Instant;

use super::live::Live;

impl Live {
    /// A device has committed everything up to a position. One above what can have been sent is ignored.
    pub fn ack(&mut self, ack: &delivery::Ack) {
        let parsed = (
            DeviceId::try_from(ack.device.as_ref()),
            SessionId::try_from(ack.session.as_ref()),
            Position::from_u64(ack.position),
        );
        let (Ok(device), Ok(session), Ok(position)) = parsed else {
            self.context.counters.malformed(1);
            return;
        };
        if position.epoch() > self.epoch.epoch {
            self.check_epoch();
        }
        if position > self.furthest() {
            self.context.counters.acks_ignored(1);
            return;
        }
        self.context.hop_of_session(HopKind::Passed, position, tag(session.as_bytes()));
        self.heard_of(device, session);
        self.raise_cursor(device, position);
        self.devices.release(device, self.context.config.idle_devices_max);
    }

    /// The highest position that anybody can have been sent as far as this owner knows: another owner may have read
    /// further, but not beyond the log.
    pub fn furthest(&self) -> Position {
        self.head.max(Position::end_of(self.epoch.epoch, self.log_head))
    }

    /// Moves a cursor on. It never goes back (Q5).
    pub fn raise_cursor(&mut self, id: DeviceId, to: Position) {
        let checkpoint = self.checkpoint.position;
        let device = self.devices.entry(id);
        if to <= device.cursor {
            if broken(Mutant::CursorGoesBack) {
                device.cursor = to;
            }
            return;
        }
        device.cursor = to;
        if device.rows.is_none() && to <= checkpoint && !device.loaded {
            // It acknowledges what is not in the tail, so there are rows that this owner did not write.
            device.suppose_rows(to);
        }
        if let Some(rows) = &mut device.rows {
            if to >= rows.high {
                self.context.counters.acked(std::mem::take(&mut rows.count));
                rows.bytes = 0;
            }
            device.acks = device.acks.saturating_add(1);
            device.trim_since.get_or_insert_with(Instant::now);
            self.devices.dirty.insert(id);
        }
        self.pass(id);
    }

    /// Takes away what the device's cursor or floor has passed.
    pub fn pass(&mut self, id: DeviceId) {
        let Some(device) = self.devices.get_mut(id) else { return };
        let (mut acked, mut gapped) = (0, 0);
        while let Some(slot) = device.slots.front() {
            match slot.position {
                position if position <= device.cursor => acked += 1,
                position if position <= device.floor => {
                    gapped += 1;
                    self.context.hop(HopKind::Gone, position);
                }
                _ => break,
            }
            self.tail.close(slot.ordinal);
            device.slots.pop_front();
        }
        self.context.counters.acked(acked);
        self.context.counters.gapped(gapped);
    }
}
