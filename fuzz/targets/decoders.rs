// SPDX-License-Identifier: MIT OR Apache-2.0
#![no_main]
//! See `pli_fuzzing::decoders`.

pli_fuzz::target!("decoders");
