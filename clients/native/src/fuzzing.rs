// SPDX-License-Identifier: MIT OR Apache-2.0
//! What fuzzing reaches that nothing else may.

/// Reads what two devices keep of each other for archives; what reads is written and read again as the same.
///
/// # Panics
/// When it is not.
pub fn history_record(stored: &[u8]) {
    assert!(crate::handover::read_again(stored) != Some(false), "what was read is written again as the same");
}
