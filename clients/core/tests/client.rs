// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cores that talk through a small server in memory: chats, groups, races, re-joins, and kills between any two steps.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "client/absent.rs"]
mod absent;
#[path = "client/adversary.rs"]
mod adversary;
#[path = "client/bounds.rs"]
mod bounds;
#[path = "client/chat.rs"]
mod chat;
#[path = "client/converge.rs"]
mod converge;
#[path = "client/converge_devices.rs"]
mod converge_devices;
#[path = "client/crowd.rs"]
mod crowd;
#[path = "client/devices.rs"]
mod devices;
#[path = "client/ghost.rs"]
mod ghost;
#[path = "client/groups.rs"]
mod groups;
#[path = "client/kills.rs"]
mod kills;
#[path = "client/large.rs"]
mod large;
#[path = "client/leavers.rs"]
mod leavers;
#[path = "client/lost.rs"]
mod lost;
#[path = "client/overflow.rs"]
mod overflow;
#[path = "client/own_list.rs"]
mod own_list;
#[path = "client/pairs.rs"]
mod pairs;
#[path = "client/refresh.rs"]
mod refresh;
#[path = "client/restored.rs"]
mod restored;
#[path = "client/rough.rs"]
mod rough;
#[path = "client/seized.rs"]
mod seized;
#[path = "client/server.rs"]
mod server;
#[path = "client/suites.rs"]
mod suites;
#[path = "client/vouching.rs"]
mod vouching;
#[path = "client/world.rs"]
mod world;
