// SPDX-License-Identifier: MIT OR Apache-2.0
//! The node that the tests share, one after the other.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pli_engine_cql::{Compaction, CqlEngine, CqlOptions, migrate};
use pli_testkit::engines::EngineError;
use pli_testkit::engines::cassandra::{Cassandra, Launch, free_addresses, jars};
use pli_testkit::time::{RuntimeClock, START};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use tokio::sync::{Mutex, MutexGuard};

/// A node.
pub struct Server {
    /// None for a server that was there already.
    pub ring: Option<Cassandra>,
    pub options: CqlOptions,
    /// Of the authority that signed the node's certificate.
    pub ca_file: Option<PathBuf>,
}

static SERVER: Mutex<Option<Server>> = Mutex::const_new(None);

/// Files of this process's nodes; what other processes left is removed.
pub fn folder(name: &str) -> PathBuf {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cassandra");
    for entry in std::fs::read_dir(&parent).into_iter().flatten().flatten() {
        let owner = entry.file_name().to_string_lossy().split('-').next().unwrap_or_default().to_owned();
        let known = Path::new("/proc/self").exists();
        if known && !Path::new("/proc").join(owner).exists() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    parent.join(format!("{}-{name}", std::process::id()))
}

pub fn options(contact_points: Vec<String>) -> CqlOptions {
    CqlOptions {
        contact_points,
        keyspace: "pli_test".into(),
        replication: 1,
        compaction: Compaction::Unified,
        production: false,
        deadline: Duration::from_secs(20),
        ..CqlOptions::default()
    }
}

fn named(variable: &str) -> Option<String> {
    std::env::var(format!("PLI_TEST_CQL{variable}")).ok().filter(|value| !value.is_empty())
}

/// A certificate for the address, and the authority that signed it, as PEM files in `folder`.
fn certificate(folder: &Path, address: std::net::Ipv4Addr) -> (PathBuf, PathBuf) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec![address.to_string()]).unwrap().signed_by(&key, &issuer).unwrap();
    std::fs::create_dir_all(folder).unwrap();
    let (node, ca_file) = (folder.join("node.pem"), folder.join("ca.pem"));
    std::fs::write(&node, format!("{}{}", key.serialize_pem(), leaf.pem())).unwrap();
    std::fs::write(&ca_file, ca).unwrap();
    (node, ca_file)
}

async fn launch() -> Result<Server, EngineError> {
    let clock = Arc::new(RuntimeClock::new(START));
    if let Some(address) = named("") {
        let base = options(vec![address]);
        let options = CqlOptions {
            keyspace: format!("pli_test_{}", std::process::id()),
            datacentre: named("_DATACENTRE").unwrap_or(base.datacentre.clone()),
            user: named("_USER"),
            password: named("_PASSWORD"),
            clock,
            ..base
        };
        return Ok(Server { ring: None, options, ca_file: None });
    }
    let addresses = free_addresses(1)?;
    let (node, ca_file) = certificate(&folder("certificates"), addresses[0]);
    let launch = Launch { jars: jars()?, folder: folder("node"), nodes: 1, login: true, certificate: Some(node) };
    let ring = Cassandra::start(launch, &addresses).await?;
    let (user, password) = (Some("cassandra".into()), Some("cassandra".into()));
    let options = CqlOptions { user, password, clock, ..options(ring.contact_points()) };
    Ok(Server { ring: Some(ring), options, ca_file: Some(ca_file) })
}

/// The shared node, for one test at a time; none where it cannot be had: the test is skipped, by name.
pub async fn server(test: &str) -> Option<Turn> {
    let mut server = SERVER.lock().await;
    if server.is_none() {
        let made = match launch().await {
            Ok(made) => made,
            Err(EngineError::Unavailable(why)) => {
                println!("skipped: {test}: {why}");
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        until_it_lets_in(&made.options).await;
        let migrated = migrate(&made.options).await.unwrap();
        println!("schema version {}", migrated.to);
        *server = Some(made);
    }
    Some(Turn(server))
}

/// A node makes its first user some time after it answers.
async fn until_it_lets_in(options: &CqlOptions) {
    for _ in 0..300 {
        match raw(options).await {
            Ok(_) => return,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    panic!("the node does not let its first user in");
}

pub struct Turn(MutexGuard<'static, Option<Server>>);

impl std::ops::Deref for Turn {
    type Target = Server;
    fn deref(&self) -> &Server {
        self.0.as_ref().unwrap()
    }
}

impl std::ops::DerefMut for Turn {
    fn deref_mut(&mut self) -> &mut Server {
        self.0.as_mut().unwrap()
    }
}

impl Server {
    pub async fn engine(&self) -> CqlEngine {
        CqlEngine::open(&self.options).await.unwrap()
    }

    /// Kills the node (SIGKILL) and starts it again; false for a server that was there already.
    pub async fn kill_and_resume(&mut self) -> bool {
        let Some(ring) = self.ring.as_mut() else { return false };
        ring.kill(0);
        ring.resume(0).await.unwrap();
        true
    }

    /// A session beside the engine.
    pub async fn raw(&self) -> Session {
        raw(&self.options).await.unwrap()
    }
}

async fn raw(options: &CqlOptions) -> Result<Session, scylla::errors::NewSessionError> {
    let mut builder = SessionBuilder::new().known_nodes(&options.contact_points).fetch_schema_metadata(false);
    if let (Some(user), Some(password)) = (&options.user, &options.password) {
        builder = builder.user(user, password);
    }
    builder.build().await
}

/// Empties tables of the keyspace.
pub async fn truncate(session: &Session, options: &CqlOptions, tables: &[&str]) {
    let each = tables.iter().map(|table| async move {
        let cql = format!("TRUNCATE {}.{table}", options.keyspace);
        session.query_unpaged(cql, ()).await.unwrap();
    });
    futures::future::join_all(each).await;
}

pub fn soaking() -> bool {
    std::env::var_os("PLI_SOAK").is_some()
}
