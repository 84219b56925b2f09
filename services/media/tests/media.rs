// SPDX-License-Identifier: MIT OR Apache-2.0
//! The media service as its callers see it: through a generated client, over the in-memory model of its store and over
//! objects in memory and in a folder.

#[path = "media/bounds.rs"]
mod bounds;
#[path = "media/crashes.rs"]
mod crashes;
#[path = "media/fixture.rs"]
mod fixture;
#[path = "media/uploads.rs"]
mod uploads;
