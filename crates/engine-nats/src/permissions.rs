// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which role may use which subject: the only place where that is written, and what nats-server is configured from.
//!
//! Answers arrive in inboxes of the role's own name: with a shared inbox one role could listen to what another one is
//! answered, and so an edge to what an owner reads.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::Layout;
use crate::names::{FENCE, LEASE_BUCKET, LEASE_STREAM};

/// What a process does on the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Appends, asks owners, is rung. Reads no shard log.
    Edge,
    /// Follows and trims shard logs, holds leases, rings edges; spreads messages to many shards as an edge does.
    Delivery,
    /// Appends commits. Reads nothing.
    Conversations,
    /// Tells edges and owners which devices were removed. Reads nothing.
    Directory,
    /// Creates and changes streams.
    Operator,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 5] = [Self::Edge, Self::Delivery, Self::Conversations, Self::Directory, Self::Operator];

    /// Its word in subjects.
    pub fn name(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Delivery => "delivery",
            Self::Conversations => "conversations",
            Self::Directory => "directory",
            Self::Operator => "operator",
        }
    }
}

/// Where the answers to a process of these roles arrive, without the last part.
pub(crate) fn inbox(roles: &[Role]) -> String {
    let names: BTreeSet<&str> = roles.iter().map(|role| role.name()).collect();
    let names: Vec<&str> = names.into_iter().collect();
    if names.is_empty() { "pli.inbox.none".into() } else { format!("pli.inbox.{}", names.join("-")) }
}

/// What a process may send to and listen to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permissions {
    /// Subjects that it may publish to.
    pub publish: BTreeSet<String>,
    /// Subjects that it may subscribe to.
    pub subscribe: BTreeSet<String>,
    /// Whether it may answer what it is asked, once.
    pub answers: bool,
}

impl Permissions {
    /// Of a process with all of these roles.
    pub fn of(roles: &[Role], layout: &Layout) -> Self {
        let mut all = Self::default();
        all.subscribe.insert(format!("{}.>", inbox(roles)));
        all.publish.insert(FENCE.into());
        // Settings and fill levels; every role checks them when it starts.
        all.publish.insert("$JS.API.STREAM.INFO.*".into());
        for role in roles {
            all.allow(*role, layout);
        }
        all
    }

    fn allow(&mut self, role: Role, layout: &Layout) {
        match role {
            Role::Edge => {
                self.publish.extend(["pli.log.*".into(), "pli.owner.*".into()]);
                self.subscribe.extend(["pli.edge.*".into(), "pli.edges".into()]);
            }
            Role::Conversations => {
                self.publish.insert("pli.log.*".into());
            }
            Role::Directory => {
                self.publish.extend(["pli.owner.*".into(), "pli.edges".into()]);
            }
            Role::Delivery => {
                // The fan-out workers beside the owners do what edges do.
                self.allow(Role::Edge, layout);
                self.publish.extend(["pli.edge.*".into(), "pli.edges".into()]);
                self.subscribe.insert("pli.owner.*".into());
                self.answers = true;
                for stream in layout.log_streams() {
                    self.publish.extend([
                        format!("$JS.API.STREAM.MSG.GET.{stream}"),
                        format!("$JS.API.STREAM.PURGE.{stream}"),
                        format!("$JS.API.CONSUMER.CREATE.{stream}.*.pli.log.*"),
                        format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.*"),
                        format!("$JS.API.CONSUMER.DELETE.{stream}.*"),
                    ]);
                }
                self.publish.extend([
                    format!("$JS.API.STREAM.MSG.GET.{LEASE_STREAM}"),
                    format!("$JS.API.DIRECT.GET.{LEASE_STREAM}"),
                    format!("$KV.{LEASE_BUCKET}.*"),
                    format!("$KV.{LEASE_BUCKET}.worker.*"),
                ]);
            }
            Role::Operator => {
                self.publish.extend([
                    "$JS.API.STREAM.CREATE.*".into(),
                    "$JS.API.STREAM.UPDATE.*".into(),
                    "$JS.API.INFO".into(),
                ]);
            }
        }
    }
}

/// One user of the server: who, and what for.
#[derive(Debug, Clone)]
pub struct User {
    /// Public NKey, `U…`.
    pub nkey: String,
    /// Roles of the processes that use it.
    pub roles: Vec<Role>,
}

/// The `authorization` block of nats-server's configuration for these users.
pub fn authorization(users: &[User], layout: &Layout) -> String {
    let mut text = String::from("authorization {\n  users = [\n");
    for user in users {
        let allowed = Permissions::of(&user.roles, layout);
        let list = |subjects: &BTreeSet<String>| {
            let quoted: Vec<String> = subjects.iter().map(|subject| format!("\"{subject}\"")).collect();
            quoted.join(", ")
        };
        let names: Vec<&str> = user.roles.iter().map(|role| role.name()).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "    # {}", names.join(", "));
        let _ = writeln!(text, "    {{ nkey: \"{}\", permissions: {{", user.nkey);
        let _ = writeln!(text, "      publish: {{ allow: [{}] }}", list(&allowed.publish));
        let _ = writeln!(text, "      subscribe: {{ allow: [{}] }}", list(&allowed.subscribe));
        if allowed.answers {
            text.push_str("      allow_responses: { max: 1, expires: \"1m\" }\n");
        }
        text.push_str("    } }\n");
    }
    text.push_str("  ]\n}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_delivery_reads_a_log() {
        let layout = Layout::default();
        for role in Role::ALL {
            let allowed = Permissions::of(&[role], &layout);
            let reads = |subject: &String| {
                subject.contains(".MSG.GET.PLI_LOG") || subject.contains("CONSUMER") || subject.contains('>')
            };
            assert_eq!(allowed.publish.iter().any(reads), role == Role::Delivery, "{role:?}");
            assert!(!allowed.subscribe.iter().any(|subject| subject.contains("log")), "{role:?}");
        }
    }

    #[test]
    fn the_page_for_operators_shows_what_is_rendered() {
        let page = include_str!("../../../docs/operations.md");
        let user = |role: &Role| User { nkey: format!("U{}", role.name().to_uppercase()), roles: vec![*role] };
        let users: Vec<User> = Role::ALL.iter().map(user).collect();
        let rendered = authorization(&users, &Layout { shards: 16, streams: 1, ..Layout::default() });
        assert!(page.contains(&rendered), "docs/operations.md must show:\n{rendered}");
    }

    #[test]
    fn no_two_sets_of_roles_share_an_inbox() {
        let sets: [&[Role]; 5] =
            [&[Role::Edge], &[Role::Delivery], &[Role::Delivery, Role::Edge], &[Role::Conversations], &[]];
        let inboxes: BTreeSet<String> = sets.iter().map(|roles| inbox(roles)).collect();
        assert_eq!(inboxes.len(), sets.len());
        assert_eq!(inbox(&[Role::Edge, Role::Delivery]), inbox(&[Role::Delivery, Role::Edge]));
    }
}
