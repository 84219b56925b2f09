// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which roles a process has, and what each of them needs.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

/// One part of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sessions of clients; keeps nothing.
    Edge,
    /// Owners of shards.
    Delivery,
    /// Groups and their commits.
    Conversations,
    /// Accounts, handles, device lists, key packages.
    Directory,
    /// Rendezvous of new devices.
    Links,
    /// Sealed uploads.
    Media,
}

impl Role {
    /// Every role, as `pli dev` runs them.
    pub const ALL: [Self; 6] =
        [Self::Edge, Self::Delivery, Self::Conversations, Self::Directory, Self::Links, Self::Media];

    /// Its word in flags, files and certificates.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Delivery => "delivery",
            Self::Conversations => "conversations",
            Self::Directory => "directory",
            Self::Links => "links",
            Self::Media => "media",
        }
    }

    /// What a certificate of a process with this role is valid for.
    pub fn dns_name(self) -> String {
        format!("{}.pli.internal", self.name())
    }

    /// What it is on the bus; links and media are not on it.
    pub const fn on_the_bus(self) -> Option<pli_engine_nats::Role> {
        match self {
            Self::Edge => Some(pli_engine_nats::Role::Edge),
            Self::Delivery => Some(pli_engine_nats::Role::Delivery),
            Self::Conversations => Some(pli_engine_nats::Role::Conversations),
            Self::Directory => Some(pli_engine_nats::Role::Directory),
            Self::Links | Self::Media => None,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The roles of a process, at least one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Roles(BTreeSet<Role>);

impl Roles {
    /// All of them.
    pub fn all() -> Self {
        Self(Role::ALL.into())
    }
    /// Those named; all when none is.
    pub fn named(named: &[Role]) -> Self {
        if named.is_empty() { Self::all() } else { Self(named.iter().copied().collect()) }
    }
    /// Whether the process has this role.
    pub fn has(&self, role: Role) -> bool {
        self.0.contains(&role)
    }
    /// Whether it has all of them.
    pub fn is_all(&self) -> bool {
        self.0.len() == Role::ALL.len()
    }
    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = Role> + '_ {
        self.0.iter().copied()
    }
    /// What the process is on the bus.
    pub fn on_the_bus(&self) -> Vec<pli_engine_nats::Role> {
        self.iter().filter_map(Role::on_the_bus).collect()
    }
    /// Whether any of them reads or writes tables.
    pub fn need_tables(&self) -> bool {
        self.iter().any(|role| role != Role::Edge)
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(Role::name).collect();
        f.write_str(&names.join(", "))
    }
}
