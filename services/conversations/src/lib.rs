// SPDX-License-Identifier: MIT OR Apache-2.0
//! Conversations: rosters, epochs, one commit per epoch, fan-out.
