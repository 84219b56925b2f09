// SPDX-License-Identifier: MIT OR Apache-2.0
//! The CQL engine against the conformance suites, killed nodes, wrong credentials and schemas, on a real node.
//!
//! `make engine-cassandra` fetches Apache Cassandra; one node serves all of these. `PLI_TEST_CQL=host:port` names a
//! server that is there already (with `PLI_TEST_CQL_USER`, `_PASSWORD`, `_DATACENTRE`), which is not broken.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "what tests share is test code too")]

#[path = "cql/conformance.rs"]
mod conformance;
#[path = "cql/opening.rs"]
mod opening;
#[path = "cql/outages.rs"]
mod outages;
#[path = "cql/removal.rs"]
mod removal;
#[path = "cql/ring.rs"]
mod ring;
#[path = "cql/rival_accounts.rs"]
mod rival_accounts;
#[path = "cql/rivals.rs"]
mod rivals;
#[path = "cql/speed.rs"]
mod speed;
#[path = "cql/support.rs"]
mod support;
