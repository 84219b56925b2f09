// SPDX-License-Identifier: MIT OR Apache-2.0
//! The configuration file of each process.

use std::path::Path;

use super::ClusterSettings;
use super::authority::{Authority, Files};
use super::member::{Plan, Role};
use crate::engines::cassandra::Cassandra;
use crate::engines::nats::NatsServers;

/// Bytes of the one stream: more than the benches append at full rate before an owner trims.
const STREAM_BYTES_MAX: u64 = 2 << 30;
/// Shards; two workers share them.
const SHARDS: u32 = 16;

/// What is the same for all.
pub(super) struct Common {
    /// `[engine]`, `[nats]`, `[cql]` and what the caller adds.
    sections: String,
    /// Where the internal roles listen.
    directory: Vec<String>,
    conversations: Vec<String>,
    links: Vec<String>,
    media: Vec<String>,
    /// The line that every process begins with, where it speaks an older version.
    protocol: String,
    /// What edges show.
    public: Files,
}

/// The setting of an older version.
pub(super) fn protocol_line(version: u16) -> String {
    format!("protocol_version = {version}\n")
}

/// `["a", "b"]`, as TOML spells it.
fn list<S: AsRef<str>>(items: &[S]) -> String {
    let quoted: Vec<String> = items.iter().map(|item| format!("{:?}", item.as_ref())).collect();
    format!("[{}]", quoted.join(", "))
}

impl Common {
    pub fn new(
        settings: &ClusterSettings,
        (nats, cql): (&NatsServers, &Cassandra),
        plans: &[Plan],
        public: &Files,
    ) -> Self {
        let listening = |role| -> Vec<String> {
            let of_role = plans.iter().filter(|plan| plan.role == role);
            of_role.map(|plan| format!("127.0.0.1:{}", plan.port)).collect()
        };
        let servers: Vec<String> = nats.addresses().iter().map(|address| format!("nats://{address}")).collect();
        let sections = format!(
            "[engine]
kind = \"cluster\"
shards = {SHARDS}

[nats]
servers = {servers}
monitors = {monitors}
streams = 1
replicas = {nats_replicas}
stream_bytes_max = {STREAM_BYTES_MAX}
dangerously_allow_one_replica = {one_replica}

[cql]
contact_points = {contact_points}
keyspace = \"pli\"
datacentre = \"datacenter1\"
replication = {cql_replicas}
compaction = \"unified\"
production = {production}

{more}",
            servers = list(&servers),
            monitors = list(&nats.monitors()),
            nats_replicas = settings.nats,
            one_replica = settings.nats == 1,
            contact_points = list(&cql.contact_points()),
            cql_replicas = settings.cql,
            production = settings.cql >= 3,
            more = settings.more,
        );
        let (directory, conversations) = (listening(Role::Directory), listening(Role::Conversations));
        let (links, media) = (listening(Role::Links), listening(Role::Media));
        let protocol = settings.protocol_version.map(protocol_line).unwrap_or_default();
        Self { sections, directory, conversations, links, media, protocol, public: public.clone() }
    }

    /// The file of one process, whose own files lie in `data`.
    pub fn text(&self, plan: &Plan, authority: &Authority, certificate: &Files, data: &Path) -> String {
        let Plan { role, port, admin_port, .. } = plan;
        let public = match role {
            Role::Edge => format!(
                "port = {port}\ncertificate_file = {:?}\nkey_file = {:?}\n",
                self.public.certificate.display().to_string(),
                self.public.key.display().to_string()
            ),
            _ => String::new(),
        };
        let internal = match role {
            Role::Directory | Role::Conversations | Role::Links | Role::Media => {
                format!("host = \"127.0.0.1\"\nport = {port}\n")
            }
            _ => String::new(),
        };
        let mut others = String::new();
        // A role that is in this process is not looked for elsewhere.
        let served = [
            (Role::Directory, &self.directory),
            (Role::Conversations, &self.conversations),
            (Role::Links, &self.links),
            (Role::Media, &self.media),
        ];
        for (other, addresses) in served {
            if other != *role {
                others += &format!("{other} = {}\n", list(addresses));
            }
        }
        format!(
            "[server]
host = \"127.0.0.1\"
admin_host = \"127.0.0.1\"
admin_port = {admin_port}
data = {data:?}
{public}
[internal]
{protocol}{internal}{others}ca_file = {ca:?}
certificate_file = {certificate:?}
key_file = {key:?}

[media]
folder = {media:?}

{sections}",
            data = data.display().to_string(),
            protocol = self.protocol,
            // All processes with the role share it.
            media = data.with_file_name("media").display().to_string(),
            ca = authority.certificate().display().to_string(),
            certificate = certificate.certificate.display().to_string(),
            key = certificate.key.display().to_string(),
            sections = self.sections,
        )
    }
}
