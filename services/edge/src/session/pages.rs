// SPDX-License-Identifier: MIT OR Apache-2.0
//! How large a page a session asks its owner for.

/// Pages that must come in time before the next one is asked for twice as large.
const IN_TIME: u32 = 8;

/// Rows of the next page: half as many after each one that did not come in time, down to a single row, so that a database
/// which needs longer for a whole page than the edge waits is still drained; twice as many after [`IN_TIME`] that did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageRows {
    most: u32,
    rows: u32,
    /// Of the page asked for last; fewer where the window had less room.
    asked: u32,
    in_time: u32,
}

impl PageRows {
    /// Never more than `most`, and at first as many.
    pub(crate) fn new(most: u32) -> Self {
        let most = most.max(1);
        Self { most, rows: most, asked: most, in_time: 0 }
    }

    /// Rows to ask for with room for so many.
    pub(crate) fn ask(&mut self, room: usize) -> u32 {
        self.asked = self.rows.min(u32::try_from(room).unwrap_or(u32::MAX)).max(1);
        self.asked
    }

    /// The page came in time.
    pub(crate) fn came(&mut self) {
        self.in_time += 1;
        if self.in_time >= IN_TIME {
            self.in_time = 0;
            self.rows = self.rows.saturating_mul(2).min(self.most);
        }
    }

    /// It did not.
    pub(crate) fn late(&mut self) {
        self.in_time = 0;
        self.rows = (self.asked / 2).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_page_halves_the_next_down_to_one_row_and_pages_in_time_double_it_again() {
        let mut pages = PageRows::new(256);
        assert_eq!((pages.ask(500), pages.ask(20)), (256, 20));
        for expected in [10, 5, 2, 1, 1] {
            pages.late();
            assert_eq!(pages.ask(500), expected);
        }
        for expected in [2, 4, 8] {
            (0..IN_TIME - 1).for_each(|_| pages.came());
            assert_eq!(pages.ask(500), expected / 2);
            pages.came();
            assert_eq!(pages.ask(500), expected);
        }
        (0..20 * IN_TIME).for_each(|_| pages.came());
        assert_eq!(pages.ask(500), 256, "never above the most");
    }
}
