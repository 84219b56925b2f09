// SPDX-License-Identifier: MIT OR Apache-2.0
//! What happened, in order, as one hash: two runs of a seed are the same when their hashes are.

use std::fmt::{self, Write};
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// FNV-1a, 64 bits (Fowler, Noll, Vo): enough to tell two traces apart, and cheap.
struct Fnv(u64);

impl Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}

/// Is given every line, with the milliseconds since the start.
pub type Told = Box<dyn FnMut(u128, fmt::Arguments<'_>) + Send>;

struct State {
    hash: Fnv,
    events: u64,
    told: Option<Told>,
}

/// Takes one line per event.
pub struct Trace {
    start: Instant,
    state: Mutex<State>,
}

impl Trace {
    /// Gives the lines to `told` too.
    pub fn new(told: Option<Told>) -> Self {
        let state = State { hash: Fnv(0xcbf2_9ce4_8422_2325), events: 0, told };
        Self { start: Instant::now(), state: Mutex::new(state) }
    }
    /// Takes one event.
    pub fn line(&self, text: fmt::Arguments<'_>) {
        let at = self.start.elapsed().as_millis();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.events += 1;
        // Writing into a hash cannot fail.
        let _ = writeln!(state.hash, "{at} {text}");
        if let Some(told) = state.told.as_mut() {
            told(at, text);
        }
    }
    /// Hash and number of the events so far.
    pub fn digest(&self) -> (u64, u64) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.hash.0, state.events)
    }
}
