// SPDX-License-Identifier: MIT OR Apache-2.0
//! The NATS engine against the conformance suites, lost ends, lost connections, bad servers and foreign hands, on real
//! servers.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "what tests share is test code too")]

#[path = "nats/check.rs"]
mod check;
#[path = "nats/conformance.rs"]
mod conformance;
#[path = "nats/loss.rs"]
mod loss;
#[path = "nats/reconnect.rs"]
mod reconnect;
#[path = "nats/security.rs"]
mod security;
#[path = "nats/support.rs"]
mod support;
#[path = "nats/versions.rs"]
mod versions;
#[path = "nats/window.rs"]
mod window;
