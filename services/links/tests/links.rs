// SPDX-License-Identifier: MIT OR Apache-2.0
//! The links service as its callers see it: through a generated client, over the in-memory model of its store.

#[path = "links/bounds.rs"]
mod bounds;
#[path = "links/fixture.rs"]
mod fixture;
#[path = "links/rendezvous.rs"]
mod rendezvous;
#[path = "links/waits.rs"]
mod waits;
