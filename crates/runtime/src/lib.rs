// SPDX-License-Identifier: MIT OR Apache-2.0
//! Configuration, telemetry, health and shutdown, the same for every role.
