// SPDX-License-Identifier: MIT OR Apache-2.0
//! A whole cluster on one machine: NATS servers, CQL nodes and every role of Pli, each a process of its own on
//! loopback, which can be killed, stopped for a while, ended in order and started again on what it has.
//!
//! Every process ends with the one that started it, however that ends.

mod authority;
mod configuration;
mod error;
mod member;

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use crate::engines::cassandra::{self, Cassandra, Launch};
use crate::engines::child::without_settings;
use crate::engines::nats::{self, Down, NatsServers, NatsSettings};
use crate::engines::ports::free_ports;

use authority::Authority;
pub use error::ClusterError;
pub use member::{Edge, Role};
use member::{Member, Plan};

/// `pli migrate` is tried for so long: servers that have just met have no leaders yet.
const MIGRATED_WITHIN: Duration = Duration::from_secs(90);
/// One try of it.
const MIGRATION: Duration = Duration::from_secs(60);
/// Between two tries.
const MIGRATION_PAUSE: Duration = Duration::from_millis(500);
/// Two ports each: sessions or the internal side, and the admin side.
const PORTS_EACH: usize = 2;

/// What a cluster consists of.
#[derive(Debug, Clone)]
pub struct ClusterSettings {
    /// The binary `pli`.
    pub program: PathBuf,
    /// Folder for everything; made when it does not exist, and what an earlier cluster left there is removed.
    pub folder: PathBuf,
    /// NATS servers and replicas of the streams: 1, or 3.
    pub nats: usize,
    /// CQL nodes and replicas of the keyspace: 1, or 3.
    pub cql: u8,
    /// How many processes of each role.
    pub roles: Vec<(Role, usize)>,
    /// Version of the protocol between roles that all speak at first; the newest without one.
    pub protocol_version: Option<u16>,
    /// Sections that every configuration file gets besides, as TOML: settings of the services, `[logs]`.
    pub more: String,
}

impl ClusterSettings {
    /// Three servers of each kind, two processes of each role.
    pub fn full(program: PathBuf, folder: PathBuf) -> Self {
        let roles = Role::ALL.map(|role| (role, 2)).to_vec();
        Self { program, folder, nats: 3, cql: 3, roles, protocol_version: None, more: String::new() }
    }

    /// One server of each kind, two edges, two delivery workers, one process of the other roles.
    pub fn small(program: PathBuf, folder: PathBuf) -> Self {
        let count = |role| if matches!(role, Role::Edge | Role::Delivery) { 2 } else { 1 };
        let roles = Role::ALL.map(|role| (role, count(role))).to_vec();
        Self { program, folder, nats: 1, cql: 1, roles, protocol_version: None, more: String::new() }
    }
}

/// A running cluster. Dropping it kills every process.
#[derive(Debug)]
pub struct Cluster {
    settings: ClusterSettings,
    nats: NatsServers,
    cql: Cassandra,
    members: Vec<Member>,
}

impl Cluster {
    /// Starts everything and waits until it is ready; says to `told` what is being waited for.
    ///
    /// # Errors
    ///
    /// [`ClusterError::Engine`] with [`EngineError::Unavailable`](crate::engines::EngineError::Unavailable) where this
    /// machine cannot run the servers: a test is skipped then.
    pub async fn start(settings: ClusterSettings, told: &(dyn Fn(&str) + Sync)) -> Result<Self, ClusterError> {
        let binary = nats::binary().map_err(ClusterError::unavailable)?;
        let jars = cassandra::jars()?;
        let folder = settings.folder.clone();
        for part in ["nats", "cql", "roles", "logs"] {
            let part = folder.join(part);
            if part.exists() {
                fs::remove_dir_all(&part).map_err(ClusterError::io("removing an earlier cluster"))?;
            }
            fs::create_dir_all(&part).map_err(ClusterError::io("making the cluster's folder"))?;
        }
        told(&format!("{} NATS servers", settings.nats));
        let servers = NatsSettings { servers: settings.nats, max_file_store: 3 << 30, ..NatsSettings::default() };
        let nats = NatsServers::start(&binary, &folder.join("nats"), servers).await.map_err(ClusterError::nats)?;
        let addresses = cassandra::free_addresses(settings.cql)?;
        let launch = Launch { jars, folder: folder.join("cql"), nodes: settings.cql, login: false, certificate: None };
        let cql = Cassandra::start_telling(launch, &addresses, told).await?;
        let members = members(&settings, (&nats, &cql))?;
        let mut cluster = Self { settings, nats, cql, members };
        told("`pli migrate`: streams and tables");
        cluster.migrate().await?;
        cluster.start_members(told).await?;
        Ok(cluster)
    }

