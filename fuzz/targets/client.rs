// SPDX-License-Identifier: MIT OR Apache-2.0
#![no_main]
//! See `pli_fuzzing::client`.

pli_fuzz::target!("client");
