// SPDX-License-Identifier: MIT OR Apache-2.0
//! Measurements with their limits.