    async fn migrate(&self) -> Result<(), ClusterError> {
        let end = Instant::now() + MIGRATED_WITHIN;
        let config = self.members[0].config();
        loop {
            let mut command = std::process::Command::new(&self.settings.program);
            without_settings(&mut command);
            let mut command = Command::from(command);
            command.arg("migrate").arg("--config").arg(config).kill_on_drop(true);
            let output = match timeout(MIGRATION, command.output()).await {
                Ok(output) => output.map_err(ClusterError::io("starting `pli migrate`"))?,
                Err(_) => return Err(ClusterError::Migration(format!("no end within {MIGRATION:?}"))),
            };
            if output.status.success() {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(ClusterError::Migration(String::from_utf8_lossy(&output.stderr).into_owned()));
            }
            sleep(MIGRATION_PAUSE).await;
        }
    }

    async fn start_members(&mut self, told: &(dyn Fn(&str) + Sync)) -> Result<(), ClusterError> {
        let program = self.settings.program.clone();
        for member in &mut self.members {
            member.spawn(&program)?;
        }
        for member in &mut self.members {
            told(member.name());
            member.ready().await?;
        }
        Ok(())
    }

    /// The edges, in order.
    pub fn edges(&self) -> Vec<Edge> {
        self.members.iter().filter_map(Member::edge).collect()
    }

    /// Names of the processes with a role, as `edge-1`; all of them without one.
    pub fn names(&self, role: Option<Role>) -> Vec<String> {
        let wanted = |member: &&Member| role.is_none_or(|role| member.role() == role);
        self.members.iter().filter(wanted).map(|member| member.name().to_owned()).collect()
    }

    /// The same, of those that run.
    pub fn running(&self, role: Option<Role>) -> Vec<String> {
        let wanted = |member: &&Member| !member.is_down() && role.is_none_or(|role| member.role() == role);
        self.members.iter().filter(wanted).map(|member| member.name().to_owned()).collect()
    }

    /// Where a process tells health and metrics.
    pub fn admin(&self, name: &str) -> Option<String> {
        self.members.iter().find(|member| member.name() == name).and_then(Member::admin)
    }

    /// Process ids of the roles that run.
    pub fn process_ids(&self) -> Vec<u32> {
        self.members.iter().filter_map(Member::process_id).collect()
    }

    /// Process ids of the NATS servers and CQL nodes that run.
    pub fn engine_process_ids(&self) -> Vec<u32> {
        [self.nats.process_ids(), self.cql.process_ids()].concat()
    }

    /// Addresses of the NATS servers for clients.
    pub fn nats_addresses(&self) -> Vec<String> {
        self.nats.addresses()
    }

    /// Where the logs of all processes of Pli lie.
    pub fn logs(&self) -> PathBuf {
        self.settings.folder.join("logs")
    }

    fn member(&mut self, name: &str) -> Result<&mut Member, ClusterError> {
        let found = self.members.iter_mut().find(|member| member.name() == name);
        found.ok_or_else(|| ClusterError::NoMember(name.to_owned()))
    }

    /// SIGKILL; returns when it is gone.
    pub fn kill(&mut self, name: &str) -> Result<(), ClusterError> {
        self.member(name)?.kill();
        Ok(())
    }

    /// Kills every process of Pli, the signals first.
    pub fn kill_members(&mut self) {
        self.members.iter_mut().for_each(Member::signal_kill);
        self.members.iter_mut().for_each(Member::kill);
    }

    /// SIGSTOP: it does nothing any more and does not know.
    pub fn pause(&mut self, name: &str) -> Result<(), ClusterError> {
        self.member(name)?.pause();
        Ok(())
    }

    /// SIGCONT after [`Cluster::pause`].
    pub fn go_on(&mut self, name: &str) -> Result<(), ClusterError> {
        self.member(name)?.go_on();
        Ok(())
    }

    /// SIGTERM; returns when it has ended, and fails if it did not end with exit code 0 in its time.
    pub async fn end(&mut self, name: &str) -> Result<(), ClusterError> {
        self.member(name)?.end().await
    }

    /// Has a process that is down speak the newest version of the protocol between roles from its next start on.
    pub fn speak_newest(&mut self, name: &str) -> Result<(), ClusterError> {
        let Some(version) = self.settings.protocol_version else { return Ok(()) };
        let config = self.member(name)?.config();
        let read = fs::read_to_string(config).map_err(ClusterError::io("reading a configuration"))?;
        let text = read.replace(&configuration::protocol_line(version), "");
        fs::write(config, text).map_err(ClusterError::io("writing a configuration"))
    }

