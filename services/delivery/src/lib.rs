// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shard owners: from the shard log to device queues, doorbells, acknowledgement and retention.
