// SPDX-License-Identifier: MIT OR Apache-2.0
//! What fuzzing feeds, and what must hold then: the bodies of the fuzz targets of `fuzz/`, so that ordinary tests run them
//! too, over the seeds and over everything that was found. See docs/fuzzing.md.

mod client;
mod cluster;
mod decoders;
mod line;
mod mutate;
mod person;
mod recorded;
mod samples;
mod seeds;
mod sessions;
mod strangers;
mod tape;
mod templates;
mod wire;

pub use client::client;
pub use decoders::{CONTRACTS, DECODERS, Decoder, decoders};
pub use line::{Happening, What};
pub use person::{Rows, load};
pub use recorded::{NONCE, Session, replay};
pub use seeds::seeds;
pub use sessions::sessions;

/// A fuzz target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// As `make fuzz TARGET=` calls it.
    pub name: &'static str,
    /// Runs one input; panics at what must not be.
    pub run: fn(&[u8]),
    /// Most bytes in use at a time while an input of so many bytes runs, above those in use before.
    pub memory_max: fn(usize) -> usize,
}

impl Target {
    /// Looks at the memory that an input took.
    ///
    /// # Panics
    /// When it is too much.
    pub fn check_memory(&self, input: &[u8], taken: usize) {
        let most = (self.memory_max)(input.len());
        assert!(taken <= most, "{}: {taken} bytes in use for an input of {}; at most {most}", self.name, input.len());
    }
}

const MIB: usize = 1024 * 1024;

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "decoders", run: decoders, memory_max: |input| 4 * MIB + mutate::MEMORY_MAX + 64 * input },
    Target { name: "client", run: client, memory_max: |_| client::MEMORY_MAX },
    Target { name: "sessions", run: sessions, memory_max: |_| 256 * MIB },
];

/// Records what targets are made from, so that it counts for no input.
pub fn prepare() {
    let _ = (samples::samples(), templates::templates(), strangers::answers(strangers::GROUP_INFO));
}