    /// Starts a process that is down on its addresses and folder, and waits until it is ready.
    pub async fn restart(&mut self, name: &str) -> Result<(), ClusterError> {
        let program = self.settings.program.clone();
        let member = self.member(name)?;
        member.spawn(&program)?;
        member.ready().await
    }

    /// Starts every process of Pli that is down, together.
    pub async fn restart_members(&mut self) -> Result<(), ClusterError> {
        let program = self.settings.program.clone();
        let mut down: Vec<&mut Member> = self.members.iter_mut().filter(|member| member.is_down()).collect();
        for member in &mut down {
            member.spawn(&program)?;
        }
        for member in down {
            member.ready().await?;
        }
        Ok(())
    }

    /// Processes that ended though nobody asked them to.
    pub fn fallen(&mut self) -> Vec<String> {
        let fallen = |member: &mut Member| member.has_fallen().then(|| member.name().to_owned());
        self.members.iter_mut().filter_map(fallen).collect()
    }

    /// The NATS servers, to break them.
    pub const fn nats(&mut self) -> &mut NatsServers {
        &mut self.nats
    }

    /// The CQL nodes, to break them.
    pub const fn cql(&mut self) -> &mut Cassandra {
        &mut self.cql
    }

    /// Copies the NATS servers' files aside; they are down for that moment.
    pub async fn keep_logs(&mut self) -> Result<(), ClusterError> {
        self.nats.all_down(Down::Killed);
        self.nats.keep_data().map_err(ClusterError::nats)?;
        self.nats.start_all().await.map_err(ClusterError::nats)
    }

    /// Kills everything but the CQL nodes, takes from every NATS server what it has got since [`Cluster::keep_logs`],
    /// and starts all again: the logs have lost their end on every replica.
    pub async fn lose_end_of_logs(&mut self) -> Result<(), ClusterError> {
        self.kill_members();
        self.nats.all_down(Down::Killed);
        self.nats.go_back_to_kept_data().map_err(ClusterError::nats)?;
        self.nats.start_all().await.map_err(ClusterError::nats)?;
        self.restart_members().await
    }

    /// Ends everything: the roles in order, edges first, then the servers under them. Says to `told` what ends.
    pub async fn close(mut self, told: &(dyn Fn(&str) + Sync)) -> Result<(), ClusterError> {
        let mut failed = None;
        for role in [Role::Edge, Role::Delivery, Role::Conversations, Role::Links, Role::Media, Role::Directory] {
            for name in self.names(Some(role)) {
                told(&name);
                failed = self.end(&name).await.err().or(failed);
            }
        }
        told("the servers");
        self.nats.all_down(Down::Killed);
        self.cql.kill_all();
        failed.map_or(Ok(()), Err)
    }
}

/// Makes certificates and configuration of every process.
fn members(settings: &ClusterSettings, engines: (&NatsServers, &Cassandra)) -> Result<Vec<Member>, ClusterError> {
    let folder = settings.folder.join("roles");
    let authority = Authority::create(&folder)?;
    let count = settings.roles.iter().map(|(_, count)| count).sum::<usize>();
    let ports = free_ports(count * PORTS_EACH).map_err(ClusterError::io("finding free ports"))?;
    let names = settings.roles.iter().flat_map(|&(role, count)| (1..=count).map(move |number| (role, number)));
    let plans: Vec<Plan> = names
        .zip(ports.chunks(PORTS_EACH))
        .map(|((role, number), ports)| Plan::new(role, number, [ports[0], ports[1]]))
        .collect();
    let common = configuration::Common::new(settings, engines, &plans, authority.public());
    let member = |plan: Plan| {
        let certificate = authority.certify(&plan.name, &[plan.role], Ipv4Addr::LOCALHOST)?;
        let config = folder.join(format!("{}.toml", plan.name));
        let text = common.text(&plan, &authority, &certificate, &folder.join(&plan.name));
        fs::write(&config, text).map_err(ClusterError::io("writing a configuration"))?;
        let log = settings.folder.join("logs").join(format!("{}.log", plan.name));
        Ok(Member::new(plan, config, log))
    };
    plans.iter().cloned().map(member).collect()
}

/// The binary `pli` beside the example or test that runs now.
pub fn program() -> Result<PathBuf, ClusterError> {
    let here = std::env::current_exe().map_err(ClusterError::io("asking for the path of this program"))?;
    let profile = here.parent().and_then(std::path::Path::parent).unwrap_or(&here);
    let program = profile.join("pli");
    if program.exists() { Ok(program) } else { Err(ClusterError::NoProgram(program)) }
}
