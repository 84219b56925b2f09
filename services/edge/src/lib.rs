// SPDX-License-Identifier: MIT OR Apache-2.0
//! The authenticating gateway: sessions, limits, backpressure. Keeps nothing durable.
