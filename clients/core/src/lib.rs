// SPDX-License-Identifier: MIT OR Apache-2.0
//! The client without I/O: MLS, outbox, ordering, dedupe, change sets.
