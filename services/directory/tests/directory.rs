// SPDX-License-Identifier: MIT OR Apache-2.0
//! The directory as its callers see it: through a generated client, over the in-memory model of its store.

#[path = "directory/fixture.rs"]
mod fixture;
#[path = "directory/key_packages.rs"]
mod key_packages;
#[path = "directory/lists.rs"]
mod lists;
#[path = "directory/registration.rs"]
mod registration;
#[path = "directory/removals.rs"]
mod removals;
