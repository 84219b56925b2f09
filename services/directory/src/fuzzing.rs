// SPDX-License-Identifier: MIT OR Apache-2.0
//! What fuzzing reaches that nothing else may.

use bytes::Bytes;
use openmls_rust_crypto::RustCrypto;

/// Reads a key package; whether it is one that verifies.
pub fn key_package(bytes: &Bytes) -> bool {
    crate::key_package::still_valid(&RustCrypto::default(), bytes)
}
