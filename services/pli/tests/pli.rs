// SPDX-License-Identifier: MIT OR Apache-2.0
//! The binary as its users meet it: started as a process, fed with arguments and signals, read from its output.

#[path = "pli/bad_input.rs"]
mod bad_input;
#[path = "pli/bot.rs"]
mod bot;
#[path = "pli/carriers.rs"]
mod carriers;
#[path = "pli/chatting.rs"]
mod chatting;
#[path = "pli/configuration.rs"]
mod configuration;
#[path = "pli/devices.rs"]
mod devices;
#[path = "pli/full_disk.rs"]
mod full_disk;
#[path = "pli/groups.rs"]
mod groups;
#[path = "pli/handing_over.rs"]
mod handing_over;
#[path = "pli/leaving.rs"]
mod leaving;
#[path = "pli/letting_in.rs"]
mod letting_in;
#[path = "pli/linking.rs"]
mod linking;
#[path = "pli/links.rs"]
mod links;
#[path = "pli/meeting.rs"]
mod meeting;
#[path = "pli/process.rs"]
mod process;
#[path = "pli/reading.rs"]
mod reading;
#[path = "pli/removing.rs"]
mod removing;
#[path = "pli/restoring.rs"]
mod restoring;
#[path = "pli/scripted.rs"]
mod scripted;
#[path = "pli/slow_links.rs"]
mod slow_links;
#[path = "pli/starting.rs"]
mod starting;
#[path = "pli/suites.rs"]
mod suites;
#[path = "pli/telling.rs"]
mod telling;
#[path = "pli/terminal.rs"]
mod terminal;
#[path = "pli/trusting.rs"]
mod trusting;
#[path = "pli/unusual.rs"]
mod unusual;
#[path = "pli/uploading.rs"]
mod uploading;
#[path = "pli/uploads.rs"]
mod uploads;
