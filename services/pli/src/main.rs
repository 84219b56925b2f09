// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one binary and the only composition root.
fn main() {}
