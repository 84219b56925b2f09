// SPDX-License-Identifier: MIT OR Apache-2.0
//! What all fan-out workers of a process hold together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts bodies that are not stored as payloads yet, and parts that are not settled. Both only grow by what a worker has
/// read, so that a worker which reads no more while there is no room bounds them up to a page and a window of doorbells.
pub(crate) struct Room {
    bodies: Arc<AtomicUsize>,
    bodies_max: usize,
    parts: Arc<AtomicUsize>,
    parts_max: usize,
}

impl Room {
    pub(crate) fn new(bodies_max: usize, parts_max: usize) -> Self {
        Self { bodies: Arc::default(), bodies_max, parts: Arc::default(), parts_max }
    }

    /// Whether a worker may read more.
    pub(crate) fn is_left(&self) -> bool {
        self.bodies.load(Ordering::Relaxed) < self.bodies_max && self.parts.load(Ordering::Relaxed) < self.parts_max
    }

    /// Counts so many bytes until they are dropped.
    pub(super) fn hold(&self, bytes: usize) -> Held {
        self.bodies.fetch_add(bytes, Ordering::Relaxed);
        Held { of: self.bodies.clone(), bytes }
    }

    /// For those who count parts. They are no receipts of sessions, whose room they must not take.
    pub(super) const fn parts(&self) -> &Arc<AtomicUsize> {
        &self.parts
    }
}

/// Bytes of one body.
pub(super) struct Held {
    of: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_again_when_what_was_held_is_dropped() {
        let room = Room::new(10, 2);
        let held = room.hold(10);
        assert!(!room.is_left());
        drop(held);
        assert!(room.is_left());
        room.parts().fetch_add(2, Ordering::Relaxed);
        assert!(!room.is_left());
    }
}
