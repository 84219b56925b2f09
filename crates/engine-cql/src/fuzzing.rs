// SPDX-License-Identifier: MIT OR Apache-2.0
//! What fuzzing reaches that nothing else may.

use crate::codec;

/// Reads a stored value as everything that it might be; what reads is written again as the same bytes.
pub fn stored(bytes: &[u8]) {
    if let Ok(checkpoint) = codec::checkpoint(bytes) {
        assert_eq!(codec::checkpoint_bytes(&checkpoint), bytes);
    }
    if let (Ok(mark), Some(token)) = (codec::mark(bytes), bytes.first_chunk()) {
        assert_eq!(codec::mark_bytes(*token, &mark), bytes);
    }
    if let Ok(devices) = codec::devices(bytes) {
        assert_eq!(codec::devices_bytes(&devices), bytes);
    }
    if let Ok(roster) = codec::roster(bytes) {
        let again = codec::roster(&codec::roster_bytes(&roster)).map(|again| again.len() <= roster.len());
        assert!(again.unwrap_or(false), "a roster is written sorted");
    }
    if let Some(number) = bytes.first_chunk().map(|number| i64::from_be_bytes(*number)) {
        let _ = (codec::position(number), codec::mls_epoch(number), codec::log_epoch(number), codec::seq(number));
    }
}
